package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"glassbox/container"
	"glassbox/docker"
	"glassbox/engine"
	"glassbox/event"
	"glassbox/image"
	"glassbox/policy"
)

// kinds says to which kind of a policy an endpoint belongs. One that isn't here is refused where there is a policy, and so is what is
// added later.
func kinds() map[string]string {
	return map[string]string{
		"GET /_ping": policy.Read, "GET /version": policy.Read, "GET /info": policy.Read, "GET /events": policy.Read,
		"GET /containers/json": policy.Read, "GET /containers/{id}/json": policy.Read, "GET /containers/{id}/top": policy.Read,
		"GET /containers/{id}/logs": policy.Read, "GET /containers/{id}/changes": policy.Read, "GET /containers/{id}/stats": policy.Read,
		"GET /containers/{id}/archive": policy.Read, "POST /containers/{id}/wait": policy.Read, "GET /images/json": policy.Read,
		"GET /images/{rest...}": policy.Read, "GET /networks": policy.Read, "GET /networks/{$}": policy.Read, "GET /networks/{id}": policy.Read,
		"GET /volumes": policy.Read, "GET /volumes/{name}": policy.Read, "GET /exec/{id}/json": policy.Read,

		"POST /containers/create": policy.Containers, "POST /containers/{id}/resize": policy.Containers,
		"POST /containers/{id}/start": policy.Containers, "POST /containers/{id}/stop": policy.Containers,
		"POST /containers/{id}/restart": policy.Containers, "POST /containers/{id}/kill": policy.Containers,
		"POST /containers/{id}/update": policy.Containers, "POST /containers/{id}/rename": policy.Containers,
		"POST /containers/{id}/pause": policy.Containers, "POST /containers/{id}/unpause": policy.Containers,
		"POST /containers/{id}/attach": policy.Containers, "GET /containers/{id}/attach/ws": policy.Containers,
		"DELETE /containers/{id}": policy.Containers,

		"POST /containers/{id}/exec": policy.Exec, "POST /exec/{id}/start": policy.Exec, "POST /exec/{id}/resize": policy.Exec,
		"PUT /containers/{id}/archive": policy.Files,
		"POST /networks/create":        policy.Networks, "DELETE /networks/{id}": policy.Networks,
		"POST /networks/{id}/connect": policy.Networks, "POST /networks/{id}/disconnect": policy.Networks,
		"POST /volumes/create": policy.Volumes, "DELETE /volumes/{name}": policy.Volumes,
		"POST /images/create": policy.Pull,
		// What is built is judged step by step by the builder.
		"POST /build": policy.Build, "POST /build/cancel": policy.Build, "POST /session": policy.Build, "POST /grpc": policy.Build,
		"POST " + nativeGRPC + "/{service}/{method}": policy.Build,
	}
}

// forbid is a refusal by the policy, which is written down.
func (q *request) forbid(why ...string) error {
	q.decided("refused", why)
	text := fmt.Sprintf("the policy %s of this socket doesn't allow it: %s", q.s.policy.Name, strings.Join(why, "; "))
	return &statusError{http.StatusForbidden, text}
}

// decided writes a line about a decision.
func (q *request) decided(decision string, why []string) {
	if q.s.decisions == nil {
		return
	}
	line, err := json.Marshal(struct {
		Time                                   time.Time
		Policy, Decision, Method, Path, Client string
		Why                                    []string `json:",omitempty"`
	}{time.Now().UTC(), q.s.policy.Name, decision, q.Method, q.URL.Path, q.UserAgent(), why})
	if err == nil {
		q.s.logging.Lock()
		defer q.s.logging.Unlock()
		q.s.decisions.Write(append(line, '\n'))
	}
}

