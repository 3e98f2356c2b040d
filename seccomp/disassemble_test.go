package seccomp

import (
	"fmt"
	"strings"
)

// disassemble writes a program out for a reader, one instruction a line, with the names of architectures, system calls
// and verdicts where they can be told from the program alone; arch is a GOARCH. It takes any program, also one that the
// kernel would refuse.
//
//	0011  unless nr >= 41 goto 0134 [ALLOW]                          ; 0-40 read write open close +37
//	; socket
//	0012  load arg0.high
//	0013  if arg0.high > 0 goto 0017
//
// A branch that continues at the next line does not say so. In brackets is the verdict at the place a jump leads to,
// and after the semicolon are the calls that get it.
func disassemble(program []Instruction, arch string) string {
	d := disassembler{program: program, abis: machine(arch), current: abiCount}
	d.names()
	d.trace()
	var b strings.Builder
	fmt.Fprintf(&b, "; seccomp filter for %s, %d instructions\n", arch, len(program))
	for i := range program {
		d.line(&b, i)
	}
	return b.String()
}

type disassembler struct {
	program []Instruction
	abis    []abi
	name    [abiCount]map[uint32]string
	at      []state
	current abi // of the last heading
}

// A holds: what the program has put into its register.
type holds uint8

const (
	unclear holds = iota
	theNr
	theArch
	anArg // the word at state.offset
)

// state is what is known at an instruction, whatever way led there.
type state struct {
	reached bool
	a       holds
	offset  uint32
	mask    uint32 // of the register, 0 if none was applied
	abis    uint8  // bit set of abi that are possible
	lo, hi  uint32 // possible numbers
}

func (d *disassembler) names() {
	for _, on := range d.abis {
		m := make(map[uint32]string, len(calls))
		for _, c := range calls {
			nr := uint32(c.nr[on])
			if c.nr[on] < 0 {
				continue
			}
			if on == abiX32 {
				nr |= x32Bit
			}
			if other := m[nr]; other != "" {
				m[nr] = other + "/" + c.name
			} else {
				m[nr] = c.name
			}
		}
		d.name[on] = m
	}
}

// trace follows every way through the program once: jumps go forward, so one pass is enough.
func (d *disassembler) trace() {
	d.at = make([]state, len(d.program)+1)
	first := state{reached: true, hi: noCall}
	for _, on := range d.abis {
		first.abis |= 1 << on
	}
	d.at[0] = first
	for i, ins := range d.program {
		s := d.at[i]
		if !s.reached {
			continue
		}
		switch ins.Op {
		case opLoad:
			s.mask, s.offset = 0, ins.K
			switch {
			case ins.K == offNr:
				s.a = theNr
			case ins.K == offArch:
				s.a = theArch
			case ins.K >= offArgs:
				s.a = anArg
			default:
				s.a = unclear
			}
			d.join(i+1, s)
		case opAnd:
			s.mask = ins.K
			d.join(i+1, s)
		case opJump:
			d.join(after(i, ins.K), s)
		case opRet:
		case opJeq, opJgt, opJge, opJset:
			yes, no := d.split(s, ins)
			d.join(after(i, uint32(ins.Jt)), yes)
			d.join(after(i, uint32(ins.Jf)), no)
		default:
			s.a = unclear
			d.join(i+1, s)
		}
	}
}

func after(i int, skip uint32) int { return int(min(int64(i)+1+int64(skip), 1<<30)) }

// split returns what is known after a test held, and after it failed.
func (d *disassembler) split(s state, ins Instruction) (yes, no state) {
	yes, no = s, s
	if s.mask != 0 {
		return yes, no
	}
	switch s.a {
	case theArch:
		if ins.Op == opJeq {
			for on := range abi(abiCount) {
				if abiInfos[on].audit == ins.K {
					no.abis &^= 1 << on
				} else {
					yes.abis &^= 1 << on
				}
			}
		}
	case theNr:
		switch ins.Op {
		case opJeq:
			yes.lo, yes.hi = ins.K, ins.K
		case opJge:
			yes.lo = max(yes.lo, ins.K)
			if ins.K > 0 {
				no.hi = min(no.hi, ins.K-1)
			}
		case opJgt:
			if ins.K < noCall {
				yes.lo = max(yes.lo, ins.K+1)
			}
			no.hi = min(no.hi, ins.K)
		case opJset:
			if ins.K == x32Bit {
				yes.abis &= 1 << abiX32
				yes.lo = max(yes.lo, x32Bit)
				no.abis &^= 1 << abiX32
			}
		}
	}
	return yes, no
}

