package cli

import (
	"os"
	"sync"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"glassbox/explain"
)

func (a *app) isTerminal() bool { return term.IsTerminal(int(a.in.Fd())) }

// hungUp says that f is a terminal that was closed. A pipe or socket whose other end is gone isn't one. A closed terminal answers no
// question that only terminals answer (EIO), so that it is known by being a character device.
func hungUp(f *os.File) bool {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR {
		return false
	}
	fds := []unix.PollFd{{Fd: int32(f.Fd())}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 1 && fds[0].Revents&unix.POLLHUP != 0
}

// rawMode hands the keyboard to the container. The function returned may be called any number of times.
func rawMode(f *os.File) (restore func(), err error) {
	old, err := term.MakeRaw(int(f.Fd()))
	if err != nil {
		return nil, err
	}
	return sync.OnceFunc(func() { term.Restore(int(f.Fd()), old) }), nil
}

// textOptions says how a plan is printed on a stream.
func (a *app) textOptions(f *os.File, verbose bool) explain.TextOptions {
	o := explain.TextOptions{Verbose: verbose}
	if cols, _, err := term.GetSize(int(f.Fd())); err == nil {
		o.Width = cols
		o.Color = a.getenv("NO_COLOR") == "" && a.getenv("TERM") != "dumb"
	}
	return o
}
