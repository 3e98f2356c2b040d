package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"glassbox/host"
	"glassbox/plan"
)

// Limits, as the kernel keeps them.

// Limits of a running container go up and down in an order that the kernel accepts.
func TestUpdate(t *testing.T) {
	f := realHost(t)
	need(t, f, "memory", "cpu", "pids")
	limits := func(mem, swap, quota int64, period, shares uint64, pids int64) *specs.LinuxResources {
		return &specs.LinuxResources{
			Memory: &specs.LinuxMemory{Limit: &mem, Swap: &swap},
			CPU:    &specs.LinuxCPU{Quota: &quota, Period: &period, Shares: &shares},
			Pids:   &specs.LinuxPids{Limit: &pids},
		}
	}
	const mb = 1 << 20
	g := newGroup(t, f, "update", limits(100*mb, 150*mb, 50000, 100000, 512, 10))
	cmd, _ := g.start("exec sleep 100")
	// What joins is a Go program at first, which doesn't come up with five processes.
	waitFor(t, "sleep", func() bool {
		name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", cmd.Process.Pid))
		return string(name) == "sleep\n"
	})
	for i, r := range []*specs.LinuxResources{
		limits(200*mb, 300*mb, 80000, 100000, 2048, 20),
		limits(50*mb, 50*mb, 5000, 20000, 2, 5),
		limits(50*mb, -1, 900000, 1000000, 1024, 0),
		limits(-1, -1, -1, 100000, 1024, 50),
		limits(60*mb, 70*mb, 50000, 100000, 1024, 50),
	} {
		steps, err := Update(f, g.setup.Paths, r)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range steps {
			if _, err := do(s.Op); err != nil {
				t.Errorf("update %d: %v", i, err)
			}
		}
		s, err := ReadStats(g.setup.Paths)
		if err != nil {
			t.Fatal(err)
		}
		want := Unlimited
		if *r.Memory.Limit > 0 {
			want = uint64(*r.Memory.Limit)
		}
		if s.Memory.Limit != want {
			t.Errorf("update %d: memory limit %d, want %d", i, s.Memory.Limit, want)
		}
		want = Unlimited
		if *r.Memory.Swap > 0 {
			want = uint64(*r.Memory.Swap - *r.Memory.Limit)
		}
		if s.Memory.SwapLimit != want {
			t.Errorf("update %d: swap limit %d, want %d", i, s.Memory.SwapLimit, want)
		}
	}
	waitFor(t, "memory in use", func() bool { s, err := ReadStats(g.setup.Paths); return err == nil && s.Memory.Usage > 4096 })
	r := memory(4096)
	r.Memory.CheckBeforeUpdate = ptr(true)
	if _, err := Update(f, g.setup.Paths, r); err == nil {
		t.Error("checkBeforeUpdate: less than is in use was accepted")
	}
	r = &specs.LinuxResources{Memory: &specs.LinuxMemory{Swap: ptr[int64](4096), CheckBeforeUpdate: ptr(true)}}
	if _, err := Update(f, g.setup.Paths, r); err == nil || !strings.Contains(err.Error(), resources+"memory/checkBeforeUpdate: ") {
		t.Errorf("checkBeforeUpdate: less memory and swap than is in use: %v", err)
	}
}

// What the kernel refuses is reported with the file, the value and a hint.
func TestWriteErrors(t *testing.T) {
	f := realHost(t)
	need(t, f, "cpu")
	g := newGroup(t, f, "errors", nil)
	p := (&writer{f: f, paths: g.setup.Paths}).find("cpu", "/")
	for file, errno := range map[string]error{"cpu.nothing": unix.ENOENT, "cgroup.procs": unix.EINVAL} {
		err := Write(&plan.CgroupWrite{File: p.dir + "/" + file, Value: "rubbish"})
		if !errors.Is(err, errno) || !strings.Contains(err.Error(), `"rubbish"`) || !strings.Contains(err.Error(), "(") {
			t.Errorf("%s: %v, want %v with the value and a hint", file, err, errno)
		}
	}
}

func TestEvacuate(t *testing.T) {
	f := realHost(t)
	v2, ok := unified(f)
	if !ok {
		t.Skip("needs cgroup v2")
	}
	g := newGroup(t, host.Cgroup{Mode: host.CgroupHybrid, Hierarchies: []host.Hierarchy{v2}}, "crowded", nil)
	g.start("sleep 100 & exec sleep 100")
	dir := g.setup.Paths[""]
	waitFor(t, "two processes", func() bool { pids, _ := readPids(dir); return len(pids) == 2 })
	if err := Evacuate(&plan.CgroupEvacuate{From: dir, To: dir + "/init"}); err != nil {
		t.Fatal(err)
	}
	here, _ := readPids(dir)
	there, _ := readPids(dir + "/init")
	if len(here) != 0 || len(there) != 2 {
		t.Errorf("left %v, moved %v", here, there)
	}
}

// A v1 cpuset whose parents were made by someone who left them empty.
func TestEmptyCpusetParent(t *testing.T) {
	f := realHost(t)
	i := slices.IndexFunc(f.Hierarchies, func(h host.Hierarchy) bool { return !h.V2 && slices.Contains(h.Controllers, "cpuset") })
	if i < 0 {
		t.Skip("needs a v1 cpuset hierarchy")
	}
	parent := f.Hierarchies[i].Mount + fmt.Sprintf("/glassbox-test-%d-empty", os.Getpid())
	if err := unix.Mkdir(parent, 0o755); err != nil {
		t.Fatal(err)
	}
	defer unix.Rmdir(parent)
	dir := parent + "/below/id"
	defer unix.Rmdir(path.Dir(dir))
	if err := Create(&plan.CgroupCreate{Path: dir}); err != nil {
		t.Fatal(err)
	}
	if got, _ := readFile(dir, "cpuset.cpus"); got != f.CpusetCpus {
		t.Errorf("cpuset.cpus = %q, want %q", got, f.CpusetCpus)
	}
	if err := Remove(&plan.CgroupRemove{Path: dir}); err != nil {
		t.Error(err)
	}
}
