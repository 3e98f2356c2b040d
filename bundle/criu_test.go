package bundle

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"glassbox/compile"
)

func TestErrorLines(t *testing.T) {
	log := `(00.006144) Error (criu/tun.c:85): tun: Unable to create tun: Operation not permitted
(00.008860) Warn  (criu/kerndat.c:1642): CRIU was built without libnftables support
(00.103690)      1: Error (criu/namespaces.c:1407): uns: send req error: Invalid argument
Error: ipv4: Address already assigned.
`
	want := []string{"tun: Unable to create tun: Operation not permitted", "uns: send req error: Invalid argument"}
	if got := errorLines([]byte(log)); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := errorLines(nil); len(got) != 0 {
		t.Errorf("got %q of an empty log", got)
	}
}

// has reports whether a request has a field with a text in it.
func (m message) has(t *testing.T, field int, text string) bool {
	t.Helper()
	found := false
	if err := m.each(func(f int, n uint64, b []byte) {
		found = found || f == field && (strings.Contains(string(b), text) || text == strconv.FormatUint(n, 10))
	}); err != nil {
		t.Fatal(err)
	}
	return found
}

func TestCRIUOptions(t *testing.T) {
	f := &CRIUFlags{}
	if err := f.open(); err == nil {
		t.Error("opened without --image-path")
	}
	f.ImagePath = filepath.Join(t.TempDir(), "images")
	if err := f.open(); err != nil || f.WorkPath != f.ImagePath {
		t.Fatal(err)
	}
	defer f.close()
	spec := &specs.Spec{Hooks: &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/h"}}}, Annotations: map[string]string{"org.criu.config": ""}}
	f.ManageCgroups, f.TCPEstablished = "full", true
	m, err := f.options("x.log", spec)
	if err != nil || !m.has(t, optLogFile, "x.log") || !m.has(t, optManageCgroups, "4") || !m.has(t, optTCPEstablished, "1") ||
		!m.has(t, optEmptyNS, strconv.Itoa(unix.CLONE_NEWNET)) {
		t.Errorf("got %q, %v", m, err)
	}
	for want, change := range map[string]func(*CRIUFlags){
		"--empty-ns":            func(f *CRIUFlags) { f.EmptyNS = []string{"uts"} },
		"--manage-cgroups-mode": func(f *CRIUFlags) { f.ManageCgroups = "hard" },
		"org.criu.config":       func(*CRIUFlags) { spec.Annotations["org.criu.config"] = "/nowhere" },
	} {
		g := *f
		change(&g)
		if _, err := g.options("x.log", spec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	// Images of three pre-dumps, each with a link to the one before.
	for i, parent := range []string{"", "0", "../chain/1"} {
		dir := filepath.Join(f.ImagePath, "chain", strconv.Itoa(i))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		os.WriteFile(filepath.Join(dir, "a.img"), nil, 0o600)
		if parent != "" {
			os.Symlink("../"+parent, filepath.Join(dir, "parent"))
		}
	}
	f.ImagePath = filepath.Join(f.ImagePath, "chain/2")
	chain := f.chain()
	if len(chain) != 3 || !strings.HasSuffix(chain[2], "/chain/0") {
		t.Errorf("got %q", chain)
	}
	undo, err := f.share(uint32(os.Getgid()))
	if err != nil {
		t.Fatal(err)
	}
	mode := func() os.FileMode {
		st, err := os.Stat(filepath.Join(chain[2], "a.img"))
		if err != nil {
			t.Fatal(err)
		}
		return st.Mode().Perm()
	}
	if got := mode(); got != 0o640 {
		t.Errorf("shared: got mode %o, want 640", got)
	}
	if undo(); mode() != 0o600 {
		t.Errorf("taken back: got mode %o, want 600", mode())
	}
}

// TestCRIUError says why criu has failed, by a program that plays it.
func TestCRIUError(t *testing.T) {
	dir := t.TempDir()
	program, log := filepath.Join(dir, "criu"), filepath.Join(dir, "dump.log")
	play := func(script string) { os.WriteFile(program, []byte("#!/bin/sh\n"+script), 0o755) }
	play("echo 'Error (a.c:1): first' >&2; echo 'Error (a.c:2): last' >&2; exit 1")
	if got := criuError(program, "dump", log, nil, nil).Error(); !strings.Contains(got,
		"doesn't work on this kernel: criu check: last (first: first)") {
		t.Errorf("got %q", got)
	}
	play("exit 0")
	if got := criuError(program, "dump", log, &answer{message: " words "}, nil).Error(); got != "criu dump: words; its log is "+log {
		t.Errorf("got %q", got)
	}
	os.WriteFile(log, []byte("(00.1) Error (x.c:1): no\n"), 0o644)
	if got := criuError(program, "dump", log, nil, errors.New("gone")).Error(); got != "criu dump: gone: no; its log is "+log {
		t.Errorf("got %q", got)
	}
}

// TestCheckpointAndBack makes what criu is told by checkpoint and by restore, of a process that isn't in a container: its mounts are the
// host's, its streams those of the test.
func TestCheckpointAndBack(t *testing.T) {
	f := newFake(t, running, func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/nowhere/data", Type: "bind", Source: "/tmp", Options: []string{"bind"}})
	})
	f.refused("checkpoint", f.r.Checkpoint("f", CheckpointOptions{
		PreDump:   true,
		CRIUFlags: CRIUFlags{ImagePath: filepath.Join(f.dir, "p")},
	}), "")
	o := &CheckpointOptions{
		CRIUFlags: CRIUFlags{ImagePath: filepath.Join(f.dir, "images")}, PageServer: "[::1]:99", ParentPath: "one",
		LinkRemap: true, StatusFD: -1,
	}
	if err := o.open(); err != nil {
		t.Fatal(err)
	}
	defer o.close()
	if _, _, err := f.r.checkpointOptions(f.c, o); err == nil || !strings.Contains(err.Error(), "--parent-path") {
		t.Errorf("a parent that isn't there: %v", err)
	}
	os.Mkdir(filepath.Join(o.ImagePath, "one"), 0o700)
	m, join, err := f.r.checkpointOptions(f.c, o)
	if err != nil || len(join) > 0 || !m.has(t, optPID, strconv.Itoa(f.c.PID)) || !m.has(t, optPageServer, "::1") ||
		!m.has(t, optParent, "one") || !m.has(t, optLinkRemap, "1") {
		t.Fatalf("got %q, %v, %v", m, join, err)
	}
	for want, change := range map[string]func(*CheckpointOptions){
		"--parent-path: \"/x\": it must be relative": func(o *CheckpointOptions) { o.ParentPath = "/x" },
		"--page-server":   func(o *CheckpointOptions) { o.PageServer = "nowhere" },
		"--status-fd: 77": func(o *CheckpointOptions) { o.LazyPages, o.StatusFD = true, 77 },
	} {
		bad := *o
		change(&bad)
		_, _, err := f.r.checkpointOptions(f.c, &bad)
		f.refused("checkpoint", err, want)
	}
	var names []string
	if err := readJSON(filepath.Join(o.ImagePath, descriptorsFile), &names); err != nil || len(names) != 3 {
		t.Fatalf("descriptors: %q, %v", names, err)
	}

	// And back: what the configuration has must be in the checkpoint, and the other way round.
	spec, err := f.r.config(f.c)
	if err != nil {
		t.Fatal(err)
	}
	restored := func(mounts []hostMount, streams ...string) (message, compile.RestoreInput, error) {
		t.Helper()
		if err := errors.Join(writeJSON(filepath.Join(o.ImagePath, imageFile), image{Mounts: mounts}),
			writeJSON(filepath.Join(o.ImagePath, descriptorsFile), streams)); err != nil {
			t.Fatal(err)
		}
		input, err := f.r.input("f", f.dir, spec)
		if err != nil {
			t.Fatal(err)
		}
		out, err := f.r.compile(input)
		if err != nil {
			t.Fatal(err)
		}
		in := compile.RestoreInput{Input: input, Namespaces: map[string]int{}, Descriptors: map[string]int{}}
		m, err := f.r.restoreOptions(&in, out, &RestoreOptions{CRIUFlags: o.CRIUFlags, LSMProfile: "apparmor:p", LSMMountContext: "c"})
		return m, in, err
	}
	m, in, err := restored([]hostMount{{Mountpoint: "/nowhere/data", Target: "/nowhere/data"}, {Mountpoint: "/proc/kcore"}}, "pipe:[1]",
		"pipe:[1]", "/dev/null")
	if err != nil || !m.has(t, optLSMProfile, "apparmor:p") || !m.has(t, optExternal, "mnt[/proc/kcore]:/dev/null") ||
		!m.has(t, optExternal, "mnt[/nowhere/data]:") || !m.has(t, optInherit, "pipe:[1]") {
		t.Errorf("got %q, %v", m, err)
	}
	if len(in.Stage) != 1 || in.Stage[0].Path != "/tmp" || in.Descriptors["stdin"] != criuStreams || len(in.Descriptors) != 1 {
		t.Errorf("got the stage %+v, descriptors %v", in.Stage, in.Descriptors)
	}
	_, _, err = restored(nil)
	f.refused("a mount less", err, "the configuration has a bind mount on /nowhere/data, and the checkpoint has none")
	_, _, err = restored([]hostMount{{Mountpoint: "/other", Target: "/other"}})
	f.refused("a mount more", err, "the checkpoint has a bind mount on /other, and the configuration has none")
	os.Remove(filepath.Join(o.ImagePath, descriptorsFile))
	os.WriteFile(filepath.Join(o.ImagePath, imageFile), []byte("{"), 0o600)
	if err := readJSON(filepath.Join(o.ImagePath, imageFile), &image{}); err == nil || !strings.Contains(err.Error(), imageFile) {
		t.Errorf("half a file: %v", err)
	}

	if gid, own := rootGroup(&specs.Spec{Linux: &specs.Linux{GIDMappings: []specs.LinuxIDMapping{{
		ContainerID: 0, HostID: 1000,
		Size: 5,
	}}}}); gid != 1000 || !own {
		t.Errorf("got %d, %v", gid, own)
	}
	for kind, want := range map[string]int{"net": 100, "pid": 101, "ipc": 0, "uts": 0} {
		if _, fd, err := foreign(kind); fd != want || err != nil {
			t.Errorf("%s: got %d, %v", kind, fd, err)
		}
	}
	if _, _, err := foreign("time"); err == nil {
		t.Error("a time namespace of others can be given back")
	}
	if err := checkMounts(&specs.Spec{Linux: &specs.Linux{}}); err == nil {
		t.Error("a container with the host's mounts can be written")
	}
	if !terminal(unix.Mkdev(136, 0)) || terminal(unix.Mkdev(1, 3)) {
		t.Error("which devices are terminals is wrong")
	}
}
