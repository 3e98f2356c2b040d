package supervise

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"glassbox/host"
	"glassbox/plan"
)

func TestTarget(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 40)) // longer than the address of a socket
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	want := &Target{
		Build: "a build", PID: 7, Start: 8, Namespaces: []string{"pid"}, Cgroups: map[string]string{"": "/x"},
		Process: Process{Env: []string{"A=b"}}, Facts: host.Facts{NoFile: [2]uint64{1024, 4096}},
	}
	if _, err := Call(dir); err != unix.ENOENT {
		t.Errorf("without a door: %v", err)
	}
	for range 2 { // in place of one that is no longer served, too
		fd, err := Listen(dir, want)
		if err != nil {
			t.Fatal(err)
		}
		if c, err := Call(dir); err != nil {
			t.Error(err)
		} else {
			c.Close()
		}
		unix.Close(fd)
		if _, err := Call(dir); err != unix.ECONNREFUSED {
			t.Errorf("nobody listens: %v", err)
		}
	}
	got, err := ReadTarget(dir, want.Build)
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
	for _, build := range []string{"", "another build", "a build of tomorrow"} {
		if got, err := ReadTarget(dir, build); err == nil {
			t.Errorf("build %q reads %+v", build, got)
		}
	}
}

// A doorkeeper that ends serves all who have come before, however late it gets to them, and refuses those who come later.
func TestAcceptEnds(t *testing.T) {
	dir := t.TempDir()
	fd, err := listen(dir, SocketFile)
	if err != nil {
		t.Fatal(err)
	}
	const callers = 3
	for range callers {
		c, err := Call(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	unix.Shutdown(fd, unix.SHUT_RD)
	if _, err := Call(dir); err != unix.ECONNREFUSED {
		t.Errorf("a caller that comes later: %v", err)
	}
	served := 0
	door := listening(fd, SocketFile)
	door.SetReadDeadline(time.Unix(1, 0))
	accept(door, func(conn int) {
		served++
		unix.Close(conn)
	})
	if served != callers {
		t.Errorf("served %d callers, want %d", served, callers)
	}
}

// serve lets a doorkeeper of this process take one call.
func serve(t *testing.T, call func(*Caller)) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	d := &doorkeeper{running: 1}
	go func() { d.exec(pair[0]); close(done) }()
	call(&Caller{pair[1]})
	unix.Close(pair[1])
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("the doorkeeper doesn't come back")
	}
	if d.busy() {
		t.Error("it counts a request that is no more")
	}
}

func TestDoorkeeperRefuses(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	fd := int(null.Fd())
	for name, c := range map[string]struct {
		data []byte
		fds  []int
	}{
		"nothing":           {[]byte{msgBinary}, nil},
		"two descriptors":   {[]byte{msgBinary}, []int{fd, fd}},
		"no job in it":      {[]byte{msgBinary}, []int{fd, fd, fd, fd}},
		"no JSON in it":     {[]byte{msgJSON}, []int{fd, fd, fd, fd}},
		"an unknown kind":   {[]byte{'x'}, []int{fd}},
		"many descriptors":  {[]byte{msgBinary}, []int{fd, fd, fd, fd, fd, fd}},
		"a ready before it": {[]byte{msgReady}, nil},
	} {
		before := openFDs(t)
		serve(t, func(call *Caller) {
			if err := unix.Sendmsg(call.conn, c.data, unix.UnixRights(c.fds...), nil, 0); err != nil {
				t.Fatal(err)
			}
			// A message that is never read must not hide the answer.
			unix.Sendmsg(call.conn, []byte{msgReady}, nil, nil, unix.MSG_NOSIGNAL)
			time.Sleep(10 * time.Millisecond)
			if e, _, err := call.receive(); err != nil || e.Error == "" || e.Code != 125 {
				t.Errorf("%s: %+v, %v, want an error", name, e, err)
			}
		})
		if after := openFDs(t); after > before {
			t.Errorf("%s: %d descriptors open, were %d", name, after, before)
		}
	}
	serve(t, func(*Caller) {}) // hangs up without a word
}

