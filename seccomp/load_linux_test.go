package seccomp

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"

	"glassbox/test/plain"
)

// The tests in this file load filters into the running kernel. They need no privilege (no_new_privs is set), but
// a filter cannot be taken off again: each is loaded by a copy of the test program, which finds in the environment
// what it is to do.

// job is what such a copy does: load the filter, then make the calls, or execute a program.
type job struct {
	Profile *specs.LinuxSeccomp
	Calls   []probe
	Exec    string
}

type probe struct {
	NR   uintptr
	Args [6]uintptr
}

const jobVariable = "GLASSBOX_SECCOMP_JOB"

func TestMain(m *testing.M) {
	if text := os.Getenv(jobVariable); text != "" {
		if err := child(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(125)
		}
		os.Exit(0)
	}
	plain.Main(m)
}

func child(text string) error {
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		return err
	}
	f, err := Compile(j.Profile, runtime.GOARCH)
	if err != nil {
		return err
	}
	program := f.Bytes()
	runtime.LockOSThread()
	if _, _, e := syscall.RawSyscall6(syscall.SYS_PRCTL, 38 /* PR_SET_NO_NEW_PRIVS */, 1, 0, 0, 0, 0); e != 0 {
		return fmt.Errorf("prctl: %w", e)
	}
	prog := struct {
		len    uint16
		filter *byte
	}{uint16(len(program) / 8), &program[0]}
	ready, listener := make(chan bool), make(chan uintptr, 1)
	go answer(ready, listener)
	<-ready
	const setModeFilter = 1
	nr := uintptr(calls[findCall("seccomp")].nr[machine(runtime.GOARCH)[0]])
	fd, _, e := syscall.RawSyscall(nr, setModeFilter, uintptr(f.Flags), uintptr(unsafe.Pointer(&prog)))
	if e != 0 {
		return fmt.Errorf("seccomp: %w", e)
	}
	if f.Notify {
		listener <- fd
	}
	if j.Exec != "" {
		return syscall.Exec(j.Exec, []string{j.Exec}, nil)
	}
	results := make([]int, len(j.Calls))
	for i, c := range j.Calls {
		do := syscall.RawSyscall6
		if f.Notify {
			do = syscall.Syscall6 // who waits for an answer must not keep the one who gives it from running
		}
		r, _, e := do(c.NR, c.Args[0], c.Args[1], c.Args[2], c.Args[3], c.Args[4], c.Args[5])
		if e == 0 && r == 0 && (c.NR == syscall.SYS_CLONE || c.NR == 435) { // a child that must not be
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
		}
		results[i] = int(e)
	}
	return json.NewEncoder(os.Stdout).Encode(results)
}

// answerErrno is what the listener of a child's filter answers to the first call that it is told of.
const answerErrno = 77

// answer is the process behind listenerPath, here a thread of the child without the filter.
func answer(ready chan<- bool, listener <-chan uintptr) {
	runtime.LockOSThread()
	close(ready)
	fd := <-listener
	var call struct { // struct seccomp_notif
		id         uint64
		pid, flags uint32
		nr, arch   uint32
		ip         uint64
		args       [6]uint64
	}
	const receive, send = 0xc0502100, 0xc0182101
	if _, _, e := syscall.RawSyscall(syscall.SYS_IOCTL, fd, receive, uintptr(unsafe.Pointer(&call))); e != 0 {
		return
	}
	reply := struct { // struct seccomp_notif_resp
		id    uint64
		value int64
		errno int32
		flags uint32
	}{id: call.id, errno: -answerErrno}
	syscall.RawSyscall(syscall.SYS_IOCTL, fd, send, uintptr(unsafe.Pointer(&reply)))
}

// start runs a job and returns its output; err is that of the process, with what it said.
func start(t *testing.T, j job) ([]byte, error) {
	t.Helper()
	text, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{jobVariable + "=" + string(text)}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil && stderr.Len() > 0 {
		err = fmt.Errorf("%w: %.300s", err, stderr.String())
	}
	return out, err
}

