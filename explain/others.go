package explain

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// said are the aspects that compose, quadlet and kube can all express in this package's hands.
func said() []string {
	return []string{
		"command", "env", "cwd", "terminal", "user", "groups", "hostname", "readonly", "binds", "tmpfs", "root", "ports", "caps", "nonewprivs",
		"bridge", "firewall", "cgroup", "hostsets", "address",
	}
}

// yaml writes a scalar as YAML takes it without second thoughts: JSON's strings are YAML's.
func yaml(s string) string {
	var data strings.Builder
	e := json.NewEncoder(&data)
	e.SetEscapeHTML(false) // && is read by people here
	_ = e.Encode(s)
	var b strings.Builder
	for _, r := range strings.TrimSuffix(data.String(), "\n") {
		switch {
		case !deceives(r):
			b.WriteRune(r)
		case r > 0xffff: // YAML knows no halves, but has this (YAML 1.2, 5.7)
			fmt.Fprintf(&b, `\U%08X`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

func yamlList(words []string) string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = yaml(w)
	}
	return "[" + strings.Join(out, ", ") + "]"
}

// opening writes the comments at the head of a file: what it is, and what can't be said in it.
func (t *script) opening(format string, a About, unsaid []string) {
	t.comment("The container of %s for %s.", or(a.Title, "a plan"), format)
	t.refused(a)
	t.unsaid(format, unsaid)
}

// refused says that the plan would be refused, if there is a reason.
func (t *script) refused(a About) {
	if a.Refused != "" {
		t.comment("")
		t.comment("%s", refusal(a.Refused))
	}
}

// unsaid writes what can't be said in the words of others.
func (t *script) unsaid(whose string, list []string) {
	if len(list) == 0 {
		return
	}
	t.comment("")
	t.comment("%s can't say this:", whose)
	for _, s := range list {
		t.comment("  %s", s)
	}
}

func (v *View) image(a About) string {
	if a.Image != "" {
		return a.Image
	}
	return "IMAGE"
}

func (v *View) rootUnsaid(a About) []string {
	if a.Image != "" {
		return nil
	}
	return aspectNamed("root").say(v)
}

func aspectNamed(name string) aspect {
	for _, a := range aspects() {
		if a.name == name {
			return a
		}
	}
	return aspect{name, func(*View) []string { return nil }}
}

func bindWord(m Mount) string {
	options := []string{}
	if m.ReadOnly {
		options = append(options, "ro")
	}
	if m.Propagation != "" && m.Propagation != "private" {
		options = append(options, "r"+m.Propagation)
	}
	s := m.Source + ":" + m.Target
	if len(options) > 0 {
		s += ":" + strings.Join(options, ",")
	}
	return s
}

// writeCompose writes a service of a compose file: of the flags by which a container was made or, where there are none, of what the plan
// does.
func writeCompose(w io.Writer, v *View, a About) error {
	if a.Made {
		return composeService(a).write(w, a)
	}
	return v.service(w, a)
}

// service writes a service that does what a plan does.
func (v *View) service(w io.Writer, a About) error {
	t := &script{w: w}
	can := append(said(), "domainname", "memory", "swap", "reservation", "swappiness", "oomkill", "shares", "quota", "cpuset", "pids",
		"storage", "network", "pidns", "ipcns", "utsns", "cgroupns",
		"sysctls", "rlimits", "proc", "devices", "shm", "masked", "locked", "seccomp")
	unsaid := append(v.rootUnsaid(a), v.unsaid(can...)...)
	unsaid = append(unsaid, v.filterUnsaid()...)
	unsaid = append(unsaid, v.leftovers()...)
	t.opening("compose", a, unsaid)
	t.line("services:")
	t.line("  %s:", yaml(or(a.Name, "container")))
	// Compose looks for variables in every value, wherever it stands.
	key := func(name, format string, args ...any) {
		t.line("    %s: %s", name, strings.ReplaceAll(fmt.Sprintf(format, args...), "$", "$$"))
	}
	list := func(name string, words []string) {
		if len(words) > 0 {
			key(name, "%s", yamlList(words))
		}
	}
	key("image", "%s", yaml(v.image(a)))
	if a.Name != "" {
		key("container_name", "%s", yaml(a.Name))
	}
	list("labels", a.Labels)
	if len(v.Argv) > 0 {
		list("entrypoint", v.Argv[:1])
		key("command", "%s", yamlList(v.Argv[1:]))
	}
	list("environment", v.Env)
	if v.Cwd != "/" && v.Cwd != "" {
		key("working_dir", "%s", yaml(v.Cwd))
	}
	if v.UID != 0 || v.GID != 0 {
		key("user", `"%d:%d"`, v.UID, v.GID)
	}
	var groups []string
	for _, g := range v.extraGroups() {
		groups = append(groups, fmt.Sprint(g))
	}
	list("group_add", groups)
	if v.Hostname != "" {
		key("hostname", "%s", yaml(v.Hostname))
	}
	if v.Domainname != "" {
		key("domainname", "%s", yaml(v.Domainname))
	}
	if v.Terminal {
		key("tty", "true")
	}
	if a.Interactive {
		key("stdin_open", "true")
	}
	if v.Root.ReadOnly {
		key("read_only", "true")
	}
	var binds, tmpfs, devices, ports []string
	for _, m := range v.UserMounts() {
		switch m.Type {
		case "bind":
			binds = append(binds, bindWord(m))
		case "tmpfs":
			tmpfs = append(tmpfs, m.Target+":"+strings.Join(m.Options, ","))
		}
	}
	for _, d := range v.UserDevices() {
		devices = append(devices, d.Path+":"+d.Path)
	}
	for _, p := range v.Net.Ports {
		ports = append(ports, portWord(p))
	}
	list("volumes", binds)
	list("tmpfs", tmpfs)
	list("devices", devices)
	list("ports", ports)
	if v.shmSize() != "" {
		key("shm_size", "%s", yaml(v.shmSize()))
	}
	if v.Root.Bytes > 0 {
		key("storage_opt", "{size: %q}", fmt.Sprint(v.Root.Bytes))
	}
	switch v.Net.Mode {
	case "none", "host":
		key("network_mode", "%s", v.Net.Mode)
	}
	for _, ns := range [][2]string{{"pid", "pid"}, {"ipc", "ipc"}, {"uts", "uts"}, {"cgroup", "cgroup"}} {
		if v.Shares(ns[0]) {
			key(ns[1], "host")
		}
	}
	add, drop := v.capChanges()
	list("cap_drop", drop)
	list("cap_add", add)
	var security []string
	if v.NoNewPrivs {
		security = append(security, "no-new-privileges:true")
	}
	if len(v.Filters) == 0 {
		security = append(security, "seccomp:unconfined")
	}
	if len(v.Masked) == 0 && len(v.Locked) == 0 {
		security = append(security, "systempaths=unconfined")
	}
	list("security_opt", security)
	list("sysctls", v.UserSysctls())
	if len(v.Rlimits) > 0 {
		t.line("    ulimits:")
		for _, r := range v.Rlimits {
			t.line("      %s: {soft: %s, hard: %s}", yaml(strings.ToLower(strings.TrimPrefix(r.Type, "RLIMIT_"))), limitWord(r.Soft),
				limitWord(r.Hard))
		}
	}
	for _, p := range v.Proc {
		if score, ok := strings.CutPrefix(p, "oom_score_adj="); ok {
			key("oom_score_adj", "%s", yaml(score))
		}
	}
	v.composeLimits(key)
	return t.err
}

// composeLimits are the service's keys for its limits.
func (v *View) composeLimits(key func(name, format string, args ...any)) {
	l := v.Limits
	for _, n := range []struct {
		key   string
		value *int64
	}{
		{"mem_limit", l.Memory},
		{"memswap_limit", l.MemorySwap},
		{"mem_reservation", l.Reservation},
		{"mem_swappiness", l.Swappiness},
		{"cpu_shares", l.shares()},
		{"cpu_quota", l.Quota},
		{"cpu_period", l.Period},
		{"pids_limit", l.Pids},
	} {
		if n.value != nil {
			key(n.key, "%d", *n.value)
		}
	}
	if l.OOMKillDisable {
		key("oom_kill_disable", "true")
	}
	if l.Cpus != "" {
		key("cpuset", "%s", yaml(l.Cpus))
	}
}

// dollars doubles dollar signs, which Kubernetes takes for variables in commands and environments: $(NAME).
func dollars(words []string) []string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = strings.ReplaceAll(w, "$", "$$")
	}
	return out
}

