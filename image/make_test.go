package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// TestChange has each instruction; the wants are Docker 28's.
func TestChange(t *testing.T) {
	for _, c := range []struct{ text, field, want string }{
		{`CMD ["a", "b c"]`, "Cmd", `["a","b c"]`},
		{`cmd echo $HOME`, "Cmd", `["/bin/sh","-c","echo $HOME"]`},
		{`ENTRYPOINT ["/x"]`, "Entrypoint", `["/x"]`},
		{`ENV A=1 B="two words" C='$A' D=\$A E=${PATH}:/x`, "Env", `["PATH=/bin","A=1","B=two words","C=$A","D=$A","E=/bin:/x"]`},
		{`ENV OLD form with spaces`, "Env", `["PATH=/bin","OLD=form with spaces"]`},
		{`ENV PATH=${NONE:-dflt}${PATH:+set}$`, "Env", `["PATH=dfltset$"]`},
		{`EXPOSE 80 53/udp 8000-8002`, "ExposedPorts", `{"53/udp":{},"80/tcp":{},"8000/tcp":{},"8001/tcp":{},"8002/tcp":{}}`},
		{`LABEL a=b "c d"="e f"`, "Labels", `{"a":"b","c d":"e f"}`},
		{`ONBUILD RUN make`, "OnBuild", `["RUN make"]`},
		{`USER nobody:nogroup`, "User", `"nobody:nogroup"`},
		{`VOLUME ["/a", "/b c"]`, "Volumes", `{"/a":{},"/b c":{}}`},
		{`VOLUME /a b/`, "Volumes", `{"/a":{},"/b":{}}`},
		{`WORKDIR sub/dir`, "WorkingDir", `"/work/sub/dir"`},
		{`WORKDIR /abs/../x`, "WorkingDir", `"/x"`},
		{`STOPSIGNAL SIGINT`, "StopSignal", `"SIGINT"`},
		{`HEALTHCHECK NONE`, "Healthcheck", `{"Test":["NONE"]}`},
		{
			`HEALTHCHECK --interval=5s --retries=2 CMD curl -f localhost`, "Healthcheck",
			`{"Test":["CMD-SHELL","curl -f localhost"],"Interval":5000000000,"Retries":2}`,
		},
		{`HEALTHCHECK CMD ["true"]`, "Healthcheck", `{"Test":["CMD","true"]}`},
	} {
		conf := Config{}
		conf.Env, conf.WorkingDir = []string{"PATH=/bin"}, "/work"
		if err := conf.Change(c.text); err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		var all map[string]json.RawMessage
		raw, _ := marshalPlain(conf)
		json.Unmarshal(raw, &all)
		if got := string(all[c.field]); got != c.want {
			t.Errorf("%s: %s, want %s", c.text, got, c.want)
		}
	}
	for _, text := range []string{
		"", " ", "RUN x", "FROM x", "COPY a b", "ADD a b", "ARG x", "MAINTAINER x", "SHELL [\"x\"]", "ENV", "ENV A",
		"ENV =x", "ENV A=1 B", "ENV A=\"open",
		"ENV A=${B", "ENV A=${B:?x}", "ENV A=${}", "LABEL", "LABEL x", "EXPOSE", "EXPOSE x", "EXPOSE 0", "EXPOSE 70000",
		"EXPOSE 80:80", "EXPOSE 1-65535",
		"EXPOSE 9-1", "EXPOSE 1/xyz", "USER", "USER a b", "WORKDIR", "WORKDIR /a b", "STOPSIGNAL", "STOPSIGNAL a b", "VOLUME", "VOLUME /",
		"VOLUME /a/..",
		"ONBUILD", "ONBUILD FROM x", "ONBUILD ONBUILD RUN x", "ONBUILD maintainer x", "HEALTHCHECK", "HEALTHCHECK CMD", "HEALTHCHECK true",
		"HEALTHCHECK --interval CMD x", "HEALTHCHECK --interval=x CMD x", "HEALTHCHECK --interval=-5s CMD x", "HEALTHCHECK --retries=x CMD x",
		"HEALTHCHECK --retries=-1 CMD x", "HEALTHCHECK --nothing=1 CMD x", "HEALTHCHECK NONE x", "HEALTHCHECK --interval=5s NONE", "CMD a\x00b",
		"CMD " + strings.Repeat("x", maxChange),
	} {
		if err := (&Config{}).Change(text); !errors.Is(err, ErrReference) || len(err.Error()) > 500 {
			t.Errorf("%.40q: got %v, want one sentence", text, err)
		}
	}
}

