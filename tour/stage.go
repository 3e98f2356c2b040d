package tour

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/fork"
	facts "glassbox/host"
	"glassbox/image"
	"glassbox/plan"
)

// Stage is where a lesson plays: a directory of the tour's own, an image of this machine's programs, and the box, which is the
// process that the lesson looks at.
type Stage struct {
	ctx       context.Context
	o         Options
	facts     *facts.Facts
	user      bool   // without root: everything happens in a user namespace
	name      string // of all that the tour makes
	dir       string
	lock      *os.File
	img       *image.Image
	root      string   // the image's files
	lacks     []string // programs that this machine doesn't have
	vars      map[string]string
	box       *box
	world     func(func())      // runs something in the world of lesson 10
	stop      []func()          // what else the lesson has to end
	groups    map[string]string // the box's cgroups by controller, as compile.Output has them
	plans     func() (*plan.Plan, error)
	starts    func(*Stage) error
	freshRoot bool // the tour has made its root directory
}

// patience is how long a command may take, on the slowest machine.
const patience = time.Minute

// marker is the variable by which the tour's processes are found.
const marker = "GLASSBOX_TOUR"

// prefix is how the names of all that a tour makes begin.
const prefix = "glassbox-tour-"

// needed are the programs that the lessons' commands use, inside and outside.
func needed() []string {
	return []string{"cat", "grep", "id", "ls", "mount", "readlink", "rm", "sed", "sha256sum", "sleep", "tail", "touch", "uname", "wc"}
}

// handy are programs for the learner's own look around, where this machine has them.
func handy() []string {
	return []string{
		"chmod", "cp", "date", "df", "dmesg", "env", "free", "head", "hostname", "ip", "kill", "less", "mkdir", "mv", "ping",
		"ps", "stat", "top", "umount", "vi",
	}
}

// open makes the stage. The image is made when a lesson needs it.
func open(ctx context.Context, o Options) (*Stage, error) {
	f, err := facts.Probe()
	if err != nil {
		return nil, err
	}
	base := filepath.Join(o.Root, "tour")
	_, fresh := os.Stat(o.Root)
	if err := os.MkdirAll(base, 0o700); err != nil {
		return nil, fmt.Errorf("the tour's directory: %w", err)
	}
	if err := sweep(base, f); err != nil {
		return nil, fmt.Errorf("what an earlier tour left: %w", err)
	}
	s := &Stage{ctx: ctx, o: o, facts: f, user: os.Geteuid() != 0 || f.Caps&(1<<21) == 0, freshRoot: fresh != nil}
	for _, path := range []string{base, o.Program} {
		if strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || strings.ContainsRune("'\"\\$`&;|<>()*?[]{}~#!", r) }) {
			return nil, fmt.Errorf("%q stands in commands that the tour shows and runs in a shell: "+
				"choose a path without spaces and quotes (--root)", path)
		}
	}
	// The lock is there first: whoever finds a directory whose lock nobody holds may remove it. Another tour that is just looking
	// for such locks may have taken this one, too, for a dead tour's.
	for range 10 {
		random := make([]byte, 4)
		rand.Read(random)
		s.name = prefix + hex.EncodeToString(random)
		s.dir = filepath.Join(base, strings.TrimPrefix(s.name, prefix))
		if s.lock, err = lockFile(s.dir + ".lock"); err == nil {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(s.dir, 0o755); err != nil {
		return nil, err
	}
	s.reset()
	return s, nil
}

// reset forgets the lesson before.
func (s *Stage) reset() {
	random := make([]byte, 6)
	rand.Read(random)
	s.vars = map[string]string{
		"DIR": s.dir, "GLASSBOX": s.o.Program, "SELF": strconv.Itoa(os.Getpid()), "TOKEN": "secret-" + hex.EncodeToString(random),
	}
	s.plans, s.starts = nil, nil
}

// close removes all that the tour has made.
func (s *Stage) close() error {
	s.end()
	err := remove(s.dir, s.name, s.facts)
	if err == nil {
		err = os.Remove(s.dir + ".lock")
	}
	s.lock.Close()
	// Both only if nothing else is there.
	if os.Remove(filepath.Dir(s.dir)) == nil && s.freshRoot {
		os.Remove(s.o.Root)
	}
	return err
}

func (s *Stage) environ() []string {
	path := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	if own := os.Getenv("PATH"); own != "" {
		path = own + ":" + path // programs are at the same places inside
	}
	return []string{"PATH=" + path, "LC_ALL=C", "HOME=/", "TERM=" + os.Getenv("TERM"), marker + "=" + s.name}
}

func (s *Stage) expand(text string) string {
	for name, value := range s.vars {
		text = strings.ReplaceAll(text, "{"+name+"}", value)
	}
	return text
}

// missing names a program that a command uses and this machine lacks. Inside a box with a root of its own it may have come from busybox.
func (s *Stage) missing(command string, inside bool) string {
	words := strings.FieldsFunc(command, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '/' || r == '-')
	})
	for _, name := range needed() {
		if !slices.Contains(words, name) {
			continue
		}
		if _, err := exec.LookPath(name); err != nil && (!inside || s.img == nil || slices.Contains(s.lacks, name)) {
			return name
		}
	}
	return ""
}

