package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// service does to itself what servers do after their start: it writes another title over its arguments (nginx, redis, PostgreSQL),
// changes its directory and its umask (PostgreSQL), its limits and its nice value, takes /dev/null as its streams, moves itself nearer to
// the OOM killer, and becomes another user for good (all three, by their images' scripts). It says "ready" and stays.
func service([]string) error {
	runtime.LockOSThread() // the first thread's are the process's attributes in /proc/PID
	title("service: master process of a family of servers")
	null, err := unix.Open("/dev/null", unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	syscall.Umask(0o077)
	err = errors.Join(unix.Chdir("/tmp"), unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}),
		unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 100, Max: 100}), unix.Setpriority(unix.PRIO_PROCESS, 0, 5),
		os.WriteFile("/proc/self/oom_score_adj", []byte("900"), 0),
		syscall.Setgroups([]int{7}), syscall.Setgid(7), syscall.Setuid(7), unix.Dup2(null, 0))
	if err != nil {
		return err
	}
	fmt.Println("ready")
	time.Sleep(time.Hour)
	return nil
}

// title writes over the memory in which the kernel put the arguments, which is where ps reads them (proc_pid_cmdline(5)).
func title(text string) {
	for _, arg := range os.Args {
		memory := unsafe.Slice(unsafe.StringData(arg), len(arg))
		n := copy(memory, text)
		text = text[n:]
		clear(memory[n:])
	}
}
