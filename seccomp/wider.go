package seccomp

import "slices"

// Wider returns the system calls that the program p lets through in some way in which q doesn't, on every interface that a machine's
// kernel may offer; those of another than the machine's own as "i386 ptrace". Both are programs that Instructions accepted.
//
// Arguments that make the difference are looked for among the values that the programs themselves compare with, and those beside them,
// one argument at a time: that finds every difference between rules on one argument.
func Wider(p, q []Instruction, arch string) []string {
	var out []string
	abis := machine(arch)
	samples := constants(p, q)
	for k, on := range abis {
		for _, c := range calls {
			if c.nr[on] < 0 || !lets(p, q, uint32(c.nr[on]), on, samples) {
				continue
			}
			name := c.name
			if k > 0 {
				name = abiInfos[on].name + " " + name
			}
			out = append(out, name)
		}
	}
	return out
}

// lets reports whether p allows the call where q doesn't.
func lets(p, q []Instruction, nr uint32, on abi, samples []uint32) bool {
	verdicts := func(prog []Instruction) Outcome {
		f := follower{p: prog, nr: nr, arch: abiInfos[on].audit, seen: make([]bool, len(prog))}
		f.from(0, 0, false)
		return Outcome{Verdicts: f.verdicts}
	}
	some, always := verdicts(p).Allowed()
	otherSome, otherAlways := verdicts(q).Allowed()
	switch {
	case !some || otherAlways:
		return false
	case !otherSome || always:
		return true
	}
	// It depends on the arguments in both.
	for word := range 12 { // two words for each of six arguments
		for _, value := range samples {
			data := [16]uint32{nr, abiInfos[on].audit}
			data[4+word] = value
			if passes(p, data) && !passes(q, data) {
				return true
			}
		}
	}
	return false
}

// constants are the values worth trying: those that the programs compare with, their neighbours, and no bits and all.
func constants(programs ...[]Instruction) []uint32 {
	out := []uint32{0, ^uint32(0)}
	for _, p := range programs {
		for _, ins := range p {
			switch ins.Op {
			case opJeq, opJgt, opJge, opJset, opAnd:
				out = append(out, ins.K-1, ins.K, ins.K+1)
				for bit := ins.K; bit != 0; bit &= bit - 1 { // each bit of a mask alone
					out = append(out, bit&-bit)
				}
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// passes runs a program on struct seccomp_data, given as 32-bit words in the order of the kernel's layout on a little-endian machine.
func passes(p []Instruction, data [16]uint32) bool {
	a := uint32(0)
	for pc := 0; ; pc++ {
		ins := p[pc]
		holds := false
		switch ins.Op {
		case opLoad:
			a = data[ins.K/4]
			continue
		case opAnd:
			a &= ins.K
			continue
		case opJump:
			pc += int(ins.K)
			continue
		case opRet:
			return ins.K&0xffff0000 == retAllow || ins.K&0xffff0000 == retLog
		case opJeq:
			holds = a == ins.K
		case opJgt:
			holds = a > ins.K
		case opJge:
			holds = a >= ins.K
		case opJset:
			holds = a&ins.K != 0
		}
		if holds {
			pc += int(ins.Jt)
		} else {
			pc += int(ins.Jf)
		}
	}
}
