package seccomp

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// DefaultOptions say for which container a profile is made.
type DefaultOptions struct {
	Arch                     string   // GOARCH of the machine
	Caps                     []string // the bounding set, "CAP_SYS_ADMIN" and so on
	KernelMajor, KernelMinor int      // 6, 1 for Linux 6.1.187; zero is older than everything
	// KeepProject refuses what takes a file out of the project whose quota bounds the container: its root may do so with its own files.
	KeepProject bool
}

func (o DefaultOptions) has(capability string) bool { return slices.Contains(o.Caps, capability) }

func (o DefaultOptions) atLeast(major, minor int) bool {
	return o.KernelMajor > major || o.KernelMajor == major && o.KernelMinor >= minor
}

// Default returns the profile of a container that asked for none: an allow-list, as strict as Docker's own (measured
// against github.com/moby/profiles/seccomp v0.3.0, see TestDefaultAgainstMoby). Everything else fails with EPERM, or with ENOSYS if it
// is newer than the list (see Compile).
//
// The result shares its lists of names with every other call: read it, do not write to it.
func Default(o DefaultOptions) *specs.LinuxSeccomp {
	eperm, enosys := uint(1), uint(38)
	p := &specs.LinuxSeccomp{
		DefaultAction:   specs.ActErrno,
		DefaultErrnoRet: &eperm,
		Syscalls:        make([]specs.LinuxSyscall, 0, 48),
	}
	allow := func(names []string, args ...specs.LinuxSeccompArg) {
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: names, Action: specs.ActAllow, Args: args})
	}

	switch o.Arch {
	case "amd64":
		p.Architectures = []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}
		allow(x86Calls)
	case "arm64":
		p.Architectures = []specs.Arch{specs.ArchAARCH64, specs.ArchARM}
		allow(armCalls)
	}
	for _, topic := range everyone {
		if o.KeepProject {
			topic = slices.DeleteFunc(slices.Clone(topic), func(name string) bool { return name == ioctl[0] })
		}
		allow(topic)
	}
	if o.KeepProject {
		allow(ioctl, otherRequests()...)
	}
	for _, persona := range personalities {
		allow(personality, arg(0, specs.OpEqualTo, persona))
	}
	allow(socket, families[:]...)

	if o.atLeast(4, 8) || o.has("CAP_SYS_PTRACE") {
		// Before 4.8 a tracer could put another call in place of the one that the filter had seen (seccomp(2), under
		// SECCOMP_RET_TRACE).
		allow(tracing)
	}
	for _, c := range withCapability {
		if o.has(c.capability) {
			allow(c.names)
		}
	}
	if !o.has("CAP_SYS_ADMIN") {
		// clone without any of the CLONE_NEW* flags of 0x7e020000: threads and processes, but no new namespace, so
		// no user namespace with all capabilities over old kernel code (CVE-2022-0185 and its kind).
		allow(clone, specs.LinuxSeccompArg{Index: 0, Value: cloneNamespaces, ValueTwo: 0, Op: specs.OpMaskedEqual})
		// The flags of clone3 are in memory, out of a filter's sight. ENOSYS makes C libraries use clone.
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: clone3, Action: specs.ActErrno, ErrnoRet: &enosys})
	}
	return p
}

func arg(index uint, op specs.LinuxSeccompOperator, value uint64) specs.LinuxSeccompArg {
	return specs.LinuxSeccompArg{Index: index, Op: op, Value: value}
}

// cloneNamespaces is CLONE_NEWNS|NEWCGROUP|NEWUTS|NEWIPC|NEWUSER|NEWPID|NEWNET. CLONE_NEWTIME (0x80) is not there: the
// low byte of clone's flags is the exit signal, time namespaces need clone3 or unshare.
const cloneNamespaces = 0x7e020000

