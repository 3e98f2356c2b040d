package supervise

import (
	"encoding/json"
	"errors"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"glassbox/cgroup"
	"glassbox/fork"
	"glassbox/plan"
	"glassbox/state"
)

// Descriptors that [Once] is started with, beside 0, 1 and 2, which become the program's.
const (
	onceSession = 3 // a stream socket: an [OnceEvent] a line to whoever started it, a [Request] a line back
	onceJob     = 4 // the OnceJob in binary form, in memory
	onceLock    = 5 // the lock file, held
)

// OnceJob is one program to be run to its end, of which nothing stays: a RUN of a build.
type OnceJob struct {
	ID       string            `json:"id"`
	LockFile string            `json:"lockFile"`
	Cgroups  map[string]string `json:"cgroups"` // as in compile.Output
	Undo     []plan.Step       `json:"undo,omitempty"`
	Network  *Network          `json:"network,omitempty"`
	Step     bool              `json:"-"` // whoever started it is asked before each step
	Plan     *plan.Plan        `json:"-"`
}

// OnceEvent is what is told of a [OnceJob].
type OnceEvent struct {
	Started bool        `json:"started,omitempty"` // the program runs; with it comes the terminal's descriptor, if it has one
	PID     int         `json:"pid,omitempty"`
	Start   uint64      `json:"start,omitempty"` // start time of PID (see plan.OpenPid)
	Error   string      `json:"error,omitempty"` // it could not be started, or what it left could not all be taken back
	Step    int         `json:"step,omitempty"`  // the plan's step that failed, from 1
	Exited  bool        `json:"exited,omitempty"`
	Code    int         `json:"code,omitempty"` // exit code, or 125, 126, 127 with Error
	OOM     bool        `json:"oom,omitempty"`  // something of it was killed for its memory
	Times   *plan.Times `json:"times,omitempty"`
	Before  *Stop       `json:"before,omitempty"` // a step is to be made: it waits for a request with Go or Quit
}

// Once runs a plan to its end. It is a process of its own (`glassbox-runtime once ID`), so that what is cloned is small and never held a
// credential, and so that there is somebody who tidies up when the builder is killed: the socket's end ends the program. It must be called
// from the main goroutine, whose thread outlives everything else.
func Once() int {
	runtime.LockOSThread()
	for fd := onceSession; fd <= onceLock; fd++ {
		unix.CloseOnExec(fd)
	}
	o := &once{session: session{file: os.NewFile(onceSession, "session")}, lock: os.NewFile(onceLock, "lock")}
	if err := readMemory(onceJob, &o.job); err != nil {
		o.send(OnceEvent{Error: "the job: " + err.Error(), Code: 125}, -1)
		return 125
	}
	return o.run()
}

type once struct {
	job     OnceJob
	session session
	lock    *os.File
}

func (o *once) run() int {
	job := &Job{ID: o.job.ID, Cgroups: o.job.Cgroups, Undo: o.job.Undo, Network: o.job.Network}
	defer state.Unlock(o.lock, o.job.LockFile)
	// Descriptors 0 to 2 are the program's alone: the supervisor must not hold the builder's pipes open when the program
	// has closed them.
	fds := map[string]int{"stdin": keepFD(0), "stdout": keepFD(1), "stderr": keepFD(2)}
	options, times := fork.Options{FDs: fds, OnExecFailure: fork.ExplainExec}, &plan.Times{}
	if o.job.Step {
		options.Before = o.session.ask // and no times: they would be those of whoever is asked
	} else {
		options.Times = times
	}
	proc, err := fork.Start(o.job.Plan, options)
	for _, fd := range fds {
		unix.Close(fd)
	}
	if err != nil {
		e := OnceEvent{Error: err.Error(), Code: 125, Times: times}
		var step *fork.StepError
		if errors.As(err, &step) {
			e.Code, e.Step = step.Code, step.Index+1
		}
		// The plan's own steps are undone by fork.Start; addresses were taken by the builder before.
		releaseNetwork(job)
		o.send(e, -1)
		vacate(job)
		return e.Code
	}
	console, has := proc.FDs["console"]
	if !has {
		console = -1
	}
	start, _ := fork.StartTime(proc.PID)
	o.send(OnceEvent{Started: true, PID: proc.PID, Start: start, Times: times}, console)
	go func() {
		o.session.serve(func(q Request) {
			switch {
			case q.Signal != 0:
				unix.PidfdSendSignal(proc.Pidfd, unix.Signal(q.Signal), nil, 0)
			case (q.Rows != 0 || q.Cols != 0) && has:
				unix.IoctlSetWinsize(console, unix.TIOCSWINSZ, &unix.Winsize{Row: q.Rows, Col: q.Cols})
			}
		})
		// Whoever wanted it is gone.
		unix.PidfdSendSignal(proc.Pidfd, unix.SIGKILL, nil, 0)
	}()
	ws := reap(proc.PID)
	end := OnceEvent{Exited: true, Code: ws.ExitStatus()}
	if ws.Signaled() {
		end.Code = 128 + int(ws.Signal())
	}
	// Without a PID namespace of its own there may be others left.
	_ = cgroup.Kill(job.Cgroups)
	if n, ok, err := cgroup.OOMKills(job.Cgroups); err == nil && ok && n > 0 {
		end.OOM = true
	}
	if err := Undo(job); err != nil {
		end.Error = err.Error()
	}
	o.send(end, -1)
	return 0
}

// send tells an event, with a descriptor (-1: none).
func (o *once) send(e OnceEvent, fd int) {
	data, err := json.Marshal(e)
	if err != nil {
		return
	}
	var rights []byte
	if fd >= 0 {
		rights = unix.UnixRights(fd)
	}
	unix.Sendmsg(onceSession, append(data, '\n'), rights, nil, unix.MSG_NOSIGNAL) // one that is gone needs no telling
}

// UndoOnce takes back what a job left whose process was killed.
func UndoOnce(j *OnceJob) error {
	job := &Job{ID: j.ID, Cgroups: j.Cgroups, Undo: j.Undo, Network: j.Network}
	return errors.Join(cgroup.Kill(job.Cgroups), Undo(job))
}