func FuzzDockerfileChange(f *testing.F) {
	for _, s := range []string{
		`ENV A=1 "B C"=${X:-y}`, `CMD ["a"]`, `HEALTHCHECK --interval=1s CMD x`, `VOLUME ["/a"]`, `EXPOSE 1-3/udp`,
		`LABEL a\ b='c"d'`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c := Config{}
		c.Env = []string{"A=b", "PATH=/bin:/usr/bin"}
		if c.Change(text) != nil {
			return
		}
		raw, err := marshalPlain(c)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(raw, []byte(`\u0000`)) {
			t.Errorf("%q brings a NUL byte: %s", text, raw)
		}
		// What it makes is an image that can be run.
		img := &Image{ID: "sha256:" + strings.Repeat("0", 64), RawConfig: []byte(`{"config":` + string(raw) + `}`)}
		if err := json.Unmarshal(img.RawConfig, &img.Config); err != nil {
			t.Fatal(err)
		}
		for _, err := range []error{
			func() error { _, err := img.ExposedPorts(); return err }(), func() error { _, err := img.Volumes(); return err }(),
			func() error { _, err := img.Healthcheck(); return err }(),
		} {
			if err != nil {
				t.Errorf("%q: %v", text, err)
			}
		}
	})
}

// TestImport makes images of archives in each compression, and of others none.
func TestImport(t *testing.T) {
	raw := tarOf(t, dirE("etc", 0o755), fileE("etc/x", "x"), e{name: ".wh.gone", mode: 0o600})
	for name, b := range map[string][]byte{"plain": raw, "gzip": gz(raw), "zstd": zst(raw)} {
		s := openStore(t)
		img, err := s.Import(t.Context(), bytes.NewReader(b), ImportOptions{
			Name: "new:1", Changes: []string{`CMD ["sh"]`, "ENV A=b"}, Message: "why",
		})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := s.Resolve("new:1")
		if err != nil || got.ID != img.ID || got.Config.Config.Cmd[0] != "sh" || got.History()[0].Comment != "why" {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
		if b, err := got.ReadFile(s.Root(), "etc/x", 10); err != nil || string(b) != "x" {
			t.Errorf("%s: file %q, %v", name, b, err)
		}
		if err := s.Save(t.Context(), io.Discard, []string{"new:1"}, SaveOptions{}); err != nil {
			t.Errorf("%s: save: %v", name, err)
		}
	}
	for name, b := range map[string][]byte{
		"garbage": bytes.Repeat([]byte("x"), 2000), "cut": raw[:700], "half a gzip": gz(raw)[:50], "escape": tarOf(t, fileE("../../x", "x")),
		"device": tarOf(t, e{name: "d", typ: tar.TypeChar, mode: 0o600}), "link out": tarOf(t, linkE("l", "/etc"), hardE("l/passwd", "etc")),
	} {
		s := openStore(t)
		if img, err := s.Import(t.Context(), bytes.NewReader(b), ImportOptions{Name: "new:1"}); err == nil && name != "link out" {
			t.Errorf("%s: made %v", name, img)
		} else if err != nil {
			nothingLeft(t, s)
		}
	}
	s := openStore(t)
	if _, err := s.Import(t.Context(), bytes.NewReader(raw), ImportOptions{Changes: []string{"RUN x"}}); err == nil {
		t.Error("RUN is an instruction that import takes")
	}
	nothingLeft(t, s)
}

// containerOn makes what a container leaves in its own layer, on an image.
func containerOn(t *testing.T, s *Store, img *Image) (upper string, dirs []string) {
	t.Helper()
	upper = t.TempDir()
	dirs = []string{upper}
	for i := len(img.Layers) - 1; i >= 0; i-- {
		dirs = append(dirs, filepath.Join(s.root, img.Layers[i].Dir))
	}
	return upper, dirs
}

func entriesOf(t *testing.T, raw []byte) map[string]string {
	t.Helper()
	got := map[string]string{}
	tr := tar.NewReader(bytes.NewReader(raw))
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return got
		}
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(tr)
		got[h.Name] = string(h.Typeflag) + " " + h.Linkname + string(b)
	}
}

