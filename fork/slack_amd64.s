#include "textflag.h"

// lateTimers is called by the first instructions of programs, before there is a Go runtime. It leaves R12 to R15 as they are.
//
// prctl(PR_GET_TIMERSLACK), prctl(PR_SET_TIMERSLACK, 1 ms): see timerSlack. A larger one stays.
TEXT ·lateTimers(SB), NOSPLIT|NOFRAME, $0
	MOVL $30, DI
	MOVL $157, AX
	SYSCALL
	CMPQ AX, $0
	JLE  done
	CMPQ AX, $1000000
	JGE  done
	MOVQ AX, ·timerSlack(SB)
	MOVL $29, DI
	MOVL $1000000, SI
	MOVL $157, AX
	SYSCALL

done:
	RET
