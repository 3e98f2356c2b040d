package image

import (
	"fmt"
	"strings"
)

// Ref is a parsed image reference in its full form. The grammar is that of the distribution project's reference package,
// without its regular expressions: those cost more at start-up than a whole lookup here.
type Ref struct {
	Registry   string // "docker.io", "localhost:5000"
	Repository string // "library/debian"
	Tag        string // "latest"; empty if only a digest was given
	Digest     string // "sha256:…"; may be empty
}

const (
	hub        = "docker.io"
	maxNameLen = 255
	maxTagLen  = 128
)

// ParseRef reads a reference as people type it: "debian", "debian:12", "host:5000/a/b:t", "x@sha256:…". Without tag and
// digest the tag is "latest".
func ParseRef(s string) (Ref, error) {
	bad := func(why string) (Ref, error) {
		return Ref{}, &Error{Op: "reference", Name: fmt.Sprintf("%q", s), Kind: ErrReference, Text: why}
	}
	if s == "" {
		return bad("empty image name")
	}
	if len(s) > 1024 {
		return Ref{}, &Error{Op: "reference", Name: fmt.Sprintf("%.40q…", s), Kind: ErrReference, Text: "too long"}
	}
	if isHex(s) && len(s) == 64 {
		return bad("64 hexadecimal digits are an image ID, not a name")
	}
	var r Ref
	rest := s
	if i := strings.IndexByte(rest, '@'); i >= 0 {
		r.Digest = rest[i+1:]
		rest = rest[:i]
		if !validDigest(r.Digest) {
			return bad("the part behind @ is not a digest (sha256: and 64 lower-case hexadecimal digits)")
		}
	}
	// A colon behind the last slash starts the tag; one before it belongs to a port.
	if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, '/') {
		r.Tag = rest[i+1:]
		rest = rest[:i]
		if !validTag(r.Tag) {
			return bad("invalid tag: it is 1 to 128 letters, digits, '_', '.' and '-', and starts with none of the last two")
		}
	}
	r.Registry, r.Repository = splitRegistry(rest)
	if r.Repository == "" {
		return bad("the name is missing")
	}
	if strings.ToLower(r.Repository) != r.Repository {
		return bad("repository names are lower case")
	}
	if !validRepository(r.Repository) {
		return bad("invalid name: lower-case letters and digits, parts separated by '/', '.', '_', '__' or dashes")
	}
	if !validRegistry(r.Registry) {
		return bad("invalid registry host " + fmt.Sprintf("%q", r.Registry))
	}
	if len(r.Registry)+1+len(r.Repository) > maxNameLen {
		return bad("name longer than 255 characters")
	}
	if r.Tag == "" && r.Digest == "" {
		r.Tag = "latest"
	}
	return r, nil
}

// splitRegistry tells host from path the way Docker does: the first part is a host if it has a dot or a colon, is
// "localhost", or has an upper-case letter.
func splitRegistry(s string) (registry, repository string) {
	i := strings.IndexByte(s, '/')
	first := ""
	if i >= 0 {
		first = s[:i]
	}
	if i < 0 || (!strings.ContainsAny(first, ".:") && first != "localhost" && strings.ToLower(first) == first) {
		registry, repository = hub, s
	} else {
		registry, repository = first, s[i+1:]
	}
	if registry == "index.docker.io" {
		registry = hub
	}
	if registry == hub && !strings.Contains(repository, "/") && repository != "" {
		repository = "library/" + repository
	}
	return registry, repository
}

// Name is the full repository name: "docker.io/library/debian".
func (r Ref) Name() string {
	if r.Repository == "" { // of a login
		return r.Registry
	}
	return r.Registry + "/" + r.Repository
}

// String is the full form, used as a key in the store.
func (r Ref) String() string {
	s := r.Name()
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest
	}
	return s
}

// FamiliarName is the short form people read: "debian", "localhost:5000/a/b".
func (r Ref) FamiliarName() string {
	if r.Registry != hub {
		return r.Name()
	}
	if rest, ok := strings.CutPrefix(r.Repository, "library/"); ok && !strings.Contains(rest, "/") {
		return rest
	}
	return r.Repository
}

// Familiar is FamiliarName with tag and digest.
func (r Ref) Familiar() string {
	s := r.FamiliarName()
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest
	}
	return s
}

// tags reports whether a pull of this reference gives its tag to what it fetches. With a digest the tag is a note for people: the image
// that it stands for is whatever the digest says, and may be another than the one that has the name here.
func (r Ref) tags() bool { return r.Tag != "" && r.Digest == "" }

func (r Ref) tagKey() string    { return r.Name() + ":" + r.Tag }
func (r Ref) digestKey() string { return r.Name() + "@" + r.Digest }

func validTag(s string) bool {
	if s == "" || len(s) > maxTagLen || s[0] == '.' || s[0] == '-' {
		return false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; !isAlnum(c) && !('A' <= c && c <= 'Z') && c != '_' && c != '.' && c != '-' {
			return false
		}
	}
	return true
}

// validRepository checks path components: runs of [a-z0-9] separated by one '.', one or two '_', or any number of '-'.
func validRepository(s string) bool {
	for part := range strings.SplitSeq(s, "/") {
		if part == "" || !isAlnum(part[0]) || !isAlnum(part[len(part)-1]) {
			return false
		}
		for i := 0; i < len(part); {
			if isAlnum(part[i]) {
				i++
				continue
			}
			j := i
			for j < len(part) && part[j] == part[i] {
				j++
			}
			// One dot, one or two underscores, any number of dashes: the grammar of distribution's reference package.
			switch n := j - i; {
			case part[i] == '.' && n == 1, part[i] == '_' && n <= 2, part[i] == '-':
			default:
				return false
			}
			if !isAlnum(part[j]) { // j < len(part): the last character is alphanumeric
				return false
			}
			i = j
		}
	}
	return true
}

// validRegistry checks host[:port]: a DNS name, an IPv4 address, or an IPv6 address in brackets.
func validRegistry(s string) bool {
	host := s
	if strings.HasPrefix(s, "[") {
		i := strings.IndexByte(s, ']')
		if i < 2 {
			return false
		}
		for _, c := range []byte(s[1:i]) {
			if !('0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F' || c == ':') {
				return false
			}
		}
		if i+1 == len(s) {
			return true
		}
		return s[i+1] == ':' && validPort(s[i+2:])
	}
	if i := strings.IndexByte(s, ':'); i >= 0 {
		host = s[:i]
		if !validPort(s[i+1:]) {
			return false
		}
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := 0; i < len(label); i++ {
			if c := label[i]; !isAlnum(c) && !('A' <= c && c <= 'Z') && c != '-' {
				return false
			}
		}
	}
	return true
}

func validPort(s string) bool {
	if s == "" {
		return false
	}
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// validDigest accepts sha256 only: it is the one algorithm registries use, and the store's names depend on it.
func validDigest(s string) bool {
	h, ok := strings.CutPrefix(s, "sha256:")
	return ok && len(h) == 64 && isHex(h)
}

func isAlnum(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

func isHex(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; !('0' <= c && c <= '9' || 'a' <= c && c <= 'f') {
			return false
		}
	}
	return s != ""
}
