package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"glassbox/engine"
	"glassbox/explain"
)

// exitError ends the program with a code; what there was to say has been said.
type exitError struct{ code int }

func (e *exitError) Error() string { return fmt.Sprintf("exit %d", e.code) }

// usageError is a command line that can't be understood.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// flagError is what pflag says, in words of the command line.
func flagError(cmd *cobra.Command, err error) error {
	if missing := missingIn(err); missing != nil {
		return &usageError{missing}
	}
	if cmd.HasSubCommands() && cmd.Flags().NArg() > 0 {
		return unknownCommand(cmd, cmd.Flags().Arg(0)) // whose flag it is meant to be
	}
	return &usageError{plainFlagError(err)}
}

func isCreate(cmd *cobra.Command) bool {
	switch strings.TrimPrefix(cmd.CommandPath(), "glassbox ") {
	case "run", "create", "container run", "container create", "explain run":
		return true
	}
	return false // network create, volume create …
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

// printable makes visible what a terminal would obey, or what shows a text otherwise than it is, in one that may come from an image or a
// registry. Lines and tabs stay.
func printable(s string) string {
	var b strings.Builder
	for {
		i := strings.IndexAny(s, "\n\t")
		if i < 0 {
			b.WriteString(explain.Clean(s))
			return b.String()
		}
		b.WriteString(explain.Clean(s[:i]))
		b.WriteByte(s[i])
		s = s[i+1:]
	}
}

// forReader is printable for a reader at a terminal; programs get what there is.
func (a *app) forReader(s string) string {
	if term.IsTerminal(int(a.out.Fd())) {
		return printable(s)
	}
	return s
}
