package seccomp

import (
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

var update = flag.Bool("update", false, "rewrite testdata")

// agree compares the program of a profile with the naive reading, over all numbers and the given argument values.
func agree(t *testing.T, p *specs.LinuxSeccomp, goarch string, nrs []uint32, vals []uint64) {
	t.Helper()
	f, err := Compile(p, goarch)
	if err != nil {
		t.Fatalf("compile: %v", err)
	}
	if err := check(f.Program); err != nil {
		t.Fatalf("the kernel would refuse the program: %v", err)
	}
	n := newNaive(p, goarch)
	byNumber := map[uint32]int{} // how many arguments the profile looks at
	for _, s := range p.Syscalls {
		for _, name := range s.Names {
			row := n.names[name]
			for on, nr := range row {
				if nr < 0 {
					continue
				}
				for _, a := range s.Args {
					byNumber[uint32(nr)] |= 1 << a.Index
				}
				if on == int(abi386) {
					if mux, _ := muxed(name); mux != "" {
						byNumber[uint32(n.names[mux][abi386])] |= 1
					}
				}
			}
		}
	}
	try := func(d data) {
		if got, want := run(f.Program, d), n.verdict(goarch, d); got != want {
			t.Fatalf("%v: got %s, want %s\nprofile: %+v\n%s", d, verdictName(got), verdictName(want), p, disassemble(f.Program, goarch))
		}
	}
	for _, audit := range audits(goarch) {
		for _, nr := range nrs {
			d := data{nr: nr, arch: audit}
			try(d)
			used := byNumber[nr&^x32Bit]
			for i := range d.args {
				if used&(1<<i) == 0 {
					continue
				}
				for k, v := range vals {
					d.args[i] = v
					try(d)
					for j := i + 1; j < 6; j++ { // and some pairs
						if used&(1<<j) != 0 {
							d.args[j] = vals[(k*7+3)%len(vals)]
							try(d)
						}
					}
				}
			}
		}
	}
}

var capabilitySets = map[string][]string{
	"none":   nil,
	"docker": {"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_NET_RAW", "CAP_SYS_CHROOT", "CAP_MKNOD", "CAP_AUDIT_WRITE"},
	"admin":  {"CAP_SYS_ADMIN"},
	"all": {
		"CAP_DAC_READ_SEARCH", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_CHROOT", "CAP_SYS_MODULE", "CAP_SYS_PACCT",
		"CAP_SYS_PTRACE", "CAP_SYS_RAWIO", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_SYS_NICE", "CAP_SYSLOG", "CAP_BPF", "CAP_PERFMON",
	},
}

func TestDefaultAgainstNaive(t *testing.T) {
	for _, goarch := range []string{"amd64", "arm64"} {
		for name, caps := range capabilitySets {
			t.Run(goarch+"/"+name, func(t *testing.T) {
				p := Default(DefaultOptions{Arch: goarch, Caps: caps, KernelMajor: 6, KernelMinor: 1})
				agree(t, p, goarch, numbers(), values(p))
			})
		}
	}
}

// TestDefaultDecides states what the default profile is for, call by call.
func TestDefaultDecides(t *testing.T) {
	const allow, eperm, enosys, kill = retAllow, retErrno | 1, retErrno | 38, retKillThread
	amd64, i386 := abiInfos[abiAMD64].audit, abiInfos[abi386].audit
	nr := func(on abi, name string) uint32 { return uint32(calls[findCall(name)].nr[on]) }
	a := func(args ...uint64) (out [6]uint64) { copy(out[:], args); return out }
	for _, test := range []struct {
		name string
		caps []string
		d    data
		want uint32
	}{
		{"read", nil, data{nr(abiAMD64, "read"), amd64, a()}, allow},
		{"fork by clone", nil, data{nr(abiAMD64, "clone"), amd64, a(17)}, allow},
		{"a thread", nil, data{nr(abiAMD64, "clone"), amd64, a(0x3d0f00)}, allow},
		{"clone with user namespace", nil, data{nr(abiAMD64, "clone"), amd64, a(0x10000000 | 17)}, eperm},
		{"clone with mount namespace", nil, data{nr(abiAMD64, "clone"), amd64, a(0x00020000)}, eperm},
		{"clone with cgroup namespace", nil, data{nr(abiAMD64, "clone"), amd64, a(0x02000000)}, eperm},
		{"clone with user namespace, admin", []string{"CAP_SYS_ADMIN"}, data{nr(abiAMD64, "clone"), amd64, a(0x10000000)}, allow},
		{"clone with user namespace, 32 bit", nil, data{nr(abi386, "clone"), i386, a(0x10000000)}, eperm},
		{"clone3", nil, data{nr(abiAMD64, "clone3"), amd64, a()}, enosys},
		{"clone3, 32 bit", nil, data{nr(abi386, "clone3"), i386, a()}, enosys},
		{"clone3, admin", []string{"CAP_SYS_ADMIN"}, data{nr(abiAMD64, "clone3"), amd64, a()}, allow},
		{"unshare", nil, data{nr(abiAMD64, "unshare"), amd64, a(0x10000000)}, eperm},
		{"unshare by x32", nil, data{nr(abiX32, "unshare") | x32Bit, amd64, a(0x10000000)}, eperm},
		{"setns", nil, data{nr(abiAMD64, "setns"), amd64, a()}, eperm},
		{"mount", nil, data{nr(abiAMD64, "mount"), amd64, a()}, eperm},
		{"bpf", nil, data{nr(abiAMD64, "bpf"), amd64, a()}, eperm},
		{"bpf, CAP_BPF", []string{"CAP_BPF"}, data{nr(abiAMD64, "bpf"), amd64, a()}, allow},
		{"perf", []string{"CAP_PERFMON"}, data{nr(abiAMD64, "perf_event_open"), amd64, a()}, allow},
		{"keyctl", []string{"CAP_SYS_ADMIN"}, data{nr(abiAMD64, "keyctl"), amd64, a()}, eperm},
		{"io_uring", []string{"CAP_SYS_ADMIN"}, data{nr(abiAMD64, "io_uring_setup"), amd64, a()}, eperm},
		{"userfaultfd", nil, data{nr(abiAMD64, "userfaultfd"), amd64, a()}, eperm},
		{"AF_INET", nil, data{nr(abiAMD64, "socket"), amd64, a(2)}, allow},
		{"AF_ALG", nil, data{nr(abiAMD64, "socket"), amd64, a(38)}, eperm},
		{"AF_ALG, upper bits", nil, data{nr(abiAMD64, "socket"), amd64, a(1<<32 | 2)}, eperm},
		{"AF_AX25", nil, data{nr(abiAMD64, "socket"), amd64, a(3)}, eperm},
		{"AF_ROSE, 32 bit", nil, data{nr(abi386, "socket"), i386, a(11)}, eperm},
		{"AF_CAIF", []string{"CAP_SYS_ADMIN"}, data{nr(abiAMD64, "socket"), amd64, a(37)}, eperm},
		{"a family of the future", nil, data{nr(abiAMD64, "socket"), amd64, a(46)}, eperm},
		{"AF_MCTP", nil, data{nr(abiAMD64, "socket"), amd64, a(45)}, allow},
		{"AF_NFC", nil, data{nr(abiAMD64, "socket"), amd64, a(39)}, allow},
		{"AF_VSOCK", nil, data{nr(abiAMD64, "socket"), amd64, a(40)}, eperm},
		{"AF_VSOCK, direct call of 32 bit", nil, data{nr(abi386, "socket"), i386, a(40)}, eperm},
		{"AF_KCM", nil, data{nr(abiAMD64, "socket"), amd64, a(41)}, allow},
		{"socketcall", nil, data{nr(abi386, "socketcall"), i386, a(1)}, allow},
		{"personality PER_LINUX32", nil, data{nr(abiAMD64, "personality"), amd64, a(8)}, allow},
		{"personality ADDR_NO_RANDOMIZE", nil, data{nr(abiAMD64, "personality"), amd64, a(0x40000)}, eperm},
		{"personality, question", nil, data{nr(abiAMD64, "personality"), amd64, a(0xffffffff)}, allow},
		{"ptrace", nil, data{nr(abiAMD64, "ptrace"), amd64, a()}, allow},
		{"cachestat", nil, data{nr(abiAMD64, "cachestat"), amd64, a()}, allow},
		{"statmount", nil, data{nr(abiAMD64, "statmount"), amd64, a()}, allow},
		{"chroot", []string{"CAP_SYS_CHROOT"}, data{nr(abiAMD64, "chroot"), amd64, a()}, allow},
		{"a call of the future", nil, data{900, amd64, a()}, enosys},
		{"a hole in the table", nil, data{400, amd64, a()}, eperm},
		{"another machine", nil, data{0, 0xc00000b7, a()}, kill},
	} {
		f, err := Compile(Default(DefaultOptions{Arch: "amd64", Caps: test.caps, KernelMajor: 6, KernelMinor: 1}), "amd64")
		if err != nil {
			t.Fatal(err)
		}
		if got := run(f.Program, test.d); got != test.want {
			t.Errorf("%s: got %s, want %s", test.name, verdictName(got), verdictName(test.want))
		}
	}
	f, err := Compile(Default(DefaultOptions{Arch: "amd64", KernelMajor: 4, KernelMinor: 7}), "amd64")
	if err != nil {
		t.Fatal(err)
	}
	if got := run(f.Program, data{nr: nr(abiAMD64, "ptrace"), arch: amd64}); got != eperm {
		t.Errorf("ptrace on Linux 4.7: got %s, want ERRNO 1 EPERM", verdictName(got))
	}
}

func TestOperators(t *testing.T) {
	vals := []uint64{
		0, 1, 2, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff, 1 << 32, 1<<32 + 1, 1<<33 - 1, 1 << 33,
		0xfffffffeffffffff, 0xffffffff00000000, 0xfffffffffffffffe, 0xffffffffffffffff,
	}
	for _, op := range []specs.LinuxSeccompOperator{
		specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual,
	} {
		for _, v := range vals {
			for _, w := range vals {
				if op != specs.OpMaskedEqual && w != 0 {
					continue
				}
				for _, goarch := range []string{"amd64", "arm64"} {
					p := &specs.LinuxSeccomp{
						DefaultAction: specs.ActAllow,
						Architectures: []specs.Arch{specs.ArchX86, specs.ArchX32, specs.ArchARM},
						Syscalls: []specs.LinuxSyscall{{
							Names: []string{"read"}, Action: specs.ActKillProcess,
							Args: []specs.LinuxSeccompArg{{Index: 5, Op: op, Value: v, ValueTwo: w}},
						}},
					}
					agree(t, p, goarch, []uint32{0, x32Bit, 3, 63}, vals)
				}
			}
		}
	}
}

// TestLongJumps makes the program so long that verdicts and halves of the tree are out of reach of one branch.
func TestLongJumps(t *testing.T) {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX32}}
	names := []string{
		"read", "write", "open", "close", "stat", "fstat", "lstat", "poll", "lseek", "mmap", "mprotect", "unshare", "setns",
		"mseal",
	}
	for i, name := range names {
		for k := range uint64(15) {
			errno := uint(i)*20 + uint(k) + 2
			p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{
				Names: []string{name}, Action: specs.ActErrno, ErrnoRet: &errno,
				Args: []specs.LinuxSeccompArg{{Index: 1, Op: specs.OpEqualTo, Value: k<<32 | k}},
			})
		}
	}
	f, err := Compile(p, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(f.Program, func(i Instruction) bool { return i.Op == opJump && i.K > 255 }) {
		t.Error("no long jump in this program")
	}
	agree(t, p, "amd64", numbers(), values(p))
}

