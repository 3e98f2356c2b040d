package supervise

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"glassbox/state"
)

func readLog(t *testing.T, path string) (out []Line) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := bufio.NewScanner(f)
	r.Buffer(nil, 1<<20)
	for r.Scan() {
		var l Line
		if err := json.Unmarshal(r.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
		out = append(out, l)
	}
	return out
}

func TestLogLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, err := openLog(path, Log{MaxFiles: 1})
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", maxLine+10)
	for _, w := range [][2]string{
		{"stdout", "a"}, {"stderr", "E\n"}, {"stdout", "b\nc"}, {"stdout", "\n\n"}, {"stdout", long}, {"stdout", "\nend"},
	} {
		if err := l.write(w[0], []byte(w[1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, line := range readLog(t, path) {
		got = append(got, line.Stream+":"+line.Log)
		if time.Since(line.Time) > time.Minute {
			t.Errorf("time %v", line.Time)
		}
	}
	want := []string{
		"stderr:E\n", "stdout:ab\n", "stdout:c\n", "stdout:\n", "stdout:" + long[:maxLine], "stdout:" + long[maxLine:] + "\n", "stdout:end",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("lines (-want +got):\n%s", d)
	}
}

func TestLogRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, err := openLog(path, Log{MaxSize: 1000, MaxFiles: 3})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		if err := l.write("stdout", []byte(strings.Repeat("y", i%50)+"\n")); err != nil {
			t.Fatal(err)
		}
	}
	l.close()
	entries, _ := os.ReadDir(filepath.Dir(path))
	if len(entries) != 3 {
		t.Errorf("%d files, want 3", len(entries))
	}
	for _, e := range entries {
		if st, _ := e.Info(); st.Size() > 1000 {
			t.Errorf("%s has %d bytes", e.Name(), st.Size())
		}
	}
	if last := readLog(t, path); len(last) == 0 || len(last[len(last)-1].Log) != 199%50+1 {
		t.Errorf("the newest line isn't in the newest file: %v", last)
	}
}

func TestResidentArguments(t *testing.T) {
	want := &resident{
		dir: "/d", pid: 1, pidfd: 2, console: -1, stdin: 4, stdout: 5, stderr: 6, logMaxSize: 7, logMaxFiles: 8,
		logDriver: 2, logDrop: 1, logFields: 1, ports: []int{9, 10},
	}
	args := want.args()
	got, err := parseResident(args[0], args[1])
	if d := cmp.Diff(want, got, cmp.AllowUnexported(resident{})); err != nil || d != "" {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
	for _, bad := range []string{"", "1", "1,2,3", "a,b,c,d,e,f,g,h"} {
		if _, err := parseResident("/d", bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestFileSpans(t *testing.T) {
	maps := "00400000-0058e000 r-xp 00000000 fe:00 10010819 /x y\n" +
		"00756000-0076b000 rw-p 00356000 fe:00 10010819 /x\n" +
		"7ffd-7ffe r-xp 00000000 00:00 0 [vdso]\nrubbish\n"
	if d := cmp.Diff([][2]uintptr{{0x400000, 0x18e000}}, fileSpans([]byte(maps))); d != "" {
		t.Errorf("spans (-want +got):\n%s", d)
	}
}

// TestRepairHalfMade repairs what a killed create leaves: a directory without container.json, and a name.
func TestRepairHalfMade(t *testing.T) {
	root := t.TempDir()
	dir, name := filepath.Join(root, "containers", "c1"), filepath.Join(root, "name")
	if err := os.MkdirAll(filepath.Join(dir, "upper", "etc"), 0o700); err != nil {
		t.Fatal(err)
	}
	os.Symlink("c1", name)
	locks := filepath.Join(root, "locks")
	os.Mkdir(locks, 0o700)
	os.WriteFile(filepath.Join(locks, "c1.lock"), nil, 0o600)
	held, _, err := state.Lock(filepath.Join(locks, "c2.lock"), false) // somebody works on another
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	err = Repair(locks, func(id string) string { return filepath.Join(root, "containers", id) }, func(string) string { return name })
	if err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{dir, name, filepath.Join(locks, "c1.lock")} {
		if _, err := os.Lstat(gone); !os.IsNotExist(err) {
			t.Errorf("%s is still there", gone)
		}
	}
	if _, err := os.Lstat(filepath.Join(locks, "c2.lock")); err != nil {
		t.Error("the lock in use was removed")
	}
}

func TestStateRoundTrip(t *testing.T) {
	dir := t.TempDir()
	if s, err := ReadState(dir); err != nil || s.Status != Created {
		t.Errorf("without a file: %+v, %v", s, err)
	}
	want := &State{Status: Exited, ExitCode: 137, OOMKilled: true, Finished: time.Now().UTC()}
	if err := WriteState(dir, want); err != nil {
		t.Fatal(err)
	}
	got, err := ReadState(dir)
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
	os.WriteFile(filepath.Join(dir, StateFile), []byte("{"), 0o600)
	if _, err := ReadState(dir); err == nil {
		t.Error("a damaged file is read")
	}
}

// TestRemoveFiles: what can't be removed leaves a container that is there and can be removed again, a killed removal one that Repair
// finishes, and no depth of directories is too much.
func TestRemoveFiles(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount")
	}
	root := t.TempDir()
	dir, name := filepath.Join(root, "c1"), filepath.Join(root, "name")
	fill := func() {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(dir, "upper", "a"), 0o700); err != nil {
			t.Fatal(err)
		}
		for _, f := range []string{ContainerFile, StateFile, JobFile} {
			os.WriteFile(filepath.Join(dir, f), []byte("{}"), 0o600)
		}
		os.Symlink("c1", name)
	}
	there := func(what string, want bool, paths ...string) {
		t.Helper()
		for _, p := range paths {
			if _, err := os.Lstat(p); (err == nil) != want {
				t.Errorf("%s: %s: got %v, want there %v", what, p, err, want)
			}
		}
	}
	fill()
	busy := filepath.Join(dir, "upper", "a")
	if err := unix.Mount("none", busy, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(busy, unix.MNT_DETACH)
	err := RemoveFiles(dir, name, "", false)
	if err == nil || !strings.Contains(err.Error(), `"upper/a"`) {
		t.Errorf("got %v, want an error that names what stays", err)
	}
	there("after an error", true, filepath.Join(dir, ContainerFile), filepath.Join(dir, StateFile), name)
	unix.Unmount(busy, 0)
	if err := RemoveFiles(dir, name, "", false); err != nil {
		t.Error(err)
	}
	there("removed", false, dir, name)

	fill()
	os.Remove(filepath.Join(dir, JobFile))
	os.Rename(filepath.Join(dir, ContainerFile), filepath.Join(dir, goingFile)) // a removal that was killed
	if err := RepairOne(dir, func(string) string { return name }); err != nil {
		t.Error(err)
	}
	there("repaired", false, dir, name)

	fill()
	deep := filepath.Join(dir, "upper", "a")
	fd, err := unix.Open(deep, unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 5000 {
		if err := unix.Mkdirat(fd, "d", 0o700); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(fd, "d", unix.O_RDONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
		fd = next
	}
	unix.Close(fd)
	var old unix.Rlimit
	unix.Getrlimit(unix.RLIMIT_NOFILE, &old)
	unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 256, Max: old.Max})
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &old)
	if err := RemoveFiles(dir, name, "", false); err != nil {
		t.Error(err)
	}
	there("deep", false, dir, name)
	if err := RemoveFiles(dir, name, "", false); err != nil {
		t.Errorf("removed twice: %v", err)
	}
}

// TestLogKeepsCharacters: a long line of any characters comes out of the log as it was written, though the log has it in pieces.
func TestLogKeepsCharacters(t *testing.T) {
	for _, character := range []string{"x", "é", "€", "𝄞"} {
		for shift := range 4 {
			text := strings.Repeat("-", shift) + strings.Repeat(character, 50_000/len(character)) + "\n"
			path := filepath.Join(t.TempDir(), "log")
			l, err := openLog(path, Log{})
			if err != nil {
				t.Fatal(err)
			}
			for rest := text; rest != ""; rest = rest[min(len(rest), 4097):] { // as a pipe gives it
				if err := l.write("stdout", []byte(rest[:min(len(rest), 4097)])); err != nil {
					t.Fatal(err)
				}
			}
			if err := l.close(); err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			for _, entry := range strings.Split(strings.TrimSpace(string(data)), "\n") {
				var line Line
				if err := json.Unmarshal([]byte(entry), &line); err != nil {
					t.Fatal(err)
				}
				if last := strings.HasSuffix(line.Log, "\n"); last == line.Continues() || len(line.Log) > maxLine {
					t.Errorf("a piece of %d bytes: continues %v", len(line.Log), line.Continues())
				}
				got += line.Log
			}
			if got != text {
				t.Errorf("%q after %d bytes is not what it was", character, shift)
			}
		}
	}
}
