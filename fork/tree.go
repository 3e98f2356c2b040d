package fork

import (
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// moveMount attaches a detached mount to a descriptor.
func (l *lowering) moveMount(from arg, to arg) {
	empty := l.str("")
	l.add(mk(unix.SYS_MOVE_MOUNT, from, val(empty), to, val(empty), num(unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)))
}

// openTree clones the mount that a descriptor stands for.
func (l *lowering) openTree(from arg, recursive bool, save uint8) {
	flags := unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_EMPTY_PATH
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	c := mk(unix.SYS_OPEN_TREE, from, val(l.str("")), num(flags))
	c.save = save
	l.add(c)
}

// keepers are the descriptors that the child needs after the present step, in order: the socket to the parent, and those that
// later steps name.
func (l *lowering) keepers() []int {
	fds := []int{l.sock}
	if l.pause != nil {
		fds = append(fds, l.pause.child)
	}
	for _, s := range l.steps[l.step+1:] {
		if o, ok := s.Op.(*plan.AwaitStart); ok {
			fds = append(fds, l.fds[o.Dir])
		}
	}
	slices.Sort(fds)
	return fds
}

// kindOf says what the target of a bind mount must be: "dir" or "file", as the source is.
func (l *lowering) kindOf(name string) (string, error) {
	if kind, ok := l.kinds[name]; ok {
		return kind, nil
	}
	source, err := l.fd(name)
	if err != nil {
		return "", err
	}
	var st unix.Stat_t
	if source.reg != 0 {
		return "", fmt.Errorf("the source of a mount that the child opens has no kind yet")
	}
	if err := unix.Fstat(int(source.v), &st); err != nil {
		return "", err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return "dir", nil
	}
	return "file", nil
}

func hostKind(path string) string {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return "file"
	}
	return "dir"
}

// recvTree receives the clone of a mount that the parent sends.
func (l *lowering) recvTree(o *plan.RecvFD) error {
	i := slices.IndexFunc(l.steps, func(s plan.Step) bool {
		t, ok := s.Op.(*plan.OpenTree)
		return ok && t.Child && t.Save == o.Save
	})
	if i < 0 {
		return fmt.Errorf("the parent sends no %q", o.Save)
	}
	l.kinds[o.Save] = hostKind(l.steps[i].Op.(*plan.OpenTree).Path)
	msg, fd := l.message()
	c := mk(unix.SYS_RECVMSG, num(l.sock), val(msg), num(unix.MSG_CMSG_CLOEXEC))
	c.look, c.mask, c.load = (*uint64)(unsafe.Pointer(fd)), 0xffffffff, true
	c.save = l.reg()
	l.add(c)
	l.save(o.Save, c.save)
	return nil
}

// hostTree clones a mount of the host, seen from the child's mount namespace. What kind of file it is, is found out here, by the
// parent: if it is another one by the time the child comes to it, mounting fails.
func (l *lowering) hostTree(o *plan.OpenTree) error {
	if o.IDMap != "" || o.Readonly || o.Mounts != "" || o.Beneath != "" {
		return fmt.Errorf("the ids and the flags of a mount of the host are set by the parent, who also looks beneath one")
	}
	if o.Device != "" {
		if err := checkDevice(o); err != nil {
			return err
		}
	}
	l.kinds[o.Save] = hostKind(o.Path)
	flags := unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC
	if o.Recursive {
		flags |= unix.AT_RECURSIVE
	}
	if o.Device != "" {
		flags |= unix.AT_SYMLINK_NOFOLLOW
	}
	c := mk(unix.SYS_OPEN_TREE, val(cwd), val(l.str(o.Path)), num(flags))
	c.save = l.reg()
	l.add(c)
	l.save(o.Save, c.save)
	if o.FSType == "proc" {
		check := l.statfs(at(c.save))
		check.mask, check.like, check.miss = ^uint64(0), unix.PROC_SUPER_MAGIC, uint16(unix.EXDEV)
		l.add(check)
	}
	return nil
}
