package spec

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"glassbox/container"
)

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
		return 0, false, container.Invalid("id %q: leading zeros are refused, because programs disagree on what they mean", s)
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == math.MaxUint32 {
		return 0, false, container.Invalid("id %q is out of range: user and group ids are 0 to 4294967294", s)
	}
	return uint32(n), true, nil
}

// User is an account as a process gets it.
type User struct {
	UID, GID uint32
	Groups   []uint32 // further groups, each once, without GID
	Home     string   // never empty
}

// LookupUser reads USER[:GROUP] with the container's own /etc/passwd and /etc/group (nil where there is none). No library and
// no file of the host is asked.
func LookupUser(spec string, extra []string, passwd, group []byte) (User, error) {
	u := User{Home: "/"}
	name, groupName, hasGroup := strings.Cut(spec, ":")
	id, numeric, err := parseID(name)
	if err != nil {
		return u, err
	}
	login := ""
	found := false
	if name == "" || numeric {
		u.UID = id
	}
	for _, f := range colonLines(passwd, 7) {
		uid, ok, err := parseID(f[2])
		if err != nil || !ok {
			continue
		}
		if name != "" && !numeric && f[0] == name || (numeric || name == "") && uid == u.UID {
			gid, ok, err := parseID(f[3])
			if err != nil || !ok {
				return u, container.Invalid("user %q: /etc/passwd of the image has a malformed group %q", spec, f[3])
			}
			u.UID, u.GID, login, found = uid, gid, f[0], true
			if f[5] != "" {
				u.Home = f[5]
			}
			break
		}
	}
	if !found && name != "" && !numeric {
		return u, container.Invalid("unable to find user %s: no matching entries in the container's /etc/passwd", name)
	}
	if hasGroup && groupName != "" {
		if u.GID, err = lookupGroup(groupName, group); err != nil {
			return u, err
		}
	} else if login != "" {
		for _, f := range colonLines(group, 4) {
			for _, member := range strings.Split(f[3], ",") {
				if gid, ok, err := parseID(f[2]); member == login && ok && err == nil && gid != u.GID {
					u.Groups = append(u.Groups, gid)
				}
			}
		}
	}
	for _, g := range extra {
		gid, err := lookupGroup(g, group)
		if err != nil {
			return u, err
		}
		// A group that the user has anyway is one group, not two.
		if gid != u.GID && !slices.Contains(u.Groups, gid) {
			u.Groups = append(u.Groups, gid)
		}
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
	return 0, container.Invalid("unable to find group %s: no matching entries in the container's /etc/group", name)
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
