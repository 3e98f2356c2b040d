package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/cli/cli/config"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	gatewayapi "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/session/auth/authprovider"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	"github.com/moby/buildkit/session/sshforward/sshprovider"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/util/progress/progressui"
	"golang.org/x/sync/errgroup"

	"glassbox/build"
)

// solve runs one build from its context to its output.
func solve(ctx context.Context, p place, r *build.Request) (err error) {
	opt, done, err := options(r)
	if err != nil {
		return err
	}
	defer done()
	w, err := newWatch(r)
	if err != nil {
		return err
	}
	l, err := connect(ctx, p, sayWaiting, w)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := l.Close(); err == nil {
			err = cerr
		}
	}()
	display, err := newDisplay(r)
	if err != nil {
		return err
	}
	var resp *client.SolveResponse
	ch, states := make(chan *client.SolveStatus), newRelay()
	building, end := context.WithCancelCause(ctx)
	defer end(nil)
	rec := newRecorder(p, r, w, opt, end)
	go states.pass(ch, rec.table.note)
	eg, solving := errgroup.WithContext(building)
	eg.Go(func() error {
		var err error
		if r.DebugOnError != "" {
			resp, err = l.debugged(solving, r, opt, ch, states.quiet)
		} else {
			resp, err = l.build(solving, r, opt, ch)
		}
		return err
	})
	eg.Go(func() error {
		defer close(states.shown)
		// Not the group's context: what has been told so far is printed to its end also where the build fails.
		_, err := display.UpdateFrom(context.WithoutCancel(ctx), states.to)
		return err
	})
	if err = eg.Wait(); err != nil && building.Err() != nil && ctx.Err() == nil {
		err = context.Cause(building)
	}
	if terr := rec.over(err); terr != nil && err == nil {
		return terr
	}
	switch {
	case err != nil && w.quit != "":
		return errors.New(w.quit)
	case err != nil:
		return failure(ctx, r, err)
	}
	return finish(r, resp)
}

func sayWaiting() error {
	_, err := fmt.Fprintln(os.Stderr, "waiting for another build to end")
	return err
}

// build solves by the front end. For --call it asks that a question instead.
func (l *link) build(
	ctx context.Context, r *build.Request, opt *client.SolveOpt, ch chan *client.SolveStatus,
) (*client.SolveResponse, error) {
	if r.Call == "" {
		return l.Solve(ctx, nil, *opt, ch)
	}
	attrs := maps.Clone(opt.FrontendAttrs)
	attrs["requestid"] = map[string]string{"check": "frontend.lint", "outline": "frontend.outline", "targets": "frontend.targets"}[r.Call]
	attrs["frontend.caps"] = "moby.buildkit.frontend.subrequests"
	var answer map[string][]byte
	opt.Exports = nil
	_, err := l.Build(ctx, *opt, "glassbox", func(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
		res, err := c.Solve(ctx, gateway.SolveRequest{Frontend: "dockerfile.v0", FrontendOpt: attrs})
		if err != nil {
			return nil, err
		}
		answer = res.Metadata
		return res, nil
	}, ch)
	if err != nil {
		return nil, err
	}
	return nil, printAnswer(r, answer)
}

// printAnswer prints what a question was answered. What --check finds makes it fail, as with docker.
func printAnswer(r *build.Request, answer map[string][]byte) error {
	key := "result.txt"
	if r.Format == "json" {
		key = "result.json"
	}
	os.Stdout.Write(answer[key])
	if code, err := strconv.Atoi(string(answer["result.statuscode"])); err == nil && code != 0 {
		return exitCode(code)
	}
	if r.Call == "check" && len(answer[key]) == 0 {
		fmt.Fprintln(os.Stdout, "Check complete, no warnings found.")
	}
	return nil
}

func newDisplay(r *build.Request) (progressui.Display, error) {
	mode := progressui.DisplayMode(r.Progress)
	if r.Quiet {
		mode = progressui.QuietMode
	}
	return progressui.NewDisplay(os.Stderr, mode)
}

// options are BuildKit's words for a request.
func options(r *build.Request) (_ *client.SolveOpt, done func(), err error) {
	o := &client.SolveOpt{Frontend: "dockerfile.v0", FrontendAttrs: map[string]string{}}
	c, err := openContext(r, o)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	frontendAttrs(r, o.FrontendAttrs)
	for name, where := range r.Contexts {
		if err := namedContext(o, name, where); err != nil {
			return nil, nil, err
		}
	}
	for _, part := range []func(*build.Request, *client.SolveOpt) error{attach, caching, exports} {
		if err := part(r, o); err != nil {
			return nil, nil, err
		}
	}
	for _, a := range r.Allow {
		if a != "network.host" && a != "security.insecure" {
			return nil, nil, fmt.Errorf("--allow %s: what can be allowed is network.host and security.insecure", a)
		}
		o.AllowedEntitlements = append(o.AllowedEntitlements, a)
	}
	if r.Network == "host" && !slices.Contains(o.AllowedEntitlements, "network.host") {
		o.AllowedEntitlements = append(o.AllowedEntitlements, "network.host")
	}
	return o, c.close, nil
}

