package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"glassbox/bundle"
	"glassbox/container"
	"glassbox/host"
	"glassbox/oci"
	"glassbox/plan"
	"glassbox/supervise"
)

// A Subject is something with a plan: a container, a bundle, an image, a file.
type Subject struct {
	Plan      *plan.Plan
	Kind      string // container, bundle, image, plan
	Name      string
	Container *container.Container // of kind container
	Times     *plan.Times          // of its last start; nil if they aren't known
	Refused   string               // of kind plan: why it would not be run here
}

// rootFacts are the facts of this host for root: plans are what root would run.
func (e *Engine) rootFacts(ctx context.Context) (*host.Facts, error) {
	known, err := e.Facts(ctx)
	if err != nil {
		return nil, err
	}
	facts := *known
	if facts.UID != 0 {
		facts.UID, facts.GID, facts.Caps = 0, 0, 1<<(facts.LastCap+1)-1
	}
	return &facts, nil
}

// PlanBundle returns the plan by which glassbox-runtime runs an OCI bundle: a directory with config.json, or that file itself, which may be
// from another machine. Nothing is written.
func (e *Engine) PlanBundle(ctx context.Context, name string) (*plan.Plan, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	dir, spec, err := readBundle(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, notFound("%w", err)
	}
	if err != nil {
		return nil, invalid("%w", err)
	}
	facts, err := e.rootFacts(ctx)
	if err != nil {
		return nil, err
	}
	// Only a place in cgroup paths and directories comes from it: the caller of a runtime would have chosen the id.
	p, err := bundle.Plan(filepath.Base(dir), dir, spec, facts) // were the directory's name the container's id
	if err != nil {
		return nil, invalid("%s: %w", name, err)
	}
	return p, nil
}

func readBundle(name string) (dir string, spec *specs.Spec, err error) {
	if dir, err = filepath.Abs(name); err != nil {
		return "", nil, err
	}
	if st, err := os.Stat(name); err != nil || st.IsDir() {
		spec, _, err := oci.Read(name)
		return dir, spec, err
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return "", nil, err
	}
	if spec, _, err = oci.Parse(data); err == nil {
		_, err = oci.Validate(spec)
	}
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", name, err)
	}
	dir = filepath.Dir(dir)
	oci.Complete(spec, dir)
	return dir, spec, nil
}

// ReadPlanFile reads a stored plan. One that another version made, or that is only half understood, is refused.
func ReadPlanFile(path string) (*plan.Plan, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parsePlan(path, data)
}

