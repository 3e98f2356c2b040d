package fork

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"glassbox/compile"
	"glassbox/host"
	"glassbox/plan"
)

// mountinfo runs a container that prints its mounts and returns them by target: attributes, propagation, type and options of the
// file system.
func mountinfo(t *testing.T, s *specs.Spec, change ...func(*compile.Input)) map[string]string {
	t.Helper()
	s.Process.Args = []string{"cat", "/proc/self/mountinfo"}
	code, out, err := runSpec(t, s, change...)
	if err != nil || code != 0 {
		t.Fatalf("code %d, %v\n%s", code, err, out)
	}
	mounts := map[string]string{}
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		dash := slices.Index(f, "-")
		tags := regexp.MustCompile(`:\d+`).ReplaceAllString(strings.Join(f[6:dash], ","), "")
		mounts[f[4]] = strings.Join([]string{f[5], tags, f[dash+1], f[dash+3]}, " ")
	}
	return mounts
}

// inNamespace runs a test in a mount namespace of its own, in which it may mount what it wants.
func inNamespace(t *testing.T) {
	t.Helper()
	needRoot(t)
	runtime.LockOSThread() // and never unlocked: the thread ends with the test
	if err := errors.Join(unix.Unshare(unix.CLONE_NEWNS), unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")); err != nil {
		t.Fatal(err)
	}
}

func mount(t *testing.T, source, target, kind string, flags uintptr, data string) {
	t.Helper()
	if err := os.MkdirAll(target, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		t.Fatalf("mount %s on %s: %v", source, target, err)
	}
	t.Cleanup(func() { unix.Unmount(target, unix.MNT_DETACH) })
}

func TestMountOptions(t *testing.T) {
	inNamespace(t)
	// A tree of mounts: the upper one nosuid and noatime, the lower one plain.
	dir := t.TempDir()
	mount(t, "tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NOATIME, "")
	mount(t, "tmpfs", dir+"/sub", "tmpfs", unix.MS_RELATIME, "")
	for _, tc := range []struct {
		kind    string
		options string
		want    string // the beginning of the mountinfo of /x, and of /x/sub after a semicolon
	}{
		{"tmpfs", "ro,nosuid,nodev,noexec,noatime,size=1m", "ro,nosuid,nodev,noexec,noatime  tmpfs rw,size=1024k"},
		{"tmpfs", "strictatime,nosymfollow,nodiratime", "rw,nodiratime,nosymfollow  tmpfs rw"},
		{"tmpfs", "noatime,norelatime,nosuid,suid", "rw,relatime  tmpfs rw"},
		{"tmpfs", "sync,dirsync,lazytime", "rw,relatime  tmpfs rw,sync,dirsync,lazytime"},
		{"tmpfs", "sync,async,silent,iversion", "rw,relatime  tmpfs rw"},
		{"tmpfs", "shared", "rw,relatime shared tmpfs"},
		{"tmpfs", "unbindable", "rw,relatime unbindable tmpfs"},
		{"bind", "rbind", "rw,nosuid,noatime  tmpfs;rw,relatime  tmpfs"},
		{"bind", "bind", "rw,nosuid,noatime  tmpfs;"},
		{"bind", "rbind,ro", "ro,nosuid,noatime  tmpfs;rw,relatime  tmpfs"},
		{"bind", "rbind,rro,rnoexec", "ro,nosuid,noexec,noatime  tmpfs;ro,noexec,relatime  tmpfs"},
		{"bind", "rbind,ro,rnodev", "ro,nosuid,nodev,noatime  tmpfs;rw,nodev,relatime  tmpfs"},
		{"bind", "rbind,atime,suid", "rw,relatime  tmpfs;rw,relatime  tmpfs"},
		{"bind", "rbind,rstrictatime,rnosymfollow", "rw,nosuid,nosymfollow  tmpfs;rw,nosymfollow  tmpfs"},
		{"bind", "rbind,rsuid,rnodiratime", "rw,noatime,nodiratime  tmpfs;rw,nodiratime,relatime  tmpfs"},
		{"bind", "rbind,shared", "rw,nosuid,noatime shared tmpfs;rw,relatime  tmpfs"},
		{"bind", "rbind,rshared,private", "rw,nosuid,noatime  tmpfs;rw,relatime shared tmpfs"},
		{"bind", "rbind,private,runbindable", "rw,nosuid,noatime unbindable tmpfs;rw,relatime unbindable tmpfs"},
	} {
		s := bundle(t) // no t.Run, which would leave the thread
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: tc.kind, Source: dir, Options: strings.Split(tc.options, ",")})
		got := mountinfo(t, s)
		x, sub, both := strings.Cut(tc.want, ";")
		if !strings.HasPrefix(got["/x"], x) {
			t.Errorf("%s: /x: got %q, want %q", tc.options, got["/x"], x)
		}
		if both && (!strings.HasPrefix(got["/x/sub"], sub) || sub == "" && got["/x/sub"] != "") {
			t.Errorf("%s: /x/sub: got %q, want %q", tc.options, got["/x/sub"], sub)
		}
	}
}

