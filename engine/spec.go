package engine

import (
	"encoding/csv"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"glassbox/cgroup"
	"glassbox/host"
	"glassbox/host/beneath"
	"glassbox/image"
	"glassbox/plan"
	"glassbox/seccomp"
)

// defaultCaps are the capabilities of an ordinary container: Docker's fourteen.
var defaultCaps = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

var maskedPaths = []string{
	"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug",
	"/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
}

var readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}

// initPath is where the init of --init is in the container.
const initPath = "/dev/init"

// specification is a container's OCI configuration and what the configuration can't say.
type specification struct {
	spec        *specs.Spec
	origins     map[string]string
	seccompName string
	overlay     *plan.Overlay // nil: a plain directory
	mountpoint  string
	network     string // bridge, none, host, or the id of another container
	image       *image.Image
	warnings    []string
}

// builder writes a specification from options.
type builder struct {
	e     *Engine
	c     *Container
	o     *CreateOptions
	facts *host.Facts
	specification
	seenMount map[string]int
	unmasked  bool // --security-opt systempaths=unconfined
}

// spec writes the configuration of a container. It reads the image, the caller's files and device nodes, and changes nothing.
func (e *Engine) spec(c *Container, facts *host.Facts) (*specification, error) {
	defer e.timed("writes the specification: user, capabilities, filter, mounts")()
	b := &builder{e: e, c: c, o: &c.Options, facts: facts, seenMount: map[string]int{}}
	b.spec = &specs.Spec{Version: "1.2.0", Process: &specs.Process{}, Linux: &specs.Linux{Resources: &specs.LinuxResources{}}}
	b.origins = map[string]string{"": "default"}
	for _, part := range []func() error{
		b.rootfs, b.namespaces, b.process, b.capabilities, b.security, b.mounts, b.devices, b.resources, b.sysctls,
	} {
		if err := part(); err != nil {
			return nil, err
		}
	}
	return &b.specification, nil
}

// from notes that the part of the configuration at a pointer comes from a flag; without the flag it comes from otherwise.
func (b *builder) from(pointer, flag, otherwise string) {
	if text, ok := b.o.Flags[flag]; ok {
		b.origins[pointer] = text
	} else if otherwise != "" {
		b.origins[pointer] = otherwise
	}
}

func (b *builder) rootfs() error {
	o := b.o
	dir := b.e.dir(b.c.ID)
	b.mountpoint = filepath.Join(dir, "merged")
	b.spec.Root = &specs.Root{Path: b.mountpoint, Readonly: o.ReadOnly}
	b.from("/root/readonly", "read-only", "")
	rel := "containers/" + b.c.ID + "/"
	b.from("/root", "rootfs", "image "+o.Image)
	var lower []string
	if o.Rootfs != "" {
		st, err := os.Stat(o.Rootfs)
		if err != nil {
			return invalid("--rootfs: %v", err)
		}
		if !st.IsDir() {
			return invalid("--rootfs %s: it is no directory", o.Rootfs)
		}
		if !o.RootfsOverlay {
			b.spec.Root.Path = o.Rootfs
			return nil
		}
		lower = []string{o.Rootfs}
	} else {
		ref := o.Image
		if b.c.ImageID != "" {
			ref = b.c.ImageID
		}
		found := b.e.timed("finds the image")
		platform := image.Platform{}
		if b.c.ImageID == "" { // a container that was made has its image
			var err error
			if platform, err = image.ParsePlatform(o.Platform); err != nil {
				return err
			}
		}
		img, err := b.e.images.ResolveFor(ref, platform)
		found()
		if err != nil {
			return err
		}
		b.image = img
		if p := img.Platform; p.Architecture != "" && p.Architecture != b.facts.Arch {
			b.warnings = append(b.warnings, fmt.Sprintf("the image's platform (%s) is not this machine's (linux/%s)", p, b.facts.Arch))
		}
		for _, l := range slices.Backward(img.Layers) {
			lower = append(lower, l.Dir)
		}
		if len(lower) == 0 {
			lower = []string{rel + "merged"} // an image without layers is an empty directory
		}
	}
	ov := &plan.Overlay{Dir: b.e.cfg.Root, Lower: lower, Upper: rel + "upper", Work: rel + "work", Target: b.mountpoint}
	if len(lower) > 500 {
		return unsupported("image %s has %d layers; overlay file systems take 500", o.Image, len(lower))
	}
	size := len("lowerdir=,upperdir=,workdir=") + len(ov.Upper) + len(ov.Work) + 64
	special := false
	for _, l := range lower {
		size += len(l) + 1
		special = special || strings.ContainsAny(l, ":,\\")
	}
	if size > 4000 || special {
		if !b.facts.Kernel.AtLeast(6, 5) {
			if special {
				return unsupported("--rootfs %s: before Linux 6.5 an overlay can't be made of a path with a colon, comma or backslash", o.Rootfs)
			}
			return unsupported("image %s has %d layers: before Linux 6.5 overlay options end at 4095 bytes, about 190 layers", o.Image, len(lower))
		}
		ov.Append = true
	}
	if o.Remove && b.facts.Kernel.AtLeast(5, 10) {
		ov.Options = append(ov.Options, "volatile") // nothing has to reach the disk: the directory goes with the container
	}
	b.overlay = ov
	return nil
}

