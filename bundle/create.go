package bundle

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"glassbox/cgroup"
	"glassbox/compile"
	"glassbox/fork"
	"glassbox/host"
	"glassbox/oci"
	"glassbox/plan"
	"glassbox/seccomp"
	"glassbox/systemd"
)

// CreateOptions are the flags of create and run.
type CreateOptions struct {
	Bundle        string // directory
	ConsoleSocket string // unix socket that gets the terminal
	PIDFile       string
	PidfdSocket   string // unix socket that gets a pidfd of the process
	ListenFDs     int    // of PreserveFDs, the first ones are sockets that the service manager has opened (sd_listen_fds(3))
	PreserveFDs   int    // descriptors 3 … 3+n-1 stay open in the container
	NoPivot       bool   // chroot instead of pivot_root, for a root in an initial ramdisk
	NoNewKeyring  bool
	Detach        bool // of run
	Keep          bool // of run

	forward *forwarder // of a run in the foreground
}

// Create makes a container that waits for start.
func (r *Runtime) Create(id string, o CreateOptions) error {
	// create never stays: whoever calls it waits for the process by its pid.
	o.Detach = true
	l, err := r.make(id)
	if err != nil {
		return err
	}
	defer l.unlock()
	spec, text, err := r.read(o.Bundle)
	var c *record
	if err == nil {
		c, _, err = r.create(id, spec, text, o, true)
	}
	if err != nil {
		r.unmade(id, l, c)
	}
	return err
}

// unmade is the end of a container that could not be made. What its hooks made, the poststop hooks take back; c may be nil.
func (r *Runtime) unmade(id string, l *lock, c *record) {
	// The hooks come after the lock is let go: they may call the runtime for this very container.
	os.RemoveAll(r.dir(id))
	l.unlock()
	if c != nil && c.hooked {
		r.poststop(c)
	}
}

// create makes a container. If wait is set, it waits for start; else it runs. On an error nothing is left but its directory; the
// record may be there then, to say what hooks are to be run.
func (r *Runtime) create(id string, spec *specs.Spec, text []byte, o CreateOptions, wait bool) (*record, *fork.Process, error) {
	bundle, err := filepath.Abs(o.Bundle)
	if err != nil {
		return nil, nil, err
	}
	// Before anything is made, so that a flag that can't be right leaves no trace.
	if err := checkTerminal(spec, o); err != nil {
		return nil, nil, err
	}
	if err := r.offerNotify(id, spec); err != nil {
		return nil, nil, err
	}
	in, err := r.input(id, bundle, spec)
	if err != nil {
		return nil, nil, err
	}
	creation(&in)
	if o.ListenFDs > 0 {
		spec.Process.Env = append(spec.Process.Env, "LISTEN_FDS="+strconv.Itoa(o.ListenFDs), "LISTEN_PID=1")
	}
	in.NoPivot, in.NoNewKeyring, in.PreserveFDs = o.NoPivot, o.NoNewKeyring, o.PreserveFDs
	in.PlainLines = o.ConsoleSocket == "" // it is carried to our terminal, which adds what it needs
	if wait {
		// A plan that waits has one step more, before execve: it opens the FIFO for writing, which blocks until start
		// reads (fifo(7)).
		in.StartDir = r.startDir(id)
	}
	out, err := r.compile(in)
	if err != nil {
		return nil, nil, err
	}
	r.debug(out.Plan)
	c := newRecord(id, in, out, out.Plan)
	// What takes everything back is on the disk before the first thing is made: a kill between the two finds an undo that has nothing to do.
	if err := r.prepare(c, wait); err != nil {
		return nil, nil, err
	}
	if !wait {
		// NOTIFY_SOCKET must be there before the program is, which may tell at once that it is ready (sd_notify(3)).
		if c.ready, err = r.listen(id); err != nil {
			return nil, nil, err
		}
	}
	proc, err := fork.Start(out.Plan, fork.Options{
		OnExecFailure: fork.ExplainExec,
		// Asked when a hook is about to run, because only then is there a pid to be told.
		State:        func(pid int) ([]byte, error) { return c.hookState(Creating, pid) },
		CgroupParent: func(dir string) { c.Parents = append(c.Parents, dir) },
		Hook:         func(p *fork.Process, h *plan.Hook) error { return r.createHook(c, p, h) },
		Cloned: func(p *fork.Process) error {
			if o.forward != nil {
				// From here on there is somebody to pass signals on to. Before, a signal ends the runtime, and the child
				// with it.
				if err := o.forward.catch(); err != nil {
					return err
				}
			}
			return r.cloned(c, p, text, out.Plan)
		},
		Record: func(p *fork.Process) error { return r.record(c, p, o) },
	})
	if err != nil {
		c.hooked = hooksRan(out.Plan, err)
		// The parents that the cgroups' creation made are taken back if they are empty: another container may be in them
		// by now.
		return c, nil, errors.Join(err, cgroup.RemoveEmpty(c.Parents))
	}
	return c, proc, nil
}

