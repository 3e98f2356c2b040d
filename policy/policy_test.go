package policy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"glassbox/container"
)

func TestParse(t *testing.T) {
	for _, text := range []string{
		``, `{}`, `[]`, `{"version":2,"name":"a"}`, `{"version":1}`, `{"version":1,"name":"a b"}`, `{"version":1,"name":"a","what":1}`,
		`{"version":1,"name":"a"} {}`, `{"version":1,"name":"a","requests":["destroy"]}`, `{"version":1,"name":"a","paths":[{"path":"rel"}]}`,
		`{"version":1,"name":"a","paths":[{"path":"/"}]}`, `{"version":1,"name":"a","paths":[{"path":"/a/../b"}]}`,
		`{"version":1,"name":"a","paths":[{"path":"/run"}]}`, `{"version":1,"name":"a","paths":[{"path":"/dev/sda"}]}`,
		`{"version":1,"name":"a","capabilities":["ALL"]}`, `{"version":1,"name":"a","capabilities":["WHAT"]}`,
		`{"version":1,"name":"a","networks":["host"]}`, `{"version":1,"name":"a","limits":{"memory":-1}}`,
	} {
		if p, err := Parse([]byte(text)); err == nil {
			t.Errorf("%s: got %+v", text, p)
		}
	}
	p, err := Parse([]byte(`{"version":1,"name":"a","requests":["read"],"capabilities":["net_admin"],"paths":[{"path":"/srv/x"}]}`))
	if err != nil || !p.Allows(Read) || p.Allows(Containers) || p.Capabilities[0] != "CAP_NET_ADMIN" {
		t.Errorf("got %+v, %v", p, err)
	}
}

func TestImages(t *testing.T) {
	p := Policy{Images: []string{"golang:*", "box", "registry.lan:5000/team/*"}}
	for name, want := range map[string]bool{
		"golang:1.26": true, "golang": false, "box": true, "box:latest": true, "box:2": false, "xgolang:1": false,
		"registry.lan:5000/team/a:1": true,
		"golang:5000/evil/image":     false, "golang:5000/evil/image:1": false, "golang:1.26@sha256:00": true, // a registry's port is no tag
		"registry.lan:5000/teams/a": false, "": false, "evil/golang:1": false, "box@sha256:00": false,
	} {
		if got := p.AllowsImage(name); got != want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

// TestUnknownField: what the judge wasn't told of is refused.
func TestUnknownField(t *testing.T) {
	if got := left(container.Config{Privileged: true, CIDFile: "/x"}); strings.Join(got, " ") != "cidFile privileged" {
		t.Errorf("got %v", got)
	}
	var nothing Policy
	if why := nothing.Judge(Ask{Config: &container.Config{Image: "box"}}); len(why) != 2 { // the image, and the default network
		t.Errorf("got %q", why)
	}
}

// TestReady: the policies that are installed can be read, and the one for looking allows nothing else.
func TestReady(t *testing.T) {
	files, err := filepath.Glob("../policies/*.json")
	if err != nil || len(files) != 4 {
		t.Fatalf("got %v, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		p, err := Parse(text)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if p.Name+".json" != filepath.Base(file) {
			t.Errorf("%s: its name is %s", file, p.Name)
		}
		if p.Name == "readonly" && (len(p.Requests) != 1 || !p.Allows(Read)) {
			t.Errorf("readonly allows %v", p.Requests)
		}
		for _, c := range []container.Config{
			{Image: "debian:12", Privileged: true},
			{Image: "debian:12", Mounts: []container.Mount{{Type: container.Bind, Source: "/", Target: "/x"}}},
			{Image: "debian:12", Mounts: []container.Mount{{Type: container.Bind, Source: "/run/docker.sock", Target: "/x"}}},
		} {
			real := map[string]Real{"/": {Path: "/", Dir: true}, "/run/docker.sock": {Path: "/run/docker.sock"}}
			if why := p.Judge(Ask{Config: &c, Paths: real}); len(why) == 0 {
				t.Errorf("%s allows %+v", file, c)
			}
		}
	}
}

// TestFrom: what is made of containers allows them, and says what none allows.
func TestFrom(t *testing.T) {
	pids := int64(50)
	one := container.Config{
		Image: "web:1", CapAdd: []string{"CAP_NET_ADMIN"}, Limits: container.Limits{Memory: 64 << 20, Pids: &pids},
		Mounts: []container.Mount{
			{Type: container.Bind, Source: "/srv/a", Target: "/a"},
			{Type: container.Bind, Source: "/srv/b", Target: "/b", ReadOnly: true},
			{Type: container.Volume, Source: "data", Target: "/data"},
		},
	}
	two := container.Config{Image: "db:1", Limits: container.Limits{Memory: 32 << 20}}
	real := map[string]Real{"/srv/a": {Path: "/srv/a", Dir: true, Inert: true}, "/srv/b": {Path: "/srv/b", Dir: true}}
	p, no := From("x", []Ask{{Config: &one, Paths: real}, {Config: &two, Paths: real}})
	if len(no) > 0 {
		t.Errorf("refused: %q", no)
	}
	want := &Policy{
		Version: 1, Name: "x", Requests: []string{Read, Containers}, Images: []string{"web:1", "db:1"},
		Paths: []Path{{Path: "/srv/a", Write: true}, {Path: "/srv/b"}}, Networks: []string{"bridge"}, Capabilities: []string{"CAP_NET_ADMIN"},
		Limits: Limits{Memory: 64 << 20, Containers: 2},
	}
	if d := cmp.Diff(want, p); d != "" {
		t.Errorf("policy (-want +got):\n%s", d)
	}
	_, no = From("x", []Ask{{Config: &container.Config{Image: "a", Privileged: true}}})
	if len(no) != 1 || !strings.Contains(no[0], "--privileged") {
		t.Errorf("got %q", no)
	}
}

// TestFewCPUs: on a host with fewer processors than the policy lets a container have, one that asks for none gets those that there are.
func TestFewCPUs(t *testing.T) {
	p := Policy{Images: []string{"a"}, Networks: []string{"bridge"}, Limits: Limits{CPUs: 4}}
	for cpus, want := range map[int]int64{0: 4e9, 2: 2e9, 4: 4e9, 64: 4e9} {
		c := container.Config{Image: "a"}
		if why := p.Judge(Ask{Config: &c, CPUs: cpus}); len(why) > 0 || c.Limits.NanoCPUs != want {
			t.Errorf("%d processors: got %d, %q, want %d", cpus, c.Limits.NanoCPUs, why, want)
		}
	}
}

// TestInert: what may be written to is refused where what a container's root leaves there would be of use on the host.
func TestInert(t *testing.T) {
	p := Policy{Images: []string{"a"}, Networks: []string{"bridge"}, Paths: []Path{{Path: "/srv/a", Write: true}}}
	for _, inert := range []bool{false, true} {
		for _, readOnly := range []bool{false, true} {
			c := container.Config{Image: "a", Mounts: []container.Mount{{Type: container.Bind, Source: "/srv/a", Target: "/a", ReadOnly: readOnly}}}
			why := p.Judge(Ask{Config: &c, Paths: map[string]Real{"/srv/a": {Path: "/srv/a", Dir: true, Inert: inert}}})
			if allowed := len(why) == 0; allowed != (inert || readOnly) {
				t.Errorf("inert %v, read-only %v: %q", inert, readOnly, why)
			}
		}
	}
}
