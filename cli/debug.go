package cli

import (
	"fmt"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"glassbox/engine"
	"glassbox/explain"
	"glassbox/plan"
)

func (a *app) debugCommand() *cobra.Command {
	var o engine.DebugOptions
	var show bool
	cmd := &cobra.Command{
		Use:   "debug [OPTIONS] CONTAINER [COMMAND] [ARG...]",
		Short: "A shell with this machine's tools, or an image's, inside a running container",
		Long: `Run a shell, or a command, in a running container with the tools of this machine or of an image: for containers that have none.

It lives in the container's namespaces (processes, network, IPC, host name) and cgroups, and sees the container's files at
/.container. Its own root is a new one: this machine's directories of programs (/usr, /etc and the like), which can only be read,
or, with --image, that image, to which changes are thrown away. Nothing is changed in the container.

It is root with the container's capabilities, and CAP_SYS_PTRACE, without which strace and the like see nothing; what is refused
to the container by its system call filter is refused to it, too, but for what that capability allows. --privileged lifts both.
The exit code is the command's. Only root can do it, and not yet in a container with a user namespace of its own.

A container that has CAP_SYS_PTRACE itself can look at what the shell sees: --image then shows it nothing of this machine.`,
		Example: `  glassbox debug web
  glassbox debug web ls -l /.container/etc
  glassbox debug web strace -f -p 1
  glassbox debug --image debian:12 -it web bash`,
		Args:              atLeast(1),
		ValidArgsFunction: a.completeIn("running"),
		RunE: func(cmd *cobra.Command, args []string) error {
			terminal := a.isTerminal() && term.IsTerminal(1)
			for _, f := range []struct {
				name string
				on   *bool
			}{{"interactive", &o.Interactive}, {"tty", &o.TTY}} {
				if !cmd.Flags().Changed(f.name) {
					*f.on = terminal
				}
			}
			if o.TTY && o.Interactive && !a.isTerminal() {
				return errNoTTY
			}
			o.Command, o.Environ = args[1:], a.environ
			if o.TTY {
				o.ConsoleSize = a.consoleSize()
			}
			o.Warn = func(text string) { fmt.Fprintln(a.err, "glassbox: warning:", text) }
			if show {
				o.Explain = func(p *plan.Plan) { explain.Text(a.err, p, a.textOptions(a.err, false)) }
			}
			e, err := a.open()
			if err != nil {
				return err
			}
			at := a.besideExec(o.ExecOptions, nil)
			return at.stay(cmd.Context(), false, func(s engine.Streams) (*engine.Session, error) {
				o.Streams = s
				return e.Debug(cmd.Context(), args[0], o)
			})
		},
	}
	fs := cmd.Flags()
	fs.BoolVarP(&o.Interactive, "interactive", "i", false, "Keep standard input open (default: on a terminal)")
	fs.BoolVarP(&o.TTY, "tty", "t", false, "Give the command a terminal (default: on a terminal)")
	fs.StringVar(&o.Image, "image", "", "Tools of this image instead of this machine's")
	fs.BoolVar(&o.Privileged, "privileged", false, "All capabilities, no system call filter")
	fs.BoolVar(&show, "explain", false, "Print the plan on stderr before it runs")
	fs.StringVarP(&o.User, "user", "u", "", "User (name|uid[:group|gid]) of the tools' /etc/passwd; default: root")
	fs.StringVarP(&o.Workdir, "workdir", "w", "", "Working directory (default /)")
	fs.VarP(envList{list{&o.Env}}, "env", "e", "Set an environment variable")
	fs.SetInterspersed(false)
	return cmd
}
