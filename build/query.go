package build

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Paths of the builder's own that the API's server asks it by, beside those of Docker's API.
const (
	PathReady = "/glassbox/ready" // answers when it serves
	PathEnd   = "/glassbox/end"   // asks it to end where nobody uses it
	PathUsage = "/glassbox/usage" // the cache, as a list of [Record]
	// PathRefusals answers at once, and then tells what is refused of the request that has the same WatchHeader, a JSON string in each line,
	// until that request is over.
	PathRefusals = "/glassbox/refusals"
)

// PolicyHeader has the policy of the socket through which a request came, as JSON in base64, or [NoPolicy]. The API's server sets it when
// all that clients can say of headers has been done (a Connection header names some that are to be dropped). A request without is refused.
const PolicyHeader = "Glassbox-Policy"

// NoPolicy is what PolicyHeader has for a socket without one.
const NoPolicy = "none"

// WatchHeader has the name under which [PathRefusals] tells what of a request was refused.
const WatchHeader = "Glassbox-Watch"

// Call is a build that comes over the API (POST /build).
type Call struct {
	Request
	BuildKit bool   // the client speaks BuildKit: its session has the context, and it reads BuildKit's progress
	Session  string // of the client
	ID       string // what the client calls the build, to cancel it
	Remote   string // URL of the context; client-session and empty: the session's, or the body's
}

// Query reads the parameters of POST /build, as Docker's API has them. What means nothing here (rm, forcerm, which are about containers
// that there aren't) is passed over.
func Query(q map[string][]string) (*Call, error) {
	get := func(name string) string {
		if v := q[name]; len(v) > 0 {
			return v[0]
		}
		return ""
	}
	c := &Call{Session: get("session"), ID: get("buildid"), Remote: get("remote")}
	switch v := get("version"); v {
	case "", "1":
	case "2":
		c.BuildKit = true
	default:
		return nil, fmt.Errorf("invalid version %q", v)
	}
	r := &c.Request
	r.Dockerfile, r.Target, r.CgroupParent = get("dockerfile"), get("target"), get("cgroupparent")
	r.Quiet, r.NoCache, r.Pull = Truth(get("q")), Truth(get("nocache")), Truth(get("pull"))
	r.Tags, r.AddHosts = q["t"], q["extrahosts"]
	if p := get("platform"); p != "" {
		r.Platforms = []string{p}
	}
	switch r.Network = get("networkmode"); r.Network {
	case "", "default", "none", "host":
	// On which a RUN is in any case: the classic builder took a network's name.
	case "bridge":
		r.Network = "default"
	default:
		return nil, fmt.Errorf("network mode %q not supported by the builder: it is default, none or host", r.Network)
	}
	for _, text := range r.AddHosts {
		if host, _, ok := cutHost(text); !ok || host == "" {
			return nil, fmt.Errorf("extrahosts %q: it has the form NAME:ADDRESS", text)
		}
	}
	if Truth(get("squash")) {
		return nil, errors.New("squash is not supported: layers are what the cache and other images share")
	}
	if len(q["securityopt"]) > 0 {
		return nil, errors.New("security options are not supported on linux")
	}
	if err := c.numbers(get); err != nil {
		return nil, err
	}
	return c, c.lists(get)
}

// Truth reads a parameter of the API that is on or off as Docker does: what isn't a no is a yes.
func Truth(text string) bool {
	text = strings.ToLower(strings.TrimSpace(text))
	return !slices.Contains([]string{"", "0", "no", "false", "none"}, text)
}

func (c *Call) numbers(get func(string) string) error {
	c.Limits = map[string]string{}
	for _, name := range []string{"memory", "memswap", "cpushares", "cpuperiod", "cpuquota"} {
		text := get(name)
		if text == "" || text == "0" {
			continue
		}
		if _, err := strconv.ParseInt(text, 10, 64); err != nil {
			return fmt.Errorf("%s %q: it is a number", name, text)
		}
		c.Limits[name] = text
	}
	for _, name := range []string{"cpusetcpus", "cpusetmems"} {
		if text := get(name); text != "" {
			c.Limits[name] = text
		}
	}
	if text := get("shmsize"); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 {
			return fmt.Errorf("shmsize %q: it is a number of bytes", text)
		}
		c.ShmSize = n
	}
	return nil
}

