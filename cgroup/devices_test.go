package cgroup

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// runDeviceProgram interprets the eBPF instructions that deviceProgram uses, and no others.
func runDeviceProgram(program []byte, kind, access, major, minor uint32) (uint64, error) {
	ctx := map[int16]uint32{0: access<<16 | kind, 4: major, 8: minor}
	var reg [11]uint64
	n := len(program) / 8
	for pc := 0; pc < n; pc++ {
		in := program[pc*8:]
		dst, src := in[1]&15, in[1]>>4
		off := int16(binary.LittleEndian.Uint16(in[2:]))
		imm := int32(binary.LittleEndian.Uint32(in[4:]))
		jump := false
		switch in[0] {
		case 0x61:
			v, ok := ctx[off]
			if !ok || src != 1 {
				return 0, fmt.Errorf("instruction %d: load from r%d+%d", pc, src, off)
			}
			reg[dst] = uint64(v)
		case 0xb4:
			reg[dst] = uint64(uint32(imm))
		case 0xbc:
			reg[dst] = uint64(uint32(reg[src]))
		case 0x54:
			reg[dst] = uint64(uint32(reg[dst]) & uint32(imm))
		case 0x74:
			reg[dst] = uint64(uint32(reg[dst]) >> imm)
		case 0x55:
			jump = reg[dst] != uint64(int64(imm))
		case 0x15:
			jump = reg[dst] == uint64(int64(imm))
		case 0x95:
			return reg[0], nil
		default:
			return 0, fmt.Errorf("instruction %d: unknown opcode %#x", pc, in[0])
		}
		if jump {
			if off < 0 {
				return 0, fmt.Errorf("instruction %d jumps back", pc)
			}
			pc += int(off)
		}
	}
	return 0, fmt.Errorf("ran past the end")
}

// allowed is the meaning of a list of rules: for each kind of access, the last rule that names it decides.
func allowed(rules []rule, kind, access, major, minor uint32) bool {
	for bit := uint32(1); bit < 8; bit <<= 1 {
		if access&bit == 0 {
			continue
		}
		ok := false
		for _, r := range rules {
			named := r.kind == 'a' || r.kind == 'b' && kind == 1 || r.kind == 'c' && kind == 2
			if named && meets(r.major, int64(major)) && meets(r.minor, int64(minor)) && uint32(r.access)&bit != 0 {
				ok = r.allow
			}
		}
		if !ok {
			return false
		}
	}
	return true
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

func randomRules(r *rand.Rand) []rule {
	number := func() int64 { return int64(r.IntN(4)) - 1 }
	rules := make([]rule, r.IntN(8))
	for i := range rules {
		rules[i] = rule{r.IntN(2) == 0, "abc"[r.IntN(3)], number(), number(), uint8(1 + r.IntN(7))}
		if r.IntN(6) == 0 {
			rules[i] = rule{rules[i].allow, 'a', every, every, allAccess}
		}
	}
	return rules
}

// The program and the meaning of the rules agree on every device and access, for random rules.
func TestDeviceProgram(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		rules := randomRules(r)
		program := deviceProgram(rules)
		for kind := uint32(1); kind <= 2; kind++ {
			for access := uint32(1); access < 8; access++ {
				for major := uint32(0); major < 4; major++ {
					for minor := uint32(0); minor < 4; minor++ {
						got, err := runDeviceProgram(program, kind, access, major, minor)
						want := allowed(rules, kind, access, major, minor)
						if err != nil || got > 1 || (got == 1) != want {
							t.Fatalf("rules %v: type %d access %d device %d:%d = %d, %v, want %v", rules, kind, access, major, minor, got, err, want)
						}
					}
				}
			}
		}
	}
}

// v1Devices is the kernel's v1 device cgroup (security/device_cgroup.c), as far as the root's child goes.
type v1Devices struct {
	allow      bool
	exceptions []rule
}