// join notes that s can be the case at i.
func (d *disassembler) join(i int, s state) {
	if i > len(d.program) {
		return
	}
	t := &d.at[i]
	if !t.reached {
		*t = s
		return
	}
	if t.a != s.a || t.offset != s.offset || t.mask != s.mask {
		t.a = unclear
	}
	t.abis |= s.abis
	t.lo, t.hi = min(t.lo, s.lo), max(t.hi, s.hi)
}

func (d *disassembler) line(b *strings.Builder, i int) {
	ins, s := d.program[i], d.at[i]
	d.heading(b, i)
	text, note := "", ""
	switch ins.Op {
	case opLoad:
		text = "load " + field(ins.K)
	case opAnd:
		text = fmt.Sprintf("and 0x%x", ins.K)
	case opJump:
		text = "goto " + d.target(after(i, ins.K))
	case opRet:
		text = "return " + verdictName(ins.K)
	case opJeq, opJgt, opJge, opJset:
		text, note = d.test(i, ins, s)
	default:
		text = fmt.Sprintf("unknown instruction op=0x%x jt=%d jf=%d k=0x%x", ins.Op, ins.Jt, ins.Jf, ins.K)
	}
	if !s.reached {
		note = "never reached"
	}
	if note != "" {
		note = " ; " + note
	}
	fmt.Fprintf(b, "%s\n", strings.TrimRight(fmt.Sprintf("%04d  %-58s%s", i, text, note), " "))
}

// heading says which table or which call the lines that follow are about.
func (d *disassembler) heading(b *strings.Builder, i int) {
	ins, s := d.program[i], d.at[i]
	if i == 0 || !s.reached {
		return
	}
	one, known := s.oneABI()
	switch {
	case ins.Op == opRet:
	case ins.Op == opLoad && ins.K == offNr:
		var names []string
		for _, on := range d.abis {
			if s.abis&(1<<on) != 0 {
				names = append(names, abiInfos[on].name)
			}
		}
		fmt.Fprintf(b, "\n; calls of %s\n", strings.Join(names, " and "))
		d.current = one
	case s.a == theNr && known && d.current != one:
		fmt.Fprintf(b, "\n; %s\n", abiInfos[one].name)
		d.current = one
	case ins.Op == opLoad && ins.K >= offArgs && s.a == theNr && s.lo == s.hi && known:
		fmt.Fprintf(b, "; %s\n", d.callName(one, s.lo))
	}
}

func (s state) oneABI() (abi, bool) {
	for on := range abi(abiCount) {
		if s.abis == 1<<on {
			return on, true
		}
	}
	return abiCount, false
}

func (d *disassembler) callName(on abi, nr uint32) string {
	if n := d.name[on][nr]; n != "" {
		return n
	}
	return fmt.Sprintf("no call %d", nr)
}

func field(offset uint32) string {
	switch {
	case offset == offNr:
		return "nr"
	case offset == offArch:
		return "arch"
	case offset >= offArgs && offset < offArgs+6*8 && offset%4 == 0:
		arg := (offset - offArgs) / 8
		if offset%8 == 0 {
			return fmt.Sprintf("arg%d.low", arg)
		}
		return fmt.Sprintf("arg%d.high", arg)
	}
	return fmt.Sprintf("[%d]", offset)
}

