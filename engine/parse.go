package engine

import (
	"bufio"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	"glassbox/supervise"

	"golang.org/x/sys/unix"
)

// parseSize reads a number of bytes with an optional suffix b, k, m, g, t (powers of 1024), as in 512m, 1.5g or 64kb.
func parseSize(flag, s string) (int64, error) {
	text := strings.ToLower(strings.TrimSpace(s))
	text = strings.TrimSuffix(strings.TrimSuffix(text, "b"), "i")
	shift := 0
	if n := len(text); n > 0 {
		if i := strings.IndexByte("kmgtp", text[n-1]); i >= 0 {
			shift, text = 10*(i+1), text[:n-1]
		}
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(v) || v < 0 || v*float64(int64(1)<<shift) >= math.MaxInt64 || strings.ContainsAny(text, "xpe+_n") {
		return 0, invalid("--%s: invalid size %q: want a number of bytes with an optional unit, as in 512m or 2g", flag, s)
	}
	return int64(v * float64(int64(1)<<shift)), nil
}

// parseID reads a numeric user or group id strictly: decimal digits, no sign, no leading zero, within 0 … 2³²-2. The
// highest value means "no change" to the kernel (setresuid(2)), and a number that wraps around has made users root
// elsewhere (CVE-2026-30892).
func parseID(s string) (uint32, bool, error) {
	if s == "" {
		return 0, false, nil
	}
	for _, c := range s {
		if c < '0' || c > '9' {
			return 0, false, nil // a name
		}
	}
	if len(s) > 1 && s[0] == '0' {
		return 0, false, invalid("id %q: leading zeros are refused, because programs disagree on what they mean", s)
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == math.MaxUint32 {
		return 0, false, invalid("id %q is out of range: user and group ids are 0 to 4294967294", s)
	}
	return uint32(n), true, nil
}

// user is an account as a process gets it.
type user struct {
	uid, gid uint32
	groups   []uint32
	home     string
}

// lookupUser reads USER[:GROUP] with the container's own /etc/passwd and /etc/group (nil where there is none). No library and
// no file of the host is asked.
func lookupUser(spec string, extra []string, passwd, group []byte) (user, error) {
	u := user{home: "/"}
	name, groupName, hasGroup := strings.Cut(spec, ":")
	id, numeric, err := parseID(name)
	if err != nil {
		return u, err
	}
	login := ""
	found := false
	if name == "" || numeric {
		u.uid = id
	}
	for _, f := range colonLines(passwd, 7) {
		uid, ok, err := parseID(f[2])
		if err != nil || !ok {
			continue
		}
		if name != "" && !numeric && f[0] == name || (numeric || name == "") && uid == u.uid {
			gid, ok, err := parseID(f[3])
			if err != nil || !ok {
				return u, invalid("user %q: /etc/passwd of the image has a malformed group %q", spec, f[3])
			}
			u.uid, u.gid, login, found = uid, gid, f[0], true
			if f[5] != "" {
				u.home = f[5]
			}
			break
		}
	}
	if !found && name != "" && !numeric {
		return u, invalid("unable to find user %s: no matching entries in the container's /etc/passwd", name)
	}
	if hasGroup && groupName != "" {
		if u.gid, err = lookupGroup(groupName, group); err != nil {
			return u, err
		}
	} else if login != "" {
		for _, f := range colonLines(group, 4) {
			for _, member := range strings.Split(f[3], ",") {
				if gid, ok, err := parseID(f[2]); member == login && ok && err == nil && gid != u.gid {
					u.groups = append(u.groups, gid)
				}
			}
		}
	}
	for _, g := range extra {
		gid, err := lookupGroup(g, group)
		if err != nil {
			return u, err
		}
		u.groups = append(u.groups, gid)
	}
	return u, nil
}

func lookupGroup(name string, group []byte) (uint32, error) {
	id, numeric, err := parseID(name)
	if err != nil || numeric {
		return id, err
	}
	for _, f := range colonLines(group, 4) {
		if f[0] == name {
			if gid, ok, err := parseID(f[2]); ok && err == nil {
				return gid, nil
			}
		}
	}
	return 0, invalid("unable to find group %s: no matching entries in the container's /etc/group", name)
}

// colonLines splits a file like /etc/passwd; lines with another number of fields are left out.
func colonLines(data []byte, fields int) [][]string {
	var out [][]string
	for line := range strings.SplitSeq(string(data), "\n") {
		if f := strings.Split(strings.TrimSuffix(line, "\r"), ":"); len(f) == fields && f[0] != "" {
			out = append(out, f)
		}
	}
	return out
}

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

// setEnv merges lists of KEY=VALUE; a later value replaces an earlier one in its place. KEY alone takes the caller's value, or
// removes the variable if the caller has none.
func setEnv(base []string, environ []string, lists ...[]string) ([]string, error) {
	out := append([]string{}, base...)
	index := map[string]int{}
	for i, e := range out {
		key, _, _ := strings.Cut(e, "=")
		index[key] = i
	}
	remove := map[string]bool{}
	for _, list := range lists {
		for _, e := range list {
			key, _, ok := strings.Cut(e, "=")
			if key == "" || strings.ContainsRune(e, 0) {
				return nil, invalid("invalid environment variable: %q", e)
			}
			if !ok {
				value, found := lookupEnv(environ, key)
				if !found {
					remove[key] = true
					continue
				}
				e = key + "=" + value
			}
			delete(remove, key)
			if i, ok := index[key]; ok {
				out[i] = e
			} else {
				index[key] = len(out)
				out = append(out, e)
			}
		}
	}
	kept := out[:0]
	for _, e := range out {
		if key, _, _ := strings.Cut(e, "="); !remove[key] {
			kept = append(kept, e)
		}
	}
	return kept, nil
}

func lookupEnv(environ []string, key string) (string, bool) {
	for _, e := range environ {
		if k, v, ok := strings.Cut(e, "="); ok && k == key {
			return v, true
		}
	}
	return "", false
}

// ParseSignal reads a signal's name, with or without SIG, or number.
func ParseSignal(s string) (unix.Signal, error) {
	sig, ok := supervise.Signal(s)
	if !ok || sig == 0 {
		return 0, invalid("invalid signal: %s", s)
	}
	return sig, nil
}

// parseUlimit reads NAME=SOFT[:HARD]; -1 and "unlimited" are no limit.
func parseUlimit(s string) (name string, soft, hard uint64, err error) {
	fail := func(why string) (string, uint64, uint64, error) {
		return "", 0, 0, invalid("--ulimit %s: %s", s, why)
	}
	name, value, ok := strings.Cut(s, "=")
	if !ok {
		return fail("want NAME=SOFT[:HARD], as in nofile=1024:4096")
	}
	name = strings.ToLower(strings.TrimPrefix(name, "RLIMIT_"))
	known := "cpu fsize data stack core rss nproc nofile memlock as locks sigpending msgqueue nice rtprio rttime"
	if !strings.Contains(" "+known+" ", " "+name+" ") || name == "" {
		return fail(fmt.Sprintf("unknown limit %q: want one of %s", name, known))
	}
	one := func(v string) (uint64, bool) {
		if v == "-1" || v == "unlimited" {
			return math.MaxUint64, true
		}
		n, err := strconv.ParseUint(v, 10, 63)
		return n, err == nil
	}
	first, second, both := strings.Cut(value, ":")
	if soft, ok = one(first); !ok {
		return fail(fmt.Sprintf("%q is no number", first))
	}
	hard = soft
	if both {
		if hard, ok = one(second); !ok {
			return fail(fmt.Sprintf("%q is no number", second))
		}
	}
	if soft > hard {
		return fail("the soft limit is above the hard limit")
	}
	return "RLIMIT_" + strings.ToUpper(name), soft, hard, nil
}
