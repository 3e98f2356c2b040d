package verify

import (
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// patience is how long a look into the container may take: it may have mounted a file system that never answers (FUSE). Who has
// been kept waiting once waits less from then on.
const (
	patience   = 2 * time.Second
	impatience = 100 * time.Millisecond
)

var errPatience = errors.New("it doesn't answer: a file system of the container may hold it up")

// patiently does something that the container might hold up for ever. What hangs is left behind.
// It is given to late, should it come to an end after all.
func patiently[T any](v *view, do func() (T, error), late func(T)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := do()
		done <- result{value, err}
	}()
	wait := patience
	if v.kept {
		wait = impatience
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case r := <-done:
		return r.value, r.err
	case <-timer.C:
		v.kept = true
		go func() {
			if r := <-done; r.err == nil && late != nil {
				late(r.value)
			}
		}()
		var none T
		return none, errPatience
	}
}

// open opens a path of the container for nothing but its name: below its root and through no magic link.
func (v *view) open(name string, flags uint64) (int, error) {
	if v.root < 0 {
		return -1, v.noRoot
	}
	rel := strings.TrimPrefix(path.Clean("/"+name), "/")
	if rel == "" {
		rel = "."
	}
	root := v.root
	fd, err := patiently(v, func() (int, error) {
		how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC | flags, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
		fd, err := unix.Openat2(root, rel, &how)
		for n := 0; n < 1000 && (err == unix.EAGAIN || err == unix.EINTR); n++ { // the tree changed while ".." was resolved
			fd, err = unix.Openat2(root, rel, &how)
		}
		return fd, err
	}, func(fd int) { unix.Close(fd) })
	if err != nil {
		return -1, err
	}
	return fd, nil
}

// resolve follows the symbolic links in a path of the container. What can't be followed stays as it is.
func (v *view) resolve(name string) string {
	fd, err := v.open(name, 0)
	if err != nil {
		return name
	}
	defer unix.Close(fd)
	to, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	// The container's mounts can't be reached from this command's root, so the kernel tells the way from the root of their namespace.
	if err != nil || !strings.HasPrefix(to, "/") {
		return name
	}
	return to
}

// at looks at a file of the container, without following a link in its last name.
func (v *view) at(name string) (unix.Stat_t, error) {
	var st unix.Stat_t
	fd, err := v.open(name, unix.O_NOFOLLOW)
	if err != nil {
		return st, err
	}
	defer unix.Close(fd)
	return statOf(fd, "")
}

// statOf asks for a file's attributes as the kernel knows them: a file system of the container isn't asked.
func statOf(fd int, name string) (st unix.Stat_t, err error) {
	var x unix.Statx_t
	err = unix.Statx(fd, name, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT|unix.AT_STATX_DONT_SYNC,
		unix.STATX_BASIC_STATS, &x)
	st.Mode, st.Uid, st.Gid, st.Rdev = uint32(x.Mode), x.Uid, x.Gid, unix.Mkdev(x.Rdev_major, x.Rdev_minor)
	return st, err
}

// inside is the name of a file of the container for the report.
func (v *view) inside(name string) string { return v.proc("root") + path.Clean("/"+name) }

func (v *view) madeDir(o *plan.Mkdir) Finding {
	fd, err := v.open(o.Path, unix.O_DIRECTORY)
	switch {
	case errors.Is(err, unix.ENOENT):
		return missing(v.inside(o.Path), "a directory", v.byRoot("a process of the container may have removed it"))
	case errors.Is(err, unix.ENOTDIR):
		return differs(v.inside(o.Path), "a directory", "another kind of file", v.byRoot("a process of the container may have replaced it"))
	case err != nil:
		return failed(v.inside(o.Path), err)
	}
	unix.Close(fd)
	return holds(v.inside(o.Path), "a directory")
}

func nodeWords(st unix.Stat_t) string {
	kind := map[uint32]string{unix.S_IFCHR: "c", unix.S_IFBLK: "b", unix.S_IFIFO: "p"}[st.Mode&unix.S_IFMT]
	switch kind {
	case "":
		return "no device"
	case "p":
		return "p"
	}
	return fmt.Sprintf("%s %d:%d", kind, unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev)))
}

func (v *view) node(o *plan.Mknod) Finding {
	where := v.inside(o.Path)
	st, err := v.at(o.Path)
	if errors.Is(err, unix.ENOENT) {
		return missing(where, o.String(), v.byRoot("a process of the container may have removed it"))
	}
	if err != nil {
		return failed(where, err)
	}
	kind := o.Type
	if kind == "u" {
		kind = "c"
	}
	want := fmt.Sprintf("%s %d:%d", kind, o.Major, o.Minor)
	if kind == "p" {
		want = "p"
	}
	who := v.who("CAP_MKNOD")
	if have := nodeWords(st); have != want {
		return differs(where, want, have, who)
	}
	// One that was there already stays as it is: only in a file system that the plan made is it the plan's.
	if o.Existing != "" && !v.mounts.fresh(o.Path) {
		return holds(where, want)
	}
	words := func(mode, uid, gid uint32) string {
		return fmt.Sprintf("%s, mode %04o, owner %d:%d", want, mode, uid, gid)
	}
	return same(where, words(o.Mode, v.outside("uid_map", o.UID), v.outside("gid_map", o.GID)), words(st.Mode&0o7777, st.Uid, st.Gid),
		v.byRoot("root of the container may have changed it (chmod, chown)"))
}

