package fork

import (
	"slices"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

func (l *lowering) maskPath(o *plan.MaskPath) error {
	null, err := l.fd(o.Null)
	if err != nil {
		return err
	}
	t := l.reg()
	dir := l.open(o.Path, unix.O_PATH|unix.O_DIRECTORY, 0, t)
	file := l.open(o.Path, unix.O_PATH, 0, t)
	l.on(dir, unix.ENOTDIR, int32(file))
	empty, ok := l.empty[o.Label]
	if !ok {
		empty = l.fresh()
		if l.empty == nil {
			l.empty = map[string]uint8{}
		}
		l.empty[o.Label] = empty
	}
	n := l.reg()
	l.openTree(null, false, n)
	l.moveMount(at(n), at(t))
	l.close(at(n))
	l.close(at(t))
	last := l.here() - 1
	// A directory: an empty tmpfs instead. It is one for all of them, of which each has a clone: nothing can ever be in it, and to make
	// one takes twice the calls. Which directory is there to be the first is known to the child only.
	l.calls[dir].ok = l.here()
	clone := l.here()
	l.openTree(at(empty), false, n)
	l.moveMount(at(n), at(t))
	l.close(at(n))
	l.close(at(t))
	cloned := l.here() - 1
	for i := clone; i <= cloned; i++ {
		l.calls[i].only = empty
	}
	// Room for the root alone, should it ever become writable: tmpfs takes 0 for no limit of size, but a file needs an inode (tmpfs(5)).
	options := []string{"size=0", "nr_inodes=2"}
	if o.Label != "" {
		options = append(options, "context="+o.Label)
	}
	made := &plan.FSMount{Type: "tmpfs", Source: "tmpfs", Options: options, Attrs: []string{"ro", "nosuid", "nodev", "noexec"}}
	if _, err := l.fsMountTo(made, empty); err != nil {
		return err
	}
	l.moveMount(at(empty), at(t)) // it stays open for the next one
	l.close(at(t))
	end := l.here()
	l.calls[last].ok, l.calls[cloned].ok = end, end
	l.on(dir, unix.ENOENT, end)
	l.on(file, unix.ENOENT, end)
	if !l.masksMore(o.Label) {
		// Not left to execve: a container that was created waits for that, in sight of those who share its processes.
		c := mk(unix.SYS_CLOSE, at(empty))
		c.only = empty
		l.add(c)
	}
	l.release(n)
	l.release(t)
	return nil
}

// masksMore reports whether a later step may hide a directory behind the same tmpfs.
func (l *lowering) masksMore(label string) bool {
	return slices.ContainsFunc(l.steps[min(int(l.step)+1, len(l.steps)):], func(s plan.Step) bool {
		o, ok := s.Op.(*plan.MaskPath)
		return ok && s.Lane == plan.Child && o.Label == label
	})
}
