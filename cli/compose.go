package cli

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// composeProgram is Compose as its makers ship it: a plug-in of docker's that is a program of its own, too.
const composeProgram = "docker-compose"

func (a *app) composeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "compose [OPTIONS] COMMAND",
		Short: "Docker's own Compose, with this engine behind it while it runs",
		Long: `Docker's own Compose, with this engine behind it while it runs.

Compose is not a part of glassbox: it is looked for in PATH and where docker keeps its plug-ins, as ` + composeProgram + `. What it asks is
answered by a server of its own (see glassbox serve), which goes when it ends; containers stay. With DOCKER_HOST set it asks there.`,
		Example: `  glassbox compose up -d
  glassbox compose logs -f web
  glassbox compose help`,
		DisableFlagParsing: true, // they are Compose's
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && (args[0] == "--help" || args[0] == "-h") {
				return cmd.Help()
			}
			program, err := compose()
			if err != nil {
				return err
			}
			if os.Getenv("DOCKER_HOST") == "" {
				host, err := a.serveHere()
				if err != nil {
					return err
				}
				os.Setenv("DOCKER_HOST", host)
			}
			// In this program's place: terminal, signals and exit code are Compose's.
			return fmt.Errorf("%s: %w", program, syscall.Exec(program, append([]string{composeProgram}, args...), os.Environ()))
		},
	}
}

// compose finds Compose.
func compose() (string, error) {
	if path, err := exec.LookPath(composeProgram); err == nil {
		return path, nil
	}
	config := os.Getenv("DOCKER_CONFIG")
	if home, err := os.UserHomeDir(); config == "" && err == nil {
		config = filepath.Join(home, ".docker")
	}
	for _, dir := range []string{
		filepath.Join(config, "cli-plugins"), "/usr/local/lib/docker/cli-plugins", "/usr/local/libexec/docker/cli-plugins",
		"/usr/lib/docker/cli-plugins", "/usr/libexec/docker/cli-plugins",
	} {
		path := filepath.Join(dir, composeProgram)
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is neither in PATH nor among docker's plug-ins\n"+
		"hint: install docker's package docker-compose-plugin, or put the program (version 2 or newer) into ~/.docker/cli-plugins",
		composeProgram)
}

// serveHere starts a server for the program that takes this one's place, and returns its address when it answers. The kernel ends it with
// this thread, which an exec in it doesn't end: the goroutine stays on it.
func (a *app) serveHere() (host string, err error) {
	if err := a.checkRuntime(); err != nil {
		return "", err
	}
	program, err := beside(apiProgram)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(a.state, 0o700); err != nil {
		return "", err
	}
	socket := filepath.Join(a.state, "compose-")
	sweepSockets(socket)
	socket += strconv.Itoa(os.Getpid())
	host = "unix://" + socket
	args := []string{"--root", a.root, "--state", a.state, "--host", host, "--quiet"}
	if path := a.runtimePath(); path != "" {
		args = append(args, "--runtime", path)
	}
	runtime.LockOSThread()
	server := exec.Command(program, args...)
	server.Stderr = os.Stderr
	// In a process group of its own Ctrl-C ends what Compose does, and Compose may still ask then.
	server.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := server.Start(); err != nil {
		return "", err
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	for {
		if c, err := net.Dial("unix", socket); err == nil {
			return host, c.Close()
		}
		select {
		case err := <-ended: // it has said why
			return "", fmt.Errorf("%s: %w", apiProgram, errors.Join(err, errEnded))
		case <-time.After(2 * time.Millisecond):
		}
	}
}

var errEnded = errors.New("it ended before it answered")

// sweepSockets removes those of servers that were killed, by how their paths begin.
func sweepSockets(prefix string) {
	paths, _ := filepath.Glob(prefix + "*")
	for _, path := range paths {
		c, err := net.Dial("unix", path)
		if err == nil {
			c.Close()
		} else if errors.Is(err, syscall.ECONNREFUSED) {
			os.Remove(path)
		}
	}
}
