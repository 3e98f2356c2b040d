package compile

import (
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"glassbox/host"
	"glassbox/plan"
)

// TestNamedTwice: a path that is named twice, however it is written, is hidden or made read-only once; to be hidden and to be made
// read-only are two things.
func TestNamedTwice(t *testing.T) {
	s := &specs.Spec{
		Version: specs.Version, Root: &specs.Root{Path: "/srv/root"}, Process: &specs.Process{Args: []string{"/bin/sh"}, Cwd: "/"},
		Linux: &specs.Linux{
			Namespaces:    []specs.LinuxNamespace{{Type: "mount"}, {Type: "pid"}},
			MaskedPaths:   []string{"/proc/kcore", "/sys/firmware", "/proc//kcore", "/sys/firmware/", "/proc/acpi"},
			ReadonlyPaths: []string{"/proc/sys", "/proc/./sys", "/proc/bus", "/proc/acpi"},
		},
	}
	out, err := Container(Input{Spec: s, Facts: facts(host.CgroupV2)})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, step := range out.Plan.Steps {
		switch o := step.Op.(type) {
		case *plan.MaskPath:
			got = append(got, "-"+o.Path+" "+step.Origin)
		case *plan.ReadonlyPath:
			got = append(got, o.Path)
		}
	}
	want := "-/proc/kcore /linux/maskedPaths/0 -/sys/firmware /linux/maskedPaths/1 -/proc/acpi /linux/maskedPaths/4 /proc/sys /proc/bus " +
		"/proc/acpi"
	if strings.Join(got, " ") != want {
		t.Errorf("got %q, want %s", got, want)
	}
}