// probes makes calls behind a filter and returns the errno of each.
func probes(t *testing.T, p *specs.LinuxSeccomp, cs []probe) []int {
	t.Helper()
	out, err := start(t, job{Profile: p, Calls: cs})
	if err != nil {
		t.Fatalf("child: %v", err)
	}
	var results []int
	if err := json.Unmarshal(out, &results); err != nil || len(results) != len(cs) {
		t.Fatalf("child wrote %q", out)
	}
	return results
}

func native(t *testing.T, name string) uintptr {
	t.Helper()
	row := findCall(name)
	if row < 0 {
		t.Fatalf("no call %s", name)
	}
	return uintptr(calls[row].nr[machine(runtime.GOARCH)[0]])
}

func TestKernelDefault(t *testing.T) {
	if machine(runtime.GOARCH) == nil {
		t.Skip("needs amd64 or arm64")
	}
	const sigchld = 17
	none := Default(DefaultOptions{Arch: runtime.GOARCH, KernelMajor: 6})
	for _, test := range []struct {
		name string
		args [6]uintptr
		want syscall.Errno
	}{
		{"getpid", [6]uintptr{}, 0},
		{"clone", [6]uintptr{0x10000000 | sigchld}, syscall.EPERM}, // CLONE_NEWUSER
		{"clone", [6]uintptr{0x00020000 | sigchld}, syscall.EPERM}, // CLONE_NEWNS
		{"clone3", [6]uintptr{}, syscall.ENOSYS},
		{"unshare", [6]uintptr{0x10000000}, syscall.EPERM},
		{"setns", [6]uintptr{^uintptr(0)}, syscall.EPERM},
		{"mount", [6]uintptr{}, syscall.EPERM},
		{"keyctl", [6]uintptr{}, syscall.EPERM},
		{"io_uring_setup", [6]uintptr{}, syscall.EPERM},
		{"userfaultfd", [6]uintptr{}, syscall.EPERM},
		{"socket", [6]uintptr{40, 1}, syscall.EPERM},
		{"socket", [6]uintptr{38, 5}, syscall.EPERM},
		{"socket", [6]uintptr{1, 1}, 0},
		{"personality", [6]uintptr{0xffffffff}, 0},
		{"personality", [6]uintptr{0x40000}, syscall.EPERM},
		{"rseq_slice_yield", [6]uintptr{}, syscall.ENOSYS},
		{"umask", [6]uintptr{0o22}, 0},
		{"close", [6]uintptr{1 << 30}, syscall.EBADF}, // let through, and the kernel says so
	} {
		got := probes(t, none, []probe{{native(t, test.name), test.args}})[0]
		if got != int(test.want) {
			t.Errorf("%s%#x: got errno %d, want %d", test.name, test.args, got, test.want)
		}
	}
}

