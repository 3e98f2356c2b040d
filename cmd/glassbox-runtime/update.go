package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"glassbox/bundle"
	"glassbox/container"
	"glassbox/oci"
)

func events(a *app, fs *flag.FlagSet) func([]string) (int, error) {
	stats := fs.Bool("stats", false, "tell once what the container uses")
	interval := fs.Duration("interval", 5*time.Second, "time between two lines")
	return byID(func(id string) (int, error) {
		e := json.NewEncoder(a.out)
		if *stats {
			event, err := a.runtime.Stats(id)
			if err != nil {
				return 1, err
			}
			return 0, e.Encode(event)
		}
		if *interval <= 0 {
			return 1, errors.New("--interval: it must be more than nothing")
		}
		return 0, a.runtime.Watch(id, *interval, func(event *bundle.Event) error { return e.Encode(event) })
	})
}

// limit is a flag that sets one limit.
type limit struct {
	name, about string
	set         func(r *specs.LinuxResources, value string) error
}

// limits are the single flags of update. Sizes may end in k, m, g or t, for powers of 1024.
func limits() []limit {
	memory := func(field func(*specs.LinuxMemory) **int64) func(*specs.LinuxResources, string) error {
		return func(r *specs.LinuxResources, value string) error {
			n, err := parseSize(value)
			if err == nil {
				*field(r.Memory) = &n
			}
			return err
		}
	}
	signed := func(field func(*specs.LinuxResources) **int64) func(*specs.LinuxResources, string) error {
		return func(r *specs.LinuxResources, value string) error {
			n, err := strconv.ParseInt(value, 10, 64)
			if err == nil {
				*field(r) = &n
			}
			return err
		}
	}
	unsigned := func(field func(*specs.LinuxResources) **uint64) func(*specs.LinuxResources, string) error {
		return func(r *specs.LinuxResources, value string) error {
			n, err := strconv.ParseUint(value, 10, 64)
			if err == nil {
				*field(r) = &n
			}
			return err
		}
	}
	text := func(field func(*specs.LinuxResources) *string) func(*specs.LinuxResources, string) error {
		return func(r *specs.LinuxResources, value string) error { *field(r) = value; return nil }
	}
	return []limit{
		{"blkio-weight", "share of the disks' time, 10 to 1000", func(r *specs.LinuxResources, value string) error {
			n, err := strconv.ParseUint(value, 10, 16)
			w := uint16(n)
			r.BlockIO = &specs.LinuxBlockIO{Weight: &w}
			return err
		}},
		{"cpu-period", "period of the processor limit, in µs", unsigned(func(r *specs.LinuxResources) **uint64 { return &r.CPU.Period })},
		{
			"cpu-quota", "processor time in each period, in µs; -1: no limit",
			signed(func(r *specs.LinuxResources) **int64 { return &r.CPU.Quota }),
		},
		{"cpu-burst", "processor time that may be saved up, in µs", unsigned(func(r *specs.LinuxResources) **uint64 { return &r.CPU.Burst })},
		{"cpu-share", "share of the processor, 2 to 262144", unsigned(func(r *specs.LinuxResources) **uint64 { return &r.CPU.Shares })},
		{
			"cpu-rt-period", "period of the limit on real-time processes, in µs",
			unsigned(func(r *specs.LinuxResources) **uint64 { return &r.CPU.RealtimePeriod }),
		},
		{
			"cpu-rt-runtime", "time of real-time processes in each period, in µs",
			signed(func(r *specs.LinuxResources) **int64 { return &r.CPU.RealtimeRuntime }),
		},
		{"cpuset-cpus", "processors, like 0-2,4", text(func(r *specs.LinuxResources) *string { return &r.CPU.Cpus })},
		{"cpuset-mems", "memory nodes, like 0-1", text(func(r *specs.LinuxResources) *string { return &r.CPU.Mems })},
		{"cpu-idle", "1: only idle processors", signed(func(r *specs.LinuxResources) **int64 { return &r.CPU.Idle })},
		{"memory", "bytes of memory; -1: no limit", memory(func(m *specs.LinuxMemory) **int64 { return &m.Limit })},
		{
			"memory-reservation", "bytes of memory that are kept when memory is short",
			memory(func(m *specs.LinuxMemory) **int64 { return &m.Reservation }),
		},
		{"memory-swap", "bytes of memory and swap together; -1: no limit", memory(func(m *specs.LinuxMemory) **int64 { return &m.Swap })},
		//lint:ignore SA1019 callers of runc may still give it
		{"kernel-memory", "bytes of kernel memory, no longer limited", memory(func(m *specs.LinuxMemory) **int64 { return &m.Kernel })},
		{"kernel-memory-tcp", "bytes of buffers of TCP", memory(func(m *specs.LinuxMemory) **int64 { return &m.KernelTCP })},
		{"pids-limit", "number of processes; -1: no limit", func(r *specs.LinuxResources, value string) error {
			n, err := strconv.ParseInt(value, 10, 64)
			r.Pids = &specs.LinuxPids{Limit: &n}
			return err
		}},
	}
}

func update(a *app, fs *flag.FlagSet) func([]string) (int, error) {
	file := ""
	both(fs.StringVar, &file, "resources", "r", "file with limits in JSON, as in config.json below /linux/resources; - is standard input")
	values := map[string]*string{}
	for _, l := range limits() {
		values[l.name] = fs.String(l.name, "", l.about)
	}
	rdt := &specs.LinuxIntelRdt{}
	fs.StringVar(&rdt.L3CacheSchema, "l3-cache-schema", "", "share of the processor's caches, like \"L3:0=ff;1=ff\" (Intel RDT, AMD QoS)")
	fs.StringVar(&rdt.MemBwSchema, "mem-bw-schema", "", "share of the memory's bandwidth, like \"MB:0=50;1=50\"")
	return byID(func(id string) (int, error) {
		r := &specs.LinuxResources{CPU: &specs.LinuxCPU{}, Memory: &specs.LinuxMemory{}}
		if file != "" {
			in := io.Reader(os.Stdin)
			if file != "-" {
				f, err := os.Open(file)
				if err != nil {
					return 1, fmt.Errorf("--resources: %w", err)
				}
				defer f.Close()
				in = f
			}
			data, err := io.ReadAll(io.LimitReader(in, 16<<20))
			if err != nil {
				return 1, fmt.Errorf("--resources: %w", err)
			}
			read, warnings, err := oci.ParseResources(data)
			for _, w := range warnings {
				a.runtime.Warn("--resources: %s", w.Error())
			}
			if err != nil {
				return 1, fmt.Errorf("--resources: %s: %w", file, err)
			}
			r = read
			if r.CPU == nil {
				r.CPU = &specs.LinuxCPU{}
			}
			if r.Memory == nil {
				r.Memory = &specs.LinuxMemory{}
			}
		}
		given := file != ""
		for _, l := range limits() {
			if value := *values[l.name]; value != "" {
				given = true
				if err := l.set(r, value); err != nil {
					return 1, fmt.Errorf("--%s: %q: %w", l.name, value, err)
				}
			}
		}
		classes := rdt
		if rdt.L3CacheSchema == "" && rdt.MemBwSchema == "" {
			classes = nil
		} else if !given {
			r = nil
		}
		return 0, a.runtime.Update(id, r, classes)
	})
}

// parseSize reads a number of bytes; -1 is no limit, as with runc.
func parseSize(s string) (int64, error) {
	if s == "-1" {
		return -1, nil
	}
	return container.ParseBytes(s)
}
