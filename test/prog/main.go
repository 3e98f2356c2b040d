// Prog is the programs that tests run inside containers, in one static binary that goes by the name it is called by:
// /t/membomb is a link to it. Each prints facts as "name value" lines or does one hostile thing, and nothing else.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

var programs = map[string]func(args []string) error{
	"membomb": membomb, "forkbomb": forkbomb, "breakout": breakout, "ignoreterm": ignoreTerm, "zombies": zombies,
	"onsignal": onSignal, "probe": probe, "facts": facts, "echoserver": echoServer, "echoclient": echoClient, "fds": fds,
	"ttysize": ttySize, "traceme": traceMe, "spin": spin, "mounttry": mountTry, "kill1": killInit, "devopen": devOpen, "sleep": sleep,
	"grab": grab, "keys": keys, "spoil": spoil, "watch": watch, "swap": swap, "turn": turn, "calls": calls, "newns": newns,
	"cgescape": cgescape, "fdbomb": fdbomb, "nest": nest, "diskbomb": diskbomb, "criu": criu,
	"lookups": lookups, "resctrl": resctrl, "withresctrl": withResctrl, "service": service, "mirror": mirror, "flood": flood,
}

func main() {
	name, args := filepath.Base(os.Args[0]), os.Args[1:]
	if programs[name] == nil && len(args) > 0 {
		name, args = args[0], args[1:]
	}
	program := programs[name]
	if program == nil {
		var names []string
		for name := range programs {
			names = append(names, name)
		}
		sort.Strings(names)
		fmt.Println(strings.Join(names, "\n"))
		return
	}
	if err := program(args); err != nil {
		fmt.Fprintln(os.Stderr, name+":", err)
		os.Exit(1)
	}
}

// traceMe makes its parent its tracer and sends itself a signal, at which a traced process stops until its tracer says
// otherwise; then it ends with 7.
func traceMe([]string) error {
	runtime.LockOSThread()
	if _, _, errno := unix.Syscall(unix.SYS_PTRACE, unix.PTRACE_TRACEME, 0, 0); errno != 0 {
		return errno
	}
	for range 3 {
		if err := unix.Tgkill(unix.Getpid(), unix.Gettid(), unix.SIGWINCH); err != nil {
			return err
		}
	}
	os.Exit(7)
	return nil
}

// membomb allocates and touches 2 MB every 10 ms, until 1 GB.
func membomb([]string) error {
	var kept [][]byte
	for range 512 {
		block := make([]byte, 2<<20)
		for i := 0; i < len(block); i += 4096 {
			block[i] = 1
		}
		kept = append(kept, block)
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("nothing stopped it at %d MB", len(kept)*2)
}

// forkbomb starts itself twice, over and over, until a fork fails; it says so and then stays.
func forkbomb(args []string) error {
	for {
		cmd := exec.Command("/proc/self/exe", "sleep", "1000")
		if err := cmd.Start(); err != nil {
			fmt.Println("can't fork:", err)
			for {
				time.Sleep(time.Hour)
			}
		}
	}
}

func sleep(args []string) error {
	n, _ := strconv.Atoi(args[0])
	time.Sleep(time.Duration(n) * time.Second)
	return nil
}

// breakout is the classic way out of a chroot: a second chroot below the working directory, then .. a thousand times.
// It prints the root it ends in.
func breakout([]string) error {
	if err := os.Mkdir("/tmp/second", 0o755); err != nil && !os.IsExist(err) {
		return err
	}
	dir, err := os.Open("/")
	if err != nil {
		return err
	}
	if err := unix.Chroot("/tmp/second"); err != nil {
		return fmt.Errorf("chroot: %w", err)
	}
	if err := dir.Chdir(); err != nil {
		return err
	}
	for range 1000 {
		if err := os.Chdir(".."); err != nil {
			return err
		}
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("second chroot: %w", err)
	}
	entries, err := os.ReadDir("/")
	for _, entry := range entries {
		fmt.Println(entry.Name())
	}
	return err
}

func ignoreTerm([]string) error {
	signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT)
	fmt.Println("ready")
	for {
		time.Sleep(time.Hour)
	}
}

// onSignal prints the first signal that it gets and exits with the given code, or 0.
func onSignal(args []string) error {
	c := make(chan os.Signal, 8)
	signal.Notify(c, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH)
	fmt.Println("ready")
	got := <-c
	fmt.Println("got", unix.SignalName(got.(syscall.Signal)))
	if len(args) > 0 {
		code, _ := strconv.Atoi(args[0])
		os.Exit(code)
	}
	return nil
}

// zombies makes 5 orphans that end at once, waits, and counts the zombies in /proc.
func zombies([]string) error {
	for range 5 {
		// The shell ends first, its child is then PID 1's.
		if err := exec.Command("/bin/sh", "-c", "sleep 0.2 & exit 0").Run(); err != nil {
			return err
		}
	}
	time.Sleep(time.Second)
	count := 0
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return err
	}
	for _, stat := range stats {
		line, _ := os.ReadFile(stat)
		if _, rest, ok := strings.Cut(string(line), ") "); ok && strings.HasPrefix(rest, "Z") {
			count++
		}
	}
	fmt.Println("zombies", count)
	return nil
}

