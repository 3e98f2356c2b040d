package engine

import (
	"bufio"
	"os"
	"strings"

	"glassbox/supervise"

	"golang.org/x/sys/unix"
)

// readEnvFile reads lines KEY=VALUE, or KEY for the caller's own value; # begins a comment line.
func readEnvFile(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, invalid("%v", err)
	}
	defer f.Close()
	var out []string
	r := bufio.NewScanner(f)
	r.Buffer(nil, 1<<20)
	for n := 1; r.Scan(); n++ {
		line := strings.TrimLeft(strings.TrimSuffix(r.Text(), "\r"), " \t")
		if n == 1 {
			line = strings.TrimPrefix(line, "\uFEFF")
		}
		if line == "" || line[0] == '#' {
			continue
		}
		key, _, _ := strings.Cut(line, "=")
		if key == "" || strings.ContainsAny(key, " \t") {
			return nil, invalid("%s:%d: %q is no name of a variable", path, n, key)
		}
		out = append(out, line)
	}
	return out, r.Err()
}

// ParseSignal reads a signal's name, with or without SIG, or number.
func ParseSignal(s string) (unix.Signal, error) {
	sig, ok := supervise.Signal(s)
	if !ok || sig == 0 {
		return 0, invalid("invalid signal: %s", s)
	}
	return sig, nil
}