func TestOneRuleTooMany(t *testing.T) {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno}
	for k := range uint64(2000) {
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{
			Names: []string{"ioctl"}, Action: specs.ActAllow,
			Args: []specs.LinuxSeccompArg{{Index: 1, Op: specs.OpEqualTo, Value: k<<32 | k}},
		})
	}
	_, err := Compile(p, "amd64")
	if err == nil || !strings.Contains(err.Error(), "instructions, the kernel takes 4096") {
		t.Errorf("got error %v, want the kernel's limit", err)
	}
}

// TestManyNumbers allows many values of one argument: they are looked for in one row, which is longer than a jump reaches.
func TestManyNumbers(t *testing.T) {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86}}
	add := func(name string, args ...specs.LinuxSeccompArg) {
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: []string{name}, Action: specs.ActAllow, Args: args})
	}
	for k := range uint64(500) {
		add("ioctl", specs.LinuxSeccompArg{Index: 1, Op: specs.OpEqualTo, Value: 997 * k % 1500})
	}
	add("ioctl", specs.LinuxSeccompArg{Index: 1, Op: specs.OpLessThan, Value: 9})
	add("prctl", specs.LinuxSeccompArg{Index: 0, Op: specs.OpLessEqual, Value: 3})
	add("prctl", specs.LinuxSeccompArg{Index: 0, Op: specs.OpEqualTo, Value: 1<<32 - 1})
	add("prctl", specs.LinuxSeccompArg{Index: 0, Op: specs.OpLessThan, Value: 0}) // nothing
	add("prctl", specs.LinuxSeccompArg{Index: 0, Op: specs.OpEqualTo, Value: 1<<32 - 2})
	add("prctl", specs.LinuxSeccompArg{Index: 0, Op: specs.OpEqualTo, Value: 1<<32 + 7})
	nr := func(name string, on abi) uint32 { return uint32(calls[findCall(name)].nr[on]) }
	var nrs []uint32
	for _, on := range []abi{abiAMD64, abi386} {
		nrs = append(nrs, nr("ioctl", on), nr("prctl", on), nr("prctl", on)+1)
	}
	agree(t, p, "amd64", nrs, append(values(p), 4, 8, 10, 1<<32, 1<<32-1, 1<<64-1))
}

