package seccomp

import (
	"errors"
	"fmt"
	"slices"
)

// Instructions reads a program as the kernel has it in memory (see Filter.Bytes). It refuses what the kernel would refuse, as
// far as this package's own programs go: other operations, loads and jumps that lead outside, an end that is no return.
func Instructions(b []byte) ([]Instruction, error) {
	if len(b) == 0 || len(b)%8 != 0 || len(b)/8 > MaxInstructions {
		return nil, fmt.Errorf("a filter of %d bytes is none", len(b))
	}
	p := make([]Instruction, len(b)/8)
	for i := range p {
		x := b[8*i:]
		p[i] = Instruction{
			uint16(x[0]) | uint16(x[1])<<8, x[2], x[3],
			uint32(x[4]) | uint32(x[5])<<8 | uint32(x[6])<<16 | uint32(x[7])<<24,
		}
	}
	for i, ins := range p {
		room, ok := uint64(len(p)-i-1), true
		switch ins.Op {
		case opLoad:
			ok = ins.K%4 == 0 && ins.K < 64
		case opJump:
			ok = uint64(ins.K) < room
		case opJeq, opJgt, opJge, opJset:
			ok = uint64(ins.Jt) < room && uint64(ins.Jf) < room
		case opAnd, opRet:
		default:
			return nil, fmt.Errorf("instruction %d: operation %#x is not one that glassbox writes", i, ins.Op)
		}
		if !ok {
			return nil, fmt.Errorf("instruction %d leads out of the program", i)
		}
	}
	if p[len(p)-1].Op != opRet {
		return nil, errors.New("the last instruction is no return")
	}
	return p, nil
}

// Outcome is what a filter can do with one system call of the machine's own interface, whatever its arguments are.
type Outcome struct {
	Name     string
	Number   uint32
	Verdicts []uint32 // the filter's possible answers, each once, sorted
}

// Allowed says whether the call can pass, and whether it can be refused. Both means that it depends on the arguments.
func (o Outcome) Allowed() (sometimes, always bool) {
	always = true
	for _, v := range o.Verdicts {
		if v&0xffff0000 == retAllow || v&0xffff0000 == retLog {
			sometimes = true
		} else {
			always = false
		}
	}
	return sometimes, always && sometimes
}

// Outcomes follows a program (which Instructions accepted) for every system call that the machine's own interface has, sorted
// by name. Numbers and architecture are known, arguments are not: where the program looks at one, both ways are followed.
func Outcomes(p []Instruction, arch string) []Outcome {
	abis := machine(arch)
	if len(abis) == 0 {
		return nil
	}
	on := abis[0]
	var out []Outcome
	for _, c := range calls {
		if c.nr[on] < 0 {
			continue
		}
		f := follower{p: p, nr: uint32(c.nr[on]), arch: abiInfos[on].audit, seen: make([]bool, len(p))}
		f.from(0, 0, false)
		slices.Sort(f.verdicts)
		out = append(out, Outcome{c.name, f.nr, slices.Compact(f.verdicts)})
	}
	return out
}

// follower walks all ways that a program can take for one call.
type follower struct {
	p        []Instruction
	nr, arch uint32
	seen     []bool // places reached with an unknown register
	verdicts []uint32
}

func (f *follower) from(pc int, a uint32, known bool) {
	for {
		if !known {
			if f.seen[pc] {
				return
			}
			f.seen[pc] = true
		}
		ins := f.p[pc]
		holds := false
		switch ins.Op {
		case opLoad:
			switch ins.K {
			case offNr:
				a, known = f.nr, true
			case offArch:
				a, known = f.arch, true
			default:
				known = false
			}
			pc++
			continue
		case opAnd:
			a &= ins.K
			pc++
			continue
		case opJump:
			pc += 1 + int(ins.K)
			continue
		case opRet:
			f.verdicts = append(f.verdicts, ins.K)
			return
		case opJeq:
			holds = a == ins.K
		case opJgt:
			holds = a > ins.K
		case opJge:
			holds = a >= ins.K
		case opJset:
			holds = a&ins.K != 0
		}
		if !known {
			f.from(pc+1+int(ins.Jt), a, false)
			pc += 1 + int(ins.Jf)
			continue
		}
		if holds {
			pc += 1 + int(ins.Jt)
		} else {
			pc += 1 + int(ins.Jf)
		}
	}
}