// TestKernelEveryCall asks the kernel about every number there is, by each way into the kernel that this machine has: the 64-bit calls,
// and on amd64 those of x32 and of i386. Calls that the filter would let through are turned into errno 998 and denied ones into 999,
// which no call ever returns, so nothing really happens. The child itself can't live without some of them: those are turned only if
// their last argument is a number that nobody else gives. Not asked are clone, which starts the child's threads, and two calls of amd64
// that only the kernel makes.
//
// x32 is asked about on every kernel: one that doesn't have it sees the numbers with their bit all the same, and seccomp comes first.
func TestKernelEveryCall(t *testing.T) {
	if machine(runtime.GOARCH) == nil {
		t.Skip("needs amd64 or arm64")
	}
	const most = 620
	const asked = 0x5eccca11
	needs := strings.Fields(`rt_sigreturn rt_sigprocmask rt_sigaction sigaltstack futex nanosleep clock_nanosleep write read close
		openat fcntl mmap munmap madvise mprotect sched_yield sched_getaffinity gettid getpid tgkill exit exit_group epoll_create1
		epoll_ctl epoll_pwait pipe2 eventfd2 prctl newfstatat fstat restart_syscall prlimit64 getrandom execve arch_prctl`)
	type entry struct {
		name  string
		audit uint32
		bit   uint32
	}
	ways := []entry{{"native", abiInfos[machine(runtime.GOARCH)[0]].audit, 0}}
	args := [6]uintptr{5: asked}
	program := ""
	if runtime.GOARCH == "amd64" {
		ways = append(ways, entry{"x32", abiInfos[abiX32].audit, x32Bit})
		everything := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86}}
		if _, err := start(t, job{Profile: everything, Exec: oneCall(t, t.TempDir(), true, uint32(calls[findCall("getppid")].nr[abi386]),
			0)}); exitCode(err) == -2 {
			t.Log("i386: needs a kernel with CONFIG_IA32_EMULATION")
		} else {
			program = narrowCalls(t, t.TempDir(), most, asked, uint32(calls[findCall("clone")].nr[abi386]))
			ways = append(ways, entry{"i386", abiInfos[abi386].audit, 0})
		}
	}
	for name, caps := range capabilitySets {
		real := Default(DefaultOptions{Arch: runtime.GOARCH, Caps: caps, KernelMajor: 6})
		marked := *real
		pass, deny := uint(998), uint(999)
		marked.DefaultErrnoRet = &deny
		when := func(op specs.LinuxSeccompOperator) []specs.LinuxSeccompArg {
			return []specs.LinuxSeccompArg{{Index: 5, Value: asked, Op: op}}
		}
		marked.Syscalls = []specs.LinuxSyscall{
			{Names: needs, Action: specs.ActAllow, Args: when(specs.OpNotEqual)},
			{Names: needs, Action: specs.ActErrno, ErrnoRet: &pass, Args: when(specs.OpEqualTo)},
			{Names: []string{"clone"}, Action: specs.ActAllow},
		}
		for _, s := range real.Syscalls {
			if s.Action == specs.ActAllow {
				s.Action, s.ErrnoRet = specs.ActErrno, &pass
				s.Names = slices.DeleteFunc(slices.Clone(s.Names), func(n string) bool { return slices.Contains(needs, n) })
			}
			marked.Syscalls = append(marked.Syscalls, s)
		}
		n := newNaive(&marked, runtime.GOARCH)
		for _, way := range ways {
			var cs []probe
			var want []int
			for nr := range uint32(most) {
				if way.name == "native" && runtime.GOARCH == "amd64" && (nr == 335 || nr == 336) {
					// uretprobe and uprobe: the kernel makes them itself, past all filters (Linux 6.14), and answers
					// everyone else with SIGILL.
					continue
				}
				v := n.verdict(runtime.GOARCH, data{nr: nr | way.bit, arch: way.audit, args: [6]uint64{5: asked}})
				if v&0xffff0000 != retErrno {
					continue
				}
				cs = append(cs, probe{NR: uintptr(nr | way.bit), Args: args})
				want = append(want, int(v&0xffff))
			}
			if len(cs) < most-10 {
				t.Fatalf("%s: only %d calls to try", way.name, len(cs))
			}
			got := make([]int, 0, len(cs))
			if way.name == "i386" {
				out, err := start(t, job{Profile: &marked, Exec: program})
				if err != nil || len(out) != 4*most {
					t.Fatalf("%s, %s: %v, %d bytes", name, way.name, err, len(out))
				}
				for _, c := range cs {
					got = append(got, -int(int32(binary.LittleEndian.Uint32(out[4*c.NR:]))))
				}
			} else {
				got = probes(t, &marked, cs)
			}
			for i, c := range cs {
				if got[i] != want[i] {
					t.Errorf("%s, %s: call %d: got errno %d, want %d", name, way.name, uint32(c.NR)&^way.bit, got[i], want[i])
				}
			}
		}
	}
}

