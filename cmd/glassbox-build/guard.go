package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/frontend"
	gatewayapi "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"glassbox/build"
	"glassbox/policy"
)

// guard is the policy of the socket through which a client speaks to the builder. All of BuildKit's API that it leaves in is judged: a
// build by its steps in BuildKit's low-level form, in which all ways to write one have become one, when a client sends them and when a
// front end has made them of a Dockerfile.
type guard struct {
	*policy.Policy
	own      bool // it is that of a command line, and of no socket
	sessions *sessions
	here     func(ref string) bool // whether an image is on this machine
	told     func(refusal string)  // nil: nobody listens
}

// guardKey is where the context of a call has its guard.
type guardKey struct{}

// with puts a guard into the context of a call. All that a call leads to in this process gets that context, front ends too, for as long as
// it goes on.
func (g *guard) with(ctx context.Context) context.Context {
	return context.WithValue(ctx, guardKey{}, g)
}

// guarding is the guard of a call; nil: it came by a socket that has none.
func guarding(ctx context.Context) *guard {
	g, _ := ctx.Value(guardKey{}).(*guard)
	return g
}

const imageScheme = "docker-image://"

// guardOf reads the policy that the API's server has put into a request; nil: the socket has none. That there is none has to be said, so
// that a header that is lost on the way gives nothing away.
func (f *face) guardOf(r *http.Request) (*guard, error) {
	text := r.Header.Get(build.PolicyHeader)
	switch text {
	case "":
		return nil, &httpError{http.StatusForbidden, "the request doesn't say whether its socket has a policy"}
	case build.NoPolicy:
		return nil, nil
	}
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("the socket's policy: %w", err)
	}
	p, err := policy.Parse(data)
	if err != nil {
		return nil, err
	}
	return f.b.guard(&guard{Policy: p, told: f.watched.teller(r.Header.Get(build.WatchHeader))}), nil
}

// longest is how much of a refusal is told: a name in it can have as many bytes as a message.
const longest = 1000

// refuse is a refusal in the words that the API's server uses.
func (g *guard) refuse(format string, a ...any) error {
	why := fmt.Sprintf(format, a...)
	if len(why) > longest {
		why = strings.ToValidUTF8(why[:longest], "") + "…"
	}
	if g.told != nil {
		g.told(why)
	}
	whose := " of this socket"
	if g.own {
		whose = ""
	}
	return status.Errorf(codes.PermissionDenied, "the policy %s%s doesn't allow it: %s", g.Name, whose, why)
}

// sessionMethod opens a session.
const sessionMethod = "/moby.buildkit.v1.Control/Session"

// guardedMethods are those that a client of a guarded socket may call. What others build, what the cache has and what was built before are
// not its affair; containers of front ends (NewContainer) are RUNs that nobody has judged.
func guardedMethods() []string {
	const control, gateway = "/moby.buildkit.v1.Control/", "/moby.buildkit.v1.frontend.LLBBridge/"
	return []string{
		control + "Solve", control + "Status", sessionMethod, control + "ListWorkers", control + "Info",
		gateway + "ResolveImageConfig", gateway + "ResolveSourceMeta", gateway + "Solve", gateway + "ReadFile", gateway + "ReadDir",
		gateway + "StatFile", gateway + "Evaluate", gateway + "Ping", gateway + "Return", gateway + "Inputs", gateway + "Warn",
		"/grpc.health.v1.Health/Check", "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
	}
}

// unary judges a call.
func (g *guard) unary(req any, method string) error {
	if !slices.Contains(guardedMethods(), method) {
		return g.refuse("%s is not among its requests", method)
	}
	switch r := req.(type) {
	case *controlapi.SolveRequest:
		// The front end runs in this process, and is known by the session alone: without one its steps would find no guard.
		if r.Session == "" {
			return g.refuse("a build without a session")
		}
		if err := g.session(r.Session); err != nil {
			return err
		}
		return g.solve(r)
	case *gatewayapi.SolveRequest:
		if len(r.SourcePolicies) > 0 {
			return g.refuse("source policies: they can exchange what was judged")
		}
		for _, c := range r.CacheImports {
			if err := g.cacheFrom(c.GetType()); err != nil {
				return err
			}
		}
		return g.frontend(r.Frontend, r.FrontendOpt, r.FrontendInputs, r.Definition)
	case *gatewayapi.ResolveImageConfigRequest:
		if len(r.SourcePolicies) > 0 {
			return g.refuse("source policies: they can exchange what was judged")
		}
		return g.source(imageScheme+strings.TrimPrefix(r.Ref, imageScheme), nil, r.ResolveMode)
	case *gatewayapi.ResolveSourceMetaRequest:
		if len(r.SourcePolicies) > 0 {
			return g.refuse("source policies: they can exchange what was judged")
		}
		return g.source(r.GetSource().GetIdentifier(), r.GetSource().GetAttrs(), r.ResolveMode)
	}
	return nil
}

