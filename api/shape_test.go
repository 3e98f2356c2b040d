package api

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestShapes asks for the same in old and new versions: what each client reads is there, and what its version has no more is not.
func TestShapes(t *testing.T) {
	h := newHouse(t)
	for _, c := range []struct {
		path  string
		field string // of the answer, or of the first element of a list, parted by dots
		in    string // the versions that have it
	}{
		{"/containers/made/json", "NetworkSettings.IPAddress", "1.24 1.41 1.44"},
		{"/containers/made/json", "NetworkSettings.Networks", "1.24 1.41 1.44 1.57"},
		{"/containers/made/json", "NetworkSettings.SandboxID", "1.24 1.41 1.44 1.57"},
		{"/containers/made/json", "HostConfig.Memory", "1.24 1.41 1.44 1.57"},
		{"/containers/json?all=1", "Names", "1.24 1.41 1.44 1.57"},
		{"/containers/json?all=1", "NetworkSettings.Networks", "1.24 1.41 1.44 1.57"},
		{"/images/json", "VirtualSize", "1.24 1.41"},
		{"/images/json", "RepoTags", "1.24 1.41 1.44 1.57"},
		{"/images/box/json", "VirtualSize", "1.24 1.41"},
		{"/images/box/json", "Container", "1.24 1.41 1.44"},
		{"/images/box/json", "Descriptor", "1.57"},
		{"/images/box/json", "RootFS.Layers", "1.24 1.41 1.44 1.57"},
		{"/networks/net", "EnableIPv4", "1.57"},
		{"/networks/net", "IPAM.Config", "1.24 1.41 1.44 1.57"},
		{"/networks?filters={\"name\":[\"net\"]}", "EnableIPv4", "1.57"},
		{"/volumes", "Volumes", "1.24 1.41 1.44 1.57"},
		{"/system/df", "LayersSize", "1.24 1.41 1.44"},
		{"/system/df", "Images", "1.24 1.41 1.44"},
		{"/system/df", "ImageUsage.TotalCount", "1.57"},
		{"/system/df?verbose=1", "ImageUsage.Items", "1.57"},
		{"/info", "Swarm.LocalNodeState", "1.24 1.41 1.44 1.57"},
		{"/version", "ApiVersion", "1.24 1.41 1.44 1.57"},
		{"/version", "MinAPIVersion", "1.24 1.41 1.44 1.57"},
		{"/events?since=1&until=9999999", "", "1.24 1.41 1.44 1.57"},
	} {
		for _, v := range []string{"1.24", "1.41", "1.44", "1.57"} {
			path := strings.NewReplacer("{", "%7B", "}", "%7D", `"`, "%22").Replace(c.path)
			code, text := h.ask(t, "GET", "/v"+v+path, "")
			if code != 200 {
				t.Errorf("%s %s: %d %s", v, c.path, code, text)
				continue
			}
			if c.field == "" {
				continue
			}
			var answer any
			if err := json.Unmarshal([]byte(text), &answer); err != nil {
				t.Errorf("%s %s: %v", v, c.path, err)
				continue
			}
			if got, want := has(answer, strings.Split(c.field, ".")), strings.Contains(c.in, v); got != want {
				t.Errorf("%s %s: field %s: got %v, want %v", v, c.path, c.field, got, want)
			}
		}
	}
}

// has looks a field up.
func has(v any, path []string) bool {
	if list, ok := v.([]any); ok {
		return len(list) > 0 && has(list[0], path)
	}
	if len(path) == 0 {
		return true
	}
	m, ok := v.(map[string]any)
	if !ok {
		return false
	}
	inner, ok := m[path[0]]
	if len(path) == 1 {
		return ok
	}
	return ok && has(inner, path[1:])
}

// TestEventShape: until 1.52 an event began with what it was before 1.22.
func TestEventShape(t *testing.T) {
	h := newHouse(t)
	for v, want := range map[string]bool{"1.24": true, "1.44": true, "1.57": false} {
		path := fmt.Sprintf("/v%s/events?since=1&until=%d&filters=%%7B%%22container%%22:%%5B%%22made%%22%%5D%%7D", v, time.Now().Unix()+1)
		code, text := h.ask(t, "GET", path, "")
		line, _, _ := strings.Cut(text, "\n")
		if code != 200 || !strings.Contains(line, `"Action":"create"`) {
			t.Fatalf("%s: got %d %s", v, code, text)
		}
		if got := strings.Contains(line, `"status":"create"`); got != want {
			t.Errorf("%s: got %s", v, line)
		}
	}
}
