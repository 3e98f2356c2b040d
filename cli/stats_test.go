package cli

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"glassbox/docker"
	"glassbox/engine"
)

func TestStatsRow(t *testing.T) {
	s := &docker.Stats{
		ID: "0123456789abcdef", Name: "/web", PreRead: time.Unix(10, 0), Read: time.Unix(20, 0),
		Memory: docker.MemoryStats{Usage: 6 << 20, Limit: 1 << 30, Counters: map[string]uint64{"inactive_file": 1 << 20}},
		Pids:   docker.PidsStats{Current: 3}, Networks: map[string]docker.NetworkStats{"eth0": {RxBytes: 1500, TxBytes: 999}},
		Blkio: docker.BlkioStats{ServiceBytes: []docker.BlkioEntry{{Op: "read", Value: 12_345_678}}},
	}
	s.CPU.Usage.Total = 12_345_600_000
	got := newStatsRow(engine.Metered{Ref: "0123", Stats: s}, false)
	want := statsRow{
		BlockIO: "12.3MB / 0B", CPUPerc: "123.46%", Container: "0123", ID: "0123456789ab", MemPerc: "0.49%", MemUsage: "5MiB / 1GiB",
		Name: "web", NetIO: "1.5kB / 999B", PIDs: "3",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	// Docker's words for one that doesn't run.
	want = statsRow{
		BlockIO: "0B / 0B", CPUPerc: "0.00%", Container: "web", ID: "0123", MemPerc: "0.00%", MemUsage: "0B / 0B", Name: "web",
		NetIO: "0B / 0B", PIDs: "0",
	}
	if d := cmp.Diff(want, newStatsRow(engine.Metered{Ref: "web", Stats: &docker.Stats{ID: "0123", Name: "/web"}}, false)); d != "" {
		t.Error(d)
	}
}

func TestPortLines(t *testing.T) {
	ports := map[string][]docker.PortBinding{
		"443/tcp": {{HostIP: "0.0.0.0", HostPort: "8443"}, {HostIP: "::", HostPort: "8443"}}, "53/udp": {{HostIP: "10.0.0.1", HostPort: "53"}},
		"9000/tcp": nil,
	}
	got, err := portLines(ports, []string{"web"})
	want := []string{"53/udp -> 10.0.0.1:53", "443/tcp -> 0.0.0.0:8443", "443/tcp -> [::]:8443"}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(d, err)
	}
	if _, err := portLines(ports, []string{"web", "9000"}); err == nil {
		t.Error("an unpublished port has no error")
	}
}

// TestUnescape: a row's template has docker's \t and \n, and strings within actions are Go's.
func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{
		`a\tb\n`:                 "a\tb\n",
		`{{.A}}\t{{.B}}`:         "{{.A}}\t{{.B}}",
		`{{printf "a\tb"}}\n{{x`: "{{printf \"a\\tb\"}}\n{{x",
		`{{join .A "\n"}}`:       `{{join .A "\n"}}`,
	} {
		if got := unescape(in); got != want {
			t.Errorf("%s: got %q, want %q", in, got, want)
		}
	}
}
