package tour

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestLessons checks that every lesson has what a lesson needs: texts, a question with one right answer, looks that know what they
// must find, and something to break.
func TestLessons(t *testing.T) {
	lessons := All()
	if len(lessons) != 12 {
		t.Errorf("got %d lessons, want 12", len(lessons))
	}
	names := map[string]bool{}
	for i, l := range lessons {
		for what, text := range map[string]string{
			"name": l.Name, "title": l.Title, "menu text": l.Shows, "introduction": l.Intro,
			"end": l.Remember, "reading": l.Read,
		} {
			if text == "" {
				t.Errorf("lesson %d has no %s", i+1, what)
			}
		}
		if names[l.Name] {
			t.Errorf("two lessons are called %s", l.Name)
		}
		names[l.Name] = true
		if l.Minutes < 2 || l.Minutes > 8 {
			t.Errorf("lesson %d takes %d minutes", i+1, l.Minutes)
		}
		questions, breaks := 0, 0
		for k, sc := range l.Scenes {
			if sc.Title == "" || sc.Text == "" || sc.Because == "" {
				t.Errorf("scene %d.%d lacks a title, a text or an explanation", i+1, k+1)
			}
			if q := sc.Question; q != nil {
				questions++
				if q.Ask == "" || len(q.Choices) < 2 || len(q.Choices) > 4 || q.Answer < 0 || q.Answer >= len(q.Choices) {
					t.Errorf("scene %d.%d: question %q has %d choices and answer %d", i+1, k+1, q.Ask, len(q.Choices), q.Answer)
				}
			}
			checked(t, sc.Looks)
			if b := sc.Break; b != nil {
				breaks++
				if b.Text == "" || b.Because == "" {
					t.Errorf("scene %d.%d: the broken variant explains nothing", i+1, k+1)
				}
				if b.Fails == "" {
					checked(t, b.Looks)
				}
			}
		}
		if questions == 0 || breaks == 0 {
			t.Errorf("lesson %d has %d questions and %d things to break", i+1, questions, breaks)
		}
	}
}

// checked wants looks of which at least one is checked.
func checked(t *testing.T, looks []Look) {
	t.Helper()
	n := 0
	for _, l := range looks {
		if l.Inside == "" && l.Outside == "" {
			t.Errorf("a look that looks at nothing: %q", l.Say)
		}
		if l.Want != nil {
			n++
		}
	}
	if n == 0 {
		t.Errorf("looks without any expectation: %v", looks)
	}
}

