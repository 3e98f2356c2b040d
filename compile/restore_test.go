package compile

import (
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"glassbox/host"
	"glassbox/plan"
)

// TestRestore looks at the order of what surrounds criu: the cgroup and its limit before it is cloned, the caller's keys gone and
// the namespace of others at its number before it runs.
func TestRestore(t *testing.T) {
	limit := int64(50)
	facts := facts(host.CgroupV2)
	facts.Resctrl = &host.Resctrl{Mount: "/sys/fs/resctrl", Resources: []string{"L3"}}
	in := RestoreInput{
		Stage: []Staged{{Name: "root", Path: "/r", Recursive: true}}, CgroupNS: true,
		Input: Input{ID: "c", Facts: facts, Spec: &specs.Spec{
			Root: &specs.Root{Path: "/r"}, Process: &specs.Process{Args: []string{"sh"}, Cwd: "/"},
			Linux: &specs.Linux{
				IntelRdt:    &specs.LinuxIntelRdt{L3CacheSchema: "L3:0=f"},
				CgroupsPath: "/c", Resources: &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}},
				Namespaces: []specs.LinuxNamespace{{Type: "mount"}, {Type: "network", Path: "/net"}, {Type: "ipc", Path: "/ipc"}},
			},
		}},
		Argv: []string{"/sbin/criu", "restore"}, Namespaces: map[string]int{"net": 100}, Descriptors: map[string]int{"criu": 99, "stdin": 103},
	}
	p, err := Restore(in)
	if err != nil {
		t.Fatal(err)
	}
	at := func(what string, is func(plan.Op) bool) int {
		i := slices.IndexFunc(p.Steps, func(s plan.Step) bool { return is(s.Op) })
		if i < 0 {
			t.Fatalf("no step: %s", what)
		}
		return i
	}
	order := []int{
		at("the limit", func(op plan.Op) bool { o, ok := op.(*plan.CgroupWrite); return ok && o.Value == "50" }),
		at("the clone into the cgroup", func(op plan.Op) bool { o, ok := op.(*plan.Clone); return ok && o.Cgroup != "" }),
		at("the class", func(op plan.Op) bool { _, ok := op.(*plan.ResctrlJoin); return ok }),
		at("the cgroup namespace", func(op plan.Op) bool {
			o, ok := op.(*plan.Unshare)
			return ok && slices.Contains(o.Namespaces, "cgroup")
		}),
		at("the shared namespace", func(op plan.Op) bool { o, ok := op.(*plan.Setns); return ok && o.From == "ns:ipc" }),
		at("the root as a mount", func(op plan.Op) bool {
			o, ok := op.(*plan.MoveMount)
			return ok && o.From == "stage:root" && o.Target == "/tmp/root" && slices.Contains(o.Propagation, "rprivate")
		}),
		at("the keyring", func(op plan.Op) bool { _, ok := op.(*plan.Keyring); return ok }),
		at("the namespace", func(op plan.Op) bool { o, ok := op.(*plan.Stdio); return ok && o.From == "ns:net" && o.To == 100 }),
		at("the socket", func(op plan.Op) bool { o, ok := op.(*plan.Stdio); return ok && o.From == "criu" && o.To == 99 }),
		at("closing the rest", func(op plan.Op) bool { o, ok := op.(*plan.CloseRange); return ok && o.First == 104 }),
		at("criu", func(op plan.Op) bool { o, ok := op.(*plan.Execve); return ok && o.Candidates[0] == "/sbin/criu" }),
	}
	if !slices.IsSorted(order) {
		t.Errorf("got steps %v, want them in order", order)
	}
	if classes := slices.DeleteFunc(slices.Clone(p.Steps),
		func(s plan.Step) bool { _, ok := s.Op.(*plan.ResctrlCreate); return !ok }); len(classes) != 1 {
		t.Errorf("the class is made by %v, want one step", classes)
	}
	for _, kind := range []specs.LinuxNamespaceType{specs.MountNamespace, specs.CgroupNamespace, specs.TimeNamespace} {
		in.Spec.Linux.Namespaces = []specs.LinuxNamespace{{Type: kind, Path: "/proc/1/ns/x"}}
		if kind != specs.MountNamespace {
			in.Spec.Linux.Namespaces = append(in.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.MountNamespace})
		}
		if _, err := Restore(in); err == nil || !strings.Contains(err.Error(), "/linux/namespaces/0/path: criu can't be in the") {
			t.Errorf("%s namespace of others: got %v, want it refused", kind, err)
		}
	}
}
