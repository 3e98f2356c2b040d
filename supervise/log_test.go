package supervise

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// lines reads all files of a log, oldest first.
func lines(t *testing.T, path string, files int) (text []byte, all []Line) {
	t.Helper()
	for i := files; i >= 0; i-- {
		name := path
		if i > 0 {
			name += "." + string(rune('0'+i))
		}
		data, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		for raw := range bytes.Lines(data) {
			l, ok := ParseLine(raw)
			if !ok {
				t.Fatalf("%s: %q is no line", name, raw)
			}
			text, all = append(text, l.Log...), append(all, l)
		}
	}
	return text, all
}

// TestBytesSurvive: whatever is written comes back, byte for byte: without newlines, with NUL, in no encoding at all, in any pieces.
func TestBytesSurvive(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 200_000)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	for name, data := range map[string][]byte{
		"noise": noise, "NUL": make([]byte, 50_000), "latin1": []byte("Gr\xfc\xdfe\n"), "empty lines": []byte("\n\n\n"),
		"cut characters": []byte(strings.Repeat("€", 30_000)), "surrogates": []byte("\xed\xb2\x80 \xed\xa0\x80"),
		"separators": []byte("\u2028\u2029 \x7f \ufffd <a&b> \"\\\b\f\r\t\x1b[0m"),
	} {
		path := filepath.Join(t.TempDir(), "log")
		l, err := openLog(path, Log{})
		if err != nil {
			t.Fatal(err)
		}
		for rest := data; len(rest) > 0; {
			n := min(len(rest), 1+r.IntN(piece))
			if err := l.write("stdout", rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if err := l.close(); err != nil {
			t.Fatal(err)
		}
		if got, _ := lines(t, path, 0); !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes are not as they were (%d)", name, len(data), len(got))
		}
	}
}

// FuzzLine: what is UTF-8 is what any reader of JSON finds, and what isn't comes back as it was.
func FuzzLine(f *testing.F) {
	f.Add([]byte("hello\n"))
	f.Add([]byte("\xff\x00\u2028\"\\"))
	f.Fuzz(func(t *testing.T, data []byte) {
		now := time.Unix(1, 2).UTC()
		raw := appendLine(nil, "stderr", data, `{"a":"b"}`, now)
		var docker Line
		if err := json.Unmarshal(raw, &docker); err != nil || bytes.Count(raw, []byte("\n")) != 1 {
			t.Fatalf("%q: %v", raw, err)
		}
		if want := strings.ToValidUTF8(string(data), "\ufffd"); utf8.Valid(data) && docker.Log != want {
			t.Errorf("docker reads %q, want %q", docker.Log, want)
		}
		got, ok := ParseLine(raw)
		want := Line{Log: string(data), Stream: "stderr", Attrs: map[string]string{"a": "b"}, Time: now}
		if d := cmp.Diff(want, got); !ok || d != "" {
			t.Error(ok, d)
		}
	})
}

// FuzzParseLine: a file that somebody damaged, or another wrote, is read without harm, and as encoding/json reads it.
func FuzzParseLine(f *testing.F) {
	f.Add([]byte(`{"log":"a\ud83d\ude00\n","stream":"stdout","time":"2026-01-02T03:04:05Z"}`))
	f.Add([]byte(`{"log":"\udc`))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, ok := ParseLine(data)
		var want Line
		err := json.Unmarshal(data, &want)
		if err == nil && bytes.HasPrefix(data, []byte(`{"log":"`)) && bytes.Count(data, []byte("log")) == 1 &&
			!bytes.Contains(data, []byte(`\u`)) {
			if d := cmp.Diff(want.Log, strings.ToValidUTF8(got.Log, "\ufffd")); !ok || utf8.Valid(data) && d != "" {
				t.Errorf("%q: %v %s", data, ok, d)
			}
		}
	})
}

// TestLogBound: a flood leaves no more than it may, and its end.
func TestLogBound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, err := openLog(path, Log{MaxSize: 1 << 20, MaxFiles: 3})
	if err != nil {
		t.Fatal(err)
	}
	flood := bytes.Repeat([]byte("0123456789abcde\n"), piece/16)
	for range 64 << 20 / piece {
		if err := l.write("stdout", flood); err != nil {
			t.Fatal(err)
		}
	}
	l.write("stdout", []byte("the end\n"))
	l.close()
	entries, _ := os.ReadDir(filepath.Dir(path))
	sum := int64(0)
	for _, e := range entries {
		st, _ := e.Info()
		sum += st.Size()
	}
	if len(entries) != 3 || sum > 3<<20 {
		t.Errorf("%d files of %d bytes", len(entries), sum)
	}
	if text, _ := lines(t, path, 3); !bytes.HasSuffix(text, []byte("the end\n")) {
		t.Error("the end is missing")
	}
}

