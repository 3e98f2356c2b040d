package wire

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"glassbox/plan"
	"glassbox/test/netns"
)

// rules are those of a bridge, as package network writes them: its tests keep the file.
func rules(t testing.TB) []string {
	t.Helper()
	data, err := os.ReadFile("testdata/rules.nft")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(data)), "\n")
}

var update = flag.Bool("update", false, "write the golden files")

// TestMessages compares the bytes of the requests with those that were tried on a kernel. The files are for little endian.
func TestMessages(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the golden files are for little endian machines")
	}
	var r request
	r.begin()
	if err := r.compile("glassbox0", rules(t)); err != nil {
		t.Fatal(err)
	}
	e, err := portElement(plan.PortRule{Proto: "udp", HostIP: "127.0.0.1", HostPort: 5353, ContainerIP: "172.30.0.2", ContainerPort: 53})
	if err != nil {
		t.Fatal(err)
	}
	r.element(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, "glassbox0", e)
	r.commit()
	r.finish()
	var b strings.Builder
	if err := parse(r.b, func(m message) error {
		fmt.Fprintf(&b, "type %04x flags %04x seq %d\n%s", m.typ, m.flags, m.seq, hex.Dump(m.body))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	const name = "testdata/nft.hex"
	if *update {
		if err := os.WriteFile(name, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("%s (-want +got), -update writes it:\n%s", name, diff)
	}
}

// TestRulesAreNft feeds the printed rules to nft(8) and compares what the kernel has then with what it has after our own
// messages: what a plan shows is what it does.
func TestRulesAreNft(t *testing.T) {
	ours, theirs := netns.New(t), netns.New(t)
	lines := append(rules(t), "add rule ip glassbox0 forward ip saddr 10.64.0.0/10 ip daddr 192.0.2.1/32 accept")
	var err error
	ours.Do(func() { err = Open(nil).Do(&plan.NftBridge{Table: "glassbox0", Rules: lines}) })
	if err != nil {
		t.Fatal(err)
	}
	file := t.TempDir() + "/rules"
	text := strings.Join(lines, "\n") + "\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	theirs.Sh("nft -f %s", file)
	// Both are listed with the program's notes (--debug=netlink would show registers).
	list := func(ns *netns.NS) string {
		return ns.Sh("nft --debug=netlink list ruleset")
	}
	if diff := cmp.Diff(list(theirs), list(ours)); diff != "" {
		t.Errorf("nft -f and ours (-nft +ours):\n%s", diff)
	}
}

func TestCompileErrors(t *testing.T) {
	for _, line := range []string{
		"", "add", "add rule ip other forward drop", "delete table ip t", "add table ip t ; flush ruleset", "add rule ip t c",
		"add rule ip t c accept drop", "add rule ip t c iifname eth0 drop", `add rule ip t c iifname "a/b" drop`,
		`add rule ip t c iifname "a*" drop`,
		"add rule ip t c ip saddr 10.0.0.1/8 drop", "add rule ip t c ip saddr ::/0 drop", "add rule ip t c ip daddr 0.0.0.0/0 drop",
		"add chain ip t c { type route hook output priority 0 ; }", "add chain ip t c { type nat hook output priority x ; }",
		"add map ip t m { type ipv4_addr ; }", "add map ip t m { type foo : ipv4_addr ; }", "add rule ip t c dnat ip to th dport map published",
		"add rule ip t c dnat ip to th dport .", "add rule ip t c ip", "add rule ip t c ct state new drop",
	} {
		var r request
		if err := r.compile("t", []string{line}); err == nil && line != "add rule ip t c" {
			t.Errorf("%q: got no error", line)
		}
	}
}

func TestErrors(t *testing.T) {
	ns := netns.New(t)
	var err error
	ns.Do(func() { err = Open(nil).Do(&plan.LinkVeth{Name: "gb1", Peer: "eth0", Bridge: "none"}) })
	if !errors.Is(err, unix.ENODEV) {
		t.Errorf("veth on no bridge: got %v, want ENODEV", err)
	}
	ns.Do(func() {
		err = Open(nil).Do(&plan.NftBridge{Table: "t", Rules: []string{"add table ip t", "add rule ip t nochain drop"}})
	})
	if !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), "nochain") {
		t.Errorf("rule for no chain: got %v, want ENOENT and the line", err)
	}
	ns.Do(func() {
		ports := []plan.PortRule{{Proto: "tcp", HostPort: 1, ContainerIP: "10.0.0.1", ContainerPort: 1}}
		err = Open(nil).Do(&plan.NftPublish{Table: "t", Ports: ports})
	})
	if !errors.Is(err, unix.ENOENT) {
		t.Errorf("publish without a table: got %v, want ENOENT", err)
	}
	if err := Open(nil).Do(&plan.Umask{}); err == nil {
		t.Error("a step of another kind: got no error")
	}
	ns.Sh("ip link add glassbox0 type veth peer name x")
	ns.Do(func() { err = Open(nil).Do(&plan.LinkBridge{Name: "glassbox0", Address: "10.0.0.1/8"}) })
	if !errors.Is(err, unix.EEXIST) {
		t.Errorf("bridge where there is another link: got %v, want EEXIST", err)
	}
	ns.Do(func() {
		var c *Conn
		if c, err = Dial(unix.NETLINK_ROUTE); err == nil {
			defer c.Close()
			_, err = c.Link("", -5)
		}
	})
	t.Logf("with an explanation: %v", err)
	if err == nil {
		t.Error("link -5: got no error")
	}
}

func FuzzParse(f *testing.F) {
	var r request
	r.begin()
	if err := r.compile("glassbox0", rules(f)); err != nil {
		f.Fatal(err)
	}
	r.finish()
	f.Add(r.b)
	f.Add([]byte{20, 0, 0, 0, 2, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0xea, 0xff, 0xff, 0xff})
	f.Fuzz(func(_ *testing.T, b []byte) {
		_ = parse(b, func(m message) error {
			_ = m.err()
			m.typ = unix.NLMSG_ERROR
			_ = m.err()
			body := m.body
			if l, ok := parseLink(body); ok {
				moreOfLink(l, body)
			}
			parseAddress(body)
			anyAddress(body)
			parseRoute(body)
			anyRoute(body)
			parseRule(body)
			parseTag(body, "t")
			parseFlow(body)
			parseChain(body)
			parseSetElements(body)
			for _, e := range parseElements(body, unix.NFPROTO_IPV4, MapAny) {
				e.containerIP()
				e.udp()
				e.port()
			}
			for _, e := range parseElements(body, unix.NFPROTO_IPV6, MapOn) {
				e.udp()
				e.port()
			}
			return nil
		})
	})
}

func FuzzCompile(f *testing.F) {
	for _, l := range rules(f) {
		f.Add(l)
	}
	f.Fuzz(func(t *testing.T, line string) {
		var r request
		if r.compile("glassbox0", []string{line}) == nil {
			r.finish()
			if err := parse(r.b, func(message) error { return nil }); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
		}
	})
}
