package network

import (
	"net/netip"
	"testing"
	"time"

	"glassbox/container"
	"glassbox/plan"
	"glassbox/wire"
)

// BenchmarkWire makes all network steps of a container on a warm bridge and then unpublishes its port. Making and removing the
// namespace and the links is not counted.
func BenchmarkWire(b *testing.B) {
	host := newNetns(b)
	ip := netip.MustParseAddr("172.30.0.2")
	ports := []container.Port{{HostPort: 8080, ContainerPort: 80, Proto: "tcp"}}
	e := Endpoint{IP: ip, MAC: wire.MAC(ip), Interface: "eth0", Link: "gb0", Ports: ports}
	steps := stepsOf(testNetwork(), e)
	per := map[string]time.Duration{}
	round := func(count bool) {
		c := newNetns(b)
		host.Do(func() {
			b.StartTimer()
			defer b.StopTimer()
			w := wire.Open(func() (int, error) { return c.FD, nil })
			defer w.Close()
			ops := []plan.Op{}
			for _, s := range steps {
				ops = append(ops, s.Op)
			}
			ops = append(ops, &plan.NftUnpublish{Table: testNetwork().Table(), Ports: rules(e)}, &plan.LinkDelete{Name: e.Link})
			for _, op := range ops {
				if _, ok := op.(*plan.LinkDelete); ok {
					b.StopTimer()
				}
				start := time.Now()
				if err := w.Do(op); err != nil {
					panic(err)
				}
				if count {
					per[op.Kind()] += time.Since(start)
				}
			}
		})
	}
	b.StopTimer()
	round(false)
	b.ResetTimer()
	b.ReportAllocs()
	for range b.N {
		round(true)
	}
	for k, d := range per {
		b.ReportMetric(float64(d.Microseconds())/float64(b.N), k+"-µs")
	}
}
