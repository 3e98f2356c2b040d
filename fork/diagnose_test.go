package fork

import (
	"testing"

	"golang.org/x/sys/unix"

	"glassbox/test/hostile"
)

// TestDiagnoseHostile looks into a program that didn't start and is no program: the engine does that on the host, as root.
func TestDiagnoseHostile(t *testing.T) {
	hostile.Each(t, "bin/tool", func(t *testing.T, root string) {
		dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Close(dir)
		unix.Chmod(root+"/bin/tool.fifo", 0o755)
		code, detail := diagnose(dir, "/", "/bin/tool", []string{"/bin/tool"})
		if code != 126 && code != 127 || detail == "" {
			t.Errorf("got %d, %q, want 126 or 127 and words", code, detail)
		}
		_, direct := explainFile(dir, "/bin/tool")
		if direct == "" {
			t.Error("no words for it")
		}
		t.Logf("%s; %s", detail, direct)
	})
}
