package network

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/container"
	"glassbox/plan"
	"glassbox/wire"
)

// wallOf reads the entries of a wall as a flag would be.
func wallOf(t testing.TB, egress, ingress string) *wall {
	t.Helper()
	w := &wall{}
	for _, side := range []struct {
		text, flag string
		texts      *[]string
		doors      *[]container.Door
	}{{egress, "egress", &w.egress, &w.out}, {ingress, "ingress", &w.ingress, &w.in}} {
		if side.text == "" {
			continue
		}
		var err error
		if *side.texts, err = container.ParseWall(side.flag, []string{side.text}); err != nil {
			t.Fatal(err)
		}
		for _, text := range *side.texts {
			if d, err := container.ParseDoor(text); err == nil && text != container.WallDeny {
				*side.doors = append(*side.doors, d)
				w.names = w.names || d.Name != ""
			}
		}
	}
	return w
}

// raise builds the wall of the world's first container, with its rules changed by a mutation.
func (w *world) raise(t testing.TB, egress, ingress string, mutate func([]string) []string) {
	t.Helper()
	w.e1.wall = wallOf(t, egress, ingress)
	rules := wallRules(w.net, w.e1)
	if mutate != nil {
		rules = mutate(slices.Clone(rules))
	}
	if err := w.host.run(w.c1, []plan.Step{{Op: &plan.NftWall{Table: w.e1.Link, Link: w.e1.Link, Rules: rules}}}); err != nil {
		t.Fatal(err)
	}
}

// What is allowed arrives, all else is refused at once, and remembered.
func TestWall(t *testing.T) {
	w := newWorld(t, -1, true)
	w.outside.serve("tcp", "0.0.0.0:80", "web")
	w.outside.serve("tcp", "0.0.0.0:81", "other")
	w.outside.serve("udp", "0.0.0.0:53", "dns")
	w.c2.serve("tcp", "0.0.0.0:80", "neighbour")
	w.host.serve("tcp", "0.0.0.0:22", "host")
	w.c1.serve("tcp", "0.0.0.0:8000", "walled")
	check := func(from *namespace, proto, to, want string) {
		t.Helper()
		start := time.Now()
		if got := from.ask(proto, to, want); got != want && !strings.Contains(got, want) {
			t.Errorf("%s %s: %q, want %q", proto, to, got, want)
		}
		if took := time.Since(start); want == "refused" && took > time.Second {
			t.Errorf("%s %s: the refusal took %v", proto, to, took)
		}
	}
	const gateway = "172.30.0.1"
	w.raise(t, "192.0.2.2:80", "", nil)
	check(w.c1, "tcp", "192.0.2.2:80", "web")
	check(w.c1, "tcp", "192.0.2.2:81", "refused")
	check(w.c1, "udp", "192.0.2.2:53", "no route to host")         // ICMP: administratively prohibited
	check(w.c1, "tcp", w.e2.IP.String()+":80", "no route to host") // he isn't even asked where he is
	check(w.c1, "tcp", gateway+":22", "refused")
	check(w.c1, "tcp", "192.0.2.1:22", "refused")
	check(w.c2, "tcp", w.e1.IP.String()+":8000", "walled sees "+w.e2.IP.String())
	check(w.host, "tcp", w.e1.IP.String()+":8000", "walled sees "+gateway)
	var all []wire.Refusal
	w.host.Do(func() {
		var err error
		if all, err = wire.Refusals(w.e1.Link, time.Now()); err != nil {
			panic(err)
		}
	})
	var got []string
	for _, r := range all {
		got = append(got, fmt.Sprintf("%s:%d/%s %v", r.Address, r.Port, r.Proto, r.Packets > 0))
		if ago := time.Since(r.Last); ago < -time.Second || ago > time.Minute {
			t.Errorf("%v: the last time was %v ago", r, ago)
		}
	}
	slices.Sort(got)
	want := []string{
		gateway + ":22/tcp true", w.e2.IP.String() + ":0/arp true", "192.0.2.1:22/tcp true", "192.0.2.2:53/udp true", "192.0.2.2:81/tcp true",
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("refused: %q, want %q", got, want)
	}

	// The wall is what the plan says, and says so when somebody takes a stone out.
	op := &plan.NftWall{Table: w.e1.Link, Link: w.e1.Link, Rules: wallRules(w.net, w.e1)}
	look := func() (s *wire.TableState) {
		w.host.Do(func() {
			var err error
			if s, err = wire.LookWall(op); err != nil {
				panic(err)
			}
		})
		return s
	}
	if s := look(); !s.Exists || len(s.Missing)+len(s.Extra) > 0 {
		t.Errorf("%+v", s)
	}
	w.host.Sh("nft flush chain netdev %s refuse", w.e1.Link)
	if s := look(); len(s.Missing) == 0 {
		t.Error("a chain without its rules is taken for whole")
	}

	w.raise(t, "deny", "", nil)
	check(w.c1, "tcp", "192.0.2.2:80", "refused")
	check(w.c2, "tcp", w.e1.IP.String()+":8000", "walled")

	// Who may come in. Its own connections have their answers.
	w.raise(t, "", w.e2.IP.String()+":8000", nil)
	check(w.c2, "tcp", w.e1.IP.String()+":8000", "walled")
	check(w.host, "tcp", w.e1.IP.String()+":8000", "silence")
	check(w.c1, "tcp", "192.0.2.2:80", "web")
	check(w.c1, "udp", "192.0.2.2:53", "dns")

	// A name's addresses, for a time.
	w.raise(t, "example.com:80", "", nil)
	check(w.c1, "tcp", "192.0.2.2:80", "refused")
	w.host.Do(func() {
		addrs, doors := []netip.Addr{netip.MustParseAddr("192.0.2.2")}, []wire.Door{{Proto: "tcp", Port: 80}}
		err := wire.OpenDoors(w.e1.Link, addrs, doors, 2*time.Second)
		if err != nil {
			panic(err)
		}
	})
	check(w.c1, "tcp", "192.0.2.2:80", "web")
	check(w.c1, "tcp", "192.0.2.2:81", "refused")
	time.Sleep(2500 * time.Millisecond)
	check(w.c1, "tcp", "192.0.2.2:80", "refused")

	if err := w.host.run(w.c1, []plan.Step{{Op: &plan.NftUnwall{Table: w.e1.Link}}, {Op: &plan.NftUnwall{Table: w.e1.Link}}}); err != nil {
		t.Fatal(err)
	}
	check(w.c1, "tcp", "192.0.2.2:81", "other")
}

var _ = binary.BigEndian
var _ = unix.AF_PACKET
