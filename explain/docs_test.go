package explain

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"glassbox/compile"
	run "glassbox/container"
	facts "glassbox/host"
	"glassbox/network"
	"glassbox/plan"
	"glassbox/seccomp"
	"glassbox/wire"
)

// example is the plan of docs/worked-example.md, compiled for a host that is always the same.
func example(t *testing.T) *plan.Plan {
	t.Helper()
	id := strings.Repeat("c0ffee00", 8)
	dir := "/var/lib/glassbox/containers/" + id
	limit, pids, quota, period := int64(64<<20), int64(50), int64(50000), uint64(100000)
	spec := &specs.Spec{
		Version: "1.2.0", Hostname: "web", Root: &specs.Root{Path: dir + "/merged"},
		Process: &specs.Process{
			Args: []string{"httpd", "-f"}, Env: []string{"PATH=/bin"}, Cwd: "/srv", NoNewPrivileges: true,
			Capabilities: &specs.LinuxCapabilities{
				Bounding: []string{"CAP_NET_BIND_SERVICE"}, Effective: []string{"CAP_NET_BIND_SERVICE"},
				Permitted: []string{"CAP_NET_BIND_SERVICE"},
			},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755"}},
			{Destination: "/data", Type: "bind", Source: "/home/me/site", Options: []string{"rbind", "rro"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: "/glassbox/" + id, MaskedPaths: usualMasked(), ReadonlyPaths: usualLocked(),
			Namespaces: []specs.LinuxNamespace{{Type: "mount"}, {Type: "pid"}, {Type: "uts"}, {Type: "ipc"}, {Type: "network"}, {Type: "cgroup"}},
			Resources: &specs.LinuxResources{
				Memory: &specs.LinuxMemory{Limit: &limit}, Pids: &specs.LinuxPids{Limit: &pids},
				CPU: &specs.LinuxCPU{Quota: &quota, Period: &period},
			},
			Seccomp: seccomp.Default(seccomp.DefaultOptions{
				Arch: "amd64", Caps: []string{"CAP_NET_BIND_SERVICE"}, KernelMajor: 6,
				KernelMinor: 1,
			}),
		},
	}
	all := []string{"cpu", "cpuset", "io", "memory", "pids"}
	here := facts.Facts{
		Arch: "amd64", Kernel: facts.Kernel{Release: "6.1.0", Major: 6, Minor: 1}, LastCap: 40, Caps: 1<<41 - 1, Seccomp: true, CPUs: 2,
		Cgroup: facts.Cgroup{Mode: facts.CgroupV2, Hierarchies: []facts.Hierarchy{{
			Mount: "/sys/fs/cgroup", V2: true, Own: "/user.slice",
			Controllers: all, Enabled: all,
		}}},
	}
	bridge := network.Network{
		Name: "bridge", Driver: network.Bridge, Link: "glassbox0",
		Subnets: []network.Subnet{{Prefix: netip.MustParsePrefix("172.30.0.0/16"), Gateway: netip.MustParseAddr("172.30.0.1")}},
	}
	ip := netip.MustParseAddr("172.30.0.2")
	wired, err := network.Steps(bridge, network.Endpoint{
		Interface: network.InterfaceName(0), IP: ip, MAC: wire.MAC(ip), Link: network.VethName(id, 0),
		Ports: []run.Port{{Proto: "tcp", HostPort: 8080, ContainerPort: 80}},
	}, func(what string) string { return map[string]string{"publish": "-p 8080:80"}[what] })
	if err != nil {
		t.Fatal(err)
	}
	out, err := compile.Container(compile.Input{
		Spec: spec, Facts: here, Mountpoint: dir + "/merged", SeccompName: "default", DieWithParent: true, MakeCwd: true,
		Overlay: &plan.Overlay{
			Dir: "/var/lib/glassbox", Lower: []string{"layers/2b", "layers/1a"}, Upper: "containers/" + id + "/upper",
			Work: "containers/" + id + "/work", Target: dir + "/merged",
		},
		Network: wired,
		Origins: map[string]string{
			"": "default", "/linux/resources/memory": "--memory=64m", "/linux/resources/pids": "--pids-limit=50",
			"/linux/resources/cpu": "--cpus=0.5", "/hostname": "--hostname=web",
			"/root": "image httpd", "/process/args": "image config", "/mounts/2": "-v /home/me/site:/data:ro",
			"/process/capabilities":    "--cap-drop=ALL --cap-add=NET_BIND_SERVICE",
			"/process/noNewPrivileges": "--security-opt no-new-privileges", "/process/cwd": "image config",
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.Plan
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s is not what the program prints any more (go test ./explain -update): -want +got\n%s", file, diff)
	}
}

// TestWorkedExample keeps docs/worked-example.md true: all output in it is made here.
func TestWorkedExample(t *testing.T) {
	p := example(t)
	about := About{
		Title: "run httpd", Image: "httpd", Name: "web", Made: true,
		Flags: []string{
			"--cap-add=NET_BIND_SERVICE", "--cap-drop=ALL", "--cpus=0.5", "--hostname=web", "--memory=64m", "--pids-limit=50",
			"--publish=8080:80", "--security-opt=no-new-privileges", "--volume=/home/me/site:/data:ro",
		},
	}
	show := func(format string) string {
		var b bytes.Buffer
		if err := Write(&b, format, p, about, TextOptions{Width: 100}); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	var policy bytes.Buffer
	if err := WritePolicy(&policy, "text", p, about, TextOptions{Width: 100}); err != nil {
		t.Fatal(err)
	}
	sh := show("sh")
	end := strings.Index(sh, "	# ---- The end ----")
	text, err := os.ReadFile("testdata/worked-example.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(text)
	for name, s := range map[string]string{"text": show("text"), "policy": policy.String(), "docker": show("docker"), "sh": sh[end:]} {
		mark := "{{" + name + "}}"
		if !strings.Contains(doc, mark) {
			t.Errorf("testdata/worked-example.md has no %s", mark)
		}
		doc = strings.Replace(doc, mark, "```\n"+strings.TrimRight(s, "\n")+"\n```", 1)
	}
	golden(t, "../docs/worked-example.md", doc)
}

// TestSchema keeps docs/plan.schema.json at the kinds of steps that there are, and the example within it.
func TestSchema(t *testing.T) {
	sorted := slices.Sorted(slices.Values(kinds(t)))
	text, ns := map[string]any{"type": "string"}, map[string]any{"type": "integer", "minimum": 0}
	object := func(properties map[string]any, required ...string) map[string]any {
		return map[string]any{"type": "object", "required": required, "additionalProperties": false, "properties": properties}
	}
	schema := map[string]any{
		"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A plan of glassbox, version 1", "type": "object",
		"required": []string{"version", "arch", "steps"}, "additionalProperties": false,
		"properties": map[string]any{
			"version": map[string]any{"const": plan.Version}, "arch": map[string]any{"enum": []string{"amd64", "arm64"}},
			"steps": map[string]any{"type": "array", "items": map[string]any{
				"type": "object", "required": []string{"lane", "phase", "op", "args"}, "additionalProperties": false,
				"properties": map[string]any{
					"lane": map[string]any{"enum": []plan.Lane{plan.Host, plan.Child}}, "phase": text, "op": map[string]any{"enum": sorted},
					"args": map[string]any{"type": "object"}, "origin": text, "reason": text,
				},
			}},
			"refused": text,
			"times": object(map[string]any{
				"unit": map[string]any{"const": "ns"}, "clone": ns, "born": ns, "host": ns, "end": ns,
				"steps": map[string]any{"type": "array", "items": map[string]any{"anyOf": []any{
					map[string]any{"type": "null"}, object(map[string]any{"begin": ns, "took": ns, "waits": map[string]any{"type": "boolean"}}, "begin",
						"took"),
				}}},
				"phases": map[string]any{"type": "array", "items": object(map[string]any{"what": text, "took": ns}, "what", "took")},
			}, "unit", "clone", "born", "host", "end", "steps", "phases"),
		},
	}
	var b bytes.Buffer
	if err := writeJSON(&b, schema); err != nil {
		t.Fatal(err)
	}
	golden(t, "../docs/plan.schema.json", b.String())
	var got struct{ Steps []map[string]any }
	b.Reset()
	if err := JSON(&b, example(t), About{}); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	for i, s := range got.Steps {
		for key := range s {
			if !slices.Contains([]string{"lane", "phase", "op", "args", "origin", "reason"}, key) {
				t.Errorf("step %d has the field %q, which the schema lacks", i+1, key)
			}
		}
	}
}
