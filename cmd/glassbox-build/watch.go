package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/moby/buildkit/executor"
	resourcestypes "github.com/moby/buildkit/executor/resources/types"
	"github.com/moby/buildkit/frontend"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"

	"glassbox/build"
	"glassbox/plan"
	"glassbox/policy"
	"glassbox/supervise"
)

// watch sees the one build of a process that was started for it: where its steps stand in the Dockerfile, what they are, and how their RUNs
// were started. Where somebody wants to be asked before each step, it asks. A nil watch sees nothing.
type watch struct {
	mu    sync.Mutex
	spots map[digest.Digest]build.Spot
	ops   map[digest.Digest]*pb.Op
	order []digest.Digest // as they came: what a step is made from comes before it
	runs  map[digest.Digest]*started

	guard  *guard     // nil: nothing is judged
	asking sync.Mutex // held while a RUN is stepped through: people answer one question at a time
	asked  *asker     // nil: nobody is
	quit   string     // why the build was ended at a question
}

// started is how a RUN was started.
type started struct {
	plan  *plan.Plan
	times *plan.Times
}

func newWatch(r *build.Request) (*watch, error) {
	w := &watch{spots: map[digest.Digest]build.Spot{}, ops: map[digest.Digest]*pb.Op{}, runs: map[digest.Digest]*started{}}
	if r.Step {
		f := os.NewFile(build.AskFD, "stops")
		w.asked = &asker{f, bufio.NewReader(f)}
	}
	if len(r.Policy) > 0 {
		p, err := policy.Parse(r.Policy)
		if err != nil {
			return nil, err
		}
		w.guard = &guard{Policy: p, own: true}
	}
	return w, nil
}

// own reports whether the build must be made in this process: one that serves others judges nothing for us, and asks nobody.
func (w *watch) own() bool { return w != nil && (w.asked != nil || w.guard != nil) }

func (w *watch) judge() *guard {
	if w == nil {
		return nil
	}
	return w.guard
}

// runStep is a RUN of a Dockerfile, as the executor has to know it.
type runStep struct {
	digest  digest.Digest
	name    string
	secrets []*pb.SecretEnv
}

// stepExecutor is the executor of one step.
type stepExecutor struct {
	*planExecutor
	step *runStep
}

// Run implements executor.Executor.
func (e *stepExecutor) Run(
	ctx context.Context, id string, root executor.Mount, mounts []executor.Mount, process executor.ProcessInfo, started chan<- struct{},
) (resourcestypes.Recorder, error) {
	return nil, e.runStep(ctx, e.step, id, root, mounts, process, started)
}

// saw notes the steps that a front end has made of a Dockerfile.
func (w *watch) saw(def *pb.Definition) {
	if w == nil || def == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, data := range def.Def {
		var op pb.Op
		if op.UnmarshalVT(data) != nil || op.Op == nil {
			continue
		}
		d := digest.FromBytes(data)
		if w.ops[d] == nil {
			w.order = append(w.order, d)
		}
		w.ops[d] = &op
		s := build.Named(def.Metadata[string(d)].GetDescription()["llb.customname"])
		s.File, s.Line, s.Last = location(def.Source, d)
		w.spots[d] = s
	}
}

// location is where a step stands in its source. A step of several lines has several ranges.
func location(src *pb.Source, step digest.Digest) (file string, first, last int) {
	for _, l := range src.GetLocations()[string(step)].GetLocations() {
		if l.SourceIndex < 0 || int(l.SourceIndex) >= len(src.Infos) {
			continue
		}
		for _, r := range l.Ranges {
			file = src.Infos[l.SourceIndex].GetFilename()
			if n := int(r.GetStart().GetLine()); first == 0 || n < first {
				first = n
			}
			last = max(last, int(r.GetEnd().GetLine()))
		}
	}
	return file, first, last
}

func (w *watch) spot(d digest.Digest) build.Spot {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.spots[d]
}

// timed notes how a RUN was started.
func (w *watch) timed(step *runStep, p *plan.Plan, t *plan.Times) {
	if w == nil || step == nil || t == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.runs[step.digest] = &started{withoutSecrets(p, step.secrets), t}
}

