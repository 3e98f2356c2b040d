package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/container"
	"glassbox/supervise"
)

// written is a buffer for one who writes and one who reads.
type written struct {
	mutex sync.Mutex
	text  bytes.Buffer
}

func (w *written) Write(p []byte) (int, error) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.text.Write(p)
}

func (w *written) String() string {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.text.String()
}

// logged appends lines to a log, as a supervisor does.
func logged(t *testing.T, file string, lines ...supervise.Line) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, l := range lines {
		if err := json.NewEncoder(f).Encode(l); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLogs: the lines of all files, oldest first, each to its stream, those that are asked for.
func TestLogs(t *testing.T) {
	e := opened(t)
	c := create(t, e, container.Words{Name: "web"})
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	line := func(n int, stream string) supervise.Line {
		return supervise.Line{Log: fmt.Sprintf("line %d\n", n), Stream: stream, Time: at.Add(time.Duration(n) * time.Second)}
	}
	file := filepath.Join(e.dir(c.ID), supervise.LogFile)
	logged(t, file+".2", line(0, "stdout"))
	logged(t, file+".1", line(1, "stdout"), line(2, "stderr"))
	if err := os.WriteFile(file, []byte("\x00\x00 damaged\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	logged(t, file, line(3, "stdout"))
	all := LogOptions{Tail: -1}
	with := func(change func(*LogOptions)) LogOptions {
		o := all
		change(&o)
		return o
	}
	for _, c := range []struct {
		o           LogOptions
		out, errOut string
	}{
		{all, "line 0\nline 1\nline 3\n", "line 2\n"},
		{with(func(o *LogOptions) { o.Tail = 2 }), "line 3\n", "line 2\n"},
		{with(func(o *LogOptions) { o.Tail = 0 }), "", ""},
		{with(func(o *LogOptions) { o.Since = at.Add(2 * time.Second) }), "line 3\n", "line 2\n"},
		{with(func(o *LogOptions) { o.Until = at.Add(time.Second) }), "line 0\nline 1\n", ""},
		{with(func(o *LogOptions) { o.Tail, o.Timestamps = 1, true }), "2026-01-02T03:04:08.000000006Z line 3\n", ""},
		// One that doesn't run is not followed.
		{with(func(o *LogOptions) { o.Follow = true }), "line 0\nline 1\nline 3\n", "line 2\n"},
	} {
		var out, errOut bytes.Buffer
		if err := e.Logs(t.Context(), "web", c.o, &out, &errOut); err != nil || out.String() != c.out || errOut.String() != c.errOut {
			t.Errorf("%+v: %v, out %q, err %q, want %q, %q", c.o, err, &out, &errOut, c.out, c.errOut)
		}
	}
	if err := e.Logs(t.Context(), "gone", all, nil, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("of one that isn't there: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := e.Logs(ctx, "web", all, &bytes.Buffer{}, &bytes.Buffer{}); err != context.Canceled {
		t.Errorf("with a context that has ended: %v", err)
	}
	// Who reads has gone (head): that is no error. A disk that is full is one.
	gone, full := &os.PathError{Op: "write", Err: unix.EPIPE}, &os.PathError{Op: "write", Err: unix.ENOSPC}
	if err := e.Logs(t.Context(), "web", all, failing{gone}, failing{gone}); err != nil {
		t.Errorf("to a reader that went away: %v", err)
	}
	if err := e.Logs(t.Context(), "web", all, failing{full}, failing{full}); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("to a full disk: %v", err)
	}
}

// TestLogsLong: a long line, which the log has in pieces, is one line: with one time, that of its beginning, in the choice of lines, too.
// What a run left without a newline is a line of its own.
func TestLogsLong(t *testing.T) {
	e := opened(t)
	c := create(t, e, container.Words{Name: "web"})
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	piece := func(n int, stream, text string) supervise.Line {
		return supervise.Line{Log: text, Stream: stream, Time: at.Add(time.Duration(n) * time.Second)}
	}
	a, b := strings.Repeat("a", 16<<10), strings.Repeat("b", 16<<10-2) // the second was cut before a character
	logged(t, filepath.Join(e.dir(c.ID), supervise.LogFile),
		piece(0, "stdout", "first\n"), piece(1, "stdout", a), piece(2, "stderr", b), piece(3, "stdout", a), piece(4, "stderr", "b\n"),
		piece(5, "stdout", "a\n"), piece(6, "stdout", "no end"), piece(7, "stdout", "last\n"))
	stamp := func(n int) string { return fmt.Sprintf("2026-01-02T03:04:%02d.000000006Z ", 5+n) }
	for name, want := range map[string]struct {
		o           LogOptions
		out, errOut string
	}{
		"all": {
			LogOptions{Tail: -1, Timestamps: true},
			stamp(0) + "first\n" + stamp(1) + a + a + "a\n" + stamp(6) + "no end" + stamp(7) + "last\n", stamp(2) + b + "b\n",
		},
		"the last four": {
			LogOptions{Tail: 4, Timestamps: true},
			stamp(1) + a + a + "a\n" + stamp(6) + "no end" + stamp(7) + "last\n", stamp(2) + b + "b\n",
		},
		"the last two":        {LogOptions{Tail: 2}, "no endlast\n", ""},
		"since the middle":    {LogOptions{Tail: -1, Since: at.Add(2 * time.Second)}, "no endlast\n", b + "b\n"},
		"until the middle":    {LogOptions{Tail: -1, Until: at.Add(time.Second)}, "first\n" + a + a + "a\n", ""},
		"since the beginning": {LogOptions{Tail: -1, Since: at.Add(time.Second)}, a + a + "a\nno endlast\n", b + "b\n"},
	} {
		var out, errOut bytes.Buffer
		if err := e.Logs(t.Context(), "web", want.o, &out, &errOut); err != nil || out.String() != want.out || errOut.String() != want.errOut {
			short := func(s string) string { return regexp.MustCompile("a{9,}|b{9,}").ReplaceAllString(s, "…") }
			t.Errorf("%s: %v, out %q, err %q, want %q, %q", name, err, short(out.String()), short(errOut.String()), short(want.out),
				short(want.errOut))
		}
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// compressed makes of a file of a log what the supervisor's program makes of it.
func compressed(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(os.Args[0], "gzip", from)
	cmd.Stdin, cmd.Stdout = in, out
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
}

// TestLogsCompressed: files that were compressed are read like others; where a killed supervisor has left both, once; a damaged one is
// passed over.
func TestLogsCompressed(t *testing.T) {
	e := opened(t)
	c := create(t, e, container.Words{Name: "web"})
	file := filepath.Join(e.dir(c.ID), supervise.LogFile)
	for i, name := range []string{file + ".3", file + ".2", file + ".1", file} {
		logged(t, name, supervise.Line{Log: fmt.Sprintf("line %d\n", i), Stream: "stdout"})
		if name != file {
			compressed(t, name, name+".gz")
		}
	}
	os.Remove(file + ".3")
	os.Remove(file + ".1")
	os.WriteFile(file+".4.gz", []byte("this is none"), 0o600)
	for n, want := range map[int]string{-1: "line 0\nline 1\nline 2\nline 3\n", 3: "line 1\nline 2\nline 3\n", 0: ""} {
		var out bytes.Buffer
		if err := e.Logs(t.Context(), "web", LogOptions{Tail: n}, &out, &out); err != nil || out.String() != want {
			t.Errorf("tail %d: %v, got %q, want %q", n, err, out.String(), want)
		}
	}
}

// TestLogsFollow: lines are told as they are written, across a rotation and until the container's end.
func TestLogsFollow(t *testing.T) {
	e := opened(t)
	c := create(t, e, container.Words{Name: "web"})
	cmd := runs(t, e, c, "sleep", "60")
	var out written
	ended := make(chan error, 1)
	go func() { ended <- e.Logs(t.Context(), "web", LogOptions{Tail: -1, Follow: true}, &out, &out) }()
	file := filepath.Join(e.dir(c.ID), supervise.LogFile)
	until := func(want string) {
		t.Helper()
		for range 1000 {
			if out.String() == want {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
		t.Fatalf("told %q, want %q", out.String(), want)
	}
	time.Sleep(50 * time.Millisecond) // there is no file yet
	logged(t, file, supervise.Line{Log: "one\n", Stream: "stdout"})
	until("one\n")
	logged(t, file, supervise.Line{Log: "two\n", Stream: "stderr"})
	if err := os.Rename(file, file+".1"); err != nil {
		t.Fatal(err)
	}
	logged(t, file, supervise.Line{Log: "three\n", Stream: "stdout"})
	until("one\ntwo\nthree\n")
	// Rotated and compressed before the reader looks again: it has seen what is in there.
	compressed(t, file, file+".1.gz")
	if err := os.Remove(file + ".1"); err != nil {
		t.Fatal(err)
	}
	logged(t, file+".new", supervise.Line{Log: "four\n", Stream: "stdout"})
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
	until("one\ntwo\nthree\nfour\n")
	logged(t, file, supervise.Line{Log: "last\n", Stream: "stdout"})
	cmd.Process.Kill()
	select {
	case err := <-ended:
		if err != nil || out.String() != "one\ntwo\nthree\nfour\nlast\n" {
			t.Errorf("%v, told %q", err, out.String())
		}
	case <-time.After(10 * time.Second):
		t.Error("it is still followed after its end")
	}
}