func (v *view) symlink(o *plan.Symlink) Finding {
	where := v.inside(o.Path)
	dir, name := path.Split(path.Clean("/" + o.Path))
	fd, err := v.open(dir, unix.O_DIRECTORY)
	if err != nil {
		return failed(v.inside(dir), err)
	}
	defer unix.Close(fd)
	buf := make([]byte, unix.PathMax)
	n, err := patiently(v, func() (int, error) { return unix.Readlinkat(fd, name, buf) }, nil)
	switch {
	case errors.Is(err, errPatience):
		return failed(where, err)
	case err == unix.EINVAL && !o.Replace:
		return unseen("%s is no link: a file that was there already stays", where)
	case err == unix.ENOENT && o.Existing:
		if t, err := v.open(o.Target, 0); err == nil {
			unix.Close(t)
		} else {
			return holds(where, "there is nothing that it would lead to")
		}
		fallthrough
	case err == unix.ENOENT:
		return missing(where, "a link to "+o.Target, v.byRoot("a process of the container may have removed it"))
	case err != nil:
		return differs(where, "a link to "+o.Target, "another kind of file", v.byRoot("a process of the container may have replaced it"))
	}
	have := string(buf[:n])
	if have != o.Target && !o.Replace && !v.mounts.fresh(o.Path) {
		return unseen("%s leads to %s: a file that was there already stays", where, have)
	}
	return same(where, "a link to "+o.Target, "a link to "+have, v.byRoot("a process of the container may have replaced it"))
}

// otherDevices finds device nodes in a /dev that the plan made.
func (v *view) otherDevices() {
	n := v.mounts.walk("/dev")
	if v.root < 0 || n == nil || n.mount == nil || !v.mounts.fresh("/dev/x") {
		return
	}
	known := map[string]bool{}
	for _, s := range v.plan.Steps {
		if o, ok := s.Op.(*plan.Mknod); ok {
			known[path.Clean("/"+o.Path)] = true
		}
	}
	v.devicesIn("/dev", n.mount.id, known, 4)
}

// devicesIn lists what is in one mount, the plan's tmpfs: other file systems could be the container's, and never answer.
func (v *view) devicesIn(dir, mount string, known map[string]bool, depth int) {
	p, err := v.open(dir, unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if err != nil {
		return
	}
	defer unix.Close(p)
	var x unix.Statx_t
	if unix.Statx(p, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_MNT_ID, &x) != nil ||
		strconv.FormatUint(x.Mnt_id, 10) != mount || depth == 0 {
		return
	}
	fd, err := unix.Openat(p, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	f := os.NewFile(uintptr(fd), dir)
	defer f.Close()
	// The container can fill its /dev, and this report is for people.
	names, _ := f.Readdirnames(10000)
	for _, name := range names {
		file := dir + "/" + name
		// Through statx, which doesn't ask what may be mounted on the name.
		st, err := statOf(fd, name)
		if err != nil {
			continue
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			v.devicesIn(file, mount, known, depth-1)
		case unix.S_IFCHR, unix.S_IFBLK:
			if !known[file] && !v.mounts.point(file) {
				v.beside("device "+file+", "+nodeWords(st), v.inside(file), v.who("CAP_MKNOD"))
			}
		}
	}
}

// within runs a function on a thread that is in namespaces of the process; the thread is thrown away. "mount" is not among them.
func (v *view) within(kinds []string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with this function
		if unix.Gettid() == os.Getpid() {
			// The first thread can't end, and /proc/self is about it. While it waits here, another one does the work.
			done <- v.within(kinds, f)
			runtime.UnlockOSThread()
			return
		}
		for _, kind := range kinds {
			its, own, err := v.namespace(kind)
			if err == nil && its == own {
				continue
			}
			fd, err := unix.Openat(v.dir, nsFile(kind), unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err == nil {
				err = unix.Setns(fd, 0)
				unix.Close(fd)
			}
			if err != nil {
				done <- err
				return
			}
		}
		done <- f()
	}()
	return <-done
}

// sysctl reads a setting as the container's processes see it: what a file of /proc/sys says depends on who reads it.
func (v *view) sysctl(o *plan.Sysctl) Finding {
	where := "/proc/sys/" + o.Key
	var text []byte
	err := v.within([]string{"net", "ipc", "uts"}, func() (err error) {
		text, err = os.ReadFile(where)
		return err
	})
	where += " in the container's namespaces"
	if err != nil {
		return failed(where, err)
	}
	have, want := squeeze(string(text)), squeeze(o.Value)
	return same(where, want, have, v.who("CAP_SYS_ADMIN", "CAP_NET_ADMIN"))
}

func (v *view) uts(file, want string) Finding {
	where := "/proc/sys/kernel/" + file
	var text []byte
	err := v.within([]string{"uts"}, func() (err error) {
		text, err = os.ReadFile(where)
		return err
	})
	where += " in the container's UTS namespace"
	if err != nil {
		return failed(where, err)
	}
	return same(where, want, strings.TrimSuffix(string(text), "\n"), v.who("CAP_SYS_ADMIN"))
}

func (v *view) writtenFile(o *plan.WriteFile) Finding {
	text, err := os.ReadFile(o.Path)
	if errors.Is(err, os.ErrNotExist) {
		return missing(o.Path, o.Value, byHost())
	}
	if err != nil {
		return failed(o.Path, err)
	}
	return same(o.Path, squeeze(o.Value), squeeze(string(text)), byHost())
}