// namespaces decides which namespaces are new, and which are another container's.
func (b *builder) namespaces() error {
	o := b.o
	names := []string{"mount", "pid", "uts", "ipc", "net", "cgroup"}
	if o.Namespaces != nil {
		names = nil
		for _, n := range o.Namespaces {
			switch n = strings.TrimSpace(n); n {
			case "mnt":
				n = "mount"
				fallthrough
			case "mount", "pid", "uts", "ipc", "net", "cgroup", "time", "user":
				names = append(names, n)
			case "network":
				names = append(names, "net")
			default:
				return invalid("--ns: unknown namespace %q: want some of mount,pid,uts,ipc,net,cgroup,time,user", n)
			}
		}
		if !slices.Contains(names, "mount") {
			return invalid("--ns: a container needs a mount namespace of its own: without it, its mounts would be the host's")
		}
	}
	b.from("/linux/namespaces", "ns", "")
	paths := map[string]string{}
	share := func(ns, flag, value string) error {
		b.from("/linux/namespaces", flag, "")
		switch {
		case value == "" || value == "private" || value == "shareable" || value == "none" && ns == "ipc":
		case value == "host":
			names = slices.DeleteFunc(names, func(n string) bool { return n == ns })
		case strings.HasPrefix(value, "container:"):
			other, state, err := b.e.running(strings.TrimPrefix(value, "container:"))
			if err != nil {
				return err
			}
			paths[ns] = fmt.Sprintf("/proc/%d/ns/%s", state.PID, ns)
			if ns == "net" {
				b.network = other.ID
			}
		default:
			return invalid("--%s: %q: want host or container:NAME", flag, value)
		}
		return nil
	}
	b.network = o.Network
	if b.network == "" || b.network == "default" {
		b.network = "bridge"
	}
	if !slices.Contains(names, "net") && o.Namespaces != nil {
		if o.Network != "" && o.Network != "host" {
			return invalid("--network %s needs a network namespace, which --ns leaves out", o.Network)
		}
		b.network = "host"
	}
	for _, s := range [][3]string{{"pid", "pid", o.PID}, {"ipc", "ipc", o.IPC}, {"uts", "uts", o.UTS}, {"cgroup", "cgroupns", o.CgroupNS}} {
		if err := share(s[0], s[1], s[2]); err != nil {
			return err
		}
	}
	switch {
	case b.network == "bridge" || b.network == "none":
	case b.network == "host" || strings.HasPrefix(b.network, "container:"):
		if err := share("net", "network", b.network); err != nil {
			return err
		}
	default:
		return unsupported("network %s not found: want bridge, none, host or container:NAME", b.network)
	}
	if strings.HasPrefix(o.Network, "container:") {
		for flag, set := range map[string]bool{"hostname": o.Hostname != "", "dns": len(o.DNS) > 0, "add-host": len(o.AddHost) > 0, "mac-address": o.MAC != "", "ip": o.IP != ""} {
			if set {
				return invalid("conflicting options: --%s and --network %s: the other container has decided that", flag, o.Network)
			}
		}
	}
	if len(o.Publish) > 0 && b.network != "bridge" {
		return invalid("-p needs a network of the container's own (--network bridge), this container has %s", o.Network)
	}
	types := map[string]specs.LinuxNamespaceType{
		"mount": specs.MountNamespace, "pid": specs.PIDNamespace, "uts": specs.UTSNamespace, "ipc": specs.IPCNamespace,
		"net": specs.NetworkNamespace, "cgroup": specs.CgroupNamespace, "time": specs.TimeNamespace, "user": specs.UserNamespace,
	}
	for _, n := range names {
		b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: types[n], Path: paths[n]})
	}

	switch {
	case !slices.Contains(names, "uts") || paths["uts"] != "":
		if o.Hostname != "" {
			return invalid("--hostname needs a UTS namespace of the container's own")
		}
	case o.Hostname != "":
		b.spec.Hostname = o.Hostname
	case b.network == "host":
		b.spec.Hostname, _ = os.Hostname()
	default:
		b.spec.Hostname = b.c.ID[:12]
	}
	if o.Hostname != "" && !validHostname(o.Hostname) {
		return invalid("invalid hostname %q: letters, digits, dashes, underscores and dots, at most 64", o.Hostname)
	}
	b.from("/hostname", "hostname", "")
	b.spec.Domainname = o.Domainname
	b.from("/domainname", "domainname", "")
	return nil
}

// validHostname accepts what sethostname(2) takes and /etc/hosts can say.
func validHostname(s string) bool {
	return len(s) <= 64 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == "" && s[0] != '-' && s[0] != '.'
}

