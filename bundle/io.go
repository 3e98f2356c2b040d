package bundle

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"glassbox/fork"
	"glassbox/signals"
)

// sendConsole sends a terminal's master to whoever listens at a unix socket, and closes it.
func sendConsole(path string, fd int) error {
	err := sendFD("--console-socket", path, "/dev/ptmx", fd)
	unix.Close(fd)
	return err
}

// sendFD sends a descriptor to whoever listens at a unix socket, as runc does: one message with the descriptor, and a name for it.
func sendFD(flag, path, name string, fd int) error {
	if err := fork.SendFD(path, []byte(name), fd); err != nil {
		return fmt.Errorf("%s: %w", flag, err)
	}
	return nil
}

// console is the terminal of a container, carried to ours.
type console struct {
	master *os.File
	old    *term.State
	done   chan struct{}
}

func attach(fd int) *console {
	// So that Go's poller waits for it, and no thread has to stay in read(2).
	unix.SetNonblock(fd, true)
	c := &console{master: os.NewFile(uintptr(fd), "console"), done: make(chan struct{})}
	// Raw: keys are the container's terminal's to interpret, Ctrl-C included. A pipe has nothing to switch.
	if term.IsTerminal(0) {
		c.old, _ = term.MakeRaw(0)
	}
	c.resize()
	go func() {
		defer close(c.done)
		buf := make([]byte, 32<<10)
		for {
			n, err := c.master.Read(buf)
			if n > 0 {
				if _, err := os.Stdout.Write(buf[:n]); err != nil {
					return
				}
			}
			if err != nil { // EIO: the last user of the terminal is gone
				return
			}
		}
	}()
	// Nobody waits for this one: a read of standard input can't be called off, and ends with the program.
	go func() {
		buf := make([]byte, 32<<10)
		for {
			n, err := os.Stdin.Read(buf)
			if n > 0 {
				if _, err := c.master.Write(buf[:n]); err != nil {
					return
				}
			}
			if err != nil {
				return
			}
		}
	}()
	return c
}

func (c *console) resize() {
	if c == nil {
		return
	}
	if ws, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ); err == nil {
		unix.IoctlSetWinsize(int(c.master.Fd()), unix.TIOCSWINSZ, ws)
		unix.SetNonblock(int(c.master.Fd()), true) // Fd has made it blocking
	}
}

func (c *console) restore() {
	if c != nil && c.old != nil {
		term.Restore(0, c.old)
		c.old = nil
	}
}

// drain waits a moment for what the process has written last.
func (c *console) drain() {
	if c == nil {
		return
	}
	select {
	case <-c.done:
	// Somebody else may hold the terminal open, such as a program left in the background: it is no reason to wait for ever.
	case <-time.After(100 * time.Millisecond):
	}
	c.restore()
}

// forwarder passes the signals of a foreground runtime on to the container's process.
type forwarder struct{ catcher *signals.Catcher }

// catch takes the signals from now on. Before there is a child, a signal may end the runtime, and there is nobody to pass it on to.
func (f *forwarder) catch() (err error) {
	f.catcher, err = signals.Catch(unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH)
	return err
}

// wait passes signals on until the process ends, and returns its exit status as a shell would. Signals stay caught: what the end
// of a container takes away is taken away whole.
func (f *forwarder) wait(p *fork.Process, c *console) int {
	fds := []unix.PollFd{{Fd: int32(p.Pidfd), Events: unix.POLLIN}, {Fd: int32(f.catcher.FD()), Events: unix.POLLIN}}
	for fds[0].Revents == 0 {
		// A pidfd is readable once its process has ended (pidfd_open(2)); SIGCHLD would have to be told apart from others' children.
		if _, err := unix.Poll(fds, -1); err != nil {
			continue // EINTR
		}
		if fds[1].Revents == 0 {
			continue
		}
		for _, sig := range f.catcher.Next() {
			if sig == unix.SIGWINCH {
				c.resize()
			} else {
				unix.PidfdSendSignal(p.Pidfd, sig, nil, 0)
			}
		}
	}
	ws := wait4(p.PID)
	c.drain()
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// wait4 waits for the end of a child.
func wait4(pid int) (ws unix.WaitStatus) {
	for {
		_, err := unix.Wait4(pid, &ws, 0, nil)
		if !errors.Is(err, unix.EINTR) {
			return ws
		}
	}
}
