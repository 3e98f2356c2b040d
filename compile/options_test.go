package compile

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"glassbox/host"
	"glassbox/oci"
	"glassbox/plan"
)

// table are the options of the specification's table (config.md, Linux mount options) without idmap and ridmap.
const table = `async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev nodiratime noexec
noiversion nolazytime norelatime nostrictatime nosuid nosymfollow private ratime rbind rdev rdiratime relatime remount rexec
rnoatime rnodiratime rnoexec rnorelatime rnostrictatime rnosuid rnosymfollow ro rprivate rrelatime rro rrw rshared rslave
rstrictatime rsuid rsymfollow runbindable rw shared silent slave strictatime suid symfollow sync tmpcopyup unbindable nomand
rnodev`

// knownOptions are the options of mounts that the specification lists and this package knows. Others go to the file system.
func knownOptions() []string {
	words := slices.Concat([]string{"bind", "rbind", "defaults", "remount", "tmpcopyup"}, superWords, classicWords)
	recursive := slices.Concat(attributeWords, atimeDefaults, propagationWords)
	for word, other := range opposites {
		if slices.Contains(attributeWords, other) {
			recursive = append(recursive, word)
		} else {
			words = append(words, word)
		}
	}
	for _, word := range recursive {
		words = append(words, word, "r"+word)
	}
	slices.Sort(words)
	return words
}

// TestFeatures: what the runtime says of itself is what is compiled.
func TestFeatures(t *testing.T) {
	can := append(knownOptions(), "idmap", "ridmap")
	slices.Sort(can)
	if diff := cmp.Diff(slices.Compact(can), oci.Features().MountOptions); diff != "" {
		t.Errorf("mount options (-compiled +listed):\n%s", diff)
	}
}

// TestMountOptions writes down what becomes of every option, on a tmpfs and on a bind mount, and of some combinations.
func TestMountOptions(t *testing.T) {
	words := knownOptions()
	for _, w := range strings.Fields(table) {
		if !slices.Contains(words, w) {
			t.Errorf("%s is in the specification's table and not among those that are known", w)
		}
	}
	words = append(words, []string{
		"ro,rw", "rw,ro", "noatime,relatime", "strictatime,atime", "ro,rnosuid", "rro,rw", "noatime,rnoatime,nodiratime", "private,rslave",
		"shared,private",
		"sync,async,dirsync", "lazytime,silent", "nosuid,mode=700,size=1m", "remount,ro", "remount,rro,size=2m", "rbind,remount,noexec",
		"rbind,slave", "rbind,shared",
	}...)
	var b strings.Builder
	for _, word := range words {
		for _, base := range []string{"tmpfs", "bind"} {
			options := strings.Split(word, ",")
			m := specs.Mount{Destination: "/x", Type: "tmpfs", Source: "/src", Options: options}
			if base == "bind" {
				m.Type, m.Options = "none", append([]string{"bind"}, options...)
			}
			m.Source = map[string]string{"tmpfs": "tmpfs", "bind": "/src"}[base]
			out, err := Container(Input{Facts: facts(host.CgroupV2), Spec: &specs.Spec{
				Root: &specs.Root{Path: "/r"}, Process: &specs.Process{Args: []string{"sh"}, Cwd: "/"}, Mounts: []specs.Mount{m},
				Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: "mount"}}},
			}})
			fmt.Fprintf(&b, "%-28s %-6s", word, base)
			if err != nil {
				fmt.Fprintf(&b, "error: %v\n", err)
				continue
			}
			var steps []string
			for _, s := range out.Plan.Steps {
				if s.Origin == "/mounts/0" || s.Origin == "/mounts/0/options" {
					steps = append(steps, s.Op.String())
				}
				if o, ok := s.Op.(*plan.FSMount); ok && o.KeepMode {
					steps = append(steps, "(mode of /x)")
				}
			}
			fmt.Fprintln(&b, strings.Join(steps, "; "))
		}
	}
	const file = "testdata/options.txt"
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), b.String()); d != "" {
		t.Errorf("options (-want +got):\n%s", d)
	}
}
