package fork

import (
	"encoding/binary"
	"fmt"
	"path"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// lowering turns the child's steps into a flat list of system calls.
type lowering struct {
	calls  []call
	keep   []any
	room   []byte            // for strings
	fds    map[string]int    // descriptors of the parent that the child inherits
	regs   map[string]uint8  // registers that hold the child's own descriptors
	next   uint8             // last register in use
	free   []uint8           // registers to use again
	places map[string]string // where mounts are attached that are still open, by name
	kinds  map[string]string // of the descriptors in regs that OpenTree made: "dir", "file"
	full   bool              // there were not enough registers
	nul    string            // a text that the kernel would read otherwise than people do, "" if there was none
	step   int32
	sock   int
	steps  []plan.Step
	// entered is 0 or the register that a Chdir with Try makes other than 0 when it succeeds.
	entered  uint8
	filtered bool             // a system call filter is in force
	null     map[string]uint8 // registers of null devices of the container that are open, by name
	empty    map[string]uint8 // registers of the tmpfs that hides directories, 0 as long as none is hidden, by label
	pause    *pause
}

// pause is where the child waits before each step: the ends of a socket of its own, because on the other one a wait could take what
// a step waits for.
type pause struct {
	child, parent int
	exec          bool // before execve only, and reports come as without
}

// lower makes the child's program of a plan. fds holds the descriptors that host steps saved so far, sock is the child's end
// of the socket to the parent. inject, if not negative, is the index of a step whose first call is made to fail with ENOSYS.
// With pause, calls are added before each step by which the child says that it has come so far, and waits.
func lower(p *plan.Plan, fds map[string]int, sock int, inject int, pause *pause) (*program, error) {
	if p.Arch != runtime.GOARCH {
		return nil, fmt.Errorf("the plan is for %s, this machine is %s", p.Arch, runtime.GOARCH)
	}
	l := &lowering{fds: fds, regs: map[string]uint8{}, kinds: map[string]string{}, places: map[string]string{}, sock: sock, pause: pause, steps: p.Steps, calls: make([]call, 0, 6*len(p.Steps))}
	for i, s := range p.Steps {
		if s.Lane != plan.Child {
			continue
		}
		l.step = int32(i)
		if pause != nil && len(l.calls) == 0 {
			l.close(num(pause.parent)) // else the child would never see that the parent is gone
		}
		if _, exec := s.Op.(*plan.Execve); pause != nil && (exec || !pause.exec) {
			if pause.exec {
				l.step = int32(len(p.Steps)) // its time is no step's
			}
			l.add(mk(unix.SYS_WRITE, num(pause.child), val(l.str("!")), num(1)))
			c := mk(unix.SYS_READ, num(pause.child), val(ptr(l, [1]byte{})), num(1))
			c.check, c.want = true, 1
			l.add(c)
			l.step = int32(i)
		}
		if i == inject {
			l.add(call{nr: ^uintptr(0)})
		}
		if err := l.op(s.Op); err != nil {
			return nil, fmt.Errorf("step %d/%d: %w", i+1, len(p.Steps), err)
		}
		if err := l.cut(); err != nil {
			return nil, fmt.Errorf("step %d/%d: %w", i+1, len(p.Steps), err)
		}
		if l.full {
			return nil, fmt.Errorf("step %d/%d: too many descriptors are open in the child at once: 255", i+1, len(p.Steps))
		}
	}
	prog := &program{calls: &l.calls[0], n: len(l.calls), sock: uintptr(sock), keep: append(l.keep, l.calls)}
	if pause != nil && !pause.exec {
		prog.sock = uintptr(pause.child) // a report comes where the parent waits for the child
	}
	return prog, nil
}

func (l *lowering) add(c call) int {
	c.step = l.step
	if c.miss == 0 {
		c.miss = uint16(unix.EPIPE)
	}
	l.calls = append(l.calls, c)
	return len(l.calls) - 1
}

// here is the index of the call that will be added next.
func (l *lowering) here() int32 { return int32(len(l.calls)) }

// on adds a branch to a call that exists: on errno, continue with call next.
func (l *lowering) on(i int, errno unix.Errno, next int32) {
	for k := range l.calls[i].branch {
		if l.calls[i].branch[k].errno == 0 {
			l.calls[i].branch[k] = branch{uint16(errno), next}
			return
		}
	}
	panic("a call with too many branches")
}

// ignore lets the child go on with the following call after one of these errors.
func (l *lowering) ignore(i int, errnos ...unix.Errno) {
	for _, e := range errnos {
		l.on(i, e, int32(i+1))
	}
}

func (l *lowering) reg() uint8 {
	if n := len(l.free); n > 0 {
		r := l.free[n-1]
		l.free = l.free[:n-1]
		return r
	}
	if l.next == 255 {
		l.full = true
		return l.next
	}
	l.next++
	return l.next
}

// fresh returns a register that holds 0.
func (l *lowering) fresh() uint8 {
	free := l.free
	l.free = nil
	r := l.reg()
	l.free = free
	return r
}

func (l *lowering) release(r uint8) { l.free = append(l.free, r) }

// cut is the error of a text with a NUL byte. A C string ends there: what runs would not be what is printed. Plans with one don't
// validate; this is where they would do harm, for who comes here another way or with a text that was put together since.
func (l *lowering) cut() error {
	if l.nul == "" {
		return nil
	}
	return fmt.Errorf("%q has a NUL byte, at which it would end for the kernel", l.nul)
}

// str returns the address of a C string.
func (l *lowering) str(s string) uintptr {
	if strings.IndexByte(s, 0) >= 0 {
		l.nul = s
	}
	n := len(s) + 1
	if n > len(l.room) {
		l.room = make([]byte, max(n, 8<<10)) // one piece of memory for hundreds of short strings
		l.keep = append(l.keep, l.room)
	}
	b := l.room[:n:n]
	l.room = l.room[n:]
	copy(b, s)
	return uintptr(unsafe.Pointer(&b[0]))
}

func (l *lowering) bytes(b []byte) uintptr {
	if len(b) == 0 {
		b = make([]byte, 1)
	}
	l.keep = append(l.keep, b)
	return uintptr(unsafe.Pointer(&b[0]))
}

// vec returns the address of a NULL-terminated array of C strings.
func (l *lowering) vec(ss []string) uintptr {
	size := 0
	for _, s := range ss {
		if strings.IndexByte(s, 0) >= 0 {
			l.nul = s
		}
		size += len(s) + 1
	}
	b := make([]byte, 0, size+1)
	v := make([]uintptr, len(ss)+1)
	b = b[:1]
	base := uintptr(unsafe.Pointer(&b[0]))
	b = b[:0]
	for i, s := range ss {
		v[i] = base + uintptr(len(b))
		b = append(append(b, s...), 0)
	}
	l.keep = append(l.keep, b[:cap(b)], v)
	return uintptr(unsafe.Pointer(&v[0]))
}

func ptr[T any](l *lowering, v T) uintptr {
	p := new(T)
	*p = v
	l.keep = append(l.keep, p)
	return uintptr(unsafe.Pointer(p))
}

// arg is an argument of a call: a value, or a register.
type arg struct {
	v   uintptr
	reg uint8
}

func val(v uintptr) arg { return arg{v: v} }
func num(v int) arg     { return arg{v: uintptr(v)} }
func at(r uint8) arg    { return arg{reg: r} }

func mk(nr uintptr, args ...arg) call {
	c := call{nr: nr}
	for i, a := range args {
		c.args[i], c.from[i] = a.v, a.reg
	}
	return c
}

// fd finds a descriptor by its name.
func (l *lowering) fd(name string) (arg, error) {
	if r, ok := l.regs[name]; ok {
		return at(r), nil
	}
	if fd, ok := l.fds[name]; ok {
		return num(fd), nil
	}
	return arg{}, fmt.Errorf("no descriptor %q", name)
}

func (l *lowering) save(name string, r uint8) {
	if name != "" {
		l.regs[name] = r
	}
}

func (l *lowering) close(a arg) { l.add(mk(unix.SYS_CLOSE, a)) }

// cwd is AT_FDCWD (-100) as an argument.
const cwd = ^uintptr(99)

// openHow is struct open_how (openat2(2), Linux 5.6).
type openHow struct {
	flags   uint64
	_       uint64 // mode
	resolve uint64
}

// open opens a path of the container: below the root, which is also the working directory once the root is changed, and
// through no magic link such as /proc/1/root, which could lead out of it.
func (l *lowering) open(p string, flags uint64, resolve uint64, save uint8) int {
	how := ptr(l, openHow{flags: flags | unix.O_CLOEXEC, resolve: resolve | unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	c := mk(unix.SYS_OPENAT2, val(cwd), val(l.str(rel(p))), val(how), val(unsafe.Sizeof(openHow{})))
	c.save = save
	i := l.add(c)
	// Below a root, ".." can't be resolved while mounts or directories change anywhere (openat2(2), EAGAIN).
	l.on(i, unix.EAGAIN, int32(i))
	return i
}

func rel(p string) string {
	p = strings.TrimPrefix(path.Clean("/"+p), "/")
	if p == "" {
		return "."
	}
	return p
}

// resolve opens a path below the root into a register, making what is missing: create is "dir", "file" or "" (nothing).
func (l *lowering) resolve(p, create string, resolve uint64, mode uint32) uint8 {
	return l.find(p, create, resolve, mode, false)
}

// target is resolve for what is mounted on: a link of the image that leads to the root itself is EBUSY. A mount there would cover all
// that was mounted before, and what comes after it would be made in its directory, which may be the host's.
func (l *lowering) target(p, create string, resolve uint64) uint8 {
	return l.find(p, create, resolve, 0o755, true)
}

func (l *lowering) find(p, create string, resolve uint64, mode uint32, mount bool) uint8 {
	r := l.reg()
	if create == "" {
		l.open(p, unix.O_PATH, resolve, r)
	} else {
		l.make(p, create, resolve, mode, mount, r)
	}
	return r
}

// replace is target for a file of the engine's own: what is in its way in the root file system is taken away.
func (l *lowering) replace(p string) uint8 {
	r := l.reg()
	first := l.open(p, unix.O_PATH, unix.RESOLVE_NO_SYMLINKS, r)
	for _, e := range []unix.Errno{unix.ENOENT, unix.ELOOP, unix.ENOTDIR} {
		l.on(first, e, l.here())
	}
	var beyond []int
	parts := strings.Split(rel(p), "/")
	for i, name := range parts {
		// What is mounted below the root is not to be changed, it may be the host's.
		d := l.open(strings.Join(parts[:i], "/"), unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_XDEV, r)
		beyond = append(beyond, d)
		c := l.add(mk(unix.SYS_UNLINKAT, at(r), val(l.str(name)), num(0)))
		l.ignore(c, unix.ENOENT, unix.EISDIR)
		if i < len(parts)-1 {
			c = l.add(mk(unix.SYS_MKDIRAT, at(r), val(l.str(name)), num(0o755)))
		} else {
			c = l.add(mk(unix.SYS_MKNODAT, at(r), val(l.str(name)), num(unix.S_IFREG|0o644), num(0)))
		}
		l.ignore(c, unix.EEXIST)
		l.close(at(r))
	}
	again := l.open(p, unix.O_PATH, unix.RESOLVE_NO_SYMLINKS, r)
	for _, d := range beyond {
		l.on(d, unix.EXDEV, l.here())
	}
	l.make(p, "file", 0, 0, true, r)
	l.calls[first].ok, l.calls[again].ok = l.here(), l.here()
	return r
}

// make opens a path into a register, and makes what is missing.
func (l *lowering) make(p, create string, resolve uint64, mode uint32, mount bool, r uint8) {
	strict := resolve | unix.RESOLVE_NO_SYMLINKS
	// Where a link may be on the way, but mostly is not, the first ELOOP leads to walk, which follows it and makes what is missing.
	var linked []int
	open := func(p string, flags, resolve uint64) int {
		i := l.open(p, flags, resolve, r)
		if resolve == strict {
			linked = append(linked, i)
		}
		return i
	}
	how := resolve
	if mount {
		how = strict // what has no link in it isn't the root
	}
	first := open(p, unix.O_PATH, how)
	// Mostly only the last name is missing: the way up to what there is begins there.
	l.on(first, unix.ENOENT, l.here())
	parts := strings.Split(rel(p), "/")
	up := make([]int, len(parts)) // by what is missing in the directory: the call that opens that
	for i := len(parts) - 1; i >= 0; i-- {
		up[i] = open(strings.Join(parts[:i], "/"), unix.O_PATH|unix.O_DIRECTORY, strict)
		if i > 0 {
			l.on(up[i], unix.ENOENT, l.here())
		}
	}
	for i, name := range parts {
		if i > 0 {
			open(strings.Join(parts[:i], "/"), unix.O_PATH|unix.O_DIRECTORY, strict)
			l.calls[up[i]].ok = l.here()
		}
		var c int
		switch {
		case i < len(parts)-1:
			c = l.add(mk(unix.SYS_MKDIRAT, at(r), val(l.str(name)), num(0o755)))
		case create == "dir":
			c = l.add(mk(unix.SYS_MKDIRAT, at(r), val(l.str(name)), num(int(mode))))
		default:
			c = l.add(mk(unix.SYS_MKNODAT, at(r), val(l.str(name)), num(unix.S_IFREG|0o644), num(0)))
		}
		l.ignore(c, unix.EEXIST)
		l.close(at(r))
	}
	again := open(p, unix.O_PATH, strict)
	if resolve != strict { // else a link is an error
		for _, i := range linked {
			l.on(i, unix.ELOOP, l.here())
		}
		c := mk(walkNumber, val(l.str(rel(p))), num(map[string]int{"dir": walkDir, "file": walkFile}[create]), num(int(mode)), num(0))
		if mount {
			c.args[3] = 1
		}
		c.save = r
		l.add(c)
		l.calls[again].ok = l.here()
	}
	l.calls[first].ok = l.here()
}

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

var mountAttrs = map[string]uint64{
	"ro": unix.MOUNT_ATTR_RDONLY, "nosuid": unix.MOUNT_ATTR_NOSUID, "nodev": unix.MOUNT_ATTR_NODEV, "noexec": unix.MOUNT_ATTR_NOEXEC,
	"nodiratime": unix.MOUNT_ATTR_NODIRATIME, "nosymfollow": unix.MOUNT_ATTR_NOSYMFOLLOW,
	"noatime": unix.MOUNT_ATTR_NOATIME, "strictatime": unix.MOUNT_ATTR_STRICTATIME, "relatime": unix.MOUNT_ATTR_RELATIME,
}

var propagations = map[string]uint64{
	"private": unix.MS_PRIVATE, "slave": unix.MS_SLAVE, "shared": unix.MS_SHARED, "unbindable": unix.MS_UNBINDABLE,
}

var mountFlags = map[string]uintptr{
	"bind": unix.MS_BIND, "rec": unix.MS_REC, "private": unix.MS_PRIVATE, "slave": unix.MS_SLAVE, "shared": unix.MS_SHARED,
	"unbindable": unix.MS_UNBINDABLE, "ro": unix.MS_RDONLY, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV,
	"noexec": unix.MS_NOEXEC, "remount": unix.MS_REMOUNT, "noatime": unix.MS_NOATIME, "relatime": unix.MS_RELATIME,
	"nodiratime": unix.MS_NODIRATIME, "strictatime": unix.MS_STRICTATIME, "nosymfollow": unix.MS_NOSYMFOLLOW,
	"silent": unix.MS_SILENT, "iversion": unix.MS_I_VERSION,
}

// bits joins the flags that words stand for; what says what they are, for an error.
func bits[T ~uint64 | ~uintptr](what string, words []string, table map[string]T) (T, error) {
	var n T
	for _, w := range words {
		b, ok := table[w]
		if !ok {
			return 0, fmt.Errorf("unknown %s %q", what, w)
		}
		n |= b
	}
	return n, nil
}

func attrs(words []string) (uint64, error) { return bits("mount attribute", words, mountAttrs) }

func (l *lowering) writeFile(from arg, file, value string, resolve uint64) {
	r := l.reg()
	how := ptr(l, openHow{flags: unix.O_WRONLY | unix.O_CLOEXEC, resolve: resolve})
	c := mk(unix.SYS_OPENAT2, from, val(l.str(file)), val(how), val(unsafe.Sizeof(openHow{})))
	c.save = r
	l.add(c)
	w := mk(unix.SYS_WRITE, at(r), val(l.str(value)), num(len(value)))
	w.check, w.want = true, uintptr(len(value))
	l.add(w)
	l.close(at(r))
	l.release(r)
}

// nsFlags are the clone flags of the namespaces.
var nsFlags = map[string]uint64{
	"mount": unix.CLONE_NEWNS, "pid": unix.CLONE_NEWPID, "uts": unix.CLONE_NEWUTS, "ipc": unix.CLONE_NEWIPC,
	"net": unix.CLONE_NEWNET, "user": unix.CLONE_NEWUSER, "cgroup": unix.CLONE_NEWCGROUP, "time": unix.CLONE_NEWTIME,
}

func namespaces(names []string) (uint64, error) { return bits("namespace", names, nsFlags) }

var rlimits = map[string]int{
	"RLIMIT_CPU": 0, "RLIMIT_FSIZE": 1, "RLIMIT_DATA": 2, "RLIMIT_STACK": 3, "RLIMIT_CORE": 4, "RLIMIT_RSS": 5, "RLIMIT_NPROC": 6,
	"RLIMIT_NOFILE": 7, "RLIMIT_MEMLOCK": 8, "RLIMIT_AS": 9, "RLIMIT_LOCKS": 10, "RLIMIT_SIGPENDING": 11, "RLIMIT_MSGQUEUE": 12,
	"RLIMIT_NICE": 13, "RLIMIT_RTPRIO": 14, "RLIMIT_RTTIME": 15,
}

func capBits(names []string) (uint64, error) {
	var bits uint64
	for _, name := range names {
		n := plan.CapNumber(name)
		if n < 0 {
			return 0, fmt.Errorf("unknown capability %q", name)
		}
		bits |= 1 << n
	}
	return bits, nil
}

// op adds the calls of one step.
func (l *lowering) op(op plan.Op) error {
	switch o := op.(type) {
	case *plan.CgroupJoin:
		return l.join(o.From)
	case *plan.ResctrlJoin:
		return l.join(o.From)
	case *plan.Clone:
		return l.cloneAgain(o)
	case *plan.TimeOffsets:
		var b strings.Builder
		for _, t := range o.Offsets {
			fmt.Fprintf(&b, "%s %d %d\n", t.Clock, t.Secs, t.Nanosecs)
		}
		l.writeFile(val(cwd), "/proc/self/timens_offsets", b.String(), 0)
	case *plan.OpenTree:
		return l.hostTree(o)
	case *plan.Unshare:
		flags, err := namespaces(o.Namespaces)
		if err != nil {
			return err
		}
		l.add(mk(unix.SYS_UNSHARE, val(uintptr(flags))))
	case *plan.Setns:
		flags, err := namespaces(o.Namespaces)
		if err != nil {
			return err
		}
		fd, err := l.fd(o.From)
		if err != nil {
			return err
		}
		l.add(mk(unix.SYS_SETNS, fd, val(uintptr(flags))))
	case *plan.Await:
		c := mk(unix.SYS_READ, num(l.sock), val(ptr(l, [1]byte{})), num(1))
		c.check, c.want = true, 1
		l.add(c)

	case *plan.Notify:
		l.add(mk(unix.SYS_WRITE, num(l.sock), val(l.str("!")), num(1)))

	case *plan.Mount:
		flags, err := bits("mount flag", o.Flags, mountFlags)
		if err != nil {
			return err
		}
		l.add(mk(unix.SYS_MOUNT, val(l.str(o.Source)), val(l.str(o.Target)), val(l.str(o.Type)), val(flags), val(l.str(o.Data))))
	case *plan.Overlay:
		return l.overlay(o)
	case *plan.AwaitStart:
		dir, err := l.fd(o.Dir)
		if err != nil {
			return err
		}
		c := mk(unix.SYS_OPENAT, dir, val(l.str(o.File)), num(unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW))
		c.sock = true
		l.add(c)
		l.close(dir)
	case *plan.RootDir:
		l.add(mk(unix.SYS_CHDIR, val(l.str(o.Path))))
	case *plan.PivotRoot:
		dot := l.str(".")
		l.add(mk(unix.SYS_CHDIR, val(l.str(o.Root))))
		l.add(mk(unix.SYS_PIVOT_ROOT, val(dot), val(dot)))
		l.add(mk(unix.SYS_UMOUNT2, val(dot), num(unix.MNT_DETACH)))
		l.add(mk(unix.SYS_CHDIR, val(l.str("/"))))
	case *plan.Chroot:
		l.add(mk(unix.SYS_CHROOT, val(l.str(o.Root))))
		l.add(mk(unix.SYS_CHDIR, val(l.str("/"))))
	case *plan.MoveRoot:
		l.moveRoot(o)
	case *plan.FSMount:
		return l.newMount(o)
	case *plan.MoveMount:
		return l.attach(o)
	case *plan.Remount:
		return l.remount(o)
	case *plan.MaskPath:
		return l.maskPath(o)
	case *plan.ReadonlyPath:
		t, n := l.reg(), l.reg()
		open := l.open(o.Path, unix.O_PATH, 0, t)
		l.openTree(at(t), true, n)
		if err := l.mountSetattr(at(n), []string{"ro"}, nil, 0, true); err != nil {
			return err
		}
		l.moveMount(at(n), at(t))
		l.close(at(n))
		l.close(at(t))
		l.release(n)
		l.release(t)
		l.on(open, unix.ENOENT, l.here())
	case *plan.Mkdir:
		t := l.resolve(o.Path, "dir", 0, o.Mode)
		l.close(at(t))
		l.release(t)
	case *plan.Mknod:
		return l.mknod(o)
	case *plan.Symlink:
		return l.symlink(o)
	case *plan.OpenDir:
		return l.openDir(o)

	case *plan.LinkUp:
		if len(o.Link) >= unix.IFNAMSIZ {
			return fmt.Errorf("%q is no name of a link", o.Link)
		}
		var req struct { // struct ifreq
			name  [unix.IFNAMSIZ]byte
			flags uint16
			_     [22]byte
		}
		copy(req.name[:], o.Link)
		req.flags = unix.IFF_UP
		r := l.reg()
		c := mk(unix.SYS_SOCKET, num(unix.AF_INET), num(unix.SOCK_DGRAM|unix.SOCK_CLOEXEC), num(0))
		c.save = r
		l.add(c)
		l.add(mk(unix.SYS_IOCTL, at(r), num(unix.SIOCSIFFLAGS), val(ptr(l, req))))
		l.close(at(r))
		l.release(r)
	case *plan.Sethostname:
		l.add(mk(unix.SYS_SETHOSTNAME, val(l.str(o.Name)), num(len(o.Name))))
	case *plan.Setdomainname:
		l.add(mk(unix.SYS_SETDOMAINNAME, val(l.str(o.Name)), num(len(o.Name))))
	case *plan.Sysctl:
		fd, err := l.fd(o.From)
		if err != nil {
			return err
		}
		l.writeFile(fd, "sys/"+o.Key, o.Value, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_XDEV|unix.RESOLVE_NO_SYMLINKS)
	case *plan.WriteProc:
		fd, err := l.fd(o.From)
		if err != nil {
			return err
		}
		l.writeFile(fd, "self/"+o.File, o.Value, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_XDEV|unix.RESOLVE_NO_MAGICLINKS)
	case *plan.Rlimit:
		n, ok := rlimits[o.Type]
		if !ok {
			return fmt.Errorf("unknown resource limit %q", o.Type)
		}
		l.add(mk(unix.SYS_PRLIMIT64, num(0), num(n), val(ptr(l, unix.Rlimit{Cur: o.Soft, Max: o.Hard})), num(0)))
	case *plan.Sched:
		return l.sched(o)
	case *plan.IOPriority:
		class, ok := map[string]int{"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}[o.Class]
		if !ok {
			return fmt.Errorf("unknown class %q", o.Class)
		}
		const whoProcess, classShift = 1, 13
		l.add(mk(unix.SYS_IOPRIO_SET, num(whoProcess), num(0), num(class<<classShift|o.Priority)))
	case *plan.Affinity:
		var own unix.CPUSet
		// The child has the processors of the thread that clones, which is this one.
		if o.Unless > 0 && unix.SchedGetaffinity(0, &own) == nil && own.Count() >= o.Unless {
			break
		}
		mask, err := plan.ParseList(o.CPUs)
		if err != nil {
			return err
		}
		if len(mask) == 0 {
			return fmt.Errorf("an empty list of processors")
		}
		l.keep = append(l.keep, mask)
		l.add(mk(unix.SYS_SCHED_SETAFFINITY, num(0), num(8*len(mask)), val(uintptr(unsafe.Pointer(&mask[0])))))
	case *plan.MemPolicy:
		return l.memPolicy(o)
	case *plan.Personality:
		domain, ok := map[string]int{"LINUX": 0, "LINUX32": 8}[o.Domain] // PER_LINUX, PER_LINUX32
		if !ok {
			return fmt.Errorf("unknown execution domain %q", o.Domain)
		}
		l.add(mk(unix.SYS_PERSONALITY, num(domain)))
	case *plan.Umask:
		l.add(mk(unix.SYS_UMASK, num(int(o.Mask))))
	case *plan.Keyring:
		// ENOSYS: a kernel without keys; EPERM, EDQUOT would leave the host's session keyring in reach and are errors.
		name := uintptr(0) // a keyring that has no name can't be joined by another container that may call keyctl
		if o.Name != "" {
			name = l.str(o.Name)
		}
		i := l.add(mk(unix.SYS_KEYCTL, num(unix.KEYCTL_JOIN_SESSION_KEYRING), val(name)))
		l.ignore(i, unix.ENOSYS)

	case *plan.OpenConsole:
		m, s := l.reg(), l.reg()
		l.open("dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY, unix.RESOLVE_NO_SYMLINKS, m)
		l.add(mk(unix.SYS_IOCTL, at(m), num(unix.TIOCSPTLCK), val(ptr(l, int32(0)))))
		if o.Rows != 0 || o.Cols != 0 {
			l.add(mk(unix.SYS_IOCTL, at(m), num(unix.TIOCSWINSZ), val(ptr(l, unix.Winsize{Row: o.Rows, Col: o.Cols}))))
		}
		c := mk(unix.SYS_IOCTL, at(m), num(unix.TIOCGPTPEER), num(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC))
		c.save = s
		l.add(c)
		if o.Plain {
			l.plainLines(s)
		}
		if o.UID != 0 {
			l.add(mk(unix.SYS_FCHOWN, at(s), num(int(o.UID)), val(^uintptr(0))))
		}
		l.save(o.Master, m)
		l.save(o.Slave, s)
	case *plan.BindConsole:
		fd, err := l.fd(o.From)
		if err != nil {
			return err
		}
		n := l.reg()
		l.openTree(fd, false, n)
		t := l.resolve("/dev/console", "file", unix.RESOLVE_NO_SYMLINKS, 0)
		l.moveMount(at(n), at(t))
		l.close(at(t))
		l.close(at(n))
		l.release(t)
		l.release(n)
	case *plan.RecvFD:
		return l.recvTree(o)
	case *plan.SendFD:
		return l.sendFD(o)
	case *plan.Stdio:
		return l.stdio(o)
	case *plan.Setsid:
		l.add(mk(unix.SYS_SETSID))
		if o.Controlling {
			l.add(mk(unix.SYS_IOCTL, num(0), num(unix.TIOCSCTTY), num(0)))
		}

	case *plan.ParentDeath:
		l.prctl(unix.PR_SET_PDEATHSIG, o.Signal)
	case *plan.Dumpable:
		l.prctl(unix.PR_SET_DUMPABLE, o.Value)
	case *plan.NoNewPrivs:
		l.prctl(unix.PR_SET_NO_NEW_PRIVS, 1)
	case *plan.Seccomp:
		return l.seccomp(o)
	case *plan.DropBounding:
		for _, name := range o.Caps {
			n := plan.CapNumber(name)
			if n < 0 {
				return fmt.Errorf("unknown capability %q", name)
			}
			l.prctl(unix.PR_CAPBSET_DROP, n)
		}
	case *plan.KeepCaps:
		l.prctl(unix.PR_SET_KEEPCAPS, 1)
	case *plan.Setgroups:
		b := make([]byte, 0, 4*len(o.Groups))
		for _, g := range o.Groups {
			b = binary.NativeEndian.AppendUint32(b, g)
		}
		i := l.add(mk(unix.SYS_SETGROUPS, num(len(o.Groups)), val(l.bytes(b))))
		if o.IfAllowed {
			l.ignore(i, unix.EPERM)
		}
	case *plan.Setresgid:
		l.add(mk(unix.SYS_SETRESGID, num(int(o.GID)), num(int(o.GID)), num(int(o.GID))))
	case *plan.Setresuid:
		l.add(mk(unix.SYS_SETRESUID, num(int(o.UID)), num(int(o.UID)), num(int(o.UID))))
	case *plan.Capset:
		return l.capset(o)
	case *plan.AmbientCaps:
		for _, name := range o.Caps {
			n := plan.CapNumber(name)
			if n < 0 {
				return fmt.Errorf("unknown capability %q", name)
			}
			l.prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, n)
		}

	case *plan.Chdir:
		l.chdir(o)
	case *plan.InheritFDs:
		for fd := 3; fd < 3+o.Count; fd++ {
			c := mk(unix.SYS_FCNTL, num(fd), num(unix.F_GETFD))
			c.check, c.want, c.miss = true, 0, uint16(unix.EBADF)
			l.add(c)
		}
	case *plan.FindProgram:
		l.findProgram(o)
	case *plan.CloseRange:
		first := o.First
		for _, keep := range l.keepers() {
			if keep > first {
				l.add(mk(unix.SYS_CLOSE_RANGE, num(first), num(keep-1), num(0)))
			}
			first = max(first, keep+1)
		}
		l.add(mk(unix.SYS_CLOSE_RANGE, num(first), val(uintptr(^uint32(0))), num(0)))
	case *plan.Execve:
		if len(o.Candidates) == 0 {
			return fmt.Errorf("execve without a file")
		}
		argv, env := l.vec(o.Argv), l.vec(o.Env)
		for k, file := range o.Candidates {
			i := l.add(mk(unix.SYS_EXECVE, val(l.str(file)), val(argv), val(env)))
			if k < len(o.Candidates)-1 {
				l.ignore(i, unix.ENOENT, unix.ENOTDIR, unix.EACCES)
			}
		}
	default:
		return fmt.Errorf("%s can't be made in the child", op.Kind())
	}
	return nil
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
	if o.IDMap != "" || o.Readonly {
		return fmt.Errorf("the ids and the flags of a mount of the host are set by the parent")
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

// cloneAgain makes the second child. It is a child of our parent, too, and waits until the parent has learnt of it, by the pidfd
// that the first child sends before it ends.
func (l *lowering) cloneAgain(o *plan.Clone) error {
	flags, err := namespaces(o.Namespaces)
	if err != nil {
		return err
	}
	if o.Cgroup != "" {
		return fmt.Errorf("the first child is in its cgroup already")
	}
	msg, fd := l.message()
	args := ptr(l, cloneArgs{flags: flags | unix.CLONE_PARENT | unix.CLONE_PIDFD, pidfd: uint64(uintptr(unsafe.Pointer(fd)))})
	c := mk(sysClone3, val(args), val(unsafe.Sizeof(cloneArgs{})))
	c.check, c.want = true, 0 // who gets another number than 0 is the first child
	i := l.add(c)
	l.on(i, unix.EPIPE, l.here())
	l.add(mk(unix.SYS_SENDMSG, num(l.sock), val(msg), num(0)))
	l.add(mk(unix.SYS_EXIT_GROUP, num(0)))
	l.calls[i].ok = l.here()
	c = mk(unix.SYS_READ, num(l.sock), val(ptr(l, [1]byte{})), num(1))
	c.check, c.want = true, 1
	l.add(c)
	return nil
}

// join writes the calling thread into an open file tasks.
func (l *lowering) join(from string) error {
	fd, err := l.fd(from)
	if err != nil {
		return err
	}
	l.add(mk(unix.SYS_WRITE, fd, val(l.str("0")), num(1)))
	l.close(fd)
	return nil
}

func (l *lowering) prctl(args ...int) {
	c := call{nr: unix.SYS_PRCTL}
	for i, a := range args {
		c.args[i] = uintptr(a)
	}
	l.add(c)
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
	options := []string{"size=0", "nr_inodes=2"}
	if o.Label != "" {
		options = append(options, "context="+o.Label)
	}
	made := &plan.FSMount{Type: "tmpfs", Source: "tmpfs", Options: options, Attrs: []string{"ro", "nosuid", "nodev", "noexec"}}
	if _, err := l.fsMountTo(made, empty); err != nil {
		return err
	}
	l.moveMount(at(empty), at(t)) // it stays open for the next one, until close_range or execve
	l.close(at(t))
	end := l.here()
	l.calls[last].ok, l.calls[cloned].ok = end, end
	l.on(dir, unix.ENOENT, end)
	l.on(file, unix.ENOENT, end)
	l.release(n)
	l.release(t)
	return nil
}

func (l *lowering) sendFD(o *plan.SendFD) error {
	fd, err := l.fd(o.From)
	if err != nil {
		return err
	}
	if fd.reg == 0 {
		return fmt.Errorf("send-fd: %q belongs to the parent already", o.From)
	}
	msg, slot := l.message()
	c := mk(unix.SYS_SENDMSG, num(l.sock), val(msg), num(0))
	c.poke, c.pokeReg = slot, fd.reg
	l.add(c)
	// It is closed in any case by close_range or execve. After a filter every call less is one that can't be refused.
	if !l.filtered && !o.Keep {
		l.close(fd)
	}
	return nil
}

// message prepares a message of one byte and one descriptor (struct cmsghdr), which the child fills in.
func (l *lowering) message() (msg uintptr, fd *int32) {
	control := unix.UnixRights(-1)
	iov := unix.Iovec{Base: new(byte)}
	iov.SetLen(1)
	m := &unix.Msghdr{Iov: &iov, Control: &control[0]}
	m.SetIovlen(1)
	m.SetControllen(len(control))
	l.keep = append(l.keep, m, &iov, control)
	return uintptr(unsafe.Pointer(m)), (*int32)(unsafe.Pointer(&control[unix.CmsgLen(0)]))
}

func (l *lowering) seccomp(o *plan.Seccomp) error {
	if len(o.Program) == 0 || len(o.Program)%8 != 0 || len(o.Program)/8 > 4096 {
		return fmt.Errorf("a filter of %d bytes is none", len(o.Program))
	}
	filter := append([]byte(nil), o.Program...)
	l.keep = append(l.keep, filter)
	prog := unix.SockFprog{Len: uint16(len(o.Program) / 8), Filter: (*unix.SockFilter)(unsafe.Pointer(&filter[0]))}
	c := mk(unix.SYS_SECCOMP, num(unix.SECCOMP_SET_MODE_FILTER), num(int(o.Flags)), val(ptr(l, prog)))
	if o.Notify != "" {
		c.save = l.reg()
		l.save(o.Notify, c.save)
	}
	l.add(c)
	l.filtered = true
	return nil
}

func (l *lowering) capset(o *plan.Capset) error {
	e, err := capBits(o.Effective)
	if err != nil {
		return err
	}
	p, err := capBits(o.Permitted)
	if err != nil {
		return err
	}
	i, err := capBits(o.Inheritable)
	if err != nil {
		return err
	}
	header := ptr(l, unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3})
	data := ptr(l, [2]unix.CapUserData{
		{Effective: uint32(e), Permitted: uint32(p), Inheritable: uint32(i)},
		{Effective: uint32(e >> 32), Permitted: uint32(p >> 32), Inheritable: uint32(i >> 32)},
	})
	l.add(mk(unix.SYS_CAPSET, val(header), val(data)))
	return nil
}
