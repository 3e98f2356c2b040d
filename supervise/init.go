package supervise

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"glassbox/fork"
	"glassbox/host/nofile"
)

// Init is the first process of a container that was started with --init: it starts the program, passes signals on to it,
// and reaps the orphans that the kernel hands to process 1. It returns the program's exit code.
func Init(argv []string) int {
	if len(argv) == 0 {
		fmt.Fprintln(os.Stderr, "glassbox: init: no command")
		return 125
	}
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// With a terminal the program gets a process group in the foreground of its own, as a shell would give it: Ctrl-C is
	// for it and its children, and not for process 1, which would pass it on a second time.
	if tty, err := unix.IoctlGetInt(0, unix.TIOCGPGRP); err == nil && tty >= 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Foreground: true, Ctty: 0}
	}
	// Not by itself: the entry takes a program named run for a command of ours.
	if err := fork.StartCommand(cmd); err != nil {
		fmt.Fprintf(os.Stderr, "glassbox: init: %v\n", err)
		if os.IsNotExist(err) || cmd.Err != nil {
			return 127
		}
		return 126
	}
	// The Go runtime has raised this process's limit on open files; the program was started with the container's own. Nobody is to
	// find another one at process 1.
	if soft, hard := nofile.Limits(); hard != 0 {
		unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: soft, Max: hard})
	}
	main := cmd.Process.Pid
	for sig := range signals {
		if sig != unix.SIGCHLD {
			if sig != unix.SIGURG { // the Go runtime's own, for preemption
				unix.Kill(main, sig.(syscall.Signal))
			}
			continue
		}
		for {
			var ws unix.WaitStatus
			pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
			if err == unix.EINTR {
				continue
			}
			if err != nil || pid <= 0 {
				break
			}
			if pid == main {
				if ws.Signaled() {
					return 128 + int(ws.Signal())
				}
				return ws.ExitStatus()
			}
		}
	}
	return 125
}