func (d *v1Devices) write(r rule) {
	if r.kind == 'a' {
		d.allow, d.exceptions = r.allow, nil
		return
	}
	for i := range d.exceptions {
		e := &d.exceptions[i]
		if e.kind != r.kind || e.major != r.major || e.minor != r.minor {
			continue
		}
		if r.allow == d.allow {
			e.access &^= r.access
		} else {
			e.access |= r.access
		}
		return
	}
	if r.allow != d.allow {
		d.exceptions = append(d.exceptions, r)
	}
}

func (d *v1Devices) allowed(kind byte, access uint8, major, minor int64) bool {
	for _, e := range d.exceptions {
		if e.kind != kind || !meets(e.major, major) || !meets(e.minor, minor) {
			continue
		}
		if !d.allow && access&^e.access == 0 {
			return true // one exception has to allow all of it
		}
		if d.allow && access&e.access != 0 {
			return false
		}
	}
	return d.allow
}

// What is written on v1 has the meaning of the rules, or is refused. Only single accesses are compared: v1 wants all of "rw"
// from one exception.
func TestDevicesV1(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	accepted := 0
	for range 2000 {
		rules := append([]rule{{kind: 'a', major: every, minor: every, access: allAccess}}, randomRules(r)...)
		var written []rule
		p := &place{w: &writer{origin: pointerItself}, dir: "/d"}
		p.devicesV1(rules, make([]string, len(rules)))
		if len(p.w.errs) > 0 {
			continue
		}
		accepted++
		var kernel v1Devices
		for _, s := range limitsText(p.w.steps) {
			w := parseWritten(t, s)
			written = append(written, w)
			kernel.write(w)
		}
		for _, kind := range []byte{'b', 'c'} {
			for access := uint8(1); access < 8; access <<= 1 {
				for major := range int64(4) {
					for minor := range int64(4) {
						number := map[byte]uint32{'b': 1, 'c': 2}[kind]
						got, want := kernel.allowed(kind, access, major, minor), allowed(rules, number, uint32(access), uint32(major), uint32(minor))
						if got != want {
							t.Fatalf("rules %v written as %v: %c %d:%d access %d: %v, want %v", rules, written, kind, major, minor, access, got, want)
						}
					}
				}
			}
		}
	}
	if accepted < 500 {
		t.Errorf("only %d of 2000 lists were accepted", accepted)
	}
}

// parseWritten parses "devices.allow=c 1:* rw".
func parseWritten(t *testing.T, s string) rule {
	t.Helper()
	file, value, _ := strings.Cut(s, "=")
	fields := strings.FieldsFunc(value, func(r rune) bool { return r == ' ' || r == ':' })
	if len(fields) != 4 {
		t.Fatalf("%q isn't a rule of v1", s)
	}
	d := specs.LinuxDeviceCgroup{Allow: file == "devices.allow", Type: fields[0], Access: fields[3]}
	for i, to := range []**int64{&d.Major, &d.Minor} {
		if n, err := strconv.ParseInt(fields[1+i], 10, 64); err == nil {
			*to = &n
		}
	}
	r, err := parseRule(d)
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return r
}

func TestParseRule(t *testing.T) {
	for _, d := range []specs.LinuxDeviceCgroup{
		{Type: "p"},
		{Access: "rx"},
		{Major: number64[int64](-2)},
		{Major: number64[int64](4096)},
		{Minor: number64[int64](1 << 20)},
	} {
		if r, err := parseRule(d); err == nil {
			t.Errorf("parseRule(%+v) = %v, want an error", d, r)
		}
	}
	r, err := parseRule(specs.LinuxDeviceCgroup{Type: "u", Major: number64[int64](10), Minor: number64[int64](-1), Access: "mr"})
	if want := "c 10:* rm"; err != nil || r.String() != want {
		t.Errorf("got %q, %v, want %q", r, err, want)
	}
}
