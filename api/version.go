package api

import (
	"strconv"
	"strings"
)

// version is the minor number of an API version; the major one has always been 1.
type version int

func parseVersion(text string) (version, bool) {
	minor, ok := strings.CutPrefix(text, "1.")
	n, err := strconv.ParseUint(minor, 10, 8)
	return version(n), ok && err == nil
}

func (v version) String() string { return "1." + strconv.Itoa(int(v)) }

// splitVersion takes /v1.41 off a path; a path without one asks for the newest.
func splitVersion(path string) (version, string, error) {
	newest, _ := parseVersion(MaxVersion)
	text, ok := strings.CutPrefix(path, "/v")
	if !ok {
		return newest, path, nil
	}
	number, rest, _ := strings.Cut(text, "/")
	if number == "" || strings.Trim(number, "0123456789.") != "" {
		return newest, path, nil // /volumes
	}
	v, ok := parseVersion(number)
	if !ok {
		return 0, "", invalid("invalid API version %q: want %s to %s", number, MinVersion, MaxVersion)
	}
	return v, "/" + rest, nil
}

// check refuses versions that aren't spoken, in the words by which clients find the right one.
func (v version) check() error {
	least, _ := parseVersion(MinVersion)
	most, _ := parseVersion(MaxVersion)
	switch {
	case v < least:
		return invalid("client version %s is too old. Minimum supported API version is %s, please upgrade your client to a newer version",
			v, MinVersion)
	case v > most:
		return invalid("client version %s is too new. Maximum supported API version is %s", v, MaxVersion)
	}
	return nil
}
