package explain

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"glassbox/plan"
	allkinds "glassbox/test/kinds"
)

func kinds(t testing.TB) []string { return allkinds.All(t) }

// opOf makes an empty op of a kind.
func opOf(t testing.TB, kind string) plan.Op { return allkinds.Step(t, kind).Op }

// hostile is a plan with a step of each kind in these lanes, in which every name is text that means harm.
func hostile(t *testing.T, evil string, lanes ...plan.Lane) *plan.Plan {
	t.Helper()
	p := sample()
	for _, kind := range kinds(t) {
		op := opOf(t, kind)
		fillOp(op, evil)
		for _, lane := range lanes {
			p.Steps = append(p.Steps, plan.Step{Lane: lane, Phase: plan.Phase(evil), Op: op, Origin: evil, Reason: evil})
		}
	}
	return p
}

// TestReadKinds: a kind of step that Read doesn't know would be missing from every judgement and translation.
func TestReadKinds(t *testing.T) {
	for _, kind := range kinds(t) {
		v := Read(&plan.Plan{Steps: []plan.Step{{Op: opOf(t, kind)}}})
		if len(v.Unread) > 0 {
			t.Errorf("Read doesn't know the step %q: say in reader.step what it means for the container", kind)
		}
	}
	v := Read(&plan.Plan{Steps: []plan.Step{{Op: unknown{}}, {}}})
	if len(v.Unread) != 2 {
		t.Errorf("unknown steps: got %q", v.Unread)
	}
}

// howOnly are fields that say how a thing is done, and nothing of the container that comes of it.
func howOnly() map[string]bool {
	out := map[string]bool{}
	for _, name := range []string{
		"cgroup-create.controllers", "cgroup-write.enable", "cgroup-remove.path", "cgroup-evacuate.from", "cgroup-evacuate.to",
		"cgroup-open.path", "cgroup-open.save", "cgroup-join.from", "cgroup-attach.path",
		"resctrl-create.path", "resctrl-create.shared", "resctrl-remove.path", "resctrl-remove.shared", "resctrl-check.path",
		"resctrl-write.path", "resctrl-join.from",
		"systemd-scope.user", "systemd-set.user", "systemd-attach.unit", "systemd-attach.user", "systemd-stop.unit", "systemd-stop.user",
		"systemd-scope.unit", "systemd-set.unit",
		"bpf-device.path", "bpf-device.program", "bpf-device.rules", // what is no program allows everything, see TestDeviceFilter
		"open_tree.path", "open_tree.recursive", "open_tree.save", "open_tree.device", "open_tree.idMap", "open_tree.idMapRecursive", "open.path",
		"open.flags", "open.namespace", "open.save",
		"pidfd_open.pid", "pidfd_open.start", "pidfd_open.save", // who uses the descriptor says what comes of it
		"user-namespace.uid", "user-namespace.gid", "user-namespace.save", "clone3.cgroup", "setns.from", "id-map.denySetgroups",
		"id-map.programs",
		"release.name", "await.name", "notify.name", "expect.name", "mount.type", "mount.flags", "mount.data", "overlay.work", "overlay.append",
		"fsmount.type", "fsmount.source", "fsmount.options", "fsmount.attrs", "fsmount.save", "fsmount.optional", "fsmount.propagation",
		"fsmount.keepMode", "fsmount.flags", "fsmount.label",
		"move_mount.create", "move_mount.noSymlinks", "move_mount.keep", "move_mount.keepMode", "mount_setattr.from", "mask-path.null",
		"mask-path.label", "mkdir.mode", "mknod.save",
		"sysctl.from", "write-proc.from", "open-console.rows", "open-console.cols", "open-console.master", "open-console.slave",
		"open-console.uid", "open-console.plain", "bind-console.from",
		"send-fd.from", "recv-fd.save", "dup3.from", "dup3.to", "dup3.null", "sched_setaffinity.unless", "setsid.controlling", "pdeathsig.signal",
		"dumpable.value", "setgroups.ifAllowed",
		"chdir.try", "close_range.first", "await-start.dir", "await-start.file", "find-program.candidates", "find-program.name",
		"execve.candidates",
		"hook.args",                                               // the first is a name
		"open_tree.fsType", "open_tree.child", "open_tree.mounts", // the last counts with what opened it: TestPolicyGrades
		"open_tree.readonly", "send-fd.keep", "send-listener.metadata", "send-listener.version",
		"copy-up.from", "copy-up.to", "copy-up.volume", "copy-up.within",
		"host-mount.users", "host-mount.user", // whose else it is
		"quota.dirs", "quota.project",
		"host-unmount.target", "host-unmount.users", "host-unmount.user",
		"open_tree.beneath", "open_tree.noLinks", // with a path
		"copy-up.keepMode", "copy-up.uid", "copy-up.gid", "root-unmount.target", "chroot.root", "open-dir.path", "open-dir.else", "open-dir.save",
		"open-dir.image",
		"open.other", "mknod.existing", "mknod.in", "symlink.in", "move_mount.replace", "move_mount.unlocked", "symlink.replace",
		"symlink.existing", "hook.env", "hook.timeout", "hook.enter", "link-bridge.mtu", "link-veth.bridge", "link-veth.hairpin",
		"link-delete.name", "link-delete.inside", "link-address.link", "link-up.link", "route-default.link",
		"nft-bridge.bridge",
		"name-add.dir", "name-add.owner", "name-add.addresses", "name-remove.dir", "name-remove.owner",
		"name-remove.names", "name-remove.addresses", "name-listen.port", "name-listen.table", "name-listen.rules",
		"nft-wall.table", "nft-wall.link", "nft-wall.rules", "nft-unwall.table", "nft-unwall.bridged",
		"nft-wall.guests", "nft-wall.names", "nft-unwall.names", // a part of ingress, and where it is looked up
		"nft-wall.allowed",                                                                         // with 0.0.0.0/0 it is no wall: TestWalls
		"nft-publish.table", "nft-unpublish.table", "nft-unpublish.ports", "route-default.replace", // at a running container
		"link-vlan.mark",
		"nft-guard.table", "nft-guard.link", "nft-guard.mac", "nft-guard.addresses", // that there is one
		"nft-unguard.table", "nft-unguard.link", "nft-unguard.mac", "nft-unguard.addresses", "firewall-accept.link", "firewall-accept.rules",
	} {
		out[name] = true
	}
	return out
}

