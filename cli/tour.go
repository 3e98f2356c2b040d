package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"glassbox/tour"
)

func (a *app) tourCommand() *cobra.Command {
	var o tour.Options
	var list, plain, inside bool
	cmd := &cobra.Command{
		Use:   "tour [OPTIONS] [LESSON]",
		Short: "A course on what containers are made of",
		Long: `A course on what containers are made of: namespaces, chroot, pivot_root, /proc, cgroups, overlay layers, user
namespaces, capabilities, seccomp, a network by hand, PID 1, and an image taken apart.

Each lesson runs the real thing, shows what is seen inside and outside, asks what you expect before it shows it, and lets you leave
out a step to see what it was for. No network is needed, nothing of the host is changed, and all that a lesson makes is removed
when it ends. Some lessons need root; the others run in a user namespace. docs/tour.md is a page for teachers.

Keys: Enter goes on, a, b, c answer, x breaks a step, s gives a shell inside, q quits.
With --auto the exit code is 1 if something shown was not what the lesson says.`,
		Example: `  sudo glassbox tour                       a menu
  glassbox tour 1                          namespaces, as an ordinary user
  glassbox tour cgroups                    lessons have names, too
  sudo glassbox tour --auto                all lessons without a keyboard
  glassbox tour 7 --auto --plain >user-namespaces.txt`,
		Args: func(cmd *cobra.Command, args []string) error {
			if inside || len(args) == 0 {
				return nil
			}
			n, err := tour.Number(args[0])
			switch {
			case len(args) > 1:
				return &usageError{err: fmt.Errorf("tour gives one lesson or all, not %d", len(args))}
			case err != nil:
				return &usageError{err: err}
			case cmd.Flags().Changed("lesson") && o.Lesson != n:
				return &usageError{err: fmt.Errorf("--lesson %d and %s are two lessons", o.Lesson, args[0])}
			}
			o.Lesson = n
			return nil
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			var names []cobra.Completion
			if len(args) == 0 {
				for _, l := range tour.All() {
					names = append(names, cobra.CompletionWithDesc(l.Name, l.Title))
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if inside {
				if err := tour.Inside(args, a.out); err != nil {
					fmt.Fprintln(a.out, err)
					return &exitError{1}
				}
				return nil
			}
			cols, _, err := term.GetSize(int(a.out.Fd()))
			o.Color = err == nil && !plain && a.getenv("NO_COLOR") == "" && a.getenv("TERM") != "dumb"
			if list {
				tour.List(a.out, tour.All(), cols)
				return nil
			}
			if o.Root, err = filepath.Abs(a.root); err != nil {
				return err
			}
			if o.Program, err = os.Executable(); err != nil {
				return err
			}
			// What /proc/self/exe says once the file was replaced (proc(5)): by an update, there is a new one under the name.
			o.Program = strings.TrimSuffix(o.Program, " (deleted)")
			o.Runtime, o.In, o.Out = a.runtimePath(), a.in, a.out
			return tour.Run(context.Background(), o)
		},
	}
	fs := cmd.Flags()
	fs.IntVar(&o.Lesson, "lesson", 0, "Give lesson `number` only, as LESSON does")
	fs.BoolVar(&o.Auto, "auto", false, "Go on without a keyboard, broken steps included, and check what is seen")
	fs.BoolVar(&list, "list", false, "List the lessons")
	fs.BoolVar(&plain, "plain", false, "No colours (as with the variable NO_COLOR)")
	fs.BoolVar(&inside, "inside", false, "What lessons run inside")
	fs.MarkHidden("inside")
	return cmd
}
