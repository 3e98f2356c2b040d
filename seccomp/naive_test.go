package seccomp

import (
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// data is struct seccomp_data, without the instruction pointer.
type data struct {
	nr, arch uint32
	args     [6]uint64
}

func (d data) String() string { return fmt.Sprintf("{arch %#x nr %#x args %#x}", d.arch, d.nr, d.args) }

// check refuses what the kernel's seccomp_check_filter and bpf_check_classic refuse, as far as it concerns the
// instructions in use here.
func check(p []Instruction) error {
	if len(p) == 0 || len(p) > 4096 {
		return fmt.Errorf("%d instructions", len(p))
	}
	for i, ins := range p {
		room := uint64(len(p) - i - 1)
		switch ins.Op {
		case opLoad:
			if ins.K%4 != 0 || ins.K >= 64 {
				return fmt.Errorf("%d: load from %d", i, ins.K)
			}
		case opJump:
			if uint64(ins.K) >= room {
				return fmt.Errorf("%d: jump outside", i)
			}
		case opJeq, opJgt, opJge, opJset:
			if uint64(ins.Jt) >= room || uint64(ins.Jf) >= room {
				return fmt.Errorf("%d: branch outside", i)
			}
		case opAnd, opRet:
		default:
			return fmt.Errorf("%d: operation %#x", i, ins.Op)
		}
	}
	if p[len(p)-1].Op != opRet {
		return fmt.Errorf("the last instruction is no return")
	}
	return nil
}

// run is a BPF interpreter, for programs that passed check.
func run(p []Instruction, d data) uint32 {
	var a uint32
	for pc := 0; ; pc++ {
		ins := p[pc]
		holds := false
		switch ins.Op {
		case opLoad:
			switch {
			case ins.K == 0:
				a = d.nr
			case ins.K == 4:
				a = d.arch
			case ins.K < 16:
				panic("instruction pointer")
			default:
				a = uint32(d.args[(ins.K-16)/8] >> (8 * (ins.K % 8)))
			}
			continue
		case opAnd:
			a &= ins.K
			continue
		case opJump:
			pc += int(ins.K)
			continue
		case opRet:
			return ins.K
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

// naive answers for one call by reading the profile, in the words of Compile's comment and with none of its code but
// the table of numbers.
type naive struct {
	p     *specs.LinuxSeccomp
	names map[string][abiCount]int32
	archs map[string]bool
	max   [abiCount]int64 // largest ordinary number named, -1 for none
	priv  int64
}

func newNaive(p *specs.LinuxSeccomp, goarch string) *naive {
	n := &naive{p: p, names: map[string][abiCount]int32{}, archs: map[string]bool{}, priv: -1}
	for _, c := range calls {
		n.names[c.name] = c.nr
	}
	for _, a := range p.Architectures {
		n.archs[string(a)] = true
	}
	n.archs[map[string]string{"amd64": "SCMP_ARCH_X86_64", "arm64": "SCMP_ARCH_AARCH64"}[goarch]] = true
	for on := range abi(abiCount) {
		n.max[on] = -1
		for _, s := range p.Syscalls {
			for _, name := range s.Names {
				row, ok := n.names[name]
				if !ok {
					continue
				}
				nr := int64(row[on])
				if on == abiARM && nr >= 0xf0000 {
					n.priv = max(n.priv, nr)
					continue
				}
				n.max[on] = max(n.max[on], nr)
				if mux, _ := muxed(name); on == abi386 && mux != "" {
					if len(s.Args) == 0 || less(naiveVerdict(s.Action, s.ErrnoRet), naiveVerdict(p.DefaultAction, p.DefaultErrnoRet)) {
						n.max[on] = max(n.max[on], int64(n.names[mux][on]))
					}
				}
			}
		}
	}
	return n
}

// less is the kernel's order of severity.
func less(a, b uint32) bool { return int32(a&0xffff0000) < int32(b&0xffff0000) }

func naiveVerdict(a specs.LinuxSeccompAction, errno *uint) uint32 {
	e := uint32(1)
	if errno != nil {
		e = uint32(*errno)
	}
	switch a {
	case "SCMP_ACT_KILL_PROCESS":
		return 0x80000000
	case "SCMP_ACT_TRAP":
		return 0x30000
	case "SCMP_ACT_ERRNO":
		return 0x50000 + e
	case "SCMP_ACT_NOTIFY":
		return 0x7fc00000
	case "SCMP_ACT_TRACE":
		return 0x7ff00000 + e
	case "SCMP_ACT_LOG":
		return 0x7ffc0000
	case "SCMP_ACT_ALLOW":
		return 0x7fff0000
	}
	return 0
}

func (n *naive) verdict(goarch string, d data) uint32 {
	def := naiveVerdict(n.p.DefaultAction, n.p.DefaultErrnoRet)
	var on abi
	nr := int64(d.nr)
	switch {
	case goarch == "amd64" && d.arch == 0xc000003e && d.nr&0x40000000 == 0:
		on = abiAMD64
	case goarch == "amd64" && d.arch == 0xc000003e && n.archs["SCMP_ARCH_X32"]:
		on, nr = abiX32, int64(d.nr&^0x40000000)
	case goarch == "amd64" && d.arch == 0xc000003e && d.nr == 0xffffffff:
		return def
	case goarch == "amd64" && d.arch == 0x40000003 && n.archs["SCMP_ARCH_X86"]:
		on = abi386
	case goarch == "arm64" && d.arch == 0xc00000b7:
		on = abiARM64
	case goarch == "arm64" && d.arch == 0x40000028 && n.archs["SCMP_ARCH_ARM"]:
		on = abiARM
	default:
		return 0
	}

	denies := def < 0x7ff00000 || def == 0x80000000
	newer := n.max[on] > 0 && nr > n.max[on]
	if on == abiARM && nr >= 0xf0000 && n.priv >= 0 {
		newer = nr > n.priv
	}
	if denies && newer {
		return 0x50000 + 38
	}

	var first *uint32
	for _, s := range n.p.Syscalls {
		v := naiveVerdict(s.Action, s.ErrnoRet)
		if v == def {
			continue
		}
		for _, name := range s.Names {
			row, ok := n.names[name]
			if !ok {
				continue
			}
			if int64(row[on]) == nr {
				if len(s.Args) == 0 {
					return v
				}
				if first == nil && n.holds(s.Args, d, on == abi386 || on == abiARM) {
					first = &v
				}
			}
			if on != abi386 {
				continue
			}
			mux, sub := muxed(name)
			if mux == "" || int64(n.names[mux][on]) != nr || len(s.Args) > 0 && !less(v, def) {
				continue
			}
			is := uint32(d.args[0])
			if mux == "ipc" {
				is &= 0xffff
			}
			if is == sub && first == nil {
				first = &v
			}
		}
	}
	if first != nil {
		return *first
	}
	return def
}

func (n *naive) holds(args []specs.LinuxSeccompArg, d data, narrow bool) bool {
	count := map[uint]int{}
	twice := false
	for _, a := range args {
		count[a.Index]++
		twice = twice || count[a.Index] > 1
	}
	all, some := true, false
	for _, a := range args {
		x, v, w := d.args[a.Index], a.Value, a.ValueTwo
		if narrow {
			x, v, w = x&0xffffffff, v&0xffffffff, w&0xffffffff
		}
		var h bool
		switch a.Op {
		case "SCMP_CMP_NE":
			h = x != v
		case "SCMP_CMP_LT":
			h = x < v
		case "SCMP_CMP_LE":
			h = x <= v
		case "SCMP_CMP_EQ":
			h = x == v
		case "SCMP_CMP_GE":
			h = x >= v
		case "SCMP_CMP_GT":
			h = x > v
		case "SCMP_CMP_MASKED_EQ":
			h = x&v == w&v
		}
		all, some = all && h, some || h
	}
	if twice {
		return some
	}
	return all
}

// audits are the values of seccomp_data.arch worth trying on a machine: its own, its relatives', a stranger.
func audits(goarch string) []uint32 {
	if goarch == "arm64" {
		return []uint32{0xc00000b7, 0x40000028, 0xc000003e}
	}
	return []uint32{0xc000003e, 0x40000003, 0xc00000b7}
}

// numbers are all system call numbers of all abis, and the places around the ends.
func numbers() []uint32 {
	var ns []uint32
	for nr := range uint32(600) {
		ns = append(ns, nr, nr|x32Bit)
	}
	for nr := uint32(0xf0000 - 3); nr < 0xf0000+20; nr++ {
		ns = append(ns, nr)
	}
	return append(ns, 1023, 1024, 0x3fffffff, 0x7fffffff, 0x80000000, 0x80000001, 0xbfffffff, 0xc0000000, 0xfffffffe, 0xffffffff)
}

// values are argument values that could make a difference to a profile.
func values(p *specs.LinuxSeccomp) []uint64 {
	seen := map[uint64]bool{}
	add := func(v uint64) {
		for _, w := range []uint64{v, v + 1, v - 1, v ^ 1<<32, v & 0xffffffff, v | 0xffffffff<<32} {
			seen[w] = true
		}
	}
	for _, s := range p.Syscalls {
		for _, a := range s.Args {
			add(a.Value)
			add(a.ValueTwo)
		}
	}
	for sub := range uint64(25) {
		seen[sub] = true
	}
	seen[0x10015] = true // shmat, version 1
	var vs []uint64
	for v := range seen {
		vs = append(vs, v)
	}
	return vs
}
