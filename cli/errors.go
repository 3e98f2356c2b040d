package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"glassbox/engine"
)

// exitError ends the program with a code; what there was to say has been said.
type exitError struct{ code int }

func (e *exitError) Error() string { return fmt.Sprintf("exit %d", e.code) }

// usageError is a command line that can't be understood.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// flagError is what pflag says, with a hint for flags that docker has and glassbox has not.
func flagError(cmd *cobra.Command, err error) error {
	var missing *pflag.NotExistError
	if errors.As(err, &missing) && isCreate(cmd) && isDockerFlag(missing.GetSpecifiedName()) {
		err = fmt.Errorf("%w\nhint: docker has this flag, glassbox does not have it yet", err)
	}
	if cmd.HasSubCommands() && cmd.Flags().NArg() > 0 {
		return unknownCommand(cmd, cmd.Flags().Arg(0)) // whose flag it is meant to be
	}
	return &usageError{err}
}

func isCreate(cmd *cobra.Command) bool { return cmd.Name() == "run" || cmd.Name() == "create" }

// isDockerFlag lists the flags of docker run (28) that are not there.
func isDockerFlag(name string) bool {
	return slices.Contains([]string{
		"annotation", "blkio-weight-device", "cpu-count", "cpu-percent", "cpu-rt-period", "cpu-rt-runtime",
		"disable-content-trust", "expose", "gpus", "health-cmd", "health-interval", "health-retries", "health-start-interval",
		"health-start-period", "health-timeout", "io-maxbandwidth", "io-maxiops", "ip6", "isolation", "kernel-memory", "link",
		"link-local-ip", "log-driver", "network-alias", "no-healthcheck", "restart", "storage-opt", "use-api-socket", "userns",
		"volume-driver", "volumes-from",
	}, name)
}

// exitCode is the one place where errors become exit codes:
//
//	                                                run, create, exec    others
//	the container's or command's own                        its own   its own    exitError
//	the program can't be executed / isn't there             126 127   126 127    engine.StartError
//	unknown flag, command, number of arguments                  125       125    usageError
//	interrupted                                                 130       130    context.Canceled
//	everything else, the engine's sentinels included            125         1
//
// Docker makes no difference between not found, conflict, invalid and unsupported, and scripts rely on that.
func exitCode(cmd *cobra.Command, err error) int {
	var exit *exitError
	var start *engine.StartError
	var use *usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.code
	case errors.As(err, &use):
		return 125
	case errors.As(err, &start) && (start.Code == 126 || start.Code == 127):
		return start.Code
	case errors.Is(err, context.Canceled):
		return 130
	case isCreate(cmd) || cmd.Name() == "exec" || cmd.Name() == "debug" || cmd.Name() == "verify":
		return 125
	}
	return 1
}

// finish reports the outcome of a command.
func (a *app) finish(cmd *cobra.Command, err error) int {
	code := exitCode(cmd, err)
	var exit *exitError
	if err == nil || errors.As(err, &exit) {
		return code
	}
	a.complain(err)
	var use *usageError
	if errors.As(err, &use) {
		fmt.Fprintf(a.err, "See '%s --help'.\n", cmd.CommandPath())
	}
	return code
}

// complain prints an error. Hints are lines of their own under it.
func (a *app) complain(err error) {
	fmt.Fprintf(a.err, "glassbox: %s\n", strings.TrimRight(printable(err.Error()), "\n"))
}

// printable takes the control characters out of a text that may come from an image or a registry: a terminal obeys them.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && (r < ' ' || r >= 0x7f && r < 0xa0) {
			return '�'
		}
		return r
	}, s)
}
