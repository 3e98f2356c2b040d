package build

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func none(string) (string, bool) { return "", false }

func words(edit func(*Words)) *Words {
	w := &Words{Context: ".", Progress: "auto", Call: "build"}
	edit(w)
	return w
}

func TestRequest(t *testing.T) {
	w := words(func(w *Words) {
		w.Args, w.Labels = []string{"A=1", "HOME", "UNSET", "B=x=y"}, []string{"l", "k=v"}
		w.Platforms = []string{"linux/amd64,linux/arm64"}
		w.Secrets = []string{"id=a,src=/f", "type=env,id=b,source=TOKEN", `"id=c","src=/a,b"`}
		w.SSH = []string{"default", "git=/k1,/k2", "raw=/sock,raw=true"}
		w.CacheFrom, w.CacheTo = []string{"reg/x", "type=local,src=/c"}, []string{"type=inline"}
		w.Outputs, w.Push, w.Tags = []string{"out", "-", "type=oci,dest=x.tar"}, true, []string{"t"}
		w.AddHosts = []string{"a:1.2.3.4", "b=[::1]"}
		w.Attests, w.SBOM, w.Provenance = []string{"type=provenance,mode=max"}, "true", "false"
		w.ShmSize, w.Call, w.Check = "2g", "", true
		w.Resources = []string{"memory=2m,cpu-quota=50000", "cpuset-cpus=0"}
	})
	r, err := w.Request(func(name string) (string, bool) { return "/root", name == "HOME" })
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what      string
		got, want any
	}{
		{"args", r.Args, map[string]string{"A": "1", "HOME": "/root", "B": "x=y"}},
		{"labels", r.Labels, map[string]string{"l": "", "k": "v"}},
		{"platforms", r.Platforms, []string{"linux/amd64", "linux/arm64"}},
		{"secrets", r.Secrets, []Secret{{ID: "a", File: "/f"}, {ID: "b", Env: "TOKEN"}, {ID: "c", File: "/a,b"}}},
		{"ssh", r.SSH, []SSH{{ID: "default"}, {ID: "git", Paths: []string{"/k1", "/k2"}}, {ID: "raw", Paths: []string{"/sock"}, Raw: true}}},
		{"cache-from", r.CacheFrom, []Typed{{"registry", map[string]string{"ref": "reg/x"}}, {"local", map[string]string{"src": "/c"}}}},
		{"cache-to", r.CacheTo, []Typed{{"inline", map[string]string{}}}},
		{"outputs", r.Outputs, []Typed{
			{"local", map[string]string{"dest": "out"}},
			{"tar", map[string]string{"dest": "-"}},
			{"oci", map[string]string{"dest": "x.tar"}},
			{"registry", map[string]string{}},
		}},
		{"hosts", r.Hosts(), "a=1.2.3.4,b=::1"},
		{"attests", r.Attests, map[string]string{"sbom": ""}},
		{"shm", r.ShmSize, int64(2 << 30)},
		{"call", r.Call, "check"},
		{"limits", r.Limits, map[string]string{"memory": "2097152", "cpuquota": "50000", "cpusetcpus": "0"}},
	} {
		if diff := cmp.Diff(c.want, c.got); diff != "" {
			t.Errorf("%s: -want +got\n%s", c.what, diff)
		}
	}
}

