package bundle

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/cgroup"
	"glassbox/resctrl"
)

// Event is one line of `events`: what the container uses, or that the kernel has killed one of its processes.
type Event struct {
	Type string         `json:"type"` // stats, oom
	ID   string         `json:"id"`
	Data *cgroup.Events `json:"data,omitempty"`
}

// Stats returns what a container uses.
func (r *Runtime) Stats(id string) (*Event, error) {
	c, err := r.load(id)
	if err != nil {
		return nil, err
	}
	if s := c.status(); s == Stopped {
		return nil, fmt.Errorf("container with id %s is not running", id)
	}
	data, err := cgroup.ReadEvents(c.Cgroups)
	if err != nil {
		return nil, err
	}
	if data.IntelRdt, err = resctrl.ReadEvents(c.Place); err != nil {
		return nil, err
	}
	return &Event{"stats", id, data}, nil
}

// Watch tells what a container uses every interval, and each kill for want of memory when it happens, until the container ends.
func (r *Runtime) Watch(id string, interval time.Duration, tell func(*Event) error) error {
	c, err := r.load(id)
	if err != nil {
		return err
	}
	if s := c.status(); s == Stopped {
		return fmt.Errorf("container with id %s is not running", id)
	}
	// The end is seen by the pidfd; a second look at the state would miss one that comes between two looks.
	pidfd, err := unix.PidfdOpen(c.PID, 0)
	if err != nil {
		return ErrNotRunning
	}
	defer unix.Close(pidfd)
	var mu sync.Mutex
	var watching sync.WaitGroup
	// A cgroup that can't be watched, on a host without its files, is no reason to tell nothing of the rest.
	if oom, err := cgroup.WatchOOM(c.Cgroups); err != nil {
		r.warn("%v", err)
	} else {
		watching.Add(1)
		go func() {
			defer watching.Done()
			for {
				if killed, err := oom.Next(); err != nil || !killed {
					return
				}
				// Both tell by one function, which writes lines.
				mu.Lock()
				tell(&Event{Type: "oom", ID: id})
				mu.Unlock()
			}
		}()
		defer func() { oom.Stop(); watching.Wait(); oom.Close() }()
	}
	for !waitPidfd(pidfd, int(interval/time.Millisecond)) {
		e, err := r.Stats(id)
		if err != nil {
			return nil // it has ended
		}
		mu.Lock()
		err = tell(e)
		mu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}
