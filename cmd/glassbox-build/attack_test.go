package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	gatewayapi "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver/pb"
	spb "github.com/moby/buildkit/sourcepolicy/pb"
	"github.com/tonistiigi/fsutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// The tests here are a client of a guarded socket (GUARDED) that tries to get at the host and at what others have, and of a socket without
// a policy (OPEN), which is somebody else. Script build-guard starts the servers, and both.

// hijack takes a connection over, as Docker's clients do.
func hijack(socket, path, proto string, head http.Header) (net.Conn, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequest(http.MethodPost, "http://docker"+path, nil)
	if err != nil {
		return nil, err
	}
	for k, v := range head {
		r.Header[http.CanonicalHeaderKey(k)] = v
	}
	if r.Header.Get("Connection") == "" {
		r.Header.Set("Connection", "Upgrade")
	}
	r.Header.Set("Upgrade", proto)
	if err := r.Write(conn); err != nil {
		conn.Close()
		return nil, err
	}
	buffered := bufio.NewReader(conn)
	resp, err := http.ReadResponse(buffered, r)
	if err == nil && resp.StatusCode != http.StatusSwitchingProtocols {
		text, _ := io.ReadAll(resp.Body)
		err = fmt.Errorf("%s: %s", resp.Status, text)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &handedConn{Conn: conn, closed: make(chan struct{}), read: buffered.Read}, nil
}

// dialed is BuildKit's client of a socket; head goes with what opens the connection.
func dialed(t *testing.T, socket string, head http.Header) *client.Client {
	t.Helper()
	c, err := client.New(t.Context(), "",
		client.WithContextDialer(func(context.Context, string) (net.Conn, error) { return hijack(socket, "/grpc", "h2c", head) }),
		client.WithSessionDialer(func(_ context.Context, proto string, meta map[string][]string) (net.Conn, error) {
			return hijack(socket, "/session", proto, meta)
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// native is BuildKit's client of a socket over HTTP/2, without anything before it (API 1.53).
func native(t *testing.T, socket string) *client.Client {
	t.Helper()
	c, err := client.New(t.Context(), "unix://"+socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func needs(t *testing.T) (guarded, open string) {
	t.Helper()
	guarded, open = os.Getenv("GUARDED"), os.Getenv("OPEN")
	if guarded == "" || open == "" {
		t.Skip("script build-guard runs it, with sockets to attack")
	}
	return guarded, open
}

// opened is a session at a socket.
func opened(t *testing.T, socket string) string {
	t.Helper()
	s, err := session.NewSession(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	ready := make(chan error, 1)
	go s.Run(context.WithoutCancel(t.Context()), func(_ context.Context, proto string, meta map[string][]string) (net.Conn, error) {
		conn, err := hijack(socket, "/session", proto, meta)
		ready <- err
		return conn, err
	})
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s.ID()
}

// refusedBy fails a test where a call was not refused by the policy with these words.
func refusedBy(t *testing.T, what string, err error, words string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: it was done", what)
	} else if !strings.Contains(err.Error(), "the policy mine of this socket doesn't allow it: ") || !strings.Contains(err.Error(), words) {
		t.Errorf("%s: %v\nwant the policy's sentence with %q", what, err, words)
	}
}

// marshalled are steps as a client sends them.
func marshalled(t *testing.T, s llb.State) *pb.Definition {
	t.Helper()
	def, err := s.Marshal(t.Context(), llb.LinuxAmd64)
	if err != nil {
		t.Fatal(err)
	}
	return def.ToPB()
}

// changed is a RUN of which a client changes what BuildKit's own library doesn't let it.
func changed(t *testing.T, change func(*pb.ExecOp)) *pb.Definition {
	t.Helper()
	def := marshalled(t, llb.Image("busybox", llb.ResolveModePreferLocal).Run(llb.Args([]string{"true"}), llb.Network(pb.NetMode_NONE)).Root())
	for i, data := range def.Def {
		var op pb.Op
		if err := op.UnmarshalVT(data); err != nil {
			t.Fatal(err)
		}
		if e := op.GetExec(); e != nil {
			change(e)
			var err error
			if def.Def[i], err = op.MarshalVT(); err != nil {
				t.Fatal(err)
			}
		}
	}
	return def
}

// TestAttackSolve asks for builds that no policy allows.
func TestAttackSolve(t *testing.T) {
	guarded, open := needs(t)
	c := dialed(t, guarded, nil)
	own, others := opened(t, guarded), opened(t, open)
	dockerfile := func(attrs map[string]string) *controlapi.SolveRequest {
		return &controlapi.SolveRequest{Frontend: "dockerfile.v0", FrontendAttrs: attrs}
	}
	gateway := func(source string) *controlapi.SolveRequest {
		return &controlapi.SolveRequest{Frontend: "gateway.v0", FrontendAttrs: map[string]string{"source": source}}
	}
	git := marshalled(t, llb.Git("https://127.0.0.1:1/x", "main"))
	none := "sha256:" + strings.Repeat("0", 64)
	steps := func(s llb.State) *controlapi.SolveRequest {
		return &controlapi.SolveRequest{Definition: marshalled(t, s)}
	}
	cache := func(o *controlapi.CacheOptions) *controlapi.SolveRequest { return &controlapi.SolveRequest{Cache: o} }
	from := func(kind string) *controlapi.SolveRequest {
		entry := &controlapi.CacheOptionsEntry{Type: kind, Attrs: map[string]string{"ref": "127.0.0.1:1/x"}}
		return cache(&controlapi.CacheOptions{Imports: []*controlapi.CacheOptionsEntry{entry}})
	}
	to := func(kind string, attrs map[string]string) *controlapi.SolveRequest {
		return &controlapi.SolveRequest{Exporters: []*controlapi.Exporter{{Type: kind, Attrs: attrs}}}
	}
	local := func(session string) *controlapi.SolveRequest {
		return steps(llb.Local("context", llb.SessionID(session)))
	}
	for what, a := range map[string]struct {
		req   *controlapi.SolveRequest
		words string
	}{
		"further rights":          {&controlapi.SolveRequest{Entitlements: []string{"network.host"}}, "--allow network.host"},
		"insecure":                {&controlapi.SolveRequest{Entitlements: []string{"security.insecure"}}, "--allow security.insecure"},
		"devices":                 {&controlapi.SolveRequest{Entitlements: []string{"device"}}, "--allow device"},
		"source policy":           {&controlapi.SolveRequest{SourcePolicy: &spb.Policy{Version: 1}}, "source policies"},
		"source policy's session": {&controlapi.SolveRequest{SourcePolicySession: others}, "source policies"},
		"session exporter":        {&controlapi.SolveRequest{EnableSessionExporter: true}, "exporters of the session"},
		"proxy network":           {&controlapi.SolveRequest{ProxyNetwork: true}, "through a proxy"},
		"no session":              {&controlapi.SolveRequest{Session: "-"}, "a build without a session"},
		"another's session":       {&controlapi.SolveRequest{Session: others}, "was not opened through this socket"},
		"another's by a prefix":   {&controlapi.SolveRequest{Session: "x:" + others}, "was not opened through this socket"},
		"another's files":         {local(others), "was not opened through this socket"},
		"another's by a name":     {local("x:" + others), "was not opened through this socket"},
		"another's by two names":  {local("x:y:" + others), "was not opened through this socket"},
		"cache from a registry":   {from("registry"), "--cache-from type=registry"},
		"cache of the client":     {from("local"), "--cache-from type=local"},
		"cache of GitHub":         {from("gha"), "--cache-from type=gha"},
		"cache of S3":             {from("s3"), "--cache-from type=s3"},
		"cache, spelled of old":   {cache(&controlapi.CacheOptions{ImportRefsDeprecated: []string{"127.0.0.1:1/x"}}), "caches in registries"},
		"cache to, of old":        {cache(&controlapi.CacheOptions{ExportRefDeprecated: "127.0.0.1:1/x"}), "caches in registries"},
		"cache to a registry": {
			cache(&controlapi.CacheOptions{Exports: []*controlapi.CacheOptionsEntry{{Type: "registry"}}}),
			"--cache-to type=registry",
		},
		"image":                   {to("image", map[string]string{"name": "mine/x", "push": "true"}), "an output of type image"},
		"image, spelled of old":   {&controlapi.SolveRequest{ExporterDeprecated: "image"}, "an output of type image"},
		"another's name":          {to("moby", map[string]string{"name": "mine/x,busybox"}), "names that builds may give are mine/*"},
		"any name":                {to("moby", map[string]string{"name": "*"}), "names that builds may give are mine/*"},
		"push":                    {to("moby", map[string]string{"name": "mine/x", "push": "true"}), "--push"},
		"push, spelled otherwise": {to("moby", map[string]string{"name": "mine/x", "push": "T"}), "--push"},
		"push, spelled wrong":     {to("moby", map[string]string{"name": "mine/x", "push": "yes"}), "--push"},
		"a front end": {
			gateway("busybox"),
			"nobody has judged",
		},
		"a front end by digest": {
			gateway("docker/dockerfile:1@" + none),
			"nobody has judged",
		},
		"an unknown front end": {&controlapi.SolveRequest{Frontend: "other"}, "nobody has judged"},
		"attestation":          {dockerfile(map[string]string{"attest:sbom": "generator=busybox"}), "--attest sbom"},
		"cgroup parent":        {dockerfile(map[string]string{"cgroup-parent": "/"}), "--cgroup-parent /"},
		"host's network":       {dockerfile(map[string]string{"force-network-mode": "host"}), "--network host"},
		"remote context":       {dockerfile(map[string]string{"context": "https://127.0.0.1:1/x"}), "the host would fetch it"},
		"pull":                 {dockerfile(map[string]string{"image-resolve-mode": "pull"}), "--pull: pull is not among its requests"},
		"steps beside a front end": {
			&controlapi.SolveRequest{Frontend: "dockerfile.v0", FrontendInputs: map[string]*pb.Definition{"a": git}},
			"the host would fetch it",
		},
		"git":                     {steps(llb.Git("https://127.0.0.1:1/x", "main")), "the host would fetch it"},
		"http":                    {steps(llb.HTTP("http://127.0.0.1:1/x")), "the host would fetch it"},
		"almost an upload":        {steps(llb.HTTP("https://buildkit-session/x")), "the host would fetch it"},
		"almost an upload's host": {steps(llb.HTTP("http://buildkit-session.example/x")), "the host would fetch it"},
		"layout":                  {steps(llb.OCILayout("x@sha256:" + strings.Repeat("0", 64))), "the host would fetch it"},
		"image's blob": {
			steps(llb.Scratch().File(llb.Copy(llb.ImageBlob("x@sha256:"+strings.Repeat("0", 64)), "/", "/"))),
			"the host would fetch it",
		},
		"another image":            {steps(llb.Image("busybox:user")), "image docker.io/library/busybox:user: allowed are"},
		"an image that isn't here": {steps(llb.Image("mine/none", llb.ResolveModePreferLocal)), "it isn't here"},
		"an image from its source": {steps(llb.Image("busybox", llb.ResolveModeForcePull)), "from its registry"},
		"an image by its digest":   {steps(llb.Image("busybox@sha256:"+strings.Repeat("0", 64), llb.ResolveModePreferLocal)), "allowed are"},
	} {
		switch a.req.Session {
		case "":
			a.req.Session = own
		case "-":
			a.req.Session = ""
		}
		a.req.Ref = "attack-" + what
		_, err := c.ControlClient().Solve(t.Context(), a.req)
		refusedBy(t, what, err, a.words)
	}
}

// TestAttackSteps sends steps that no library makes.
func TestAttackSteps(t *testing.T) {
	guarded, _ := needs(t)
	c, own := dialed(t, guarded, nil), opened(t, guarded)
	for what, a := range map[string]struct {
		change func(*pb.ExecOp)
		words  string
	}{
		"RUN in host's network": {func(e *pb.ExecOp) { e.Network = pb.NetMode_HOST }, "--network=host"},
		"RUN in a network":      {func(e *pb.ExecOp) { e.Network = pb.NetMode_UNSET }, "network bridge"},
		"RUN in some network":   {func(e *pb.ExecOp) { e.Network = 7 }, "--network=host"},
		"RUN insecure":          {func(e *pb.ExecOp) { e.Security = pb.SecurityMode_INSECURE }, "insecure gives away the host"},
		"RUN in some mode":      {func(e *pb.ExecOp) { e.Security = 7 }, "insecure gives away the host"},
		"RUN with a device": {
			func(e *pb.ExecOp) { e.CdiDevices = []*pb.CDIDevice{{Name: "x.org/d=all", Optional: true}} },
			"--device",
		},
		"RUN in a cgroup": {func(e *pb.ExecOp) { e.Meta.CgroupParent = "x" }, "--cgroup-parent x"},
		"RUN with a limit": {
			func(e *pb.ExecOp) { e.Meta.Ulimit = []*pb.Ulimit{{Name: "nproc", Soft: 1, Hard: 1}} },
			"--ulimit nproc",
		},
		"RUN with another's cache": {func(e *pb.ExecOp) {
			e.Mounts = append(e.Mounts, &pb.Mount{
				Input: -1, Dest: "/c", Output: -1, MountType: pb.MountType_CACHE, CacheOpt: &pb.CacheOpt{ID: "/root/.cache"},
			})
		}, "caches of this socket begin with mine/"},
		"RUN with some mount": {func(e *pb.ExecOp) {
			e.Mounts = append(e.Mounts, &pb.Mount{Input: -1, Dest: "/c", Output: -1, MountType: 99})
		}, "is not allowed"},
	} {
		run := &controlapi.SolveRequest{Ref: what, Session: own, Definition: changed(t, a.change)}
		_, err := c.ControlClient().Solve(t.Context(), run)
		refusedBy(t, what, err, a.words)
	}
	garbage := &controlapi.SolveRequest{Ref: "garbage", Session: own, Definition: &pb.Definition{Def: [][]byte{{0xff, 0xff, 0xff}}}}
	_, err := c.ControlClient().Solve(t.Context(), garbage)
	refusedBy(t, "a step that is none", err, "can't be read")
	build, err := (&pb.Op{Op: &pb.Op_Build{Build: &pb.BuildOp{}}}).MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	nested := &controlapi.SolveRequest{Ref: "nested", Session: own, Definition: &pb.Definition{Def: [][]byte{build}}}
	_, err = c.ControlClient().Solve(t.Context(), nested)
	refusedBy(t, "a build in a build", err, "a step of the kind")
	git := marshalled(t, llb.Git("https://127.0.0.1:1/"+strings.Repeat("x", 1<<20), "main"))
	long := &controlapi.SolveRequest{Ref: "long", Session: own, Definition: git}
	if _, err = c.ControlClient().Solve(t.Context(), long); err == nil || len(err.Error()) > 4000 {
		t.Errorf("a name of a megabyte: the refusal has %d bytes", len(fmt.Sprint(err)))
	}
}

// TestAttackCalls calls what a build doesn't need.
func TestAttackCalls(t *testing.T) {
	guarded, open := needs(t)
	ctx := t.Context()
	conn, err := grpc.NewClient("passthrough:///guarded", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return hijack(guarded, "/grpc", "h2c", nil) }))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	control, gateway := controlapi.NewControlClient(conn), gatewayapi.NewLLBBridgeClient(conn)
	calls := map[string]func() error{
		"DiskUsage": func() error { _, err := control.DiskUsage(ctx, &controlapi.DiskUsageRequest{}); return err },
		"Prune": func() error {
			s, err := control.Prune(ctx, &controlapi.PruneRequest{All: true})
			if err == nil {
				_, err = s.Recv()
			}
			return err
		},
		"ListenBuildHistory": func() error {
			s, err := control.ListenBuildHistory(ctx, &controlapi.BuildHistoryRequest{EarlyExit: true})
			if err == nil {
				_, err = s.Recv()
			}
			return err
		},
		"UpdateBuildHistory": func() error {
			_, err := control.UpdateBuildHistory(ctx, &controlapi.UpdateBuildHistoryRequest{Ref: "x", Delete: true})
			return err
		},
		"NewContainer": func() error {
			_, err := gateway.NewContainer(ctx, &gatewayapi.NewContainerRequest{ContainerID: "x", Network: pb.NetMode_HOST})
			return err
		},
		"ReleaseContainer": func() error {
			_, err := gateway.ReleaseContainer(ctx, &gatewayapi.ReleaseContainerRequest{ContainerID: "x"})
			return err
		},
		"ExecProcess": func() error {
			s, err := gateway.ExecProcess(ctx)
			if err == nil {
				_, err = s.Recv()
			}
			return err
		},
		"/Info": func() error {
			_, err := contentapi.NewContentClient(conn).Info(ctx, &contentapi.InfoRequest{Digest: "sha256:" + strings.Repeat("0", 64)})
			return err
		},
	}
	for name, call := range calls {
		refusedBy(t, name, call(), name)
	}
	if _, err := control.ListWorkers(ctx, &controlapi.ListWorkersRequest{}); err != nil { // which buildx asks for first
		t.Errorf("ListWorkers: %v", err)
	}
	// What others have built, and how it goes, is told to who knows how they call it.
	bridge := func(r *gatewayapi.SolveRequest) error { _, err := gateway.Solve(ctx, r); return err }
	imports := []*gatewayapi.CacheOptionsEntry{{Type: "local"}}
	refusedBy(t, "cache in a front end", bridge(&gatewayapi.SolveRequest{CacheImports: imports}), "--cache-from")
	refusedBy(t, "policies in a front end", bridge(&gatewayapi.SolveRequest{SourcePolicies: []*spb.Policy{{}}}), "source policies")
	refusedBy(t, "front end in a front end", bridge(&gatewayapi.SolveRequest{Frontend: "gateway.v0"}), "nobody has judged")
	refusedBy(t, "steps in a front end", bridge(&gatewayapi.SolveRequest{Definition: marshalled(t, llb.HTTP("http://127.0.0.1:1/"))}), "fetch")
	_, err = gateway.ResolveImageConfig(ctx, &gatewayapi.ResolveImageConfigRequest{Ref: "docker.io/library/other", ResolveMode: "local"})
	refusedBy(t, "an image's configuration", err, "image docker.io/library/other")
	_, err = gateway.ResolveImageConfig(ctx, &gatewayapi.ResolveImageConfigRequest{Ref: "docker.io/library/busybox"})
	refusedBy(t, "an image's configuration at its source", err, "from its registry")
	source := &gatewayapi.ResolveSourceMetaRequest{Source: &pb.SourceOp{Identifier: "git://x"}, ResolveMode: "local"}
	_, err = gateway.ResolveSourceMeta(ctx, source)
	refusedBy(t, "what a source is", err, "the host would fetch it")

	// The header with the policy, named as one that is to be dropped on the way; and one of the client's own.
	for _, head := range []http.Header{
		{"Connection": {"Upgrade, Glassbox-Policy"}},
		{"Connection": {"Upgrade", "glassbox-policy, Glassbox-Watch"}},
		{"Glassbox-Policy": {"none"}},
		{"Glassbox-Policy": {"none"}, "Connection": {"Upgrade, Glassbox-Policy"}},
	} {
		_, err := dialed(t, guarded, head).DiskUsage(ctx)
		refusedBy(t, fmt.Sprint(head), err, "DiskUsage")
		r, err := http.NewRequest(http.MethodPost, "http://d/build?t=busybox&remote="+url.QueryEscape("http://127.0.0.1:1/x"), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header = head.Clone()
		code, text := plainly(t, guarded, r)
		if code != http.StatusForbidden || !strings.Contains(text, "the policy mine of this socket doesn't allow it") {
			t.Errorf("/build with %v: %d %s", head, code, text)
		}
	}

	// The same over HTTP/2 of the socket itself; the calls of it are no path of HTTP/1.1.
	_, err = native(t, guarded).DiskUsage(ctx)
	refusedBy(t, "HTTP/2", err, "DiskUsage")
	r, err := http.NewRequest(http.MethodPost, "http://d/grpc/moby.buildkit.v1.Control/DiskUsage", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/grpc")
	if code, text := plainly(t, guarded, r); code != http.StatusNotFound {
		t.Errorf("a call over HTTP/1.1: %d %s", code, text)
	}

	// Sessions: one that is there, one without a name, one with two.
	others, own := opened(t, open), opened(t, guarded)
	for what, ids := range map[string][]string{
		"another's": {others}, "its own again": {own}, "none": {}, "an empty one": {""}, "two": {"a", "b"}, "a prefix": {"x:" + others},
	} {
		conn, err := hijack(guarded, "/session", "h2c", http.Header{sessionHeader: ids})
		if err == nil {
			conn.Close()
		}
		refusedBy(t, "session: "+what, err, "there is one already, or it is no name for one")
	}
}

func plainly(t *testing.T, socket string, r *http.Request) (int, string) {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := r.Write(conn); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), r)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text)
}

// built builds a directory, and returns what is at /out of the result.
func built(t *testing.T, c *client.Client, dir, sharedKey string, attrs map[string]string) (string, error) {
	t.Helper()
	fs, err := fsutil.NewFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	_, err = c.Solve(t.Context(), nil, client.SolveOpt{
		Frontend: "dockerfile.v0", FrontendAttrs: attrs, SharedKey: sharedKey,
		LocalMounts: map[string]fsutil.FS{"context": fs, "dockerfile": fs},
		Exports:     []client.ExportEntry{{Type: client.ExporterLocal, OutputDir: out}},
	}, nil)
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(filepath.Join(out, "out"))
	return string(text), err
}

// files makes a directory; all files are as old.
func files(t *testing.T, content map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	old := time.Unix(1_700_000_000, 0)
	for name, text := range content {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestAttackShared says that a file is as long and as old as one that somebody else has sent under the same key: it doesn't get that one.
func TestAttackShared(t *testing.T) {
	guarded, open := needs(t)
	const dockerfile = "FROM busybox\nCOPY secret /out\n"
	here := map[string]string{"image-resolve-mode": "local"} // else a registry is asked, too
	theirs := files(t, map[string]string{"Dockerfile": dockerfile, "secret": "theirs"})
	if text, err := built(t, dialed(t, open, nil), theirs, "key", here); err != nil || text != "theirs" {
		t.Fatalf("%q %v", text, err)
	}
	text, err := built(t, dialed(t, guarded, nil), files(t, map[string]string{"Dockerfile": dockerfile, "secret": "mine!!"}), "key", nil)
	if err != nil || text != "mine!!" {
		t.Errorf("%q %v", text, err)
	}
}

// TestGuestBuilds builds, within the limits of the policy, and not beyond.
func TestGuestBuilds(t *testing.T) {
	guarded, _ := needs(t)
	c := dialed(t, guarded, nil)
	const limits = `FROM busybox
RUN for f in /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max; do [ -e $f ] && echo pids $(cat $f); done >/out; \
    for f in /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes; do [ -e $f ] && echo memory $(cat $f); done >>/out
`
	for what, attrs := range map[string]map[string]string{
		"as it is": nil, "another share": {"cpu-shares": "100"}, "more": {"memory": "1000000000000"},
	} {
		text, err := built(t, c, files(t, map[string]string{"Dockerfile": limits + "# " + what}), "", attrs)
		if err != nil || text != "pids 77\nmemory 67108864\n" {
			t.Errorf("%s: %q %v", what, text, err)
		}
	}
	two := files(t, map[string]string{"Dockerfile": "FROM busybox\nRUN echo two >/out"})
	if text, err := built(t, native(t, guarded), two, "", nil); text != "two\n" {
		t.Errorf("over HTTP/2: %q %v", text, err)
	}
	// Steps that a front end makes are judged as if the client had made them.
	for dockerfile, words := range map[string]string{
		"FROM busybox:user":                                           "image docker.io/library/busybox:user",
		"FROM mine/none":                                              "it isn't here",
		"FROM busybox\nRUN --network=host true":                       "--network=host",
		"FROM busybox\nRUN --security=insecure true":                  "insecure gives away the host",
		"FROM busybox\nCOPY --from=busybox:user / /x":                 "image docker.io/library/busybox:user",
		"FROM busybox\nRUN --mount=from=busybox:user,target=/x true":  "image docker.io/library/busybox:user",
		"FROM busybox\nADD http://127.0.0.1:1/x /x":                   "the host would fetch it",
		"FROM busybox\nADD https://127.0.0.1:1/x.git /x":              "the host would fetch it",
		"# syntax=busybox\nFROM busybox":                              "nobody has judged",
		"FROM busybox\nRUN --device=x.org/d=all true":                 "--device",
		"# syntax=docker/dockerfile:1-labs\nFROM busybox\nRUN true":   "nobody has judged",
		"# syntax=127.0.0.1:1/docker/dockerfile:1\nFROM busybox":      "nobody has judged",
		"FROM docker-image://busybox":                                 "",
		"FROM busybox AS a\nFROM a\nRUN --mount=type=host,target=/ x": "",
	} {
		_, err := built(t, c, files(t, map[string]string{"Dockerfile": dockerfile}), "", nil)
		if words != "" {
			refusedBy(t, dockerfile, err, words)
		} else if err == nil {
			t.Errorf("%s: it was built", dockerfile)
		}
	}
	for key, a := range map[string]struct{ value, words string }{
		"build-arg:BUILDKIT_SYNTAX":  {"busybox", "nobody has judged"},
		"context:other":              {"docker-image://busybox:user", "image docker.io/library/busybox:user"},
		"context:other::linux/amd64": {"https://127.0.0.1:1/x.git", "the host would fetch it"},
		"cache-from":                 {"127.0.0.1:1/x", "--cache-from type=registry"},
		"cache-imports": {
			`[{"Type":"local","Attrs":{"digest":"sha256:` + strings.Repeat("0", 64) + `"}}]`, "--cache-from type=local",
		},
	} {
		dockerfile := "FROM busybox\nRUN true\n"
		if strings.HasPrefix(key, "context:") {
			dockerfile += "COPY --from=other / /out\n"
		}
		_, err := built(t, c, files(t, map[string]string{"Dockerfile": dockerfile}), "", map[string]string{key: a.value})
		refusedBy(t, key, err, a.words)
	}
}
