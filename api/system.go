package api

import (
	"net/http"
	"runtime"
	"strings"

	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"

	"glassbox/docker"
	"glassbox/image"
)

// ping answers GET and HEAD /_ping.
func (q *request) ping() error {
	h := q.w.Header()
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Set("Pragma", "no-cache")
	h.Set("Swarm", "inactive")
	h.Set("Builder-Version", "1")
	if q.s.builder != nil {
		h.Set("Builder-Version", "2")
	}
	h.Set("Content-Type", "text/plain; charset=utf-8")
	if q.Method == http.MethodHead {
		h.Set("Content-Length", "0")
		return nil
	}
	_, err := q.w.Write([]byte("OK"))
	return err
}

// getVersion answers GET /version.
func (q *request) getVersion() error {
	f, err := q.s.engine.Facts(q.Context())
	if err != nil {
		return err
	}
	details := map[string]string{
		"ApiVersion": MaxVersion, "MinAPIVersion": MinVersion, "Arch": runtime.GOARCH, "Os": runtime.GOOS, "GoVersion": runtime.Version(),
		"KernelVersion": f.Kernel.Release, "Experimental": "false",
	}
	return q.json(system.VersionResponse{
		Platform: system.PlatformInfo{Name: "glassbox"}, Version: docker.Version, APIVersion: MaxVersion, MinAPIVersion: MinVersion,
		Os: runtime.GOOS, Arch: runtime.GOARCH, GoVersion: runtime.Version(), KernelVersion: f.Kernel.Release,
		Components: []system.ComponentVersion{{Name: "Engine", Version: docker.Version, Details: details}},
	})
}

// info answers GET /info.
func (q *request) info() error {
	i, err := q.s.engine.Info(q.Context(), docker.Version)
	if err != nil {
		return err
	}
	return q.json(i)
}

// auth answers POST /auth.
func (q *request) auth() error {
	var body registry.AuthConfig
	if err := q.body(&body, false); err != nil {
		return err
	}
	server, err := image.LoginServer(body.ServerAddress)
	if err != nil {
		return invalid("%v", err)
	}
	c := image.Credentials{Username: body.Username, Password: body.Password}
	token, err := image.CheckLogin(q.Context(), server, c, image.PullOptions{InsecureRegistries: q.s.insecure})
	if err != nil {
		return err
	}
	return q.json(registry.AuthResponse{Status: "Login Succeeded", IdentityToken: token})
}

// noSwarm answers what needs a swarm, as a Docker that is no node of one.
func noSwarm(q *request) error {
	switch q.URL.Path {
	case "/swarm/leave": // docker-py's clean-up takes this status for "it was in none"
		return &statusError{http.StatusServiceUnavailable, "This node is not part of a swarm"}
	case "/swarm/init", "/swarm/join":
		return notImplemented("there is no swarm here: one machine is all that this engine knows")
	}
	return &statusError{
		http.StatusServiceUnavailable,
		"This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.",
	}
}

// plugins answers GET /plugins.
func (q *request) plugins() error { return q.json([]struct{}{}) }

// noPlugin answers for any one plugin.
func noPlugin(q *request) error {
	if q.Method == http.MethodGet && !strings.HasSuffix(q.URL.Path, "/json") || strings.HasSuffix(q.URL.Path, "/pull") ||
		strings.HasSuffix(q.URL.Path, "/create") {
		return notImplemented("plugins are not supported: they would be programs with the engine's rights")
	}
	name := strings.TrimPrefix(q.URL.Path, "/plugins/")
	name, _, _ = strings.Cut(name, "/")
	return &statusError{http.StatusNotFound, "plugin \"" + name + "\" not found"}
}
