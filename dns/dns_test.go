package dns

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// question writes a question as clients do; size is what the client says of its buffer, 0: nothing.
func question(t testing.TB, name string, kind dnsmessage.Type, size int) []byte {
	t.Helper()
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: 0x1234, RecursionDesired: true})
	b.StartQuestions()
	if err := b.Question(dnsmessage.Question{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}); err != nil {
		t.Fatal(err)
	}
	if size > 0 {
		b.StartAdditionals()
		var h dnsmessage.ResourceHeader
		h.SetEDNS0(size, 0, false)
		b.OPTResource(h, dnsmessage.OPTResource{})
	}
	out, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// read gives a reply's code and answers as text.
func read(t testing.TB, reply []byte) (h dnsmessage.Header, answers []string, edns bool) {
	t.Helper()
	var m dnsmessage.Message
	if err := m.Unpack(reply); err != nil {
		t.Fatalf("the reply %x can't be read: %v", reply, err)
	}
	for _, a := range m.Answers {
		switch b := a.Body.(type) {
		case *dnsmessage.AResource:
			answers = append(answers, netip.AddrFrom4(b.A).String())
		case *dnsmessage.AAAAResource:
			answers = append(answers, netip.AddrFrom16(b.AAAA).String())
		case *dnsmessage.PTRResource:
			answers = append(answers, b.PTR.String())
		}
		if a.Header.TTL != 0 {
			t.Errorf("an answer lives for %d s; a container can be gone with the next packet", a.Header.TTL)
		}
	}
	for _, a := range m.Additionals {
		edns = edns || a.Header.Type == dnsmessage.TypeOPT
	}
	return m.Header, answers, edns
}

func table(t testing.TB) Directories {
	t.Helper()
	dir := t.TempDir()
	add := func(network, owner string, names []string, addrs ...string) {
		var list []netip.Addr
		for _, a := range addrs {
			list = append(list, netip.MustParseAddr(a))
		}
		if err := Add(filepath.Join(dir, network), owner, names, list); err != nil {
			t.Fatal(err)
		}
	}
	add("front", "aaa", []string{"web", "aaa", "Www.Example.com"}, "172.31.0.2", "fd00::2")
	add("front", "bbb", []string{"web2", "pool"}, "172.31.0.3")
	add("front", "ccc", []string{"web3", "pool"}, "172.31.0.4")
	add("back", "ddd", []string{"db"}, "172.32.0.2")
	add("back", "eee", []string{"web"}, "172.32.0.3")
	return Directories{
		{Path: filepath.Join(dir, "front"), Network: "front", Subnets: []netip.Prefix{netip.MustParsePrefix("172.31.0.0/16")}},
		{Path: filepath.Join(dir, "back"), Network: "back"},
	}
}

