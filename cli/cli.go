// Package cli is what people type: Docker's commands, flags and output, as a face over package engine.
//
// Its one idea: a command line becomes one call of the engine, and what comes back is printed. Flags are handed on as typed
// (container.Words); rules about containers are the engine's, so that explain and later faces read them alike.
//
// Commands are built when they are asked for: `glassbox run` pays for the flags of run and for nothing else.
//
// It refuses to guess: an unknown flag, command or format is an error that says where to read on. Exit codes are Docker's: the container's
// own; 125 for glassbox (run, create, and every unknown flag), 126 and 127 for a program that can't be executed or
// isn't there; 1 for what goes wrong in other commands; 130 when interrupted (exitCode has the table).
//
// Start reading at [Main], then create.go, where every flag of run stands.
package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"glassbox/build"
	"glassbox/docker"
	"glassbox/engine"
	"glassbox/plan"
)

// Version is what --version prints.
const Version = docker.Version

// Main runs one command line (without the program's name) and returns the exit code.
func Main(args []string, stdin, stdout, stderr *os.File, environ []string) int {
	a := &app{in: stdin, out: stdout, err: stderr, environ: environ}
	root := a.rootCommand(args)
	root.SetArgs(append([]string{}, args...)) // cobra takes the process's own arguments for nil
	ctx := engine.Observe(context.Background(), engine.Observer{Warn: a.warn})
	cmd, err := root.ExecuteContextC(ctx)
	return a.finish(cmd, err)
}

// warn prints what the engine wants to be known beside its answer.
func (a *app) warn(text string) { fmt.Fprintln(a.err, "WARNING:", text) }

// Tree returns all commands, for programs that write about them: manual pages, completions.
func Tree() *cobra.Command {
	return (&app{in: os.Stdin, out: os.Stdout, err: os.Stderr}).rootCommand(nil)
}

// app is one run of the program.
type app struct {
	in, out, err *os.File
	environ      []string

	// Global flags.
	root, state, runtime string
	debug                bool

	trace  *plan.Trace    // of run --trace
	pruned []build.Record // by system prune, of the build cache
}

// group is a heading of `glassbox --help`.
type group string

const (
	containers group = "Containers"
	images     group = "Images"
	glass      group = "Looking in"
	groups     group = "Groups"
)

// entry is a command that has not been built yet.
type entry struct {
	name  string
	group group
	build func(*app) *cobra.Command
}

// table is every command, in the order of the help.
func table() []entry {
	return []entry{
		{"run", containers, (*app).runCommand},
		{"create", containers, (*app).createCommand},
		{"start", containers, (*app).startCommand},
		{"exec", containers, (*app).execCommand},
		{"attach", containers, (*app).attachCommand},
		{"cp", containers, (*app).cpCommand},
		{"diff", containers, (*app).diffCommand},
		{"ps", containers, (*app).psCommand},
		{"logs", containers, (*app).logsCommand},
		{"stats", containers, (*app).statsCommand},
		{"top", containers, (*app).topCommand},
		{"port", containers, (*app).portCommand},
		{"stop", containers, (*app).stopCommand},
		{"restart", containers, (*app).restartCommand},
		{"kill", containers, (*app).killCommand},
		{"wait", containers, (*app).waitCommand},
		{"pause", containers, (*app).pauseCommand},
		{"unpause", containers, (*app).unpauseCommand},
		{"update", containers, (*app).updateCommand},
		{"rename", containers, (*app).renameCommand},
		{"rm", containers, (*app).rmCommand},
		{"autostart", containers, (*app).autostartCommand},
		{"build", images, (*app).buildCommand},
		{"pull", images, (*app).pullCommand},
		{"push", images, (*app).pushCommand},
		{"login", images, (*app).loginCommand},
		{"logout", images, (*app).logoutCommand},
		{"images", images, (*app).imagesCommand},
		{"tag", images, (*app).tagCommand},
		{"rmi", images, (*app).rmiCommand},
		{"search", images, (*app).searchCommand},
		{"history", images, (*app).historyCommand},
		{"commit", images, (*app).commitCommand},
		{"import", images, (*app).importCommand},
		{"export", containers, (*app).exportCommand},
		{"save", images, (*app).saveCommand},
		{"load", images, (*app).loadCommand},
		{"explain", glass, (*app).explainCommand},
		{"verify", glass, (*app).verifyCommand},
		{"debug", glass, (*app).debugCommand},
		{"tour", glass, (*app).tourCommand},
		{"inspect", glass, (*app).inspectCommand},
		{"events", glass, (*app).eventsCommand},
		{"info", glass, (*app).infoCommand},
		{"doctor", glass, (*app).doctorCommand},
		{"fsck", glass, (*app).fsckCommand},
		{"version", glass, (*app).versionCommand},
		{"serve", groups, (*app).serveCommand},
		{"compose", groups, (*app).composeCommand},
		{"policy", groups, (*app).policyCommand},
		{"generate", groups, (*app).generateCommand},
		{"builder", groups, (*app).builderCommand},
		{"container", groups, (*app).containerCommand},
		{"volume", groups, (*app).volumeCommand},
		{"network", groups, (*app).networkCommand},
		{"image", groups, (*app).imageCommand},
		{"manifest", groups, (*app).manifestCommand},
		{"system", groups, (*app).systemCommand},
	}
}

