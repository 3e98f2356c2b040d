package container

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"glassbox/plan"
)

// Words is what container to make in Docker's words: field by field it is `docker run`'s flags, values as typed. Lists keep the order of
// the flags. It is what a command line fills in, and what container.json of version 1 stored.
type Words struct {
	Image         string   // reference of an image in the store; empty with Rootfs
	Rootfs        string   // --rootfs DIR: run a plain directory
	RootfsOverlay bool     // --rootfs DIR:O: through an overlay that is thrown away
	Command       []string // replaces the image's Cmd
	Entrypoint    *string  // --entrypoint; "" clears the image's
	Name          string
	Hostname      string
	Domainname    string
	Workdir       string
	User          string   // --user NAME|UID[:GROUP|GID]
	GroupAdd      []string // --group-add
	Env           []string // KEY=VALUE, or KEY to take over the value of Environ
	EnvFile       []string // --env-file: read by the caller, who puts what it says before Env
	Label         []string // KEY=VALUE
	LabelFile     []string // as EnvFile
	Annotation    []string // KEY=VALUE
	Expose        []string // PORT[-PORT][/PROTO]
	TTY           bool     // -t
	Interactive   bool     // -i
	Detach        bool     // -d; only recorded
	Remove        bool     // --rm
	Init          bool
	Privileged    bool
	ReadOnly      bool
	CapAdd        []string
	CapDrop       []string
	SecurityOpt   []string // no-new-privileges[:true|false], seccomp=FILE|{JSON}|unconfined, apparmor=PROFILE, masked-paths=PATHS
	Namespaces    []string // --ns mount,pid,…: exactly these are new; nil is the default six
	PID           string   // --pid host|container:ID
	IPC           string   // --ipc host|private|shareable|none|container:ID
	UTS           string   // --uts host
	CgroupNS      string   // --cgroupns host|private
	CgroupParent  string
	OOMScoreAdj   int
	Ulimit        []string // --ulimit nofile=1024:2048
	Sysctl        []string // KEY=VALUE
	ShmSize       string
	StorageOpt    []string // --storage-opt size=10G
	Tmpfs         []string // --tmpfs PATH[:OPTIONS]
	Volume        []string // -v [SOURCE:]TARGET[:OPTIONS]
	VolumesFrom   []string // --volumes-from CONTAINER[:MODE]
	VolumeDriver  string
	Mount         []string // --mount type=bind,source=…,target=…
	Device        []string // --device HOST[:CONTAINER[:rwm]]
	GPUs          []string // --gpus all, 2, "device=0,2"
	DeviceRule    []string // --device-cgroup-rule "c 1:3 rwm"
	Network       []string // --network NAME, or name=NAME,alias=…; bridge (default), none, host, container:ID
	NetworkAlias  []string // of the first network, as the next four
	Link          []string // NAME[:ALIAS]
	IP6           string
	LinkLocalIP   []string // --link-local-ip
	Publish       []string // -p
	PublishAll    bool     // -P
	PublishAdd    []string // of update: ports that are published from now on
	PublishRm     []string // of update: ports that are published no more
	IP            string   // --ip
	MAC           string   // --mac-address
	DNS           []string
	DNSSearch     []string
	DNSOption     []string
	AddHost       []string
	NetRateIn     string   // bytes per second to the container: 10m, 100mbit
	NetRateOut    string   // the same from it
	NetBurst      string   // bytes
	Egress        []string // --egress deny|allow|CIDR[:PORT[/PROTO]]|NAME[:PORT]…
	Ingress       []string
	StopSignal    string
	StopTimeout   *int // seconds
	Platform      string
	CIDFile       string
	LogDriver     string   // json-file, local, journald, none
	LogOpt        []string // max-size=16m, max-file=3
	Restart       string   // --restart no|on-failure[:N]|always|unless-stopped|on-unhealthy[:N]

	HealthCmd           string // for /bin/sh
	HealthInterval      time.Duration
	HealthTimeout       time.Duration
	HealthStartPeriod   time.Duration
	HealthStartInterval time.Duration
	HealthRetries       int
	NoHealthcheck       bool // --no-healthcheck: none, whatever the image says

	Memory            string // bytes with suffix b, k, m, g
	MemorySwap        string // memory and swap together; -1 unlimited
	MemoryReservation string
	MemorySwappiness  *int64
	OOMKillDisable    bool
	CPUs              string // decimal number of processors
	CPUShares         int64
	CPUPeriod         int64 // microseconds
	CPUQuota          int64 // microseconds
	CPURTPeriod       int64 // microseconds
	CPURTRuntime      int64 // microseconds
	CpusetCpus        string
	CpusetMems        string
	PidsLimit         *int64
	BlkioWeight       uint16
	LimitHints        bool     // GOMEMLIMIT and GOMAXPROCS
	BlkioWeightDevice []string // DEVICE:WEIGHT
	DeviceReadBps     []string // DEVICE:RATE
	DeviceWriteBps    []string
	DeviceReadIOps    []string
	DeviceWriteIOps   []string

	ConsoleSize [2]uint16 // rows, columns of the caller's terminal

	// Flags holds, by the flag's long name without dashes ("memory"), the text as typed ("--memory=50m").
	Flags map[string]string
	// Environ is the caller's environment, from which Env entries without a value are taken.
	Environ []string
	// Dir is the caller's working directory, for relative paths in Volume.
	Dir string
}

