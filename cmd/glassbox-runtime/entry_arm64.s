#include "textflag.h"

// entry is where the kernel starts this program; see entry_amd64.s. R19 is argc, R20 argv.
TEXT ·entry(SB), NOSPLIT|NOFRAME, $0
	MOVD 0(RSP), R19
	ADD  $8, RSP, R20
	CMP  $4, R19
	BNE  args
	MOVD 8(R20), R1
	MOVWU (R1), R2
	MOVD $0x656c6469, R3 // "idle"
	CMPW R3, R2
	BNE  args
	MOVBU 4(R1), R2
	CBZ  R2, idle

args:
	MOVD $1, R21

next:
	CMP   R19, R21
	BGE   own
	MOVD  (R20)(R21<<3), R1
	ADD   $1, R21
	MOVWU (R1), R2
	MOVD  $0x006e7572, R3 // "run\0"
	CMPW  R3, R2
	BEQ   found
	MOVD  $0x63657865, R3 // "exec"
	CMPW  R3, R2
	BEQ   exec
	MOVD  $0x61657263, R3 // "crea"
	CMPW  R3, R2
	BNE   next
	MOVWU 3(R1), R2
	MOVD  $0x00657461, R3 // "ate\0"
	CMPW  R3, R2
	BEQ   found
	B     next

exec:
	MOVBU 4(R1), R2
	CBNZ  R2, next

found:
	SUB $256, RSP

	// statfs("/proc/self/exe"): nothing to do if it is read-only already (ST_RDONLY in f_flags, at offset 80).
	MOVD $·exePath(SB), R0
	MOVD RSP, R1
	MOVD $43, R8
	SVC
	CBNZ R0, unwind
	MOVD 80(RSP), R2
	TBNZ $0, R2, unwind

	// open_tree(AT_FDCWD, "/proc/self/exe", OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC)
	MOVD $-100, R0
	MOVD $·exePath(SB), R1
	MOVD $0x80001, R2
	MOVD $428, R8
	SVC
	TBNZ $63, R0, unwind
	MOVD R0, R22

	// mount_setattr(fd, "", AT_EMPTY_PATH, {.attr_set = MOUNT_ATTR_RDONLY}, 32)
	MOVD $1, R2
	MOVD R2, 0(RSP)
	MOVD ZR, 8(RSP)
	MOVD ZR, 16(RSP)
	MOVD ZR, 24(RSP)
	MOVD $·empty(SB), R1
	MOVD $0x1000, R2
	MOVD RSP, R3
	MOVD $32, R4
	MOVD $442, R8
	SVC
	CBNZ R0, close

	// execveat(fd, "", argv, envp, AT_EMPTY_PATH)
	MOVD R22, R0
	MOVD $·empty(SB), R1
	MOVD R20, R2
	ADD  R19<<3, R20, R3
	ADD  $8, R3
	MOVD $0x1000, R4
	MOVD $281, R8
	SVC

close:
	MOVD R22, R0
	MOVD $57, R8
	SVC

unwind:
	ADD $256, RSP

late:
	CALL glassbox∕fork·lateTimers(SB)

start:
	B _rt0_arm64_linux(SB)

own:
	CMP  $2, R19
	BLT  start
	MOVD 8(R20), R1
	MOVWU (R1), R2
	MOVD $0x65707573, R3 // "supe"
	CMPW R3, R2
	BEQ  late
	MOVD $0x726f6f64, R3 // "door"
	CMPW R3, R2
	BEQ  late
	MOVD $0x65636e6f, R3 // "once"
	CMPW R3, R2
	BEQ  late
	B    start

idle:
	SUB $256, RSP

	// prctl(PR_SET_DUMPABLE, 0), prctl(PR_SET_NAME): execve has taken both back.
	MOVD $4, R0
	MOVD ZR, R1
	MOVD $167, R8
	SVC
	MOVD $15, R0
	MOVD $·comm(SB), R1
	MOVD $167, R8
	SVC

	// rt_sigprocmask(SIG_BLOCK, {SIGCHLD, SIGWINCH})
	MOVD $0x08010000, R2
	MOVD R2, 0(RSP)
	MOVD ZR, R0
	MOVD RSP, R1
	MOVD ZR, R2
	MOVD $8, R3
	MOVD $135, R8
	SVC

	// epoll_ctl(62, EPOLL_CTL_ADD, signalfd4(-1, mask, 8, SFD_CLOEXEC), {EPOLLIN}): see entry_amd64.s.
	MOVD $-1, R0
	MOVD RSP, R1
	MOVD $8, R2
	MOVD $0x80000, R3
	MOVD $74, R8
	SVC
	MOVD $1, R2
	MOVD R2, 16(RSP)
	MOVD ZR, 24(RSP)
	MOVD R0, R2
	MOVD $62, R0
	MOVD $1, R1
	ADD  $16, RSP, R3
	MOVD $21, R8
	SVC

	// waitid(P_ALL, 0, info, WNOHANG|WSTOPPED|WEXITED|WNOWAIT, NULL): a SIGCHLD that came before it was blocked.
	MOVD ZR, 48(RSP)
	MOVD ZR, R0
	MOVD ZR, R1
	ADD  $32, RSP, R2
	MOVD $0x01000007, R3
	MOVD ZR, R4
	MOVD $95, R8
	SVC
	MOVWU 48(RSP), R2 // si_pid
	CBNZ  R2, wake

wait:
	// epoll_pwait(62, event, 1, -1, NULL, 8)
	MOVD $62, R0
	ADD  $16, RSP, R1
	MOVD $1, R2
	MOVD $-1, R3
	MOVD ZR, R4
	MOVD $8, R5
	MOVD $22, R8
	SVC
	CMP  $-4, R0 // EINTR
	BEQ  wait

wake:
	// execve("/proc/self/exe", argv with "awake", envp)
	MOVD $·awake(SB), R2
	MOVD R2, 8(R20)
	MOVD $·exePath(SB), R0
	MOVD R20, R1
	ADD  R19<<3, R20, R2
	ADD  $8, R2
	MOVD $221, R8
	SVC

	// No memory, perhaps: nanosleep({0, 100 ms}), and again.
	MOVD ZR, 16(RSP)
	MOVD $100000000, R2
	MOVD R2, 24(RSP)
	ADD  $16, RSP, R0
	MOVD ZR, R1
	MOVD $101, R8
	SVC
	B    wake

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
