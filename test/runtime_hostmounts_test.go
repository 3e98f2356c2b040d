package test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// withoutMounts takes the mount namespace out of a configuration, and what needs it.
func withoutMounts(s *specs.Spec) {
	s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.MountNamespace })
	s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil
}

// TestRuntimeHostMounts: a container without a mount namespace has its mounts in the host's. They are its own all the same, reach no
// other mount namespace, and go with it, however it goes; its root file system stays.
func TestRuntimeHostMounts(t *testing.T) {
	b := startBundles(t, "host-mounts")
	root := b.rootfs("root")
	for _, dir := range []string{"sub", "data"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b.write(filepath.Join(root, "etc/kept"), "kept\n", 0o644)
	// The host's mounts spread, as systemd has them. The root has a mount of its own below, and somebody looks on.
	b.must("/bin/sh", "-c", "mount --make-rshared / && mount -t tmpfs below "+root+"/sub && touch "+root+"/sub/there")
	pid := strings.TrimSpace(b.must("/bin/sh", "-c", "unshare --mount --propagation slave sh -c 'echo $$; exec sleep 1000 >/dev/null 2>&1' &"))
	looks := func() string { return b.must("/bin/cat", "/proc/"+pid+"/mountinfo") }
	defer b.runtime("/bin/kill", pid)
	table := func() string { return b.must("/bin/cat", "/proc/self/mountinfo") }
	lines := func(text, word string) int { return strings.Count(text, word) }
	before, looked := table(), looks()
	gone := func(what string) {
		t.Helper()
		if after := table(); lines(after, "\n") != lines(before, "\n") || lines(after, "root:") > 0 {
			t.Errorf("%s: the host's mounts are now\n%s", what, after)
		}
		if after := looks(); after != looked {
			t.Errorf("%s: in another mount namespace there is now\n%s\nand there was\n%s", what, after, looked)
		}
		if got := b.must("/bin/sh", "-c", "ls -A /run/oci"); got != "" {
			t.Errorf("%s: /run/oci holds %s", what, got)
		}
		if text, err := os.ReadFile(filepath.Join(root, "etc/kept")); string(text) != "kept\n" {
			t.Fatalf("%s: the root file system was emptied: %q, %v", what, text, err)
		}
	}
	dir := b.bundle("shared", root, func(s *specs.Spec) {
		withoutMounts(s)
		s.Root.Readonly = true
		s.Process.Args = []string{"sh", "-c", "ls / >/tmp/seen; ls /sub >>/tmp/seen; cat /data/kept >>/tmp/seen; exec sleep 999"}
		s.Mounts = append(s.Mounts,
			specs.Mount{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=1777"}},
			specs.Mount{Destination: "/data", Source: filepath.Join(root, "etc"), Options: []string{"bind", "rshared"}})
	})
	res := b.runtime("create", "--bundle", dir, "m")
	if res.Code != 0 || !strings.Contains(res.Stderr, "level=warning") || !strings.Contains(res.Stderr, "gets out of it") {
		t.Fatalf("create: %+v", res)
	}
	for _, link := range []struct{ name, want string }{
		{"ns/mnt", b.must("/bin/readlink", "/proc/self/ns/mnt")},
		{"root", "/run/oci/root:m\n"},
	} {
		if got := b.must("/bin/readlink", "/proc/"+b.pid("m")+"/"+link.name); got != link.want {
			t.Errorf("%s: got %q, want %q", link.name, got, link.want)
		}
	}
	if got := table(); lines(got, "/run/oci/root:m/") < 5 {
		t.Errorf("the container's mounts are not the host's:\n%s", got)
	}
	// What the host's own mounts do of themselves is all that others see of it: an empty directory.
	if got := looks(); lines(got, "\n") > lines(looked, "\n")+1 || lines(got, "root:m/") > 0 {
		t.Errorf("another mount namespace got the container's mounts:\n%s", got)
	}
	if got := b.must("list", "-q"); got != "m\n" {
		t.Errorf("list: %q", got)
	}
	if res := b.runtime("delete", "m"); res.Code == 0 {
		t.Error("delete of a created container succeeded")
	}
	b.must("start", "m")
	const want = "bin\ndata\ndev\netc\nproc\nsub\nsys\ntmp\nthere\nkept\n"
	seen := ""
	for end := time.Now().Add(scaled(15 * time.Second)); seen != want && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		seen = b.runtime("exec", "m", "cat", "/tmp/seen").Stdout // there is no such file at first
	}
	if seen != want {
		t.Errorf("exec: got %q, want %q", seen, want)
	}
	if res := b.runtime("exec", "--cwd", "/data", "m", "sh", "-c",
		"pwd; ls /; touch /x"); res.Stdout != "/data\nbin\ndata\ndev\netc\nproc\nsub\nsys\ntmp\n" || !strings.Contains(res.Stderr, "Read-only") {
		t.Errorf("exec: got %+v", res)
	}
	if res := b.runtime("checkpoint", "--image-path", filepath.Join(b.work, "image"), "m"); res.Code == 0 ||
		!strings.Contains(res.Stderr, "/linux/namespaces: ") && !strings.Contains(res.Stderr, "criu") {
		t.Errorf("checkpoint: got %+v", res)
	}
	b.must("delete", "--force", "m")
	gone("delete --force of a running container")

	b.must("/bin/sh", "-c", "cd /run && exec "+filepath.Join(run.bin,
		"glassbox-runtime")+" --root oci create --bundle "+dir+" m >/dev/null 2>&1")
	b.must("delete", "--force", "m")
	gone("delete --force of a created container, from elsewhere")

	b.must("create", "--bundle", dir, "m")
	b.must("kill", "m", "KILL")
	b.await("m", "stopped")
	b.must("delete", "m")
	gone("delete of a stopped container")

	ended := b.bundle("ended", root, func(s *specs.Spec) {
		withoutMounts(s)
		s.Process.Args = []string{"true"}
	})
	b.must("run", "--bundle", ended, "m")
	gone("run")

	b.broken(root, gone)
}

// broken runs what can't run: the host's mounts are as before each time.
func (b *bundles) broken(root string, gone func(what string)) {
	b.t.Helper()
	for name, edit := range map[string]func(*specs.Spec){
		"no program": func(s *specs.Spec) { s.Process.Args = []string{"nothing"} },
		"no source": func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/data", Source: "/nothing", Options: []string{"bind"}})
		},
		"unknown option": func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/data", Type: "tmpfs", Options: []string{"nothing=1"}})
		},
		"hook":              func(s *specs.Spec) { s.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{Path: "/bin/false"}}} },
		"hook of the start": func(s *specs.Spec) { s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/bin/false"}}} },
	} {
		broken := b.bundle("broken", root, func(s *specs.Spec) {
			withoutMounts(s)
			edit(s)
		})
		if res := b.runtime("run", "--bundle", broken, "m"); res.Code == 0 {
			b.t.Errorf("%s: run succeeded", name)
		}
		gone("run, " + name)
	}
}