// TestReplace has a file that the engine brings where the image has a link. The link gives way in the root file system, and stays in
// what is mounted there, which may be the host's.
func TestReplace(t *testing.T) {
	inNamespace(t)
	for _, mounted := range []bool{false, true} {
		dir := t.TempDir()
		mount(t, "tmpfs", dir, "tmpfs", 0, "")
		for _, sub := range []string{"upper", "work", "merged", "theirs"} {
			if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(os.WriteFile(dir+"/file", []byte("ours\n"), 0o644), os.Symlink("/tmp/there", dir+"/theirs/hosts")); err != nil {
			t.Fatal(err)
		}
		s := bundle(t)
		if err := os.Symlink("/tmp/there", s.Root.Path+"/etc/hosts"); err != nil {
			t.Fatal(err)
		}
		if mounted {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/etc", Type: "bind", Source: dir + "/theirs", Options: []string{"bind"}})
		}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/etc/hosts", Type: "bind", Source: dir + "/file", Options: []string{"bind"}})
		s.Process.Args = []string{"sh", "-c", "cat /etc/hosts; [ -L /etc/hosts ] && echo a link to && cat /tmp/there"}
		lower := s.Root.Path
		_, out, err := runSpec(t, s, func(in *compile.Input) {
			in.Replace = []string{"/etc/hosts"}
			in.Overlay = &plan.Overlay{Dir: dir, Lower: []string{lower}, Upper: "upper", Work: "work", Target: dir + "/merged"}
			in.Mountpoint = dir + "/merged"
		})
		want := "ours\n"
		if mounted {
			want = "ours\na link to\nours\n"
		}
		if err != nil || out != want {
			t.Errorf("/etc mounted %v: got %q, %v, want %q", mounted, out, err, want)
		}
		if to, err := os.Readlink(dir + "/theirs/hosts"); to != "/tmp/there" {
			t.Errorf("/etc mounted %v: the link in the other directory is %q, %v", mounted, to, err)
		}
	}
}

// TestNamedFlags is what a bind mount has of its source's flags as in runc: all of them without a word about flags, else those that are
// named.
func TestNamedFlags(t *testing.T) {
	inNamespace(t)
	dir := t.TempDir()
	mount(t, "tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_NOATIME, "")
	mount(t, "tmpfs", dir+"/sub", "tmpfs", unix.MS_NOSUID|unix.MS_RELATIME, "")
	for options, want := range map[string]string{
		"rbind":                         "rw,nosuid,nodev,noexec,noatime  tmpfs",
		"rbind,rprivate":                "rw,nosuid,nodev,noexec,noatime  tmpfs",
		"rbind,rro":                     "ro,nosuid,nodev,noexec,noatime  tmpfs",
		"rbind,rw":                      "rw,noatime  tmpfs",
		"rbind,rw,private":              "rw,noatime  tmpfs",
		"rbind,ro":                      "ro,noatime  tmpfs",
		"rbind,nosuid":                  "rw,nosuid,noatime  tmpfs",
		"rbind,relatime":                "rw,relatime  tmpfs",
		"rbind,exec,nodev":              "rw,nodev,noatime  tmpfs",
		"bind,sync,lazytime,iversion":   "rw,noatime  tmpfs",
		"bind,dirsync,noexec":           "rw,noexec,noatime  tmpfs",
		"bind,nofail,_netdev,x-a=b":     "rw,nosuid,nodev,noexec,noatime  tmpfs",
		"bind,comment=a,x-systemd.auto": "rw,nosuid,nodev,noexec,noatime  tmpfs",
	} {
		s := bundle(t)
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "bind", Source: dir, Options: strings.Split(options, ",")})
		got := mountinfo(t, s, func(in *compile.Input) { in.NamedFlags = true })
		if !strings.HasPrefix(got["/x"], want) {
			t.Errorf("%s: got %q, want %q", options, got["/x"], want)
		}
		if sub := got["/x/sub"]; strings.HasPrefix(options, "rbind") && !strings.Contains(options, "rro") &&
			!strings.HasPrefix(sub, "rw,nosuid,relatime") {
			t.Errorf("%s: the mount below has %q", options, sub)
		}
	}
	// What a file system of its own has of fstab's words.
	s := bundle(t)
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "tmpfs", Source: "tmpfs", Options: []string{
		"nofail", "_netdev", "x-y",
		"comment=z", "size=1m",
	}})
	if got := mountinfo(t, s)["/x"]; !strings.Contains(got, "size=1024k") {
		t.Errorf("a tmpfs with words of fstab: %q", got)
	}
}

