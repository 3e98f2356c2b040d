package compile

import (
	"bytes"
	"go/format"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"glassbox/explain"
)

// TestGoPrograms explains every golden plan as a Go program: it is one, as gofmt has it, of a length that can be read, and it names
// every kind of step, as what it does or as what it can't do.
func TestGoPrograms(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no golden files", err)
	}
	n := 0
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		out, err := compileInput(t, archive.Files[0].Data)
		if err != nil || out.Plan == nil {
			continue // an error is what is expected there
		}
		n++
		var b bytes.Buffer
		err = explain.Write(&b, "go", out.Plan, explain.About{Title: file}, explain.TextOptions{})
		if explain.Read(out.Plan).Shares("mount") {
			for _, format := range []string{"go", "sh"} { // it would mount, and change the root, for the whole host
				b.Reset()
				if err := explain.Write(&b, format, out.Plan, explain.About{Title: file}, explain.TextOptions{}); err == nil || b.Len() > 0 {
					t.Errorf("%s: as %s: got %d bytes and %v for a container without a mount namespace, want an error", file, format, b.Len(), err)
				}
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if _, err := parser.ParseFile(token.NewFileSet(), file, b.Bytes(), parser.ParseComments); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		if formatted, err := format.Source(b.Bytes()); err != nil || !bytes.Equal(formatted, b.Bytes()) {
			t.Errorf("%s: gofmt would change the program: %v", file, err)
		}
		if lines := bytes.Count(b.Bytes(), []byte("\n")); lines > explain.MaxGo {
			t.Errorf("%s: the program has %d lines, more than %d", file, lines, explain.MaxGo)
		}
		for i, s := range out.Plan.Steps {
			if !strings.Contains(b.String(), s.Op.Kind()) {
				t.Errorf("%s: the program says nothing of step %d, %s", file, i+1, s.Op.Kind())
			}
		}
	}
	if n < 30 {
		t.Errorf("only %d plans were looked at", n)
	}
}
