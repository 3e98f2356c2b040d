package supervise

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/cgroup"
	"glassbox/event"
	"glassbox/fork"
	"glassbox/state"
)

// A health check is a further process of the container, as exec makes it, and a program of its own starts it, takes its output and judges
// it: `glassbox-runtime check DIR`, which lives as long as the check. All that the supervisor does is to start that one from time to time
// and to wait for it, because what a Go process once used of memory it keeps.
//
//	supervisor                         check                                  container
//	  │ when it is time: fork, exec ───▶ │ check.bin, state.json, health.json
//	  │                                  │ the plan: cgroup, clone ───────────▶ │ the command
//	  │                                  │ ◀──────────────── output, exit code │
//	  │ ◀──────────── starting, healthy… │ health.json, events
//
// There is one at a time: the next one is due an interval after the last one's end. What a killed check leaves in its cgroup, the next one
// ends. A check that a pause, or the container's end, has overtaken says nothing.

// Exit codes of the program, beside 0: healthy.
const (
	checkUnhealthy = 1
	checkStarting  = 2
	checkNothing   = 3 // nothing is known: as before
)

// checks is a supervisor's part.
type checks struct {
	mu   sync.Mutex
	over bool // the container has ended
	pid  int  // of the check that runs
	done chan struct{}
}

// watchHealth asks the container again and again how it is, until its end.
func (s *supervisor) watchHealth(h Health, started time.Time) {
	c := &s.checks
	c.done = make(chan struct{})
	go func() {
		defer close(c.done)
		status := Starting
		for {
			// The first check is waited for, too: a program that was started a moment ago is never well.
			time.Sleep(h.Wait(status, time.Since(started)))
			code, ok := c.run(s.job.Dir)
			if !ok {
				return
			}
			switch code {
			case 0:
				status = Healthy
			case checkUnhealthy:
				status = Unhealthy
			case checkStarting:
				status = Starting
			}
			// What the check's fork has touched of this process is given back, or each check would cost a supervisor in
			// the background some pages for good.
			if s.job.Detached {
				settleAgain()
			}
		}
	}()
}

