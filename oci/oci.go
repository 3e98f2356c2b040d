// Package oci reads the configuration of a container as the OCI runtime specification writes it (config.json of a bundle),
// says what is wrong with it, and writes an example.
//
// Its one idea: a mistake is reported where it was made. Every [Problem] carries the JSON pointer of the property, in the text's
// syntax also line and column, what is wrong with it, and how to mend it. What the specification tells a runtime to
// ignore (unknown properties, settings of other platforms, capabilities that nobody has) is a warning; everything else that has
// no meaning is an error, because a setting that is quietly not applied is a hole.
//
// It has a JSON decoder of its own, for two reasons. encoding/json prepares itself for all the types of the specification before it
// reads the first byte, which takes 1.5 ms in a fresh process; this one takes a tenth of that. And it can't say where a value of the
// wrong type stands, what is unknown, or what is there twice.
//
// It doesn't look at the host, but for [Read] and [CheckFiles], nor at what this engine can do: that is asked when the plan is
// compiled.
//
// Start reading at [Read], then [Parse] and [Validate].
package oci

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// A Problem is one thing that is wrong with a configuration.
type Problem struct {
	Pointer      string // JSON pointer (RFC 6901) of the property; "" is the whole
	Text         string // what is wrong and how to mend it
	Line, Column int    // place in the text, from 1, columns in characters; 0 where the text was fine and its meaning is not
	Usual        bool   // of a warning: the example configurations of well-known runtimes have it, it is for those who look for faults
}

func (p Problem) Error() string {
	s := p.Text
	if p.Pointer != "" {
		s = p.Pointer + ": " + s
	}
	if p.Line > 0 {
		s = fmt.Sprintf("line %d, column %d: %s", p.Line, p.Column, s)
	}
	return s
}

// Invalid is the error of a configuration that was read but can't be used: everything that is wrong with it, at least one
// problem, in the order of the specification.
type Invalid []Problem

// Error is one line, because callers of a runtime show the last line of its log: the first problem in full, and where the others are.
func (v Invalid) Error() string {
	s := v[0].Error()
	if len(v) > 1 {
		const most = 5
		var others []string
		for _, p := range v[1:min(len(v), most+1)] {
			others = append(others, p.Pointer)
		}
		if len(v) > most+1 {
			others = append(others, fmt.Sprintf("%d more", len(v)-most-1))
		}
		s += " (wrong as well: " + strings.Join(others, ", ") + ")"
	}
	return s
}

// ConfigName is the name of the configuration's file in a bundle.
const ConfigName = "config.json"

// Read reads, checks and completes the configuration of a bundle. The warnings name what the specification lets a runtime ignore.
func Read(bundle string) (*specs.Spec, []Problem, error) {
	s, _, warnings, err := Load(bundle)
	return s, warnings, err
}

// Load is Read, and returns the text as well.
func Load(bundle string) (*specs.Spec, []byte, []Problem, error) {
	dir, err := filepath.Abs(bundle)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("bundle %s: %w", bundle, err)
	}
	name := filepath.Join(dir, ConfigName)
	text, err := os.ReadFile(name)
	if err != nil {
		// Mostly the wrong directory was named, which the error about the file would not say.
		if _, statErr := os.Stat(dir); os.IsNotExist(statErr) {
			return nil, nil, nil, fmt.Errorf("bundle %s: there is no such directory: say with --bundle where the bundle is: %w", dir, os.ErrNotExist)
		}
		if os.IsNotExist(err) {
			return nil, nil, nil, fmt.Errorf("bundle %s: there is no %s in it: the spec command writes an example: %w", dir, ConfigName,
				os.ErrNotExist)
		}
		return nil, nil, nil, fmt.Errorf("bundle %s: %w", dir, err)
	}
	s, warnings, err := Parse(text)
	if err == nil {
		var more []Problem
		more, err = Validate(s)
		warnings = append(warnings, more...)
	}
	if err == nil {
		Complete(s, dir)
		// When the rest is known to be right: paths are absolute now, and a missing directory would hide what else is wrong.
		err = CheckFiles(s, os.Stat)
	}
	if err != nil {
		return nil, nil, warnings, fmt.Errorf("%s: %w", name, err)
	}
	return s, text, warnings, nil
}

// Complete fills in what the specification derives from the rest of a valid configuration: paths that are relative to the bundle
// (an absolute path) become absolute, a mount's relative destination is taken below /, the linux section is there, and capabilities
// that can't be granted (Validate warned of them) are gone.
func Complete(s *specs.Spec, bundle string) {
	if s.Linux == nil {
		s.Linux = &specs.Linux{}
	}
	if s.Root != nil && !path.IsAbs(s.Root.Path) {
		s.Root.Path = path.Join(bundle, s.Root.Path)
	}
	for i := range s.Mounts {
		m := &s.Mounts[i]
		m.Destination = path.Clean("/" + m.Destination)
		if !isBind(m) {
			continue
		}
		if !path.IsAbs(m.Source) {
			m.Source = path.Join(bundle, m.Source)
		}
		m.Options = slices.DeleteFunc(m.Options, isData)
	}
	if s.Process != nil && s.Process.Capabilities != nil {
		c := s.Process.Capabilities
		eachCapability(c, func(set *[]string, i int, lacks string) bool { return lacks == "" })
	}
}

// CheckFiles checks what a completed configuration needs of the host's files, which stat looks up (os.Stat).
func CheckFiles(s *specs.Spec, stat func(string) (os.FileInfo, error)) error {
	var wrong Invalid
	check := func(pointer, name, missing string) os.FileInfo {
		info, err := stat(name)
		switch {
		case err == nil:
			return info
		case os.IsNotExist(err):
			wrong = append(wrong, Problem{Pointer: pointer, Text: fmt.Sprintf("%s does not exist: %s", name, missing)})
		default:
			wrong = append(wrong, Problem{Pointer: pointer, Text: err.Error()})
		}
		return nil
	}
	if s.Root != nil {
		if info := check("/root/path", s.Root.Path, "unpack a root file system there, or say where it is"); info != nil && !info.IsDir() {
			wrong = append(wrong, Problem{Pointer: "/root/path", Text: s.Root.Path +
				" is not a directory: a root file system is a directory with bin, lib and so on"})
		}
	}
	for i := range s.Mounts {
		if m := &s.Mounts[i]; isBind(m) {
			check(fmt.Sprintf("/mounts/%d/source", i), m.Source, "make it before the container is created")
		}
	}
	if s.Linux != nil {
		for i, n := range s.Linux.Namespaces {
			if n.Path != "" {
				check(fmt.Sprintf("/linux/namespaces/%d/path", i), n.Path,
					"its container may have ended; without a path the container gets a namespace of its own")
			}
		}
	}
	if len(wrong) > 0 {
		return wrong
	}
	return nil
}

// isData reports whether a mount's option is one of tmpfs that the kernel ignores for a bind mount. Callers of other runtimes get
// away with it, and nothing is the less isolated for it; anything else could be a misspelt nosuid.
func isData(option string) bool {
	return strings.HasPrefix(option, "mode=") || strings.HasPrefix(option, "size=")
}

func isBind(m *specs.Mount) bool {
	return m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}
