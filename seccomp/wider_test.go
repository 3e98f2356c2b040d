package seccomp

import (
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func compiled(t *testing.T, p *specs.LinuxSeccomp) []Instruction {
	t.Helper()
	f, err := Compile(p, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	program, err := Instructions(f.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return program
}

// TestWider: a filter is judged by what it lets through.
func TestWider(t *testing.T) {
	standard := func(caps ...string) *specs.LinuxSeccomp {
		return Default(DefaultOptions{Arch: "amd64", Caps: caps, KernelMajor: 6})
	}
	with := func(s specs.LinuxSyscall) *specs.LinuxSeccomp {
		p := standard()
		p.Syscalls = append([]specs.LinuxSyscall{s}, p.Syscalls...)
		return p
	}
	allow := func(name string, args ...specs.LinuxSeccompArg) *specs.LinuxSeccomp {
		return with(specs.LinuxSyscall{Names: []string{name}, Action: specs.ActAllow, Args: args})
	}
	native := standard()
	native.Architectures = []specs.Arch{specs.ArchX86_64}
	for _, tt := range []struct {
		name string
		p    *specs.LinuxSeccomp
		want string // calls of the machine's own interface, and whether others
	}{
		{"the same", standard(), ""},
		{"less", native, ""},
		{"a call", allow("keyctl"), "keyctl i386 keyctl x32 keyctl"},
		{"always instead of sometimes", allow("personality"), "personality i386 personality x32 personality"},
		{"another argument", allow("socket", arg(0, specs.OpEqualTo, 38)), "socket i386 socket x32 socket"},
		{"a flag", allow("clone", arg(0, specs.OpEqualTo, 0x10000000)), "clone i386 clone x32 clone"},
		{"an argument that was allowed", allow("personality", arg(0, specs.OpEqualTo, 8)), ""},
		{"a number that is logged", with(specs.LinuxSyscall{Names: []string{"keyctl"}, Action: specs.ActLog}), "keyctl i386 keyctl x32 keyctl"},
		{"another error", with(specs.LinuxSyscall{Names: []string{"read"}, Action: specs.ActErrno}), ""},
	} {
		got := Wider(compiled(t, tt.p), compiled(t, standard()), "amd64")
		slices.Sort(got)
		want := strings.Fields(tt.want)
		joined := strings.Join(got, " ")
		if len(want) == 0 && joined != "" {
			t.Errorf("%s: got %q, want nothing", tt.name, joined)
		}
		for _, w := range want {
			if !strings.Contains(joined, w) {
				t.Errorf("%s: got %q, want %q in it", tt.name, joined, w)
			}
		}
	}
	// An interface that isn't the machine's own: 64-bit calls as the default has them, all 32-bit ones allowed.
	open := append([]Instruction{{opLoad, 0, 0, offArch}, {opJeq, 1, 0, 0x40000003}, {opJump, 0, 0, 1}, {opRet, 0, 0, retAllow}},
		compiled(t, standard())...)
	got := Wider(open, compiled(t, standard()), "amd64")
	if !slices.Contains(got, "i386 keyctl") || slices.Contains(got, "keyctl") {
		t.Errorf("32-bit calls: got %q", got)
	}
	if got := Wider(compiled(t, standard("CAP_SYS_ADMIN")), compiled(t, standard()), "amd64"); !slices.Contains(got, "mount") {
		t.Errorf("with CAP_SYS_ADMIN: got %q, want mount among them", got)
	}
}