func TestAnswer(t *testing.T) {
	names := table(t)
	for _, c := range []struct {
		name string
		kind dnsmessage.Type
		code dnsmessage.RCode
		want string
		ask  bool
	}{
		{"web.", dnsmessage.TypeA, 0, "172.31.0.2", false},
		{"WeB.", dnsmessage.TypeA, 0, "172.31.0.2", false},
		{"web.", dnsmessage.TypeAAAA, 0, "fd00::2", false},
		{"web.front.", dnsmessage.TypeA, 0, "172.31.0.2", false},
		{"web.back.", dnsmessage.TypeA, 0, "172.32.0.3", false},
		{"www.example.com.", dnsmessage.TypeA, 0, "172.31.0.2", false},
		{"aaa.", dnsmessage.TypeALL, 0, "172.31.0.2 fd00::2", false},
		{"db.", dnsmessage.TypeA, 0, "172.32.0.2", false},
		{"db.", dnsmessage.TypeAAAA, 0, "", false}, // known, and has none: not unknown
		{"db.", dnsmessage.TypeMX, 0, "", false},
		{"db.front.", dnsmessage.TypeA, 3, "", true},
		{"example.com.", dnsmessage.TypeA, 3, "", true},
		{"2.0.31.172.in-addr.arpa.", dnsmessage.TypePTR, 0, "web.front.", false},
		{"9.9.31.172.in-addr.arpa.", dnsmessage.TypePTR, 3, "", false}, // ours, and nobody's
		{"8.8.8.8.in-addr.arpa.", dnsmessage.TypePTR, 3, "", true},
		{"2." + strings.Repeat("0.", 27) + "0.0.d.f.ip6.arpa.", dnsmessage.TypePTR, 0, "web.front.", false},
		{".", dnsmessage.TypeNS, 3, "", true},
		{"..\\/..\\/etc.", dnsmessage.TypeA, 3, "", true},
		{"172.31.0.2.", dnsmessage.TypeA, 3, "", true}, // a link in the directory, but no name
	} {
		if strings.Contains(c.name, "..") {
			continue // no client can write it; FuzzAnswer does
		}
		reply, ask := Answer(question(t, c.name, c.kind, 0), names, false, 0)
		h, answers, _ := read(t, reply)
		if got := strings.Join(answers, " "); h.RCode != c.code || got != c.want || ask != c.ask {
			t.Errorf("%s %v: code %v, %q, ask %v; want %v, %q, %v", c.name, c.kind, h.RCode, got, ask, c.code, c.want, c.ask)
		}
		if !h.Response || h.ID != 0x1234 || !h.RecursionDesired || !h.RecursionAvailable {
			t.Errorf("%s: header %+v", c.name, h)
		}
	}
}

// A name that several have is answered with all, in turns.
func TestRoundRobin(t *testing.T) {
	names := table(t)
	first := map[string]bool{}
	for turn := range uint(2) {
		reply, _ := Answer(question(t, "pool.", dnsmessage.TypeA, 0), names, false, turn)
		_, answers, _ := read(t, reply)
		if len(answers) != 2 {
			t.Fatalf("pool has %q, want two addresses", answers)
		}
		first[answers[0]] = true
	}
	if len(first) != 2 {
		t.Errorf("the first address is always the same: %v", first)
	}
}

// What is too long for the client's buffer says so, and comes whole over TCP.
func TestLong(t *testing.T) {
	dir := t.TempDir()
	for i := range 200 {
		addr := netip.AddrFrom4([4]byte{10, 0, 1, byte(i)})
		if err := Add(dir, addr.String(), []string{"many"}, []netip.Addr{addr}); err != nil {
			t.Fatal(err)
		}
	}
	names := Directories{{Path: dir}}
	for _, c := range []struct {
		size   int
		stream bool
		want   int
	}{{0, false, 0}, {512, false, 0}, {1232, false, 0}, {4096, false, 200}, {65535, false, 200}, {0, true, 200}, {7, false, 0}} {
		reply, _ := Answer(question(t, "many.", dnsmessage.TypeA, c.size), names, c.stream, 0)
		h, answers, edns := read(t, reply)
		if len(answers) != c.want || h.Truncated != (c.want == 0) || edns != (c.size > 0) {
			t.Errorf("buffer of %d, TCP %v: %d answers, truncated %v, EDNS %v", c.size, c.stream, len(answers), h.Truncated, edns)
		}
	}
}

// What is no question gets no answer, and what is a wrong one gets the right refusal.
func TestWrong(t *testing.T) {
	names := table(t)
	good := question(t, "web.", dnsmessage.TypeA, 0)
	change := func(f func([]byte)) []byte { b := slices.Clone(good); f(b); return b }
	for _, c := range []struct {
		name  string
		query []byte
		code  int // -1: none
	}{
		{"nothing", nil, -1},
		{"half a header", good[:7], -1},
		{"an answer", change(func(b []byte) { b[2] |= 0x80 }), -1},
		{"an update", change(func(b []byte) { b[2] |= 5 << 3 }), 4},
		{"no question", change(func(b []byte) { b[5] = 0 })[:12], 1},
		{"two questions", change(func(b []byte) { b[5] = 2 }), 1},
		{"cut", good[:len(good)-2], 1},
		{"class CH", change(func(b []byte) { b[len(b)-1] = 3 }), 5},
		{"an additional that isn't there", change(func(b []byte) { b[11] = 1 }), 1},
	} {
		reply, ask := Answer(c.query, names, false, 0)
		if ask {
			t.Errorf("%s: the outside is asked", c.name)
		}
		if c.code < 0 {
			if reply != nil {
				t.Errorf("%s: answered with %x", c.name, reply)
			}
			continue
		}
		if h, _, _ := read(t, reply); int(h.RCode) != c.code {
			t.Errorf("%s: code %v, want %v", c.name, h.RCode, c.code)
		}
	}
}

