package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"glassbox/engine"
	"glassbox/explain"
)

// exitError ends the program with a code; what there was to say has been said.
type exitError struct{ code int }

func (e *exitError) Error() string { return fmt.Sprintf("exit %d", e.code) }

// usageError is a command line that can't be understood. Its code is 125 for a flag that can't be read, 1 for arguments that are too few or
// too many and for commands that aren't there, and 0 for what a command says of flags that don't go together: see exitCode.
type usageError struct {
	err  error
	code int
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// flagError is what pflag says, in words of the command line.
func flagError(cmd *cobra.Command, err error) error {
	if missing := missingIn(err); missing != nil {
		return &usageError{missing, 125}
	}
	if cmd.HasSubCommands() && cmd.Flags().NArg() > 0 {
		return unknownCommand(cmd, cmd.Flags().Arg(0)) // whose flag it is meant to be
	}
	return &usageError{plainFlagError(err), 125}
}

func isCreate(cmd *cobra.Command) bool {
	switch strings.TrimPrefix(cmd.CommandPath(), "glassbox ") {
	case "run", "create", "container run", "container create", "explain run":
		return true
	}
	return false // network create, volume create …
}

// isOwn reports whether Docker has no such command.
func isOwn(cmd *cobra.Command) bool {
	words := strings.Fields(cmd.CommandPath())
	own := []string{"explain", "verify", "debug", "tour", "doctor", "generate", "policy", "fsck", "autostart"}
	return len(words) > 1 && slices.Contains(own, words[1]) || cmd.CommandPath() == "glassbox network explain"
}

// exitCode is the one place where errors become exit codes:
//
//	                                                 run    create      exec   others
//	the container's or command's own             its own   its own   its own  its own    exitError
//	the program can't be executed / isn't there  126 127            126 127  126 127    engine.StartError
//	no terminal for -t                                 1         1         1        1    errNoTTY
//	unknown command, number of arguments               1         1         1        1    usageError
//	unknown flag, or a value that it can't have      125       125       125      125    usageError
//	flags that don't go together                     125       125         1        1    usageError
//	interrupted                                      130       130       130      130    context.Canceled
//	a template that can't be parsed                                               64    of inspect, events, info and version
//	another name has it, or nothing has it           125         1         1        1    engine.ErrNotFound, ErrConflict
//	it can't be started as asked for                 125       125       126        1    engine.ErrInvalid, other StartErrors
//	everything else                                  125       125         1        1
//
// All of this is what Docker's command line does. Commands of our own have 125 for every usageError, because their 1 is an answer;
// debug and verify have it for everything that is none.
func exitCode(cmd *cobra.Command, err error) int {
	var exit *exitError
	var start *engine.StartError
	var use *usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.code
	case errors.Is(err, errNoTTY):
		return 1
	case errors.As(err, &use) && isOwn(cmd):
		return 125
	case use != nil && use.code != 0:
		return use.code
	case errors.As(err, &start) && (start.Code == 126 || start.Code == 127):
		return start.Code
	case errors.Is(err, context.Canceled):
		return 130
	case errors.As(err, new(*badTemplate)) && slices.Contains([]string{"inspect", "events", "info", "version"}, cmd.Name()):
		return 64
	}
	missing := errors.Is(err, engine.ErrNotFound) || errors.Is(err, engine.ErrConflict)
	switch cmd.Name() {
	case "debug", "verify":
		return 125
	case "exec":
		if use == nil && !missing && !errors.As(err, new(*fs.PathError)) && (start != nil || errors.Is(err, engine.ErrInvalid)) {
			return 126
		}
		return 1
	case "create":
		if isCreate(cmd) && !missing {
			return 125
		}
		return 1
	}
	if isCreate(cmd) {
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