// Config reads the words. What they mean on a host is asked later; here they are only understood or refused.
func (w *Words) Config() (*Config, error) {
	c, err := w.config()
	if err != nil {
		return nil, err
	}
	if c.Mounts, err = uniqueMounts(c.Mounts); err != nil {
		return nil, err
	}
	return c, c.Rates.check(c)
}

// config reads the words, but lets several mounts have one target.
func (w *Words) config() (*Config, error) {
	c := &Config{
		Image: w.Image, Platform: w.Platform, Command: w.Command, User: w.User, Groups: w.GroupAdd, TTY: w.TTY, OpenStdin: w.Interactive,
		Detach: w.Detach, Init: w.Init, StopSignal: w.StopSignal, StopTimeout: w.StopTimeout, Remove: w.Remove, CIDFile: w.CIDFile,
		ConsoleSize: w.ConsoleSize, Hostname: w.Hostname, Domainname: w.Domainname, Privileged: w.Privileged, ReadOnly: w.ReadOnly,
		PublishAll: w.PublishAll, DNS: Resolver{w.DNS, w.DNSSearch, w.DNSOption}, Origins: w.Flags,
	}
	if w.Rootfs != "" {
		c.Rootfs = &Rootfs{Dir: w.Rootfs, Overlay: w.RootfsOverlay}
		if !path.IsAbs(w.Rootfs) {
			c.Rootfs.Dir = path.Join(w.Dir, w.Rootfs)
		}
	}
	// Empty is not nil: --entrypoint "" takes the image's away.
	if w.Entrypoint != nil {
		c.Entrypoint = []string{}
		if *w.Entrypoint != "" {
			c.Entrypoint = []string{*w.Entrypoint}
		}
	}
	for _, part := range []func(*Config) error{w.process, w.namespaces, w.privileges, w.files, w.network, w.health} {
		if err := part(c); err != nil {
			return nil, err
		}
	}
	var err error
	if c.Limits, err = w.limits(); err != nil {
		return nil, err
	}
	return c, nil
}

func (w *Words) process(c *Config) error {
	if w.Workdir != "" {
		if !path.IsAbs(w.Workdir) {
			return Invalid("the working directory %q is invalid, it needs to be an absolute path", w.Workdir)
		}
		c.Workdir = path.Clean(w.Workdir)
	}
	for _, entry := range w.Env {
		key, _, ok := strings.Cut(entry, "=")
		if key == "" || strings.ContainsRune(entry, 0) {
			return Invalid("invalid environment variable: %s", entry)
		}
		if !ok {
			// Else it stays without a value, which takes the image's variable away.
			if value, found := LookupEnv(w.Environ, key); found {
				entry = key + "=" + value
			}
		}
		c.Env = append(c.Env, entry)
	}
	for _, text := range w.Label {
		if c.Labels == nil {
			c.Labels = map[string]string{}
		}
		key, value, _ := strings.Cut(text, "=")
		c.Labels[key] = value
	}
	for _, text := range w.Annotation {
		key, value, ok := strings.Cut(text, "=")
		if !ok || key == "" {
			return Invalid("--annotation %s: want KEY=VALUE", text)
		}
		if c.Annotations == nil {
			c.Annotations = map[string]string{}
		}
		c.Annotations[key] = value
	}
	if w.Hostname != "" && !validHostname(w.Hostname) {
		return Invalid("invalid hostname %q: letters, digits, dashes, underscores and dots, at most 64", w.Hostname)
	}
	var err error
	c.Log, err = parseLog(w.LogDriver, w.LogOpt)
	return err
}

// validHostname accepts what sethostname(2) takes and /etc/hosts can say.
func validHostname(s string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
	return len(s) <= 64 && strings.Trim(s, letters) == "" && s[0] != '-' && s[0] != '.'
}

// namespaceNames are the words of --ns.
var namespaceNames = []string{"mount", "pid", "uts", "ipc", "net", "cgroup", "time", "user"}

