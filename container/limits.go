package container

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Limits is what a container may use: of its cgroup, and each of its processes.
type Limits struct {
	Memory      int64  `json:"memory,omitempty"`            // bytes; 0: no limit
	MemorySwap  int64  `json:"memorySwap,omitempty"`        // bytes of memory and swap together; 0: twice Memory; -1: no limit
	Reservation int64  `json:"memoryReservation,omitempty"` // bytes; a soft limit
	Swappiness  *int64 `json:"memorySwappiness,omitempty"`  // 0 to 100; v1 only
	OOMDisable  bool   `json:"oomKillDisable,omitempty"`    // v1 only
	OOMScoreAdj int    `json:"oomScoreAdj,omitempty"`       // -1000 to 1000 (proc_pid_oom_score_adj(5))

	NanoCPUs  int64 `json:"nanoCPUs,omitempty"`  // billionths of a processor; sets period and quota
	CPUShares int64 `json:"cpuShares,omitempty"` // 2 to 262144
	CPUPeriod int64 `json:"cpuPeriod,omitempty"` // microseconds
	CPUQuota  int64 `json:"cpuQuota,omitempty"`  // microseconds
	// CPURTPeriod and CPURTRuntime are the period, and how much of it realtime processes may run, in microseconds; v1 only.
	CPURTPeriod  int64  `json:"cpuRTPeriod,omitempty"`
	CPURTRuntime int64  `json:"cpuRTRuntime,omitempty"`
	CpusetCPUs   string `json:"cpusetCPUs,omitempty"`
	CpusetMems   string `json:"cpusetMems,omitempty"`

	Pids *int64 `json:"pids,omitempty"` // tasks; nil, 0: no limit of its own; -1: none

	BlkioWeight uint16 `json:"blkioWeight,omitempty"` // 10 to 1000
	// BlkioWeights are weights of single devices, 10 to 1000, each as the rate of a Throttle.
	BlkioWeights []Throttle `json:"blkioWeights,omitempty"`
	ReadBps      []Throttle `json:"readBps,omitempty"` // bytes per second
	WriteBps     []Throttle `json:"writeBps,omitempty"`
	ReadIOps     []Throttle `json:"readIOps,omitempty"` // requests per second
	WriteIOps    []Throttle `json:"writeIOps,omitempty"`

	CgroupParent string   `json:"cgroupParent,omitempty"`
	Hints        bool     `json:"hints,omitempty"` // the program is told of them, in variables: see Hints
	Ulimits      []Ulimit `json:"ulimits,omitempty"`
}

// HintVariables tell a program in Go of its limits, which its runtime would find out late or not at all: a soft limit of memory a tenth
// below that of the cgroup, so that garbage is collected before the kernel kills, and as many threads as there are processors. env is
// what the program has already: what image or user set is left alone.
func (l *Limits) HintVariables(env []string) []string {
	if !l.Hints {
		return nil
	}
	var out []string
	add := func(name string, value int64) {
		if _, set := LookupEnv(env, name); !set && value > 0 {
			out = append(out, name+"="+strconv.FormatInt(value, 10))
		}
	}
	add("GOMEMLIMIT", l.Memory/10*9) // bytes (runtime/debug.SetMemoryLimit)
	const period = 100000            // what the kernel has where only a quota is given
	switch {
	case l.NanoCPUs > 0:
		add("GOMAXPROCS", (l.NanoCPUs+1e9-1)/1e9)
	case l.CPUQuota > 0 && l.CPUPeriod > 0:
		add("GOMAXPROCS", (l.CPUQuota+l.CPUPeriod-1)/l.CPUPeriod)
	case l.CPUQuota > 0:
		add("GOMAXPROCS", (l.CPUQuota+period-1)/period)
	}
	return out
}

// Throttle is a limit of one block device.
type Throttle struct {
	Device string `json:"device"` // path on the host
	Rate   uint64 `json:"rate"`   // per second
	Origin string `json:"origin,omitempty"`
}

// Ulimit is a limit of each process (getrlimit(2)).
type Ulimit struct {
	Name   string `json:"name"` // nofile
	Soft   uint64 `json:"soft"` // MaxUint64: no limit
	Hard   uint64 `json:"hard"`
	Origin string `json:"origin,omitempty"`
}

// ParseSize reads the size that a flag was given; the error names the flag.
func ParseSize(flag, s string) (int64, error) {
	n, err := ParseBytes(s)
	if err != nil {
		return 0, Invalid("--%s: invalid size %q: %w", flag, s, err)
	}
	return n, nil
}

