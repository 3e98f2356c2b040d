package cgroup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"glassbox/resctrl"
)

// Events are the counters of a cgroup as the command events of an OCI runtime prints them: their JSON has the names, the order
// and the units of runc's (bytes, nanoseconds), on v2 as well, where callers find the numbers under the names of v1. What the
// host doesn't count is 0 or missing, as there.
type Events struct {
	CPU               CPUEvents               `json:"cpu"`
	CPUSet            CPUSetEvents            `json:"cpuset"`
	Memory            MemoryEvents            `json:"memory"`
	Pids              PidsEvents              `json:"pids"`
	Blkio             BlkioEvents             `json:"blkio"`
	Hugetlb           map[string]HugetlbEntry `json:"hugetlb"`
	IntelRdt          resctrl.Events          `json:"intel_rdt"`          // of no cgroup: see package resctrl
	NetworkInterfaces []struct{}              `json:"network_interfaces"` // null: only runc's own networks were ever in it
}

// CPUEvents are times in nanoseconds.
type CPUEvents struct {
	Usage      CPUUsage   `json:"usage"`
	Throttling Throttling `json:"throttling"`
	PSI        *PSI       `json:"psi,omitempty"`
}

// CPUUsage is processor time; that of single processors is counted on v1 alone.
type CPUUsage struct {
	Total        uint64   `json:"total,omitempty"`
	Percpu       []uint64 `json:"percpu,omitempty"`
	PercpuKernel []uint64 `json:"percpu_kernel,omitempty"`
	PercpuUser   []uint64 `json:"percpu_user,omitempty"`
	Kernel       uint64   `json:"kernel"`
	User         uint64   `json:"user"`
}

// Throttling counts periods of a limit, and the time without processor because of it.
type Throttling struct {
	Periods          uint64 `json:"periods,omitempty"`
	ThrottledPeriods uint64 `json:"throttledPeriods,omitempty"`
	ThrottledTime    uint64 `json:"throttledTime,omitempty"`
}

// CPUSetEvents are the settings of a v1 cpuset.
type CPUSetEvents struct {
	CPUs                  []uint16 `json:"cpus,omitempty"`
	CPUExclusive          uint64   `json:"cpu_exclusive"`
	Mems                  []uint16 `json:"mems,omitempty"`
	MemHardwall           uint64   `json:"mem_hardwall"`
	MemExclusive          uint64   `json:"mem_exclusive"`
	MemoryMigrate         uint64   `json:"memory_migrate"`
	MemorySpreadPage      uint64   `json:"memory_spread_page"`
	MemorySpreadSlab      uint64   `json:"memory_spread_slab"`
	MemoryPressure        uint64   `json:"memory_pressure"`
	SchedLoadBalance      uint64   `json:"sched_load_balance"`
	SchedRelaxDomainLevel int64    `json:"sched_relax_domain_level"`
}

// MemoryEvents are bytes. Swap is memory and swap together.
type MemoryEvents struct {
	Cache     uint64            `json:"cache,omitempty"`
	Usage     MemoryEntry       `json:"usage"`
	Swap      MemoryEntry       `json:"swap"`
	Kernel    MemoryEntry       `json:"kernel"`
	KernelTCP MemoryEntry       `json:"kernelTCP"`
	Raw       map[string]uint64 `json:"raw,omitempty"` // memory.stat
	PSI       *PSI              `json:"psi,omitempty"`
}

