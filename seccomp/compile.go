package seccomp

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Filter flags of seccomp(2), linux/seccomp.h.
const (
	FlagTSync            = 1 << 0
	FlagLog              = 1 << 1
	FlagSpecAllow        = 1 << 2
	FlagNewListener      = 1 << 3
	FlagTSyncESRCH       = 1 << 4
	FlagWaitKillableRecv = 1 << 5
)

// MaxInstructions is the kernel's limit for one filter (BPF_MAXINSNS).
const MaxInstructions = 4096

// Verdicts, the upper half of a filter's return value (linux/seccomp.h).
const (
	retKillThread  = 0x00000000
	retTrap        = 0x00030000
	retErrno       = 0x00050000
	retNotify      = 0x7fc00000
	retTrace       = 0x7ff00000
	retLog         = 0x7ffc0000
	retAllow       = 0x7fff0000
	retKillProcess = 0x80000000

	retENOSYS = retErrno | 38
)

// A Filter is a compiled profile, ready for seccomp(SECCOMP_SET_MODE_FILTER).
type Filter struct {
	Program []Instruction
	Flags   uint32 // FlagLog and so on; has FlagNewListener if Notify

	// Notify says that a rule hands calls to a listener: seccomp(2) returns its descriptor, which belongs to the
	// process behind the profile's listenerPath.
	Notify bool

	// Unknown are the names, sorted, that are no system call of any machine this package has heard of. Their rules
	// have no effect. runc ignores them without a word; a caller should warn, since a misspelt name in a
	// deny-list leaves a hole.
	Unknown []string
}

// Bytes returns the program as the kernel wants it in memory: struct sock_filter, 8 bytes each, little endian.
func (f Filter) Bytes() []byte {
	b := make([]byte, 0, 8*len(f.Program))
	for _, i := range f.Program {
		b = append(b, byte(i.Op), byte(i.Op>>8), i.Jt, i.Jf, byte(i.K), byte(i.K>>8), byte(i.K>>16), byte(i.K>>24))
	}
	return b
}

// Compile makes the filter of a profile for a machine, "amd64" or "arm64".
//
// What the program decides, in this order:
//
//   - A call through an abi that the profile's architectures do not list kills the thread, as in libseccomp. The
//     machine's own abi is always listed. Architectures of other machines are ignored.
//   - A call newer than every call that the profile names on that abi returns ENOSYS, as in runc: the author of the
//     profile cannot have meant it, and programs fall back to older calls on ENOSYS but not on EPERM. This applies
//     where the default action denies (not to ALLOW, LOG and TRACE). The private calls of 32-bit ARM are no part of
//     the comparison.
//   - A rule without args decides for its call, whatever other rules say; of several, the first.
//   - Else the first rule in the order of the profile whose args all hold decides. Rules whose action is the default
//     action do not take part (libseccomp refuses them, runc leaves them out).
//   - Else the default action.
//
// If a rule has several args with the same index, each of its args is a rule of its own, as in runc. Numbers are
// compared as unsigned 64 bits; on the 32-bit abis i386 and ARM the upper halves of profile and register are ignored.
//
// On i386, a rule without args for a socket or System V IPC call counts for its way through socketcall(2) or ipc(2)
// too. Their arguments are in memory, where a filter cannot look: of rules with args, those that deny more than the
// default action do apply to that way, in full, and those that grant more do not.
func Compile(p *specs.LinuxSeccomp, arch string) (Filter, error) {
	if p == nil {
		return Filter{}, wrong("", "no profile")
	}
	abis := machine(arch)
	if abis == nil {
		return Filter{}, wrong("", "machine %q: only amd64 and arm64 are supported", arch)
	}
	var f Filter
	c := compiler{}
	if err := c.read(p, &f); err != nil {
		return Filter{}, err
	}
	c.resolve(p, &f)
	c.listed[abis[0]] = true
	f.Program = c.program(abis)
	if n := len(f.Program); n > MaxInstructions {
		return Filter{}, wrong("", "the profile compiles to %d instructions, the kernel takes %d", n, MaxInstructions)
	}
	return f, nil
}

