package engine

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"glassbox/compile"
	"glassbox/container"
	"glassbox/plan"
	"glassbox/spec"
	"glassbox/supervise"
)

// TestExecProcess: a further process is as the first one, but for what the options change.
func TestExecProcess(t *testing.T) {
	e := opened(t)
	c := create(t, e, container.Words{Name: "web"})
	first := supervise.Process{
		Env: []string{"PATH=/bin", "TERM=vt100", "HOME=/first"}, Cwd: "/srv", UID: 5, GID: 6, Groups: []uint32{6}, Caps: []string{"CAP_KILL"},
		NoNewPrivs: true,
	}
	made := func(o ExecOptions) *specs.Process {
		t.Helper()
		in := compile.ExecInput{Input: compile.Input{Facts: *testFacts()}}
		if err := e.execProcess(c.ID, first, o, &in); err != nil {
			t.Fatal(err)
		}
		return in.Process
	}
	p := made(ExecOptions{Command: []string{"ls"}, Env: []string{"A=1"}})
	want := &specs.Process{
		Args: []string{"ls"}, Cwd: "/srv", NoNewPrivileges: true, User: specs.User{UID: 5, GID: 6, AdditionalGids: []uint32{6}},
		Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}}, Env: []string{"PATH=/bin", "HOME=/first", "A=1"},
	}
	if diff := cmp.Diff(want, p); diff != "" {
		t.Errorf("as the first one (-want +got):\n%s", diff)
	}
	p = made(ExecOptions{Command: []string{"sh"}, TTY: true, User: "app", Workdir: "/a/../b", ConsoleSize: [2]uint16{24, 80}})
	if u := p.User; u.UID != 7 || u.GID != 8 || !slices.Contains(u.AdditionalGids, 44) {
		t.Errorf("user %+v", u)
	}
	if p.Cwd != "/b" || p.ConsoleSize == nil || p.ConsoleSize.Height != 24 ||
		!slices.Contains(p.Env, "HOME=/home/app") || !slices.Contains(p.Env, "TERM=vt100") {
		t.Errorf("with a terminal as another user: %+v", p)
	}
	if slices.Contains(p.Env, "HOME=/first") {
		t.Errorf("the first one's home is there, too: %v", p.Env)
	}
	p = made(ExecOptions{Command: []string{"sh"}, User: "0", Privileged: true})
	if all := spec.AllCaps(testFacts()); !slices.Equal(p.Capabilities.Effective, all) || !slices.Equal(p.Capabilities.Bounding, all) {
		t.Errorf("root with all privileges has %v", p.Capabilities)
	}
	for text, o := range map[string]ExecOptions{
		"absolute path": {Workdir: "b"}, "nobody-here": {User: "nobody-here"}, "no such file": {EnvFile: []string{"/no/such"}},
	} {
		in := compile.ExecInput{Input: compile.Input{Facts: *testFacts()}}
		if err := e.execProcess(c.ID, first, o, &in); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%+v: %v, want %q", o, err, text)
		}
	}
	if _, err := e.Exec(t.Context(), "web", ExecOptions{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("without a command: %v", err)
	}
	if _, err := e.Exec(t.Context(), "web", ExecOptions{Command: []string{"ls"}}); !errors.Is(err, ErrConflict) ||
		!strings.Contains(err.Error(), "not running") {
		t.Errorf("in one that doesn't run: %v", err)
	}
}

