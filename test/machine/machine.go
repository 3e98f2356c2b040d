// Package machine gives a test a small host of its own: a process tree with private mount, PID, network, UTS, IPC and
// cgroup namespaces, made from the machine that runs the tests.
//
// Its one idea: what an engine leaves behind is only seen exactly where nothing else happens. Inside, the engine finds
// shared mounts as on a host that systemd booted, its own /run, cgroup hierarchies whose root is the machine's own, an
// eth0 with a default route, and behind that the network namespace "outside", which knows no route back. Closing the
// machine ends every process in it, so a failed test leaves nothing either.
//
// It refuses to run without root. Start reading at Start; init.go is what runs inside.
package machine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// RoleEnv names the variable that tells a program built with this package to be a machine's first process.
const RoleEnv = "GLASSBOX_TEST_ROLE"

// Addresses of the machine and of the world behind its eth0.
const (
	HostAddr    = "198.51.100.1"
	OutsideAddr = "198.51.100.2"
	HostAddr6   = "2001:db8::1"
	Outside6    = "2001:db8::2"
)

// Machine is one such host.
type Machine struct {
	Name string
	Dir  string // files of the machine: hosts, resolv.conf

	init    *exec.Cmd
	socket  *os.File
	shared  bool     // see StartShared
	cgroups []string // directories, in every hierarchy
	sendMu  sync.Mutex
}

// request is what the first process is asked for: to start a program, or to send a signal.
type request struct {
	Argv   []string
	Env    []string
	Dir    string
	TTY    bool
	Signal int
	Pid    int
}

// reply comes twice for a program: when it has started and when it has ended.
type reply struct {
	Pid    int
	Status uint32
	Took   time.Duration
	Err    string
}

// setup is what the first process must know before it begins.
type setup struct {
	Name    string
	Dir     string
	Cgroups []Hierarchy
	Shared  bool
}

// Start makes a machine whose files are kept in dir, with the host's cgroup hierarchies. The calling program must call
// Main early in its own main.
func Start(name, dir string) (*Machine, error) {
	hierarchies, err := Hierarchies()
	if err != nil {
		return nil, err
	}
	return StartWith(name, dir, hierarchies)
}

// StartShared makes a machine that has the processes, the cgroups and the systemd of the one that runs the tests: systemd takes
// processes by their numbers, and knows one tree. It is for machines that are thrown away.
func StartShared(name, dir string) (*Machine, error) {
	hierarchies, err := Hierarchies()
	if err != nil {
		return nil, err
	}
	return start(name, dir, hierarchies, true)
}

// StartWith makes a machine with these cgroup hierarchies.
func StartWith(name, dir string, hierarchies []Hierarchy) (*Machine, error) {
	return start(name, dir, hierarchies, false)
}

func start(name, dir string, hierarchies []Hierarchy, shared bool) (*Machine, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("a test machine needs root")
	}
	if err := writeFiles(dir); err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "machine"), os.NewFile(uintptr(pair[1]), "control")
	defer theirs.Close()

	m := &Machine{Name: name, Dir: dir, socket: ours, shared: shared}
	m.init = exec.Command("/proc/self/exe")
	m.init.Env = append(os.Environ(), RoleEnv+"=machine")
	m.init.ExtraFiles = []*os.File{theirs}
	m.init.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
		Setsid:     true,
	}
	if shared {
		m.init.SysProcAttr.Cloneflags &^= unix.CLONE_NEWPID
	}
	var stderr lockedBuffer
	m.init.Stderr = &stderr
	if err := m.init.Start(); err != nil {
		ours.Close()
		return nil, fmt.Errorf("start machine: %w", err)
	}
	fail := func(err error) (*Machine, error) {
		m.Close()
		return nil, fmt.Errorf("machine %s: %w\n%s", name, err, stderr.String())
	}
	for _, h := range hierarchies {
		if shared {
			break
		}
		group, err := h.makeGroup(fmt.Sprintf("glassbox-test-%d-%d", os.Getpid(), m.init.Process.Pid))
		if group != "" {
			m.cgroups = append(m.cgroups, group)
		}
		if err != nil {
			return fail(err)
		}
		pid := strconv.Itoa(m.init.Process.Pid)
		if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(pid), 0o644); err != nil {
			return fail(err)
		}
	}
	order, err := json.Marshal(setup{Name: name, Dir: dir, Cgroups: hierarchies, Shared: shared})
	if err != nil {
		return fail(err)
	}
	if _, err := ours.Write(order); err != nil {
		return fail(err)
	}
	answer := make([]byte, 4096)
	n, err := ours.Read(answer)
	if err != nil || string(answer[:n]) != "ready" {
		return fail(fmt.Errorf("no answer: %q %w", answer[:max(n, 0)], errors.Join(err)))
	}
	return m, nil
}

