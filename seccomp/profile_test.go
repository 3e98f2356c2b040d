package seccomp

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

const dockerForm = `{
	"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
	"archMap": [
		{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
		{"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
		{"architecture": "SCMP_ARCH_RISCV64", "subArchitectures": null}
	],
	"syscalls": [
		{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [], "comment": "always", "includes": {}, "excludes": {}},
		{"name": "write", "action": "SCMP_ACT_ALLOW"},
		{"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_BPF"]}},
		{"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_BPF", "CAP_SYS_ADMIN"]}},
		{"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "excludes": {"caps": ["CAP_BPF", "CAP_SYS_ADMIN"]}},
		{"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
		{"names": ["vm86"], "action": "SCMP_ACT_ALLOW", "excludes": {"minKernel": "6.0"}},
		{"names": ["iopl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "x32"]}},
		{"names": ["set_tls"], "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["amd64"], "caps": ["CAP_BPF"]}},
		{"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errno": "EINVAL", "args": [{"index": 0, "value": 16, "valueTwo": 0,
			"op": "SCMP_CMP_EQ"}]}
	]
}`

func TestParseProfile(t *testing.T) {
	names := func(p *specs.LinuxSeccomp) string {
		var all []string
		for _, s := range p.Syscalls {
			all = append(all, s.Names...)
		}
		return strings.Join(all, " ")
	}
	for _, test := range []struct {
		o     DefaultOptions
		names string
		archs []specs.Arch
	}{
		{
			DefaultOptions{Arch: "amd64", KernelMajor: 6, KernelMinor: 1},
			"read write clone3 ptrace iopl socket",
			[]specs.Arch{"SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"},
		},
		{
			DefaultOptions{Arch: "amd64", Caps: []string{"CAP_BPF"}, KernelMajor: 4, KernelMinor: 7},
			"read write bpf vm86 iopl socket",
			[]specs.Arch{"SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"},
		},
		{
			DefaultOptions{Arch: "amd64", Caps: []string{"CAP_BPF", "CAP_SYS_ADMIN"}, KernelMajor: 5, KernelMinor: 0},
			"read write bpf mount ptrace vm86 iopl socket",
			[]specs.Arch{"SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"},
		},
		{
			DefaultOptions{Arch: "arm64", KernelMajor: 4, KernelMinor: 19},
			"read write clone3 ptrace vm86 set_tls socket",
			[]specs.Arch{"SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"},
		},
	} {
		p, err := ParseProfile([]byte(dockerForm), test.o)
		if err != nil {
			t.Fatal(err)
		}
		if got := names(p); got != test.names {
			t.Errorf("%+v: got %q, want %q", test.o, got, test.names)
		}
		if diff := cmp.Diff(test.archs, p.Architectures); diff != "" {
			t.Errorf("%+v: architectures (-want +got):\n%s", test.o, diff)
		}
		if last := p.Syscalls[len(p.Syscalls)-1]; last.ErrnoRet == nil || *last.ErrnoRet != 22 {
			t.Errorf("errno by name: got %v, want 22", last.ErrnoRet)
		}
	}
}