func (b *builder) process() error {
	o, p := b.o, b.spec.Process
	var cfg struct {
		Env, Entrypoint, Cmd   []string
		User, Workdir, StopSig string
	}
	if b.image != nil {
		c := b.image.Config.Config
		cfg.Env, cfg.Entrypoint, cfg.Cmd, cfg.User, cfg.Workdir, cfg.StopSig = c.Env, c.Entrypoint, c.Cmd, c.User, c.WorkingDir, c.StopSignal
	}
	// The command: --entrypoint clears the image's Cmd, too.
	entrypoint, cmd := cfg.Entrypoint, cfg.Cmd
	b.origins["/process/args"] = "image config"
	if o.Entrypoint != nil {
		entrypoint, cmd = nil, nil
		if *o.Entrypoint != "" {
			entrypoint = []string{*o.Entrypoint}
		}
		b.from("/process/args", "entrypoint", "")
	}
	if len(o.Command) > 0 {
		cmd = o.Command
		b.origins["/process/args"] = "command line"
	}
	args := append(slices.Clone(entrypoint), cmd...)
	if len(args) == 0 {
		return invalid("no command specified, and the image %s has none", o.Image)
	}
	if args[0] == "" {
		return invalid("the command is empty")
	}
	if o.Init {
		args = append([]string{initPath, "--"}, args...)
		b.from("/process/args", "init", "")
	}
	p.Args = args
	p.Terminal = o.TTY
	b.from("/process/terminal", "tty", "")
	if o.TTY && o.ConsoleSize[0] > 0 {
		p.ConsoleSize = &specs.Box{Height: uint(o.ConsoleSize[0]), Width: uint(o.ConsoleSize[1])}
	}

	// The user, by the container's own files.
	name := cfg.User
	b.origins["/process/user"] = "image config"
	if o.User != "" || name == "" {
		name = o.User
		delete(b.origins, "/process/user")
	}
	b.from("/process/user", "user", "")
	u, err := lookupUser(name, o.GroupAdd, b.readFile("/etc/passwd"), b.readFile("/etc/group"))
	if err != nil {
		return err
	}
	p.User = specs.User{UID: u.uid, GID: u.gid, AdditionalGids: append([]uint32{u.gid}, u.groups...)}

	base := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=" + b.spec.Hostname}
	if b.spec.Hostname == "" {
		base = base[:1]
	}
	if o.TTY {
		base = append(base, "TERM=xterm")
	}
	if p.Env, err = setEnv(base, o.Environ, cfg.Env, o.Env); err != nil {
		return err
	}
	if _, ok := lookupEnv(p.Env, "HOME"); !ok {
		p.Env = append(p.Env, "HOME="+u.home)
	}

	p.Cwd = "/"
	if cfg.Workdir != "" {
		p.Cwd = path.Clean("/" + cfg.Workdir)
		b.origins["/process/cwd"] = "image config"
	}
	if o.Workdir != "" {
		if !path.IsAbs(o.Workdir) {
			return invalid("the working directory %q is invalid, it needs to be an absolute path", o.Workdir)
		}
		p.Cwd = path.Clean(o.Workdir)
		b.from("/process/cwd", "workdir", "")
	}

	if _, err := ParseSignal(first(o.StopSignal, cfg.StopSig, "SIGTERM")); err != nil {
		return err
	}
	for i, text := range o.Ulimit {
		name, soft, hard, err := parseUlimit(text)
		if err != nil {
			return err
		}
		p.Rlimits = append(p.Rlimits, specs.POSIXRlimit{Type: name, Soft: soft, Hard: hard})
		b.origins[fmt.Sprintf("/process/rlimits/%d", i)] = "--ulimit " + text
	}
	if o.OOMScoreAdj != 0 {
		if o.OOMScoreAdj < -1000 || o.OOMScoreAdj > 1000 {
			return invalid("--oom-score-adj: %d is out of range: want -1000 to 1000", o.OOMScoreAdj)
		}
		p.OOMScoreAdj = &o.OOMScoreAdj
		b.from("/process/oomScoreAdj", "oom-score-adj", "")
	}
	return nil
}

// readFile reads a file as the container will see it: its own changes first, then the image's layers. Nil if there is none.
func (b *builder) readFile(name string) []byte {
	return b.e.readFile(b.c, b.image, name)
}

func (e *Engine) readFile(c *Container, img *image.Image, name string) []byte {
	const most = 16 << 20
	if c.Options.Rootfs != "" && !c.Options.RootfsOverlay {
		data, _ := beneath.ReadFile(c.Options.Rootfs, name, most) // what is no file counts as none
		return data
	}
	var dirs []string // top first
	if upper := filepath.Join(e.dir(c.ID), "upper"); c.ID != "" && isDir(upper) {
		dirs = append(dirs, upper)
	}
	if c.Options.Rootfs != "" {
		rootfs, err := filepath.EvalSymlinks(c.Options.Rootfs)
		if err != nil {
			return nil
		}
		dirs = append(dirs, rootfs)
	} else if img != nil {
		for _, l := range slices.Backward(img.Layers) {
			dirs = append(dirs, filepath.Join(e.cfg.Root, l.Dir))
		}
	}
	data, _ := image.ReadMerged(dirs, name, most)
	return data
}

func isDir(name string) bool {
	st, err := os.Lstat(name)
	return err == nil && st.IsDir()
}

func (b *builder) allCaps() []string {
	var all []string
	for n := 0; n <= b.facts.LastCap; n++ {
		if name := plan.CapName(n); name != "" && b.facts.Caps&(1<<n) != 0 {
			all = append(all, name)
		}
	}
	return all
}

func (b *builder) capabilities() error {
	o := b.o
	number := func(name string) (string, error) {
		full := strings.ToUpper(name)
		if !strings.HasPrefix(full, "CAP_") {
			full = "CAP_" + full
		}
		if full != "CAP_ALL" && plan.CapNumber(full) < 0 {
			return "", invalid("invalid capability: %s", name)
		}
		return full, nil
	}
	set := map[string]bool{}
	switch {
	case o.Privileged:
		for _, name := range b.allCaps() {
			set[name] = true
		}
		b.from("/process/capabilities", "privileged", "")
	default:
		for _, name := range defaultCaps {
			set[name] = true
		}
	}
	// As Docker: "drop ALL, add X" and "add ALL, drop X" both mean what they say, in whichever order they stand.
	var add, drop []string
	for _, c := range o.CapAdd {
		name, err := number(c)
		if err != nil {
			return err
		}
		add = append(add, name)
	}
	for _, c := range o.CapDrop {
		name, err := number(c)
		if err != nil {
			return err
		}
		drop = append(drop, name)
	}
	if slices.Contains(drop, "CAP_ALL") {
		clear(set)
	}
	if slices.Contains(add, "CAP_ALL") {
		for _, name := range b.allCaps() {
			set[name] = true
		}
	}
	for _, name := range drop {
		delete(set, name)
	}
	for _, name := range add {
		if name != "CAP_ALL" {
			set[name] = true
		}
	}
	var names []string
	for n := 0; n < plan.CapCount(); n++ {
		if set[plan.CapName(n)] {
			names = append(names, plan.CapName(n))
		}
	}
	if o.CapAdd != nil || o.CapDrop != nil {
		var words []string
		for _, c := range o.CapDrop {
			words = append(words, "--cap-drop="+c)
		}
		for _, c := range o.CapAdd {
			words = append(words, "--cap-add="+c)
		}
		b.origins["/process/capabilities"] = strings.Join(words, " ")
	}
	caps := &specs.LinuxCapabilities{Bounding: names}
	if b.spec.Process.User.UID == 0 {
		caps.Effective, caps.Permitted = names, names
	}
	b.spec.Process.Capabilities = caps
	return nil
}

