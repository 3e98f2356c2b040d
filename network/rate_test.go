package network

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/container"
	"glassbox/plan"
)

// TestRate sends three megabytes at once over a cable of a megabyte a second: what the bucket and its queue don't hold is dropped.
func TestRate(t *testing.T) {
	w := newWorld(t, -1, false)
	r := container.Rates{In: 1 << 20, Out: 1 << 20}
	flood := func() (n int) {
		var in net.PacketConn
		w.c2.Do(func() {
			var err error
			if in, err = net.ListenPacket("udp4", "172.30.0.3:6000"); err != nil {
				panic(err)
			}
		})
		defer in.Close()
		in.(*net.UDPConn).SetReadBuffer(4 << 20)
		done := make(chan int)
		go func() {
			buf, n := make([]byte, 2000), 0
			for {
				in.SetReadDeadline(time.Now().Add(2 * time.Second))
				if _, _, err := in.ReadFrom(buf); err != nil {
					done <- n
					return
				}
				n++
			}
		}()
		w.c1.Do(func() {
			c, err := net.Dial("udp4", "172.30.0.3:6000")
			if err != nil {
				panic(err)
			}
			defer c.Close()
			raw, err := c.(*net.UDPConn).SyscallConn()
			if err != nil {
				panic(err)
			}
			// Who sends from the same machine is held back instead of losing anything: it doesn't wait.
			raw.Write(func(fd uintptr) bool {
				for range 3000 {
					unix.Sendto(int(fd), make([]byte, 1000), unix.MSG_DONTWAIT, nil)
				}
				return true
			})
		})
		return <-done
	}
	for _, tt := range []struct {
		name string
		op   *plan.LinkRate
		to   *namespace
	}{{"in", RateIn(r, w.e2.Link), w.c2}, {"out", RateOut(r, w.e1.Interface), w.c1}} {
		for _, bounded := range []bool{true, false} {
			op := *tt.op
			if !bounded {
				op.Rate, op.Burst = 0, 0
			}
			for range 2 { // again is no error
				if err := w.host.run(tt.to, []plan.Step{{Op: &op}}); err != nil {
					t.Fatal(err)
				}
			}
			got := flood()
			t.Logf("%s, bounded %v: %d of 3000", tt.name, bounded, got)
			if bounded == (got > 1500) {
				t.Errorf("%s, bounded %v: %d of 3000 datagrams arrived", tt.name, bounded, got)
			}
		}
	}
}
