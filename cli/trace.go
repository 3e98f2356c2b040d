package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"glassbox/engine"
	"glassbox/explain"
	"glassbox/fork"
	"glassbox/plan"
)

// traceFor is how long a program is traced after execve.
const traceFor = 100 * time.Millisecond

// traceFlags say that a start is to be traced, and hold what is seen.
type traceFlags struct {
	file  string
	began int64
	used  int64 // processor time until then
	seen  plan.Trace
	plan  *plan.Plan
	words []string
	goes  bool // on, in the background
}

func (t *traceFlags) register(fs *pflag.FlagSet) {
	fs.StringVar(&t.file, "trace", "", "Write a page or an object to `FILE.html|FILE.json` that says where the time of the start went, "+
		"step by step, and which system calls the program made in its first 100 ms (slower for that); with -d it is written then")
}

func (t *traceFlags) begin() {
	if t.file != "" {
		// The processor's time until here stands for the time since execve, which /proc tells in ticks of 10 ms only (proc(5), starttime).
		t.began, t.used = fork.Now(), fork.ProcessorTime()
	}
}

func (t *traceFlags) check(steps bool) error {
	switch ext := filepath.Ext(t.file); {
	case t.file == "":
	case ext != ".html" && ext != ".json":
		return &usageError{err: fmt.Errorf("--trace %s: want FILE.html or FILE.json", t.file)}
	case steps:
		return &usageError{err: errors.New("--trace: with --step and --break it would measure who answers")}
	}
	return nil
}

// start asks the engine for the rest.
func (t *traceFlags) start(so *engine.StartOptions, words []string) {
	t.words = words
	so.TraceFor = traceFor
	told := so.Explain
	// Also with --explain, whose own way of being told is kept.
	so.Explain = func(p *plan.Plan) {
		t.plan = p
		if told != nil {
			told(p)
		}
	}
}

// write writes the file once the container has ended, or has failed to start, with what err says, or in the background has been traced. A
// trace that can't be written is an error only if there is no other.
func (t *traceFlags) write(a *app, err error) error {
	if t.file == "" || t.plan == nil || t.seen.Times == nil {
		return err
	}
	t.seen.Spans = append(t.seen.Spans, plan.Span{
		Who: "command", What: "glassbox starts: loader, Go runtime, packages, command line",
		Begin: t.began - t.used, End: t.began,
	})
	now := fork.Now()
	t.between("glassbox starts", "opens the engine", "reads the command line", now)
	t.between("makes the container", "prepares the network", "catches signals, takes the container's lock", now)
	t.between("takes back cgroups", "", "learns of the end", now)
	tr := explain.Traced{
		Plan: t.plan, Trace: &t.seen, Command: t.words, Start: t.began - t.used, End: now, Running: t.goes,
		For: int64(traceFor), Errno: func(n int64) string { return unix.ErrnoName(syscall.Errno(n)) },
	}
	var exit *exitError
	if err != nil && !errors.As(err, &exit) {
		tr.Failed = err.Error()
	}
	werr := writeFile(t.file, 0o644, func(out io.Writer) error {
		w := bufio.NewWriter(out)
		return errors.Join(explain.WriteTrace(w, strings.TrimPrefix(filepath.Ext(t.file), "."), &tr), w.Flush())
	})
	if werr != nil {
		werr = fmt.Errorf("--trace %s: %w", t.file, werr)
		if err == nil {
			return werr
		}
		fmt.Fprintln(a.err, "glassbox:", werr)
	}
	return err
}

// between gives the time between two pieces, named by how they begin, a name of its own; without a second one, that until now.
func (t *traceFlags) between(first, second, what string, now int64) {
	find := func(text string) *plan.Span {
		for i := range t.seen.Spans {
			if strings.HasPrefix(t.seen.Spans[i].What, text) {
				return &t.seen.Spans[i]
			}
		}
		return nil
	}
	a, b := find(first), &plan.Span{Begin: now}
	if second != "" {
		b = find(second)
	}
	if a != nil && b != nil && b.Begin > a.End {
		t.seen.Spans = append(t.seen.Spans, plan.Span{Who: "command", What: what, Begin: a.End, End: b.Begin})
	}
}