func (b *builder) security() error {
	o := b.o
	profile := "default"
	if o.Privileged {
		profile = "unconfined"
	}
	for _, opt := range o.SecurityOpt {
		key, value, ok := strings.Cut(opt, "=")
		if !ok {
			key, value, ok = strings.Cut(opt, ":")
		}
		switch {
		case key == "no-new-privileges":
			v := true
			if ok {
				var err error
				if v, err = strconv.ParseBool(value); err != nil {
					return invalid("--security-opt %s: want true or false", opt)
				}
			}
			b.spec.Process.NoNewPrivileges = v
			b.origins["/process/noNewPrivileges"] = "--security-opt " + opt
		case key == "seccomp" && ok:
			profile = value
			b.origins["/linux/seccomp"] = "--security-opt " + opt
		case key == "apparmor" && ok:
			if value != "unconfined" && !slices.Contains(b.facts.LSM, "apparmor") {
				return unsupported("--security-opt %s: AppArmor is not active on this host", opt)
			}
			b.spec.Process.ApparmorProfile = value
			b.origins["/process/apparmorProfile"] = "--security-opt " + opt
		case key == "label" && value == "disable": // there is none
		case key == "label":
			return unsupported("--security-opt %s: labels of SELinux can't be given here, but with glassbox-runtime", opt)
		case key == "systempaths" && value == "unconfined":
			b.unmasked = true
		default:
			return unsupported("--security-opt %s: unknown option: want no-new-privileges, seccomp=FILE|unconfined or apparmor=PROFILE", opt)
		}
	}
	so := seccomp.DefaultOptions{
		Arch: b.facts.Arch, Caps: b.spec.Process.Capabilities.Bounding, KernelMajor: b.facts.Kernel.Major, KernelMinor: b.facts.Kernel.Minor,
	}
	switch profile {
	case "unconfined":
	case "default", "builtin":
		b.spec.Linux.Seccomp = seccomp.Default(so)
		b.seccompName = "default"
	default:
		data, err := os.ReadFile(profile)
		if err != nil {
			return invalid("opening seccomp profile (%s) failed: %v", profile, err)
		}
		if b.spec.Linux.Seccomp, err = seccomp.ParseProfile(data, so); err != nil {
			return invalid("seccomp profile %s: %v", profile, err)
		}
		b.seccompName = filepath.Base(profile)
	}
	if !o.Privileged && !b.unmasked {
		b.spec.Linux.MaskedPaths, b.spec.Linux.ReadonlyPaths = maskedPaths, readonlyPaths
	}
	return nil
}

// mount adds a mount; one to the same place replaces the one before it.
func (b *builder) mount(m specs.Mount, origin string) {
	m.Destination = path.Clean(m.Destination)
	i, ok := b.seenMount[m.Destination]
	if ok {
		b.spec.Mounts[i] = m
	} else {
		i = len(b.spec.Mounts)
		b.seenMount[m.Destination] = i
		b.spec.Mounts = append(b.spec.Mounts, m)
	}
	if origin != "" {
		b.origins[fmt.Sprintf("/mounts/%d", i)] = origin
	}
}

func (b *builder) mounts() error {
	o := b.o
	sys := []string{"nosuid", "noexec", "nodev", "ro"}
	if o.Privileged {
		sys = sys[:3]
	}
	b.mount(specs.Mount{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}}, "")
	b.mount(specs.Mount{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}}, "")
	b.mount(specs.Mount{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}}, "")
	b.mount(specs.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: sys}, "")
	if b.facts.Cgroup.Mode != host.CgroupNone {
		b.mount(specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: sys}, "")
	}
	if b.ownNamespace(specs.IPCNamespace) {
		b.mount(specs.Mount{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}}, "")
	}
	size := "67108864"
	if o.ShmSize != "" {
		n, err := parseSize("shm-size", o.ShmSize)
		if err != nil {
			return err
		}
		size = strconv.FormatInt(n, 10)
	}
	shm := ""
	if text, ok := o.Flags["shm-size"]; ok {
		shm = text
	}
	if o.IPC == "host" {
		b.mount(specs.Mount{Destination: "/dev/shm", Type: "bind", Source: "/dev/shm", Options: []string{"rbind", "rprivate"}}, o.Flags["ipc"])
	} else if o.IPC != "none" {
		b.mount(specs.Mount{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=" + size}}, shm)
	}
	for _, name := range []string{"resolv.conf", "hostname", "hosts"} {
		if b.bindsFile("/etc/" + name) {
			b.mount(specs.Mount{Destination: "/etc/" + name, Type: "bind", Source: filepath.Join(b.e.dir(b.c.ID), name), Options: []string{"rbind", "rprivate"}}, "")
		}
	}
	if o.Init {
		b.mount(specs.Mount{Destination: initPath, Type: "bind", Source: b.e.cfg.Runtime, Options: []string{"bind", "ro", "nosuid", "nodev", "private"}}, o.Flags["init"])
	}

	first := len(b.spec.Mounts)
	for _, text := range o.Tmpfs {
		dest, options, _ := strings.Cut(text, ":")
		if !path.IsAbs(dest) {
			return invalid("--tmpfs %s: %q is not an absolute path", text, dest)
		}
		opts := []string{"noexec", "nosuid", "nodev"}
		if options != "" {
			for _, opt := range strings.Split(options, ",") {
				opts = slices.DeleteFunc(opts, func(s string) bool { return s == "no"+opt })
				if opt != "rw" {
					opts = append(opts, opt)
				}
			}
		}
		b.mount(specs.Mount{Destination: dest, Type: "tmpfs", Source: "tmpfs", Options: opts}, "--tmpfs "+text)
	}
	for _, text := range o.Volume {
		m, err := b.volume(text)
		if err != nil {
			return err
		}
		b.mount(m, "-v "+text)
	}
	for _, text := range o.Mount {
		m, err := b.mountFlag(text)
		if err != nil {
			return err
		}
		b.mount(m, "--mount "+text)
	}
	b.sortMounts(first)
	return nil
}

// sortMounts puts the user's mounts in an order in which none hides another: by the depth of their targets.
func (b *builder) sortMounts(first int) {
	type entry struct {
		m      specs.Mount
		origin string
	}
	var entries []entry
	for i, m := range b.spec.Mounts[first:] {
		entries = append(entries, entry{m, b.origins[fmt.Sprintf("/mounts/%d", first+i)]})
	}
	depth := func(e entry) int { return strings.Count(strings.TrimRight(e.m.Destination, "/"), "/") }
	slices.SortStableFunc(entries, func(x, y entry) int { return depth(x) - depth(y) })
	for i, e := range entries {
		b.spec.Mounts[first+i] = e.m
		b.origins[fmt.Sprintf("/mounts/%d", first+i)] = e.origin
	}
}

func (b *builder) ownNamespace(t specs.LinuxNamespaceType) bool {
	return slices.ContainsFunc(b.spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == t })
}

