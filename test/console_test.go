package test

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/test/machine"
)

// console is a program on a terminal of 24 rows and 80 columns, with a test in the place of the person.
type console struct {
	*machine.Process
	master *os.File
	mu     sync.Mutex
	out    []byte // all that was seen
	seen   int    // of it, by expect
	eof    chan struct{}
}

func startConsole(m *machine.Machine, argv, env []string, dir string) (*console, error) {
	master, slave, err := openPty()
	if err != nil {
		return nil, err
	}
	defer slave.Close()
	if err := setSize(slave, 24, 80); err != nil {
		master.Close()
		return nil, err
	}
	c := &console{master: master, eof: make(chan struct{})}
	c.Process, err = m.Start(machine.Spec{Argv: argv, Env: env, Dir: dir, TTY: true, Stdin: slave, Stdout: slave, Stderr: slave})
	if err != nil {
		master.Close()
		return nil, err
	}
	go c.read()
	return c, nil
}

func (c *console) read() {
	defer close(c.eof)
	buffer := make([]byte, 4096)
	for {
		n, err := c.master.Read(buffer)
		c.mu.Lock()
		c.out = append(c.out, buffer[:n]...)
		c.mu.Unlock()
		if err != nil {
			return // EIO: nobody has the other side open
		}
	}
}

func (c *console) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.out)
}

func (c *console) write(keys string) { c.master.WriteString(keys) }

// expect waits for something that was not looked at before and returns it with its groups; nil if the program ends without it.
func (c *console) expect(want *regexp.Regexp, limit time.Duration) ([]string, error) {
	for end := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		ended := false
		select {
		case <-c.eof:
			ended = true
		default:
		}
		c.mu.Lock()
		rest := string(c.out[c.seen:])
		found := want.FindStringSubmatchIndex(rest)
		if found != nil {
			c.seen += found[1]
		}
		c.mu.Unlock()
		if found != nil {
			return want.FindStringSubmatch(rest), nil
		}
		if ended {
			return nil, nil
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("%q never came", want)
		}
	}
}

// wait waits for the end and returns the exit code.
func (c *console) wait(limit time.Duration) (int, error) {
	select {
	case <-c.Done():
	case <-time.After(limit):
		return 0, errors.New("no end")
	}
	select {
	case <-c.eof:
	case <-time.After(2 * time.Second):
	}
	return c.Wait()
}

func (c *console) close() {
	select {
	case <-c.Done():
	default:
		c.Signal(unix.SIGKILL)
	}
	c.master.Close()
}

func openPty() (master, slave *os.File, err error) {
	// Non-blocking: or it couldn't be closed while it is read.
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open /dev/ptmx: %w", err)
	}
	master = os.NewFile(uintptr(fd), "/dev/ptmx")
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		master.Close()
	}
	return master, slave, err
}

func setSize(tty *os.File, rows, cols uint16) error {
	return unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
}
