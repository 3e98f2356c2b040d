package cli

import (
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"glassbox/compile"
	"glassbox/container"
	"glassbox/explain"
	"glassbox/host"
	"glassbox/network"
	"glassbox/plan"
	"glassbox/spec"
	"glassbox/wire"
)

// exposed judges a run command as `explain run --policy` does, on a host that is always the same: v2, with all that is asked for.
func exposed(t *testing.T, line string) *explain.Report {
	t.Helper()
	words, err := parseCreate(t, strings.Fields(strings.TrimPrefix(line, "run ")))
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	o, err := createOptions(words)
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	if len(o.Config.Command) == 0 {
		o.Config.Command = []string{"/entrypoint"} // what the image has
	}
	id := strings.Repeat("c0ffee00", 8)
	c := &container.Container{Version: container.Version, ID: id, Config: o.Config}
	controllers := []string{"cpu", "cpuset", "io", "memory", "pids"}
	facts := &host.Facts{
		Arch: runtime.GOARCH, Kernel: host.Kernel{Release: "6.6.0", Major: 6, Minor: 6}, LastCap: 40, Caps: 1<<41 - 1, Seccomp: true, CPUs: 2,
		NoFile: [2]uint64{1024, 4096},
		Memory: 8 << 30,
		Cgroup: host.Cgroup{Mode: host.CgroupV2, Hierarchies: []host.Hierarchy{{
			Mount: "/sys/fs/cgroup", V2: true, Own: "/",
			Controllers: controllers, Enabled: controllers,
		}}},
	}
	node := func(name, kind string, major, minor int64) spec.Node {
		return spec.Node{Path: name, Type: kind, Major: major, Minor: minor, Mode: 0o660}
	}
	kvm, disk, fuse, tun := node("/dev/kvm", "c", 10, 232), node("/dev/sda", "b", 8, 0), node("/dev/fuse", "c", 10, 229), node("/dev/net/tun",
		"c", 10, 200)
	other := spec.Process{Container: strings.Repeat("e", 64), PID: 77}
	out, err := spec.Write(spec.Input{
		Container: c, Facts: facts, Root: "/var/lib/glassbox", Dir: "containers/" + id, Layers: []string{"layers/base", "layers/top"},
		Runtime: "/usr/local/bin/glassbox-runtime",
		Answers: spec.Answers{
			Hostname: "host", SwapAccounting: true, AllDevices: []spec.Node{kvm, disk, fuse, tun},
			Devices: map[string][]spec.Node{
				"/dev/kvm": {kvm}, "/dev/sda": {disk}, "/dev/fuse": {fuse}, "/dev/net/tun": {tun},
				"/dev/snd": {node("/dev/snd/timer", "c", 116, 33)}, "/dev/dri": {node("/dev/dri/card0", "c", 226, 0)},
			},
			SeccompProfile: []byte(`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["execve"],"action":"SCMP_ACT_ALLOW"}]}`),
			Shared:         map[string]spec.Process{"pid": other, "ipc": other, "net": other},
		},
	})
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	var wired []plan.Step
	switch out.Network {
	case network.Bridge:
		bridge := network.Network{Name: "bridge", Driver: network.Bridge, Link: "glassbox0", Subnets: []network.Subnet{{
			Prefix: netip.MustParsePrefix("172.30.0.0/16"), Gateway: netip.MustParseAddr("172.30.0.1"),
		}}}
		ip := netip.MustParseAddr("172.30.0.2")
		end := network.Endpoint{Interface: network.InterfaceName(0), IP: ip, MAC: wire.MAC(ip), Link: network.VethName(id, 0)}
		end.Ports = c.Config.Ports
		if wired, err = network.Steps(bridge, end, func(string) string { return "default" }); err != nil {
			t.Fatal(err)
		}
	case network.None:
		wired = network.Loopback()
	}
	made, err := compile.Container(compile.Input{
		Spec: out.Spec, Facts: *facts, Overlay: out.Overlay, Mountpoint: out.Mountpoint, SeccompName: out.SeccompName, DieWithParent: true,
		MakeCwd: true,
		Network: wired, Origins: out.Origins,
	})
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return explain.Policy(made.Plan, explain.About{Title: line})
}

// TestExposure walks the table of docs/exposure.md: each usual command has the grade that stands there, for the reason that stands there.
func TestExposure(t *testing.T) {
	text, err := os.ReadFile("../docs/exposure.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^\\| `(run [^`]*)` \\| ([A-F]) \\| ([^|]*) \\|$").FindAllStringSubmatch(string(text), -1)
	if len(rows) < 40 {
		t.Errorf("docs/exposure.md has %d commands, want 40 at least", len(rows))
	}
	for _, row := range rows {
		line, grade := row[1], row[2]
		r := exposed(t, line)
		if r.Grade != grade {
			t.Errorf("%s: got %s because %s, docs/exposure.md says %s", line, r.Grade, reasons(r), grade)
		}
		for _, said := range regexp.MustCompile("“([^”]*)”").FindAllStringSubmatch(row[3], -1) {
			if !strings.Contains(reasons(r), said[1]) {
				t.Errorf("%s: docs/exposure.md gives the reason %q, the program gives %s", line, said[1], reasons(r))
			}
		}
	}
}

func reasons(r *explain.Report) string {
	var b strings.Builder
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "\n\t%s: %s: %s", f.Severity, f.What, f.Why)
	}
	return b.String()
}