// input is what the plan of a bundle's container is compiled from, whoever wants it. It completes the configuration.
func (r *Runtime) input(id, bundle string, spec *specs.Spec) (compile.Input, error) {
	facts, err := r.Facts()
	if err != nil {
		return compile.Input{}, err
	}
	if err := r.setDefaults(spec, id, facts); err != nil {
		return compile.Input{}, err
	}
	in := compile.Input{Spec: spec, Facts: *facts, Bundle: bundle, LaxCaps: true, InOrder: true, NamedFlags: true, ID: id}
	// Its root would be mounted for the whole host to see: at a place of our own, which delete can find again and unmount.
	if !compile.OwnMounts(spec.Linux.Namespaces) {
		in.HostMounts = true
		if in.Mountpoint, err = r.hostRoot(id); err != nil {
			return in, err
		}
	}
	// Asked only by who wants it: the file system may not be mounted, and looking for it would cost every start.
	if spec.Linux.IntelRdt != nil && facts.Resctrl == nil {
		if in.Facts.Resctrl, err = host.ProbeResctrl(); err != nil {
			return in, fmt.Errorf("/linux/intelRdt: %w", err)
		}
	}
	if in.Systemd, err = r.systemd(); err != nil {
		return in, err
	}
	in.Filter, err = r.filter(spec.Linux.Seccomp, facts.Arch)
	return in, err
}

// creation asks for what belongs to making a container, and not to bringing one back.
func creation(in *compile.Input) {
	in.Record, in.FindProgram, in.MakeCwd = true, true, true
	p := in.Spec.Process
	// As runc does: a program without HOME finds it in /etc/passwd, which is the container's and is read beneath its root.
	p.Env = WithHome(p.Env, in.Spec.Root.Path, p.User.UID)
}

func (r *Runtime) compile(in compile.Input) (*compile.Output, error) {
	out, err := compile.Container(in)
	if err != nil {
		return nil, err
	}
	for _, w := range out.Warnings {
		r.warn("%s", w)
	}
	return out, nil
}

// newRecord describes the container that a plan makes. What has to be taken back is what undone has made: the same plan, or the one
// that brings the container back.
func newRecord(id string, in compile.Input, out *compile.Output, undone *plan.Plan) *record {
	s := in.Spec
	return &record{
		Format: recordFormat, OCIVersion: s.Version, ID: id, Bundle: in.Bundle, Rootfs: s.Root.Path, Created: time.Now().UTC(),
		Owner:       os.Geteuid(),
		Annotations: s.Annotations, Cgroups: out.Cgroups, Unit: out.Unit, Place: out.Class, Systemd: in.Systemd,
		Namespaces: out.Plan.Namespaces(), Hooks: laterHooks(s.Hooks),
		SharedPIDs: sharesPIDs(s),
		spec:       s, left: &leftovers{Cgroups: out.Cgroups, Steps: undone.Undo(len(undone.Steps))},
	}
}

