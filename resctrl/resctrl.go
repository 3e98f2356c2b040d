// Package resctrl puts containers into resource classes: shares of the processor's caches and of the memory's bandwidth, which the
// kernel manages in a file system of its own (Documentation/arch/x86/resctrl.rst; Intel RDT, AMD QoS, Arm MPAM).
//
//	/sys/fs/resctrl/                   the default class: whoever is in no other one
//	    schemata                       what the class has: "L3:0=ff;1=ff", "MB:0=100;1=100"
//	    tasks                          the threads in it; who writes "0" here joins
//	    CLASS/schemata, tasks          another class
//	    CLASS/mon_groups/NAME/tasks    some threads of the class, counted by themselves
//	    CLASS/mon_data/mon_L3_00/…     what they use
//
// As with cgroups, there is something to be in before there is anybody: the steps of the host make the class, write what it has and
// open its file tasks, and the child joins by that descriptor, together with its cgroups, before it does anything else. What it forks
// is in the same class.
//
// Which classes there are is a fact of the host ([host.Resctrl]). So the plan says what will happen to a class: one that is made is a
// [plan.ResctrlCreate], one that is there already is compared ([plan.ResctrlCheck]), and it is no one's to remove.
//
// Start reading at [Steps].
package resctrl

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"glassbox/host"
	"glassbox/plan"
)

// Setup is how a container gets into its class.
type Setup struct {
	Steps []plan.Step // of the host lane; they come before the clone
	Join  []string    // descriptors for [plan.ResctrlJoin] steps of the child, in order
	Place Place
}

// Place says where a container is: directories of the file system.
type Place struct {
	Class   string `json:"intel_rdt_path,omitempty"`    // runc's name for it
	Monitor string `json:"intel_rdt_monitor,omitempty"` // its monitoring group below the class
}

const pointer = "/linux/intelRdt"

// field is a part of the configuration: lines for a schemata file.
type field struct {
	pointer string
	lines   []string
}

// later reports whether a field is one of schemata, which are written and not compared.
func (x field) later() bool { return path.Dir(x.pointer) == pointer+"/schemata" }

// fieldsOf returns what is to be written, in the order of the specification.
func fieldsOf(f *host.Resctrl, r *specs.LinuxIntelRdt) ([]field, error) {
	var fields []field
	if r.L3CacheSchema != "" {
		fields = append(fields, field{pointer + "/l3CacheSchema", strings.Split(strings.TrimSuffix(r.L3CacheSchema, "\n"), "\n")})
	}
	if r.MemBwSchema != "" {
		fields = append(fields, field{pointer + "/memBwSchema", []string{r.MemBwSchema}})
	}
	for i, line := range r.Schemata {
		fields = append(fields, field{fmt.Sprintf("%s/schemata/%d", pointer, i), []string{line}})
	}
	for _, x := range fields {
		if err := known(f, x); err != nil {
			return nil, err
		}
	}
	return fields, nil
}

var errNone = errors.New(pointer + ": there is no resctrl file system: where processor and kernel have resource classes, mount -t " +
	"resctrl resctrl /sys/fs/resctrl shows them")

// Update returns the step that changes what the class of a container has.
func Update(f *host.Resctrl, p Place, r *specs.LinuxIntelRdt) (*plan.ResctrlWrite, error) {
	if f == nil {
		return nil, errNone
	}
	fields, err := fieldsOf(f, r)
	if err != nil {
		return nil, err
	}
	return &plan.ResctrlWrite{Path: p.Class, Schemata: lines(fields)}, nil
}

// Steps returns the steps that put the container id into the class that r describes. Origin maps a JSON pointer to the origin of a
// step.
//
// The rules are those of the specification (config-linux.md, IntelRdt). A class without a name of its own has the container's, and
// goes with the container if it was made for it. One with a name is shared: it stays.
func Steps(f *host.Resctrl, id string, r *specs.LinuxIntelRdt, origin func(pointer string) string) (Setup, error) {
	if f == nil {
		return Setup{}, errNone
	}
	name, ptr := r.ClosID, pointer+"/closID"
	if name == "" {
		name, ptr = id, pointer
	}
	if name != "/" && (!fileName(name) || slices.Contains([]string{"info", "mon_groups", "mon_data"}, name)) {
		return Setup{}, fmt.Errorf("%s: %q can't be the name of a resource class", ptr, name)
	}
	fields, err := fieldsOf(f, r)
	if err != nil {
		return Setup{}, err
	}

	s := Setup{Place: Place{Class: path.Join(f.Mount, name)}}
	add := func(op plan.Op, ptr, reason string) {
		s.Steps = append(s.Steps, plan.Step{Lane: plan.Host, Phase: plan.Limits, Op: op, Origin: origin(ptr), Reason: reason})
	}
	exists := name == "/" || slices.Contains(f.Classes, name)
	switch {
	case !exists && r.ClosID != "" && len(fields) == 0:
		return Setup{}, fmt.Errorf("%s: there is no resource class %q in %s: make it first, or say what it has (l3CacheSchema, "+
			"memBwSchema, schemata)", ptr, name, f.Mount)
	case !exists && r.ClosID != "":
		add(&plan.ResctrlCreate{Path: s.Place.Class, Shared: true}, ptr,
			"The class doesn't exist yet. It has a name of its own: others may join it, and it stays when the container goes.")
	case !exists:
		add(&plan.ResctrlCreate{Path: s.Place.Class}, ptr, "The container gets a resource class of its own.")
	}
	// What others use is compared, and not changed to what this container wants.
	if write := fields; len(write) > 0 {
		if exists && r.ClosID != "" {
			compared := slices.IndexFunc(fields, field.later)
			if compared < 0 {
				compared = len(fields)
			}
			for _, x := range fields[:compared] {
				add(&plan.ResctrlCheck{Path: s.Place.Class, Schemata: x.lines}, x.pointer,
					"The class exists, and others may be in it: it must have what is wanted already.")
			}
			write = fields[compared:]
		}
		if len(write) > 0 {
			add(&plan.ResctrlWrite{Path: s.Place.Class, Schemata: lines(write)}, pointers(write),
				"What the container may have of the caches and of the memory's bandwidth. The kernel takes all lines or none.")
		}
	}
	if r.EnableMonitoring {
		ptr := pointer + "/enableMonitoring"
		switch {
		case !f.Monitoring:
			return Setup{}, fmt.Errorf("%s: %s has no mon_groups: this processor or kernel doesn't count what a group uses", ptr, f.Mount)
		case !fileName(id):
			return Setup{}, fmt.Errorf("%s: %q can't be the name of a monitoring group", ptr, id)
		}
		s.Place.Monitor = path.Join(s.Place.Class, "mon_groups", id)
		add(&plan.ResctrlCreate{Path: s.Place.Monitor}, ptr, "What the container uses is counted by itself, in a monitoring group.")
	}
	s.open(func(string) string { return origin(pointer) })
	return s, nil
}

