package image

import (
	"path"
	"strings"
)

// SplitTag splits a familiar name. Without a tag the second is empty. A colon before the last slash belongs to a port.
func SplitTag(name string) (repository, tag string) {
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		return name[:i], name[i+1:]
	}
	return name, ""
}

// Matches reports whether a familiar name fits REPOSITORY[:TAG], in which * and ? may stand.
func Matches(pattern, name string) bool {
	repository, tag := SplitTag(name)
	wantRepository, wantTag := SplitTag(pattern)
	for _, m := range [][2]string{{wantRepository, repository}, {wantTag, tag}} {
		if m[0] == "" {
			continue // any
		}
		if ok, err := path.Match(m[0], m[1]); err != nil || !ok {
			return false
		}
	}
	return true
}
