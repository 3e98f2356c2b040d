package policy

import (
	"strings"
	"testing"

	"glassbox/container"
)

func TestParse(t *testing.T) {
	for _, text := range []string{
		``, `{}`, `[]`, `{"version":2,"name":"a"}`, `{"version":1}`, `{"version":1,"name":"a b"}`, `{"version":1,"name":"a","what":1}`,
		`{"version":1,"name":"a"} {}`, `{"version":1,"name":"a","requests":["build"]}`, `{"version":1,"name":"a","paths":[{"path":"rel"}]}`,
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
