package spec

import (
	"fmt"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"glassbox/cgroup"
	"glassbox/container"
)

// resources writes the limits of the container's cgroup.
func (w *writer) resources() error {
	for _, part := range []func() error{w.memory, w.cpu, w.io} {
		if err := part(); err != nil {
			return err
		}
	}
	l := &w.c.Limits
	if l.Pids != nil && *l.Pids != 0 {
		n := *l.Pids
		w.spec.Linux.Resources.Pids = &specs.LinuxPids{Limit: &n}
		w.from("/linux/resources/pids", "pids-limit", "")
	}
	var err error
	if w.spec.Linux.CgroupsPath, err = cgroup.ParentPath(l.CgroupParent, w.Container.ID); err != nil {
		return container.Invalid("--cgroup-parent: %w", err)
	}
	w.from("/linux/cgroupsPath", "cgroup-parent", "")
	return nil
}

// given is nil for a limit that isn't there.
func given(n int64) *int64 {
	if n == 0 {
		return nil
	}
	return &n
}

func (w *writer) memory() error {
	l := &w.c.Limits
	if err := l.Check(); err != nil {
		return err
	}
	mem := &specs.LinuxMemory{Limit: given(l.Memory), Reservation: given(l.Reservation), Swap: given(l.MemorySwap)}
	w.from("/linux/resources/memory/limit", "memory", "")
	w.from("/linux/resources/memory/reservation", "memory-reservation", "")
	w.from("/linux/resources/memory/swap", "memory-swap", "")
	if mem.Limit != nil && mem.Swap == nil && w.Answers.SwapAccounting {
		mem.Swap = given(2 * l.Memory) // as Docker: as much swap again as memory
		w.from("/linux/resources/memory/swap", "memory", "")
	}
	if l.Swappiness != nil {
		n := uint64(*l.Swappiness)
		mem.Swappiness = &n
		w.from("/linux/resources/memory/swappiness", "memory-swappiness", "")
	}
	if l.OOMDisable {
		mem.DisableOOMKiller = &l.OOMDisable
		w.from("/linux/resources/memory/disableOOMKiller", "oom-kill-disable", "")
	}
	if *mem != (specs.LinuxMemory{}) {
		w.spec.Linux.Resources.Memory = mem
	}
	return nil
}

func (w *writer) cpu() error {
	l := &w.c.Limits
	cpu := &specs.LinuxCPU{Cpus: l.CpusetCPUs, Mems: l.CpusetMems, Quota: given(l.CPUQuota)}
	if n := uint64(l.CPUShares); n != 0 {
		cpu.Shares = &n
	}
	if n := uint64(l.CPUPeriod); n != 0 {
		cpu.Period = &n
	}
	if n := uint64(l.CPURTPeriod); n != 0 {
		cpu.RealtimePeriod = &n
	}
	cpu.RealtimeRuntime = given(l.CPURTRuntime)
	quota, period := "cpu-quota", "cpu-period"
	if l.NanoCPUs != 0 {
		if l.NanoCPUs > int64(w.Facts.CPUs)*1e9 {
			return container.Invalid("%s: range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available",
				strings.Replace(w.c.Origin("cpus"), "--cpus=", "--cpus ", 1), w.Facts.CPUs, w.Facts.CPUs)
		}
		p, q := uint64(100000), (l.NanoCPUs+5000)/10000 // of a period of 100 ms
		cpu.Period, cpu.Quota, quota, period = &p, &q, "cpus", "cpus"
	}
	w.from("/linux/resources/cpu/quota", quota, "")
	w.from("/linux/resources/cpu/period", period, "")
	w.from("/linux/resources/cpu/realtimePeriod", "cpu-rt-period", "")
	w.from("/linux/resources/cpu/realtimeRuntime", "cpu-rt-runtime", "")
	w.from("/linux/resources/cpu/shares", "cpu-shares", "")
	w.from("/linux/resources/cpu/cpus", "cpuset-cpus", "")
	w.from("/linux/resources/cpu/mems", "cpuset-mems", "")
	if *cpu != (specs.LinuxCPU{}) {
		w.spec.Linux.Resources.CPU = cpu
	}
	return nil
}

func (w *writer) io() error {
	l := &w.c.Limits
	io := &specs.LinuxBlockIO{}
	limited := l.BlkioWeight != 0
	if limited {
		io.Weight = &l.BlkioWeight
		w.from("/linux/resources/blockIO/weight", "blkio-weight", "")
	}
	for i, limit := range l.BlkioWeights {
		n, ok := w.Answers.Blocks[limit.Device]
		if !ok || n.Type != "b" {
			return container.Invalid("%s: %s is not a block device of this host", limit.Origin, limit.Device)
		}
		weight := uint16(limit.Rate)
		d := specs.LinuxWeightDevice{Weight: &weight}
		d.Major, d.Minor = n.Major, n.Minor
		io.WeightDevice = append(io.WeightDevice, d)
		w.origin(fmt.Sprintf("/linux/resources/blockIO/weightDevice/%d", i), limit.Origin)
		limited = true
	}
	for _, t := range []struct {
		list  []container.Throttle
		to    *[]specs.LinuxThrottleDevice
		field string
	}{
		{l.ReadBps, &io.ThrottleReadBpsDevice, "throttleReadBpsDevice"},
		{l.WriteBps, &io.ThrottleWriteBpsDevice, "throttleWriteBpsDevice"},
		{l.ReadIOps, &io.ThrottleReadIOPSDevice, "throttleReadIOPSDevice"},
		{l.WriteIOps, &io.ThrottleWriteIOPSDevice, "throttleWriteIOPSDevice"},
	} {
		for i, limit := range t.list {
			n, ok := w.Answers.Blocks[limit.Device]
			if !ok || n.Type != "b" {
				return container.Invalid("%s: %s is not a block device of this host", limit.Origin, limit.Device)
			}
			td := specs.LinuxThrottleDevice{Rate: limit.Rate}
			td.Major, td.Minor = n.Major, n.Minor
			*t.to = append(*t.to, td)
			w.origin(fmt.Sprintf("/linux/resources/blockIO/%s/%d", t.field, i), limit.Origin)
			limited = true
		}
	}
	if limited {
		w.spec.Linux.Resources.BlockIO = io
	}
	return nil
}

func (w *writer) sysctls() error {
	out := map[string]string{}
	if m := container.Mode(w.out.Network); m == "bridge" || m == "none" || container.Mode(w.c.Network()).UserDefined() {
		// As Docker: in a network namespace of one's own, low ports and ping need no privilege.
		out["net.ipv4.ip_unprivileged_port_start"] = "0"
		out["net.ipv4.ping_group_range"] = "0 2147483647"
	}
	escape := strings.NewReplacer("~", "~0", "/", "~1") // RFC 6901
	for _, s := range w.c.Sysctls {
		out[s.Key] = s.Value
		w.origin("/linux/sysctl/"+escape.Replace(s.Key), s.Origin)
	}
	w.spec.Linux.Sysctl = out
	return nil
}
