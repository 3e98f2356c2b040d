package bundle

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"glassbox/cgroup"
	"glassbox/compile"
	"glassbox/fork"
	"glassbox/host"
	"glassbox/plan"
)

// RestoreOptions are the flags of restore.
type RestoreOptions struct {
	CRIUFlags
	Bundle          string
	PIDFile         string
	ConsoleSocket   string // unix socket that gets the terminal
	Detach          bool
	LSMProfile      string // "apparmor:NAME" or "selinux:LABEL"
	LSMMountContext string
}

// Restore makes a container of the images of a checkpoint, and unless it is detached waits for its end, removes it and returns its
// exit status.
func (r *Runtime) Restore(id string, o RestoreOptions) (int, error) {
	program, err := criu()
	if err != nil {
		return 1, err
	}
	// The directory is the container's from here on: nobody else makes one of this name.
	l, err := r.make(id)
	if err != nil {
		return 1, err
	}
	defer l.unlock()
	forward := &forwarder{}
	// From the beginning: there is no child yet that a signal could end instead of us, and a half restored container must
	// be taken back.
	if !o.Detach {
		if err := forward.catch(); err != nil {
			return 1, err
		}
	}
	spec, text, err := r.read(o.Bundle)
	var b *back
	if err == nil {
		b, err = r.restore(id, spec, text, program, o)
	}
	if err != nil {
		var c *record
		if b != nil {
			c = b.record
		}
		r.unmade(id, l, c)
		return 1, err
	}
	l.unlock() // state, kill and exec work while it runs, and for its hooks
	c := b.record
	if err := r.poststart(c); err != nil {
		if b.terminal >= 0 {
			unix.Close(b.terminal)
		}
		return 1, r.abandon(c, err)
	}
	if o.Detach {
		return 0, nil
	}
	var console *console
	if b.terminal >= 0 {
		console = attach(b.terminal)
		defer console.restore()
	}
	// Nobody else waits for it: the process still has this pid, even if it has ended.
	pidfd, err := unix.PidfdOpen(c.PID, 0)
	if err != nil {
		return 1, fmt.Errorf("the restored process: %w", err)
	}
	defer unix.Close(pidfd)
	code := forward.wait(&fork.Process{PID: c.PID, Pidfd: pidfd}, console)
	return code, r.remove(c)
}

// Under these numbers criu finds its socket and, from the second on, the standard streams of the container. Its own standard input is
// left as it is: with --shell-job it is the terminal.
const (
	criuSocket  = 99
	criuStreams = 103
)

// What is staged for criu, beside mounts, which have numbers.
const stagedRoot, stagedImages, stagedWork, stagedProgram = "root", "images", "work", "criu"

// streams are the names of descriptors 0, 1 and 2 for steps.
var streams = [...]string{"stdin", "stdout", "stderr"}

// back is a container on its way back.
type back struct {
	r           *Runtime
	record      *record
	spec        *specs.Spec
	config      []byte
	plan        *plan.Plan // the one that would have made it: what it has is what later commands ask for
	options     *RestoreOptions
	terminal    int // its other end, -1: there is none, or it is handed on
	hasTerminal bool
}

