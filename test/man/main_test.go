package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestPages writes everything and lets the shells and groff read it, where they are.
func TestPages(t *testing.T) {
	dir := t.TempDir()
	if err := write(dir); err != nil {
		t.Fatal(err)
	}
	list, err := filepath.Glob(filepath.Join(dir, "man/man1/*.1"))
	if err != nil || len(list) < 30 {
		t.Errorf("%d pages, %v", len(list), err)
	}
	page, err := os.ReadFile(filepath.Join(dir, "man/man1/glassbox-run.1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{".SH OPTIONS", `\fB\-m, \-\-memory\fR \fIbytes\fR`, ".SH GLOBAL OPTIONS", ".SH EXAMPLES"} {
		if !strings.Contains(string(page), want) {
			t.Errorf("glassbox-run.1 has no %q", want)
		}
	}
	if strings.Contains(string(page), `use\-api\-socket`) {
		t.Error("glassbox-run.1 tells of flags that aren't there")
	}
	for _, c := range [][]string{
		{"bash", "-n", filepath.Join(dir, "bash-completion/completions/glassbox")},
		{"zsh", "-n", filepath.Join(dir, "zsh/site-functions/_glassbox")},
		{"fish", "-n", filepath.Join(dir, "fish/vendor_completions.d/glassbox.fish")},
		append([]string{"groff", "-man", "-Tutf8", "-ww", "-z"}, list...),
	} {
		if _, err := exec.LookPath(c[0]); err != nil {
			t.Logf("there is no %s to read its file", c[0])
			continue
		}
		cmd := exec.Command(c[0], c[1:]...)
		cmd.Env = append(os.Environ(), "LC_ALL=C") // a locale that isn't there would be told
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", c[0], err, out)
		}
	}
}
