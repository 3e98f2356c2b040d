package image

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// What an image may ask for at most. Its author is not to be trusted with the host's time, memory or ports.
const (
	maxConfigItems  = 10_000 // entries of each list and object of a config: environment, labels, history …
	maxExposedPorts = 1024   // after ranges are written out; each is a socket and a rule of the firewall under -P
	maxVolumes      = 128    // each is a mount
	maxHealthWords  = 1024
)

// parseConfig reads an image config and checks it against its manifest. What is told to the kernel must be what is shown to people,
// so no string of it may hold a NUL byte, at which the kernel stops reading; not even in a field that nobody knows.
func parseConfig(raw []byte, m *v1.Manifest) (*v1.Image, error) {
	bad := func(kind error, format string, args ...any) (*v1.Image, error) {
		return nil, &Error{Op: "config", Name: string(m.Config.Digest), Kind: kind, Text: fmt.Sprintf(format, args...)}
	}
	if err := checkStrings(raw, maxConfigItems); err != nil {
		return bad(ErrManifest, "%v", err)
	}
	c := &v1.Image{}
	if err := json.Unmarshal(raw, c); err != nil {
		return bad(ErrManifest, "it is no image configuration: %v", jsonWords(err))
	}
	if c.RootFS.Type != "" && c.RootFS.Type != "layers" {
		return bad(ErrUnsupported, "root file system of type %q", c.RootFS.Type)
	}
	// Each diff ID belongs to the layer at its place: with different numbers nobody could say which.
	if len(c.RootFS.DiffIDs) != len(m.Layers) {
		return bad(ErrManifest, "%d diff IDs for %d layers", len(c.RootFS.DiffIDs), len(m.Layers))
	}
	for _, d := range c.RootFS.DiffIDs {
		if !validDigest(string(d)) {
			return bad(ErrManifest, "diff ID %q is not supported (only sha256)", d)
		}
	}
	return c, nil
}

// jsonWords says what is wrong with a JSON document without words of Go.
func jsonWords(err error) string {
	switch e := err.(type) {
	case *json.UnmarshalTypeError:
		if e.Field != "" {
			return fmt.Sprintf("%s can't be a %s", e.Field, e.Value)
		}
		return fmt.Sprintf("it can't be a %s", e.Value)
	case *json.SyntaxError:
		return fmt.Sprintf("no JSON at byte %d", e.Offset)
	}
	return err.Error()
}

// checkStrings reads a JSON document from end to end and refuses a NUL byte in any of its strings, keys included, and a list or object
// of more than most entries (0: of any number).
func checkStrings(raw []byte, most int) error {
	// One frame for each open list or object: where it is, for errors.
	type frame struct {
		key    string
		n      int
		object bool
		isKey  bool // the next string is a key
	}
	var open []frame
	where := func() string {
		var b strings.Builder
		for i, f := range open {
			if f.object {
				if i > 0 {
					b.WriteByte('.')
				}
				fmt.Fprintf(&b, "%.60s", strings.Trim(strconv.Quote(f.key), `"`))
			} else {
				fmt.Fprintf(&b, "[%d]", f.n-1)
			}
		}
		return b.String()
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	// Numbers stay as they are written: those that a float64 can't hold would be an error of reading.
	d.UseNumber()
	for {
		t, err := d.Token()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("it is no JSON: %s", jsonWords(err))
		}
		top := len(open) - 1
		if delim, ok := t.(json.Delim); ok && (delim == '}' || delim == ']') {
			open = open[:top]
			continue
		}
		if top >= 0 {
			// A key and its value are two tokens, and count as one entry.
			f := &open[top]
			if f.isKey {
				f.key, f.isKey = t.(string), false
				if f.n++; most > 0 && f.n > most {
					open = open[:top]
					return fmt.Errorf("%s has more than %d entries", cmp.Or(where(), "it"), most)
				}
				if strings.IndexByte(f.key, 0) >= 0 {
					return fmt.Errorf("a NUL byte in the name of %s", where())
				}
				continue
			}
			if f.object {
				f.isKey = true
			} else if f.n++; most > 0 && f.n > most {
				open = open[:top]
				return fmt.Errorf("%s has more than %d entries", cmp.Or(where(), "it"), most)
			}
		}
		switch t := t.(type) {
		case string:
			if strings.IndexByte(t, 0) >= 0 {
				return fmt.Errorf("a NUL byte in %s", cmp.Or(where(), "it"))
			}
		case json.Delim:
			open = append(open, frame{object: t == '{', isKey: t == '{'})
		}
	}
}

// Port is a port that a program in the container listens on. The image says so, and has no say in where the host listens.
type Port struct {
	Number uint16 // 1 to 65535
	Proto  string // tcp, udp or sctp
}

func (p Port) String() string { return strconv.Itoa(int(p.Number)) + "/" + p.Proto }

func (i *Image) fieldError(field string, format string, args ...any) error {
	name := i.ShortID()
	if len(i.Names) > 0 {
		name = i.Names[0]
	}
	return &Error{Op: "image", Name: name, Kind: ErrManifest, Text: field + ": " + fmt.Sprintf(format, args...)}
}

