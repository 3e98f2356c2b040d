package seccomp

import (
	"os"
	"slices"
	"testing"
)

// TestDefaultAgainstMoby asks the default profile and Docker's newest about every system call of every interface, with every argument
// that either looks at, and wants the same answer. The rules are those of the Go module github.com/moby/profiles/seccomp v0.3.0, file
// default.json, without its empty fields.
func TestDefaultAgainstMoby(t *testing.T) {
	text, err := os.ReadFile("testdata/moby-profiles-seccomp-0.3.0.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, goarch := range []string{"amd64", "arm64"} {
		for name, caps := range capabilitySets {
			for _, kernel := range [][2]int{{4, 4}, {6, 18}} {
				o := DefaultOptions{Arch: goarch, Caps: caps, KernelMajor: kernel[0], KernelMinor: kernel[1]}
				moby, err := ParseProfile(text, o)
				if err != nil {
					t.Fatal(err)
				}
				theirs, err := Compile(moby, goarch)
				if err != nil || len(theirs.Unknown) > 0 {
					t.Fatalf("%v, unknown names %v", err, theirs.Unknown)
				}
				p := Default(o)
				ours, err := Compile(p, goarch)
				if err != nil {
					t.Fatal(err)
				}
				vals := slices.Concat(values(moby), values(p))
				for n := range uint64(70) { // families of sockets, and what they would be with more bits
					vals = append(vals, n, n|1<<32, n|1<<31)
				}
				slices.Sort(vals)
				vals = slices.Compact(vals)
				asked := 0
				for _, audit := range audits(goarch) {
					for _, nr := range numbers() {
						for _, v := range vals {
							d := data{nr: nr, arch: audit}
							d.args[0] = v
							asked++
							if got, want := run(ours.Program, d), run(theirs.Program, d); got != want {
								t.Errorf("%s, %s, Linux %v: %v: ours says %s, Docker's %s", goarch, name, kernel, d, verdictName(got), verdictName(want))
							}
						}
						if t.Failed() {
							t.FailNow()
						}
					}
				}
				if asked < 100000 {
					t.Errorf("only %d questions", asked)
				}
			}
		}
	}
}