// image makes the image of this machine's own programs, unless it is there.
func (s *Stage) image() error {
	if s.img != nil {
		return nil
	}
	files := []string{s.o.Program + ":/bin/glassbox"}
	busybox, _ := exec.LookPath("busybox")
	s.lacks = nil
	for _, name := range append([]string{"sh"}, needed()...) {
		switch file, err := exec.LookPath(name); {
		case err == nil:
			files = append(files, file)
		case busybox != "" && exec.Command(busybox, name, "--help").Run() == nil:
			files = append(files, busybox+":/bin/"+name)
		default:
			s.lacks = append(s.lacks, name)
		}
	}
	store, err := image.Open(filepath.Join(s.dir, "store"))
	if err != nil {
		return err
	}
	more := slices.Clone(files)
	for _, name := range handy() {
		if file, err := exec.LookPath(name); err == nil {
			more = append(more, file)
		}
	}
	img, err := store.FromHost(s.ctx, "tour", image.FromHostOptions{Files: more})
	if err != nil && s.ctx.Err() == nil { // one of them is more than a program with libraries
		img, err = store.FromHost(s.ctx, "tour", image.FromHostOptions{Files: files})
	}
	if err != nil {
		return fmt.Errorf("an image of this machine's programs: %w", err)
	}
	s.img, s.root = img, filepath.Join(s.dir, "root") // a short name for what stands in plans
	if err := os.Symlink(filepath.Join("store", img.Layers[0].Dir), s.root); err != nil {
		return err
	}
	inside, err := os.OpenRoot(s.root)
	if err != nil {
		return err
	}
	defer inside.Close()
	for _, dir := range []string{"proc", "dev", "tmp", "etc", "sys"} {
		if err := inside.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	return errors.Join(s.put("etc/motd", "hello from the image\n", 0o644), s.put("dev/null", "", 0o644))
}

// put makes a file of the image anew. A box can write there, and may have left a link that leads out: os.Root follows none.
func (s *Stage) put(name, content string, mode os.FileMode) error {
	inside, err := os.OpenRoot(s.root)
	if err != nil {
		return err
	}
	defer inside.Close()
	if err := inside.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := inside.WriteFile(name, []byte(content), mode|0o200); err != nil {
		return err
	}
	return inside.Chmod(name, mode)
}

// box is the process inside.
type box struct {
	plan   *plan.Plan // or nil
	pid    int
	pidfd  int
	reaped bool
	in     *os.File // commands
	out    *os.File // what they say
	rest   []byte
}

// entered reports whether a shell can join the box: it was made by a plan, and the scene hasn't ended its process. A pidfd can be read
// from the moment on at which that is a zombie (pidfd_open(2)), which has no namespaces any more.
func (b *box) entered() bool {
	if b == nil || b.plan == nil || b.reaped || b.pidfd < 0 {
		return false
	}
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(b.pidfd), Events: unix.POLLIN}}, 0)
	return err == nil && n == 0
}

// run starts a plan.
func (s *Stage) run(p *plan.Plan) (took time.Duration, err error) {
	s.end()
	b, fds, err := newBox()
	if err != nil {
		return 0, err
	}
	defer closeAll(fds)
	start := time.Now()
	in, out := int(fds[0].Fd()), int(fds[1].Fd())
	proc, err := fork.Start(p, fork.Options{FDs: map[string]int{"stdin": in, "stdout": out, "stderr": out}})
	took = time.Since(start)
	if err != nil {
		b.in.Close()
		b.out.Close()
		return took, err
	}
	b.plan, b.pid, b.pidfd = p, proc.PID, proc.Pidfd
	s.enter(b)
	return took, nil
}

