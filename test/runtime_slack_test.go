package test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestRuntimeTimerSlack: the runtime lets its own timers be late (see timerSlack in package fork), and nobody else's: programs and hooks
// have the timer slack of whoever called it. One of 70 µs is no default.
func TestRuntimeTimerSlack(t *testing.T) {
	b := startBundles(t, "slack")
	root := b.rootfs("root")
	log := filepath.Join(b.work, "log")
	hook := filepath.Join(b.work, "hook")
	b.write(hook, "#!/bin/sh\necho $1 $(cat /proc/self/timerslack_ns) >>"+log+"\n", 0o755)
	b.write(filepath.Join(root, "bin/hook"), "#!/bin/sh\necho startContainer $(cat /proc/self/timerslack_ns) >/tmp/hook\n", 0o755)
	dir := b.bundle("slack", root, func(s *specs.Spec) {
		s.Process.Args = []string{"sh", "-c", "cat /tmp/hook; echo run $(cat /proc/self/timerslack_ns); sleep 1000"}
		s.Root.Readonly = false
		h := func(name string) []specs.Hook { return []specs.Hook{{Path: hook, Args: []string{"hook", name}}} }
		s.Hooks = &specs.Hooks{
			CreateRuntime: h("createRuntime"), CreateContainer: h("createContainer"), Poststart: h("poststart"), Poststop: h("poststop"),
			StartContainer: []specs.Hook{{Path: "/bin/hook"}},
		}
		//lint:ignore SA1019 deprecated, and still in use
		s.Hooks.Prestart = h("prestart")
	})
	rt := "echo 70000 >/proc/self/timerslack_ns; G=" + filepath.Join(run.bin, "glassbox-runtime") + "; R=\"$G --root /run/oci\"; "
	out := filepath.Join(b.work, "out")
	b.must("/bin/sh", "-c", rt+"$R run -d --bundle "+dir+" slack >"+out+" 2>&1")
	b.until("what the program says", func() bool { text, _ := os.ReadFile(out); return strings.Contains(string(text), "run ") })
	b.must("/bin/sh", "-c", rt+"echo exec $($R exec slack cat /proc/self/timerslack_ns) >>"+log+"; $R kill slack KILL; $R delete -f "+
		"slack; $G init -- sh -c 'echo init $(cat /proc/self/timerslack_ns)' run >>"+log)
	said, _ := os.ReadFile(out)
	heard, _ := os.ReadFile(log)
	got := string(heard) + string(said)
	want := "prestart 70000\ncreateRuntime 70000\ncreateContainer 70000\npoststart 70000\nexec 70000\npoststop 70000\ninit " +
		"70000\nstartContainer 70000\nrun 70000\n"
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
