package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/patternmatcher/ignorefile"
	digest "github.com/opencontainers/go-digest"
	"github.com/tonistiigi/fsutil"

	"glassbox/build"
	"glassbox/image"
)

// explainBuild says what a build would do, without doing any of it. It needs no rights but to read the Dockerfile and the context.
func explainBuild(ctx context.Context, p place, r *build.Request) error {
	e, err := explanation(ctx, p, r)
	if err != nil {
		var loc *parser.LocationError
		if errors.As(err, &loc) && len(loc.Locations) > 0 && len(loc.Locations[0]) > 0 {
			return fmt.Errorf("line %d: %w", loc.Locations[0][0].Start.Line, err)
		}
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(e)
}

func explanation(ctx context.Context, p place, r *build.Request) (*build.Explanation, error) {
	o := &client.SolveOpt{FrontendAttrs: map[string]string{}}
	in, err := openContext(r, o)
	if err != nil {
		return nil, err
	}
	defer in.close()
	dir, ok := o.LocalMounts["dockerfile"]
	if !ok {
		return nil, errors.New("explain build reads a Dockerfile in a directory, or from standard input: a context that is an archive or a URL " +
			"is only known when it has been fetched")
	}
	name := o.FrontendAttrs["filename"]
	text, err := readAll(dir, name)
	if err != nil {
		return nil, err
	}
	images, err := image.Open(p.Root)
	if err != nil {
		return nil, err
	}
	x := &explainer{place: p, images: images, e: &build.Explanation{Dockerfile: filepath.Join(filepath.Base(r.Context), name)}}
	if x.ignore, err = readAll(dir, name+".dockerignore"); err != nil { // it comes before the context's
		x.ignore = nil
	}
	if err := x.stages(text, r); err != nil {
		return nil, err
	}
	main := llb.Local("context", llb.WithCustomName("[internal] load build context"))
	platform := platforms.Normalize(platforms.DefaultSpec())
	config := dockerui.Config{BuildArgs: r.Args, Labels: r.Labels, Target: r.Target, ShmSize: r.ShmSize, CgroupParent: r.CgroupParent}
	config.NetworkMode = map[string]pb.NetMode{"none": pb.NetMode_NONE, "host": pb.NetMode_HOST}[r.Network]
	if config.BuildArgs == nil {
		config.BuildArgs = map[string]string{}
	}
	config.BuildPlatforms = append(config.BuildPlatforms, platform)
	res, err := dockerfile2llb.Dockerfile2LLB(ctx, text, dockerfile2llb.ConvertOpt{
		Config: config, MainContext: &main, SourceMap: llb.NewSourceMap(nil, name, "Dockerfile", text),
		TargetPlatform: &platform, MetaResolver: x,
	})
	if err != nil {
		return nil, err
	}
	def, err := res.State.Marshal(ctx, llb.Platform(platform))
	if err != nil {
		return nil, err
	}
	if err := x.steps(ctx, def, o.LocalMounts["context"]); err != nil {
		return nil, err
	}
	return x.e, nil
}

func readAll(dir fsutil.FS, name string) ([]byte, error) {
	f, err := dir.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var b bytes.Buffer
	_, err = b.ReadFrom(f)
	return b.Bytes(), err
}

// explainer writes an explanation.
type explainer struct {
	place
	images *image.Store
	e      *build.Explanation
	number map[digest.Digest]int // of the step that an operation became
	ignore []byte                // the text of the Dockerfile's own .dockerignore; nil: there is none
}

// stages lists the stages of a Dockerfile, and which of them the target needs.
func (x *explainer) stages(text []byte, r *build.Request) error {
	parsed, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		return err
	}
	list, _, err := instructions.Parse(parsed.AST, nil)
	if err != nil {
		return err
	}
	at := map[string]int{}
	for n, s := range list {
		st := build.Stage{Name: s.Name, Base: s.BaseName}
		if st.Name == "" {
			st.Name = strconv.Itoa(n)
		}
		if len(s.Location) > 0 {
			st.Line = s.Location[0].Start.Line
		}
		for _, c := range s.Commands {
			from := ""
			switch c := c.(type) {
			case *instructions.CopyCommand:
				from = c.From
			case *instructions.RunCommand:
				for _, m := range instructions.GetMounts(c) {
					if m.From != "" && !slices.Contains(st.Uses, m.From) {
						st.Uses = append(st.Uses, m.From)
					}
				}
			}
			if from != "" && !slices.Contains(st.Uses, from) {
				st.Uses = append(st.Uses, from)
			}
		}
		x.e.Stages = append(x.e.Stages, st)
		at[strings.ToLower(st.Name)], at[strconv.Itoa(n)] = n, n
	}
	target := len(list) - 1
	if r.Target != "" {
		n, ok := at[strings.ToLower(r.Target)]
		if !ok {
			return fmt.Errorf("target stage %q could not be found", r.Target)
		}
		target = n
	}
	if target < 0 {
		return errors.New("the Dockerfile has no stage: it begins with FROM")
	}
	x.e.Stages[target].Target = true
	var need func(n int)
	need = func(n int) {
		if x.e.Stages[n].Needed {
			return
		}
		x.e.Stages[n].Needed = true
		for _, name := range append(slices.Clone(x.e.Stages[n].Uses), x.e.Stages[n].Base) {
			// A name stands for a stage only where that comes before: a later one of the name of an image isn't it yet.
			if m, ok := at[strings.ToLower(name)]; ok && m < n {
				need(m)
			}
		}
	}
	need(target)
	return nil
}