// bindsFile says whether a file of the engine's is mounted over one of the container's. A plain directory given with --rootfs
// belongs to the user: nothing is made in it, so only files that exist are covered.
func (b *builder) bindsFile(name string) bool {
	if b.o.Rootfs == "" || b.o.RootfsOverlay {
		return true
	}
	root, err := os.OpenRoot(b.o.Rootfs)
	if err != nil {
		return false
	}
	defer root.Close()
	st, err := root.Lstat(strings.TrimPrefix(name, "/"))
	return err == nil && st.Mode().IsRegular()
}

// volume reads -v SOURCE:TARGET[:OPTIONS].
func (b *builder) volume(text string) (specs.Mount, error) {
	parts := strings.Split(text, ":")
	if len(parts) == 1 {
		return specs.Mount{}, unsupported("-v %s: anonymous volumes are not supported yet: give a directory of the host, as in -v /srv/data:%s", text, text)
	}
	if len(parts) > 3 {
		return specs.Mount{}, invalid("-v %s: want SOURCE:TARGET[:OPTIONS]", text)
	}
	source, target := parts[0], parts[1]
	if strings.HasPrefix(source, "./") || strings.HasPrefix(source, "../") || source == "." || source == ".." {
		source = filepath.Join(b.o.Dir, source)
	}
	if !path.IsAbs(source) {
		return specs.Mount{}, unsupported("-v %s: named volumes are not supported yet: give an absolute path, or ./%s for one in this directory", text, source)
	}
	if !path.IsAbs(target) || path.Clean(target) == "/" {
		return specs.Mount{}, invalid("-v %s: the target %q must be an absolute path, and not /", text, target)
	}
	if _, err := os.Stat(source); err != nil {
		return specs.Mount{}, invalid("-v %s: the source doesn't exist: %w (make it first: mkdir -p %s)", text, errOf(err), source)
	}
	options := []string{"rbind"}
	propagation := "rprivate"
	if len(parts) == 3 {
		for _, opt := range strings.Split(parts[2], ",") {
			switch opt {
			case "ro", "readonly":
				options = append(options, "rro")
			case "rw", "nocopy", "cached", "delegated", "consistent", "z", "Z", "":
			case "private", "rprivate", "slave", "rslave", "shared", "rshared":
				propagation = opt
			case "bind", "rbind", "noexec", "nosuid", "nodev", "exec", "suid", "dev":
				options = append(options, opt)
			default:
				return specs.Mount{}, invalid("-v %s: unknown option %q: want ro, rw, a propagation such as rslave, nosuid, nodev or noexec", text, opt)
			}
		}
	}
	return specs.Mount{Destination: target, Type: "bind", Source: filepath.Clean(source), Options: append(options, propagation)}, nil
}

func errOf(err error) error {
	if pe, ok := err.(*fs.PathError); ok {
		return pe.Err
	}
	return err
}

