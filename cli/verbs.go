package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"glassbox/engine"
)

func (a *app) stopCommand() *cobra.Command {
	var timeout int
	var signal string
	cmd := &cobra.Command{
		Use:   "stop [OPTIONS] CONTAINER [CONTAINER...]",
		Short: "Stop containers: a signal, and after a while SIGKILL",
		Example: `  glassbox stop web
  glassbox stop -t 2 web db`,
		Args:              atLeast(1),
		ValidArgsFunction: a.completeContainers(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withEngineAtOnce(args, func(e *engine.Engine, ref string) (string, error) {
				return ref, e.Stop(cmd.Context(), ref, given(cmd, "timeout", &timeout), signal)
			})
		},
	}
	cmd.Flags().IntVarP(&timeout, "timeout", "t", 0, "Seconds to wait before SIGKILL; -1 waits for ever (default the container's, 10)")
	cmd.Flags().StringVarP(&signal, "signal", "s", "", "Signal to begin with (default the container's, SIGTERM)")
	cmd.Flags().SetNormalizeFunc(aliases)
	return cmd
}

func (a *app) restartCommand() *cobra.Command {
	var timeout int
	var signal string
	cmd := &cobra.Command{
		Use:               "restart [OPTIONS] CONTAINER [CONTAINER...]",
		Short:             "Stop containers and start them again",
		Example:           `  glassbox restart -t 2 web`,
		Args:              atLeast(1),
		ValidArgsFunction: a.completeContainers(true),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withEngine(args, func(e *engine.Engine, ref string) (string, error) {
				return ref, e.Restart(cmd.Context(), ref, given(cmd, "timeout", &timeout), signal)
			})
		},
	}
	cmd.Flags().IntVarP(&timeout, "timeout", "t", 0, "Seconds to wait before SIGKILL")
	cmd.Flags().StringVarP(&signal, "signal", "s", "", "Signal to stop with (default the container's, SIGTERM)")
	cmd.Flags().SetNormalizeFunc(aliases)
	return cmd
}

// given is a pointer to a flag's value if the flag was given.
func given(cmd *cobra.Command, name string, value *int) *int {
	if cmd.Flags().Changed(name) {
		return value
	}
	return nil
}

func (a *app) killCommand() *cobra.Command {
	var signal string
	cmd := &cobra.Command{
		Use:   "kill [OPTIONS] CONTAINER [CONTAINER...]",
		Short: "Send a signal to containers",
		Example: `  glassbox kill web
  glassbox kill -s HUP web`,
		Args:              atLeast(1),
		ValidArgsFunction: a.completeContainers(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withEngineAtOnce(args, func(e *engine.Engine, ref string) (string, error) { return ref, e.Kill(cmd.Context(), ref, signal) })
		},
	}
	cmd.Flags().StringVarP(&signal, "signal", "s", "KILL", "The signal, by name or number")
	return cmd
}

func (a *app) waitCommand() *cobra.Command {
	condition := engine.WaitNotRunning
	cmd := &cobra.Command{
		Use:   "wait [OPTIONS] CONTAINER [CONTAINER...]",
		Short: "Wait until containers have ended and print their exit codes",
		Example: `  glassbox wait job1 job2
  glassbox wait --condition removed job3`,
		Args:              atLeast(1),
		ValidArgsFunction: a.completeContainers(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withEngine(args, func(e *engine.Engine, ref string) (string, error) {
				code, err := e.Wait(cmd.Context(), ref, condition)
				return fmt.Sprint(code), err
			})
		},
	}
	cmd.Flags().StringVar(&condition, "condition", condition, "What to wait for: not-running, next-exit or removed")
	return cmd
}

func (a *app) pauseCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "pause CONTAINER [CONTAINER...]",
		Short:             "Freeze all processes of containers",
		Example:           `  glassbox pause web`,
		Args:              atLeast(1),
		ValidArgsFunction: a.completeIn("running"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withEngine(args, func(e *engine.Engine, ref string) (string, error) { return ref, e.Pause(cmd.Context(), ref) })
		},
	}
}

func (a *app) unpauseCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "unpause CONTAINER [CONTAINER...]",
		Short:             "Let frozen containers go on",
		Example:           `  glassbox unpause web`,
		Args:              atLeast(1),
		ValidArgsFunction: a.completeIn("paused"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withEngine(args, func(e *engine.Engine, ref string) (string, error) { return ref, e.Unpause(cmd.Context(), ref) })
		},
	}
}

func (a *app) renameCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "rename CONTAINER NEW_NAME",
		Short:             "Give a container another name",
		Example:           `  glassbox rename amber_prism web`,
		Args:              exactly(2),
		ValidArgsFunction: a.completeContainers(true),
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := a.open()
			if err != nil {
				return err
			}
			return e.Rename(cmd.Context(), args[0], args[1])
		},
	}
}

func (a *app) rmCommand() *cobra.Command {
	var o engine.RemoveOptions
	cmd := &cobra.Command{
		Use:     "rm [OPTIONS] CONTAINER [CONTAINER...]",
		Aliases: []string{"remove"},
		Short:   "Remove containers",
		Example: `  glassbox rm web
  glassbox rm -f $(glassbox ps -aq)`,
		Args:              atLeast(1),
		ValidArgsFunction: a.completeContainers(true),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withEngineAtOnce(args, func(e *engine.Engine, ref string) (string, error) {
				err := e.Remove(cmd.Context(), ref, o)
				if o.Force && errors.Is(err, engine.ErrNotFound) {
					err = &onlyTold{err} // as Docker does
				}
				return ref, err
			})
		},
	}
	cmd.Flags().BoolVarP(&o.Force, "force", "f", false, "Kill a running container first; a missing one is no error")
	cmd.Flags().BoolVarP(&o.Volumes, "volumes", "v", false, "Remove the container's anonymous volumes, too")
	return cmd
}

// withEngine does something with every argument.
func (a *app) withEngine(args []string, do func(e *engine.Engine, ref string) (string, error)) error {
	e, err := a.open()
	if err != nil {
		return err
	}
	return a.each(args, func(ref string) (string, error) { return do(e, ref) })
}

// withEngineAtOnce does the same with many arguments at the same time.
func (a *app) withEngineAtOnce(args []string, do func(e *engine.Engine, ref string) (string, error)) error {
	e, err := a.open()
	if err != nil {
		return err
	}
	return a.atOnce(args, func(ref string) (string, error) { return do(e, ref) })
}
