package cgroup

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseIO(t *testing.T) {
	want := []IOStats{{8, 0, 4096, 8192, 1, 2}, {254, 16, 1, 0, 3, 0}}
	got := parseIOStat("8:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=5 dios=6\n254:16 rbytes=1 wbytes=0 rios=3 wios=0 dbytes=0 " +
		"dios=0\n9:0 \nrubbish\n")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("io.stat (-want +got)\n%s", diff)
	}
	got = parseBlkio("8:0 Read 4096\n8:0 Write 8192\n8:0 Sync 9\n8:0 Total 12288\n254:16 Read 1\nTotal 12289\n",
		"8:0 Read 1\n8:0 Write 2\n254:16 Read 3\nTotal 6\n")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("blkio (-want +got)\n%s", diff)
	}
}

func TestParseLimit(t *testing.T) {
	for text, want := range map[string]uint64{"max": Unlimited, "9223372036854771712": Unlimited, "": Unlimited, "4096": 4096, "0": 0} {
		if got := parseLimit(text); got != want {
			t.Errorf("parseLimit(%q) = %d, want %d", text, got, want)
		}
	}
}

func FuzzStatsParsers(f *testing.F) {
	f.Add("8:0 rbytes=4096 wbytes=8192\n")
	f.Add("8:0 Read 4096\nTotal 0\n")
	f.Add("oom 0\noom_kill 3\n")
	f.Add("1\n0\n4294967296\n")
	f.Fuzz(func(t *testing.T, text string) {
		parseIOStat(text)
		parseBlkio(text, text)
		parseLimit(text)
		keyed(text)
		pids, _ := parsePids(text)
		for _, pid := range pids {
			if pid < 0 {
				t.Errorf("process %d from %q", pid, text)
			}
		}
	})
}
