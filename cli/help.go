package cli

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"glassbox/explain"
)

func (a *app) help(cmd *cobra.Command, _ []string) { describe(a.out, cmd, a.columns(a.out)) }

func (a *app) usage(cmd *cobra.Command) error {
	describe(a.err, cmd, a.columns(a.err))
	return nil
}

// columns is how wide help is printed: as the terminal is, or where it is piped as COLUMNS says; lines longer than 100 are hard to read.
func (a *app) columns(out *os.File) int {
	width, _, err := term.GetSize(int(out.Fd()))
	if err != nil || width <= 0 {
		width, _ = strconv.Atoi(a.getenv("COLUMNS"))
	}
	if width <= 0 {
		return 100
	}
	return min(max(width, 40), 100)
}

// reflow breaks a text anew: paragraphs are lines that begin at the left, and what is indented stays as it is.
func reflow(text string, width int) string {
	var out, para []string
	flush := func() {
		if len(para) > 0 {
			out = append(out, explain.Wrap(strings.Join(para, " "), width)...)
			para = nil
		}
	}
	for line := range strings.SplitSeq(text, "\n") {
		if line == "" || strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t") || strings.HasPrefix(line, "- ") {
			flush()
			out = append(out, line)
			continue
		}
		para = append(para, line)
	}
	flush()
	return strings.Join(out, "\n")
}

// describe prints the help of a command in Docker's order.
func describe(w io.Writer, cmd *cobra.Command, width int) {
	fmt.Fprintf(w, "Usage:  %s\n\n", useLine(cmd))
	text := cmd.Long
	if text == "" {
		text = cmd.Short
	}
	fmt.Fprintln(w, reflow(text, width))
	if len(cmd.Aliases) > 0 {
		fmt.Fprintf(w, "\nAliases:\n  %s\n", strings.Join(append([]string{cmd.Name()}, cmd.Aliases...), ", "))
	}
	if cmd.Example != "" {
		fmt.Fprintf(w, "\nExamples:\n%s\n", strings.TrimRight(cmd.Example, "\n"))
	}
	describeCommands(w, cmd, width)
	if fs := cmd.NonInheritedFlags(); fs.HasAvailableFlags() {
		fmt.Fprintf(w, "\nOptions:\n%s", flagUsages(fs, width))
	}
	if !cmd.HasParent() {
		fmt.Fprint(w, "\nRun 'glassbox COMMAND --help' for more on a command.\n")
	} else {
		fmt.Fprintf(w, "\n%s\n", reflow("Global options (--root, --state, --runtime, --debug): see 'glassbox --help'.", width))
	}
}

func useLine(cmd *cobra.Command) string {
	if cmd.HasParent() {
		return cmd.Parent().CommandPath() + " " + cmd.Use
	}
	return cmd.Use + " [OPTIONS] COMMAND"
}

// flagUsages lists flags, a column of names and one of what they mean. Where that would be too narrow, it stands below the name.
func flagUsages(fs *pflag.FlagSet, width int) string {
	left := regexp.MustCompile(`^ +(?:-\w, )?--\S+(?: \S+)?   +`) // as pflag prints it: all are as long as the longest
	var b strings.Builder
	for line := range strings.Lines(fs.FlagUsages()) {
		line = strings.TrimRight(line, "\n")
		name := left.FindString(line)
		usage, indent := line[len(name):], len(name)
		if width-indent < 40 {
			indent = 10
			fmt.Fprintln(&b, strings.TrimRight(name, " "))
			name = strings.Repeat(" ", indent)
		}
		for _, part := range explain.Wrap(usage, width-indent) {
			fmt.Fprintln(&b, name+part)
			name = strings.Repeat(" ", indent)
		}
	}
	return b.String()
}

// describeCommands lists the commands below cmd, those of the root in the order of the table.
func describeCommands(w io.Writer, cmd *cobra.Command, width int) {
	commands := slices.Clone(cmd.Commands())
	if !cmd.HasParent() {
		// cobra sorts by name, and can be told otherwise only for the whole process (EnableCommandSorting).
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
			name := c.Name()
			for _, line := range explain.Wrap(c.Short, width-15) {
				fmt.Fprintf(w, "  %-12s %s\n", name, line)
				name = ""
			}
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
