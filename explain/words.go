package explain

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// OwnFlags are the flags of run that docker hasn't.
func OwnFlags() []string {
	return []string{
		"net-rate-in", "net-rate-out", "net-burst", "ns", "insecure-registry", "egress", "ingress", "limit-hints", "rootfs",
	}
}

// commandLine writes the container as a command of docker or podman. Made by `run`, it is those flags again: fed back to
// glassbox they give the same plan. Else the flags are found from what the plan does.
func commandLine(w io.Writer, program string, v *View, a About) error {
	foreign := OwnFlags()
	if program == "podman" {
		foreign = append(slices.DeleteFunc(foreign, func(name string) bool { return name == "rootfs" }), "domainname")
	}
	flags, command, image := a.Flags, a.Command, a.Image
	var unsaid []string
	if !a.Made {
		flags, command, image, unsaid = v.flags(a)
	}
	var kept []string
	for _, f := range flags {
		name, value, _ := strings.Cut(strings.TrimPrefix(f, "--"), "=")
		switch {
		case program == "podman" && name == "rootfs":
			// podman's flag has no value: what follows the flags is the directory.
			kept = append(kept, "--rootfs")
			image = value
		case slices.Contains(foreign, name), name == "restart" && strings.HasPrefix(value, "on-unhealthy"):
			unsaid = append(unsaid, f)
		default:
			kept = append(kept, f)
		}
	}
	if image == "" {
		unsaid = append(unsaid, "there is no image: put one in the place of IMAGE")
		image = "IMAGE"
	}
	t := &script{w: w}
	t.comment("The container of %s, as %s would make it.", or(a.Title, "a plan"), program)
	t.refused(a)
	t.unsaid(program, unsaid)
	t.line("%s run \\", program)
	for _, f := range kept {
		t.line("  %s \\", quote(f))
	}
	t.line("  %s", Quoted(append([]string{image}, command...)))
	return t.err
}

