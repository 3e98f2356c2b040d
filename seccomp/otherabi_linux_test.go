package seccomp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestKernelActionsOtherABI takes every action through each way into the kernel that amd64 has.
func TestKernelActionsOtherABI(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("needs amd64")
	}
	dir := t.TempDir()
	row := calls[findCall("getpriority")].nr // a call that this test's child doesn't need before
	number := uint(50)
	low := specs.LinuxSeccompArg{Index: 0, Op: specs.OpEqualTo, Value: 7}
	const passed = -3
	for _, way := range []struct {
		name   string
		narrow bool
		nr     uint32
	}{
		{"x86_64", false, uint32(row[abiAMD64])},
		{"i386", true, uint32(row[abi386])},
		{"x32", false, uint32(row[abiX32]) | x32Bit},
	} {
		// Without this way in the kernel a call that passes the filter ends otherwise: a fault for int 0x80, ENOSYS for x32.
		_, err := start(t, job{Profile: &specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow,
			Architectures: []specs.Arch{specs.ArchX86, specs.ArchX32},
		}, Exec: oneCall(t, dir, way.narrow, way.nr, 7)})
		pass := exitCode(err)
		if way.narrow && pass == -2 {
			t.Logf("%s: needs a kernel with CONFIG_IA32_EMULATION", way.name)
			continue
		}
		for _, test := range []struct {
			action specs.LinuxSeccompAction
			errno  *uint
			args   []specs.LinuxSeccompArg
			want   int
		}{
			{specs.ActAllow, nil, nil, passed},
			{specs.ActLog, nil, nil, passed},
			{specs.ActErrno, nil, nil, 1},
			{specs.ActErrno, &number, nil, 50},
			{specs.ActErrno, &number, []specs.LinuxSeccompArg{low}, 50},
			{specs.ActErrno, &number, []specs.LinuxSeccompArg{{Index: 0, Op: specs.OpNotEqual, Value: 7}}, passed},
			{specs.ActErrno, &number, []specs.LinuxSeccompArg{{Index: 0, Op: specs.OpMaskedEqual, Value: 6, ValueTwo: 6}}, 50},
			// the same argument twice: either
			{specs.ActErrno, &number, []specs.LinuxSeccompArg{low, {Index: 0, Op: specs.OpEqualTo, Value: 8}}, 50},
			{specs.ActTrace, nil, nil, 38}, // without a tracer
			{specs.ActTrap, nil, nil, -1},
			{specs.ActKill, nil, nil, -1},
			{specs.ActKillThread, nil, nil, -1},
			{specs.ActKillProcess, nil, nil, -1},
		} {
			want := test.want
			if want == passed {
				want = pass
			}
			p := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86, specs.ArchX32}}
			if test.action == specs.ActAllow {
				p.DefaultAction = specs.ActLog
			}
			p.Syscalls = []specs.LinuxSyscall{{Names: []string{"getpriority"}, Action: test.action, ErrnoRet: test.errno, Args: test.args}}
			_, err := start(t, job{Profile: p, Exec: oneCall(t, dir, way.narrow, way.nr, 7)})
			if got := exitCode(err); got != want {
				t.Errorf("%s: %s %v: got %d, want %d (%v)", way.name, test.action, test.args, got, want, err)
			}
		}
	}
}

// TestKernelOtherABI enters the kernel as a 32-bit and as an x32 program would. Behind the filter, the child executes a
// program of a few instructions that makes one call and exits with its errno.
func TestKernelOtherABI(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("needs amd64")
	}
	dir := t.TempDir()
	everything := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86, specs.ArchX32}}
	i386 := func(name string) uint32 { return uint32(calls[findCall(name)].nr[abi386]) }
	x32 := func(name string) uint32 { return uint32(calls[findCall(name)].nr[abiX32]) | x32Bit }
	has := map[bool]bool{}
	for _, narrow := range []bool{true, false} {
		nr := x32("umask")
		if narrow {
			nr = i386("umask")
		}
		_, err := start(t, job{Profile: everything, Exec: oneCall(t, dir, narrow, nr, 0o22)})
		has[narrow] = exitCode(err) == 0xff&-0o22 || exitCode(err) == 0xff&-int(0) // the old mask, negated
	}
	def := Default(DefaultOptions{Arch: "amd64", KernelMajor: 6})
	nativeOnly := *def
	nativeOnly.Architectures = nil
	for _, test := range []struct {
		name   string
		p      *specs.LinuxSeccomp
		narrow bool
		nr     uint32
		arg    uint32
		want   int // errno; -1 is death by SIGSYS
	}{
		{"i386 unshare", def, true, i386("unshare"), 0x10000000, 1},
		{"i386 clone with user namespace", def, true, i386("clone"), 0x10000000, 1},
		{"i386 clone3", def, true, i386("clone3"), 0, 38},
		{"i386 socket AF_VSOCK", def, true, i386("socket"), 40, 1},
		{"i386 close", def, true, i386("close"), 1 << 30, 9},
		{"i386 not listed", &nativeOnly, true, i386("close"), 1 << 30, -1},
		{"x32 unshare", def, false, x32("unshare"), 0x10000000, 1},
		{"x32 not listed", &nativeOnly, false, x32("close"), 1 << 30, -1},
		{"x32 close", def, false, x32("close"), 1 << 30, 9},
		{"native by the same program", &nativeOnly, false, 3, 1 << 30, 9},
	} {
		// Without the ABI in the kernel, the filter still decides; only a call it lets through ends with ENOSYS.
		if test.want == 9 && test.nr&x32Bit != 0 && !has[false] {
			test.want = 38
		}
		if test.narrow && !has[true] {
			t.Logf("%s: needs a kernel with CONFIG_IA32_EMULATION", test.name)
			continue
		}
		_, err := start(t, job{Profile: test.p, Exec: oneCall(t, dir, test.narrow, test.nr, test.arg)})
		if got := exitCode(err); got != test.want {
			t.Errorf("%s: got errno %d, want %d (%v)", test.name, got, test.want, err)
		}
	}
	t.Logf("kernel has i386: %v, x32: %v", has[true], has[false])
}