func TestKernelActions(t *testing.T) {
	if machine(runtime.GOARCH) == nil {
		t.Skip("needs amd64 or arm64")
	}
	mkdir := []string{"mkdirat"}
	call := []probe{{NR: native(t, "mkdirat"), Args: [6]uintptr{^uintptr(99)}}}
	profile := func(a specs.LinuxSeccompAction, errno *uint, args ...specs.LinuxSeccompArg) *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow,
			Syscalls:      []specs.LinuxSyscall{{Names: mkdir, Action: a, ErrnoRet: errno, Args: args}},
		}
	}
	notify := func(p *specs.LinuxSeccomp) *specs.LinuxSeccomp {
		p.ListenerPath = "/the child itself"
		return p
	}
	fifty := uint(50)
	high := specs.LinuxSeccompArg{Index: 0, Op: specs.OpGreaterThan, Value: 1 << 32}
	low := specs.LinuxSeccompArg{Index: 0, Op: specs.OpLessEqual, Value: 1 << 32}
	for _, test := range []struct {
		name string
		p    *specs.LinuxSeccomp
		want int
	}{
		{"errno 50", profile(specs.ActErrno, &fifty), 50},
		{"errno by default", profile(specs.ActErrno, nil), int(syscall.EPERM)},
		{"trace without a tracer", profile(specs.ActTrace, nil), int(syscall.ENOSYS)},
		{"log", profile(specs.ActLog, nil), int(syscall.EFAULT)},
		{"notify", notify(profile(specs.ActNotify, nil)), answerErrno},
		{"upper half of an argument", profile(specs.ActErrno, &fifty, high), 50},
		{"upper half of an argument, not", profile(specs.ActErrno, &fifty, low), int(syscall.EFAULT)},
	} {
		if got := probes(t, test.p, call)[0]; got != test.want {
			t.Errorf("%s: got errno %d, want %d", test.name, got, test.want)
		}
	}
	for _, a := range []specs.LinuxSeccompAction{specs.ActKillProcess, specs.ActTrap} {
		_, err := start(t, job{Profile: profile(a, nil), Calls: call})
		if err == nil {
			t.Errorf("%s: the child lived", a)
		}
	}
}

// TestKernelNewerCalls: a call that the kernel has and that is newer than all of the profile fails with ENOSYS, for which programs
// have a way around, and an older one that the profile leaves out with the profile's errno.
func TestKernelNewerCalls(t *testing.T) {
	if machine(runtime.GOARCH) == nil {
		t.Skip("needs amd64 or arm64")
	}
	needs := strings.Fields(`rt_sigreturn rt_sigprocmask rt_sigaction sigaltstack futex nanosleep clock_nanosleep write read close openat fcntl
		mmap munmap madvise mprotect sched_yield gettid getpid tgkill exit exit_group epoll_create1 epoll_ctl epoll_pwait pipe2 eventfd2 clone
		restart_syscall getrandom`)
	nowhere := [6]uintptr{^uintptr(99)}
	for _, test := range []struct {
		action specs.LinuxSeccompAction
		newest string
		call   string
		want   syscall.Errno
	}{
		{specs.ActErrno, "clone3", "openat2", syscall.ENOSYS}, // 435 is allowed, 437 is newer
		{specs.ActErrno, "clone3", "close_range", syscall.ENOSYS},
		{specs.ActErrno, "clone3", "keyctl", syscall.EPERM},
		{specs.ActErrno, "clone3", "pidfd_open", syscall.EPERM}, // 434: left out on purpose
		{specs.ActErrno, "faccessat2", "openat2", syscall.EPERM},
		{specs.ActErrno, "faccessat2", "process_madvise", syscall.ENOSYS},
		{specs.ActLog, "clone3", "openat2", syscall.EFAULT},
		{specs.ActTrap, "clone3", "openat2", syscall.ENOSYS},
		{specs.ActKillProcess, "clone3", "openat2", syscall.ENOSYS},
	} {
		p := &specs.LinuxSeccomp{DefaultAction: test.action, Syscalls: []specs.LinuxSyscall{
			{Names: needs, Action: specs.ActAllow}, {Names: []string{test.newest, "no_such_call"}, Action: specs.ActAllow},
		}}
		args := nowhere
		if test.call == "openat2" {
			args = [6]uintptr{^uintptr(99), ^uintptr(99), ^uintptr(99), 24}
		}
		if got := probes(t, p, []probe{{native(t, test.call), args}})[0]; got != int(test.want) {
			t.Errorf("%s, up to %s: %s: got errno %d, want %d", test.action, test.newest, test.call, got, test.want)
		}
	}
}