// Pid is the machine's first process as this side knows it.
func (m *Machine) Pid() int { return m.init.Process.Pid }

// Path is a path of the machine as this side can open it.
func (m *Machine) Path(path string) string {
	return filepath.Join("/proc", strconv.Itoa(m.Pid()), "root", path)
}

// Cgroups lists the directories that are the roots of the machine's hierarchies.
func (m *Machine) Cgroups() []string { return m.cgroups }

// Close ends every process of the machine and removes its cgroups.
func (m *Machine) Close() error {
	for m.shared && endDescendants(m.Pid()) {
		time.Sleep(20 * time.Millisecond)
	}
	m.socket.Close()
	// The first process takes all others with it; the kernel has reaped them when wait returns.
	m.init.Process.Kill()
	m.init.Wait()
	var errs []error
	for _, group := range m.cgroups {
		errs = append(errs, removeGroup(group))
	}
	return errors.Join(errs...)
}

// endDescendants ends what a process has started, and what that has, and reports whether there was any.
func endDescendants(pid int) bool {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	found := false
	for _, list := range lists {
		text, _ := os.ReadFile(list)
		for _, field := range strings.Fields(string(text)) {
			if child, err := strconv.Atoi(field); err == nil {
				found = true
				endDescendants(child)
				syscall.Kill(child, syscall.SIGKILL)
			}
		}
	}
	return found
}

// Spec is a program to start.
type Spec struct {
	Argv   []string
	Env    []string
	Dir    string
	TTY    bool // Stdin is a terminal and becomes the controlling one
	Stdin  *os.File
	Stdout *os.File
	Stderr *os.File
}

// Process is a program that runs in the machine.
type Process struct {
	Pid  int // in the machine's PID namespace
	m    *Machine
	done chan struct{}
	ws   syscall.WaitStatus
	last reply
	err  error
}

// Start starts a program. The files of spec stay the caller's to close.
func (m *Machine) Start(spec Spec) (*Process, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "reply"), os.NewFile(uintptr(pair[1]), "reply")
	message, err := json.Marshal(request{Argv: spec.Argv, Env: spec.Env, Dir: spec.Dir, TTY: spec.TTY})
	if err != nil {
		return nil, err
	}
	err = m.send(message, unix.UnixRights(
		int(spec.Stdin.Fd()), int(spec.Stdout.Fd()), int(spec.Stderr.Fd()), int(theirs.Fd())))
	theirs.Close()
	if err != nil {
		ours.Close()
		return nil, fmt.Errorf("ask machine: %w", err)
	}
	first, err := readReply(ours)
	if err == nil && first.Err != "" {
		err = errors.New(first.Err)
	}
	if err != nil {
		ours.Close()
		return nil, fmt.Errorf("start %s: %w", spec.Argv[0], err)
	}
	p := &Process{Pid: first.Pid, m: m, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		defer ours.Close()
		last, err := readReply(ours)
		p.ws, p.last, p.err = syscall.WaitStatus(last.Status), last, err
	}()
	return p, nil
}

func (m *Machine) send(message, rights []byte) error {
	m.sendMu.Lock()
	defer m.sendMu.Unlock()
	return unix.Sendmsg(int(m.socket.Fd()), message, rights, nil, 0)
}

func readReply(file *os.File) (reply, error) {
	buffer := make([]byte, 4096)
	n, err := file.Read(buffer)
	if err != nil {
		return reply{}, fmt.Errorf("the machine is gone: %w", err)
	}
	var r reply
	return r, json.Unmarshal(buffer[:n], &r)
}

// Done is closed when the program has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the program's end and returns its exit code, 128+n for signal n.
func (p *Process) Wait() (int, error) {
	<-p.done
	if p.err != nil {
		return -1, p.err
	}
	if p.ws.Signaled() {
		return 128 + int(p.ws.Signal()), nil
	}
	return p.ws.ExitStatus(), nil
}

