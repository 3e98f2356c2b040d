package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/bundle"
	"glassbox/host"
	"glassbox/oci"
	"glassbox/supervise"
)

// commands are runc's, in its order.
func commands() []command {
	return []command{
		{
			"checkpoint", "ID", "Write a container's processes into files", "glassbox-runtime checkpoint --image-path /var/tmp/web web", false,
			checkpoint,
		},
		{
			"create", "ID", "Make a container that waits for start", "glassbox-runtime create --bundle /containers/web --pid-file /run/web.pid web",
			true, create,
		},
		{"delete", "ID", "Remove a stopped container", "glassbox-runtime delete --force web", false, remove},
		{"events", "ID", "Tell what a container uses, and when it lacks memory", "glassbox-runtime events --stats web", false, events},
		{"exec", "ID COMMAND [ARGUMENTS]", "Run a further process in a container", "glassbox-runtime exec -t web sh", true, execute},
		{"features", "", "Print what this runtime knows of the specification", "glassbox-runtime features", false, features},
		{"kill", "ID [SIGNAL]", "Send a signal to a container", "glassbox-runtime kill web KILL", false, kill},
		{"list", "", "List containers", "glassbox-runtime list --format json", false, list},
		{"pause", "ID", "Freeze all processes of a container", "glassbox-runtime pause web", false, pause},
		{"ps", "ID [PS OPTIONS]", "List the processes of a container", "glassbox-runtime ps --format json web", false, ps},
		{
			"restore", "ID", "Make a container of the files of a checkpoint",
			"glassbox-runtime restore --bundle /containers/web --image-path /var/tmp/web web", false, restore,
		},
		{"resume", "ID", "Let a paused container go on", "glassbox-runtime resume web", false, resume},
		{
			"run", "ID", "Make a container, run it, and remove it when it ends", "glassbox-runtime run --bundle /containers/web web", true,
			runContainer,
		},
		{"spec", "", "Write an example configuration into the working directory", "glassbox-runtime spec --rootless", false, spec},
		{"start", "ID", "Let a created container run", "glassbox-runtime start web", false, start},
		{"state", "ID", "Print the state of a container", "glassbox-runtime state web", false, state},
		{"update", "ID", "Change the limits of a container", "glassbox-runtime update --memory 256M --pids-limit 100 web", false, update},
	}
}

// byID makes a command of what takes a container's ID, as most do, and nothing else.
func byID(do func(id string) (int, error)) func([]string) (int, error) {
	return func(args []string) (int, error) {
		if len(args) != 1 {
			return 1, usageError{fmt.Sprintf("it takes one container ID, and got %d arguments", len(args))}
		}
		return do(args[0])
	}
}

func createFlags(fs *flag.FlagSet) *bundle.CreateOptions {
	o := &bundle.CreateOptions{Bundle: "."}
	both(fs.StringVar, &o.Bundle, "bundle", "b", "directory of the bundle (default: the working directory)")
	fs.StringVar(&o.ConsoleSocket, "console-socket", "", "unix socket that gets the terminal's master")
	fs.StringVar(&o.PIDFile, "pid-file", "", "file that gets the process ID")
	fs.StringVar(&o.PidfdSocket, "pidfd-socket", "", "unix socket that gets a pidfd of the process")
	fs.IntVar(&o.PreserveFDs, "preserve-fds", 0, "number of further descriptors, from 3 on, that the container gets")
	fs.BoolVar(&o.NoPivot, "no-pivot", false, "use chroot instead of pivot_root, which a root in a ramdisk needs; it is weaker")
	fs.BoolVar(&o.NoNewKeyring, "no-new-keyring", false, "keep the session keyring of the caller")
	return o
}

// listenFDs is how many sockets the service manager has given to this process (sd_listen_fds(3)). They are passed on.
func listenFDs() (int, error) {
	text := os.Getenv("LISTEN_FDS")
	if text == "" || os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return 0, nil // none, or they are another process's
	}
	n, err := strconv.ParseUint(text, 10, 10)
	if err != nil {
		return 0, fmt.Errorf("LISTEN_FDS: %q is no number of descriptors", text)
	}
	return int(n), nil
}

func create(a *app, fs *flag.FlagSet) func([]string) (int, error) {
	o := createFlags(fs)
	return byID(func(id string) (int, error) {
		n, err := listenFDs()
		if err != nil {
			return 1, err
		}
		o.ListenFDs, o.PreserveFDs = n, o.PreserveFDs+n
		return 0, a.runtime.Create(id, *o)
	})
}