// ParseBytes reads a number of bytes with an optional unit b, k, m, g, t, p (powers of 1024), as in 512m, 1.5g, 64kb or 2GiB. It is
// what a size is for all programs of glassbox.
func ParseBytes(s string) (int64, error) {
	text := strings.ToLower(strings.TrimSpace(s))
	text = strings.TrimSuffix(strings.TrimSuffix(text, "b"), "i")
	shift := 0
	if n := len(text); n > 0 {
		if i := strings.IndexByte("kmgtp", text[n-1]); i >= 0 {
			shift, text = 10*(i+1), text[:n-1]
		}
	}
	v, err := strconv.ParseFloat(text, 64)
	// ParseFloat takes more than a size is written with: hexadecimal, exponents, inf, underscores.
	if err != nil || math.IsNaN(v) || v < 0 || v*float64(int64(1)<<shift) >= math.MaxInt64 || strings.ContainsAny(text, "xpe+_n") {
		return 0, errors.New("want a number of bytes with an optional unit, as in 512m or 2g")
	}
	return int64(v * float64(int64(1)<<shift)), nil
}

// ulimits are the names that --ulimit takes (getrlimit(2), in lower case and without RLIMIT_).
var ulimits = strings.Fields("cpu fsize data stack core rss nproc nofile memlock as locks sigpending msgqueue nice rtprio rttime")

// ParseUlimit reads NAME=SOFT[:HARD]; -1 and "unlimited" are no limit.
func ParseUlimit(s string) (Ulimit, error) {
	fail := func(why string) (Ulimit, error) { return Ulimit{}, Invalid("--ulimit %s: %s", s, why) }
	name, value, ok := strings.Cut(s, "=")
	if !ok {
		return fail("want NAME=SOFT[:HARD], as in nofile=1024:4096")
	}
	u := Ulimit{Name: strings.ToLower(strings.TrimPrefix(name, "RLIMIT_")), Origin: "--ulimit " + s}
	known := false
	for _, k := range ulimits {
		known = known || k == u.Name
	}
	if !known {
		return fail(fmt.Sprintf("unknown limit %q: want one of %s", u.Name, strings.Join(ulimits, " ")))
	}
	one := func(v string) (uint64, bool) {
		if v == "-1" || v == "unlimited" {
			return math.MaxUint64, true
		}
		// MaxUint64 is no limit (RLIM_INFINITY), and is said by the words above.
		n, err := strconv.ParseUint(v, 10, 63)
		return n, err == nil
	}
	soft, hard, both := strings.Cut(value, ":")
	if u.Soft, ok = one(soft); !ok {
		return fail(fmt.Sprintf("%q is no number", soft))
	}
	u.Hard = u.Soft
	if both {
		if u.Hard, ok = one(hard); !ok {
			return fail(fmt.Sprintf("%q is no number", hard))
		}
	}
	if u.Soft > u.Hard {
		return fail("the soft limit is above the hard limit")
	}
	return u, nil
}

// parseThrottle reads DEVICE:RATE; the rate is in bytes with a unit, or a plain number of requests.
func parseThrottle(flag, text string, bytes bool) (Throttle, error) {
	name, rate, ok := strings.Cut(text, ":")
	if !ok || !strings.HasPrefix(name, "/dev/") {
		return Throttle{}, Invalid("--%s %s: want DEVICE:NUMBER, as in /dev/sda:100", flag, text)
	}
	var n int64
	var err error
	if bytes {
		n, err = ParseSize(flag, rate)
	} else {
		n, err = strconv.ParseInt(rate, 10, 63)
	}
	if err != nil || n <= 0 {
		return Throttle{}, Invalid("--%s %s: invalid rate %q", flag, text, rate)
	}
	return Throttle{Device: name, Rate: uint64(n), Origin: "--" + flag + " " + text}, nil
}

// limits reads the words about limits.
func (w *Words) limits() (Limits, error) {
	l, err := w.parseLimits()
	if err != nil {
		return l, err
	}
	if err := l.Check(); err != nil {
		return l, w.asTyped(err)
	}
	return l, nil
}