// otherRequests are all requests of ioctl(2) but FS_IOC_FSSETXATTR, which sets the project of a file, and FS_IOC_SETFLAGS in both its
// sizes, which takes away that what is made in a directory has its project. Type and number, the lower 16 bits, tell them from all others:
// 'X' and 32, 'f' and 2. A filter of what is allowed has no "and not": of the two bit 5 tells which one it could be, and one of the other
// bits is another one then. Since Linux 6.17 file_setattr(2) does the same, which is on no list here.
func otherRequests() []specs.LinuxSeccompArg {
	const which = 1 << 5
	var out []specs.LinuxSeccompArg
	for _, request := range []uint64{0x5820, 0x6602} {
		for bit := uint64(1); bit < 1<<16; bit <<= 1 {
			if mask := which | bit; bit != which {
				out = append(out, specs.LinuxSeccompArg{Index: 1, Op: specs.OpMaskedEqual, Value: mask, ValueTwo: (request ^ bit) & mask})
			}
		}
	}
	return out
}

// families are the allowed families of sockets (socket(2), include/linux/socket.h), of which one must fit. Missing are
//
//	AF_ALG (38)     the kernel's crypto code, which programs have no need for
//	AF_VSOCK (40)   reaches the hypervisor and other guests past every network namespace
//
// and those whose code has left the kernel or is about to, which old kernels still load for whoever asks: AF_AX25 (3), AF_IPX (4),
// AF_APPLETALK (5), AF_NETROM (6), AF_ROSE (11), AF_DECnet (12), AF_ECONET (19), AF_ATMSVC (20), AF_IRDA (23), AF_WANPIPE (25), AF_ISDN
// (34), AF_CAIF (37), and all that are newer than this list. On i386 socketcall(2) still leads to them: a filter cannot see its
// arguments, and C libraries there need it.
var families = [...]specs.LinuxSeccompArg{
	arg(0, specs.OpLessThan, 3), // AF_UNSPEC, AF_UNIX, AF_INET
	family(7),                   // AF_BRIDGE
	family(8),                   // AF_ATMPVC
	family(9),                   // AF_X25
	family(10),                  // AF_INET6
	family(13),                  // AF_NETBEUI
	family(14),                  // AF_SECURITY
	family(15),                  // AF_KEY
	family(16),                  // AF_NETLINK
	family(17),                  // AF_PACKET
	family(18),                  // AF_ASH
	family(21),                  // AF_RDS
	family(22),                  // AF_SNA
	family(24),                  // AF_PPPOX
	family(26),                  // AF_LLC
	family(27),                  // AF_IB
	family(28),                  // AF_MPLS
	family(29),                  // AF_CAN
	family(30),                  // AF_TIPC
	family(31),                  // AF_BLUETOOTH
	family(32),                  // AF_IUCV
	family(33),                  // AF_RXRPC
	family(35),                  // AF_PHONET
	family(36),                  // AF_IEEE802154
	family(39),                  // AF_NFC
	family(41),                  // AF_KCM
	family(42),                  // AF_QIPCRTR
	family(43),                  // AF_SMC
	family(44),                  // AF_XDP
	family(45),                  // AF_MCTP
}

func family(n uint64) specs.LinuxSeccompArg { return arg(0, specs.OpEqualTo, n) }

// personalities are the allowed values of personality(2): PER_LINUX, PER_LINUX32, both with UNAME26, and the question
// "which one have I". ADDR_NO_RANDOMIZE, READ_IMPLIES_EXEC and MMAP_PAGE_ZERO, which weaken a process, are not here.
var personalities = [...]uint64{0x0, 0x8, 0x20000, 0x20008, 0xffffffff}

var (
	ioctl       = []string{"ioctl"}
	personality = []string{"personality"}
	socket      = []string{"socket"}
	clone       = []string{"clone"}
	clone3      = []string{"clone3"}
	tracing     = []string{"process_vm_readv", "process_vm_writev", "ptrace"}
	x86Calls    = []string{"arch_prctl", "modify_ldt"}
	armCalls    = []string{
		"arm_fadvise64_64", "arm_sync_file_range", "breakpoint", "cacheflush", "set_tls", "sync_file_range2",
	}
)

