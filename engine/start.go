package engine

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"glassbox/compile"
	"glassbox/fork"
	"glassbox/host"
	"glassbox/network"
	"glassbox/plan"
	"glassbox/supervise"
)

// wiring is a container's place in a network, and the files that tell it about it.
type wiring struct {
	steps     []plan.Step
	job       *supervise.Network
	hosts     []byte
	resolv    []byte
	container string // id of the container whose network is shared
}

// wire finds the container's address and ports and writes the steps for them. With lease, the address is taken; without
// (explain), a likely one is shown.
func (e *Engine) wire(c *Container, s *specification, lease bool) (*wiring, error) {
	o := &c.Options
	origin := func(what string) string {
		if what == "publish" {
			return strings.Join(append(prefixed("-p ", o.Publish), when(o.PublishAll, "-P")...), " ")
		}
		if text, ok := o.Flags[what]; ok {
			return text
		}
		return "default"
	}
	w := &wiring{}
	gateway, ip := netip.Addr{}, netip.Addr{}
	switch s.network {
	case "none":
		w.steps = network.Loopback()
	case "host":
	case "bridge":
		find := network.LikelyBridge
		if lease {
			find = network.DefaultBridge
		}
		bridge, err := find(e.networkState(), e.networkConfig())
		if err != nil {
			return nil, err
		}
		var want netip.Addr
		if o.IP != "" {
			if want, err = netip.ParseAddr(o.IP); err != nil {
				return nil, invalid("--ip: %w", err)
			}
		}
		gateway, ip = bridge.Gateway, want
		if lease {
			if ip, err = network.Lease(e.networkState(), bridge, c.ID, want); err != nil {
				return nil, err
			}
			w.job = &supervise.Network{State: e.networkState(), Address: ip.String()}
		} else if !ip.IsValid() {
			ip = bridge.Gateway.Next()
		}
		ports, err := e.ports(o, s)
		if err != nil {
			e.release(w.job, c.ID)
			return nil, err
		}
		mac := o.MAC
		if mac == "" {
			mac = network.MAC(ip)
		}
		w.steps = network.Steps(network.Endpoint{Bridge: bridge, IP: ip, MAC: mac, Veth: network.VethName(c.ID), Ports: ports}, origin)
		for _, step := range w.steps {
			if p, ok := step.Op.(*plan.NftPublish); ok && w.job != nil {
				w.job.Ports = p.Ports
			}
		}
	default:
		w.container = s.network
		return w, nil
	}
	for _, server := range o.DNS {
		if _, err := netip.ParseAddr(server); err != nil {
			e.release(w.job, c.ID)
			return nil, invalid("--dns %s: it is no IP address", server)
		}
	}
	var extra []network.HostEntry
	for _, text := range o.AddHost {
		entry, err := network.ParseAddHost(text, gateway)
		if err != nil {
			e.release(w.job, c.ID)
			return nil, invalid("%w", err)
		}
		extra = append(extra, entry)
	}
	hostResolv, _ := os.ReadFile("/etc/resolv.conf")
	if s.network == "host" {
		w.resolv = hostResolv
		w.hosts, _ = os.ReadFile("/etc/hosts")
		for _, entry := range extra {
			w.hosts = fmt.Appendf(w.hosts, "%s\t%s\n", entry.IP, entry.Name)
		}
	} else {
		var stub []byte
		if network.StubOnly(hostResolv) {
			stub, _ = os.ReadFile(network.StubFile)
		}
		w.resolv = network.ResolvConf(hostResolv, stub, network.Resolver{Servers: o.DNS, Search: o.DNSSearch, Options: o.DNSOption})
		w.hosts = network.Hosts(ip, gateway, s.spec.Hostname, o.Domainname, extra)
	}
	return w, nil
}

func prefixed(p string, words []string) []string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = p + w
	}
	return out
}

func when(ok bool, word string) []string {
	if ok {
		return []string{word}
	}
	return nil
}

