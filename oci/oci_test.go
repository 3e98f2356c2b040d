package oci

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"glassbox/seccomp"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

var update = flag.Bool("update", false, "rewrite the expected messages in testdata/broken")

// check reads a configuration without a bundle.
func check(text []byte) (*specs.Spec, []Problem, error) {
	s, warnings, err := Parse(text)
	if err != nil {
		return nil, warnings, err
	}
	more, err := Validate(s)
	return s, append(warnings, more...), err
}

// TestBroken checks the message about each of the configurations in testdata/broken, which have one mistake each: it must name the
// property, say what is wrong and how to mend it.
func TestBroken(t *testing.T) {
	files, err := filepath.Glob("testdata/broken/*.json")
	if err != nil || len(files) < 100 {
		t.Fatalf("got %d files, error %v", len(files), err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		_, warnings, err := check(text)
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		if len(warnings) > 0 {
			t.Errorf("%s: warnings %v: it is to have one mistake", name, warnings)
		}
		expected := strings.TrimSuffix(name, ".json") + ".txt"
		if *update {
			if err := os.WriteFile(expected, []byte(err.Error()+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, readErr := os.ReadFile(expected)
		if readErr != nil {
			t.Fatal(readErr)
		}
		if got := err.Error() + "\n"; got != string(want) {
			t.Errorf("%s:\n got %swant %s", name, got, want)
		}
	}
}

// minimal is a configuration that is right, with a place for more.
func minimal(top, process, linux string) string {
	return `{"ociVersion": "1.2.0", "root": {"path": "rootfs"}` + top +
		`, "process": {"user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["true"]` + process +
		`}, "linux": {"namespaces": [{"type": "mount"}, {"type": "user"}, {"type": "uts"}, {"type": "time"}, {"type": "network"}],
		"uidMappings": [{"containerID": 0, "hostID": 1000, "size": 4294967295}],
		"gidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}, {"containerID": 10, "hostID": 2000, "size": 10}]` + linux + `}}`
}

func TestWarnings(t *testing.T) {
	for _, test := range []struct {
		text string
		want []string
	}{
		{minimal("", "", ""), []string{`/linux/uidMappings/0/size: 4294967295 ids from hostID 1000 on`}},
	} {
		_, _, err := check([]byte(test.text))
		if err == nil || !strings.Contains(err.Error(), test.want[0]) {
			t.Errorf("got error %v, want %q", err, test.want)
		}
	}
	ok := func(top, process, linux string) string {
		return strings.Replace(minimal(top, process, linux), `"hostID": 1000, "size": 4294967295`, `"hostID": 0, "size": 4294967295`, 1)
	}
	for _, test := range []struct {
		name, text string
		want       []string
	}{
		{"nothing", ok("", "", ""), nil},
		{"unknown at the top", ok(`, "futuer": {"a": [1, {"b": null}], "c": -1.5e3}`, "", ""), []string{"/futuer: unknown property, ignored"}},
		{"unknown inside", ok("", `, "arg": ["x"], "noNewPriviliges": true`, `, "resources": {"memory": {"limitt": 1}}`), []string{
			"/process/arg: unknown property, ignored: is args meant?",
			"/process/noNewPriviliges: unknown property, ignored: is noNewPrivileges meant?",
			"/linux/resources/memory/limitt: unknown property, ignored: is limit meant?",
		}},
		{
			"unknown in an array, odd name",
			ok(`, "mounts": [{"destination": "/proc", "type": "proc"}, {"destination": "/tmp", "type": "tmpfs", "a/b~c": 1}]`, "", ""),
			[]string{"/mounts/1/a~1b~0c: unknown property, ignored"},
		},
		{
			"capitals", ok("", `, "NoNewPrivileges": true`, ""),
			[]string{`/process/noNewPrivileges: it is written "NoNewPrivileges" here: names are case-sensitive for many runtimes`},
		},
		{"other platforms", ok(`, "windows": {"layerFolders": 7}, "solaris": {}, "vm": {}, "zos": null, "freebsd": {}`, `, "commandLine": "dir"`,
			""), []string{
			"/windows: ignored, it is for windows only", "/solaris: ignored, it is for solaris only", "/vm: ignored, it is for vm only",
			"/freebsd: ignored, it is for freebsd only", "/process/commandLine: ignored, it is for windows only",
		}},
		{"capabilities", ok("", `, "capabilities": {"bounding": ["CAP_KILL", "CAP_FLY", "SYS_ADMIN"], "permitted": ["CAP_KILL", "CAP_CHOWN"],
			"effective": ["cap_kill", "CAP_FOWNER"], "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL", "CAP_CHOWN", "CAP_SETUID"]}`,
			""), []string{
			`/process/capabilities/bounding/1: unknown capability "CAP_FLY", ignored`,
			`/process/capabilities/bounding/2: unknown capability "SYS_ADMIN", ignored: is CAP_SYS_ADMIN meant?`,
			"/process/capabilities/effective/1: CAP_FOWNER can't be granted, it is not permitted: add it to permitted",
			"/process/capabilities/ambient/1: CAP_CHOWN can't be granted, it is not inheritable: add it to inheritable",
			"/process/capabilities/ambient/2: CAP_SETUID can't be granted, it is not permitted: add it to permitted",
		}},
		{"words of fstab", ok(`, "mounts": [{"destination": "/d", "source": "/d", "options": ["bind", "nofail", "x-systemd.requires=a", `+
			`"sync", "iversion", "lazytime", "dirsync"]}, {"destination": "/t", "type": "tmpfs", "options": ["_netdev", "comment=b", "size=1m"]}]`,
			"", ""), []string{
			`/mounts/0/options/1: "nofail" is a word of /etc/fstab, for those who read that: it means nothing here`,
			`/mounts/0/options/2: "x-systemd.requires=a" is a word of /etc/fstab, for those who read that: it means nothing here`,
			`/mounts/1/options/0: "_netdev" is a word of /etc/fstab, for those who read that: it means nothing here`,
			`/mounts/1/options/1: "comment=b" is a word of /etc/fstab, for those who read that: it means nothing here`,
		}},
		{"hierarchy", ok("", "", `, "resources": {"memory": {"useHierarchy": false}}`), []string{
			"/linux/resources/memory/useHierarchy: false has no effect: since Linux 5.11 what a cgroup uses counts for those above it, too",
		}},
		{
			"relative destination", ok(`, "mounts": [{"destination": "tmp", "type": "tmpfs"}]`, "", ""),
			[]string{`/mounts/0/destination: "tmp" is not an absolute path, it is taken below /`},
		},
		{
			"options of tmpfs on a bind mount", ok(`, "mounts": [{"destination": "/d", "source": "/d", "options": ["bind", "mode=755"]}]`, "", ""),
			[]string{
				`/mounts/0/options/1: "mode=755" has no effect on a bind mount: its file system's own options were decided when the host mounted it`,
			},
		},
		{"joined user namespace", strings.Replace(ok("", "", ""), `{"type": "user"}`, `{"type": "user", "path": "/proc/1/ns/user"}`, 1), []string{
			"/linux/uidMappings: the user namespace at /proc/1/ns/user has its mappings already, these are ignored",
		}},
	} {
		_, warnings, err := check([]byte(test.text))
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		var got []string
		for _, w := range warnings {
			got = append(got, w.Error())
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
}

// TestAccepted has settings near to the broken ones that are right.
func TestAccepted(t *testing.T) {
	for _, test := range []struct{ top, process, linux string }{
		{top: `, "hostname": "web", "domainname": "example", "annotations": {"org.example": ""}`},
		{top: `, "mounts": [{"destination": "/d", "source": "d", "options": ["rbind", "rro", "rslave", "idmap"]}, {"destination": "/t",
			"type": "tmpfs", "options": ["size=1k", "mode=755"]},
			{"destination": "/t", "options": ["remount", "ro"]}, {"destination": "/e", "type": "bind", "source": "/e"}]`},
		{top: `, "hooks": {"prestart": [{"path": "/bin/true", "args": ["true"], "env": ["A=", "B=="], "timeout": 1}], "poststop": null}`},
		{process: `, "terminal": true, "consoleSize": {"height": 65535, "width": 0}, "env": ["A=b=c"], "oomScoreAdj": -1000`},
		{process: `, "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 18446744073709551615, "soft": 18446744073709551615}, {"type": ` +
			`"RLIMIT_CORE", "hard": 0, "soft": 0}]`},
		{process: `, "scheduler": {"policy": "SCHED_FIFO", "priority": 99, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}`},
		{process: `, "scheduler": {"policy": "SCHED_DEADLINE", "runtime": 1024, "deadline": 1024}`},
		{process: `, "scheduler": {"policy": "SCHED_IDLE", "nice": -20}, "ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 7}`},
		{process: `, "execCPUAffinity": {"initial": "0-3,7", "final": "2"}, "apparmorProfile": "a b", "selinuxLabel": "u:r:t:s0:c1,c2"`},
		{linux: `, "timeOffsets": {"monotonic": {"secs": -5, "nanosecs": 999999999}, "boottime": {}}`},
		{linux: `, "netDevices": {"eth1": {"name": "net%d"}, "eth2": {}}`},
		{linux: `, "devices": [{"path": "/dev/a", "type": "c", "major": 4095, "minor": 1048575, "fileMode": 438}, {"path": "/dev/a",
			"type": "c", "major": 4095, "minor": 1048575},
			{"path": "/dev/p", "type": "p", "fileMode": 4516}, {"path": "/dev/b", "type": "b", "major": 8, "minor": 0, "fileMode": 25008},
			{"path": "/dev/u", "type": "u", "major": 1, "minor": 3, "fileMode": 8630}]`},
		{linux: `, "sysctl": {"net.ipv4.ip_forward": "1", "net/ipv4/conf/eno2.100/rp_filter": "1"}, "cgroupsPath": "/a/b..c", ` +
			`"rootfsPropagation": "rslave"`},
		{linux: `, "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"], "mountLabel": "system_u:object_r:t:s0"`},
		{linux: `, "intelRdt": {"closID": "/", "schemata": ["L3:0=f"], "l3CacheSchema": "L3CODE:0=7f0\nL3DATA:0=f\n", "memBwSchema": "MB:0=20"}`},
		{linux: `, "memoryPolicy": {"mode": "MPOL_PREFERRED", "nodes": ""}, "personality": {"domain": "LINUX32"}`},
		{linux: `, "resources": {"devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": -1,
			"access": "r"}],
			"memory": {"limit": 1048576, "swap": -1, "reservation": 0, "swappiness": 0}, "pids": {"limit": -1}, "cpu": {"shares": 2,
			"quota": -1, "period": 1000, "burst": 5, "cpus": "0-1", "idle": 1},
			"hugepageLimits": [{"pageSize": "2MB", "limit": 1}, {"pageSize": "1GB", "limit": 0}], "blockIO": {"weight": 10,
			"weightDevice": [{"major": 8, "minor": 0, "leafWeight": 1000}]},
			"rdma": {"mlx5_1": {"hcaHandles": 0}}, "unified": {"memory.high": "1", "hugetlb.1GB.max": "max"}, "network": {"classID": 1,
			"priorities": [{"name": "lo", "priority": 1}]}}`},
		{linux: `, "seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_S390X"], "syscalls": [{"names": ` +
			`["no_such_call"], "action": "SCMP_ACT_ALLOW"}]}`},
	} {
		text := strings.Replace(minimal(test.top, test.process, test.linux), `"hostID": 1000, "size": 4294967295`,
			`"hostID": 0, "size": 4294967295`, 1)
		if _, warnings, err := check([]byte(text)); err != nil || len(warnings) > 0 {
			t.Errorf("%s: got error %v, warnings %v", text, err, warnings)
		}
	}
}

// TestParts reads parts of a configuration that come alone.
func TestParts(t *testing.T) {
	for _, test := range []struct{ text, warning, err string }{
		{`{"args": ["sh"], "cwd": "/"}`, "", ""},
		{`{"args": ["sh"], "cwd": "/", "nice": 1}`, "/nice: unknown property, ignored", ""},
		{
			`{"args": ["sh"], "cwd": "/", "capabilities": {"bounding": ["CAP_FLY"]}}`,
			`/capabilities/bounding/0: unknown capability "CAP_FLY", ignored`, "",
		},
		{`{"args": ["sh"], "cwd": "x"}`, "", `/cwd: "x" is not an absolute path`},
		{`{"args": "sh"}`, "", "line 1, column 10: /args: a string where"},
	} {
		p, warnings, err := ParseProcess([]byte(test.text))
		if fmt.Sprint(warnings) != "["+test.warning+"]" || (err == nil) != (test.err == "") || err != nil &&
			!strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: got %v, warnings %v, error %v", test.text, p, warnings, err)
		}
	}
	for _, test := range []struct{ text, err string }{
		{`{"memory": {"limit": 1048576}, "pids": {"limit": 5}}`, ""},
		{`{"memory": {"limit": -9}}`, "/memory/limit: -9"},
		{`[]`, "line 1, column 1: an array where an object is wanted"},
	} {
		r, warnings, err := ParseResources([]byte(test.text))
		if len(warnings) > 0 || (err == nil) != (test.err == "") || err != nil && !strings.HasPrefix(err.Error(), test.err) {
			t.Errorf("%s: got %v, warnings %v, error %v", test.text, r, warnings, err)
		}
	}
}

// TestSpecExamples reads the specification's own example configurations, which are older than its version 1.
func TestSpecExamples(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/opencontainers/runtime-spec").Output()
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(strings.TrimSpace(string(dir)), "schema/test/config")
	for name, want := range map[string]string{
		"good/spec-example.json":      "",
		"good/minimal-for-start.json": "",
		"good/linux-rdma.json":        "/process: missing: it says what runs in the container",
		"bad/linux-rdma.json":         "/linux/resources/rdma/mlx5_1/hcaHandles: a string where",
		"bad/linux-netdevice.json":    "/linux/netDevices/eth0/name: 23 where",
		"bad/linux-hugepage.json":     "/linux/resources/hugepageLimits/0/pageSize",
		"bad/invalid-json.json":       "line 1, column 2",
	} {
		text, err := os.ReadFile(filepath.Join(config, name))
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = check([]byte(strings.Replace(string(text), "0.5.0-dev", "1.0.0", 1)))
		if got := fmt.Sprint(err); want == "" && err != nil || !strings.Contains(got, want) {
			t.Errorf("%s: got error %v, want %q", name, err, want)
		}
	}
}

func TestVersion(t *testing.T) {
	for v, want := range map[string]bool{
		"1.0.0": true, "1.0.0-rc5": true, "1.0.2-dev": true, "1.2.0": true, "1.99.7": true, "1.0.0-rc.1+build.05": true, "1.0.0-x-y": true,
		"1.0.0-": false, "1.0.0-01": false, "1.0.0+": false, "1.0": false, "1.0.0.0": false, "v1.0.0": false, " 1.0.0": false, "1.0.x": false,
		"01.0.0": false, "0.9.0": false, "2.0.0": false, "10.0.0": false, "1.0.0-a..b": false,
	} {
		c := &checker{}
		if c.version(v); (len(c.errors) == 0) != want {
			t.Errorf("%q: got errors %v, want valid %v", v, c.errors, want)
		}
	}
}

// TestParseAsJSON compares the decoder with encoding/json.
func TestParseAsJSON(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.json")
	if len(files) == 0 {
		t.Fatal("no files")
	}
	texts := []string{
		minimal(`, "mounts": []`, `, "oomScoreAdj": -5, "terminal": false, "env": ["a=\u00e9\ud83d\ude00\n\"\\\/\b\f\r\t"]`,
			`, "seccomp": {"flags": []}, "sysctl": {}`),
		minimal("", "", `, "resources": {"blockIO": {"weightDevice": [{"major": 8, "minor": 1, "weight": 10}]}, "unified": {"a.b": "c"}, `+
			`"memory": null}`),
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(text))
	}
	for _, text := range texts {
		var want specs.Spec
		if err := json.Unmarshal([]byte(text), &want); err != nil {
			t.Fatal(err)
		}
		got, _, err := Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(&want, got); diff != "" {
			t.Errorf("-encoding/json +ours:\n%s", diff)
		}
	}
}

// FuzzParse: no text makes reading, checking and completing panic; what is read without a warning is what encoding/json reads.
func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/broken/*.json")
	more, _ := filepath.Glob("testdata/*.json")
	for _, name := range append(files, more...) {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(`{"process": {"user": {"uid": 1, "uiD": null}, "args": ["\ud83d\ude00"]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, warnings, err := Parse(text)
		if err != nil {
			if p := (Problem{}); !errors.As(err, &p) || p.Line < 1 || p.Column < 1 || p.Text == "" {
				t.Errorf("error %v has no place", err)
			}
			return
		}
		if len(warnings) == 0 {
			var want specs.Spec
			if err := json.Unmarshal(text, &want); err != nil {
				t.Fatalf("encoding/json does not read this: %v", err)
			}
			if diff := cmp.Diff(&want, got); diff != "" {
				t.Errorf("-encoding/json +ours:\n%s", diff)
			}
		}
		if _, err := Validate(got); err == nil {
			Complete(got, "/bundle")
			_ = CheckFiles(got, func(string) (fs.FileInfo, error) { return nil, fs.ErrNotExist })
		} else if err.Error() == "" {
			t.Error("an empty message")
		}
	})
}

func TestComplete(t *testing.T) {
	s := &specs.Spec{
		Root: &specs.Root{Path: "rootfs"},
		Mounts: []specs.Mount{
			{Destination: "data/", Source: "d", Options: []string{"bind"}},
			{Destination: "/proc", Source: "proc", Type: "proc"},
			{Destination: "/x/../etc", Source: "/etc", Options: []string{"mode=755", "rbind", "size=1k"}},
		},
		Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{
			Bounding: []string{"CAP_KILL", "CAP_FLY"}, Permitted: []string{"CAP_KILL"}, Effective: []string{"CAP_CHOWN", "CAP_KILL"},
			Ambient: []string{"CAP_KILL"},
		}},
	}
	Complete(s, "/b")
	want := &specs.Spec{
		Root: &specs.Root{Path: "/b/rootfs"},
		Mounts: []specs.Mount{
			{Destination: "/data", Source: "/b/d", Options: []string{"bind"}},
			{Destination: "/proc", Source: "proc", Type: "proc"},
			{Destination: "/etc", Source: "/etc", Options: []string{"rbind"}},
		},
		Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{
			Bounding: []string{"CAP_KILL"}, Permitted: []string{"CAP_KILL"}, Effective: []string{"CAP_KILL"},
		}},
		Linux: &specs.Linux{},
	}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestRead reads bundles from the disk.
func TestRead(t *testing.T) {
	dir := t.TempDir()
	write := func(text string) {
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(bundle, want string) {
		t.Helper()
		if _, _, err := Read(bundle); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got error %v, want %q", err, want)
		}
	}
	example := func(edit func(*specs.Spec)) {
		s := Default(DefaultOptions{})
		edit(s)
		text, err := Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		write(string(text))
	}
	expect(dir+"/none", "there is no such directory")
	expect(dir, "there is no config.json in it")
	write("{")
	expect(dir, dir+"/config.json: line 1, column 2: the end of the text where")
	example(func(*specs.Spec) {})
	expect(dir, "config.json: /root/path: "+dir+"/rootfs does not exist")
	if err := os.WriteFile(filepath.Join(dir, "rootfs"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	expect(dir, "/root/path: "+dir+"/rootfs is not a directory")
	if err := os.Remove(filepath.Join(dir, "rootfs")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "rootfs"), 0o755); err != nil {
		t.Fatal(err)
	}
	s, warnings, err := Read(dir)
	if err != nil || len(warnings) > 0 || s.Root.Path != dir+"/rootfs" {
		t.Errorf("got %v, warnings %v, error %v", s, warnings, err)
	}
	example(func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/d", Source: "data", Options: []string{"bind"}})
	})
	expect(dir, "/mounts/7/source: "+dir+"/data does not exist")
	example(func(s *specs.Spec) { s.Linux.Namespaces[1].Path = dir + "/ns" })
	expect(dir, "/linux/namespaces/1/path: "+dir+"/ns does not exist")
	example(func(s *specs.Spec) { s.Process.Cwd = ""; s.Root.Path = "" })
	expect(dir, "/process/cwd: missing: an absolute path is wanted (wrong as well: /root/path)")
}

// TestDefault compares the example with the one that runc 1.1.5 writes: newer ones of runc have no ambient capabilities, and hide
// more of /sys.
func TestDefault(t *testing.T) {
	for name, o := range map[string]DefaultOptions{"runc-1.1.json": {}, "runc-1.1-rootless.json": {Rootless: true, UID: 1000, GID: 1001}} {
		text, err := os.ReadFile("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		s := Default(o)
		if warnings, err := Validate(s); err != nil || len(warnings) > 0 {
			t.Errorf("the example itself: error %v, warnings %v", err, warnings)
		}
		s.Version, s.Hostname = "1.0.2-dev", "runc"
		s.Process.Capabilities.Ambient = s.Process.Capabilities.Bounding
		s.Linux.MaskedPaths = slices.DeleteFunc(s.Linux.MaskedPaths, func(p string) bool { return strings.HasPrefix(p, "/sys/devices") })
		got, err := Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(strings.Split(string(text), "\n"), strings.Split(string(got), "\n")); diff != "" {
			t.Errorf("%s (-runc +ours):\n%s", name, diff)
		}
	}
	if n := Default(DefaultOptions{CgroupNS: true}).Linux.Namespaces; n[len(n)-1].Type != specs.CgroupNamespace {
		t.Errorf("got namespaces %v, want one for cgroups", n)
	}
}

// TestFeatures compares the lists with what the checks accept.
func TestFeatures(t *testing.T) {
	f := Features()
	for _, list := range [][]string{
		f.MountOptions, f.Linux.Namespaces, f.Linux.Seccomp.Actions, f.Linux.Seccomp.Operators,
		f.Linux.Seccomp.Archs, f.Linux.Seccomp.KnownFlags,
	} {
		if len(list) == 0 || !slices.IsSorted(list) {
			t.Errorf("%v: empty or not sorted", list)
		}
	}
	// Whether the options of mounts are those that are compiled, package compile tests: it may import this one.
	for _, a := range f.Linux.Seccomp.Actions {
		for _, op := range f.Linux.Seccomp.Operators {
			if err := seccomp.Check(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: "/s", Syscalls: []specs.LinuxSyscall{{
				Names: []string{"read"}, Action: specs.LinuxSeccompAction(a), Args: []specs.LinuxSeccompArg{{Op: specs.LinuxSeccompOperator(op)}},
			}}}); err != nil {
				t.Errorf("%s, %s: %v", a, op, err)
			}
		}
	}
	for _, hook := range f.Hooks {
		text := minimal(`, "hooks": {"`+hook+`": [{"path": "x"}]}`, "", "")
		if _, _, err := check([]byte(text)); err == nil || !strings.Contains(err.Error(), "/hooks/"+hook+"/0/path") {
			t.Errorf("hook %s: got error %v", hook, err)
		}
	}
	text, err := json.Marshal(f)
	if err != nil || !strings.Contains(string(text), `"ociVersionMin":"1.0.0","ociVersionMax":"1.3.0"`) {
		t.Errorf("got %s, error %v", text, err)
	}
}

func BenchmarkParse(b *testing.B) {
	text, err := os.ReadFile("testdata/runc-1.1.json")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Parse(text); err != nil {
			b.Fatal(err)
		}
	}
}
