package cli

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// apiProgram is the program beside this one that serves Docker's API: its libraries would make every command slower.
const apiProgram = "glassbox-api"

func (a *app) serveCommand() *cobra.Command {
	var hosts, insecure []string
	var group, ca, cert, key, policy, policyLog string
	var idle time.Duration
	cmd := &cobra.Command{
		Use:   "serve [OPTIONS]",
		Short: "Serve the API of Docker for its clients: compose, IDEs, test frameworks",
		Long: `Serve the API of Docker for its clients: compose, IDEs, test frameworks.

Containers don't depend on it, and no command needs it. Whoever may write to the socket can do on this host what root can. By default that
is root alone; --group names a group that may, too. Over TCP other hosts are let in only if they have a certificate.`,
		Example: `  glassbox serve
  glassbox serve -H unix:///run/glassbox.sock --group docker
  docker context create glassbox --docker host=unix:///run/glassbox.sock
  glassbox serve -H unix:///run/agent.sock --policy agent.json --policy-log agent.log
  glassbox serve -H tcp://127.0.0.1:2375
  glassbox serve -H tcp://0.0.0.0:2376 --tlscacert ca.pem --tlscert cert.pem --tlskey key.pem`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			args := []string{apiProgram, "--root", a.root, "--state", a.state}
			if runtime := a.runtimePath(); runtime != "" {
				args = append(args, "--runtime", runtime)
			}
			for _, h := range hosts {
				args = append(args, "--host", h)
			}
			for _, r := range insecure {
				args = append(args, "--insecure-registry", r)
			}
			for _, f := range []struct{ flag, value string }{
				{"group", group},
				{"tlscacert", ca},
				{"tlscert", cert},
				{"tlskey", key},
				{"policy", policy},
				{"policy-log", policyLog},
			} {
				if f.value != "" {
					args = append(args, "--"+f.flag, f.value)
				}
			}
			// Without it the program chooses, by what it listens at: fd:// means that systemd starts it anew.
			if cmd.Flags().Changed("idle") {
				args = append(args, "--idle", idle.String())
			}
			if a.debug {
				args = append(args, "--debug")
			}
			if err := a.checkRuntime(); err != nil {
				return err
			}
			program, err := beside(apiProgram)
			if err != nil {
				return err
			}
			// In this program's place, as it has nothing left to do; sockets that systemd has handed over keep their numbers.
			return fmt.Errorf("%s: %w", program, syscall.Exec(program, args, os.Environ()))
		},
	}
	fs := cmd.Flags()
	fs.VarP(list{&hosts}, "host", "H", "Where to listen: unix://PATH, tcp://ADDRESS:PORT, or fd:// for systemd's "+
		"(default unix:///run/glassbox.sock)")
	fs.StringVar(&group, "group", "", "Group that may use the unix socket")
	fs.StringVar(&ca, "tlscacert", "", "Authority `file` that clients' certificates come from")
	fs.StringVar(&cert, "tlscert", "", "Certificate `file` of the server")
	fs.StringVar(&key, "tlskey", "", "Key `file` of the server")
	fs.StringVar(&policy, "policy", "", "Policy `file` that says what may be asked for through the socket (docs/policy.md)")
	fs.StringVar(&policyLog, "policy-log", "", "Where its decisions are written, a line of JSON each (`file`; default standard error)")
	fs.DurationVar(&idle, "idle", 0, "End after this time without a client (default never; 1m with fd://)")
	a.insecureFlag(fs, &insecure)
	return cmd
}

// beside finds a program of glassbox: beside this one, or in PATH.
func beside(name string) (string, error) {
	if self, err := os.Executable(); err == nil {
		path := filepath.Join(filepath.Dir(self), name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%s is neither beside this program nor in PATH: make install puts it there", name)
	}
	return path, nil
}
