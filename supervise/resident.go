package supervise

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/fork"
)

// resident is what a supervisor needs to know while its container runs. With it the process starts itself anew (execve keeps
// the pid, the children and the descriptors), so that what the start needed of memory is gone for good: a supervisor may stay
// for months, and there may be hundreds. It happens when nobody waits: the caller has been told, and no output has been read
// yet. Everything else stands in the container's files, and is read at the end.
type resident struct {
	dir                                   string
	pid                                   int
	pidfd, console, stdin, stdout, stderr int // descriptors; -1: none
	logMaxSize, logMaxFiles               int
	logDriver, logDrop, logFields         int // the driver's place in drivers; 0 or 1; 1: they are in a file
	logCompress                           int // 0 or 1
	// Of a health check, in milliseconds; interval 0: there is none.
	interval, startPeriod, startInterval int
	resolver                             [2]int // its sockets, UDP and TCP; -1: it has none
	ports                                []int
	carriers                             []carrier
}

// fields are the numbers of r in the order in which they are passed on.
func (r *resident) fields() []*int {
	return []*int{
		&r.pid, &r.pidfd, &r.console, &r.stdin, &r.stdout, &r.stderr, &r.logMaxSize, &r.logMaxFiles,
		&r.logDriver, &r.logDrop, &r.logFields, &r.interval, &r.startPeriod, &r.startInterval,
		&r.resolver[0], &r.resolver[1], &r.logCompress,
	}
}

// args writes r as arguments: the directory, and numbers. JSON would cost the new process more memory than all else it does.
func (r *resident) args() []string {
	var numbers []string
	for _, f := range r.fields() {
		numbers = append(numbers, strconv.Itoa(*f))
	}
	for _, fd := range r.ports {
		numbers = append(numbers, strconv.Itoa(fd))
	}
	args := []string{r.dir, strings.Join(numbers, ",")}
	if len(r.carriers) > 0 {
		args = append(args, carriersArg(r.carriers))
	}
	return args
}

func parseResident(dir, numbers string) (*resident, error) {
	r := &resident{dir: dir}
	fields := r.fields()
	for i, text := range strings.Split(numbers, ",") {
		n, err := strconv.Atoi(text)
		if err != nil {
			return nil, fmt.Errorf("resident: %w", err)
		}
		if i < len(fields) {
			*fields[i] = n
		} else {
			r.ports = append(r.ports, n)
		}
	}
	if strings.Count(numbers, ",")+1 < len(fields) {
		return nil, errors.New("resident: too few numbers")
	}
	return r, nil
}

// log is the job's.
func (r *resident) log() Log {
	l := Log{MaxSize: int64(r.logMaxSize), MaxFiles: r.logMaxFiles, Drop: r.logDrop != 0, Compress: r.logCompress != 0}
	if r.logFields != 0 {
		fields, _ := os.ReadFile(filepath.Join(r.dir, fieldsFile))
		l.Fields = string(fields)
	}
	if all := drivers(); r.logDriver < len(all) {
		l.Driver = all[r.logDriver]
	}
	return l
}

// descriptors are those that execve must keep.
func (r *resident) descriptors() []int {
	out := append([]int{lockFD, r.pidfd, r.console, r.stdin, r.stdout, r.stderr, r.resolver[0], r.resolver[1]}, r.ports...)
	for _, c := range r.carriers {
		out = append(out, c.fd)
	}
	return out
}

func (r *resident) cloexec(flag int) {
	for _, fd := range r.descriptors() {
		if fd >= 0 {
			unix.FcntlInt(uintptr(fd), unix.F_SETFD, flag)
		}
	}
}

// becomeResident replaces the process. It returns only if that is not possible, and nothing has changed then. The caller's
// goroutine is on the main thread, whose death would be the container's.
func (s *supervisor) becomeResident() {
	// Where the plan joined a PID namespace (--pid=container:), children of this thread are still born there, and such a process
	// can't start a thread (clone(2), CLONE_THREAD, EINVAL): the new program would end at once, and the container with it.
	own, _ := os.Readlink("/proc/thread-self/ns/pid")
	if children, err := os.Readlink("/proc/thread-self/ns/pid_for_children"); err != nil || children != own {
		fd, err := unix.Open("/proc/thread-self/ns/pid", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return
		}
		err = unix.Setns(fd, unix.CLONE_NEWPID)
		unix.Close(fd)
		if err != nil {
			return
		}
	}
	r := s.resident()
	if r.interval == 0 && r.resolver[0] <= 0 && len(r.carriers) == 0 { // nothing to do but wait
		r.becomeIdle()
	}
	r.replace(stays)
}