// TestDebugProcess: root with the container's capabilities and one more, the tools' environment, and what is said of who can look at it.
func TestDebugProcess(t *testing.T) {
	e := opened(t)
	img := made(t, e, "tools")
	c := create(t, e, container.Words{Name: "web"})
	first := supervise.Process{Caps: []string{"CAP_KILL"}, NoNewPrivs: true}
	in := compile.DebugInput{ExecInput: compile.ExecInput{Input: compile.Input{Facts: *testFacts()}}}
	o := &DebugOptions{ExecOptions: ExecOptions{Command: []string{"sh"}, TTY: true, Workdir: "/x/"}}
	if err := e.debugProcess(c.ID, nil, first, o, &in); err != nil {
		t.Fatal(err)
	}
	p := in.Process
	if want := []string{"CAP_KILL", capPtrace}; !slices.Equal(p.Capabilities.Bounding, want) ||
		!slices.Equal(p.Capabilities.Effective, want) {
		t.Errorf("capabilities %+v", p.Capabilities)
	}
	if !p.NoNewPrivileges || p.Cwd != "/x" || !slices.Contains(p.Env, "HOME=/root") || !slices.Contains(p.Env, "TERM=xterm") {
		t.Errorf("got %+v", p)
	}
	if text := exposure(first, p, true); text != "" {
		t.Errorf("nobody in it can look, it says %q", text)
	}
	if text := exposure(supervise.Process{Caps: []string{capPtrace}}, p, false); !strings.Contains(text, "its root can look") {
		t.Errorf("of a container that may trace: %q", text)
	}
	p.User.UID = 9
	if text := exposure(first, p, true); !strings.Contains(text, "processes of user 9") || !strings.Contains(text, "the host's files") {
		t.Errorf("as a user: %q", text)
	}
	for text, o := range map[string]DebugOptions{
		"absolute path": {ExecOptions: ExecOptions{Workdir: "b"}}, "nobody-here": {ExecOptions: ExecOptions{User: "nobody-here"}},
	} {
		if err := e.debugProcess(c.ID, nil, first, &o, &in); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%+v: %v, want %q", o, err, text)
		}
	}

	in = compile.DebugInput{}
	if got, err := e.debugRoot(c.ID, &DebugOptions{}, &in); err != nil || got != nil ||
		!slices.Contains(in.Tools, "/usr") || slices.Contains(in.Tools, "/var") {
		t.Errorf("the host's tools: %v, %v, %v", got, in.Tools, err)
	}
	in = compile.DebugInput{ExecInput: compile.ExecInput{Input: compile.Input{Facts: *testFacts()}}}
	got, err := e.debugRoot(c.ID, &DebugOptions{Image: "tools"}, &in)
	if err != nil || got == nil || got.ID != img.ID || in.Overlay == nil ||
		!strings.HasPrefix(in.Overlay.Upper, "containers/"+c.ID+"/debug-") {
		t.Errorf("an image's tools: %+v, %+v, %v", got, in.Overlay, err)
	}
	if _, err := e.debugRoot(c.ID, &DebugOptions{Image: "gone"}, &in); err == nil {
		t.Error("an image that isn't there has tools")
	}
	if _, err := e.DebugStop(t.Context(), &Stop{}, DebugOptions{}); !errors.Is(err, ErrConflict) {
		t.Errorf("before there is a process: %v", err)
	}
}

// told is a supervisor's end of a session, which says what a test wants.
func told(t *testing.T, trace *plan.Trace, events ...supervise.Event) (s *started, theirs *os.File) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	mine, theirs := os.NewFile(uintptr(pair[0]), "mine"), os.NewFile(uintptr(pair[1]), "theirs")
	t.Cleanup(func() { mine.Close(); theirs.Close() })
	for _, ev := range events {
		if err := json.NewEncoder(theirs).Encode(ev); err != nil {
			t.Fatal(err)
		}
	}
	return &started{socket: mine, events: bufio.NewScanner(mine), trace: trace}, theirs
}

