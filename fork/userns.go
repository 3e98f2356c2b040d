package fork

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// mapIDs writes the maps of a process's user namespace.
func mapIDs(pid int, o *plan.IDMap) error {
	if o.Programs {
		if err := runIDMap("newuidmap", "/etc/subuid", pid, o.UID); err != nil {
			return err
		}
		return runIDMap("newgidmap", "/etc/subgid", pid, o.GID)
	}
	dir := "/proc/" + strconv.Itoa(pid) + "/"
	if o.DenySetgroups {
		// First: who may not set groups in the namespace's parent can write gid_map only then (user_namespaces(7), Linux 3.19).
		if err := writeFile(&plan.WriteFile{Path: dir + "setgroups", Value: "deny"}); err != nil {
			return err
		}
	}
	if err := writeFile(&plan.WriteFile{Path: dir + "uid_map", Value: idRanges(o.UID)}); err != nil {
		return err
	}
	return writeFile(&plan.WriteFile{Path: dir + "gid_map", Value: idRanges(o.GID)})
}

// runIDMap has newuidmap(1) or newgidmap(1) write a map.
func runIDMap(program, granted string, pid int, ranges []plan.IDRange) error {
	file := ""
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/bin") {
		// A relative entry of PATH is whatever directory the caller is in, and this runs a program with root's rights.
		if unix.Access(filepath.Join(dir, program), unix.X_OK) == nil && filepath.IsAbs(dir) {
			file = filepath.Join(dir, program)
			break
		}
	}
	if file == "" {
		return fmt.Errorf("%s is not installed, and only it lets an ordinary user map more than the own id: install the package uidmap "+
			"(shadow-utils elsewhere) and give the user a line in %s", program, granted)
	}
	args := []string{program, strconv.Itoa(pid)}
	for _, r := range ranges {
		args = append(args, strconv.FormatUint(uint64(r.Container), 10), strconv.FormatUint(uint64(r.Host), 10),
			strconv.FormatUint(uint64(r.Size), 10))
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	p, err := os.StartProcess(file, args, &os.ProcAttr{Env: []string{"PATH=/usr/bin:/bin"}, Files: []*os.File{nil, nil, w}})
	w.Close()
	if err != nil {
		return err
	}
	said, _ := io.ReadAll(io.LimitReader(r, 4096))
	state, err := p.Wait()
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", program, err)
	case !state.Success():
		return fmt.Errorf("%s: %s: does %s grant user %d these ids? Its lines are USER:FIRST:COUNT", program, strings.TrimSpace(string(said)),
			granted, os.Getuid())
	}
	return nil
}

// userNamespace makes a user namespace that no process lives in: that of a child which waits until the namespace's file is
// open, and then ends.
func userNamespace(o *plan.UserNamespace) (int, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	l := &lowering{}
	// Should this process be killed meanwhile, the child reads the end of file, its list is done, and it ends.
	l.add(mk(unix.SYS_READ, num(pair[1]), val(ptr(l, [1]byte{})), num(1)))
	prog := &program{calls: &l.calls[0], n: len(l.calls), sock: uintptr(pair[1]), other: uintptr(pair[0]), keep: append(l.keep, l.calls)}
	args := &cloneArgs{flags: unix.CLONE_NEWUSER | unix.CLONE_CLEAR_SIGHAND, exitSignal: uint64(unix.SIGCHLD)}
	syscall.ForkLock.Lock()
	pid, errno := clone(args, prog)
	syscall.ForkLock.Unlock()
	runtime.KeepAlive(prog)
	unix.Close(pair[1])
	defer unix.Close(pair[0])
	if errno != 0 {
		return -1, errno
	}
	child := &execution{pid: int(pid)}
	defer child.reap()
	defer unix.Kill(child.pid, unix.SIGKILL)
	if err := mapIDs(child.pid, &plan.IDMap{UID: o.UID, GID: o.GID}); err != nil {
		return -1, err
	}
	return unix.Open("/proc/"+strconv.Itoa(child.pid)+"/ns/user", unix.O_RDONLY|unix.O_CLOEXEC, 0)
}

