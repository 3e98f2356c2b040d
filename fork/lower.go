package fork

import (
	"encoding/binary"
	"fmt"
	"runtime"
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
	l := &lowering{
		fds: fds, regs: map[string]uint8{}, kinds: map[string]string{}, places: map[string]string{}, sock: sock, pause: pause,
		steps: p.Steps, calls: make([]call, 0, 6*len(p.Steps)),
	}
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
			// One byte: an end of file, of a parent that is gone, is no leave to go on.
			c := mk(unix.SYS_READ, num(pause.child), val(ptr(l, [1]byte{})), num(1))
			c.check, c.want = true, 1
			l.add(c)
			l.step = int32(i)
		}
		// A call that no kernel has, before the step's own: a step that fails at its first call has made nothing.
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
		// The new root on the old one: no directory is needed in the image for the old root, which is then what "." leads to, and the
		// unmount takes it (pivot_root(2), "pivot_root(".", ".")"). With what is on it, and though this process came from there (MNT_DETACH).
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
		// By ioctl and not by rtnetlink: this answer is an errno, that one a message which the child would have to read.
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
		// "self" is a symbolic link, though no magic one, so links can't be refused here as they are for a setting.
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
		// O_NOCTTY: a terminal becomes the controlling one when the plan says so (Setsid), after setsid(2).
		l.open("dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY, unix.RESOLVE_NO_SYMLINKS, m)
		l.add(mk(unix.SYS_IOCTL, at(m), num(unix.TIOCSPTLCK), val(ptr(l, int32(0)))))
		if o.Rows != 0 || o.Cols != 0 {
			l.add(mk(unix.SYS_IOCTL, at(m), num(unix.TIOCSWINSZ), val(ptr(l, unix.Winsize{Row: o.Rows, Col: o.Cols}))))
		}
		// By its master and by no name (Linux 4.13, ioctl_tty(2)): what the image or another process has put at the name isn't asked
		// (CVE-2025-52565).
		c := mk(unix.SYS_IOCTL, at(m), num(unix.TIOCGPTPEER), num(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC))
		c.save = s
		l.add(c)
		if o.Plain {
			l.plainLines(s)
		}
		if o.UID != 0 {
			// The group stays that of the mount's option gid, tty: so write(1) and mesg(1) have it.
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
			// 0: a terminal that is another session's isn't taken from it.
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
			// No flag may be set: one that execve closes (FD_CLOEXEC) isn't there for the program either.
			c.check, c.want, c.miss = true, 0, uint16(unix.EBADF)
			l.add(c)
		}
	case *plan.FindProgram:
		l.findProgram(o)
	case *plan.CloseRange:
		first := o.First
		// Really closed, not marked for execve (CLOSE_RANGE_CLOEXEC): a created container waits for that, in sight of others in /proc/PID/fd.
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
				// The next directory of PATH, as execvp(3) has it; any other error is about the program that was found.
				l.ignore(i, unix.ENOENT, unix.ENOTDIR, unix.EACCES)
			}
		}
	default:
		return fmt.Errorf("%s can't be made in the child", op.Kind())
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
	// The first child goes by the branch above, as the number it gets isn't 0; the second one goes on here.
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
	// "0" is whoever writes, so the child needs no number of its own, which in its PID namespace would be another one.
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
