package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestUnheld holds some of the locks of a directory, fewer and more than are tried one by one.
func TestUnheld(t *testing.T) {
	for _, n := range []int{0, 1, few, few + 1, 60} {
		dir := filepath.Join(t.TempDir(), "locks")
		var want []string
		for i := range n {
			path := filepath.Join(dir, fmt.Sprintf("%d.lock", i))
			f, _, err := Lock(path, true)
			if err != nil {
				t.Fatal(err)
			}
			if i%3 == 0 {
				f.Close() // as if its holder had been killed
				want = append(want, filepath.Base(path))
				continue
			}
			defer f.Close()
		}
		if n > 0 {
			if err := os.WriteFile(filepath.Join(dir, "other"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		got, _, err := Unheld(dir)
		slices.Sort(got)
		slices.Sort(want)
		if n == 0 && errors.Is(err, fs.ErrNotExist) {
			continue // nobody has ever locked
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%d locks: got %q, %v, want %q", n, got, err, want)
		}
	}
}
