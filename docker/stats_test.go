package docker

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"glassbox/cgroup"
)

func TestParseTraffic(t *testing.T) {
	const head = "Inter-|   Receive                                                |  Transmit\n" +
		" face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n" +
		"    lo:     100       2    0    0    0     0          0         0      100       2    0    0    0     0       0          0\n"
	got := ParseTraffic(head + "  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n eth1:20 0 0 0 0 0 0 0 21 0 0 0 0 0 0 0\n")
	want := map[string]NetworkStats{
		"eth0": {RxBytes: 1, RxPackets: 2, RxErrors: 3, RxDropped: 4, TxBytes: 9, TxPackets: 10, TxErrors: 11, TxDropped: 12},
		"eth1": {RxBytes: 20, TxBytes: 21},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := ParseTraffic(head + " broken: 1 2\n"); got != nil {
		t.Errorf("no device: got %v", got)
	}
}

func TestParseSystemUsage(t *testing.T) {
	if got, want := ParseSystemUsage("cpu  1 2 3 4 5 6 7 8 100 100\ncpu0 9 9\n"), uint64(36*10_000_000); got != want {
		t.Errorf("got %d, want %d", got, want)
	}
	for _, text := range []string{"", "cpu 1 2", "intr 1 2 3 4 5 6 7 8 9 10"} {
		if got := ParseSystemUsage(text); got != 0 {
			t.Errorf("%q: got %d", text, got)
		}
	}
}

// TestMeasure: a limit is never above the host's memory, and no number of processes is no limit.
func TestMeasure(t *testing.T) {
	c := &cgroup.Stats{Memory: cgroup.MemoryStats{Limit: cgroup.Unlimited}, Pids: cgroup.PidsStats{Limit: cgroup.Unlimited}}
	s := Measure("c", "web", Reading{Cgroup: c, HostMemory: 9}, nil)
	if s.Memory.Limit != 9 || s.Pids.Limit != 0 || s.Name != "/web" || s.Blkio.Serviced != nil {
		t.Errorf("got %+v", s)
	}
	c.Memory.Limit = 3
	if s := Measure("c", "web", Reading{Cgroup: c, HostMemory: 9, V1: true}, s); s.Memory.Limit != 3 || s.Blkio.Serviced == nil {
		t.Errorf("got %+v", s)
	}
}
