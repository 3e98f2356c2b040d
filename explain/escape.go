package explain

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"
)

// deceives reports whether a rune is one that a terminal obeys, or that shows a text otherwise than it is: control characters of both
// kinds (ECMA-48: 0x9b begins a command like ESC [ does), what changes the direction or breaks lines (CVE-2021-42574, "Trojan
// Source"), and what takes no room. Names in a plan may come from an image or from a stranger.
func deceives(r rune) bool {
	switch {
	case r < ' ', r >= 0x7f && r < 0xa0: // C0, DEL, C1
	case r == 0x061c, r >= 0x200b && r <= 0x200f, r >= 0x2028 && r <= 0x202e, r >= 0x2060 && r <= 0x206f: // direction, lines, no width
	case r == 0xad, r == 0xfeff, r >= 0xfff9 && r <= 0xfffb, r >= 0xe0000 && r <= 0xe007f: // soft hyphen, marks of order, annotations, tags
	default:
		return false
	}
	return true
}

// clean makes a text from a plan harmless for people: what deceives is written as Go writes it, and so is what is no UTF-8.
func clean(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return deceives(r) || r == utf8.RuneError }) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r < ' ' || r >= 0x7f && r < 0xa0:
			q := fmt.Sprintf("%q", r)
			b.WriteString(q[1 : len(q)-1])
		case r > 0xffff && deceives(r):
			fmt.Fprintf(&b, `\U%08x`, r)
		case deceives(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// escapeJSON writes in JSON what deceives as \uXXXX, as encoding/json does with the characters below a space already: whoever reads it
// by machine gets the same, and a terminal nothing to obey. Such characters stand in strings only.
func escapeJSON(data []byte) []byte {
	bad := func(r rune) bool { return r != '\n' && deceives(r) }
	if !bytes.ContainsFunc(data, bad) {
		return data
	}
	var out bytes.Buffer
	for _, r := range string(data) {
		switch {
		case !bad(r):
			out.WriteRune(r)
		case r > 0xffff: // two halves (RFC 8259, 7)
			r -= 0x10000
			fmt.Fprintf(&out, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			fmt.Fprintf(&out, `\u%04x`, r)
		}
	}
	return out.Bytes()
}
