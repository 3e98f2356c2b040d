package cgroup

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"glassbox/host"
	"glassbox/plan"
)

// writer collects the steps that write limits, and errors for those that can't be.
type writer struct {
	f      host.Cgroup
	paths  map[string]string
	origin func(string) string
	old    *current // of the cgroup that is updated; nil for a new one, which has no limits
	steps  []plan.Step
	usedV2 []string // controllers of v2 that the steps need
	errs   []error
}

// current is what has to be known of a cgroup before its limits change.
type current struct {
	memoryLimit int64 // bytes, -1 for none
	memoryUsage uint64
	cpuQuota    int64 // µs, -1 for none
	burst       bool  // cpu.*burst is set
}

// place is where a controller's files are.
type place struct {
	w          *writer
	controller string
	dir        string
	v2         bool
	files      []string // of host.Hierarchy
}

// find looks up the controller for a field. It notes an error and returns nil where the host lacks it.
func (w *writer) find(controller, pointer string) *place {
	if dir, ok := w.paths[controller]; ok {
		for _, h := range w.f.Hierarchies {
			if !h.V2 && slices.Contains(h.Controllers, controller) {
				return &place{w, controller, dir, false, h.Files}
			}
		}
	}
	name := controller
	// The OCI configuration and v1 have the old name.
	if name == "blkio" {
		name = "io"
	}
	if dir, ok := w.paths[""]; ok {
		if h, ok := unified(w.f); ok && slices.Contains(h.Controllers, name) {
			if !slices.Contains(w.usedV2, name) {
				w.usedV2 = append(w.usedV2, name)
			}
			return &place{w, name, dir, true, h.Files}
		}
	}
	w.fail(pointer, "this host has no cgroup controller %q (mode %s)", name, cmp.Or(w.f.Mode, host.CgroupNone))
	return nil
}

// fail notes that a field can't be enforced.
func (w *writer) fail(pointer, format string, a ...any) {
	w.errs = append(w.errs, fmt.Errorf("%s: %s", pointer, fmt.Sprintf(format, a...)))
}

func (w *writer) add(op plan.Op, pointer, reason string) {
	w.steps = append(w.steps, plan.Step{Lane: plan.Host, Phase: plan.Limits, Op: op, Origin: w.origin(pointer), Reason: reason})
}

// write adds a step. A file of v1 that the host's facts know to be missing is an error.
func (p *place) write(file string, value any, pointer, reason string) {
	if !p.v2 && slices.Contains(optionalV1, file) && !slices.Contains(p.files, file) {
		if file == "memory.kmem.limit_in_bytes" {
			p.w.fail(pointer, "the kernel has no limit of its own memory alone since Linux 5.16; the limit of memory counts it")
			return
		}
		p.w.fail(pointer, "this kernel's controller %s has no file %s", p.controller, file)
		return
	}
	p.w.add(&plan.CgroupWrite{File: path.Join(p.dir, file), Value: fmt.Sprint(value)}, pointer, reason)
}

// optionalV1 are the files for which [host.Hierarchy].Files is complete.
var optionalV1 = []string{
	"memory.memsw.limit_in_bytes", "memory.kmem.limit_in_bytes", "memory.kmem.tcp.limit_in_bytes", "blkio.bfq.weight",
	"cpu.cfs_quota_us", "cpu.cfs_burst_us", "cpu.rt_runtime_us", "cpu.idle",
}

const resources = "/linux/resources/"

// all adds the steps for all of r, or returns what can't be enforced.
func (w *writer) all(r *specs.LinuxResources) error {
	if r != nil {
		w.limits(r)
	}
	return errors.Join(w.errs...)
}

// limits adds the steps for all of r.
func (w *writer) limits(r *specs.LinuxResources) {
	if r.Memory != nil {
		w.memory(r.Memory)
	}
	if r.CPU != nil {
		w.cpu(r.CPU)
		w.cpuset(r.CPU)
	}
	if r.Pids != nil && r.Pids.Limit != nil {
		w.pids(*r.Pids.Limit)
	}
	if r.BlockIO != nil {
		w.blockIO(r.BlockIO)
	}
	w.hugetlb(r.HugepageLimits)
	w.rdma(r.Rdma)
	if r.Network != nil {
		w.network(r.Network)
	}
	w.devices(r.Devices)
	w.unified(r.Unified)
}