// solve judges what a build as a whole asks for; nil judges nothing.
func (g *guard) solve(r *controlapi.SolveRequest) error {
	if g == nil {
		return nil
	}
	if !g.Allows(policy.Build) {
		return g.refuse("build is not among its requests")
	}
	switch {
	case len(r.Entitlements) > 0:
		return g.refuse("--allow %s: a build gets no further rights", strings.Join(r.Entitlements, ","))
	case r.SourcePolicy != nil || r.SourcePolicySession != "":
		return g.refuse("source policies: they can exchange what was judged")
	case r.EnableSessionExporter || r.ProxyNetwork:
		return g.refuse("exporters of the session, and networks through a proxy")
	}
	if c := r.Cache; c != nil {
		if c.ExportRefDeprecated != "" || len(c.ImportRefsDeprecated) > 0 {
			return g.refuse("caches in registries")
		}
		for _, e := range c.Exports {
			if err := g.cacheTo(e.GetType()); err != nil {
				return err
			}
		}
		for _, e := range c.Imports {
			if err := g.cacheFrom(e.GetType()); err != nil {
				return err
			}
		}
	}
	if r.ExporterDeprecated != "" { // which clients say beside the same in Exporters
		if err := g.export(r.ExporterDeprecated, r.ExporterAttrsDeprecated); err != nil {
			return err
		}
	}
	for _, e := range r.Exporters {
		if err := g.export(e.GetType(), e.GetAttrs()); err != nil {
			return err
		}
	}
	return g.frontend(r.Frontend, r.FrontendAttrs, r.FrontendInputs, r.Definition)
}

// cacheTo judges where a cache goes beside the builder's own: into the client's hands, or into the image.
func (g *guard) cacheTo(kind string) error {
	if kind != "inline" && kind != "local" {
		return g.refuse("--cache-to type=%s: allowed are inline and local", kind)
	}
	return nil
}

// cacheFrom refuses caches beside the builder's own. What one says that a step has made becomes part of the builder's cache: others would
// get a client's files as what their own steps have made.
func (g *guard) cacheFrom(kind string) error {
	return g.refuse("--cache-from type=%s: what it says that a step made would be believed in builds of others, too", kind)
}

// export judges where the result goes: to the client itself, or into the store under names that are allowed.
func (g *guard) export(kind string, attrs map[string]string) error {
	switch kind {
	case "local", "tar", "oci", "docker": // which the client's session gets
		return nil
	case exporterStore:
	default:
		return g.refuse("an output of type %s", kind)
	}
	if on, err := strconv.ParseBool(attrs["push"]); attrs["push"] != "" && (err != nil || on) {
		return g.refuse("--push: images are not given away")
	}
	for name := range strings.SplitSeq(attrs["name"], ",") {
		if name != "" && !g.AllowsTag(policy.ImageNames(name)...) {
			return g.refuse("-t %s: names that builds may give are %s", name, g.TagsText())
		}
	}
	return nil
}

