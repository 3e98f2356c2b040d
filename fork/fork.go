// Package fork executes plans.
//
// The child's steps are lowered to a flat list of system calls ([lower]); the parent makes its own steps in order, clones at
// the [plan.Clone] step, and the clone runs the list in one loop ([child]) that ends in execve. There is no second start of
// this program inside the namespaces: a Go program can't run ordinary code between fork and execve, but a list of raw system
// calls is not ordinary code.
//
// Parent and child share one socket (SOCK_SEQPACKET). The parent writes one byte for each Release; the child sends
// descriptors (SendFD) and, if a call fails, a report of the step and the errno; execve closes it, which is how the parent
// learns of success:
//
//	parent                               child
//	  │ clone3 ──────────────────────────▶ │ rt_sigaction, rt_sigprocmask
//	  │ netlink, nft …                     │ mounts, pivot_root …
//	  │ Release ───── 1 byte ────────────▶ │ Await
//	  │ RecvFD ◀───── SCM_RIGHTS ───────── │ SendFD
//	  │        ◀───── {step, errno} ────── │ a call failed; waits for one byte, then exits
//	  │        ◀───── end of file ──────── │ execve
//
// Beside it only cgroup's bpf(2) and package signals have unsafe code (a test in structure/ names the files). It refuses plans that don't
// validate and plans for another architecture. Start reading at [Start].
package fork

import (
	"cmp"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"glassbox/cgroup"
	"glassbox/dns"
	"glassbox/network"
	"glassbox/plan"
	"glassbox/resctrl"
	"glassbox/systemd"
	"glassbox/wire"
)

// Options is what a plan needs from whoever runs it.
type Options struct {
	// FDs are descriptors that steps may use by name: "stdin", "stdout", "stderr". They must be 3 or greater, so that
	// Stdio steps don't overwrite one another's sources. Those three are this process's own where they aren't given.
	FDs map[string]int
	// OnExecFailure is called while a child whose step failed still exists, with its pid: it may look at the child's root
	// to say more in err.Detail.
	OnExecFailure func(pid int, err *StepError)
	// State returns the container's state in the JSON form that hooks read, with the given pid. Plans with hooks need it, and those
	// with a seccomp listener.
	State func(pid int) ([]byte, error)
	// Hook runs a hook in the namespaces of the process, as a plan of its own. Plans with such hooks need it.
	Hook func(*Process, *plan.Hook) error
	// CgroupParent, if it is set, is told each parent of a cgroup that was missing and has been made: no step of the plan takes it back,
	// because others may be in it by then.
	CgroupParent func(dir string)
	// Cloned is called when there is the child that will be the process; it goes on meanwhile.
	Cloned func(*Process) error
	// Record is called before the step Release{"record"}, while the child waits: it writes down who the child is, so that there
	// is no moment in which nobody knows of it.
	Record func(*Process) error
	// Times, if it is set, is filled in with when each step was made, also if the plan fails.
	Times *plan.Times
	// Before, if it is set, is called before each step, of both lanes, with its index and the child's pid (0: there is none yet). The
	// steps are then made one at a time in the order of [plan.Plan.Order]: all before are done, and the child waits. For that it makes
	// two calls more before each of its steps, a write and a read. An error ends the start, and nothing of it is left.
	Before func(i, pid int) error
	// Watch, if it is set, traces the program from execve on. The child waits before that step until it is traced. Not with Before.
	Watch *Watcher
	// Inject, if not zero, makes step Inject-1 fail. Tests use it to see that nothing is left.
	Inject int
}

// A Process is a started container process.
type Process struct {
	PID   int
	Start uint64         // see StartTime; 0 if the plan ends at AwaitStart
	Pidfd int            // belongs to the caller
	FDs   map[string]int // descriptors received from the child (RecvFD), the resolver's and those of carried ports; they belong to the caller
}

// The names of the sockets of a container's resolver (NameListen) among a process's descriptors.
const (
	ResolverUDP = "resolver udp"
	ResolverTCP = "resolver tcp"
)

// CarriedPort is the name of the socket of a PortCarry's i-th port, counted from 0, among a process's descriptors.
func CarriedPort(i int) string { return "carried port " + strconv.Itoa(i) }