// withCapability are the calls that come with a capability. The kernel checks the capability as well; leaving the call
// out of the filter keeps the code behind it out of reach, also inside a user namespace.
var withCapability = [...]struct {
	capability string
	names      []string
}{
	{"CAP_DAC_READ_SEARCH", []string{"open_by_handle_at"}},
	{"CAP_SYS_ADMIN", []string{
		// namespaces
		"clone", "clone3", "setns", "unshare", "setdomainname", "sethostname",
		// mounts, old and new calls
		"mount", "umount", "umount2", "fsconfig", "fsmount", "fsopen", "fspick", "mount_setattr", "move_mount", "open_tree",
		"quotactl", "quotactl_fd",
		// watching and steering the kernel
		"bpf", "perf_event_open", "fanotify_init", "lookup_dcookie", "syslog",
		"lsm_get_self_attr", "lsm_list_modules", "lsm_set_self_attr",
	}},
	{"CAP_SYS_BOOT", []string{"reboot"}},
	{"CAP_SYS_CHROOT", []string{"chroot"}},
	{"CAP_SYS_MODULE", []string{"delete_module", "finit_module", "init_module"}},
	{"CAP_SYS_PACCT", []string{"acct"}},
	{"CAP_SYS_PTRACE", []string{"kcmp", "pidfd_getfd", "process_madvise"}},
	{"CAP_SYS_RAWIO", []string{"ioperm", "iopl"}},
	{"CAP_SYS_TIME", []string{"clock_settime", "clock_settime64", "settimeofday", "stime"}},
	{"CAP_SYS_TTY_CONFIG", []string{"vhangup"}},
	{"CAP_SYS_NICE", []string{"get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"}},
	{"CAP_SYSLOG", []string{"syslog"}},
	{"CAP_BPF", []string{"bpf"}},
	{"CAP_PERFMON", []string{"perf_event_open"}},
}