// Plan returns the plan by which Run makes a bundle's container on a host with these facts. The configuration is completed. Nothing is
// written.
func Plan(id, bundle string, spec *specs.Spec, facts *host.Facts) (*plan.Plan, error) {
	if spec.Process == nil {
		return nil, errNoProcess
	}
	r := &Runtime{facts: facts}
	in, err := r.input(id, bundle, spec)
	if err != nil {
		return nil, err
	}
	creation(&in)
	out, err := r.compile(in)
	if err != nil {
		return nil, err
	}
	return out.Plan, nil
}

// sharesPIDs reports whether a container has no PID namespace of its own: its processes don't end with the first one then.
func sharesPIDs(s *specs.Spec) bool {
	return !slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.PIDNamespace && n.Path == "" })
}

var errNoProcess = errors.New("/process: missing: there is nothing to run")

// systemd asks who makes units, where cgroups are made through it.
func (r *Runtime) systemd() (*systemd.Facts, error) {
	if !r.SystemdCgroup {
		return nil, nil
	}
	if !systemd.Booted() {
		return nil, errors.New("--systemd-cgroup: systemd doesn't run this machine")
	}
	f, err := systemd.Probe(systemd.User())
	if err != nil {
		return nil, fmt.Errorf("--systemd-cgroup: %w", err)
	}
	return f, nil
}

// hostRoot is where the root of a container without a mount namespace is mounted. It lies beside the container's directory, which is
// removed with all that is in it, and no container can have this name. Who unmounts it may stand elsewhere.
func (r *Runtime) hostRoot(id string) (string, error) {
	return filepath.Abs(filepath.Join(cmp.Or(r.Root, "/run/glassbox-runtime"), "root:"+id))
}

// filterCache is the directory of compiled filters. No container can have this name.
const filterCache = "seccomp:cache"

// filter compiles a seccomp profile, or remembers how it was compiled before. A profile with a listener is left to the compiler
// of plans, which adds the steps that hand the listener over, and so is every profile where there is no state.
func (r *Runtime) filter(s *specs.LinuxSeccomp, arch string) (*plan.Seccomp, error) {
	if s == nil || s.ListenerPath != "" || r.Root == "" {
		return nil, nil
	}
	// Kubernetes starts hundreds of containers with one profile: compiling it takes longer than all other things that happen here.
	f, err := seccomp.Cached(filepath.Join(r.Root, filterCache), s, arch)
	if err != nil {
		return nil, seccomp.At("/linux/seccomp", err)
	}
	for _, name := range f.Unknown {
		r.warn("/linux/seccomp: unknown system call %q", name)
	}
	return &plan.Seccomp{Name: "of the configuration", Flags: f.Flags, Program: f.Bytes()}, nil
}

// prepare writes what must be there before the plan runs: what takes it back, and where the container waits.
func (r *Runtime) prepare(c *record, wait bool) error {
	// Not replaced by rename: the end of its last line says that it is whole (see leftovers), and that saves every start two calls.
	undo, err := c.left.text()
	if err != nil {
		return err
	}
	if err := r.write(c.ID, undoFile, undo); err != nil {
		return err
	}
	if wait {
		return r.makeFIFO(c.ID)
	}
	return nil
}

// cloned writes what later commands need, while the child is at work.
func (r *Runtime) cloned(c *record, p *fork.Process, config []byte, pl *plan.Plan) error {
	c.PID = p.PID
	var err error
	// Pid and start time together name the process for every later command, whoever gets the pid by then.
	if c.Start, err = fork.StartTime(p.PID); err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		data []byte
		// state.json has another name until record: only what is complete may be taken for a container.
	}{{planFile, plan.AppendBinary(nil, pl)}, {configFile, config}, {stateFile + ".new", c.text()}} {
		if err := r.write(c.ID, f.name, f.data); err != nil {
			return err
		}
	}
	return nil
}

// startDir is where a container waits for start. It has a directory of its own because a process of the container can see it that has
// CAP_SYS_PTRACE and was put into it by exec before start.
func (r *Runtime) startDir(id string) string { return filepath.Join(r.dir(id), "start") }

