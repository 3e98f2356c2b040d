package cli

import (
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"glassbox/container"
)

// What docker has and glassbox has not is refused by name, and never ignored: a command line that works with docker either does the same
// here, or says what is missing. Docker's defaults are taken, because they are what happens anyway.

// docker28 lists docker's commands and flags: see the file.
//
//go:embed docker28.txt
var docker28 string

// dockerSection is a part of docker28: the lines below [name].
func dockerSection(name string) string {
	_, rest, ok := strings.Cut(docker28, "\n["+name+"]\n")
	if !ok || strings.HasPrefix(rest, "\n") { // it has none
		return ""
	}
	section, _, _ := strings.Cut(rest, "\n\n")
	return section
}

// dockerFlag is a flag of docker's.
type dockerFlag struct{ name, short, kind, def string }

func dockerFlags(section string) []dockerFlag {
	return dockerFlagsBut(section, func(string) bool { return false })
}

func dockerFlagsBut(section string, without func(name string) bool) []dockerFlag {
	var flags []dockerFlag
	for line := range strings.Lines(dockerSection(section)) {
		if name, _, _ := strings.Cut(line, "\t"); without(name) {
			continue
		}
		f := append(strings.Split(strings.TrimSpace(line), "\t"), "")
		if len(f) > 3 {
			flags = append(flags, dockerFlag{f[0], strings.Trim(f[1], "-"), f[2], f[3]})
		}
	}
	return flags
}

// dockerName is the name under which docker28 has a command: `container run` is run.
func dockerName(cmd *cobra.Command) string {
	path := strings.TrimPrefix(cmd.CommandPath(), "glassbox ")
	if name, ok := strings.CutPrefix(path, "container "); ok && name != "inspect" && name != "prune" {
		if name == "ls" {
			return "ps"
		}
		return name
	}
	switch path {
	case "glassbox":
		return "docker"
	case "image ls":
		return "images"
	case "image rm":
		return "rmi"
	case "image pull", "image tag", "image push", "image save", "image load", "image import", "image history":
		return strings.TrimPrefix(path, "image ")
	case "explain run": // which takes the words of run
		return "run"
	}
	return path
}

// harmless are values that change nothing here, beside docker's defaults.
func harmless(name string) []string {
	switch name {
	case "isolation":
		return []string{"default"} // others are Windows' own
	case "userns":
		return []string{"host"}
	case "volume-driver":
		return []string{"local"}
	case "disable-content-trust":
		return []string{"true"}
	}
	return nil
}

// missingFlag is a flag that docker has and glassbox has not. It takes the values that ask for nothing.
type missingFlag struct {
	dockerFlag
	run  bool // of run and create
	warn func(text string)
}

func (m *missingFlag) String() string { return m.def }
func (m *missingFlag) Type() string   { return m.kind }

func (m *missingFlag) Set(value string) error {
	if m.name == "kernel-memory" && m.run {
		// Docker ignores it without a word since its API 1.42.
		if _, err := container.ParseSize(m.name, value); err != nil {
			return err
		}
		if value != "0" && value != "" {
			m.warn("--kernel-memory is ignored: Linux has had no such limit since 5.16")
		}
		return nil
	}
	none := value == "" && m.kind != "bool"
	switch m.kind {
	case "bool":
		none = value == "false"
	case "int", "uint", "uint16", "bytes", "decimal", "duration":
		none = none || value == "0"
	case "list", "map":
		none = false
	}
	if none || m.def != "" && value == m.def || slices.Contains(harmless(m.name), value) {
		return nil
	}
	return &missingError{m.name, value, m.kind}
}

// asDocker says that docker refuses the flag, too, on Linux, and how.
func asDocker(name, value string) string {
	switch name {
	case "cpu-count", "cpu-percent", "io-maxbandwidth", "io-maxiops":
		return fmt.Sprintf("\"--%s\" is only supported on a Docker daemon running on windows, but the Docker daemon is running on linux", name)
	case "isolation":
		return fmt.Sprintf("invalid isolation '%s' on linux", value)
	case "userns":
		return fmt.Sprintf("--userns %s: invalid USER mode\nhint: a user namespace is asked for with --ns", value)
	}
	return ""
}

// missingError says that a flag of docker's is missing.
type missingError struct{ name, value, kind string }

func (e *missingError) Error() string {
	given := "--" + e.name
	if e.kind != "bool" {
		given += " " + e.value
	}
	if text := asDocker(e.name, e.value); text != "" {
		return text
	}
	text := given + ": docker has this flag, glassbox does not have it yet"
	if ok := harmless(e.name); len(ok) > 0 && e.kind != "bool" {
		text += fmt.Sprintf("\nhint: %s is what happens without it", strings.Join(ok, " or "))
	}
	return text
}

// addMissing gives a command, and those below it, docker's flags that it has not. They are in no help.
func addMissing(cmd *cobra.Command) {
	fs := cmd.Flags()
	if !cmd.HasParent() {
		fs = cmd.PersistentFlags() // they stand before the command
	}
	inherited := cmd.InheritedFlags() // gathered anew by each call
	name := dockerName(cmd)
	run := name == "run" || name == "create"
	there := func(flag string) bool {
		return flag == "help" || flag == "version" || fs.Lookup(flag) != nil || inherited.Lookup(flag) != nil
	}
	for _, f := range dockerFlagsBut(name, there) { // which are few: each command comes through here
		short := f.short
		if short != "" && (!cmd.HasParent() || fs.ShorthandLookup(short) != nil || inherited.ShorthandLookup(short) != nil) {
			short = "" // it is another flag here
		}
		warn := func(text string) { fmt.Fprintln(cmd.ErrOrStderr(), "WARNING: "+text) }
		flag := fs.VarPF(&missingFlag{f, run, warn}, f.name, short, "")
		flag.Hidden = true
		if f.kind == "bool" {
			flag.NoOptDefVal = "true"
		}
	}
	for _, c := range cmd.Commands() {
		addMissing(c)
	}
}

// instead are commands of docker's that are not going to be here, with what to do in their place.
var instead = map[string]string{
	"buildx":  "glassbox build has the flags of docker buildx build, and glassbox builder looks after its cache",
	"context": "glassbox works on this host alone; --root and --state choose another installation",
	"swarm":   "glassbox is the engine of one host: for several there is Kubernetes, with glassbox-runtime under it",
}

// missingCommand says that docker has a command and glassbox has not, or returns "".
func missingCommand(parent *cobra.Command, name string) string {
	path := strings.TrimSpace(strings.TrimPrefix(parent.CommandPath(), "glassbox") + " " + name)
	first, _, _ := strings.Cut(path, " ")
	if slices.Contains([]string{"config", "node", "secret", "service", "stack"}, first) {
		first = "swarm"
	}
	if text := instead[first]; text != "" {
		return fmt.Sprintf("docker has the command %s, glassbox does not have it\nhint: %s", path, text)
	}
	for line := range strings.Lines(dockerSection("commands")) {
		if strings.TrimSpace(line) == path {
			return fmt.Sprintf("docker has the command %s, glassbox does not have it yet", path)
		}
	}
	return ""
}

// missingIn finds the error of a missing flag in what pflag says, which puts words of its own before it.
func missingIn(err error) error {
	var missing *missingError
	var unknown *pflag.NotExistError
	switch {
	case errors.As(err, &missing):
		return missing
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() != "":
		// Shorthands of docker itself, before the command: here they may be other flags of commands.
		for _, f := range dockerFlags("docker") {
			if f.short == unknown.GetSpecifiedName() {
				return &missingError{f.name, "", "bool"}
			}
		}
	}
	return nil
}
