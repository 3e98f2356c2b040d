package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Registries are what the administrator says of registries, in one file that every command honours which speaks with one: where images
// are asked for first (mirrors), what stands in for a registry (location), who may be spoken to without proof, whose certificates count.
// The zero value says nothing.
type Registries struct {
	File  string
	Rules []RegistryRule
}

// RegistryRule is what is said of a registry, or of a part of it.
type RegistryRule struct {
	// Prefix is HOST[:PORT][/PATH]: images whose full name (docker.io/library/debian) is that, or begins with it and a slash. Of several rules
	// the one with the longest prefix counts, for itself alone.
	Prefix string `json:"prefix"`
	// Location, HOST[:PORT][/PATH], takes the prefix's place in what is asked of the network. The image keeps its name.
	Location string `json:"location,omitempty"`
	// Mirrors, each HOST[:PORT][/PATH], are asked in turn before the registry itself when something is fetched. Nothing is pushed to them.
	Mirrors []string `json:"mirrors,omitempty"`
	// Insecure allows plain HTTP and certificates that nobody vouches for. This and what follows is for a prefix without a path.
	Insecure bool   `json:"insecure,omitempty"`
	CA       string `json:"ca,omitempty"`   // file of PEM certificates: authorities, beside the system's
	Cert     string `json:"cert,omitempty"` // file of the client's certificate, and of its key
	Key      string `json:"key,omitempty"`
}

const (
	maxRegistriesFile = 1 << 20
	registriesFile    = "glassbox/registries.json"
)

// RegistriesFile is where the settings are: GLASSBOX_REGISTRIES, or /etc/glassbox/registries.json; an ordinary user's own in
// $XDG_CONFIG_HOME/glassbox comes before that.
func RegistriesFile() string {
	if file := os.Getenv("GLASSBOX_REGISTRIES"); file != "" {
		return file
	}
	if os.Geteuid() != 0 {
		if dir, err := os.UserConfigDir(); err == nil {
			if _, err := os.Lstat(filepath.Join(dir, registriesFile)); err == nil {
				return filepath.Join(dir, registriesFile)
			}
		}
	}
	return filepath.Join("/etc", registriesFile)
}

// ReadRegistries reads the settings. A file that isn't there says nothing; one that can't be understood is an error, because what it was to
// forbid or to redirect is not known.
func ReadRegistries(file string) (*Registries, error) {
	f, err := os.Open(file)
	// Named by hand it must be there: a typing error would else mean no rules at all.
	if errors.Is(err, fs.ErrNotExist) && os.Getenv("GLASSBOX_REGISTRIES") == "" {
		return &Registries{File: file}, nil
	}
	bad := func(err error) (*Registries, error) {
		return nil, &Error{Op: "registries", Name: file, Kind: ErrReference, Text: err.Error(), Hint: "docs/images.md has an example"}
	}
	if err != nil {
		return bad(err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxRegistriesFile+1))
	if err != nil {
		return bad(err)
	}
	if len(raw) > maxRegistriesFile {
		return bad(fmt.Errorf("the file is larger than %d bytes", maxRegistriesFile))
	}
	r, err := ParseRegistries(raw)
	if err != nil {
		return bad(err)
	}
	r.File = file
	for i := range r.Rules { // files beside this one
		for _, name := range []*string{&r.Rules[i].CA, &r.Rules[i].Cert, &r.Rules[i].Key} {
			if *name != "" && !filepath.IsAbs(*name) {
				*name = filepath.Join(filepath.Dir(file), *name)
			}
		}
	}
	return r, nil
}

// ParseRegistries reads {"registries": [RULE, …]}. Nothing is ignored: a key that isn't known, or is there twice, is an error, and so is a
// rule that could never count.
func ParseRegistries(raw []byte) (*Registries, error) {
	top, err := strictObject(raw, 1, "registries")
	if err != nil {
		return nil, err
	}
	list, ok := top["registries"]
	if !ok {
		return nil, errors.New(`"registries" is missing: want {"registries": [{"prefix": "docker.io", …}]}`)
	}
	d := json.NewDecoder(bytes.NewReader(list.raw))
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return nil, errors.New(`"registries" is no list: want [{"prefix": "docker.io", …}]`)
	}
	r := &Registries{}
	for i := 0; d.More(); i++ {
		var text json.RawMessage
		if err := d.Decode(&text); err != nil {
			return nil, errors.New(jsonWords(err)) // it was read once already
		}
		// The line in the whole file: what the decoder has read of the list, less the rule itself.
		line := list.line + bytes.Count(list.raw[:d.InputOffset()], []byte("\n")) - bytes.Count(text, []byte("\n"))
		rule, err := parseRule(text, line)
		if err == nil && slices.ContainsFunc(r.Rules, func(o RegistryRule) bool { return o.Prefix == rule.Prefix }) {
			err = errors.New("there is a rule of this prefix already")
		}
		if err != nil {
			return nil, fmt.Errorf("rule %d%s: %w", i+1, paren(rule.Prefix), err)
		}
		r.Rules = append(r.Rules, rule)
	}
	// One rule for each name, and none after it: a chain of rules would have to be thought through by whoever reads the
	// file.
	for _, rule := range r.Rules {
		for _, place := range append(slices.Clone(rule.Mirrors), rule.Location) {
			if other := r.rule(place); place != "" && other != nil && other.Location != "" {
				return nil, fmt.Errorf("the rule of %s leads to %s, which the rule of %s leads on to %s: name that place at once", rule.Prefix, place,
					other.Prefix, other.Location)
			}
		}
	}
	return r, nil
}