func TestRemountOption(t *testing.T) {
	s := bundle(t)
	s.Mounts = append(s.Mounts,
		specs.Mount{Destination: "/x", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "size=1m"}},
		specs.Mount{Destination: "/x", Options: []string{"remount", "ro", "size=2m"}},
		specs.Mount{Destination: "relative/y", Type: "tmpfs", Source: "tmpfs"},
		specs.Mount{Destination: "/link/z", Type: "tmpfs", Source: "tmpfs"},
	)
	if err := os.Symlink("/../tmp", filepath.Join(s.Root.Path, "link")); err != nil {
		t.Fatal(err)
	}
	got := mountinfo(t, s)
	if want := "ro,nosuid,relatime  tmpfs rw,size=2048k"; !strings.HasPrefix(got["/x"], want) {
		t.Errorf("/x: got %q, want %q", got["/x"], want)
	}
	for _, dir := range []string{"/relative/y", "/tmp/z"} {
		if got[dir] == "" {
			t.Errorf("nothing is mounted on %s: %v", dir, got)
		}
	}
}

// TestLongOption gives a file system an option that only mount(2) takes.
func TestLongOption(t *testing.T) {
	s := bundle(t, "sh", "-c", "cat /x/1/file; cat /x/12/file; pwd")
	var lower []string
	for i := range 12 {
		d := filepath.Join(s.Root.Path, strings.Repeat("d", 40), strings.Repeat("e", i+1))
		if err := os.MkdirAll(filepath.Join(d, []string{"1", "12"}[i%2]), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d, []string{"1", "12"}[i%2], "file"), []byte("here\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		lower = append(lower, strings.TrimPrefix(d, s.Root.Path))
	}
	s.Mounts = append(s.Mounts, specs.Mount{
		Destination: "/x", Type: "overlay", Source: "overlay",
		Options: []string{"nodev", "lowerdir=" + strings.Join(lower, ":")},
	})
	expect(t, s, "here\nhere\n/\n")
}

// TestReadonlyTmpfs mounts into and makes devices in what is read-only in the end.
func TestReadonlyTmpfs(t *testing.T) {
	s := bundle(t, "sh", "-c", "echo x >/run/x; echo x >/dev/x; busybox stat -c %a /run /dev /new /run/deep; echo x >/dev/null")
	if err := os.Mkdir(filepath.Join(s.Root.Path, "run"), 0o710); err != nil {
		t.Fatal(err)
	}
	s.Mounts = append(s.Mounts,
		specs.Mount{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"ro", "mode=755"}},
		specs.Mount{Destination: "/run", Type: "tmpfs", Source: "tmpfs", Options: []string{"ro"}}, // the mode of the directory
		specs.Mount{Destination: "/new", Type: "tmpfs", Source: "tmpfs"},                          // the mode of a tmpfs
		specs.Mount{Destination: "/run/deep", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=700"}},
	)
	const want = "sh: can't create /run/x: Read-only file system\nsh: can't create /dev/x: Read-only file system\n710\n755\n1777\n700\n"
	expect(t, s, want)
	// all before it are made ahead
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/etc", Type: "bind", Source: t.TempDir(), Options: []string{"bind"}})
	if err := os.Remove(filepath.Join(s.Root.Path, "new")); err != nil {
		t.Fatal(err)
	}
	expect(t, s, want, inOrder)
}

func inOrder(in *compile.Input) { in.InOrder = true }

// TestInOrder looks at the order in which mounts were made: in the configuration's one, whatever needs the host in sight. Before Linux 6.8
// mountinfo is in the order of attaching.
func TestInOrder(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"lower/seen", "upper", "work"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := bundle(t)
	s.Mounts = append(s.Mounts,
		specs.Mount{Destination: "/tmp/a", Type: "tmpfs", Source: "tmpfs"},
		specs.Mount{Destination: "/tmp/b", Type: "bind", Source: dir, Options: []string{"rbind"}},
		// names of the host
		specs.Mount{Destination: "/tmp/c", Type: "overlay", Source: "overlay", Options: []string{
			"lowerdir=" + dir + "/lower",
			"upperdir=" + dir + "/upper", "workdir=" + dir + "/work",
		}},
		specs.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs"},
		specs.Mount{Destination: "/tmp/a/d", Type: "tmpfs", Source: "tmpfs"},
		specs.Mount{Destination: "/tmp/a/e", Type: "bind", Source: dir + "/lower", Options: []string{"bind", "ro"}},
		specs.Mount{Destination: "/tmp/f", Type: "tmpfs", Source: "tmpfs"},
	)
	s.Process.Args = []string{
		"sh", "-c",
		"while read a b c d point rest; do case $point in /) ;; *) echo -n $point,; esac; done </proc/self/mountinfo; ls /tmp/c",
	}
	want := ""
	for _, m := range s.Mounts {
		want += m.Destination + ","
	}
	expect(t, s, want+"seen\n", inOrder)
}

// TestProcIsOutOfReach mounts through a symbolic link of the image into /proc (CVE-2019-16884).
func TestProcIsOutOfReach(t *testing.T) {
	for _, m := range []specs.Mount{
		{Destination: "/link/sys", Type: "tmpfs", Source: "tmpfs"},
		{Destination: "/link/self/attr", Type: "bind", Source: "/etc", Options: []string{"bind"}},
		{Destination: "/link/sys", Type: "tmpfs", Source: "tmpfs", Options: []string{"silent"}},
	} {
		s := bundle(t, "true")
		if err := os.Symlink("proc", filepath.Join(s.Root.Path, "link")); err != nil {
			t.Fatal(err)
		}
		s.Mounts = append(s.Mounts, m)
		if _, _, err := runSpec(t, s); !errors.Is(err, unix.EXDEV) || !strings.Contains(err.Error(), "/mounts/1") {
			t.Errorf("%s: got %v, want EXDEV", m.Destination, err)
		}
	}
	s := bundle(t, "true")
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/proc", Type: "bind", Source: "/etc", Options: []string{"bind"}})
	if _, _, err := runSpec(t, s); err == nil || !strings.Contains(err.Error(), "not the root of a procfs") {
		t.Errorf("/etc on /proc: got %v", err)
	}
	s = bundle(t, "cat", "/proc/sys/kernel/ostype")
	s.Mounts = []specs.Mount{{Destination: "/proc", Type: "bind", Source: "/proc", Options: []string{"rbind"}}}
	expect(t, s, "Linux\n")
}

func TestRootPropagation(t *testing.T) {
	inNamespace(t)
	for _, word := range []string{"", "private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable"} {
		s := bundle(t)
		mount(t, s.Root.Path, s.Root.Path, "", unix.MS_BIND, "")
		if err := unix.Mount("", s.Root.Path, "", unix.MS_SHARED, ""); err != nil {
			t.Fatal(err)
		}
		s.Linux.RootfsPropagation = word
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "tmpfs", Source: "tmpfs"})
		got := mountinfo(t, s)
		tag := func(m string) string { return strings.Split(got[m], " ")[1] }
		want := map[string]string{
			"slave": "master", "rslave": "master", "shared": "shared", "rshared": "shared", "unbindable": "unbindable",
			"runbindable": "unbindable",
		}[word]
		below := ""
		if strings.HasPrefix(word, "rs") && word != "rslave" || word == "runbindable" {
			below = want
		}
		if tag("/") != want || tag("/x") != below {
			t.Errorf("%q: / is %q, /x is %q, want %q and %q", word, tag("/"), tag("/x"), want, below)
		}
	}
}