func fileName(s string) bool {
	return s != "" && s != "." && s != ".." && !strings.ContainsAny(s, "/\n")
}

func lines(fields []field) []string {
	var out []string
	for _, x := range fields {
		out = append(out, x.lines...)
	}
	return out
}

// pointers names the fields of one write: one by its own, more by what they have in common.
func pointers(fields []field) string {
	switch {
	case len(fields) == 1:
		return fields[0].pointer
	case !slices.ContainsFunc(fields, func(x field) bool { return !x.later() }):
		return pointer + "/schemata"
	}
	return pointer
}

// known refuses a line for what this host can't share out. Whether the values are good, the kernel knows.
func known(f *host.Resctrl, x field) error {
	for _, line := range x.lines {
		name, values, ok := strings.Cut(line, ":")
		if name = strings.TrimSpace(name); !ok || name == "" || !strings.Contains(values, "=") {
			return fmt.Errorf("%s: %q is no schema: they look like L3:0=ff;1=ff", x.pointer, line)
		}
		if !slices.Contains(f.Resources, name) {
			return fmt.Errorf("%s: %q: this host can't share out %s, only %s", x.pointer, line, name, enumerate(f.Resources))
		}
	}
	return nil
}

func enumerate(words []string) string {
	if len(words) == 0 {
		return "nothing (see info in the resctrl file system)"
	}
	return strings.Join(words, ", ")
}

// Join returns the steps that let a process join a class that exists: for exec.
func Join(p Place) Setup {
	s := Setup{Place: p}
	s.open(func(string) string { return "default" })
	return s
}

// open adds the steps that open what the child joins by: the class, and then the group in it, which only those of the class may join.
func (s *Setup) open(origin func(string) string) {
	for _, g := range []struct{ dir, save, reason string }{
		{s.Place.Class, "resctrl", "The child joins this resource class by writing here before it does anything else."},
		{s.Place.Monitor, "resctrl:monitor", "The child joins this monitoring group, once it is in its class."},
	} {
		if g.dir != "" {
			op := &plan.Open{Path: path.Join(g.dir, "tasks"), Flags: []string{"write"}, Save: g.save}
			s.Steps = append(s.Steps, plan.Step{Lane: plan.Host, Phase: plan.Limits, Op: op, Origin: origin(""), Reason: g.reason})
			s.Join = append(s.Join, g.save)
		}
	}
}

// has reports whether a schemata file holds a line: the values of the caches and memories that it names. Others it says nothing about.
// gran is the step of memory bandwidth in percent, to which the kernel rounds up (info/MB/bandwidth_gran), or 0.
func has(schemata, line string, gran uint64) bool {
	name, want, _ := strings.Cut(line, ":")
	name = strings.TrimSpace(name)
	for l := range strings.Lines(schemata) {
		n, values, _ := strings.Cut(l, ":")
		if strings.TrimSpace(n) != name {
			continue
		}
		have := domains(values)
		for id, value := range domains(want) {
			if !same(name, have[id], value, gran) {
				return false
			}
		}
		return true
	}
	return false
}

// domains takes "0=ff;1=ff" apart.
func domains(s string) map[string]string {
	m := map[string]string{}
	for part := range strings.SplitSeq(s, ";") {
		if id, value, ok := strings.Cut(part, "="); ok {
			m[strings.TrimSpace(id)] = strings.TrimSpace(value)
		}
	}
	return m
}

// same compares two values: bit masks of a cache in hexadecimal digits, bandwidths as decimal numbers.
func same(resource, have, want string, gran uint64) bool {
	base := 16
	if strings.HasSuffix(resource, "MB") || strings.HasSuffix(resource, "MBA") {
		base = 10
	} else {
		want = strings.TrimPrefix(strings.ToLower(want), "0x")
	}
	h, err1 := parseNumber(have, base)
	w, err2 := parseNumber(want, base)
	if err1 != nil || err2 != nil {
		return have == want
	}
	if base == 10 && gran > 0 && h != w {
		w = (w + gran - 1) / gran * gran
	}
	return h == w
}

func parseNumber(s string, base int) (uint64, error) { return strconv.ParseUint(s, base, 64) }
