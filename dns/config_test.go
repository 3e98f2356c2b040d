package dns

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A container that is connected to another network while it runs, and a host that gets other servers, are known to the next question.
func TestWatch(t *testing.T) {
	dir := t.TempDir()
	own, host := filepath.Join(dir, "resolver"), filepath.Join(dir, "resolv.conf")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		if err := Tell(path); err != nil {
			t.Fatal(err)
		}
	}
	write(host, "search example.com\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\nnameserver nonsense\n")
	write(own, "# a comment\nnetwork front /x 10.0.0.0/8 fd00::/64\nservers "+host+"\n")
	get := Watch(own)
	c := get()
	want := Directories{{Path: "/x", Network: "front", Subnets: []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/64"),
	}}}
	if got := fmt.Sprint(c.Names); got != fmt.Sprint(want) {
		t.Errorf("names %v, want %v", got, want)
	}
	if got := fmt.Sprint(c.Servers); got != "[192.0.2.1:53 [fe80::1%eth0]:53]" {
		t.Errorf("servers %v", got)
	}
	if get() != c {
		t.Error("what hasn't changed is read again")
	}
	write(own, "network front /x\nnetwork back /y\nserver 192.0.2.7\n")
	c = get()
	if len(c.Names.(Directories)) != 2 || fmt.Sprint(c.Servers) != "[192.0.2.7:53]" {
		t.Errorf("after a change: %+v", c)
	}
	write(own, "network front /x\nservers "+host+"\n")
	get()
	write(host, "nameserver 192.0.2.2\n")
	time.Sleep(1100 * time.Millisecond)
	if c = get(); fmt.Sprint(c.Servers) != "[192.0.2.2:53]" {
		t.Errorf("the host's servers are %v", c.Servers)
	}
	// Somebody who tells nobody is heard of, too.
	if err := os.Remove(own); err != nil {
		t.Fatal(err)
	}
	time.Sleep(1100 * time.Millisecond)
	if c = get(); len(c.Names.(Directories)) != 0 || c.Servers != nil {
		t.Errorf("without its file: %+v", c)
	}
}
