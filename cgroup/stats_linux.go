package cgroup

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"glassbox/host"
	"glassbox/plan"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Unlimited stands in [Stats] for a limit that isn't set.
const Unlimited uint64 = math.MaxUint64

// Stats are the counters of a cgroup and of those below it. What the host doesn't count is 0.
type Stats struct {
	CPU    CPUStats    `json:"cpu"`
	Memory MemoryStats `json:"memory"`
	Pids   PidsStats   `json:"pids"`
	IO     []IOStats   `json:"io,omitempty"`
}

// CPUStats are times in nanoseconds.
type CPUStats struct {
	Usage            uint64 `json:"usage"`
	User             uint64 `json:"user"`
	System           uint64 `json:"system"`
	Periods          uint64 `json:"periods"`          // that a limit was in force
	ThrottledPeriods uint64 `json:"throttledPeriods"` // in which it was reached
	ThrottledTime    uint64 `json:"throttledTime"`
}

// MemoryStats are bytes and counts.
type MemoryStats struct {
	Usage        uint64 `json:"usage"`
	MaxUsage     uint64 `json:"maxUsage"` // since the start; v2: Linux 5.19
	Limit        uint64 `json:"limit"`
	Cache        uint64 `json:"cache"`        // of files
	Anon         uint64 `json:"anon"`         // of processes
	InactiveFile uint64 `json:"inactiveFile"` // of Cache, what can be had back at once
	Kernel       uint64 `json:"kernel"`
	Swap         uint64 `json:"swap"`
	SwapLimit    uint64 `json:"swapLimit"` // of swap alone, as on v2
	Failures     uint64 `json:"failures"`  // how often the limit was reached; v1 misses some where memory and swap have the same limit
	OOM          uint64 `json:"oom"`       // how often reclaim didn't help (v2)
	OOMKills     uint64 `json:"oomKills"`  // processes killed
	// Counters are all of memory.stat, under the kernel's names. They are read, not stored.
	Counters map[string]uint64 `json:"-"`
}

// PidsStats are processes and threads.
type PidsStats struct {
	Current uint64 `json:"current"`
	Limit   uint64 `json:"limit"`
}

// IOStats are of one block device.
type IOStats struct {
	Major      uint64 `json:"major"`
	Minor      uint64 `json:"minor"`
	ReadBytes  uint64 `json:"readBytes"`
	WriteBytes uint64 `json:"writeBytes"`
	Reads      uint64 `json:"reads"`
	Writes     uint64 `json:"writes"`
}

// reader reads files of a cgroup. It keeps the first error that isn't a missing file: what a kernel lacks reads as nothing.
type reader struct {
	paths map[string]string
	err   error
}

// dir returns where a controller is, with its v2 name ("io" for v1's blkio), or "".
func (r *reader) dir(v1, v2 string) (dir string, isV2 bool) {
	if dir, ok := r.paths[v1]; ok {
		return dir, false
	}
	if dir, ok := r.paths[""]; ok && v2 != "" {
		return dir, true
	}
	return "", false
}

func (r *reader) text(dir, file string) string {
	if dir == "" {
		return ""
	}
	text, err := readFile(dir, file)
	if err != nil && !isGone(err) && !errors.Is(err, unix.EOPNOTSUPP) && r.err == nil {
		r.err = err
	}
	return text
}

func (r *reader) keyed(dir, file string) map[string]uint64 { return keyed(r.text(dir, file)) }

func (r *reader) number(dir, file string) uint64 {
	n, _ := strconv.ParseUint(r.text(dir, file), 10, 64)
	return n
}

// limit reads "max" and numbers too large to be limits (v1: the largest number of pages) as unlimited. So is a file that
// isn't there.
func (r *reader) limit(dir, file string) uint64 {
	return parseLimit(r.text(dir, file))
}

func parseLimit(text string) uint64 {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n >= math.MaxInt64-1<<20 {
		return Unlimited
	}
	return n
}

// ReadStats reads the counters of a cgroup, each from the hierarchy that has the controller.
func ReadStats(paths map[string]string) (*Stats, error) {
	dir, err := tree(paths)
	if err != nil {
		return nil, err
	}
	if _, err := readFile(dir, "cgroup.procs"); isGone(err) {
		return nil, err // everything else that is missing is taken for a kernel without it
	}
	r := &reader{paths: paths}
	s := &Stats{CPU: r.cpu(), Memory: r.memory(), Pids: r.pids(), IO: r.io()}
	return s, r.err
}

