package bundle

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"glassbox/fork"
)

// Criu is told what to do in one message, and asks back while it works: where hooks belong, and to whom a terminal goes. Its command
// line can do neither. `criu swrk FD` speaks protocol buffers over a socket of packets (criu's images/rpc.proto):
//
//	runtime                                   criu
//	criu_req{type, opts}  ──────────────────▶
//	                      ◀──────────────────  criu_resp{NOTIFY, notify{script, pid}} [a terminal]
//	criu_req{NOTIFY, notify_success} ───────▶
//	                      ◀──────────────────  criu_resp{type, success, cr_errmsg}
//
// Of the protocol's fields we need few, and a library for all of them would weigh more than this program.

// message is an encoded message: fields one after another, each with its number and kind.
type message []byte

const (
	varint = 0 // kinds of fields, https://protobuf.dev/programming-guides/encoding
	length = 2
)

func (m *message) number(field int, n uint64) {
	*m = binary.AppendUvarint(binary.AppendUvarint(*m, uint64(field)<<3|varint), n)
}

func (m *message) flag(field int, set bool) {
	if set {
		m.number(field, 1)
	}
}

func (m *message) string(field int, s string) {
	*m = binary.AppendUvarint(binary.AppendUvarint(*m, uint64(field)<<3|length), uint64(len(s)))
	*m = append(*m, s...)
}

func (m *message) message(field int, inner message) { m.string(field, string(inner)) }

// each calls do for each field, with its number or its bytes.
func (m message) each(do func(field int, n uint64, b []byte)) error {
	broken := errors.New("criu: its answer is damaged")
	// What criu sends is read strictly, though criu is trusted: a version that speaks otherwise must be an error and not a
	// wrong number.
	for len(m) > 0 {
		key, used := binary.Uvarint(m)
		if used <= 0 {
			return broken
		}
		m = m[used:]
		n, used := binary.Uvarint(m)
		if used <= 0 {
			return broken
		}
		m = m[used:]
		switch key & 7 {
		case varint:
			do(int(key>>3), n, nil)
		case length:
			if n > uint64(len(m)) {
				return broken
			}
			do(int(key>>3), 0, m[:n])
			m = m[n:]
		default: // criu has no fields of fixed size
			return broken
		}
	}
	return nil
}

// What criu is asked for (criu_req_type).
const (
	reqDump         = 1
	reqRestore      = 2
	reqPreDump      = 4
	reqNotify       = 6
	reqFeatureCheck = 9
)

// Fields of criu_req, criu_resp and criu_opts.
const (
	reqType, reqOpts, reqNotifySuccess, reqFeatures = 1, 2, 3, 5

	respType, respSuccess, respNotify, respFeatures, respMessage = 1, 2, 5, 8, 9

	optImages, optPID, optLeaveRunning, optExtUnixSk, optTCPEstablished, optShellJob, optFileLocks = 1, 2, 3, 4, 5, 7, 8
	optLogLevel, optLogFile, optPageServer, optNotify, optRoot, optParent, optTrackMem, optDedup   = 9, 10, 11, 12, 13, 14, 15, 16
	optWork, optLinkRemap, optCgroupRoot, optSibling, optInherit                                   = 17, 18, 25, 26, 27
	optManageCgroups, optExternal, optEmptyNS, optFreezer, optSkipInFlight                         = 34, 37, 38, 44, 46
	optLazyPages, optOrphanPTS, optConfigFile, optLSMProfile, optLSMMount, optNetworkLock          = 48, 50, 51, 53, 63, 64
	optAnyMode                                                                                     = 66 // skip_file_rwx_check
)

// pair is a message of two fields, as the lists of options have them.
func pair(name string, value int) message {
	var m message
	m.string(1, name)
	m.number(2, uint64(value))
	return m
}

// answer is criu's last word.
type answer struct {
	kind     uint64
	success  bool
	script   string // of a notification
	pid      int
	features message
	message  string
}

func (a *answer) read(m message) error {
	*a = answer{}
	return m.each(func(field int, n uint64, b []byte) {
		switch field {
		case respType:
			a.kind = n
		case respSuccess:
			a.success = n != 0
		case respNotify:
			message(b).each(func(field int, n uint64, b []byte) {
				switch field {
				case 1:
					a.script = string(b)
				case 2:
					a.pid = int(n)
				}
			})
		case respFeatures:
			a.features = b
		case respMessage:
			a.message = string(b)
		}
	})
}

// A call is a criu at work.
type call struct {
	sock int // our end
	pid  int // criu, if it may be ended when it fails to end; 0: it may not
	// notify answers what criu asks, by the name of criu's script. fds came along, and are notify's. An error ends criu's work.
	notify func(script string, pid int, fds []int) error
}