// ExposedPorts reads the image's EXPOSE: PORT[-PORT][/PROTO] and nothing else, sorted, each port once. The error is [ErrManifest] for
// another form and [ErrLimit] for more than 1,024 ports.
func (i *Image) ExposedPorts() ([]Port, error) {
	seen := map[Port]bool{}
	var ports []Port
	for text := range i.Config.Config.ExposedPorts {
		first, last, proto, err := parseExpose(text)
		if err != nil {
			return nil, i.fieldError("EXPOSE", "%.60q: %v", text, err)
		}
		for n := int(first); n <= int(last); n++ {
			p := Port{uint16(n), proto}
			if seen[p] {
				continue
			}
			if seen[p] = true; len(seen) > maxExposedPorts {
				err := i.fieldError("EXPOSE", "more than %d ports", maxExposedPorts).(*Error)
				err.Kind, err.Hint = ErrLimit, "publish those that you need with -p"
				return nil, err
			}
			ports = append(ports, p)
		}
	}
	slices.SortFunc(ports, func(a, b Port) int { return cmp.Or(cmp.Compare(a.Number, b.Number), cmp.Compare(a.Proto, b.Proto)) })
	return ports, nil
}

func parseExpose(text string) (first, last uint16, proto string, err error) {
	numbers, proto, ok := strings.Cut(text, "/")
	if !ok {
		proto = "tcp"
	}
	switch proto = strings.ToLower(proto); proto {
	case "tcp", "udp", "sctp":
	default:
		return 0, 0, "", fmt.Errorf("the protocol is tcp, udp or sctp")
	}
	from, to, isRange := strings.Cut(numbers, "-")
	if !isRange {
		to = from
	}
	if first, ok = parsePort(from); ok {
		last, ok = parsePort(to)
	}
	if !ok {
		return 0, 0, "", fmt.Errorf("want PORT[-PORT][/PROTO], with ports from 1 to 65535")
	}
	if last < first {
		return 0, 0, "", fmt.Errorf("the range ends before it begins")
	}
	return first, last, proto, nil
}

func parsePort(s string) (uint16, bool) {
	n, err := strconv.ParseUint(s, 10, 16) // takes digits alone in base 10: no sign, no underscore
	return uint16(n), err == nil && n > 0
}

// Volumes reads the image's VOLUME: absolute paths of the container, cleaned, sorted, each once. A path that is the root, or has a ".."
// in it, is an error ([ErrManifest]), and so are more than 128 ([ErrLimit]). Whether a path may be mounted on is for the caller to say.
func (i *Image) Volumes() ([]string, error) {
	var list []string
	for p := range i.Config.Config.Volumes {
		switch {
		case !strings.HasPrefix(p, "/"):
			return nil, i.fieldError("VOLUME", "%.60q is no absolute path", p)
		case slices.Contains(strings.Split(p, "/"), ".."):
			return nil, i.fieldError("VOLUME", "%.60q has a .. in it", p)
		case path.Clean(p) == "/":
			return nil, i.fieldError("VOLUME", "%.60q is the container's root", p)
		case len(p) > 4095: // PATH_MAX, with its NUL
			return nil, i.fieldError("VOLUME", "%.60q is longer than a path may be", p)
		}
		list = append(list, path.Clean(p))
	}
	slices.Sort(list)
	list = slices.Compact(list)
	if len(list) > maxVolumes {
		err := i.fieldError("VOLUME", "%d of them, at most %d are mounted", len(list), maxVolumes).(*Error)
		err.Kind = ErrLimit
		return nil, err
	}
	return list, nil
}

// Healthcheck is an image's HEALTHCHECK. The durations are nanoseconds in JSON, as in Docker's; zero is the default.
type Healthcheck struct {
	Test          []string      `json:",omitempty"` // empty: inherited; "NONE"; "CMD", args…; "CMD-SHELL", command
	Interval      time.Duration `json:",omitempty"`
	Timeout       time.Duration `json:",omitempty"`
	StartPeriod   time.Duration `json:",omitempty"`
	StartInterval time.Duration `json:",omitempty"`
	Retries       int           `json:",omitempty"`
}

// Healthcheck reads the image's HEALTHCHECK, which is a field of Docker's that the OCI specification has not; nil if there is none. As
// with Docker a duration is zero or at least a millisecond, and no number is negative. The error is [ErrManifest].
func (i *Image) Healthcheck() (*Healthcheck, error) {
	var doc struct {
		Config struct{ Healthcheck *Healthcheck }
	}
	if err := json.Unmarshal(i.RawConfig, &doc); err != nil {
		return nil, i.fieldError("HEALTHCHECK", "%s", jsonWords(err))
	}
	h := doc.Config.Healthcheck
	if h == nil {
		return nil, nil
	}
	if len(h.Test) > 0 {
		switch kind := h.Test[0]; {
		case len(h.Test) > maxHealthWords:
			return nil, i.fieldError("HEALTHCHECK", "more than %d words", maxHealthWords)
		case kind == "NONE" && len(h.Test) == 1, kind == "CMD" && len(h.Test) > 1, kind == "CMD-SHELL" && len(h.Test) == 2:
		default:
			return nil, i.fieldError("HEALTHCHECK", "the test is NONE, CMD with words or CMD-SHELL with one, not %.60q", h.Test)
		}
	}
	for name, d := range map[string]time.Duration{
		"interval": h.Interval, "timeout": h.Timeout, "start period": h.StartPeriod, "start interval": h.StartInterval,
	} {
		if d != 0 && d < time.Millisecond {
			return nil, i.fieldError("HEALTHCHECK", "the %s is less than a millisecond", name)
		}
	}
	if h.Retries < 0 {
		return nil, i.fieldError("HEALTHCHECK", "the number of retries is negative")
	}
	return h, nil
}
