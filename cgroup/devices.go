package cgroup

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"

	"glassbox/plan"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// rule allows or denies some kinds of access to some devices. Of a list of rules the last one that names an access decides
// it; what no rule names is denied.
type rule struct {
	allow        bool
	kind         byte  // 'b', 'c', 'a' for both
	major, minor int64 // every for all
	access       uint8 // of the bits below
}

const every = -1

// Allow is a rule for /linux/resources/devices that allows access ("rwm") to devices of a kind ("b", "c"). A negative number
// stands for all.
func Allow(kind string, major, minor int64, access string) specs.LinuxDeviceCgroup {
	d := specs.LinuxDeviceCgroup{Allow: true, Type: kind, Access: access}
	if major >= 0 {
		d.Major = &major
	}
	if minor >= 0 {
		d.Minor = &minor
	}
	return d
}

// DefaultDevices are allowed after the rules of the configuration, which usually begin with a denial of everything: every
// container has these devices (runtime-spec, config-linux.md, default devices), and mknod alone opens nothing.
func DefaultDevices() []specs.LinuxDeviceCgroup {
	return []specs.LinuxDeviceCgroup{
		Allow("c", -1, -1, "m"),
		Allow("b", -1, -1, "m"),
		Allow("c", 1, 3, "rwm"),    // null
		Allow("c", 1, 5, "rwm"),    // zero
		Allow("c", 1, 7, "rwm"),    // full
		Allow("c", 1, 8, "rwm"),    // random
		Allow("c", 1, 9, "rwm"),    // urandom
		Allow("c", 5, 0, "rwm"),    // tty
		Allow("c", 5, 2, "rwm"),    // ptmx
		Allow("c", 136, -1, "rwm"), // terminals below /dev/pts
	}
}

// The kernel's bits (BPF_DEVCG_ACC_*).
const (
	mknod = 1 << iota
	read
	write
	allAccess = mknod | read | write
)

func (r rule) all() bool {
	return r.kind == 'a' && r.major == every && r.minor == every && r.access == allAccess
}

// String is the syntax of v1's devices.allow and devices.deny.
func (r rule) String() string {
	access := ""
	for _, a := range []struct {
		bit  uint8
		name string
	}{{read, "r"}, {write, "w"}, {mknod, "m"}} {
		if r.access&a.bit != 0 {
			access += a.name
		}
	}
	return fmt.Sprintf("%c %s:%s %s", r.kind, number(r.major), number(r.minor), access)
}

func number(n int64) string {
	if n == every {
		return "*"
	}
	return strconv.FormatInt(n, 10)
}

func parseRule(d specs.LinuxDeviceCgroup) (rule, error) {
	r := rule{allow: d.Allow, major: every, minor: every}
	switch d.Type {
	case "", "a":
		r.kind = 'a'
	case "b":
		r.kind = 'b'
	case "c", "u": // "unbuffered" is another name for character devices
		r.kind = 'c'
	default:
		return r, fmt.Errorf("type %q is none of a, b, c, u", d.Type)
	}
	for _, n := range []struct {
		name string
		from *int64
		to   *int64
		bits int
	}{{"major", d.Major, &r.major, 12}, {"minor", d.Minor, &r.minor, 20}} {
		if n.from == nil || *n.from == every {
			continue
		}
		if *n.from < 0 || *n.from >= 1<<n.bits {
			return r, fmt.Errorf("%s number %d isn't between 0 and %d", n.name, *n.from, 1<<n.bits-1)
		}
		*n.to = *n.from
	}
	for _, c := range d.Access {
		switch c {
		case 'r':
			r.access |= read
		case 'w':
			r.access |= write
		case 'm':
			r.access |= mknod
		default:
			return r, fmt.Errorf("access %q has other letters than r, w, m", d.Access)
		}
	}
	if d.Access == "" {
		r.access = allAccess
	}
	return r, nil
}

// devices adds the steps for a list of rules. No rules at all leave devices as they are; the first rule begins from nothing
// allowed, whatever the parent cgroup allows.
func (w *writer) devices(devices []specs.LinuxDeviceCgroup) {
	if len(devices) == 0 {
		return
	}
	const at = resources + "devices"
	var rules []rule
	var pointers []string
	for i, d := range devices {
		pointer := fmt.Sprintf("%s/%d", at, i)
		r, err := parseRule(d)
		if err != nil {
			w.fail(pointer, "%v", err)
			return
		}
		if i == 0 && !r.all() {
			rules = append(rules, rule{kind: 'a', major: every, minor: every, access: allAccess})
			pointers = append(pointers, at)
		}
		rules = append(rules, r)
		pointers = append(pointers, pointer)
	}
	if dir, v1 := w.paths["devices"]; v1 {
		p := &place{w: w, controller: "devices", dir: dir}
		p.devicesV1(rules, pointers)
		return
	}
	dir, ok := w.paths[""]
	if !ok {
		w.find("devices", at) // fails
		return
	}
	op := &plan.DeviceFilter{Path: dir, Program: deviceProgram(rules)}
	for _, r := range rules {
		verb := "deny "
		if r.allow {
			verb = "allow "
		}
		op.Rules = append(op.Rules, verb+r.String())
	}
	w.add(op, at, "The kernel asks this program whether the container may open or make a device.")
}

