package explain

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"glassbox/plan"
)

// Accesses and types of devices, as a program of the type BPF_PROG_TYPE_CGROUP_DEVICE gets them (linux/bpf.h, BPF_DEVCG_*).
const (
	deviceMknod, deviceRead, deviceWrite = 1, 2, 4
	blockDevice, charDevice              = 1, 2
)

// asked is what the kernel asks such a program about.
type asked struct{ kind, access, major, minor uint32 }

// filterRules are the rules of a device filter as its program applies them. The rules beside it are for readers, and a plan from
// elsewhere may say there what it likes: what the program allows beyond them is added.
func filterRules(o *plan.DeviceFilter) []string {
	rules := append([]string{}, o.Rules...)
	majors, minors := numbers(o)
	for _, kind := range []uint32{charDevice, blockDevice} {
		for _, major := range majors {
			for _, minor := range minors {
				ways := ""
				for _, a := range []struct {
					bit  uint32
					word string
				}{{deviceRead, "r"}, {deviceWrite, "w"}, {deviceMknod, "m"}} {
					yes, err := runDevices(o.Program, asked{kind, a.bit, major, minor})
					if err != nil {
						return append(rules, "allow a *:* rwm") // it can't be followed: nothing is called safer than it is
					}
					if yes && !ruled(o.Rules, asked{kind, a.bit, major, minor}) {
						ways += a.word
					}
				}
				if ways != "" {
					rules = append(rules, fmt.Sprintf("allow %c %s:%s %s", " bc"[kind], star(major), star(minor), ways))
				}
			}
		}
	}
	return rules
}

// unlisted is a number that no program and no rule names: what goes for it goes for every other one, too.
const unlisted = 0xfffff

func star(n uint32) string {
	if n == unlisted {
		return "*"
	}
	return fmt.Sprint(n)
}

// numbers are the device numbers that the rules or the program make a difference for, and one that stands for all others.
func numbers(o *plan.DeviceFilter) (majors, minors []uint32) {
	for _, r := range o.Rules {
		f := strings.Fields(r)
		if len(f) != 4 {
			continue
		}
		var major, minor uint32
		if n, _ := fmt.Sscanf(f[2], "%d:%d", &major, &minor); n == 2 {
			minors = append(minors, minor)
		}
		majors = append(majors, major)
	}
	for i := 0; i+8 <= len(o.Program); i += 8 {
		if op := o.Program[i]; op == 0x55 || op == 0x15 { // compared with: either of the two
			n := binary.LittleEndian.Uint32(o.Program[i+4:])
			majors, minors = append(majors, n), append(minors, n)
		}
	}
	clean := func(s []uint32) []uint32 {
		s = append(s, unlisted)
		slices.Sort(s)
		return slices.Compact(s)
	}
	return clean(majors), clean(minors)
}

// ruled says what the rules in words answer; the last that matches counts, and no rule is no.
func ruled(rules []string, a asked) bool {
	for _, r := range slices.Backward(rules) {
		f := strings.Fields(r)
		if len(f) == 2 && f[1] == "a" {
			return f[0] == "allow"
		}
		if len(f) != 4 {
			continue
		}
		way := map[uint32]string{deviceRead: "r", deviceWrite: "w", deviceMknod: "m"}[a.access]
		entry := fmt.Sprintf("%c %s:%s %s", " bc"[a.kind], star(a.major), star(a.minor), way)
		if strings.Contains(f[3], way) && deviceCovers(f[1]+" "+f[2]+" "+way, entry) {
			return f[0] == "allow"
		}
	}
	return false
}

// runDevices runs a device program: the operations that glassbox writes (cgroup/devices.go), with 32-bit registers.
func runDevices(code []byte, a asked) (bool, error) {
	var r [11]uint32
	// The kernel's verifier lets no loop without end in; a program from elsewhere hasn't met it yet.
	for pc, steps := 0, 0; steps < 1<<16; steps++ {
		if pc < 0 || 8*pc+8 > len(code) {
			return false, fmt.Errorf("instruction %d lies outside of the program", pc)
		}
		ins := code[8*pc:]
		dst, src := ins[1]&15, ins[1]>>4
		off, imm := int(int16(binary.LittleEndian.Uint16(ins[2:]))), binary.LittleEndian.Uint32(ins[4:])
		if dst > 10 || src > 10 {
			return false, fmt.Errorf("instruction %d: no such register", pc)
		}
		pc++
		switch ins[0] {
		case 0x61: // load a word of the question
			words := map[int]uint32{0: a.access<<16 | a.kind, 4: a.major, 8: a.minor}
			word, ok := words[off]
			if !ok || src != 1 {
				return false, fmt.Errorf("instruction %d reads something else than the device", pc-1)
			}
			r[dst] = word
		case 0xb4, 0xb7:
			r[dst] = imm
		case 0xbc, 0xbf:
			r[dst] = r[src]
		case 0x54, 0x57:
			r[dst] &= imm
		case 0x74, 0x77:
			// As the processor does it: only the lowest five bits of the count are looked at.
			r[dst] >>= imm & 31
		case 0x05:
			pc += off
		case 0x15:
			if r[dst] == imm {
				pc += off
			}
		case 0x55:
			if r[dst] != imm {
				pc += off
			}
		case 0x95:
			return r[0] != 0, nil
		default:
			return false, fmt.Errorf("instruction %d: operation %#x is not one that glassbox writes", pc-1, ins[0])
		}
	}
	return false, fmt.Errorf("it doesn't end")
}