// A name is there as long as somebody has it, and leaves nothing behind.
func TestRemove(t *testing.T) {
	dir := t.TempDir()
	a, b := netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")
	for owner, addr := range map[string]netip.Addr{"aaa": a, "bbb": b} {
		if err := Add(dir, owner, []string{owner, "pool"}, []netip.Addr{addr}); err != nil {
			t.Fatal(err)
		}
	}
	if err := Remove(dir, "aaa", []string{"aaa", "pool"}, []netip.Addr{a}); err != nil {
		t.Fatal(err)
	}
	names := Directories{{Path: dir}}
	if addrs, ok := names.Addresses("pool"); !ok || !slices.Equal(addrs, []netip.Addr{b}) {
		t.Errorf("pool has %v, want %v", addrs, b)
	}
	if _, ok := names.Addresses("aaa"); ok {
		t.Error("aaa is still there")
	}
	if err := Forget(dir, "bbb"); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if err := Remove(dir, "bbb", []string{"bbb"}, nil); err != nil {
		t.Errorf("what isn't there can't be removed: %v", err)
	}
}

// Many who come and go with one name never get into each other's way.
func TestManyComeAndGo(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			addr := netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
			for range 300 {
				if err := Add(dir, addr.String()+"-id", []string{"pool"}, []netip.Addr{addr}); err != nil {
					t.Error(err)
					return
				}
				if got, _ := (Directories{{Path: dir}}).Addresses("pool"); !slices.Contains(got, addr) {
					t.Errorf("%v isn't in %v", addr, got)
				}
				if err := Remove(dir, addr.String()+"-id", []string{"pool"}, []netip.Addr{addr}); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	wg.Wait()
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestValidName(t *testing.T) {
	for name, want := range map[string]bool{
		"web": true, "my_app-1": true, "a.b.c": true, "1": true, "": false, ".": false, "..": false, "a..b": false, "a/b": false, "WEB": false,
		"a\x00": false, "a b": false, "10.0.0.1": false, "fd00::1": false, strings.Repeat("a", 64): false,
		strings.Repeat("a.", 126) + "b": true, strings.Repeat("a.", 127) + "b": false, ".web": false, "web.": false, "ä": false,
	} {
		if got := ValidName(name); got != want {
			t.Errorf("%q: %v, want %v", name, got, want)
		}
	}
}

// FuzzAnswer gives the resolver whatever a container can send.
func FuzzAnswer(f *testing.F) {
	names := table(f)
	f.Add(question(f, "web.", dnsmessage.TypeA, 0), false)
	f.Add(question(f, "2.0.31.172.in-addr.arpa.", dnsmessage.TypePTR, 4096), true)
	f.Fuzz(func(t *testing.T, query []byte, stream bool) {
		reply, ask := Answer(query, names, stream, 1)
		if reply == nil {
			if ask {
				t.Error("the outside is asked what is no question")
			}
			return
		}
		var m dnsmessage.Message
		if err := m.Unpack(reply); err != nil {
			t.Fatalf("the reply %x to %x can't be read: %v", reply, query, err)
		}
		if !m.Response || !stream && len(reply) > largest || reply[0] != query[0] || reply[1] != query[1] {
			t.Errorf("reply %x to %x", reply, query)
		}
		if next, _ := Answer(reply, names, stream, 1); next != nil {
			t.Errorf("the answer %x is answered", reply)
		}
	})
}
