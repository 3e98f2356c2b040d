package supervise

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/fork"
)

// boxed is a supervisor in this process: its container is a pipe. Followers come without a nudge.
func boxed(t *testing.T) (s *supervisor, stdin *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	s = &supervisor{job: &Job{Dir: t.TempDir()}, caller: caller{wake: -1}, proc: &fork.Process{}, pipes: &pipes{stdin: w}}
	s.followers.s, s.followers.dir = s, s.job.Dir
	s.followers.open()
	return s, r
}

// follow attaches. There is somebody who listens, so the state is of no use.
func follow(t *testing.T, s *supervisor) *Attachment {
	t.Helper()
	a, err := Attach(t.Context(), s.job.Dir, &State{}, AttachOptions{Stdout: true, Stderr: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

// TestFollowers: each of several gets all that is written, and the code; what each types arrives.
func TestFollowers(t *testing.T) {
	s, stdin := boxed(t)
	var all sync.WaitGroup
	for range 3 {
		a := follow(t, s)
		if !a.Input || a.Terminal {
			t.Errorf("input %v, terminal %v", a.Input, a.Terminal)
		}
		if _, err := a.Write([]byte("hello\n")); err != nil {
			t.Error(err)
		}
		all.Go(func() {
			var out, errOut bytes.Buffer
			code, err := a.Copy(t.Context(), &out, &errOut)
			if code != 7 || err != nil || out.String() != "onetwo" || errOut.String() != "E" {
				t.Errorf("code %d, %v, out %q, err %q", code, err, &out, &errOut)
			}
			a.Close()
		})
	}
	buf := make([]byte, 18)
	if n, err := io.ReadFull(stdin, buf); err != nil {
		t.Errorf("%d bytes of input: %v", n, err)
	}
	s.followers.output("stdout", []byte("one"))
	s.followers.output("stderr", []byte("E"))
	s.followers.output("stdout", []byte("two"))
	s.followers.end(7)
	all.Wait()
	if n := s.followers.count.Load(); n != 0 {
		t.Errorf("%d followers are left", n)
	}
}

// TestSlowFollower: one that takes nothing makes the container wait for its patience, once, and others lose nothing. On a busy machine the
// others may be slow, too: one try without that is enough.
func TestSlowFollower(t *testing.T) {
	var wrong []string
	for range 10 {
		if wrong = slowFollower(t); len(wrong) == 0 {
			return
		}
	}
	t.Error(strings.Join(wrong, "; "))
}

func slowFollower(t *testing.T) (wrong []string) {
	s, _ := boxed(t)
	slow, quick := follow(t, s), follow(t, s)
	defer slow.Close()
	got := make(chan int)
	go func() {
		var out bytes.Buffer
		quick.Copy(t.Context(), &out, io.Discard)
		quick.Close()
		got <- out.Len()
	}()
	began := time.Now()
	const n = 200 // pieces: far more than the socket holds
	for range n {
		s.followers.output("stdout", make([]byte, piece))
	}
	if took := time.Since(began); took < patience || took > 3*patience {
		wrong = append(wrong, fmt.Sprintf("writing took %v, want the patience with one follower, %v", took, patience))
	}
	s.followers.end(0)
	if all := <-got; all != n*piece {
		wrong = append(wrong, fmt.Sprintf("the quick follower got %d bytes of %d", all, n*piece))
	}
	if _, err := slow.Copy(t.Context(), io.Discard, io.Discard); !errors.Is(err, ErrCutOff) {
		wrong = append(wrong, fmt.Sprintf("the slow follower: %v, want %v", err, ErrCutOff))
	}
	return wrong
}

// TestFollowerContext: whoever follows can stop at any moment.
func TestFollowerContext(t *testing.T) {
	s, _ := boxed(t)
	a := follow(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := a.Copy(ctx, io.Discard, io.Discard); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want the context's error", err)
	}
}

// TestOutlet: a caller that doesn't read is waited for until it leaves, and one that has gone is found out.
func TestOutlet(t *testing.T) {
	var fd [2]int
	if err := unix.Pipe2(fd[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	s := &supervisor{caller: caller{wake: wake}}
	o := &outlet{fd: fd[1], wake: wake}
	s.caller.outs = []*outlet{o}
	done := make(chan bool)
	go func() { done <- o.write(make([]byte, 1<<20)) }()
	for end := time.Now().Add(time.Minute); !s.caller.busy() && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if !s.caller.busy() {
		t.Error("a full pipe is not waited for")
	}
	s.leave()
	if !<-done {
		t.Error("to leave is not to close the output")
	}
	if o.fd != -1 {
		t.Error("the descriptor is still open")
	}
	unix.Close(fd[0])
	if err := unix.Pipe2(fd[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	unix.Close(fd[0])
	fresh, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	if o := (&outlet{fd: fd[1], wake: fresh}); o.write([]byte("x")) || o.fd != -1 {
		t.Error("nobody reads, and write doesn't say so")
	}
}