// restore makes the container. On an error nothing is left but its directory.
func (r *Runtime) restore(id string, spec *specs.Spec, text []byte, program string, o RestoreOptions) (*back, error) {
	bundle, err := filepath.Abs(o.Bundle)
	if err != nil {
		return nil, err
	}
	if err := checkMounts(spec); err != nil {
		return nil, err
	}
	if err := checkTerminal(spec, CreateOptions{Detach: o.Detach, ConsoleSocket: o.ConsoleSocket}); err != nil {
		return nil, err
	}
	if o.ManageCgroups == "strict" {
		return nil, errors.New("--manage-cgroups-mode: strict wants the cgroup not to exist, and it is made, with its limits, before criu begins")
	}
	if err := o.open(); err != nil {
		return nil, err
	}
	defer o.close()
	input, err := r.input(id, bundle, spec)
	if err != nil {
		return nil, err
	}
	in := compile.RestoreInput{
		Input: input, Argv: []string{compile.CriuStage + "/" + stagedProgram, "swrk", strconv.Itoa(criuSocket)},
		Env: os.Environ(),
	}
	in.Stage = []compile.Staged{
		{Name: stagedRoot, Path: spec.Root.Path, Pointer: "/root/path", Recursive: true},
		{Name: stagedWork, Path: o.WorkPath},
		{Name: stagedProgram, Path: program},
	}
	for _, dir := range o.chain() { // below their own names: the links from one to the next are relative
		in.Stage = append(in.Stage, compile.Staged{Name: stagedImages + dir, Path: dir})
	}
	out, err := r.compile(in.Input)
	if err != nil {
		return nil, err
	}
	in.CgroupNS = o.ManageCgroups == "ignore" && slices.ContainsFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool {
		return n.Type == specs.CgroupNamespace && n.Path == ""
	})
	in.Namespaces, in.Descriptors = map[string]int{}, map[string]int{"criu": criuSocket}
	opts, err := r.restoreOptions(&in, out, &o)
	if err != nil {
		return nil, err
	}
	p, err := compile.Restore(in)
	if err != nil {
		return nil, err
	}
	c := newRecord(id, in.Input, out, p)
	c.Restored = true
	if err := r.prepare(c, false); err != nil {
		return nil, err
	}
	r.debug(p)
	b := &back{r: r, record: c, spec: spec, config: text, plan: out.Plan, options: &o, terminal: -1}
	if err = b.run(p, program, opts); err != nil {
		if b.terminal >= 0 {
			unix.Close(b.terminal)
		}
		return b, errors.Join(err, r.undo(c.left, true))
	}
	return b, nil
}

// run has criu do its work.
func (b *back) run(p *plan.Plan, program string, opts message) error {
	ours, theirs, err := sockets()
	if err != nil {
		return err
	}
	defer unix.Close(ours)
	fds := map[string]int{"criu": theirs}
	for fd, name := range streams {
		// From 3 on, so that no step overwrites what another one still needs.
		if fds[name], err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3); err != nil {
			delete(fds, name) // closed, and then nobody asks for it
		}
	}
	proc, err := fork.Start(p, fork.Options{OnExecFailure: fork.ExplainExec, FDs: fds})
	for _, fd := range fds {
		unix.Close(fd)
	}
	if err != nil {
		return err
	}
	unix.Close(proc.Pidfd)
	var a *answer
	if gid, own := rootGroup(b.spec); own {
		undo, e := b.options.share(gid)
		if err = e; err == nil {
			defer undo()
		}
	}
	if err == nil {
		err = b.options.move(proc.PID)
	}
	if err == nil {
		talk := call{sock: ours, pid: proc.PID, notify: b.notify}
		a, err = talk.request(reqRestore, opts)
	}
	// criu ends when it reads an end where the next request would be.
	unix.Shutdown(ours, unix.SHUT_WR)
	ws := wait4(proc.PID)
	own := stopError{}
	if errors.As(err, &own) {
		return own.error // it isn't criu's
	}
	if err == nil && a.success && ws.Signaled() {
		err = fmt.Errorf("signal: %v", ws.Signal())
	}
	if err != nil || !a.success {
		return criuError(program, "restore", filepath.Join(b.options.WorkPath, "restore.log"), a, err)
	}
	if b.spec.Process.Terminal && !b.hasTerminal {
		b.record.signal(unix.SIGKILL)
		return errors.New("/process/terminal: the checkpoint has no terminal whose other end was outside")
	}
	return nil
}

// stopError is an error of ours that ends criu's work.
type stopError struct{ error }

