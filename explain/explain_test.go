package explain

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"glassbox/plan"
)

var update = flag.Bool("update", false, "write the golden files")

// sample has every shape that the printer knows: both lanes, arrows between them, a phase that comes back, reasons that
// repeat, long ids, and names that a hostile image could have chosen.
func sample() *plan.Plan {
	id := strings.Repeat("0123456789abcdef", 4)
	group := "/sys/fs/cgroup/glassbox/" + id
	h, c := plan.Host, plan.Child
	return &plan.Plan{Version: plan.Version, Arch: "amd64", Steps: []plan.Step{
		{
			Lane: h, Phase: plan.Limits, Op: &plan.CgroupCreate{Path: group}, Origin: "default",
			Reason: "The container gets a cgroup in this hierarchy (v2).",
		},
		{
			Lane: h, Phase: plan.Limits, Op: &plan.CgroupCreate{Path: group + "/leaf"}, Origin: "default",
			Reason: "The container gets a cgroup in this hierarchy (v1: pids).",
		},
		{
			Lane: h, Phase: plan.Limits, Op: &plan.CgroupWrite{File: group + "/memory.max", Value: "52428800"}, Origin: "--memory=50m",
			Reason: "A process that needs more memory than this is killed.",
		},
		{
			Lane: h, Phase: plan.Limits, Op: &plan.CgroupOpen{Path: group, Save: "cgroup"}, Origin: "default",
			Reason: "The child is born into this cgroup.",
		},
		{
			Lane: h, Phase: plan.Sources, Op: &plan.OpenTree{Path: "/srv/data", Recursive: true, Save: "mount:0"},
			Origin: "--volume=/srv/data:/data:ro",
			Reason: "The source of a bind mount is taken from the host now, while no name can be influenced by the container.",
		},
		{
			Lane: h, Phase: plan.Isolation, Op: &plan.Clone{Namespaces: []string{"mount", "pid", "net"}, Cgroup: "cgroup"},
			Origin: "/linux/namespaces", Reason: "The container is this one process.",
		},
		{
			Lane: h, Phase: plan.Network, Op: &plan.LinkAddress{Link: "lo"}, Origin: "default",
			Reason: "A new network namespace has a loopback interface that is down.",
		},
		{Lane: h, Phase: plan.Network, Op: &plan.Release{Name: "network"}, Origin: "default", Reason: "The network is ready."},
		{
			Lane: c, Phase: plan.Rootfs, Op: &plan.PivotRoot{Root: "/var/lib/glassbox/containers/" + id + "/merged"}, Origin: "image config",
			Reason: "The new root replaces the old one.",
		},
		{
			Lane: c, Phase: plan.Mounts, Op: &plan.MoveMount{From: "mount:0", Target: "/data\x1b[2J", Set: []string{"ro"}},
			Origin: "--volume=/srv/data:/data:ro", Reason: "The host's /srv/data is seen here.",
		},
		{Lane: c, Phase: plan.Network, Op: &plan.Await{Name: "network"}, Origin: "default", Reason: "The program must find the network ready."},
		{
			Lane: c, Phase: plan.Terminal, Op: &plan.OpenConsole{Rows: 24, Cols: 80, Master: "master", Slave: "terminal"}, Origin: "--tty",
			Reason: "A terminal of the container's own.",
		},
		{Lane: c, Phase: plan.Terminal, Op: &plan.SendFD{From: "master"}, Origin: "--tty", Reason: "The supervisor gets the other end."},
		{
			Lane: c, Phase: plan.Privileges, Op: &plan.Seccomp{Name: "default", Program: make([]byte, 80)}, Origin: "default",
			Reason: "System calls that ordinary programs don't need are refused.",
		},
		{
			Lane: c, Phase: plan.Exec, Op: &plan.Execve{
				Candidates: []string{"/bin/sh"},
				Argv:       []string{"sh", "-c", strings.Repeat("echo a long command; ", 20)}, Env: []string{"PATH=/bin", "EVIL=\u202e\xff\n"},
			},
			Origin: "command line", Reason: "The child becomes the program.",
		},
		{
			Lane: h, Phase: plan.Terminal, Op: &plan.RecvFD{Save: "console"}, Origin: "--tty",
			Reason: "The supervisor holds the other end of the terminal.",
		},
	}}
}

func TestText(t *testing.T) {
	for name, o := range map[string]TextOptions{
		"text": {}, "verbose": {Verbose: true}, "narrow": {Width: 60}, "color": {Color: true},
	} {
		var b bytes.Buffer
		if err := Text(&b, sample(), o); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), b.String()); diff != "" {
			t.Errorf("%s: -want +got\n%s", name, diff)
		}
		width := max(o.Width, 60)
		if o.Width == 0 {
			width = 100
		}
		for i, line := range strings.Split(b.String(), "\n") {
			if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' }) && !o.Color {
				t.Errorf("%s: line %d has control characters: %q", name, i+1, line)
			}
			if n := utf8.RuneCountInString(line); n > width && !o.Color && !strings.HasPrefix(line, "plan sha256:") {
				t.Errorf("%s: line %d is %d columns wide, want at most %d: %s", name, i+1, n, width, line)
			}
		}
	}
}

// TestTextBroken prints plans that can't run: what is printed must not depend on a plan being right.
func TestTextBroken(t *testing.T) {
	for _, p := range []*plan.Plan{
		{}, {Steps: []plan.Step{{Lane: "nowhere", Phase: "nothing", Op: &plan.Umask{}}}},
	} {
		if err := Text(&bytes.Buffer{}, p, TextOptions{Width: 1, Verbose: true}); err != nil {
			t.Errorf("%+v: %v", p, err)
		}
	}
	if err := Text(&bytes.Buffer{}, &plan.Plan{Steps: []plan.Step{{}}}, TextOptions{}); err == nil {
		t.Error("a step without an op has no hash: got no error")
	}
}

func TestJSON(t *testing.T) {
	p := sample()
	p.Steps[14].Op.(*plan.Execve).Env = []string{"PATH=/bin"} // JSON holds text, not bytes
	var b bytes.Buffer
	if err := JSON(&b, p, About{}); err != nil {
		t.Fatal(err)
	}
	var got plan.Plan
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(p, &got); diff != "" {
		t.Errorf("round trip: -want +got\n%s", diff)
	}
	wantHash, _ := p.Hash()
	if gotHash, _ := got.Hash(); gotHash != wantHash {
		t.Errorf("hash after a round trip: got %s, want %s", gotHash, wantHash)
	}
}

func TestPlain(t *testing.T) {
	for s, want := range map[string]string{"a (b) c": "a c", "a": "a", "a (b": "a"} {
		if got := plain(s); got != want {
			t.Errorf("plain(%q): got %q, want %q", s, got, want)
		}
	}
}