// TestCommit commits what a container changed, and exports it: both show the same files.
func TestCommit(t *testing.T) {
	needRoot(t)
	s := openStore(t)
	base := mustPullTars(t, s, tarOf(t, dirE("etc", 0o755), fileE("etc/gone", "g"), fileE("etc/kept", "k"), dirE("opq", 0o755),
		fileE("opq/old", "o")),
		tarOf(t, dirE("etc", 0o700), fileE("etc/second", "2")))
	upper, dirs := containerOn(t, s, base)
	os.Mkdir(filepath.Join(upper, "etc"), 0o700)
	os.WriteFile(filepath.Join(upper, "etc/new"), []byte("new"), 0o4755)
	unix.Chmod(filepath.Join(upper, "etc/new"), 0o4755)
	os.Link(filepath.Join(upper, "etc/new"), filepath.Join(upper, "etc/same"))
	os.Symlink("/etc/passwd", filepath.Join(upper, "link"))
	unix.Mknod(filepath.Join(upper, "etc/gone"), unix.S_IFCHR, 0)
	unix.Mkfifo(filepath.Join(upper, "fifo"), 0o600)
	os.Mkdir(filepath.Join(upper, "opq"), 0o755)
	unix.Lsetxattr(filepath.Join(upper, "opq"), "trusted.overlay.opaque", []byte("y"), 0)
	unix.Lsetxattr(filepath.Join(upper, "etc/new"), "user.note", []byte("kept"), 0)
	if fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0); err == nil {
		unix.Bind(fd, &unix.SockaddrUnix{Name: filepath.Join(upper, "s")})
		unix.Close(fd)
	}
	var flat bytes.Buffer
	if err := WriteMerged(t.Context(), &flat, dirs); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"etc/": "5 ", "etc/kept": "0 k", "etc/new": "0 new", "etc/same": "1 etc/new", "etc/second": "0 2", "fifo": "6 ", "link": "2 /etc/passwd",
		"opq/": "5 ",
	}
	if d := cmp.Diff(want, entriesOf(t, flat.Bytes())); d != "" {
		t.Errorf("export (-want +got):\n%s", d)
	}
	o := CommitOptions{Name: "made:1", Author: "me", Message: "why", CreatedBy: "sh", Base: base, Dirs: dirs[:1], Changes: []string{"ENV X=y"}}
	img, err := s.Commit(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if len(img.Layers) != len(base.Layers)+1 || img.Config.Author != "me" || img.Config.Config.Env[0] != "X=y" {
		t.Errorf("committed %+v", img)
	}
	_, stack := containerOn(t, s, img)
	var again bytes.Buffer
	if err := WriteMerged(t.Context(), &again, stack[1:]); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, entriesOf(t, again.Bytes())); d != "" {
		t.Errorf("the image made of it (-want +got):\n%s", d)
	}
	if v, err := os.ReadFile(filepath.Join(s.root, img.Layers[len(img.Layers)-1].Dir, "etc/new")); err != nil || string(v) != "new" {
		t.Errorf("%q, %v", v, err)
	}
	if st, err := os.Stat(filepath.Join(stack[1], "etc/new")); err != nil || st.Mode()&os.ModeSetuid == 0 {
		t.Errorf("the set-user-ID bit is lost: %v %v", st, err)
	}
	// Nothing changed: no layer, but an image.
	_, dirs = containerOn(t, s, base)
	empty, err := s.Commit(t.Context(), CommitOptions{Base: base, Dirs: dirs[:1]})
	if err != nil || len(empty.Layers) != len(base.Layers) || len(empty.Config.RootFS.DiffIDs) != len(base.Config.RootFS.DiffIDs) {
		t.Errorf("of nothing: %+v, %v", empty, err)
	}
	h := img.History()
	if h[0].Comment != "why" || h[0].ID != img.ID || h[0].CreatedBy != "sh" || h[0].Size == 0 {
		t.Errorf("history %+v", h[0])
	}
	// What an image was made from is a line of its history as long as it is here.
	upper, dirs = containerOn(t, s, img)
	if err := os.WriteFile(filepath.Join(upper, "second"), []byte("2"), 0o600); err != nil {
		t.Fatal(err)
	}
	second, err := s.Commit(t.Context(), CommitOptions{Base: img, Dirs: dirs[:1]})
	if err != nil {
		t.Fatal(err)
	}
	h = second.History()
	if len(h) != 2 || h[0].ID != second.ID || h[1].ID != img.ID || len(h[1].Tags) != 1 || second.Inspect().Parent != img.ID {
		t.Errorf("history %+v, parent %s", h, second.Inspect().Parent)
	}
	if _, err := s.Remove(img.ID, RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if h := second.History(); h[1].ID != "<missing>" {
		t.Errorf("history without its parent %+v", h[1])
	}
}

