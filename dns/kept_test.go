package dns

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// asker asks one server again and again by one socket.
type asker struct {
	t    testing.TB
	conn net.Conn
	buf  []byte
}

func newAsker(t testing.TB, server netip.AddrPort) *asker {
	t.Helper()
	conn, err := net.Dial("udp4", server.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	return &asker{t, conn, make([]byte, 4096)}
}

func (a *asker) ask(name string, kind dnsmessage.Type, size int) (dnsmessage.Header, []string) {
	a.conn.Write(question(a.t, name, kind, size))
	n, err := a.conn.Read(a.buf)
	if err != nil {
		a.t.Errorf("%s: %v", name, err)
		return dnsmessage.Header{}, nil
	}
	h, answers, _ := read(a.t, a.buf[:n])
	return h, answers
}

// What is asked again and again is answered from memory, and still every change is known to the next question: a name that comes, goes,
// gets another address, or another container that has it, too.
func TestKeptAnswersAreTrue(t *testing.T) {
	dirs := table(t)
	var c atomic.Pointer[Config]
	c.Store(&Config{Names: dirs})
	s := &Server{Config: c.Load, TCP: -1}
	var udp netip.AddrPort
	s.UDP, udp = socket(t, unix.SOCK_DGRAM)
	s.Start()
	a := newAsker(t, udp)
	want := func(name string, want ...string) {
		t.Helper()
		for range 2 { // the second one is kept
			_, got := a.ask(name, dnsmessage.TypeA, 0)
			slices.Sort(got)
			if strings.Join(got, " ") != strings.Join(want, " ") {
				t.Fatalf("%s: %q, want %q", name, got, want)
			}
		}
	}
	for i := range 200 {
		addr, other := netip.AddrFrom4([4]byte{172, 31, 1, byte(i)}), netip.AddrFrom4([4]byte{172, 31, 2, byte(i)})
		want("new.")
		for owner, addr := range map[string]netip.Addr{"one": addr, "two": other} {
			if err := Add(dirs[0].Path, owner, []string{"new"}, []netip.Addr{addr}); err != nil {
				t.Fatal(err)
			}
		}
		want("new.", addr.String(), other.String())
		if err := Remove(dirs[0].Path, "one", []string{"new"}, []netip.Addr{addr}); err != nil {
			t.Fatal(err)
		}
		want("new.", other.String())
		want("web.", "172.31.0.2")
		if err := Forget(dirs[0].Path, "two"); err != nil {
			t.Fatal(err)
		}
	}
	// Another configuration, as after network disconnect.
	want("db.", "172.32.0.2")
	c.Store(&Config{Names: dirs[:1]})
	want("db.")
}

// Whoever asks at the same time as names come and go is told the truth of a moment that lies within his question.
func TestKeptBesideChanges(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "names")
	c := &Config{Names: Directories{{Path: dir}}}
	s := &Server{Config: func() *Config { return c }, TCP: -1}
	var udp netip.AddrPort
	s.UDP, udp = socket(t, unix.SOCK_DGRAM)
	s.Start()
	var wg sync.WaitGroup
	for i := range 4 {
		a := newAsker(t, udp)
		wg.Add(1)
		go func() {
			defer wg.Done()
			name, id := fmt.Sprintf("c%d", i), fmt.Sprintf("id%d", i)
			for turn := range 300 {
				addr := netip.AddrFrom4([4]byte{10, byte(i), byte(turn >> 8), byte(turn)})
				if err := Add(dir, id, []string{name, "pool"}, []netip.Addr{addr}); err != nil {
					t.Error(err)
				}
				for _, n := range []string{name + ".", "pool."} {
					if _, got := a.ask(n, dnsmessage.TypeA, 0); !slices.Contains(got, addr.String()) {
						t.Errorf("%s: %q, and %s was there before the question", n, got, addr)
					}
				}
				if err := Remove(dir, id, []string{name, "pool"}, []netip.Addr{addr}); err != nil {
					t.Error(err)
				}
				for _, n := range []string{name + ".", "pool."} {
					if _, got := a.ask(n, dnsmessage.TypeA, 0); slices.Contains(got, addr.String()) {
						t.Errorf("%s: %q, and %s was gone before the question", n, got, addr)
					}
				}
			}
		}()
	}
	wg.Wait()
}

