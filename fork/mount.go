package fork

import (
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// statx asks for what a descriptor stands for. A successful call leaves struct statx, of which the 8 bytes at an offset are then
// looked at.
func (l *lowering) statx(fd arg, offset uintptr) call {
	buf := make([]uint64, 34) // 256 bytes, and room to align what is looked at
	l.keep = append(l.keep, buf)
	base := unsafe.Pointer(&buf[0])
	// child looks at eight bytes at once, which some processors want at a multiple of eight.
	start := -offset & 7
	c := mk(unix.SYS_STATX, fd, val(l.str("")), num(unix.AT_EMPTY_PATH), num(unix.STATX_BASIC_STATS), val(uintptr(base)+start))
	c.look = (*uint64)(unsafe.Add(base, start+offset))
	return c
}

// outsideProc fails if a target lies in a procfs, where a symbolic link of the image may have led it: what reads the kernel's
// files would be deceived (CVE-2019-16884). Targets that say /proc were judged by the compiler.
func (l *lowering) outsideProc(target string, fd arg) {
	if t := rel(target); t == "proc" || strings.HasPrefix(t, "proc/") {
		return
	}
	c := l.statfs(fd)
	c.mask, c.like, c.unlike, c.miss = ^uint64(0), unix.PROC_SUPER_MAGIC, true, uint16(unix.EXDEV)
	l.add(c)
}

// statfs asks for the type of a descriptor's file system.
func (l *lowering) statfs(fd arg) call {
	buf := make([]uint64, 16) // struct statfs begins with it
	l.keep = append(l.keep, buf)
	c := mk(unix.SYS_FSTATFS, fd, val(uintptr(unsafe.Pointer(&buf[0]))))
	c.look = &buf[0]
	return c
}

// mountSetattr changes attributes of the mount that a descriptor stands for (mount_setattr(2), Linux 5.12), and its propagation if
// that isn't 0. Others stay as they are, among them those that another user namespace has locked.
func (l *lowering) mountSetattr(fd arg, set, clear []string, propagation uint64, recursive bool) error {
	if len(set) == 0 && len(clear) == 0 {
		return nil
	}
	s, err := attrs(set)
	if err != nil {
		return err
	}
	c, err := attrs(clear)
	if err != nil {
		return err
	}
	for _, w := range slices.Concat(set, clear) {
		if w == "noatime" || w == "relatime" || w == "strictatime" {
			c |= unix.MOUNT_ATTR__ATIME // the access time modes are one field, not bits
		}
	}
	l.setattr(fd, unix.MountAttr{Attr_set: s, Attr_clr: c, Propagation: propagation}, recursive)
	return nil
}

func (l *lowering) setattr(fd arg, a unix.MountAttr, recursive bool) {
	flags := unix.AT_EMPTY_PATH
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	l.add(mk(unix.SYS_MOUNT_SETATTR, fd, val(l.str("")), num(flags), val(ptr(l, a)), val(unsafe.Sizeof(unix.MountAttr{}))))
}

// propagate sets how mounts spread, word by word.
func (l *lowering) propagate(fd arg, words []string) error {
	for _, w := range words {
		p, ok := propagations[w]
		rest, recursive := strings.CutPrefix(w, "r")
		if !ok && recursive {
			p, ok = propagations[rest]
		}
		if !ok {
			return fmt.Errorf("unknown propagation %q", w)
		}
		l.setattr(fd, unix.MountAttr{Propagation: p}, recursive)
	}
	return nil
}

// fsMount makes a new file system as a detached mount. It returns the register and the calls whose ENODEV may end the step.
func (l *lowering) fsMount(o *plan.FSMount) (reg uint8, open int, err error) {
	m := l.reg()
	open, err = l.fsMountTo(o, m)
	return m, open, err
}

// fsMountTo is fsMount into a register of the caller's.
func (l *lowering) fsMountTo(o *plan.FSMount, m uint8) (open int, err error) {
	a, err := attrs(o.Attrs)
	if err != nil {
		return 0, err
	}
	fs := l.reg()
	c := mk(unix.SYS_FSOPEN, val(l.str(o.Type)), num(unix.FSOPEN_CLOEXEC))
	c.save = fs
	open = l.add(c)
	if o.Source != "" {
		l.fsOption(at(fs), "source="+o.Source)
	}
	for _, opt := range o.Options {
		l.fsOption(at(fs), opt)
	}
	l.add(mk(unix.SYS_FSCONFIG, at(fs), num(unix.FSCONFIG_CMD_CREATE), num(0), num(0), num(0)))
	c = mk(unix.SYS_FSMOUNT, at(fs), num(unix.FSMOUNT_CLOEXEC), val(uintptr(a)))
	c.save = m
	l.add(c)
	l.close(at(fs))
	l.release(fs)
	return open, nil
}

// fsOption gives a file system that is being made, or changed, an option: "key" or "key=value".
func (l *lowering) fsOption(fs arg, option string) {
	if key, value, ok := strings.Cut(option, "="); ok {
		l.add(mk(unix.SYS_FSCONFIG, fs, num(unix.FSCONFIG_SET_STRING), val(l.str(key)), val(l.str(value)), num(0)))
	} else {
		l.add(mk(unix.SYS_FSCONFIG, fs, num(unix.FSCONFIG_SET_FLAG), val(l.str(option)), num(0), num(0)))
	}
}

// newMount makes a file system and attaches it.
func (l *lowering) newMount(o *plan.FSMount) error {
	if o.Classic() {
		return l.oldMount(o)
	}
	var resolve uint64
	if o.Type == "proc" || o.Type == "sysfs" {
		resolve = unix.RESOLVE_NO_SYMLINKS // CVE-2019-19921
	}
	var mode uint8
	if o.KeepMode && o.Target != "" {
		// Before the mount is made, as afterwards the directory can't be seen.
		mode = l.covered(o.Target, resolve)
	}
	m, open, err := l.fsMount(o)
	if err != nil {
		return err
	}
	l.changeRoot(at(m), mode, o.Label)
	if err := l.propagate(at(m), o.Propagation); err != nil {
		return err
	}
	if o.Target != "" {
		t := l.target(o.Target, "dir", resolve)
		l.outsideProc(o.Target, at(t))
		l.moveMount(at(m), at(t))
		l.close(at(t))
		l.release(t)
	}
	if o.Save == "" {
		l.close(at(m))
		l.release(m)
	}
	l.save(o.Save, m)
	if o.Save != "" {
		l.places[o.Save] = rel(o.Target)
	}
	if o.Optional {
		// fsopen fails so before anything is made, so there is nothing to close.
		l.on(open, unix.ENODEV, l.here())
	}
	return nil
}

// covered finds out the mode of what is at a target now. The register stays 0 if there is nothing.
func (l *lowering) covered(target string, resolve uint64) (mode uint8) {
	const modeOffset = 28
	mode = l.fresh()
	t := l.reg()
	i := l.open(target, unix.O_PATH, resolve, t)
	c := l.statx(at(t), modeOffset)
	c.load, c.mask, c.save = true, 0xffff, mode
	l.add(c)
	l.close(at(t))
	l.release(t)
	l.on(i, unix.ENOENT, l.here())
	return mode
}

// changeRoot gives the root of a detached mount the mode in a register, unless that is 0, and a label.
func (l *lowering) changeRoot(mount arg, mode uint8, label string) {
	if mode == 0 && label == "" {
		return
	}
	d := l.reg() // a detached mount is open for its path only
	c := mk(unix.SYS_OPENAT, mount, val(l.str(".")), num(unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC))
	c.save = d
	l.add(c)
	if mode != 0 {
		c = mk(unix.SYS_FCHMOD, at(d), at(mode))
		c.only = mode
		l.add(c)
	}
	if label != "" {
		l.add(mk(unix.SYS_FSETXATTR, at(d), val(l.str("security.selinux")), val(l.str(label)), num(len(label)+1), num(0)))
	}
	l.close(at(d))
	l.release(d)
}

// oldMount mounts with mount(2). The target is the working directory for that moment, and "." a name that nobody can exchange.
func (l *lowering) oldMount(o *plan.FSMount) error {
	if o.Target == "" || o.KeepMode {
		return fmt.Errorf("%s with options for mount(2): it can't be detached", o.Type)
	}
	flags, err := bits("mount flag", slices.Concat(o.Attrs, o.Flags), mountFlags)
	if err != nil {
		return err
	}
	root, t := l.reg(), l.target(o.Target, "dir", 0)
	l.outsideProc(o.Target, at(t))
	// To come back by: from here on paths mean what is below the working directory.
	l.open("/", unix.O_PATH|unix.O_DIRECTORY, 0, root)
	l.add(mk(unix.SYS_FCHDIR, at(t)))
	// Of the options, some are flags here.
	var data []string
	for _, opt := range o.Options {
		if f, ok := superFlags[opt]; ok {
			flags |= f
		} else {
			data = append(data, opt)
		}
	}
	text := strings.Join(data, ",")
	if len(text) > 4095 {
		return fmt.Errorf("%d bytes of options, mount(2) takes 4095", len(text))
	}
	dot := l.str(".")
	l.add(mk(unix.SYS_MOUNT, val(l.str(o.Source)), val(dot), val(l.str(o.Type)), val(flags), val(l.str(text))))
	l.close(at(t))
	l.add(mk(unix.SYS_FCHDIR, at(root)))
	l.close(at(root))
	l.release(root)
	// Opened again: the old descriptor is for the directory below the new mount.
	t2 := l.resolve(o.Target, "", 0, 0)
	if err := l.propagate(at(t2), o.Propagation); err != nil {
		return err
	}
	if o.Save == "" {
		l.close(at(t2))
		l.release(t2)
	}
	l.save(o.Save, t2)
	if o.Save != "" {
		l.places[o.Save] = rel(o.Target)
	}
	l.release(t)
	return nil
}

// superFlags are the options of every file system that mount(2) takes as flags.
var superFlags = map[string]uintptr{
	"sync": unix.MS_SYNCHRONOUS, "dirsync": unix.MS_DIRSYNC, "lazytime": unix.MS_LAZYTIME,
	"mand": unix.MS_MANDLOCK,
}

func (l *lowering) attach(o *plan.MoveMount) error {
	fd, err := l.fd(o.From)
	if err != nil {
		return err
	}
	// The last word can be told together with the attributes, if it is for the mount alone, too.
	words, last := o.Propagation, uint64(0)
	if n := len(words); n > 0 && len(o.Set)+len(o.Clear)+len(o.Unlocked) > 0 && propagations[words[n-1]] != 0 {
		words, last = words[:n-1], propagations[words[n-1]]
	}
	if err := l.propagate(fd, words); err != nil {
		return err
	}
	if err := l.mountSetattr(fd, o.Set, slices.Concat(o.Clear, o.Unlocked), last, false); err != nil {
		return err
	}
	if first := int(l.here()) - 1; len(o.Unlocked) > 0 {
		// The kernel changes all or nothing (mount_setattr(2)), so the second try begins from where the first did.
		l.on(first, unix.EPERM, l.here())
		if err := l.mountSetattr(fd, o.Set, o.Clear, last, false); err != nil {
			return err
		}
		if int(l.here())-1 == first && last != 0 {
			l.setattr(fd, unix.MountAttr{Propagation: last}, false)
		}
		l.calls[first].ok = l.here()
	}
	if err := l.mountSetattr(fd, o.RecSet, o.RecClear, 0, true); err != nil {
		return err
	}
	create := o.Create
	if create == "like" {
		if create, err = l.kindOf(o.From); err != nil {
			return err
		}
	}
	var resolve uint64
	if o.NoSymlinks {
		resolve = unix.RESOLVE_NO_SYMLINKS
	}
	if o.KeepMode {
		l.changeRoot(fd, l.covered(o.Target, resolve), "")
	}
	var t uint8
	if o.Replace && create == "file" {
		t = l.replace(o.Target)
	} else {
		t = l.target(o.Target, create, resolve)
	}
	l.outsideProc(o.Target, at(t))
	l.moveMount(fd, at(t))
	l.close(at(t))
	l.release(t)
	l.places[o.From] = rel(o.Target)
	if !o.Keep {
		l.close(fd)
		if fd.reg != 0 {
			l.release(fd.reg)
			delete(l.regs, o.From)
		}
	}
	return nil
}

func (l *lowering) remount(o *plan.Remount) error {
	t := arg{}
	if o.From != "" {
		var err error
		if t, err = l.fd(o.From); err != nil {
			return err
		}
	} else {
		t = at(l.resolve(o.Target, "", 0, 0))
	}
	if len(o.Options) > 0 {
		fs := l.reg()
		c := mk(unix.SYS_FSPICK, t, val(l.str("")), num(unix.FSPICK_CLOEXEC|unix.FSPICK_EMPTY_PATH))
		c.save = fs
		l.add(c)
		for _, opt := range o.Options {
			l.fsOption(at(fs), opt)
		}
		l.add(mk(unix.SYS_FSCONFIG, at(fs), num(unix.FSCONFIG_CMD_RECONFIGURE), num(0), num(0), num(0)))
		l.close(at(fs))
		l.release(fs)
	}
	if err := l.mountSetattr(t, o.Set, o.Clear, 0, false); err != nil {
		return err
	}
	if err := l.mountSetattr(t, o.RecSet, o.RecClear, 0, true); err != nil {
		return err
	}
	if err := l.propagate(t, o.Propagation); err != nil {
		return err
	}
	l.close(t)
	if o.From == "" {
		l.release(t.reg)
	}
	return nil
}

// moveRoot is pivot_root for a root that can't be left.
func (l *lowering) moveRoot(o *plan.MoveRoot) {
	l.add(mk(unix.SYS_CHDIR, val(l.str(o.Root))))
	tmpfs := l.str("tmpfs")
	for _, dir := range []string{"/proc", "/sys"} {
		name := l.str(dir)
		i := l.add(mk(unix.SYS_UMOUNT2, val(name), num(unix.MNT_DETACH)))
		l.calls[i].ok = l.here() + 1
		// What another user namespace has mounted can't be unmounted by this one (mount_namespaces(7)), but it can be covered.
		cover := l.add(mk(unix.SYS_MOUNT, val(tmpfs), val(name), val(tmpfs), num(0), val(l.str("size=0")))) // it is locked
		l.on(i, unix.EPERM, int32(cover))
		l.on(i, unix.EINVAL, int32(cover+1)) // no mount
		l.on(i, unix.ENOENT, int32(cover+1))
	}
	dot := l.str(".")
	l.add(mk(unix.SYS_MOUNT, val(dot), val(l.str("/")), num(0), num(unix.MS_MOVE), num(0)))
	l.add(mk(unix.SYS_CHROOT, val(dot)))
	l.add(mk(unix.SYS_CHDIR, val(l.str("/"))))
}

// openDir opens a directory to look at, or if there is none another one in its place.
func (l *lowering) openDir(o *plan.OpenDir) error {
	other, err := l.fd(o.Else)
	if err != nil {
		return err
	}
	r, clone, root := l.reg(), l.reg(), val(cwd)
	if o.Image {
		l.openTree(root, false, clone)
		root = at(clone)
	}
	i := l.openBelow(root, o.Path, unix.O_RDONLY|unix.O_DIRECTORY, 0, r)
	l.calls[i].ok = l.here() + 1
	c := mk(unix.SYS_OPENAT, other, val(l.str(".")), num(unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC))
	c.save = r
	l.add(c)
	l.on(i, unix.ENOENT, int32(i+1))
	if o.Image {
		l.close(root)
	}
	l.release(clone)
	l.save(o.Save, r)
	return nil
}

func (l *lowering) overlay(o *plan.Overlay) error {
	l.add(mk(unix.SYS_CHDIR, val(l.str(o.Dir))))
	if !o.Append {
		data := "lowerdir=" + strings.Join(o.Lower, ":")
		if o.Upper != "" {
			data += ",upperdir=" + o.Upper + ",workdir=" + o.Work
		}
		for _, opt := range o.Options {
			data += "," + opt
		}
		if len(data) > 4095 {
			return fmt.Errorf("overlay of %d layers: %d bytes of options, mount(2) takes 4095", len(o.Lower), len(data))
		}
		name := l.str("overlay")
		l.add(mk(unix.SYS_MOUNT, val(name), val(l.str(o.Target)), val(name), num(0), val(l.str(data))))
		return nil
	}
	options := make([]string, 0, len(o.Lower)+2)
	for _, dir := range o.Lower {
		options = append(options, "lowerdir+="+dir)
	}
	if o.Upper != "" {
		options = append(options, "upperdir="+o.Upper, "workdir="+o.Work)
	}
	m, _, err := l.fsMount(&plan.FSMount{Type: "overlay", Source: "overlay", Options: append(options, o.Options...)})
	if err != nil {
		return err
	}
	l.add(mk(unix.SYS_MOVE_MOUNT, at(m), val(l.str("")), val(cwd), val(l.str(o.Target)), num(unix.MOVE_MOUNT_F_EMPTY_PATH)))
	l.close(at(m))
	l.release(m)
	return nil
}