func frontendAttrs(r *build.Request, attrs map[string]string) {
	for k, v := range r.Args {
		attrs["build-arg:"+k] = v
	}
	for k, v := range r.Labels {
		attrs["label:"+k] = v
	}
	for k, v := range r.Attests {
		attrs["attest:"+k] = v
	}
	maps.Copy(attrs, r.Limits)
	if r.Target != "" {
		attrs["target"] = r.Target
	}
	switch {
	case r.NoCache:
		attrs["no-cache"] = ""
	case len(r.NoCacheFilter) > 0:
		attrs["no-cache"] = strings.Join(r.NoCacheFilter, ",")
	}
	// As docker build: an image that is here is taken, unless --pull asks the registry for a newer one.
	attrs["image-resolve-mode"] = "local"
	if r.Pull {
		attrs["image-resolve-mode"] = "pull"
	}
	if len(r.Platforms) > 0 {
		attrs["platform"] = strings.Join(r.Platforms, ",")
	}
	if r.Network != "" && r.Network != "default" {
		attrs["force-network-mode"] = r.Network
	}
	if len(r.AddHosts) > 0 {
		attrs["add-hosts"] = r.Hosts()
	}
	if len(r.Ulimits) > 0 {
		attrs["ulimit"] = strings.Join(r.Ulimits, ",")
	}
	if r.ShmSize > 0 {
		attrs["shm-size"] = strconv.FormatInt(r.ShmSize, 10)
	}
	if r.CgroupParent != "" {
		attrs["cgroup-parent"] = r.CgroupParent
	}
}

// attach adds what the builder may ask of the caller while it builds: credentials, secrets, agents.
func attach(r *build.Request, o *client.SolveOpt) error {
	file := config.LoadDefaultConfigFile(os.Stderr)
	o.Session = append(o.Session, authprovider.NewDockerAuthProvider(authprovider.DockerAuthProviderConfig{
		AuthConfigProvider: authprovider.LoadAuthConfig(file),
	}))
	var sources []secretsprovider.Source
	for _, s := range r.Secrets {
		sources = append(sources, secretsprovider.Source{ID: s.ID, FilePath: s.File, Env: s.Env})
	}
	if len(sources) > 0 {
		store, err := secretsprovider.NewStore(sources)
		if err != nil {
			return fmt.Errorf("--secret: %w", err)
		}
		o.Session = append(o.Session, secretsprovider.NewSecretProvider(store))
	}
	var agents []sshprovider.AgentConfig
	for _, s := range r.SSH {
		agents = append(agents, sshprovider.AgentConfig{ID: s.ID, Paths: s.Paths, Raw: s.Raw})
	}
	if len(agents) > 0 {
		p, err := sshprovider.NewSSHAgentProvider(agents)
		if err != nil {
			return fmt.Errorf("--ssh: %w", err)
		}
		o.Session = append(o.Session, p)
	}
	return nil
}

func caching(r *build.Request, o *client.SolveOpt) error {
	for _, c := range r.CacheFrom {
		// BuildKit's client would make the directory.
		if src := c.Attrs["src"]; c.Type == "local" && !exists(filepath.Join(src, "index.json")) {
			fmt.Fprintf(os.Stderr, "WARNING: --cache-from: there is no cache in %s\n", src)
			continue
		}
		o.CacheImports = append(o.CacheImports, client.CacheOptionsEntry{Type: c.Type, Attrs: c.Attrs})
	}
	for _, c := range r.CacheTo {
		o.CacheExports = append(o.CacheExports, client.CacheOptionsEntry{Type: c.Type, Attrs: c.Attrs})
	}
	return nil
}

// exports says where the result goes. Without --output that is the store.
func exports(r *build.Request, o *client.SolveOpt) error {
	if r.Call != "" {
		return nil
	}
	outputs := r.Outputs
	if len(outputs) == 0 {
		outputs = []build.Typed{{Type: "image"}}
	}
	names := strings.Join(r.Tags, ",")
	for _, out := range outputs {
		e := client.ExportEntry{Type: out.Type, Attrs: maps.Clone(out.Attrs)}
		if e.Attrs == nil {
			e.Attrs = map[string]string{}
		}
		dest := e.Attrs["dest"]
		delete(e.Attrs, "dest")
		push, _ := strconv.ParseBool(e.Attrs["push"])
		switch {
		case out.Type == "cacheonly":
			continue
		case out.Type == "local":
			e.OutputDir = dest
		case (out.Type == "oci" || out.Type == "docker") && e.Attrs["tar"] == "false":
			if e.OutputDir = dest; dest == "" || dest == "-" {
				return fmt.Errorf("--output type=%s,tar=false: dest is a directory", out.Type)
			}
		case out.Type == "registry" || out.Type == "image" && push:
			e.Type, e.Attrs["push"] = exporterStore, "true"
			if len(r.Platforms) > 1 && e.Attrs["store"] == "" { // a name of the store stands for one
				e.Attrs["store"] = "false"
			}
		case out.Type == "image" || out.Type == "docker" && dest == "":
			delete(e.Attrs, "push")
			e.Type = exporterStore
		default:
			var err error
			if e.Output, err = output(dest, r.Umask); err != nil {
				return err
			}
		}
		if out.Type != "local" && out.Type != "tar" {
			if e.Attrs["name"] == "" && names != "" {
				e.Attrs["name"] = names
			}
			for k, v := range r.Annotations {
				e.Attrs["annotation."+k] = v
			}
		}
		o.Exports = append(o.Exports, e)
	}
	return nil
}

