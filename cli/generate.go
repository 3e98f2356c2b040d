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

	"glassbox/docker"
)

// container.service is a unit for one container; systemd/glassbox.service is that of all, which make install puts into place.
//
//go:embed container.service
var containerUnit string

func (a *app) generateCommand() *cobra.Command {
	return parent("generate", "Files for other programs", a.generateSystemdCommand())
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
