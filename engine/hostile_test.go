package engine

import (
	"fmt"
	"path"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"glassbox/cgroup"
	"glassbox/compile"
	"glassbox/container"
	"glassbox/explain"
	"glassbox/host"
	"glassbox/network"
	"glassbox/plan"
	"glassbox/seccomp"
	"glassbox/spec"
)

var hostileID = strings.Repeat("c0ffee00", 8)

const hostileRoot = "/var/lib/glassbox"

// hostileCaps are those of an ordinary container.
func hostileCaps() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
		"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
	}
}

// ordinary is the plan of an ordinary container, as run writes it, on a host that is always the same: v1 or v2.
func ordinary(t *testing.T, v2 bool) (*plan.Plan, *vet) {
	t.Helper()
	dir := hostileRoot + "/containers/" + hostileID
	limit, pids := int64(64<<20), int64(50)
	number := func(n int64) *int64 { return &n }
	allow := func(kind string, major, minor int64) specs.LinuxDeviceCgroup {
		return specs.LinuxDeviceCgroup{Allow: true, Type: kind, Major: number(major), Minor: number(minor), Access: "rwm"}
	}
	rules := []specs.LinuxDeviceCgroup{
		{Access: "rwm"},
		{Allow: true, Type: "c", Access: "m"},
		{Allow: true, Type: "b", Access: "m"},
		allow("c", 1, 3), allow("c", 1, 5), allow("c", 1, 7), allow("c", 1, 8), allow("c", 1, 9), allow("c", 5, 0), allow("c", 5, 1),
		allow("c", 5, 2),
		{Allow: true, Type: "c", Major: number(136), Access: "rwm"},
	}
	config := &specs.Spec{
		Version: "1.2.0", Hostname: "web", Root: &specs.Root{Path: dir + "/merged"},
		Process: &specs.Process{
			Args: []string{"sh"}, Env: []string{"PATH=/bin"}, Cwd: "/",
			Capabilities: &specs.LinuxCapabilities{Bounding: hostileCaps(), Effective: hostileCaps(), Permitted: hostileCaps()},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/etc/hosts", Type: "bind", Source: dir + "/hosts", Options: []string{"rbind", "rprivate"}},
			{Destination: "/data", Type: "bind", Source: "/srv/data", Options: []string{"rbind", "rprivate"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: "/glassbox/" + hostileID, MaskedPaths: spec.MaskedPaths(&container.Config{}),
			ReadonlyPaths: spec.ReadonlyPaths(&container.Config{}),
			Namespaces:    []specs.LinuxNamespace{{Type: "mount"}, {Type: "pid"}, {Type: "uts"}, {Type: "ipc"}, {Type: "network"}, {Type: "cgroup"}},
			Resources:     &specs.LinuxResources{Devices: rules, Memory: &specs.LinuxMemory{Limit: &limit}, Pids: &specs.LinuxPids{Limit: &pids}},
			Seccomp:       seccomp.Default(seccomp.DefaultOptions{Arch: runtime.GOARCH, Caps: hostileCaps(), KernelMajor: 6, KernelMinor: 1}),
		},
	}
	controllers := []string{"cpu", "cpuset", "io", "memory", "pids"}
	cgroups := host.Cgroup{Mode: host.CgroupV2, Hierarchies: []host.Hierarchy{{
		Mount: "/sys/fs/cgroup", V2: true, Own: "/user.slice", Controllers: controllers, Enabled: controllers,
	}}}
	if !v2 {
		cgroups = host.Cgroup{Mode: host.CgroupV1}
		for _, c := range []string{"memory", "devices", "pids"} {
			cgroups.Hierarchies = append(cgroups.Hierarchies, host.Hierarchy{Mount: "/sys/fs/cgroup/" + c, Own: "/", Controllers: []string{c}})
		}
	}
	facts := &host.Facts{
		Arch: runtime.GOARCH, Kernel: host.Kernel{Release: "6.1.0", Major: 6, Minor: 1}, LastCap: 40, Caps: 1<<41 - 1, Seccomp: true, CPUs: 2,
		Cgroup: cgroups,
	}
	rel := "containers/" + hostileID
	out, err := compile.Container(compile.Input{
		Spec: config, Facts: *facts, SeccompName: "default", DieWithParent: true, Mountpoint: dir + "/merged", Network: network.Loopback(),
		Overlay: &plan.Overlay{
			Dir: hostileRoot, Lower: []string{"layers/2b", "layers/1a"}, Upper: rel + "/upper", Work: rel + "/work",
			Target: dir + "/merged",
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.Plan, &vet{e: &Engine{cfg: Config{Root: hostileRoot}}, facts: facts, plan: out.Plan}
}

// forge changes a plan as its author would.
type forge struct {
	t *testing.T
	p *plan.Plan
}

func child(ops ...plan.Op) []plan.Step { return lane(plan.Child, ops) }

func lane(l plan.Lane, ops []plan.Op) []plan.Step {
	var out []plan.Step
	for _, op := range ops {
		out = append(out, plan.Step{Lane: l, Op: op, Origin: "default"})
	}
	return out
}

// first is the place of the first step of a kind.
func (f forge) first(kind string) int { return f.index(kind, false) }

func (f forge) index(kind string, last bool) int {
	f.t.Helper()
	found := -1
	for i, s := range f.p.Steps {
		if s.Op.Kind() == kind && (found < 0 || last) {
			found = i
		}
	}
	if found < 0 {
		f.t.Fatalf("the plan has no %s", kind)
	}
	return found
}

func (f forge) insert(i int, steps ...plan.Step) { f.p.Steps = slices.Insert(f.p.Steps, i, steps...) }

// late adds steps of the child after all mounts.
func (f forge) late(ops ...plan.Op) { f.insert(f.first("close_range"), child(ops...)...) }

// early adds steps of the host before the clone.
func (f forge) early(ops ...plan.Op) { f.insert(f.first("clone3"), lane(plan.Host, ops)...) }

func (f forge) drop(is func(op plan.Op) bool) {
	f.p.Steps = slices.DeleteFunc(f.p.Steps, func(s plan.Step) bool { return is(s.Op) })
}

func dropMask(name string) func(op plan.Op) bool {
	return func(op plan.Op) bool {
		m, ok := op.(*plan.MaskPath)
		r, ro := op.(*plan.ReadonlyPath)
		return ok && m.Path == name || ro && r.Path == name
	}
}

// each calls f with every op of a type.
func each[T plan.Op](p *plan.Plan, f func(o T)) {
	for _, s := range p.Steps {
		if o, ok := s.Op.(T); ok {
			f(o)
		}
	}
}

// filter compiles a profile for this machine.
func (f forge) filter(p *specs.LinuxSeccomp) []byte {
	f.t.Helper()
	out, err := seccomp.Compile(p, runtime.GOARCH)
	if err != nil {
		f.t.Fatal(err)
	}
	return out.Bytes()
}

func (f forge) profile() *specs.LinuxSeccomp {
	return seccomp.Default(seccomp.DefaultOptions{Arch: runtime.GOARCH, Caps: hostileCaps(), KernelMajor: 6, KernelMinor: 1})
}

// allowing is the default profile and one rule more.
func (f forge) allowing(name string, args ...specs.LinuxSeccompArg) []byte {
	p := f.profile()
	p.Syscalls = append([]specs.LinuxSyscall{{Names: []string{name}, Action: specs.ActAllow, Args: args}}, p.Syscalls...)
	return f.filter(p)
}

func (f forge) setFilter(program []byte) {
	each(f.p, func(o *plan.Seccomp) { o.Program = program })
}

// returns is a filter of one instruction: the same answer to every call.
func returns(verdict uint32) []byte {
	return []byte{6, 0, 0, 0, byte(verdict), byte(verdict >> 8), byte(verdict >> 16), byte(verdict >> 24)}
}

func bindOf(source, target string, propagation ...string) (*plan.OpenTree, *plan.MoveMount) {
	return &plan.OpenTree{Path: source, Recursive: true, Save: "evil"},
		&plan.MoveMount{From: "evil", Target: target, Create: "like", Propagation: propagation}
}

// hostilePlan is a plan that says less than it does. Grades are those of a security engineer who sees through it: F where the container
// is root of the host, D where it is one bug or one look at a secret away.
type hostilePlan struct {
	name   string
	v1     bool
	change func(f forge)
	// refused is a part of the sentence with which `run --plan` turns it away; "" where it is a plan that run itself may write, for a
	// container that asked for it: then the grade has to say so.
	refused string
	grade   string // at best, of `explain --policy`
	reason  string // part of the worst finding
}

// hostilePlans is row 25 of the threats.
func hostilePlans() []hostilePlan {
	return slices.Concat(hostileWalls(), hostileMounts(), hostileFilters(), hostileHosts())
}

func hostileWalls() []hostilePlan {
	const inTheEnd = "isn't in the end"
	return []hostilePlan{
		{name: "no path is read-only", change: func(f forge) {
			f.drop(func(op plan.Op) bool { _, ok := op.(*plan.ReadonlyPath); return ok })
		}, refused: "leaves /proc/bus", grade: "F", reason: "/proc/sys can be written"},
		{name: "nothing is hidden or read-only", change: func(f forge) {
			f.drop(func(op plan.Op) bool {
				_, ro := op.(*plan.ReadonlyPath)
				_, mask := op.(*plan.MaskPath)
				return ro || mask
			})
		}, grade: "F", reason: "/proc/sys can be written"},
		{
			name: "/proc/sys alone is left out", change: func(f forge) { f.drop(dropMask("/proc/sys")) }, refused: "leaves /proc/sys", grade: "F",
			reason: "/proc/sys can be written",
		},
		{
			name: "/proc/sysrq-trigger is left out", change: func(f forge) { f.drop(dropMask("/proc/sysrq-trigger")) },
			refused: "leaves /proc/sysrq-trigger", grade: "D", reason: "sysrq",
		},
		{
			name: "/proc/kcore is left out", change: func(f forge) { f.drop(dropMask("/proc/kcore")) }, refused: "leaves /proc/kcore", grade: "B",
			reason: "not hidden: /proc/kcore",
		},
		{name: "read-only paths before /proc is mounted", change: func(f forge) {
			f.drop(dropMask("/proc/sys"))
			f.insert(f.first("pivot_root")+1, child(&plan.ReadonlyPath{Path: "/proc/sys"})...)
		}, refused: inTheEnd, grade: "F", reason: "/proc/sys can be written"},
		{name: "one hidden path before /proc is mounted", change: func(f forge) {
			f.drop(dropMask("/proc/kcore"))
			f.insert(f.first("pivot_root")+1, child(&plan.Mknod{Path: "/null", Type: "c", Major: 1, Minor: 3, Mode: 0o666, Save: "early"},
				&plan.MaskPath{Path: "/proc/kcore", Null: "early"})...)
		}, refused: inTheEnd, grade: "B", reason: "not hidden: /proc/kcore"},
		{name: "all masks before /proc is mounted", change: func(f forge) {
			moved := child(&plan.Mknod{Path: "/null", Type: "c", Major: 1, Minor: 3, Mode: 0o666, Save: "early"})
			f.p.Steps = slices.DeleteFunc(f.p.Steps, func(s plan.Step) bool {
				mask, ok := s.Op.(*plan.MaskPath)
				if ok {
					mask.Null = "early"
				}
				if _, ro := s.Op.(*plan.ReadonlyPath); ok || ro {
					moved = append(moved, s)
					return true
				}
				return false
			})
			f.insert(f.first("pivot_root")+1, moved...)
		}, refused: inTheEnd, grade: "F", reason: "/proc/sys can be written"},
		{name: "taken back by mount_setattr", change: func(f forge) {
			f.late(&plan.Remount{Target: "/proc/sys", Clear: []string{"ro"}})
		}, refused: inTheEnd, grade: "F", reason: "/proc/sys can be written"},
		{name: "taken back by a recursive mount_setattr from above", change: func(f forge) {
			f.late(&plan.Remount{Target: "/proc", RecClear: []string{"ro"}})
		}, refused: inTheEnd, grade: "F", reason: "/proc/sys can be written"},
		{name: "taken back from the root", change: func(f forge) {
			f.late(&plan.Remount{Target: "/", RecClear: []string{"ro"}})
		}, refused: inTheEnd, grade: "F", reason: "/proc/sys can be written"},
		{name: "taken back under another spelling", change: func(f forge) {
			f.late(&plan.Remount{Target: "/sys/../proc/./sys/", Clear: []string{"ro"}})
		}, refused: inTheEnd, grade: "F", reason: "/proc/sys can be written"},
		{name: "taken back through a link of its own", change: func(f forge) {
			f.late(&plan.Symlink{Path: "/p", Target: "/proc"}, &plan.Remount{Target: "/p/sys", Clear: []string{"ro"}})
		}, refused: inTheEnd, grade: "F", reason: "/proc/sys can be written"},
		{name: "a second procfs elsewhere", change: func(f forge) {
			f.late(&plan.FSMount{Type: "proc", Source: "proc", Target: "/mnt"})
		}, refused: "a second way", grade: "F", reason: "/mnt/sys can be written"},
		{name: "a second procfs, made detached", change: func(f forge) {
			f.late(&plan.FSMount{Type: "proc", Source: "proc", Save: "second"}, &plan.MoveMount{From: "second", Target: "/mnt", Create: "dir"})
		}, refused: "a second way", grade: "F", reason: "/mnt/sys can be written"},
		{name: "a second procfs over the first", change: func(f forge) {
			f.late(&plan.FSMount{Type: "proc", Source: "proc", Target: "/proc"})
		}, refused: inTheEnd, grade: "F", reason: "/proc/sys can be written"},
		{name: "a read-only second procfs", change: func(f forge) {
			f.late(&plan.FSMount{Type: "proc", Source: "proc", Target: "/mnt", Attrs: []string{"ro"}})
		}, refused: "a second way", grade: "B", reason: "not hidden: /mnt/acpi"},
		{name: "a second sysfs", change: func(f forge) {
			f.late(&plan.FSMount{Type: "sysfs", Source: "sysfs", Target: "/mnt"})
		}, refused: "a second way", grade: "D", reason: "/mnt (sysfs) can be written"},
		{name: "/sys made writable afterwards", change: func(f forge) {
			f.late(&plan.Remount{Target: "/sys", Clear: []string{"ro"}})
		}, grade: "D", reason: "/sys (sysfs) can be written"},
		{name: "the masked procfs is moved away", change: func(f forge) {
			each(f.p, func(o *plan.FSMount) {
				if o.Type == "proc" {
					o.Save = "proc"
				}
			})
			f.late(&plan.MoveMount{From: "proc", Target: "/mnt", Create: "dir"}, &plan.FSMount{Type: "proc", Source: "proc", Target: "/proc"})
		}, refused: "proc", grade: "F", reason: "/proc/sys can be written"},
		{name: "a clone of the container's own procfs", change: func(f forge) {
			f.late(&plan.OpenTree{Path: "/proc", Save: "own"}, &plan.MoveMount{From: "own", Target: "/mnt", Create: "dir"})
		}, refused: "before there is a child", grade: "F", reason: "/mnt/sys can be written"},
		{name: "a clone of /proc/sys from below its read-only one", change: func(f forge) {
			i := f.first("readonly-path")
			f.insert(i, child(&plan.OpenTree{Path: "/proc/sys/kernel", Save: "own"})...)
			f.late(&plan.MoveMount{From: "own", Target: "/mnt", Create: "dir"})
		}, refused: "before there is a child", grade: "F", reason: "/mnt can be written"},
		{name: "another root after the masks", change: func(f forge) {
			own := hostileRoot + "/containers/" + hostileID + "/merged"
			f.late(&plan.FSMount{Type: "tmpfs", Target: own}, &plan.FSMount{Type: "proc", Target: own + "/proc"}, &plan.PivotRoot{Root: own})
		}, refused: "not where the root is mounted", grade: "F", reason: "/proc/sys can be written"},
	}
}

func hostileMounts() []hostilePlan {
	overlay := func(change func(o *plan.Overlay)) func(f forge) {
		return func(f forge) { each(f.p, change) }
	}
	bound := func(source, target string, propagation ...string) func(f forge) {
		return func(f forge) {
			tree, move := bindOf(source, target, propagation...)
			f.early(tree)
			f.late(move)
		}
	}
	return []hostilePlan{
		{
			name: "a layer with a colon", change: overlay(func(o *plan.Overlay) { o.Lower[1] += ":/" }), refused: "several paths", grade: "D",
			reason: "read the host's /:",
		},
		{
			name: "a layer that is a directory of the host", change: overlay(func(o *plan.Overlay) { o.Lower = append(o.Lower, "/etc") }),
			grade:  "D",
			reason: "read the host's /etc",
		},
		{
			name: "the host's root as a layer", change: overlay(func(o *plan.Overlay) { o.Lower = []string{"/"} }), grade: "D",
			reason: "read the host's /:",
		},
		{
			name: "an upper directory that is the host's", change: overlay(func(o *plan.Overlay) { o.Upper = "../../../etc" }),
			refused: "are not those", grade: "F",
			reason: "change the host's /etc",
		},
		{
			name: "an option that is a layer", change: overlay(func(o *plan.Overlay) { o.Options = append(o.Options, "lowerdir+=/") }),
			refused: "own place", grade: "B",
		},
		{name: "a file of the host under the name of the engine's", change: func(f forge) {
			for i, s := range f.p.Steps {
				f.p.Steps[i].Origin = "default" // what it says of itself counts for nothing
				if o, ok := s.Op.(*plan.OpenTree); ok && path.Base(o.Path) == "hosts" {
					o.Path = "/etc/shadow"
				}
			}
		}, grade: "F", reason: "change the host's /etc/shadow"},
		{name: "the host's secrets, read", change: func(f forge) {
			tree, move := bindOf("/etc", "/mnt", "rprivate")
			move.RecSet = []string{"ro"}
			f.early(tree)
			f.late(move)
		}, grade: "D", reason: "read the host's /etc"},
		{name: "read-only on top, writable below", change: func(f forge) {
			tree, move := bindOf("/", "/mnt", "rprivate")
			move.Set = []string{"ro"}
			f.early(tree)
			f.late(move)
		}, grade: "F", reason: "the host's /"},
		{name: "read-only, and taken back", change: func(f forge) {
			tree, move := bindOf("/etc", "/mnt", "rprivate")
			move.RecSet = []string{"ro"}
			f.early(tree)
			f.late(move, &plan.Remount{Target: "/mnt", Clear: []string{"ro"}})
		}, grade: "F", reason: "change the host's /etc"},
		{name: "a socket, read-only", change: func(f forge) {
			tree, move := bindOf("/run/docker.sock", "/s", "rprivate")
			move.RecSet = []string{"ro"}
			f.early(tree)
			f.late(move)
		}, grade: "F", reason: "docker.sock"},
		{name: "mounts that spread to the host", change: bound("/srv/data", "/mnt"), grade: "D", reason: "appear on the host"},
		{name: "nothing is private", change: func(f forge) {
			f.drop(func(op plan.Op) bool { o, ok := op.(*plan.Mount); return ok && o.Target == "/" })
		}, refused: "would appear on the host", grade: "D", reason: "appears on the host"},
		{name: "private only after the root is mounted", change: func(f forge) {
			f.drop(func(op plan.Op) bool { o, ok := op.(*plan.Mount); return ok && o.Target == "/" })
			f.insert(f.first("overlay")+1, child(&plan.Mount{Target: "/", Flags: []string{"rec", "private"}})...)
		}, refused: "would appear on the host", grade: "D", reason: "appears on the host"},
		{name: "a mask that is the host's memory", change: func(f forge) {
			f.late(&plan.Mknod{Path: "/dev/x", Type: "c", Major: 1, Minor: 1, Mode: 0o666, Save: "mem"}, &plan.MaskPath{Path: "/mnt/x", Null: "mem"})
		}, refused: "none of the kind", grade: "B"},
		{name: "a mask that is a file of the host", change: func(f forge) {
			f.early(&plan.OpenTree{Path: "/etc/shadow", Save: "evil"})
			f.drop(dropMask("/proc/kcore"))
			f.late(&plan.MaskPath{Path: "/proc/kcore", Null: "evil"})
		}, refused: "none of the kind", grade: "F", reason: "/etc/shadow"},
		{name: "the mounts of another process", change: func(f forge) {
			f.early(&plan.Open{Path: "/proc/2/ns/mnt", Namespace: "mount", Save: "mounts"},
				&plan.OpenTree{Path: "/", Mounts: "mounts", Save: "evil"})
			f.late(&plan.MoveMount{From: "evil", Target: "/mnt"})
		}, refused: "step", grade: "F", reason: "/proc/2/root"},
		{name: "the host's root as standard input", change: func(f forge) {
			f.early(&plan.OpenTree{Path: "/", Save: "stdin"})
		}, refused: "name of a stream", grade: "B"},
		{name: "a disk", change: func(f forge) {
			f.late(&plan.FSMount{Type: "ext4", Source: "/dev/vda", Target: "/mnt"})
		}, refused: "none that run makes", grade: "F", reason: "/dev/vda"},
		{name: "the kernel's own file systems", change: func(f forge) {
			f.late(&plan.FSMount{Type: "debugfs", Target: "/mnt"})
		}, refused: "none that run makes", grade: "F", reason: "/mnt (debugfs)"},
		{name: "an overlay of the host", change: func(f forge) {
			f.insert(f.first("pivot_root"), child(&plan.FSMount{Type: "overlay", Options: []string{"lowerdir=/etc:/usr"}, Save: "ov"})...)
			f.late(&plan.MoveMount{From: "ov", Target: "/mnt", Create: "dir"})
		}, refused: "none that run makes", grade: "D", reason: "read the host's /etc"},
		{name: "on the root itself", change: func(f forge) {
			f.late(&plan.FSMount{Type: "tmpfs", Target: "/"})
		}, refused: "on the root itself", grade: "B"},
		{name: "files of the host made before pivot_root", change: func(f forge) {
			f.insert(f.first("pivot_root"), child(&plan.Symlink{Path: "/etc/cron.d/x", Target: "/proc/1/root/x"})...)
		}, refused: "before pivot_root", grade: "F", reason: "among the host's files"},
	}
}

func hostileFilters() []hostilePlan {
	const allow = 0x7fff0000
	return []hostilePlan{
		{
			name: "a filter that allows everything", change: func(f forge) { f.setFilter(returns(allow)) },
			refused: "called default and lets through", grade: "D", reason: "lets everything through",
		},
		{
			name: "a filter that logs everything", change: func(f forge) { f.setFilter(returns(0x7ffc0000)) },
			refused: "called default and lets through", grade: "D", reason: "lets everything through",
		},
		{name: "no filter", change: func(f forge) {
			f.drop(func(op plan.Op) bool { _, ok := op.(*plan.Seccomp); return ok })
		}, grade: "D", reason: "no filter stands"},
		{name: "a filter that can't be followed", change: func(f forge) {
			f.setFilter(append([]byte{0x80, 0, 0, 0, 0, 0, 0, 0}, returns(allow)...)) // the packet's length, of which seccomp has none
		}, refused: "not one that glassbox writes", grade: "D", reason: "lets everything through"},
		{name: "a call more", change: func(f forge) { f.setFilter(f.allowing("keyctl")) }, refused: "keyctl", grade: "B", reason: "keyctl"},
		{
			name: "user namespaces", change: func(f forge) { f.setFilter(f.allowing("unshare")) }, refused: "unshare", grade: "B",
			reason: "unshare",
		},
		{name: "new namespaces by clone's flags", change: func(f forge) {
			f.setFilter(f.allowing("clone", specs.LinuxSeccompArg{Index: 0, Op: specs.OpMaskedEqual, Value: 0x10000000, ValueTwo: 0x10000000}))
		}, refused: "clone", grade: "B", reason: "clone"},
		{name: "a socket family", change: func(f forge) {
			f.setFilter(f.allowing("socket", specs.LinuxSeccompArg{Index: 0, Op: specs.OpEqualTo, Value: 38}))
		}, refused: "socket", grade: "B", reason: "socket"},
		{name: "calls of another interface", change: func(f forge) {
			foreign := []byte{3, 0, 0, 0x40} // AUDIT_ARCH_I386, little endian
			if runtime.GOARCH == "arm64" {
				foreign = []byte{0x28, 0, 0, 0x40} // AUDIT_ARCH_ARM
			}
			head := append([]byte{0x20, 0, 0, 0, 4, 0, 0, 0, 0x15, 0, 0, 1}, foreign...)
			f.setFilter(slices.Concat(head, returns(allow), f.filter(f.profile())))
		}, refused: "called default and lets through", grade: "B", reason: "lets through what the default one refuses"},
		{name: "the filter of a container that may do everything", change: func(f forge) {
			f.setFilter(f.filter(seccomp.Default(seccomp.DefaultOptions{
				Arch: runtime.GOARCH, Caps: []string{"CAP_SYS_ADMIN", "CAP_BPF"},
				KernelMajor: 6,
			})))
		}, refused: "called default and lets through", grade: "B", reason: "bpf"},
		{name: "a device program that allows everything", change: func(f forge) {
			each(f.p, func(o *plan.DeviceFilter) { o.Program = []byte{0xb4, 0, 0, 0, 1, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0} })
		}, refused: "not what its rules say", grade: "F", reason: "every block device"},
		{name: "a device program that allows one disk", change: func(f forge) {
			each(f.p, func(o *plan.DeviceFilter) {
				p, err := cgroup.DeviceProgram(append(slices.Clone(o.Rules), "allow b 254:0 rw"))
				if err != nil {
					f.t.Fatal(err)
				}
				o.Program = p
			})
		}, refused: "not what its rules say", grade: "F", reason: "block device 254:0"},
		{name: "a device filter on another cgroup", change: func(f forge) {
			f.insert(0, lane(plan.Host, []plan.Op{&plan.CgroupCreate{Path: "/sys/fs/cgroup/other/" + hostileID}})...)
			each(f.p, func(o *plan.DeviceFilter) { o.Path = "/sys/fs/cgroup/other/" + hostileID })
		}, grade: "F", reason: "every block device"},
		{name: "rules without the one that denies", v1: true, change: func(f forge) {
			f.drop(func(op plan.Op) bool {
				o, ok := op.(*plan.CgroupWrite)
				return ok && path.Base(o.File) == "devices.deny"
			})
		}, grade: "F", reason: "every block device"},
		{name: "a rule that was there before, written again", v1: true, change: func(f forge) {
			dir := ""
			each(f.p, func(o *plan.CgroupWrite) {
				if strings.HasPrefix(path.Base(o.File), "devices.") {
					dir = path.Dir(o.File)
				}
			})
			open := func() plan.Op { return &plan.CgroupWrite{File: dir + "/devices.allow", Value: "a *:* rwm"} }
			f.insert(f.first("cgroup-write"), lane(plan.Host, []plan.Op{open()})...)
			f.early(open())
		}, grade: "F", reason: "every block device"},
		{name: "limits of a cgroup that it isn't in", v1: true, change: func(f forge) {
			f.drop(func(op plan.Op) bool { _, ok := op.(*plan.CgroupJoin); return ok })
		}, grade: "F", reason: "every block device"},
	}
}

func hostileHosts() []hostilePlan {
	return []hostilePlan{
		{name: "a setting of the host", change: func(f forge) {
			f.late(&plan.Sysctl{From: "proc", Key: "kernel/core_pattern", Value: "|/x"})
		}, refused: "the host's setting", grade: "F", reason: "kernel.core_pattern"},
		{name: "a setting before the namespace is new", change: func(f forge) {
			each(f.p, func(o *plan.Clone) {
				o.Namespaces = slices.DeleteFunc(o.Namespaces, func(s string) bool { return s == "ipc" })
			})
			f.late(&plan.Sysctl{From: "proc", Key: "kernel/shmmax", Value: "1"}, &plan.Unshare{Namespaces: []string{"ipc"}})
		}, refused: "the host's setting", grade: "F", reason: "kernel.shmmax"},
		{name: "the host's name", change: func(f forge) {
			each(f.p, func(o *plan.Clone) {
				o.Namespaces = slices.DeleteFunc(o.Namespaces, func(s string) bool { return s == "uts" })
			})
		}, refused: "no new uts namespace", grade: "F", reason: "set the host's name"},
		{name: "a file of the host", change: func(f forge) {
			f.early(&plan.WriteFile{Path: "/proc/sys/kernel/core_pattern", Value: "|/x"})
		}, refused: "network", grade: "F", reason: "core_pattern"},
		{name: "a setting of the host by a bridge", change: func(f forge) {
			f.early(&plan.LinkBridge{Name: "b", Address: "10.0.0.1/24", Sysctls: []string{"kernel/core_pattern=|/x"}})
		}, refused: "network", grade: "F", reason: "core_pattern"},
		{name: "release_agent", change: func(f forge) {
			f.early(&plan.CgroupWrite{File: "/sys/fs/cgroup/release_agent", Value: "/x"})
		}, refused: "no file of a cgroup", grade: "F", reason: "release_agent"},
		{name: "a file of the host as a limit", change: func(f forge) {
			f.early(&plan.CgroupWrite{File: "/etc/memory.conf", Value: "x"})
		}, refused: "no file of a cgroup", grade: "F", reason: "/etc/memory.conf"},
		{name: "the host's root in a user namespace", change: func(f forge) {
			all := []plan.IDRange{{Size: ^uint32(0)}}
			each(f.p, func(o *plan.Clone) { o.Namespaces = append(o.Namespaces, "user") })
			f.insert(f.first("release"), lane(plan.Host, []plan.Op{&plan.IDMap{UID: all, GID: all}})...)
			f.drop(dropMask("/proc/sys"))
		}, refused: "leaves /proc/sys", grade: "F", reason: "/proc/sys can be written"},
		{name: "namespaces of the host, joined", change: func(f forge) {
			f.early(&plan.OpenPid{Pid: 1, Save: "init"})
			f.insert(f.first("pivot_root"), child(&plan.Setns{From: "init", Namespaces: []string{"mount"}})...)
		}, refused: "run makes no such step", grade: "F", reason: "no mount namespace of its own"},
		{name: "a hook", change: func(f forge) {
			f.insert(f.first("release"), lane(plan.Host, []plan.Op{&plan.Hook{Name: "prestart", Path: "/bin/sh"}})...)
		}, refused: "run makes no such step", grade: "D", reason: "runs a program of the host"},
		{name: "NUL", change: func(f forge) {
			f.early(&plan.OpenTree{Path: "/\x00srv/box", Save: "evil"})
		}, refused: "NUL byte", grade: "B"},
	}
}

// TestHostilePlans: a plan from elsewhere is refused, or graded as bad as it is; as a rule both.
func TestHostilePlans(t *testing.T) {
	for _, v2 := range []bool{true, false} {
		p, v := ordinary(t, v2)
		if err := v.check(); err != nil {
			t.Errorf("an ordinary plan is refused: %v", err)
		}
		if r := explain.Policy(p, explain.About{}); r.Grade != "B" {
			t.Errorf("an ordinary plan: got grade %s because %v, want B", r.Grade, r.Findings)
		}
	}
	plans := hostilePlans()
	if len(plans) < 40 {
		t.Errorf("%d hostile plans, want 40 at least", len(plans))
	}
	for _, tt := range plans {
		t.Run(strings.ReplaceAll(tt.name, " ", "-"), func(t *testing.T) {
			p, v := ordinary(t, !tt.v1)
			tt.change(forge{t, p})
			err := v.check()
			switch {
			case tt.refused == "" && err != nil:
				t.Errorf("it is refused: %v; want it to run, and its grade to say what it is", err)
			case tt.refused != "" && (err == nil || !strings.Contains(err.Error(), tt.refused)):
				t.Errorf("got error %v, want it refused with %q", err, tt.refused)
			}
			r := explain.Policy(p, explain.About{})
			worst := ""
			if len(r.Findings) > 0 {
				worst = fmt.Sprintf("%s: %s", r.Findings[0].What, r.Findings[0].Why)
			}
			if r.Grade < tt.grade { // in the order of the alphabet
				t.Errorf("got grade %s because %q, want %s", r.Grade, worst, tt.grade)
			}
			if tt.reason != "" && !slices.ContainsFunc(r.Findings, func(f explain.Finding) bool {
				return (f.Severity == r.Findings[0].Severity) && strings.Contains(f.What+": "+f.Why, tt.reason)
			}) {
				t.Errorf("got the worst reason %q, want one with %q", worst, tt.reason)
			}
		})
	}
}