// MemoryEntry is one kind of memory.
type MemoryEntry struct {
	Limit   uint64 `json:"limit"`
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

// PidsEvents are processes and threads; a limit of 0 is none.
type PidsEvents struct {
	Current uint64 `json:"current,omitempty"`
	Limit   uint64 `json:"limit,omitempty"`
}

// BlkioEvents are of the cgroup and those below it.
type BlkioEvents struct {
	ServiceBytes []BlkioEntry `json:"ioServiceBytesRecursive,omitempty"`
	Serviced     []BlkioEntry `json:"ioServicedRecursive,omitempty"`
	Queued       []BlkioEntry `json:"ioQueueRecursive,omitempty"`
	ServiceTime  []BlkioEntry `json:"ioServiceTimeRecursive,omitempty"`
	WaitTime     []BlkioEntry `json:"ioWaitTimeRecursive,omitempty"`
	Merged       []BlkioEntry `json:"ioMergedRecursive,omitempty"`
	Time         []BlkioEntry `json:"ioTimeRecursive,omitempty"`
	Sectors      []BlkioEntry `json:"sectorsRecursive,omitempty"`
	PSI          *PSI         `json:"psi,omitempty"`
}

// BlkioEntry is a number of one device and one kind of operation.
type BlkioEntry struct {
	Major uint64 `json:"major,omitempty"`
	Minor uint64 `json:"minor,omitempty"`
	Op    string `json:"op,omitempty"`
	Value uint64 `json:"value,omitempty"`
}

// HugetlbEntry is of one size of huge pages.
type HugetlbEntry struct {
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

// PSI is pressure (Documentation/accounting/psi.rst), on v2.
type PSI struct {
	Some PSIData `json:"some"`
	Full PSIData `json:"full"`
}

// PSIData are percentages of time in which processes waited for something, and that time in microseconds.
type PSIData struct {
	Avg10  float64 `json:"avg10"`
	Avg60  float64 `json:"avg60"`
	Avg300 float64 `json:"avg300"`
	Total  uint64  `json:"total"`
}

// ReadEvents reads the counters of a cgroup.
func ReadEvents(paths map[string]string) (*Events, error) {
	dir, err := tree(paths)
	if err != nil {
		return nil, err
	}
	// All other files that are missing are taken for a kernel without them, so this one tells whether there is a cgroup.
	if _, err := readFile(dir, "cgroup.procs"); isGone(err) {
		return nil, err
	}
	r := &reader{paths: paths}
	e := &Events{CPU: r.cpuEvents(), CPUSet: r.cpusetEvents(), Memory: r.memoryEvents(), Blkio: r.blkioEvents(), Hugetlb: r.hugetlbEvents()}
	pids := r.pids()
	e.Pids.Current = pids.Current
	if pids.Limit != Unlimited {
		e.Pids.Limit = pids.Limit
	}
	if dir, v2 := r.dir("pids", "pids"); v2 && !exists(dir+"/pids.current") { // the controller isn't enabled
		all, err := procs(dir)
		if r.err == nil {
			r.err = err
		}
		e.Pids.Current = uint64(len(all))
	}
	return e, r.err
}

func (r *reader) cpuEvents() CPUEvents {
	c := r.cpu()
	e := CPUEvents{
		Usage:      CPUUsage{Total: c.Usage, Kernel: c.System, User: c.User},
		Throttling: Throttling{Periods: c.Periods, ThrottledPeriods: c.ThrottledPeriods, ThrottledTime: c.ThrottledTime},
	}
	if dir, v1 := r.paths["cpuacct"]; v1 {
		e.Usage.Percpu = numbers(r.text(dir, "cpuacct.usage_percpu"))
		e.Usage.PercpuUser, e.Usage.PercpuKernel = parseUsageAll(r.text(dir, "cpuacct.usage_all"))
	}
	if dir, v2 := r.dir("cpu", "cpu"); v2 {
		e.PSI = parsePSI(r.text(dir, "cpu.pressure"))
	}
	return e
}

func numbers(text string) (out []uint64) {
	for field := range strings.FieldsSeq(text) {
		if n, err := strconv.ParseUint(field, 10, 64); err == nil {
			out = append(out, n)
		}
	}
	return out
}

// parseUsageAll parses a table of "cpu user system" with a line for each processor.
func parseUsageAll(text string) (user, kernel []uint64) {
	for line := range strings.Lines(text) {
		if n := numbers(line); len(n) >= 3 {
			user, kernel = append(user, n[1]), append(kernel, n[2])
		}
	}
	return user, kernel
}

// parsePSI parses "some avg10=0.00 avg60=0.00 avg300=0.00 total=0" and the same for "full", which older kernels lack for the
// processor. No text is no pressure: the kernel was built or started without it.
func parsePSI(text string) *PSI {
	if text == "" {
		return nil
	}
	p := &PSI{}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != "some" && fields[0] != "full" {
			continue
		}
		d := &p.Some
		if fields[0] == "full" {
			d = &p.Full
		}
		for _, f := range fields[1:] {
			key, v, _ := strings.Cut(f, "=")
			if key == "total" {
				d.Total, _ = strconv.ParseUint(v, 10, 64)
				continue
			}
			n, err := strconv.ParseFloat(v, 64)
			if err != nil || math.IsNaN(n) || math.IsInf(n, 0) { // which JSON can't say
				continue
			}
			switch key {
			case "avg10":
				d.Avg10 = n
			case "avg60":
				d.Avg60 = n
			case "avg300":
				d.Avg300 = n
			}
		}
	}
	return p
}

func (r *reader) cpusetEvents() CPUSetEvents {
	dir, v1 := r.paths["cpuset"]
	if !v1 {
		return CPUSetEvents{}
	}
	level, _ := strconv.ParseInt(r.text(dir, "cpuset.sched_relax_domain_level"), 10, 64)
	return CPUSetEvents{
		CPUs: parseList(r.text(dir, "cpuset.cpus")), CPUExclusive: r.number(dir, "cpuset.cpu_exclusive"),
		Mems: parseList(r.text(dir, "cpuset.mems")), MemHardwall: r.number(dir, "cpuset.mem_hardwall"),
		MemExclusive: r.number(dir, "cpuset.mem_exclusive"), MemoryMigrate: r.number(dir, "cpuset.memory_migrate"),
		MemorySpreadPage: r.number(dir, "cpuset.memory_spread_page"), MemorySpreadSlab: r.number(dir, "cpuset.memory_spread_slab"),
		MemoryPressure: r.number(dir, "cpuset.memory_pressure"), SchedLoadBalance: r.number(dir, "cpuset.sched_load_balance"),
		SchedRelaxDomainLevel: level,
	}
}

// parseList parses "0-2,7".
func parseList(text string) (out []uint16) {
	for part := range strings.SplitSeq(text, ",") {
		first, last, ranged := strings.Cut(strings.TrimSpace(part), "-")
		a, err := strconv.ParseUint(first, 10, 16)
		b := a
		if ranged && err == nil {
			b, err = strconv.ParseUint(last, 10, 16)
		}
		for ; err == nil && a <= b; a++ {
			out = append(out, uint16(a))
		}
	}
	return out
}

func (r *reader) memoryEvents() MemoryEvents {
	dir, v2 := r.dir("memory", "memory")
	if dir == "" {
		return MemoryEvents{}
	}
	e := MemoryEvents{Raw: r.keyed(dir, "memory.stat")}
	if !v2 {
		entry := func(kind string) MemoryEntry {
			return MemoryEntry{
				Limit: r.number(dir, kind+".limit_in_bytes"), Usage: r.number(dir, kind+".usage_in_bytes"),
				Max: r.number(dir, kind+".max_usage_in_bytes"), Failcnt: r.number(dir, kind+".failcnt"),
			}
		}
		e.Cache = e.Raw["cache"]
		e.Usage, e.Swap, e.Kernel, e.KernelTCP = entry("memory"), entry("memory.memsw"), entry("memory.kmem"), entry("memory.kmem.tcp")
		return e
	}
	e.Cache = e.Raw["file"]
	if !exists(dir + "/memory.current") { // the controller isn't enabled: memory.stat is missing, too
		return e
	}
	e.PSI = parsePSI(r.text(dir, "memory.pressure"))
	e.Usage = MemoryEntry{Limit: r.limit(dir, "memory.max"), Usage: r.number(dir, "memory.current"), Max: r.number(dir, "memory.peak")}
	if exists(dir + "/memory.swap.current") {
		// v2 counts swap alone, and callers of events expect v1's sum.
		e.Swap = MemoryEntry{Limit: r.limit(dir, "memory.swap.max"), Usage: r.number(dir, "memory.swap.current") + e.Usage.Usage}
		if sum := e.Swap.Limit + e.Usage.Limit; e.Swap.Limit != Unlimited && sum >= e.Usage.Limit {
			e.Swap.Limit = sum
		} else {
			e.Swap.Limit = Unlimited
		}
	}
	return e
}

func (r *reader) blkioEvents() BlkioEvents {
	dir, v2 := r.dir("blkio", "io")
	var e BlkioEvents
	if v2 {
		for _, d := range parseIOStat(r.text(dir, "io.stat")) {
			e.ServiceBytes = append(e.ServiceBytes, BlkioEntry{d.Major, d.Minor, "Read", d.ReadBytes},
				BlkioEntry{d.Major, d.Minor, "Write", d.WriteBytes})
			e.Serviced = append(e.Serviced, BlkioEntry{d.Major, d.Minor, "Read", d.Reads}, BlkioEntry{d.Major, d.Minor, "Write", d.Writes})
		}
		e.PSI = parsePSI(r.text(dir, "io.pressure"))
		return e
	}
	if dir == "" {
		return e
	}
	// BFQ counts what went through it; what went to disks with other schedulers is counted by throttling alone.
	first := func(files ...string) (entries []BlkioEntry) {
		for _, f := range files {
			if entries = parseBlkioEntries(r.text(dir, f)); len(entries) > 0 {
				break
			}
		}
		return entries
	}
	e.ServiceBytes = first("blkio.bfq.io_service_bytes_recursive", "blkio.throttle.io_service_bytes_recursive",
		"blkio.throttle.io_service_bytes")
	e.Serviced = first("blkio.bfq.io_serviced_recursive", "blkio.throttle.io_serviced_recursive", "blkio.throttle.io_serviced")
	for _, f := range []struct {
		to   *[]BlkioEntry
		name string
	}{
		{&e.Queued, "io_queued"},
		{&e.ServiceTime, "io_service_time"},
		{&e.WaitTime, "io_wait_time"},
		{&e.Merged, "io_merged"},
		{&e.Time, "time"},
		{&e.Sectors, "sectors"},
	} { // of a kernel with CONFIG_BFQ_CGROUP_DEBUG, or with CFQ
		*f.to = first("blkio.bfq."+f.name+"_recursive", "blkio."+f.name+"_recursive")
	}
	return e
}

// parseBlkioEntries parses lines like "8:0 Read 4096", and "8:0 12" of files that don't tell operations apart. It passes over the
// last line, "Total 4096".
func parseBlkioEntries(text string) (out []BlkioEntry) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		d, ok := parseDevice(fields)
		if !ok || len(fields) > 3 {
			continue
		}
		e := BlkioEntry{Major: d.Major, Minor: d.Minor}
		if len(fields) == 3 {
			e.Op = fields[1]
		}
		n, err := strconv.ParseUint(fields[len(fields)-1], 10, 64)
		if err != nil {
			continue
		}
		e.Value = n
		out = append(out, e)
	}
	return out
}

