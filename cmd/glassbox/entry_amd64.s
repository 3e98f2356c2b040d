#include "textflag.h"

// entry is where the kernel starts this program (the linker's flag -E, see the Makefile). A command that starts something lets the
// timers of Go's monitor thread be late: see timerSlack in package fork. Others may work for long, on many threads, among which that
// thread has to keep order.
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
	JEQ  late
	CMPL AX, $0x63657865 // "exec"
	JEQ  exec
	CMPL AX, $0x72617473 // "star"
	JEQ  star
	CMPL AX, $0x61657263 // "crea"
	JNE  next
	CMPL 3(SI), $0x00657461 // "ate\0"
	JEQ  late
	JMP  next

exec:
	CMPB 4(SI), $0
	JEQ  late
	JMP  next

star:
	CMPW 4(SI), $0x0074 // "t\0"
	JNE  next

late:
	CALL glassbox∕fork·lateTimers(SB)

start:
	JMP _rt0_amd64_linux(SB)
