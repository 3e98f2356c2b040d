package cgroup

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"glassbox/host"
	"glassbox/plan"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/rogpeppe/go-internal/txtar"
	"golang.org/x/sys/unix"
)

// Files of real cgroups give what runc says of them, byte for byte. A directory of an archive is a controller, v2 the v2 tree.
func TestReadEvents(t *testing.T) {
	files, err := filepath.Glob("testdata/events/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			root := t.TempDir()
			paths := map[string]string{}
			want := ""
			for _, f := range ar.Files {
				dir, name := filepath.Split(f.Name)
				if dir == "" {
					want = strings.TrimSpace(string(f.Data))
					continue
				}
				controller := strings.TrimSuffix(strings.TrimSuffix(dir, "/"), "v2")
				paths[controller] = filepath.Join(root, dir)
				if err := os.MkdirAll(paths[controller], 0o755); err != nil {
					t.Fatal(err)
				}
				for _, name := range []string{name, "cgroup.procs"} {
					if err := os.WriteFile(filepath.Join(paths[controller], name), f.Data, 0o644); err != nil {
						t.Fatal(err)
					}
				}
			}
			e, err := ReadEvents(paths)
			if err != nil {
				t.Fatal(err)
			}
			// runc has them from cpuacct.stat, which counts in hundredths of a second.
			if _, v1 := paths["cpuacct"]; v1 {
				var their Events
				if err := json.Unmarshal([]byte(want), &their); err != nil {
					t.Fatal(err)
				}
				const tick = 10_000_000
				if got, want := e.CPU.Usage, their.CPU.Usage; got.Kernel+tick < want.Kernel || got.Kernel > want.Kernel+tick ||
					got.User > want.User+tick {
					t.Errorf("processor time %+v, want about %+v", got, want)
				}
				e.CPU.Usage.Kernel, e.CPU.Usage.User = their.CPU.Usage.Kernel, their.CPU.Usage.User
			}
			if _, v2 := paths[""]; v2 { // later runcs have these, in the same places
				if e.CPU.PSI == nil || e.Memory.PSI == nil || e.Blkio.PSI == nil || e.CPU.PSI.Some.Total == 0 ||
					e.Memory.Usage.Max < e.Memory.Usage.Usage {
					t.Errorf("no pressure, or no peak: %+v", e)
				}
				e.CPU.PSI, e.Memory.PSI, e.Blkio.PSI, e.Memory.Usage.Max = nil, nil, nil, 0
			}
			got, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, string(got)); d != "" {
				t.Errorf("(-runc +got)\n%s", d)
			}
		})
	}
}

func TestParsePSI(t *testing.T) {
	got := parsePSI("some avg10=1.50 avg60=0.25 avg300=0.00 total=123\nfull avg10=0.00 avg60=NaN avg300=x total=4\nother avg10=3\n")
	want := &PSI{Some: PSIData{1.5, 0.25, 0, 123}, Full: PSIData{Total: 4}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if got := parsePSI(""); got != nil {
		t.Errorf("no text is %+v, want nil", got)
	}
}

func TestParseBlkioEntries(t *testing.T) {
	got := parseBlkioEntries("8:0 Read 4096\n8:0 Total 4096\n254:16 12\nTotal 4096\nrubbish\n8:0 Read -1\n8:0 a b c\n")
	if d := cmp.Diff([]BlkioEntry{{8, 0, "Read", 4096}, {8, 0, "Total", 4096}, {254, 16, "", 12}}, got); d != "" {
		t.Error(d)
	}
}

func FuzzEventParsers(f *testing.F) {
	f.Add("8:0 Read 4096\nTotal 0\n")
	f.Add("some avg10=1.50 avg60=0.25 avg300=0.00 total=123\n")
	f.Add("cpu user system\n0 1 2\n")
	f.Add("0-3,9,65535")
	f.Fuzz(func(t *testing.T, text string) {
		user, kernel := parseUsageAll(text)
		if len(user) != len(kernel) {
			t.Errorf("%d and %d processors", len(user), len(kernel))
		}
		if _, err := json.Marshal([]any{parsePSI(text), parseBlkioEntries(text), parseList(text)}); err != nil {
			t.Error(err)
		}
	})
}

// Every process gets the signal, also in cgroups below, and frozen ones stay frozen.
func TestSignal(t *testing.T) {
	f := realHost(t)
	for _, name := range ways {
		g := newGroup(t, f, "signal-"+name, nil)
		paths := way(g, name)
		if paths == nil {
			continue
		}
		cmd, out := g.start(`trap "echo got; exit 3" USR1; (trap "echo got; exit" USR1; while :; do sleep 0.05; done) & while :; do sleep ` +
			`0.05; done`)
		waitFor(t, "processes", func() bool { pids, _ := Procs(paths); return len(pids) >= 3 })
		time.Sleep(300 * time.Millisecond) // for the traps
		if name == "freezer" {
			if err := Freeze(paths); err != nil {
				t.Fatal(err)
			}
		}
		if err := Signal(paths, unix.SIGUSR1); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if name == "freezer" {
			if frozen, err := Frozen(paths); !frozen || err != nil {
				t.Errorf("after Signal: Frozen = %v, %v", frozen, err)
			}
			if err := Thaw(paths); err != nil {
				t.Error(err)
			}
		}
		cmd.Wait()
		if n := strings.Count(out.String(), "got"); n != 2 || cmd.ProcessState.Sys().(syscall.WaitStatus).ExitStatus() != 3 {
			t.Errorf("%s: %d of 2 processes got the signal, %v: %s", name, n, cmd.ProcessState, out)
		}
	}
	if err := Signal(map[string]string{"": t.TempDir() + "/gone"}, unix.SIGTERM); err != nil {
		t.Errorf("a cgroup that is gone: %v", err)
	}
}

// Nothing starts in a frozen cgroup, or below one: it would hang there.
func TestCreateInFrozen(t *testing.T) {
	f := realHost(t)
	g := newGroup(t, f, "frozen", nil)
	if err := Freeze(g.setup.Paths); err != nil {
		t.Fatal(err)
	}
	dir, ok := g.setup.Paths[""]
	if !ok {
		dir = g.setup.Paths["freezer"]
	}
	for _, d := range []string{dir, dir + "/below"} {
		if err := Create(&plan.CgroupCreate{Path: d}); !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), "frozen") {
			t.Errorf("%s: %v", d, err)
		}
	}
	if err := Thaw(g.setup.Paths); err != nil {
		t.Fatal(err)
	}
	if err := Create(&plan.CgroupCreate{Path: dir}); err != nil {
		t.Error(err)
	}
}