// TestVolumePropagation shares mounts between host and container: what the host mounts appears in slaves and peers, what the
// container mounts appears on the host in peers only.
func TestVolumePropagation(t *testing.T) {
	inNamespace(t)
	dir := t.TempDir()
	mount(t, "tmpfs", dir, "tmpfs", 0, "")
	if err := unix.Mount("", dir, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	for i, word := range []string{"rprivate", "rslave", "rshared", "rslave", "rshared"} {
		s := bundle(t, "busybox", "mount", "-t", "tmpfs", "tmpfs", "/x/"+word)
		caps := []string{"CAP_SYS_ADMIN"}
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Permitted: caps, Effective: caps}
		if err := os.MkdirAll(filepath.Join(dir, word), 0o755); err != nil {
			t.Fatal(err)
		}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "bind", Source: dir, Options: []string{"rbind", word}})
		expect(t, s, "", func(in *compile.Input) { in.InOrder = i > 2 })
		var fs unix.Stat_t
		var top unix.Stat_t
		if err := errors.Join(unix.Stat(dir, &top), unix.Stat(filepath.Join(dir, word), &fs)); err != nil {
			t.Fatal(err)
		}
		if seen := fs.Dev != top.Dev; seen != (word == "rshared") {
			t.Errorf("%s: the container's mount is seen on the host: %v", word, seen)
		}
		unix.Unmount(filepath.Join(dir, word), 0)
	}
}