// ResolveImageConfig answers for images that are here. Of others nothing is known before a registry is asked, which explain doesn't do.
func (x *explainer) ResolveImageConfig(_ context.Context, ref string, _ sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	short := strings.TrimPrefix(strings.TrimPrefix(ref, "docker.io/"), "library/")
	i, err := x.images.Resolve(ref)
	if err != nil {
		if x.image(short, "") {
			x.e.Notes = append(x.e.Notes, short+" is not here: its environment, user and working directory are taken as empty")
		}
		p := platforms.DefaultSpec()
		text, err := json.Marshal(map[string]any{"os": p.OS, "architecture": p.Architecture, "config": map[string]any{}})
		return ref, "", text, err
	}
	x.image(short, i.ID)
	return ref, "", i.RawConfig, nil
}

// image lists an image, once.
func (x *explainer) image(ref, id string) (added bool) {
	if slices.ContainsFunc(x.e.Sources, func(s build.Source) bool { return s.Kind == "image" && s.Ref == ref }) {
		return false
	}
	x.e.Sources = append(x.e.Sources, build.Source{Kind: "image", Ref: ref, ID: id})
	return true
}

// steps lists the operations of a definition, with a plan for each RUN.
func (x *explainer) steps(ctx context.Context, def *llb.Definition, dir fsutil.FS) error {
	x.number = map[digest.Digest]int{}
	uses := false
	exec, err := newPlanner(x.place)
	if err != nil {
		return err
	}
	for _, text := range def.Def {
		var op pb.Op
		if err := op.UnmarshalVT(text); err != nil {
			return err
		}
		dgst := digest.FromBytes(text)
		if op.Op == nil { // the end, which only names the last one
			continue
		}
		s := build.Step{Number: len(x.e.Steps) + 1, Name: def.Metadata[dgst].Description["llb.customname"]}
		_, s.Line, _ = location(def.Source, dgst)
		for _, in := range op.Inputs {
			if n := x.number[digest.Digest(in.Digest)]; n > 0 && !slices.Contains(s.Inputs, n) {
				s.Inputs = append(s.Inputs, n)
			}
		}
		switch o := op.Op.(type) {
		case *pb.Op_Source:
			s.Kind = "source"
			if s.Name == "" {
				s.Name = "FROM " + strings.TrimPrefix(o.Source.Identifier, "docker-image://")
			}
			uses = uses || o.Source.Identifier == "local://context"
			x.source(o.Source.Identifier)
		case *pb.Op_File:
			s.Kind = "file"
			s.Reads = fileReads(o.File, op.Inputs, def)
		case *pb.Op_Exec:
			s.Kind = "run"
			if s.Run, err = exec.run(ctx, o.Exec, s.Inputs); err != nil {
				return fmt.Errorf("%s: %w", s.Name, err)
			}
			s.Reads = runReads(o.Exec, op.Inputs, def)
			uses = uses || s.Reads != nil
		default:
			s.Kind = "merge"
		}
		if s.Name == "" {
			s.Name = s.Kind
		}
		x.number[dgst] = s.Number
		x.e.Steps = append(x.e.Steps, s)
	}
	if uses && dir != nil {
		return x.context(ctx, dir)
	}
	return nil
}

