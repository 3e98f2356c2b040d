package event

import (
	"fmt"
	"strings"
)

// Filter chooses events: several values of one key are alternatives, several keys must all hold, but all labels must (docker events
// --filter).
type Filter map[string][]string

// ParseFilter reads KEY=VALUE texts.
func ParseFilter(texts []string) (Filter, error) {
	f := Filter{}
	for _, text := range texts {
		key, value, ok := strings.Cut(text, "=")
		if !ok {
			return nil, fmt.Errorf("invalid filter %q: want KEY=VALUE", text)
		}
		switch key {
		case Container, Image, Network, Volume, "event", "label", "type", "scope":
		case "config", "daemon", "node", "plugin", "secret", "service":
			return nil, fmt.Errorf("filter %q: there are no events of a %s here", text, key)
		default:
			return nil, fmt.Errorf("invalid filter '%s'", key)
		}
		f[key] = append(f[key], value)
	}
	return f, nil
}

// Match reports whether an event is chosen.
func (f Filter) Match(e Event) bool {
	for key, values := range f {
		hits := 0
		for _, v := range values {
			if match(key, v, e) {
				hits++
			}
		}
		if hits == 0 || key == "label" && hits < len(values) {
			return false
		}
	}
	return true
}

func match(key, want string, e Event) bool {
	switch key {
	case "event":
		return want == e.Action || want == e.Name()
	case "type":
		return want == e.Type
	case "scope":
		return want == e.Scope
	case "label":
		k, value, exact := strings.Cut(want, "=")
		got, ok := e.Actor.Attributes[k]
		return ok && (!exact || got == value)
	case Image: // an image's own events, and those of the containers made from it
		name := e.Actor.Attributes["image"]
		if e.Type == Image {
			name = e.Actor.Attributes["name"]
		}
		return want == name || want == untagged(name) || e.Type == Image && (want == e.Actor.ID || want == untagged(e.Actor.ID) ||
			strings.HasPrefix(e.Actor.ID, "sha256:") && isID(want, e.Actor.ID))
	}
	return key == e.Type && (want == e.Actor.Attributes["name"] || isID(want, e.Actor.ID))
}

// isID reports whether a text is an ID or its beginning.
func isID(text, id string) bool {
	return text != "" && (strings.HasPrefix(id, text) || strings.HasPrefix(strings.TrimPrefix(id, "sha256:"), text))
}

// untagged is a reference without its tag: --filter image=debian is for debian:12, too.
func untagged(name string) string {
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		return name[:i]
	}
	return name
}
