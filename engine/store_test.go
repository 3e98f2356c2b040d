package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"glassbox/container"
	"glassbox/docker"
	"glassbox/image"
	"glassbox/plan"
	"glassbox/state"
	"glassbox/supervise"
)

// opened is an engine with a store of its own, on a host that is always the same. What needs no privileges can be done with it by anybody:
// it takes itself for root's.
func opened(t *testing.T) *Engine {
	t.Helper()
	dir := t.TempDir()
	runtimeFile := filepath.Join(dir, "glassbox-runtime")
	if err := os.WriteFile(runtimeFile, []byte("#!/bin/false\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	e, err := Open(Config{Root: filepath.Join(dir, "root"), State: filepath.Join(dir, "state"), Runtime: runtimeFile})
	if err != nil {
		t.Fatal(err)
	}
	e.facts = testFacts()
	e.facts.Arch = runtime.GOARCH
	return e
}

// rootfs is a directory that can be a container's root.
func rootfs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"bin/sh": "#!/bin/false\n", "etc/passwd": "root:x:0:0::/root:/bin/sh\napp:x:7:8::/home/app:/bin/sh\n", "etc/group": "video:x:44:app\n",
		"etc/hosts": "", "etc/resolv.conf": "",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"dev", "proc", "sys", "tmp"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// options are those of words, on a plain directory unless they name an image.
func options(t *testing.T, w container.Words) CreateOptions {
	t.Helper()
	if w.Image == "" {
		w.Rootfs = rootfs(t)
	}
	if w.Command == nil {
		w.Command = []string{"/bin/sh"}
	}
	if w.Network == nil {
		w.Network = []string{"none"}
	}
	cfg, err := ReadWords(w)
	if err != nil {
		t.Fatal(err)
	}
	return CreateOptions{Name: w.Name, Config: *cfg}
}

func create(t *testing.T, e *Engine, w container.Words) *container.Container {
	t.Helper()
	c, err := e.Create(t.Context(), options(t, w))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// became writes down what has become of a container.
func became(t *testing.T, e *Engine, c *container.Container, s supervise.State) {
	t.Helper()
	if err := supervise.WriteState(e.dir(c.ID), &s); err != nil {
		t.Fatal(err)
	}
}

// supervised is a container that runs, as far as others can see: somebody holds its lock.
func supervised(t *testing.T, e *Engine, c *container.Container, s supervise.State) {
	t.Helper()
	lock, _, err := state.Lock(e.lockFile(c.ID), true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lock.Close() })
	if s.Status == "" {
		s.Status = supervise.Running
	}
	if s.Started.IsZero() {
		s.Started = time.Now()
	}
	s.Boot = supervise.BootID()
	became(t, e, c, s)
}

// made is an image of one file.
func made(t *testing.T, e *Engine, name string) *image.Image {
	t.Helper()
	file := filepath.Join(t.TempDir(), "hello")
	if err := os.WriteFile(file, []byte("hello "+name), 0o644); err != nil {
		t.Fatal(err)
	}
	img, err := e.Images().FromHost(t.Context(), name, image.FromHostOptions{Files: []string{file + ":/hello"}})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// TestCreate: what is made is on the disk, under its name, and can be read back as it was; who can't be made leaves nothing.
func TestCreate(t *testing.T) {
	e := opened(t)
	c := create(t, e, container.Words{Name: "web", Hostname: "h", Env: []string{"A=1"}, Label: []string{"k=v"}, Memory: "64m"})
	again, s, err := e.load(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(c, again); diff != "" {
		t.Errorf("read back (-made +read):\n%s", diff)
	}
	if s.Status != supervise.Created || len(c.ID) != 64 {
		t.Errorf("state %+v, id %s", s, c.ID)
	}
	for _, sub := range []string{"upper", "work", "merged"} {
		if st, err := os.Stat(filepath.Join(e.dir(c.ID), sub)); err != nil || st.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v, %v, want a directory of mode 755", sub, st, err)
		}
	}
	if state.Held(e.lockFile(c.ID)) {
		t.Error("its lock is still held")
	}
	if e.takePrepared("other") != nil || e.takePrepared(c.ID) == nil || e.takePrepared(c.ID) != nil {
		t.Error("what was found out is for one start, of this container")
	}
	if unnamed := create(t, e, container.Words{}); !validName(unnamed.Name) || unnamed.Name == "web" {
		t.Errorf("without a name it got %q", unnamed.Name)
	}

	for name, bad := range map[string]struct {
		words container.Words
		kind  error
		text  string
	}{
		"a name in use":       {container.Words{Name: "web"}, ErrConflict, "already in use by container \"" + c.ID},
		"no name":             {container.Words{Name: "a b"}, ErrInvalid, "invalid container name (a b)"},
		"another's processes": {container.Words{PID: "container:gone"}, ErrNotFound, "no such container: gone"},
		"no signal":           {container.Words{StopSignal: "NOSUCH"}, ErrInvalid, "invalid signal: NOSUCH"},
		"no such source": {
			container.Words{Mount: []string{"type=bind,source=/no/such,target=/x"}},
			ErrInvalid,
			"bind source path does not exist",
		},
		"no such device": {container.Words{Device: []string{"/dev/no-such"}}, ErrInvalid, "error gathering device information"},
		"no such filter": {
			container.Words{SecurityOpt: []string{"seccomp=/no/such"}},
			ErrInvalid,
			"opening seccomp profile (/no/such) failed",
		},
		"an image not there": {container.Words{Image: "nowhere.invalid/x"}, image.ErrNotFound, "nowhere.invalid/x"},
		"no such user":       {container.Words{User: "nobody-here"}, nil, "nobody-here"},
	} {
		before := entries(t, e.containers())
		_, err := e.Create(t.Context(), options(t, bad.words))
		if err == nil || bad.kind != nil && !errors.Is(err, bad.kind) || !strings.Contains(err.Error(), bad.text) {
			t.Errorf("%s: %v, want %q", name, err, bad.text)
		}
		if left := entries(t, e.containers()); !slices.Equal(left, before) {
			t.Errorf("%s: it left %v", name, left)
		}
	}
	e.facts.UID = 1000
	if _, err := e.Create(t.Context(), options(t, container.Words{})); !errors.Is(err, ErrUnsupported) {
		t.Errorf("as an ordinary user: %v", err)
	}
	e.facts.UID, e.cfg.Runtime = 0, "/no/such/runtime"
	if _, err := e.Create(t.Context(), options(t, container.Words{})); !errors.Is(err, ErrInvalid) ||
		!strings.Contains(err.Error(), "/no/such/runtime") {
		t.Errorf("without the runtime: %v", err)
	}
	e.cfg.Runtime = "/bin/sh"
	if _, err := e.Create(t.Context(), CreateOptions{Config: container.Config{Rootfs: &container.Rootfs{Dir: "/etc/passwd"}}}); err == nil ||
		!strings.Contains(err.Error(), "it is no directory") {
		t.Errorf("on a file: %v", err)
	}
}

func entries(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range list {
		names = append(names, entry.Name())
	}
	return names
}

// TestResolve: an id, a name, the beginning of an id that only one has; a name comes before a beginning.
func TestResolve(t *testing.T) {
	e := opened(t)
	a := strings.Repeat("a", 64)
	b := "aab" + a[3:]
	for id, name := range map[string]string{a: "first", b: "aaa"} {
		if err := e.write(&container.Container{Version: container.Version, ID: id, Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	for ref, want := range map[string]string{a: a, b: b, "first": a, "aab": b, "aaaa": a, "aaa": b} {
		if got, err := e.resolve(ref); err != nil || got != want {
			t.Errorf("%s: %s, %v, want %s", ref, got, err, want)
		}
	}
	for _, ref := range []string{"", "none", "../containers/" + a, "a\x00", strings.Repeat("c", 64)} {
		if got, err := e.resolve(ref); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %s, %v, want that there is none", ref, got, err)
		}
	}
	if _, err := e.resolve("aa"); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "several") {
		t.Errorf("the beginning of two ids: %v", err)
	}
	if got := e.nameFileOf(a); got != e.nameFile("first") {
		t.Errorf("the name of %s is at %q", a, got)
	}
	if got := e.nameFileOf("none"); got != "" {
		t.Errorf("the name of none is at %q", got)
	}
}

func TestRename(t *testing.T) {
	e := opened(t)
	c := create(t, e, container.Words{Name: "old"})
	create(t, e, container.Words{Name: "taken"})
	for name, want := range map[string]error{"taken": ErrConflict, "old": ErrInvalid, "a/b": ErrInvalid} {
		if err := e.Rename(t.Context(), "old", name); !errors.Is(err, want) {
			t.Errorf("to %s: %v, want %v", name, err, want)
		}
	}
	if err := e.Rename(t.Context(), "gone", "x1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("one that isn't there: %v", err)
	}
	if err := e.Rename(t.Context(), "old", "new"); err != nil {
		t.Fatal(err)
	}
	if got, _, err := e.load(t.Context(), "new"); err != nil || got.ID != c.ID || got.Name != "new" {
		t.Errorf("by its new name: %+v, %v", got, err)
	}
	if _, err := e.resolve("old"); !errors.Is(err, ErrNotFound) {
		t.Errorf("by its old name: %v", err)
	}
	if names := entries(t, filepath.Join(e.cfg.Root, "names")); !slices.Equal(names, []string{"new", "taken"}) {
		t.Errorf("names %v", names)
	}
}

// TestRemove: nothing is left of a container, and one that runs stays unless it is forced.
func TestRemove(t *testing.T) {
	e := opened(t)
	c := create(t, e, container.Words{Name: "web"})
	if err := e.Remove(t.Context(), "web", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{e.containers(), filepath.Join(e.cfg.Root, "names"), e.locks()} {
		if left := entries(t, dir); len(left) > 0 {
			t.Errorf("%s: %v is left of %s", dir, left, c.ID)
		}
	}
	if err := e.Remove(t.Context(), "web", RemoveOptions{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("once more: %v", err)
	}
	// One whose file is damaged can be removed, too.
	c = create(t, e, container.Words{Name: "web"})
	if err := os.WriteFile(filepath.Join(e.dir(c.ID), supervise.ContainerFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := e.Remove(t.Context(), "web", RemoveOptions{}); err != nil {
		t.Error(err)
	}
	if left := entries(t, e.containers()); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
	c = create(t, e, container.Words{Name: "web"})
	supervised(t, e, c, supervise.State{PID: os.Getpid()})
	if err := e.Remove(t.Context(), "web", RemoveOptions{}); !errors.Is(err, ErrConflict) {
		t.Errorf("one that runs: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := os.Remove(filepath.Join(e.dir(c.ID), supervise.StateFile)); err != nil { // it isn't alive, but somebody works on it
		t.Fatal(err)
	}
	if err := e.Remove(ctx, c.ID, RemoveOptions{}); err != context.Canceled {
		t.Errorf("the wait for a lock that somebody holds: %v", err)
	}
}

// TestRemoveLost: a file that tells another ID or name leads to no other place than the container's own.
func TestRemoveLost(t *testing.T) {
	e := opened(t)
	outside := filepath.Join(e.cfg.Root, "outside")
	for what, change := range map[string]func(c *container.Container){
		"ID":   func(c *container.Container) { c.ID = "../outside" },
		"name": func(c *container.Container) { c.Name = "../outside/file" },
	} {
		if err := os.MkdirAll(outside, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(outside, "file"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		c := create(t, e, container.Words{Name: "web"})
		dir := e.dir(c.ID)
		change(c)
		if err := state.WriteJSON(filepath.Join(dir, supervise.ContainerFile), c); err != nil {
			t.Fatal(err)
		}
		if _, err := e.Inspect(t.Context(), "web"); err == nil {
			t.Errorf("%s: it is taken for sound", what)
		}
		if err := e.Remove(t.Context(), "web", RemoveOptions{}); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := os.Stat(filepath.Join(outside, "file")); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if left := append(entries(t, e.containers()), entries(t, filepath.Join(e.cfg.Root, "names"))...); len(left) > 0 {
			t.Errorf("%s: %v is left", what, left)
		}
	}
}

// TestList: which containers are told, in which order, and what is told of them.
func TestList(t *testing.T) {
	e := opened(t)
	img := made(t, e, "box")
	var ids []string
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for i, w := range []container.Words{
		{Name: "first", Label: []string{"a=1", "b=2"}},
		{Name: "second", Label: []string{"a=2"}, Network: []string{"host"}},
		{Name: "third", Image: "box", Volume: []string{"/srv/data:/data"}},
		{Name: "fourth"},
	} {
		c := create(t, e, w)
		// Moments whose texts are of different lengths, as trailing zeros aren't written.
		c.Created = at.Add([]time.Duration{0, 500 * time.Millisecond, 510 * time.Millisecond, time.Second}[i])
		if err := state.WriteJSON(filepath.Join(e.dir(c.ID), supervise.ContainerFile), c); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, c.ID)
		switch i {
		case 1:
			supervised(t, e, c, supervise.State{PID: os.Getpid(), Ports: []plan.PortRule{{Proto: "tcp", HostPort: 80, ContainerPort: 8080}}})
		case 2:
			became(t, e, c, supervise.State{Status: supervise.Exited, ExitCode: 3, Started: at, Finished: at.Add(time.Second)})
		}
	}
	if err := os.Mkdir(filepath.Join(e.containers(), "halfmade"), 0o700); err != nil {
		t.Fatal(err)
	}
	names := func(o ListOptions) string {
		t.Helper()
		list, err := e.List(t.Context(), o)
		if err != nil {
			t.Errorf("%+v: %v", o, err)
		}
		var names []string
		for _, s := range list {
			names = append(names, strings.TrimPrefix(s.Names[0], "/"))
		}
		return strings.Join(names, " ")
	}
	for _, c := range []struct {
		o    ListOptions
		want string
	}{
		{ListOptions{}, "second"},
		{ListOptions{All: true}, "fourth third second first"},
		{ListOptions{Last: 2}, "fourth third"},
		{ListOptions{Filters: []string{"status=exited"}}, "third"},
		{ListOptions{Filters: []string{"status=exited", "status=created"}}, "fourth third first"},
		{ListOptions{Filters: []string{"status=dead"}}, ""},
		{ListOptions{Filters: []string{"exited=3"}}, "third"},
		{ListOptions{Filters: []string{"exited=0"}}, ""},
		{ListOptions{All: true, Filters: []string{"label=a"}}, "second first"},
		{ListOptions{All: true, Filters: []string{"label=a=1"}}, "first"},
		{ListOptions{All: true, Filters: []string{"label=a", "label=b"}}, "first"},
		{ListOptions{All: true, Filters: []string{"label=c"}}, ""},
		{ListOptions{All: true, Filters: []string{"name=ir"}}, "third first"},
		{ListOptions{All: true, Filters: []string{"name=/second", "name=fourth"}}, "fourth second"},
		{ListOptions{All: true, Filters: []string{"name=^first$"}}, "first"},
		{ListOptions{All: true, Filters: []string{"name=^/first$"}}, "first"},
		{ListOptions{All: true, Filters: []string{"name=^ir"}}, ""},
		{ListOptions{All: true, Filters: []string{"name=fi.*|se[c]"}}, "second first"},
		{ListOptions{All: true, Filters: []string{"name=["}}, ""},
		{ListOptions{All: true, Filters: []string{"id=" + ids[3][:12]}}, "fourth"},
		{ListOptions{All: true, Filters: []string{"id=^" + ids[3] + "$"}}, "fourth"},
		{ListOptions{All: true, Filters: []string{"ancestor=box"}}, "third"},
		{ListOptions{All: true, Filters: []string{"ancestor=" + img.ID}}, "third"},
		{ListOptions{All: true, Filters: []string{"network=host"}}, "second"},
		{ListOptions{All: true, Filters: []string{"volume=/data"}}, "third"},
		{ListOptions{All: true, Filters: []string{"volume=/srv/data", "name=first"}}, ""},
		{ListOptions{All: true, Filters: []string{"before=second"}}, "first"},
		{ListOptions{All: true, Filters: []string{"before=third"}}, "second first"},
		{ListOptions{All: true, Filters: []string{"since=first"}}, "fourth third second"},
		{ListOptions{All: true, Filters: []string{"since=third"}}, "fourth"},
		{ListOptions{All: true, Filters: []string{"since=first", "before=fourth"}}, "third second"},
	} {
		if got := names(c.o); got != c.want {
			t.Errorf("%+v: %q, want %q", c.o, got, c.want)
		}
	}
	for filter, want := range map[string]error{
		"name": ErrInvalid, "colour=red": ErrInvalid, "status=asleep": ErrInvalid, "exited=x": ErrInvalid, "before=gone": ErrNotFound,
	} {
		if _, err := e.List(t.Context(), ListOptions{Filters: []string{filter}}); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", filter, err, want)
		}
	}
	list, err := e.List(t.Context(), ListOptions{})
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	if diff := cmp.Diff([]docker.PortSummary{{IP: "0.0.0.0", PrivatePort: 8080, PublicPort: 80, Type: "tcp"}}, list[0].Ports); diff != "" {
		t.Errorf("ports (-want +got):\n%s", diff)
	}
	if got := e.ImageUsers(t.Context(), img.ID); !slices.Equal(got, []string{"third"}) {
		t.Errorf("the image's users are %v", got)
	}

	info, err := e.Info(t.Context(), "1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	got := []any{
		info.Containers, info.ContainersRunning, info.ContainersStopped, info.Images, info.ServerVersion, info.NCPU, info.MemTotal,
		info.CgroupVersion, info.DockerRootDir, info.MemoryLimit, info.PidsLimit, info.KernelVersion, info.SecurityOptions,
	}
	want := []any{
		4, 1, 3, 1, "1.2.3", 4, int64(8 << 30), "2", e.cfg.Root, true, true, "6.6.0",
		[]string{"name=apparmor", "name=seccomp,profile=builtin", "name=cgroupns"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("info (-want +got):\n%s", diff)
	}
}

func TestOSRelease(t *testing.T) {
	file := filepath.Join(t.TempDir(), "os-release")
	if err := os.WriteFile(file, []byte("NAME=x\nPRETTY_NAME=\"Some Linux 9\"\nVERSION_ID='9'\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if name, version := osRelease(file); name != "Some Linux 9" || version != "9" {
		t.Errorf("got %q, %q", name, version)
	}
	if name, version := osRelease(file + "x"); name != "Linux" || version != "" {
		t.Errorf("without a file: %q, %q", name, version)
	}
}

// TestInspect: what is told of a container before its first start, while it runs, and of one whose plan is damaged.
func TestInspect(t *testing.T) {
	e := opened(t)
	img := made(t, e, "box")
	c := create(t, e, container.Words{Name: "web", Image: "box", Command: []string{"/hello", "x"}, Hostname: "h"})
	d, err := e.Inspect(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	got := []any{
		d.ID, d.Name, d.Path, d.Args, d.State.Status, d.Image, d.Config.Hostname, d.Config.Image, d.Glassbox.Steps,
		d.Glassbox.Directory,
	}
	want := []any{c.ID, "/web", "/hello", []string{"x"}, "created", img.ID, "h", "box", 0, e.dir(c.ID)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("before the first start (-want +got):\n%s", diff)
	}
	if lower := e.lower(c); len(lower) != 1 || !isDir(lower[0]) {
		t.Errorf("layers %v", lower)
	}
	p := planned(t, e, c)
	supervised(t, e, c, supervise.State{PID: os.Getpid()})
	d, err = e.Inspect(t.Context(), "web")
	if err != nil || !d.State.Running || d.State.Pid != os.Getpid() || d.Glassbox.Steps != len(p.Steps) {
		t.Errorf("while it runs: %+v, %v", d, err)
	}
	if err := os.WriteFile(filepath.Join(e.dir(c.ID), supervise.PlanFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Inspect(t.Context(), "web"); err == nil || !strings.Contains(err.Error(), supervise.PlanFile) {
		t.Errorf("with a damaged plan: %v", err)
	}
	if _, err := e.Inspect(t.Context(), "gone"); !errors.Is(err, ErrNotFound) {
		t.Errorf("one that isn't there: %v", err)
	}
}

// planned writes plan and job of a container's start, without the start.
func planned(t *testing.T, e *Engine, c *container.Container) *plan.Plan {
	t.Helper()
	job, err := e.job(t.Context(), c, StartOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := state.WriteJSON(filepath.Join(e.dir(c.ID), supervise.PlanFile), job.Plan); err != nil {
		t.Fatal(err)
	}
	if err := state.WriteJSON(filepath.Join(e.dir(c.ID), supervise.JobFile), job); err != nil {
		t.Fatal(err)
	}
	return job.Plan
}

// TestUnreadable: a container whose container.json can't be read isn't passed over in silence; one that a newer build wrote goes
// by force only.
func TestUnreadable(t *testing.T) {
	for name, bad := range map[string]struct{ file, want string }{
		"newer":   {`{"version":99}`, "written by a newer glassbox (version 99"},
		"damaged": {`{"version":2,`, "unexpected end"},
		"empty":   {"", "unexpected end"},
		"another": {`{"version":2,"id":"../../../etc","name":"web"}`, "it is not this container's"},
	} {
		t.Run(name, func(t *testing.T) {
			e := opened(t)
			create(t, e, container.Words{Name: "well"})
			c := create(t, e, container.Words{Name: "web"})
			if err := os.WriteFile(filepath.Join(e.dir(c.ID), supervise.ContainerFile), []byte(bad.file), 0o600); err != nil {
				t.Fatal(err)
			}
			told := map[string]string{}
			list, err := e.List(t.Context(), ListOptions{All: true, Unreadable: func(id string, err error) { told[id] = err.Error() }})
			if err != nil || len(list) != 1 || len(told) != 1 || !strings.Contains(told[c.ID], bad.want) {
				t.Errorf("listed %v, told %v, %v", list, told, err)
			}
			for _, ref := range []string{"web", c.ID} {
				if name != "newer" { // what is damaged is nobody's
					continue
				}
				err = e.Remove(t.Context(), ref, RemoveOptions{})
				if !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), bad.want) || !strings.Contains(err.Error(), "--force") {
					t.Errorf("removing %s: %v", ref, err)
				}
			}
			if err := e.Remove(t.Context(), "web", RemoveOptions{Force: true}); err != nil {
				t.Errorf("by force: %v", err)
			}
			if left := entries(t, e.containers()); len(left) != 1 {
				t.Errorf("left: %v", left)
			}
		})
	}
}