func TestPrecedence(t *testing.T) {
	two, three := uint(2), uint(3)
	is := func(v uint64) []specs.LinuxSeccompArg {
		return []specs.LinuxSeccompArg{{Index: 0, Op: specs.OpEqualTo, Value: v}}
	}
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{
		{Names: []string{"read"}, Action: specs.ActErrno, ErrnoRet: &two, Args: is(7)},
		{Names: []string{"read"}, Action: specs.ActAllow, Args: is(7)},
		{Names: []string{"write"}, Action: specs.ActErrno, ErrnoRet: &two, Args: is(7)},
		{Names: []string{"write"}, Action: specs.ActAllow},
		{Names: []string{"write"}, Action: specs.ActKill},
		{Names: []string{"open"}, Action: specs.ActErrno}, // the default action: no rule
		{Names: []string{"open"}, Action: specs.ActErrno, ErrnoRet: &three},
	}}
	f, err := Compile(p, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		nr, want uint32
	}{{0, retErrno | 2}, {1, retAllow}, {2, retErrno | 3}} {
		got := run(f.Program, data{nr: test.nr, arch: 0xc000003e, args: [6]uint64{7}})
		if got != test.want {
			t.Errorf("call %d: got %s, want %s", test.nr, verdictName(got), verdictName(test.want))
		}
	}
}

