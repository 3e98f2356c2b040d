package spec

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	cdi "tags.cncf.io/container-device-interface/specs-go"

	"glassbox/container"
	"glassbox/host"
)

var update = flag.Bool("update", false, "write the configurations that are made into the golden files")

func input(t *testing.T, w container.Words) Input {
	t.Helper()
	config, err := w.Config()
	if err != nil {
		t.Fatal(err)
	}
	facts := &host.Facts{
		Kernel: host.Kernel{Release: "6.6.0", Major: 6, Minor: 6}, Arch: "amd64", Caps: 1<<41 - 1, LastCap: 40, CPUs: 4, Seccomp: true,
		Cgroup: host.Cgroup{Mode: host.CgroupV2},
	}
	node := Node{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229, Mode: 0o666}
	other := Process{Container: strings.Repeat("e", 64), PID: 77}
	return Input{
		Container: &container.Container{
			ID: strings.Repeat("c", 64), Name: "n", Config: *config,
			Image: &container.Image{
				Env: []string{"PATH=/bin", "LANG=C"}, Entrypoint: []string{"/entry"}, Cmd: []string{"serve"}, User: "app", WorkingDir: "/srv",
				Labels: map[string]string{"from": "image"}, Architecture: "amd64", Platform: "linux/amd64",
			},
		},
		Facts: facts, Root: "/var/lib/glassbox", Dir: "containers/" + strings.Repeat("c", 64), Layers: []string{"layers/base", "layers/top"},
		Runtime: "/usr/local/bin/glassbox-runtime",
		Answers: Answers{
			Hostname: "thishost", Passwd: []byte("root:x:0:0::/root:/bin/sh\napp:x:7:8::/home/app:/bin/sh\n"), Group: []byte("video:x:44:app\n"),
			Devices: map[string][]Node{"/dev/fuse": {node}, "/dev/dir": {{Path: "/dev/dir/a", Type: "c", Major: 1, Minor: 2}}},
			Blocks:  map[string]Node{"/dev/sda": {Path: "/dev/sda", Type: "b", Major: 8}},
			CDI:     deviceEdits(w),
			Shared:  map[string]Process{"net": other, "pid": other}, AllDevices: []Node{node}, SwapAccounting: true, EtcFiles: []string{"hosts"},
		},
	}
}

// deviceEdits are those of a container that asks for a device by name.
func deviceEdits(w container.Words) []DeviceEdits {
	if len(w.Device) == 0 || w.Device[0] != "example.com/toy=one" {
		return nil
	}
	origin, file := "--device example.com/toy=one", "/etc/cdi/toy.json"
	return []DeviceEdits{
		{File: file, Origin: origin, Edits: &cdi.ContainerEdits{Env: []string{"A=all", "B=all"}}},
		{Device: "example.com/toy=one", File: file, Origin: origin, Edits: &cdi.ContainerEdits{
			DeviceNodes: []*cdi.DeviceNode{
				{Path: "/dev/toy", Type: "c", Major: 9, Minor: 8, Permissions: "rw"},
				{Path: "/dev/shut", Type: "b", Major: 7, Permissions: "none"},
			},
			Mounts: []*cdi.Mount{
				{HostPath: "/lib/toy", ContainerPath: "/usr/lib/toy", Options: []string{"ro", "bind"}}, {HostPath: "/run/toy", ContainerPath: "/toy"},
			},
			NetDevices:     []*cdi.LinuxNetDevice{{HostInterfaceName: "toy0", Name: "eth9"}},
			IntelRdt:       &cdi.IntelRdt{ClosID: "toys", Schemata: []string{"L3:0=f"}},
			AdditionalGIDs: []uint32{0, 44, 44},
			Hooks: []*cdi.Hook{
				{HookName: "createContainer", Path: "/bin/ldcache", Args: []string{"ldcache", "/usr/lib/toy"}},
				{HookName: "prestart", Path: "/bin/pre"},
			},
		}},
	}
}

