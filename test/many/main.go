// Many is one engine with many callers: 32 goroutines make, start, list, exec into, follow and remove containers at the same time. It is
// built with the race detector (see TestManyCallers), whose findings end it with 66; its own are lines on stderr and an exit code of 1.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/container"
	"glassbox/engine"
	"glassbox/event"
	"glassbox/fork"
)

const callers = 32

func main() {
	e, err := engine.Open(engine.Config{Root: os.Args[1], State: os.Args[2], Runtime: os.Args[3]})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	files, routines := held()
	began := time.Now()
	var bad atomic.Bool
	var all sync.WaitGroup
	for n := range callers {
		all.Go(func() {
			if err := one(e, n); err != nil {
				fmt.Fprintf(os.Stderr, "caller %d: %v\n", n, err)
				bad.Store(true)
			}
		})
	}
	all.Wait()
	if err := told(e, began); err != nil {
		fmt.Fprintln(os.Stderr, err)
		bad.Store(true)
	}
	if err := killed(e); err != nil {
		fmt.Fprintln(os.Stderr, "after its supervisor was killed:", err)
		bad.Store(true)
	}
	if list, err := e.List(context.Background(), engine.ListOptions{All: true}); err != nil || len(list) > 0 {
		fmt.Fprintln(os.Stderr, "left:", list, err)
		bad.Store(true)
	}
	if err := heldAgain(files, routines); err != nil {
		fmt.Fprintln(os.Stderr, err)
		bad.Store(true)
	}
	if bad.Load() {
		os.Exit(1)
	}
}

// held counts what a long-lived engine must not lose: open files and goroutines.
func held() (files, routines int) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return -1, -1
	}
	return len(entries), runtime.NumGoroutine()
}

// heldAgain waits until there are no more than there were, but for a few that the Go runtime keeps (its poller, its pidfds): each caller
// losing one would be 32 more.
func heldAgain(files, routines int) error {
	const few = 8
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		f, r := held()
		if f <= files+few && r <= routines+few {
			return nil
		}
		if time.Now().After(end) {
			kinds := map[string]int{}
			entries, _ := os.ReadDir("/proc/self/fd")
			for _, e := range entries {
				to, _ := os.Readlink("/proc/self/fd/" + e.Name())
				kinds[strings.TrimRight(to, "[]0123456789")]++
			}
			return fmt.Errorf("%d files and %d goroutines at first, %d and %d in the end: %v", files, routines, f, r, kinds)
		}
	}
}

// one is what a caller does. Each thing that it gets must be its own.
func one(e *engine.Engine, n int) error {
	var warned []string
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	ctx = engine.Observe(ctx, engine.Observer{Warn: func(text string) { warned = append(warned, text) }})
	name := fmt.Sprintf("many-%d", n)
	script := "echo out-" + name + "; read line; echo got-$line; exit 3"
	config := container.Config{Image: "busybox", Command: []string{"sh", "-c", script}, OpenStdin: true}
	config.Endpoints = []container.Endpoint{{Network: []string{"none", "bridge"}[n%2]}}
	c, err := e.Create(ctx, engine.CreateOptions{Name: name, Config: config})
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	var out bytes.Buffer
	in, typed, err := os.Pipe()
	if err != nil {
		return err
	}
	defer in.Close()
	s, err := e.Start(ctx, c.ID, engine.StartOptions{Attach: true, Interactive: true, Streams: engine.Streams{Stdin: in, Stdout: &out}})
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	defer s.Close()
	if err := beside(ctx, e, c.ID, name); err != nil {
		return err
	}
	follower, err := e.Attach(ctx, name, engine.AttachOptions{Streams: engine.Streams{Stdout: new(bytes.Buffer)}})
	if err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	defer follower.Close()
	fmt.Fprintln(typed, n)
	typed.Close()
	code, err := s.Wait(ctx)
	if want := fmt.Sprintf("out-%s\ngot-%d\n", name, n); err != nil || code != 3 || out.String() != want {
		return fmt.Errorf("container: code %d, %w, output %q, want %q", code, err, out.String(), want)
	}
	if code, err := follower.Wait(ctx); err != nil || code != 3 {
		return fmt.Errorf("follower: code %d, %w", code, err)
	}
	if code, err := e.Wait(ctx, name, ""); err != nil || code != 3 {
		return fmt.Errorf("wait: code %d, %w", code, err)
	}
	if len(warned) > 0 {
		return fmt.Errorf("warned of %q", warned)
	}
	if err := e.Remove(ctx, name, engine.RemoveOptions{}); err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	if _, err := e.Inspect(ctx, name); !errors.Is(err, engine.ErrNotFound) {
		return fmt.Errorf("inspect after remove: %w", err)
	}
	return nil
}