// output opens the file that an archive is written to, when there is something to be written.
func output(dest string, umask os.FileMode) (func(map[string]string) (io.WriteCloser, error), error) {
	if dest == "" || dest == "-" {
		if st, err := os.Stdout.Stat(); err == nil && st.Mode()&os.ModeCharDevice != 0 {
			return nil, errors.New("--output: refusing to write an archive to a terminal: give dest=FILE")
		}
		return func(map[string]string) (io.WriteCloser, error) { return os.Stdout, nil }, nil
	}
	if st, err := os.Stat(dest); err == nil && st.IsDir() {
		return nil, fmt.Errorf("--output: destination file %s is a directory", dest)
	}
	if st, err := os.Stat(filepath.Dir(dest)); err != nil || !st.IsDir() {
		return nil, fmt.Errorf("--output: the directory of %s isn't there", dest)
	}
	return func(map[string]string) (io.WriteCloser, error) { return create(dest, umask) }, nil
}

// create makes a file of the caller's.
func create(name string, umask os.FileMode) (*os.File, error) {
	return os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o666&^umask)
}

// finish writes the files that were asked for, and the image's ID with --quiet.
func finish(r *build.Request, resp *client.SolveResponse) error {
	if resp == nil {
		return nil
	}
	id := resp.ExporterResponse[exptypes.ExporterImageConfigDigestKey]
	if id == "" {
		id = resp.ExporterResponse[exptypes.ExporterImageDigestKey]
	}
	if r.IIDFile != "" {
		if err := os.WriteFile(r.IIDFile, []byte(id), 0o644&^r.Umask); err != nil {
			return fmt.Errorf("--iidfile: %w", err)
		}
	}
	if r.MetadataFile != "" {
		if err := writeMetadata(r.MetadataFile, resp.ExporterResponse, r.Umask); err != nil {
			return fmt.Errorf("--metadata-file: %w", err)
		}
	}
	if r.Quiet && id != "" {
		fmt.Fprintln(os.Stdout, id)
	}
	return nil
}

// writeMetadata writes what the exporters answered, with values that are JSON in base64 as what they are.
func writeMetadata(name string, resp map[string]string, umask os.FileMode) error {
	out := map[string]any{}
	for k, v := range resp {
		out[k] = v
		if data, err := base64.StdEncoding.DecodeString(v); err == nil && len(data) > 0 && data[0] == '{' && json.Valid(data) {
			out[k] = json.RawMessage(data)
		}
	}
	data, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(data, '\n'), 0o644&^umask)
}

func base64Text(data []byte) string { return base64.StdEncoding.EncodeToString(data) }

// failure is the error of a build, and the lines of the Dockerfile that it is about are printed.
func failure(ctx context.Context, r *build.Request, err error) error {
	if ctx.Err() != nil {
		return err
	}
	var exec *errdefs.SolveError
	looked := r.DebugOnError != "" && errors.As(err, &exec) && exec.Op.GetExec() != nil // the lines have been shown
	for _, s := range errdefs.Sources(err) {
		if !looked {
			s.Print(os.Stderr)
		}
	}
	// What a policy says needs no words about how it came here.
	if _, text, ok := strings.Cut(err.Error(), "rpc error: code = PermissionDenied desc = "); ok && len(r.Policy) > 0 {
		return errors.New(text)
	}
	if h := hint(err.Error()); h != "" {
		return fmt.Errorf("failed to build: %w\nhint: %s", err, h)
	}
	var exit *gatewayapi.ExitError
	if errors.As(err, &exit) {
		return fmt.Errorf("failed to build: %w\nhint: glassbox explain build, with the same words, lists the steps, with --run N the plan of one",
			err)
	}
	return fmt.Errorf("failed to build: %w", err)
}

// hint says how what a build lacks is to be had.
func hint(text string) string {
	switch {
	case strings.Contains(text, "exec format error"):
		return "the program is for another kind of machine: register an emulator for it in binfmt_misc (apt-get install qemu-user-static " +
			"binfmt-support), or build for this machine's --platform"
	case strings.Contains(text, "buildkit-syft-scanner"):
		return "the scanner for --attest type=sbom is an image: name one that can be had with --sbom generator=IMAGE"
	}
	return ""
}

// tell prints an error as buildx does.
func tell(w io.Writer, err error) { fmt.Fprintln(w, "ERROR:", err) }