func paren(s string) string {
	if s == "" {
		return ""
	}
	return fmt.Sprintf(" (%.100q)", s)
}

func parseRule(raw json.RawMessage, line int) (rule RegistryRule, err error) {
	keys, err := strictObject(raw, line, "prefix", "location", "mirrors", "insecure", "ca", "cert", "key")
	if err != nil {
		return rule, err
	}
	if err := json.Unmarshal(raw, &rule); err != nil {
		return rule, errors.New(jsonWords(err))
	}
	switch {
	case keys["prefix"].raw == nil:
		return rule, errors.New(`"prefix" is missing: which images the rule is for, HOST[:PORT][/PATH]`)
	case len(keys) == 1:
		return rule, errors.New("it says nothing: want location, mirrors, insecure, ca or cert and key")
	}
	if rule.Prefix, err = placeName(rule.Prefix); err != nil {
		return rule, fmt.Errorf("prefix: %w", err)
	}
	if keys["location"].raw != nil {
		if rule.Location, err = placeName(rule.Location); err != nil {
			return rule, fmt.Errorf("location: %w", err)
		}
		if rule.Location == rule.Prefix {
			return rule, errors.New("location: it is the prefix itself")
		}
	}
	for i, m := range rule.Mirrors {
		if rule.Mirrors[i], err = placeName(m); err != nil {
			return rule, fmt.Errorf("mirrors: %w", err)
		}
		if slices.Contains(rule.Mirrors[:i], rule.Mirrors[i]) {
			return rule, fmt.Errorf("mirrors: %s is there twice", m)
		}
	}
	if len(rule.Mirrors) > 16 {
		return rule, errors.New("mirrors: more than 16")
	}
	_, path := cutPlace(rule.Prefix)
	switch {
	case path != "" && (rule.Insecure || rule.CA != "" || rule.Cert != "" || rule.Key != ""):
		host, _ := cutPlace(rule.Prefix)
		return rule, fmt.Errorf("insecure, ca, cert and key are of a host: they belong to a rule of the prefix %q", host)
	case rule.Insecure && rule.CA != "":
		return rule, errors.New("ca says whom to believe, and insecure to believe everybody: leave one out")
	case (rule.Cert == "") != (rule.Key == ""):
		return rule, errors.New("cert and key belong together: the client's certificate and its key")
	}
	return rule, nil
}

// placeName checks HOST[:PORT][/PATH].
func placeName(text string) (string, error) {
	hint := ""
	for _, scheme := range []string{"https://", "http://", "docker://"} {
		if strings.HasPrefix(text, scheme) {
			hint = ", without " + scheme
			if scheme == "http://" {
				hint += `; "insecure": true in a rule of that host allows plain HTTP`
			}
		}
	}
	host, path := cutPlace(text)
	// Docker's other names of Hub are the same registry, whose rules are looked up by one name.
	if host == "index.docker.io" || host == "registry-1.docker.io" {
		host = hub
	}
	switch {
	case strings.ContainsAny(path, ":@"):
		return "", fmt.Errorf("%.100q has a tag or a digest: want HOST[:PORT][/PATH]%s", text, hint)
	case !validRegistry(host), strings.Contains(text, "/") && !validRepository(path), !strings.ContainsAny(host, ".:") && host != "localhost":
		return "", fmt.Errorf("%.100q is no place of a registry: want HOST[:PORT][/PATH]%s, and a host with a dot, a port, or localhost", text,
			hint)
	case len(text) > maxNameLen:
		return "", fmt.Errorf("%.40q… is longer than %d characters", text, maxNameLen)
	}
	if path == "" {
		return host, nil
	}
	return host + "/" + path, nil
}