// Start executes a plan up to the child's execve and returns the process that then runs. On an error nothing of the plan is
// left. The calling goroutine is locked to its thread while the plan runs, and stays so if a host step changed the thread's
// namespaces; the thread must outlive the process where the plan asks for a parent death signal.
func Start(p *plan.Plan, o Options) (*Process, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	runtime.LockOSThread()
	ownTimerSlack()
	x := &execution{plan: p, opts: o, fds: map[string]int{"stdin": 0, "stdout": 1, "stderr": 2}, pidfd: -1, sock: -1, childSock: -1}
	for name, fd := range o.FDs {
		x.fds[name] = fd
	}
	defer func() {
		if !x.tainted {
			runtime.UnlockOSThread()
		}
	}()
	if o.Times != nil {
		x.watch = newStopwatch(p)
	}
	// Whoever asks before each step, or has one fail, knows then what has been made and what has not.
	if o.Inject == 0 && o.Before == nil {
		x.ahead = startAhead(p)
	}
	proc, err := x.run()
	if x.watch != nil {
		x.watch.stop(o.Times)
	}
	x.closeAll(proc)
	return proc, err
}

// execution is the state of one Start.
type execution struct {
	plan       *plan.Plan
	opts       Options
	fds        map[string]int
	owned      []int // descriptors to close at the end
	wire       *wire.Executor
	pid        int
	start      uint64 // when the process started, once it has become the program
	pidfd      int
	sock       int
	childSock  int
	ahead      *ahead
	tainted    bool         // the thread's namespaces were changed
	adopted    bool         // the child is the second one
	processors *unix.CPUSet // those of the thread, if a step changed them
	received   map[string]int
	watch      *stopwatch // nil: times are not asked for
	pause      *pause     // nil: the child doesn't wait before each step
	arrived    bool       // it waits
	last       plan.Op    // the step that it makes or has made
	clonedFD   int32      // where clone3 writes the pidfd
}

func (x *execution) closeAll(proc *Process) {
	if x.processors != nil {
		// A failure leaves the thread with fewer processors than it had, which harms nobody.
		unix.SchedSetaffinity(0, x.processors) // they were this thread's before
	}
	if x.wire != nil {
		x.wire.Close()
	}
	x.ahead.close()
	for _, fd := range x.owned {
		unix.Close(fd)
	}
	if x.sock >= 0 {
		unix.Close(x.sock)
	}
	if x.childSock >= 0 {
		unix.Close(x.childSock)
	}
	if x.pause != nil {
		unix.Close(x.pause.parent)
		if x.pause.child >= 0 {
			unix.Close(x.pause.child)
		}
	}
	if proc == nil {
		if x.pidfd >= 0 {
			unix.Close(x.pidfd)
		}
		for _, fd := range x.received {
			unix.Close(fd)
		}
	}
}

func (x *execution) run() (*Process, error) {
	order, err := x.order()
	if err != nil {
		return nil, err
	}
	made := 0 // steps of the host, and all before
	for _, i := range order {
		s := x.plan.Steps[i]
		if x.opts.Before != nil {
			if err := x.before(i); err != nil {
				return nil, x.fail(made, err)
			}
		}
		if s.Lane != plan.Host {
			x.goOn(s.Op)
			continue
		}
		// From here on it is taken back even if it fails: most steps are several calls, and what undoes one takes that nothing was made.
		made = i + 1
		if x.watch != nil {
			x.watch.begin[i] = ticks()
		}
		var err error
		if x.opts.Inject == i+1 {
			err = unix.ENOSYS
		} else {
			err = x.host(s.Op)
		}
		if err != nil {
			if x.watch != nil {
				x.watch.host = ticks()
			}
			var reported *StepError
			// A report of the child names the step that failed there, which is not the one that the host waited in.
			if !errors.As(err, &reported) {
				reported = x.stepError(i, err)
			}
			n := i + 1
			switch s.Op.(type) {
			case *plan.SystemdScope:
				n = i // it makes all or nothing, and a unit that was there before is another container's
			case *plan.ResctrlCreate:
				n = i // one mkdir
			case *plan.CgroupCreate:
				if errors.Is(err, unix.EEXIST) {
					n = i // so is a cgroup that has processes
				}
			}
			return nil, x.fail(n, reported)
		}
	}
	if x.watch != nil {
		x.watch.host = ticks()
	}
	if x.opts.Watch != nil && x.pause.exec {
		if err := x.watchExec(); err != nil {
			return nil, x.fail(len(x.plan.Steps), err)
		}
	} else if x.pause != nil {
		if err := x.arrive(); err != nil {
			return nil, x.fail(len(x.plan.Steps), err)
		}
	}
	if !x.waits() {
		if err := x.await(); err != nil {
			return nil, x.fail(len(x.plan.Steps), err)
		}
	}
	return x.process(), nil
}

