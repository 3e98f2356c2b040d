package api

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// TestPidsLimit: an update of nothing is none, what isn't above zero lets the limit go, and a version that didn't know the limit leaves it.
func TestPidsLimit(t *testing.T) {
	h := newHouse(t)
	code, text := h.ask(t, "POST", "/containers/create?name=limited", `{"Image":"box","HostConfig":{"PidsLimit":32}}`)
	if code != 201 {
		t.Fatalf("%d %s", code, text)
	}
	for _, c := range []struct {
		version, body string
		want          int64
	}{
		{"/v1.41", `{}`, 32},
		{"/v1.24", `{"PidsLimit":16}`, 32},
		{"/v1.41", `{"PidsLimit":16}`, 16},
		{"/v1.41", `{"PidsLimit":0}`, 0},
		{"", `{"PidsLimit":8}`, 8},
		{"", `{"PidsLimit":-2}`, 0},
	} {
		if code, text := h.ask(t, "POST", c.version+"/containers/limited/update", c.body); code != 200 {
			t.Fatalf("%s %s: %d %s", c.version, c.body, code, text)
		}
		_, text := h.ask(t, "GET", "/containers/limited/json", "")
		var v struct{ HostConfig struct{ PidsLimit *int64 } }
		if err := json.Unmarshal([]byte(text), &v); err != nil || v.HostConfig.PidsLimit == nil || *v.HostConfig.PidsLimit != c.want {
			t.Errorf("after %s %s: %v %s, want %d", c.version, c.body, err, text, c.want)
		}
	}
	if code, text := h.ask(t, "POST", "/containers/nosuch/update", `{}`); code != 404 {
		t.Errorf("of no container: %d %s", code, text)
	}
}

// TestNamed: of an image with several names a list has those that are asked for.
func TestNamed(t *testing.T) {
	h := newHouse(t)
	for _, tag := range []string{"v1", "v2", "v3"} {
		if code, text := h.ask(t, "POST", "/images/box/tag?repo=many&tag="+tag, ""); code != 201 {
			t.Fatalf("%d %s", code, text)
		}
	}
	for filter, want := range map[string]string{
		`["many:v1","many:v3"]`: "many:v1 many:v3", `["many"]`: "many:v1 many:v2 many:v3", `["b?x"]`: "box:latest",
	} {
		_, text := h.ask(t, "GET", "/images/json?filters="+url.QueryEscape(`{"reference":`+filter+`}`), "")
		var list []struct{ RepoTags []string }
		if err := json.Unmarshal([]byte(text), &list); err != nil || len(list) != 1 {
			t.Fatalf("%s: %v %s", filter, err, text)
		}
		slices.Sort(list[0].RepoTags)
		if got := strings.Join(list[0].RepoTags, " "); got != want {
			t.Errorf("%s: got %s, want %s", filter, got, want)
		}
	}
}

// TestOldIPC: until 1.40 other containers could join one's shared memory without its being asked for.
func TestOldIPC(t *testing.T) {
	h := newHouse(t)
	for version, want := range map[string]string{"/v1.24": "shareable", "/v1.39": "shareable", "/v1.40": "private", "": "private"} {
		code, text := h.ask(t, "POST", version+"/containers/create", `{"Image":"box"}`)
		var made struct{ ID string }
		if err := json.Unmarshal([]byte(text), &made); err != nil || code != 201 {
			t.Fatalf("%s: %d %s", version, code, text)
		}
		_, text = h.ask(t, "GET", "/containers/"+made.ID+"/json", "")
		var v struct{ HostConfig struct{ IpcMode string } }
		if err := json.Unmarshal([]byte(text), &v); err != nil || v.HostConfig.IpcMode != want {
			t.Errorf("%s: got %q, %v, want %s", version, v.HostConfig.IpcMode, err, want)
		}
	}
}
