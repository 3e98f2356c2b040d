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

	"glassbox/host"
	"glassbox/plan"
	"glassbox/systemd"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Scope is where a container is with the systemd driver: a transient scope in a slice.
type Scope struct {
	Slice string // "machine.slice"
	Unit  string // "docker-3f2a.scope"
}

// ParseScope reads /linux/cgroupsPath for the systemd driver: "slice:prefix:name" is the unit "prefix-name.scope" in the slice.
// Without a slice it is system.slice, or user.slice of a user's own manager; without a path the unit is "glassbox-ID.scope".
func ParseScope(cgroupsPath, id string, user bool) (Scope, error) {
	slice, prefix, name := "", "glassbox", id
	if cgroupsPath != "" {
		parts := strings.Split(cgroupsPath, ":")
		if len(parts) != 3 {
			return Scope{}, fmt.Errorf("/linux/cgroupsPath: %q isn't \"slice:prefix:name\", which the systemd driver wants", cgroupsPath)
		}
		slice, prefix, name = parts[0], parts[1], parts[2]
	}
	fallback := "system.slice"
	if user {
		fallback = "user.slice"
	}
	s := Scope{cmp.Or(slice, fallback), strings.TrimPrefix(prefix+"-"+name+".scope", "-")}
	if _, err := slicePath(s.Slice); err != nil {
		return Scope{}, fmt.Errorf("/linux/cgroupsPath: %w", err)
	}
	// systemd.unit(5) has the letters; a name is a file name, too.
	strange := func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:-_.\\", r)
	}
	if name == "" || len(s.Unit) > 255 || strings.ContainsFunc(s.Unit, strange) || strings.ContainsFunc(s.Slice, strange) {
		return Scope{}, fmt.Errorf("/linux/cgroupsPath: %q in %q aren't names that systemd takes", s.Unit, s.Slice)
	}
	return s, nil
}

// ScopeSteps returns the steps for a container in a scope of systemd's, limited to r. Extra are further properties of the unit,
// see [ScopeProperties].
//
// Systemd wants a process for a scope, and it has to be the child: a stand-in would have to go before the child comes, or stay
// for ever, and where a user asks it is systemd alone that may move a process into the scope. So the child is cloned where the
// caller is, and waits: its first system call reads the parent's word (Setup.Await). Meanwhile systemd makes the scope with the
// child in it, the limits that systemd knows are set as properties, all of them are written below it, and only then does the
// child go on. No step of the container, and no page of its memory, comes before its limits.
//
// On v1 systemd makes the cgroup in its own hierarchy and in those of controllers that it knows. We make it in all the others,
// which the child joins by itself, as without systemd.
func ScopeSteps(f host.Cgroup, m systemd.Facts, scope Scope, extra []plan.SystemdProperty, r *specs.LinuxResources,
	origin func(pointer string) string,
) (Setup, error) {
	const at = "/linux/cgroupsPath"
	slice, err := slicePath(scope.Slice)
	if err != nil {
		return Setup{}, fmt.Errorf("%s: %w", at, err)
	}
	s, w, err := start(f, path.Join("/", m.Cgroup, slice, scope.Unit), origin)
	if err != nil {
		return Setup{}, err
	}
	own := slices.DeleteFunc([]string{s.Paths[""], s.Paths["name=systemd"]}, func(dir string) bool { return dir == "" })
	switch {
	case len(own) == 0:
		return Setup{}, fmt.Errorf("%s: the hierarchy of systemd isn't mounted here (mode %s)", at, cmp.Or(f.Mode, host.CgroupNone))
	case m.User && f.Mode != host.CgroupV2:
		return Setup{}, fmt.Errorf("%s: a user's systemd can't limit anything on cgroup v1", at)
	}
	properties := w.properties(r, m.Version)
	if err := w.all(r); err != nil {
		return Setup{}, err
	}
	op := &plan.SystemdScope{Unit: scope.Unit, User: m.User, Properties: slices.Concat([]plan.SystemdProperty{
		{Name: "Description", Type: "s", Value: []string{"container " + strings.TrimSuffix(scope.Unit, ".scope")}},
		{Name: "Slice", Type: "s", Value: []string{scope.Slice}},
		yes("Delegate"), // what is below is ours: systemd leaves it alone
		{Name: "DefaultDependencies", Type: "b", Value: []string{"false"}}, // it doesn't end before its engine at shutdown
		{Name: "CollectMode", Type: "s", Value: []string{"inactive-or-failed"}},
		yes("MemoryAccounting"), yes("CPUAccounting"), yes("TasksAccounting"), yes(w.blockProperty("IOAccounting", "BlockIOAccounting")),
	}, properties, extra)}

	add := func(steps *[]plan.Step, op plan.Op, pointer, reason string) {
		*steps = append(*steps, plan.Step{Lane: plan.Host, Phase: plan.Limits, Op: op, Origin: origin(pointer), Reason: reason})
	}
	var ours []host.Hierarchy
	for _, h := range f.Hierarchies {
		if dir := s.dir(h); !slices.Contains(own, dir) {
			add(&s.Steps, create(h, dir), at, createReason(h))
			ours = append(ours, h)
		}
	}
	// Only of what is ours: into systemd's the child is put, so it is neither born there nor joins by itself.
	s.open(host.Cgroup{Mode: f.Mode, Hierarchies: ours}, origin)

	add(&s.After, op, at, "Systemd makes the container's cgroup, and shows it as a unit. The child waits in front of its first step "+
		"meanwhile.")
	if v2, ok := unified(f); ok {
		s.After = append(s.After, enableSteps(f, v2, below(v2.Mount, s.Paths[""]), w.usedV2, origin)...)
	}
	for _, dir := range own {
		add(&s.After, &plan.CgroupAttach{Path: dir}, at, "Limits hold only if the child is where they are written: systemd has put it there.")
	}
	s.After = append(s.After, w.steps...)
	s.Await = "cgroup"
	add(&s.After, &plan.Release{Name: s.Await}, at, "The limits are in force; the child may begin.")
	return s, nil
}

