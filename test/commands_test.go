package test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"glassbox/test/machine"
)

// call is a command line of a script after its options: [=CODE] [<FILE] [-limit D] ARG… [&NAME&].
type call struct {
	argv  []string
	code  int // wanted, or -1 for success, -2 for any failure
	stdin *os.File
	limit time.Duration
	name  string // of a job for the background
}

func parse(ts *testscript.TestScript, neg bool, args []string) call {
	c := call{code: -1, limit: time.Minute} // for what hangs; a slow machine may take long
	if neg {
		c.code = -2
	}
	for len(args) > 0 {
		switch {
		case regexp.MustCompile(`^=\d+$`).MatchString(args[0]):
			c.code, _ = strconv.Atoi(args[0][1:])
		case strings.HasPrefix(args[0], "<"):
			file, err := os.Open(ts.MkAbs(args[0][1:]))
			ts.Check(err)
			c.stdin = file
		case args[0] == "-limit" && len(args) > 1:
			var err error
			c.limit, err = time.ParseDuration(args[1])
			ts.Check(err)
			args = args[1:]
		default:
			if last := args[len(args)-1]; regexp.MustCompile(`^&\w+&$`).MatchString(last) {
				c.name = strings.Trim(last, "&")
				args = args[:len(args)-1]
			}
			c.argv = args
			c.limit = scaled(c.limit)
			return c
		}
		args = args[1:]
	}
	ts.Fatalf("no command")
	return c
}

func environ(ts *testscript.TestScript) []string {
	var env []string
	for _, name := range of(ts).names {
		if value := ts.Getenv(name); value != "" {
			env = append(env, name+"="+value)
		}
	}
	return env
}

func execute(ts *testscript.TestScript, c call) {
	s := of(ts)
	started, err := s.host.Go(c.argv, environ(ts), ts.MkAbs("."), c.stdin)
	if c.stdin != nil {
		c.stdin.Close()
	}
	ts.Check(err)
	if c.name != "" {
		s.jobs[c.name] = started
		return
	}
	res, err := started.Finish(c.limit)
	ts.Check(err)
	judge(ts, c, res)
}

func judge(ts *testscript.TestScript, c call, res machine.Result) {
	fmt.Fprint(ts.Stdout(), res.Stdout)
	fmt.Fprint(ts.Stderr(), res.Stderr)
	switch {
	case res.TimedOut:
		var list []string
		for pid, line := range of(ts).host.Processes() {
			list = append(list, fmt.Sprintf("%d %s", pid, line))
		}
		sort.Strings(list)
		ts.Fatalf("no end after %v; processes:\n%s", c.limit, strings.Join(list, "\n"))
	case res.Held && filepath.Base(c.argv[0]) == "glassbox":
		ts.Fatalf("somebody holds the output of a command that has ended")
	case c.code == -1 && res.Code != 0:
		ts.Fatalf("exit code %d", res.Code)
	case c.code == -2 && res.Code == 0:
		ts.Fatalf("unexpected success")
	case c.code >= 0 && res.Code != c.code:
		ts.Fatalf("exit code %d, want %d", res.Code, c.code)
	}
	if regexp.MustCompile(`(?m)^(goroutine \d|panic: )`).MatchString(res.Stderr) {
		ts.Fatalf("it panicked")
	}
}

// gb [=CODE] [<FILE] [-limit D] ARG… [&NAME&] runs glassbox.
func cmdGb(ts *testscript.TestScript, neg bool, args []string) {
	c := parse(ts, neg, args)
	c.argv = append([]string{filepath.Join(run.bin, "glassbox")}, c.argv...)
	execute(ts, c)
}

// host … runs any program in the machine.
func cmdHost(ts *testscript.TestScript, neg bool, args []string) { execute(ts, parse(ts, neg, args)) }

// cri METHOD [JSON] calls containerd's interface for Kubernetes at /run/c.sock.
func cmdCRI(ts *testscript.TestScript, neg bool, args []string) {
	c := parse(ts, neg, args)
	c.argv = append(criCommand(ts), c.argv...)
	execute(ts, c)
}

