package dns

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// A wall that lets in by name has, whoever comes and goes at the same time, those who have the names at the end.
func TestGuestsFollowNames(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "front", "names")
	var mu sync.Mutex
	walls := map[string][]string{}
	let := func(table string, guests []Guest) error {
		mu.Lock()
		defer mu.Unlock()
		if table == "gone" {
			return unix.ENOENT
		}
		var in []string
		for _, g := range guests {
			in = append(in, fmt.Sprintf("%s %s %d", g.Addr, g.Proto, g.Port))
		}
		slices.Sort(in)
		walls[table] = in
		return nil
	}
	is := func(table string, want ...string) {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		if !slices.Equal(walls[table], want) {
			t.Errorf("%s lets in %q, want %q", table, walls[table], want)
		}
	}
	come := func(owner, name, addr string) {
		t.Helper()
		if err := Add(dir, owner, []string{name}, []netip.Addr{netip.MustParseAddr(addr)}); err != nil {
			t.Error(err)
		}
		if err := Follow(dir, []string{name}, let); err != nil {
			t.Error(err)
		}
	}
	leave := func(owner, name, addr string) {
		t.Helper()
		if err := Remove(dir, owner, []string{name}, []netip.Addr{netip.MustParseAddr(addr)}); err != nil {
			t.Error(err)
		}
		if err := Follow(dir, []string{name}, let); err != nil {
			t.Error(err)
		}
	}
	come("early", "web", "10.0.0.2")
	for table, entries := range map[string][]string{
		"wall": {"web:80/tcp", "pool", "api.front:53/udp"}, "other": {"db"}, "gone": {"web"},
	} {
		if err := Post(dir, table, entries, let); err != nil && table != "gone" {
			t.Fatal(err)
		}
	}
	is("wall", "10.0.0.2 tcp 80")
	is("other")
	come("six", "api", "fd00::3")
	is("wall", "10.0.0.2 tcp 80", "fd00::3 udp 53")
	leave("early", "web", "10.0.0.2")
	is("wall", "fd00::3 udp 53")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			addr, owner := fmt.Sprintf("10.0.1.%d", i), fmt.Sprintf("id%d", i)
			for range 50 {
				come(owner, "pool", addr)
				mu.Lock()
				if !slices.Contains(walls["wall"], addr+"  0") {
					t.Errorf("%s isn't let in: %q", addr, walls["wall"])
				}
				mu.Unlock()
				leave(owner, "pool", addr)
				mu.Lock()
				if slices.Contains(walls["wall"], addr+"  0") {
					t.Errorf("%s has gone, and is let in: %q", addr, walls["wall"])
				}
				mu.Unlock()
			}
		}()
	}
	wg.Wait()
	is("wall", "fd00::3 udp 53")
	if err := Withdraw(dir, "wall"); err != nil {
		t.Fatal(err)
	}
	come("late", "web", "10.0.0.9")
	is("wall", "fd00::3 udp 53")
}