// guarded puts the policy before an endpoint: is its kind allowed, and is what it is about the socket's own? Names become IDs here, so that
// what was looked at is what is used.
func (s *Server) guarded(pattern string, do handler) handler {
	kind := kinds()[pattern]
	return func(q *request) error {
		if kind == "" || !s.policy.Allows(kind) {
			return q.forbid(fmt.Sprintf("%s is not among its requests", pattern))
		}
		_, path, _ := strings.Cut(pattern, " ")
		switch {
		case strings.HasPrefix(path, "/containers/{id}"):
			v, err := s.engine.Inspect(q.Context(), q.PathValue("id"))
			if err == nil && v.HostConfig.Annotations[policy.Annotation] != s.policy.Name {
				// As if it weren't there: a 403 would tell which names and IDs exist.
				err = &statusError{http.StatusNotFound, "No such container: " + q.PathValue("id")}
			}
			if err != nil {
				return err
			}
			q.SetPathValue("id", v.ID)
		case strings.HasPrefix(path, "/networks/{id}"):
			n, err := s.engine.NetworkInspect(q.Context(), q.PathValue("id"))
			// One that the policy names may be used, and not be removed: others are in it.
			if err == nil && (!s.seesNetwork(n) || q.Method == http.MethodDelete && n.Labels[policy.Label] != s.policy.Name) {
				err = &statusError{http.StatusNotFound, "network " + q.PathValue("id") + " not found"}
			}
			if err != nil {
				return err
			}
			q.SetPathValue("id", n.ID)
		case strings.HasPrefix(path, "/volumes/{name}"):
			v, err := s.engine.Volume(q.Context(), q.PathValue("name"))
			if err == nil && v.Labels[policy.Label] != s.policy.Name {
				err = &statusError{http.StatusNotFound, "get " + q.PathValue("name") + ": no such volume"}
			}
			if err != nil {
				return err
			}
		}
		err := do(q)
		if err == nil && kind != policy.Read {
			q.decided("allowed", nil)
		}
		return err
	}
}

// seesNetwork reports whether a network may be used: one of the socket's own, or one that the policy names.
func (s *Server) seesNetwork(n docker.Network) bool {
	if n.Labels[policy.Label] == s.policy.Name {
		return true
	}
	for _, name := range s.policy.Networks {
		if name == n.Name {
			return true
		}
	}
	return false
}

// hideOthers leaves only the socket's own containers in what is said of a network.
func (s *Server) hideOthers(ctx context.Context, n *docker.Network) {
	own := map[string]docker.NetworkEndpoint{}
	for id, e := range n.Containers {
		if v, err := s.engine.Inspect(ctx, id); err == nil && v.HostConfig.Annotations[policy.Annotation] == s.policy.Name {
			own[id] = e
		}
	}
	n.Containers = own
}

// seesImage reports whether an image has a name that the policy allows.
func (s *Server) seesImage(i *image.Image) bool { return s.policy.AllowsImage(i.Names...) }

// seesEvent reports whether an event is about something of the socket's own.
func (s *Server) seesEvent(ctx context.Context, e *event.Event) bool {
	switch e.Type {
	case event.Container:
		v, err := s.engine.Inspect(ctx, e.Actor.ID)
		return err == nil && v.HostConfig.Annotations[policy.Annotation] == s.policy.Name
	case event.Network:
		n, err := s.engine.NetworkInspect(ctx, e.Actor.ID)
		return err == nil && n.Labels[policy.Label] == s.policy.Name
	}
	return false
}

// ownVolume reports whether a volume was made through the socket, or isn't there.
func (s *Server) ownVolume(ctx context.Context, name string) bool {
	own, err := s.engine.OwnVolume(ctx, s.policy, name)
	return err == nil && own
}

