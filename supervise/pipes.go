package supervise

import (
	"os"

	"golang.org/x/sys/unix"
)

// pipes connect a container without a terminal to its supervisor.
type pipes struct {
	child                 map[string]int
	stdin, stdout, stderr *os.File // the supervisor's ends
}

func newPipes(terminal, interactive bool) (*pipes, error) {
	p := &pipes{child: map[string]int{}}
	if terminal {
		return p, nil
	}
	pipe := func(name string, childReads bool) (*os.File, error) {
		var fd [2]int
		if err := unix.Pipe2(fd[:], unix.O_CLOEXEC); err != nil {
			return nil, err
		}
		child, mine := fd[1], fd[0]
		if childReads {
			child, mine = fd[0], fd[1]
		}
		p.child[name] = child
		unix.SetNonblock(mine, true) // so that Go's poller waits, and not a thread
		return os.NewFile(uintptr(mine), name), nil
	}
	var err error
	if interactive {
		if p.stdin, err = pipe("stdin", true); err != nil {
			return nil, err
		}
	} else {
		fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		p.child["stdin"] = fd
	}
	if p.stdout, err = pipe("stdout", false); err != nil {
		return nil, err
	}
	if p.stderr, err = pipe("stderr", false); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *pipes) closeChild() {
	for _, fd := range p.child {
		unix.Close(fd)
	}
}

func (p *pipes) closeParent() {
	for _, f := range []*os.File{p.stdin, p.stdout, p.stderr} {
		if f != nil {
			f.Close()
		}
	}
}