func TestFlagsAndListener(t *testing.T) {
	notify := []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActNotify}}
	for _, test := range []struct {
		name string
		p    specs.LinuxSeccomp
		want uint32
		err  string
	}{
		{"none", specs.LinuxSeccomp{}, FlagSpecAllow, ""},
		{"empty", specs.LinuxSeccomp{Flags: []specs.LinuxSeccompFlag{}}, 0, ""},
		{"tsync, log", specs.LinuxSeccomp{Flags: []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG"}}, FlagLog, ""},
		{"unknown", specs.LinuxSeccomp{Flags: []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_NEW_LISTENER"}}, 0, "/flags/0: unknown flag"},
		{"notify", specs.LinuxSeccomp{
			Syscalls: notify, ListenerPath: "/s", ListenerMetadata: "m",
			Flags: []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"},
		}, FlagNewListener | FlagWaitKillableRecv, ""},
		{"notify without path", specs.LinuxSeccomp{Syscalls: notify}, 0, "/listenerPath: missing"},
		{"metadata without path", specs.LinuxSeccomp{ListenerMetadata: "m"}, 0, "/listenerMetadata: set without listenerPath"},
		{
			"wait without notify",
			specs.LinuxSeccomp{Flags: []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"}},
			0,
			"/flags/0: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs",
		},
		{"notify write", specs.LinuxSeccomp{
			ListenerPath: "/s",
			Syscalls:     []specs.LinuxSyscall{{Names: []string{"write"}, Action: specs.ActNotify}},
		}, 0, "cannot be used for write"},
	} {
		test.p.DefaultAction = specs.ActAllow
		f, err := Compile(&test.p, "amd64")
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%s: got error %v, want %q", test.name, err, test.err)
			}
			continue
		}
		if err != nil || f.Flags != test.want || f.Notify != (test.want&FlagNewListener != 0) {
			t.Errorf("%s: got flags %#x, notify %v, error %v, want flags %#x", test.name, f.Flags, f.Notify, err, test.want)
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	big, three := uint(4096), uint(3)
	rule := func(s specs.LinuxSyscall) *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{s}}
	}
	read := []string{"read"}
	for _, test := range []struct {
		p    *specs.LinuxSeccomp
		want string
	}{
		{nil, "no profile"},
		{&specs.LinuxSeccomp{}, "/defaultAction: missing"},
		{&specs.LinuxSeccomp{DefaultAction: "SCMP_ACT_SHRUG"}, `/defaultAction: unknown action "SCMP_ACT_SHRUG"`},
		{&specs.LinuxSeccomp{DefaultAction: specs.ActNotify}, "/defaultAction: SCMP_ACT_NOTIFY"},
		{&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, DefaultErrnoRet: &three}, "/defaultErrnoRet: 3, but SCMP_ACT_ALLOW has no errno"},
		{&specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: &big}, "/defaultErrnoRet: 4096 is larger than 4095"},
		{
			&specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{"SCMP_ARCH_VAX"}},
			`/architectures/0: unknown architecture "SCMP_ARCH_VAX"`,
		},
		{rule(specs.LinuxSyscall{Action: specs.ActAllow}), "/syscalls/0/names: missing"},
		{rule(specs.LinuxSyscall{Names: []string{""}, Action: specs.ActAllow}), "/syscalls/0/names/0: an empty name"},
		{rule(specs.LinuxSyscall{Names: read, Action: "ALLOW"}), `/syscalls/0/action: unknown action "ALLOW"`},
		{
			rule(specs.LinuxSyscall{Names: read, Action: specs.ActKill, ErrnoRet: &three}),
			"/syscalls/0/errnoRet: 3, but SCMP_ACT_KILL has no errno (the rule for read)",
		},
		{
			rule(specs.LinuxSyscall{Names: read, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 6, Op: specs.OpEqualTo}}}),
			"/syscalls/0/args/0/index: 6",
		},
		{
			rule(specs.LinuxSyscall{Names: read, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Op: "=="}}}),
			`/syscalls/0/args/0/op: unknown operator "=="`,
		},
	} {
		if _, err := Compile(test.p, "amd64"); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("got error %v, want %q", err, test.want)
		}
	}
	if _, err := Compile(rule(specs.LinuxSyscall{Names: read, Action: specs.ActAllow}), "s390x"); err == nil {
		t.Error("s390x: no error")
	}
}