func (w *Words) namespaces(c *Config) error {
	n := &c.Namespaces
	if w.Namespaces != nil {
		n.New = []string{}
		for _, name := range w.Namespaces {
			name = strings.TrimSpace(name)
			switch name {
			case "mnt":
				name = "mount"
			case "network":
				name = "net"
			}
			if !slices.Contains(namespaceNames, name) {
				return Invalid("--ns: unknown namespace %q: want some of %s", name, strings.Join(namespaceNames, ","))
			}
			n.New = append(n.New, name)
		}
		if !slices.Contains(n.New, "mount") {
			return Invalid("--ns: a container needs a mount namespace of its own: without it, its mounts would be the host's")
		}
	}
	for _, m := range []struct {
		flag, value string
		words       []string
		to          *Mode
	}{
		{"pid", w.PID, []string{"private"}, &n.PID},
		{"ipc", w.IPC, []string{"private", "shareable", "none"}, &n.IPC},
		{"uts", w.UTS, []string{"private"}, &n.UTS},
		{"cgroupns", w.CgroupNS, []string{"private"}, &n.Cgroup},
	} {
		mode := Mode(m.value)
		if m.value != "" && !mode.IsHost() && mode.Container() == "" && !slices.Contains(m.words, m.value) {
			return Invalid("--%s: %q: want host or container:NAME", m.flag, m.value)
		}
		*m.to = mode
	}
	for _, text := range w.Sysctl {
		key, value, ok := strings.Cut(text, "=")
		if !ok || key == "" {
			return Invalid("--sysctl %s: want KEY=VALUE", text)
		}
		c.Sysctls = append(c.Sysctls, KeyValue{key, value, "--sysctl " + text})
	}
	return nil
}

// ParseCapability gives a capability's full name: "net_admin" is CAP_NET_ADMIN, "all" is CAP_ALL.
func ParseCapability(name string) (string, error) {
	full := strings.ToUpper(name)
	if !strings.HasPrefix(full, "CAP_") {
		full = "CAP_" + full
	}
	if full != "CAP_ALL" && plan.CapNumber(full) < 0 {
		return "", Invalid("invalid capability: %s", name)
	}
	return full, nil
}

func (w *Words) privileges(c *Config) error {
	for _, l := range []struct {
		names []string
		to    *[]string
	}{{w.CapAdd, &c.CapAdd}, {w.CapDrop, &c.CapDrop}} {
		for _, name := range l.names {
			full, err := ParseCapability(name)
			if err != nil {
				return err
			}
			*l.to = append(*l.to, full)
		}
	}
	for _, opt := range w.SecurityOpt {
		if err := c.Security.set(opt); err != nil {
			return err
		}
		if strings.HasPrefix(opt, "seccomp={") {
			opt = "seccomp=" + CustomSeccomp // what explain prints; Profile has the text
		}
		c.Security.Options = append(c.Security.Options, opt)
	}
	for _, text := range w.GPUs {
		r, err := ParseGPUs(text)
		if err != nil {
			return err
		}
		c.Requests = append(c.Requests, r)
	}
	for _, text := range w.Device {
		if isDeviceName(text) {
			c.Requests = append(c.Requests, DeviceRequest{Names: []string{text}, Origin: "--device " + text})
			continue
		}
		d, err := ParseDevice(text)
		if err != nil {
			return err
		}
		c.Devices = append(c.Devices, d)
	}
	for _, text := range w.DeviceRule {
		r, err := ParseDeviceRule(text)
		if err != nil {
			return err
		}
		c.Rules = append(c.Rules, r)
	}
	return nil
}

// CustomSeccomp is the name of a system call filter that came as a text, without a file's name.
const CustomSeccomp = "custom"

// WireOptions are the options as Docker's API and inspect have them: a profile is its text, not a file's name.
func (s *Security) WireOptions() []string {
	if s.Profile == "" {
		return s.Options
	}
	var out []string
	for _, opt := range s.Options {
		if name, ok := strings.CutPrefix(opt, "seccomp="); ok && name == s.Seccomp {
			opt = "seccomp=" + s.Profile
		}
		out = append(out, opt)
	}
	return out
}