func runContainer(a *app, fs *flag.FlagSet) func([]string) (int, error) {
	o := createFlags(fs)
	both(fs.BoolVar, &o.Detach, "detach", "d", "return when the container runs")
	fs.BoolVar(&o.Keep, "keep", false, "keep the container when it has ended")
	fs.Bool("no-subreaper", false, "accepted for old callers; orphans never become children of this runtime")
	return byID(func(id string) (int, error) {
		n, err := listenFDs()
		if err != nil {
			return 1, err
		}
		o.ListenFDs, o.PreserveFDs = n, o.PreserveFDs+n
		return a.runtime.Run(id, *o)
	})
}

func start(a *app, _ *flag.FlagSet) func([]string) (int, error) {
	return byID(func(id string) (int, error) { return 0, a.runtime.Start(id) })
}

func state(a *app, _ *flag.FlagSet) func([]string) (int, error) {
	return byID(func(id string) (int, error) {
		s, err := a.runtime.State(id)
		if err != nil {
			return 1, err
		}
		data, err := json.MarshalIndent(s, "", "  ")
		if err != nil {
			return 1, err
		}
		_, err = a.out.Write(data)
		return 0, err
	})
}

func kill(a *app, fs *flag.FlagSet) func([]string) (int, error) {
	var all bool
	both(fs.BoolVar, &all, "all", "a", "send the signal to all processes of the container")
	return func(args []string) (int, error) {
		if len(args) == 0 || len(args) > 2 {
			return 1, usageError{"it takes a container ID and a signal"}
		}
		sig := unix.SIGTERM
		if len(args) == 2 {
			var ok bool
			if sig, ok = supervise.Signal(args[1]); !ok {
				return 1, fmt.Errorf("unknown signal %q", args[1])
			}
		}
		return 0, a.runtime.Kill(args[0], sig, all)
	}
}

func remove(a *app, fs *flag.FlagSet) func([]string) (int, error) {
	var force bool
	both(fs.BoolVar, &force, "force", "f", "kill the container first, if it runs; one that doesn't exist is no error")
	return byID(func(id string) (int, error) {
		return 0, a.runtime.Delete(id, force)
	})
}

func pause(a *app, _ *flag.FlagSet) func([]string) (int, error) {
	return byID(func(id string) (int, error) { return 0, a.runtime.Pause(id) })
}

func resume(a *app, _ *flag.FlagSet) func([]string) (int, error) {
	return byID(func(id string) (int, error) { return 0, a.runtime.Resume(id) })
}

func execute(a *app, fs *flag.FlagSet) func([]string) (int, error) {
	o := &bundle.ExecOptions{}
	var user string
	both(fs.StringVar, &o.ProcessFile, "process", "p", "file with the process in JSON, as in config.json; - is standard input")
	fs.StringVar(&o.ConsoleSocket, "console-socket", "", "unix socket that gets the terminal's master")
	fs.StringVar(&o.PIDFile, "pid-file", "", "file that gets the process ID")
	fs.StringVar(&o.PidfdSocket, "pidfd-socket", "", "unix socket that gets a pidfd of the process")
	fs.StringVar(&o.Cwd, "cwd", "", "working directory")
	both(listVar(fs), &o.Env, "env", "e", "environment variable")
	both(fs.BoolVar, &o.TTY, "tty", "t", "give the process a terminal")
	both(fs.StringVar, &user, "user", "u", "user and group: UID[:GID]")
	var groups []string
	both(listVar(fs), &groups, "additional-gids", "g", "further group")
	both(fs.BoolVar, &o.Detach, "detach", "d", "return when the process runs")
	fs.StringVar(&o.SELinux, "process-label", "", "SELinux label")
	fs.StringVar(&o.AppArmor, "apparmor", "", "AppArmor profile")
	fs.BoolVar(&o.NoNewPrivs, "no-new-privs", false, "no gain of privileges by execve")
	both(listVar(fs), &o.Caps, "cap", "c", "further capability")
	fs.IntVar(&o.PreserveFDs, "preserve-fds", 0, "number of further descriptors, from 3 on, that the process gets")
	listVar(fs)(&o.Cgroup, "cgroup", nil, "cgroup below the container's, or CONTROLLER:PATH on v1")
	fs.BoolVar(&o.IgnorePaused, "ignore-paused", false, "don't refuse a paused container")
	return func(args []string) (int, error) {
		if len(args) == 0 || len(args) == 1 && o.ProcessFile == "" {
			return 255, usageError{"it takes a container ID and a command, or --process"}
		}
		o.Args = args[1:]
		var err error
		if user != "" {
			uid, gid, found := strings.Cut(user, ":")
			if o.UID, err = parseNumber("--user", uid); err != nil {
				return 255, err
			}
			if found {
				if o.GID, err = parseNumber("--user", gid); err != nil {
					return 255, err
				}
			}
		}
		for _, g := range groups {
			n, err := parseNumber("--additional-gids", g)
			if err != nil {
				return 255, err
			}
			o.Groups = append(o.Groups, *n)
		}
		return a.runtime.Exec(args[0], *o)
	}
}

