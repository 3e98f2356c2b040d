#include "textflag.h"

// func prlimit() (soft, hard uint64)
//
// The two results lie side by side like struct rlimit64, so the kernel writes them in place.
TEXT ·prlimit(SB), NOSPLIT, $0-16
	MOVD ZR, soft+0(FP)
	MOVD ZR, hard+8(FP)
	MOVD $0, R0           // this process
	MOVD $7, R1           // RLIMIT_NOFILE
	MOVD $0, R2           // no new limit
	MOVD $soft+0(FP), R3
	MOVD $261, R8         // prlimit64
	SVC
	RET
