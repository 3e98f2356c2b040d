package build

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// Inputs are what a build was made from: what the next one of the same Dockerfile is compared with, to say why a step was made anew. They
// have digests, and no values, of arguments and variables.
type Inputs struct {
	Version int             `json:"version"`
	Args    map[string]Hash `json:"args,omitempty"`
	Files   map[string]File `json:"files,omitempty"` // of the context, as far as they were read or could have been
	Steps   []Made          `json:"steps"`
}

// InputsVersion is that of this form of [Inputs].
const InputsVersion = 1

// MaxFiles is how many files of a context [Inputs] have. Of a larger one they have none.
const MaxFiles = 20_000

// Hash is the beginning of a digest.
type Hash string

// File is a file of the context. Hash is empty where it was never read.
type File struct {
	Mode  uint32 `json:"m,omitempty"`
	Size  int64  `json:"s,omitempty"`
	Mtime int64  `json:"t,omitempty"` // nanoseconds
	Link  string `json:"l,omitempty"`
	Hash  Hash   `json:"h,omitempty"`
}

// same reports whether a file is as it was. Times count only where the content isn't known: they are in no layer.
func (f File) same(g File) bool {
	switch {
	case f.Mode != g.Mode || f.Size != g.Size || f.Link != g.Link:
		return false
	// git and archives give files the time at which they were unpacked.
	case f.Hash != "" && g.Hash != "":
		return f.Hash == g.Hash
	}
	return f.Mtime == g.Mtime
}

// Made is a step as it was made, or taken from the cache.
type Made struct {
	Spot
	Key     Hash              `json:"key"`               // of all that is written of it, and of the steps before it
	Inputs  []Hash            `json:"inputs,omitempty"`  // keys of those
	Facts   map[string]string `json:"facts,omitempty"`   // what is written of it, by the words of a Dockerfile
	Context []string          `json:"context,omitempty"` // paths, with patterns, that it reads of the context
}

// Why says why a step was not taken from the cache. anew are the keys of the steps that were made anew, too. before is nil where no earlier
// build is known.
func (in *Inputs) Why(s *Made, before *Inputs, r *Request, anew map[Hash]Spot) string {
	switch {
	case r.NoCache:
		return "--no-cache"
	case slices.ContainsFunc(r.NoCacheFilter, func(f string) bool { return strings.EqualFold(f, s.Stage) }):
		return "--no-cache-filter " + s.Stage
	case before == nil:
		return "no earlier build of this Dockerfile and context is known here"
	}
	was := before.at(s)
	if was == nil {
		return "it is new: the build before had no such step"
	}
	var why []string
	if was.Text != s.Text {
		why = append(why, "it was: "+was.Text)
	}
	for _, name := range names(was.Facts, s.Facts) {
		if was.Facts[name] != s.Facts[name] {
			// BuildKit gives a RUN the stage's ARGs as variables: what was typed is what a reader looks for.
			arg, ok := strings.CutPrefix(name, "variable ")
			if ok && before.Args[arg] != in.Args[arg] {
				name += ", by --build-arg,"
			}
			why = append(why, name+" changed")
		}
	}
	if changed := in.changed(before, s.Context); changed != "" {
		why = append(why, "changed in the context: "+changed)
	}
	if len(why) > 0 {
		return strings.Join(why, "; ")
	}
	for i, key := range s.Inputs {
		if spot, ok := anew[key]; ok {
			return "it follows " + spot.Name() + ", which was made anew"
		}
		if i >= len(was.Inputs) || was.Inputs[i] != key {
			if step := in.keyed(key); step != nil {
				return "it follows " + step.Name() + ", which is another than before"
			}
		}
	}
	if was.Key != s.Key {
		return "what it is made from is another than before"
	}
	return "nothing of it changed: its result was no longer in the cache"
}

// Name is how a step is called in a sentence.
func (s Spot) Name() string {
	text := s.Text
	if r := []rune(text); len(r) > 60 {
		text = string(r[:60]) + "…"
	}
	if s.Line > 0 {
		return fmt.Sprintf("line %d (%s)", s.Line, text)
	}
	return text
}

// at finds the step that another one was in this build: at the same place of the same stage or, where instructions came in before it, with
// the same words.
func (in *Inputs) at(s *Made) *Made {
	var same *Made
	for i := range in.Steps {
		w := &in.Steps[i]
		if !strings.EqualFold(w.Stage, s.Stage) {
			continue
		}
		// At the same place with the same words: two equal instructions of a stage are told apart by where they are.
		if w.Number == s.Number && w.Text == s.Text {
			return w
		}
		if w.Text == s.Text || w.Number == s.Number && same == nil && word(w.Text) == word(s.Text) {
			same = w
		}
	}
	return same
}

// word is the first: RUN, COPY.
func word(text string) string {
	w, _, _ := strings.Cut(text, " ")
	return w
}

func (in *Inputs) keyed(key Hash) *Made {
	for i := range in.Steps {
		if in.Steps[i].Key == key {
			return &in.Steps[i]
		}
	}
	return nil
}

// names are the keys of several maps.
func names[V any](of ...map[string]V) []string {
	all := map[string]bool{}
	for _, m := range of {
		for name := range m {
			all[name] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// changed lists what below some paths of the context isn't as it was.
func (in *Inputs) changed(before *Inputs, paths []string) string {
	if len(paths) == 0 || in.Files == nil || before.Files == nil {
		return ""
	}
	var list []string
	for _, name := range names(in.Files, before.Files) {
		if !slices.ContainsFunc(paths, func(p string) bool { return covers(p, name) }) {
			continue
		}
		now, is := in.Files[name]
		then, was := before.Files[name]
		switch {
		case !was:
			list = append(list, name+" (new)")
		case !is:
			list = append(list, name+" (gone)")
		case now.Mode != then.Mode:
			list = append(list, name+" (its mode)")
		case !now.same(then):
			list = append(list, name)
		}
	}
	const most = 8
	if n := len(list); n > most {
		list = append(list[:most], fmt.Sprintf("and %d more", n-most))
	}
	return strings.Join(list, ", ")
}

// covers reports whether a source of COPY, which may have patterns, takes a file.
func covers(source, name string) bool {
	source = strings.Trim(path.Clean("/"+source), "/")
	if source == "" {
		return true
	}
	depth := strings.Count(source, "/") + 1
	// A pattern takes a directory whole, so that of a name as many parts are compared as the pattern has.
	parts := strings.SplitN(name, "/", depth+1)
	if len(parts) < depth {
		return false
	}
	ok, err := path.Match(source, strings.Join(parts[:depth], "/"))
	return ok && err == nil || strings.HasPrefix(name+"/", source+"/")
}