// flags finds the flags of a run command that makes what a plan makes.
func (v *View) flags(a About) (flags, command []string, image string, unsaid []string) {
	add := func(name, format string, args ...any) {
		flags = append(flags, "--"+name+"="+fmt.Sprintf(format, args...))
	}
	on := func(ok bool, name string) {
		if ok {
			flags = append(flags, "--"+name)
		}
	}
	text := func(name, value string) {
		if value != "" {
			add(name, "%s", value)
		}
	}
	number := func(name string, n *int64) {
		if n != nil {
			add(name, "%d", *n)
		}
	}
	image = a.Image
	text("name", a.Name)
	for _, l := range a.Labels {
		add("label", "%s", l)
	}
	if image == "" && v.Root.Source != "" {
		add("rootfs", "%s", v.Root.Source)
	}
	text("hostname", v.Hostname)
	text("domainname", v.Domainname)
	if v.UID != 0 || v.GID != 0 {
		add("user", "%d:%d", v.UID, v.GID)
	}
	for _, g := range v.extraGroups() {
		add("group-add", "%d", g)
	}
	if v.Cwd != "/" {
		text("workdir", v.Cwd)
	}
	for _, e := range v.Env {
		add("env", "%s", e)
	}
	on(v.Terminal, "tty")
	on(v.Root.ReadOnly, "read-only")
	for _, m := range v.UserMounts() {
		switch m.Type {
		case "bind":
			s := "type=bind,source=" + m.Source + ",target=" + m.Target
			if m.ReadOnly {
				s += ",readonly"
			}
			if m.Propagation != "" && m.Propagation != "private" {
				s += ",bind-propagation=r" + m.Propagation
			}
			if !m.Recursive {
				s += ",bind-recursive=disabled"
			}
			add("mount", "%s", s)
			if len(m.Options) > 0 {
				unsaid = append(unsaid, "the options "+strings.Join(m.Options, ",")+" of the mount on "+m.Target)
			}
		case "tmpfs":
			options := slices.Clone(m.Options)
			// --tmpfs has noexec, nosuid and nodev unless told otherwise, as with Docker: what the plan hasn't must be said.
			for _, o := range []string{"exec", "suid", "dev"} {
				if !slices.Contains(options, "no"+o) {
					options = append(options, o)
				}
			}
			if m.ReadOnly {
				options = append(options, "ro")
			}
			add("tmpfs", "%s:%s", m.Target, strings.Join(options, ","))
		}
	}
	text("shm-size", v.shmSize())
	if v.Root.Bytes > 0 {
		add("storage-opt", "size=%d", v.Root.Bytes)
	}
	extra, usual := v.extraRules()
	for _, d := range v.UserDevices() {
		rule := "allow " + d.String() + " rwm"
		access := ""
		if !slices.Contains(extra, rule) {
			for _, r := range extra {
				if rest, ok := strings.CutPrefix(r, "allow "+d.String()+" "); ok {
					access, rule = ":"+rest, r
				}
			}
		}
		if access != "" {
			add("device", "%s:%s%s", d.Path, d.Path, access)
		} else {
			add("device", "%s", d.Path)
		}
		if i := slices.Index(extra, rule); i >= 0 {
			extra = slices.Delete(slices.Clone(extra), i, i+1)
		}
	}
	for _, r := range extra {
		if allowed, ok := strings.CutPrefix(r, "allow "); ok {
			add("device-cgroup-rule", "%s", allowed)
		} else {
			unsaid = append(unsaid, "device rule: "+r)
		}
	}
	if !usual {
		unsaid = append(unsaid, "device rules: "+orNone(v.DeviceRules))
	}
	for _, ns := range [][2]string{{"pid", "pid"}, {"ipc", "ipc"}, {"uts", "uts"}, {"cgroup", "cgroupns"}} {
		if v.Shares(ns[0]) {
			add(ns[1], "host")
		} else if v.Joined[ns[0]] != "" {
			unsaid = append(unsaid, v.nsWords(ns[0])...)
		}
	}
	switch v.Net.Mode {
	case "none", "host":
		add("network", "%s", v.Net.Mode)
	case "joined":
		unsaid = append(unsaid, "it shares the network of "+v.Joined["net"])
	}
	address, _, _ := strings.Cut(v.Net.Address, "/")
	if v.Net.Mode == "bridge" {
		unsaid = append(unsaid, fmt.Sprintf("address %s on bridge %s (--ip would fix it)", address, v.Net.Bridge))
	}
	for _, name := range v.Net.Others {
		unsaid = append(unsaid, "it is on a further network, of the bridge "+name)
	}
	if len(v.Net.Names) > 0 {
		unsaid = append(unsaid, "others of its networks find it as "+strings.Join(v.Net.Names, ", "))
	}
	if v.Net.Resolver != "" {
		unsaid = append(unsaid, "its name server is "+v.Net.Resolver)
	}
	unsaid = append(unsaid, v.Net.Rates...)
	for _, parent := range v.Net.Parents {
		unsaid = append(unsaid, "it is on top of the host's "+parent)
	}
	for _, vlan := range v.Net.VLANs {
		unsaid = append(unsaid, "it makes the host's "+vlan)
	}
	if v.Net.Isolated {
		unsaid = append(unsaid, "it doesn't reach the other containers of its network")
	}
	for _, p := range v.Net.Ports {
		add("publish", "%s", portWord(p))
	}
	l := v.Limits
	number("memory", l.Memory)
	number("memory-swap", l.MemorySwap)
	number("memory-reservation", l.Reservation)
	number("memory-swappiness", l.Swappiness)
	on(l.OOMKillDisable, "oom-kill-disable")
	number("cpu-shares", l.shares())
	number("cpu-period", l.Period)
	number("cpu-quota", l.Quota)
	text("cpuset-cpus", l.Cpus)
	text("cpuset-mems", l.Mems)
	number("pids-limit", l.Pids)
	number("blkio-weight", l.BlkioWeight)
	for _, s := range v.UserSysctls() {
		add("sysctl", "%s", s)
	}
	for _, r := range v.Rlimits {
		add("ulimit", "%s=%s:%s", strings.ToLower(strings.TrimPrefix(r.Type, "RLIMIT_")), limitWord(r.Soft), limitWord(r.Hard))
	}
	for _, p := range v.Proc {
		if score, ok := strings.CutPrefix(p, "oom_score_adj="); ok {
			add("oom-score-adj", "%s", score)
		} else if profile, ok := strings.CutPrefix(p, "attr/apparmor/exec=exec "); ok {
			add("security-opt", "apparmor=%s", profile)
		} else {
			unsaid = append(unsaid, "it writes to /proc/self/"+p)
		}
	}
	caps, dropped := v.capChanges()
	for _, c := range dropped {
		add("cap-drop", "%s", c)
	}
	for _, c := range caps {
		add("cap-add", "%s", c)
	}
	on(v.NoNewPrivs, "security-opt=no-new-privileges")
	switch {
	case len(v.Filters) == 0:
		add("security-opt", "seccomp=unconfined")
	case v.Filters[0].Name != "default" || len(v.Filters) > 1:
		unsaid = append(unsaid, "the system call filter: its profile isn't in the plan, only the program made of it")
	}
	if len(v.Masked) == 0 && len(v.Locked) == 0 {
		add("security-opt", "systempaths=unconfined")
	} else {
		if !slices.Equal(v.Masked, usualMasked()) {
			add("security-opt", "masked-paths=%s", strings.Join(v.Masked, ":"))
		}
		if !slices.Equal(v.Locked, usualLocked()) {
			add("security-opt", "readonly-paths=%s", strings.Join(v.Locked, ":"))
		}
	}
	if len(v.Argv) > 0 {
		add("entrypoint", "%s", v.Argv[0])
		command = v.Argv[1:]
	}
	unsaid = append(unsaid, v.unsaid(
		"command", "env", "cwd", "terminal", "user", "groups", "hostname", "domainname", "root", "readonly", "binds", "tmpfs", "shm", "masked",
		"storage", "locked",
		"devices", "devicerules", "pidns", "ipcns", "utsns", "cgroupns", "memory", "swap", "reservation", "swappiness", "oomkill", "shares",
		"quota",
		"cpuset", "cpumems", "pids", "blkio", "network", "bridge", "address", "firewall", "ports", "sysctls", "rlimits", "proc", "caps",
		"nonewprivs", "seccomp",
		"cgroup", "hostsets")...)
	if len(v.Root.Layers) > 0 && image == "" {
		unsaid = append(unsaid, "the root is an overlay of "+strings.Join(v.layers(), " on "))
	}
	return flags, command, image, unsaid
}

