package engine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"glassbox/container"
	"glassbox/supervise"
)

// TestLogOf: what goes with each line of a log is what was asked for.
func TestLogOf(t *testing.T) {
	words := container.Words{
		Image: "img:1", Label: []string{"tier=front", "team=a", "other=x"}, Env: []string{"LANG=C", "APP_A=1", "APP_B=2"},
		LogOpt: []string{"labels=tier", "labels-regex=^te", "env=LANG,NONE", "env-regex=^APP_A$", "tag={{.Name}}/{{.ID}}"},
	}
	made := func() *container.Container {
		config, err := words.Config()
		if err != nil {
			t.Fatal(err)
		}
		return &container.Container{ID: strings.Repeat("c", 64), Name: "web", Config: *config}
	}
	got := logOf(made())
	want := `{"APP_A":"1","LANG":"C","tag":"web/cccccccccccc","team":"a","tier":"front"}`
	if got.Fields != want || got.MaxSize != 10<<20 || got.MaxFiles != 3 {
		t.Errorf("got %+v, want %s", got, want)
	}
	words.LogDriver = container.Journald
	got = logOf(made())
	want = "CONTAINER_ID=cccccccccccc\nCONTAINER_ID_FULL=" + strings.Repeat("c", 64) + "\nCONTAINER_NAME=web\n" +
		"CONTAINER_TAG=web/cccccccccccc\nSYSLOG_IDENTIFIER=web/cccccccccccc\nIMAGE_NAME=img:1\nAPP_A=1\nLANG=C\nTEAM=a\nTIER=front\n"
	if got.Driver != "journald" || got.Fields != want {
		t.Errorf("got %s, want %s", got.Fields, want)
	}
	for in, want := range map[string]string{
		"com.example/a-b": "COM_EXAMPLE_A_B", "_1x": "X", "é": "FIELD", strings.Repeat("a", 70): strings.Repeat("A", 64),
	} {
		if got := journalName(in); got != want {
			t.Errorf("%s: the journal's field is %s, want %s", in, got, want)
		}
	}
	for _, bad := range []string{"{{", "{{.Nope}}"} {
		if _, err := logTag(bad, made()); err == nil || !strings.Contains(err.Error(), "tag") {
			t.Errorf("tag %s: %v", bad, err)
		}
	}
}

// TestFollowRotations: a reader that comes back after several rotations has missed nothing that is still there.
func TestFollowRotations(t *testing.T) {
	base := filepath.Join(t.TempDir(), "log")
	write := func(name, text string) {
		t.Helper()
		line := supervise.Line{Log: text, Stream: "stdout", Time: time.Now()}
		logged(t, name, line)
	}
	names := func(files []*os.File) string {
		var out []string
		for _, f := range files {
			l, _ := newReader(f).next()
			out = append(out, strings.TrimSpace(l.Log))
			f.Close()
		}
		return strings.Join(out, " ")
	}
	write(base, "one\n")
	f, err := os.Open(base)
	if err != nil {
		t.Fatal(err)
	}
	r := newReader(f)
	if later := r.rotated(base); len(later) != 0 {
		t.Errorf("nothing was rotated, but there is %s", names(later))
	}
	rotate := func(text string) {
		os.Rename(base+".2", base+".3")
		os.Rename(base+".1", base+".2")
		os.Rename(base, base+".1")
		write(base, text)
	}
	rotate("two\n")
	rotate("three\n")
	if got := names(r.rotated(base)); got != "two three" {
		t.Errorf("after one: %q, want two three", got)
	}
	rotate("four\n")
	os.Remove(base + ".3") // the reader's own: it is overrun
	if got := names(r.rotated(base)); got != "two three four" {
		t.Errorf("when one is gone: %q, want two three four", got)
	}
	all, err := openLogs(base)
	if got := names(all); got != "two three four" || err != nil {
		t.Errorf("all: %q, %v", got, err)
	}
}

func TestDetails(t *testing.T) {
	if got := details(map[string]string{"b": "x y", "a": "1"}); got != "a=1,b=x+y" {
		t.Errorf("got %s", got)
	}
}