// Check finds what is wrong with a profile, on any machine, without compiling it. The error is an [Error].
func Check(p *specs.LinuxSeccomp) error {
	c := compiler{}
	return c.read(p, new(Filter))
}

// A compiler holds a profile in checked, numeric form.
type compiler struct {
	asm      assembler
	fallback uint32 // the verdict of the default action
	listed   [abiCount + 1]bool
	rules    []rule
	uses     []use
}

// A rule is one entry of the profile's syscalls.
type rule struct {
	verdict uint32
	always  bool           // no args
	any     [][]comparison // else: any of these, each with all of its comparisons
}

// A use is one name in one rule.
type use struct {
	call int // row of calls
	rule int // index of compiler.rules
}

// read checks everything but the names of system calls, which may be of any kernel.
func (c *compiler) read(p *specs.LinuxSeccomp, f *Filter) error {
	for i, name := range p.Architectures {
		a, known := archOf(string(name))
		if !known {
			return wrong(fmt.Sprintf("/architectures/%d", i), "unknown architecture %q: they look like SCMP_ARCH_X86_64", name)
		}
		c.listed[a] = true
	}
	var err error
	if c.fallback, err = verdict(p.DefaultAction, p.DefaultErrnoRet); err != nil {
		return defaultError(err)
	}
	if c.fallback == retNotify {
		return wrong("/defaultAction", "SCMP_ACT_NOTIFY is for rules only: the runtime itself would wait for its own listener")
	}
	c.rules = make([]rule, len(p.Syscalls))
	for i := range p.Syscalls {
		s := &p.Syscalls[i]
		r := &c.rules[i]
		if len(s.Names) == 0 {
			return ruleError(i, "", wrong("/names", "missing: a rule is for one call or more"))
		}
		if r.verdict, err = verdict(s.Action, s.ErrnoRet); err != nil {
			return ruleError(i, s.Names[0], err)
		}
		if r.any, err = comparisons(s.Args); err != nil {
			return ruleError(i, s.Names[0], err)
		}
		r.always = len(s.Args) == 0
		f.Notify = f.Notify || r.verdict == retNotify
		for k, name := range s.Names {
			if name == "" {
				return ruleError(i, "", wrong(fmt.Sprintf("/names/%d", k), "an empty name"))
			}
			if r.verdict == retNotify && name == "write" {
				return ruleError(i, "", wrong("/action", "SCMP_ACT_NOTIFY cannot be used for write: the runtime needs it to hand over the listener"))
			}
		}
	}
	return c.flags(p, f)
}

// resolve finds the calls that the rules are for.
func (c *compiler) resolve(p *specs.LinuxSeccomp, f *Filter) {
	names := 0
	for i := range p.Syscalls {
		names += len(p.Syscalls[i].Names)
	}
	c.uses = make([]use, 0, names)
	for i := range p.Syscalls {
		for _, name := range p.Syscalls[i].Names {
			if row := findCall(name); row >= 0 {
				c.uses = append(c.uses, use{row, i})
			} else if !isForeign(name) {
				f.Unknown = append(f.Unknown, name)
			}
		}
	}
	slices.Sort(f.Unknown)
	f.Unknown = slices.Compact(f.Unknown)
}

// verdict translates an action. An errnoRet with an action that has no use for it is an error by the runtime-spec.
func verdict(a specs.LinuxSeccompAction, errnoRet *uint) (uint32, error) {
	var v uint32
	switch a {
	case specs.ActErrno, specs.ActTrace:
		data := uint(1) // EPERM
		if errnoRet != nil {
			data = *errnoRet
		}
		if a == specs.ActTrace {
			if data > 0xffff {
				return 0, wrong("/errnoRet", "%d is larger than 65535", data)
			}
			return retTrace | uint32(data), nil
		}
		if data > 4095 {
			return 0, wrong("/errnoRet", "%d is larger than 4095, the last errno", data)
		}
		return retErrno | uint32(data), nil
	case specs.ActAllow:
		v = retAllow
	case specs.ActKill, specs.ActKillThread:
		v = retKillThread
	case specs.ActKillProcess:
		v = retKillProcess
	case specs.ActTrap:
		v = retTrap
	case specs.ActLog:
		v = retLog
	case specs.ActNotify:
		v = retNotify
	case "":
		return 0, wrong("/action", "missing")
	default:
		return 0, wrong("/action", "unknown action %q: there are %s", a, strings.Join(Known().Actions, ", "))
	}
	if errnoRet != nil {
		return 0, wrong("/errnoRet", "%d, but %s has no errno", *errnoRet, a)
	}
	return v, nil
}