func TestNoPivot(t *testing.T) {
	s := bundle(t, "sh", "-c", "pwd; cd ../..; [ -e bin/busybox ] && echo here; busybox ls -a /")
	root := s.Root.Path
	link := filepath.Join(t.TempDir(), "link") // the root by a symbolic link, relative to the bundle
	if err := os.Symlink(root, link); err != nil {
		t.Fatal(err)
	}
	s.Root.Path = "link"
	for _, no := range []bool{false, true} {
		expect(t, s, "/\nhere\n.\n..\nbin\ndev\netc\nproc\nsys\ntmp\n",
			func(in *compile.Input) { in.NoPivot, in.Bundle = no, filepath.Dir(link) })
	}
}

func TestBundleSource(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("of the bundle\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := bundle(t, "cat", "/etc/file")
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/etc/file", Type: "none", Source: "file", Options: []string{"bind"}})
	expect(t, s, "of the bundle\n", func(in *compile.Input) { in.Bundle = dir })
}

// TestCgroupMounts shows the container its cgroups with and without a cgroup namespace: each time the limit is there.
func TestCgroupMounts(t *testing.T) {
	needRoot(t)
	facts, err := host.Probe()
	if err != nil {
		t.Fatal(err)
	}
	for _, namespace := range []bool{false, true} {
		s := bundle(t, "sh", "-c", "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max /sys/fs/cgroup$(busybox sed -n s/0:://p "+
			"/proc/self/cgroup)/pids.max 2>/dev/null; echo 1 2>/dev/null >/sys/fs/cgroup/pids/pids.max || echo read-only")
		s.Mounts = append(s.Mounts,
			specs.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"ro"}},
			specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid"}})
		limit := int64(77)
		s.Linux.Resources = &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}}
		s.Linux.CgroupsPath = testCgroup + "/mounts"
		if namespace {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "cgroup"})
		}
		code, got, err := runSpec(t, s)
		for _, h := range facts.Cgroup.Hierarchies {
			os.Remove(h.Mount + testCgroup)
		}
		if err != nil || code != 0 || !strings.HasPrefix(got, "77\n") || !strings.HasSuffix(got, "read-only\n") {
			t.Errorf("namespace %v: code %d, %v, got %q, want 77 and read-only", namespace, code, err, got)
		}
	}
}