// probe tries system calls by name and prints each one's error.
func probe(args []string) error {
	calls := map[string]func() error{
		"unshare-user": func() error { return unix.Unshare(unix.CLONE_NEWUSER) },
		"unshare-uts":  func() error { return unix.Unshare(unix.CLONE_NEWUTS) },
		"mount":        func() error { return unix.Mount("tmpfs", "/tmp", "tmpfs", 0, "") },
		"umount":       func() error { return unix.Unmount("/tmp", 0) },
		"chroot":       func() error { return unix.Chroot("/") },
		"sethostname":  func() error { return unix.Sethostname([]byte("changed")) },
		"settimeofday": func() error { return unix.Settimeofday(&unix.Timeval{Sec: -1}) },
		"reboot":       func() error { return unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF) },
		"keyctl":       func() error { _, err := unix.KeyctlInt(unix.KEYCTL_GET_KEYRING_ID, -4, 0, 0, 0); return err },
		"add_key":      func() error { _, err := unix.AddKey("user", "k", []byte("v"), -2); return err },
		"bpf":          func() error { return raw(unix.SYS_BPF, 0, 0, 0) },
		"ptrace":       func() error { return raw(unix.SYS_PTRACE, unix.PTRACE_CONT, ^uintptr(0), 0) },
		"userfaultfd":  func() error { return raw(unix.SYS_USERFAULTFD, 0, 0, 0) },
		"kexec_load":   func() error { return raw(unix.SYS_KEXEC_LOAD, 0, 0, 0) },
		"init_module":  func() error { return raw(unix.SYS_INIT_MODULE, 0, 0, 0) },
		"clone3":       func() error { return raw(unix.SYS_CLONE3, 0, 0, 0) },
		"perf":         func() error { return raw(unix.SYS_PERF_EVENT_OPEN, 0, 0, 0) },
		"setns":        func() error { return raw(unix.SYS_SETNS, ^uintptr(0), 0, 0) },
		"mknod":        func() error { return unix.Mknod("/tmp/node", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))) },
		"mknod-disk":   func() error { return unix.Mknod("/tmp/disk", unix.S_IFBLK|0o600, int(unix.Mkdev(254, 0))) },
		"chown":        func() error { os.WriteFile("/tmp/owned", nil, 0o600); return unix.Chown("/tmp/owned", 12, 12) },
		"setuid":       func() error { return raw(unix.SYS_SETUID, 12, 0, 0) },
		"bind80":       func() error { return listen("tcp", "0.0.0.0:80") },
		"rawsocket":    func() error { _, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP); return err },
		"netadmin": func() error {
			return exec.Command("/bin/busybox", "ip", "link", "set", "lo", "mtu", "1400").Run()
		},
		"getcwd": func() error { _, err := unix.Getcwd(make([]byte, 4096)); return err },
		"syslog": func() error { return raw(unix.SYS_SYSLOG, 3, 0, 0) },
		"acct":   func() error { return raw(unix.SYS_ACCT, 0, 0, 0) },
		"swapon": func() error { return raw(unix.SYS_SWAPON, 0, 0, 0) },
		"personality": func() error {
			return raw(unix.SYS_PERSONALITY, 0x0200000, 0, 0)
		},
	}
	for _, name := range args {
		call := calls[name]
		if call == nil {
			return fmt.Errorf("no call %q", name)
		}
		if err := call(); err == nil {
			fmt.Println(name, "ok")
		} else if errno, ok := err.(syscall.Errno); ok {
			fmt.Println(name, unix.ErrnoName(errno))
		} else {
			fmt.Println(name, "error", err)
		}
	}
	return nil
}

func raw(nr int, a, b, c uintptr) error {
	if _, _, errno := unix.RawSyscall(uintptr(nr), a, b, c); errno != 0 {
		return errno
	}
	return nil
}

func listen(network, addr string) error {
	l, err := net.Listen(network, addr)
	if err == nil {
		l.Close()
	}
	return err
}