// beside looks at a running container and runs commands in it.
func beside(ctx context.Context, e *engine.Engine, id, name string) error {
	list, err := e.List(ctx, engine.ListOptions{})
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	found := false
	for _, c := range list {
		found = found || c.ID == id
	}
	if !found {
		return fmt.Errorf("%s is not among the %d that run", name, len(list))
	}
	for i := range 3 {
		var out bytes.Buffer
		text := fmt.Sprintf("exec-%s-%d", name, i)
		s, err := e.Exec(ctx, name, engine.ExecOptions{
			Command: []string{"sh", "-c", "cat; echo " + text}, Interactive: true,
			Streams: engine.Streams{Stdin: strings.NewReader(text + "\n"), Stdout: &out},
		})
		if err != nil {
			return fmt.Errorf("exec: %w", err)
		}
		code, err := s.Wait(ctx)
		s.Close()
		if want := text + "\n" + text + "\n"; err != nil || code != 0 || out.String() != want {
			return fmt.Errorf("exec: code %d, %w, output %q, want %q", code, err, out.String(), want)
		}
	}
	if err := e.Pause(ctx, name); err != nil {
		return fmt.Errorf("pause: %w", err)
	}
	if err := e.Unpause(ctx, name); err != nil {
		return fmt.Errorf("unpause: %w", err)
	}
	return nil
}

// killed kills a supervisor under an engine that stays open: the next verb sees what is true, and the container starts again.
func killed(e *engine.Engine) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	const name = "orphan"
	config := container.Config{Image: "busybox", Command: []string{"sleep", "1000"}}
	if _, err := e.Create(ctx, engine.CreateOptions{Name: name, Config: config}); err != nil {
		return err
	}
	for range 2 {
		s, err := e.Start(ctx, name, engine.StartOptions{})
		if err != nil {
			return fmt.Errorf("start: %w", err)
		}
		s.Close()
		d, err := e.Inspect(ctx, name)
		if err != nil || !d.State.Running {
			return fmt.Errorf("inspect: %+v, %w", d, err)
		}
		supervisor, err := fork.ReadStat(d.State.Pid)
		if err != nil {
			return err
		}
		if err := unix.Kill(supervisor.Parent, unix.SIGKILL); err != nil {
			return err
		}
		for state := ""; state != "exited"; { // the kernel frees its lock when it has ended, which takes a moment
			list, err := e.List(ctx, engine.ListOptions{All: true})
			if err != nil || len(list) != 1 {
				return fmt.Errorf("list: %v, %w", list, err)
			}
			state = list[0].State
		}
	}
	return e.Remove(ctx, name, engine.RemoveOptions{})
}

// told checks that each container's story stands in the journal, in its order.
func told(e *engine.Engine, since time.Time) error {
	stories := map[string][]string{}
	o := engine.EventOptions{Since: since, Until: time.Now(), Filters: []string{"type=container"}}
	err := e.Events(context.Background(), o, func(ev event.Event) error {
		switch ev.Name() {
		case event.Create, event.Start, event.Pause, event.Unpause, event.Attach, event.Die, event.Destroy:
			name := ev.Actor.Attributes["name"]
			stories[name] = append(stories[name], ev.Action)
		}
		return nil
	})
	if err != nil {
		return err
	}
	const want = "create start pause unpause attach die destroy"
	for n := range callers {
		name := fmt.Sprintf("many-%d", n)
		if got := strings.Join(stories[name], " "); got != want {
			return fmt.Errorf("events of %s: %s, want %s", name, got, want)
		}
	}
	return nil
}