// Signal sends a signal to the program.
func (p *Process) Signal(sig syscall.Signal) error { return p.m.Kill(p.Pid, sig) }

// Kill sends a signal to a process of the machine by the machine's own number for it.
func (m *Machine) Kill(pid int, sig syscall.Signal) error {
	message, err := json.Marshal(request{Pid: pid, Signal: int(sig)})
	if err != nil {
		return err
	}
	return m.send(message, nil)
}

// Result is what a finished command left.
type Result struct {
	Code           int
	Stdout, Stderr string
	Took           time.Duration // from fork(2) to the end
	TimedOut       bool
	Held           bool // somebody still had the output open two seconds after the end
}

// Job is a program whose output is collected.
type Job struct {
	*Process
	stdout, stderr lockedBuffer
	copies         sync.WaitGroup
	pipes          []*os.File
}

// Output is what the program has written to standard output so far.
func (j *Job) Output() string { return j.stdout.String() }

// Go starts argv with stdin and collects its output.
func (m *Machine) Go(argv, env []string, dir string, stdin *os.File) (*Job, error) {
	j := &Job{}
	if stdin == nil {
		null, err := os.Open(os.DevNull)
		if err != nil {
			return nil, err
		}
		defer null.Close()
		stdin = null
	}
	var ends [2]*os.File
	for i, sink := range []*lockedBuffer{&j.stdout, &j.stderr} {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		ends[i] = w
		j.pipes = append(j.pipes, r)
		j.copies.Add(1)
		go func() {
			defer j.copies.Done()
			io.Copy(sink, r)
		}()
	}
	var err error
	j.Process, err = m.Start(Spec{Argv: argv, Env: env, Dir: dir, Stdin: stdin, Stdout: ends[0], Stderr: ends[1]})
	ends[0].Close()
	ends[1].Close()
	return j, err
}

// Finish waits at most limit for the program's end, ends it if need be, and returns what it left.
func (j *Job) Finish(limit time.Duration) (Result, error) {
	var res Result
	select {
	case <-j.Done():
	case <-time.After(limit):
		res.TimedOut = true
		// A Go program shows where it stands before it goes.
		j.Signal(syscall.SIGQUIT)
		select {
		case <-j.Done():
		case <-time.After(3 * time.Second):
			j.Signal(syscall.SIGKILL)
			<-j.Done()
		}
	}
	code, err := j.Wait()
	res.Code, res.Took = code, j.last.Took
	copied := make(chan struct{})
	go func() { j.copies.Wait(); close(copied) }()
	select {
	case <-copied:
	case <-time.After(2 * time.Second):
		res.Held = true
	}
	for _, pipe := range j.pipes {
		pipe.Close()
	}
	res.Stdout, res.Stderr = j.stdout.String(), j.stderr.String()
	return res, err
}

// Run runs a command without input to its end.
func (m *Machine) Run(limit time.Duration, argv, env []string, dir string) (Result, error) {
	job, err := m.Go(argv, env, dir, nil)
	if err != nil {
		return Result{Code: 127}, err
	}
	return job.Finish(limit)
}

// writeFiles writes what the machine has in place of the host's /etc/hosts and /etc/resolv.conf.
func writeFiles(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	hosts := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n" + HostAddr + "\thost.test\n" +
		OutsideAddr + "\toutside.test registry.test\n"
	if err := os.WriteFile(filepath.Join(dir, "hosts"), []byte(hosts), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "resolv.conf"), []byte("nameserver "+OutsideAddr+"\nsearch example.test\n"), 0o644)
}

// lockedBuffer is a bytes.Buffer for a writer and a reader at once.
type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

// Processes lists the machine's processes but the first: number → command line.
func (m *Machine) Processes() map[int]string {
	entries, _ := os.ReadDir(m.Path("/proc"))
	list := map[int]string{}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == 1 {
			continue
		}
		line, err := os.ReadFile(m.Path("/proc/" + entry.Name() + "/cmdline"))
		if err != nil {
			continue
		}
		comm, _ := os.ReadFile(m.Path("/proc/" + entry.Name() + "/comm"))
		text := strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " "))
		if text == "" {
			text = "[" + strings.TrimSpace(string(comm)) + "]"
		}
		list[pid] = text
	}
	return list
}