// TestSession: how a caller hears of the end, and what it can ask meanwhile.
func TestSession(t *testing.T) {
	for name, c := range map[string]struct {
		event supervise.Event
		code  int
		err   error
	}{
		"its end":        {supervise.Event{Exited: true, Code: 3}, 3, nil},
		"detach keys":    {supervise.Event{Left: supervise.LeftKeys}, 0, ErrDetached},
		"nobody listens": {supervise.Event{Left: supervise.LeftOutput}, 0, ErrOutputClosed},
	} {
		s, _ := told(t, nil, c.event)
		if code, err := (&Session{process: s}).Wait(t.Context()); code != c.code || err != c.err {
			t.Errorf("%s: %d, %v, want %d, %v", name, code, err, c.code, c.err)
		}
	}
	s, theirs := told(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := (&Session{process: s}).Wait(ctx); err != context.DeadlineExceeded {
		t.Errorf("with a context that ends: %v", err)
	}
	theirs.Close()

	s, theirs = told(t, nil)
	session := &Session{process: s}
	if err := errors.Join(session.Signal(unix.SIGTERM), session.Resize(24, 80)); err != nil {
		t.Fatal(err)
	}
	var asked [2]supervise.Request
	from := json.NewDecoder(theirs)
	if err := errors.Join(from.Decode(&asked[0]), from.Decode(&asked[1])); err != nil || asked[0].Signal != 15 ||
		asked[1].Rows != 24 || asked[1].Cols != 80 {
		t.Errorf("asked %+v, %v", asked, err)
	}
	theirs.Close()
	if code, err := session.Wait(t.Context()); code != 137 || err == nil || !strings.Contains(err.Error(), "supervisor was killed") {
		t.Errorf("a supervisor that was killed: %d, %v", code, err)
	}
	session.Close()

	trace := &plan.Trace{}
	noted := &plan.Trace{Spans: []plan.Span{{Who: "supervisor", Begin: 50}}, Exec: 60, Lost: 2}
	s, _ = told(t, trace, supervise.Event{Traced: true, Trace: noted},
		supervise.Event{Exited: true, Code: 4, Error: "why it is left"})
	session = &Session{process: s}
	if running, err := session.Traced(); !running || err != nil || trace.Exec != 60 || trace.Lost != 2 {
		t.Errorf("traced: %v, %v, %+v", running, err, trace)
	}
	s.late(30)
	if n := len(trace.Spans); n != 2 || trace.Spans[1].Begin != 30 || trace.Spans[1].End != 50 || !trace.Spans[1].Waits {
		t.Errorf("spans %+v", trace.Spans)
	}
	if running, err := session.Traced(); running || err != nil {
		t.Errorf("after its end: %v, %v", running, err)
	}
	if code, err := session.Wait(t.Context()); code != 4 || err != nil || session.Left != "why it is left" {
		t.Errorf("its end: %d, %v, left %q", code, err, session.Left)
	}
	nobody := &Session{}
	if code, err := nobody.Wait(t.Context()); code != 0 || err != nil || nobody.Signal(9) != nil || nobody.Resize(1, 1) != nil {
		t.Errorf("with nobody attached: %d, %v", code, err)
	}
	nobody.Close()
}

// TestStreams: files are handed on as they are, everything else is copied, and nil is /dev/null.
func TestStreams(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var errOut bytes.Buffer
	s := Streams{Stdin: strings.NewReader("typed"), Stdout: file, Stderr: &errOut}
	d, err := s.descriptors(true)
	if err != nil {
		t.Fatal(err)
	}
	if fds := d.fds(); fds[1] != int(file.Fd()) || fds[0] == fds[2] {
		t.Errorf("descriptors %v, the file's is %d", fds, file.Fd())
	}
	cmd := exec.Command("sh", "-c", "cat; echo told >&2")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = d.files[0], d.files[1], d.files[2]
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	d.close()
	d.copies.Wait()
	if out, err := os.ReadFile(file.Name()); string(out) != "typed" || err != nil || errOut.String() != "told\n" {
		t.Errorf("out %q, err %q, %v", out, &errOut, err)
	}
	s = Streams{Stdin: strings.NewReader("typed"), Stdout: (*os.File)(nil)}
	if d, err = s.descriptors(false); err != nil {
		t.Fatal(err)
	}
	for i, f := range d.files {
		if f.Name() != os.DevNull {
			t.Errorf("descriptor %d is %s", i, f.Name())
		}
	}
	if n, err := d.files[0].Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("input that nobody wants: %d, %v", n, err)
	}
	d.close()
}

// TestLook: what is told of a process that stands still.
func TestLook(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	cmd.Dir = "/tmp"
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	l, err := (&Stop{PID: cmd.Process.Pid}).Look()
	if err != nil {
		t.Fatal(err)
	}
	if l.PID != cmd.Process.Pid || l.Root != "/" || l.Cwd != "/tmp" || len(l.Own) > 0 ||
		!slices.Contains(l.Shared, "mnt") || len(l.Mounts) == 0 ||
		!slices.Contains(l.Links, "lo") || len(l.Cgroups) == 0 || l.FDs < 3 {
		t.Errorf("got %+v", l)
	}
	if uid := strings.Fields(l.UID); len(uid) != 4 || l.Caps == "" || l.Bounding == "" {
		t.Errorf("user %v, capabilities %q of %q", uid, l.Caps, l.Bounding)
	}
	if _, err := (&Stop{}).Look(); !errors.Is(err, ErrConflict) {
		t.Errorf("before there is a process: %v", err)
	}
}

