package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"glassbox/bundle"
)

const version = "0.1.0"

// app is one call of the command line.
type app struct {
	runtime bundle.Runtime
	log     logger
	out     io.Writer
}

// command is one of runc's commands.
type command struct {
	name   string
	args   string // what follows the flags
	about  string
	help   string // an example
	enters bool   // a copy of this process is always in the container for a while
	// setup declares flags and returns what runs the command, with what follows the flags, and gives the exit status.
	setup func(a *app, fs *flag.FlagSet) func(args []string) (int, error)
}

// usageError is an error in the arguments.
type usageError struct{ text string }

func (e usageError) Error() string { return e.text }

// runOCI runs one of runc's commands: global flags, a command, its flags, its arguments.
func runOCI(args []string) int {
	growStack()
	a := &app{out: os.Stdout}
	global := flag.NewFlagSet("glassbox-runtime", flag.ContinueOnError)
	global.SetOutput(io.Discard)
	root := global.String("root", "", "directory of state; it should be on a file system in memory")
	logFile := global.String("log", "", "file for the log; the default is standard error")
	format := global.String("log-format", "text", "format of the log: text or json")
	debug := global.Bool("debug", false, "log more")
	global.BoolVar(&a.runtime.SystemdCgroup, "systemd-cgroup", false, "make cgroups through systemd; cgroupsPath is SLICE:PREFIX:NAME then")
	rootless := global.String("rootless", "auto", "whether to work without root: true, false or auto")
	showVersion := global.Bool("version", false, "print the version")
	global.BoolVar(showVersion, "v", false, "print the version")
	criu := global.String("criu", "", "accepted for old callers; criu is looked for in PATH")
	err := global.Parse(args)
	_ = criu
	if openErr := a.log.open(*logFile, *format); openErr != nil && err == nil {
		err = openErr
	}
	rest := global.Args()
	switch {
	case errors.Is(err, flag.ErrHelp) || err == nil && !*showVersion && (len(rest) == 0 || rest[0] == "help" || rest[0] == "h"):
		usage(a.out)
		return 0
	case err != nil:
		return a.fail(err, 1)
	case *showVersion:
		fmt.Fprintf(a.out, "glassbox-runtime version %s\nspec: %s\n", version, specs.Version)
		return 0
	case !slices.Contains([]string{"true", "false", "auto"}, *rootless):
		return a.fail(fmt.Errorf("--rootless: %q is not one of true, false, auto", *rootless), 1)
	}
	a.runtime.Root, a.runtime.GivenRoot = *root, *root != ""
	if *root == "" {
		a.runtime.Root = defaultRoot()
	}
	a.runtime.Protect = protect
	a.runtime.NotifySocket = os.Getenv("NOTIFY_SOCKET")
	a.runtime.Warn = func(format string, v ...any) { a.log.write("warning", fmt.Sprintf(format, v...)) }
	if *debug {
		a.runtime.Debug = func(format string, v ...any) { a.log.write("debug", fmt.Sprintf(format, v...)) }
	}
	for _, c := range commands() {
		if c.name == rest[0] {
			if c.enters {
				if err := protect(); err != nil {
					return a.fail(err, 1)
				}
			}
			return a.run(c, rest[1:])
		}
	}
	return a.fail(fmt.Errorf("unknown command %q; glassbox-runtime --help lists those that there are", rest[0]), 1)
}