// frontend judges which front end makes the steps, and steps that the client has made itself.
func (g *guard) frontend(name string, opts map[string]string, inputs map[string]*pb.Definition, def *pb.Definition) error {
	switch {
	case name == "" || name == "dockerfile.v0":
	case name == "gateway.v0" && isBuiltIn(opts["source"]):
	default:
		return g.refuse("the front end %s %s: it would be a program that nobody has judged", name, opts["source"])
	}
	// In order, so that one build is refused with the same words each time.
	for _, key := range slices.Sorted(maps.Keys(opts)) {
		value := opts[key]
		switch {
		case key == "cgroup-parent" && value != "":
			return g.refuse("--cgroup-parent %s: the place of its cgroup can't be chosen", value)
		case key == "force-network-mode" && value != "none" && value != "sandbox" && value != "default" && value != "":
			return g.refuse("--network %s: the host's network is not allowed", value)
		case strings.HasPrefix(key, "attest:") && key != "attest:provenance":
			return g.refuse("--attest %s: it would run a program that nobody has judged", strings.TrimPrefix(key, "attest:"))
		case key == "image-resolve-mode" && value == "pull" && !g.Allows(policy.Pull):
			return g.refuse("--pull: pull is not among its requests")
		case key == "context" && !strings.HasPrefix(value, uploaded) && strings.Contains(value, "://"):
			return g.refuse("the context %.200s: the host would fetch it", value)
		}
	}
	for _, d := range inputs {
		if err := g.judge(d); err != nil {
			return err
		}
	}
	return g.judge(def)
}

// uploaded is where a context is that a client has sent (BuildKit's package uploadprovider).
const uploaded = "http://buildkit-session/"

// source judges what a step begins with; mode is how an image is looked for.
func (g *guard) source(id string, attrs map[string]string, mode string) error {
	scheme, rest, ok := strings.Cut(id, "://")
	switch {
	case !ok:
		return g.refuse("the source %.200q", id)
	case scheme == "local": // the client's own files
		of := attrs[pb.AttrLocalSessionID]
		if name, id, ok := strings.Cut(of, ":"); ok && name != "" { // the name parts contexts of one session
			of = id
		}
		if of == "" {
			return nil // the session of the build
		}
		return g.session(of)
	case strings.HasPrefix(id, uploaded):
		return nil
	case scheme == "docker-image":
		if !g.allowsImage(rest) {
			return g.refuse("image %s: allowed are %s", rest, g.ImagesText())
		}
		switch {
		case g.Allows(policy.Pull):
		case !g.here(rest):
			return g.refuse("image %s: it isn't here, and pull is not among its requests", rest)
		case mode != "local": // all others ask a registry, even where it is here
			return g.refuse("image %s from its registry: pull is not among its requests", rest)
		}
		return nil
	}
	return g.refuse("%.200s: the host would fetch it", id)
}

// judge judges steps, and gives each RUN the limits of the policy.
func (g *guard) judge(def *pb.Definition) error {
	if def == nil {
		return nil
	}
	for _, data := range def.Def {
		var op pb.Op
		if err := op.UnmarshalVT(data); err != nil {
			return g.refuse("a step that can't be read: %v", err)
		}
		switch o := op.Op.(type) {
		case nil, *pb.Op_File, *pb.Op_Merge, *pb.Op_Diff:
		case *pb.Op_Source:
			if err := g.source(o.Source.GetIdentifier(), o.Source.GetAttrs(), o.Source.GetAttrs()[pb.AttrImageResolveMode]); err != nil {
				return located(err, def, digest.FromBytes(data))
			}
		case *pb.Op_Exec:
			if err := g.exec(o.Exec); err != nil {
				return located(err, def, digest.FromBytes(data))
			}
			g.limit(def, digest.FromBytes(data))
		default:
			return g.refuse("a step of the kind %T", o)
		}
	}
	return nil
}

// located adds to an error the lines that asked for a step: its own or, where it has none, as what ADD fetches, those of who wants it.
func located(err error, def *pb.Definition, step digest.Digest) error {
	locations := def.Source.GetLocations()
	own := locations[string(step)].GetLocations()
	for _, data := range def.Def {
		var op pb.Op
		if len(own) > 0 || op.UnmarshalVT(data) != nil {
			break
		}
		if slices.ContainsFunc(op.Inputs, func(in *pb.Input) bool { return in.Digest == string(step) }) {
			own = locations[string(digest.FromBytes(data))].GetLocations()
		}
	}
	for _, l := range own {
		if i := int(l.SourceIndex); i >= 0 && i < len(def.Source.Infos) {
			err = errdefs.WithSource(err, &errdefs.Source{Info: def.Source.Infos[i], Ranges: l.Ranges})
		}
	}
	return err
}

