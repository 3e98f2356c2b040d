package cli

import (
	"errors"
	"syscall"

	"github.com/spf13/cobra"

	"glassbox/engine"
)

func (a *app) execCommand() *cobra.Command {
	var o engine.ExecOptions
	var detachKeys string
	cmd := &cobra.Command{
		Use:   "exec [OPTIONS] CONTAINER COMMAND [ARG...]",
		Short: "Run a further command in a running container",
		Example: `  glassbox exec web cat /etc/hostname
  glassbox exec -it -u 1000 -w /tmp web sh`,
		Args:              atLeast(2),
		ValidArgsFunction: a.completeIn("running"),
		RunE: func(cmd *cobra.Command, args []string) error {
			// -t alone is let through, as Docker does: a script may want a program's terminal output.
			if o.TTY && o.Interactive && !o.Detach && !a.isTerminal() {
				return errNoTTY
			}
			keys, err := engine.ParseDetachKeys(detachKeys)
			if err != nil {
				return err
			}
			o.Command = args[1:]
			o.Environ = a.environ
			if o.TTY {
				o.ConsoleSize = a.consoleSize()
			}
			e, err := a.open()
			if err != nil {
				return err
			}
			if o.Detach {
				s, err := e.Exec(cmd.Context(), args[0], o)
				if err == nil {
					s.Close()
				}
				if start := (*engine.StartError)(nil); errors.As(err, &start) {
					return errors.New(err.Error()) // nobody waits for the command: its code is nobody's
				}
				return err
			}
			at := a.besideExec(o, keys)
			err = at.stay(cmd.Context(), false, func(s engine.Streams) (*engine.Session, error) {
				o.Streams = s
				return e.Exec(cmd.Context(), args[0], o)
			})
			return at.escaped(err)
		},
	}
	fs := cmd.Flags()
	fs.BoolVarP(&o.Detach, "detach", "d", false, "Run in the background")
	fs.BoolVarP(&o.Interactive, "interactive", "i", false, "Keep standard input open")
	fs.BoolVarP(&o.TTY, "tty", "t", false, "Give the command a terminal")
	fs.BoolVar(&o.Privileged, "privileged", false, "Give the command all privileges")
	fs.StringVarP(&o.User, "user", "u", "", "User (name|uid[:group|gid])")
	fs.StringVarP(&o.Workdir, "workdir", "w", "", "Working directory")
	fs.VarP(envList{list{&o.Env}}, "env", "e", "Set an environment variable")
	fs.Var(list{&o.EnvFile}, "env-file", "Read environment variables from a file")
	detachKeysFlag(fs, &detachKeys)
	fs.SetInterspersed(false)
	return cmd
}

// besideExec is this program beside a further process of a container. Only those signals are passed on that are meant for a foreground
// program.
func (a *app) besideExec(o engine.ExecOptions, keys []byte) *attachment {
	return &attachment{
		app: a, tty: o.TTY, proxy: true, keys: keys, stdin: o.Interactive, stdout: true, stderr: true,
		signals: []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2},
	}
}
