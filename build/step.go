package build

import (
	"slices"
	"strconv"
	"strings"

	"glassbox/plan"
)

// AskFD is the descriptor of the socket over which the builder asks whoever started it, where [Request.Step] says so: a [Stop] a line, an
// [Answer] a line back.
const AskFD = 4

// Spot says where a step stands in the Dockerfile.
type Spot struct {
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"` // its first
	Last   int    `json:"last,omitempty"`
	Stage  string `json:"stage,omitempty"`  // its name, or its number where it has none
	Number int    `json:"number,omitempty"` // of the instruction in its stage, as progress shows it
	Text   string `json:"text"`             // the instruction, after what the builder has put in for variables
}

// Stop is a moment in the start of a RUN. It comes first with the plan, before anything of it is made; then, unless the answer was Run,
// before each step, without plan.
type Stop struct {
	Spot  *Spot      `json:"spot,omitempty"`
	Plan  *plan.Plan `json:"plan,omitempty"`
	Index int        `json:"index"`         // of the step in the plan
	PID   int        `json:"pid,omitempty"` // of the RUN's process; 0: there is none yet
}

// Answer says how to go on from a [Stop].
type Answer struct {
	Go   bool   `json:"go,omitempty"`
	Run  bool   `json:"run,omitempty"`  // go on, and don't ask again in this RUN
	Quit string `json:"quit,omitempty"` // end the build, and why
}

// Break is where a build is to stop: in a stage, at a line of the Dockerfile, or at a phase of each RUN's plan.
type Break struct {
	Stage string
	Line  int
	Phase plan.Phase
}

// ReadBreaks reads the values of --break. phases are the names that are no stage's.
func ReadBreaks(words []string, phases []plan.Phase) (out []Break) {
	for _, w := range words {
		line, err := strconv.Atoi(w)
		switch {
		case err == nil:
			out = append(out, Break{Line: line})
		case slices.Contains(phases, plan.Phase(w)):
			out = append(out, Break{Phase: plan.Phase(w)})
		default:
			out = append(out, Break{Stage: strings.ToLower(w)})
		}
	}
	return out
}

// At reports whether a break is for the whole of the RUN at a spot.
func (b Break) At(p *Spot) bool {
	return b.Stage != "" && b.Stage == strings.ToLower(p.Stage) || b.Line > 0 && b.Line >= p.Line && b.Line <= max(p.Line, p.Last)
}

// Named takes an instruction's name apart, as the front end gives it: "[2/3] RUN x", "[stage 2/3] RUN x", "[linux/arm64 stage 2/3] RUN x".
func Named(name string) Spot {
	head, text, ok := strings.Cut(name, "] ")
	if !ok || !strings.HasPrefix(head, "[") {
		return Spot{Text: name}
	}
	words := strings.Fields(head[1:])
	if len(words) == 0 {
		return Spot{Text: name}
	}
	number, _, ok := strings.Cut(words[len(words)-1], "/")
	n, err := strconv.Atoi(number)
	if !ok || err != nil {
		return Spot{Text: name}
	}
	s := Spot{Stage: "0", Number: n, Text: text}
	// What has a slash is a platform, which the front end names where there are several. Stages without a name are stage-0, stage-1.
	if len(words) > 1 && !strings.Contains(words[len(words)-2], "/") {
		s.Stage = strings.TrimPrefix(words[len(words)-2], "stage-")
	}
	return s
}
