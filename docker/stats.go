package docker

import (
	"strconv"
	"strings"
	"time"

	"glassbox/cgroup"
)

// Stats is what a container uses at a moment (GET /containers/{id}/stats, types/container.StatsResponse).
type Stats struct {
	ID          string                  `json:"id,omitempty"`
	Name        string                  `json:"name,omitempty"`
	OSType      string                  `json:"os_type,omitempty"`
	Read        time.Time               `json:"read"`
	CPU         CPUStats                `json:"cpu_stats"`
	Memory      MemoryStats             `json:"memory_stats"`
	Networks    map[string]NetworkStats `json:"networks,omitempty"` // by interface, without lo; none: the container has no network of its own
	Pids        PidsStats               `json:"pids_stats"`
	Blkio       BlkioStats              `json:"blkio_stats"`
	NumProcs    uint32                  `json:"num_procs"`     // of Windows: 0
	Storage     struct{}                `json:"storage_stats"` // of Windows
	PreRead     time.Time               `json:"preread"`       // the reading before, 0001-01-01 where there is none
	PreviousCPU CPUStats                `json:"precpu_stats"`
}

// CPUStats are times in nanoseconds since the container's start, but for SystemUsage, which is since the host's.
type CPUStats struct {
	Usage struct {
		Total  uint64   `json:"total_usage"`
		PerCPU []uint64 `json:"percpu_usage,omitempty"` // not counted by cgroup v2; empty here
		Kernel uint64   `json:"usage_in_kernelmode"`
		User   uint64   `json:"usage_in_usermode"`
	} `json:"cpu_usage"`
	SystemUsage uint64     `json:"system_cpu_usage,omitempty"` // of all processors of the host, idle time included
	OnlineCPUs  uint32     `json:"online_cpus,omitempty"`
	Throttling  Throttling `json:"throttling_data"`
}

// Throttling is how often a limit of processor time was in force, and how often and how long (ns) it made the container wait.
type Throttling struct {
	Periods          uint64 `json:"periods"`
	ThrottledPeriods uint64 `json:"throttled_periods"`
	ThrottledTime    uint64 `json:"throttled_time"`
}

// MemoryStats are bytes. Counters are those of memory.stat, whose names differ between cgroup v1 and v2.
type MemoryStats struct {
	Usage    uint64            `json:"usage,omitempty"`
	MaxUsage uint64            `json:"max_usage,omitempty"`
	Counters map[string]uint64 `json:"stats,omitempty"`
	Failures uint64            `json:"failcnt,omitempty"`
	Limit    uint64            `json:"limit,omitempty"` // the host's memory where there is none
}

// NetworkStats are bytes and packets of one interface.
type NetworkStats struct {
	RxBytes   uint64 `json:"rx_bytes"`
	RxPackets uint64 `json:"rx_packets"`
	RxErrors  uint64 `json:"rx_errors"`
	RxDropped uint64 `json:"rx_dropped"`
	TxBytes   uint64 `json:"tx_bytes"`
	TxPackets uint64 `json:"tx_packets"`
	TxErrors  uint64 `json:"tx_errors"`
	TxDropped uint64 `json:"tx_dropped"`
}

// PidsStats are processes and threads; a limit of 0 is none.
type PidsStats struct {
	Current uint64 `json:"current,omitempty"`
	Limit   uint64 `json:"limit,omitempty"`
}

// BlkioStats are of block devices. What isn't counted is null on cgroup v2, and an empty list on v1, as with Docker.
type BlkioStats struct {
	ServiceBytes []BlkioEntry `json:"io_service_bytes_recursive"`
	Serviced     []BlkioEntry `json:"io_serviced_recursive"`
	Queued       []BlkioEntry `json:"io_queue_recursive"`
	ServiceTime  []BlkioEntry `json:"io_service_time_recursive"`
	WaitTime     []BlkioEntry `json:"io_wait_time_recursive"`
	Merged       []BlkioEntry `json:"io_merged_recursive"`
	Time         []BlkioEntry `json:"io_time_recursive"`
	Sectors      []BlkioEntry `json:"sectors_recursive"`
}

// BlkioEntry is one number of one device: bytes, or requests.
type BlkioEntry struct {
	Major uint64 `json:"major"`
	Minor uint64 `json:"minor"`
	Op    string `json:"op"` // read, write
	Value uint64 `json:"value"`
}

// Reading is what was read of a running container, and of its host, at one moment.
type Reading struct {
	At          time.Time
	Cgroup      *cgroup.Stats
	V1          bool   // Cgroup's memory and blkio are those of cgroup v1
	SystemUsage uint64 // see CPUStats
	CPUs        int    // of the host
	HostMemory  uint64 // bytes
	Networks    map[string]NetworkStats
}