func criCommand(ts *testscript.TestScript) []string {
	program, err := run.set.CRI(".", os.Stderr)
	ts.Check(err)
	return []string{program, "/run/c.sock"}
}

// attack … runs the tests of cmd/glassbox-build, which are a client of BuildKit's.
func cmdAttack(ts *testscript.TestScript, neg bool, args []string) {
	program, err := attacker()
	ts.Check(err)
	c := parse(ts, neg, args)
	c.argv = append([]string{program}, c.argv...)
	execute(ts, c)
}

// attacker builds them, once.
var attacker = sync.OnceValues(func() (string, error) {
	program := filepath.Join(run.dir, "attack.test")
	cmd := exec.Command("go", "test", "-c", "-trimpath", "-o", program, ".")
	cmd.Dir, cmd.Env = "../cmd/glassbox-build", append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return program, nil
})

// outside … runs a program in the world behind the machine's eth0.
func cmdOutside(ts *testscript.TestScript, neg bool, args []string) {
	c := parse(ts, neg, args)
	c.argv = append([]string{"ip", "netns", "exec", "outside"}, c.argv...)
	execute(ts, c)
}

// finish [=CODE] NAME waits for a job in the background.
func cmdFinish(ts *testscript.TestScript, neg bool, args []string) {
	c := parse(ts, neg, args)
	j := jobOf(ts, c.argv[0])
	delete(of(ts).jobs, c.argv[0])
	res, err := j.Finish(c.limit)
	ts.Check(err)
	judge(ts, c, res)
}

// signal NAME SIGNAL sends a job in the background a signal.
func cmdSignal(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: signal NAME SIGNAL")
	}
	ts.Check(jobOf(ts, args[0]).Signal(unix.SignalNum(args[1])))
}

func jobOf(ts *testscript.TestScript, name string) *machine.Job {
	j := of(ts).jobs[name]
	if j == nil {
		ts.Fatalf("no job %q", name)
	}
	return j
}

// waitfor REGEXP COMMAND… runs a command until it succeeds and its output matches, for at most 15 seconds.
func cmdWaitfor(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: waitfor REGEXP COMMAND…")
	}
	want, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	argv := args[1:]
	switch argv[0] {
	case "gb":
		argv = append([]string{filepath.Join(run.bin, "glassbox")}, argv[1:]...)
	case "outside":
		argv = append([]string{"ip", "netns", "exec", "outside"}, argv[1:]...)
	case "cri":
		argv = append(criCommand(ts), argv[1:]...)
	case "host":
		argv = argv[1:]
	}
	var res machine.Result
	for end := time.Now().Add(scaled(15 * time.Second)); ; time.Sleep(50 * time.Millisecond) {
		res, err = of(ts).host.Run(scaled(15*time.Second), argv, environ(ts), ts.MkAbs("."))
		ts.Check(err)
		if res.Code == 0 && want.MatchString(res.Stdout) {
			break
		}
		if time.Now().After(end) {
			fmt.Fprint(ts.Stdout(), res.Stdout)
			fmt.Fprint(ts.Stderr(), res.Stderr)
			ts.Fatalf("%q never came; the last exit code was %d", args[0], res.Code)
		}
	}
	fmt.Fprint(ts.Stdout(), res.Stdout)
	fmt.Fprint(ts.Stderr(), res.Stderr)
}

// waitout NAME REGEXP waits until a job's standard output matches.
func cmdWaitout(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: waitout NAME REGEXP")
	}
	want, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	j := jobOf(ts, args[0])
	for end := time.Now().Add(scaled(15 * time.Second)); !want.MatchString(j.Output()); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			res, _ := j.Finish(0)
			ts.Fatalf("%q never came from %s\n[stdout]\n%s\n[stderr]\n%s", args[1], args[0], res.Stdout, res.Stderr)
		}
	}
}

