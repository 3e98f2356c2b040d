package seccomp

import (
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// source makes profiles out of bytes, for the fuzzer and for a random generator alike.
type source []byte

func (s *source) next() int {
	if len(*s) == 0 {
		return 0
	}
	b := (*s)[0]
	*s = (*s)[1:]
	return int(b)
}

func (s *source) value() uint64 {
	switch s.next() % 6 {
	case 0:
		return uint64(s.next())
	case 1:
		return ^uint64(s.next())
	case 2:
		return uint64(s.next())<<32 | uint64(s.next())
	case 3:
		return 1<<(s.next()%64) - 1
	case 4:
		return uint64(s.next())<<56 | uint64(s.next())<<28 | uint64(s.next())
	}
	return 0xffffffff
}

func (s *source) action() (specs.LinuxSeccompAction, *uint) {
	errno := uint(s.next() % 45)
	switch s.next() % 10 {
	case 0:
		return specs.ActKill, nil
	case 1:
		return specs.ActKillProcess, nil
	case 2:
		return specs.ActTrap, nil
	case 3:
		return specs.ActErrno, nil
	case 4, 5:
		return specs.ActErrno, &errno
	case 6:
		return specs.ActTrace, &errno
	case 7:
		return specs.ActLog, nil
	case 8:
		return specs.ActKillThread, nil
	}
	return specs.ActAllow, nil
}

func (s *source) profile() (p *specs.LinuxSeccomp, goarch string) {
	p, goarch = &specs.LinuxSeccomp{}, "amd64"
	p.DefaultAction, p.DefaultErrnoRet = s.action()
	archs := s.next()
	if archs&1 != 0 {
		goarch = "arm64"
	}
	for i, a := range []specs.Arch{specs.ArchX32, specs.ArchX86, specs.ArchARM, specs.ArchX86_64, specs.ArchRISCV64} {
		if archs&(2<<i) != 0 {
			p.Architectures = append(p.Architectures, a)
		}
	}
	few := []string{
		"socket", "accept", "socketcall", "ipc", "shmat", "clone", "breakpoint", "set_tls", "rseq_slice_yield", "nonsense",
		"riscv_hwprobe",
	}
	for len(*s) > 0 && len(p.Syscalls) < 60 {
		var rule specs.LinuxSyscall
		for range 1 + s.next()%4 {
			if k := s.next(); k < 64 {
				rule.Names = append(rule.Names, few[k%len(few)])
			} else {
				rule.Names = append(rule.Names, calls[(k*256+s.next())%len(calls)].name)
			}
		}
		rule.Action, rule.ErrnoRet = s.action()
		if k := s.next(); k%3 == 0 {
			for range 1 + k/3%4 {
				ops := []specs.LinuxSeccompOperator{
					specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual,
				}
				rule.Args = append(rule.Args, specs.LinuxSeccompArg{
					Index: uint(s.next() % 6), Op: ops[s.next()%len(ops)], Value: s.value(), ValueTwo: s.value(),
				})
			}
		}
		p.Syscalls = append(p.Syscalls, rule)
	}
	return p, goarch
}

// some returns a few of the values, always the same ones.
func some(vals []uint64, n int) []uint64 {
	slices.Sort(vals)
	if len(vals) <= n {
		return vals
	}
	out := make([]uint64, n)
	for i := range out {
		out[i] = vals[i*len(vals)/n]
	}
	return out
}

func TestRandomProfilesAgainstNaive(t *testing.T) {
	nrs := numbers()
	all, archs := randomProfiles(60)
	for seed, p := range all {
		goarch := archs[seed]
		// Every number once, and those the profile knows with arguments: agree sees to that.
		agree(t, p, goarch, nrs, some(values(p), 25))
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func FuzzCompile(f *testing.F) {
	f.Add([]byte("glassbox"), uint32(0), uint64(0), uint64(0))
	f.Add([]byte{4, 0xff, 3, 0, 2, 40, 0, 9, 3, 0, 6, 2, 1, 1}, uint32(41), uint64(1), uint64(1)<<32)
	f.Fuzz(func(t *testing.T, profile []byte, nr uint32, x, y uint64) {
		s := source(profile)
		p, goarch := s.profile()
		agree(t, p, goarch, []uint32{nr, nr % 600, nr%600 | x32Bit, 0, 102, 117}, append(some(values(p), 8), x, y))
	})
}