func (a *app) rootCommand(args []string) *cobra.Command {
	root := &cobra.Command{
		Use:           "glassbox",
		Short:         "A container engine you can see through",
		Version:       Version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	a.globals(root.PersistentFlags())
	root.SetVersionTemplate("glassbox version {{.Version}}\n")
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetHelpFunc(a.help)
	root.SetUsageFunc(a.usage)
	root.SetFlagErrorFunc(flagError)
	// The one command that is meant is built, and no other: to build them all with their flags takes longer than many a command does.
	name := firstWord(args)
	for _, e := range table() {
		if e.name == name {
			c := e.build(a)
			root.AddCommand(c)
			addMissing(c)
			// cobra adds its command completion to a root that has others: it would be built for nothing.
			root.CompletionOptions.DisableDefaultCmd = true
			return root
		}
	}
	for _, g := range []group{containers, images, glass, groups} {
		root.AddGroup(&cobra.Group{ID: string(g), Title: string(g)})
	}
	for _, e := range table() {
		c := e.build(a)
		c.GroupID = string(e.group)
		root.AddCommand(c)
	}
	addMissing(root)
	// cobra's hidden commands __complete and __completeNoDesc are what the shell's completion runs.
	if strings.HasPrefix(name, "__complete") {
		a.completeFlags(root)
	}
	return root
}

func (a *app) globals(fs *pflag.FlagSet) {
	root, state := a.places()
	fs.StringVar(&a.root, "root", root, "Directory `dir` of images and containers (GLASSBOX_ROOT)")
	fs.StringVar(&a.state, "state", state, "Directory `dir` of what is gone at reboot (GLASSBOX_STATE)")
	fs.StringVar(&a.runtime, "runtime", a.getenv("GLASSBOX_RUNTIME"), "Program `file` of glassbox-runtime (GLASSBOX_RUNTIME; default: the "+
		"one beside this program, then PATH)")
	fs.BoolVarP(&a.debug, "debug", "D", false, "Say on stderr what is done and how long it takes")
	fs.Bool("help", false, "Print help; -h is the host name with run") // without a shorthand, or cobra takes -h for it
}

// firstWord finds the name of the command, so that only that one is built.
func firstWord(args []string) string {
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	// What comes after the command's name is not for these flags: run's --help and its image's own words are among it.
	fs.SetInterspersed(false)
	fs.Usage = func() {}
	(&app{}).globals(fs)
	if fs.Parse(args) != nil || fs.NArg() == 0 {
		return ""
	}
	return fs.Arg(0)
}

func (a *app) getenv(key string) string {
	v, _ := a.lookup(key)
	return v
}

// lookup is a variable of the caller's environment.
func (a *app) lookup(name string) (string, bool) {
	// The last of two of a name counts, as with os/exec: who appends NAME=VALUE means it.
	for i := len(a.environ) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(a.environ[i], name+"="); ok {
			return v, true
		}
	}
	return "", false
}

// places are the default directories.
func (a *app) places() (root, state string) {
	root, state = "/var/lib/glassbox", "/run/glassbox"
	if uid := os.Geteuid(); uid != 0 {
		data := a.getenv("XDG_DATA_HOME")
		if data == "" {
			data = filepath.Join(a.getenv("HOME"), ".local/share")
		}
		run := a.getenv("XDG_RUNTIME_DIR")
		if run == "" {
			// Its value where logind makes the directory (pam_systemd(8)), for who came by another way: su, cron.
			run = fmt.Sprintf("/run/user/%d", uid)
		}
		root, state = filepath.Join(data, "glassbox"), filepath.Join(run, "glassbox")
	}
	if v := a.getenv("GLASSBOX_ROOT"); v != "" {
		root = v
	}
	if v := a.getenv("GLASSBOX_STATE"); v != "" {
		state = v
	}
	return root, state
}

// open opens the engine.
func (a *app) open() (*engine.Engine, error) {
	defer a.timed("open the engine")()
	if err := a.checkRuntime(); err != nil {
		return nil, err
	}
	root, state, err := a.absolute()
	if err != nil {
		return nil, err
	}
	return engine.Open(engine.Config{Runtime: a.runtimePath(), Root: root, State: state})
}

// absolute are --root and --state for who keeps them: a supervisor works in another directory.
func (a *app) absolute() (root, state string, err error) {
	if root, err = filepath.Abs(a.root); err == nil {
		state, err = filepath.Abs(a.state)
	}
	return root, state, err
}