// TestTreeHostile exchanges files and links while a tree is written: nothing of the host is in the archive.
func TestTreeHostile(t *testing.T) {
	dir, host := t.TempDir(), t.TempDir()
	os.MkdirAll(filepath.Join(host, "d"), 0o755)
	os.WriteFile(filepath.Join(host, "d", "f"), []byte("SECRET"), 0o600)
	os.MkdirAll(filepath.Join(dir, "real", "d"), 0o755)
	os.WriteFile(filepath.Join(dir, "real", "d", "f"), []byte("mine"), 0o600)
	os.MkdirAll(filepath.Join(dir, "a", "d"), 0o755)
	os.WriteFile(filepath.Join(dir, "a", "d", "f"), []byte("mine"), 0o600)
	os.Symlink(host, filepath.Join(dir, "b"))
	unix.Mkfifo(filepath.Join(dir, "z"), 0o600)
	os.WriteFile(filepath.Join(dir, "y"), []byte("y"), 0o600)
	done := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			default:
				unix.Renameat2(unix.AT_FDCWD, filepath.Join(dir, "a"), unix.AT_FDCWD, filepath.Join(dir, "b"), unix.RENAME_EXCHANGE)
				unix.Renameat2(unix.AT_FDCWD, filepath.Join(dir, "y"), unix.AT_FDCWD, filepath.Join(dir, "z"), unix.RENAME_EXCHANGE)
			}
		}
	}()
	begin := time.Now()
	for n := 0; n < 300 && time.Since(begin) < 5*time.Second; n++ {
		var b bytes.Buffer
		if err := WriteMerged(t.Context(), &b, []string{dir}); err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b.Bytes(), []byte("SECRET")) {
			t.Fatal("a file of the host is in the archive")
		}
	}
	close(done)
	<-ended
	deep := t.TempDir()
	p := deep
	for range maxTreeDepth + 5 {
		p = filepath.Join(p, "d")
		os.Mkdir(p, 0o755)
	}
	if err := WriteMerged(t.Context(), io.Discard, []string{deep}); !errors.Is(err, ErrLimit) {
		t.Errorf("directories too deep: %v", err)
	}
}