// JoinScope is [Join] for a container in a scope.
func JoinScope(f host.Cgroup, paths map[string]string, unit string, user bool) Setup {
	if !user {
		return Join(f, paths)
	}
	// A user who has logged in is in another part of the tree, and may not move a process from there into the scope.
	step := func(op plan.Op, reason string) plan.Step {
		return plan.Step{Lane: plan.Host, Phase: plan.Limits, Op: op, Origin: "default", Reason: reason}
	}
	return Setup{Paths: paths, Await: "cgroup", After: []plan.Step{
		step(&plan.SystemdAttach{Unit: unit, User: true}, "Only systemd may move a process of a login session into the container's cgroup."),
		step(&plan.CgroupAttach{Path: paths[""]}, "The limits of the container hold for this process, too."),
		step(&plan.Release{Name: "cgroup"}, "The process is in its cgroup and may go on."),
	}}
}

// UpdateScope is [Update] for a container in a scope: systemd learns of what it knows, or it would set the old limits again the
// next time that it looks at the unit.
func UpdateScope(f host.Cgroup, m systemd.Facts, unit string, paths map[string]string, r *specs.LinuxResources) ([]plan.Step, error) {
	steps, err := Update(f, paths, r)
	if err != nil {
		return nil, err
	}
	w := &writer{f: f, paths: paths, origin: func(p string) string { return p }, old: &current{}}
	if p := w.properties(r, m.Version); len(p) > 0 {
		steps = append([]plan.Step{{
			Lane: plan.Host, Phase: plan.Limits, Op: &plan.SystemdSet{Unit: unit, User: m.User, Properties: p},
			Origin: strings.TrimSuffix(resources, "/"),
			Reason: "Systemd keeps these limits, and would set the old ones again.",
		}}, steps...)
	}
	return steps, errors.Join(w.errs...)
}

func yes(name string) plan.SystemdProperty {
	return plan.SystemdProperty{Name: name, Type: "b", Value: []string{"true"}}
}

// onV1 reports whether a controller is on a v1 hierarchy.
func (w *writer) onV1(controller string) bool {
	_, ok := w.paths[controller]
	return ok
}

func (w *writer) blockProperty(v2, v1 string) string {
	if w.onV1("blkio") {
		return v1
	}
	return v2
}

