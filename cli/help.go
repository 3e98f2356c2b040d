package cli

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// width is how wide help is printed.
const width = 100

func help(cmd *cobra.Command, _ []string) { describe(cmd.OutOrStdout(), cmd) }

func usage(cmd *cobra.Command) error {
	describe(cmd.ErrOrStderr(), cmd)
	return nil
}

// describe prints the help of a command in Docker's order.
func describe(w io.Writer, cmd *cobra.Command) {
	fmt.Fprintf(w, "Usage:  %s\n\n", useLine(cmd))
	text := cmd.Long
	if text == "" {
		text = cmd.Short
	}
	fmt.Fprintln(w, text)
	if len(cmd.Aliases) > 0 {
		fmt.Fprintf(w, "\nAliases:\n  %s\n", strings.Join(append([]string{cmd.Name()}, cmd.Aliases...), ", "))
	}
	if cmd.Example != "" {
		fmt.Fprintf(w, "\nExamples:\n%s\n", strings.TrimRight(cmd.Example, "\n"))
	}
	describeCommands(w, cmd)
	if fs := cmd.NonInheritedFlags(); fs.HasAvailableFlags() {
		fmt.Fprintf(w, "\nOptions:\n%s", fs.FlagUsagesWrapped(width))
	}
	if !cmd.HasParent() {
		fmt.Fprint(w, "\nRun 'glassbox COMMAND --help' for more on a command.\n")
	} else {
		fmt.Fprint(w, "\nGlobal options (--root, --state, --runtime, --debug): see 'glassbox --help'.\n")
	}
}

func useLine(cmd *cobra.Command) string {
	if cmd.HasParent() {
		return cmd.Parent().CommandPath() + " " + cmd.Use
	}
	return cmd.Use + " [OPTIONS] COMMAND"
}

// describeCommands lists the commands below cmd, those of the root in the order of the table.
func describeCommands(w io.Writer, cmd *cobra.Command) {
	commands := slices.Clone(cmd.Commands())
	if !cmd.HasParent() {
		rank := map[string]int{}
		for i, e := range table() {
			rank[e.name] = i + 1
		}
		slices.SortStableFunc(commands, func(a, b *cobra.Command) int { return cmp.Compare(rank[a.Name()], rank[b.Name()]) })
	}
	section := func(title, id string) {
		first := true
		for _, c := range commands {
			if c.GroupID != id || !c.IsAvailableCommand() {
				continue
			}
			if first {
				fmt.Fprintf(w, "\n%s:\n", title)
				first = false
			}
			fmt.Fprintf(w, "  %-12s %s\n", c.Name(), c.Short)
		}
	}
	for _, g := range cmd.Groups() {
		section(g.Title, g.ID)
	}
	title := "Commands"
	if len(cmd.Groups()) > 0 {
		title = "Other"
	}
	section(title, "")
}
