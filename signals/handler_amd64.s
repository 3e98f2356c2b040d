#include "textflag.h"

// handler runs in whatever thread a signal finds, on its signal stack, with the conventions of C: the number is in DI. It may change
// nothing but what a system call does, and calls nothing.
TEXT ·handler(SB), NOSPLIT|NOFRAME, $0
	SUBQ $24, SP
	MOVQ DI, 8(SP)
	MOVL ·pipe(SB), DI
	LEAQ 8(SP), SI
	MOVL $1, DX
	MOVL $1, AX // write
	SYSCALL
	ADDQ $24, SP
	RET

// restorer is where handler returns to.
TEXT ·restorer(SB), NOSPLIT|NOFRAME, $0
	MOVL $15, AX // rt_sigreturn
	SYSCALL
	INT $3

DATA ·handlerPC+0(SB)/8, $·handler(SB)
GLOBL ·handlerPC(SB), NOPTR, $8
DATA ·restorerPC+0(SB)/8, $·restorer(SB)
GLOBL ·restorerPC(SB), NOPTR, $8