// program starts a program without a plan.
func (s *Stage) program(attr *syscall.SysProcAttr, argv ...string) error {
	s.end()
	b, fds, err := newBox()
	if err != nil {
		return err
	}
	defer closeAll(fds)
	attr.Setsid, attr.Pdeathsig = true, syscall.SIGKILL
	p, err := os.StartProcess(argv[0], argv, &os.ProcAttr{Dir: "/", Env: s.environ(), Files: []*os.File{fds[0], fds[1], fds[1]}, Sys: attr})
	if err != nil {
		b.in.Close()
		b.out.Close()
		return err
	}
	b.pid = p.Pid
	p.Release()
	s.enter(b)
	return nil
}

func (s *Stage) enter(b *box) {
	s.box = b
	s.vars["PID"] = strconv.Itoa(b.pid)
}

func newBox() (*box, []*os.File, error) {
	inside, in, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	out, said, err := os.Pipe()
	if err != nil {
		inside.Close()
		in.Close()
		return nil, nil, err
	}
	return &box{pidfd: -1, in: in, out: out}, []*os.File{inside, said}, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// end ends what the scene has started, and takes back what outlives it.
func (s *Stage) end() error {
	var errs []error
	if b := s.box; b != nil {
		s.box = nil
		b.in.Close()
		if !b.reaped {
			unix.Kill(b.pid, unix.SIGKILL)
			for {
				if _, err := unix.Wait4(b.pid, nil, 0, nil); err != unix.EINTR {
					break
				}
			}
		}
		b.out.Close()
		if b.pidfd >= 0 {
			unix.Close(b.pidfd)
		}
		killMarked(s.name)
		if b.plan != nil {
			for _, u := range b.plan.Undo(len(b.plan.Steps)) {
				if err := fork.Undo(u.Op); err != nil {
					errs = append(errs, err)
				}
			}
		}
	}
	return errors.Join(errs...)
}

// finish ends a lesson.
func (s *Stage) finish() error {
	err := s.end()
	for i := len(s.stop) - 1; i >= 0; i-- {
		s.stop[i]()
	}
	s.stop = nil
	entries, _ := os.ReadDir(s.dir)
	for _, e := range entries {
		if name := e.Name(); name != "store" && name != "root" { // the image serves the next lesson, too
			os.RemoveAll(filepath.Join(s.dir, name))
		}
	}
	return err
}

// inside runs a command in the box's shell. The shell is one process, so that what a command changes in it is there for the next.
func (s *Stage) inside(command string) (string, error) {
	b := s.box
	if b == nil {
		return "", errors.New("there is nothing inside")
	}
	const mark = "--glassbox-tour-end--"
	stop := context.AfterFunc(s.ctx, func() { b.out.SetReadDeadline(time.Now()) })
	defer stop()
	b.out.SetReadDeadline(time.Now().Add(patience))
	if s.ctx.Err() != nil {
		return "", s.ctx.Err()
	}
	if _, err := fmt.Fprintf(b.in, "{ %s\n} 2>&1; echo %s\n", s.expand(command), mark); err != nil {
		return "(the process inside has ended)", nil
	}
	buf := make([]byte, 4096)
	for {
		if i := bytes.Index(b.rest, []byte(mark)); i >= 0 {
			text := string(b.rest[:i])
			b.rest = bytes.TrimPrefix(b.rest[i+len(mark):], []byte("\n"))
			return tidy(text), nil
		}
		n, err := b.out.Read(buf)
		b.rest = append(b.rest, buf[:n]...)
		switch {
		case len(b.rest) > 1<<20:
			return "", errors.New("the command inside says too much")
		case err == nil:
		case s.ctx.Err() != nil:
			return "", s.ctx.Err()
		case errors.Is(err, io.EOF):
			text := string(b.rest)
			b.rest = nil
			return tidy(text + "\n(the process inside has ended)"), nil
		default:
			return "", fmt.Errorf("no answer from inside: %w", err)
		}
	}
}

// outside runs a command on the host.
func (s *Stage) outside(command string) (string, error) {
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", s.expand(command))
	cmd.Dir = "/"
	cmd.Env = append(s.environ(), s.ownStore()...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case s.ctx.Err() != nil:
		return "", s.ctx.Err()
	case ctx.Err() != nil:
		return "", fmt.Errorf("no answer from outside: %s", command)
	case err != nil && !errors.As(err, &exit):
		return "", err
	}
	return tidy(string(out)), nil
}

// tidy takes control characters out: a terminal obeys them.
func tidy(text string) string {
	text = strings.Map(func(r rune) rune {
		if r == '\t' {
			return ' '
		}
		if r != '\n' && (r < ' ' || r >= 0x7f && r < 0xa0) {
			return -1
		}
		return r
	}, text)
	return strings.Trim(text, "\n")
}
