package verify

import (
	"encoding/binary"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/cgroup"
	"glassbox/host"
	"glassbox/plan"
)

// verdictProgram is a BPF program that answers with a number: mov r0, n; exit.
func verdictProgram(n int32) []byte {
	b := []byte{0xb7, 0, 0, 0}
	b = binary.LittleEndian.AppendUint32(b, uint32(n))
	return append(b, 0x95, 0, 0, 0, 0, 0, 0, 0)
}

// TestDeviceFilter attaches real programs to a real cgroup v2: the plan's is known by its tag, another one isn't it, and none is none.
func TestDeviceFilter(t *testing.T) {
	f, err := host.Probe()
	if err != nil {
		t.Fatal(err)
	}
	mount := ""
	for _, h := range f.Cgroup.Hierarchies {
		if h.V2 {
			mount = h.Mount
		}
	}
	if os.Geteuid() != 0 || mount == "" {
		t.Skip("needs root and a mounted cgroup v2")
	}
	dir := fmt.Sprintf("%s/verify-test-%d", mount, time.Now().UnixNano())
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Rmdir(dir) })
	want := &plan.DeviceFilter{Path: dir, Rules: []string{"deny a *:* rwm"}, Program: verdictProgram(1)}
	check := func(what string, verdict Verdict) {
		t.Helper()
		if got := (&view{}).deviceFilter(want); got.Verdict != verdict {
			t.Errorf("%s: got %+v, want %s", what, got, verdict)
		}
	}
	check("no program", Differs)
	attach := func(o *plan.DeviceFilter) {
		t.Helper()
		if err := cgroup.AttachDevices(o); err != nil {
			t.Fatal(err)
		}
	}
	attach(want)
	check("the plan's", Holds)
	attach(&plan.DeviceFilter{Path: dir, Program: verdictProgram(0)})
	check("another", Differs)
	attach(want)
	check("the plan's again", Holds)
	if err := unix.Rmdir(dir); err != nil {
		t.Fatal(err)
	}
	check("no cgroup", Differs)
}
