#include "textflag.h"

// handler runs in whatever thread a signal finds, on its signal stack, with the conventions of C: the number is in R0, and LR leads
// to the kernel's own rt_sigreturn.
TEXT ·handler(SB), NOSPLIT|NOFRAME, $0
	SUB  $16, RSP
	MOVD R0, (RSP)
	MOVD $·pipe(SB), R1
	MOVW (R1), R0
	MOVD RSP, R1
	MOVD $1, R2
	MOVD $64, R8 // write
	SVC
	ADD  $16, RSP
	RET

DATA ·handlerPC+0(SB)/8, $·handler(SB)
GLOBL ·handlerPC(SB), NOPTR, $8