func TestAttach(t *testing.T) {
	f := realHost(t)
	g := newGroup(t, f, "attach", nil)
	cmd, _ := g.start("exec sleep 1000")
	g.settled()
	dir := g.dirs()[0] + "/below"
	if err := unix.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := fillCpuset(dir); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Attach(&plan.CgroupAttach{Path: dir}, cmd.Process.Pid); err != nil {
			t.Error(err)
		}
		if pids, err := readPids(dir); len(pids) != 1 || pids[0] != cmd.Process.Pid || err != nil {
			t.Errorf("in the cgroup: %v, %v", pids, err)
		}
	}
	if err := Attach(&plan.CgroupAttach{Path: dir + "/gone"}, cmd.Process.Pid); !isGone(err) {
		t.Errorf("a cgroup that is gone: %v", err)
	}
}

// What is written can be read back, for each field, in the hierarchy that has its controller. What this machine's kernel or
// configuration lacks is reported by its field's name, before anything is made or by the write itself.
func TestEveryField(t *testing.T) {
	f := realHost(t)
	v2only := func(v string) map[string]string { return map[string]string{"memory.high": v} }
	u16 := func(n uint16) *uint16 { return &n }
	u32 := func(n uint32) *uint32 { return &n }
	off := false
	disk := func(rate uint64) []specs.LinuxThrottleDevice {
		d := specs.LinuxThrottleDevice{Rate: rate}
		d.Major, d.Minor = blockDevice(t)
		return []specs.LinuxThrottleDevice{d}
	}
	for _, c := range []struct {
		pointer    string
		r          specs.LinuxResources
		controller string // of v1; files are of it
		v1, v2     [2]string
	}{
		{"memory/limit", *memory(32 << 20), "memory", [2]string{"memory.limit_in_bytes", "33554432"}, [2]string{"memory.max", "33554432"}},
		{
			"memory/reservation",
			specs.LinuxResources{Memory: &specs.LinuxMemory{Reservation: ptr[int64](8 << 20)}},
			"memory",
			[2]string{"memory.soft_limit_in_bytes", "8388608"},
			[2]string{"memory.low", "8388608"},
		},
		{
			"memory/swap",
			specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr[int64](8 << 20), Swap: ptr[int64](12 << 20)}},
			"memory",
			[2]string{"memory.memsw.limit_in_bytes", "12582912"},
			[2]string{"memory.swap.max", "4194304"},
		},
		{
			"memory/kernelTCP",
			specs.LinuxResources{Memory: &specs.LinuxMemory{KernelTCP: ptr[int64](8 << 20)}},
			"memory",
			[2]string{"memory.kmem.tcp.limit_in_bytes", "8388608"},
			[2]string{},
		},
		{
			"memory/swappiness",
			specs.LinuxResources{Memory: &specs.LinuxMemory{Swappiness: ptr[uint64](7)}},
			"memory",
			[2]string{"memory.swappiness", "7"},
			[2]string{},
		},
		{
			"memory/disableOOMKiller",
			specs.LinuxResources{Memory: &specs.LinuxMemory{DisableOOMKiller: ptr(true)}},
			"memory",
			[2]string{"memory.oom_control", "oom_kill_disable 1"},
			[2]string{},
		},
		{"memory/useHierarchy", specs.LinuxResources{Memory: &specs.LinuxMemory{UseHierarchy: &off}}, "memory", [2]string{}, [2]string{}},
		{
			"cpu/shares",
			specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: ptr[uint64](2048)}},
			"cpu",
			[2]string{"cpu.shares", "2048"},
			[2]string{"cpu.weight", "174"},
		},
		{
			"cpu/quota",
			specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr[int64](30000)}},
			"cpu",
			[2]string{"cpu.cfs_quota_us", "30000"},
			[2]string{"cpu.max", "30000 100000"},
		},
		{
			"cpu/period",
			specs.LinuxResources{CPU: &specs.LinuxCPU{Period: ptr[uint64](50000)}},
			"cpu",
			[2]string{"cpu.cfs_period_us", "50000"},
			[2]string{"cpu.max", "max 50000"},
		},
		{
			"cpu/burst",
			specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr[int64](30000), Burst: ptr[uint64](20000)}},
			"cpu",
			[2]string{"cpu.cfs_burst_us", "20000"},
			[2]string{"cpu.max.burst", "20000"},
		},
		{
			"cpu/idle",
			specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: ptr[int64](1), Shares: ptr[uint64](2048)}},
			"cpu",
			[2]string{"cpu.idle", "1"},
			[2]string{"cpu.idle", "1"},
		},
		{"cpu/realtimePeriod", specs.LinuxResources{CPU: &specs.LinuxCPU{
			RealtimeRuntime: ptr[int64](0),
			RealtimePeriod:  ptr[uint64](500000),
		}}, "cpu", [2]string{"cpu.rt_period_us", "500000"}, [2]string{}},
		{
			"cpu/cpus",
			specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0"}},
			"cpuset",
			[2]string{"cpuset.cpus", "0"},
			[2]string{"cpuset.cpus", "0"},
		},
		{
			"cpu/mems",
			specs.LinuxResources{CPU: &specs.LinuxCPU{Mems: "0"}},
			"cpuset",
			[2]string{"cpuset.mems", "0"},
			[2]string{"cpuset.mems", "0"},
		},
		{
			"pids/limit",
			specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr[int64](5)}},
			"pids",
			[2]string{"pids.max", "5"},
			[2]string{"pids.max", "5"},
		},
		{
			"pids/limit 0",
			specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr[int64](0)}},
			"pids",
			[2]string{"pids.max", "1"},
			[2]string{"pids.max", "1"},
		},
		{
			"blockIO/weight",
			specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: u16(300)}},
			"blkio",
			[2]string{"blkio.bfq.weight", "300"},
			[2]string{"io.weight", "default 2930"},
		},
		{
			"blockIO/leafWeight",
			specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{LeafWeight: u16(300)}},
			"blkio",
			[2]string{"blkio.leaf_weight", "300"},
			[2]string{},
		},
		{
			"blockIO/throttleReadBpsDevice",
			specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{ThrottleReadBpsDevice: disk(1 << 20)}},
			"blkio",
			[2]string{"blkio.throttle.read_bps_device", " 1048576"},
			[2]string{"io.max", "rbps=1048576"},
		},
		{
			"blockIO/throttleWriteIOPSDevice",
			specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{ThrottleWriteIOPSDevice: disk(77)}},
			"blkio",
			[2]string{"blkio.throttle.write_iops_device", " 77"},
			[2]string{"io.max", "wiops=77"},
		},
		{
			"hugepageLimits",
			specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}}},
			"hugetlb",
			[2]string{"hugetlb.2MB.rsvd.limit_in_bytes", "4194304"},
			[2]string{"hugetlb.2MB.rsvd.max", "4194304"},
		},
		{
			"network/classID",
			specs.LinuxResources{Network: &specs.LinuxNetwork{ClassID: u32(0x100001)}},
			"net_cls",
			[2]string{"net_cls.classid", "1048577"},
			[2]string{},
		},
		{"network/priorities", specs.LinuxResources{Network: &specs.LinuxNetwork{Priorities: []specs.LinuxInterfacePriority{{
			Name:     "lo",
			Priority: 3,
		}}}}, "net_prio", [2]string{"net_prio.ifpriomap", "lo 3"}, [2]string{}},
		{"unified", specs.LinuxResources{Unified: v2only("16777216")}, "", [2]string{}, [2]string{"memory.high", "16777216"}},
	} {
		t.Run(strings.ReplaceAll(c.pointer, "/", " "), func(t *testing.T) {
			s, err := Steps(f, testParent()+"/field", &c.r, pointerItself)
			if err != nil {
				if field, _, _ := strings.Cut(c.pointer, " "); !strings.HasPrefix(err.Error(), resources+field) {
					t.Errorf("the error doesn't name %s: %v", c.pointer, err)
				}
				t.Logf("not on this machine: %v", err)
				return
			}
			dir, v1 := s.Paths[c.controller]
			want := c.v1
			if !v1 || c.controller == "" {
				dir, want = s.Paths[""], c.v2
			}
			if want[0] == "" {
				t.Fatalf("no error for what this hierarchy can't do")
			}
			defer func() {
				for _, dir := range s.Paths {
					if err := Remove(&plan.CgroupRemove{Path: dir}); err != nil {
						t.Error(err)
					}
					unix.Rmdir(filepath.Dir(dir))
				}
			}()
			for _, step := range s.Steps {
				fd, err := do(step.Op)
				if fd >= 0 {
					unix.Close(fd)
				}
				// A file that only the parent's configuration or a module decides about: the write's error has to say so.
				if errors.Is(err, unix.ENOENT) && strings.HasPrefix(step.Origin, resources) && !exists(dir+"/"+want[0]) {
					t.Logf("not on this machine: %s: %v", step.Origin, err)
					return
				}
				if err != nil {
					t.Fatalf("%s: %v", step.Origin, err)
				}
			}
			got, err := readFile(dir, want[0])
			if err != nil || !strings.Contains("\n"+got+"\n", want[1]) {
				t.Errorf("%s is %q, %v, want %s", want[0], got, err, want[1])
			}
		})
	}
}