// properties returns the limits of r that systemd knows, in its words. The others are only written to files. Version is that of
// systemd; 0 is taken for a new one.
func (w *writer) properties(r *specs.LinuxResources, version int) []plan.SystemdProperty {
	var ps []plan.SystemdProperty
	if r == nil {
		return nil
	}
	// An unknown property makes systemd refuse the whole unit, so older ones aren't told.
	since := func(v int) bool { return version == 0 || version >= v }
	number := func(name string, v uint64) {
		ps = append(ps, plan.SystemdProperty{Name: name, Type: "t", Value: []string{strconv.FormatUint(v, 10)}})
	}
	set := func(name, list, pointer string) {
		bits, err := cpuBits(list)
		if err != nil {
			w.fail(pointer, "%v", err)
		} else if since(244) {
			ps = append(ps, plan.SystemdProperty{Name: name, Type: "ay", Value: bits})
		}
	}
	if m := r.Memory; m != nil {
		limit, swap, reservation := value(m.Limit), value(m.Swap), value(m.Reservation)
		switch {
		case w.onV1("memory"):
			if limit != 0 {
				number("MemoryLimit", uint64(limit)) // -1 is infinity in both
			}
		default:
			if limit != 0 {
				number("MemoryMax", uint64(limit))
			}
			if reservation != 0 {
				number("MemoryLow", uint64(reservation))
			}
			if swap == -1 || swap == 0 && limit == -1 {
				number("MemorySwapMax", math.MaxUint64)
			} else if swap > 0 && limit > 0 && swap >= limit {
				number("MemorySwapMax", uint64(swap-limit))
			}
		}
	}
	if c := r.CPU; c != nil {
		idle := value(c.Idle) == 1
		switch shares := value(c.Shares); {
		case w.onV1("cpu"):
			if shares != 0 {
				number("CPUShares", shares)
			}
		case idle && since(252): // weight 0 is how systemd says cpu.idle
			number("CPUWeight", 0)
		case shares != 0 && !idle:
			number("CPUWeight", weightOfShares(shares))
		}
		ps = append(ps, cpuQuota(value(c.Quota), value(c.Period), since(242))...)
		if !w.onV1("cpuset") { // systemd has them for v2 alone
			if c.Cpus != "" {
				set("AllowedCPUs", c.Cpus, resources+"cpu/cpus")
			}
			if c.Mems != "" {
				set("AllowedMemoryNodes", c.Mems, resources+"cpu/mems")
			}
		}
	}
	if r.Pids != nil && r.Pids.Limit != nil {
		if n := *r.Pids.Limit; n < 0 {
			number("TasksMax", math.MaxUint64)
		} else {
			number("TasksMax", uint64(max(n, 1)))
		}
	}
	if b := r.BlockIO; b != nil && b.Weight != nil && *b.Weight >= 10 && *b.Weight <= 1000 {
		h, _ := unified(w.f)
		switch n := uint64(*b.Weight); {
		case w.onV1("blkio"):
			number("BlockIOWeight", n)
		case slices.Contains(h.Files, "io.weight") && !slices.Contains(h.Files, "io.bfq.weight"):
			number("IOWeight", ioCostWeight(*b.Weight))
		case n <= 100:
			number("IOWeight", n)
		default: // systemd takes the stretch from 100 to 10000 for BFQ's from 100 to 1000
			number("IOWeight", 100+(n-100)*11)
		}
	}
	if w.onV1("devices") && len(r.Devices) > 0 {
		ps = append(ps, w.deviceProperties(r.Devices)...)
	}
	for _, file := range slices.Sorted(maps.Keys(r.Unified)) {
		v := strings.TrimSpace(r.Unified[file])
		n, err := strconv.ParseUint(v, 10, 64)
		if v == "max" {
			n, err = math.MaxUint64, nil
		}
		names := map[string]string{
			"memory.max": "MemoryMax", "memory.high": "MemoryHigh", "memory.low": "MemoryLow", "memory.min": "MemoryMin",
			"memory.swap.max": "MemorySwapMax", "pids.max": "TasksMax", "cpu.weight": "CPUWeight",
		}
		switch name := names[file]; {
		case name != "" && err == nil:
			// systemd refuses a TasksMax of 0, and a CPUWeight of 0 means cpu.idle to it.
			number(name, max(n, map[bool]uint64{true: 1}[name == "TasksMax" || name == "CPUWeight"]))
		case file == "cpu.idle" && v == "1" && since(252):
			number("CPUWeight", 0)
		case file == "cpuset.cpus":
			set("AllowedCPUs", v, resources+"unified/"+file)
		case file == "cpuset.mems":
			set("AllowedMemoryNodes", v, resources+"unified/"+file)
		case file == "cpu.max":
			first, second, _ := strings.Cut(v, " ")
			quota, err := strconv.ParseInt(first, 10, 64)
			if first == "max" {
				quota, err = -1, nil
			}
			period, _ := strconv.ParseUint(strings.TrimSpace(second), 10, 64)
			if err == nil {
				ps = append(ps, cpuQuota(quota, period, since(242))...)
			}
		}
	}
	return ps
}

