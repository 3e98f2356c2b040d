package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A service of systemd's with Type=notify says itself when it is ready (sd_notify(3)), over the socket that NOTIFY_SOCKET names. A
// container can't reach that one, and nobody there believes what doesn't come from the service's main process. So the container gets a
// socket of its own, and the runtime passes on what comes: first READY=1, then MAINPID with the container's process, as runc does.
const (
	notifyMount  = "/run/notify"
	notifySocket = "notify.sock"
	// barrierWait is how long the service manager gets to take notice, in milliseconds. One that doesn't know barriers closes the
	// descriptor at once.
	barrierWait = 30000
)

func (r *Runtime) notifyDir(id string) string { return filepath.Join(r.dir(id), "notify") }

// offerNotify gives the container a directory in which its socket will be.
func (r *Runtime) offerNotify(id string, spec *specs.Spec) error {
	if r.NotifySocket == "" {
		return nil
	}
	dir := r.notifyDir(id)
	err := os.Mkdir(dir, 0o755)
	// Mkdir's mode goes through the umask, and the container's user has to come in.
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		return fmt.Errorf("NOTIFY_SOCKET: %w", err)
	}
	spec.Mounts = append(spec.Mounts, specs.Mount{
		Destination: notifyMount, Type: "bind", Source: dir,
		Options: []string{"bind", "nosuid", "nodev", "noexec", "ro"},
	})
	spec.Process.Env = append(spec.Process.Env, "NOTIFY_SOCKET="+notifyMount+"/"+notifySocket)
	return nil
}

// notifier passes the container's readiness on.
type notifier struct {
	sock int    // the container's, or -1
	host string // the service manager's
}

// listen makes the container's socket, if it was offered one.
func (r *Runtime) listen(id string) (*notifier, error) {
	if r.NotifySocket == "" {
		return nil, nil
	}
	dir, err := unix.Open(r.notifyDir(id), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil, nil // it was created without
	}
	if err != nil {
		return nil, fmt.Errorf("NOTIFY_SOCKET: %s: %w", r.notifyDir(id), err)
	}
	defer unix.Close(dir)
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("NOTIFY_SOCKET: %w", err)
	}
	// By way of the descriptor the path is short enough for an address (unix(7): 108 bytes).
	path := fmt.Sprintf("/proc/self/fd/%d/%s", dir, notifySocket)
	// Any user of the container may say that it is ready.
	if err = unix.Bind(sock, &unix.SockaddrUnix{Name: path}); err == nil {
		err = os.Chmod(path, 0o777)
	}
	if err != nil {
		unix.Close(sock)
		return nil, fmt.Errorf("NOTIFY_SOCKET: %s/%s: %w", r.notifyDir(id), notifySocket, err)
	}
	return &notifier{sock, r.NotifySocket}, nil
}

// forward waits until the container says that it is ready, or has ended, and passes on the former.
func (n *notifier) forward(pid, pidfd int) error {
	if n == nil {
		return nil
	}
	defer unix.Close(n.sock)
	buf := make([]byte, 4096)
	for {
		if ready, err := readable(n.sock, pidfd); err != nil || !ready {
			return err // nil: it has ended
		}
		got, err := unix.Read(n.sock, buf)
		if err != nil {
			return fmt.Errorf("NOTIFY_SOCKET: %w", err)
		}
		for line := range bytes.Lines(buf[:got]) {
			if bytes.HasPrefix(line, []byte("READY=")) {
				return n.tell(bytes.TrimRight(line, "\n"), pid)
			}
		}
	}
}

// tell tells the service manager, and waits until it has taken notice: a message of a process that has ended is of nobody's.
func (n *notifier) tell(ready []byte, pid int) error {
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(sock)
	to := &unix.SockaddrUnix{Name: n.host} // a first @ stands for an abstract address, there and here
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	defer unix.Close(pipe[0])
	err = unix.Sendmsg(sock, ready, nil, to, 0)
	if err == nil {
		err = unix.Sendmsg(sock, []byte("MAINPID="+strconv.Itoa(pid)), nil, to, 0)
	}
	if err == nil {
		// A descriptor that systemd closes when it has read all messages before it (sd_notify_barrier(3)).
		err = unix.Sendmsg(sock, []byte("BARRIER=1"), unix.UnixRights(pipe[1]), to, 0)
	}
	unix.Close(pipe[1])
	if err != nil {
		return fmt.Errorf("NOTIFY_SOCKET: %s: %w", n.host, err)
	}
	if !waitPidfd(pipe[0], barrierWait) {
		return errors.New("NOTIFY_SOCKET: the service manager has not taken notice within 30 s")
	}
	return nil
}