func parsePlan(path string, data []byte) (*plan.Plan, error) {
	// The version first: a newer plan may have steps that make no sense here, and that is not what is wrong with it.
	var head struct {
		Version *int   `json:"version"`
		Arch    string `json:"arch"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, invalid("%s: it is no plan: %w", path, err)
	}
	switch {
	case head.Version == nil:
		return nil, invalid("%s: it is no plan: /version is missing (glassbox explain --format json writes one)", path)
	case *head.Version != plan.Version:
		return nil, unsupported("%s: /version: the plan is of version %d, this glassbox understands version %d", path, *head.Version,
			plan.Version)
	}
	var p plan.Plan
	if err := json.Unmarshal(data, &p); err != nil {
		return nil, invalid("%s: %w", path, err)
	}
	// A plan for another machine can be read here, but not one whose filter and numbers nobody here can tell.
	if p.Arch != "amd64" && p.Arch != "arm64" {
		return nil, unsupported("%s: /arch: the plan is for %q, glassbox knows amd64 and arm64", path, p.Arch)
	}
	if err := p.Validate(); err != nil {
		return nil, invalid("%s: it can't be run: %w", path, err)
	}
	return &p, nil
}

// Subject finds out what a name stands for and returns its plan: a file (a plan, or an OCI config.json), the directory of a
// bundle, a container, an image. A word before a colon decides where a name could be several: container:web, image:web,
// bundle:dir, plan:file.
func (e *Engine) Subject(ctx context.Context, ref string) (*Subject, error) {
	kind, name := "", ref
	if before, after, ok := strings.Cut(ref, ":"); ok && slices.Contains([]string{"container", "image", "bundle", "plan"}, before) {
		kind, name = before, after
	}
	// A name with a slash, or of a JSON file, is a path. Any other may be a container's or an image's, though a file of
	// that name lies here by chance.
	if st, err := os.Stat(name); err == nil && (kind == "" || kind == "bundle" || kind == "plan") &&
		(kind != "" || strings.Contains(name, "/") || strings.HasSuffix(name, ".json") || name == ".") {
		if st.IsDir() {
			p, err := e.PlanBundle(ctx, name)
			return &Subject{Plan: p, Kind: "bundle", Name: name}, err
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		var head struct {
			OCI string `json:"ociVersion"`
		}
		if json.Unmarshal(data, &head) == nil && head.OCI != "" {
			p, err := e.PlanBundle(ctx, name)
			return &Subject{Plan: p, Kind: "bundle", Name: name}, err
		}
		p, err := parsePlan(name, data)
		if err != nil {
			return nil, err
		}
		refused, err := e.Refused(ctx, p)
		return &Subject{Plan: p, Kind: "plan", Name: name, Refused: refused}, err
	} else if kind == "bundle" || kind == "plan" {
		return nil, notFound("%s: %v", name, errOf(err))
	}
	if kind == "" || kind == "container" {
		id, err := e.find(ctx, name)
		if err == nil {
			return e.containerSubject(ctx, id, name)
		}
		if kind == "container" || !errors.Is(err, ErrNotFound) {
			return nil, err
		}
	}
	// Not looked up first: the error of a plan says what is wrong with an image, and "no such image" is one of them.
	p, err := e.Plan(ctx, CreateOptions{Config: container.Config{Image: name}})
	if err != nil && kind == "" {
		return nil, notFound("%s: there is no such container, image, bundle or plan: %w", name, err)
	}
	return &Subject{Plan: p, Kind: "image", Name: name}, err
}

// containerSubject is a container with the plan of its last start or, if there was none yet, with that of its first.
func (e *Engine) containerSubject(ctx context.Context, id, name string) (*Subject, error) {
	c, state, err := e.loadID(id)
	if err != nil {
		return nil, err
	}
	p, err := supervise.ReadPlan(e.dir(id))
	switch {
	case os.IsNotExist(err) && c.Fixed:
		p, err = ReadPlanFile(filepath.Join(e.dir(id), replayFile))
	case os.IsNotExist(err):
		if p, err = e.planned(ctx, c); err != nil {
			return nil, fmt.Errorf("container %s has never been started, and its first start would fail: %w", name, err)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("the plan of container %s: %w", name, err)
	}
	s := &Subject{Plan: p, Kind: "container", Name: c.Name, Container: c}
	if state.Times.Fits(p) && e.ran(id) {
		s.Times = state.Times
	}
	return s, nil
}

// ran reports whether a container's state is of the same start as its plan, which is written first.
func (e *Engine) ran(id string) bool {
	made, err := os.Stat(filepath.Join(e.dir(id), supervise.PlanFile))
	if err != nil {
		return false
	}
	told, err := os.Stat(filepath.Join(e.dir(id), supervise.StateFile))
	return err == nil && !told.ModTime().Before(made.ModTime())
}

// Live is a container that runs, with the plan that it was started with.
type Live struct {
	ID, Name string
	PID      int
	Start    uint64 // start time of PID (see plan.OpenPid)
	Plan     *plan.Plan
}

// Live finds a container that runs, or is paused.
func (e *Engine) Live(ctx context.Context, ref string) (*Live, error) {
	c, s, err := e.running(ctx, ref)
	if err != nil {
		return nil, err
	}
	p, err := supervise.ReadPlan(e.dir(c.ID))
	if err != nil {
		return nil, fmt.Errorf("the plan of container %s: %w", c.Name, err)
	}
	return &Live{ID: c.ID, Name: c.Name, PID: s.PID, Start: s.Start, Plan: p}, nil
}