// lists are the parameters that are JSON.
func (c *Call) lists(get func(string) string) error {
	var args map[string]*string
	var from []string
	var outputs []Typed
	var ulimits []struct {
		Name       string
		Soft, Hard int64
	}
	for _, f := range []struct {
		name string
		into any
	}{{"buildargs", &args}, {"labels", &c.Labels}, {"cachefrom", &from}, {"outputs", &outputs}, {"ulimits", &ulimits}} {
		text := get(f.name)
		if text == "" {
			continue
		}
		if err := json.Unmarshal([]byte(text), f.into); err != nil {
			return fmt.Errorf("error reading %s: %w", f.name, err)
		}
	}
	c.Args = map[string]string{}
	for _, k := range slices.Sorted(maps.Keys(args)) {
		if v := args[k]; v != nil { // a name without a value is one that the client's environment hasn't
			c.Args[k] = *v
		}
	}
	for _, ref := range from {
		c.CacheFrom = append(c.CacheFrom, Typed{Type: "registry", Attrs: map[string]string{"ref": ref}})
	}
	for _, u := range ulimits {
		c.Ulimits = append(c.Ulimits, fmt.Sprintf("%s=%d:%d", u.Name, u.Soft, u.Hard))
	}
	if len(outputs) > 1 {
		return errors.New("multiple outputs not supported")
	}
	c.Outputs = outputs
	return nil
}

// PruneQuery reads the parameters of POST /build/prune.
func PruneQuery(q map[string][]string) (*Prune, error) {
	get := func(names ...string) string {
		for _, name := range names {
			if v := q[name]; len(v) > 0 && v[0] != "" && v[0] != "0" {
				return v[0]
			}
		}
		return ""
	}
	p := &Prune{All: Truth(get("all"))}
	for _, f := range []struct {
		text string
		to   *int64
	}{
		{get("reserved-space", "keep-storage"), &p.ReservedSpace},
		{get("max-used-space"), &p.MaxUsedSpace},
		{get("min-free-space"), &p.MinFreeSpace},
	} {
		if f.text == "" {
			continue
		}
		n, err := strconv.ParseInt(f.text, 10, 64)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("%q: a size is a number of bytes", f.text)
		}
		*f.to = n
	}
	filters, err := Filters(get("filters"))
	if err != nil {
		return nil, err
	}
	for i, text := range filters {
		// Clients that put a whole day into seconds, as docker does with --filter until=TIME.
		if v, ok := strings.CutPrefix(text, "until="); ok && v != "" && strings.Trim(v, "0123456789") == "" {
			n, _ := strconv.ParseInt(v, 10, 64)
			filters[i] = "until=" + max(time.Since(time.Unix(n, 0)), 0).String()
		}
	}
	return p, p.ReadFilters(filters)
}

// Filters reads the API's parameter of that name, in both forms that there have been: {"label": {"a": true}} and {"label": ["a"]}. The
// result is KEY=VALUE, sorted.
func Filters(text string) ([]string, error) {
	if text == "" {
		return nil, nil
	}
	sets := map[string]map[string]bool{}
	if json.Unmarshal([]byte(text), &sets) != nil {
		// A failed Unmarshal leaves what it had read before it failed.
		clear(sets)
		lists := map[string][]string{}
		if err := json.Unmarshal([]byte(text), &lists); err != nil {
			return nil, fmt.Errorf("invalid filter: %w", err)
		}
		for key, values := range lists {
			sets[key] = map[string]bool{}
			for _, v := range values {
				sets[key][v] = true
			}
		}
	}
	var out []string
	for _, key := range slices.Sorted(maps.Keys(sets)) {
		if key == "" || strings.Contains(key, "=") {
			return nil, fmt.Errorf("invalid filter '%s'", key)
		}
		for _, value := range slices.Sorted(maps.Keys(sets[key])) {
			out = append(out, key+"="+value) // whatever stands behind it, as with Docker
		}
	}
	return out, nil
}
