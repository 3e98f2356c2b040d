package bundle

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// Files are JSON and written without package encoding/json: in a process that lives for five milliseconds, half of one would go
// into finding out how our own types look.

// object appends the members of a JSON object to a text.
type object struct {
	text  []byte
	comma bool
}

func (o *object) key(name string) {
	if o.comma {
		o.text = append(o.text, ',')
	}
	o.comma = true
	o.text = append(appendString(o.text, name), ':')
}

func (o *object) string(name, value string) {
	o.key(name)
	o.text = appendString(o.text, value)
}

func (o *object) number(name string, value uint64) {
	o.key(name)
	o.text = strconv.AppendUint(o.text, value, 10)
}

func (o *object) strings(name string, values []string) {
	o.key(name)
	o.text = append(o.text, '[')
	for i, v := range values {
		if i > 0 {
			o.text = append(o.text, ',')
		}
		o.text = appendString(o.text, v)
	}
	o.text = append(o.text, ']')
}

func (o *object) table(name string, values map[string]string) {
	o.key(name)
	inner := object{text: append(o.text, '{')}
	for _, k := range slices.Sorted(maps.Keys(values)) {
		inner.string(k, values[k])
	}
	o.text = append(inner.text, '}')
}

// appendString appends a JSON string. What isn't UTF-8 becomes U+FFFD, as with encoding/json.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r < ' ':
			const hex = "0123456789abcdef"
			b = append(b, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}

// text is the file state.json.
func (c *record) text() []byte {
	o := object{text: append(make([]byte, 0, 2048), '{')}
	o.number("format", uint64(c.Format))
	o.string("ociVersion", c.OCIVersion)
	o.string("id", c.ID)
	o.string("bundle", c.Bundle)
	o.string("rootfs", c.Rootfs)
	o.string("created", c.Created.Format(time.RFC3339Nano))
	o.number("owner", uint64(c.Owner))
	o.number("pid", uint64(c.PID))
	o.number("start", c.Start)
	if len(c.Annotations) > 0 {
		o.table("annotations", c.Annotations)
	}
	if len(c.Cgroups) > 0 {
		o.table("cgroups", c.Cgroups)
	}
	if len(c.Parents) > 0 {
		o.strings("parents", c.Parents)
	}
	if c.Unit != "" {
		o.string("unit", c.Unit)
	}
	if c.Systemd != nil {
		o.key("systemd")
		text, _ := json.Marshal(c.Systemd)
		o.text = append(o.text, text...)
	}
	if c.Class != "" {
		o.string("intel_rdt_path", c.Class)
		o.string("intel_rdt_monitor", c.Monitor)
	}
	o.strings("namespaces", c.Namespaces)
	if len(c.Hooks) > 0 {
		o.strings("hooks", c.Hooks)
	}
	if c.Restored {
		o.key("restored")
		o.text = append(o.text, "true"...)
	}
	if c.SharedPIDs {
		o.key("sharedPids")
		o.text = append(o.text, "true"...)
	}
	return append(o.text, '}', '\n')
}

// text is the file undo.json.
func (l *leftovers) text() ([]byte, error) {
	o := object{text: append(make([]byte, 0, 2048), '{')}
	if len(l.Cgroups) > 0 {
		o.table("cgroups", l.Cgroups)
	}
	o.key("steps")
	o.text = append(o.text, '[')
	for i, s := range l.Steps {
		if i > 0 {
			o.text = append(o.text, ',')
		}
		op, ok := s.Op.(*plan.CgroupRemove)
		if !ok {
			text, err := json.Marshal(s)
			if err != nil {
				return nil, err
			}
			o.text = append(o.text, text...)
			continue
		}
		step := object{text: append(o.text, '{')}
		step.string("lane", string(s.Lane))
		step.string("phase", string(s.Phase))
		step.string("op", op.Kind())
		step.key("args")
		args := object{text: append(step.text, '{')}
		args.string("path", op.Path)
		o.text = append(args.text, '}', '}')
	}
	return append(o.text, ']', '}', '\n'), nil
}

// write writes a new file of a container's directory, without what package os does for files that one waits for.
func (r *Runtime) write(id, name string, data []byte) error {
	path := filepath.Join(r.dir(id), name)
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	for len(data) > 0 {
		n, err := unix.Write(fd, data)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return &os.PathError{Op: "write", Path: path, Err: err}
		}
		data = data[n:]
	}
	return nil
}
