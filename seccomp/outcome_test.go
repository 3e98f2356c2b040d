package seccomp

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestOutcomes compares what is told of every call with what the interpreter answers for many arguments.
func TestOutcomes(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		f, err := Compile(Default(DefaultOptions{Arch: arch, KernelMajor: 6}), arch)
		if err != nil {
			t.Fatal(err)
		}
		p, err := Instructions(f.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(p, f.Program) {
			t.Fatal("Instructions is not the inverse of Bytes")
		}
		byName := map[string]Outcome{}
		native := machine(arch)[0]
		random := rand.New(rand.NewPCG(1, 2))
		for _, o := range Outcomes(p, arch) {
			byName[o.Name] = o
			for range 50 {
				d := data{nr: o.Number, arch: abiInfos[native].audit}
				for i := range d.args {
					d.args[i] = random.Uint64() >> (random.Uint() % 64)
				}
				got := run(p, d)
				if !slices.Contains(o.Verdicts, got) {
					t.Fatalf("%s %s: the filter answers %#x to %v, outcomes are %#x", arch, o.Name, got, d, o.Verdicts)
				}
			}
		}
		for name, want := range map[string][2]bool{
			"read": {true, true}, "mount": {false, false}, "clone": {true, false},
			"personality": {true, false}, "kexec_load": {false, false},
		} {
			sometimes, always := byName[name].Allowed()
			if got := [2]bool{sometimes, always}; got != want {
				t.Errorf("%s %s: allowed sometimes, always: got %v, want %v", arch, name, got, want)
			}
		}
	}
}

func TestInstructionsBad(t *testing.T) {
	ret := []byte{6, 0, 0, 0, 0, 0, 0xff, 0x7f}
	for name, b := range map[string][]byte{
		"empty": nil, "odd": ret[:7], "jump out": append([]byte{0x15, 0, 9, 9, 0, 0, 0, 0}, ret...),
		"no return": {0x20, 0, 0, 0, 0, 0, 0, 0}, "operation": append([]byte{0x0c, 0, 0, 0, 0, 0, 0, 0}, ret...),
		"load": append([]byte{0x20, 0, 0, 0, 64, 0, 0, 0}, ret...), "long jump": append([]byte{5, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}, ret...),
	} {
		if _, err := Instructions(b); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
	if _, err := Instructions(ret); err != nil {
		t.Errorf("a lone return: %v", err)
	}
}