// mountFlag reads --mount type=bind|tmpfs,source=…,target=…[,readonly][,…].
func (b *builder) mountFlag(text string) (specs.Mount, error) {
	fail := func(format string, a ...any) (specs.Mount, error) {
		return specs.Mount{}, invalid("--mount %s: %w", text, fmt.Errorf(format, a...))
	}
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return fail("%v", err)
	}
	m := specs.Mount{}
	kind, propagation, recursive := "volume", "rprivate", "enabled"
	readonly := false
	var tmpfs []string
	for _, f := range fields {
		key, value, ok := strings.Cut(f, "=")
		switch strings.ToLower(key) {
		case "type":
			kind = value
		case "source", "src":
			m.Source = value
		case "target", "destination", "dst":
			m.Destination = value
		case "readonly", "ro":
			readonly = true
			if ok {
				if readonly, err = strconv.ParseBool(value); err != nil {
					return fail("%s: want true or false", key)
				}
			}
		case "bind-propagation":
			if !slices.Contains([]string{"private", "rprivate", "slave", "rslave", "shared", "rshared"}, value) {
				return fail("unknown bind-propagation %q", value)
			}
			propagation = value
		case "bind-recursive":
			if !slices.Contains([]string{"enabled", "disabled", "writable", "readonly"}, value) {
				return fail("unknown bind-recursive %q", value)
			}
			recursive = value
		case "bind-nonrecursive":
			recursive = "disabled"
		case "tmpfs-size":
			n, err := parseSize("mount", value)
			if err != nil {
				return fail("invalid tmpfs-size %q", value)
			}
			tmpfs = append(tmpfs, fmt.Sprintf("size=%d", n))
		case "tmpfs-mode":
			n, err := strconv.ParseUint(value, 8, 12)
			if err != nil {
				return fail("invalid tmpfs-mode %q: want an octal mode such as 1777", value)
			}
			tmpfs = append(tmpfs, fmt.Sprintf("mode=%o", n))
		case "consistency":
		default:
			return fail("unexpected key %q", key)
		}
	}
	if !path.IsAbs(m.Destination) || path.Clean(m.Destination) == "/" {
		return fail("the target %q must be an absolute path, and not /", m.Destination)
	}
	switch kind {
	case "bind":
		if len(tmpfs) > 0 {
			return fail("tmpfs options are for type=tmpfs")
		}
		if !path.IsAbs(m.Source) {
			return fail("the source %q must be an absolute path", m.Source)
		}
		if _, err := os.Stat(m.Source); err != nil {
			return fail("bind source path does not exist: %w", errOf(err))
		}
		m.Type = "bind"
		bind := "rbind"
		if recursive == "disabled" {
			bind = "bind"
		}
		m.Options = []string{bind, propagation}
		if readonly && recursive == "writable" {
			m.Options = append(m.Options, "ro")
		} else if readonly {
			m.Options = append(m.Options, "rro")
		}
	case "tmpfs":
		if m.Source != "" {
			return fail("a tmpfs has no source")
		}
		m.Type, m.Source = "tmpfs", "tmpfs"
		m.Options = append([]string{"noexec", "nosuid", "nodev"}, tmpfs...)
		if readonly {
			m.Options = append(m.Options, "ro")
		}
	case "volume":
		return specs.Mount{}, unsupported("--mount %s: volumes are not supported yet: use type=bind or type=tmpfs", text)
	default:
		return fail("unknown type %q: want bind or tmpfs", kind)
	}
	return m, nil
}

func (b *builder) devices() error {
	o := b.o
	r := b.spec.Linux.Resources
	if o.Privileged {
		r.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Type: "a", Access: "rwm"}}
		b.from("/linux/resources/devices", "privileged", "")
		devices, err := hostDevices("/dev")
		if err != nil {
			return err
		}
		for i, d := range devices {
			b.spec.Linux.Devices = append(b.spec.Linux.Devices, d)
			b.from(fmt.Sprintf("/linux/devices/%d", i), "privileged", "")
		}
	} else {
		r.Devices = []specs.LinuxDeviceCgroup{
			{Allow: false, Access: "rwm"},
			cgroup.Allow("c", -1, -1, "m"), cgroup.Allow("b", -1, -1, "m"),
			cgroup.Allow("c", 1, 3, "rwm"), cgroup.Allow("c", 1, 5, "rwm"), cgroup.Allow("c", 1, 7, "rwm"),
			cgroup.Allow("c", 1, 8, "rwm"), cgroup.Allow("c", 1, 9, "rwm"), cgroup.Allow("c", 5, 0, "rwm"),
			cgroup.Allow("c", 5, 1, "rwm"), cgroup.Allow("c", 5, 2, "rwm"), cgroup.Allow("c", 136, -1, "rwm"),
		}
	}
	for _, text := range o.Device {
		hostPath, inside, access := text, "", "rwm"
		parts := strings.Split(text, ":")
		switch len(parts) {
		case 1:
			inside = text
		case 2:
			hostPath, inside = parts[0], parts[1]
			if isAccess(parts[1]) {
				inside, access = parts[0], parts[1]
			}
		case 3:
			hostPath, inside, access = parts[0], parts[1], parts[2]
		default:
			return invalid("--device %s: want HOST[:CONTAINER[:rwm]]", text)
		}
		if !isAccess(access) {
			return invalid("--device %s: invalid permissions %q: want some of r, w and m", text, access)
		}
		if !path.IsAbs(inside) {
			return invalid("--device %s: %q is not an absolute path", text, inside)
		}
		st, err := os.Stat(hostPath)
		if err != nil {
			return invalid("--device %s: error gathering device information: %v", text, err)
		}
		var found []specs.LinuxDevice
		if st.IsDir() {
			if found, err = hostDevices(hostPath); err != nil {
				return err
			}
			for i := range found {
				found[i].Path = inside + strings.TrimPrefix(found[i].Path, strings.TrimRight(hostPath, "/"))
			}
		} else {
			d, ok := deviceOf(hostPath)
			if !ok {
				return invalid("--device %s: %s is not a device node", text, hostPath)
			}
			d.Path = inside
			found = []specs.LinuxDevice{d}
		}
		for _, d := range found {
			b.spec.Linux.Devices = slices.DeleteFunc(b.spec.Linux.Devices, func(x specs.LinuxDevice) bool { return x.Path == d.Path })
			b.spec.Linux.Devices = append(b.spec.Linux.Devices, d)
			b.origins[fmt.Sprintf("/linux/devices/%d", len(b.spec.Linux.Devices)-1)] = "--device " + text
			if !o.Privileged {
				r.Devices = append(r.Devices, cgroup.Allow(d.Type, d.Major, d.Minor, access))
			}
		}
	}
	for _, text := range o.DeviceRule {
		f := strings.Fields(text)
		var major, minor string
		ok := len(f) == 3 && len(f[0]) == 1 && strings.Contains("abc", f[0]) && isAccess(f[2])
		if ok {
			major, minor, ok = strings.Cut(f[1], ":")
		}
		number := func(s string) int64 {
			if s == "*" {
				return -1
			}
			n, err := strconv.ParseUint(s, 10, 31)
			if err != nil {
				ok = false
			}
			return int64(n)
		}
		if ok {
			ma, mi := number(major), number(minor)
			if ok {
				r.Devices = append(r.Devices, cgroup.Allow(f[0], ma, mi, f[2]))
				continue
			}
		}
		return invalid("--device-cgroup-rule %q: want TYPE MAJOR:MINOR ACCESS, as in \"c 1:3 rwm\"", text)
	}
	return nil
}