// notify does what is to be done at certain moments of criu's work.
func (b *back) notify(script string, pid int, fds []int) (err error) {
	switch script {
	case "setup-namespaces": // they are there, and nothing in them yet
		err = b.hooks(pid)
	case "orphan-pts-master":
		if len(fds) == 1 {
			err, fds = b.console(fds[0]), nil
		}
	case "post-restore": // the processes are there, and don't run yet
		err = b.found(pid)
	case "pre-resume": // they have their privileges
		err = b.check()
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
	if err != nil {
		return stopError{err}
	}
	return nil
}

// hooks runs those of the creation that see the container from outside. The others did their work inside, which is in the images. In a
// network namespace that criu leaves empty the loopback device is set up, as it was when the container was created.
func (b *back) hooks(pid int) error {
	if b.options.empty(b.spec) && !sameNamespace(pid, "net") {
		if err := inNamespaces([]string{fmt.Sprintf("/proc/%d/ns/net", pid)}, loopbackUp); err != nil {
			return fmt.Errorf("set up the loopback device: %w", err)
		}
	}
	h := b.spec.Hooks
	if h == nil {
		return nil
	}
	b.record.hooked = true
	state, err := b.record.hookState(Creating, pid)
	if err != nil {
		return err
	}
	for _, k := range []struct {
		name  string
		hooks []specs.Hook
		//lint:ignore SA1019 prestart is deprecated, and still in use
	}{{"prestart", h.Prestart}, {"createRuntime", h.CreateRuntime}} {
		for i, hook := range k.hooks {
			if err := fork.RunHook(compile.Hook(k.name, hook, b.record.Bundle, false), state); err != nil {
				return fmt.Errorf("/hooks/%s/%d: run %s: %w", k.name, i, hook.Path, err)
			}
		}
	}
	return nil
}

// loopbackUp is netdevice(7)'s SIOCSIFFLAGS.
func loopbackUp() error {
	sock, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(sock)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(sock, unix.SIOCSIFFLAGS, req)
}

// console takes the other end of the container's terminal, or hands it on.
func (b *back) console(fd int) error {
	switch {
	case !b.spec.Process.Terminal:
		unix.Close(fd)
		return errors.New("/process/terminal: the checkpoint has a terminal, and the configuration has none")
	case b.hasTerminal:
		unix.Close(fd)
		return errors.New("the checkpoint has two terminals whose other ends were outside: there is nobody for the second one")
	}
	b.terminal, b.hasTerminal = fd, true
	if b.options.ConsoleSocket == "" {
		return nil
	}
	b.terminal = -1
	return sendConsole(b.options.ConsoleSocket, fd)
}

// found writes down who the restored process is, before it runs.
func (b *back) found(pid int) error {
	c, r := b.record, b.r
	var err error
	c.PID = pid
	if c.Start, err = fork.StartTime(c.PID); err != nil {
		return fmt.Errorf("the restored process %d: %w", c.PID, err)
	}
	// A process outside its cgroup would be without limits, and later commands wouldn't find it.
	if len(c.Cgroups) > 0 {
		pids, err := cgroup.Procs(c.Cgroups)
		if err != nil {
			return err
		}
		if !slices.Contains(pids, c.PID) {
			return fmt.Errorf("criu has not restored process %d into the container's cgroup", c.PID)
		}
	}
	for i, n := range b.spec.Linux.Namespaces {
		kind := nsFile(n.Type)
		if n.Path == "" && sameNamespace(c.PID, kind) {
			return fmt.Errorf("/linux/namespaces/%d: the checkpoint has no %s namespace of its own: restored process %d is in that of the host", i,
				kind, c.PID)
		}
		if n.Path == "" {
			continue
		}
		var st [2]unix.Stat_t
		err := cmp.Or(unix.Stat(n.Path, &st[0]), unix.Stat(fmt.Sprintf("/proc/%d/ns/%s", c.PID, kind), &st[1]))
		if err == nil && st[0].Ino != st[1].Ino {
			err = errors.New("the checkpoint has one of its own")
		}
		if err != nil {
			return fmt.Errorf("/linux/namespaces/%d/path: criu has not restored the process into the %s namespace of others: %w", i, kind, err)
		}
	}
	// Its clocks go on where they were: criu has put it into a time namespace, which exec has to enter, too.
	if !slices.Contains(c.Namespaces, "time") && !sameNamespace(c.PID, "time") {
		c.Namespaces = append(c.Namespaces, "time")
	}
	if o := b.options; o.PIDFile != "" {
		if err := writeFile(o.PIDFile, []byte(strconv.Itoa(c.PID))); err != nil {
			return fmt.Errorf("--pid-file: %w", err)
		}
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{planFile, plan.AppendBinary(nil, b.plan)}, {configFile, b.config}} {
		if err := r.write(c.ID, f.name, f.data); err != nil {
			return err
		}
	}
	return writeFile(filepath.Join(r.dir(c.ID), stateFile), c.text())
}

// check looks at what criu may lose. At this moment it lets the processes go whatever we say, so they are killed.
func (b *back) check() error {
	if !b.spec.Process.NoNewPrivileges {
		return nil
	}
	status, err := os.ReadFile("/proc/" + strconv.Itoa(b.record.PID) + "/status")
	if err == nil && !bytes.Contains(status, []byte("\nNoNewPrivs:\t1\n")) {
		err = fmt.Errorf("/process/noNewPrivileges: this criu has restored process %d without it: criu 3.17 doesn't keep it, 4.2 does",
			b.record.PID)
	}
	if err != nil {
		b.record.signal(unix.SIGKILL)
	}
	return err
}

// nsFile is the name of a kind of namespace below /proc/PID/ns.
func nsFile(t specs.LinuxNamespaceType) string {
	switch t {
	case specs.NetworkNamespace:
		return "net"
	case specs.MountNamespace:
		return "mnt"
	}
	return string(t)
}

// sameNamespace reports whether a process shares a namespace of this one.
func sameNamespace(pid int, kind string) bool {
	a, err1 := os.Readlink("/proc/self/ns/" + kind)
	b, err2 := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
	return err1 == nil && err2 == nil && a == b
}

// restoreOptions makes what criu has to know, and adds to the input under which descriptors it will look for namespaces and streams.
func (r *Runtime) restoreOptions(in *compile.RestoreInput, out *compile.Output, o *RestoreOptions) (message, error) {
	spec := in.Spec
	trees, err := hostTrees(out.Plan)
	if err != nil {
		return nil, err
	}
	var note image
	err = readJSON(filepath.Join(o.ImagePath, imageFile), &note)
	if os.IsNotExist(err) { // a checkpoint of runc's: all its bind mounts have their own names, and what masks files has that of its source
		err = nil
		for target := range maps.Keys(trees) {
			note.Mounts = append(note.Mounts, hostMount{Mountpoint: target, Target: target})
		}
		note.Mounts = append(note.Mounts, hostMount{Mountpoint: "/dev/null"})
		o.EmptyNS = []string{"network"}
	}
	if err != nil {
		return nil, fmt.Errorf("--image-path: %w", err)
	}
	m, err := o.options("restore.log", spec)
	if err != nil {
		return nil, err
	}
	// Siblings: whoever waits for them is their parent, and criu ends.
	m.flag(optSibling, true) // the processes become our children, not criu's
	m.string(optRoot, compile.CriuStage+"/"+stagedRoot)
	if o.LSMProfile != "" {
		m.string(optLSMProfile, o.LSMProfile)
	}
	if o.LSMMountContext != "" {
		m.string(optLSMMount, o.LSMMountContext)
	}
	if err := cgroupRoots(&m, out.Cgroups, &in.Facts); err != nil {
		return nil, err
	}
	for i, mount := range note.Mounts {
		source := "/dev/null"
		if mount.Target != "" {
			tree, ok := trees[mount.Target]
			if !ok {
				return nil, fmt.Errorf("/mounts: the checkpoint has a bind mount on %s, and the configuration has none", mount.Target)
			}
			path := filepath.Join(tree.Path, mount.Below)
			if slices.Contains(slices.Collect(maps.Values(out.Cgroups)), path) {
				source = path // the container's cgroup, which will be there, and open to all
			} else if _, err := os.Stat(path); err != nil {
				return nil, fmt.Errorf("/mounts: the source of the mount on %s: %w", mount.Mountpoint, err)
			} else {
				staged := compile.Staged{Name: strconv.Itoa(i), Path: path, Pointer: tree.origin}
				if mount.Below == "" || tree.IDMapRecursive {
					staged.IDs = tree.ids
				}
				in.Stage = append(in.Stage, staged)
				source = compile.CriuStage + "/" + staged.Name
			}
		}
		m.string(optExternal, fmt.Sprintf("mnt[%s]:%s", mount.Mountpoint, source))
	}
	for target := range trees {
		if !slices.ContainsFunc(note.Mounts, func(m hostMount) bool { return m.Target == target }) {
			return nil, fmt.Errorf("/mounts: the configuration has a bind mount on %s, and the checkpoint has none", target)
		}
	}
	kinds := others(out.Plan)
	for kind := range note.Namespaces {
		if !slices.Contains(kinds, kind) {
			return nil, fmt.Errorf("/linux/namespaces: the checkpoint shares the %s namespace of others, and the configuration doesn't", kind)
		}
	}
	for i, n := range spec.Linux.Namespaces {
		if n.Path == "" {
			continue
		}
		kind := nsFile(n.Type)
		name, fd, err := foreign(kind)
		if err != nil {
			return nil, err
		}
		if _, known := note.Namespaces[kind]; !known && note.Namespaces != nil {
			return nil, fmt.Errorf("/linux/namespaces/%d/path: the configuration shares the %s namespace of others, and the checkpoint doesn't",
				i, kind)
		}
		if name != "" {
			in.Namespaces[kind] = fd
			m.message(optInherit, pair(name, fd))
		}
	}
	var names []string
	if err := readJSON(filepath.Join(o.ImagePath, descriptorsFile), &names); err != nil {
		return nil, fmt.Errorf("--image-path: %w", err)
	}
	for fd, name := range names[:min(3, len(names))] {
		if strings.HasPrefix(name, "file[") {
			if _, err := unix.Seek(fd, 0, unix.SEEK_CUR); err != nil {
				return nil, fmt.Errorf("descriptor %d was a file at the checkpoint, which criu can replace by another file or /dev/null only: %w",
					fd, err)
			}
			if _, own := rootGroup(spec); own && !opensAgain(fd) {
				return nil, fmt.Errorf("descriptor %d was a file at the checkpoint, and criu opens it again as the container's root, to whom the "+
					"one that it is now is closed: give a file that is open to all, or /dev/null", fd)
			}
		}
		if (strings.HasPrefix(name, "pipe:[") || strings.HasPrefix(name, "file[")) && !slices.Contains(names[:fd], name) {
			in.Descriptors[streams[fd]] = criuStreams + fd
			m.message(optInherit, pair(name, criuStreams+fd))
		}
	}
	// Another file may have another mode, which criu 4 minds.
	m.flag(optAnyMode, slices.ContainsFunc(names[:min(3, len(names))], func(name string) bool { return strings.HasPrefix(name, "file[") }))
	return m, nil
}

// opensAgain reports whether anybody may open a file as it is open.
func opensAgain(fd int) bool {
	var st unix.Stat_t
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil || unix.Fstat(fd, &st) != nil {
		return false
	}
	need := map[int]uint32{unix.O_RDONLY: 0o4, unix.O_WRONLY: 0o2, unix.O_RDWR: 0o6}[flags&unix.O_ACCMODE]
	return st.Mode&need == need
}

// cgroupRoots tells criu the container's cgroups, which may be others than before. A root without a controller, as v2 has it, counts
// for all that have none of their own: in hierarchies that glassbox doesn't use the processes stay where criu is.
func cgroupRoots(m *message, cgroups map[string]string, facts *host.Facts) error {
	add := func(controller, path string) {
		var root message
		if controller != "" {
			root.string(1, controller)
		}
		root.string(2, path)
		m.message(optCgroupRoot, root)
	}
	used := map[string]bool{}
	for _, h := range facts.Cgroup.Hierarchies {
		key := ""
		if !h.V2 {
			if len(h.Controllers) == 0 {
				continue
			}
			key = h.Controllers[0] // criu compares with each one of a hierarchy
		}
		if rest, ok := strings.CutPrefix(cgroups[key], h.Mount); ok {
			add(key, path.Join("/", rest))
			used[key] = true
		}
	}
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) < 3 || f[1] == "" {
			continue
		}
		controllers := strings.Split(f[1], ",")
		if !slices.ContainsFunc(controllers, func(c string) bool { return used[c] }) {
			add(controllers[0], f[2])
		}
	}
	return nil
}