func TestDevices(t *testing.T) {
	list := "busybox stat -c '%n %F %t:%T %a %u:%g' /dev/null /dev/tty /dev/fuse /srv/fifo /dev/disk /dev/core /dev/ptmx; busybox readlink " +
		"/dev/ptmx; head -c 3 /dev/zero | busybox od -An -tx1"
	list = strings.Replace(list, "head", "busybox head", 1)
	devices := []specs.LinuxDevice{
		{Path: "/dev/fuse", Type: "u", Major: 10, Minor: 229, FileMode: new(os.FileMode(0o640)), UID: new(uint32(7)), GID: new(uint32(8))},
		{Path: "/srv/fifo", Type: "p", FileMode: new(os.FileMode(0o600))},
		{Path: "/dev/disk", Type: "b", Major: 7, Minor: 1},
	}
	want := "/dev/null character special file 1:3 666 0:0\n/dev/tty character special file 5:0 666 0:0\n/dev/fuse character special file " +
		"a:e5 640 7:8\n/srv/fifo fifo 0:0 600 0:0\n/dev/disk block special file 7:1 666 0:0\n"
	core := ""
	if _, err := os.Stat("/proc/kcore"); err == nil {
		core = "/dev/core symbolic link 0:0 777 0:0\n"
	} else {
		list = strings.Replace(list, " /dev/core", "", 1)
	}
	// In a tmpfs, and in the image's directory, where some nodes exist already.
	for _, own := range []bool{true, false} {
		s := bundle(t, "sh", "-c", list)
		s.Linux.Devices = devices
		s.Linux.MaskedPaths = []string{"/proc/version", "/proc/none"}
		if own {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=755"}})
		} else {
			dev := filepath.Join(s.Root.Path, "dev")
			if err := errors.Join(unix.Mknod(dev+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))), unix.Chmod(dev+"/null", 0o666),
				os.WriteFile(dev+"/ptmx", nil, 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		expect(t, s, want+core+"/dev/ptmx symbolic link 0:0 777 0:0\npts/ptmx\n 00 00 00\n")
	}
}

// TestForeignDevices finds something else where a device should be: a symbolic link to a file, another device, a directory.
func TestForeignDevices(t *testing.T) {
	for name, fake := range map[string]func(string) error{
		"link":   func(file string) error { return os.Symlink("/proc/sys/kernel/core_pattern", file) }, // CVE-2025-31133
		"device": func(file string) error { return unix.Mknod(file, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))) },
		"file":   func(file string) error { return os.WriteFile(file, nil, 0o666) },
	} {
		s := bundle(t, "true")
		s.Linux.MaskedPaths = []string{"/proc/version"}
		if err := fake(filepath.Join(s.Root.Path, "dev/null")); err != nil {
			t.Fatal(err)
		}
		if _, _, err := runSpec(t, s); !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ELOOP) ||
			!strings.Contains(err.Error(), "/dev/null") {
			t.Errorf("%s: got %v, want an error about /dev/null", name, err)
		}
	}
}