func (r *reader) hugetlbEvents() map[string]HugetlbEntry {
	out := map[string]HugetlbEntry{}
	dir, v2 := r.dir("hugetlb", "hugetlb")
	if dir == "" {
		return out
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !isGone(err) && r.err == nil {
		r.err = err
	}
	for _, f := range entries {
		name, ok := strings.CutPrefix(f.Name(), "hugetlb.")
		if !ok {
			continue
		}
		// Reservations are what limits are set for, since Linux 5.7.
		if size, ok := strings.CutSuffix(name, ".rsvd.current"); ok && v2 {
			out[size] = HugetlbEntry{Usage: r.number(dir, f.Name()), Failcnt: r.keyed(dir, "hugetlb."+size+".events")["max"]}
		} else if size, ok := strings.CutSuffix(name, ".rsvd.usage_in_bytes"); ok && !v2 {
			prefix := "hugetlb." + size + ".rsvd."
			out[size] = HugetlbEntry{
				Usage: r.number(dir, f.Name()), Max: r.number(dir, prefix+"max_usage_in_bytes"),
				Failcnt: r.number(dir, prefix+"failcnt"),
			}
		}
	}
	return out
}

// OOMWatch tells when the kernel kills a process of a cgroup for want of memory.
type OOMWatch struct {
	paths  map[string]string
	v2     string // directory, or "" on v1
	events int    // inotify (v2) or eventfd (v1)
	source int    // memory.oom_control, open (v1), or -1
	stop   int    // eventfd that Close writes to
	seen   uint64
}

// WatchOOM begins to watch. What happened before isn't told.
func WatchOOM(paths map[string]string) (*OOMWatch, error) {
	w := &OOMWatch{paths: paths, events: -1, source: -1, stop: -1}
	fail := func(err error) (*OOMWatch, error) {
		w.Close()
		return nil, fmt.Errorf("watch for lack of memory: %w", err)
	}
	var err error
	if w.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
		return fail(err)
	}
	if dir, v1 := paths["memory"]; v1 {
		if w.events, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
			return fail(err)
		}
		// Open for as long as it is watched (Documentation/admin-guide/cgroup-v1/memory.rst, 10: OOM Control).
		if w.source, err = open(dir+"/memory.oom_control", unix.O_RDONLY); err != nil {
			return fail(&os.PathError{Op: "open", Path: dir + "/memory.oom_control", Err: err})
		}
		if err := writeFile(dir+"/cgroup.event_control", fmt.Sprintf("%d %d", w.events, w.source)); err != nil {
			return fail(err)
		}
		return w, nil
	}
	dir, ok := paths[""]
	if !ok || !exists(dir+"/memory.events") {
		return fail(errors.New("the container has no memory controller"))
	}
	w.v2 = dir
	if w.events, err = unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK); err != nil {
		return fail(err)
	}
	// cgroup.events says when the last process is gone: cgroup file systems don't report that a directory was removed.
	for _, file := range []string{"memory.events", "cgroup.events"} {
		if _, err := unix.InotifyAddWatch(w.events, dir+"/"+file, unix.IN_MODIFY); err != nil {
			return fail(&os.PathError{Op: "inotify_add_watch", Path: dir + "/" + file, Err: err})
		}
	}
	// After the watch is set: a kill in between is either counted here or wakes Next.
	w.seen, _, err = OOMKills(paths)
	if err != nil {
		return fail(err)
	}
	return w, nil
}