// resident gathers what the next program needs to know.
func (s *supervisor) resident() *resident {
	r := &resident{
		dir: s.job.Dir, pid: s.proc.PID, pidfd: s.proc.Pidfd, ports: s.ports, carriers: s.carriers,
		console: number(s.console), stdin: number(s.pipes.stdin), stdout: number(s.pipes.stdout), stderr: number(s.pipes.stderr),
		logMaxSize: int(s.job.Log.MaxSize), logMaxFiles: s.job.Log.MaxFiles,
		resolver:  s.resolver,
		logDriver: max(slices.Index(drivers(), s.job.Log.Driver), 0),
	}
	if s.job.Log.Drop {
		r.logDrop = 1
	}
	if s.job.Log.Compress {
		r.logCompress = 1
	}
	// Not among the arguments, which everybody on the host can read: a container's environment may be in them.
	if fields := s.job.Log.Fields; fields != "" && os.WriteFile(filepath.Join(r.dir, fieldsFile), []byte(fields), 0o600) == nil {
		r.logFields = 1
	}
	if h := s.job.Health; h != nil {
		r.interval, r.startPeriod = int(h.Interval.Milliseconds()), int(h.StartPeriod.Milliseconds())
		r.startInterval = int(h.StartInterval.Milliseconds())
	}
	return r
}

// replace executes this program anew in the given form, and returns only if that is not possible.
func (r *resident) replace(form string) {
	r.cloexec(0)
	unix.Exec("/proc/self/exe", append([]string{"glassbox-runtime", form}, r.args()...), []string{"GOMAXPROCS=1"})
	r.cloexec(unix.FD_CLOEXEC)
}

// number is a file's descriptor; -1: there is none, or it is closed.
func number(f *os.File) int {
	if f == nil {
		return -1
	}
	return int(f.Fd())
}

// Resident goes on where becomeResident left off, in the form Awake if it came from Idle. carried, if there is one, is an argument that
// says which ports are to be carried.
func Resident(form, dir, numbers string, carried ...string) int {
	runtime.LockOSThread()
	if form != stays {
		unix.Close(idleFD)
	}
	r, err := parseResident(dir, numbers)
	if err != nil {
		return 125 // the container dies with us, and the next command repairs
	}
	for _, text := range carried {
		if r.carriers, err = parseCarriers(text); err != nil {
			return 125
		}
	}
	r.cloexec(unix.FD_CLOEXEC)
	file := func(fd int, name string) *os.File {
		if fd < 0 {
			return nil
		}
		unix.SetNonblock(fd, true)
		return os.NewFile(uintptr(fd), name)
	}
	s := &supervisor{
		job:  &Job{Dir: dir, Terminal: r.console >= 0, Detached: true, Log: r.log()},
		lock: os.NewFile(lockFD, "lock"), ports: r.ports,
		caller:  caller{wake: -1},
		proc:    &fork.Process{PID: r.pid, Pidfd: r.pidfd},
		console: file(r.console, "console"),
		pipes:   &pipes{stdin: file(r.stdin, "stdin"), stdout: file(r.stdout, "stdout"), stderr: file(r.stderr, "stderr")},
	}
	if s.log, err = openLog(logPath(s.job), r.log()); err != nil {
		return 125
	}
	s.leave()
	var ws unix.WaitStatus
	if form == Awake {
		ws = s.awake()
	} else {
		// A supervisor with a health check, a resolver or ports to carry has work of its own and is a Go program for good.
		s.connect()
		s.resolver, s.carriers = r.resolver, r.carriers
		s.resolve()
		s.carryPorts()
		go settle()
		if r.interval > 0 {
			ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
			// It was started a moment ago.
			s.watchHealth(Health{Interval: ms(r.interval), StartPeriod: ms(r.startPeriod), StartInterval: ms(r.startInterval)}, time.Now())
		}
		ws = s.reap()
		s.checks.stop()
	}
	// What the start knew of the job is gone with the former program: it is read again when it is needed.
	job, err := ReadJob(dir)
	if err != nil {
		return 125
	}
	s.job = job
	if last, err := ReadState(dir); err == nil {
		s.state = *last
	}
	code := s.drain(ws)
	s.over(code, func() { s.followers.end(code) })
	s.followers.end(code)
	s.linger()
	return 0
}