func openFDs(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// job is a plan for a program on this host, without any privilege.
func job(argv ...string) *ExecJob {
	steps := []plan.Step{{Lane: plan.Host, Op: &plan.Clone{}}}
	for fd, name := range []string{"stdin", "stdout", "stderr"} {
		steps = append(steps, plan.Step{Lane: plan.Child, Op: &plan.Stdio{From: name, To: fd}})
	}
	steps = append(steps, plan.Step{Lane: plan.Child, Op: &plan.Execve{Candidates: []string{argv[0]}, Argv: argv, Env: []string{}}})
	return &ExecJob{Plan: &plan.Plan{Version: plan.Version, Arch: runtime.GOARCH, Steps: steps}}
}

// run starts a job and waits for its end, with this process's standard streams.
func run(c *Caller, j *ExecJob, binary bool) (int, error) {
	x, err := c.Start(j, binary, [3]int{0, 1, 2}, nil)
	if err != nil {
		return 125, err
	}
	return x.Wait(context.Background())
}

// TestExec runs programs through a doorkeeper, with a job in either form.
func TestExec(t *testing.T) {
	for _, binary := range []bool{true, false} {
		for code, argv := range map[int][]string{
			0: {"/bin/true"}, 7: {"/bin/sh", "-c", "sleep 0.02; exit 7"}, 137: {"/bin/sh", "-c", "kill -9 $$"},
		} {
			serve(t, func(c *Caller) {
				if got, err := run(c, job(argv...), binary); got != code || err != nil {
					t.Errorf("%q: %d, %v, want %d", argv, got, err, code)
				}
			})
		}
		serve(t, func(c *Caller) {
			if _, err := run(c, job("/no/such/program"), binary); err == nil {
				t.Error("no such program: no error")
			} else if e, ok := err.(*ExecError); !ok || e.Code != 127 {
				t.Errorf("no such program: %#v, want an ExecError with 127", err)
			}
		})
	}
}

// TestCallerDies: a process whose caller dies before it catches signals ends with it, and one whose caller dies later goes on.
func TestCallerDies(t *testing.T) {
	for _, ready := range []bool{false, true} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		j := job("/bin/sh", "-c", "echo began; sleep 0.3; echo ended")
		serve(t, func(c *Caller) {
			n := int(null.Fd())
			if err := c.send(j, true, &ends{child: [3]int{n, int(w.Fd()), n}}); err != nil {
				t.Fatal(err)
			}
			w.Close()
			if e, fds, err := c.receive(); err != nil || !e.Started || len(fds) != 1 {
				t.Fatalf("%+v, %v, %v", e, fds, err)
			}
			buf := make([]byte, 6)
			io.ReadFull(r, buf)
			if ready {
				unix.Sendmsg(c.conn, []byte{msgReady}, nil, nil, 0)
				time.Sleep(20 * time.Millisecond)
			}
		})
		rest, _ := io.ReadAll(r)
		if got := bytes.Contains(rest, []byte("ended")); got != ready {
			t.Errorf("caught signals %v: the process went on %v", ready, got)
		}
		r.Close()
		null.Close()
	}
}

func TestRelay(t *testing.T) {
	pipe := func() (r, w int) {
		var fd [2]int
		if err := unix.Pipe2(fd[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		return fd[0], fd[1]
	}
	// A megabyte through a pipe that is read slowly, while another stream isn't kept waiting.
	fromR, fromW := pipe()
	toR, toW := pipe()
	otherR, otherW := pipe()
	otherToR, otherToW := pipe()
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go func() {
		w := os.NewFile(uintptr(fromW), "from")
		w.Write(want)
		w.Close()
	}()
	loop := &relay{conn: -1, console: -1, wake: -1, streams: []*stream{{from: fromR, to: toW, close: true}, {from: otherR, to: otherToW}}}
	loop.own(toW, otherR)
	stop := make(chan bool)
	go func() {
		buf := make([]byte, chunk)
		for !loop.streams[0].ended || !loop.streams[1].ended {
			loop.step(buf, -1, false)
		}
		close(stop)
	}()
	time.Sleep(20 * time.Millisecond) // the first stream is full now
	unix.Write(otherW, []byte("hello"))
	buf := make([]byte, 16)
	if n, err := unix.Read(otherToR, buf); string(buf[:max(n, 0)]) != "hello" {
		t.Errorf("the other stream: %q, %v", buf[:max(n, 0)], err)
	}
	got, err := io.ReadAll(os.NewFile(uintptr(toR), "to"))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes arrived of %d, %v", len(got), len(want), err)
	}
	// Nobody reads any longer: the writer must learn it.
	unix.Close(otherToR)
	unix.Write(otherW, []byte("more"))
	<-stop
	if _, err := unix.Write(otherW, []byte("x")); err != unix.EPIPE {
		t.Errorf("write to a stream that nobody reads: %v, want %v", err, unix.EPIPE)
	}
	if len(loop.owned) > 0 {
		t.Errorf("still open: %v", loop.owned)
	}
}