// cpuQuota converts to time in each second, rounded up: what is written to the file later can only be less.
func cpuQuota(quota int64, period uint64, periods bool) (ps []plan.SystemdProperty) {
	number := func(name string, v uint64) {
		ps = append(ps, plan.SystemdProperty{Name: name, Type: "t", Value: []string{strconv.FormatUint(v, 10)}})
	}
	if period != 0 && periods {
		number("CPUQuotaPeriodUSec", period)
	}
	switch {
	case quota > 0 && quota < math.MaxInt64/1_000_000:
		period = cmp.Or(period, 100_000)
		number("CPUQuotaPerSecUSec", (uint64(quota)*1_000_000+period-1)/period)
	case quota == -1:
		number("CPUQuotaPerSecUSec", math.MaxUint64)
	}
	return ps
}

// ioCostWeight converts blkio's weight (10 to 1000) to io.weight (1 to 10000).
func ioCostWeight(weight uint16) uint64 { return 1 + (uint64(weight)-10)*9999/990 }

// cpuBits converts a list like "0-2,7" to the bytes of a mask, of which the first has processors 0 to 7.
func cpuBits(list string) ([]string, error) {
	var mask []byte
	for part := range strings.SplitSeq(list, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		first, last, ranged := strings.Cut(part, "-")
		a, err1 := strconv.ParseUint(first, 10, 16)
		b, err2 := a, error(nil)
		if ranged {
			b, err2 = strconv.ParseUint(last, 10, 16)
		}
		if err1 != nil || err2 != nil || a > b {
			return nil, fmt.Errorf("%q isn't a list of numbers like \"0-2,7\"", list)
		}
		for n := a; n <= b; n++ {
			for uint64(len(mask)) <= n/8 {
				mask = append(mask, 0)
			}
			mask[n/8] |= 1 << (n % 8)
		}
	}
	if len(mask) == 0 {
		return nil, fmt.Errorf("%q names nothing", list)
	}
	out := make([]string, len(mask))
	for i, b := range mask {
		out[i] = strconv.Itoa(int(b))
	}
	return out, nil
}

// deviceProperties returns the rules for v1, where systemd writes devices.allow anew whenever it looks at the unit. On v2 it
// leaves the program of [plan.DeviceFilter] alone as long as it is told of no rules itself.
//
// Systemd knows allowed devices only, so a list that allows everything but some can't be kept by it.
func (w *writer) deviceProperties(devices []specs.LinuxDeviceCgroup) []plan.SystemdProperty {
	var allowed []rule
	all := false
	for i, d := range devices {
		r, err := parseRule(d)
		pointer := fmt.Sprintf("%sdevices/%d", resources, i)
		switch {
		case err != nil:
			return nil // reported with the writes
		case r.all():
			all, allowed = r.allow, nil
		case r.allow && !all:
			if r.major == every && r.minor != every {
				w.fail(pointer, "systemd has no rule for one minor number of all major ones, and on cgroup v1 it keeps the list")
				return nil
			}
			allowed = append(allowed, r)
		case !r.allow:
			overlap := all
			for _, a := range allowed {
				overlap = overlap || (a.kind == r.kind || a.kind == 'a' || r.kind == 'a') && a.access&r.access != 0 && meets(a.major, r.major) &&
					meets(a.minor, r.minor)
			}
			if overlap {
				w.fail(pointer, "systemd has no rules that deny, and on cgroup v1 it keeps the list")
				return nil
			}
		}
	}
	if all {
		return []plan.SystemdProperty{{Name: "DevicePolicy", Type: "s", Value: []string{"auto"}}, {Name: "DeviceAllow", Type: "a(ss)"}}
	}
	var pairs []string
	for _, r := range allowed {
		kinds := map[byte][]string{'b': {"block"}, 'c': {"char"}, 'a': {"block", "char"}}[r.kind]
		_, access, _ := strings.Cut(strings.TrimPrefix(r.String(), string(r.kind)+" "), " ")
		for _, kind := range kinds {
			switch {
			case r.major == every:
				pairs = append(pairs, kind+"-*", access)
			case r.minor == every: // since systemd 240 a number does in place of a name of /proc/devices
				pairs = append(pairs, fmt.Sprintf("%s-%d", kind, r.major), access)
			default:
				pairs = append(pairs, fmt.Sprintf("/dev/%s/%d:%d", kind, r.major, r.minor), access)
			}
		}
	}
	return []plan.SystemdProperty{
		{Name: "DevicePolicy", Type: "s", Value: []string{"strict"}},
		{Name: "DeviceAllow", Type: "a(ss)"}, // an empty list takes those of before away
		{Name: "DeviceAllow", Type: "a(ss)", Value: pairs},
	}
}