// TestWrongWords has calls that make no sense: the error names the flag and what is wrong.
func TestWrongWords(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(*Words)
		want string
	}{
		"stdin twice":         {func(w *Words) { w.Context, w.Dockerfile = "-", "-" }, "can't use stdin for both"},
		"progress":            {func(w *Words) { w.Progress = "fancy" }, "--progress fancy"},
		"network":             {func(w *Words) { w.Network = "mine" }, "--network mine"},
		"arg":                 {func(w *Words) { w.Args = []string{"=x"} }, "--build-arg"},
		"label":               {func(w *Words) { w.Labels = []string{"=x"} }, "--label"},
		"context":             {func(w *Words) { w.Contexts = []string{"x"} }, "--build-context"},
		"context value":       {func(w *Words) { w.Contexts = []string{"x="} }, "--build-context"},
		"annotation":          {func(w *Words) { w.Annotations = []string{"x"} }, "--annotation"},
		"host":                {func(w *Words) { w.AddHosts = []string{"x"} }, "--add-host"},
		"secret without id":   {func(w *Words) { w.Secrets = []string{"src=/x"} }, "it has no id"},
		"secret's key":        {func(w *Words) { w.Secrets = []string{"id=a,value=s3cret"} }, `unexpected key "value"`},
		"secret's type":       {func(w *Words) { w.Secrets = []string{"id=a,type=vault"} }, "unsupported secret type"},
		"secret's quotes":     {func(w *Words) { w.Secrets = []string{`id=a,"`} }, "--secret"},
		"ssh":                 {func(w *Words) { w.SSH = []string{"=x"} }, "--ssh"},
		"cache type":          {func(w *Words) { w.CacheFrom = []string{"type=s3,bucket=b"} }, "registry"},
		"cache without ref":   {func(w *Words) { w.CacheTo = []string{"type=registry"} }, "needs ref="},
		"cache without type":  {func(w *Words) { w.CacheTo = []string{"ref=x"} }, "type is required"},
		"cache without src":   {func(w *Words) { w.CacheFrom = []string{"type=local"} }, "needs src="},
		"output type":         {func(w *Words) { w.Outputs = []string{"type=zip,dest=x"} }, `type "zip" is not there`},
		"output without dest": {func(w *Words) { w.Outputs = []string{"type=local"} }, "needs dest="},
		"local on stdout":     {func(w *Words) { w.Outputs = []string{"type=local,dest=-"} }, "dest is a directory"},
		"two on stdout":       {func(w *Words) { w.Outputs = []string{"-", "type=oci"} }, "only one"},
		"push without name":   {func(w *Words) { w.Push = true }, "tag is needed"},
		"call":                {func(w *Words) { w.Call = "dance" }, "--call dance"},
		"call's format":       {func(w *Words) { w.Call = "outline,format=xml" }, "text or json"},
		"check and call":      {func(w *Words) { w.Check, w.Call = true, "targets" }, "--check"},
		"attestation":         {func(w *Words) { w.Attests = []string{"type=magic"} }, `"magic" is not there`},
		"attestation's type":  {func(w *Words) { w.Attests = []string{"mode=max"} }, "type is required"},
		"shm":                 {func(w *Words) { w.ShmSize = "lots" }, "--shm-size lots"},
		"step and stdin":      {func(w *Words) { w.Step, w.Context = true, "-" }, "answers are read from standard input"},
		"break and stdin":     {func(w *Words) { w.Breaks, w.Dockerfile = []string{"7"}, "-" }, "answers are read from standard input"},
		"step and trace":      {func(w *Words) { w.Step, w.Trace = true, "x.html" }, "would measure who answers"},
		"step and check":      {func(w *Words) { w.Step, w.Check, w.Call = true, true, "" }, "--call check makes no step"},
		"debug and targets":   {func(w *Words) { w.DebugOnError, w.Call = "id", "targets" }, "--call targets makes no step"},
		"debug and step":      {func(w *Words) { w.DebugOnError, w.Step = "id", true }, "the terminal is theirs"},
		"debug and policy":    {func(w *Words) { w.DebugOnError, w.Policy = "id", []byte("{}") }, "nobody would judge"},
		"resource":            {func(w *Words) { w.Resources = []string{"disk=1g"} }, `--resource "disk=1g": unknown key`},
		"resource's number":   {func(w *Words) { w.Resources = []string{"cpu-quota=x"} }, "cpu-quota is a number"},
		"check's format":      {func(w *Words) { w.Check, w.Call = true, "check,format=xml" }, "text or json"},
		"negative shm":        {func(w *Words) { w.ShmSize = "-1" }, "--shm-size"},
	} {
		_, err := words(c.edit).Request(none)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, c.want)
		}
	}
}

// An attestation's attributes are all that was typed but the type, wherever that stands.
func TestAttest(t *testing.T) {
	for text, want := range map[string]string{
		"type=provenance,mode=max": "mode=max", "mode=max,type=provenance": "mode=max", "type=provenance": "",
		`mode=max,type=provenance,"builder-id=a,b"`: `mode=max,"builder-id=a,b"`,
	} {
		r, err := words(func(w *Words) { w.Attests = []string{text} }).Request(none)
		if err != nil || r.Attests["provenance"] != want {
			t.Errorf("--attest %s: got %q, %v; want %q", text, r.Attests["provenance"], err, want)
		}
	}
}