func isAccess(s string) bool {
	return s != "" && strings.Trim(s, "rwm") == ""
}

func deviceOf(name string) (specs.LinuxDevice, bool) {
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		return specs.LinuxDevice{}, false
	}
	d := specs.LinuxDevice{Path: name, Major: int64(unix.Major(uint64(st.Rdev))), Minor: int64(unix.Minor(uint64(st.Rdev)))}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		d.Type = "c"
	case unix.S_IFBLK:
		d.Type = "b"
	default:
		return d, false
	}
	mode := fs.FileMode(st.Mode & 0o777)
	uid, gid := st.Uid, st.Gid
	d.FileMode, d.UID, d.GID = &mode, &uid, &gid
	return d, true
}

// hostDevices lists the device nodes of a directory, but for terminals and what the container has of its own.
func hostDevices(dir string) ([]specs.LinuxDevice, error) {
	var out []specs.LinuxDevice
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // a device that vanishes, or can't be seen
		}
		if d.IsDir() {
			switch name {
			case "/dev/pts", "/dev/shm", "/dev/fd", "/dev/mqueue", "/dev/.lxc", "/dev/.lxd-mounts", "/dev/.udev":
				return fs.SkipDir
			}
			return nil
		}
		switch name {
		case "/dev/console", "/dev/ptmx", initPath:
			return nil
		}
		if d.Type()&fs.ModeDevice == 0 {
			return nil
		}
		if dev, ok := deviceOf(name); ok {
			out = append(out, dev)
		}
		return nil
	})
	return out, err
}

func (b *builder) sysctls() error {
	out := map[string]string{}
	if b.network == "bridge" || b.network == "none" {
		// As Docker: in a network namespace of one's own, low ports and ping need no privilege.
		out["net.ipv4.ip_unprivileged_port_start"] = "0"
		out["net.ipv4.ping_group_range"] = "0 2147483647"
	}
	for _, text := range b.o.Sysctl {
		key, value, ok := strings.Cut(text, "=")
		if !ok || key == "" {
			return invalid("--sysctl %s: want KEY=VALUE", text)
		}
		out[key] = value
		b.origins["/linux/sysctl/"+strings.ReplaceAll(strings.ReplaceAll(key, "~", "~0"), "/", "~1")] = "--sysctl " + text
	}
	b.spec.Linux.Sysctl = out
	return nil
}