// facts prints what the kernel says of this process.
func facts(args []string) error {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for _, line := range strings.Split(string(status), "\n") {
		name, value, _ := strings.Cut(line, ":")
		switch name {
		case "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp",
			"Seccomp_filters", "Cpus_allowed_list", "NSpid":
			fmt.Println(name, strings.Join(strings.Fields(value), " "))
		}
	}
	cwd, _ := os.Getwd()
	host, _ := os.Hostname()
	fmt.Println("pid", os.Getpid())
	fmt.Println("ppid", os.Getppid())
	fmt.Println("cwd", cwd)
	fmt.Println("hostname", host)
	var nofile unix.Rlimit
	// Go raises the soft limit of its own process: ask what a child would get.
	unix.Prlimit(os.Getpid(), unix.RLIMIT_NOFILE, nil, &nofile)
	fmt.Println("nofile-max", nofile.Max)
	groups, _ := os.ReadFile("/proc/self/cgroup")
	fmt.Print(strings.ReplaceAll("cgroup "+strings.TrimSpace(string(groups)), "\n", "\ncgroup "), "\n")
	for _, name := range []string{"mnt", "pid", "net", "uts", "ipc", "cgroup", "user", "time"} {
		link, _ := os.Readlink("/proc/self/ns/" + name)
		fmt.Println("ns-"+name, link)
	}
	return nil
}

// echoServer answers every line or datagram with "echo: " before it: echoserver tcp|udp PORT.
func echoServer(args []string) error {
	if args[0] == "udp" {
		conn, err := net.ListenPacket("udp", ":"+args[1])
		if err != nil {
			return err
		}
		fmt.Println("ready")
		buffer := make([]byte, 2048)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return err
			}
			conn.WriteTo([]byte("echo: "+strings.TrimSpace(string(buffer[:n]))+" from "+from.(*net.UDPAddr).IP.String()+"\n"), from)
		}
	}
	return serve(args[1], func(conn net.Conn) {
		buffer := make([]byte, 2048)
		n, _ := conn.Read(buffer)
		fmt.Fprintf(conn, "echo: %s from %s\n", strings.TrimSpace(string(buffer[:n])),
			conn.RemoteAddr().(*net.TCPAddr).IP)
	})
}

// serve answers each connection of a TCP port.
func serve(port string, answer func(net.Conn)) error {
	listener, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			answer(conn)
		}()
	}
}

// echoClient sends text and prints the answer: echoclient tcp|udp HOST:PORT TEXT.
func echoClient(args []string) error {
	var err error
	for range 5 {
		var conn net.Conn
		if conn, err = net.DialTimeout(args[0], args[1], 2*time.Second); err == nil {
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(2 * time.Second))
			fmt.Fprintln(conn, args[2])
			var answer []byte
			buffer := make([]byte, 2048)
			var n int
			if n, err = conn.Read(buffer); n > 0 {
				answer = buffer[:n]
				if args[0] == "tcp" {
					rest, _ := io.ReadAll(conn)
					answer = append(answer, rest...)
				}
				_, err = os.Stdout.Write(answer)
				return err
			}
		}
		time.Sleep(200 * time.Millisecond)
	}
	return err
}

// fds lists open descriptors and what they are.
func fds([]string) error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		target, err := os.Readlink("/proc/self/fd/" + entry.Name())
		// Go's own descriptors: the directory being read, epoll and its eventfd, the limit of processors.
		if err != nil || strings.HasPrefix(target, "anon_inode:[event") || strings.HasSuffix(target, "/fd") ||
			strings.HasPrefix(target, "/sys/fs/cgroup/") {
			continue
		}
		fmt.Println(entry.Name(), target)
	}
	return nil
}

// ttySize prints the terminal's rows and columns; with an argument, again after each change, that many times.
func ttySize(args []string) error {
	changed := make(chan os.Signal, 8)
	signal.Notify(changed, unix.SIGWINCH)
	times := 0
	if len(args) > 0 {
		times, _ = strconv.Atoi(args[0])
	}
	for {
		size, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
		if err != nil {
			return fmt.Errorf("not a terminal: %w", err)
		}
		fmt.Println("size", size.Row, size.Col)
		if times--; times < 0 {
			return nil
		}
		<-changed
	}
}

// spin uses one processor for the given seconds, or for ever.
func spin(args []string) error {
	end := time.Now().Add(time.Hour)
	if len(args) > 0 {
		n, _ := strconv.ParseFloat(args[0], 64)
		end = time.Now().Add(time.Duration(n * float64(time.Second)))
	}
	for time.Now().Before(end) {
		for i := 0; i < 1000000; i++ {
			_ = i * i
		}
	}
	return nil
}

func mountTry(args []string) error {
	if err := os.MkdirAll(args[0], 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", args[0], "tmpfs", 0, ""); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(args[0], "inside"), nil, 0o644)
}

// killInit sends PID 1 a SIGKILL and tells whether it is still there.
func killInit([]string) error {
	fmt.Println("kill", unix.Kill(1, unix.SIGKILL))
	time.Sleep(100 * time.Millisecond)
	_, err := os.Stat("/proc/1")
	fmt.Println("still there", err == nil)
	return nil
}

// devOpen opens device files for reading and prints each one's error.
func devOpen(args []string) error {
	for _, name := range args {
		fd, err := unix.Open(name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			fmt.Println(name, unix.ErrnoName(err.(syscall.Errno)))
			continue
		}
		unix.Close(fd)
		fmt.Println(name, "ok")
	}
	return nil
}