// Measure is the answer for a reading; before is the answer before it, or nil.
func Measure(id, name string, now Reading, before *Stats) *Stats {
	s := &Stats{
		ID: id, Name: "/" + name, OSType: "linux", Read: now.At, CPU: now.cpu(), Networks: now.Networks,
		Memory: MemoryStats{
			Usage: now.Cgroup.Memory.Usage, MaxUsage: now.Cgroup.Memory.MaxUsage, Counters: now.Cgroup.Memory.Counters,
			Failures: now.Cgroup.Memory.Failures, Limit: min(now.Cgroup.Memory.Limit, now.HostMemory),
		},
		Pids: PidsStats{Current: now.Cgroup.Pids.Current},
	}
	if l := now.Cgroup.Pids.Limit; l != cgroup.Unlimited {
		s.Pids.Limit = l
	}
	if now.V1 {
		none := []BlkioEntry{}
		s.Blkio = BlkioStats{none, none, none, none, none, none, none, none}
	}
	for _, d := range now.Cgroup.IO {
		s.Blkio.ServiceBytes = append(s.Blkio.ServiceBytes,
			BlkioEntry{d.Major, d.Minor, "read", d.ReadBytes}, BlkioEntry{d.Major, d.Minor, "write", d.WriteBytes})
		if now.V1 {
			s.Blkio.Serviced = append(s.Blkio.Serviced,
				BlkioEntry{d.Major, d.Minor, "read", d.Reads}, BlkioEntry{d.Major, d.Minor, "write", d.Writes})
		}
	}
	if before != nil {
		s.PreRead, s.PreviousCPU = before.Read, before.CPU
	}
	return s
}

func (r *Reading) cpu() CPUStats {
	c := CPUStats{SystemUsage: r.SystemUsage, OnlineCPUs: uint32(r.CPUs)}
	u := r.Cgroup.CPU
	c.Usage.Total, c.Usage.User, c.Usage.Kernel = u.Usage, u.User, u.System
	c.Throttling = Throttling{u.Periods, u.ThrottledPeriods, u.ThrottledTime}
	return c
}

// Usage is what people look at of a reading, and of the one before it.
type Usage struct {
	CPU         float64 // processors in use on average between the two; 1.5 is one and a half, and without a reading before it is 0
	Memory      uint64  // bytes; without files' pages that nothing has read lately, which the kernel takes back first
	MemoryLimit uint64  // bytes
	Received    uint64  // bytes on all network devices since they were made
	Sent        uint64
	Read        uint64 // bytes of block devices
	Written     uint64
	PIDs        uint64 // processes and threads
}

// Usage works out what `docker stats` shows. The time between two readings is their own and not the host's SystemUsage, which counts in
// hundredths of a second.
func (s *Stats) Usage() Usage {
	u := Usage{Memory: s.Memory.working(), MemoryLimit: s.Memory.Limit, PIDs: s.Pids.Current}
	if used, before := s.CPU.Usage.Total, s.PreviousCPU.Usage.Total; !s.PreRead.IsZero() && s.Read.After(s.PreRead) && used > before {
		u.CPU = float64(used-before) / float64(s.Read.Sub(s.PreRead))
	}
	for _, n := range s.Networks {
		u.Received, u.Sent = u.Received+n.RxBytes, u.Sent+n.TxBytes
	}
	for _, b := range s.Blkio.ServiceBytes {
		switch b.Op {
		case "read":
			u.Read += b.Value
		case "write":
			u.Written += b.Value
		}
	}
	return u
}

// working is the memory in use, without files' pages that nothing has read lately. Version 1 of cgroups counts a group's own pages
// (inactive_file) apart from those of all groups below it (total_inactive_file), and its usage is of all.
func (m *MemoryStats) working() uint64 {
	idle, ok := m.Counters["total_inactive_file"]
	if !ok {
		idle = m.Counters["inactive_file"]
	}
	return m.Usage - min(m.Usage, idle)
}

// ParseTraffic reads /proc/PID/net/dev (proc_pid_net(5)): of each device but lo 8 numbers of what came in and 8 of what went out. It is nil
// where there is no other device.
func ParseTraffic(text string) map[string]NetworkStats {
	var out map[string]NetworkStats
	for line := range strings.Lines(text) {
		name, numbers, ok := strings.Cut(line, ":")
		f := strings.Fields(numbers)
		if name = strings.TrimSpace(name); !ok || name == "lo" || len(f) < 12 {
			continue
		}
		n := make([]uint64, 12)
		for i := range n {
			n[i], _ = strconv.ParseUint(f[i], 10, 64)
		}
		if out == nil {
			out = map[string]NetworkStats{}
		}
		out[name] = NetworkStats{
			RxBytes: n[0], RxPackets: n[1], RxErrors: n[2], RxDropped: n[3], TxBytes: n[8], TxPackets: n[9], TxErrors: n[10], TxDropped: n[11],
		}
	}
	return out
}

// ParseSystemUsage reads the line of all processors of /proc/stat (proc_stat(5)), in ns: user, nice, system, idle, iowait, irq, softirq,
// steal. What follows, the time of guests, is in user and nice already.
func ParseSystemUsage(text string) uint64 {
	const tick = uint64(10 * time.Millisecond) // USER_HZ is 100 on all architectures that this runs on
	line, _, _ := strings.Cut(text, "\n")
	f := strings.Fields(line)
	if len(f) < 9 || f[0] != "cpu" {
		return 0
	}
	sum := uint64(0)
	for _, word := range f[1:9] {
		n, _ := strconv.ParseUint(word, 10, 64)
		sum += n
	}
	return sum * tick
}