// sendTree clones a mount of the child's mount namespace with the parent's rights, and sends it to the child. A thread of its own
// does that, which is thrown away: who enters a mount namespace can't share root and working directory with others.
func (x *execution) sendTree(o *plan.OpenTree) error {
	fd, err := openTreeIn(x.pidfd, o, x.fds[o.IDMap])
	if err == nil {
		err = unix.Sendmsg(x.sock, []byte{1}, unix.UnixRights(fd), nil, 0)
		unix.Close(fd)
	}
	if err == unix.ESRCH || gone(err) {
		return x.await() // the child is gone; its report says why
	}
	return err
}

// openTreeIn clones a mount of another mount namespace: that of a process (a pidfd) or one that is open. users is as for openTree.
func openTreeIn(mounts int, o *plan.OpenTree, users int) (int, error) {
	fd := -1
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with this function
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = unix.Setns(mounts, unix.CLONE_NEWNS)
		}
		if err == nil {
			fd, err = openTree(o, users)
		}
		done <- err
	}()
	err := <-done
	return fd, err
}

// adopt receives the second child's pidfd from the first, lets the second go on, and reaps the first.
func (x *execution) adopt() error {
	pidfd, err := x.secondChild(-1)
	if err != nil {
		return err
	}
	pid, err := pidOf(pidfd)
	if err != nil {
		unix.Close(pidfd)
		return err
	}
	x.reap()
	unix.Close(x.pidfd)
	x.pid, x.pidfd, x.adopted = pid, pidfd, true
	// Only now: from the second child's next step on it must be ours to end.
	_, err = unix.Write(x.sock, []byte{1})
	return err
}

// secondChild waits until the first child has sent the pidfd of the second, or has ended without.
func (x *execution) secondChild(patience time.Duration) (pidfd int, err error) {
	timeout := -1
	if patience >= 0 {
		timeout = int(patience.Milliseconds())
	}
	for {
		// The socket alone doesn't tell that the first child is dead: the second may have it open, too.
		poll := []unix.PollFd{{Fd: int32(x.sock), Events: unix.POLLIN}, {Fd: int32(x.pidfd), Events: unix.POLLIN}}
		if x.pause != nil { // where the first child's report comes
			poll = append(poll, unix.PollFd{Fd: int32(x.pause.parent), Events: unix.POLLIN})
		}
		n, err := unix.Poll(poll, timeout)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return -1, err
		case n == 0:
			return -1, unix.ETIMEDOUT
		}
		if poll[0].Revents&unix.POLLIN == 0 {
			unix.Poll(poll[:1], 0) // what it sent, it may have sent and ended after the first look at the socket
		}
		switch {
		case poll[0].Revents&unix.POLLIN == 0 && len(poll) > 2 && poll[2].Revents&unix.POLLIN != 0:
			if err := x.arrive(); err != nil {
				return -1, err
			}
			return -1, x.died()
		case poll[0].Revents&unix.POLLIN == 0:
			return -1, x.died()
		}
		fd, eof, err := x.receive()
		switch {
		case err != nil:
			return -1, err
		case eof:
			return -1, x.died()
		case fd >= 0:
			return fd, nil
		}
	}
}

// endSecond ends a second child that is not adopted yet, so that it isn't left behind. The first child can't be killed for
// that: it alone knows the second one. Nothing holds it up: without us its socket ends all waiting.
func (x *execution) endSecond() {
	clones := false
	for _, s := range x.plan.Steps {
		if _, ok := s.Op.(*plan.Clone); ok && s.Lane == plan.Child {
			clones = true
		}
	}
	if !clones || x.adopted {
		return
	}
	// Not closed: the first child's last words, the second one's pidfd, still come by it.
	unix.Shutdown(x.sock, unix.SHUT_WR)
	if x.pause != nil {
		unix.Shutdown(x.pause.parent, unix.SHUT_WR)
	}
	pidfd, err := x.secondChild(5 * time.Second)
	if err != nil {
		return
	}
	defer unix.Close(pidfd)
	if pid, err := pidOf(pidfd); err == nil {
		unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
		second := &execution{pid: pid}
		second.reap()
	}
}

// pidOf returns the pid that a pidfd stands for, from fdinfo (pidfd_open(2)).
func pidOf(pidfd int) (int, error) {
	data, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(pidfd))
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(data) {
		if v, ok := strings.CutPrefix(string(line), "Pid:"); ok {
			if pid, err := strconv.Atoi(strings.TrimSpace(v)); err == nil && pid > 0 {
				return pid, nil
			}
		}
	}
	return 0, errors.New("the second child can't be seen in /proc: it has ended, or lives in a PID namespace beside ours")
}