// leftovers are what formats can say only in part: namespaces that are another's, paths that are hidden otherwise than
// usual or not at all, and what a process writes about itself beside its score for the moment when memory runs out.
func (v *View) leftovers() []string {
	var out []string
	for _, ns := range []string{"pid", "ipc", "uts", "cgroup"} {
		if v.Joined[ns] != "" {
			out = append(out, v.nsWords(ns)...)
		}
	}
	if len(v.Masked)+len(v.Locked) > 0 {
		out = append(out, aspectNamed("masked").say(v)...)
		out = append(out, aspectNamed("locked").say(v)...)
	}
	for _, p := range v.Proc {
		if !strings.HasPrefix(p, "oom_score_adj=") {
			out = append(out, clean("it writes to /proc/self/"+p))
		}
	}
	return out
}

// filterUnsaid says that a filter that isn't the default one can't be given as a program.
func (v *View) filterUnsaid() []string {
	if len(v.Filters) == 0 {
		return nil // said as "unconfined", where it can be
	}
	return aspectNamed("seccomp").say(v)
}

// writeQuadlet writes a unit for podman's systemd generator.
func writeQuadlet(w io.Writer, v *View, a About) error {
	t := &script{w: w}
	flags, command, image, unsaid := v.flags(a)
	if a.Image == "" {
		image = "IMAGE"
	}
	t.opening("quadlet", a, append(v.rootUnsaid(a), unsaid...))
	t.line("[Unit]")
	t.line("Description=%s", unitWord(or(a.Title, "a container")))
	t.line("")
	t.line("[Container]")
	t.line("Image=%s", unitWord(image))
	key := map[string]string{
		"name": "ContainerName", "hostname": "HostName", "env": "Environment", "workdir": "WorkingDir", "publish": "PublishPort",
		"mount": "Mount", "tmpfs": "Tmpfs",
		"cap-add": "AddCapability", "cap-drop": "DropCapability", "device": "AddDevice", "network": "Network", "read-only": "ReadOnly",
		"sysctl": "Sysctl", "ulimit": "Ulimit",
		"pids-limit": "PidsLimit", "shm-size": "ShmSize", "label": "Label", "group-add": "GroupAdd", "entrypoint": "Entrypoint",
	}
	for _, f := range flags {
		name, value, ok := strings.Cut(strings.TrimPrefix(f, "--"), "=")
		switch {
		case name == "domainname" || name == "rootfs":
			t.comment("podman can't say %s", f)
		case name == "user":
			uid, gid, _ := strings.Cut(value, ":")
			t.line("User=%s", unitWord(uid))
			t.line("Group=%s", unitWord(gid))
		case key[name] != "" && !ok:
			t.line("%s=true", key[name])
		case key[name] != "":
			t.line("%s=%s", key[name], unitWord(value))
		default:
			t.line("PodmanArgs=%s", unitWord(f))
		}
	}
	if len(command) > 0 {
		words := make([]string, len(command))
		for i, c := range command {
			words[i] = unitWord(c)
		}
		t.line("Exec=%s", strings.Join(words, " "))
	}
	t.line("")
	t.line("[Install]")
	t.line("WantedBy=default.target")
	return t.err
}