func TestUnknownNames(t *testing.T) {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{
		{Names: []string{"raed", "read", "riscv_hwprobe", "breakpoint", "_bogus", "raed"}, Action: specs.ActAllow},
	}}
	f, err := Compile(p, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"_bogus", "raed"}, f.Unknown); diff != "" {
		t.Errorf("unknown names (-want +got):\n%s", diff)
	}
}

func TestDefaultNamesAreKnown(t *testing.T) {
	for _, goarch := range []string{"amd64", "arm64"} {
		f, err := Compile(Default(DefaultOptions{Arch: goarch, Caps: capabilitySets["all"], KernelMajor: 6}), goarch)
		if err != nil || f.Unknown != nil {
			t.Errorf("%s: unknown names %v, error %v", goarch, f.Unknown, err)
		}
	}
}

func TestTableIsSorted(t *testing.T) {
	if !slices.IsSortedFunc(calls[:], func(a, b call) int { return strings.Compare(a.name, b.name) }) {
		t.Error("calls is not sorted by name")
	}
	for on := range abi(abiCount) {
		for _, c := range calls {
			if nr := c.nr[on]; nr >= privateAt && (nr < armPrivate || nr >= armPrivate+privateCells) {
				t.Errorf("%s: number %d of %s does not fit into a section", c.name, nr, abiInfos[on].name)
			}
		}
	}
	for name, want := range map[string][abiCount]int32{ // spot checks from the kernel's tables
		"read":              {0, 0, 3, 63, 3},
		"ioctl":             {16, 514, 54, 29, 54},
		"clone3":            {435, 435, 435, 435, 435},
		"socketcall":        {-1, -1, 102, -1, -1},
		"set_tls":           {-1, -1, -1, -1, 0xf0005},
		"newfstatat":        {262, 262, -1, 79, -1},
		"io_uring_setup":    {425, 425, 425, 425, 425},
		"listmount":         {458, 458, 458, 458, 458},
		"clock_settime64":   {-1, -1, 404, -1, 404},
		"sync_file_range2":  {-1, -1, -1, -1, 341},
		"file_setattr":      {469, 469, 469, 469, 469},
		"process_vm_writev": {311, 540, 348, 271, 377},
	} {
		if got := calls[findCall(name)].nr; got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}

func TestBytes(t *testing.T) {
	f := Filter{Program: []Instruction{{Op: 0x1234, Jt: 5, Jf: 6, K: 0x789abcde}, {Op: opRet, K: retAllow}}}
	b := f.Bytes()
	if len(b) != 16 || binary.LittleEndian.Uint16(b) != 0x1234 || b[2] != 5 || b[3] != 6 || binary.LittleEndian.Uint32(b[4:]) != 0x789abcde {
		t.Errorf("got %x", b)
	}
}

// TestDisassemble keeps the text of the default filters, so that a change of the profile or of the compiler shows.
func TestDisassemble(t *testing.T) {
	for _, goarch := range []string{"amd64", "arm64"} {
		f, err := Compile(Default(DefaultOptions{Arch: goarch, Caps: capabilitySets["docker"], KernelMajor: 6, KernelMinor: 1}), goarch)
		if err != nil {
			t.Fatal(err)
		}
		got := disassemble(f.Program, goarch)
		name := "testdata/default-" + goarch + ".txt"
		if *update {
			if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
			t.Errorf("%s (-want +got, -update rewrites it):\n%s", name, diff)
		}
	}
}

// FuzzDisassemble: any program at all has a text.
func FuzzDisassemble(f *testing.F) {
	f.Add([]byte{0x20, 0, 0, 0, 4, 0, 0, 0, 0x15, 0, 255, 3, 0, 0, 0, 0, 5, 0, 0, 0, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		var p []Instruction
		for ; len(b) >= 8; b = b[8:] {
			p = append(p, Instruction{binary.LittleEndian.Uint16(b), b[2], b[3], binary.LittleEndian.Uint32(b[4:])})
		}
		for _, goarch := range []string{"amd64", "arm64", "vax"} {
			if got, want := strings.Count(disassemble(p, goarch), fmt.Sprintf("\n%04d  ", max(len(p)-1, 0))), min(len(p), 1); got != want {
				t.Errorf("%d lines for the last instruction, want %d", got, want)
			}
		}
	})
}
