package supervise

import (
	"bytes"
	"encoding/json"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

// Line is an entry of a container's log, in the form of Docker's json-file: one JSON object a line, which whoever reads Docker's files
// (inspect's LogPath) reads, too.
//
//	{"log":"hello\n","stream":"stdout","attrs":{"tag":"web"},"time":"2026-01-02T03:04:05.000000006Z"}
//
// JSON has no bytes, and output needs not be UTF-8. A byte that is none stands there as half a surrogate pair, \udc80 to \udcff, as Python
// writes file names (PEP 383): for other readers that is U+FFFD, which is all that Docker would have kept of it, and for [ParseLine] it is
// the byte. UTF-8 itself has no surrogates, so nothing else is written like this.
type Line struct {
	Log    string            `json:"log"` // with its newline, unless the line was longer than maxLine or the stream ended
	Stream string            `json:"stream"`
	Attrs  map[string]string `json:"attrs,omitempty"` // what --log-opt labels, env and tag ask for
	Time   time.Time         `json:"time"`
}

// Continues reports whether the next entry of the stream goes on with this one's line, which was too long for one entry. What a stream
// left without a newline at its end is a line of its own, and shorter.
func (l *Line) Continues() bool {
	return len(l.Log) > maxLine-utf8.UTFMax && l.Log[len(l.Log)-1] != '\n'
}

const hexDigits = "0123456789abcdef"

// appendLine writes a line of a log; attrs is a JSON object or empty.
func appendLine(out []byte, stream string, line []byte, attrs string, now time.Time) []byte {
	out = append(out, `{"log":"`...)
	out = appendEscaped(out, line)
	out = append(out, `","stream":"`...)
	out = append(out, stream...)
	out = append(out, '"')
	if attrs != "" {
		out = append(out, `,"attrs":`...)
		out = append(out, attrs...)
	}
	out = append(out, `,"time":"`...)
	out = now.AppendFormat(out, time.RFC3339Nano)
	return append(out, "\"}\n"...)
}

// appendEscaped writes bytes as the inside of a string of JSON.
func appendEscaped(out, b []byte) []byte {
	start := 0
	for i := 0; i < len(b); {
		c := b[i]
		if c >= 0x20 && c < utf8.RuneSelf && c != '"' && c != '\\' {
			i++
			continue
		}
		size := 1
		if c >= utf8.RuneSelf {
			var r rune
			// DecodeRune gives U+FFFD of size 1 for a byte that is no UTF-8, and of size 3 for the character itself, which
			// may be in the output.
			r, size = utf8.DecodeRune(b[i:])
			if r != utf8.RuneError || size > 1 {
				if r != '\u2028' && r != '\u2029' { // ends of lines to JavaScript
					i += size
					continue
				}
				out = append(append(out, b[start:i]...), `\u202`...)
				out = append(out, hexDigits[r&15])
				i += size
				start = i
				continue
			}
		}
		out = append(out, b[start:i]...)
		switch {
		case c == '"' || c == '\\':
			out = append(out, '\\', c)
		case c == '\n':
			out = append(out, `\n`...)
		case c == '\r':
			out = append(out, `\r`...)
		case c == '\t':
			out = append(out, `\t`...)
		case c < 0x20:
			out = append(out, `\u00`...)
			out = append(out, hexDigits[c>>4], hexDigits[c&15])
		default:
			out = append(out, `\udc`...)
			out = append(out, hexDigits[c>>4], hexDigits[c&15])
		}
		i += size
		start = i
	}
	return append(out, b[start:]...)
}

// ParseLine reads a line of a log, of this or of another writer of json-file; false for what is none.
func ParseLine(data []byte) (Line, bool) {
	var l Line
	rest, ok := bytes.CutPrefix(data, []byte(`{"log":"`))
	if !ok { // the fields in another order
		return l, json.Unmarshal(data, &l) == nil
	}
	text, n := unescape(rest)
	if n < 0 || json.Unmarshal(append([]byte(`{"log":"`), rest[n:]...), &l) != nil { // the rest, with an empty text
		return Line{}, false
	}
	l.Log = string(text)
	return l, true
}

// unescape reads the inside of a string of JSON, and returns how long it was up to the quotation mark; -1: there is none, or it is no such
// string.
func unescape(b []byte) (out []byte, n int) {
	out = make([]byte, 0, len(b))
	for i := 0; i < len(b); {
		switch c := b[i]; {
		case c == '"':
			return out, i
		case c != '\\':
			out = append(out, c)
			i++
			continue
		case i+1 >= len(b):
			return nil, -1
		}
		plain := bytes.IndexByte([]byte(`"\/bfnrt`), b[i+1])
		if plain >= 0 {
			out = append(out, "\"\\/\b\f\n\r\t"[plain])
			i += 2
			continue
		}
		r := unit(b[i:])
		if r < 0 {
			return nil, -1
		}
		i += 6
		switch {
		case r >= 0xdc80 && r <= 0xdcff:
			out = append(out, byte(r))
			continue
		case utf16.IsSurrogate(r):
			if pair := utf16.DecodeRune(r, unit(b[i:])); pair != utf8.RuneError {
				r = pair
				i += 6
			}
		}
		out = utf8.AppendRune(out, r) // U+FFFD for half a pair
	}
	return nil, -1
}

// unit reads \uXXXX; -1 for anything else.
func unit(b []byte) rune {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return -1
	}
	var r rune
	for _, c := range b[2:6] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return -1
		}
		r = r<<4 | rune(c)
	}
	return r
}