// waits reports whether the child stops at an AwaitStart, beyond which the parent has nothing to do with it.
func (x *execution) waits() bool {
	return slices.ContainsFunc(x.plan.Steps, func(s plan.Step) bool { _, ok := s.Op.(*plan.AwaitStart); return ok })
}

// adopts reports whether the clone is only the first of two children.
func (x *execution) adopts() bool {
	return slices.ContainsFunc(x.plan.Steps, func(s plan.Step) bool { _, ok := s.Op.(*plan.Adopt); return ok })
}

func (x *execution) process() *Process {
	return &Process{PID: x.pid, Start: x.start, Pidfd: x.pidfd, FDs: x.received}
}

// fail ends the child and takes back what the first n steps made.
func (x *execution) fail(n int, err error) error {
	if x.watch != nil {
		x.watch.failed = ticks()
	}
	if x.pid != 0 {
		x.endSecond()
	}
	// Nothing is taken back before the child is gone: it might still make more, and a cgroup with a process can't be removed (EBUSY).
	if x.pid != 0 {
		unix.Kill(x.pid, unix.SIGKILL) // not reaped yet: the pid can't be another's
		x.reap()
	}
	if x.opts.Watch != nil {
		x.opts.Watch.Wait() // it may be the one that reaps
	}
	for _, s := range x.plan.Undo(n) {
		if undoErr := Undo(s.Op); undoErr != nil {
			err = errors.Join(err, fmt.Errorf("undo %s: %w", s.Op, undoErr))
		}
	}
	return err
}

func (x *execution) reap() (ws syscall.WaitStatus) {
	for {
		_, err := syscall.Wait4(x.pid, &ws, 0, nil)
		if err != syscall.EINTR {
			x.pid = 0
			return ws
		}
	}
}

// Undo makes one step of [plan.Plan.Undo].
func Undo(op plan.Op) error {
	switch op := op.(type) {
	case *plan.CgroupRemove:
		return cgroup.Remove(op)
	case *plan.SystemdStop:
		return systemd.Stop(op)
	case *plan.ResctrlRemove:
		return resctrl.Remove(op)
	// Walls forget whoever goes also where a part was gone already: two errors, and both are tried.
	case *plan.NftUnwall:
		return cmp.Or(wire.Undo(op), network.FollowNames(op))
	case *plan.LinkDelete, *plan.NftUnpublish, *plan.NftUnguard:
		return wire.Undo(op)
	case *plan.RootUnmount:
		return rootUnmount(op)
	case *plan.HostUnmount:
		return hostUnmount(op)
	case *plan.NameRemove:
		return cmp.Or(dns.Remove(op.Dir, op.Owner, op.Names, parseAddrs(op.Addresses)), network.FollowNames(op))
	}
	return fmt.Errorf("%s is no step that undoes another", op.Kind())
}

func (x *execution) own(name string, fd int, err error) error {
	if err != nil {
		return err
	}
	x.fds[name] = fd
	x.owned = append(x.owned, fd)
	return nil
}

func (x *execution) fd(name string) (int, error) {
	fd, ok := x.fds[name]
	if !ok {
		return -1, fmt.Errorf("no descriptor %q", name)
	}
	return fd, nil
}

