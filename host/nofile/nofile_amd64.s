#include "textflag.h"

// func prlimit() (soft, hard uint64)
//
// The two results lie side by side like struct rlimit64, so the kernel writes them in place.
TEXT ·prlimit(SB), NOSPLIT, $0-16
	MOVQ $0, soft+0(FP)
	MOVQ $0, hard+8(FP)
	MOVQ $0, DI           // this process
	MOVQ $7, SI           // RLIMIT_NOFILE
	MOVQ $0, DX           // no new limit
	LEAQ soft+0(FP), R10
	MOVQ $302, AX         // prlimit64
	SYSCALL
	RET