// blockDevice returns the numbers of a disk, which limits of I/O want.
func blockDevice(t *testing.T) (major, minor int64) {
	t.Helper()
	disks, err := filepath.Glob("/sys/block/*/dev")
	if err != nil || len(disks) == 0 {
		t.Skip("needs a block device")
	}
	text, err := os.ReadFile(disks[0])
	if err != nil {
		t.Fatal(err)
	}
	a, b, _ := strings.Cut(strings.TrimSpace(string(text)), ":")
	n := numbers(a + " " + b)
	if len(n) != 2 {
		t.Fatalf("%s: %q", disks[0], text)
	}
	return int64(n[0]), int64(n[1])
}

// What is said to be the caller's is: a process can be born there, with limits unless it is crowded. The test is for ordinary
// users, too: in a login session they have nothing, in a unit of their own manager a part of the tree.
func TestDelegated(t *testing.T) {
	facts, err := host.Probe()
	if err != nil {
		t.Fatal(err)
	}
	f := facts.Cgroup
	d, ok := Delegated(f)
	t.Logf("%+v, %v", d, ok)
	h, _ := unified(f)
	name := fmt.Sprintf("glassbox-test-%d-delegated", os.Getpid())
	if !ok {
		dir := filepath.Join(h.Mount, h.Own, name)
		if f.Mode != host.CgroupV2 {
			return
		}
		if err := unix.Mkdir(dir, 0o755); err == nil {
			unix.Rmdir(dir)
			t.Errorf("%s could be made, but isn't delegated", dir)
		}
		return
	}
	limit := int64(7)
	r := &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}}
	if d.Crowded {
		r = nil
	} else if !slices.Contains(d.Controllers, "pids") {
		t.Fatalf("no controller pids: %+v", d)
	}
	s, err := Steps(f, filepath.Join(d.Path, name), r, pointerItself)
	if err != nil {
		t.Fatal(err)
	}
	defer Remove(&plan.CgroupRemove{Path: s.Paths[""]})
	for _, step := range s.Steps {
		if op, ok := step.Op.(*plan.CgroupWrite); ok && op.Enable && d.Crowded {
			continue // the kernel would refuse it
		}
		fd, err := do(step.Op)
		if err != nil {
			t.Fatalf("%v: %v", step.Op, err)
		}
		if fd < 0 {
			continue
		}
		defer unix.Close(fd)
		cmd := exec.Command("/bin/cat", "/proc/self/cgroup")
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: fd}
		out, err := cmd.CombinedOutput()
		if want := "0::" + filepath.Join(d.Path, name) + "\n"; err != nil || string(out) != want {
			t.Errorf("the process is in %q, %v, want %q", out, err, want)
		}
	}
	if got, err := readFile(s.Paths[""], "pids.max"); !d.Crowded && (got != "7" || err != nil) {
		t.Errorf("pids.max is %q, %v", got, err)
	}
}
