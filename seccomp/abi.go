package seccomp

import "strings"

// An abi is one way into the kernel with its own numbering of the system calls. A machine has one native abi and the
// compatible ones that its kernel may have been built with.
type abi uint8

// Columns of the generated table, in this order.
const (
	abiAMD64 abi = iota
	abiX32
	abi386
	abiARM64
	abiARM
	abiCount
)

const (
	// x32Bit marks a system call of the x32 ABI (__X32_SYSCALL_BIT). The kernel reports x32 calls with the arch of
	// x86-64, so this bit of the number is the only difference.
	x32Bit = 0x40000000

	// noCall is the number -1 that a tracer writes to skip a call; since Linux 4.8 filters see it.
	noCall = 0xffffffff

	// armPrivate is where 32-bit ARM numbers its own calls (__ARM_NR_BASE), far above the ordinary ones.
	armPrivate = 0x0f0000
)

// call is one row of the table: a name and its number on every abi, -1 where it has none.
type call struct {
	name string
	nr   [abiCount]int32
}

// abiInfo holds what the assembler and the disassembler need to know of an abi.
type abiInfo struct {
	name   string // for people
	audit  uint32 // AUDIT_ARCH_* of linux/audit.h: what seccomp_data.arch holds
	narrow bool   // registers have 32 bits: the upper half of an argument is always zero
}

var abiInfos = [abiCount]abiInfo{
	abiAMD64: {"x86_64", 0xc000003e, false},
	abiX32:   {"x32", 0xc000003e, false},
	abi386:   {"i386", 0x40000003, true},
	abiARM64: {"aarch64", 0xc00000b7, false},
	abiARM:   {"arm", 0x40000028, true},
}

// machine lists, for a GOARCH, the abis that its kernel can offer, native first.
func machine(goarch string) []abi {
	switch goarch {
	case "amd64":
		return []abi{abiAMD64, abiX32, abi386}
	case "arm64":
		return []abi{abiARM64, abiARM}
	}
	return nil
}

// archOf maps the architecture names of a profile to our abi; abiCount stands for a known one that no machine of ours
// can run. The list is the runtime-spec's, as of libseccomp 2.6.
func archOf(name string) (a abi, known bool) {
	switch name {
	case "SCMP_ARCH_X86_64":
		return abiAMD64, true
	case "SCMP_ARCH_X32":
		return abiX32, true
	case "SCMP_ARCH_X86":
		return abi386, true
	case "SCMP_ARCH_AARCH64":
		return abiARM64, true
	case "SCMP_ARCH_ARM":
		return abiARM, true
	case "SCMP_ARCH_MIPS", "SCMP_ARCH_MIPS64", "SCMP_ARCH_MIPS64N32", "SCMP_ARCH_MIPSEL", "SCMP_ARCH_MIPSEL64",
		"SCMP_ARCH_MIPSEL64N32", "SCMP_ARCH_PPC", "SCMP_ARCH_PPC64", "SCMP_ARCH_PPC64LE", "SCMP_ARCH_S390",
		"SCMP_ARCH_S390X", "SCMP_ARCH_PARISC", "SCMP_ARCH_PARISC64", "SCMP_ARCH_RISCV64", "SCMP_ARCH_LOONGARCH64",
		"SCMP_ARCH_M68K", "SCMP_ARCH_SH", "SCMP_ARCH_SHEB":
		return abiCount, true
	}
	return abiCount, false
}

// findCall returns the row of a name in calls, or -1.
func findCall(name string) int {
	lo, hi := 0, len(calls)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		switch c := strings.Compare(calls[mid].name, name); {
		case c == 0:
			return mid
		case c < 0:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return -1
}

// isForeign reports whether a name is a system call of machines other than ours.
func isForeign(name string) bool {
	for _, f := range foreignCalls {
		if f == name {
			return true
		}
	}
	return false
}

// muxed is for the calls that 32-bit x86 also reaches through socketcall(2) or ipc(2): the name of the multiplexer
// and the number of the call in its first argument (linux/net.h, linux/ipc.h).
func muxed(name string) (mux string, sub uint32) {
	switch name {
	case "socket":
		return "socketcall", 1
	case "bind":
		return "socketcall", 2
	case "connect":
		return "socketcall", 3
	case "listen":
		return "socketcall", 4
	case "accept":
		return "socketcall", 5
	case "getsockname":
		return "socketcall", 6
	case "getpeername":
		return "socketcall", 7
	case "socketpair":
		return "socketcall", 8
	case "send":
		return "socketcall", 9
	case "recv":
		return "socketcall", 10
	case "sendto":
		return "socketcall", 11
	case "recvfrom":
		return "socketcall", 12
	case "shutdown":
		return "socketcall", 13
	case "setsockopt":
		return "socketcall", 14
	case "getsockopt":
		return "socketcall", 15
	case "sendmsg":
		return "socketcall", 16
	case "recvmsg":
		return "socketcall", 17
	case "accept4":
		return "socketcall", 18
	case "recvmmsg":
		return "socketcall", 19
	case "sendmmsg":
		return "socketcall", 20
	case "semop":
		return "ipc", 1
	case "semget":
		return "ipc", 2
	case "semctl":
		return "ipc", 3
	case "semtimedop":
		return "ipc", 4
	case "msgsnd":
		return "ipc", 11
	case "msgrcv":
		return "ipc", 12
	case "msgget":
		return "ipc", 13
	case "msgctl":
		return "ipc", 14
	case "shmat":
		return "ipc", 21
	case "shmdt":
		return "ipc", 22
	case "shmget":
		return "ipc", 23
	case "shmctl":
		return "ipc", 24
	}
	return "", 0
}

// Names are the words of the runtime-spec that profiles may use here.
type Names struct{ Actions, Operators, Archs, Flags []string }

// Known returns all of them, each list sorted.
func Known() Names {
	return Names{
		Actions: []string{
			"SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG",
			"SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP",
		},
		Operators: []string{
			"SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE",
		},
		Archs: []string{
			"SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64",
		},
		Flags: []string{
			"SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC",
			"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
		},
	}
}

// CallNames returns the names of a machine's own system calls by their numbers.
func CallNames(goarch string) map[uint64]string {
	names := map[uint64]string{}
	abis := machine(goarch)
	if len(abis) == 0 {
		return names
	}
	for i := range calls {
		if nr := calls[i].nr[abis[0]]; nr >= 0 {
			names[uint64(nr)] = calls[i].name
		}
	}
	return names
}