// ports reads -p and -P, and chooses host ports where none are given.
func (e *Engine) ports(o *CreateOptions, s *specification) ([]network.Port, error) {
	var ports []network.Port
	for _, text := range o.Publish {
		p, err := network.ParsePublish(text)
		if err != nil {
			return nil, invalid("%w", err)
		}
		ports = append(ports, p...)
	}
	if o.PublishAll && s.image != nil {
		exposed := make([]string, 0, len(s.image.Config.Config.ExposedPorts))
		for port := range s.image.Config.Config.ExposedPorts {
			exposed = append(exposed, port)
		}
		slices.Sort(exposed)
		for _, text := range exposed {
			p, err := network.ParsePublish(text)
			if err != nil {
				return nil, invalid("EXPOSE of the image: %w", err)
			}
			ports = append(ports, p...)
		}
	}
	if slices.ContainsFunc(ports, func(p network.Port) bool { return p.HostPort == 0 || p.HostEnd > p.HostPort }) {
		// The supervisor takes the ports again; between now and then another program could be quicker, which is then an error.
		fds, err := network.Reserve(ports)
		if err != nil {
			return nil, err
		}
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
	return ports, nil
}

func (e *Engine) release(n *supervise.Network, id string) {
	if n == nil {
		return
	}
	if addr, err := netip.ParseAddr(n.Address); err == nil {
		network.ReleaseLease(n.State, addr, id)
	}
}

// compile makes a container's plan.
func (e *Engine) compile(c *Container, s *specification, w *wiring, facts *host.Facts) (*compile.Output, error) {
	out, err := compile.Container(compile.Input{
		Spec: s.spec, Facts: *facts, Overlay: s.overlay, Mountpoint: s.mountpoint, Network: w.steps,
		SeccompName: s.seccompName, Origins: s.origins, DieWithParent: true, MakeCwd: true,
	})
	if err != nil {
		return nil, unsupported("%w", err)
	}
	if e.cfg.Warn != nil {
		for _, w := range slices.Concat(s.warnings, out.Warnings) {
			e.cfg.Warn(w)
		}
	}
	return out, nil
}

// Plan returns the plan that `run` with these options would execute. Nothing is written, and no privilege is needed: the
// plan is what root on this host would run.
func (e *Engine) Plan(_ context.Context, o CreateOptions) (*plan.Plan, error) {
	if err := readFiles(&o); err != nil {
		return nil, err
	}
	same := o
	same.Dir, same.LogOpt = "", nil // they change no step but by what they make of other options
	text, err := json.Marshal(same)
	if err != nil {
		return nil, err
	}
	// An id that is always the same for the same command, so that plans can be compared.
	sum := sha256.Sum256(text)
	c := &Container{ID: hex.EncodeToString(sum[:]), Name: o.Name, Options: o}
	facts, err := e.rootFacts()
	if err != nil {
		return nil, err
	}
	s, err := e.spec(c, facts)
	if err != nil {
		return nil, err
	}
	w, err := e.wire(c, s, false)
	if err != nil {
		return nil, err
	}
	out, err := e.compile(c, s, w, facts)
	if err != nil {
		return nil, err
	}
	return out.Plan, nil
}

// Session is a started container, seen by the command that started it.
type Session struct {
	socket *os.File
	events *bufio.Scanner
	exited bool
	code   int
	trace  *plan.Trace // nil, or what events tell is added to it
}

// Start starts a container and returns when its program runs, or with a [StartError]. One that runs already is left alone.
func (e *Engine) Start(_ context.Context, ref string, o StartOptions) (*Session, error) {
	id, err := e.resolve(ref)
	if err != nil {
		return nil, err
	}
	lock, fresh, err := supervise.Lock(e.lockFile(id), false)
	for end := time.Now().Add(10 * time.Second); err == unix.EWOULDBLOCK; lock, fresh, err = supervise.Lock(e.lockFile(id), false) {
		// Somebody works on it: its supervisor, because it runs, or a command that is soon done.
		if _, s, err := e.loadID(id); err == nil && (s.Status == supervise.Running || s.Status == supervise.Paused) {
			if o.Attach {
				return nil, unsupported("container %s is running already: attaching to a running container is not supported yet; see glassbox logs -f and glassbox exec", ref)
			}
			return &Session{}, nil
		}
		if time.Now().After(end) {
			return nil, conflict("container %s is being changed by another command", ref)
		}
		time.Sleep(5 * time.Millisecond)
	}
	if err != nil {
		return nil, err
	}
	handedOver := false
	defer func() {
		if !handedOver {
			supervise.Unlock(lock, e.lockFile(id))
		}
	}()
	if !fresh {
		if err := supervise.RepairOne(e.dir(id), e.nameFileOf(id)); err != nil {
			return nil, err
		}
	}
	c, _, err := e.loadID(id)
	if err != nil {
		return nil, err
	}
	job, err := e.job(c, o)
	if err != nil {
		return nil, e.notStarted(c, err)
	}
	if o.Explain != nil {
		o.Explain(job.Plan)
	}
	job.Step = o.Before != nil
	if e.cfg.Trace != nil && o.TraceFor > 0 && o.Before == nil {
		job.Trace = int64(o.TraceFor)
	}
	s, err := e.spawn(c, job, lock, o)
	var start *StartError
	if err != nil && !errors.As(err, &start) {
		// The supervisor was killed, or never came to be: what it left is repaired while the lock is still ours.
		return nil, errors.Join(err, supervise.RepairOne(e.dir(id), e.nameFile(c.Name)))
	}
	handedOver = true // the supervisor holds the lock, or has removed it
	lock.Close()
	return s, err
}

// notStarted records why a container could not even be tried.
func (e *Engine) notStarted(c *Container, err error) error {
	if c.Options.Remove {
		supervise.RemoveFiles(e.dir(c.ID), e.nameFile(c.Name))
	}
	return &StartError{125, err}
}

// job writes the container's files and the supervisor's job.
func (e *Engine) job(c *Container, o StartOptions) (*supervise.Job, error) {
	if c.Fixed {
		return e.fixedJob(c, o)
	}
	facts, err := e.Facts()
	if err != nil {
		return nil, err
	}
	var s *specification
	if e.fresh != nil && e.fresh.id == c.ID {
		s = e.fresh.spec
		e.fresh = nil
	} else {
		if c.Options.TTY {
			c.Options.ConsoleSize = o.ConsoleSize
		}
		if s, err = e.spec(c, facts); err != nil {
			return nil, err
		}
	}
	wired := e.timed("prepares the network: bridge, address, ports")
	w, err := e.wire(c, s, true)
	wired()
	if err != nil {
		return nil, err
	}
	fail := func(err error) (*supervise.Job, error) {
		e.release(w.job, c.ID)
		return nil, err
	}
	filed := e.timed("writes hosts, resolv.conf, hostname")
	os.Remove(e.pausedFile(c.ID))
	dir := e.dir(c.ID)
	if w.container != "" {
		for _, name := range []string{"hosts", "resolv.conf"} {
			data, err := os.ReadFile(filepath.Join(e.dir(w.container), name))
			if err != nil {
				return fail(err)
			}
			if name == "hosts" {
				w.hosts = data
			} else {
				w.resolv = data
			}
		}
	}
	for name, data := range map[string][]byte{"hosts": w.hosts, "resolv.conf": w.resolv, "hostname": []byte(s.spec.Hostname + "\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return fail(err)
		}
	}
	filed()
	compiled := e.timed("compiles the plan")
	out, err := e.compile(c, s, w, facts)
	compiled()
	if err != nil {
		return fail(err)
	}
	size, files, err := logLimits(c.Options.LogOpt)
	if err != nil {
		return fail(err)
	}
	job := &supervise.Job{
		ID: c.ID, Dir: dir, NameFile: e.nameFile(c.Name), LockFile: e.lockFile(c.ID),
		Terminal: c.Options.TTY, Interactive: c.Options.Interactive, Detached: !o.Attach, Remove: c.Options.Remove,
		LogMaxSize: size, LogMaxFiles: files, Cgroups: out.Cgroups, Network: w.job,
		Namespaces: out.Plan.Namespaces(), Process: processOf(s.spec.Process, out.Plan), Undo: out.Plan.Undo(len(out.Plan.Steps)), Plan: out.Plan,
	}
	if s.overlay != nil && slices.Contains(s.overlay.Options, "volatile") {
		// A volatile overlay leaves a mark that forbids a second use.
		os.RemoveAll(filepath.Join(dir, "work", "work"))
	}
	return job, nil
}

// processOf gathers what exec will need.
func processOf(p *specs.Process, made *plan.Plan) supervise.Process {
	out := supervise.Process{
		Env: p.Env, Cwd: p.Cwd, UID: p.User.UID, GID: p.User.GID, Groups: p.User.AdditionalGids, Caps: p.Capabilities.Bounding,
		NoNewPrivs: p.NoNewPrivileges, AppArmor: p.ApparmorProfile,
	}
	for _, step := range made.Steps {
		if f, ok := step.Op.(*plan.Seccomp); ok {
			out.Filter = f
		}
	}
	return out
}

// runtimeFile opens the runtime's executable as a read-only mount of its own, attached nowhere: a process in a container that
// gets hold of /proc/PID/exe can't write to it (CVE-2019-5736), and nothing has to be copied.
func (e *Engine) runtimeFile() (*os.File, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, e.cfg.Runtime, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("%s: %w (make install puts glassbox-runtime beside glassbox; --runtime names another place)", e.cfg.Runtime, err)
	}
	f := os.NewFile(uintptr(fd), e.cfg.Runtime)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NODEV}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		f.Close()
		return nil, fmt.Errorf("make %s read-only: %w", e.cfg.Runtime, err)
	}
	return f, nil
}

