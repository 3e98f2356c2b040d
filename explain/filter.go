package explain

import (
	"bytes"
	"slices"

	"glassbox/plan"
	"glassbox/seccomp"
)

// standardFilter compiles the filter that every container gets that asks for none, with the capabilities of this one.
func (v *View) standardFilter(major int) []byte {
	f, err := seccomp.Compile(seccomp.Default(seccomp.DefaultOptions{Arch: v.Arch, Caps: v.Bounding, KernelMajor: major}), v.Arch)
	if err != nil { // a machine that seccomp doesn't know
		return nil
	}
	return f.Bytes()
}

// isStandard reports whether a filter is the default one. Its name says nothing: a plan from elsewhere may call a filter that allows
// everything "default".
func (v *View) isStandard(f *plan.Seccomp) bool {
	// The one condition on kernels in it is 4.8, before which tracing is denied.
	return slices.ContainsFunc([]int{6, 0}, func(major int) bool {
		program := v.standardFilter(major)
		return len(program) > 0 && bytes.Equal(program, f.Program)
	})
}

// wider lists the calls that its filters let through in some way in which the default one doesn't, on any interface that the
// machine may have. A call must pass all filters.
func (v *View) wider() []string {
	standard, err := seccomp.Instructions(v.standardFilter(6))
	if err != nil {
		return nil
	}
	var out []string
	for i, f := range v.readable() {
		more := seccomp.Wider(f, standard, v.Arch)
		if i > 0 {
			more = slices.DeleteFunc(more, func(name string) bool { return !slices.Contains(out, name) })
		}
		out = more
	}
	return out
}

// readable are the programs of the filters that this package can follow. One that it can't counts as none: nothing is called safer
// than it is.
func (v *View) readable() [][]seccomp.Instruction {
	var out [][]seccomp.Instruction
	for _, f := range v.Filters {
		if program, err := seccomp.Instructions(f.Program); err == nil {
			out = append(out, program)
		}
	}
	return out
}

// filtered reports whether any call at all is kept from the kernel.
func (v *View) filtered() bool {
	return slices.ContainsFunc(v.Calls(), func(c Call) bool { return !c.Always }) || len(v.Calls()) == 0 && len(v.readable()) > 0
}

// Call is what the filters let a container do with a system call.
type Call struct {
	Name              string
	Sometimes, Always bool
}

// Calls says of every system call whether the container can make it; nil on a machine that seccomp doesn't know. A program that
// this package can't follow counts as no filter: nothing is called safer than it is.
func (v *View) Calls() []Call {
	var out []Call
	// BPF_RET with SECCOMP_RET_ALLOW: what holds where there is no filter, and gives the list of all calls.
	allow, _ := seccomp.Instructions([]byte{6, 0, 0, 0, 0, 0, 0xff, 0x7f})
	for _, o := range seccomp.Outcomes(allow, v.Arch) {
		out = append(out, Call{o.Name, true, true})
	}
	for _, program := range v.readable() {
		for i, o := range seccomp.Outcomes(program, v.Arch) {
			sometimes, always := o.Allowed()
			out[i].Sometimes = out[i].Sometimes && sometimes
			out[i].Always = out[i].Always && always
		}
	}
	return out
}

// byCapability are the calls of surface that the default filter lets through for whoever has the capability that they take.
func byCapability() []string {
	return []string{
		"kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "iopl", "ioperm", "bpf", "open_by_handle_at",
		"perf_event_open", "userfaultfd", "mount", "umount2", "move_mount", "fsopen",
	}
}

// surface are calls behind which much of the kernel lies, or that make namespaces in which everything can be called (CVE-2022-0185
// and its kind): a filter that allows one more than the default does is a wall less.
func surface() []string {
	return append(byCapability(), "fsmount", "fspick", "open_tree", "mount_setattr", "pivot_root", "reboot", "swapon", "clone", "clone3",
		"unshare", "setns", "keyctl", "add_key", "request_key", "io_uring_setup", "socket", "quotactl", "kcmp", "lookup_dcookie")
}