// set takes one --security-opt.
func (s *Security) set(opt string) error {
	key, value, ok := strings.Cut(opt, "=")
	if !ok {
		// The old form, no-new-privileges:true, which Docker still takes.
		key, value, ok = strings.Cut(opt, ":")
	}
	switch {
	case key == "no-new-privileges":
		s.NoNewPrivileges = true
		if ok {
			v, err := strconv.ParseBool(value)
			if err != nil {
				return Invalid("--security-opt %s: want true or false", opt)
			}
			s.NoNewPrivileges = v
		}
	case key == "seccomp" && ok && strings.HasPrefix(value, "{"):
		// As Docker's command line sends the file that its user has named.
		var text bytes.Buffer
		if err := json.Compact(&text, []byte(value)); err != nil {
			return Invalid("--security-opt seccomp: the profile is no JSON: %v", err)
		}
		s.Seccomp, s.Profile = CustomSeccomp, text.String()
	case key == "seccomp" && ok:
		s.Seccomp, s.Profile = value, ""
	case key == "apparmor" && ok:
		s.AppArmor = value
	case key == "label" && value == "disable":
		s.LabelDisable = true // there is none
	case key == "label":
		return Unsupported("--security-opt %s: labels of SELinux can't be given here, but with glassbox-runtime", opt)
	case key == "systempaths" && value == "unconfined":
		s.Unmasked = true
	case key == "masked-paths" && strings.HasPrefix(opt, "masked-paths="):
		return pathList(opt, value, &s.Masked)
	case key == "readonly-paths" && strings.HasPrefix(opt, "readonly-paths="):
		return pathList(opt, value, &s.ReadOnly)
	default:
		return Unsupported("--security-opt %s: unknown option: want no-new-privileges, seccomp=FILE|unconfined, apparmor=PROFILE, "+
			"systempaths=unconfined, masked-paths= or readonly-paths=PATH[:PATH...]", opt)
	}
	return nil
}

// maxPaths bounds the paths that are chosen: each is a mount.
const maxPaths = 256

// pathList reads PATH[:PATH...], or nothing for none.
func pathList(opt, value string, to **[]string) error {
	paths := []string{}
	for p := range strings.SplitSeq(value, ":") {
		switch {
		case p == "":
			continue
		case !path.IsAbs(p) || strings.ContainsRune(p, 0):
			return Invalid("--security-opt %s: %q is no absolute path: want PATH[:PATH...], or nothing for none", opt, p)
		case path.Clean(p) == "/":
			return Invalid("--security-opt %s: / is the whole container", opt)
		}
		if p = path.Clean(p); !slices.Contains(paths, p) {
			paths = append(paths, p)
		}
	}
	if len(paths) > maxPaths {
		return Invalid("--security-opt %.40s...: %d paths, at most %d can be chosen", opt, len(paths), maxPaths)
	}
	*to = &paths
	return nil
}

func (w *Words) files(c *Config) error {
	for _, text := range w.Tmpfs {
		m, err := ParseTmpfs(text)
		if err != nil {
			return err
		}
		c.Mounts = append(c.Mounts, m)
	}
	for _, text := range w.Volume {
		m, err := ParseVolume(text, w.Dir)
		if err != nil {
			return err
		}
		c.Mounts = append(c.Mounts, m)
	}
	for _, text := range w.Mount {
		m, err := ParseMount(text)
		if err != nil {
			return err
		}
		c.Mounts = append(c.Mounts, m)
	}
	for _, text := range w.VolumesFrom {
		if _, _, err := ParseVolumesFrom(text); err != nil {
			return err
		}
	}
	c.VolumesFrom, c.VolumeDriver = w.VolumesFrom, w.VolumeDriver
	var err error
	if c.StorageOpt, err = ParseStorageOpt(w.StorageOpt); err != nil || w.ShmSize == "" {
		return err
	}
	c.ShmSize, err = ParseSize("shm-size", w.ShmSize)
	return err
}

// isMAC accepts six bytes in hexadecimal, parted by colons or dashes.
func isMAC(s string) bool {
	if len(s) != 17 {
		return false
	}
	for i := range len(s) {
		if i%3 == 2 {
			if s[i] != s[2] || s[i] != ':' && s[i] != '-' {
				return false
			}
		} else if strings.IndexByte("0123456789abcdefABCDEF", s[i]) < 0 {
			return false
		}
	}
	return true
}

// ParseHostEntry reads --add-host NAME:IP or NAME=IP; the word host-gateway stands for the host's address.
func ParseHostEntry(text string) (HostEntry, error) {
	name, ip, ok := strings.Cut(text, "=")
	if !ok {
		name, ip, ok = strings.Cut(text, ":")
	}
	switch {
	case !ok || name == "" || ip == "":
		return HostEntry{}, Invalid("add-host %q: want NAME:IP", text)
	case strings.ContainsAny(name, " \t\r\n#\x00"):
		return HostEntry{}, Invalid("add-host %q: %q is no host name", text, name)
	case ip == HostGateway:
		return HostEntry{name, ip}, nil
	}
	if t, found := strings.CutPrefix(ip, "["); found {
		if ip, found = strings.CutSuffix(t, "]"); !found {
			return HostEntry{}, Invalid("add-host %q: a bracket without its pair", text)
		}
	}
	a, err := netip.ParseAddr(ip)
	if err != nil {
		return HostEntry{}, Invalid("add-host %q: %q is no IP address", text, ip)
	}
	// In the one form that an address has, and not as it was typed: /etc/hosts is read by many.
	return HostEntry{name, a.String()}, nil
}
