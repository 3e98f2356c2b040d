package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// logger writes lines as runc's does, which containerd and others read: the last one of level error is what they show.
type logger struct {
	file *os.File
	json bool
}

func (l *logger) open(path, format string) error {
	l.file, l.json = os.Stderr, format == "json"
	if format != "json" && format != "text" {
		return fmt.Errorf("--log-format: %q is neither text nor json", format)
	}
	if path == "" || path == "/dev/stderr" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("--log: %w", err)
	}
	l.file = f
	return nil
}

func (l *logger) write(level, msg string) {
	now := time.Now().Format(time.RFC3339)
	if l.json {
		msg = printable(msg) // containerd takes it out of the line and shows it
		line, _ := json.Marshal(struct {
			Level string `json:"level"`
			Msg   string `json:"msg"`
			Time  string `json:"time"`
		}{level, msg, now})
		l.file.Write(append(line, '\n'))
		return
	}
	fmt.Fprintf(l.file, "time=%q level=%s msg=%s\n", now, level, strconv.Quote(msg))
}

// printable makes characters visible that a terminal would obey: a message may quote names and output of a container. Ends of lines stay,
// because hints are lines of their own.
func printable(s string) string {
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == unicode.ReplacementChar && !strings.HasPrefix(s[i:], string(unicode.ReplacementChar)):
			fmt.Fprintf(&b, `\x%02x`, s[i]) // no UTF-8
		case r == '\n', r == '\t', r == ' ', unicode.IsPrint(r):
			b.WriteRune(r)
		default: // control characters, and those that turn the direction of writing
			q := strconv.QuoteRune(r)
			b.WriteString(q[1 : len(q)-1])
		}
	}
	return b.String()
}