// makeFIFO makes the FIFO for whatever user the container's process is by then; nobody else gets to it through the directory above.
func (r *Runtime) makeFIFO(id string) error {
	dir := r.startDir(id)
	path := filepath.Join(dir, compile.StartFIFO)
	// 0711: the container's user can open the FIFO by its name, and can't see what else is there.
	err := os.Mkdir(dir, 0o711)
	if err == nil {
		err = unix.Mkfifo(path, 0o622)
	}
	if err == nil {
		// Again, because the modes above went through the caller's umask.
		err = os.Chmod(path, 0o622)
	}
	if err == nil {
		err = os.Chmod(dir, 0o711)
	}
	if err != nil {
		return fmt.Errorf("make %s: %w", path, err)
	}
	return nil
}

// record lets later commands and the caller know who the container's process is, while it waits. From here on there is a container.
func (r *Runtime) record(c *record, p *fork.Process, o CreateOptions) error {
	// The caller gets the terminal before the pid: whoever waits for the pid file may attach at once.
	if o.ConsoleSocket != "" {
		if err := sendConsole(o.ConsoleSocket, p.FDs["console"]); err != nil {
			return err
		}
	}
	if o.PidfdSocket != "" {
		if err := sendFD("--pidfd-socket", o.PidfdSocket, "pidfd", p.Pidfd); err != nil {
			return err
		}
	}
	if o.PIDFile != "" {
		if err := writeFile(o.PIDFile, []byte(strconv.Itoa(p.PID))); err != nil {
			return fmt.Errorf("--pid-file: %w", err)
		}
	}
	file := filepath.Join(r.dir(c.ID), stateFile)
	// The rename is the moment from which there is a container: state.json was written before the process could be seen.
	return os.Rename(file+".new", file)
}

// laterHooks are the kinds of hooks that belong to the start and the end.
func laterHooks(h *specs.Hooks) []string {
	var kinds []string
	if h != nil {
		for _, k := range []struct {
			name  string
			hooks []specs.Hook
		}{{startContainer, h.StartContainer}, {poststart, h.Poststart}, {poststop, h.Poststop}} {
			if len(k.hooks) > 0 {
				kinds = append(kinds, k.name)
			}
		}
	}
	return kinds
}

// checkTerminal refuses combinations in which nobody would hold the terminal's other end.
func checkTerminal(spec *specs.Spec, o CreateOptions) error {
	switch terminal := spec.Process.Terminal; {
	case terminal && o.Detach && o.ConsoleSocket == "":
		return errors.New("/process/terminal: cannot allocate tty if runc will detach without setting console socket: give --console-socket")
	case o.ConsoleSocket != "" && (!terminal || !o.Detach):
		return errors.New("--console-socket: cannot use console socket if runc will not detach or allocate tty")
	}
	return nil
}

// read reads a bundle's configuration, and returns its text, too.
func (r *Runtime) read(dir string) (*specs.Spec, []byte, error) {
	spec, text, warnings, err := oci.Load(dir)
	r.problems(oci.ConfigName, warnings)
	if err != nil {
		return nil, nil, err
	}
	if spec.Process == nil {
		return nil, nil, fmt.Errorf("%s: %w", oci.ConfigName, errNoProcess)
	}
	return spec, text, nil
}

// leftovers is what takes a container's traces back: the file undo.json, written before the first of them is made.
type leftovers struct {
	Cgroups map[string]string `json:"cgroups,omitempty"`
	Steps   []plan.Step       `json:"steps,omitempty"`
}

// leftovers reads the file undo.json. It is nil where there is none, or only its beginning: then the runtime was killed while it wrote
// the file, and had made nothing.
func (r *Runtime) leftovers(id string) (*leftovers, error) {
	left := &leftovers{}
	data, err := os.ReadFile(filepath.Join(r.dir(id), undoFile))
	// The last byte written is the line's end: without it the writer was killed, and has made nothing yet.
	if os.IsNotExist(err) || err == nil && !bytes.HasSuffix(data, []byte("\n")) {
		return nil, nil
	}
	if err == nil {
		err = left.read(data)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", undoFile, err)
	}
	return left, nil
}

