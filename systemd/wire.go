// Package systemd asks systemd for the units that containers live in, over D-Bus.
//
// An engine that runs with the systemd cgroup driver wants each container in a transient scope: a unit of systemd's around
// processes that systemd didn't start. That takes five methods of one interface (org.freedesktop.systemd1(5)), so this package
// speaks just enough of the protocol for them instead of carrying a D-Bus library, which would add half to what glassbox-runtime has
// to initialise (docs/dependencies.md).
//
//	wire.go     messages and their values as bytes, no socket: what a fuzzer reads
//	client.go   a connection: authentication, a call and its reply
//	unit.go     Start, Set, Attach, Stop, Probe: the steps of a plan
//
// It refuses messages that aren't little endian, which no peer on the machines that glassbox runs on sends, and those longer
// than a megabyte. Start reading at [Start].
package systemd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"glassbox/plan"
)

// Types of messages, and codes of header fields (D-Bus specification, "Message Protocol").
const (
	methodCall   = 1
	methodReturn = 2
	errorReply   = 3
	signal       = 4

	fieldPath        = 1
	fieldInterface   = 2
	fieldMember      = 3
	fieldErrorName   = 4
	fieldReplySerial = 5
	fieldDestination = 6
	fieldSignature   = 8

	fixedHeader = 16 // bytes before the array of header fields' content
	maxMessage  = 1 << 20
)

// message is what this client needs to know of one.
type message struct {
	kind        byte
	serial      uint32
	replySerial uint32
	path        string
	iface       string
	member      string
	destination string
	errorName   string
	signature   string
	body        []byte
}

// encoder appends values; each is aligned to its size, counted from the beginning of the message or of its body, which is
// aligned to 8.
type encoder struct {
	b   []byte
	err error
}

func (e *encoder) align(n int) {
	for len(e.b)%n != 0 {
		e.b = append(e.b, 0)
	}
}

func (e *encoder) byte(v byte) { e.b = append(e.b, v) }

func (e *encoder) uint32(v uint32) {
	e.align(4)
	e.b = binary.LittleEndian.AppendUint32(e.b, v)
}

func (e *encoder) uint64(v uint64) {
	e.align(8)
	e.b = binary.LittleEndian.AppendUint64(e.b, v)
}

func (e *encoder) string(s string) {
	if strings.ContainsRune(s, 0) && e.err == nil {
		e.err = fmt.Errorf("%q has a zero byte in it", s)
	}
	e.uint32(uint32(len(s)))
	e.b = append(append(e.b, s...), 0)
}

func (e *encoder) signature(s string) {
	e.b = append(append(append(e.b, byte(len(s))), s...), 0)
}

// array appends an array whose elements are aligned to n.
func (e *encoder) array(n int, elements func()) {
	e.uint32(0)
	length := len(e.b) - 4
	e.align(n)
	start := len(e.b)
	elements()
	binary.LittleEndian.PutUint32(e.b[length:], uint32(len(e.b)-start))
}

// basic appends one value of a basic type from its text.
func (e *encoder) basic(kind byte, text string) {
	var err error
	switch kind {
	case 's', 'o':
		e.string(text)
	case 'b':
		var v bool
		v, err = strconv.ParseBool(text)
		n := uint32(0)
		if v {
			n = 1
		}
		e.uint32(n)
	case 'y':
		var v uint64
		v, err = strconv.ParseUint(text, 10, 8)
		e.byte(byte(v))
	case 'u':
		var v uint64
		v, err = strconv.ParseUint(text, 10, 32)
		e.uint32(uint32(v))
	case 'i':
		var v int64
		v, err = strconv.ParseInt(text, 10, 32)
		e.uint32(uint32(v))
	case 't':
		var v uint64
		v, err = strconv.ParseUint(text, 10, 64)
		e.uint64(v)
	case 'x':
		var v int64
		v, err = strconv.ParseInt(text, 10, 64)
		e.uint64(uint64(v))
	case 'd':
		var v float64
		v, err = strconv.ParseFloat(text, 64)
		e.uint64(math.Float64bits(v))
	default:
		err = errors.New("no such type")
	}
	if err != nil && e.err == nil {
		e.err = fmt.Errorf("%q isn't a value of D-Bus type %q: %w", text, string(kind), err)
	}
}