// memory treats 0 as absent, as other runtimes do, and -1 as unlimited.
func (w *writer) memory(m *specs.LinuxMemory) {
	const at = resources + "memory/"
	limit, swap, reservation := value(m.Limit), value(m.Swap), value(m.Reservation)
	//lint:ignore SA1019 the field is deprecated because kernels ignore it: asking for it has to be an error, not to be overlooked
	kernel, tcp := value(m.Kernel), value(m.KernelTCP)
	if limit != 0 || swap != 0 {
		pointer := at + "limit"
		if limit == 0 {
			pointer = at + "swap"
		}
		if p := w.find("memory", pointer); p != nil {
			if p.v2 {
				p.memoryV2(limit, swap)
			} else {
				p.memoryV1(limit, swap)
			}
		}
	}
	if reservation != 0 && !w.unchanged(reservation) {
		if p := w.find("memory", at+"reservation"); p != nil {
			if p.v2 {
				p.write("memory.low", maxOr(reservation), at+"reservation", "Memory up to this amount is reclaimed last.")
			} else {
				p.write("memory.soft_limit_in_bytes", reservation, at+"reservation",
					"When the host is short of memory, the container is pushed back to this amount.")
			}
		}
	}
	v1only := func(set bool, field, file string, v any, reason string) {
		if !set {
			return
		}
		if p := w.find("memory", at+field); p != nil && p.v2 {
			w.fail(at+field, "cgroup v2 has nothing like it (v1: %s)", file)
		} else if p != nil {
			p.write(file, v, at+field, reason)
		}
	}
	v1only(kernel != 0 && !w.unchanged(kernel), "kernel", "memory.kmem.limit_in_bytes", kernel,
		"Limits memory that the kernel uses for the container.")
	v1only(tcp != 0 && !w.unchanged(tcp), "kernelTCP", "memory.kmem.tcp.limit_in_bytes", tcp, "Limits memory of TCP buffers.")
	// Docker and containerd have -1, as an unsigned number, for "not set".
	if m.Swappiness != nil && *m.Swappiness != math.MaxUint64 && *m.Swappiness > 100 {
		w.fail(at+"swappiness", "%d isn't between 0 and 100", *m.Swappiness)
		// The rest is still looked at, so that all that can't be done is told at once.
		m = &specs.LinuxMemory{DisableOOMKiller: m.DisableOOMKiller, UseHierarchy: m.UseHierarchy}
	}
	v1only(m.Swappiness != nil && *m.Swappiness != math.MaxUint64, "swappiness", "memory.swappiness", value(m.Swappiness),
		"How willingly the kernel swaps memory of the container out.")
	if off := m.DisableOOMKiller; off != nil && (*off || w.old != nil) {
		v := 0
		if *off {
			v = 1
		}
		// On v2 the killer can't be off: saying so only matters if it was asked for.
		v1only(*off || w.paths["memory"] != "", "disableOOMKiller", "memory.oom_control", v,
			"At the limit processes wait for memory instead of being killed.")
	}
	if m.UseHierarchy != nil && !*m.UseHierarchy {
		w.fail(at+"useHierarchy", "memory accounting without hierarchy was removed in Linux 5.11")
	}
}

// unchanged reports whether v, a limit where -1 is unlimited, is what a new cgroup has anyway. Leaving it out spares the file,
// which the kernel may lack: no limit can be enforced without it.
func (w *writer) unchanged(v int64) bool { return v < 0 && w.old == nil }

// memoryV1 keeps limit <= memsw at every moment, which the kernel demands: in a new cgroup both are unlimited, so the limit is
// first; in an update it depends on the values before.
func (p *place) memoryV1(limit, memsw int64) {
	const at = resources + "memory/"
	swapPointer := at + "swap"
	if limit == -1 && memsw == 0 && slices.Contains(p.files, "memory.memsw.limit_in_bytes") {
		memsw, swapPointer = -1, at+"limit" // without it the old memsw would still hold
	}
	if !p.swapOK(limit, memsw) {
		return
	}
	writeLimit := func() {
		if limit != 0 && !p.w.unchanged(limit) {
			p.write("memory.limit_in_bytes", limit, at+"limit", "A process that needs more memory than this is killed.")
		}
	}
	writeSwap := func() {
		if memsw != 0 && !p.w.unchanged(memsw) {
			p.write("memory.memsw.limit_in_bytes", memsw, swapPointer, "Memory and swap together stay below this.")
		}
	}
	if old := p.w.old; old != nil && (memsw == -1 || old.memoryLimit >= 0 && old.memoryLimit < memsw) {
		writeSwap()
		writeLimit()
		return
	}
	writeLimit()
	writeSwap()
}

// memoryV2 converts the limit of memory and swap together into one of swap alone.
func (p *place) memoryV2(limit, memsw int64) {
	const at = resources + "memory/"
	if limit == -1 && memsw == 0 {
		memsw = -1 // as on v1: no limit means none of swap either
	}
	if limit == 0 && p.w.old != nil {
		limit = p.w.old.memoryLimit // only swap changes
	} else if limit != 0 && !p.w.unchanged(limit) {
		p.write("memory.max", maxOr(limit), at+"limit", "A process that needs more memory than this is killed.")
	}
	if memsw == 0 || p.w.unchanged(memsw) || !p.swapOK(limit, memsw) {
		return
	}
	swap := "max"
	if memsw > 0 {
		swap = strconv.FormatInt(memsw-limit, 10)
	}
	p.write("memory.swap.max", swap, at+"swap", "Swap on top of the memory limit (v2 counts swap alone).")
}