func (a *app) run(c command, args []string) int {
	fs := flag.NewFlagSet(c.name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	do := c.setup(a, fs)
	bad := 1
	if c.name == "exec" {
		bad = 255
	}
	arguments, err := parse(fs, args, c.name)
	if err != nil {
		if errors.Is(err, flag.ErrHelp) {
			c.usage(a.out, fs)
			return 0
		}
		return a.fail(fmt.Errorf("%s: %w", c.name, err), bad)
	}
	code, err := do(arguments)
	if err == nil {
		return code
	}
	if u := (usageError{}); errors.As(err, &u) {
		err = fmt.Errorf("%s: %w; usage: glassbox-runtime %s [flags] %s", c.name, err, c.name, c.args)
		return a.fail(err, bad)
	}
	return a.fail(err, max(code, 1))
}

// parse reads flags before and after the arguments, as runc takes them, and returns the arguments. Only those of exec's program are its
// own, and the options of ps, which begin with what isn't a flag of ours.
func parse(fs *flag.FlagSet, args []string, command string) ([]string, error) {
	var arguments []string
	for {
		if err := fs.Parse(args); err != nil {
			return nil, err
		}
		rest := fs.Args()
		if len(rest) == 0 {
			return arguments, nil
		}
		if command == "exec" {
			return rest, nil
		}
		read := len(args) - len(rest)
		if read > 0 && args[read-1] == "--" && !takesValue(fs, args[:read-1]) {
			return append(arguments, rest...), nil // no flags from here on
		}
		arguments, args = append(arguments, rest[0]), rest[1:]
		if command == "ps" && !formats(args) {
			return append(arguments, args...), nil
		}
	}
}

// takesValue reports whether the last of some words is a flag whose value is the next one.
func takesValue(fs *flag.FlagSet, words []string) bool {
	if len(words) == 0 {
		return false
	}
	name, given := strings.CutPrefix(words[len(words)-1], "-")
	f := fs.Lookup(strings.TrimPrefix(name, "-"))
	if !given || f == nil {
		return false
	}
	b, isBool := f.Value.(interface{ IsBoolFlag() bool })
	return !isBool || !b.IsBoolFlag()
}

// formats reports whether what follows the ID of ps is our flag for the format, and not an option of the program ps: -f is both.
func formats(args []string) bool {
	if len(args) == 0 {
		return false
	}
	name, value, given := strings.Cut(args[0], "=")
	if !given && len(args) > 1 {
		value = args[1]
	}
	return slices.Contains([]string{"-f", "-format", "--format"}, name) && (value == "json" || value == "table")
}

// fail reports an error where callers of runc look for it: in the log and, if that is a file, on standard error, too.
func (a *app) fail(err error, code int) int {
	a.log.write("error", err.Error())
	if a.log.file != os.Stderr {
		fmt.Fprintln(os.Stderr, "glassbox-runtime: "+printable(err.Error()))
	}
	return code
}

// defaultRoot is a directory of the user's, where that isn't root. Podman calls a user's runtime as the root of a user namespace,
// who may write no more of /run than the user.
func defaultRoot() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		if os.Geteuid() != 0 || unix.Faccessat(unix.AT_FDCWD, "/run", unix.W_OK, 0) == unix.EACCES {
			return dir + "/glassbox-runtime"
		}
	}
	return "/run/glassbox-runtime"
}

func usage(w io.Writer) {
	fmt.Fprint(w, `glassbox-runtime runs containers from OCI bundles (a directory with a config.json and a root file system), with the command
line of runc. Engines call it; glassbox is the program for people.

usage: glassbox-runtime [global flags] COMMAND [flags] ARGUMENTS

commands:
`)
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-11s %s\n", c.name, c.about)
	}
	fmt.Fprint(w, `
global flags:
  --root DIR            directory of state (default: `+defaultRoot()+`)
  --log FILE            file for the log (default: standard error)
  --log-format FORMAT   text or json
  --debug               log more
  --systemd-cgroup      make cgroups through systemd
  --rootless VALUE      true, false or auto
  --version             print the version

glassbox-runtime COMMAND --help tells the flags of a command and gives an example.
`)
}

func (c command) usage(w io.Writer, fs *flag.FlagSet) {
	fmt.Fprintf(w, "usage: glassbox-runtime %s [flags] %s\n\n%s.\n\n", c.name, c.args, c.about)
	first := true
	fs.VisitAll(func(f *flag.Flag) {
		if first {
			fmt.Fprintln(w, "flags:")
			first = false
		}
		dashes := "--"
		if len(f.Name) == 1 {
			dashes = "-"
		}
		fmt.Fprintf(w, "  %-22s %s\n", dashes+f.Name, f.Usage)
	})
	fmt.Fprintf(w, "\nexample:\n  %s\n", strings.ReplaceAll(c.help, "\n", "\n  "))
}

// strs is a flag that may be given several times.
type strs []string

func (s *strs) String() string     { return strings.Join(*s, ",") }
func (s *strs) Set(v string) error { *s = append(*s, v); return nil }

// listVar declares a flag that may be given several times.
func listVar(fs *flag.FlagSet) func(p *[]string, name string, value []string, usage string) {
	return func(p *[]string, name string, _ []string, usage string) { fs.Var((*strs)(p), name, usage) }
}

// both declares a flag under two names.
func both[T any](declare func(p *T, name string, value T, usage string), p *T, long, short, usage string) {
	declare(p, long, *p, usage)
	declare(p, short, *p, "short for --"+long)
}

// growStack makes the stack as large as it will be needed, at once. Otherwise it grows four times, and is copied each time.
//
//go:noinline
func growStack() {
	var room [48 << 10]byte
	room[len(os.Args)] = 1
	runtime.KeepAlive(&room)
}
