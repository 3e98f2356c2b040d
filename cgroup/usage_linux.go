package cgroup

// CPUTime reads how long the processes of a cgroup have run until now, in nanoseconds. Where nothing counts it, it is 0.
func CPUTime(paths map[string]string) (uint64, error) {
	r := &reader{paths: paths}
	if dir, ok := paths["cpuacct"]; ok {
		return r.number(dir, "cpuacct.usage"), r.err
	}
	n := r.keyed(paths[""], "cpu.stat")["usage_usec"] * 1000 // 0 without a v2 tree
	return n, r.err
}

// Working is the memory that is in use and can't be had back at once: without the files' pages that nothing has read lately, as Docker
// counts it.
func (m MemoryStats) Working() uint64 { return m.Usage - min(m.Usage, m.InactiveFile) }
