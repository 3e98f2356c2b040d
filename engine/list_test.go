package engine

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"glassbox/container"
	"glassbox/supervise"
)

// watched returns a function that tells which files of directories have been opened since it was called last.
func watched(t *testing.T, dirs ...string) (opened func() []string) {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	for _, dir := range dirs {
		if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_OPEN); err != nil {
			t.Fatal(err)
		}
	}
	return func() (names []string) {
		buf := make([]byte, 64<<10)
		n, err := unix.Read(fd, buf)
		if err != nil && err != unix.EAGAIN {
			t.Fatal(err)
		}
		// struct inotify_event (inotify(7)): wd, mask, cookie, len of 4 bytes each, and the name, filled up with NULs.
		for rest := buf[:max(n, 0)]; len(rest) >= 16; {
			size := 16 + int(binary.NativeEndian.Uint32(rest[12:]))
			names = append(names, string(bytes.TrimRight(rest[16:size], "\x00")))
			rest = rest[size:]
		}
		slices.Sort(names)
		return slices.Compact(names)
	}
}

// recorded is a network that has a record and, until its first container, no bridge.
func recorded(t *testing.T, e *Engine, name string) {
	t.Helper()
	file := filepath.Join(e.cfg.Root, "network", name+".json")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(`{"version":1,"id":"`+newID()+`","driver":"bridge"}`), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestListOpens: a list of what runs opens no file of a container that doesn't, and no record of a network that none of its containers is
// on. A store may hold thousands of both.
func TestListOpens(t *testing.T) {
	e := opened(t)
	for _, name := range []string{"here", "elsewhere"} {
		recorded(t, e, name)
	}
	var still []string
	for _, name := range []string{"first", "second"} {
		c := create(t, e, container.Words{Name: name, Network: []string{"elsewhere"}})
		became(t, e, c, supervise.State{Status: supervise.Exited, ExitCode: 3})
		still = append(still, e.dir(c.ID))
	}
	runs := create(t, e, container.Words{Name: "runs", Network: []string{"here"}})
	supervised(t, e, runs, supervise.State{})

	stopped, networks := watched(t, still...), watched(t, filepath.Join(e.cfg.Root, "network"))
	for _, o := range []ListOptions{{}, {Filters: []string{"name=runs"}}, {Filters: []string{"network=here"}}} {
		list, err := e.List(t.Context(), o)
		if err != nil || len(list) != 1 || list[0].ID != runs.ID {
			t.Fatalf("%v: listed %v, %v", o.Filters, list, err)
		}
		if got := stopped(); len(got) > 0 {
			t.Errorf("%v: of containers that don't run it has opened %v", o.Filters, got)
		}
		if got := networks(); slices.Contains(got, "elsewhere.json") || !slices.Contains(got, "here.json") {
			t.Errorf("%v: of networks it has opened %v", o.Filters, got)
		}
	}
	if _, err := e.Inspect(t.Context(), "runs"); err != nil {
		t.Fatal(err)
	}
	if got := networks(); slices.Contains(got, "elsewhere.json") {
		t.Errorf("inspect has opened %v", got)
	}
	// The watch sees what is opened.
	if list, err := e.List(t.Context(), ListOptions{All: true}); err != nil || len(list) != 3 {
		t.Errorf("all: %v, %v", list, err)
	}
	if got := stopped(); !slices.Contains(got, supervise.ContainerFile) {
		t.Errorf("a list of all has opened %v", got)
	}
}

// TestPruneUnreadable: what a container uses that can't be read is not known, and so nothing is known to be unused.
func TestPruneUnreadable(t *testing.T) {
	e := opened(t)
	recorded(t, e, "backend")
	img := made(t, e, "box").ID
	c := create(t, e, container.Words{Name: "web", Network: []string{"backend"}})
	file := filepath.Join(e.dir(c.ID), supervise.ContainerFile)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(`{"version":99}`), 0o600); err != nil {
		t.Fatal(err)
	}
	var gone Pruned
	for what, err := range map[string]error{
		"networks": e.PruneNetworks(t.Context(), nil, &gone), "images": e.PruneImages(t.Context(), true, nil, &gone),
	} {
		if err == nil || !strings.Contains(err.Error(), c.ID[:12]) || !strings.Contains(err.Error(), "version 99") {
			t.Errorf("%s: got %v, want that the container can't be read", what, err)
		}
	}
	if _, err := e.NetworkList(t.Context(), []string{"dangling=true"}); err == nil {
		t.Error("networks that nobody uses are listed, though that isn't known")
	}
	if users := e.ImageUsers(t.Context(), img); len(users) != 1 {
		t.Errorf("users of the image: %v", users)
	}
	if len(gone.Networks)+len(gone.Images)+len(gone.Untagged) > 0 {
		t.Errorf("removed: %+v", gone)
	}
	// Read again, and put off its network, it keeps neither.
	if err := os.WriteFile(file, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := e.Remove(t.Context(), "web", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := e.PruneNetworks(t.Context(), nil, &gone); err != nil || !slices.Equal(gone.Networks, []string{"backend"}) {
		t.Errorf("pruned %v, %v", gone.Networks, err)
	}
	if err := e.PruneImages(t.Context(), true, nil, &gone); err != nil || len(gone.Images) == 0 {
		t.Errorf("pruned %v, %v", gone.Images, err)
	}
}