// swapOK checks memory and swap against each other, as far as both are known.
func (p *place) swapOK(limit, memsw int64) bool {
	const at = resources + "memory/"
	switch {
	case limit < -1:
		p.w.fail(at+"limit", "%d isn't a number of bytes (-1 is unlimited)", limit)
	case memsw < -1:
		p.w.fail(at+"swap", "%d isn't a number of bytes (-1 is unlimited)", memsw)
	case memsw <= 0:
		return true
	// On v1 the kernel refuses a sum below the limit of memory, which is none (EINVAL); on v2 there is nothing to subtract.
	case limit == -1, limit == 0 && p.w.old == nil:
		p.w.fail(at+"swap", "a limit of memory and swap needs a limit of memory")
	case memsw < limit:
		p.w.fail(at+"swap", "memory and swap together (%d) are less than memory (%d)", memsw, limit)
	default:
		return true
	}
	return false
}

func (w *writer) cpu(c *specs.LinuxCPU) {
	const at = resources + "cpu/"
	quota, period, shares := value(c.Quota), value(c.Period), value(c.Shares)
	idle := value(c.Idle) != 0
	if shares != 0 && !idle {
		w.idle(c) // a group can have a weight only when it isn't idle (any more)
	}
	if shares != 0 && !idle { // the kernel gives an idle group the least weight, and refuses another one
		if p := w.find("cpu", at+"shares"); p != nil && p.v2 {
			p.write("cpu.weight", weightOfShares(shares), at+"shares", "Share of processor time when others want it, too.")
		} else if p != nil {
			p.write("cpu.shares", shares, at+"shares", "Share of processor time when others want it, too.")
		}
	}
	if shares == 0 || idle {
		w.idle(c)
	}
	if quota < -1 {
		w.fail(at+"quota", "%d isn't a number of microseconds (-1 is unlimited)", quota)
		return
	}
	if quota != 0 || period != 0 {
		pointer := at + "quota"
		if quota == 0 {
			pointer = at + "period"
		}
		if p := w.find("cpu", pointer); p != nil {
			p.quota(quota, period, c.Burst, pointer)
		}
	} else if c.Burst != nil && (*c.Burst != 0 || w.old != nil) {
		if p := w.find("cpu", at+"burst"); p != nil {
			p.burst(*c.Burst)
		}
	}
	realtime := func(set bool, field, file string, v any, reason string) {
		if !set {
			return
		}
		if p := w.find("cpu", at+field); p != nil && p.v2 {
			w.fail(at+field, "cgroup v2 has no realtime scheduling limits")
		} else if p != nil {
			p.write(file, v, at+field, reason)
		}
	}
	realtime(value(c.RealtimePeriod) != 0, "realtimePeriod", "cpu.rt_period_us", value(c.RealtimePeriod), "Period of the realtime limit.")
	realtime(value(c.RealtimeRuntime) != 0, "realtimeRuntime", "cpu.rt_runtime_us", value(c.RealtimeRuntime),
		"Time that realtime processes may run in each period.")
}

func (w *writer) idle(c *specs.LinuxCPU) {
	const at = resources + "cpu/idle"
	if c.Idle == nil || *c.Idle == 0 && w.old == nil {
		return
	}
	if p := w.find("cpu", at); p != nil {
		p.write("cpu.idle", *c.Idle, at, "An idle group (1) runs when nothing else wants the processor.")
	}
}

// quota writes quota and period, which have one file on v2. The burst must not exceed the quota: it is raised after it, and
// taken away before it.
func (p *place) quota(quota int64, period uint64, burst *uint64, pointer string) {
	const at = resources + "cpu/"
	const why = "Processor time in each period, in microseconds: a hard limit."
	old := p.w.old
	if burst != nil && old != nil && old.burst {
		p.burst(0)
	}
	switch {
	case p.v2:
		v := maxOr(quota)
		if quota == 0 {
			v = "max"
			if old != nil {
				v = maxOr(old.cpuQuota)
			}
		}
		if period != 0 {
			v += " " + strconv.FormatUint(period, 10)
		} else if old == nil {
			v += " 100000"
		}
		p.write("cpu.max", v, pointer, why)
	// The kernel checks each write against the parent's ratio of quota and period: when a quota takes the place of one that
	// is larger, it goes first, so that a shorter period doesn't meet the old quota.
	case old != nil && quota != 0 && old.cpuQuota > 0 && (quota > 0 && quota < old.cpuQuota || quota == -1):
		p.write("cpu.cfs_quota_us", quota, at+"quota", why)
		if period != 0 {
			p.write("cpu.cfs_period_us", period, at+"period", "Length of the period in microseconds.")
		}
	default:
		if period != 0 {
			p.write("cpu.cfs_period_us", period, at+"period", "Length of the period in microseconds.")
		}
		if quota > 0 || quota == -1 && old != nil {
			p.write("cpu.cfs_quota_us", quota, at+"quota", why)
		}
	}
	if value(burst) != 0 {
		p.burst(*burst)
	}
}

