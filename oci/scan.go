package oci

import (
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// The words of a text in JSON: white space, literals, numbers, strings (RFC 8259). What they mean to a property is decode.go's.

func (d *decoder) space() {
	for d.pos < len(d.text) {
		switch d.text[d.pos] {
		case ' ', '\t', '\n', '\r':
			d.pos++
		default:
			return
		}
	}
}

// peek skips space and returns the next byte, 0 at the end. (A NUL in the text is not the beginning of anything either.)
func (d *decoder) peek() byte {
	d.space()
	if d.pos == len(d.text) {
		return 0
	}
	return d.text[d.pos]
}

// found describes what is at pos, for messages.
func (d *decoder) found() string {
	if d.peek() == 0 && d.pos == len(d.text) {
		return "the end of the text"
	}
	rest := d.text[d.pos:]
	switch c := rest[0]; {
	case c == '{':
		return "an object"
	case c == '[':
		return "an array"
	case c == '"':
		return "a string"
	case strings.HasPrefix(rest, "//") || strings.HasPrefix(rest, "/*") || c == '#':
		return "a comment (JSON has none)"
	case c == '\'':
		return "a single quote (JSON's strings are in double quotes)"
	}
	n := 0
	// So much of a word tells which one is meant; a line of base64 without quotes would fill the screen.
	for n < len(rest) && n < 24 && strings.IndexByte("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-._", rest[n]) >= 0 {
		n++
	}
	if n == 0 {
		_, n = utf8.DecodeRuneInString(rest)
		return strconv.Quote(rest[:n])
	}
	return rest[:n]
}

// literal reads true, false or null.
func (d *decoder) literal() error {
	for _, word := range [...]string{"true", "false", "null"} {
		if rest, ok := strings.CutPrefix(d.text[d.pos:], word); ok {
			// "nullx" is no literal with something behind it, but something that nobody knows.
			if rest == "" || strings.IndexByte(" \t\r\n,]}", rest[0]) >= 0 {
				d.pos += len(word)
				return nil
			}
		}
	}
	return d.wrong("%s where a value is wanted", d.found())
}

// number reads a number and returns its text.
func (d *decoder) number() (string, error) {
	start := d.pos
	digits := func() bool {
		n := d.pos
		for d.pos < len(d.text) && d.text[d.pos] >= '0' && d.text[d.pos] <= '9' {
			d.pos++
		}
		return d.pos > n
	}
	at := func(set string) bool {
		if d.pos < len(d.text) && strings.IndexByte(set, d.text[d.pos]) >= 0 {
			d.pos++
			return true
		}
		return false
	}
	at("-")
	whole := d.pos
	ok := digits()
	if d.pos-whole > 1 && d.text[whole] == '0' {
		d.pos = start
		return "", d.wrong("%s begins with a zero: JSON's numbers are decimal, write 0o755 as 493", d.found())
	}
	if ok && at(".") {
		ok = digits()
	}
	if ok && at("eE") {
		at("+-")
		ok = digits()
	}
	if !ok || d.pos < len(d.text) && strings.IndexByte(" \t\r\n,]}", d.text[d.pos]) < 0 {
		d.pos = start
		return "", d.wrong("%s is no number as JSON writes them", d.found())
	}
	return d.text[start:d.pos], nil
}

// string reads a string. There is no NUL in it: the kernel ends its strings there, and would read another one than was checked.
func (d *decoder) string() (string, error) {
	open := d.pos
	d.pos++
	start := d.pos
	plain := true // nothing but ASCII
	for d.pos < len(d.text) {
		switch c := d.text[d.pos]; {
		case c == '"':
			s := d.text[start:d.pos]
			if !plain && !utf8.ValidString(s) {
				d.pos = open
				return "", d.wrong("this string is not UTF-8")
			}
			d.pos++
			return s, nil
		case c == '\\':
			return d.escaped(start)
		case c < ' ':
			return "", d.wrong("a control character (%q) in a string: write it as \\n or \\u00%02x, or close the string before it", c, c)
		case c >= utf8.RuneSelf:
			plain = false
		}
		d.pos++
	}
	d.pos = open
	return "", d.wrong("this string is not closed: the text ends in it")
}

// escaped reads the rest of a string that has a backslash at pos; its beginning is at start.
func (d *decoder) escaped(start int) (string, error) {
	var b strings.Builder
	b.WriteString(d.text[start:d.pos])
	for d.pos < len(d.text) {
		c := d.text[d.pos]
		switch {
		case c == '"':
			if !utf8.ValidString(b.String()) {
				d.pos = start - 1
				return "", d.wrong("this string is not UTF-8")
			}
			d.pos++
			return b.String(), nil
		case c < ' ':
			return "", d.wrong("a control character (%q) in a string: write it as \\n or \\u00%02x, or close the string before it", c, c)
		case c != '\\':
			b.WriteByte(c)
			d.pos++
			continue
		}
		if d.pos+1 >= len(d.text) {
			break
		}
		if i := strings.IndexByte(`"\/bfnrt`, d.text[d.pos+1]); i >= 0 {
			b.WriteByte("\"\\/\b\f\n\r\t"[i])
			d.pos += 2
			continue
		}
		r, n := d.unicode(d.pos)
		switch {
		case n == 0 && d.text[d.pos+1] == 'u':
			return "", d.wrong("four hexadecimal digits are wanted after \\u")
		case n == 0:
			return "", d.wrong("\\%c in a string is no escape of JSON: a backslash itself is written twice",
				[]rune(d.text[d.pos+1 : min(d.pos+5, len(d.text))])[0])
		case utf16.IsSurrogate(r):
			// A character beyond U+FFFF takes two escapes (RFC 8259, 7).
			low, m := d.unicode(d.pos + n)
			if r = utf16.DecodeRune(r, low); m == 0 || r == utf8.RuneError {
				return "", d.wrong("half a character: a \\ud8… and a \\udc… escape make one together")
			}
			n += m
		case r == 0:
			return "", d.wrong("a NUL character: the kernel's strings end there")
		}
		b.WriteRune(r)
		d.pos += n
	}
	d.pos = start - 1
	return "", d.wrong("this string is not closed: the text ends in it")
}

// unicode reads \uXXXX at i, and returns its length, 0 if there is none.
func (d *decoder) unicode(i int) (rune, int) {
	if i+6 > len(d.text) || d.text[i] != '\\' || d.text[i+1] != 'u' {
		return 0, 0
	}
	n, err := strconv.ParseUint(d.text[i+2:i+6], 16, 16)
	if err != nil {
		return 0, 0
	}
	return rune(n), 6
}

// maybe suggests the one of the names that was probably meant, or nothing.
func maybe(name string, names []string) string {
	best, found := 3, ""
	for _, n := range names {
		if k := distance(strings.ToLower(name), strings.ToLower(n)); k < best && 2*k < len(n) {
			best, found = k, n
		}
	}
	if found == "" {
		return ""
	}
	return ": is " + found + " meant?"
}

// distance is how many characters must be added, removed or replaced to get from one name to the other (Levenshtein).
func distance(a, b string) int {
	// Nobody mistypes so long a name, and the work grows with the square.
	if max(len(a), len(b)) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
