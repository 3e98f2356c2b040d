package network

import (
	"fmt"
	"net/netip"
	"testing"

	"glassbox/container"

	"golang.org/x/sys/unix"
)

// BenchmarkState is what a start asks of the state, beside the steps: with 20 containers that run.
func BenchmarkState(b *testing.B) {
	host := newNetns(b)
	dir := b.TempDir()
	var br Network
	store := Store{dir, dir}
	host.Do(func() {
		br, _ = store.Open(Bridge)
	})
	for i := range 20 {
		id := fmt.Sprintf("%012x", i)
		ip, err := store.Lease(br, id, netip.Addr{})
		if err != nil {
			b.Fatal(err)
		}
		ports := []container.Port{{HostPort: uint16(i + 1), ContainerPort: 80, Proto: "tcp"}}
		e := Endpoint{IP: ip, Interface: "eth0", Link: VethName(id, 0), Ports: ports}
		if err := host.run(newNetns(b), stepsOf(br, e)); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("Open", func(b *testing.B) {
		host.Do(func() {
			for b.Loop() {
				if _, err := store.Open(Bridge); err != nil {
					panic(err)
				}
			}
		})
	})
	b.Run("Lease", func(b *testing.B) {
		for b.Loop() {
			ip, err := store.Lease(br, "x", netip.Addr{})
			if err != nil {
				b.Fatal(err)
			}
			if err := store.Release(Bridge, ip, "x"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Repair", func(b *testing.B) {
		host.Do(func() {
			for b.Loop() {
				if err := store.Repair(func(string) bool { return true }); err != nil {
					panic(err)
				}
			}
		})
	})
	b.Run("Reserve", func(b *testing.B) {
		for b.Loop() {
			fds, err := Reserve([]container.Port{{HostIP: netip.MustParseAddr("127.0.0.1"), ContainerPort: 80, Proto: "tcp"}})
			if err != nil {
				b.Fatal(err)
			}
			unix.Close(fds[0])
		}
	})
}
