package tour

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"glassbox/plan"
)

// Lesson is one of the twelve.
type Lesson struct {
	Name     string // one word
	Title    string
	Shows    string // one line, for the menu
	Minutes  int
	Intro    string
	Needs    func(*Stage) string // what is missing here, "" for nothing
	Scenes   []Scene
	Remember string // what to take home
	Read     string // manual pages, and pages of this project
}

// Scene is a step of a lesson: something real is started, and looked at.
type Scene struct {
	Title string
	Text  string
	// Prepare makes what the scene needs, such as files.
	Prepare func(*Stage) error
	// Plan is what is run. Without one, what the scene before started is still there.
	Plan func(*Stage) (*plan.Plan, error)
	// Start is for what is no plan. It sets the stage's box.
	Start    func(*Stage) error
	Question *Question
	Show     func(*player) error // what is no look, before them
	Looks    []Look
	Because  string // said after the looks
	Break    *Break
}

// Question is asked before anything is shown.
type Question struct {
	Ask     string
	Choices []string
	Answer  int // index of the right one
}

// Look is a command inside, a command outside, or both side by side. Names in braces stand for what is known when it runs: {PID},
// the process of the box as the host sees it; {DIR}, a directory of the tour; {TOKEN}, a word that only the host knows.
type Look struct {
	Say     string // said before
	Inside  string
	Outside string
	World   bool // Outside runs in the world of lesson 10
	Root    bool // not for an ordinary user
	Want    Want
}

// Break is the scene again with one step left out or changed.
type Break struct {
	Text    string
	Prepare func(*Stage) error
	Change  func([]plan.Step) []plan.Step
	Start   func(*Stage) error // instead of a plan
	Fails   string             // the plan must fail, with this in its error
	Looks   []Look
	Because string
}

// Seen is what a look has found.
type Seen struct {
	In, Out string
	Stage   *Stage
}

// Want says what is wrong with what was seen, "" for nothing.
type Want func(Seen) string

// All returns the lessons, in order.
func All() []Lesson {
	return []Lesson{
		namespaces(), chroot(), pivotRoot(), procfs(), cgroups(), overlay(),
		users(), capabilities(), filters(), networks(), first(), images(),
	}
}

// Number finds a lesson by its number or its name.
func Number(word string) (int, error) {
	lessons := All()
	if n, err := strconv.Atoi(word); err == nil && n >= 1 && n <= len(lessons) {
		return n, nil
	}
	var names []string
	for i, l := range lessons {
		if l.Name == word {
			return i + 1, nil
		}
		names = append(names, l.Name)
	}
	return 0, fmt.Errorf("there is no lesson %s: there are 1 to %d, or %s", word, len(lessons), strings.Join(names, ", "))
}

// ---- what is wanted ----

func all(wants ...Want) Want {
	return func(s Seen) string {
		for _, w := range wants {
			if wrong := w(s); wrong != "" {
				return wrong
			}
		}
		return ""
	}
}

func differ(s Seen) string {
	if s.In == s.Out || s.In == "" || s.Out == "" {
		return fmt.Sprintf("inside and outside should differ: %q and %q", s.In, s.Out)
	}
	return ""
}

func same(s Seen) string {
	if s.In != s.Out || s.In == "" {
		return fmt.Sprintf("inside and outside should be the same: %q and %q", s.In, s.Out)
	}
	return ""
}

func words(where, got string, expand func(string) string, want []string) string {
	for _, w := range want {
		if w = expand(w); !strings.Contains(got, w) {
			return fmt.Sprintf("%s should show %q: %q", where, w, got)
		}
	}
	return ""
}

func inHas(want ...string) Want {
	return func(s Seen) string { return words("inside", s.In, s.Stage.expand, want) }
}

func outHas(want ...string) Want {
	return func(s Seen) string { return words("outside", s.Out, s.Stage.expand, want) }
}

func inIs(want string) Want {
	return func(s Seen) string {
		if w := s.Stage.expand(want); s.In != w {
			return fmt.Sprintf("inside should be %q: %q", w, s.In)
		}
		return ""
	}
}

func outIs(want string) Want {
	return func(s Seen) string {
		if w := s.Stage.expand(want); s.Out != w {
			return fmt.Sprintf("outside should be %q: %q", w, s.Out)
		}
		return ""
	}
}

func inLacks(not ...string) Want {
	return func(s Seen) string {
		for _, w := range not {
			if w = s.Stage.expand(w); s.In == "" || strings.Contains(s.In, w) {
				return fmt.Sprintf("inside should say something without %q: %q", w, s.In)
			}
		}
		return ""
	}
}

// ---- how a plan is broken ----

// without leaves out the steps that match.
func without(match func(plan.Op) bool) func([]plan.Step) []plan.Step {
	return func(steps []plan.Step) []plan.Step {
		return slices.DeleteFunc(slices.Clone(steps), func(s plan.Step) bool { return match(s.Op) })
	}
}

// kind matches ops of a type.
func kind[T plan.Op](op plan.Op) bool { _, ok := op.(T); return ok }

// changed lets f change the op of each step that is a T.
func changed[T any](f func(op *T)) func([]plan.Step) []plan.Step {
	return func(steps []plan.Step) []plan.Step {
		steps = slices.Clone(steps)
		for i, s := range steps {
			if op, ok := any(s.Op).(*T); ok {
				copied := *op
				f(&copied)
				steps[i].Op = any(&copied).(plan.Op)
			}
		}
		return steps
	}
}

// sharing leaves a namespace out of the clone.
func sharing(namespace string) func([]plan.Step) []plan.Step {
	return changed(func(o *plan.Clone) {
		o.Namespaces = slices.DeleteFunc(slices.Clone(o.Namespaces), func(n string) bool { return n == namespace })
	})
}
