package explain

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"glassbox/plan"
)

// class reads what a resource class has.
func (r *reader) class(dir string, schemata []string) {
	for _, line := range schemata {
		r.v.Limits.Other = append(r.v.Limits.Other, dir+": "+line)
	}
}

// unit reads what systemd is told of the container's unit. What limits something is also written into the cgroup.
func (r *reader) unit(name string, properties []plan.SystemdProperty) {
	for _, p := range properties {
		r.v.Limits.Other = append(r.v.Limits.Other, fmt.Sprintf("%s: %s=%s", name, p.Name, strings.Join(p.Value, " ")))
	}
}

// write reads a limit from the file that it is written to.
func (r *reader) write(o *plan.CgroupWrite) {
	l := &r.v.Limits
	dir, file, _ := cutLast(o.File, "/")
	switch {
	case !r.cgroups.isFile(dir, file):
		r.onHost(true, "write %q to %s", o.Value, o.File)
		return
	case !r.cgroups.covers(dir):
		l.Other = append(l.Other, o.File+"="+o.Value) // of a cgroup that the container isn't in: it limits nothing
		return
	}
	number := func(to **int64) bool {
		n, err := strconv.ParseInt(o.Value, 10, 64)
		if o.Value == "max" {
			n, err = -1, nil
		}
		if err == nil {
			*to = &n
		}
		return err == nil
	}
	ok := true
	switch file {
	case "cgroup.subtree_control", "cgroup.clone_children", "memory.use_hierarchy":
		return // arrangements of the tree
	case "devices.allow", "devices.deny":
		verb := strings.TrimPrefix(file, "devices.")
		rule, have := verb+" "+o.Value, r.v.DeviceRules
		r.rules[rule] = true
		// Written again it changes nothing, unless one that says otherwise came in between.
		if i := slices.Index(have, rule); i < 0 || slices.ContainsFunc(have[i:], func(s string) bool { return !strings.HasPrefix(s, verb) }) {
			r.v.DeviceRules = append(have, rule)
		}
	case "memory.limit_in_bytes", "memory.max":
		ok = number(&l.Memory)
	case "memory.memsw.limit_in_bytes":
		ok = number(&l.MemorySwap)
	case "memory.swap.max": // on v2 swap alone
		var swap *int64
		if ok = number(&swap); ok {
			if *swap >= 0 && l.Memory != nil && *l.Memory >= 0 {
				*swap += *l.Memory
			}
			l.MemorySwap = swap
		}
	case "memory.soft_limit_in_bytes", "memory.low":
		ok = number(&l.Reservation)
	case "memory.swappiness":
		ok = number(&l.Swappiness)
	case "memory.oom_control":
		l.OOMKillDisable = o.Value == "1"
	case "cpu.shares":
		ok = number(&l.Shares)
	case "cpu.weight":
		ok = number(&l.Weight)
	case "cpu.cfs_quota_us":
		ok = number(&l.Quota)
	case "cpu.cfs_period_us":
		ok = number(&l.Period)
	case "cpu.max":
		quota, period, both := strings.Cut(o.Value, " ")
		if n, err := strconv.ParseInt(period, 10, 64); err == nil && both {
			l.Period = &n
		}
		n, err := strconv.ParseInt(quota, 10, 64)
		if quota == "max" {
			n, err = -1, nil
		}
		if ok = err == nil; ok {
			l.Quota = &n
		}
	case "cpuset.cpus":
		l.Cpus = o.Value
	case "cpuset.mems":
		l.Mems = o.Value
	case "pids.max":
		ok = number(&l.Pids)
	case "blkio.weight", "blkio.bfq.weight", "io.weight", "io.bfq.weight":
		text := o.Value
		if rest, found := strings.CutPrefix(text, "default "); found {
			text = rest
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if ok = err == nil; ok {
			l.BlkioWeight = &n
		}
	default:
		ok = false
	}
	if !ok {
		l.Other = append(l.Other, file+"="+o.Value)
	}
}