// TestParseProfilePlain reads what the runtime-spec writes, unchanged.
func TestParseProfilePlain(t *testing.T) {
	want := Default(DefaultOptions{Arch: "arm64", KernelMajor: 6})
	want.Flags = []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_LOG"}
	want.ListenerPath, want.ListenerMetadata = "/run/agent.sock", "m"
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseProfile(text, DefaultOptions{Arch: "amd64"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestParseProfileRefuses(t *testing.T) {
	rule := func(s string) string {
		return `{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}, {` + s + `}]}`
	}
	for _, test := range []struct{ profile, want string }{
		{``, "the profile is empty"},
		{`{"defaultAction": `, "the profile is cut short"},
		{`[]`, "a profile is a JSON object, this is array"},
		{`{"defaultAction": "SCMP_ACT_ALLOW",}`, "not JSON at byte"},
		{`{}`, "/defaultAction: missing"},
		{`{"defaultAction": "SCMP_ACT_ALLOW"} {}`, "more text after the profile"},
		{`{"defaultAction": "allow"}`, `/defaultAction: unknown action "allow"`},
		{`{"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}`, "/defaultErrnoRet: 1, but SCMP_ACT_ALLOW has no errno"},
		{`{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrno": "EWHAT"}`, `/defaultErrno: unknown name "EWHAT"`},
		{`{"defaultAction": "SCMP_ACT_ERRNO", "sycalls": []}`, `unknown field "sycalls"`},
		{`{"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_VAX"]}`, `/architectures/0: unknown architecture "SCMP_ARCH_VAX"`},
		{
			`{"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86"], "archMap": [{"architecture": "SCMP_ARCH_X86_64"}]}`,
			"/archMap: there are architectures, too",
		},
		{`{"defaultAction": "SCMP_ACT_ERRNO", "archMap": [{"architecture": "x86"}]}`, `/archMap/0/architecture: unknown architecture "x86"`},
		{
			`{"defaultAction": "SCMP_ACT_ERRNO", "archMap": [{"architecture": "SCMP_ARCH_X86", "subArchitectures": ["y"]}]}`,
			"/archMap/0/subArchitectures/0:",
		},
		{rule(`"names": ["a"], "action": "SCMP_ACT_MAYBE"`), `/syscalls/1/action: unknown action "SCMP_ACT_MAYBE"`},
		{rule(`"names": ["a"]`), `/syscalls/1/action: missing`},
		{rule(`"names": [], "action": "SCMP_ACT_ALLOW"`), "/syscalls/1/names: missing"},
		{rule(`"names": [""], "action": "SCMP_ACT_ALLOW"`), "/syscalls/1/names/0: an empty name"},
		{rule(`"name": "a", "names": ["b"], "action": "SCMP_ACT_ALLOW"`), "/syscalls/1/name: there are names, too"},
		{rule(`"names": "a", "action": "SCMP_ACT_ALLOW"`), "/syscalls/names: string where []string is wanted"},
		{rule(`"names": ["a"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 9, "op": "SCMP_CMP_EQ"}]`), "/syscalls/1/args/0/index: 9"},
		{rule(`"names": ["a"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "op": "=="}]`), `/syscalls/1/args/0/op: unknown operator "=="`},
		{
			rule(`"names": ["a"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": -1, "op": "SCMP_CMP_EQ"}]`),
			"/syscalls/args/value: number -1 where uint64 is wanted",
		},
		{
			rule(`"names": ["a"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["SYS_ADMIN"]}`),
			`/syscalls/1/includes/caps/0: "SYS_ADMIN" is no capability`,
		},
		{
			rule(`"names": ["a"], "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["x86-64"]}`),
			`/syscalls/1/excludes/arches/0: unknown architecture "x86-64"`,
		},
		{
			rule(`"names": ["a"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "new"}`),
			`/syscalls/1/includes/minKernel: "new" is not of the form 4.8`,
		},
		{rule(`"names": ["a"], "action": "SCMP_ACT_ALLOW", "includes": {"maxKernel": "4.8"}`), `unknown field "maxKernel"`},
	} {
		_, err := ParseProfile([]byte(test.profile), DefaultOptions{Arch: "amd64", KernelMajor: 6})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s:\n got error %v\nwant %q", test.profile, err, test.want)
		}
	}
}

// TestInstalledProfile reads the profile that Debian's golang-github-containers-common brings, and checks the program
// made of it.
func TestInstalledProfile(t *testing.T) {
	const path = "/usr/share/containers/seccomp.json"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Skip("needs " + path + " (apt install golang-github-containers-common)")
	}
	for _, goarch := range []string{"amd64", "arm64"} {
		for _, caps := range capabilitySets {
			p, err := ParseProfile(text, DefaultOptions{Arch: goarch, Caps: caps, KernelMajor: 6, KernelMinor: 1})
			if err != nil {
				t.Fatal(err)
			}
			agree(t, p, goarch, numbers(), some(values(p), 40))
		}
	}
}

func FuzzParseProfile(f *testing.F) {
	f.Add([]byte(dockerForm))
	f.Add([]byte(`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["a"], "action": "SCMP_ACT_KILL", "excludes": null}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, goarch := range []string{"amd64", "arm64", ""} {
			p, err := ParseProfile(text, DefaultOptions{Arch: goarch, Caps: []string{"CAP_SYS_ADMIN"}, KernelMajor: 5, KernelMinor: 14})
			if err != nil || goarch == "" {
				continue
			}
			if c, err := Compile(p, goarch); err == nil {
				if err := check(c.Program); err != nil {
					t.Errorf("the kernel would refuse the program: %v", err)
				}
			}
		}
	})
}