// spawn starts the supervisor and waits until the program runs.
//
// The job reaches it twice: at once, in memory; and as a file, which is written while the supervisor comes up, and before it
// is told to begin.
func (e *Engine) spawn(c *Container, job *supervise.Job, lock *os.File, o StartOptions) (*Session, error) {
	forked := e.timed("starts the supervisor: job into memory, fork")
	runtime, err := e.runtimeFile()
	if err != nil {
		return nil, err
	}
	defer runtime.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	mine, theirs := os.NewFile(uintptr(pair[0]), "session"), os.NewFile(uintptr(pair[1]), "session")
	defer theirs.Close()
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	memory, err := supervise.Memory("job", job)
	if err != nil {
		return nil, err
	}
	defer memory.Close()
	files := []uintptr{null.Fd(), null.Fd(), null.Fd(), lock.Fd(), theirs.Fd(), memory.Fd()}
	if o.Attach {
		if o.Interactive && o.Stdin != nil {
			files[0] = o.Stdin.Fd()
		}
		if o.Stdout != nil {
			files[1] = o.Stdout.Fd()
		}
		if o.Stderr != nil {
			files[2] = o.Stderr.Fd()
		}
	}
	// A session of its own: Ctrl-C at the terminal is for the command, which passes it on. The call is the raw one because
	// os.StartProcess first starts a process only to see whether pidfds work, which costs as much as the container's network.
	_, err = syscall.ForkExec(fmt.Sprintf("/proc/self/fd/%d", runtime.Fd()), []string{"glassbox-runtime", "supervise", c.ID}, &syscall.ProcAttr{
		Dir: "/", Env: []string{}, Files: files, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		mine.Close()
		return nil, fmt.Errorf("start the supervisor: %w", err)
	}
	theirs.Close()
	forked()
	var born int64
	if e.cfg.Trace != nil {
		born = fork.Now()
	}
	written := e.timed("writes plan and job to the disk")
	// The job comes last: where there is one, there is its plan.
	err = supervise.WriteJSON(filepath.Join(e.dir(c.ID), supervise.PlanFile), job.Plan)
	if err == nil {
		err = supervise.WriteJSON(filepath.Join(e.dir(c.ID), supervise.JobFile), job)
	}
	if err != nil {
		mine.Close() // the supervisor ends without having done anything
		return nil, err
	}
	if _, err := mine.Write([]byte{'\n'}); err != nil {
		mine.Close()
		return nil, fmt.Errorf("the supervisor ended before the container was started: %w", err)
	}
	written()
	s := &Session{socket: mine, events: bufio.NewScanner(mine), trace: e.cfg.Trace}
	s.events.Buffer(nil, 1<<20)
	if job.Trace > 0 {
		s.events.Buffer(nil, 16<<20)
	}
	var refused error
	for {
		event, err := s.next()
		switch {
		case err != nil:
			mine.Close()
			return nil, fmt.Errorf("the supervisor ended before the container was started: %w", err)
		case refused != nil && event.Error != "":
			mine.Close()
			return nil, &StartError{event.Code, refused}
		case event.Error != "":
			mine.Close()
			return nil, &StartError{event.Code, errors.New(event.Error)}
		case event.Before == nil:
			s.late(born)
			return s, nil
		}
		answer := supervise.Request{Go: true}
		if refused = o.Before(&Stop{Container: c, Plan: job.Plan, Index: event.Before.Index, PID: event.Before.PID}); refused != nil {
			answer = supervise.Request{Quit: true}
		}
		s.request(answer) // a supervisor that is gone sends no next event
	}
}

func (s *Session) next() (supervise.Event, error) {
	var event supervise.Event
	if !s.events.Scan() {
		if err := s.events.Err(); err != nil {
			return event, err
		}
		return event, errors.New("its socket was closed")
	}
	err := json.Unmarshal(s.events.Bytes(), &event)
	if t := event.Trace; err == nil && t != nil && s.trace != nil {
		s.trace.Spans = append(s.trace.Spans, t.Spans...)
		if t.Times != nil {
			s.trace.Zero, s.trace.Times = t.Zero, t.Times
		}
		if event.Exited || event.Traced {
			s.trace.Exec, s.trace.Calls, s.trace.Lost, s.trace.Note = t.Exec, t.Calls, t.Lost, t.Note
		}
	}
	return event, err
}

// late adds to the trace for how long the supervisor, made at a moment, didn't run before its first line: of its beginning it knows
// only what that took of the processor.
func (s *Session) late(born int64) {
	if s.trace == nil {
		return
	}
	for _, span := range s.trace.Spans {
		if span.Who == "supervisor" && span.Begin > born {
			s.trace.Spans = append(s.trace.Spans, plan.Span{
				Who: "supervisor", What: "waits for a processor, or for the disk that its program lies on", Begin: born, End: span.Begin, Waits: true,
			})
			return
		}
	}
}

// timed adds to the trace how long something takes, from now until the function that it returns is called.
func (e *Engine) timed(what string) func() { return fork.Timed(e.cfg.Trace, "command", what) }

// Wait waits for the container's end and returns its exit code.
func (s *Session) Wait() (int, error) {
	if s.exited {
		return s.code, nil
	}
	event, err := s.next()
	if err != nil {
		return 137, fmt.Errorf("the container's supervisor was killed: %w", err)
	}
	s.exited, s.code = true, event.Code
	return s.code, nil
}

// Traced waits until a container in the background has been traced for as long as StartOptions.TraceFor says, and reports whether
// it still runs.
func (s *Session) Traced() (running bool, err error) {
	event, err := s.next()
	if err != nil {
		return false, fmt.Errorf("the container's supervisor was killed: %w", err)
	}
	s.exited, s.code = event.Exited, event.Code
	return !s.exited, nil
}

func (s *Session) request(q supervise.Request) error {
	return json.NewEncoder(s.socket).Encode(q)
}

// Signal sends a signal to the container's first process.
func (s *Session) Signal(sig syscall.Signal) error {
	return s.request(supervise.Request{Signal: int(sig)})
}

// Resize gives the container's terminal a new size.
func (s *Session) Resize(rows, cols uint16) error {
	return s.request(supervise.Request{Rows: rows, Cols: cols})
}

// Close leaves the container to its supervisor.
func (s *Session) Close() {
	if s.socket != nil {
		s.socket.Close()
	}
}
