package image

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Config is an image's configuration for containers, with the fields of Docker's that the OCI specification has not.
type Config struct {
	v1.ImageConfig
	Healthcheck *Healthcheck `json:",omitempty"`
	OnBuild     []string     `json:",omitempty"`
	Shell       []string     `json:",omitempty"`
}

// maxChange is the length of an instruction.
const maxChange = 64 << 10

// Change applies an instruction of a Dockerfile, as --change of commit and import takes it: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK,
// LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME or WORKDIR. Variables in it ($NAME, ${NAME}, ${NAME:-word}, ${NAME:+word}) are those of ENV.
func (c *Config) Change(text string) error {
	bad := func(format string, args ...any) error {
		return &Error{Op: "change", Name: fmt.Sprintf("%.100q", text), Kind: ErrReference, Text: fmt.Sprintf(format, args...)}
	}
	if len(text) > maxChange || strings.ContainsAny(text, "\x00") {
		return bad("it is too long, or has a NUL byte in it")
	}
	word, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
	rest = strings.TrimSpace(rest)
	kind := strings.ToUpper(word)
	switch kind {
	case "CMD", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "ONBUILD", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR":
	default:
		return bad("%.40q is no instruction that changes a configuration: those are CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, "+
			"STOPSIGNAL, USER, VOLUME and WORKDIR", word)
	}
	if rest == "" && kind != "CMD" && kind != "ENTRYPOINT" {
		return bad("%s needs an argument", kind)
	}
	var err error
	switch kind {
	case "CMD":
		c.Cmd = c.command(rest)
	case "ENTRYPOINT":
		c.Entrypoint, c.Cmd = c.command(rest), nil // Docker takes the image's CMD back, too: it was for another program
	case "ENV", "LABEL":
		err = c.pairs(kind, rest)
	case "HEALTHCHECK":
		err = c.healthcheck(rest)
	case "ONBUILD":
		switch w := strings.ToUpper(strings.Fields(rest)[0]); w {
		case "ONBUILD", "FROM", "MAINTAINER":
			return bad("%s is no trigger for ONBUILD", w)
		}
		c.OnBuild = append(c.OnBuild, rest)
	default:
		err = c.plain(kind, rest)
	}
	if err != nil {
		return bad("%v", err)
	}
	return nil
}

// plain are the instructions of words without names.
func (c *Config) plain(kind, rest string) error {
	words, err := splitWords(rest, c.lookup)
	if kind == "VOLUME" {
		if list, ok := jsonWordList(rest); ok {
			words, err = list, nil
		}
	}
	if err != nil {
		return err
	}
	if len(words) == 0 {
		return fmt.Errorf("%s needs an argument", kind)
	}
	if len(words) > 1 && (kind == "USER" || kind == "WORKDIR" || kind == "STOPSIGNAL") {
		return fmt.Errorf("%s takes one argument", kind)
	}
	switch kind {
	case "EXPOSE":
		return c.expose(words)
	case "STOPSIGNAL":
		c.StopSignal = words[0]
	case "USER":
		c.User = words[0]
	case "WORKDIR":
		if dir := words[0]; strings.HasPrefix(dir, "/") {
			c.WorkingDir = path.Clean(dir)
		} else {
			c.WorkingDir = path.Join("/", c.WorkingDir, dir)
		}
	case "VOLUME":
		for _, v := range words {
			if v = path.Clean("/" + v); v == "/" || len(c.Volumes) >= maxVolumes {
				return fmt.Errorf("the root can't be a volume, and there can't be more than %d", maxVolumes)
			}
			if c.Volumes == nil {
				c.Volumes = map[string]struct{}{}
			}
			c.Volumes[v] = struct{}{}
		}
	}
	return nil
}

