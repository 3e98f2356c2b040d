package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"time"
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