// parseNumber parses the number of a user or group: decimal digits only, and no wrap-around (CVE-2026-30892).
func parseNumber(what, s string) (*uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n > 1<<31-1 || s != strconv.FormatUint(n, 10) { // what programs disagree on: 007
		return nil, fmt.Errorf("%s: %q is not a number between 0 and 2147483647", what, s)
	}
	id := uint32(n)
	return &id, nil
}

func list(a *app, fs *flag.FlagSet) func([]string) (int, error) {
	format, quiet := "table", false
	both(fs.StringVar, &format, "format", "f", "table or json")
	both(fs.BoolVar, &quiet, "quiet", "q", "print the IDs only")
	return func(args []string) (int, error) {
		if len(args) != 0 {
			return 1, usageError{"it takes no arguments"}
		}
		states, err := a.runtime.List()
		if err != nil {
			return 1, err
		}
		switch {
		case quiet:
			for _, s := range states {
				fmt.Fprintln(a.out, s.ID)
			}
			return 0, nil
		case format == "json":
			return 0, json.NewEncoder(a.out).Encode(states)
		case format != "table":
			return 1, fmt.Errorf("--format: %q is neither table nor json", format)
		}
		w := tabwriter.NewWriter(a.out, 12, 1, 3, ' ', 0)
		fmt.Fprint(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER\n")
		for _, s := range states {
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", s.ID, s.PID, s.Status, printable(s.Bundle), s.Created.Format(time.RFC3339Nano), s.Owner)
		}
		return 0, w.Flush()
	}
}

func ps(a *app, fs *flag.FlagSet) func([]string) (int, error) {
	format := "table"
	both(fs.StringVar, &format, "format", "f", "table or json")
	return func(args []string) (int, error) {
		if len(args) == 0 {
			return 1, usageError{"it takes a container ID"}
		}
		pids, err := a.runtime.Processes(args[0])
		if err != nil {
			return 1, err
		}
		switch format {
		case "json":
			return 0, json.NewEncoder(a.out).Encode(pids)
		case "table":
		default:
			return 1, fmt.Errorf("--format: %q is neither table nor json", format)
		}
		options := args[1:]
		if len(options) > 0 && options[0] == "--" {
			options = options[1:]
		}
		if len(options) == 0 {
			options = []string{"-ef"}
		}
		output, err := exec.Command("ps", options...).CombinedOutput()
		if err != nil {
			return 1, fmt.Errorf("ps %s: %w: %s", strings.Join(options, " "), err, output)
		}
		lines := strings.Split(strings.TrimRight(string(output), "\n"), "\n")
		column := slices.Index(strings.Fields(lines[0]), "PID")
		if column < 0 {
			return 1, fmt.Errorf("ps %s: its output has no column PID", strings.Join(options, " "))
		}
		fmt.Fprintln(a.out, lines[0])
		for _, line := range lines[1:] {
			fields := strings.Fields(line)
			if column >= len(fields) {
				continue
			}
			if pid, err := strconv.Atoi(fields[column]); err == nil && slices.Contains(pids, pid) {
				fmt.Fprintln(a.out, printable(line)) // the processes choose their names
			}
		}
		return 0, nil
	}
}

func features(a *app, _ *flag.FlagSet) func([]string) (int, error) {
	return func(args []string) (int, error) {
		if len(args) != 0 {
			return 1, usageError{"it takes no arguments"}
		}
		e := json.NewEncoder(a.out)
		e.SetIndent("", "    ")
		return 0, e.Encode(oci.Features())
	}
}

func spec(a *app, fs *flag.FlagSet) func([]string) (int, error) {
	dir := "."
	both(fs.StringVar, &dir, "bundle", "b", "directory to write to (default: the working directory)")
	rootless := fs.Bool("rootless", false, "for an ordinary user")
	return func(args []string) (int, error) {
		if len(args) != 0 {
			return 1, usageError{"it takes no arguments"}
		}
		facts, err := a.runtime.Facts()
		if err != nil {
			return 1, err
		}
		data, err := oci.Marshal(oci.Default(oci.DefaultOptions{
			Rootless: *rootless, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), CgroupNS: facts.Cgroup.Mode == host.CgroupV2,
		}))
		if err != nil {
			return 1, err
		}
		file, err := os.OpenFile(filepath.Join(dir, oci.ConfigName), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
		if os.IsExist(err) {
			return 1, fmt.Errorf("%s exists: remove it first", filepath.Join(dir, oci.ConfigName))
		}
		if err != nil {
			return 1, err
		}
		if _, err := file.Write(data); err != nil {
			return 1, err
		}
		return 0, file.Close()
	}
}
