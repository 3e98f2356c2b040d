#include "textflag.h"

// entry is where the kernel starts this program (the linker's flag -E, see the Makefile). Before the Go runtime spends its
// millisecond, it makes sure that the executable of a process which will enter a container can't be written: create, run and exec
// start again, at once and once only, from a read-only clone of the mount that the executable lies on. See protect in self.go,
// which does the same in Go where this didn't. It also lets the process's timers be late. And it is where a supervisor waits that has
// nothing else to do: see Idle in package supervise.
//
// It may use what the runtime's own entry may: nothing but registers and the stack below the arguments. R12 is argc, R13 argv.
TEXT ·entry(SB), NOSPLIT|NOFRAME, $0
	MOVQ 0(SP), R12
	LEAQ 8(SP), R13
	CMPQ R12, $4
	JNE  args
	MOVQ 8(R13), SI
	CMPL (SI), $0x656c6469 // "idle"
	JNE  args
	CMPB 4(SI), $0
	JEQ  idle

args:
	MOVQ $1, R14

next:
	CMPQ R14, R12
	JGE  own
	MOVQ (R13)(R14*8), SI
	INCQ R14
	MOVL (SI), AX
	CMPL AX, $0x006e7572 // "run\0"
	JEQ  found
	CMPL AX, $0x63657865 // "exec"
	JEQ  exec
	CMPL AX, $0x61657263 // "crea"
	JNE  next
	CMPL 3(SI), $0x00657461 // "ate\0"
	JEQ  found
	JMP  next

exec:
	CMPB 4(SI), $0
	JNE  next

found:
	SUBQ $256, SP

	// statfs("/proc/self/exe"): nothing to do if it is read-only already (ST_RDONLY in f_flags, at offset 80).
	LEAQ ·exePath(SB), DI
	MOVQ SP, SI
	MOVL $137, AX
	SYSCALL
	TESTQ AX, AX
	JNE  unwind
	TESTQ $1, 80(SP)
	JNE  unwind

	// open_tree(AT_FDCWD, "/proc/self/exe", OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC)
	MOVQ $-100, DI
	LEAQ ·exePath(SB), SI
	MOVL $0x80001, DX
	MOVL $428, AX
	SYSCALL
	TESTQ AX, AX
	JLT  unwind
	MOVQ AX, R15

	// mount_setattr(fd, "", AT_EMPTY_PATH, {.attr_set = MOUNT_ATTR_RDONLY}, 32)
	MOVQ $1, 0(SP)
	MOVQ $0, 8(SP)
	MOVQ $0, 16(SP)
	MOVQ $0, 24(SP)
	MOVQ R15, DI
	LEAQ ·empty(SB), SI
	MOVL $0x1000, DX
	MOVQ SP, R10
	MOVL $32, R8
	MOVL $442, AX
	SYSCALL
	TESTQ AX, AX
	JNE  close

	// execveat(fd, "", argv, envp, AT_EMPTY_PATH)
	MOVQ R15, DI
	LEAQ ·empty(SB), SI
	MOVQ R13, DX
	LEAQ 8(R13)(R12*8), R10
	MOVL $0x1000, R8
	MOVL $322, AX
	SYSCALL

close:
	MOVQ R15, DI
	MOVL $3, AX
	SYSCALL

unwind:
	ADDQ $256, SP

late:
	CALL glassbox∕fork·lateTimers(SB)

start:
	JMP _rt0_amd64_linux(SB)

own:
	// What glassbox starts, which has nobody to hide the executable from: supervise, doorkeeper, once.
	CMPQ R12, $2
	JLT  start
	MOVQ 8(R13), SI
	MOVL (SI), AX
	CMPL AX, $0x65707573 // "supe"
	JEQ  late
	CMPL AX, $0x726f6f64 // "door"
	JEQ  late
	CMPL AX, $0x65636e6f // "once"
	JEQ  late
	JMP  start

idle:
	SUBQ $256, SP

	// prctl(PR_SET_DUMPABLE, 0), prctl(PR_SET_NAME): execve has taken both back.
	MOVL $4, DI
	MOVL $0, SI
	MOVL $157, AX
	SYSCALL
	MOVL $15, DI
	LEAQ ·comm(SB), SI
	MOVL $157, AX
	SYSCALL

	// rt_sigprocmask(SIG_BLOCK, {SIGCHLD, SIGWINCH})
	MOVQ $0x08010000, AX
	MOVQ AX, 0(SP)
	MOVL $0, DI
	MOVQ SP, SI
	MOVL $0, DX
	MOVL $8, R10
	MOVL $14, AX
	SYSCALL

	// epoll_ctl(62, EPOLL_CTL_ADD, signalfd4(-1, mask, 8, SFD_CLOEXEC), {EPOLLIN}): here, because what is told of signals is told of
	// those of the program that adds it.
	MOVQ $-1, DI
	MOVQ SP, SI
	MOVL $8, DX
	MOVL $0x80000, R10
	MOVL $289, AX
	SYSCALL
	MOVQ $1, 16(SP)
	MOVQ $0, 24(SP)
	MOVL $62, DI
	MOVL $1, SI
	MOVQ AX, DX
	LEAQ 16(SP), R10
	MOVL $233, AX
	SYSCALL

	// waitid(P_ALL, 0, info, WNOHANG|WSTOPPED|WEXITED|WNOWAIT, NULL): a SIGCHLD that came before it was blocked.
	MOVQ $0, 48(SP)
	MOVL $0, DI
	MOVL $0, SI
	LEAQ 32(SP), DX
	MOVL $0x01000007, R10
	MOVL $0, R8
	MOVL $247, AX
	SYSCALL
	CMPL 48(SP), $0 // si_pid
	JNE  wake

wait:
	// epoll_pwait(62, event, 1, -1, NULL, 8)
	MOVL $62, DI
	LEAQ 16(SP), SI
	MOVL $1, DX
	MOVQ $-1, R10
	MOVL $0, R8
	MOVL $8, R9
	MOVL $281, AX
	SYSCALL
	CMPQ AX, $-4 // EINTR
	JEQ  wait

wake:
	// execve("/proc/self/exe", argv with "awake", envp)
	LEAQ ·awake(SB), AX
	MOVQ AX, 8(R13)
	LEAQ ·exePath(SB), DI
	MOVQ R13, SI
	LEAQ 8(R13)(R12*8), DX
	MOVL $59, AX
	SYSCALL

	// No memory, perhaps: nanosleep({0, 100 ms}), and again.
	MOVQ $0, 16(SP)
	MOVQ $100000000, 24(SP)
	LEAQ 16(SP), DI
	MOVL $0, SI
	MOVL $35, AX
	SYSCALL
	JMP  wake

DATA ·exePath+0(SB)/8, $"/proc/se"
DATA ·exePath+8(SB)/8, $"lf/exe\x00\x00"
GLOBL ·exePath(SB), RODATA|NOPTR, $16

DATA ·comm+0(SB)/8, $"glassbox"
DATA ·comm+8(SB)/8, $"-runtim\x00"
GLOBL ·comm(SB), RODATA|NOPTR, $16

DATA ·awake+0(SB)/8, $"awake\x00\x00\x00"
GLOBL ·awake(SB), RODATA|NOPTR, $8

DATA ·empty+0(SB)/8, $0
GLOBL ·empty(SB), RODATA|NOPTR, $8
