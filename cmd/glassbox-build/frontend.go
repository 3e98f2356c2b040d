package main

import (
	"context"
	"maps"
	"strings"

	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/frontend"
	dockerfile "github.com/moby/buildkit/frontend/dockerfile/builder"
	"github.com/moby/buildkit/frontend/gateway/forwarder"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/worker"
)

func dockerfileFrontend(w worker.Infos) frontend.Frontend {
	return forwarder.NewGatewayForwarder(w, dockerfile.Build)
}

// builtIn answers for the front end images that this program has built in, `# syntax=docker/dockerfile:1` and later ones of that version:
// they are the same code, and a build needs no registry for it. All other front ends are pulled and run.
type builtIn struct {
	pulled     frontend.Frontend
	dockerfile frontend.Frontend
}

func (b *builtIn) Solve(
	ctx context.Context, bridge frontend.FrontendLLBBridge, exec executor.Executor, opts map[string]string, inputs map[string]*pb.Definition,
	sid string, sm *session.Manager,
) (*frontend.Result, error) {
	if !isBuiltIn(opts["source"]) {
		return b.pulled.Solve(ctx, bridge, exec, opts, inputs, sid, sm)
	}
	opts = maps.Clone(opts)
	if opts["cmdline"] == "" { // which keeps the front end from looking for a syntax line again
		opts["cmdline"] = opts["source"]
	}
	delete(opts, "source")
	return b.dockerfile.Solve(ctx, bridge, exec, opts, inputs, sid, sm)
}

// isBuiltIn reports whether an image is docker/dockerfile in one of the versions 1 to the one that is built in. A digest asks for exactly
// that image, and labs have what the stable version has not.
func isBuiltIn(ref string) bool {
	ref = strings.TrimPrefix(strings.TrimPrefix(ref, "docker.io/"), "index.docker.io/")
	name, tag, _ := strings.Cut(ref, ":")
	if name != "docker/dockerfile" || strings.Contains(ref, "@") {
		return false
	}
	if tag == "" || tag == "latest" || tag == "1" {
		return true
	}
	rest, ok := strings.CutPrefix(tag, "1.")
	return ok && strings.Trim(rest, "0123456789.") == ""
}

// platformBridge notes which platform a base image is wanted for: the store, which is asked for it by its name, keeps one for each.
type platformBridge struct{ frontend.FrontendLLBBridge }

type platformKey struct{}

// ResolveSourceMetadata implements sourceresolver.MetaResolver.
func (b *platformBridge) ResolveSourceMetadata(
	ctx context.Context, op *pb.SourceOp, opt sourceresolver.Opt,
) (*sourceresolver.MetaResponse, error) {
	if opt.ImageOpt != nil && opt.ImageOpt.Platform != nil {
		ctx = context.WithValue(ctx, platformKey{}, *opt.ImageOpt.Platform)
	}
	return b.FrontendLLBBridge.ResolveSourceMetadata(ctx, op, opt)
}
