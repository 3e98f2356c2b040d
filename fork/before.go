package fork

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// order is what run goes through: the host's steps, or all of them where each is asked for.
func (x *execution) order() ([]int, error) {
	if x.opts.Before != nil {
		if x.waits() {
			return nil, errors.New("the steps of a container that waits for its start can't be made one at a time")
		}
		return x.plan.Order()
	}
	var order []int
	for i, s := range x.plan.Steps {
		if s.Lane == plan.Host {
			order = append(order, i)
		}
	}
	return order, nil
}

// before waits until what was begun is done, and asks whether step i may be made.
func (x *execution) before(i int) error {
	// A second child comes to its first wait when the host has adopted it.
	if _, cloned := x.last.(*plan.Clone); x.pause != nil && (x.adopted || !cloned) {
		if err := x.arrive(); err != nil {
			return err
		}
	}
	return x.opts.Before(i, x.pid)
}

// goOn lets the child make its next step. A child that is gone is found out by arrive.
func (x *execution) goOn(op plan.Op) {
	unix.Write(x.pause.parent, []byte{1})
	x.arrived, x.last = false, op
}

// arrive waits until the child has come to its next wait, or has become the program.
func (x *execution) arrive() error {
	data := make([]byte, 64)
	for !x.arrived {
		n, err := unix.Read(x.pause.parent, data)
		switch {
		// ECONNRESET comes once, before the end of file, of a child that left a byte of ours unread.
		case err == unix.EINTR || err == unix.ECONNRESET:
			continue
		case err != nil:
			return err
		case n == int(unsafe.Sizeof(report{})):
			return x.reported(data)
		case n == 0:
			// Execve closes the child's end. Before any other step the end of it is the child's.
			if _, ok := x.last.(*plan.Execve); !ok {
				return x.died()
			}
		}
		x.arrived = true
	}
	return nil
}

// watchExec waits until the child comes to execve, begins to trace it, and lets it go on.
func (x *execution) watchExec() error {
	for {
		// At both: the child waits at the one, and tells what has failed at the other (pause.exec).
		poll := []unix.PollFd{{Fd: int32(x.pause.parent), Events: unix.POLLIN}, {Fd: int32(x.sock), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, -1); err == unix.EINTR {
			continue
		} else if err != nil {
			return err
		}
		if poll[0].Revents&unix.POLLIN == 0 || poll[1].Revents&unix.POLLIN != 0 {
			return x.await() // its report, or its end; a child that has ended after its report can be read from at both
		}
		break
	}
	if err := x.arrive(); err != nil {
		return err
	}
	x.opts.Watch.seize(x.pid)
	x.goOn(nil)
	return nil
}