// ScopeProperties reads properties of the unit from annotations, as runc and crun do: "org.systemd.property.NAME" with a value
// in GVariant text form, of which this knows booleans, numbers with or without their type ("uint64 5"), strings in quotes, and
// lists of those. A name in …Sec is of seconds, which systemd has as …USec.
func ScopeProperties(annotations map[string]string) ([]plan.SystemdProperty, error) {
	var ps []plan.SystemdProperty
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		name, ok := strings.CutPrefix(key, "org.systemd.property.")
		if !ok {
			continue
		}
		letter := func(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' }
		p, err := variant(strings.TrimSpace(annotations[key]))
		p.Name = name
		if err == nil && (name == "" || strings.ContainsFunc(name, func(r rune) bool { return !letter(r) })) {
			err = fmt.Errorf("%q isn't the name of a property", name)
		}
		if base, sec := strings.CutSuffix(name, "Sec"); sec && !strings.HasSuffix(name, "USec") && err == nil {
			var v float64
			if v, err = strconv.ParseFloat(p.Value[0], 64); err == nil && (len(p.Type) != 1 || !(v >= 0 && v <= 1e12)) {
				err = errors.New("it isn't a number of seconds")
			}
			p = plan.SystemdProperty{Name: base + "USec", Type: "t", Value: []string{strconv.FormatUint(uint64(v*1e6), 10)}}
		}
		if err != nil {
			return nil, fmt.Errorf("/annotations/%s: %w", escape(key), err)
		}
		ps = append(ps, p)
	}
	return ps, nil
}

// variant parses a value in GVariant text form.
func variant(text string) (plan.SystemdProperty, error) {
	types := map[string]string{
		"byte": "y", "boolean": "b", "int32": "i", "uint32": "u", "int64": "x", "uint64": "t", "double": "d",
		"string": "s",
	}
	if word, rest, ok := strings.Cut(text, " "); ok && types[word] != "" {
		p, err := variant(strings.TrimSpace(rest))
		if err == nil && len(p.Type) != 1 {
			err = fmt.Errorf("%q isn't one value", text)
		}
		p.Type = types[word]
		return p, err
	}
	if list, ok := strings.CutPrefix(text, "["); ok && strings.HasSuffix(list, "]") {
		p := plan.SystemdProperty{Type: "as"}
		for item := range strings.SplitSeq(strings.TrimSuffix(list, "]"), ",") {
			e, err := variant(strings.TrimSpace(item))
			if err != nil || len(e.Type) != 1 {
				return p, fmt.Errorf("%q isn't a list of plain values", text)
			}
			p.Type, p.Value = "a"+e.Type, append(p.Value, e.Value...)
		}
		return p, nil
	}
	if n := len(text); n >= 2 && (text[0] == '\'' || text[0] == '"') && text[n-1] == text[0] &&
		!strings.ContainsAny(text[1:n-1], `\`+text[:1]) {
		return plan.SystemdProperty{Type: "s", Value: []string{text[1 : n-1]}}, nil
	}
	if text == "true" || text == "false" {
		return plan.SystemdProperty{Type: "b", Value: []string{text}}, nil
	}
	if _, err := strconv.ParseInt(text, 10, 64); err == nil {
		return plan.SystemdProperty{Type: "i", Value: []string{text}}, nil
	}
	if _, err := strconv.ParseUint(text, 10, 64); err == nil {
		return plan.SystemdProperty{Type: "t", Value: []string{text}}, nil
	}
	if _, err := strconv.ParseFloat(text, 64); err == nil {
		return plan.SystemdProperty{Type: "d", Value: []string{text}}, nil
	}
	return plan.SystemdProperty{}, fmt.Errorf("%q isn't a boolean, a number, a string in quotes or a list of them", text)
}