// unitWord quotes a word for systemd (systemd.syntax(7)): percent signs and dollars mean something there.
func unitWord(s string) string {
	s = strings.ReplaceAll(clean(s), "%", "%%")
	if s != "" && !strings.ContainsAny(s, " \t\"'\\$;") {
		return s
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", "$$").Replace(s) + `"`
}

// writeKube writes a pod for Kubernetes.
func writeKube(w io.Writer, v *View, a About) error {
	t := &script{w: w}
	can := append(said(), "memory", "quota", "pidns", "ipcns", "network", "sysctls", "masked", "locked", "reservation")
	unsaid := append(v.rootUnsaid(a), v.unsaid(can...)...)
	if v.Limits.Reservation != nil {
		unsaid = append(unsaid, aspectNamed("reservation").say(v)...)
	}
	if v.Net.Mode == "none" {
		unsaid = append(unsaid, "no network: a pod always has one; a NetworkPolicy can close it")
	}
	if v.Limits.percent() == nil {
		unsaid = append(unsaid, aspectNamed("quota").say(v)...)
	}
	unsaid = append(unsaid, v.leftovers()...)
	t.opening("kubernetes", a, unsaid)
	name := strings.Trim(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(or(a.Name, "container"))), "-")
	t.line("apiVersion: v1")
	t.line("kind: Pod")
	t.line("metadata: {name: %s}", yaml(or(name, "container")))
	t.line("spec:")
	if v.Hostname != "" {
		t.line("  hostname: %s", yaml(v.Hostname))
	}
	for _, ns := range [][2]string{{"net", "hostNetwork"}, {"pid", "hostPID"}, {"ipc", "hostIPC"}} {
		if v.Shares(ns[0]) {
			t.line("  %s: true", ns[1])
		}
	}
	groups := v.extraGroups()
	if s := v.UserSysctls(); len(s)+len(groups) > 0 {
		t.line("  securityContext:")
		if len(groups) > 0 {
			words, _ := json.Marshal(groups)
			t.line("    supplementalGroups: %s", words)
		}
		if len(s) > 0 {
			t.line("    sysctls:")
			for _, set := range s {
				key, value, _ := strings.Cut(set, "=")
				t.line("      - {name: %s, value: %s}", yaml(key), yaml(value))
			}
		}
	}
	t.line("  containers:")
	t.line("    - name: %s", yaml(or(name, "container")))
	t.line("      image: %s", yaml(v.image(a)))
	if len(v.Argv) > 0 {
		t.line("      command: %s", yamlList(dollars(v.Argv)))
	}
	if v.Cwd != "" && v.Cwd != "/" {
		t.line("      workingDir: %s", yaml(v.Cwd))
	}
	if v.Terminal {
		t.line("      tty: true")
	}
	if a.Interactive {
		t.line("      stdin: true")
	}
	if len(v.Env) > 0 {
		t.line("      env:")
		for _, e := range v.Env {
			key, value, _ := strings.Cut(e, "=")
			t.line("        - {name: %s, value: %s}", yaml(key), yaml(dollars([]string{value})[0]))
		}
	}
	if len(v.Net.Ports) > 0 {
		t.line("      ports:")
		for _, p := range v.Net.Ports {
			ip := when(p.HostIP != "", ", hostIP: "+yaml(p.HostIP), "")
			t.line("        - {containerPort: %d, hostPort: %d, protocol: %s%s}", p.ContainerPort, p.HostPort, yaml(strings.ToUpper(p.Proto)), ip)
		}
	}
	var limits []string
	if l := v.Limits.Memory; l != nil && *l >= 0 {
		limits = append(limits, fmt.Sprintf("memory: %d", *l))
	}
	if p := v.Limits.percent(); p != nil {
		// Thousandths of a processor, of hundredths.
		limits = append(limits, fmt.Sprintf("cpu: %dm", *p*10))
	}
	if len(limits) > 0 {
		t.line("      resources: {limits: {%s}}", strings.Join(limits, ", "))
	}
	add, drop := v.capChanges()
	t.line("      securityContext:")
	t.line("        runAsUser: %d", v.UID)
	t.line("        runAsGroup: %d", v.GID)
	t.line("        readOnlyRootFilesystem: %v", v.Root.ReadOnly)
	// By this field Kubernetes sets no_new_privs (Configure a Security Context, allowPrivilegeEscalation).
	t.line("        allowPrivilegeEscalation: %v", !v.NoNewPrivs)
	t.line("        capabilities: {drop: %s, add: %s}", yamlList(drop), yamlList(add))
	t.line("        seccompProfile: {type: %s}", when(len(v.Filters) == 0, "Unconfined", "RuntimeDefault"))
	if len(v.Masked)+len(v.Locked) == 0 {
		t.line("        procMount: Unmasked")
	}
	v.kubeVolumes(t)
	return t.err
}

// kubeVolumes are the end of a pod: what its container mounts, and what that is.
func (v *View) kubeVolumes(t *script) {
	var mounts, volumes []string
	for i, m := range v.UserMounts() {
		switch m.Type {
		case "bind":
			volumes = append(volumes, fmt.Sprintf("{name: v%d, hostPath: {path: %s}}", i, yaml(m.Source)))
		case "tmpfs":
			volumes = append(volumes, fmt.Sprintf("{name: v%d, emptyDir: {medium: Memory}}", i))
		default:
			continue
		}
		spread := map[string]string{"slave": ", mountPropagation: HostToContainer", "shared": ", mountPropagation: Bidirectional"}[m.Propagation]
		mounts = append(mounts, fmt.Sprintf("{name: v%d, mountPath: %s, readOnly: %v%s}", i, yaml(m.Target), m.ReadOnly, spread))
	}
	if len(mounts) > 0 {
		t.line("      volumeMounts:")
		for _, m := range mounts {
			t.line("        - %s", m)
		}
		t.line("  volumes:")
		for _, m := range volumes {
			t.line("    - %s", m)
		}
	}
}