// checkRuntime refuses a runtime that was named and can't be one, before anything is made.
func (a *app) checkRuntime() error {
	switch {
	case a.runtime == "" || a.runtime == docker.Runtime:
		return nil
	case !strings.Contains(a.runtime, "/"):
		return &usageError{err: fmt.Errorf("--runtime %s: there is one runtime, glassbox's own; what can be given is the path of another build "+
			"of %s",
			a.runtime, docker.Runtime)}
	}
	st, err := os.Stat(a.runtime)
	if err != nil || st.IsDir() || st.Mode()&0o111 == 0 {
		return &usageError{err: fmt.Errorf("--runtime %s: there is no such program", a.runtime)}
	}
	return nil
}

// runtimePath finds glassbox-runtime: as told, beside this program, in PATH.
func (a *app) runtimePath() string {
	const name = docker.Runtime
	if a.runtime != "" && a.runtime != name {
		return a.runtime
	}
	if found, err := beside(name); err == nil {
		return found
	}
	return ""
}

// timed says with --debug how long something took.
func (a *app) timed(what string) func() {
	if !a.debug {
		return func() {}
	}
	start := time.Now()
	return func() {
		slog.New(slog.NewTextHandler(a.err, nil)).Info(what, "took", time.Since(start).Round(time.Microsecond))
	}
}

// noArgs, atLeast and exactly check the number of arguments with Docker's words.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return &usageError{fmt.Errorf("'%s' accepts no arguments", cmd.CommandPath()), 1}
	}
	return nil
}

func atLeast(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < n {
			return &usageError{fmt.Errorf("'%s' requires at least %d argument%s", cmd.CommandPath(), n, plural(n)), 1}
		}
		return nil
	}
}

func exactly(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return &usageError{fmt.Errorf("'%s' requires %d argument%s", cmd.CommandPath(), n, plural(n)), 1}
		}
		return nil
	}
}

func between(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least || len(args) > most {
			return &usageError{fmt.Errorf("'%s' requires at least %d and at most %d arguments", cmd.CommandPath(), least, most), 1}
		}
		return nil
	}
}

func plural(n int) string {
	if n == 1 {
		return ""
	}
	return "s"
}

// parent is a command that only holds others.
func parent(name, short string, children ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: name + " COMMAND", Short: short,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(children...)
	return c
}

func unknownCommand(cmd *cobra.Command, name string) error {
	if text := missingCommand(cmd, name); text != "" {
		return &usageError{errors.New(text), 1}
	}
	err := fmt.Errorf("unknown command: %s %s", cmd.CommandPath(), name)
	// cobra's own default, which it sets only where it prints the suggestions itself.
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		err = fmt.Errorf("%w\nhint: did you mean %s?", err, strings.Join(near, ", "))
	}
	return &usageError{err, 1}
}

func (a *app) containerCommand() *cobra.Command {
	ls := a.psCommand()
	ls.Use = strings.Replace(ls.Use, "ps", "ls", 1)
	ls.Aliases = []string{"list", "ps"}
	return parent("container", "The commands on containers under one name", a.cpCommand(), a.diffCommand(),
		a.attachCommand(), a.commitCommand(), a.containerPruneCommand(), a.createCommand(), a.execCommand(), a.exportCommand(),
		a.inspectOf("container"), a.killCommand(), a.logsCommand(), ls, a.pauseCommand(),
		a.portCommand(), a.renameCommand(), a.restartCommand(), a.rmCommand(), a.runCommand(), a.startCommand(), a.statsCommand(),
		a.stopCommand(), a.topCommand(), a.unpauseCommand(), a.updateCommand(), a.waitCommand())
}

// each does something with every argument, goes on after an error, and fails at the end if there was one. What do returns
// is printed.
func (a *app) each(args []string, do func(ref string) (string, error)) error {
	failed := false
	for _, ref := range args {
		line, err := do(ref)
		if err != nil {
			a.complain(err)
			// docker rm -f prints that there is none, and ends with 0.
			var only *onlyTold
			failed = failed || !errors.As(err, &only)
			continue
		}
		if line != "" {
			fmt.Fprintln(a.out, line)
		}
	}
	if failed {
		return &exitError{code: 1}
	}
	return nil
}

// onlyTold is an error that is told and doesn't make the command fail.
type onlyTold struct{ error }

// atOnce is each for what waits more than it works: many arguments at the same time, told in the order in which they were given.
func (a *app) atOnce(args []string, do func(ref string) (string, error)) error {
	type answer struct {
		line string
		err  error
	}
	answers := make([]chan answer, len(args))
	for i := range answers {
		// With room for one, so that who is done earlier than its turn comes doesn't keep its place.
		answers[i] = make(chan answer, 1)
	}
	free := make(chan struct{}, 32)
	go func() {
		for i, ref := range args {
			free <- struct{}{}
			go func() {
				line, err := do(ref)
				answers[i] <- answer{line, err}
				<-free
			}()
		}
	}()
	next := 0
	return a.each(args, func(string) (string, error) {
		got := <-answers[next]
		next++
		return got.line, got.err
	})
}

// errNoTTY is what Docker says when -t meets no terminal.
var errNoTTY = errors.New("the input device is not a TTY")