// devicesV1 writes rules to devices.allow and devices.deny.
//
// On v1 a list isn't a list: the kernel keeps a default, allow or deny, and a set of exceptions to it. A rule that agrees with
// the default can only take back an exception, and only one with exactly its numbers; every other has no effect and no error.
// So a rule that takes back several exceptions is written as several, and one that would make a hole in an exception ("deny c
// 1:3" after "allow c 1:*") is refused.
func (p *place) devicesV1(rules []rule, pointers []string) {
	const why = "The container may use these devices and no others."
	file := map[bool]string{true: "devices.allow", false: "devices.deny"}
	byDefault := false
	var exceptions []rule
	for i, r := range rules {
		if r.all() {
			byDefault, exceptions = r.allow, nil
			p.write(file[r.allow], r, pointers[i], why)
			continue
		}
		kinds := []byte{r.kind}
		if r.kind == 'a' {
			kinds = []byte{'b', 'c'} // v1 takes "a" for everything, whatever the numbers
		}
		for _, kind := range kinds {
			r.kind = kind
			if r.allow != byDefault {
				exceptions = append(exceptions, r)
				p.write(file[r.allow], r, pointers[i], why)
				continue
			}
			for j := range exceptions {
				e := &exceptions[j]
				overlap := e.kind == r.kind && e.access&r.access != 0 && meets(e.major, r.major) && meets(e.minor, r.minor)
				if !overlap {
					continue
				}
				if r.major != every && e.major == every || r.minor != every && e.minor == every {
					p.w.fail(pointers[i], "cgroup v1 can't express the rule %q after %q", r, *e)
					return
				}
				back := *e
				back.allow, back.access = r.allow, e.access&r.access
				p.write(file[r.allow], back, pointers[i], why)
				e.access &^= r.access
			}
		}
	}
}

// meets reports whether two device numbers, of which either may be every, have one in common.
func meets(a, b int64) bool { return a == every || b == every || a == b }

// deviceProgram assembles the rules to an eBPF program of type BPF_PROG_TYPE_CGROUP_DEVICE, which returns 1 to allow.
//
// The kernel gives it { u32 access << 16 | type; u32 major; u32 minor }. The program goes through the rules from the last to
// the first, with the accesses that are still undecided in r3: a rule that allows takes its own out, and when none is left
// the answer is yes; a rule that denies one of those left makes it no.
func deviceProgram(rules []rule) []byte {
	const (
		loadWord = 0x61 // dst = *(u32 *)(src + off)
		movImm   = 0xb4 // 32 bits; the upper half becomes 0
		movReg   = 0xbc
		andImm   = 0x54
		rshImm   = 0x74
		jneImm   = 0x55
		jeqImm   = 0x15
		exit     = 0x95

		blockDevice, charDevice = 1, 2
	)
	var code []byte
	emit := func(op, dst, src uint8, off int16, imm int32) {
		code = append(code, op, src<<4|dst)
		code = binary.LittleEndian.AppendUint16(code, uint16(off))
		code = binary.LittleEndian.AppendUint32(code, uint32(imm))
	}
	answer := func(allow bool) {
		n := int32(0)
		if allow {
			n = 1
		}
		emit(movImm, 0, 0, 0, n)
		emit(exit, 0, 0, 0, 0)
	}
	emit(loadWord, 2, 1, 0, 0) // r2 = type
	emit(movReg, 3, 2, 0, 0)
	emit(andImm, 2, 0, 0, math.MaxUint16)
	emit(rshImm, 3, 0, 0, 16)  // r3 = accesses left to decide
	emit(loadWord, 4, 1, 4, 0) // r4 = major
	emit(loadWord, 5, 1, 8, 0) // r5 = minor
	for i := len(rules) - 1; i >= 0; i-- {
		r := rules[i]
		if r.all() {
			answer(r.allow)
			return code // the rules before it are out of reach, and the verifier refuses dead code
		}
		size := 4 // instructions of the rule's body
		if !r.allow {
			size = 5
		}
		// Each condition that doesn't hold jumps over the conditions after it and the body.
		var conditions [][2]int32 // register, value
		if r.kind == 'b' {
			conditions = append(conditions, [2]int32{2, blockDevice})
		} else if r.kind == 'c' {
			conditions = append(conditions, [2]int32{2, charDevice})
		}
		if r.major != every {
			conditions = append(conditions, [2]int32{4, int32(r.major)})
		}
		if r.minor != every {
			conditions = append(conditions, [2]int32{5, int32(r.minor)})
		}
		for j, c := range conditions {
			emit(jneImm, uint8(c[0]), 0, int16(len(conditions)-1-j+size), c[1])
		}
		if r.allow {
			emit(andImm, 3, 0, 0, int32(allAccess&^r.access))
			emit(jneImm, 3, 0, 2, 0)
		} else {
			emit(movReg, 6, 3, 0, 0)
			emit(andImm, 6, 0, 0, int32(r.access))
			emit(jeqImm, 6, 0, 2, 0)
		}
		answer(r.allow)
	}
	answer(false)
	return code
}