func (p *place) burst(n uint64) {
	file := "cpu.cfs_burst_us"
	if p.v2 {
		file = "cpu.max.burst"
	}
	p.write(file, n, resources+"cpu/burst", "Unused processor time that may be saved up for a burst, in microseconds.")
}

// weightOfShares converts v1's cpu.shares (2…262144, usually 1024) to v2's cpu.weight (1…10000, usually 100) as runc and
// crun do since 2025. The curve goes through both ends and the middle; the straight line between the ends, used before, made
// 39 of the usual 1024, so that containers lost against everything else on the host.
//
//	weight = 10^((log₂²(shares) + 125·log₂(shares))/612 − 7/34), rounded up
func weightOfShares(shares uint64) uint64 {
	switch {
	case shares <= 2:
		return 1
	case shares >= 262144:
		return 10000
	}
	l := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34)))
}

func (w *writer) cpuset(c *specs.LinuxCPU) {
	const at = resources + "cpu/"
	for _, f := range []struct{ field, list, reason string }{
		{"cpus", c.Cpus, "The container runs on these processors only."},
		{"mems", c.Mems, "Memory comes from these NUMA nodes only."},
	} {
		if f.list == "" {
			continue
		}
		if p := w.find("cpuset", at+f.field); p != nil {
			p.write("cpuset."+f.field, f.list, at+f.field, f.reason)
		}
	}
}

// pids: -1 is unlimited. 0 is a limit since version 1.3 of the specification, but a group of none couldn't hold the program
// itself and systemd knows no such limit: like runc we write 1, which allows as little, no fork.
func (w *writer) pids(limit int64) {
	const at = resources + "pids/limit"
	if limit < 0 && w.old == nil {
		return
	}
	if p := w.find("pids", at); p != nil {
		v := "max"
		if limit >= 0 {
			v = strconv.FormatInt(max(limit, 1), 10)
		}
		p.write("pids.max", v, at, "No more processes and threads than this: a fork bomb stays small.")
	}
}

// unified writes files of v2 as they are given, the ones that nobody knows yet, too. Files whose writing moves or kills
// processes are refused: a configuration describes a cgroup and doesn't act on it.
func (w *writer) unified(files map[string]string) {
	for _, file := range slices.Sorted(maps.Keys(files)) {
		pointer := resources + "unified/" + escape(file)
		controller, rest, ok := strings.Cut(file, ".")
		if !ok || controller == "" || rest == "" || strings.ContainsAny(file, "/\n\x00") {
			w.fail(pointer, "%q isn't the name of a cgroup file", file)
			continue
		}
		p := &place{w: w, dir: w.paths[""], v2: true}
		switch {
		case p.dir == "":
			w.fail(pointer, "this host has no cgroup v2 hierarchy (mode %s)", cmp.Or(w.f.Mode, host.CgroupNone))
			continue
		case controller == "cgroup":
			if slices.Contains([]string{"procs", "threads", "kill"}, rest) {
				w.fail(pointer, "%s moves or kills processes: it says nothing about the cgroup", file)
				continue
			}
		default:
			if _, v1 := w.paths[controller]; v1 {
				w.fail(pointer, "the controller %s is on cgroup v1 on this host", controller)
				continue
			}
			if p = w.find(controller, pointer); p == nil {
				continue
			}
		}
		// Files with one entry per device take one entry per write(2).
		for line := range strings.Lines(files[file]) {
			if line = strings.TrimSuffix(line, "\n"); line != "" {
				p.write(file, line, pointer, "Set as it is given.")
			}
		}
	}
}

// escape makes s a part of a JSON pointer (RFC 6901).
func escape(s string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(s)
}

// maxOr returns v2's "max" for -1.
func maxOr(n int64) string {
	if n < 0 {
		return "max"
	}
	return strconv.FormatInt(n, 10)
}

// value returns what p points to, or 0, for fields where other runtimes take 0 for absent.
func value[T int64 | uint64](p *T) T {
	if p == nil {
		return 0
	}
	return *p
}
