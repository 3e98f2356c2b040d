package bundle

import (
	"os"
	"path/filepath"
	"testing"

	"glassbox/test/hostile"
)

func TestHome(t *testing.T) {
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "passwd"), []byte("x:x:0:0::/secret:\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		setup func(etc string) error
		uid   uint32
		want  string
	}{
		{"root", write("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:\n"), 0, "/root"},
		{"user", write("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:\n"), 1000, "/home/user"},
		{"unknown", write("root:x:0:0:root:/root:/bin/sh\n"), 7, "/"},
		{"relative", write("root:x:0:0:root:root:/bin/sh\n"), 0, "/"},
		{"nonsense", write("root\n::::\x00"), 0, "/"},
		{"none", func(string) error { return nil }, 0, "/"},
		{"link", func(etc string) error { return os.Symlink(outside+"/passwd", etc+"/passwd") }, 0, "/"},
		{"directory", func(etc string) error { return os.Mkdir(etc+"/passwd", 0o755) }, 0, "/"},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			etc := filepath.Join(root, "etc")
			if err := os.Mkdir(etc, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := c.setup(etc); err != nil {
				t.Fatal(err)
			}
			if got := home(root, c.uid); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// TestHomeHostile has a file in the place of /etc/passwd that would make its reader wait, fill its memory, or open a device.
func TestHomeHostile(t *testing.T) {
	hostile.Each(t, "etc/passwd", func(t *testing.T, root string) {
		if got := home(root, 0); got != "/" {
			t.Errorf("got %q, want / as without the file", got)
		}
	})
}

func write(text string) func(etc string) error {
	return func(etc string) error { return os.WriteFile(etc+"/passwd", []byte(text), 0o644) }
}