// exitCode is the exit status of a child, -1 if SIGSYS ended it.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if e := (*exec.ExitError)(nil); errors.As(err, &e) {
		status := e.Sys().(syscall.WaitStatus)
		if status.Signaled() && status.Signal() == syscall.SIGSYS {
			return -1
		}
		if status.Exited() {
			return status.ExitStatus()
		}
	}
	return -2
}

// oneCall writes a static x86-64 program that makes one system call with one argument, by int 0x80 or by syscall, and
// exits with the negated result.
func oneCall(t *testing.T, dir string, narrow bool, nr, arg uint32) string {
	t.Helper()
	le := binary.LittleEndian
	code := le.AppendUint32([]byte{0xb8}, nr) // mov eax, nr
	if narrow {
		code = le.AppendUint32(append(code, 0xbb), arg) // mov ebx, arg
		code = append(code, 0xcd, 0x80)                 // int 0x80
	} else {
		code = le.AppendUint32(append(code, 0xbf), arg) // mov edi, arg
		code = append(code, 0x0f, 0x05)                 // syscall
	}
	code = append(code, 0xf7, 0xd8, 0x89, 0xc7)               // neg eax; mov edi, eax
	code = append(code, 0xb8, 231, 0, 0, 0, 0x0f, 0x05, 0xf4) // mov eax, exit_group; syscall; hlt
	return writeProgram(t, filepath.Join(dir, fmt.Sprintf("call-%v-%x-%x", narrow, nr, arg)), code)
}

// narrowCalls writes a static x86-64 program that makes the i386 calls from 0 to most-1, but for one, by int 0x80, each with last as
// its last argument, and writes their results to its standard output, 4 bytes each.
func narrowCalls(t *testing.T, dir string, most, last, but uint32) string {
	t.Helper()
	le := binary.LittleEndian
	code := le.AppendUint32([]byte{0x48, 0x81, 0xec}, 4*most) // sub rsp, 4*most
	code = append(code, 0x45, 0x31, 0xe4)                     // xor r12d, r12d
	loop := len(code)
	code = le.AppendUint32(append(code, 0x41, 0x81, 0xfc), but)                     // cmp r12d, but
	code = append(code, 0x74, 10+5+5+4)                                             // je next
	code = append(code, 0x31, 0xdb, 0x31, 0xc9, 0x31, 0xd2, 0x31, 0xf6, 0x31, 0xff) // xor ebx, ebx … edi, edi
	code = le.AppendUint32(append(code, 0xbd), last)                                // mov ebp, last
	code = append(code, 0x44, 0x89, 0xe0, 0xcd, 0x80)                               // mov eax, r12d; int 0x80
	code = append(code, 0x42, 0x89, 0x04, 0xa4)                                     // mov [rsp+r12*4], eax
	code = append(code, 0x41, 0xff, 0xc4)                                           // next: inc r12d
	code = le.AppendUint32(append(code, 0x41, 0x81, 0xfc), most)                    // cmp r12d, most
	code = append(code, 0x72, byte(loop-len(code)-2))                               // jb loop
	code = append(code, 0xbf, 1, 0, 0, 0, 0x48, 0x89, 0xe6)                         // mov edi, 1; mov rsi, rsp
	code = le.AppendUint32(append(code, 0xba), 4*most)                              // mov edx, 4*most
	code = append(code, 0x45, 0x31, 0xc9)                                           // xor r9d, r9d
	code = append(code, 0xb8, 1, 0, 0, 0, 0x0f, 0x05)                               // mov eax, write; syscall
	code = append(code, 0x31, 0xff, 0xb8, 231, 0, 0, 0, 0x0f, 0x05, 0xf4)           // xor edi, edi; mov eax, exit_group; syscall; hlt
	return writeProgram(t, filepath.Join(dir, "calls"), code)
}

// writeProgram writes a static x86-64 program.
func writeProgram(t *testing.T, name string, code []byte) string {
	t.Helper()
	le := binary.LittleEndian
	const base, header = 0x400000, 64 + 56
	b := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 9)...)
	b = le.AppendUint16(b, 2)           // ET_EXEC
	b = le.AppendUint16(b, 62)          // EM_X86_64
	b = le.AppendUint32(b, 1)           // version
	b = le.AppendUint64(b, base+header) // entry
	b = le.AppendUint64(b, 64)          // program headers
	b = le.AppendUint64(b, 0)           // section headers
	b = le.AppendUint32(b, 0)           // flags
	for _, v := range []uint16{64, 56, 1, 0, 0, 0} {
		b = le.AppendUint16(b, v)
	}
	b = le.AppendUint32(b, 1) // PT_LOAD
	b = le.AppendUint32(b, 5) // R+X
	size := uint64(header + len(code))
	for _, v := range []uint64{0, base, base, size, size, 0x1000} {
		b = le.AppendUint64(b, v)
	}
	b = append(b, code...)
	if err := os.WriteFile(name, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return name
}
