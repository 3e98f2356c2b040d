package docker

import (
	"testing"
	"time"

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

// TestUsage: what is shown is worked out from two readings, on both versions of cgroups.
func TestUsage(t *testing.T) {
	c := &cgroup.Stats{
		CPU:    cgroup.CPUStats{Usage: 5e9},
		Memory: cgroup.MemoryStats{Usage: 100, Limit: 300, Counters: map[string]uint64{"inactive_file": 30}},
		Pids:   cgroup.PidsStats{Current: 7},
		IO:     []cgroup.IOStats{{Major: 8, ReadBytes: 1, WriteBytes: 2}, {Major: 9, ReadBytes: 10, WriteBytes: 20}},
	}
	at := time.Unix(100, 0)
	first := Measure("c", "web", Reading{At: at, Cgroup: c, HostMemory: 1000}, nil)
	if got := first.Usage(); got.CPU != 0 {
		t.Errorf("CPU of a first reading: %v", got.CPU)
	}
	c.CPU.Usage += 3e9
	c.Memory.Counters["total_inactive_file"] = 40
	r := Reading{At: at.Add(2 * time.Second), Cgroup: c, HostMemory: 1000, V1: true, Networks: map[string]NetworkStats{
		"eth0": {RxBytes: 3, TxBytes: 4}, "eth1": {RxBytes: 30, TxBytes: 40},
	}}
	got, want := Measure("c", "web", r, first).Usage(), Usage{
		CPU: 1.5, Memory: 60, MemoryLimit: 300, Received: 33, Sent: 44, Read: 11, Written: 22, PIDs: 7,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// A run that has begun anew has used less than before, and nothing that doesn't run uses anything.
	c.CPU.Usage = 1
	if got := Measure("c", "web", r, first).Usage().CPU; got != 0 {
		t.Errorf("CPU after a new start: %v", got)
	}
	if got := Measure("c", "web", Reading{Cgroup: &cgroup.Stats{}}, nil).Usage(); got != (Usage{}) {
		t.Errorf("of none that runs: %+v", got)
	}
}