// Next waits for the next kill. It returns false when the cgroup is gone (or, on v2, empty), and after Stop, once all that came before
// has been told: a kill may be the very reason to stop.
func (w *OOMWatch) Next() (bool, error) {
	for stopped := false; ; {
		if w.v2 != "" { // before waiting: something may have happened since the last look
			// In this order: a kill is counted before the process is gone, so one that emptied the cgroup is seen. The other way
			// round the last process could be killed between the two looks, and nobody would hear of it.
			empty, err := isEmpty(w.v2)
			if err != nil {
				return false, err
			}
			n, _, err := OOMKills(w.paths)
			if err != nil && !isGone(err) {
				return false, err
			}
			if n > w.seen {
				w.seen = n
				return true, nil
			}
			if empty {
				return false, nil
			}
		}
		if stopped {
			return false, nil
		}
		fds := []unix.PollFd{{Fd: int32(w.events), Events: unix.POLLIN}, {Fd: int32(w.stop), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err == unix.EINTR {
			continue
		} else if err != nil {
			return false, err
		}
		stopped = fds[1].Revents != 0
		buf := make([]byte, 4096)
		n, err := unix.Read(w.events, buf) // after the look at stop
		if err != nil && err != unix.EAGAIN && err != unix.EINTR {
			return false, err
		}
		if w.v2 == "" && n == 8 && binary.NativeEndian.Uint64(buf) > 0 {
			// The removal of the cgroup is told in the same way.
			return exists(w.paths["memory"] + "/memory.oom_control"), nil
		}
	}
}

// Stop ends a Next that waits, in whatever goroutine, and every later one.
func (w *OOMWatch) Stop() {
	unix.Write(w.stop, binary.NativeEndian.AppendUint64(nil, 1))
}

// Close frees what the watch holds. No Next may be waiting.
func (w *OOMWatch) Close() {
	for _, fd := range []int{w.events, w.source, w.stop} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// Signal sends a signal to all processes of a cgroup and of those below it. They are frozen meanwhile, where they can be, so
// that none is missed that is just being forked; frozen processes that were so before stay it. See [Kill] for SIGKILL.
func Signal(paths map[string]string, sig unix.Signal) error {
	dir, err := tree(paths)
	if err != nil {
		return err
	}
	before, err := Frozen(paths)
	if isGone(err) {
		return nil
	}
	frozen := before || err == nil && Freeze(paths) == nil
	pids, err := procs(dir)
	for _, pid := range pids {
		if !frozen {
			// The number may have become another process's: it counts only if the cgroup lists it once it is held.
			fd, errOpen := unix.PidfdOpen(pid, 0)
			if errOpen != nil {
				continue
			}
			if still, _ := procs(dir); slices.Contains(still, pid) {
				err = errors.Join(err, ignoreGone(unix.PidfdSendSignal(fd, sig, nil, 0)))
			}
			unix.Close(fd)
			continue
		}
		err = errors.Join(err, kill(pid, sig))
	}
	if frozen && !before {
		err = errors.Join(err, Thaw(paths))
	}
	return err
}

// kill sends a signal to a process of a frozen cgroup, whose number can't become another's. A process in a PID namespace out of our sight
// is listed as 0, which is all of the caller's own process group to kill(2).
func kill(pid int, sig unix.Signal) error {
	if pid == 0 {
		return fmt.Errorf("signal %d: a process of the cgroup is in another PID namespace and out of reach: %w", sig, unix.EPERM)
	}
	return ignoreGone(unix.Kill(pid, sig))
}

func ignoreGone(err error) error {
	if err == unix.ESRCH {
		return nil
	}
	return err
}