// save NAME [REGEXP] sets a variable to the last standard output, or to the part of it that the expression's group finds.
func cmdSave(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: save NAME [REGEXP]")
	}
	value := strings.TrimSpace(ts.ReadFile("stdout"))
	if len(args) > 1 {
		found := regexp.MustCompile("(?m)" + args[1]).FindStringSubmatch(value)
		if len(found) < 2 {
			ts.Fatalf("%q does not match %q", args[1], value)
		}
		value = found[1]
	}
	ts.Setenv(args[0], value)
	s := of(ts)
	s.names = append(s.names, args[0])
}

// json PATH REGEXP looks into the last standard output: a.b.0.c; of an array on top, the first element. With ! the path
// must not be there or not match.
func cmdJSON(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: json PATH REGEXP")
	}
	var value any
	text := ts.ReadFile("stdout")
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		ts.Fatalf("%v in %q", err, text)
	}
	if list, ok := value.([]any); ok && !regexp.MustCompile(`^\d+(\.|$)`).MatchString(args[0]) {
		if len(list) == 0 {
			ts.Fatalf("an empty array")
		}
		value = list[0]
	}
	got := "nothing"
	for i, name := range strings.Split(args[0], ".") {
		switch v := value.(type) {
		case map[string]any:
			value = v[strings.ReplaceAll(name, "~", ".")]
		case []any:
			n, err := strconv.Atoi(name)
			if err != nil || n >= len(v) {
				value = nil
			} else {
				value = v[n]
			}
		default:
			ts.Fatalf("nothing at part %d of %s in %s", i, args[0], text)
		}
	}
	if s, ok := value.(string); ok {
		got = s
	} else if value != nil {
		encoded, err := json.Marshal(value)
		ts.Check(err)
		got = string(encoded)
	}
	if regexp.MustCompile("^(?:"+args[1]+")$").MatchString(got) == neg {
		ts.Fatalf("%s is %s", args[0], got)
	}
}

// tty [=CODE] [<FILE] gb|host ARG… runs a command on a terminal of 24 rows and 80 columns. The lines of FILE say what a
// person does: "see REGEXP" waits, "type TEXT" types a line, "key N" types a byte, "size ROWS COLS" resizes.
func cmdTTY(ts *testscript.TestScript, neg bool, args []string) {
	var actions []string
	rest := args
	for i, arg := range args {
		if strings.HasPrefix(arg, "<") {
			actions = strings.Split(strings.TrimSpace(ts.ReadFile(arg[1:])), "\n")
			rest = append(append([]string(nil), args[:i]...), args[i+1:]...)
			break
		}
	}
	c := parse(ts, neg, rest)
	switch c.argv[0] {
	case "gb":
		c.argv = append([]string{filepath.Join(run.bin, "glassbox")}, c.argv[1:]...)
	case "host":
		c.argv = c.argv[1:]
	}
	con, err := startConsole(of(ts).host, c.argv, environ(ts), ts.MkAbs("."))
	ts.Check(err)
	defer con.close()
	end := time.Now().Add(c.limit)
	fail := func(format string, a ...any) {
		con.Signal(syscall.SIGKILL)
		fmt.Fprint(ts.Stdout(), con.text())
		ts.Fatalf(format, a...)
	}
	for _, action := range actions {
		verb, rest, _ := strings.Cut(strings.TrimSpace(action), " ")
		switch verb {
		case "see":
			if found, err := con.expect(regexp.MustCompile("(?m)"+rest), time.Until(end)); err != nil || found == nil {
				fail("%q never came", rest)
			}
		case "type":
			con.write(rest + "\n")
		case "key":
			n, _ := strconv.Atoi(rest)
			con.write(string([]byte{byte(n)}))
		case "size":
			var rows, cols uint16
			fmt.Sscan(rest, &rows, &cols)
			ts.Check(setSize(con.master, rows, cols))
		case "hangup":
			con.master.Close()
		case "":
		default:
			fail("unknown action %q", action)
		}
	}
	code, err := con.wait(time.Until(end))
	if err != nil {
		fail("%v after %v", err, c.limit)
	}
	judge(ts, c, machine.Result{Code: code, Stdout: strings.ReplaceAll(con.text(), "\r\n", "\n")})
}
