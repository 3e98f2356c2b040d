#include "textflag.h"

// entry is where the kernel starts this program (the linker's flag -E, see the Makefile). Before the Go runtime spends its
// millisecond, it makes sure that the executable of a process which will enter a container can't be written: create, run and exec
// start again, at once and once only, from a read-only clone of the mount that the executable lies on. See protect in self.go,
// which does the same in Go where this didn't. It also lets the process's timers be late.
//
// It may use what the runtime's own entry may: nothing but registers and the stack below the arguments. R12 is argc, R13 argv.
TEXT ·entry(SB), NOSPLIT|NOFRAME, $0
	MOVQ 0(SP), R12
	LEAQ 8(SP), R13
	MOVQ $1, R14

next:
	CMPQ R14, R12
	JGE  start
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

	// prctl(PR_GET_TIMERSLACK), prctl(PR_SET_TIMERSLACK, 1 ms): see timerSlack in package fork. A larger one stays.
	MOVL $30, DI
	MOVL $157, AX
	SYSCALL
	CMPQ AX, $0
	JLE  start
	CMPQ AX, $1000000
	JGE  start
	MOVQ AX, glassbox∕fork·timerSlack(SB)
	MOVL $29, DI
	MOVL $1000000, SI
	MOVL $157, AX
	SYSCALL

start:
	JMP _rt0_amd64_linux(SB)

DATA ·exePath+0(SB)/8, $"/proc/se"
DATA ·exePath+8(SB)/8, $"lf/exe\x00\x00"
GLOBL ·exePath(SB), RODATA|NOPTR, $16

DATA ·empty+0(SB)/8, $0
GLOBL ·empty(SB), RODATA|NOPTR, $8
