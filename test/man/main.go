// Man writes manual pages and shell completions of glassbox's command line: man DIR makes DIR/man/man1/glassbox-run.1 and so on,
// DIR/bash-completion/completions/glassbox, DIR/zsh/site-functions/_glassbox and DIR/fish/vendor_completions.d/glassbox.fish, which are
// the places below PREFIX/share.
//
// Its one idea: what the program knows of its commands and flags is all there is to know, so nothing of it is written twice. The pages
// are in the man macros (groff_man(7)). It is no part of glassbox, which would carry the texts for nothing.
package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"glassbox/cli"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: man DIR")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "man:", err)
		os.Exit(1)
	}
}

func write(dir string) error {
	root := cli.Tree()
	for file, generate := range map[string]func(*bytes.Buffer) error{
		"bash-completion/completions/glassbox":    func(b *bytes.Buffer) error { return root.GenBashCompletionV2(b, true) },
		"zsh/site-functions/_glassbox":            func(b *bytes.Buffer) error { return root.GenZshCompletion(b) },
		"fish/vendor_completions.d/glassbox.fish": func(b *bytes.Buffer) error { return root.GenFishCompletion(b, true) },
	} {
		var b bytes.Buffer
		if err := generate(&b); err != nil {
			return err
		}
		if err := put(filepath.Join(dir, file), b.Bytes()); err != nil {
			return err
		}
	}
	return pages(filepath.Join(dir, "man/man1"), root)
}

func put(file string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o644)
}

// pages writes a command's page, and those of the commands below it.
func pages(dir string, cmd *cobra.Command) error {
	if err := put(filepath.Join(dir, name(cmd)+".1"), page(cmd)); err != nil {
		return err
	}
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			if err := pages(dir, c); err != nil {
				return err
			}
		}
	}
	return nil
}

func name(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// escape keeps roff from reading a text: a backslash begins a request, and so does a dot or an apostrophe at the beginning of a line. A
// hyphen is one that can be copied into a shell.
func escape(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") || strings.HasPrefix(l, "'") {
			lines[i] = `\&` + l
		}
	}
	var b strings.Builder
	for _, r := range strings.Join(lines, "\n") {
		if r < 0x80 {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, `\[u%04X]`, r) // groff reads Latin-1 unless it is told otherwise (groff_char(7))
		}
	}
	return b.String()
}

func page(cmd *cobra.Command) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, ".TH %q 1 \"\" \"glassbox %s\" \"glassbox\"\n.SH NAME\n%s \\- %s\n", strings.ToUpper(name(cmd)), cli.Version,
		escape(name(cmd)), escape(cmd.Short))
	use := cmd.CommandPath()
	if _, rest, ok := strings.Cut(cmd.Use, " "); ok {
		use += " " + rest
	} else if !cmd.HasParent() {
		use += " [OPTIONS] COMMAND"
	}
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n", escape(use))
	text := cmd.Long
	if text == "" {
		text = cmd.Short + "."
	}
	fmt.Fprintf(&b, ".SH DESCRIPTION\n")
	literal := false
	for line := range strings.SplitSeq(text, "\n") {
		indented := strings.HasPrefix(line, " ")
		switch {
		case line == "":
			line = ".PP"
		case indented != literal && indented:
			fmt.Fprintln(&b, ".EX")
		case indented != literal:
			fmt.Fprintln(&b, ".EE")
		}
		if line == ".PP" {
			fmt.Fprintln(&b, line)
			continue
		}
		literal = indented
		fmt.Fprintln(&b, escape(line))
	}
	if literal {
		fmt.Fprintln(&b, ".EE")
	}
	options(&b, "OPTIONS", cmd.NonInheritedFlags())
	options(&b, "GLOBAL OPTIONS", cmd.InheritedFlags())
	if cmd.Example != "" {
		fmt.Fprintf(&b, ".SH EXAMPLES\n.EX\n%s\n.EE\n", escape(strings.TrimRight(cmd.Example, "\n")))
	}
	var see []string
	if cmd.HasParent() {
		see = append(see, fmt.Sprintf("\\fB%s\\fR(1)", escape(name(cmd.Parent()))))
	}
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			see = append(see, fmt.Sprintf("\\fB%s\\fR(1)", escape(name(c))))
		}
	}
	if len(see) > 0 {
		fmt.Fprintf(&b, ".SH SEE ALSO\n%s\n", strings.Join(see, ",\n"))
	}
	return b.Bytes()
}

func options(b *bytes.Buffer, title string, fs *pflag.FlagSet) {
	if !fs.HasAvailableFlags() {
		return
	}
	fmt.Fprintf(b, ".SH %s\n", title)
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		kind, usage := pflag.UnquoteUsage(f)
		word := "--" + f.Name
		if f.Shorthand != "" {
			word = "-" + f.Shorthand + ", " + word
		}
		fmt.Fprintf(b, ".TP\n\\fB%s\\fR", escape(word))
		if kind != "" {
			fmt.Fprintf(b, " \\fI%s\\fR", escape(kind))
		}
		fmt.Fprintf(b, "\n%s\n", escape(usage))
	})
}