// TestWrite compares whole configurations with golden files. The filter, which package seccomp tests, is left out of them.
func TestWrite(t *testing.T) {
	for name, w := range map[string]container.Words{
		"plain": {},
		"command": {
			Command: []string{"ls", "-l"}, Entrypoint: new(string), User: "0", Workdir: "/w", Env: []string{"A=1", "LANG"}, TTY: true,
			Init: true,
		},
		"limits": {
			Memory: "64m", CPUs: "1.5", PidsLimit: ptr(int64(9)), Ulimit: []string{"nofile=5:9"},
			DeviceReadBps: []string{"/dev/sda:1m"}, CpusetCpus: "0", BlkioWeight: 10,
		},
		"mounts": {
			Volume: []string{"/srv/a/b:/a/b:ro,rslave", "/srv/a:/a"}, Tmpfs: []string{"/t:exec,size=1m"},
			Mount: []string{"type=bind,source=/s,target=/m,readonly,bind-recursive=writable"}, ReadOnly: true, ShmSize: "1m",
		},
		"privilege": {
			CapAdd: []string{"all"}, CapDrop: []string{"sys_time"}, Device: []string{"/dev/fuse:r", "/dev/dir:/dev/here"},
			SecurityOpt: []string{"no-new-privileges", "seccomp=unconfined", "systempaths=unconfined"}, DeviceRule: []string{"b 8:* m"},
		},
		"paths": {SecurityOpt: []string{"masked-paths=/proc/keys:/data/", "readonly-paths="}},
		"root":  {Privileged: true},
		"cdi":   {Device: []string{"example.com/toy=one"}, Env: []string{"B=user"}},
		"network": {
			Network: []string{"host"}, PID: "container:x", IPC: "host", UTS: "host", CgroupNS: "host", Sysctl: []string{"kernel.msgmax=9"},
		},
		"rootfs":    {Rootfs: "/srv/root", Remove: true},
		"throwaway": {Rootfs: "/srv/root", RootfsOverlay: true, Remove: true, Namespaces: []string{"mount", "pid"}},
		"joined":    {Network: []string{"container:x"}, IPC: "container:x"},
	} {
		t.Run(name, func(t *testing.T) {
			if w.Image = "i"; w.Rootfs != "" {
				w.Image = ""
			}
			out, err := Write(input(t, w))
			if err != nil {
				t.Fatal(err)
			}
			out.Spec.Linux.Seccomp = nil
			got, err := json.MarshalIndent(out, "", "\t")
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, '\n')
			file := filepath.Join("testdata", name+".json")
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// TestDiscardedPorts: a port that can't be published is told, and the container runs, as with Docker.
func TestDiscardedPorts(t *testing.T) {
	for _, w := range []container.Words{
		{Network: []string{"host"}, Publish: []string{"80:80"}},
		{Network: []string{"host"}, PublishAll: true},
		{Network: []string{"none"}, Publish: []string{"80"}},
		{Network: []string{"bridge"}, Publish: []string{"80"}},
		{Network: []string{"host"}},
	} {
		w.Image = "i"
		out, err := Write(input(t, w))
		if err != nil {
			t.Fatal(err)
		}
		said := slices.ContainsFunc(out.Warnings, func(s string) bool { return strings.HasPrefix(s, "Published ports are discarded") })
		if want := w.Network[0] != "bridge" && (w.Publish != nil || w.PublishAll); said != want {
			t.Errorf("--network %s -p %q -P=%v: warnings %q", w.Network, w.Publish, w.PublishAll, out.Warnings)
		}
	}
}

// TestWriteRefuses asks for what this host, or this combination, can't give.
func TestWriteRefuses(t *testing.T) {
	for _, tt := range []struct {
		w    container.Words
		kind error
		want string
	}{
		{container.Words{CPUs: "9"}, container.ErrInvalid, "as there are only 4 CPUs"},
		{container.Words{User: "nobody"}, container.ErrInvalid, "unable to find user nobody"},
		{container.Words{Device: []string{"/dev/null0"}}, container.ErrInvalid, "not a device node"},
		{container.Words{DeviceReadBps: []string{"/dev/sdz:1m"}}, container.ErrInvalid, "not a block device"},
		{container.Words{Network: []string{"container:x"}, Publish: []string{"80:80"}}, container.ErrInvalid, "conflicting options: --publish"},
		{container.Words{Network: []string{"container:x"}, PublishAll: true}, container.ErrInvalid, "conflicting options: --publish-all"},
		{container.Words{Network: []string{"container:x"}, DNSOption: []string{"a"}}, container.ErrInvalid, "conflicting options: --dns-option"},
		{container.Words{Network: []string{"container:x"}, Hostname: "h"}, container.ErrInvalid, "conflicting options"},
		{container.Words{UTS: "host", Hostname: "h"}, container.ErrInvalid, "UTS namespace"},
		{container.Words{SecurityOpt: []string{"apparmor=p"}}, container.ErrUnsupported, "AppArmor is not active"},
		{container.Words{Namespaces: []string{"mount"}, Network: []string{"bridge"}}, container.ErrInvalid, "needs a network namespace"},
		{container.Words{Entrypoint: new(string)}, container.ErrInvalid, "no command"},
		{container.Words{Command: []string{""}, Entrypoint: new(string)}, container.ErrInvalid, "the command is empty"},
	} {
		tt.w.Image = "i"
		if _, err := Write(input(t, tt.w)); err == nil || !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: got %v, want an error with %q", tt.w, err, tt.want)
		}
	}
	in := input(t, container.Words{Image: "i"})
	for range 600 {
		in.Layers = append(in.Layers, "layers/more")
	}
	if _, err := Write(in); !errors.Is(err, container.ErrUnsupported) {
		t.Errorf("602 layers: %v", err)
	}
	in.Layers, in.Facts.Kernel.Major, in.Facts.Kernel.Minor = in.Layers[:400], 6, 1
	if _, err := Write(in); !errors.Is(err, container.ErrUnsupported) {
		t.Errorf("400 layers on Linux 6.1: %v", err)
	}
}

func ptr[T any](v T) *T { return &v }