// run makes one check, and returns its exit code; false if there are to be no more.
func (c *checks) run(dir string) (int, bool) {
	// Its standard output is a pipe of which the other end is closed with its end, however it comes: Go's poller waits for that, and no
	// thread has to.
	var pipe [2]int
	if unix.Pipe2(pipe[:], unix.O_CLOEXEC) != nil {
		return checkNothing, true
	}
	unix.SetNonblock(pipe[0], true)
	ended := os.NewFile(uintptr(pipe[0]), "check")
	defer ended.Close()
	c.mu.Lock()
	if c.over {
		c.mu.Unlock()
		unix.Close(pipe[1])
		return 0, false
	}
	// A death of the supervisor is that of the check, too; the container dies with it in any case.
	var pid int
	err := fork.WithOwnTimerSlack(func() (err error) {
		pid, err = syscall.ForkExec("/proc/self/exe", []string{"glassbox-runtime", "check", dir}, &syscall.ProcAttr{
			Dir: "/", Env: []string{"GOMAXPROCS=1"}, Files: []uintptr{0, uintptr(pipe[1]), 2},
		})
		return err
	})
	c.pid = pid
	c.mu.Unlock()
	unix.Close(pipe[1])
	if err != nil {
		return checkNothing, true
	}
	var buf [1]byte
	for {
		if n, err := ended.Read(buf[:]); n <= 0 || err != nil {
			break
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	ws := reap(pid) // a moment
	c.pid = 0
	if !ws.Exited() {
		return checkNothing, !c.over
	}
	return ws.ExitStatus(), !c.over
}

// stop ends the checks: the container has.
func (c *checks) stop() {
	c.mu.Lock()
	c.over = true
	runs := c.pid > 0
	if runs {
		unix.Kill(c.pid, unix.SIGKILL) // it isn't reaped yet: the number is its own
	}
	c.mu.Unlock()
	// Outside of the lock, which run takes when the check is dead.
	if runs {
		<-c.done
	}
}

// RunCheck makes one health check of the container in dir.
func RunCheck(dir string) int {
	c, err := ReadCheck(dir)
	if err != nil {
		return checkNothing
	}
	run, err := ReadState(dir)
	if err != nil || run.Status != Running || c.paused() {
		return checkNothing
	}
	// The descriptor before anything is started: whether the container has ended meanwhile is asked by it afterwards.
	container, err := unix.PidfdOpen(run.PID, 0)
	if err != nil || c.clear() != nil {
		return checkNothing
	}
	h := ReadHealth(dir).Of(run.Started)
	before := h.Status
	age := run.Age()
	result := c.once(run)
	// A check that fails because its container ends, or stands still, says nothing about the container's health.
	if gone(container) || c.paused() && result.ExitCode != 0 {
		return checkNothing
	}
	h = c.Next(h, result, age)
	if state.WriteJSON(filepath.Join(dir, HealthFile), h) == nil && h.Status != before {
		event.Write(c.State, event.New(event.Container, event.HealthStatus+": "+h.Status, c.Actor))
	}
	switch h.Status {
	case Unhealthy:
		if c.Stop != 0 {
			c.stopContainer(run, container)
		}
		return checkUnhealthy
	case Starting:
		return checkStarting
	}
	return 0
}

func (c *Check) paused() bool {
	_, err := os.Lstat(filepath.Join(c.State, PausedDir, c.ID))
	return err == nil
}

// gone reports whether the process of a pidfd has ended.
func gone(pidfd int) bool { return ready([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}) }

// once starts the command, waits for it, and ends whatever it has left behind.
func (c *Check) once(run *State) (r HealthResult) {
	r.Start = time.Now().UTC()
	id := fmt.Sprintf("%032x%032x", run.PID, r.Start.UnixNano())
	who := event.New(event.Container, event.ExecCreate+": "+c.Line, c.Actor, "execID", id)
	event.Write(c.State, who, event.New(event.Container, event.ExecStart+": "+c.Line, who.Actor))
	fail := func(err error) HealthResult {
		r.End, r.ExitCode, r.Output = time.Now().UTC(), -1, err.Error()
		return r
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return fail(err)
	}
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail(err)
	}
	fds := map[string]int{"stdin": null, "stdout": pipe[1], "stderr": pipe[1]}
	proc, err := fork.Start(c.For(run.PID, run.Start), fork.Options{FDs: fds, OnExecFailure: fork.ExplainExec})
	unix.Close(pipe[1])
	unix.Close(null)
	if err != nil {
		c.undo()
		unix.Close(pipe[0])
		return fail(err)
	}
	unix.SetNonblock(pipe[0], true)
	out, late := c.read(pipe[0], proc.Pidfd)
	// By its cgroup: whatever the command has started ends as well, and a double fork hides nothing.
	if late {
		cgroup.Kill(c.Own)
	}
	code := waitFor(proc)
	c.undo()
	r.End, r.ExitCode, r.Output = time.Now().UTC(), code, out
	event.Write(c.State, event.New(event.Container, event.ExecDie, who.Actor, "exitCode", strconv.Itoa(code)))
	if late {
		r.ExitCode, r.Output = -1, fmt.Sprintf("Health check exceeded timeout (%v)", c.Timeout)
		if out != "" {
			r.Output += ": " + out
		}
	}
	return r
}

// read takes output until the process ends, or its time is over.
func (c *Check) read(pipe, pidfd int) (text string, late bool) {
	defer unix.Close(pipe)
	var out output
	buf := make([]byte, 4096)
	end := time.Now().Add(c.Timeout)
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}, {Fd: int32(pipe), Events: unix.POLLIN}}
	for ended := false; ; {
		n, err := unix.Read(pipe, buf)
		switch {
		case n > 0:
			out.add(buf[:n])
		case err == unix.EINTR:
			continue
		// Asked after a read that found nothing, so what the command wrote last is in.
		case ended:
			return out.String(), false // what those write that it leaves behind isn't waited for
		case n == 0 && err == nil:
			fds[1].Fd = -1
		}
		left := time.Until(end)
		if left <= 0 {
			return out.String(), true
		}
		if n > 0 {
			continue
		}
		unix.Poll(fds, int(left.Milliseconds())+1)
		ended = fds[0].Revents != 0
	}
}

// undo ends what is left of a check and takes its cgroup back.
func (c *Check) undo() {
	c.clear()
	for _, step := range c.Plan.Undo(len(c.Plan.Steps)) {
		fork.Undo(step.Op)
	}
}

// stopContainer stops a container that has become unhealthy, as `stop` does.
func (c *Check) stopContainer(run *State, container int) {
	event.Write(c.State, event.New(event.Container, event.Kill, c.Actor, "signal", strconv.Itoa(c.Stop)))
	unix.PidfdSendSignal(container, unix.Signal(c.Stop), nil, 0)
	timeout := -1
	if c.Patience >= 0 {
		timeout = int(c.Patience.Milliseconds())
	}
	if n, _ := unix.Poll([]unix.PollFd{{Fd: int32(container), Events: unix.POLLIN}}, timeout); n == 0 {
		unix.PidfdSendSignal(container, unix.SIGKILL, nil, 0)
		unix.Poll([]unix.PollFd{{Fd: int32(container), Events: unix.POLLIN}}, -1)
	}
}