func (r *reader) cpu() CPUStats {
	var c CPUStats
	dir, v2 := r.dir("cpu", "cpu")
	stat := r.keyed(dir, "cpu.stat")
	c.Periods, c.ThrottledPeriods = stat["nr_periods"], stat["nr_throttled"]
	c.ThrottledTime = stat["throttled_time"]
	if v2 {
		c.ThrottledTime = stat["throttled_usec"] * 1000
	}
	if dir, ok := r.paths["cpuacct"]; ok {
		c.Usage = r.number(dir, "cpuacct.usage")
		c.User, c.System = r.number(dir, "cpuacct.usage_user"), r.number(dir, "cpuacct.usage_sys")
		return c
	}
	// v2 counts time in every cgroup, also where the controller cpu is on v1.
	if dir, ok := r.paths[""]; ok {
		stat := r.keyed(dir, "cpu.stat")
		c.Usage, c.User, c.System = stat["usage_usec"]*1000, stat["user_usec"]*1000, stat["system_usec"]*1000
	}
	return c
}

func (r *reader) memory() MemoryStats {
	dir, v2 := r.dir("memory", "memory")
	stat := r.keyed(dir, "memory.stat")
	if v2 {
		events := r.keyed(dir, "memory.events")
		return MemoryStats{
			Usage: r.number(dir, "memory.current"), MaxUsage: r.number(dir, "memory.peak"), Limit: r.limit(dir, "memory.max"),
			Cache: stat["file"], Anon: stat["anon"], InactiveFile: stat["inactive_file"], Kernel: stat["kernel"],
			Swap: r.number(dir, "memory.swap.current"), SwapLimit: r.limit(dir, "memory.swap.max"),
			Failures: events["max"], OOM: events["oom"], OOMKills: events["oom_kill"], Counters: stat,
		}
	}
	m := MemoryStats{
		Usage: r.number(dir, "memory.usage_in_bytes"), MaxUsage: r.number(dir, "memory.max_usage_in_bytes"),
		Limit: r.limit(dir, "memory.limit_in_bytes"),
		Cache: stat["total_cache"], Anon: stat["total_rss"], InactiveFile: stat["total_inactive_file"],
		Kernel: r.number(dir, "memory.kmem.usage_in_bytes"), Swap: stat["total_swap"], SwapLimit: r.limit(dir, "memory.memsw.limit_in_bytes"),
		Failures: r.number(dir, "memory.failcnt") + r.number(dir, "memory.memsw.failcnt"), Counters: stat,
	}
	// v1 limits memory and swap together.
	if m.SwapLimit != Unlimited {
		m.SwapLimit -= min(m.SwapLimit, m.Limit)
	}
	var err error
	if m.OOMKills, _, err = OOMKills(r.paths); r.err == nil {
		r.err = err
	}
	return m
}

func (r *reader) pids() PidsStats {
	dir, _ := r.dir("pids", "pids")
	return PidsStats{Current: r.number(dir, "pids.current"), Limit: r.limit(dir, "pids.max")}
}

func (r *reader) io() []IOStats {
	dir, v2 := r.dir("blkio", "io")
	if v2 {
		return parseIOStat(r.text(dir, "io.stat"))
	}
	bytes, ops := r.text(dir, "blkio.throttle.io_service_bytes_recursive"), r.text(dir, "blkio.throttle.io_serviced_recursive")
	return parseBlkio(bytes, ops)
}

// parseIOStat parses v2's "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0".
func parseIOStat(text string) []IOStats {
	var devices []IOStats
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		d, ok := parseDevice(fields)
		if !ok {
			continue
		}
		for _, f := range fields[1:] {
			key, v, _ := strings.Cut(f, "=")
			n, _ := strconv.ParseUint(v, 10, 64)
			switch key {
			case "rbytes":
				d.ReadBytes = n
			case "wbytes":
				d.WriteBytes = n
			case "rios":
				d.Reads = n
			case "wios":
				d.Writes = n
			}
		}
		devices = append(devices, d)
	}
	return devices
}

// parseBlkio parses lines like "8:0 Read 4096" of v1.
func parseBlkio(bytes, ops string) []IOStats {
	var devices []IOStats
	each := func(text string, read, write func(*IOStats) *uint64) {
		for line := range strings.Lines(text) {
			fields := strings.Fields(line)
			d, ok := parseDevice(fields)
			if !ok || len(fields) != 3 {
				continue
			}
			i := slices.IndexFunc(devices, func(o IOStats) bool { return o.Major == d.Major && o.Minor == d.Minor })
			if i < 0 {
				i = len(devices)
				devices = append(devices, d)
			}
			n, _ := strconv.ParseUint(fields[2], 10, 64)
			switch fields[1] {
			case "Read":
				*read(&devices[i]) = n
			case "Write":
				*write(&devices[i]) = n
			}
		}
	}
	each(bytes, func(d *IOStats) *uint64 { return &d.ReadBytes }, func(d *IOStats) *uint64 { return &d.WriteBytes })
	each(ops, func(d *IOStats) *uint64 { return &d.Reads }, func(d *IOStats) *uint64 { return &d.Writes })
	return devices
}