// stageFor makes a stage in a temporary directory.
func stageFor(t *testing.T, in string) (*Stage, *screen, func() string) {
	t.Helper()
	dir := t.TempDir()
	out, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Root: filepath.Join(dir, "root"), Program: "/bin/true", Auto: in == "", Width: 80, Out: out}
	if in != "" {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		w.WriteString(in)
		w.Close()
		o.In = r
		t.Cleanup(func() { r.Close() })
	}
	s, err := open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(o.Root); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", o.Root, err)
		}
	})
	return s, newScreen(o), func() string {
		data, err := os.ReadFile(out.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
}

// lessonOf is a lesson that needs no rights.
func lessonOf(want Want) Lesson {
	look := Look{Outside: "echo {TOKEN}", Want: want}
	return Lesson{Name: "test", Title: "A test", Scenes: []Scene{{
		Title: "One", Text: "A text.", Question: &Question{Ask: "What?", Choices: []string{"this", "that"}, Answer: 1}, Looks: []Look{look},
		Because: "So it is.",
		Break:   &Break{Text: "Broken.", Looks: []Look{look}, Because: "So it was."},
	}, {Title: "Two", Text: "The second scene."}}}
}

// TestWrong checks that what is seen and what a lesson says are compared: that --auto can fail.
func TestWrong(t *testing.T) {
	s, u, _ := stageFor(t, "")
	if err := give(s, u, 1, lessonOf(outIs("{TOKEN}")), true); err != nil {
		t.Errorf("a lesson that is right: %v", err)
	}
	err := give(s, u, 1, lessonOf(outIs("something else")), true)
	if !errors.Is(err, ErrWrong) || strings.Count(err.Error(), "something else") != 2 {
		t.Errorf("a lesson that is wrong in both variants: got %v", err)
	}
	l := lessonOf(outIs("{TOKEN}"))
	l.Needs = func(*Stage) string { return "a unicorn" }
	if err := give(s, u, 1, l, true); err == nil || !strings.Contains(err.Error(), "needs a unicorn") {
		t.Errorf("a lesson that was asked for and can't run: got %v", err)
	}
	if err := give(s, u, 1, l, false); err != nil {
		t.Errorf("one of several that can't run: got %v", err)
	}
}

func TestKeys(t *testing.T) {
	for _, tt := range []struct {
		keys       string
		has, hasnt string
		quit       bool
	}{
		{"a\n\n\n", "You said a. It is b) that", "Broken", false},
		{"b\nx\n\n\n", "Right: b) that", "You said", false},
		{"\n\n\n", "The answer: b) that", "Right", false},
		{"q\n", "What?", "The answer", true},
		{"b\nq\n", "Right: b", "The second scene", true},
		{"b\n", "Right: b", "The second scene", true}, // the end of the input
	} {
		s, u, out := stageFor(t, tt.keys)
		err := give(s, u, 1, lessonOf(outIs("{TOKEN}")), true)
		if errors.Is(err, errQuit) != tt.quit || !tt.quit && err != nil {
			t.Errorf("keys %q: got %v", tt.keys, err)
		}
		if said := out(); !strings.Contains(said, tt.has) || strings.Contains(said, tt.hasnt) {
			t.Errorf("keys %q: want %q and not %q in\n%s", tt.keys, tt.has, tt.hasnt, said)
		}
	}
}

// TestSweep checks that a tour removes what a killed one has left, and nothing of one that lives.
func TestSweep(t *testing.T) {
	s, _, _ := stageFor(t, "")
	base := filepath.Dir(s.dir)
	dead := filepath.Join(base, "0badcafe")
	if err := errors.Join(os.MkdirAll(filepath.Join(dead, "share"), 0o755), os.WriteFile(dead+".lock", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	left := exec.Command("sleep", "1000")
	left.Env = []string{marker + "=" + prefix + "0badcafe"}
	if err := left.Start(); err != nil {
		t.Fatal(err)
	}
	if err := sweep(base, s.facts); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{dead: false, dead + ".lock": false, s.dir: true, s.dir + ".lock": true} {
		if _, err := os.Stat(name); (err == nil) != want {
			t.Errorf("%s: got %v, want it there: %v", name, err, want)
		}
	}
	if err := left.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Errorf("a process of the dead tour: got %v", err)
	}
}

func TestCut(t *testing.T) {
	for _, tt := range []struct {
		line  string
		width int
		want  string
	}{
		{"short", 20, "short"},
		{"", 20, ""},
		{"a line of words that is too long", 20, "a line of words that|is too long"},
		{strings.Repeat("x", 25), 20, strings.Repeat("x", 20) + "|xxxxx"},
		{"äöü " + strings.Repeat("ß", 20), 20, "äöü " + strings.Repeat("ß", 16) + "|ßßßß"},
	} {
		if got := strings.Join(cut(tt.line, tt.width), "|"); got != tt.want {
			t.Errorf("cut(%q): got %q, want %q", tt.line, got, tt.want)
		}
	}
	if got := strings.Join(wrap("one two  three\nfour", 20), "|"); got != "one two three|four" {
		t.Errorf("wrap: got %q", got)
	}
	if got := tidy("\x1b[31mred\x07\tx\n\n"); got != "[31mred x" {
		t.Errorf("tidy: got %q", got)
	}
}