func cutPlace(place string) (host, path string) {
	host, path, _ = strings.Cut(place, "/")
	return host, path
}

// strictValue is the value of a key, and the line of the file in which it begins.
type strictValue struct {
	raw  json.RawMessage
	line int
}

// strictObject reads an object, which begins in a line, whose keys are all among those that are allowed, and each there once.
func strictObject(raw []byte, first int, allowed ...string) (map[string]strictValue, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	line := func() int { return first + bytes.Count(raw[:min(int(d.InputOffset()), len(raw))], []byte("\n")) }
	wrong := func(err error) error {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return errors.New("it ends too early")
		}
		return fmt.Errorf("line %d: %s", line(), jsonWords(err))
	}
	if t, err := d.Token(); err != nil {
		return nil, wrong(err)
	} else if t != json.Delim('{') {
		return nil, errors.New("want an object: {…}")
	}
	out := map[string]strictValue{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, wrong(err)
		}
		key, _ := t.(string)
		if !slices.Contains(allowed, key) {
			return nil, fmt.Errorf("unknown key %.60q in line %d: want %s", key, line(), strings.Join(allowed, ", "))
		}
		if out[key].raw != nil {
			return nil, fmt.Errorf("%q is there twice, again in line %d", key, line())
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, wrong(err)
		}
		// null would be read as nothing having been said.
		if string(value) == "null" {
			return nil, fmt.Errorf("%q is null: leave it out", key)
		}
		out[key] = strictValue{value, line() - bytes.Count(value, []byte("\n"))}
	}
	if _, err := d.Token(); err != nil { // the closing brace
		return nil, wrong(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("line %d: something follows the end", line())
	}
	return out, nil
}

// rule is that of the longest prefix of a full name; nil: there is none.
func (r *Registries) rule(name string) *RegistryRule {
	var found *RegistryRule
	for i, rule := range r.Rules {
		// A prefix ends at a slash: example.com/a is none of example.com/ab.
		if (name == rule.Prefix || strings.HasPrefix(name, rule.Prefix+"/")) && (found == nil || len(rule.Prefix) > len(found.Prefix)) {
			found = &r.Rules[i]
		}
	}
	return found
}

// Host is what is said of a host, which may have a port; nil: nothing.
func (r *Registries) Host(host string) *RegistryRule {
	for i, rule := range r.Rules {
		if rule.Prefix == host {
			return &r.Rules[i]
		}
	}
	return nil
}

// insecure reports whether a host may be spoken to without proof; a rule without a port is for all ports.
func (r *Registries) insecure(host string) bool {
	// The rule that names the port is about that port, also where it takes something back.
	exact, any := r.Host(host), r.Host(hostOnly(host))
	if exact != nil {
		return exact.Insecure
	}
	return any != nil && any.Insecure
}

// Place is where a reference is looked for on the network: itself, unless a rule's location stands in for it.
func (r *Registries) Place(ref Ref) (Ref, error) {
	rule := r.rule(ref.Name())
	if rule == nil || rule.Location == "" {
		return ref, nil
	}
	return moved(ref, rule.Prefix, rule.Location)
}

// Places are where something is fetched from, in the order in which they are asked: the mirrors, then the registry itself.
func (r *Registries) Places(ref Ref) ([]Ref, error) {
	own, err := r.Place(ref)
	if err != nil {
		return nil, err
	}
	rule := r.rule(ref.Name())
	if rule == nil {
		return []Ref{own}, nil
	}
	var out []Ref
	for _, m := range rule.Mirrors {
		place, err := moved(ref, rule.Prefix, m)
		if err != nil {
			return nil, err
		}
		out = append(out, place)
	}
	return append(out, own), nil
}

// moved puts a place where the prefix of a reference's name was.
func moved(ref Ref, prefix, to string) (Ref, error) {
	name := to + strings.TrimPrefix(ref.Name(), prefix)
	out := ref
	out.Registry, out.Repository = cutPlace(name)
	if len(name) > maxNameLen || ref.Repository != "" && !validRepository(out.Repository) {
		return out, &Error{
			Op: "registries", Name: ref.Name(), Kind: ErrReference,
			Text: fmt.Sprintf("the rule of %s makes %.300q of it, which can't be a name", prefix, name),
		}
	}
	return out, nil
}

// ServerFor is the registry that a login is for: that which a location stands in for has no credentials of its own.
func (r *Registries) ServerFor(registry string) string {
	rule := r.Host(registry)
	if rule == nil || rule.Location == "" {
		return registry
	}
	host, _ := cutPlace(rule.Location)
	return host
}
