#include "textflag.h"

// entry is where the kernel starts this program; see entry_amd64.s. R19 is argc, R20 argv.
TEXT ·entry(SB), NOSPLIT|NOFRAME, $0
	MOVD 0(RSP), R19
	ADD  $8, RSP, R20
	MOVD $1, R21

next:
	CMP   R19, R21
	BGE   start
	MOVD  (R20)(R21<<3), R1
	ADD   $1, R21
	MOVWU (R1), R2
	MOVD  $0x006e7572, R3 // "run\0"
	CMPW  R3, R2
	BEQ   late
	MOVD  $0x63657865, R3 // "exec"
	CMPW  R3, R2
	BEQ   exec
	MOVD  $0x72617473, R3 // "star"
	CMPW  R3, R2
	BEQ   star
	MOVD  $0x61657263, R3 // "crea"
	CMPW  R3, R2
	BNE   next
	MOVWU 3(R1), R2
	MOVD  $0x00657461, R3 // "ate\0"
	CMPW  R3, R2
	BEQ   late
	B     next

exec:
	MOVBU 4(R1), R2
	CBZ   R2, late
	B     next

star:
	MOVHU 4(R1), R2
	MOVD  $0x0074, R3 // "t\0"
	CMPW  R3, R2
	BNE   next

late:
	CALL glassbox∕fork·lateTimers(SB)

start:
	B _rt0_arm64_linux(SB)