func (c *Config) expose(words []string) error {
	for _, w := range words {
		first, last, proto, err := parseExpose(w)
		if err != nil {
			return err
		}
		if c.ExposedPorts == nil {
			c.ExposedPorts = map[string]struct{}{}
		}
		for n := int(first); n <= int(last); n++ {
			if c.ExposedPorts[Port{uint16(n), proto}.String()] = struct{}{}; len(c.ExposedPorts) > maxExposedPorts {
				return fmt.Errorf("more than %d ports", maxExposedPorts)
			}
		}
	}
	return nil
}

// command is the JSON form of a command, or else the shell's.
func (c *Config) command(rest string) []string {
	if list, ok := jsonWordList(rest); ok {
		return list
	}
	if rest == "" {
		return nil
	}
	shell := c.Shell
	if len(shell) == 0 {
		shell = []string{"/bin/sh", "-c"}
	}
	return append(slices.Clone(shell), rest)
}

func jsonWordList(s string) ([]string, bool) {
	var list []string
	if !strings.HasPrefix(s, "[") || json.Unmarshal([]byte(s), &list) != nil {
		return nil, false
	}
	return list, !slices.ContainsFunc(list, func(w string) bool { return strings.Contains(w, "\x00") })
}

// lookup finds a variable of ENV.
func (c *Config) lookup(name string) (string, bool) {
	for _, e := range slices.Backward(c.Env) {
		if k, v, _ := strings.Cut(e, "="); k == name {
			return v, true
		}
	}
	return "", false
}

// pairs are the arguments of ENV and LABEL: NAME=VALUE …, or the old form NAME VALUE.
func (c *Config) pairs(kind, rest string) error {
	first, value, _ := strings.Cut(rest, " ")
	var words []string
	if !strings.Contains(first, "=") {
		// The old form has one value, up to the end of the line, in which spaces need no quotes.
		w, err := splitWords(strings.ReplaceAll(strings.TrimSpace(value), " ", "\\ "), c.lookup)
		if err != nil {
			return err
		}
		if len(w) == 0 {
			return fmt.Errorf("%s must have two arguments", kind)
		}
		words = []string{first + "=" + strings.Join(w, " ")}
	} else {
		var err error
		if words, err = splitWords(rest, c.lookup); err != nil {
			return err
		}
	}
	for _, w := range words {
		name, v, ok := strings.Cut(w, "=")
		if !ok || name == "" {
			return fmt.Errorf("%.60q is not NAME=VALUE", w)
		}
		if kind == "LABEL" {
			if c.Labels == nil {
				c.Labels = map[string]string{}
			}
			c.Labels[name] = v
			continue
		}
		// A variable that is there is replaced: of two entries of one name some readers take the first and some the last.
		c.Env = slices.DeleteFunc(slices.Clone(c.Env), func(e string) bool { return strings.HasPrefix(e, name+"=") })
		c.Env = append(c.Env, w)
	}
	return nil
}

// splitWords splits words as Docker's builder does: quotes keep spaces together, a backslash the next character; outside of single quotes
// variables are replaced.
func splitWords(s string, lookup func(string) (string, bool)) ([]string, error) {
	var words []string
	var b strings.Builder
	in, quote := false, byte(0)
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && quote != '\'' && i+1 < len(s):
			// In double quotes a backslash is one, unless what follows would mean something (POSIX, 2.2.3).
			if i++; quote == '"' && s[i] != '"' && s[i] != '$' && s[i] != '\\' {
				b.WriteByte('\\')
			}
			b.WriteByte(s[i])
			in = true
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote, in = c, true
		case c == '$' && quote != '\'':
			text, n, err := variable(s[i:], lookup)
			if err != nil {
				return nil, err
			}
			b.WriteString(text)
			in, i = true, i+n-1
		case quote == 0 && (c == ' ' || c == '\t' || c == '\n' || c == '\r'):
			if in {
				words = append(words, b.String())
				b.Reset()
				in = false
			}
		default:
			b.WriteByte(c)
			in = true
		}
		// Variables can grow: ENV A=$A$A, a hundred times, has no end.
		if b.Len() > maxChange || len(words) > maxConfigItems {
			return nil, fmt.Errorf("it becomes too long")
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("a quote (%c) is not closed", quote)
	}
	if in {
		words = append(words, b.String())
	}
	return words, nil
}