// comparisons translates the args of a rule into alternatives.
func comparisons(args []specs.LinuxSeccompArg) ([][]comparison, error) {
	if len(args) == 0 {
		return nil, nil
	}
	all := make([]comparison, len(args))
	var seen [6]bool
	twice := false
	for i, a := range args {
		if a.Index > 5 {
			return nil, wrong(fmt.Sprintf("/args/%d/index", i), "%d: a system call has 6 arguments, 0 to 5", a.Index)
		}
		twice = twice || seen[a.Index]
		seen[a.Index] = true
		c := comparison{arg: uint8(a.Index), val: a.Value}
		switch a.Op {
		case specs.OpNotEqual:
			c.op = relNE
		case specs.OpLessThan:
			c.op = relLT
		case specs.OpLessEqual:
			c.op = relLE
		case specs.OpEqualTo:
			c.op = relEQ
		case specs.OpGreaterEqual:
			c.op = relGE
		case specs.OpGreaterThan:
			c.op = relGT
		case specs.OpMaskedEqual: // value is the mask; bits of valueTwo outside it do not count, as in libseccomp
			c.op, c.mask, c.val = relMasked, a.Value, a.ValueTwo&a.Value
		default:
			return nil, wrong(fmt.Sprintf("/args/%d/op", i), "unknown operator %q: there are %s", a.Op, strings.Join(Known().Operators, ", "))
		}
		all[i] = c
	}
	if !twice {
		return [][]comparison{all}, nil
	}
	each := make([][]comparison, len(all))
	for i := range all {
		each[i] = all[i : i+1]
	}
	return each, nil
}

// flags reads the flags and the listener. Like runc, no flags at all means SPEC_ALLOW (an empty list does not), and
// TSYNC has no effect: the process that loads the filter has one thread.
func (c *compiler) flags(p *specs.LinuxSeccomp, f *Filter) error {
	if p.Flags == nil {
		f.Flags = FlagSpecAllow
	}
	for i, flag := range p.Flags {
		switch flag {
		case "SECCOMP_FILTER_FLAG_TSYNC":
		case specs.LinuxSeccompFlagLog:
			f.Flags |= FlagLog
		case specs.LinuxSeccompFlagSpecAllow:
			f.Flags |= FlagSpecAllow
		case specs.LinuxSeccompFlagWaitKillableRecv:
			if !f.Notify {
				return wrong(fmt.Sprintf("/flags/%d", i), "%s needs a rule with SCMP_ACT_NOTIFY", flag)
			}
			f.Flags |= FlagWaitKillableRecv
		default:
			return wrong(fmt.Sprintf("/flags/%d", i), "unknown flag %q: there are %s", flag, strings.Join(Known().Flags, ", "))
		}
	}
	if f.Notify {
		if p.ListenerPath == "" {
			return wrong("/listenerPath", "missing, and a rule has SCMP_ACT_NOTIFY")
		}
		f.Flags |= FlagNewListener
	}
	if p.ListenerMetadata != "" && p.ListenerPath == "" {
		return wrong("/listenerMetadata", "set without listenerPath")
	}
	return nil
}

