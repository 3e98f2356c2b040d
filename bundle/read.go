package bundle

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"glassbox/plan"
)

// What write.go has written is read without package encoding/json, too, for the same reason. Whatever else the files may hold is left to
// that package, and so are its errors.

// reader takes apart what object writes. It stops at the first byte that is something else, and says so in other.
type reader struct {
	text  string
	pos   int
	other bool
}

// take skips a byte, and reports whether it is there.
func (r *reader) take(c byte) bool {
	if r.other || r.pos == len(r.text) || r.text[r.pos] != c {
		return false
	}
	r.pos++
	return true
}

func (r *reader) want(c byte) {
	if !r.take(c) {
		r.other = true
	}
}

func (r *reader) end() {
	if r.take('\n'); r.pos < len(r.text) {
		r.other = true
	}
}

// list reads values between two brackets with item.
func (r *reader) list(open, end byte, item func()) {
	if r.want(open); r.take(end) {
		return
	}
	for item(); !r.other && !r.take(end); item() {
		r.want(',')
	}
}

// object calls member for each name, which reads its value. No name may come twice.
func (r *reader) object(member func(name string)) {
	seen := make(map[string]bool, 20)
	r.list('{', '}', func() {
		name := r.string()
		if r.want(':'); seen[name] {
			r.other = true
		}
		if seen[name] = true; !r.other {
			member(name)
		}
	})
}

// string reads one without escapes.
func (r *reader) string() string {
	r.want('"')
	if r.other {
		return ""
	}
	n := strings.IndexAny(r.text[r.pos:], "\"\\")
	if n < 0 {
		r.other = true
		return ""
	}
	s := r.text[r.pos : r.pos+n]
	r.pos += n
	if r.want('"'); !utf8.ValidString(s) || strings.ContainsFunc(s, func(c rune) bool { return c < ' ' }) {
		r.other = true
	}
	return s
}

// number reads a whole one.
func (r *reader) number(most uint64) uint64 {
	begin := r.pos
	for r.pos < len(r.text) && '0' <= r.text[r.pos] && r.text[r.pos] <= '9' {
		r.pos++
	}
	digits := r.text[begin:r.pos]
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || n > most || len(digits) > 1 && digits[0] == '0' {
		r.other = true
	}
	return n
}

// yes reads the word true.
func (r *reader) yes() bool {
	const word = "true"
	if !strings.HasPrefix(r.text[r.pos:], word) {
		r.other = true
		return false
	}
	r.pos += len(word)
	return true
}

func (r *reader) strings() []string {
	list := []string{}
	r.list('[', ']', func() { list = append(list, r.string()) })
	return list
}

func (r *reader) table() map[string]string {
	m := map[string]string{}
	r.object(func(name string) { m[name] = r.string() })
	return m
}

// read is text's other direction.
func (c *record) read(text []byte) error {
	r := reader{text: string(text)}
	var err error
	r.object(func(name string) {
		switch name {
		case "format":
			c.Format = int(r.number(math.MaxInt))
		case "ociVersion":
			c.OCIVersion = r.string()
		case "id":
			c.ID = r.string()
		case "bundle":
			c.Bundle = r.string()
		case "rootfs":
			c.Rootfs = r.string()
		case "created":
			if c.Created, err = time.Parse(time.RFC3339Nano, r.string()); err != nil {
				r.other = true
			}
		case "owner":
			c.Owner = int(r.number(math.MaxInt))
		case "pid":
			c.PID = int(r.number(math.MaxInt))
		case "start":
			c.Start = r.number(math.MaxUint64)
		case "annotations":
			c.Annotations = r.table()
		case "cgroups":
			c.Cgroups = r.table()
		case "unit":
			c.Unit = r.string()
		case "intel_rdt_path":
			c.Class = r.string()
		case "intel_rdt_monitor":
			c.Monitor = r.string()
		case "namespaces":
			c.Namespaces = r.strings()
		case "hooks":
			c.Hooks = r.strings()
		case "restored":
			c.Restored = r.yes()
		case "sharedPids":
			c.SharedPIDs = r.yes()
		default:
			r.other = true
		}
	})
	if r.end(); r.other {
		*c = record{}
		return json.Unmarshal(text, c)
	}
	return nil
}

// read is text's other direction.
func (l *leftovers) read(text []byte) error {
	r := reader{text: string(text)}
	r.object(func(name string) {
		switch name {
		case "cgroups":
			l.Cgroups = r.table()
		case "steps":
			l.Steps = []plan.Step{}
			r.list('[', ']', func() { l.Steps = append(l.Steps, r.removal()) })
		default:
			r.other = true
		}
	})
	if r.end(); r.other {
		*l = leftovers{}
		return json.Unmarshal(text, l)
	}
	return nil
}

// removal reads the step that removes a cgroup.
func (r *reader) removal() plan.Step {
	op := &plan.CgroupRemove{}
	s, kind, args := plan.Step{Op: op}, "", false
	r.object(func(name string) {
		switch name {
		case "lane":
			s.Lane = plan.Lane(r.string())
		case "phase":
			s.Phase = plan.Phase(r.string())
		case "op":
			kind = r.string()
		case "args":
			args = true
			r.object(func(name string) {
				if op.Path = r.string(); name != "path" {
					r.other = true
				}
			})
		default:
			r.other = true
		}
	})
	if kind != op.Kind() || !args {
		r.other = true
	}
	return s
}
