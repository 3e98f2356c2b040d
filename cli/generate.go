package cli

import (
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"glassbox/container"
	"glassbox/docker"
	"glassbox/explain"
)

// container.service is a unit for one container; systemd/glassbox.service is that of all, which make install puts into place.
//
//go:embed container.service
var containerUnit string

func (a *app) generateCommand() *cobra.Command {
	return parent("generate", "What others start a container with: a unit, a command", a.generateRunCommand(), a.generateSystemdCommand())
}

func (a *app) generateRunCommand() *cobra.Command {
	docker := false
	cmd := &cobra.Command{
		Use:   "run [OPTIONS] CONTAINER [CONTAINER...]",
		Short: "Write the command that makes a container like it",
		Long: `Write the command that makes a container like it: what was typed then, or asked for over the API, with what update and network
connect have changed since. It is one line for a shell. Variables that came from a file or the environment are in it with their
values, passwords among them.`,
		Example: `  glassbox generate run web
  glassbox generate run --docker web >web.sh      # for another machine, which has Docker
  glassbox rm -f web && sh web.sh`,
		Args:              atLeast(1),
		ValidArgsFunction: a.completeContainers(true),
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := a.open()
			if err != nil {
				return err
			}
			return a.each(args, func(ref string) (string, error) {
				s, err := e.Subject(cmd.Context(), "container:"+ref)
				if err != nil {
					return "", err
				}
				return a.runLine(s.Container, docker)
			})
		},
	}
	cmd.Flags().BoolVar(&docker, "docker", false, "Write docker's command, and refuse what only glassbox has")
	return cmd
}

// runLine is the command that makes a container like this one.
func (a *app) runLine(c *container.Container, forDocker bool) (string, error) {
	if c.Fixed {
		return "", fmt.Errorf("container %s was made from a plan and not by flags\nhint: glassbox explain --format json %s >plan.json && "+
			"glassbox run --plan plan.json", c.Name, c.Name)
	}
	like := *c
	like.Config.Mounts = slices.Clone(c.Config.Mounts)
	for i, m := range like.Config.Mounts {
		// A path that was typed from a directory of its own is written whole.
		if filepath.IsAbs(m.Source) && !strings.Contains(m.Origin, m.Source) {
			like.Config.Mounts[i].Origin = ""
		}
	}
	o := like.Words()
	o.Name = c.Name
	o.SecurityOpt = c.Config.Security.Options // a profile's file, and not its text
	words := []string{"glassbox", "run"}
	if forDocker {
		words[0] = "docker"
	}
	flags := a.flagWords(o)
	if forDocker {
		var own []string
		for _, word := range flags {
			name, _, _ := strings.Cut(strings.TrimPrefix(word, "--"), "=")
			if !slices.ContainsFunc(dockerFlags("run"), func(f dockerFlag) bool { return f.name == name }) {
				own = append(own, word)
			}
		}
		if c.Config.Restart.Policy == container.RestartOnUnhealthy {
			own = append(own, "--restart="+o.Restart)
		}
		if len(own) > 0 {
			return "", fmt.Errorf("docker can't start what container %s is: it has no %s", c.Name, strings.Join(own, " "))
		}
	}
	words = append(words, flags...)
	if o.Rootfs == "" {
		words = append(words, o.Image)
	}
	return explain.Quoted(append(words, o.Command...)), nil
}

// systemdRestarts are the values of Restart= (systemd.service(5)).
var systemdRestarts = []string{"no", "always", "on-success", "on-failure", "on-abnormal", "on-abort", "on-watchdog"}

func (a *app) generateSystemdCommand() *cobra.Command {
	restart, files := "on-failure", false
	cmd := &cobra.Command{
		Use:   "systemd [OPTIONS] CONTAINER [CONTAINER...]",
		Short: "Write a systemd unit that runs a container",
		Long: `Write a systemd unit that runs a container: systemd starts it with the host, restarts it, stops it, and has its output
in the journal. The container must be there, and have no restart policy of its own: two that start the same would be in
each other's way.

The other way is a restart policy (--restart) and the unit glassbox.service, which starts all such containers with the
host.`,
		Example: `  glassbox generate systemd web | sudo tee /etc/systemd/system/container-web.service
  cd /etc/systemd/system && sudo glassbox generate systemd --files web db && sudo systemctl enable --now container-web container-db`,
		Args:              atLeast(1),
		ValidArgsFunction: a.completeContainers(true),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(systemdRestarts, restart) {
				return &usageError{err: fmt.Errorf("--restart-policy %s: want one of %s", restart, strings.Join(systemdRestarts, ", "))}
			}
			e, err := a.open()
			if err != nil {
				return err
			}
			return a.each(args, func(ref string) (string, error) {
				c, err := e.Inspect(cmd.Context(), ref)
				if err != nil {
					return "", err
				}
				unit, err := a.unit(c, restart)
				if err != nil || !files {
					return strings.TrimSuffix(unit, "\n"), err
				}
				name, err := filepath.Abs("container-" + strings.TrimPrefix(c.Name, "/") + ".service")
				if err != nil {
					return "", err
				}
				return name, os.WriteFile(name, []byte(unit), 0o644)
			})
		},
	}
	cmd.Flags().StringVar(&restart, "restart-policy", restart, "When systemd starts it again: "+strings.Join(systemdRestarts, ", "))
	cmd.Flags().BoolVarP(&files, "files", "f", false, "Write container-NAME.service into the working directory, and print its path")
	return cmd
}

// unit writes the unit of a container.
func (a *app) unit(c *docker.Container, restart string) (string, error) {
	name := strings.TrimPrefix(c.Name, "/")
	switch {
	case c.HostConfig.RestartPolicy.Name != "no":
		return "", fmt.Errorf("container %s has a restart policy of its own (%s): its supervisor and systemd would both start it\n"+
			"hint: glassbox update --restart no %s, and give this one --restart-policy; or keep the policy, and enable glassbox.service",
			name, c.HostConfig.RestartPolicy.Name, name)
	case c.HostConfig.AutoRemove:
		return "", fmt.Errorf("container %s is removed when it ends (--rm): there would be nothing to start again", name)
	}
	program, err := os.Executable()
	if err != nil {
		return "", err
	}
	words := []string{program}
	for _, dir := range []struct{ flag, value, usual string }{
		{"--root", a.root, "/var/lib/glassbox"}, {"--state", a.state, "/run/glassbox"}, {"--runtime", a.runtime, ""},
	} {
		if dir.value == dir.usual {
			continue
		}
		abs, err := filepath.Abs(dir.value)
		if err != nil {
			return "", err
		}
		words = append(words, dir.flag, abs)
	}
	root, err := filepath.Abs(a.root)
	if err != nil {
		return "", err
	}
	for _, word := range append(words, root) {
		if strings.ContainsAny(word, " \t\n\"'\\%$") {
			return "", errors.New(word + ": blanks, quotation marks, % and $ can't be in a path that a unit names")
		}
	}
	seconds := 10
	if c.Config.StopTimeout != nil {
		seconds = *c.Config.StopTimeout
	}
	patience := "infinity"
	if seconds >= 0 {
		patience = fmt.Sprint(seconds + 20) // and what the kernel takes to end it
	}
	return strings.NewReplacer("@NAME@", name, "@GLASSBOX@", strings.Join(words, " "), "@ROOT@", root, "@RESTART@", restart,
		"@PATIENCE@", patience).Replace(containerUnit), nil
}