// TestKernelTrace stands in for the tracer that SCMP_ACT_TRACE is for: it gets the number in errnoRet.
func TestKernelTrace(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("needs amd64")
	}
	dir := t.TempDir()
	number := uint(1234)
	for _, test := range []struct {
		errno *uint
		want  uint
	}{{&number, number}, {nil, uint(syscall.EPERM)}} {
		p := &specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow,
			Syscalls:      []specs.LinuxSyscall{{Names: []string{"umask"}, Action: specs.ActTrace, ErrnoRet: test.errno}},
		}
		if got := traced(t, job{Profile: p, Exec: oneCall(t, dir, false, uint32(native(t, "umask")), 0o22)}); got != test.want {
			t.Errorf("got %d, want %d", got, test.want)
		}
	}
}

// traced runs a job under ptrace(2) and returns the number that came with the first stop for the filter, 0 if there was none.
func traced(t *testing.T, j job) (message uint) {
	t.Helper()
	text, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread() // the tracer is a thread
	defer runtime.UnlockOSThread()
	proc, err := os.StartProcess("/proc/self/exe", []string{"child"}, &os.ProcAttr{
		Env: []string{jobVariable + "=" + string(text)}, Files: []*os.File{nil, nil, os.Stderr}, Sys: &syscall.SysProcAttr{Ptrace: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	const traceSeccomp, killWithTracer, eventSeccomp = 0x80, 0x100000, 7
	for first := true; ; {
		var status syscall.WaitStatus
		tid, err := syscall.Wait4(-1, &status, syscall.WALL, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if tid == proc.Pid && (status.Exited() || status.Signaled()) {
			return message
		}
		if !status.Stopped() {
			continue
		}
		signal := 0
		switch {
		case first:
			first = false
			if err := syscall.PtraceSetOptions(tid, traceSeccomp|killWithTracer|syscall.PTRACE_O_TRACECLONE|syscall.PTRACE_O_TRACEEXEC); err != nil {
				t.Fatal(err)
			}
		case status.TrapCause() == eventSeccomp:
			m, err := syscall.PtraceGetEventMsg(tid)
			if err != nil {
				t.Fatal(err)
			}
			if message == 0 {
				message = m
			}
		case status.StopSignal() != syscall.SIGTRAP && status.StopSignal() != syscall.SIGSTOP:
			signal = int(status.StopSignal())
		}
		if err := syscall.PtraceCont(tid, signal); err != nil && err != syscall.ESRCH {
			t.Fatal(err)
		}
	}
}

// TestKernelTakesEveryDefault loads the default filter for every set of capabilities.
func TestKernelTakesEveryDefault(t *testing.T) {
	if machine(runtime.GOARCH) == nil {
		t.Skip("needs amd64 or arm64")
	}
	for _, name := range slices.Sorted(maps.Keys(capabilitySets)) {
		p := Default(DefaultOptions{Arch: runtime.GOARCH, Caps: capabilitySets[name], KernelMajor: 6})
		p.Flags = []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"}
		if got := probes(t, p, []probe{{NR: native(t, "getppid")}})[0]; got != 0 {
			t.Errorf("%s: getppid: errno %d", name, got)
		}
	}
}
