package supervise

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"glassbox/cgroup"
	"glassbox/event"
	"glassbox/state"
)

// Repair looks for traces of killed processes and puts every container that they leave in a state that is true: its processes
// are ended, its cgroups, links, rules and address are taken back, and it counts as exited; one that was still being made, or
// being removed, is removed. locks is the directory of lock files, dir and nameFile say where a container's files are.
func Repair(locks string, dir func(id string) string, nameFile func(id string) string) error {
	entries, err := os.ReadDir(locks)
	if err != nil {
		if os.IsNotExist(err) {
			return nil
		}
		return err
	}
	var errs []error
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".lock")
		if !ok {
			continue
		}
		path := filepath.Join(locks, e.Name())
		lock, fresh, err := state.Lock(path, false)
		if err != nil {
			continue // somebody is working on it
		}
		if fresh {
			state.Unlock(lock, path) // it ended while we were looking
			continue
		}
		if err := RepairOne(dir(id), nameFile); err != nil {
			lock.Close() // the trace stays, the next command tries again
			errs = append(errs, err)
			continue
		}
		state.Unlock(lock, path)
	}
	return errors.Join(errs...)
}

// ErrKilled is State.Error of a container whose supervisor was killed while it ran.
const ErrKilled = "its supervisor was killed"

// ErrWaiting is the error in the state of a container that nobody will start again, though its policy wants it.
const ErrWaiting = "its supervisor was killed while it waited to start it again"

// RepairOne does what Repair does for one container, whose lock the caller holds. nameFile is asked only where nothing else says what the
// container's name is: it has to look at the names of all containers.
func RepairOne(dir string, nameFile func(id string) string) error {
	id := filepath.Base(dir)
	if _, err := os.Stat(dir); os.IsNotExist(err) {
		if name := nameFile(id); name != "" {
			os.Remove(name)
		}
		return nil
	}
	job, err := ReadJob(dir)
	if err == nil {
		// Processes first: with them the kernel lets go of mounts and links, and a cgroup with processes in it can't be
		// removed (EBUSY).
		if err := cgroup.Kill(job.Cgroups); err != nil {
			return err
		}
		if err := Undo(job); err != nil {
			return err
		}
	}
	st, err := os.Stat(filepath.Join(dir, ContainerFile))
	going := job != nil && (job.removes() || job.Step && !started(dir))
	// A container without its configuration was never finished, or was being removed; one with an empty file lost it to a
	// power failure.
	if err != nil || st.Size() == 0 || going {
		if job != nil {
			if err := RemoveFiles(dir, job.NameFile, job.state(), going); err != nil {
				return err
			}
			dropOf(job)
			return nil
		}
		return RemoveFiles(dir, nameFile(id), "", going)
	}
	last, err := ReadState(dir)
	if err != nil {
		last = &State{}
	}
	if job == nil || last.Status == Exited || last.Status == Created && started(dir) { // the last is a start that failed
		return nil
	}
	// The disk was full at its end, which therefore stands elsewhere; it is no kill.
	if _, ok := ReadEnd(job.state(), dir, job.ID, last); ok {
		return nil
	}
	if last.Status == Restarting { // the run is over, and its end was told
		last.Status, last.Error = Exited, ErrWaiting
		last.Supervisor, last.SupervisorStart = 0, 0
		return WriteState(dir, last)
	}
	*last = State{
		Status: Exited, ExitCode: 137, Started: last.Started, Finished: time.Now().UTC(), Error: ErrKilled, Times: last.Times,
		Restarts: last.Restarts,
	}
	event.Write(job.state(), append(job.volumeEvents(event.Unmount), event.New(event.Container, event.Die, job.Actor, "exitCode", "137"))...)
	return WriteState(dir, last)
}

// Bury does what the supervisor of a run that was dismissed would have done at its end, for a container that is removed at once, and
// whose lock the caller holds. As at any end, what can't be taken back (a cgroup with somebody else's process in it) keeps nobody from
// removing the container.
func Bury(dir string, run *State) error {
	job, err := ReadJob(dir)
	if err != nil {
		return err
	}
	_ = cgroup.Kill(job.Cgroups)
	_ = Undo(job)
	event.Write(job.state(), event.New(event.Container, event.Die, job.Actor,
		"exitCode", "137", "execDuration", strconv.FormatInt(int64(run.Age()/time.Second), 10)))
	return nil
}

// started reports whether the last start of a container came to an end, good or bad, that was written down.
func started(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, StateFile))
	return err == nil
}