// The addresses of a name take turns also when they are kept, and each form of a question has its own answer.
func TestKeptTurns(t *testing.T) {
	udp, _ := serve(t)
	a := newAsker(t, udp)
	first := map[string]int{}
	for range 20 {
		h, got := a.ask("pool.", dnsmessage.TypeA, 0)
		if len(got) != 2 || h.ID != 0x1234 || got[0] == got[1] {
			t.Fatalf("%v %q", h, got)
		}
		first[got[0]]++
		if _, got := a.ask("pool.", dnsmessage.TypeAAAA, 0); len(got) != 0 {
			t.Fatalf("AAAA: %q", got)
		}
		if _, got := a.ask("POOL.", dnsmessage.TypeA, 1232); len(got) != 2 {
			t.Fatalf("%q", got)
		}
	}
	if first["172.31.0.3"] != 10 || first["172.31.0.4"] != 10 {
		t.Errorf("who was first, and how often: %v", first)
	}
}

// What is kept is bounded, however many names a container asks for in however many ways; it is found without an allocation, and not
// believed for ever of names that nobody says the changes of.
func TestKeptIsBounded(t *testing.T) {
	dirs := table(t)
	c := &Config{Names: dirs}
	begin := time.Now()
	var k kept
	k.renew(c, begin)
	ask := func(name string) []byte {
		q := question(t, name, dnsmessage.TypeA, 0)
		reply, turn := k.find(q, 7)
		if reply == nil {
			var ask bool
			if reply, ask = Answer(q, dirs, false, turn); !ask {
				k.keep(q, reply, turn)
			}
		}
		return reply
	}
	for i := range 5000 {
		name := []byte("www.example.com.") // the ways to write it
		for bit := range 13 {
			if i>>bit&1 == 1 && name[bit] != '.' {
				name[bit] -= 'a' - 'A'
			}
		}
		if _, got, _ := read(t, ask(string(name))); len(got) != 1 {
			t.Fatalf("%s: %q", name, got)
		}
		if k.size > mostKept || len(k.answers)*60 > mostKept {
			t.Fatalf("after %d questions: %d answers, %d bytes", i+1, len(k.answers), k.size)
		}
	}
	q := question(t, "web.", dnsmessage.TypeA, 0)
	ask("web.")
	if n := testing.AllocsPerRun(100, func() {
		k.renew(c, begin)
		if reply, _ := k.find(q, 0); reply == nil {
			t.Error("web isn't kept")
		}
	}); n > 0 {
		t.Errorf("%v allocations for a question", n)
	}
	k.renew(c, begin.Add(keptFor+1))
	if reply, _ := k.find(q, 0); reply != nil {
		t.Error("web is kept for ever")
	}
	ask("web.")
	if k.renew(&Config{Names: dirs, Walls: []Wall{{}}}, begin); len(k.tallies) > 0 {
		t.Error("behind a wall answers are kept")
	}
}

// A thousand questions at once are each answered.
func TestManyAtOnce(t *testing.T) {
	udp, _ := serve(t)
	a := newAsker(t, udp)
	for range 10 {
		for range 100 {
			a.conn.Write(question(t, "web.", dnsmessage.TypeA, 0))
		}
		for range 100 {
			n, err := a.conn.Read(a.buf)
			if err != nil {
				t.Fatal(err)
			}
			if _, got, _ := read(t, a.buf[:n]); len(got) != 1 || got[0] != "172.31.0.2" {
				t.Fatalf("%q", got)
			}
		}
	}
}