// parseLimits reads them without asking whether they make sense together.
func (w *Words) parseLimits() (Limits, error) {
	l := Limits{
		Swappiness: w.MemorySwappiness, OOMDisable: w.OOMKillDisable, OOMScoreAdj: w.OOMScoreAdj, CPUShares: w.CPUShares, CPUPeriod: w.CPUPeriod,
		CPUQuota: w.CPUQuota, CpusetCPUs: w.CpusetCpus, CpusetMems: w.CpusetMems, Pids: w.PidsLimit, BlkioWeight: w.BlkioWeight,
		CgroupParent: w.CgroupParent, Hints: w.LimitHints, CPURTPeriod: w.CPURTPeriod, CPURTRuntime: w.CPURTRuntime,
	}
	for _, s := range []struct {
		flag, text string
		to         *int64
	}{
		{"memory", w.Memory, &l.Memory},
		{"memory-reservation", w.MemoryReservation, &l.Reservation},
		{"memory-swap", w.MemorySwap, &l.MemorySwap},
	} {
		var err error
		switch {
		case s.text == "":
		case s.text == "-1" && s.flag == "memory-swap":
			*s.to = -1
		default:
			if *s.to, err = ParseSize(s.flag, s.text); err != nil {
				return l, err
			}
		}
	}
	if w.CPUs != "" && w.CPUs != "0" {
		n, err := strconv.ParseFloat(w.CPUs, 64)
		if err != nil || math.IsNaN(n) || math.IsInf(n, 0) || n < 0 || n > 1e6 {
			return l, Invalid("--cpus %s: want a number of processors, such as 0.5 or 2", w.CPUs)
		}
		// The kernel's least quota, a millisecond, of the period that is used here, 100 ms.
		if n < 0.01 {
			return l, Invalid("--cpus %s: range of CPUs starts at 0.01", w.CPUs)
		}
		l.NanoCPUs = int64(math.Round(n * 1e9))
	}
	for _, t := range []struct {
		flag  string
		texts []string
		to    *[]Throttle
		bytes bool
	}{
		{"blkio-weight-device", w.BlkioWeightDevice, &l.BlkioWeights, false},
		{"device-read-bps", w.DeviceReadBps, &l.ReadBps, true},
		{"device-write-bps", w.DeviceWriteBps, &l.WriteBps, true},
		{"device-read-iops", w.DeviceReadIOps, &l.ReadIOps, false},
		{"device-write-iops", w.DeviceWriteIOps, &l.WriteIOps, false},
	} {
		for _, text := range t.texts {
			one, err := parseThrottle(t.flag, text, t.bytes)
			if err != nil {
				return l, err
			}
			if t.flag == "blkio-weight-device" && (one.Rate < 10 || one.Rate > 1000) {
				return l, Invalid("%s: the weight is 10 to 1000", one.Origin)
			}
			*t.to = append(*t.to, one)
		}
	}
	for _, text := range w.Ulimit {
		u, err := ParseUlimit(text)
		if err != nil {
			return l, err
		}
		l.Ulimits = append(l.Ulimits, u)
	}
	return l, nil
}

// asTyped puts the sizes into a sentence as they were typed: 4k, not 4096.
func (w *Words) asTyped(err error) error {
	text := err.Error()
	for _, s := range []struct{ flag, typed string }{
		{"memory", w.Memory},
		{"memory-swap", w.MemorySwap},
		{"memory-reservation", w.MemoryReservation},
	} {
		if n, parseErr := ParseSize(s.flag, s.typed); s.typed != "" && parseErr == nil {
			text = strings.ReplaceAll(text, "--"+s.flag+" "+strconv.FormatInt(n, 10), "--"+s.flag+" "+s.typed)
		}
	}
	return Invalid("%s", text)
}

// Check says what in the limits means nothing, whatever the host is.
func (l *Limits) Check() error {
	const least = 512 << 10 // less would not start a program
	switch {
	case l.Memory != 0 && l.Memory < least:
		return Invalid("--memory %d: minimum memory limit allowed is 512KB: less would not start a program", l.Memory)
	case l.MemorySwap != 0 && l.Memory == 0:
		return Invalid("--memory-swap: you should always set the memory limit when using memory-swap: give --memory as well")
	case l.MemorySwap > 0 && l.MemorySwap < l.Memory:
		return Invalid("--memory-swap %d: minimum memory-swap limit should be larger than memory limit (--memory %d), since it is both together",
			l.MemorySwap, l.Memory)
	case l.Memory != 0 && l.Reservation > l.Memory:
		return Invalid("--memory-reservation %d: the limit (--memory %d) should be larger", l.Reservation, l.Memory)
	case l.Swappiness != nil && (*l.Swappiness < 0 || *l.Swappiness > 100):
		return Invalid("--memory-swappiness: %d: want 0 to 100", *l.Swappiness)
	case l.OOMScoreAdj < -1000 || l.OOMScoreAdj > 1000:
		return Invalid("--oom-score-adj: %d is out of range: want -1000 to 1000", l.OOMScoreAdj)
	case l.CPUShares != 0 && (l.CPUShares < 2 || l.CPUShares > 262144):
		return Invalid("--cpu-shares: %d: want 2 to 262144", l.CPUShares)
	case l.CPUPeriod != 0 && (l.CPUPeriod < 1000 || l.CPUPeriod > 1000000):
		return Invalid("--cpu-period: CPU CFS period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
	case l.CPUQuota > 0 && l.CPUQuota < 1000:
		return Invalid("--cpu-quota: CPU CFS quota can not be less than 1ms (i.e. 1000)")
	case l.CPURTPeriod < 0 || l.CPURTPeriod > 1000000:
		return Invalid("--cpu-rt-period %d: want microseconds, at most 1000000", l.CPURTPeriod)
	case l.CPURTRuntime < 0 || l.CPURTRuntime > 1000000 || l.CPURTPeriod != 0 && l.CPURTRuntime > l.CPURTPeriod:
		return Invalid("--cpu-rt-runtime %d: want microseconds, at most --cpu-rt-period", l.CPURTRuntime)
	case l.NanoCPUs != 0 && (l.CPUPeriod != 0 || l.CPUQuota != 0):
		return Invalid("--cpus can't be set together with --cpu-period or --cpu-quota: it sets both")
	case l.BlkioWeight != 0 && (l.BlkioWeight < 10 || l.BlkioWeight > 1000):
		return Invalid("--blkio-weight: range of blkio weight is from 10 to 1000")
	}
	return nil
}