// TestShares: another container's namespaces are found by its id, whatever its name becomes, and only while they may be shared.
func TestShares(t *testing.T) {
	e := opened(t)
	donor := create(t, e, container.Words{Name: "donor", Hostname: "first", IPC: "shareable"})
	shy := create(t, e, container.Words{Name: "shy", IPC: "private"})
	c := create(t, e, container.Words{Name: "web", PID: "container:donor", IPC: "container:donor", Network: []string{"container:donor"}})
	if err := e.Rename(t.Context(), "donor", "renamed"); err != nil {
		t.Fatal(err)
	}
	if n := c.Config.Namespaces; string(n.PID) != "container:"+donor.ID || c.Network() != "container:"+donor.ID {
		t.Errorf("it shares %+v, network %s", n, c.Network())
	}
	var a spec.Answers
	if err := e.gatherShared(t.Context(), c, &a); err != nil || len(a.Shared) != 3 || a.Shared["net"].Hostname != "first" ||
		a.Shared["pid"].Container != donor.ID {
		t.Errorf("found %+v, %v", a.Shared, err)
	}
	if err := e.sharesRun(t.Context(), c); !errors.Is(err, ErrConflict) {
		t.Errorf("with one that doesn't run: %v", err)
	}
	if _, err := e.job(t.Context(), c, StartOptions{}); !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), donor.ID) {
		t.Errorf("a start beside one that doesn't run: %v", err)
	}
	supervised(t, e, donor, supervise.State{PID: os.Getpid()})
	if err := e.sharesRun(t.Context(), c); err != nil {
		t.Errorf("with one that runs: %v", err)
	}
	if _, err := e.Create(t.Context(), options(t, container.Words{IPC: "container:" + shy.ID})); !errors.Is(err, ErrInvalid) ||
		!strings.Contains(err.Error(), "non-shareable IPC") {
		t.Errorf("with one that doesn't share: %v", err)
	}
	for name, other := range map[string]container.Words{
		"nothing":               {IPC: "none"},
		"another file system":   {IPC: "shareable", Tmpfs: []string{"/dev/shm/"}},
		"a place of one's own":  {IPC: "container:donor", Volume: []string{"/srv:/dev/shm"}},
		"as nothing is said":    {},
		"another's own mounts":  {IPC: "host", Mount: []string{"type=tmpfs,target=/dev/../dev/shm"}},
		"what another one has":  {IPC: "container:renamed"},
		"what the host has":     {IPC: "host"},
		"a directory beside it": {IPC: "shareable", Tmpfs: []string{"/dev/shm2"}},
	} {
		other.IPC = strings.Replace(other.IPC, "container:donor", "container:renamed", 1)
		want := strings.HasPrefix(name, "what ") || name == "a directory beside it"
		if got := shareable(create(t, e, other)); got != want {
			t.Errorf("%s: shareable is %v", name, got)
		}
	}
	chain := create(t, e, container.Words{Network: []string{"container:web"}})
	if name, err := e.hostnameOf(t.Context(), chain); name != "first" || err != nil {
		t.Errorf("through two containers its name is %q, %v", name, err)
	}
	// Its files are the other's.
	for _, name := range []string{"hosts", "hostname", "resolv.conf"} {
		if err := os.WriteFile(filepath.Join(e.dir(donor.ID), name), []byte("donor's "+name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // each start
		if err := e.hostFiles(c, &wiring{container: donor.ID}, "ignored"); err != nil {
			t.Fatal(err)
		}
	}
	if text, err := os.ReadFile(filepath.Join(e.dir(c.ID), "hostname")); string(text) != "donor's hostname" || err != nil {
		t.Errorf("its file: %q, %v", text, err)
	}
}

// TestNotStarted: why a container could not be tried stands in its state; one that was to be removed at its end is gone.
func TestNotStarted(t *testing.T) {
	e := opened(t)
	c := create(t, e, container.Words{Name: "web"})
	why := errors.New("why not")
	var start *StartError
	if err := e.notStarted(c, why); !errors.As(err, &start) || start.Code != 125 || !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
	if _, s, err := e.load(t.Context(), "web"); err != nil || s.Status != supervise.Created || s.ExitCode != 125 || s.Error != "why not" {
		t.Errorf("its state is %+v, %v", s, err)
	}
	gone := create(t, e, container.Words{Name: "gone", Remove: true})
	if err := e.notStarted(gone, why); !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
	if _, err := e.resolve("gone"); !errors.Is(err, ErrNotFound) {
		t.Errorf("it is still there: %v", err)
	}
}

// TestRepair: a name and a directory that a killed command left are gone when the next one opens the store; what is held stays.
func TestRepair(t *testing.T) {
	e := opened(t)
	kept := create(t, e, container.Words{Name: "kept"})
	half := strings.Repeat("f", 64)
	left := os.WriteFile(e.lockFile(half), nil, 0o600)
	if err := errors.Join(left, os.Mkdir(e.dir(half), 0o700), os.Symlink(half, e.nameFile("half"))); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(e.cfg); err != nil {
		t.Fatal(err)
	}
	if got := entries(t, e.containers()); !slices.Equal(got, []string{kept.ID}) {
		t.Errorf("containers %v", got)
	}
	if got := entries(t, filepath.Join(e.cfg.Root, "names")); !slices.Equal(got, []string{"kept"}) {
		t.Errorf("names %v", got)
	}
}

// TestOrigins: where the steps of a network come from, in the words that were typed.
func TestOrigins(t *testing.T) {
	words := container.Words{Image: "i", Publish: []string{"8000-8001:80-81", "53:53/udp"}, PublishAll: true, Network: []string{"bridge"}}
	cfg, err := words.Config()
	if err != nil {
		t.Fatal(err)
	}
	origin := originOf(cfg)
	if got := origin("publish"); got != "-p 8000-8001:80-81 -p 53:53/udp -P" {
		t.Errorf("of ports: %q", got)
	}
	if got := origin("nothing"); got != "default" {
		t.Errorf("of what nobody asked for: %q", got)
	}
}

// TestObserver: warnings reach who asked, and the trace has what took time.
func TestObserver(t *testing.T) {
	var heard []string
	trace := &plan.Trace{}
	ctx := Observe(t.Context(), Observer{Warn: func(text string) { heard = append(heard, text) }, Trace: trace})
	warn(ctx, "one", "two")
	timed(ctx, "waits")()
	if !slices.Equal(heard, []string{"one", "two"}) || len(trace.Spans) != 1 || trace.Spans[0].What != "waits" {
		t.Errorf("heard %v, spans %+v", heard, trace.Spans)
	}
	warn(t.Context(), "nobody")
	timed(t.Context(), "nobody")()
	if len(heard) != 2 || len(trace.Spans) != 1 {
		t.Errorf("heard of another call: %v, %+v", heard, trace.Spans)
	}
}

// TestHostDevices: device nodes of a directory, and nothing else; swap is counted where the kernel has a file for it.
func TestHostDevices(t *testing.T) {
	nodes := hostDevices("/dev")
	null := func(n spec.Node) bool { return n.Path == "/dev/null" && n.Type == "c" && n.Major == 1 && n.Minor == 3 }
	if !slices.ContainsFunc(nodes, null) {
		t.Errorf("no /dev/null among %v", nodes)
	}
	for _, n := range nodes {
		if n.Path == "/dev/ptmx" || n.Path == "/dev/console" || strings.HasPrefix(n.Path, "/dev/pts/") ||
			strings.HasPrefix(n.Path, "/dev/shm/") {
			t.Errorf("%s is a container's own", n.Path)
		}
	}
	if got := hostDevices(t.TempDir()); got != nil {
		t.Errorf("of an empty directory: %v", got)
	}
	if n, ok := nodeOf("/etc/passwd"); ok {
		t.Errorf("a file is the node %+v", n)
	}
	facts := testFacts()
	h := &facts.Cgroup.Hierarchies[0]
	h.V2, h.Files = false, []string{"memory.memsw.limit_in_bytes"}
	if !swapAccounting(facts) || !controlled(facts, "io") || controlled(facts, "rdma") {
		t.Error("v1 has a file for swap, and these controllers")
	}
	h.Files = nil
	if swapAccounting(facts) {
		t.Error("v1 without a file for swap counts it")
	}
}