// TestHostDev binds the host's /dev: nothing is made in it, masking works by its null device, and a device that is missing is an
// error.
func TestHostDev(t *testing.T) {
	before, err := os.ReadDir("/dev")
	if err != nil {
		t.Fatal(err)
	}
	s := bundle(t, "sh", "-c", "[ /proc/version -ef /dev/null ] && echo masked; busybox wc -c </proc/version")
	s.Linux.MaskedPaths = []string{"/proc/version"}
	s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/zero", Type: "c", Major: 1, Minor: 5}}
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/dev", Type: "bind", Source: "/dev", Options: []string{"rbind", "ro"}})
	expect(t, s, "masked\n0\n")
	s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/glassbox-none", Type: "c", Major: 1, Minor: 5}}
	if _, _, err := runSpec(t, s); !errors.Is(err, unix.ENOENT) {
		t.Errorf("got %v, want ENOENT", err)
	}
	after, _ := os.ReadDir("/dev")
	if len(after) != len(before) {
		t.Errorf("/dev had %d entries, and has %d", len(before), len(after))
	}
}

// TestFSTypes mounts what containers mount.
func TestFSTypes(t *testing.T) {
	s := bundle(t)
	s.Mounts = append(s.Mounts,
		specs.Mount{Destination: "/dev", Type: "tmpfs", Source: "tmpfs"},
		specs.Mount{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{
			"newinstance", "ptmxmode=0666", "mode=0620",
			"gid=5",
		}},
		specs.Mount{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue"},
		specs.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"ro"}},
	)
	got := mountinfo(t, s)
	for target, want := range map[string]string{
		"/dev/pts":    "rw,relatime  devpts rw,gid=5,mode=620,ptmxmode=666",
		"/dev/mqueue": "rw,relatime  mqueue rw",
		"/sys":        "ro,relatime  sysfs",
	} {
		if !strings.HasPrefix(got[target], want) {
			t.Errorf("%s: got %q, want %q", target, got[target], want)
		}
	}
}

// TestMaskedDirectories: the directories that are hidden share one file system, empty and read-only, and each but the first takes no more
// calls than the clone of a mount.
func TestMaskedDirectories(t *testing.T) {
	needRoot(t)
	s := bundle(t, "sh", "-c",
		`for d in /proc/fs /proc/irq /proc/bus; do busybox stat -c '%d' $d; busybox ls $d; busybox touch $d/x; done 2>&1 |
busybox sed 's/.*Read-only file system/read-only/' | busybox sort | busybox uniq -c | busybox awk '{print $1}'`)
	s.Linux.MaskedPaths = []string{"/proc/none", "/proc/fs", "/proc/version", "/proc/irq", "/proc/none2", "/proc/bus"}
	expect(t, s, "3\n3\n") // three times the number of one device, three times "read-only"
	for target, attrs := range mountinfo(t, s) {
		if strings.HasPrefix(target, "/proc/") && target != "/proc/version" &&
			!strings.HasPrefix(attrs, "ro,nosuid,nodev,noexec,relatime  tmpfs ") {
			t.Errorf("%s: %s", target, attrs)
		}
	}
	masks := []plan.Step{
		{Lane: plan.Child, Op: &plan.MaskPath{Path: "/x", Null: "null"}},
		{Lane: plan.Child, Op: &plan.MaskPath{Path: "/x", Null: "null"}},
	}
	l := &lowering{regs: map[string]uint8{"null": 1}, steps: masks}
	count := func() (made, opened int) { // of file systems
		l.calls = nil
		if err := l.op(l.steps[l.step].Op); err != nil {
			t.Fatal(err)
		}
		for _, c := range l.calls {
			if c.nr == unix.SYS_FSMOUNT {
				made++
			}
			if c.only != 0 {
				opened++
			}
		}
		return made, opened
	}
	for i, want := range []int{4, 5} { // the last one closes it
		l.step = int32(i)
		if made, cloned := count(); made != 1 || cloned != want {
			t.Errorf("%d: %d file systems are made, %d calls for a clone or the end", i, made, cloned)
		}
	}
	if len(l.empty) != 1 {
		t.Errorf("%d registers for what they share", len(l.empty))
	}
}
