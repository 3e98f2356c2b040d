package image

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestRegistriesRefused: what can't be meant, or could never count, is an error that says what to write.
func TestRegistriesRefused(t *testing.T) {
	for text, want := range map[string]string{
		``:                                     "ends too early",
		`{`:                                    "ends too early",
		`[]`:                                   "want an object",
		`{}`:                                   `"registries" is missing`,
		`{"registries": 3}`:                    "is no list",
		`{"registries": null}`:                 "is null",
		`{"registries": []} x`:                 "line 1",
		"{\n\"mirrors\": []}":                  `unknown key "mirrors" in line 2: want registries`,
		`{"Registries": []}`:                   "unknown key",
		`{"registries": [], "registries": []}`: "twice",
		`{"registries": [3]}`:                  "rule 1: want an object",
		`{"registries": [{}]}`:                 `rule 1: "prefix" is missing`,
		`{"registries": [{"prefix": "a.b"}]}`:  "it says nothing",
		`{"registries": [{"prefix": "a.b", "insecure": "yes"}]}`:                                       "insecure can't be a string",
		`{"registries": [{"prefix": "a.b", "insecure": true, "insecure": false}]}`:                     "twice",
		`{"registries": [{"prefix": "a.b", "blocked": true}]}`:                                         "want prefix, location, mirrors",
		`{"registries": [{"prefix": "https://a.b", "insecure": true}]}`:                                "without https://",
		`{"registries": [{"prefix": "http://a.b", "insecure": true}]}`:                                 `"insecure": true in a rule`,
		`{"registries": [{"prefix": "debian", "location": "a.b"}]}`:                                    "a host with a dot",
		`{"registries": [{"prefix": "a.b/c:1", "location": "a.c"}]}`:                                   "a tag or a digest",
		`{"registries": [{"prefix": "a.b/c/", "location": "a.c"}]}`:                                    "no place of a registry",
		`{"registries": [{"prefix": "a.b/C", "location": "a.c"}]}`:                                     "no place of a registry",
		`{"registries": [{"prefix": "a.b", "location": "a.b"}]}`:                                       "the prefix itself",
		`{"registries": [{"prefix": "a.b", "mirrors": ["c.d", "c.d"]}]}`:                               "twice",
		`{"registries": [{"prefix": "a.b/c", "insecure": true}]}`:                                      `a rule of the prefix "a.b"`,
		`{"registries": [{"prefix": "a.b", "insecure": true, "ca": "x"}]}`:                             "leave one out",
		`{"registries": [{"prefix": "a.b", "cert": "x"}]}`:                                             "cert and key belong together",
		`{"registries": [{"prefix": "a.b", "ca": "x"}, {"prefix": "a.b", "ca": "y"}]}`:                 "a rule of this prefix already",
		`{"registries": [{"prefix": "a.b", "location": "c.d"}, {"prefix": "c.d", "location": "e.f"}]}`: "name that place at once",
	} {
		if _, err := ParseRegistries([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
	file := filepath.Join(t.TempDir(), "registries.json")
	os.WriteFile(file, []byte(strings.Repeat(" ", maxRegistriesFile+1)), 0o600)
	if _, err := ReadRegistries(file); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("a large file: %v", err)
	}
	// A file that somebody named must be there; the usual one needn't.
	if r, err := ReadRegistries(file + "x"); err != nil || len(r.Rules) > 0 {
		t.Errorf("no file: %v", err)
	}
	t.Setenv("GLASSBOX_REGISTRIES", file+"x")
	if _, err := ReadRegistries(file + "x"); err == nil {
		t.Error("a file that was named isn't there, and nobody says so")
	}
}

const exampleRegistries = `{"registries": [
	{"prefix": "docker.io", "mirrors": ["mirror.lan:5000", "cache.lan/hub"]},
	{"prefix": "docker.io/team", "location": "registry.lan/team"},
	{"prefix": "index.docker.io/team/app", "location": "other.lan"},
	{"prefix": "localhost", "insecure": true},
	{"prefix": "localhost:5000", "ca": "x"}
]}`

// TestRegistriesPlaces: the longest prefix counts, on whole parts of the name.
func TestRegistriesPlaces(t *testing.T) {
	r, err := ParseRegistries([]byte(exampleRegistries))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]string{
		"debian": {
			"mirror.lan:5000/library/debian:latest",
			"cache.lan/hub/library/debian:latest", "docker.io/library/debian:latest",
		},
		"team/x:1":                          {"registry.lan/team/x:1"},
		"teams/x":                           {"mirror.lan:5000/teams/x:latest", "cache.lan/hub/teams/x:latest", "docker.io/teams/x:latest"},
		"team/app/y":                        {"other.lan/y:latest"},
		"quay.io/a/b":                       {"quay.io/a/b:latest"},
		"docker.io/team/x@" + emptyDigest(): {"registry.lan/team/x@" + emptyDigest()},
	} {
		ref, err := ParseRef(name)
		if err != nil {
			t.Fatal(err)
		}
		places, err := r.Places(ref)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, p := range places {
			got = append(got, p.String())
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: -want +got\n%s", name, diff)
		}
	}
	if ref, err := r.Place(Ref{Registry: "docker.io", Repository: "team/app", Tag: "1"}); err == nil {
		t.Errorf("a name that is all prefix: got %s", ref)
	}
	for host, want := range map[string]bool{"localhost": true, "localhost:1": true, "localhost:5000": false, "a.b": false} {
		if got := r.insecure(host); got != want {
			t.Errorf("%s insecure: got %v", host, got)
		}
	}
}

func emptyDigest() string { return digestOf(nil) }

// TestMirrors: mirrors are asked in turn, with their own credentials; what they lack or spoil comes from the registry itself.
func TestMirrors(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	own, mirror, s := newRegistry(t), newRegistry(t), openStore(t)
	layer := layerData{tar: tarOf(t, fileE("f", "1"))}
	own.push(t, "x", "latest", amd64(), layer)
	own.push(t, "only", "latest", amd64(), layerData{tar: tarOf(t, fileE("f", "2"))})
	mirror.push(t, "hub/x", "latest", amd64(), layer)
	asked := 0
	var authorization []string
	own.hook = func(w http.ResponseWriter, q *http.Request) bool { asked++; return false }
	mirror.hook = func(w http.ResponseWriter, q *http.Request) bool {
		authorization = append(authorization, q.Header.Get("Authorization"))
		return false
	}
	file := filepath.Join(t.TempDir(), "registries.json")
	os.WriteFile(file, []byte(`{"registries": [{"prefix": "`+own.host()+`", "mirrors": ["127.0.0.1:1", "`+mirror.host()+`/hub"]}]}`), 0o600)
	o := quick()
	o.RegistriesFile, o.Auth = file, &Auth{Credentials: Credentials{"ann", "secret"}}
	var told []string
	o.Progress = func(e Event) {
		if e.State == Warned {
			told = append(told, e.Text)
		}
	}
	img, err := s.Pull(t.Context(), own.host()+"/x", o)
	if err != nil {
		t.Fatal(err)
	}
	if asked > 0 {
		t.Errorf("the registry was asked %d times, in spite of its mirror", asked)
	}
	if len(told) != 1 || !strings.Contains(told[0], "the mirror 127.0.0.1:1/x can't be used") {
		t.Errorf("told: %q", told)
	}
	if strings.Join(authorization, "") != "" {
		t.Errorf("the mirror got what is the registry's: %q", authorization)
	}
	if len(img.Names) == 0 || !strings.Contains(img.Names[0], own.host()+"/x") {
		t.Errorf("names: %q", img.Names)
	}
	if _, err := s.Pull(t.Context(), own.host()+"/only", o); err != nil || asked == 0 {
		t.Errorf("an image that the mirror lacks: %v, %d questions", err, asked)
	}
	// A mirror that has the manifest and spoils the layer.
	mirror.push(t, "hub/only", "latest", amd64(), layerData{tar: tarOf(t, fileE("f", "3"))})
	mirror.hook = func(w http.ResponseWriter, q *http.Request) bool {
		if strings.Contains(q.URL.Path, "/blobs/") {
			w.Write([]byte("spoilt"))
			return true
		}
		return false
	}
	other := openStore(t)
	if _, err := other.Pull(t.Context(), own.host()+"/only", o); err != nil {
		t.Errorf("a mirror that spoils layers: %v", err)
	}
	raw, _, err := RemoteManifest(t.Context(), own.host()+"/x", false, o)
	if err != nil || len(raw) == 0 {
		t.Errorf("manifest: %v", err)
	}
	os.WriteFile(file, []byte(`{"registries": [{"prefix": "`+own.host()+`", "location": "`+mirror.host()+`/hub"}]}`), 0o600)
	asked, mirror.hook = 0, nil
	if _, err := openStore(t).Pull(t.Context(), own.host()+"/x", o); err != nil || asked > 0 {
		t.Errorf("a place that stands in: %v, %d questions to what it stands in for", err, asked)
	}
	os.WriteFile(file, []byte(`{"registries": [{"prefix": "x.y"}]}`), 0o600)
	if _, err := s.Pull(t.Context(), own.host()+"/x", o); err == nil || !strings.Contains(err.Error(), "it says nothing") {
		t.Errorf("settings that can't be understood: %v", err)
	}
}

func FuzzRegistriesConf(f *testing.F) {
	f.Add([]byte(exampleRegistries), "debian")
	f.Add([]byte(`{"registries": [{"prefix": "a.b/c", "location": "d.e/f", "mirrors": ["g.h:1/i"]}]}`), "a.b/c/d:1")
	f.Add([]byte(`{"registries": [{"prefix": "[::1]:5000", "insecure": true, "cert": "a", "key": "b"}]}`), "[::1]:5000/x")
	f.Fuzz(func(t *testing.T, text []byte, name string) {
		r, err := ParseRegistries(text)
		if err != nil {
			return
		}
		out, err := json.Marshal(map[string]any{"registries": r.Rules})
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Rules) > 0 {
			again, err := ParseRegistries(out)
			if err != nil {
				t.Fatalf("%s: written again: %v", out, err)
			}
			if diff := cmp.Diff(r, again); diff != "" {
				t.Fatal(diff)
			}
		}
		ref, err := ParseRef(name)
		if err != nil {
			return
		}
		places, err := r.Places(ref)
		if err != nil {
			return
		}
		for _, p := range places {
			if got, err := ParseRef(p.String()); err != nil || got != p {
				t.Fatalf("%s is asked at %s, which is %v: %v", name, p, got, err)
			}
		}
	})
}
