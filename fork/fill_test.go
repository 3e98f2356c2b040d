package fork

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

func newVolume(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.MkdirAll(filepath.Join(dir, fillData), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func newSource(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"a", "sub/b", "sub/c"} {
		name = filepath.Join(dir, name)
		os.MkdirAll(filepath.Dir(name), 0o750)
		if err := os.WriteFile(name, []byte("of the image"), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

func fill(t *testing.T, volume, source string) {
	t.Helper()
	f, err := os.Open(source)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := FillVolume(volume, f); err != nil {
		t.Fatal(err)
	}
}

func names(dir string) (out []string) {
	filepath.WalkDir(dir, func(name string, _ os.DirEntry, _ error) error {
		rel, _ := filepath.Rel(dir, name)
		out = append(out, rel)
		return nil
	})
	return out
}

func whole() []string {
	return []string{".", "_data", "_data/a", "_data/sub", "_data/sub/b", "_data/sub/c"}
}

// TestFillVolume: an empty volume gets what the image has, with the directory's own mode; one that has something stays as it is.
func TestFillVolume(t *testing.T) {
	volume, source := newVolume(t), newSource(t)
	fill(t, volume, source)
	if got := names(volume); !slices.Equal(got, whole()) {
		t.Errorf("got %q", got)
	}
	if st, err := os.Stat(filepath.Join(volume, fillData)); err != nil || st.Mode().Perm() != 0o711 {
		t.Errorf("got %v, %v", st.Mode(), err)
	}
	os.WriteFile(filepath.Join(volume, fillData, "a"), []byte("mine"), 0o600)
	os.RemoveAll(filepath.Join(volume, fillData, "sub"))
	fill(t, volume, source)
	if got := names(volume); !slices.Equal(got, []string{".", "_data", "_data/a"}) {
		t.Errorf("a volume with a file: %q", got)
	}
}

// TestFillKilled begins in each state in which a killed copy can leave a volume.
func TestFillKilled(t *testing.T) {
	put := func(name, text string) {
		t.Helper()
		os.MkdirAll(filepath.Dir(name), 0o755)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	read := func(name string) string {
		data, _ := os.ReadFile(name)
		return string(data)
	}
	// Half a copy is made anew.
	volume, source := newVolume(t), newSource(t)
	put(filepath.Join(volume, fillFilling, "sub/b"), "of the im")
	fill(t, volume, source)
	if got := names(volume); !slices.Equal(got, whole()) || read(filepath.Join(volume, "_data/sub/b")) != "of the image" {
		t.Errorf("got %q", got)
	}
	// A whole copy, of which something is in its place already, is brought there, and what a container wrote meanwhile stays.
	volume = newVolume(t)
	put(filepath.Join(volume, fillFilled, "b"), "copied")
	put(filepath.Join(volume, fillFilled, "c"), "copied")
	put(filepath.Join(volume, fillData, "a"), "copied")
	put(filepath.Join(volume, fillData, "c"), "written")
	fill(t, volume, source)
	if got := names(volume); !slices.Equal(got, []string{".", "_data", "_data/a", "_data/b", "_data/c"}) ||
		read(filepath.Join(volume, "_data/c")) != "written" {
		t.Errorf("got %q", got)
	}
}

// TestFillAtOnce: of many that fill one volume each finds it whole.
func TestFillAtOnce(t *testing.T) {
	volume, source := newVolume(t), newSource(t)
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			f, err := os.Open(source)
			if err == nil {
				defer f.Close()
				err = FillVolume(volume, f)
			}
			if err != nil {
				t.Error(err)
			}
			if got := names(filepath.Join(volume, fillData)); len(got) != 5 {
				t.Errorf("got %q", got)
			}
		})
	}
	all.Wait()
}

// TestFillOnePlace: volumes of different names whose files lie in one directory are filled by processes of their own at once: none meets
// the half copy of another, and each finds the directory whole when it is through.
func TestFillOnePlace(t *testing.T) {
	if place := os.Getenv("GLASSBOX_TEST_FILL"); place != "" {
		fillOnePlace(t, place, os.Getenv("GLASSBOX_TEST_FILL_FROM"), os.Getenv("GLASSBOX_TEST_FILL_VOLUME"))
		return
	}
	source := newSource(t)
	for i := range 200 { // a copy that takes a while
		name := filepath.Join(source, "many", strconv.Itoa(i))
		os.MkdirAll(filepath.Dir(name), 0o755)
		if err := os.WriteFile(name, []byte("of the image"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	place, volumes := t.TempDir(), t.TempDir()
	var all sync.WaitGroup
	for i := range 16 {
		volume := filepath.Join(volumes, strconv.Itoa(i))
		if err := os.Mkdir(volume, 0o700); err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			c := exec.Command(os.Args[0], "-test.run=^TestFillOnePlace$")
			c.Env = append(os.Environ(), "GLASSBOX_TEST_FILL="+place, "GLASSBOX_TEST_FILL_FROM="+source, "GLASSBOX_TEST_FILL_VOLUME="+volume)
			if out, err := c.CombinedOutput(); err != nil {
				t.Errorf("%d: %v: %s", i, err, out)
			}
		})
	}
	all.Wait()
	if got, want := names(place), names(source); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func fillOnePlace(t *testing.T, place, source, volume string) {
	from, err := os.Open(source)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.Open(place)
	if err != nil {
		t.Fatal(err)
	}
	if err := FillWithin(volume, data, from); err != nil {
		t.Fatal(err)
	}
	if got, want := names(place), names(source); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestOpenBeneath: a place in a volume is what it seems, and no link leads out (CVE-2021-25741).
func TestOpenBeneath(t *testing.T) {
	needRoot(t)
	volume := t.TempDir()
	for _, dir := range []string{"in/deep", "other"} {
		os.MkdirAll(filepath.Join(volume, dir), 0o755)
	}
	outside := t.TempDir()
	for name, target := range map[string]string{
		"abs": outside, "up": "../..", "inner": "in/deep", "etc": "/etc", "proc": "/proc/self/root", "in/back": "../other",
		"in/out": "../../..",
	} {
		if err := os.Symlink(target, filepath.Join(volume, name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, ok := range map[string]bool{
		"in": true, "in/deep": true, "inner": true, "in/back": true, "abs": false, "up": false, "etc": false, "proc": false, "in/out": false,
		"abs/x": false, "nothing": false, "../x": false, "in/../../x": false, "/etc": false,
	} {
		err := tryBeneath(volume, name)
		if (err == nil) != ok {
			t.Errorf("%s: %v, want it to be found: %v", name, err, ok)
		}
	}
}

// TestOpenBeneathSwapped swaps a directory for a link to the host's /etc while it is looked up: what is found is never the host's.
func TestOpenBeneathSwapped(t *testing.T) {
	needRoot(t)
	volume := t.TempDir()
	for _, dir := range []string{"a/sub", "b"} {
		os.MkdirAll(filepath.Join(volume, dir), 0o755)
	}
	outside := t.TempDir()
	os.MkdirAll(filepath.Join(outside, "sub/host"), 0o755)
	os.Symlink(outside, filepath.Join(volume, "link"))
	done := make(chan bool)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				exchange(filepath.Join(volume, "a"), filepath.Join(volume, "link"))
			}
		}
	})
	found := 0
	for range 3000 {
		hosts, err := seesBeneath(volume, "a/sub", "host")
		if hosts {
			t.Fatal("a directory of the host was cloned")
		}
		if err == nil {
			found++
		}
	}
	close(done)
	all.Wait()
	t.Logf("found %d times of 3000", found)
}

func tryBeneath(volume, name string) error {
	fd, err := OpenTree(&plan.OpenTree{Path: volume, Beneath: name})
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// seesBeneath clones a place in a volume, and looks for a name in it.
func seesBeneath(volume, name, inside string) (bool, error) {
	fd, err := OpenTree(&plan.OpenTree{Path: volume, Beneath: name})
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	return unix.Fstatat(fd, inside, &st, 0) == nil, nil
}

func exchange(a, b string) { unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE) }
