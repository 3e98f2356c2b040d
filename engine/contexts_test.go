package engine

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"glassbox/container"
	"glassbox/event"
	"glassbox/image"
	"glassbox/plan"
	"glassbox/policy"
)

// takeContext are the names of a type's exported methods whose first argument is a context.
func takeContext(v any) (names []string) {
	of := reflect.TypeOf(v)
	for i := range of.NumMethod() {
		m := of.Method(i)
		if m.Type.NumIn() > 1 && m.Type.In(1) == reflect.TypeFor[context.Context]() {
			names = append(names, m.Name)
		}
	}
	return names
}

// TestContextsHonoured: a verb whose context is over does nothing, and says so. Every method that takes a context is in the table, which
// the methods themselves are compared with.
func TestContextsHonoured(t *testing.T) {
	e := opened(t)
	made(t, e, "box")
	web := create(t, e, container.Words{Name: "web"})
	p := planned(t, e, web)
	recorded(t, e, "backend")
	if _, _, err := e.CreateVolume(t.Context(), VolumeOptions{Name: "data"}); err != nil {
		t.Fatal(err)
	}
	update, err := e.Update(t.Context(), "web", fewer())
	if err != nil {
		t.Fatal(err)
	}
	live := create(t, e, container.Words{Name: "live"})
	archive, err := os.Create(filepath.Join(t.TempDir(), "archive"))
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	before := entries(t, e.containers())

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	tables := map[any]map[string]func() error{
		e: contextVerbs(ctx, t, e, p, update), e.Images(): contextImages(ctx, e, archive),
	}
	// These add to an answer, or say who uses an image: they have no error to give. To the reader of events the context is the end of the
	// list, as another one's moment would be.
	silent := []string{"Events", "ImageUsers", "InspectSize", "VolumeUsage"}
	for of, c := range tables {
		for _, name := range takeContext(of) {
			if c[name] == nil && !slices.Contains(silent, name) {
				t.Errorf("%T.%s takes a context and is not in this test", of, name)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(c)) {
			if err := c[name](); !errors.Is(err, context.Canceled) {
				t.Errorf("%T.%s: got %v, want the context's error", of, name, err)
			}
		}
	}
	if err := e.Events(ctx, EventOptions{}, func(event.Event) error { return nil }); err != nil {
		t.Errorf("events: %v", err)
	}
	if users := e.ImageUsers(ctx, "none"); len(users) == 0 {
		t.Error("an image counts as unused, though nobody has looked to the end")
	}
	for name, c := range map[string]*container.Container{"web": web, "live": live} {
		if got, _, err := e.load(t.Context(), name); err != nil || got.ID != c.ID {
			t.Errorf("the container %s after all: %v, %v", name, got, err)
		}
	}
	if after := entries(t, e.containers()); !slices.Equal(before, after) {
		t.Errorf("containers: %v, want %v", after, before)
	}
	if v, err := e.Volumes(t.Context(), nil); err != nil || len(v) != 1 || v[0].Name != "data" {
		t.Errorf("volumes: %v, %v", v, err)
	}
	if n, err := e.NetworkList(t.Context(), []string{"type=custom"}); err != nil || len(n) != 1 {
		t.Errorf("networks: %v, %v", n, err)
	}
	if l, err := e.ListImages(t.Context(), nil); err != nil || len(l) != 1 || strings.Join(l[0].RepoTags, " ") != "box:latest" {
		t.Errorf("images: %v, %v", l, err)
	}
}

// contextVerbs calls each verb of an engine that has a container web, a network backend and a volume data.
func contextVerbs(ctx context.Context, t *testing.T, e *Engine, p *plan.Plan, update *Update) map[string]func() error {
	var gone Pruned
	dir := t.TempDir()
	return map[string]func() error{
		"Apply":        func() error { return e.Apply(ctx, update) },
		"Archive":      func() error { return e.Archive(ctx, "web", "/", io.Discard, CopyOptions{}) },
		"Attach":       func() error { _, err := e.Attach(ctx, "web", AttachOptions{}); return err },
		"Autostart":    func() error { return e.Autostart(ctx, func(string, error) {}) },
		"Check":        func() error { _, err := e.Check(ctx, image.CheckOptions{}); return err },
		"Commit":       func() error { _, err := e.Commit(ctx, "web", CommitOptions{}); return err },
		"CopyFrom":     func() error { _, err := e.CopyFrom(ctx, "web", "/bin", dir, CopyOptions{}); return err },
		"CopyTo":       func() error { _, err := e.CopyTo(ctx, "web", "/bin/true", "/x", CopyOptions{}); return err },
		"Create":       func() error { _, err := e.Create(ctx, CreateOptions{Name: "db"}); return err },
		"CreateFixed":  func() error { _, err := e.CreateFixed(ctx, p, CreateOptions{Name: "db"}); return err },
		"CreateVolume": func() error { _, _, err := e.CreateVolume(ctx, VolumeOptions{Name: "more"}); return err },
		"Debug":        func() error { _, err := e.Debug(ctx, "web", DebugOptions{}); return err },
		"DebugStop":    func() error { _, err := e.DebugStop(ctx, &Stop{}, DebugOptions{}); return err },
		"Diff":         func() error { _, err := e.Diff(ctx, "web"); return err },
		"DiskUsage":    func() error { _, err := e.DiskUsage(ctx); return err },
		"Exec":         func() error { _, err := e.Exec(ctx, "web", ExecOptions{Command: []string{"x"}}); return err },
		"Export":       func() error { return e.Export(ctx, "web", io.Discard) },
		"Extract": func() error {
			_, err := e.Extract(ctx, "web", "/", bytes.NewReader(nil), CopyOptions{})
			return err
		},
		"Facts":             func() error { _, err := e.Facts(ctx); return err },
		"Info":              func() error { _, err := e.Info(ctx, "1"); return err },
		"Ask":               func() error { _, err := e.Ask(ctx, &policy.Policy{}, &container.Config{Image: "box"}); return err },
		"OwnVolume":         func() error { _, err := e.OwnVolume(ctx, &policy.Policy{}, "data"); return err },
		"Config":            func() error { _, err := e.Config(ctx, "web"); return err },
		"Inspect":           func() error { _, err := e.Inspect(ctx, "web"); return err },
		"InspectImage":      func() error { _, err := e.InspectImage(ctx, "box", image.Platform{}); return err },
		"Kill":              func() error { return e.Kill(ctx, "web", "") },
		"Life":              func() error { _, err := e.Life(ctx, "web"); return err },
		"List":              func() error { _, err := e.List(ctx, ListOptions{All: true}); return err },
		"ListImages":        func() error { _, err := e.ListImages(ctx, nil); return err },
		"Live":              func() error { _, err := e.Live(ctx, "web"); return err },
		"Logs":              func() error { return e.Logs(ctx, "web", LogOptions{}, io.Discard, io.Discard) },
		"NetworkConnect":    func() error { return e.NetworkConnect(ctx, "backend", "web", ConnectOptions{}) },
		"NetworkCreate":     func() error { _, err := e.NetworkCreate(ctx, NetworkOptions{Name: "other"}); return err },
		"NetworkDisconnect": func() error { return e.NetworkDisconnect(ctx, "backend", "web", false) },
		"NetworkEgress":     func() error { _, err := e.NetworkEgress(ctx, "backend"); return err },
		"NetworkMap":        func() error { _, err := e.NetworkMap(ctx); return err },
		"NetworkExplain":    func() error { _, err := e.NetworkExplain(ctx, PacketQuestion{From: "host", To: "web:80"}); return err },
		"NetworkInspect":    func() error { _, err := e.NetworkInspect(ctx, "backend"); return err },
		"NetworkList":       func() error { _, err := e.NetworkList(ctx, nil); return err },
		"NetworkRemove":     func() error { return e.NetworkRemove(ctx, "backend") },
		"Pause":             func() error { return e.Pause(ctx, "web") },
		"Plan":              func() error { _, err := e.Plan(ctx, options(t, container.Words{})); return err },
		"PlanBundle":        func() error { _, err := e.PlanBundle(ctx, dir); return err },
		"PruneAnonymous":    func() error { return e.PruneAnonymous(ctx, nil, &gone) },
		"PruneContainers":   func() error { return e.PruneContainers(ctx, nil, &gone) },
		"PruneImages":       func() error { return e.PruneImages(ctx, true, nil, &gone) },
		"PruneNetworks":     func() error { return e.PruneNetworks(ctx, nil, &gone) },
		"PruneVolumes":      func() error { _, _, err := e.PruneVolumes(ctx, PruneVolumesOptions{All: true}); return err },
		"Refused":           func() error { _, err := e.Refused(ctx, p); return err },
		"Remove":            func() error { return e.Remove(ctx, "web", RemoveOptions{}) },
		"RemoveVolume":      func() error { return e.RemoveVolume(ctx, "data") },
		"Rename":            func() error { return e.Rename(ctx, "web", "db") },
		"Restart":           func() error { return e.Restart(ctx, "web", nil, "") },
		"StatPath":          func() error { _, err := e.StatPath(ctx, "web", "/"); return err },
		"Start":             func() error { _, err := e.Start(ctx, "web", StartOptions{}); return err },
		"Stats":             func() error { _, err := e.Stats(ctx, "web", nil); return err },
		"Stop":              func() error { return e.Stop(ctx, "web", nil, "") },
		"StopAll":           func() error { return e.StopAll(ctx, func(string, error) {}) },
		"Subject":           func() error { _, err := e.Subject(ctx, "container:web"); return err },
		"Top":               func() error { _, err := e.Top(ctx, "web", nil); return err },
		"Unpause":           func() error { return e.Unpause(ctx, "web") },
		"Update":            func() error { _, err := e.Update(ctx, "web", fewer()); return err },
		"Volume":            func() error { _, err := e.Volume(ctx, "data"); return err },
		"Volumes":           func() error { _, err := e.Volumes(ctx, nil); return err },
		"Wait":              func() error { _, err := e.Wait(ctx, "web", ""); return err },
		"Meter.Read":        func() error { _, err := e.Meter(nil, true).Read(ctx); return err },
	}
}

// contextImages calls each method of the store of images, which has box.
func contextImages(ctx context.Context, e *Engine, archive *os.File) map[string]func() error {
	return map[string]func() error{
		"Add":    func() error { _, err := e.Images().Add(ctx, image.AddOptions{}); return err },
		"Check":  func() error { _, err := e.Images().Check(ctx, image.CheckOptions{}); return err },
		"Commit": func() error { _, err := e.Images().Commit(ctx, image.CommitOptions{}); return err },
		"FromHost": func() error {
			_, err := e.Images().FromHost(ctx, "b", image.FromHostOptions{Files: []string{"/bin/true"}})
			return err
		},
		"Import": func() error {
			_, err := e.Images().Import(ctx, bytes.NewReader(nil), image.ImportOptions{})
			return err
		},
		"Load": func() error { _, err := e.Images().Load(ctx, archive, image.LoadOptions{}); return err },
		"Pull": func() error { _, err := e.Images().Pull(ctx, "b", image.PullOptions{}); return err },
		"Push": func() error { _, err := e.Images().Push(ctx, "box", image.PullOptions{}); return err },
		"Save": func() error { return e.Images().Save(ctx, io.Discard, []string{"box"}, image.SaveOptions{}) },
	}
}
