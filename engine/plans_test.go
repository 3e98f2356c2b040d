package engine

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"glassbox/container"
	"glassbox/oci"
	"glassbox/plan"
	"glassbox/state"
	"glassbox/supervise"
)

// filed is a file with a text, or with the JSON of anything else.
func filed(t *testing.T, name string, v any) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	text, ok := v.(string)
	if !ok {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		text = string(data)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestPlan: the same words make the same plan, whoever asks, and nothing is written.
func TestPlan(t *testing.T) {
	e := opened(t)
	o := options(t, container.Words{Hostname: "h", Memory: "64m"})
	p, err := e.Plan(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	e.facts.UID, e.facts.Caps = 1000, 0
	o.Log.MaxSize = 5
	again, err := e.Plan(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(p.Steps, again.Steps); diff != "" {
		t.Errorf("as an ordinary user (-root +user):\n%s", diff)
	}
	o.Hostname = "other"
	if again, err = e.Plan(t.Context(), o); err != nil || cmp.Equal(p.Steps, again.Steps) {
		t.Errorf("with another name of the host: the same plan, %v", err)
	}
	if _, err := os.Stat(e.containers()); !os.IsNotExist(err) {
		t.Errorf("a directory of containers: %v", err)
	}
	o.Namespaces.PID = "container:gone"
	if _, err := e.Plan(t.Context(), o); !errors.Is(err, ErrNotFound) {
		t.Errorf("with another's processes: %v", err)
	}
}

// TestSubject: what a name stands for, with and without the word before it, and what is said of one that is nothing.
func TestSubject(t *testing.T) {
	e := opened(t)
	made(t, e, "box")
	c := create(t, e, container.Words{Name: "web"})
	fresh := create(t, e, container.Words{Name: "new", Hostname: "first"})
	create(t, e, container.Words{Name: "lonely", PID: "container:new"})
	p := planned(t, e, c)
	planFile := filed(t, "plan.json", p)
	times := &plan.Times{}
	became(t, e, c, supervise.State{Status: supervise.Exited, Started: time.Now(), Times: times})

	bundleDir := t.TempDir()
	config, err := oci.Marshal(oci.Default(oci.DefaultOptions{}))
	if err != nil {
		t.Fatal(err)
	}
	configFile := filepath.Join(bundleDir, "config.json")
	if err := os.WriteFile(configFile, config, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(bundleDir, "rootfs"), 0o755); err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[string][2]string{
		"web": {"container", "web"}, "new": {"container", "new"}, "container:web": {"container", "web"}, c.ID[:12]: {"container", "web"},
		"box": {"image", "box"}, "image:box": {"image", "box"},
		planFile: {"plan", planFile}, "plan:" + planFile: {"plan", planFile},
		bundleDir: {"bundle", bundleDir}, "bundle:" + bundleDir: {"bundle", bundleDir}, configFile: {"bundle", configFile},
	} {
		s, err := e.Subject(t.Context(), ref)
		if err != nil {
			t.Errorf("%s: %v", ref, err)
			continue
		}
		if s.Kind != want[0] || s.Name != want[1] || len(s.Plan.Steps) == 0 {
			t.Errorf("%s: %s %s of %d steps, want %v", ref, s.Kind, s.Name, len(s.Plan.Steps), want)
		}
		if ref == "new" {
			// What its first start would run, and nothing is made by asking.
			if text, _ := json.Marshal(s.Plan); !strings.Contains(string(text), `"name":"first"`) ||
				slices.Contains(entries(t, e.dir(fresh.ID)), "hosts") {
				t.Errorf("the plan of a container that was never started: %s", text)
			}
			continue
		}
		if s.Kind == "container" && (s.Container.ID != c.ID || s.Times != nil) {
			t.Errorf("%s: container %s, times %v, which are of no step", ref, s.Container.ID, s.Times)
		}
		if s.Kind == "plan" && s.Refused != "" {
			t.Errorf("%s: it is refused: %s", ref, s.Refused)
		}
	}

	other := *p
	other.Arch = "sparc"
	newer := *p
	newer.Version++
	for ref, want := range map[string]struct {
		kind error
		text string
	}{
		"gone":                    {ErrNotFound, "there is no such container, image, bundle or plan"},
		"container:gone":          {ErrNotFound, "no such container: gone"},
		"plan:gone":               {ErrNotFound, "gone: no such file"},
		"bundle:gone":             {ErrNotFound, "gone: no such file"},
		"lonely":                  {ErrConflict, "its first start would fail: container " + fresh.ID},
		filed(t, "x.json", "{"):   {ErrInvalid, "it is no plan"},
		filed(t, "x.json", "{}"):  {ErrInvalid, "/version is missing"},
		filed(t, "x.json", newer): {ErrUnsupported, "/version"},
		filed(t, "x.json", other): {ErrUnsupported, "/arch"},
		filed(t, "x.json", `{"version":1,"arch":"amd64","steps":1}`): {nil, "x.json"},
		filed(t, "x.json", `{"ociVersion":"1.0.2"}`):                 {ErrInvalid, "x.json"},
		t.TempDir(): {ErrNotFound, "config.json"},
	} {
		s, err := e.Subject(t.Context(), ref)
		if err == nil || want.kind != nil && !errors.Is(err, want.kind) || !strings.Contains(err.Error(), want.text) {
			t.Errorf("%s: %+v, %v, want %q", ref, s, err, want.text)
		}
	}
	if err := os.WriteFile(filepath.Join(e.dir(c.ID), supervise.PlanFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Subject(t.Context(), "web"); err == nil || !strings.Contains(err.Error(), "the plan of container web") {
		t.Errorf("with a damaged plan: %v", err)
	}
}

// TestLive: a container that runs, with its plan.
func TestLive(t *testing.T) {
	e := opened(t)
	c := create(t, e, container.Words{Name: "web"})
	p := planned(t, e, c)
	if _, err := e.Live(t.Context(), "web"); !errors.Is(err, ErrConflict) {
		t.Errorf("one that doesn't run: %v", err)
	}
	supervised(t, e, c, supervise.State{PID: os.Getpid(), Start: 7})
	live, err := e.Live(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	if live.ID != c.ID || live.PID != os.Getpid() || live.Start != 7 || len(live.Plan.Steps) != len(p.Steps) {
		t.Errorf("got %+v", live)
	}
}

// TestFixed: a stored plan is run as it is, once at a time, and again only if it is still what was vetted.
func TestFixed(t *testing.T) {
	e := opened(t)
	o := options(t, container.Words{Hostname: "h", Command: []string{"/bin/sh", "-c", "true"}})
	p, err := e.Plan(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if refused, err := e.Refused(t.Context(), p); refused != "" || err != nil {
		t.Fatalf("it is refused: %s, %v", refused, err)
	}
	c, err := e.CreateFixed(t.Context(), p, CreateOptions{Name: "fixed"})
	if err != nil {
		t.Fatal(err)
	}
	if !c.Fixed || c.Network() != "none" || !cmp.Equal(c.Config.Command, []string{"/bin/sh", "-c", "true"}) {
		t.Errorf("got %+v", c)
	}
	job, err := e.job(t.Context(), c, StartOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(p.Steps, job.Plan.Steps); diff != "" {
		t.Errorf("another plan would run (-stored +run):\n%s", diff)
	}
	if job.Cgroups[""] != "/sys/fs/cgroup/glassbox/"+c.ID {
		t.Errorf("cgroups %v", job.Cgroups)
	}
	for file, want := range map[string]string{"hostname": "h\n", "hosts": "localhost"} {
		if text, err := os.ReadFile(filepath.Join(e.dir(c.ID), file)); err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s: %q, %v", file, text, err)
		}
	}
	if _, err := e.CreateFixed(t.Context(), p, CreateOptions{}); !errors.Is(err, ErrConflict) ||
		!strings.Contains(err.Error(), "there is a container of this plan") {
		t.Errorf("once more: %v", err)
	}
	if err := e.Remove(t.Context(), "fixed", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.CreateFixed(t.Context(), p, CreateOptions{Name: "a b"}); !errors.Is(err, ErrInvalid) {
		t.Errorf("with a name that is none: %v", err)
	}

	// What was changed on the disk is not run.
	if c, err = e.CreateFixed(t.Context(), p, CreateOptions{Name: "fixed"}); err != nil {
		t.Fatal(err)
	}
	forged := *p
	forged.Steps = nil
	for _, s := range p.Steps {
		if s.Op.Kind() != "close_range" {
			forged.Steps = append(forged.Steps, s)
		}
	}
	if err := state.WriteJSON(filepath.Join(e.dir(c.ID), replayFile), &forged); err != nil {
		t.Fatal(err)
	}
	if _, err := e.job(t.Context(), c, StartOptions{}); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "the plan is refused") {
		t.Errorf("a plan that was changed on the disk: %v", err)
	}
	if refused, err := e.Refused(t.Context(), &forged); refused == "" || err != nil {
		t.Errorf("it isn't refused: %v", err)
	}
	elsewhere := *p
	elsewhere.Arch = map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	_, err = e.CreateFixed(t.Context(), &elsewhere, CreateOptions{})
	if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "/arch") {
		t.Errorf("of another machine: %v", err)
	}
	e.facts.UID = 1000
	if _, err := e.CreateFixed(t.Context(), p, CreateOptions{}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("as an ordinary user: %v", err)
	}
}

// TestFirstDifference: where two steps differ whose sentences are the same.
func TestFirstDifference(t *testing.T) {
	a, b := &plan.WriteProc{File: "oom_score_adj", Value: "1"}, &plan.WriteProc{File: "oom_score_adj", Value: "2"}
	x, y := firstDifference(a, b)
	if !strings.Contains(x, "1") || !strings.Contains(y, "2") {
		t.Errorf("got %q and %q", x, y)
	}
	if x, y := firstDifference(a, a); x != "" || y != "" {
		t.Errorf("the same step differs: %q and %q", x, y)
	}
}