// shares are the shares of processor time, of the weight if that is what the plan has: the other way round than package cgroup goes
// (weightOfShares), so that a plan's flags give the same plan again.
func (l Limits) shares() *int64 {
	if l.Shares != nil || l.Weight == nil {
		return l.Shares
	}
	w := min(max(*l.Weight, 1), 10000)
	// Of weight = 10^((l² + 125·l)/612 − 7/34), l = log₂(shares), solved for l. A weight is rounded up, so shares are rounded down; what is
	// added is for numbers that the square root misses by the last of their digits.
	log := (math.Sqrt(125*125+4*612*(math.Log10(float64(w))+7.0/34)) - 125) / 2
	n := max(int64(math.Exp2(log)+1e-6), 2)
	return &n
}

func limitWord(n uint64) string {
	if n == ^uint64(0) {
		return "-1"
	}
	return fmt.Sprint(n)
}

// script writes lines, and remembers the first error.
type script struct {
	w   io.Writer
	err error
}

func (t *script) line(format string, a ...any) {
	if t.err == nil {
		_, t.err = fmt.Fprintf(t.w, format+"\n", a...)
	}
}

// comment writes a comment line. Control characters are made visible: a line break would end the comment.
func (t *script) comment(format string, a ...any) {
	t.line("%s", strings.TrimRight("# "+clean(fmt.Sprintf(format, a...)), " "))
}
