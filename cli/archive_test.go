package cli

import (
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"glassbox/explain"
)

// What --output names is written to: a FIFO or a device is not replaced by a file (root could in /dev), nor is a symbolic link.
func TestOutputStays(t *testing.T) {
	dir := t.TempDir()
	fifo, link, target := filepath.Join(dir, "fifo"), filepath.Join(dir, "link"), filepath.Join(dir, "target")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if err := os.WriteFile(target, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("target", link); err != nil {
		t.Fatal(err)
	}
	a := testApp(t)
	for _, name := range []string{fifo, link} {
		x := explainFlags{output: name, format: "sh"}
		err := x.to(a, func(w io.Writer, _ explain.TextOptions) error {
			_, err := io.WriteString(w, "new")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if st, err := os.Lstat(fifo); err != nil || st.Mode()&os.ModeNamedPipe == 0 {
		t.Fatalf("the FIFO is %v now (%v)", st.Mode(), err)
	}
	got := make([]byte, 3)
	if _, err := io.ReadFull(reader, got); err != nil || string(got) != "new" {
		t.Errorf("through the FIFO came %q (%v)", got, err)
	}
	if to, err := os.Readlink(link); err != nil || to != "target" {
		t.Errorf("the link leads to %q now (%v)", to, err)
	}
	text, err := os.ReadFile(target)
	if err != nil || string(text) != "new" {
		t.Errorf("what the link leads to is %q (%v)", text, err)
	}
	if st, err := os.Stat(target); err != nil || st.Mode() != 0o755 {
		t.Errorf("the script's mode is %v (%v)", st.Mode(), err)
	}
}