// host makes one step of the parent.
func (x *execution) host(op plan.Op) error {
	switch o := op.(type) {
	case *plan.CgroupCreate:
		if x.opts.CgroupParent != nil {
			return cgroup.CreateBelow(o, x.opts.CgroupParent)
		}
		return cgroup.Create(o)
	case *plan.CgroupRemove:
		return cgroup.Remove(o)
	case *plan.CgroupWrite:
		return cgroup.Write(o)
	case *plan.CgroupEvacuate:
		return cgroup.Evacuate(o)
	case *plan.DeviceFilter:
		return cgroup.AttachDevices(o)
	case *plan.CgroupAttach:
		return cgroup.Attach(o, x.pid)
	case *plan.SystemdScope:
		return systemd.Start(o, x.pid)
	case *plan.SystemdSet:
		return systemd.Set(o)
	case *plan.SystemdAttach:
		return systemd.Attach(o, x.pid)
	case *plan.SystemdStop:
		return systemd.Stop(o)
	case *plan.ResctrlCreate:
		return resctrl.Create(o)
	case *plan.ResctrlRemove:
		return resctrl.Remove(o)
	case *plan.ResctrlCheck:
		return resctrl.Check(o)
	case *plan.ResctrlWrite:
		return resctrl.Write(o)
	case *plan.CgroupOpen:
		fd, err := cgroup.Open(o)
		return x.own(o.Save, fd, err)
	case *plan.OpenTree:
		if o.Child {
			return x.sendTree(o)
		}
		if o.Mounts != "" {
			fd, err := openTreeIn(x.fds[o.Mounts], o, -1)
			return x.own(o.Save, fd, err)
		}
		fd, err := openTree(o, x.fds[o.IDMap])
		return x.own(o.Save, fd, err)
	case *plan.UserNamespace:
		fd, err := userNamespace(o)
		return x.own(o.Save, fd, err)
	case *plan.Open:
		fd, err := open(o)
		return x.own(o.Save, fd, err)
	case *plan.OpenPid:
		fd, err := openPid(o)
		return x.own(o.Save, fd, err)
	case *plan.Setns:
		fd, err := x.fd(o.From)
		if err != nil {
			return err
		}
		flags, err := namespaces(o.Namespaces)
		if err != nil {
			return err
		}
		x.tainted = true
		return unix.Setns(fd, int(flags))
	case *plan.Unshare:
		flags, err := namespaces(o.Namespaces)
		if err != nil {
			return err
		}
		x.tainted = true
		return unix.Unshare(int(flags))
	case *plan.Affinity:
		return x.affinity(o)
	case *plan.Clone:
		// Of two children only the second will be the process, and Adopt tells of it.
		if err := x.clone(o); err != nil || x.opts.Cloned == nil || x.adopts() {
			return err
		}
		return x.opts.Cloned(x.process())
	case *plan.Adopt:
		if err := x.adopt(); err != nil || x.opts.Cloned == nil {
			return err
		}
		return x.opts.Cloned(x.process())
	case *plan.IDMap:
		return mapIDs(x.pid, o)
	case *plan.Rlimit:
		n, ok := rlimits[o.Type]
		if !ok {
			return fmt.Errorf("unknown resource limit %q", o.Type)
		}
		return unix.Prlimit(x.pid, n, &unix.Rlimit{Cur: o.Soft, Max: o.Hard}, nil)
	case *plan.WriteProc:
		return writeFile(&plan.WriteFile{Path: "/proc/" + strconv.Itoa(x.pid) + "/" + o.File, Value: o.Value})
	case *plan.Release:
		// Before the byte: should this process be killed here, the child has nobody to wait for and ends, and what is written is true.
		if o.Name == "record" && x.opts.Record != nil {
			if err := x.opts.Record(x.process()); err != nil {
				return err
			}
		}
		_, err := unix.Write(x.sock, []byte{1})
		if gone(err) {
			return x.await() // its report says why
		}
		return err
	case *plan.Expect:
		return x.expect(o)
	case *plan.RecvFD:
		return x.recvFD(o)
	case *plan.SendListener:
		return x.sendListener(o)
	case *plan.CopyUp:
		return x.copyUp(o)
	case *plan.WriteFile:
		return writeFile(o)
	case *plan.Hook:
		return x.hook(o)
	case *plan.Quota:
		return Quota(o)
	case *plan.RootMount:
		return rootMount(o)
	case *plan.RootUnmount:
		return rootUnmount(o)
	case *plan.HostMount:
		return hostMount(o)
	case *plan.HostUnmount:
		return hostUnmount(o)
	case *plan.NameAdd:
		return followed(o, dns.Add(o.Dir, o.Owner, o.Names, parseAddrs(o.Addresses)))
	case *plan.NameRemove:
		return Undo(o)
	case *plan.LinkBridge, *plan.LinkVeth, *plan.LinkMacvlan, *plan.LinkVLAN, *plan.LinkRate, *plan.LinkMove,
		*plan.LinkDelete, *plan.LinkAddress, *plan.RouteDefault, *plan.NftBridge,
		*plan.NftPublish, *plan.NftUnpublish, *plan.PortCarry, *plan.NameListen, *plan.FirewallAccept,
		*plan.NftGuard, *plan.NftUnguard, *plan.NftWall, *plan.NftUnwall:
		if x.wire == nil {
			x.wire = wire.Open(func() (int, error) {
				if fd, ok := x.fds["ns:network"]; ok {
					return fd, nil // the child joins it, in its own time
				}
				fd, err := unix.Open("/proc/"+strconv.Itoa(x.pid)+"/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
				if err == nil {
					x.owned = append(x.owned, fd)
				} else if errors.Is(err, unix.ENOENT) {
					// It is ending: how says more. It has no namespaces a moment before it has ended.
					unix.Poll([]unix.PollFd{{Fd: int32(x.pidfd), Events: unix.POLLIN}}, 1000)
					if ended, _ := x.ended(); ended {
						err = cmp.Or(x.await(), err)
					}
				}
				return fd, err
			})
		}
		if err := followed(op, x.wire.Do(op)); err != nil {
			return err
		}
		if fds := x.wire.Resolver; len(fds) == 2 {
			if x.received == nil {
				x.received = map[string]int{}
			}
			x.received[ResolverUDP], x.received[ResolverTCP], x.wire.Resolver = fds[0], fds[1], nil
		}
		for i, fd := range x.wire.Carried {
			if x.received == nil {
				x.received = map[string]int{}
			}
			x.received[CarriedPort(i)] = fd
		}
		x.wire.Carried = nil
		return nil
	}
	return fmt.Errorf("%s can't be made by the parent", op.Kind())
}

func (x *execution) clone(o *plan.Clone) error {
	flags, err := namespaces(o.Namespaces)
	if err != nil {
		return err
	}
	// CLONE_CLEAR_SIGHAND (Linux 5.5): this program's handlers are code of Go's runtime, which the child hasn't got.
	args := cloneArgs{flags: flags | unix.CLONE_PIDFD | unix.CLONE_CLEAR_SIGHAND, exitSignal: uint64(unix.SIGCHLD)}
	// The kernel writes through this address: it must be on the heap, which doesn't move, and not on the stack, which does.
	args.pidfd = uint64(uintptr(unsafe.Pointer(&x.clonedFD)))
	if o.Cgroup != "" {
		fd, err := x.fd(o.Cgroup)
		if err != nil {
			return err
		}
		args.flags |= unix.CLONE_INTO_CGROUP
		args.cgroup = uint64(fd)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	x.sock, x.childSock = pair[0], pair[1]
	if x.opts.Before != nil || x.opts.Watch != nil {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		x.pause = &pause{child: pair[1], parent: pair[0], exec: x.opts.Before == nil}
	}
	prog, err := lower(x.plan, x.fds, x.childSock, x.opts.Inject-1, x.pause)
	if err != nil {
		return err
	}
	prog.other = uintptr(x.sock)
	if x.watch != nil {
		prog.times, x.watch.clone = x.watch.shared, ticks()
	}
	var pid uintptr
	do := func() error {
		syscall.ForkLock.Lock()
		defer syscall.ForkLock.Unlock()
		var errno syscall.Errno
		// ForkLock: a descriptor that another goroutine has just made and not yet marked to be closed by execve isn't inherited.
		if pid, errno = clone(&args, prog); errno != 0 {
			return errno
		}
		return nil
	}
	if fd := x.ahead.namespace(); fd < 0 {
		err = do()
	} else {
		args.flags &^= unix.CLONE_NEWNET
		var lost error
		lost, err = wire.KeepNamespace(func() error {
			if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
				return err
			}
			return do()
		})
		// A thread that can't go back to its own namespace is never given to another goroutine.
		x.tainted = x.tainted || lost != nil
	}
	runtime.KeepAlive(prog)
	if err != nil {
		return err
	}
	x.pid, x.pidfd = int(pid), int(x.clonedFD)
	// Else the end of file that tells of execve would never come: this process would hold the socket open itself.
	unix.Close(x.childSock)
	x.childSock = -1
	if x.pause != nil {
		unix.Close(x.pause.child)
		x.pause.child = -1
	}
	return nil
}
