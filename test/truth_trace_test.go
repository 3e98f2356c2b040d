package test

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// traced is a system call of a trace.
type traced struct {
	pid   int
	nr    int
	name  string
	args  []string
	ret   int
	errno string
	done  bool // it returned: a thread that ends may have stood before a call
	text  string
}

type trace struct {
	calls []traced
	child int      // index of the clone that made the child
	own   bool     // the program has the standard descriptors of the one that runs the plan
	files []string // targets of mounts of files that nobody can look at any more
}

// unhex is the text that strace has written as \x7f\x45….
func unhex(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if strings.HasPrefix(s[i:], `\x`) && i+4 <= len(s) {
			if n, err := strconv.ParseUint(s[i+2:i+4], 16, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// readTrace reads what strace -f -n -xx -yy -X raw has written. Calls stand in the order in which they began.
func readTrace(text string) (*trace, error) {
	tr := &trace{child: -1}
	line := regexp.MustCompile(`^(\d+) +\[ *(\d+)\] (.*)$`)
	result := regexp.MustCompile(`\) += (?:=> \{.*\}, \d+\) = )?(-?\d+|0x[0-9a-f]+|\?)[^=]*?(?: (E[A-Z0-9]+) \(.*\))?$`)
	pending := map[int]int{}
	for l := range strings.Lines(text) {
		m := line.FindStringSubmatch(strings.TrimSpace(l))
		if m == nil || strings.HasPrefix(m[3], "+++") || strings.HasPrefix(m[3], "---") {
			continue
		}
		pid, _ := strconv.Atoi(m[1])
		nr, _ := strconv.Atoi(m[2])
		rest := m[3]
		at := -1
		if strings.HasPrefix(rest, "<... ") {
			i, ok := pending[pid]
			if !ok {
				continue
			}
			delete(pending, pid)
			_, rest, _ = strings.Cut(rest, " resumed>")
			tr.calls[i].text += rest
			at = i
		} else {
			name, _, _ := strings.Cut(rest, "(")
			tr.calls = append(tr.calls, traced{pid: pid, nr: nr, name: name, text: rest})
			at = len(tr.calls) - 1
		}
		c := &tr.calls[at]
		if head, ok := strings.CutSuffix(c.text, "<unfinished ...>"); ok {
			c.text = strings.TrimSuffix(head, " ")
			pending[pid] = at
			continue
		}
		if r := result.FindStringSubmatch(c.text); r != nil {
			n, _ := strconv.ParseInt(r[1], 0, 64)
			c.ret, c.errno, c.done = int(n), r[2], r[1] != "?"
		}
	}
	for i := range tr.calls {
		c := &tr.calls[i]
		c.args = arguments(c.text)
		if c.name == "clone3" && c.errno == "" && tr.child < 0 && field(c.text, "flags")>>32&1 != 0 { // CLONE_CLEAR_SIGHAND
			tr.child = i
		}
	}
	if tr.child < 0 {
		return nil, fmt.Errorf("nobody cloned a child")
	}
	return tr, nil
}

// field is a number of a structure.
func field(text, name string) uint64 {
	_, rest, _ := strings.Cut(text, name+"=")
	end := strings.IndexAny(rest, ", })")
	if end < 0 {
		return 0
	}
	n, _ := number(rest[:end])
	return n
}

// arguments splits a call's arguments. There are no commas and brackets in texts, which are in hexadecimal.
func arguments(text string) []string {
	_, text, ok := strings.Cut(text, "(")
	if !ok {
		return nil
	}
	var out []string
	depth, start := 0, 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '(', '[', '{':
			depth++
		case ')', ']', '}':
			if depth == 0 {
				if s := strings.TrimSpace(text[start:i]); s != "" {
					out = append(out, s)
				}
				return out
			}
			depth--
		case ',':
			if depth == 0 {
				out = append(out, strings.TrimSpace(text[start:i]))
				start = i + 1
			}
		}
	}
	return out
}

// number reads 0x1|0x80000, 0644, -100</tmp>, NULL.
func number(s string) (uint64, bool) {
	s, _, _ = strings.Cut(s, "<")
	if s == "NULL" {
		return 0, true
	}
	var n uint64
	for _, part := range strings.Split(strings.TrimPrefix(s, "|"), "|") {
		if v, err := strconv.ParseInt(part, 0, 64); err == nil {
			n |= uint64(v)
		} else if v, err := strconv.ParseUint(part, 0, 64); err == nil {
			n |= v
		} else {
			return 0, false
		}
	}
	return n, true
}

// behind is what a descriptor stands for: 3</proc>.
func behind(arg string) string {
	_, p, _ := strings.Cut(arg, "<")
	p, _, _ = strings.Cut(strings.TrimSuffix(p, ">"), "<") // and what kind of device that is
	return unhex(p)
}

// quoted is a text argument.
func quoted(arg string) (string, bool) {
	s, ok := strings.CutPrefix(arg, `"`)
	return unhex(strings.TrimSuffix(s, `"`)), ok
}

// unknownFD is the first number for descriptors that only who runs the plan knows.
const unknownFD = 1 << 28