// TestReadFields changes every field of every kind of step: the view changes with it, or the field is listed above. Set in the
// fields' neighbours what gives them meaning: a mount without a target says nothing.
func TestReadFields(t *testing.T) {
	skip := howOnly()
	for _, kind := range kinds(t) {
		typ := reflect.TypeOf(opOf(t, kind)).Elem()
		for i := range typ.NumField() {
			name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			full := kind + "." + name
			changed := func(value bool) string {
				op := opOf(t, kind)
				if f := reflect.ValueOf(op).Elem().FieldByName("Target"); f.IsValid() && f.Kind() == reflect.String {
					f.SetString("/x")
				}
				if value {
					fill(reflect.ValueOf(op).Elem().Field(i), when(name == "caps", "CAP_CHOWN", "v"))
				}
				v := Read(&plan.Plan{Arch: "amd64", Steps: []plan.Step{{Op: op}}})
				v.Hash = ""
				data, err := json.Marshal(v)
				if err != nil {
					t.Fatal(err)
				}
				return string(data)
			}
			same := changed(true) == changed(false)
			if same && !skip[full] {
				t.Errorf("Read takes no notice of the field %s: a view must show what it does, or kinds_test.go say that it does nothing", full)
			}
		}
	}
}

// fill gives a field a value that is not its zero value.
func fill(v reflect.Value, text string) {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.String:
		v.SetString(text)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(3)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(3)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), text)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), text)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				fill(v.Field(i), text)
			}
		}
	}
}

func fillOp(op plan.Op, text string) { fill(reflect.ValueOf(op).Elem(), text) }
