package explain

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
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

// TestSharesOfWeight: the flags of a plan give its weight again, of which package cgroup makes 100 of the usual 1024 shares.
func TestSharesOfWeight(t *testing.T) {
	for weight, want := range map[int64]int64{1: 2, 100: 1024, 10000: 262144} {
		if got := (Limits{Weight: &weight}).shares(); *got != want {
			t.Errorf("weight %d: got %d shares, want %d", weight, *got, want)
		}
	}
	for weight := int64(1); weight <= 10000; weight++ {
		l := math.Log2(float64(*(Limits{Weight: &weight}).shares()))
		if back := int64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34) - 1e-9)); back != weight {
			t.Fatalf("weight %d: its shares make %d", weight, back)
		}
	}
}

// TestDollars: compose and Kubernetes expand variables in what they are given, and a container's own dollars aren't any.
func TestDollars(t *testing.T) {
	v := &View{
		Argv: []string{"/$a", "echo $$"}, Env: []string{"A=$b"}, Cwd: "/$c", Hostname: "$d", Joined: map[string]string{},
		Mounts: []Mount{{Target: "/y", Type: "bind", Source: "/$e"}}, table: (&plan.Plan{}).Table(),
	}
	for name, want := range map[string][]string{
		"compose": {
			`entrypoint: ["/$$a"]`, `command: ["echo $$$$"]`, `environment: ["A=$$b"]`, `working_dir: "/$$c"`, `hostname: "$$d"`,
			`volumes: ["/$$e:/y"]`, `labels: ["l=$$f"]`,
		},
		"kube": {`command: ["/$$a", "echo $$$$"]`, `value: "$$b"`, `workingDir: "/$c"`},
	} {
		var b bytes.Buffer
		write := map[string]func(io.Writer, *View, About) error{"compose": writeCompose, "kube": writeKube}[name]
		if err := write(&b, v, About{Labels: []string{"l=$f"}}); err != nil {
			t.Fatal(err)
		}
		for _, w := range want {
			if !strings.Contains(b.String(), w+"\n") && !strings.Contains(b.String(), w+"}\n") {
				t.Errorf("%s: there is no %s in\n%s", name, w, b.String())
			}
		}
	}
}

// TestPortsOfBothVersions: a published port is taken out of the table that it was put into.
func TestPortsOfBothVersions(t *testing.T) {
	p := &plan.Plan{Version: plan.Version, Arch: "amd64", Steps: []plan.Step{
		{Lane: plan.Host, Op: &plan.Clone{Namespaces: []string{"mount", "net"}}},
		{Lane: plan.Host, Op: &plan.NftPublish{Table: "t", Ports: []plan.PortRule{
			{Proto: "tcp", HostPort: 80, ContainerIP: "10.0.0.2", ContainerPort: 1},
			{Proto: "tcp", HostPort: 80, ContainerIP: "fd00::2", ContainerPort: 1},
		}}},
		{Lane: plan.Child, Op: &plan.Execve{Candidates: []string{"/x"}, Argv: []string{"/x"}}},
	}}
	for _, format := range []string{"go", "sh"} {
		var b bytes.Buffer
		if err := Write(&b, format, p, About{}, TextOptions{}); err != nil {
			t.Fatal(err)
		}
		for _, family := range []string{"ip", "ip6"} {
			for _, verb := range []string{"add", "delete"} {
				words := map[string]string{
					"go": `"nft", "` + verb + `", "element", "` + family + `", "t"`, "sh": "nft " + verb + " element " + family + " t ",
				}[format]
				if n := strings.Count(b.String(), words); n != 1 {
					t.Errorf("%s: %s stands there %d times in\n%s", format, words, n, b.String())
				}
			}
		}
	}
}

// TestComposeFlags writes the service of a container that was made by flags. That genuine compose makes the same container of it is seen by
// test/clients.sh.
func TestComposeFlags(t *testing.T) {
	a := About{
		Title: "container web", Name: "web", Image: "box", Made: true, Command: []string{"-c", "echo $A && true"},
		Flags: []string{
			"--add-host=a:1.2.3.4", "--cpus=0.5", "--detach", "--egress=deny", "--entrypoint=sh", `--env=A="$so"`, "--health-cmd=true",
			"--health-interval=5s", "--init", "--log-driver=local", "--log-opt=max-size=1m", "--log-opt=max-file=2", "--memory=64m",
			"--mount=type=tmpfs,target=/s,tmpfs-mode=1770,readonly", "--mount=type=bind,source=/a,target=/b,idmap",
			"--network=name=back,ip=10.0.0.9",
			"--network=front", "--network-alias=store", "--no-healthcheck", "--restart=on-unhealthy", "--stop-timeout=3", "--ulimit=nofile=64:128",
			"--ulimit=core=0", "--volume=data:/data:ro", "--volume=/x:/y", "--volumes-from=db",
		},
	}
	var b bytes.Buffer
	if err := writeCompose(&b, &View{}, a); err != nil {
		t.Fatal(err)
	}
	const want = `# The container of container web for compose.
#
# compose can't say this:
#   --egress=deny
#   --mount=type=bind,source=/a,target=/b,idmap
#   --restart=on-unhealthy
services:
  "web":
    image: "box"
    extra_hosts: ["a:1.2.3.4"]
    cpus: 0.5
    entrypoint: ["sh"]
    environment: ["A=\"$$so\""]
    healthcheck:
      test: ["CMD-SHELL", "true"]
      interval: "5s"
      disable: true
    init: true
    logging:
      driver: "local"
      options:
        "max-size": "1m"
        "max-file": "2"
    mem_limit: "64m"
    volumes:
      - "data:/data:ro"
      - "/x:/y"
      - {type: "tmpfs", target: "/s", read_only: true, tmpfs: {mode: 01770}}
    stop_grace_period: "3s"
    ulimits:
      "nofile": {soft: 64, hard: 128}
      "core": {soft: 0, hard: 0}
    volumes_from: ["container:db"]
    networks:
      "back": {aliases: ["store"], ipv4_address: "10.0.0.9"}
      "front": {}
    command: ["-c", "echo $$A && true"]
volumes:
  "data": {name: "data", external: true}
networks:
  "back": {name: "back", external: true}
  "front": {name: "front", external: true}
`
	if got := b.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