func alignment(kind byte) int {
	switch kind {
	case 'y', 'g', 'v':
		return 1
	case 'n', 'q':
		return 2
	case 'x', 't', 'd', '(', '{':
		return 8
	}
	return 4
}

// property appends a property as the struct (sv).
func (e *encoder) property(p plan.SystemdProperty) {
	e.align(8)
	e.string(p.Name)
	e.signature(p.Type)
	fail := func(format string, a ...any) {
		if e.err == nil {
			e.err = fmt.Errorf(format, a...)
		}
	}
	before := e.err
	switch {
	case p.Type == "a(ss)":
		if len(p.Value)%2 != 0 {
			fail("%d values aren't pairs", len(p.Value))
			break
		}
		e.array(8, func() {
			for i := 0; i < len(p.Value); i += 2 {
				e.align(8)
				e.string(p.Value[i])
				e.string(p.Value[i+1])
			}
		})
	case len(p.Type) == 2 && p.Type[0] == 'a':
		e.array(alignment(p.Type[1]), func() {
			for _, v := range p.Value {
				e.basic(p.Type[1], v)
			}
		})
	case len(p.Type) == 1 && len(p.Value) == 1:
		e.basic(p.Type[0], p.Value[0])
	default:
		fail("%d values of D-Bus type %q: no such property", len(p.Value), p.Type)
	}
	if e.err != nil && before == nil {
		e.err = fmt.Errorf("property %s: %w", p.Name, e.err)
	}
}

// properties appends an array a(sv).
func (e *encoder) properties(ps []plan.SystemdProperty) {
	e.array(8, func() {
		for _, p := range ps {
			e.property(p)
		}
	})
}

// encode returns a message as bytes.
func (m *message) encode() []byte {
	e := &encoder{b: []byte{'l', m.kind, 0, 1}}
	e.uint32(uint32(len(m.body)))
	e.uint32(m.serial)
	e.array(8, func() {
		field := func(code byte, kind, v string) {
			if v == "" {
				return
			}
			e.align(8)
			e.byte(code)
			e.signature(kind)
			if kind == "g" {
				e.signature(v)
			} else {
				e.string(v)
			}
		}
		field(fieldPath, "o", m.path)
		field(fieldInterface, "s", m.iface)
		field(fieldMember, "s", m.member)
		field(fieldErrorName, "s", m.errorName)
		if m.replySerial != 0 {
			e.align(8)
			e.byte(fieldReplySerial)
			e.signature("u")
			e.uint32(m.replySerial)
		}
		field(fieldDestination, "s", m.destination)
		field(fieldSignature, "g", m.signature)
	})
	e.align(8)
	return append(e.b, m.body...)
}

var errShort = errors.New("D-Bus: a value goes beyond the end of its message")

// decoder reads values. After an error it returns zeros.
type decoder struct {
	b   []byte
	off int
	err error
}

func (d *decoder) take(n int) []byte {
	if d.err != nil || n < 0 || n > len(d.b)-d.off {
		if d.err == nil {
			d.err = errShort
		}
		return nil
	}
	d.off += n
	return d.b[d.off-n : d.off]
}

func (d *decoder) align(n int) { d.take((n - d.off%n) % n) }