func (b *builder) resources() error {
	o, r := b.o, b.spec.Linux.Resources
	size := func(flag, text string) (*int64, error) {
		if text == "" || text == "0" {
			return nil, nil
		}
		n, err := parseSize(flag, text)
		return &n, err
	}
	mem := &specs.LinuxMemory{}
	var err error
	if mem.Limit, err = size("memory", o.Memory); err != nil {
		return err
	}
	if mem.Reservation, err = size("memory-reservation", o.MemoryReservation); err != nil {
		return err
	}
	if o.MemorySwap == "-1" {
		n := int64(-1)
		mem.Swap = &n
	} else if mem.Swap, err = size("memory-swap", o.MemorySwap); err != nil {
		return err
	}
	const least = 512 << 10
	switch {
	case mem.Limit != nil && *mem.Limit < least:
		return invalid("--memory %s: minimum memory limit allowed is 512KB: less would not start a program", o.Memory)
	case mem.Swap != nil && mem.Limit == nil:
		return invalid("--memory-swap: you should always set the memory limit when using memory-swap: give --memory as well")
	case mem.Swap != nil && *mem.Swap >= 0 && *mem.Swap < *mem.Limit:
		return invalid("--memory-swap %s: minimum memory-swap limit should be larger than memory limit (%s), since it is both together", o.MemorySwap, o.Memory)
	case mem.Reservation != nil && mem.Limit != nil && *mem.Reservation > *mem.Limit:
		return invalid("--memory-reservation %s: the limit (--memory %s) should be larger", o.MemoryReservation, o.Memory)
	}
	b.from("/linux/resources/memory/limit", "memory", "")
	b.from("/linux/resources/memory/reservation", "memory-reservation", "")
	b.from("/linux/resources/memory/swap", "memory-swap", "")
	if mem.Limit != nil && mem.Swap == nil && b.swapAccounting() {
		// As Docker: as much swap again as memory.
		n := 2 * *mem.Limit
		mem.Swap = &n
		b.from("/linux/resources/memory/swap", "memory", "")
	}
	if o.MemorySwappiness != nil {
		if *o.MemorySwappiness < 0 || *o.MemorySwappiness > 100 {
			return invalid("--memory-swappiness: %d: want 0 to 100", *o.MemorySwappiness)
		}
		n := uint64(*o.MemorySwappiness)
		mem.Swappiness = &n
		b.from("/linux/resources/memory/swappiness", "memory-swappiness", "")
	}
	if o.OOMKillDisable {
		mem.DisableOOMKiller = &o.OOMKillDisable
		b.from("/linux/resources/memory/disableOOMKiller", "oom-kill-disable", "")
	}
	if *mem != (specs.LinuxMemory{}) {
		r.Memory = mem
	}

	cpu := &specs.LinuxCPU{Cpus: o.CpusetCpus, Mems: o.CpusetMems}
	if o.CPUShares != 0 {
		if o.CPUShares < 2 || o.CPUShares > 262144 {
			return invalid("--cpu-shares: %d: want 2 to 262144", o.CPUShares)
		}
		n := uint64(o.CPUShares)
		cpu.Shares = &n
	}
	if o.CPUPeriod != 0 {
		if o.CPUPeriod < 1000 || o.CPUPeriod > 1000000 {
			return invalid("--cpu-period: CPU CFS period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
		}
		n := uint64(o.CPUPeriod)
		cpu.Period = &n
	}
	if o.CPUQuota != 0 {
		if o.CPUQuota > 0 && o.CPUQuota < 1000 {
			return invalid("--cpu-quota: CPU CFS quota can not be less than 1ms (i.e. 1000)")
		}
		cpu.Quota = &o.CPUQuota
	}
	if o.CPUs != "" && o.CPUs != "0" {
		if o.CPUPeriod != 0 || o.CPUQuota != 0 {
			return invalid("--cpus can't be set together with --cpu-period or --cpu-quota: it sets both")
		}
		n, err := strconv.ParseFloat(o.CPUs, 64)
		if err != nil || n < 0 || n != n {
			return invalid("--cpus %s: want a number of processors, such as 0.5 or 2", o.CPUs)
		}
		if n > float64(b.facts.CPUs) {
			return invalid("--cpus %s: range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available", o.CPUs, b.facts.CPUs, b.facts.CPUs)
		}
		if n < 0.01 {
			return invalid("--cpus %s: range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available", o.CPUs, b.facts.CPUs, b.facts.CPUs)
		}
		period, quota := uint64(100000), int64(n*100000+0.5)
		cpu.Period, cpu.Quota = &period, &quota
		b.from("/linux/resources/cpu/quota", "cpus", "")
		b.from("/linux/resources/cpu/period", "cpus", "")
	} else {
		b.from("/linux/resources/cpu/quota", "cpu-quota", "")
		b.from("/linux/resources/cpu/period", "cpu-period", "")
	}
	b.from("/linux/resources/cpu/shares", "cpu-shares", "")
	b.from("/linux/resources/cpu/cpus", "cpuset-cpus", "")
	b.from("/linux/resources/cpu/mems", "cpuset-mems", "")
	if *cpu != (specs.LinuxCPU{}) {
		r.CPU = cpu
	}

	if o.PidsLimit != nil && *o.PidsLimit != 0 {
		n := *o.PidsLimit
		r.Pids = &specs.LinuxPids{Limit: &n}
		b.from("/linux/resources/pids", "pids-limit", "")
	}

	io := &specs.LinuxBlockIO{}
	if o.BlkioWeight != 0 {
		if o.BlkioWeight < 10 || o.BlkioWeight > 1000 {
			return invalid("--blkio-weight: range of blkio weight is from 10 to 1000")
		}
		io.Weight = &o.BlkioWeight
		b.from("/linux/resources/blockIO/weight", "blkio-weight", "")
	}
	for _, t := range []struct {
		flag  string
		texts []string
		to    *[]specs.LinuxThrottleDevice
		field string
		bytes bool
	}{
		{"device-read-bps", o.DeviceReadBps, &io.ThrottleReadBpsDevice, "throttleReadBpsDevice", true},
		{"device-write-bps", o.DeviceWriteBps, &io.ThrottleWriteBpsDevice, "throttleWriteBpsDevice", true},
		{"device-read-iops", o.DeviceReadIOps, &io.ThrottleReadIOPSDevice, "throttleReadIOPSDevice", false},
		{"device-write-iops", o.DeviceWriteIOps, &io.ThrottleWriteIOPSDevice, "throttleWriteIOPSDevice", false},
	} {
		for i, text := range t.texts {
			name, rate, ok := strings.Cut(text, ":")
			if !ok || !strings.HasPrefix(name, "/dev/") {
				return invalid("--%s %s: want DEVICE:RATE, as in /dev/sda:10m", t.flag, text)
			}
			d, isDevice := deviceOf(name)
			if !isDevice || d.Type != "b" {
				return invalid("--%s %s: %s is not a block device of this host", t.flag, text, name)
			}
			var n int64
			if t.bytes {
				n, err = parseSize(t.flag, rate)
			} else {
				n, err = strconv.ParseInt(rate, 10, 63)
			}
			if err != nil || n <= 0 {
				return invalid("--%s %s: invalid rate %q", t.flag, text, rate)
			}
			td := specs.LinuxThrottleDevice{Rate: uint64(n)}
			td.Major, td.Minor = d.Major, d.Minor
			*t.to = append(*t.to, td)
			b.origins[fmt.Sprintf("/linux/resources/blockIO/%s/%d", t.field, i)] = "--" + t.flag + " " + text
		}
	}
	if io.Weight != nil || len(io.ThrottleReadBpsDevice)+len(io.ThrottleWriteBpsDevice)+len(io.ThrottleReadIOPSDevice)+len(io.ThrottleWriteIOPSDevice) > 0 {
		r.BlockIO = io
	}

	if b.spec.Linux.CgroupsPath, err = cgroup.ParentPath(o.CgroupParent, b.c.ID); err != nil {
		return invalid("--cgroup-parent: %w", err)
	}
	b.from("/linux/cgroupsPath", "cgroup-parent", "")
	return nil
}

// swapAccounting says whether the kernel counts swap, so that a limit on it can be set. On v1 there is a file in the root; the
// root of v2 has none, and there the kernel's configuration and command line tell.
func (b *builder) swapAccounting() bool {
	for _, h := range b.facts.Cgroup.Hierarchies {
		switch {
		case slices.Contains(h.Files, "memory.memsw.limit_in_bytes"):
			return true
		case h.V2 && slices.Contains(h.Controllers, "memory"):
			if _, err := os.Stat("/proc/swaps"); err != nil {
				return false
			}
			line, _ := os.ReadFile("/proc/cmdline")
			return !slices.Contains(strings.Fields(string(line)), "swapaccount=0")
		}
	}
	return false
}
