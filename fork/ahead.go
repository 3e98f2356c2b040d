package fork

import (
	"runtime"

	"golang.org/x/sys/unix"

	"glassbox/plan"
	"glassbox/wire"
)

// ahead is a network namespace that another thread makes while the host's steps before the clone run: of all namespaces it takes the
// kernel longest, most of a millisecond. The thread that clones enters it for that moment, so the child is born in it, as
// it would be with CLONE_NEWNET.
type ahead struct {
	made chan int // the namespace's descriptor, or -1: the clone makes it
	fd   int
}

// startAhead begins to make the network namespace of a plan's clone. It returns nil where the clone makes it itself: in a user namespace,
// which must own it; after a step that gives the thread other namespaces; with a single processor.
func startAhead(p *plan.Plan) *ahead {
	if runtime.NumCPU() < 2 {
		return nil
	}
	for _, s := range p.Steps {
		if s.Lane != plan.Host {
			continue
		}
		switch o := s.Op.(type) {
		case *plan.Setns, *plan.Unshare:
			return nil
		case *plan.Clone:
			flags, err := namespaces(o.Namespaces)
			if err != nil || flags&unix.CLONE_NEWNET == 0 || flags&unix.CLONE_NEWUSER != 0 {
				return nil
			}
			a := &ahead{made: make(chan int, 1), fd: -1}
			go func() {
				fd := -1
				_, err := wire.KeepNamespace(func() (err error) {
					if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
						fd, err = wire.OwnNamespace()
					}
					return err
				})
				if err != nil {
					fd = -1 // the clone will say what is wrong
				}
				a.made <- fd
			}()
			// Go's scheduler keeps the youngest goroutine for the processor that it was begun on: another one takes it only after a sleep, which
			// with late timers (see timerSlack) is long. This one takes that place.
			go func() {}()
			return a
		}
	}
	return nil
}

// namespace waits for the namespace. It returns its descriptor, which close closes, or -1.
func (a *ahead) namespace() int {
	if a == nil {
		return -1
	}
	if a.made != nil {
		a.fd, a.made = <-a.made, nil
	}
	return a.fd
}

func (a *ahead) close() {
	if fd := a.namespace(); fd >= 0 {
		unix.Close(fd)
	}
}