// program puts the parts together, last one first: the trees of the compatible abis, the native one, and in front
// the look at arch.
func (c *compiler) program(abis []abi) []Instruction {
	a := &c.asm
	a.reversed = make([]Instruction, 0, 1024)
	native := abis[0]
	var compat label
	for _, other := range abis[1:] {
		if c.listed[other] && abiInfos[other].audit != abiInfos[native].audit {
			compat = a.load(offNr, c.tree(other))
		}
	}
	var x32 label
	if native == abiAMD64 {
		if c.listed[abiX32] {
			x32 = c.tree(abiX32)
		} else {
			x32 = a.branch(opJeq, noCall, a.verdict(c.fallback), a.verdict(retKillThread))
		}
	}
	start := c.tree(native)
	if native == abiAMD64 {
		start = a.branch(opJset, x32Bit, x32, start)
	}
	start = a.load(offNr, start)
	miss := label(0)
	for _, other := range abis[1:] {
		if c.listed[other] && abiInfos[other].audit != abiInfos[native].audit {
			miss = a.branch(opJeq, abiInfos[other].audit, compat, a.verdict(retKillThread))
		}
	}
	if miss == 0 {
		miss = a.verdict(retKillThread)
	}
	a.load(offArch, a.branch(opJeq, abiInfos[native].audit, start, miss))
	return a.program()
}

// A leaf is what happens to a call once its number is known: a verdict, or a list of rules to try (an index of
// section.lists plus one).
type leaf struct {
	verdict uint32
	list    uint16
}

// A span says that the numbers from first up to the next span share a leaf.
type span struct {
	first uint32
	leaf  leaf
}

// cells is how many numbers of an abi the table can hold: the ordinary ones, then room for ARM's private ones.
const (
	cells        = 1024
	privateCells = 16
	privateAt    = cells - privateCells
)

// section collects the rules of one abi by number.
type section struct {
	abi    abi
	leaves [cells]leaf
	always [cells]bool
	lists  [][]alternative
	newest [2]int // the largest cell named by the profile: ordinary, private; 0 if none
}

type alternative struct {
	verdict uint32
	all     []comparison
}

// tree puts the decision on the number of a call, which A holds.
func (c *compiler) tree(on abi) label {
	s := section{abi: on}
	for i := range s.leaves {
		s.leaves[i].verdict = c.fallback
	}
	for _, u := range c.uses {
		r := &c.rules[u.rule]
		if nr := calls[u.call].nr[on]; nr >= 0 {
			s.add(int(nr), r, r.any, c.fallback)
		}
		if on == abi386 {
			c.addMuxed(&s, calls[u.call].name, r)
		}
	}
	spans := s.spans(c.fallback)
	return c.search(&s, spans)
}

// addMuxed adds a rule for a call to the multiplexer through which it can also be made.
func (c *compiler) addMuxed(s *section, name string, r *rule) {
	mux, sub := muxed(name)
	if mux == "" || !r.always && rank(r.verdict) >= rank(c.fallback) {
		return
	}
	is := comparison{op: relEQ, val: uint64(sub)}
	if mux == "ipc" { // the upper half of its first argument is a version
		is = comparison{op: relMasked, mask: 0xffff, val: uint64(sub)}
	}
	one := rule{verdict: r.verdict, any: [][]comparison{{is}}}
	s.add(int(calls[findCall(mux)].nr[s.abi]), &one, one.any, c.fallback)
}

// rank orders verdicts as the kernel does when several filters disagree: the lowest wins.
func rank(v uint32) int32 { return int32(v & 0xffff0000) }

func (s *section) add(nr int, r *rule, any [][]comparison, fallback uint32) {
	cell, kind := nr, 0
	if nr >= armPrivate {
		cell, kind = privateAt+nr-armPrivate, 1
	}
	s.newest[kind] = max(s.newest[kind], cell)
	if r.verdict == fallback || s.always[cell] {
		return
	}
	l := &s.leaves[cell]
	if r.always {
		s.always[cell] = true
		*l = leaf{verdict: r.verdict}
		return
	}
	if l.list == 0 {
		s.lists = append(s.lists, nil)
		l.list = uint16(len(s.lists))
	}
	list := &s.lists[l.list-1]
	for _, all := range any {
		*list = append(*list, alternative{r.verdict, all})
	}
}

