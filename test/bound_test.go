package test

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestBoundCaller starts containers from a process that is bound to one processor, as by taskset(1) or a service manager: they run on all
// of their cpuset, and so does exec.
func TestBoundCaller(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("needs two processors")
	}
	s := besiege(t)
	show := []string{"sh", "-c", "grep Cpus_allowed_list /proc/self/status"}
	all, err := os.ReadFile("/sys/devices/system/cpu/online")
	must(t, err)
	want := "Cpus_allowed_list:\t" + string(all)
	bound := func(argv []string) []string { return append([]string{"taskset", "-c", "0"}, argv...) }
	for _, f := range faces {
		b := box{rootfs: s.root(""), args: show}
		if res := s.on(bound(s.command(f, s.id("box"), b))...); res.Stdout != want {
			t.Errorf("%s run: got %q %s, want %q", f, res.Stdout, res.Stderr, want)
		}
		b.args = []string{"sleep", "1000"}
		id, _ := s.start(f, b)
		if res := s.on(bound(s.exec(f, nil, id, show...))...); res.Stdout != want {
			t.Errorf("%s exec: got %q %s, want %q", f, res.Stdout, res.Stderr, want)
		}
		// The engine's doorkeeper is bound now, as the exec that started it was.
		if res := s.on(s.exec(f, nil, id, show...)...); res.Stdout != want {
			t.Errorf("%s exec after that: got %q %s, want %q", f, res.Stdout, res.Stderr, want)
		}
		s.remove(f, id)
	}
}

// TestClosedWorkdir has a working directory that only root may enter, with the power that a container's root lacks; runc enters it before
// that is given up.
func TestClosedWorkdir(t *testing.T) {
	s := besiege(t)
	for _, f := range faces {
		root := s.root("mkdir closed && chmod 700 closed")
		must(t, os.Chown(filepath.Join(root, "closed"), 4242, 4242))
		weak := func(spec *specs.Spec) {
			c := spec.Process.Capabilities
			c.Bounding, c.Effective, c.Permitted = nil, nil, nil
		}
		show := []string{"sh", "-c", "echo there"}
		for _, user := range []string{"", "1000:1000", "4242:4242"} {
			b := box{rootfs: root, args: show, cwd: "/closed", user: user, edit: weak}
			if res := s.run(f, b); res.Stdout != "there\n" {
				t.Errorf("%s run as %q: got %q %s", f, user, res.Stdout, res.Stderr)
			}
			b.args, b.cwd = []string{"sleep", "1000"}, ""
			id, _ := s.start(f, b)
			flags := []string{"-w", "/closed"}
			if user != "" {
				flags = append(flags, "-u", user)
			}
			if res := s.on(s.exec(f, flags, id, show...)...); res.Stdout != "there\n" {
				t.Errorf("%s exec as %q: got %q %s", f, user, res.Stdout, res.Stderr)
			}
			s.remove(f, id)
		}
	}
}