func (d *disassembler) test(i int, ins Instruction, s state) (text, note string) {
	what := "A"
	switch s.a {
	case theNr:
		what = "nr"
	case theArch:
		what = "arch"
	case anArg:
		what = field(s.offset)
	}
	if s.mask != 0 {
		what += fmt.Sprintf(" & 0x%x", s.mask)
	}
	op := map[uint16]string{opJeq: "==", opJgt: ">", opJge: ">=", opJset: "&"}[ins.Op]
	value := fmt.Sprintf("0x%x", ins.K)
	switch {
	case s.a == theNr && ins.Op == opJset && ins.K == x32Bit:
		value = "x32 bit"
	case s.a == theNr:
		value = number(ins.K)
	case s.a == theArch && ins.Op == opJeq:
		for on := range abi(abiCount) {
			if abiInfos[on].audit == ins.K {
				value = abiInfos[on].name
				break
			}
		}
	case ins.K < 10:
		value = number(ins.K)
	}
	yes, no := after(i, uint32(ins.Jt)), after(i, uint32(ins.Jf))
	cond := what + " " + op + " " + value
	switch {
	case yes == no:
		text = "goto " + d.target(yes)
	case no == i+1 && !d.isRet(no):
		text = "if " + cond + " goto " + d.target(yes)
	case yes == i+1 && !d.isRet(yes):
		text = "unless " + cond + " goto " + d.target(no)
	default:
		text = "if " + cond + " goto " + d.target(yes) + ", else " + d.target(no)
	}
	if s.a == theNr {
		y, n := d.split(s, ins)
		var notes []string
		if d.isRet(yes) {
			notes = append(notes, d.span(y))
		}
		if d.isRet(no) {
			notes = append(notes, d.span(n))
		}
		note = strings.Join(notes, "; ")
	}
	return text, note
}

// number writes a call's number, without the bit that all of x32 has.
func number(nr uint32) string {
	switch {
	case nr == noCall:
		return "-1"
	case nr&x32Bit != 0 && nr < 2*x32Bit:
		return fmt.Sprintf("x32+%d", nr-x32Bit)
	}
	return fmt.Sprint(nr)
}

// span lists the calls between two numbers.
func (d *disassembler) span(s state) string {
	on, ok := s.oneABI()
	if !ok {
		return ""
	}
	where := number(s.lo)
	switch {
	case s.hi == noCall && s.lo != noCall:
		where += " and up"
	case s.hi != s.lo:
		where += "-" + number(s.hi)
	}
	var names []string
	more := 0
	for nr := s.lo; nr <= s.hi && nr-s.lo < 2000; nr++ {
		if name := d.name[on][nr]; name != "" {
			if len(names) < 4 {
				names = append(names, name)
			} else {
				more++
			}
		}
	}
	text := strings.TrimRight(where+" "+strings.Join(names, " "), " ")
	if more > 0 {
		text += fmt.Sprintf(" +%d", more)
	}
	return text
}

func (d *disassembler) isRet(i int) bool {
	for i < len(d.program) && d.program[i].Op == opJump {
		i = after(i, d.program[i].K)
	}
	return i < len(d.program) && d.program[i].Op == opRet
}

func (d *disassembler) target(i int) string {
	text := fmt.Sprintf("%04d", i)
	for i < len(d.program) && d.program[i].Op == opJump {
		i = after(i, d.program[i].K)
	}
	switch {
	case i >= len(d.program):
		return text + " [outside the program]"
	case d.program[i].Op == opRet:
		return text + " [" + verdictName(d.program[i].K) + "]"
	}
	return text
}

func verdictName(v uint32) string {
	data := v & 0xffff
	switch v & 0xffff0000 {
	case retKillProcess:
		return "KILL_PROCESS"
	case retKillThread:
		return "KILL_THREAD"
	case retTrap:
		return "TRAP"
	case retErrno:
		if name := errnoName(data); name != "" {
			return fmt.Sprintf("ERRNO %d %s", data, name)
		}
		return fmt.Sprintf("ERRNO %d", data)
	case retNotify:
		return "NOTIFY"
	case retTrace:
		return fmt.Sprintf("TRACE %d", data)
	case retLog:
		return "LOG"
	case retAllow:
		return "ALLOW"
	}
	return fmt.Sprintf("0x%08x", v)
}