// TestLogCompressed: files that have been rotated away are compressed one after the other, while the log goes on and rotates; together they
// have what was written last, once.
func TestLogCompressed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, err := openLog(path, Log{MaxSize: 50_000, MaxFiles: 4, Compress: true})
	if err != nil {
		t.Fatal(err)
	}
	os.WriteFile(path+".2"+Gzipped, []byte("of a supervisor that was killed"), 0o600)
	n := 0
	put := func(lines int) {
		t.Helper()
		for end := n + lines; n < end; n++ {
			if err := l.write("stdout", fmt.Appendf(nil, "line %d of many\n", n)); err != nil {
				t.Fatal(err)
			}
		}
	}
	idle := func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.to.(*fileLog).gz.pid == 0
	}
	wait := func() {
		t.Helper()
		for end := time.Now().Add(time.Minute); !idle(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("a file is being compressed for a minute")
			}
		}
	}
	put(20_000) // faster than anybody compresses
	wait()
	for range 6 { // of which each rotates once at most
		put(500)
		wait()
	}
	put(500)
	l.close()
	want := []string{"log", "log.1.gz", "log.2.gz", "log.3.gz"}
	entries, _ := os.ReadDir(filepath.Dir(path))
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatal(d)
	}
	var text []byte
	for _, name := range []string{"log.3.gz", "log.2.gz", "log.1.gz", "log"} {
		f, err := os.Open(filepath.Join(filepath.Dir(path), name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var r io.Reader = f
		if strings.HasSuffix(name, Gzipped) {
			if r, err = gzip.NewReader(f); err != nil {
				t.Fatal(name, err)
			}
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(name, err)
		}
		if name != "log" && (len(data) > 50_000 || len(data) < 40_000) {
			t.Errorf("%s has %d bytes", name, len(data))
		}
		for raw := range bytes.Lines(data) {
			l, _ := ParseLine(raw)
			text = append(text, l.Log...)
		}
	}
	first := 0
	if _, err := fmt.Sscanf(string(text), "line %d ", &first); err != nil || first > n-1500 {
		t.Fatalf("it begins with %.30q, of %d", text, n)
	}
	var all []byte
	for i := first; i < n; i++ {
		all = fmt.Appendf(all, "line %d of many\n", i)
	}
	if !bytes.Equal(text, all) {
		t.Error("lines are missing, or there twice")
	}
}

// TestLogFiles: what comes at once is cut at the bounds of files, which are neither larger nor much smaller than asked for.
func TestLogFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, err := openLog(path, Log{MaxSize: 5000, MaxFiles: 4})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.write("stdout", bytes.Repeat([]byte("0123456789abcde\n"), 2000)); err != nil {
		t.Fatal(err)
	}
	l.close()
	for i := 1; i < 4; i++ {
		st, err := os.Stat(fmt.Sprintf("%s.%d", path, i))
		if err != nil {
			t.Fatal(err)
		}
		if st.Size() > 5000 || st.Size() < 4800 {
			t.Errorf("log.%d has %d bytes, want at most 5000 and not much less", i, st.Size())
		}
	}
}

// TestLogDiskFull: the container goes on, the lines that could be written stay whole, and the next one says what is missing.
func TestLogDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skip("needs root to mount a small tmpfs:", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	fill, path := filepath.Join(dir, "fill"), filepath.Join(dir, "log")
	l, err := openLog(path, Log{MaxFiles: 1})
	if err != nil {
		t.Fatal(err)
	}
	l.write("stdout", []byte("first\n"))
	os.WriteFile(fill, make([]byte, 1<<20), 0o600) // as much as there is room for
	long := strings.Repeat("x", 8000) + "\n"
	if err := l.write("stdout", []byte(long)); err == nil {
		t.Fatal("the disk isn't full")
	}
	l.write("stdout", []byte(long))
	os.Remove(fill)
	if err := l.write("stdout", []byte("again\n")); err != nil {
		t.Fatal(err)
	}
	l.close()
	_, all := lines(t, path, 0)
	var got []string
	for _, line := range all {
		got = append(got, line.Stream+" "+line.Log)
	}
	want := []string{
		"stdout first\n", "stderr glassbox: 16002 bytes of output are missing here: no space left on device\n",
		"stdout again\n",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestJournal reads what a journald would get.
func TestJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	if _, err := openJournal(path, Log{}); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("without journald: %v", err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	to, err := openJournal(path, Log{Fields: "CONTAINER_NAME=web\n"})
	if err != nil {
		t.Fatal(err)
	}
	l := &logger{to: to, partial: map[string][]byte{}}
	l.write("stderr", []byte("a\x00\xff\nrest"))
	l.close()
	for _, want := range []struct{ head, message string }{
		{"CONTAINER_NAME=web\nPRIORITY=3\nMESSAGE\n", "a\x00\xff"},
		{"CONTAINER_NAME=web\nPRIORITY=3\nCONTAINER_PARTIAL_MESSAGE=true\nMESSAGE\n", "rest"},
	} {
		buf := make([]byte, 1000)
		n, err := unix.Read(fd, buf)
		if err != nil {
			t.Fatal(err)
		}
		length := binary.LittleEndian.AppendUint64(nil, uint64(len(want.message)))
		if got := string(buf[:n]); got != want.head+string(length)+want.message+"\n" {
			t.Errorf("got %q", got)
		}
	}
}

func BenchmarkLog(b *testing.B) {
	l, err := openLog(filepath.Join(b.TempDir(), "log"), Log{MaxSize: 10 << 20, MaxFiles: 3})
	if err != nil {
		b.Fatal(err)
	}
	data := bytes.Repeat([]byte("a line of a usual length, with some words in it, and \"quotes\"\n"), 1000)[:piece]
	b.SetBytes(piece)
	for b.Loop() {
		l.write("stdout", data)
	}
}
