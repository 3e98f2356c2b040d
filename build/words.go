package build

import (
	"encoding/csv"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"glassbox/container"
)

// Words are the flags of a build as they were typed.
type Words struct {
	Context                               string
	Dockerfile                            string
	Tags                                  []string
	Target                                string
	Args, Labels                          []string
	NoCache                               bool
	NoCacheFilter                         []string
	Pull                                  bool
	Platforms                             []string
	Secrets, SSH                          []string
	Network                               string
	AddHosts                              []string
	CacheFrom, CacheTo                    []string
	Outputs                               []string
	Push, Load                            bool
	Contexts, Allow, Attests, Annotations []string
	Provenance, SBOM                      string
	Ulimits                               []string
	ShmSize                               string
	CgroupParent                          string
	Memory, MemorySwap                    string
	CPUShares, CPUPeriod, CPUQuota        int64
	CpusetCpus, CpusetMems                string
	Resources                             []string
	Check                                 bool
	Call                                  string
	Progress                              string
	Quiet                                 bool
	MetadataFile, IIDFile                 string
	Trace                                 string
	Step                                  bool
	Breaks                                []string
	DebugOnError                          string
	Policy                                []byte // the file's text
}

// Progresses are the values of --progress.
func Progresses() []string { return []string{"auto", "plain", "tty", "rawjson", "quiet", "none"} }

