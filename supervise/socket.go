package supervise

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// socketPath returns a path for DIR/NAME that fits into a socket's address (108 bytes, unix(7)), and what to close after its use.
func socketPath(dir, name string) (path string, dirFD int, err error) {
	path = filepath.Join(dir, name)
	if len(path) < 108 {
		return path, -1, nil
	}
	dirFD, err = unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	return fmt.Sprintf("/proc/self/fd/%d/%s", dirFD, name), dirFD, err
}

// listen makes a socket in a directory, in place of one that a killed process left. Messages are whole or not at all.
func listen(dir, name string) (int, error) {
	// Bind fails with EADDRINUSE where there is a file, whether or not anybody listens at it (unix(7)).
	os.Remove(filepath.Join(dir, name))
	path, dirFD, err := socketPath(dir, name)
	if err != nil {
		return -1, err
	}
	defer unix.Close(dirFD)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	if err == nil {
		err = unix.Listen(fd, 64)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("listen on %s: %w", filepath.Join(dir, name), err)
	}
	return fd, nil
}

// dial connects to a socket in a directory. It fails with ENOENT or ECONNREFUSED if nobody listens.
func dial(dir, name string) (int, error) {
	path, dirFD, err := socketPath(dir, name)
	if err != nil {
		return -1, err
	}
	defer unix.Close(dirFD)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// accept hands each connection of a listening socket over. With a read deadline of the file that is past it ends, once it has handed over
// all that have connected before: where the socket was shut down by then, nobody's connection is lost.
func accept(file *os.File, to func(conn int)) {
	raw, err := file.SyscallConn()
	if err != nil {
		return
	}
	for {
		var conn int
		var err error
		take := func(fd uintptr) { conn, _, err = unix.Accept4(int(fd), unix.SOCK_CLOEXEC) }
		over := raw.Read(func(fd uintptr) bool {
			take(fd)
			return err != unix.EAGAIN
		}) != nil
		// Shut for good by its deadline, but the queue may still hold some who connected before.
		if over && raw.Control(take) != nil {
			return
		}
		switch err {
		case nil:
			to(conn)
		case unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS:
			time.Sleep(50 * time.Millisecond) // until others end
		case unix.EAGAIN:
			return
		}
	}
}

// listening makes a file of a listening socket. It is non-blocking, so that Go's poller waits, and not a thread.
func listening(fd int, name string) *os.File { return os.NewFile(uintptr(fd), name) }