// begins tells that a RUN is about to be made, and asks whether to stop before its steps. over is to be called when the RUN is over.
func (w *watch) begins(ctx context.Context, step *runStep, p *plan.Plan, job *supervise.OnceJob) (over func(), err error) {
	if w == nil || w.asked == nil || step == nil {
		return func() {}, nil
	}
	w.asking.Lock()
	s := w.spot(step.digest)
	if s.Text == "" {
		s = build.Named(step.name)
	}
	a, err := w.asked.ask(ctx, &build.Stop{Spot: &s, Plan: withoutSecrets(p, step.secrets)})
	if err == nil && a.Quit != "" {
		w.quit = a.Quit
		err = errors.New(a.Quit)
	}
	if err != nil {
		w.asking.Unlock()
		return nil, err
	}
	job.Step = !a.Run
	return w.asking.Unlock, nil
}

// withoutSecrets is a plan in which variables that come from secrets have no values: what is shown of a RUN shows none.
func withoutSecrets(p *plan.Plan, secrets []*pb.SecretEnv) *plan.Plan {
	if len(secrets) == 0 {
		return p
	}
	shown := *p
	shown.Steps = slices.Clone(p.Steps)
	for i, s := range shown.Steps {
		exec, ok := s.Op.(*plan.Execve)
		if !ok {
			continue
		}
		hidden := *exec
		hidden.Env = slices.Clone(exec.Env)
		for k, v := range hidden.Env {
			name, _, _ := strings.Cut(v, "=")
			for _, secret := range secrets {
				if secret.Name == name {
					hidden.Env[k] = name + "=(the secret " + secret.ID + ")"
				}
			}
		}
		shown.Steps[i].Op = &hidden
	}
	return &shown
}

// before asks whether a step may be made.
func (w *watch) before(ctx context.Context, s *supervise.Stop) supervise.Request {
	a, err := w.asked.ask(ctx, &build.Stop{Index: s.Index, PID: s.PID})
	if err != nil || !a.Go {
		if err == nil {
			w.quit = a.Quit
		}
		return supervise.Request{Quit: true}
	}
	return supervise.Request{Go: true}
}

// asker asks whoever started this process.
type asker struct {
	socket *os.File
	in     *bufio.Reader
}

func (a *asker) ask(ctx context.Context, s *build.Stop) (*build.Answer, error) {
	if err := json.NewEncoder(a.socket).Encode(s); err != nil {
		return nil, errors.New("whoever was to allow the next step is gone")
	}
	answered := make(chan *build.Answer, 1)
	go func() {
		var answer build.Answer
		line, err := a.in.ReadBytes('\n')
		if err != nil || json.Unmarshal(line, &answer) != nil {
			answer = build.Answer{Quit: "whoever was to allow the next step is gone"}
		}
		answered <- &answer
	}()
	select {
	case answer := <-answered:
		return answer, nil
	case <-ctx.Done(): // and with it the build: nobody asks again
		return nil, context.Cause(ctx)
	}
}

// watchedFrontend lets a watch see what a front end makes.
type watchedFrontend struct {
	frontend.Frontend
	watch *watch
}

// Solve implements frontend.Frontend.
func (f *watchedFrontend) Solve(
	ctx context.Context, bridge frontend.FrontendLLBBridge, exec executor.Executor, opts map[string]string, inputs map[string]*pb.Definition,
	sid string, sm *session.Manager,
) (*frontend.Result, error) {
	if f.watch != nil {
		bridge = &watchedBridge{bridge, f.watch}
	}
	return f.Frontend.Solve(ctx, bridge, exec, opts, inputs, sid, sm)
}

type watchedBridge struct {
	frontend.FrontendLLBBridge
	watch *watch
}

// Solve implements frontend.FrontendLLBBridge.
func (b *watchedBridge) Solve(ctx context.Context, req frontend.SolveRequest, sid string) (*frontend.Result, error) {
	b.watch.saw(req.Definition)
	return b.FrontendLLBBridge.Solve(ctx, req, sid)
}
