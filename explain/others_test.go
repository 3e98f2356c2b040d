package explain

import (
	"bytes"
	"encoding/json"
	"io"
	"reflect"
	"strings"
	"testing"

	"glassbox/plan"
)

// TestNothingUnsaid changes every field of a view: each format that describes the container in others' words says something
// else then, or says that it can't say it.
func TestNothingUnsaid(t *testing.T) {
	about := About{Image: "image"}
	formats := map[string]func(io.Writer, *View) error{
		"compose": func(w io.Writer, v *View) error { return writeCompose(w, v, about) },
		"quadlet": func(w io.Writer, v *View) error { return writeQuadlet(w, v, about) },
		"kube":    func(w io.Writer, v *View) error { return writeKube(w, v, about) },
		"oci":     func(w io.Writer, v *View) error { return writeOCI(w, v, about) },
		"docker":  func(w io.Writer, v *View) error { return commandLine(w, "docker", v, about) },
	}
	base := func() *View {
		return &View{
			Arch: "amd64", Argv: []string{"/bin/x"}, Cwd: "/", Umask: 0o022, New: []string{"mount", "pid", "net", "uts", "ipc", "cgroup"},
			Joined: map[string]string{}, Net: Net{Mode: "none", Loopback: true},
			table:  (&plan.Plan{}).Table(),
			Masked: usualMasked(), Locked: usualLocked(), DeviceRules: usualRules(), Bounding: usualCaps(), Effective: usualCaps(),
			Permitted: usualCaps(), Keyring: "k",
			Filters: []*plan.Seccomp{{Name: "default"}}, Root: Root{Pivoted: true, Mountpoint: "/r/merged"},
		}
	}
	// What says nothing of the container itself, or nothing beside another field.
	quiet := map[string]bool{
		"Arch": true, "Hash": true, "Made": true, "Cgroups": true, "GIDMap": true, "UIDMap": true, "HostSets": true, "Root.Mountpoint": true,
		"Root.Origin": true, "Root.Dir": true, "Root.Pivoted": true, "Root.Layers": true,
		"Root.Upper": true, "Root.Source": true, "Net.Bridge": true, "Net.Gateway": true, "Net.Device": true, "Net.Veth": true,
		"Net.Address": true, "Net.Via": true, "Net.MAC": true, "Net.MTU": true,
		"Net.Subnet": true, "Net.Table": true, "Net.Settings": true, "Net.Rules": true, "Net.Beside": true,
		"Net.Guarded": true, "Net.Address6": true,
		"Net.Mode": true, "Net.Loopback": true,
	}
	for name, write := range formats {
		out := func(v *View) string {
			var b bytes.Buffer
			if err := write(&b, v); err != nil {
				t.Fatal(err)
			}
			return b.String()
		}
		want := out(base())
		check := func(field string, change func(v *View)) {
			v := base()
			change(v)
			if !quiet[field] && out(v) == want {
				t.Errorf("%s: the field %s of a view changes nothing, and no comment says so", name, field)
			}
		}
		typ := reflect.TypeFor[View]()
		for i := range typ.NumField() {
			f := typ.Field(i)
			if !f.IsExported() { // what the fields were found by
				continue
			}
			if f.Type.Kind() == reflect.Struct {
				for k := range f.Type.NumField() {
					check(f.Name+"."+f.Type.Field(k).Name, func(v *View) { fill(reflect.ValueOf(v).Elem().Field(i).Field(k), "3") })
				}
				continue
			}
			check(f.Name, func(v *View) {
				switch f.Name {
				case "Joined":
					v.Joined["ipc"] = "/proc/3/ns/ipc"
				case "Bounding", "Effective", "Permitted", "Inheritable", "Ambient":
					reflect.ValueOf(v).Elem().Field(i).Set(reflect.ValueOf([]string{"CAP_SYS_ADMIN"}))
				case "Keyring":
					v.Keyring = ""
				case "Rlimits":
					v.Rlimits = []plan.Rlimit{{Type: "RLIMIT_CORE"}}
				case "Filters":
					v.Filters = nil
				default:
					fill(reflect.ValueOf(v).Elem().Field(i), "3")
				}
			})
		}
	}
}

// TestOthersHostile: a name in a plan stays a value.
func TestOthersHostile(t *testing.T) {
	v := &View{
		Argv: []string{"x\n[Service]\nExecStart=/bin/evil", "$(id)"}, Env: []string{"A=\"\nprivileged: true"}, Hostname: "h\nhostPID: true",
		Joined: map[string]string{},
		Mounts: []Mount{{Target: "/x\ny: z", Type: "bind", Source: "/a: b"}},
	}
	for name, write := range map[string]func(io.Writer, *View, About) error{
		"compose": writeCompose, "quadlet": writeQuadlet,
		"kube": writeKube, "oci": writeOCI,
	} {
		var b bytes.Buffer
		if err := write(&b, v, About{Title: "t\nprivileged: true", Name: "n\nhostPID: true", Labels: []string{"a=\nb: c"}}); err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(b.String(), "\n") {
			if line = strings.TrimSpace(line); line == "privileged: true" || line == "ExecStart=/bin/evil" || line == "[Service]" ||
				strings.HasPrefix(line, "y: z") || line == "b: c" {
				t.Errorf("%s: a name has become a line: %s", name, line)
			}
		}
		if name == "oci" && !json.Valid(b.Bytes()) {
			t.Error("oci: it is no JSON")
		}
	}
}