// runReads is what of the build context a RUN has mounted.
func runReads(op *pb.ExecOp, inputs []*pb.Input, def *llb.Definition) *build.Reads {
	var paths []string
	for _, m := range op.Mounts {
		if m.Input >= 0 && int(m.Input) < len(inputs) && isContext(inputs[m.Input], def) {
			paths = append(paths, readPath(m.Selector))
		}
	}
	return reads(paths)
}

// fileReads is what a COPY or ADD takes of the context.
func fileReads(op *pb.FileOp, inputs []*pb.Input, def *llb.Definition) *build.Reads {
	var paths []string
	for _, a := range op.Actions {
		c := a.GetCopy()
		if c != nil && a.SecondaryInput >= 0 && int(a.SecondaryInput) < len(inputs) && isContext(inputs[a.SecondaryInput], def) {
			paths = append(paths, readPath(c.Src))
		}
	}
	return reads(paths)
}

func reads(paths []string) *build.Reads {
	if len(paths) == 0 {
		return nil
	}
	return &build.Reads{Paths: paths}
}

// readPath is a path of the context as people write it.
func readPath(name string) string { return cmpOr(strings.TrimPrefix(name, "/"), ".") }

func isContext(in *pb.Input, def *llb.Definition) bool {
	for _, text := range def.Def {
		var op pb.Op
		if digest.FromBytes(text) == digest.Digest(in.Digest) && op.UnmarshalVT(text) == nil {
			return op.GetSource().GetIdentifier() == "local://context"
		}
	}
	return false
}

func (x *explainer) source(id string) {
	kind, ref, ok := strings.Cut(id, "://")
	if !ok || kind == "docker-image" || id == "local://context" {
		return // told otherwise
	}
	x.e.Sources = append(x.e.Sources, build.Source{Kind: kind, Ref: ref})
}

// context counts what would be sent of the context, and what each step reads of that.
func (x *explainer) context(ctx context.Context, dir fsutil.FS) error {
	src := build.Source{Kind: "context", Ref: "."}
	opt := &fsutil.FilterOpt{}
	name, text := "the Dockerfile's .dockerignore", x.ignore
	if text == nil {
		name = ".dockerignore"
		text, _ = readAll(dir, name)
	}
	var err error
	if opt.ExcludePatterns, err = ignorefile.ReadAll(bytes.NewReader(text)); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	var readers []*build.Reads
	for _, s := range x.e.Steps {
		if s.Reads == nil {
			continue
		}
		readers = append(readers, s.Reads)
		for _, path := range s.Reads.Paths {
			if !slices.Contains(src.Paths, path) {
				src.Paths = append(src.Paths, path)
			}
		}
	}
	if len(src.Paths) == 0 {
		src.Paths = []string{"."}
	}
	if !slices.Contains(src.Paths, ".") {
		opt.FollowPaths = src.Paths
	}
	filtered, err := fsutil.NewFilterFS(dir, opt)
	if err != nil {
		return err
	}
	err = filtered.Walk(ctx, "/", func(path string, d iofs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil || !info.Mode().IsRegular() {
			return nil
		}
		src.Files++
		src.Bytes += info.Size()
		for _, r := range readers {
			r.Count(filepath.ToSlash(path), info.Size())
		}
		return nil
	})
	x.e.Sources = append(x.e.Sources, src)
	return err
}