// undoFile takes back what the file undo.json lists, after the end of all processes that may be left.
func (r *Runtime) undoFile(id string) error {
	left, err := r.leftovers(id)
	if err != nil {
		return err
	}
	return r.undo(left, true)
}

// undo takes back what outlives the container's processes, which it kills before that if they may be left.
func (r *Runtime) undo(left *leftovers, kill bool) error {
	// Killed before it had written what there would be to take back, the runtime had made nothing of it.
	if left == nil {
		return nil
	}
	if kill && len(left.Cgroups) > 0 { // without a cgroup nobody knows whose processes they are
		if err := cgroup.Kill(left.Cgroups); err != nil {
			return err
		}
	}
	var errs []error
	// One that can't be taken back keeps none of the others.
	for _, s := range left.Steps {
		if err := fork.Undo(s.Op); err != nil {
			errs = append(errs, fmt.Errorf("undo %s: %w", s.Op, err))
		}
	}
	return errors.Join(errs...)
}

// repair empties a directory that a killed runtime left. The child that may be left with it ends by itself: it waits for a
// parent that is gone.
func (r *Runtime) repair(id string) {
	if err := r.undoFile(id); err != nil {
		r.warn("container %s was left half made: %v", id, err)
	}
	entries, _ := os.ReadDir(r.dir(id))
	// The directory itself stays: its lock is held by whoever calls this.
	for _, e := range entries {
		os.RemoveAll(filepath.Join(r.dir(id), e.Name()))
	}
}

// Run creates a container, starts it, and unless it is detached waits for its end, removes it and returns its exit status.
func (r *Runtime) Run(id string, o CreateOptions) (int, error) {
	l, err := r.make(id)
	if err != nil {
		return 1, err
	}
	defer l.unlock()
	// Hooks that belong to the start need a container that waits for it.
	spec, text, err := r.read(o.Bundle)
	wait := false
	var c *record
	var proc *fork.Process
	if !o.Detach {
		o.forward = &forwarder{}
	}
	if err == nil {
		// A hook of the kind startContainer runs in the container, as exec would, before the program: the process has to
		// be there and wait.
		wait = spec.Hooks != nil && len(spec.Hooks.StartContainer) > 0
		c, proc, err = r.create(id, spec, text, o, wait)
	}
	if err != nil {
		r.unmade(id, l, c)
		return 1, err
	}
	var console *console
	if fd, ok := proc.FDs["console"]; ok && !o.Detach {
		console = attach(fd)
		defer console.restore()
	}
	if wait {
		err = r.start(c, l, proc.Pidfd)
	} else {
		l.unlock() // state, kill and exec work until it is ready, and while it runs
		err = r.poststart(c)
	}
	abandon := func(err error) (int, error) {
		// By its number, which nobody else can have before we have waited for it: it is our child.
		unix.Kill(proc.PID, unix.SIGKILL)
		wait4(proc.PID)
		return 1, r.abandon(c, err)
	}
	if err != nil {
		return abandon(err)
	}
	if o.Detach {
		if err := c.ready.forward(proc.PID, proc.Pidfd); err != nil {
			return abandon(err)
		}
		return 0, nil
	}
	// In the background: a service that never says it is ready must not keep the caller from its output and its end.
	go func() {
		if err := c.ready.forward(proc.PID, proc.Pidfd); err != nil {
			r.warn("%v", err)
		}
	}()
	code := o.forward.wait(proc, console)
	if o.Keep {
		return code, nil
	}
	return code, r.remove(c)
}

// remove removes a container that has ended, unless somebody has done so already.
func (r *Runtime) remove(c *record) error {
	l, err := r.relock(c)
	if err != nil || l == nil {
		return err
	}
	defer l.unlock()
	return r.destroy(c, l, false)
}