func parseDevice(fields []string) (IOStats, bool) {
	if len(fields) < 2 {
		return IOStats{}, false
	}
	major, minor, ok := strings.Cut(fields[0], ":")
	a, err1 := strconv.ParseUint(major, 10, 32)
	b, err2 := strconv.ParseUint(minor, 10, 32)
	return IOStats{Major: a, Minor: b}, ok && err1 == nil && err2 == nil
}

// OOMKills returns how many processes of the cgroup, and of those below it, the kernel has killed for want of memory. It is not
// ok where nothing counts them: no memory controller, or v1 before Linux 4.13.
func OOMKills(paths map[string]string) (n uint64, ok bool, err error) {
	if dir, v1 := paths["memory"]; v1 {
		return oomKillsV1(dir)
	}
	dir, v2 := paths[""]
	if !v2 {
		return 0, false, nil
	}
	text, err := readFile(dir, "memory.events") // with those below, which memory.events.local leaves out
	if errors.Is(err, unix.ENOENT) {
		return 0, false, nil
	}
	n, ok = keyed(text)["oom_kill"]
	return n, ok, err
}

// TooSmall returns what to say of a process of the cgroup that was killed, where the kernel has killed there for want of memory, and ""
// where it hasn't. What the limit of a cgroup above has cost, such as that of a Kubernetes pod, is counted where the process was, too.
func TooSmall(paths map[string]string) string {
	n, _, err := OOMKills(paths)
	if err != nil || n == 0 {
		return ""
	}
	dir, v1 := paths["memory"]
	if !v1 {
		dir = paths[""]
	}
	return fmt.Sprintf("the memory limit of the cgroup %s, or of one above it, is too small", dir)
}

// oomKillsV1 adds up: on v1 a cgroup counts only its own.
func oomKillsV1(dir string) (n uint64, ok bool, err error) {
	text, err := readFile(dir, "memory.oom_control")
	if errors.Is(err, unix.ENOENT) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	n, ok = keyed(text)["oom_kill"]
	subs, err := subgroups(dir)
	for _, sub := range subs {
		more, _, errSub := oomKillsV1(sub)
		n += more
		err = errors.Join(err, errSub)
	}
	return n, ok, err
}

// Update returns the steps that change the limits of a cgroup that exists to those that r has; what r doesn't mention stays.
// It reads the limits of now, because the kernel refuses some changes in the wrong order. The origin of a step is the JSON
// pointer of its field.
func Update(f host.Cgroup, paths map[string]string, r *specs.LinuxResources) ([]plan.Step, error) {
	old, err := readCurrent(paths)
	if err != nil {
		return nil, err
	}
	w := writer{f: f, paths: paths, origin: func(pointer string) string { return pointer }, old: old}
	w.limits(r)
	if m := r.Memory; m != nil && m.CheckBeforeUpdate != nil && *m.CheckBeforeUpdate {
		// On v2 the kernel takes any limit, and kills until it holds.
		for _, limit := range []int64{value(m.Limit), value(m.Swap)} {
			if limit > 0 && uint64(limit) <= old.memoryUsage {
				w.fail(resources+"memory/checkBeforeUpdate", "the container uses %d bytes, which the new limit of %d doesn't allow",
					old.memoryUsage, limit)
			}
		}
	}
	if len(w.errs) > 0 {
		return nil, errors.Join(w.errs...)
	}
	v2, _ := unified(f)
	// A limit that the container had none of so far may need a controller that nothing has enabled on the way to it.
	if p, ok := strings.CutPrefix(paths[""], v2.Mount+"/"); ok && len(w.usedV2) > 0 {
		return append(enableSteps(f, v2, "/"+p, w.usedV2, w.origin), w.steps...), nil
	}
	return w.steps, nil
}

func readCurrent(paths map[string]string) (*current, error) {
	r := &reader{paths: paths}
	old := &current{memoryLimit: -1, cpuQuota: -1}
	limit, usage := "memory.limit_in_bytes", "memory.usage_in_bytes"
	dir, v2 := r.dir("memory", "memory")
	if v2 {
		limit, usage = "memory.max", "memory.current"
	}
	if n := r.limit(dir, limit); n != Unlimited {
		old.memoryLimit = int64(n)
	}
	old.memoryUsage = r.number(dir, usage)

	quota, burst := "cpu.cfs_quota_us", "cpu.cfs_burst_us"
	if dir, v2 = r.dir("cpu", "cpu"); v2 {
		quota, burst = "cpu.max", "cpu.max.burst"
	}
	first, _, _ := strings.Cut(r.text(dir, quota), " ")
	if n, err := strconv.ParseInt(first, 10, 64); err == nil {
		old.cpuQuota = n
	}
	old.burst = r.number(dir, burst) != 0
	if r.err != nil {
		return nil, fmt.Errorf("limits of now: %w", r.err)
	}
	return old, nil
}