// variable replaces the variable at the beginning of s, which is n bytes long there.
func variable(s string, lookup func(string) (string, bool)) (text string, n int, err error) {
	name := func(s string) int {
		k := 0
		for k < len(s) && (s[k] == '_' || 'a' <= s[k] && s[k] <= 'z' || 'A' <= s[k] && s[k] <= 'Z' || k > 0 && '0' <= s[k] && s[k] <= '9') {
			k++
		}
		return k
	}
	if !strings.HasPrefix(s, "${") {
		k := name(s[1:])
		if k == 0 {
			return "$", 1, nil
		}
		v, _ := lookup(s[1 : 1+k])
		return v, 1 + k, nil
	}
	end := strings.IndexByte(s, '}')
	if end < 0 {
		return "", 0, fmt.Errorf("%.40q is not closed", s)
	}
	k := name(s[2:])
	v, ok := lookup(s[2 : 2+k])
	switch mod := s[2+k : end]; {
	case k == 0:
		return "", 0, fmt.Errorf("%.40q has no name", s[:end+1])
	case mod == "":
	case strings.HasPrefix(mod, ":-"):
		if v == "" {
			v = mod[2:]
		}
	case strings.HasPrefix(mod, ":+"):
		if ok && v != "" {
			v = mod[2:]
		} else {
			v = ""
		}
	default:
		return "", 0, fmt.Errorf("%.40q: the forms are ${NAME}, ${NAME:-word} and ${NAME:+word}", s[:end+1])
	}
	return v, end + 1, nil
}

// healthcheck reads [OPTIONS] CMD command, or NONE.
func (c *Config) healthcheck(rest string) error {
	h := &Healthcheck{}
	for {
		word, after, _ := strings.Cut(rest, " ")
		name, value, ok := strings.Cut(word, "=")
		if !strings.HasPrefix(word, "--") {
			break
		}
		if !ok {
			return fmt.Errorf("%s needs a value: %s=…", word, word)
		}
		to := map[string]*time.Duration{
			"--interval": &h.Interval, "--timeout": &h.Timeout, "--start-period": &h.StartPeriod, "--start-interval": &h.StartInterval,
		}[name]
		var err error
		switch {
		case to != nil:
			if *to, err = time.ParseDuration(value); err != nil || *to != 0 && *to < time.Millisecond {
				return fmt.Errorf("%s: %.40q is no duration of at least 1ms", name, value)
			}
		case name == "--retries":
			if h.Retries, err = strconv.Atoi(value); err != nil || h.Retries < 0 {
				return fmt.Errorf("--retries: %.40q is no number", value)
			}
		default:
			return fmt.Errorf("%.40s is no option of HEALTHCHECK", name)
		}
		rest = strings.TrimSpace(after)
	}
	kind, command, _ := strings.Cut(rest, " ")
	command = strings.TrimSpace(command)
	switch strings.ToUpper(kind) {
	case "NONE":
		if command != "" || h.Interval|h.Timeout|h.StartPeriod|h.StartInterval != 0 || h.Retries != 0 {
			return fmt.Errorf("NONE takes no arguments")
		}
		h.Test = []string{"NONE"}
	case "CMD":
		if list, ok := jsonWordList(command); ok && len(list) > 0 {
			h.Test = append([]string{"CMD"}, list...)
		} else if command != "" {
			h.Test = []string{"CMD-SHELL", command}
		} else {
			return fmt.Errorf("CMD needs a command")
		}
	default:
		return fmt.Errorf("%.40q is neither CMD nor NONE", kind)
	}
	if len(h.Test) > maxHealthWords {
		return fmt.Errorf("more than %d words", maxHealthWords)
	}
	c.Healthcheck = h
	return nil
}
