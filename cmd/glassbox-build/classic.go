package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/platforms"
	"github.com/docker/cli/cli/config/types"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	gatewayapi "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/session/auth/authprovider"
	digest "github.com/opencontainers/go-digest"
	"github.com/tonistiigi/fsutil"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"glassbox/build"
)

// build answers POST /build: what docker build sends without buildx, docker-py, dockerode and others. With version=2 the client speaks
// BuildKit beside it (its session has the context, and it draws the progress); without, the context is the request's body, and the answer
// is lines of the form that Docker's classic builder has, which the clients search for the image's ID.
func (f *face) build(w http.ResponseWriter, r *http.Request) error {
	call, err := build.Query(r.URL.Query())
	if err != nil {
		return &httpError{http.StatusBadRequest, err.Error()}
	}
	g, err := f.guardOf(r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	if call.ID != "" {
		own := jobOf(g, call.ID)
		f.mu.Lock()
		f.jobs[own] = append(f.jobs[own], &cancel) // clients choose the ID: two builds can have the same one
		f.mu.Unlock()
		defer func() {
			f.mu.Lock()
			f.jobs[own] = slices.DeleteFunc(f.jobs[own], func(other *context.CancelFunc) bool { return other == &cancel })
			if len(f.jobs[own]) == 0 {
				delete(f.jobs, own)
			}
			f.mu.Unlock()
		}()
	}
	l, err := inMemory(ctx, f.b, g, nil)
	if err != nil {
		return err
	}
	defer l.Close()
	// The context is read while the answer is written.
	http.NewResponseController(w).EnableFullDuplex()
	out := &lines{w: w}
	if call.BuildKit {
		err = buildSession(ctx, l, g, call, out)
	} else {
		err = buildClassic(ctx, l, g, call, r, out)
	}
	if err != nil {
		drain(w, r)
	}
	if err != nil && !out.begun {
		if httpErr := (*httpError)(nil); !errors.As(err, &httpErr) {
			code := http.StatusInternalServerError
			if strings.Contains(err.Error(), "PermissionDenied") {
				code = http.StatusForbidden
			}
			err = &httpError{code, plainError(err)}
		}
		return err
	}
	if err != nil {
		out.fail(err)
	}
	return nil
}

// drain reads what a client still sends of a context that nobody wants any more: one whose connection is closed on it while it writes, as
// docker's command line, never sees why. It is given a while, and no more.
func drain(w http.ResponseWriter, r *http.Request) {
	http.NewResponseController(w).SetReadDeadline(time.Now().Add(10 * time.Second))
	io.CopyN(io.Discard, r.Body, 1<<30)
}

// lines is an answer of lines of JSON, each sent at once.
type lines struct {
	mu    sync.Mutex
	w     http.ResponseWriter
	begun bool
}

func (o *lines) send(v any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.begun {
		o.begun = true
		o.w.Header().Set("Content-Type", "application/json")
	}
	enc := json.NewEncoder(o.w)
	enc.SetEscapeHTML(false)
	if enc.Encode(v) == nil {
		http.NewResponseController(o.w).Flush()
	}
}

func (o *lines) stream(format string, a ...any) {
	o.send(map[string]string{"stream": fmt.Sprintf(format, a...)})
}

// fail tells the end of a build that failed. The status was 200 long ago: clients look for these words.
func (o *lines) fail(err error) {
	detail := map[string]any{"message": plainError(err)}
	var exit *gatewayapi.ExitError
	if errors.As(err, &exit) {
		detail["code"] = exit.ExitCode
	}
	o.send(map[string]any{"errorDetail": detail, "error": plainError(err)})
}

// callOptions are BuildKit's words for a call; the context is not among them.
func callOptions(call *build.Call) (*client.SolveOpt, error) {
	o := &client.SolveOpt{Frontend: "dockerfile.v0", FrontendAttrs: map[string]string{}, LocalMounts: map[string]fsutil.FS{}}
	for _, p := range call.Platforms {
		if _, err := platforms.Parse(p); err != nil {
			return nil, &httpError{http.StatusBadRequest, fmt.Sprintf("platform %s: %v", p, err)}
		}
	}
	frontendAttrs(&call.Request, o.FrontendAttrs)
	if call.Dockerfile != "" && call.Dockerfile != "." {
		o.FrontendAttrs["filename"] = call.Dockerfile
	}
	for _, out := range call.Outputs {
		stays := slices.Contains([]string{"image", "docker", "moby", "cacheonly"}, out.Type)
		if !stays && (!call.BuildKit || out.Type == "local") {
			return nil, &httpError{http.StatusNotImplemented, "an output of type " + out.Type + " needs buildx: docker buildx build"}
		}
	}
	if err := caching(&call.Request, o); err != nil {
		return nil, err
	}
	if v := call.Args["BUILDKIT_INLINE_CACHE"]; v == "1" || v == "true" {
		o.CacheExports = append(o.CacheExports, client.CacheOptionsEntry{Type: "inline"})
	}
	if call.Network == "host" {
		o.AllowedEntitlements = append(o.AllowedEntitlements, "network.host")
	}
	return o, exports(&call.Request, o)
}

// buildClassic builds from the request's body, or from a URL.
func buildClassic(ctx context.Context, l *link, g *guard, call *build.Call, r *http.Request, out *lines) error {
	o, err := callOptions(call)
	if err != nil {
		return err
	}
	switch {
	case call.Remote == "client-session":
		return &httpError{http.StatusBadRequest, "a context in the client's session is for version=2"}
	case call.Remote != "":
		o.FrontendAttrs["context"] = call.Remote
	default:
		body := bufio.NewReaderSize(r.Body, 64<<10)
		head, _ := body.Peek(archivePeek)
		switch {
		case len(head) == 0:
			return &httpError{http.StatusBadRequest, "the request has no body: it would be the archive with the context"}
		case !isArchive(head):
			return &httpError{http.StatusBadRequest, "the request's body is no archive (tar, also compressed) with the context"}
		}
		upload(body, o)
	}
	// Here, although the call of the builder is judged, too: its client waits five seconds then to hear how the build goes.
	if err := g.solve(request(o)); err != nil {
		return err
	}
	o.Session = append(o.Session, authprovider.NewDockerAuthProvider(authprovider.DockerAuthProviderConfig{
		AuthConfigProvider: credentials(r.Header.Get("X-Registry-Config")),
	}))
	told := out
	if call.Quiet {
		told = nil
	}
	ch := make(chan *client.SolveStatus)
	shown := make(chan *story)
	go func() {
		s := &story{out: told, steps: map[digest.Digest]*step{}}
		for status := range ch {
			s.tell(status)
		}
		shown <- s
	}()
	resp, err := l.Solve(ctx, nil, *o, ch)
	s := <-shown
	if err != nil {
		return s.failure(err)
	}
	id := resp.ExporterResponse[exptypes.ExporterImageConfigDigestKey]
	if call.Quiet {
		out.stream("%s\n", id)
		return nil
	}
	if id == "" {
		return nil
	}
	out.send(map[string]any{"aux": map[string]string{"ID": id}})
	out.stream("Successfully built %.12s\n", strings.TrimPrefix(id, "sha256:"))
	for _, tag := range call.Tags {
		out.stream("Successfully tagged %s\n", withTag(tag))
	}
	return nil
}

// withTag is a name with the tag that it means.
func withTag(name string) string {
	if strings.Contains(name[strings.LastIndexByte(name, '/')+1:], ":") {
		return name
	}
	return name + ":latest"
}

// credentials answers for registries from the request's header: JSON in base64, by host.
func credentials(header string) authprovider.AuthConfigProvider {
	all := map[string]struct {
		Username, Password, Auth, IdentityToken, RegistryToken string
	}{}
	// As Docker: what can't be read is as if it weren't there.
	data, err := base64.URLEncoding.DecodeString(header)
	if err != nil {
		data, _ = base64.RawURLEncoding.DecodeString(header)
	}
	_ = json.Unmarshal(data, &all)
	return func(_ context.Context, host string, _ []string, _ authprovider.ExpireCachedAuthCheck) (types.AuthConfig, error) {
		// The key under which clients send Docker Hub's credentials is the address of its first registry's index: docker login has kept it.
		if host == "registry-1.docker.io" {
			host = "https://index.docker.io/v1/"
		}
		a := all[host]
		return types.AuthConfig{
			Username: a.Username, Password: a.Password, Auth: a.Auth, IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken,
			ServerAddress: host,
		}, nil
	}
}

// story tells a build in the lines of the classic builder.
type story struct {
	out   *lines // nil: nothing is told
	steps map[digest.Digest]*step
	run   string // the words of the step that failed
}

// step is one of the Dockerfile's.
type step struct {
	name   string // "" is one that isn't told
	told   bool
	cached bool
}

// stepName is the name that the front end gives a step: its number, how many there are, its words.
var stepName = regexp.MustCompile(`^\[(?:([^\]]*) )?([0-9]+)/([0-9]+)\] (.*)$`)

func (s *story) tell(status *client.SolveStatus) {
	for _, v := range status.Vertexes {
		st := s.steps[v.Digest]
		if st == nil {
			st = &step{}
			if m := stepName.FindStringSubmatch(v.Name); m != nil {
				st.name = fmt.Sprintf("Step %s/%s : %s", m[2], m[3], m[4])
			}
			s.steps[v.Digest] = st
		}
		if v.Started != nil {
			s.begin(v.Digest)
		}
		if v.Cached && !st.cached {
			st.cached = true
			if st.name != "" && s.out != nil {
				s.out.stream(" ---> Using cache\n")
			}
		}
		if v.Error != "" && s.run == "" {
			if m := stepName.FindStringSubmatch(v.Name); m != nil {
				s.run = m[4]
			}
		}
	}
	for _, l := range status.Logs {
		if s.out != nil {
			s.begin(l.Vertex)
			format := "%s"
			if l.Stream == 2 {
				format = "\x1b[91m%s\x1b[0m" // as Docker's classic builder: what went to stderr is red
			}
			s.out.stream(format, l.Data)
		}
	}
	for _, w := range status.Warnings {
		if s.out != nil {
			s.out.stream("[Warning] %s\n", w.Short)
		}
	}
}

func (s *story) begin(d digest.Digest) {
	st := s.steps[d]
	if st == nil || st.told || st.name == "" {
		return
	}
	st.told = true
	if s.out != nil {
		s.out.stream("%s\n", st.name)
	}
}

// failure is the error in the classic builder's words where a command has failed.
func (s *story) failure(err error) error {
	var exit *gatewayapi.ExitError
	if errors.As(err, &exit) && exit.ExitCode != gatewayapi.UnknownExitStatus {
		command := strings.TrimPrefix(s.run, "RUN ")
		return &runError{fmt.Sprintf("The command '/bin/sh -c %s' returned a non-zero code: %d", command, exit.ExitCode), err}
	}
	return err
}

// runError is the failure of a RUN.
type runError struct {
	text string
	err  error
}

func (e *runError) Error() string { return e.text }
func (e *runError) Unwrap() error { return e.err }

// request is what the builder is asked for.
func request(o *client.SolveOpt) *controlapi.SolveRequest {
	req := &controlapi.SolveRequest{
		Ref: identity.NewID(), Frontend: o.Frontend, FrontendAttrs: o.FrontendAttrs, Entitlements: o.AllowedEntitlements,
		Cache: &controlapi.CacheOptions{},
	}
	for _, e := range o.Exports {
		req.Exporters = append(req.Exporters, &controlapi.Exporter{Type: e.Type, Attrs: e.Attrs})
	}
	for _, c := range o.CacheExports {
		req.Cache.Exports = append(req.Cache.Exports, &controlapi.CacheOptionsEntry{Type: c.Type, Attrs: c.Attrs})
	}
	for _, c := range o.CacheImports {
		req.Cache.Imports = append(req.Cache.Imports, &controlapi.CacheOptionsEntry{Type: c.Type, Attrs: c.Attrs})
	}
	return req
}

// buildSession builds for a client that speaks BuildKit: Docker's own command line before it had buildx.
func buildSession(ctx context.Context, l *link, g *guard, call *build.Call, out *lines) error {
	o, err := callOptions(call)
	if err != nil {
		return err
	}
	switch call.Remote {
	case "client-session":
	case "upload-request", "":
		return &httpError{http.StatusNotImplemented, "a context from standard input needs buildx, or DOCKER_BUILDKIT=0"}
	default:
		o.FrontendAttrs["context"] = call.Remote
	}
	req := request(o)
	req.Session = call.Session
	if err := g.solve(req); err != nil {
		return err
	}
	req.Cache.Imports = nil // but by the front end, which asks for them when it has the Dockerfile
	if len(o.CacheImports) > 0 {
		var refs []string
		for _, c := range o.CacheImports {
			refs = append(refs, c.Attrs["ref"])
		}
		o.FrontendAttrs["cache-from"] = strings.Join(refs, ",")
	}
	eg, ctx := errgroup.WithContext(ctx)
	control := l.ControlClient()
	var id string
	eg.Go(func() error {
		resp, err := control.Solve(ctx, req)
		if err == nil {
			id = resp.ExporterResponse[exptypes.ExporterImageConfigDigestKey]
		}
		return err
	})
	eg.Go(func() error {
		// Not the group's context: what has been told so far is sent to its end also where the build fails.
		stream, err := control.Status(context.WithoutCancel(ctx), &controlapi.StatusRequest{Ref: req.Ref})
		if err != nil {
			return err
		}
		for {
			status, err := stream.Recv()
			if err != nil {
				if err == io.EOF || ctx.Err() != nil {
					return nil
				}
				return err
			}
			data, err := proto.Marshal(status)
			if err != nil {
				return err
			}
			// The ID by which Docker's command line knows BuildKit's progress: bytes, which JSON has in base64.
			out.send(map[string]any{"id": "moby.buildkit.trace", "aux": data})
		}
	})
	if err := eg.Wait(); err != nil {
		return err
	}
	if id != "" {
		out.send(map[string]any{"id": "moby.image.id", "aux": map[string]string{"ID": id}})
	}
	return nil
}