// Request reads the words. getenv answers for variables of the caller (ok: it is set), for --build-arg NAME.
func (w *Words) Request(getenv func(string) (string, bool)) (*Request, error) {
	r := &Request{
		Context: w.Context, Dockerfile: w.Dockerfile, Tags: w.Tags, Target: w.Target, NoCache: w.NoCache, Pull: w.Pull,
		Network: w.Network, AddHosts: w.AddHosts, Ulimits: w.Ulimits, CgroupParent: w.CgroupParent, Progress: w.Progress, Quiet: w.Quiet,
		MetadataFile: w.MetadataFile, IIDFile: w.IIDFile, Trace: w.Trace, DebugOnError: w.DebugOnError, Policy: w.Policy,
		NoCacheFilter: commas(w.NoCacheFilter), Platforms: commas(w.Platforms), Allow: commas(w.Allow),
	}
	if r.Dockerfile == "-" && r.Context == "-" {
		return nil, errors.New("invalid argument: can't use stdin for both build context and dockerfile")
	}
	if !slices.Contains(Progresses(), w.Progress) {
		return nil, fmt.Errorf("--progress %s: it is one of %s", w.Progress, strings.Join(Progresses(), ", "))
	}
	if w.Progress == "quiet" || w.Progress == "none" {
		r.Quiet = true
	}
	if !slices.Contains([]string{"", "default", "none", "host"}, w.Network) {
		return nil, fmt.Errorf("--network %s: it is default, none or host; a build step can't be on a network of your own", w.Network)
	}
	// In this order: seeing asks what calls has read.
	for _, part := range []func(*Words, *Request, func(string) (string, bool)) error{
		variables, secrets, caches, outputs, calls, attests, sizes, limits, seeing,
	} {
		if err := part(w, r, getenv); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// seeing checks how a build is to be looked at.
func seeing(w *Words, r *Request, _ func(string) (string, bool)) error {
	r.Step = w.Step || len(w.Breaks) > 0
	switch {
	case r.Step && (w.Context == "-" || w.Dockerfile == "-"):
		return errors.New("--step, --break: the answers are read from standard input, so neither context nor Dockerfile can come from there")
	case r.Step && w.Trace != "":
		return errors.New("--trace: with --step and --break it would measure who answers")
	case r.Call != "" && (r.Step || w.DebugOnError != ""):
		return fmt.Errorf("--call %s makes no step: there is nothing to stop at", r.Call)
	case w.DebugOnError != "" && r.Step:
		return errors.New("--debug-on-error: with --step and --break the terminal is theirs")
	case w.DebugOnError != "" && len(w.Policy) > 0:
		return errors.New("--debug-on-error: with --policy nobody would judge what is typed there")
	}
	return nil
}

func commas(words []string) (out []string) {
	for _, w := range words {
		for s := range strings.SplitSeq(w, ",") {
			if s = strings.TrimSpace(s); s != "" {
				out = append(out, s)
			}
		}
	}
	return out
}

func variables(w *Words, r *Request, getenv func(string) (string, bool)) error {
	r.Args, r.Labels, r.Contexts = map[string]string{}, map[string]string{}, map[string]string{}
	for _, text := range w.Args {
		key, value, ok := strings.Cut(text, "=")
		if key == "" {
			return fmt.Errorf("--build-arg %q: it has the form NAME=VALUE, or NAME for the variable of that name", text)
		}
		if !ok {
			if value, ok = getenv(key); !ok { // as with Docker: one that isn't set is left out
				continue
			}
		}
		r.Args[key] = value
	}
	for _, text := range w.Labels {
		key, value, _ := strings.Cut(text, "=")
		if key == "" {
			return fmt.Errorf("--label %q: it has the form NAME=VALUE", text)
		}
		r.Labels[key] = value
	}
	for _, text := range w.Contexts {
		key, value, ok := strings.Cut(text, "=")
		if !ok || key == "" || value == "" {
			return fmt.Errorf("--build-context %q: it has the form NAME=DIR, NAME=URL, NAME=docker-image://IMAGE or NAME=oci-layout://DIR", text)
		}
		r.Contexts[key] = value
	}
	for _, text := range w.Annotations {
		key, value, ok := strings.Cut(text, "=")
		if !ok || key == "" {
			return fmt.Errorf("--annotation %q: it has the form NAME=VALUE", text)
		}
		if r.Annotations == nil {
			r.Annotations = map[string]string{}
		}
		r.Annotations[key] = value
	}
	for _, text := range w.AddHosts {
		host, ip, ok := cutHost(text)
		if !ok || host == "" {
			return fmt.Errorf("--add-host %q: it has the form NAME:ADDRESS", text)
		}
		if _, err := netip.ParseAddr(ip); err != nil && ip != container.HostGateway {
			return fmt.Errorf("--add-host %q: %q is no address, nor %s", text, ip, container.HostGateway)
		}
	}
	return nil
}

// cutHost cuts NAME:ADDRESS or NAME=ADDRESS.
func cutHost(text string) (host, ip string, ok bool) {
	if i := strings.IndexAny(text, "=:"); i >= 0 {
		return text[:i], strings.Trim(text[i+1:], "[]"), text[i+1:] != ""
	}
	return "", "", false
}

// GatewayAddress stands for the host's address on a RUN's network (host-gateway) where the front end wants an address, and that of the
// host isn't known yet. It is nobody's: the dummy address of IPv4 (RFC 7600).
const GatewayAddress = "192.0.0.8"

// Hosts are the further names of a build in the form that the front end takes: NAME=ADDRESS, with commas.
func (r *Request) Hosts() string {
	var out []string
	for _, text := range r.AddHosts {
		host, ip, _ := cutHost(text)
		if ip == container.HostGateway {
			ip = GatewayAddress
		}
		out = append(out, host+"="+ip)
	}
	return strings.Join(out, ",")
}

// fields cuts a value of the form KEY=VALUE,KEY=VALUE, in which quotation marks are those of CSV.
func fields(flag, text string) ([][2]string, error) {
	list, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w", flag, text, err)
	}
	var out [][2]string
	for _, f := range list {
		key, value, _ := strings.Cut(f, "=")
		out = append(out, [2]string{strings.TrimSpace(key), value})
	}
	return out, nil
}

func secrets(w *Words, r *Request, _ func(string) (string, bool)) error {
	for _, text := range w.Secrets {
		list, err := fields("--secret", text)
		if err != nil {
			return err
		}
		var s Secret
		kind := ""
		for _, f := range list {
			switch strings.ToLower(f[0]) {
			case "id":
				s.ID = f[1]
			case "source", "src":
				s.File = f[1]
			case "env":
				s.Env = f[1]
			case "type":
				if kind = f[1]; kind != "file" && kind != "env" {
					return fmt.Errorf("--secret %q: unsupported secret type %q: it is file or env", text, kind)
				}
			default:
				return fmt.Errorf("--secret %q: unexpected key %q: there are id, src, env and type", text, f[0])
			}
		}
		// type=env,source=NAME is how buildx has it; src is a file's in all other cases.
		if kind == "env" && s.Env == "" {
			s.Env, s.File = s.File, ""
		}
		if s.ID == "" {
			return fmt.Errorf("--secret %q: it has no id", text)
		}
		r.Secrets = append(r.Secrets, s)
	}
	for _, text := range w.SSH {
		id, paths, _ := strings.Cut(text, "=")
		s := SSH{ID: id}
		for p := range strings.SplitSeq(paths, ",") {
			switch {
			case p == "raw=true":
				s.Raw = true
			case p == "raw=false", p == "":
			default:
				s.Paths = append(s.Paths, p)
			}
		}
		if s.ID == "" {
			return fmt.Errorf("--ssh %q: it has the form default, or ID=SOCKET or ID=KEY[,KEY…]", text)
		}
		r.SSH = append(r.SSH, s)
	}
	return nil
}

// typed reads type=T,key=value…; bare is the type of a value without "=".
func typed(flag, text, bareType, bareKey string) (Typed, error) {
	if !strings.Contains(text, "=") && bareType != "" {
		return Typed{bareType, map[string]string{bareKey: text}}, nil
	}
	list, err := fields(flag, text)
	if err != nil {
		return Typed{}, err
	}
	t := Typed{Attrs: map[string]string{}}
	for _, f := range list {
		if f[0] == "type" {
			t.Type = f[1]
		} else {
			t.Attrs[f[0]] = f[1]
		}
	}
	if t.Type == "" {
		return t, fmt.Errorf("%s %q: type is required (type=…)", flag, text)
	}
	return t, nil
}

// need refuses a type that isn't there, and one that lacks an attribute.
func need(flag, text string, t Typed, kinds map[string]string) error {
	attr, ok := kinds[t.Type]
	if !ok {
		var names []string
		for k := range kinds {
			names = append(names, k)
		}
		slices.Sort(names)
		return fmt.Errorf("%s %q: type %q is not there: it is one of %s", flag, text, t.Type, strings.Join(names, ", "))
	}
	if attr != "" && t.Attrs[attr] == "" {
		return fmt.Errorf("%s %q: type=%s needs %s=…", flag, text, t.Type, attr)
	}
	return nil
}

func caches(w *Words, r *Request, _ func(string) (string, bool)) error {
	for _, text := range w.CacheFrom {
		t, err := typed("--cache-from", text, "registry", "ref")
		if err == nil {
			err = need("--cache-from", text, t, map[string]string{"registry": "ref", "local": "src"})
		}
		if err != nil {
			return err
		}
		r.CacheFrom = append(r.CacheFrom, t)
	}
	for _, text := range w.CacheTo {
		t, err := typed("--cache-to", text, "registry", "ref")
		if err == nil {
			err = need("--cache-to", text, t, map[string]string{"registry": "ref", "local": "dest", "inline": ""})
		}
		if err != nil {
			return err
		}
		r.CacheTo = append(r.CacheTo, t)
	}
	return nil
}

func outputs(w *Words, r *Request, _ func(string) (string, bool)) error {
	for _, text := range w.Outputs {
		var t Typed
		var err error
		switch {
		case text == "-":
			t = Typed{"tar", map[string]string{"dest": "-"}}
		default:
			t, err = typed("--output", text, "local", "dest")
		}
		if err == nil {
			err = need("--output", text, t, map[string]string{
				"local": "dest", "tar": "", "oci": "", "docker": "", "image": "", "registry": "", "cacheonly": "",
			})
		}
		if err != nil {
			return err
		}
		r.Outputs = append(r.Outputs, t)
	}
	// Each is an output of its own: --push takes the place of no --output.
	if w.Push {
		r.Outputs = append(r.Outputs, Typed{"registry", map[string]string{}})
	}
	if w.Load {
		r.Outputs = append(r.Outputs, Typed{"docker", map[string]string{}})
	}
	stdout := 0
	for i := range r.Outputs {
		if o := &r.Outputs[i]; o.Type == "tar" || o.Type == "oci" {
			// Standard output, as with buildx: what is for a file has nowhere else to go.
			if o.Attrs["dest"] == "" {
				o.Attrs["dest"] = "-"
			}
		}
		if r.Outputs[i].Attrs["dest"] == "-" {
			if r.Outputs[i].Type == "local" {
				return errors.New("--output type=local: dest is a directory; type=tar,dest=- writes to standard output")
			}
			stdout++
		}
		if o := r.Outputs[i]; o.Type == "registry" && len(r.Tags) == 0 && o.Attrs["name"] == "" {
			return errors.New("tag is needed when pushing to registry: give one with -t")
		}
	}
	if stdout > 1 {
		return errors.New("--output: only one can be written to standard output")
	}
	return nil
}

func calls(w *Words, r *Request, _ func(string) (string, bool)) error {
	call := w.Call
	if w.Check {
		name, rest, more := strings.Cut(call, ",")
		if !slices.Contains([]string{"", "build", "check", "lint"}, name) {
			return fmt.Errorf("--check is --call=check, and --call=%s is something else", call)
		}
		if call = "check"; more {
			call += "," + rest
		}
	}
	name, rest, _ := strings.Cut(call, ",")
	for f := range strings.SplitSeq(rest, ",") {
		if v, ok := strings.CutPrefix(f, "format="); ok {
			if r.Format = v; v != "json" && v != "text" {
				return fmt.Errorf("--call %s: the format is text or json", call)
			}
		}
	}
	switch name {
	case "", "build":
	case "check", "lint":
		r.Call = "check"
	case "outline", "targets":
		r.Call = name
	default:
		return fmt.Errorf("--call %s: it is build, check, outline or targets", call)
	}
	return nil
}

func attests(w *Words, r *Request, _ func(string) (string, bool)) error {
	add := func(kind, attrs string) {
		if r.Attests == nil {
			r.Attests = map[string]string{}
		}
		r.Attests[kind] = attrs
	}
	for _, text := range w.Attests {
		t, err := typed("--attest", text, "", "")
		if err == nil {
			err = need("--attest", text, t, map[string]string{"provenance": "", "sbom": ""})
		}
		if err != nil {
			return err
		}
		// The rest goes on as it was typed, in whatever order: BuildKit reads it as CSV, too.
		list, err := csv.NewReader(strings.NewReader(text)).Read()
		if err != nil {
			return fmt.Errorf("--attest %q: %w", text, err)
		}
		list = slices.DeleteFunc(list, func(f string) bool { return strings.TrimSpace(f) == "type="+t.Type })
		attrs, err := csvLine(list)
		if err != nil {
			return fmt.Errorf("--attest %q: %w", text, err)
		}
		add(t.Type, attrs)
	}
	for flag, value := range map[string]string{"provenance": w.Provenance, "sbom": w.SBOM} {
		switch on, err := strconv.ParseBool(value); {
		case value == "":
		case err == nil && on:
			add(flag, "")
		case err == nil: // it takes back an --attest of the same type, too
			delete(r.Attests, flag)
		default:
			add(flag, value)
		}
	}
	return nil
}

// csvLine is the inverse of reading a line of CSV.
func csvLine(fields []string) (string, error) {
	var b strings.Builder
	w := csv.NewWriter(&b)
	if err := w.Write(fields); err != nil {
		return "", err
	}
	w.Flush()
	return strings.TrimSuffix(b.String(), "\n"), w.Error()
}

// limits are those of RUN's cgroup, by the front end's names.
func limits(w *Words, r *Request, _ func(string) (string, bool)) error {
	r.Limits = map[string]string{}
	if err := w.resources(); err != nil {
		return err
	}
	for _, f := range []struct{ flag, name, text string }{{"memory", "memory", w.Memory}, {"memory-swap", "memswap", w.MemorySwap}} {
		if f.text == "" {
			continue
		}
		n, err := container.ParseBytes(f.text)
		if f.flag == "memory-swap" && f.text == "-1" { // without limit
			n, err = -1, nil
		}
		if err != nil {
			return fmt.Errorf("--%s %s: %w", f.flag, f.text, err)
		}
		r.Limits[f.name] = strconv.FormatInt(n, 10)
	}
	for name, n := range map[string]int64{"cpushares": w.CPUShares, "cpuperiod": w.CPUPeriod, "cpuquota": w.CPUQuota} {
		if n != 0 {
			r.Limits[name] = strconv.FormatInt(n, 10)
		}
	}
	for name, text := range map[string]string{"cpusetcpus": w.CpusetCpus, "cpusetmems": w.CpusetMems} {
		if text != "" {
			r.Limits[name] = text
		}
	}
	return nil
}

// resources are buildx's words for the same limits: KEY=VALUE with commas, the keys being the flags of docker build.
func (w *Words) resources() error {
	for _, text := range w.Resources {
		list, err := fields("--resource", text)
		if err != nil {
			return err
		}
		for _, f := range list {
			var number *int64
			switch f[0] {
			case "memory":
				w.Memory = f[1]
			case "memory-swap":
				w.MemorySwap = f[1]
			case "cpuset-cpus":
				w.CpusetCpus = f[1]
			case "cpuset-mems":
				w.CpusetMems = f[1]
			case "cpu-shares":
				number = &w.CPUShares
			case "cpu-period":
				number = &w.CPUPeriod
			case "cpu-quota":
				number = &w.CPUQuota
			default:
				return fmt.Errorf("--resource %q: unknown key %q: there are memory, memory-swap, cpu-shares, cpu-period, cpu-quota, cpuset-cpus and "+
					"cpuset-mems", text, f[0])
			}
			if number == nil {
				continue
			}
			if *number, err = strconv.ParseInt(f[1], 10, 64); err != nil {
				return fmt.Errorf("--resource %q: %s is a number", text, f[0])
			}
		}
	}
	return nil
}

func sizes(w *Words, r *Request, _ func(string) (string, bool)) (err error) {
	if w.ShmSize == "" {
		return nil
	}
	if r.ShmSize, err = container.ParseBytes(w.ShmSize); err != nil {
		return fmt.Errorf("--shm-size %s: %w", w.ShmSize, err)
	}
	return nil
}