// limit gives a RUN the most that the policy allows. It is beside the step, whose digest stays.
func (g *guard) limit(def *pb.Definition, step digest.Digest) {
	if g.Limits.Memory == 0 && g.Limits.CPUs == 0 && g.Limits.Pids == 0 {
		return
	}
	if def.Metadata == nil {
		def.Metadata = map[string]*pb.OpMetadata{}
	}
	meta := def.Metadata[string(step)]
	if meta == nil {
		meta = &pb.OpMetadata{}
		def.Metadata[string(step)] = meta
	}
	l := &pb.LinuxResources{}
	if asked := meta.LinuxResources; asked != nil {
		l.CpuShares, l.CpusetCpus = asked.CpuShares, asked.CpusetCpus
		l.Memory = asked.Memory
	}
	if most := g.Limits.Memory; most > 0 {
		if l.Memory <= 0 || l.Memory > most {
			l.Memory = most
		}
		// As much swap again, which is Docker's where only memory is limited. Left out it would be all that the host has.
		l.MemorySwap = 2 * l.Memory
	}
	if g.Limits.CPUs > 0 {
		l.CpuPeriod, l.CpuQuota = 100_000, int64(g.Limits.CPUs*100_000)
	}
	l.CpuShares = withPids(l.CpuShares, g.Limits.Pids)
	meta.LinuxResources = l
}

// withPids puts a limit of processes into the high half of CPU shares, which are at most 2^18, and cutPids takes it out. BuildKit's
// messages have no field for it, and of what is beside a step (its digest is that of what it does) only these numbers get to the executor.
// Where two builds share a step BuildKit takes the greater number, which is the greater limit.
func withPids(shares uint64, pids int64) uint64 {
	return shares&math.MaxUint32 | uint64(min(pids, math.MaxUint32))<<32
}

// cutPids returns limits without what withPids has put in, and that.
func cutPids(l *pb.LinuxResources) (_ *pb.LinuxResources, pids int64) {
	if l == nil || l.CpuShares>>32 == 0 {
		return l, 0
	}
	l = l.CloneVT()
	pids, l.CpuShares = int64(l.CpuShares>>32), l.CpuShares&math.MaxUint32
	return l, pids
}

// exec judges a RUN.
func (g *guard) exec(e *pb.ExecOp) error {
	words := strings.Join(e.GetMeta().GetArgs(), " ")
	if len(words) > 80 {
		words = words[:80] + "…"
	}
	no := func(format string, a ...any) error { return g.refuse("RUN %s: %s", words, fmt.Sprintf(format, a...)) }
	switch e.Network {
	case pb.NetMode_NONE:
	case pb.NetMode_UNSET:
		if !slices.Contains(g.Networks, "bridge") {
			return no("network bridge: allowed are %s", strings.Join(append(slices.Clone(g.Networks), "none"), ", "))
		}
	default:
		return no("--network=host: the host's network is not allowed")
	}
	if e.Security != pb.SecurityMode_SANDBOX {
		return no("--security=insecure gives away the host")
	}
	if len(e.CdiDevices) > 0 {
		return no("--device: devices of the host are not allowed")
	}
	if p := e.GetMeta().GetCgroupParent(); p != "" {
		return no("--cgroup-parent %s: the place of its cgroup can't be chosen", p)
	}
	for _, u := range e.GetMeta().GetUlimit() {
		// The others count what a user of the host has in all, or let it lock memory and get priority (getrlimit(2)): as in package policy.
		if u.Name != "nofile" && u.Name != "core" {
			return no("--ulimit %s: allowed are nofile and core", u.Name)
		}
	}
	for _, m := range e.Mounts {
		switch m.MountType {
		case pb.MountType_BIND, pb.MountType_SECRET, pb.MountType_SSH, pb.MountType_TMPFS:
		case pb.MountType_CACHE:
			if !strings.HasPrefix(m.GetCacheOpt().GetID(), g.Name+"/") {
				return no("--mount=type=cache,id=%s: caches of this socket begin with %s/", m.GetCacheOpt().GetID(), g.Name)
			}
		default:
			return no("--mount=type=%s is not allowed", strings.ToLower(m.MountType.String()))
		}
	}
	return nil
}

// guardedFrontend is a front end whose steps are judged where its caller is guarded.
type guardedFrontend struct{ frontend.Frontend }