// everyone are the calls that any container may make, by topic. What is missing is missing on purpose: kernel keys
// (add_key, keyctl, request_key: not namespaced), io_uring (its operations pass no filter), userfaultfd (holds the
// kernel still while an exploit works), kexec, swap, quota and module calls, nfsservctl, uselib, vm86, pivot_root,
// move_pages, raw port access, and whatever else has no place in a container.
var everyone = [...][]string{
	{ // paths
		"access", "chdir", "chmod", "chown", "chown32", "creat", "faccessat", "faccessat2", "fchdir", "fchmodat",
		"fchmodat2", "fchownat", "fstatat64", "futimesat", "getcwd", "lchown", "lchown32", "link", "linkat", "lstat",
		"lstat64", "mkdir", "mkdirat", "mknod", "mknodat", "name_to_handle_at", "newfstatat", "open", "openat", "openat2",
		"readlink", "readlinkat", "rename", "renameat", "renameat2", "rmdir", "stat", "stat64", "statx", "symlink",
		"symlinkat", "truncate", "truncate64", "umask", "unlink", "unlinkat", "utime", "utimensat", "utimensat_time64",
		"utimes",
	},
	{ // extended attributes
		"fgetxattr", "flistxattr", "fremovexattr", "fsetxattr", "getxattr", "getxattrat", "lgetxattr", "listxattr",
		"listxattrat", "llistxattr", "lremovexattr", "lsetxattr", "removexattr", "removexattrat", "setxattr", "setxattrat",
	},
	{ // open files
		"_llseek", "cachestat", "close", "close_range", "copy_file_range", "dup", "dup2", "dup3", "fadvise64", "fadvise64_64",
		"fallocate", "fchmod", "fchown", "fchown32", "fcntl", "fcntl64", "fdatasync", "flock", "fstat", "fstat64", "fsync",
		"ftruncate", "ftruncate64", "getdents", "getdents64", "ioctl", "lseek", "pipe", "pipe2", "pread64", "preadv",
		"preadv2", "pwrite64", "pwritev", "pwritev2", "read", "readahead", "readv", "sendfile", "sendfile64", "splice",
		"sync_file_range", "tee", "vmsplice", "write", "writev",
	},
	{ // whole file systems
		"fstatfs", "fstatfs64", "listmount", "statfs", "statfs64", "statmount", "sync", "syncfs",
	},
	{ // waiting for files
		"_newselect", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_ctl_old", "epoll_pwait", "epoll_pwait2",
		"epoll_wait", "epoll_wait_old", "eventfd", "eventfd2", "fanotify_mark", "inotify_add_watch", "inotify_init",
		"inotify_init1", "inotify_rm_watch", "poll", "ppoll", "ppoll_time64", "pselect6", "pselect6_time64", "select",
	},
	{ // asynchronous I/O, the old way
		"io_cancel", "io_destroy", "io_getevents", "io_pgetevents", "io_pgetevents_time64", "io_setup", "io_submit",
	},
	{ // sockets; socket itself has rules of its own
		"accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen", "recv", "recvfrom",
		"recvmmsg", "recvmmsg_time64", "recvmsg", "send", "sendmmsg", "sendmsg", "sendto", "setsockopt", "shutdown",
		"socketcall", "socketpair",
	},
	{ // System V and POSIX IPC
		"ipc", "mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive", "mq_timedreceive_time64", "mq_timedsend",
		"mq_timedsend_time64", "mq_unlink", "msgctl", "msgget", "msgrcv", "msgsnd", "semctl", "semget", "semop",
		"semtimedop", "semtimedop_time64", "shmat", "shmctl", "shmdt", "shmget",
	},
	{ // memory
		"brk", "madvise", "map_shadow_stack", "membarrier", "memfd_create", "memfd_secret", "mincore", "mlock", "mlock2",
		"mlockall", "mmap", "mmap2", "mprotect", "mremap", "mseal", "msync", "munlock", "munlockall", "munmap",
		"pkey_alloc", "pkey_free", "pkey_mprotect", "process_mrelease", "remap_file_pages",
	},
	{ // processes and threads; clone and clone3 have rules of their own
		"execve", "execveat", "exit", "exit_group", "fork", "get_robust_list", "get_thread_area", "getpgid", "getpgrp",
		"getpid", "getppid", "getsid", "gettid", "pidfd_open", "pidfd_send_signal", "prctl", "restart_syscall", "rseq",
		"set_robust_list", "set_thread_area", "set_tid_address", "setpgid", "setsid", "uretprobe", "vfork", "wait4",
		"waitid", "waitpid",
	},
	{ // locks
		"futex", "futex_requeue", "futex_time64", "futex_wait", "futex_waitv", "futex_wake",
	},
	{ // signals
		"kill", "pause", "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn",
		"rt_sigsuspend", "rt_sigtimedwait", "rt_sigtimedwait_time64", "rt_tgsigqueueinfo", "sigaltstack", "signalfd",
		"signalfd4", "sigprocmask", "sigreturn", "tgkill", "tkill",
	},
	{ // scheduling, limits, accounting
		"getcpu", "getpriority", "getrlimit", "getrusage", "ioprio_get", "ioprio_set", "prlimit64",
		"sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity", "sched_getattr", "sched_getparam",
		"sched_getscheduler", "sched_rr_get_interval", "sched_rr_get_interval_time64", "sched_setaffinity",
		"sched_setattr", "sched_setparam", "sched_setscheduler", "sched_yield", "setpriority", "setrlimit", "sysinfo",
		"times", "ugetrlimit", "uname",
	},
	{ // clocks and timers
		"adjtimex", "alarm", "clock_adjtime", "clock_adjtime64", "clock_getres", "clock_getres_time64", "clock_gettime",
		"clock_gettime64", "clock_nanosleep", "clock_nanosleep_time64", "getitimer", "gettimeofday", "nanosleep",
		"setitimer", "time", "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime", "timer_gettime64",
		"timer_settime", "timer_settime64", "timerfd_create", "timerfd_gettime", "timerfd_gettime64", "timerfd_settime",
		"timerfd_settime64",
	},
	{ // users, groups, capabilities
		"capget", "capset", "getegid", "getegid32", "geteuid", "geteuid32", "getgid", "getgid32", "getgroups",
		"getgroups32", "getresgid", "getresgid32", "getresuid", "getresuid32", "getuid", "getuid32", "setfsgid",
		"setfsgid32", "setfsuid", "setfsuid32", "setgid", "setgid32", "setgroups", "setgroups32", "setregid", "setregid32",
		"setresgid", "setresgid32", "setresuid", "setresuid32", "setreuid", "setreuid32", "setuid", "setuid32",
	},
	{ // what the processor has; riscv_hwprobe has no number on the machines that this package knows
		"riscv_hwprobe",
	},
	{ // giving up more rights, and chance
		"getrandom", "landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self", "seccomp",
	},
}