// spans returns the leaves as a sorted list that covers every number, neighbours with the same leaf merged.
func (s *section) spans(fallback uint32) []span {
	spans := make([]span, 0, 256)
	put := func(first uint32, l leaf) {
		if s.abi == abiX32 {
			first |= x32Bit
		}
		if n := len(spans); n == 0 || spans[n-1].leaf != l {
			spans = append(spans, span{first, l})
		}
	}
	unnamed := leaf{verdict: fallback}
	newer := unnamed
	switch fallback & 0xffff0000 {
	case retAllow, retLog, retTrace:
	default:
		newer.verdict = retENOSYS
	}
	for nr := range s.newest[0] + 1 {
		put(uint32(nr), s.leaves[nr])
	}
	if s.newest[0] > 0 {
		put(uint32(s.newest[0]+1), newer)
	} else { // the profile does not speak about this abi, at most about its call 0
		put(1, unnamed)
	}
	if s.newest[1] > 0 {
		for cell := privateAt; cell <= s.newest[1]; cell++ {
			put(uint32(armPrivate+cell-privateAt), s.leaves[cell])
		}
		put(uint32(armPrivate+s.newest[1]-privateAt+1), newer)
	}
	return spans
}

// numbersOf returns the numbers that the last n alternatives of a list allow an argument to be, as sorted ranges, if they ask for nothing
// else and lead to one verdict.
func numbersOf(list []alternative) (ranges [][2]uint32, n int) {
	last := list[len(list)-1]
	for _, alt := range slices.Backward(list) {
		if len(alt.all) != 1 || alt.verdict != last.verdict || alt.all[0].arg != last.all[0].arg {
			break
		}
		test := alt.all[0]
		var r [2]uint32
		switch {
		case test.val>>32 != 0:
			return sorted(ranges), n
		case test.op == relEQ:
			r = [2]uint32{uint32(test.val), uint32(test.val)}
		case test.op == relLE:
			r = [2]uint32{0, uint32(test.val)}
		case test.op == relLT && test.val > 0:
			r = [2]uint32{0, uint32(test.val - 1)}
		default:
			return sorted(ranges), n
		}
		ranges, n = append(ranges, r), n+1
	}
	return sorted(ranges), n
}

// sorted sorts ranges and joins neighbours.
func sorted(ranges [][2]uint32) [][2]uint32 {
	slices.SortFunc(ranges, func(a, b [2]uint32) int { return cmp.Compare(a[0], b[0]) })
	out := ranges[:0]
	for _, r := range ranges {
		if n := len(out); n > 0 && uint64(r[0]) <= uint64(out[n-1][1])+1 {
			out[n-1][1] = max(out[n-1][1], r[1])
		} else {
			out = append(out, r)
		}
	}
	return out
}

// search puts a balanced binary search.
func (c *compiler) search(s *section, spans []span) label {
	if len(spans) == 1 {
		return c.leaf(s, spans[0].leaf)
	}
	mid := len(spans) / 2
	upper := c.search(s, spans[mid:])
	lower := c.search(s, spans[:mid])
	return c.asm.branch(opJge, spans[mid].first, upper, lower)
}

func (c *compiler) leaf(s *section, l leaf) label {
	if l.list == 0 {
		return c.asm.verdict(l.verdict)
	}
	list := s.lists[l.list-1]
	next := c.asm.verdict(c.fallback)
	narrow := abiInfos[s.abi].narrow
	for i := len(list) - 1; i >= 0; i-- {
		alt, no := list[i], next
		if ranges, n := numbersOf(list[:i+1]); n > 1 {
			next = c.asm.oneOf(alt.all[0].arg, ranges, narrow, c.asm.verdict(alt.verdict), no)
			i -= n - 1
			continue
		}
		yes := c.asm.verdict(alt.verdict)
		for _, test := range slices.Backward(alt.all) {
			yes = c.asm.compare(test, narrow, yes, no)
		}
		next = yes
	}
	return next
}
