package seccomp

import "math"

// Instruction is one classic BPF instruction, laid out as the kernel's struct sock_filter: Jt and Jf are how many
// instructions a conditional jump skips when its test holds and when it does not.
type Instruction struct {
	Op     uint16
	Jt, Jf uint8
	K      uint32
}

// The operation codes in use (linux/bpf_common.h). A filter has one register, A.
const (
	opLoad = 0x20 // BPF_LD|BPF_W|BPF_ABS: A = the 32-bit word at offset K of struct seccomp_data
	opAnd  = 0x54 // BPF_ALU|BPF_AND|BPF_K: A &= K
	opJump = 0x05 // BPF_JMP|BPF_JA: skip K instructions
	opJeq  = 0x15 // BPF_JMP|BPF_JEQ|BPF_K: A == K
	opJgt  = 0x25 // BPF_JMP|BPF_JGT|BPF_K: A > K
	opJge  = 0x35 // BPF_JMP|BPF_JGE|BPF_K: A >= K
	opJset = 0x45 // BPF_JMP|BPF_JSET|BPF_K: A & K != 0
	opRet  = 0x06 // BPF_RET|BPF_K: the verdict is K
)

// Offsets in struct seccomp_data (linux/seccomp.h). All supported machines are little endian: the low word of an
// argument comes first.
const (
	offNr   = 0
	offArch = 4
	offArgs = 16
)

// label names a place in the program by its distance from the end, which does not change while code is put in front.
type label int

// assembler builds a program from its last instruction to its first. Jumps of classic BPF only go forward, so that
// way every target exists before a jump to it is written, and a jump too long for eight bits is known at once.
type assembler struct {
	reversed []Instruction
	rets     []ret
}

type ret struct {
	verdict uint32
	at      label
}

func (a *assembler) put(i Instruction) label {
	a.reversed = append(a.reversed, i)
	return label(len(a.reversed))
}

// skip is the jump offset to l of an instruction that is put next.
func (a *assembler) skip(l label) int { return len(a.reversed) - int(l) }

// verdict returns a place that returns v, a near one if there is one. The limit leaves room for what the caller puts
// between here and its jump.
func (a *assembler) verdict(v uint32) label {
	for i := range a.rets {
		if r := &a.rets[i]; r.verdict == v {
			if a.skip(r.at) > 250 {
				r.at = a.put(Instruction{Op: opRet, K: v})
			}
			return r.at
		}
	}
	l := a.put(Instruction{Op: opRet, K: v})
	a.rets = append(a.rets, ret{v, l})
	return l
}

// near returns l, or a place close by that jumps to l, for an instruction that follows at most one other.
func (a *assembler) near(l label) label {
	if a.skip(l) < 255 {
		return l
	}
	return a.put(Instruction{Op: opJump, K: uint32(a.skip(l))})
}

// branch puts a conditional jump to yes or no.
func (a *assembler) branch(op uint16, k uint32, yes, no label) label {
	yes = a.near(yes)
	no = a.near(no)
	return a.put(Instruction{Op: op, Jt: uint8(a.skip(yes)), Jf: uint8(a.skip(no)), K: k})
}

// load puts a load that continues at then.
func (a *assembler) load(offset uint32, then label) label {
	if a.skip(then) != 0 {
		a.put(Instruction{Op: opJump, K: uint32(a.skip(then))})
	}
	return a.put(Instruction{Op: opLoad, K: offset})
}

// mask puts A &= k that continues at then, which must be the instruction put last.
func (a *assembler) mask(k uint32) label { return a.put(Instruction{Op: opAnd, K: k}) }

// program returns the instructions in the order of execution.
func (a *assembler) program() []Instruction {
	p := make([]Instruction, len(a.reversed))
	for i, ins := range a.reversed {
		p[len(p)-1-i] = ins
	}
	return p
}

// A comparison is one condition on an argument.
type comparison struct {
	arg  uint8
	op   relation
	mask uint64 // relMasked only
	val  uint64
}

type relation uint8

const (
	relNE relation = iota
	relLT
	relLE
	relEQ
	relGE
	relGT
	relMasked
)

// oneOf puts the question whether an argument is in one of some sorted ranges: both its words are loaded once for all of them.
func (a *assembler) oneOf(arg uint8, ranges [][2]uint32, narrow bool, yes, no label) label {
	next := no
	for _, r := range ranges { // the highest is asked for first, so that what is not below a range and not in it is in none
		if r[0] == r[1] {
			next = a.branch(opJeq, r[0], yes, next)
			continue
		}
		in := yes
		if r[1] != math.MaxUint32 {
			in = a.branch(opJgt, r[1], no, yes)
		}
		if r[0] == 0 {
			next = in
		} else {
			next = a.branch(opJge, r[0], in, next)
		}
	}
	offset := uint32(offArgs + 8*int(arg))
	l := a.load(offset, next)
	if narrow {
		return l
	}
	return a.load(offset+4, a.branch(opJeq, 0, l, no))
}

// compare puts a comparison. The words of the argument are compared one after the other, the upper one first; on a
// narrow abi only the lower one is looked at.
func (a *assembler) compare(c comparison, narrow bool, yes, no label) label {
	switch c.op {
	case relNE:
		c.op, yes, no = relEQ, no, yes
	case relLT:
		c.op, yes, no = relGE, no, yes
	case relLE:
		c.op, yes, no = relGT, no, yes
	}
	low, high := uint32(c.val), uint32(c.val>>32)
	offset := uint32(offArgs + 8*int(c.arg))
	switch c.op {
	case relEQ:
		l := a.load(offset, a.branch(opJeq, low, yes, no))
		if narrow {
			return l
		}
		return a.load(offset+4, a.branch(opJeq, high, l, no))
	case relMasked:
		a.branch(opJeq, low, yes, no)
		l := a.load(offset, a.mask(uint32(c.mask)))
		highMask := uint32(c.mask >> 32)
		if narrow || highMask == 0 { // nothing to see in the upper word
			return l
		}
		a.branch(opJeq, high, l, no)
		return a.load(offset+4, a.mask(highMask))
	}
	op := uint16(opJgt)
	if c.op == relGE {
		op = opJge
	}
	l := a.load(offset, a.branch(op, low, yes, no))
	if narrow {
		return l
	}
	equal := a.branch(opJeq, high, l, no)
	return a.load(offset+4, a.branch(opJgt, high, yes, equal))
}