// permit judges a container that is to be made, marks it as the socket's, and makes the volumes that it names, so marked.
func (q *request) permit(o *engine.CreateOptions) error {
	s, ctx := q.s, q.Context()
	if i, err := s.engine.Images().Resolve(o.Config.Image); err == nil {
		// What was judged is what runs: a name could be given to another image meanwhile.
		if !s.policy.AllowsImage(o.Config.Image) && s.policy.AllowsImage(i.Names...) {
			o.Config.Image = i.ID
		}
	} else if s.policy.AllowsImage(o.Config.Image) {
		return err // so that clients pull it
	}
	ask, err := s.engine.Ask(ctx, s.policy, &o.Config)
	if err != nil {
		return err
	}
	if why := s.policy.Judge(ask); len(why) > 0 {
		return q.forbid(why...)
	}
	o.Config.Annotations = map[string]string{policy.Annotation: s.policy.Name}
	for i := range o.Config.Mounts {
		m := &o.Config.Mounts[i]
		if m.Type == container.Bind {
			// It was there, and is what was judged whenever it is mounted: a link that comes in its place would lead anywhere.
			m.MakeSource, m.NoLinks, m.Source = false, true, ask.Paths[m.Source].Path
		}
		if m.Type != container.Volume || m.Source == "" {
			continue
		}
		_, _, err := s.engine.CreateVolume(ctx, engine.VolumeOptions{Name: m.Source, Labels: map[string]string{policy.Label: s.policy.Name}})
		if err != nil {
			return err
		}
		if !s.ownVolume(ctx, m.Source) { // somebody else has made it meanwhile
			return q.forbid(fmt.Sprintf("volume %s was not made through this socket", m.Source))
		}
	}
	return nil
}

// permitNetwork lets a network be made that is a bridge and nothing special, and marks it.
func (q *request) permitNetwork(o *engine.NetworkOptions) error {
	p := q.s.policy
	if p == nil {
		return nil
	}
	switch _, set := o.Labels[policy.Label]; {
	case o.Driver != "bridge":
		return q.forbid("--driver " + o.Driver + ": allowed is bridge")
	case len(o.Options) > 0:
		return q.forbid("--opt: options of a network's driver are not allowed")
	case set:
		return q.forbid("the label " + policy.Label + " is the socket's")
	}
	// The host gets a route to it, and the gateway's address: for others than private ones these would take its packets to the world.
	for _, text := range o.Subnets {
		if s, err := netip.ParsePrefix(text); err == nil && !private(s) {
			return q.forbid("--subnet " + text + ": allowed are private ones, in 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, fc00::/7")
		}
	}
	o.Labels = marked(o.Labels, p)
	return nil
}

// private reports whether all addresses of a subnet are private ones.
func private(s netip.Prefix) bool {
	for _, text := range []string{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"} {
		if all := netip.MustParsePrefix(text); s.Bits() >= all.Bits() && all.Contains(s.Addr()) {
			return true
		}
	}
	return false
}

// permitVolume lets a volume be made that is a directory of the engine's, and marks it.
func (q *request) permitVolume(o *engine.VolumeOptions) error {
	p := q.s.policy
	if p == nil {
		return nil
	}
	switch _, set := o.Labels[policy.Label]; {
	case len(o.Options) > 0:
		return q.forbid("options of a volume's driver can name any path of the host")
	case set:
		return q.forbid("the label " + policy.Label + " is the socket's")
	case o.Name != "" && !q.s.ownVolume(q.Context(), o.Name):
		return q.forbid("volume " + o.Name + " was not made through this socket")
	}
	o.Labels = marked(o.Labels, p)
	return nil
}

// marked adds the socket's mark to labels.
func marked(labels map[string]string, p *policy.Policy) map[string]string {
	out := map[string]string{policy.Label: p.Name}
	for k, v := range labels {
		out[k] = v
	}
	return out
}

// permitContainer finds a container that a body names, which must be the socket's own.
func (q *request) permitContainer(ref *string, options bool) error {
	p := q.s.policy
	if p == nil {
		return nil
	}
	if options {
		return q.forbid("--driver-opt: options of a network's driver are not allowed")
	}
	v, err := q.s.engine.Inspect(q.Context(), *ref)
	if err == nil && v.HostConfig.Annotations[policy.Annotation] != p.Name {
		err = &statusError{http.StatusNotFound, "No such container: " + *ref}
	}
	if err != nil {
		return err
	}
	*ref = v.ID
	return nil
}

// permitImage lets an image be looked at that may be run.
func (q *request) permitImage(name, verb string) error {
	if verb != "json" && verb != "history" {
		return q.forbid("of images what they are may be asked for, and not their files")
	}
	i, err := q.s.engine.Images().Resolve(name)
	if err == nil && !q.s.seesImage(i) {
		err = &statusError{http.StatusNotFound, "No such image: " + name}
	}
	return err
}
