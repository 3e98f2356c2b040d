package network

import (
	"errors"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/plan"
	"glassbox/test/netns"
	"glassbox/wire"
)

// BenchmarkTeardown measures how long the host's end of a veth pair outlives the container's network namespace, and how long
// the next container's veth pair takes while the kernel takes the namespace down.
func BenchmarkTeardown(b *testing.B) {
	host := newNetns(b)
	other := Endpoint{IP: netip.MustParseAddr("172.30.0.9"), Interface: "eth0", Link: "gb9"}
	if err := host.run(newNetns(b), stepsOf(testNetwork(), other)); err != nil {
		b.Fatal(err)
	}
	var gone, next, worst time.Duration
	b.ResetTimer()
	for range b.N {
		c := &namespace{&netns.NS{T: b}}
		done := make(chan struct{})
		go func() { // the namespace ends with the descriptor: no other thread is in it
			defer close(done)
			runtime.LockOSThread()
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				panic(err)
			}
			c.FD = netns.Own(b)
		}()
		<-done
		e := Endpoint{IP: netip.MustParseAddr("172.30.0.2"), Interface: "eth0", Link: "gb2"}
		if err := host.run(c, stepsOf(testNetwork(), e)); err != nil {
			b.Fatal(err)
		}
		other := newNetns(b)
		rt := dialNS(b, host)
		start := time.Now()
		unix.Close(c.FD)
		host.Do(func() {
			w := wire.Open(func() (int, error) { return other.FD, nil })
			defer w.Close()
			if err := w.Do(&plan.LinkVeth{Name: "gb3", Peer: "eth0", Bridge: "glassbox0"}); err != nil {
				panic(err)
			}
		})
		d := time.Since(start)
		next, worst = next+d, max(worst, d)
		for {
			if _, err := rt.Link("gb2", 0); errors.Is(err, unix.ENODEV) {
				break
			}
			time.Sleep(200 * time.Microsecond)
		}
		gone += time.Since(start)
		_ = rt.DeleteLink("gb3")
		rt.Close()
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 / float64(b.N) }
	b.ReportMetric(ms(gone), "ms-until-gone")
	b.ReportMetric(ms(next), "ms-next-veth")
	b.ReportMetric(float64(worst.Microseconds())/1000, "ms-next-veth-worst")
}