func (d *decoder) byte() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) uint32() uint32 {
	d.align(4)
	if b := d.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (d *decoder) text(n uint32) string {
	if n > maxMessage {
		d.take(maxMessage + 1) // an error
		return ""
	}
	b := d.take(int(n) + 1)
	if b == nil {
		return ""
	}
	return string(b[:n])
}

func (d *decoder) string() string    { return d.text(d.uint32()) }
func (d *decoder) signature() string { return d.text(uint32(d.byte())) }

// skip reads over one value and returns the rest of the signature. Depth is how many containers are around it: the
// specification allows 64.
func (d *decoder) skip(sig string, depth int) string {
	fail := func() string {
		if d.err == nil {
			d.err = fmt.Errorf("D-Bus: bad signature %q", sig)
		}
		return ""
	}
	if sig == "" || depth > 64 || d.err != nil {
		return fail()
	}
	kind, rest := sig[0], sig[1:]
	switch kind {
	case 'y':
		d.take(1)
	case 'n', 'q':
		d.align(2)
		d.take(2)
	case 'b', 'i', 'u', 'h':
		d.uint32()
	case 'x', 't', 'd':
		d.align(8)
		d.take(8)
	case 's', 'o':
		d.string()
	case 'g':
		d.signature()
	case 'v':
		if inner := d.signature(); d.skip(inner, depth+1) != "" {
			return fail()
		}
	case 'a':
		if rest == "" {
			return fail()
		}
		n := d.uint32()
		d.align(alignment(rest[0]))
		if n > maxMessage {
			return fail()
		}
		d.take(int(n))
		return typeEnd(rest, depth+1, fail)
	case '(', '{':
		end := byte(')')
		if kind == '{' {
			end = '}'
		}
		d.align(8)
		for rest != "" && rest[0] != end && d.err == nil {
			rest = d.skip(rest, depth+1)
		}
		if rest == "" || d.err != nil {
			return fail()
		}
		return rest[1:]
	default:
		return fail()
	}
	return rest
}

// typeEnd returns what follows the first complete type of a signature.
func typeEnd(sig string, depth int, fail func() string) string {
	if sig == "" || depth > 64 {
		return fail()
	}
	switch sig[0] {
	case 'a':
		return typeEnd(sig[1:], depth+1, fail)
	case '(', '{':
		open := 0
		for i := range len(sig) {
			switch sig[i] {
			case '(', '{':
				open++
			case ')', '}':
				if open--; open == 0 {
					return sig[i+1:]
				}
			}
		}
		return fail()
	}
	return sig[1:]
}

// length returns how long the message is whose first bytes are b.
func length(b []byte) (int, error) {
	if len(b) < fixedHeader {
		return 0, errShort
	}
	if b[0] != 'l' || b[3] != 1 {
		return 0, fmt.Errorf("D-Bus: a message of another byte order (%q) or protocol (%d)", b[0], b[3])
	}
	body, fields := binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[12:])
	if body > maxMessage || fields > maxMessage {
		return 0, fmt.Errorf("D-Bus: a message of %d and %d bytes is too long", fields, body)
	}
	return fixedHeader + int(fields+7)&^7 + int(body), nil
}

// decode reads a whole message.
func decode(b []byte) (*message, error) {
	n, err := length(b)
	if err != nil {
		return nil, err
	}
	if n != len(b) {
		return nil, errShort
	}
	m := &message{kind: b[1], serial: binary.LittleEndian.Uint32(b[8:])}
	end := fixedHeader + int(binary.LittleEndian.Uint32(b[12:]))
	d := &decoder{b: b[:end], off: fixedHeader}
	for d.off < end && d.err == nil {
		d.align(8)
		code, sig := d.byte(), d.signature()
		switch {
		case code == fieldReplySerial && sig == "u":
			m.replySerial = d.uint32()
		case code == fieldSignature && sig == "g":
			m.signature = d.signature()
		case sig == "s" || sig == "o":
			v := d.string()
			switch code {
			case fieldPath:
				m.path = v
			case fieldInterface:
				m.iface = v
			case fieldMember:
				m.member = v
			case fieldErrorName:
				m.errorName = v
			case fieldDestination:
				m.destination = v
			}
		default: // fields that are unknown have to be ignored
			if d.skip(sig, 0) != "" && d.err == nil {
				d.err = fmt.Errorf("D-Bus: header field %d has more than one value", code)
			}
		}
	}
	if d.err != nil {
		return nil, d.err
	}
	m.body = b[(end+7)&^7:]
	return m, nil
}

// strings reads the values of the body that are strings or object paths, in their order, and reads over the others.
func (m *message) strings() ([]string, error) {
	d := &decoder{b: m.body}
	var out []string
	for sig := m.signature; sig != ""; {
		switch {
		case sig[0] == 's' || sig[0] == 'o':
			out = append(out, d.string())
			sig = sig[1:]
		case sig == "v": // of a property
			inner := d.signature()
			if inner != "s" {
				return nil, fmt.Errorf("D-Bus: a value of type %q instead of a string", inner)
			}
			out = append(out, d.string())
			sig = ""
		default:
			sig = d.skip(sig, 0)
		}
		if d.err != nil {
			return nil, d.err
		}
	}
	return out, nil
}

// one returns the only string of the body.
func (m *message) one() (string, error) {
	values, err := m.strings()
	if err == nil && len(values) != 1 {
		err = fmt.Errorf("D-Bus: an answer of %d strings (%q) instead of one", len(values), m.signature)
	}
	if err != nil {
		return "", err
	}
	return values[0], nil
}
