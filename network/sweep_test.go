package network

import (
	"fmt"
	"strings"
	"testing"

	"glassbox/plan"
)

// TestSweep: what a guard says of a cable stays at its container's end, and is gone before it could be wrong, when many are swept, and
// when nobody is left.
func TestSweep(t *testing.T) {
	store := Store{t.TempDir(), t.TempDir()}
	host, inside := newNetns(t), newNetns(t)
	wired := func(id string, again bool) *Wiring {
		t.Helper()
		var w *Wiring
		var err error
		r := Request{Container: id, Again: again, Networks: []Attachment{{Network: Bridge}}}
		host.Do(func() { w, err = store.Wire(r, true, testOrigin) })
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	starts := func(id string, again bool) *Wiring {
		t.Helper()
		w := wired(id, again)
		if err := host.run(inside, w.Steps); err != nil {
			t.Fatal(err)
		}
		return w
	}
	want := func(when string, ids ...string) {
		t.Helper()
		got := host.Sh("nft list set bridge glassbox0 own")
		for _, id := range ids {
			if !strings.Contains(got, VethName(id, 0)) {
				t.Errorf("%s: nothing is said of %s: %s", when, id[:12], got)
			}
		}
		if n := strings.Count(got, `"gb`); n != len(ids) {
			t.Errorf("%s: %d entries, want %d: %s", when, n, len(ids), got)
		}
	}
	id := func(first, last string) string {
		return first + strings.Repeat("0", idLength-len(first)-len(last)) + last
	}
	stays, goes, again, sweeper := id("aa", "ff"), id("bb", "ff"), id("cc", "ff"), id("dd", "07")

	here := starts(stays, false)
	inside.Sh("ip link del eth0")
	starts(goes, false).Release()
	inside.Sh("ip link del eth0")
	want("after an end", stays, goes)

	first := starts(again, false)
	first.Release()
	inside.Sh("ip link del eth0")
	second := wired(again, true)
	if first.Endpoints[0].IP == second.Endpoints[0].IP {
		t.Fatalf("the address is %s again", second.Endpoints[0].IP)
	}
	want("before a second start, at another address", stays)
	if err := host.run(inside, second.Steps); err != nil {
		t.Fatal(err)
	}
	want("a second start", stays, again)
	second.Release()
	inside.Sh("ip link del eth0")

	last := starts(sweeper, false)
	want("a start that sweeps", stays, sweeper)
	vacate := func(w *Wiring) {
		t.Helper()
		w.Release()
		for _, s := range w.Steps {
			if guard, ok := s.Op.(*plan.NftGuard); ok {
				var err error
				host.Do(func() { err = store.Vacate(Bridge, guard.Undo()[0].(*plan.NftUnguard)) })
				if err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	vacate(last)
	want("one of two leaves", stays, sweeper)
	vacate(here)
	want("nobody is left")
	if got := host.Sh("nft list set bridge glassbox0 ports"); strings.Contains(got, "elements") {
		t.Errorf("nobody is left: %s", got)
	}
	vacate(last) // a second time
	host.Sh("nft delete table bridge glassbox0")
	vacate(last) // and without a table
}

// TestSweeps: a few of all starts sweep, and each one of a container that was there before.
func TestSweeps(t *testing.T) {
	n := 0
	for i := range 256 {
		if sweeps(Request{Container: fmt.Sprintf("%062x%02x", 1, i)}) {
			n++
		}
	}
	if n != 8 {
		t.Errorf("%d of 256 starts sweep, want 8", n)
	}
	if !sweeps(Request{Container: "c", Again: true}) {
		t.Error("a second start doesn't sweep")
	}
}