// sockets makes both ends of a conversation with criu.
func sockets() (ours, theirs int, err error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, -1, fmt.Errorf("a socket for criu: %w", err)
	}
	return p[0], p[1], nil
}

// request sends a request and answers notifications, until criu says that it is done.
func (c *call) request(kind int, opts message) (*answer, error) {
	var req message
	req.number(reqType, uint64(kind))
	if kind == reqFeatureCheck {
		req.message(reqFeatures, opts)
	} else {
		req.message(reqOpts, opts)
	}
	if err := c.send(req); err != nil {
		return nil, err
	}
	buf := make([]byte, 64<<10)
	a := &answer{}
	for {
		fds, n, err := fork.ReceiveFDs(c.sock, buf)
		if err != nil {
			return nil, fmt.Errorf("criu: %w", err)
		}
		if n == 0 {
			return nil, errors.New("criu has ended in the middle of its work")
		}
		if err := a.read(buf[:n]); err != nil {
			return nil, err
		}
		if a.kind != reqNotify {
			return a, nil
		}
		err = c.notify(a.script, a.pid, fds)
		if e := c.reply(err == nil); err == nil {
			err = e
		}
		// criu takes back what it has made by then, and tells that in its own time.
		if err != nil {
			if !c.drain(buf) && c.pid > 0 { // it takes back what it has done
				// Criu 3.17 waits for an init that waits for a zombie, which only criu, its tracer, could collect.
				unix.Kill(c.pid, unix.SIGKILL)
			}
			return nil, err
		}
	}
}

func (c *call) send(m message) error {
	for {
		err := unix.Send(c.sock, m, unix.MSG_NOSIGNAL)
		switch err {
		case unix.EINTR:
			continue
		case nil:
			return nil
		}
		return fmt.Errorf("tell criu: %w", err)
	}
}

// reply answers a notification.
func (c *call) reply(ok bool) error {
	var m message
	m.number(reqType, reqNotify)
	m.flag(reqNotifySuccess, ok)
	return c.send(m)
}

// drain reads on until criu is done, and reports whether it was within ten seconds without a word.
func (c *call) drain(buf []byte) bool {
	unix.SetsockoptTimeval(c.sock, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10})
	var a answer
	for {
		fds, n, err := fork.ReceiveFDs(c.sock, buf)
		for _, fd := range fds {
			unix.Close(fd)
		}
		if err != nil || n == 0 || a.read(buf[:n]) != nil || a.kind != reqNotify {
			return err != unix.EAGAIN
		}
		if c.reply(false) != nil {
			return true
		}
	}
}

// criuCall starts criu, has one request done, and waits for its end. Criu is in the given namespaces, and else on the host.
func criuCall(program string, namespaces []string, kind int, opts message,
	notify func(script string, pid int, fds []int) error,
) (*answer, error) {
	ours, theirs, err := sockets()
	if err != nil {
		return nil, err
	}
	defer func() { unix.Close(ours) }()
	end := os.NewFile(uintptr(theirs), "criu")
	// swrk works for whoever holds the other end of the socket, and needs no name that others could connect to.
	cmd := exec.Command(program, "swrk", "3")
	cmd.ExtraFiles = []*os.File{end}
	err = inNamespaces(namespaces, cmd.Start)
	end.Close()
	if err != nil {
		return nil, fmt.Errorf("start criu: %w", err)
	}
	c := call{sock: ours, notify: notify}
	a, err := c.request(kind, opts)
	unix.Shutdown(ours, unix.SHUT_WR) // after a pre-dump it would wait for the next one
	if e := cmd.Wait(); err == nil && a.success && e != nil && kind != reqPreDump {
		err = fmt.Errorf("criu: %w", e)
	}
	return a, err
}

// inNamespaces does something in namespaces, which are given by their files /proc/PID/ns/KIND.
func inNamespaces(paths []string, do func() error) error {
	if len(paths) == 0 {
		return do()
	}
	done := make(chan error)
	go func() {
		// The thread comes back from where it was. One that can't is never used again: it ends with the goroutine, unless it is the
		// first one of the process, by whose namespaces /proc/self goes.
		runtime.LockOSThread()
		back := true
		var own []int
		enter := func() error {
			// The thread's own, which another goroutine can't have changed (LockOSThread).
			for _, path := range paths {
				old, err := unix.Open("/proc/thread-self/ns/"+filepath.Base(path), unix.O_RDONLY|unix.O_CLOEXEC, 0)
				if err != nil {
					return err
				}
				own = append(own, old)
				fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
				if err == nil {
					err = unix.Setns(fd, 0)
					unix.Close(fd)
				}
				if err != nil {
					return fmt.Errorf("enter %s: %w", path, err)
				}
			}
			return nil
		}
		err := enter()
		if err == nil {
			err = do()
		}
		for _, fd := range own {
			back = unix.Setns(fd, 0) == nil && back
			unix.Close(fd)
		}
		if back {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}