// Solve implements frontend.Frontend.
func (f *guardedFrontend) Solve(
	ctx context.Context, bridge frontend.FrontendLLBBridge, exec executor.Executor, opts map[string]string, inputs map[string]*pb.Definition,
	sid string, sm *session.Manager,
) (*frontend.Result, error) {
	g := guarding(ctx)
	bridge = &platformBridge{bridge}
	if g == nil {
		return f.Frontend.Solve(ctx, bridge, exec, opts, inputs, sid, sm)
	}
	opts = maps.Clone(opts)
	if opts == nil {
		opts = map[string]string{}
	}
	// The front end puts it, with a slash, before the IDs of cache mounts: exec lets no others through.
	opts["build-arg:BUILDKIT_CACHE_MOUNT_NS"] = g.Name
	if !slices.Contains(g.Networks, "bridge") {
		opts["force-network-mode"] = "none"
	}
	if !g.Allows(policy.Pull) {
		opts["image-resolve-mode"] = "local"
	}
	return f.Frontend.Solve(ctx, &guardedBridge{bridge, g}, exec, opts, inputs, sid, sm)
}

// guardedBridge judges what a front end asks of the solver.
type guardedBridge struct {
	frontend.FrontendLLBBridge
	guard *guard
}

// Solve implements frontend.FrontendLLBBridge.
func (b *guardedBridge) Solve(ctx context.Context, req frontend.SolveRequest, sid string) (*frontend.Result, error) {
	if len(req.SourcePolicies) > 0 {
		return nil, b.guard.refuse("source policies: they can exchange what was judged")
	}
	for _, c := range req.CacheImports {
		if err := b.guard.cacheFrom(c.Type); err != nil {
			return nil, err
		}
	}
	if err := b.guard.frontend(req.Frontend, req.FrontendOpt, req.FrontendInputs, req.Definition); err != nil {
		return nil, err
	}
	return b.FrontendLLBBridge.Solve(ctx, req, sid)
}

// ResolveSourceMetadata implements sourceresolver.MetaResolver.
func (b *guardedBridge) ResolveSourceMetadata(
	ctx context.Context, op *pb.SourceOp, opt sourceresolver.Opt,
) (*sourceresolver.MetaResponse, error) {
	if len(opt.SourcePolicies) > 0 {
		return nil, b.guard.refuse("source policies: they can exchange what was judged")
	}
	mode := ""
	if opt.ImageOpt != nil {
		mode = opt.ImageOpt.ResolveMode
	}
	if err := b.guard.source(op.GetIdentifier(), op.GetAttrs(), mode); err != nil {
		return nil, err
	}
	asked := op.GetIdentifier()
	resp, err := b.FrontendLLBBridge.ResolveSourceMetadata(ctx, op, opt)
	if err == nil && resp.Image != nil {
		b.guard.pin(asked, string(resp.Image.Digest))
	}
	return resp, err
}

// interceptors put a guard before all calls of a server.
func (g *guard) interceptors() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			if err := g.unary(req, info.FullMethod); err != nil {
				return nil, err
			}
			resp, err := h(g.with(ctx), req)
			switch r := resp.(type) {
			case *gatewayapi.ResolveImageConfigResponse:
				g.pin(req.(*gatewayapi.ResolveImageConfigRequest).Ref, r.GetDigest())
			case *gatewayapi.ResolveSourceMetaResponse:
				g.pin(req.(*gatewayapi.ResolveSourceMetaRequest).GetSource().GetIdentifier(), r.GetImage().GetDigest())
			}
			return resp, err
		}),
		grpc.ChainStreamInterceptor(func(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			if !slices.Contains(guardedMethods(), info.FullMethod) {
				return g.refuse("%s is not among its requests", info.FullMethod)
			}
			own := &guardedStream{s, g.with(s.Context())}
			if info.FullMethod == sessionMethod {
				head, _ := metadata.FromIncomingContext(s.Context())
				head = head.Copy()
				closed, err := g.sessions.open(g, only(head.Get(sessionHeader)))
				if err != nil {
					return err
				}
				defer closed()
				head.Set(sharedHeader, g.shared(only(head.Get(sharedHeader))))
				own.ctx = metadata.NewIncomingContext(own.ctx, head)
			}
			return h(srv, own)
		}),
	}
}

// guardedStream is a stream whose context has the guard.
type guardedStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context implements grpc.ServerStream.
func (s *guardedStream) Context() context.Context { return s.ctx }
