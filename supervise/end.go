package supervise

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/cgroup"
	"glassbox/event"
	"glassbox/state"
)

// drain ends what is left of the container, waits for the last of its output, and returns its exit code as a shell would: 128
// and the signal for a killed one.
func (s *supervisor) drain(ws unix.WaitStatus) int {
	code := ws.ExitStatus()
	if ws.Signaled() {
		code = 128 + int(ws.Signal())
	}
	// With a PID namespace of its own nothing of the container is left; without, its other processes end now.
	cgroup.Kill(s.job.Cgroups)
	done := make(chan struct{})
	go func() { s.streams.Wait(); close(done) }()
	// Somebody outside the container may hold its output open, and is not waited for. A caller that takes its time with what is
	// left in the pipes is.
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	// Two seconds without a byte: a daemon that left the container's cgroup could hold the pipe for ever, and the end must be told.
	for idle := 0; idle < 20; idle++ {
		select {
		case <-done:
			return code
		case <-tick.C:
			if s.caller.busy() {
				idle = 0
			}
		}
	}
	return code
}

// finish records the end and takes back what the start made. The error says what of a container that was to be removed stays.
func (s *supervisor) finish(code int) error {
	// First the ports: who waits for the end may want them for another container at once.
	s.closePorts()
	err := s.wind(code)
	releaseNetwork(s.job)
	if err != nil {
		s.state.Error = err.Error()
	}
	return s.end()
}

// wind takes back what a run's plan made, but for ports and addresses, and tells of its end.
func (s *supervisor) wind(code int) error {
	if s.job.Remove {
		s.log.forget()
	}
	s.log.close()
	s.state.Status, s.state.ExitCode, s.state.PID, s.state.Finished = Exited, code, 0, time.Now().UTC()
	// The last numbers of the cgroup, before it is removed: inspect shows them of a container that has ended.
	if !s.job.Remove {
		if stats, err := cgroup.ReadStats(s.job.Cgroups); err == nil {
			s.state.Stats = stats
		}
	}
	// The cgroup's own count, because the exit code can't tell: 137 is any SIGKILL, and the kernel may have chosen a child of the first
	// process.
	if n, ok, err := cgroup.OOMKills(s.job.Cgroups); err == nil && ok && n > 0 {
		s.state.OOMKilled = true
	}
	s.rewired()
	undone := undoSteps(s.job)
	s.rename()
	lived := s.state.Age()
	events := []event.Event{event.New(event.Container, event.Die, s.job.Actor,
		"exitCode", strconv.Itoa(code), "execDuration", strconv.FormatInt(int64(lived/time.Second), 10))}
	if s.state.OOMKilled {
		events = append([]event.Event{event.New(event.Container, event.OOM, s.job.Actor)}, events...)
	}
	events = append(events, s.job.volumeEvents(event.Unmount)...)
	event.Write(s.job.state(), events...) // before the state: who waits for the end finds them
	return undone
}

// rename takes note of a name that the container got while it ran: its name's file, which goes with it, is another one.
func (s *supervisor) rename() {
	if s.job.NameFile == "" {
		return
	}
	// The name is still ours. If not, another container may have it by now, and its link must not be removed with us.
	if id, err := os.Readlink(s.job.NameFile); err == nil && id == s.job.ID {
		return
	}
	var c struct {
		Name string `json:"name"`
	}
	if state.ReadJSON(filepath.Join(s.job.Dir, ContainerFile), &c) == nil && c.Name != "" {
		s.job.NameFile = filepath.Join(filepath.Dir(s.job.NameFile), c.Name)
		if s.job.Actor.Attributes != nil {
			s.job.Actor.Attributes["name"] = c.Name
		}
	}
}

func (s *supervisor) failed(err error, code int) {
	// It never ran, so it is what it was: created, or at the end of an earlier run (as with Docker).
	last, lastErr := ReadState(s.job.Dir)
	if lastErr != nil || last.Status == Running { // of a run that nobody saw to its end
		last = &State{Status: Exited}
	}
	last.ExitCode, last.Error, last.PID, last.Times = code, err.Error(), 0, s.state.Times
	s.state = *last
	if s.log != nil {
		s.log.close()
	}
	s.closePorts() // whoever is told may want them for the next try, before this process has ended
	releaseNetwork(s.job)
	// A start that was led step by step and given up leaves nothing: there is nobody who would start the rest.
	s.job.Remove = s.job.Remove || s.job.Step
	if left := s.end(); left != nil {
		err = fmt.Errorf("%w\nand %w", err, left)
	}
	failed := Event{Error: err.Error(), Code: code, Trace: s.trace()}
	if failed.Trace != nil {
		failed.Trace.Zero, failed.Trace.Times = s.zero, s.state.Times
	}
	s.session.send(failed)
	s.linger() // it had addresses, and so may have kept the one before it from being the last
}

// end writes the last state, or removes the container; one that can't be removed whole stays, with the reason in its state.
func (s *supervisor) end() (left error) {
	if s.job.Remove {
		if left = RemoveFiles(s.job.Dir, s.job.NameFile, s.job.state(), true); left != nil {
			s.state.Error = left.Error()
		} else {
			dropOf(s.job)
			event.Write(s.job.state(), event.New(event.Container, event.Destroy, s.job.Actor))
		}
	}
	if !s.job.Remove || left != nil {
		RecordEnd(s.job, &s.state)
	}
	// Who waits for a container with --rm has the lock file open, and finds the code there when all else is gone.
	s.lock.WriteAt([]byte(strconv.Itoa(s.state.ExitCode)), 0)
	state.Unlock(s.lock, s.job.LockFile)
	return left
}

func (s *supervisor) undo() error {
	s.closePorts()
	return Undo(s.job)
}

func (s *supervisor) closePorts() {
	for _, fd := range s.ports {
		unix.Close(fd)
	}
	for _, c := range s.carriers {
		c.close()
	}
	s.ports, s.carriers = nil, nil
}
