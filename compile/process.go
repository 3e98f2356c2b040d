package compile

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"glassbox/plan"
	"glassbox/seccomp"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func (c *container) needProc(ptr string) error {
	if c.procfs != "" {
		return nil
	}
	c.add(plan.Child, plan.Kernel, &plan.FSMount{Type: "proc", Source: "proc", Attrs: []string{"nosuid", "nodev", "noexec"}, Save: "proc"},
		ptr,
		"A private procfs: no name in the container can stand in for it.")
	c.procfs = "proc"
	return nil
}

// sysctlPath is a sysctl's path below /proc/sys, and the kind of namespace that it belongs to. Of dots and slashes the first one
// in the name separates; the other is then a dot in a component, as in net.ipv4.conf.eth0/100.forwarding (sysctl(8)).
func sysctlPath(name string) (key, namespace string) {
	key = name
	if i := strings.IndexAny(name, "./"); i >= 0 && name[i] == '.' {
		key = strings.Map(func(r rune) rune {
			switch r {
			case '.':
				return '/'
			case '/':
				return '.'
			}
			return r
		}, name)
	}
	switch {
	case strings.HasPrefix(key, "net/"):
		namespace = "net"
	case strings.HasPrefix(key, "fs/mqueue/"), slices.Contains([]string{
		"kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/sem",
		"kernel/shmall", "kernel/shmmax", "kernel/shmmni", "kernel/shm_rmid_forced",
	}, key):
		namespace = "ipc"
	case key == "kernel/domainname":
		namespace = "uts"
	case strings.HasPrefix(key, "user/"):
		namespace = "user"
	}
	return key, namespace
}

// ofLink reports whether a sysctl is one of a link that the parent brings into the network namespace: before that, it isn't there.
func (c *container) ofLink(sysctl string) bool {
	var links []string
	for _, s := range c.Network {
		switch o := s.Op.(type) {
		case *plan.LinkVeth:
			links = append(links, o.Peer)
		case *plan.LinkMacvlan:
			links = append(links, o.Name)
		case *plan.LinkMove:
			links = append(links, cmp.Or(o.As, o.Name))
		}
	}
	for name, d := range c.Spec.Linux.NetDevices {
		links = append(links, cmp.Or(d.Name, name))
	}
	key, _ := sysctlPath(sysctl)
	return slices.ContainsFunc(strings.Split(key, "/"), func(part string) bool {
		return slices.ContainsFunc(links, func(link string) bool {
			stem, _, numbered := strings.Cut(link, "%") // the kernel chooses the number
			return part == link || numbered && strings.HasPrefix(part, stem)
		})
	})
}

// sysctls are checked for being namespaced: one that isn't would change the host. With late, those of a user namespace that the
// child makes at the end are written, without it all others.
func (c *container) sysctls(late bool) error {
	for _, k := range slices.Sorted(maps.Keys(c.Spec.Linux.Sysctl)) {
		ptr := "/linux/sysctl/" + strings.ReplaceAll(strings.ReplaceAll(k, "~", "~0"), "/", "~1")
		key, need := sysctlPath(k)
		switch {
		case key == "" || slices.ContainsFunc(strings.Split(key, "/"), func(s string) bool { return s == "" || s == "." || s == ".." }):
			return fmt.Errorf("%s: not the name of a sysctl", ptr)
		// Two places for one thing, of which the later one would silently win; runc refuses it as well.
		case key == "kernel/hostname":
			return fmt.Errorf("%s: use the hostname setting", ptr)
		case need == "":
			return fmt.Errorf("%s: sysctl %q is not separate for each container: setting it would change the host", ptr, k)
		case !slices.Contains(c.fresh, need) && c.join[need] == "":
			return fmt.Errorf("%s: sysctl %q needs a %s namespace of the container's own: it would change the host", ptr, k, need)
		}
		if err := c.needProc(ptr); err != nil {
			return err
		}
		if late != (need == "user" && c.users == lateUsers) {
			continue
		}
		c.add(plan.Child, plan.Kernel, &plan.Sysctl{From: c.procfs, Key: key, Value: c.Spec.Linux.Sysctl[k]}, ptr,
			"A kernel setting of the container's own namespaces.")
	}
	return nil
}

// changed reports whether a sysctl of the configuration changes a kind of namespace.
func (c *container) changed(namespace string) bool {
	for k := range c.Spec.Linux.Sysctl {
		if _, n := sysctlPath(k); n == namespace {
			return true
		}
	}
	return false
}

// process writes the steps that make the child the program: stdio, limits, privileges, execve. Run and exec share it.
func (c *container) process(p *specs.Process, ptr string) error {
	if err := checkIDs(p, ptr); err != nil {
		return err
	}
	if !c.NoNewKeyring {
		if p.SelinuxLabel != "" && slices.Contains(c.Facts.LSM, "selinux") {
			if err := c.needProc(ptr + "/selinuxLabel"); err != nil {
				return err
			}
			c.add(plan.Child, plan.Kernel, &plan.WriteProc{From: c.procfs, File: "attr/keycreate", Value: p.SelinuxLabel}, ptr+"/selinuxLabel",
				"The keyring that comes next has the label of the program that will use it.")
		}
		c.add(plan.Child, plan.Kernel, &plan.Keyring{}, "",
			"Keys of the session that started glassbox stay out of reach, and those of other containers.")
	}
	if err := c.scheduling(p, ptr); err != nil {
		return err
	}
	if p.Terminal {
		for fd := range 3 {
			c.add(plan.Child, plan.Terminal, &plan.Stdio{From: "terminal", To: fd}, ptr+"/terminal", stdioReason[fd])
		}
		c.add(plan.Child, plan.Terminal, &plan.Setsid{Controlling: true}, ptr+"/terminal",
			"A session with this terminal: Ctrl-C reaches the container's processes.")
	} else {
		for fd, name := range []string{"stdin", "stdout", "stderr"} {
			// What is null here may be the host's own /dev/null, whose mode the container's root could change through it.
			c.add(plan.Child, plan.Terminal, &plan.Stdio{From: name, To: fd, Null: "/dev/null"}, "", stdioReason[fd])
		}
		c.add(plan.Child, plan.Terminal, &plan.Setsid{}, "",
			"Signals from the terminal of whoever started it reach the container through its supervisor only.")
	}
	if err := c.labels(p, ptr); err != nil {
		return err
	}
	if err := c.rlimits(p, ptr); err != nil {
		return err
	}
	if c.users == lateUsers {
		c.add(plan.Child, plan.Privileges, &plan.Unshare{Namespaces: []string{"user"}}, "/linux/namespaces",
			"From here on capabilities count in the container's own user namespace only.")
		c.add(plan.Child, plan.Privileges, &plan.Notify{Name: "user namespace"}, "/linux/namespaces",
			"Only the parent has the right to map ids of the host.")
		c.add(plan.Child, plan.Privileges, &plan.Await{Name: "ids"}, "/linux/namespaces", "Without mapped ids this process is nobody.")
		if err := c.sysctls(true); err != nil {
			return err
		}
	}
	filter, err := c.filter()
	if err != nil {
		return err
	}
	if c.PreserveFDs > 0 {
		c.add(plan.Child, plan.Exec, &plan.InheritFDs{Count: c.PreserveFDs}, "",
			"The caller gives these descriptors to the program, and none of the runtime's own may be among them.")
	}
	c.add(plan.Child, plan.Exec, &plan.CloseRange{First: 3 + max(c.PreserveFDs, 0)}, "",
		"No descriptor of the host leaks into the container (CVE-2024-21626).")
	// Runc tries before and after the change of user, too: a directory may be open to root alone, as one of a volume's that is exported with
	// root squashed may be open to the user alone.
	if (p.User.UID != 0 || c.hostRoot || !entersAll(p)) && p.Cwd != "/" {
		c.add(plan.Child, plan.Exec, &plan.Chdir{Path: p.Cwd, Try: true}, ptr+"/cwd",
			"The program may work in a directory that its user could not enter.")
	}
	if err := c.checkListener(filter); err != nil {
		return err
	}
	const filterReason = "System calls that ordinary programs don't need are refused."
	if filter != nil && !p.NoNewPrivileges {
		c.add(plan.Child, plan.Privileges, filter, "/linux/seccomp",
			filterReason+" It is installed now because it takes a privilege that is dropped next.")
		c.sendListener(filter)
	}
	if err := c.privileges(p, ptr); err != nil {
		return err
	}
	if c.DieWithParent {
		c.add(plan.Child, plan.Exec, &plan.ParentDeath{Signal: 9}, "", "A container without its supervisor would run unseen.")
	}
	// Docker's and runc's default, whatever the engine itself was started with.
	umask := uint32(0o022)
	if p.User.Umask != nil {
		umask = *p.User.Umask
	}
	c.add(plan.Child, plan.Exec, &plan.Umask{Mask: umask}, ptr+"/user/umask", "New files aren't writable for everyone.")
	c.add(plan.Child, plan.Exec, &plan.Chdir{Path: p.Cwd}, ptr+"/cwd", "The program's working directory.")
	if c.FindProgram {
		c.add(plan.Child, plan.Exec, &plan.FindProgram{Candidates: candidates(p), Name: p.Args[0]}, ptr+"/args",
			"A program that is missing is an error now, and not when the container is started.")
	}
	last := func() {
		if !p.NoNewPrivileges {
			return
		}
		c.add(plan.Child, plan.Privileges, &plan.NoNewPrivs{}, ptr+"/noNewPrivileges", "Programs with the setuid bit stay unprivileged.")
		if filter != nil {
			c.add(plan.Child, plan.Privileges, filter, "/linux/seccomp", filterReason)
			c.sendListener(filter)
		}
	}
	// The parent passes the listener on, so it can't be as late as other filters.
	listened := filter != nil && filter.Notify != ""
	if listened {
		last()
	}
	if c.Record || c.StartDir != "" {
		c.add(plan.Child, plan.Exec, &plan.Notify{Name: "ready"}, "", "The parent learns that only execve is missing.")
		c.add(plan.Child, plan.Exec, &plan.Await{Name: "record"}, "", "The parent writes down who this process is.")
	}
	if c.StartDir != "" {
		c.add(plan.Child, plan.Exec, &plan.AwaitStart{Dir: "start", File: StartFIFO}, "", "The container is created; it runs when it is started.")
	}
	if !listened {
		last()
	}
	c.add(plan.Child, plan.Exec, &plan.Execve{Candidates: candidates(p), Argv: p.Args, Env: lastOnly(p.Env)}, ptr+"/args",
		"The child becomes the program.")
	return nil
}

// lastOnly keeps of variables with one name the last: with two of them getenv(3) finds the first, and shells the last.
func lastOnly(env []string) []string {
	seen := make(map[string]bool, len(env))
	var out []string
	for i, e := range slices.Backward(env) {
		name, _, _ := strings.Cut(e, "=")
		switch {
		case !seen[name]:
			seen[name] = true
			if out != nil {
				out = append(out, e)
			}
		case out == nil: // the first one that is left out: until then the list is as it was
			out = append(make([]string, 0, len(env)), env[i+1:]...)
			slices.Reverse(out)
		}
	}
	if out == nil {
		return env
	}
	slices.Reverse(out)
	return out
}

var stdioReason = [3]string{"Standard input.", "Standard output.", "Standard error."}

// filter compiles the seccomp profile.
func (c *container) filter() (*plan.Seccomp, error) {
	if c.Filter != nil {
		return c.Filter, nil
	}
	s := c.Spec.Linux.Seccomp
	if s == nil {
		return nil, nil
	}
	if !c.Facts.Seccomp {
		return nil, fmt.Errorf("/linux/seccomp: this kernel has no seccomp filters; --security-opt seccomp=unconfined goes without")
	}
	f, err := seccomp.Compile(s, c.Facts.Arch)
	if err != nil {
		return nil, seccomp.At("/linux/seccomp", err)
	}
	for _, name := range f.Unknown {
		c.warnings = append(c.warnings, fmt.Sprintf("/linux/seccomp: unknown system call %q", name))
	}
	name := c.SeccompName
	if name == "" {
		name = "of the configuration"
	}
	o := &plan.Seccomp{Name: name, Flags: f.Flags, Program: f.Bytes()}
	if f.Notify {
		o.Notify = "listener"
	}
	return o, nil
}

// checkListener makes sure that the child can hand a filter's listener to its parent: by sendmsg(2), which the filter that is
// then in force must allow.
func (c *container) checkListener(f *plan.Seccomp) error {
	if f == nil || f.Notify == "" {
		return nil
	}
	s := c.Spec.Linux.Seccomp
	if s == nil || s.ListenerPath == "" {
		return fmt.Errorf("/linux/seccomp/listenerPath: missing, and the filter has rules with SCMP_ACT_NOTIFY")
	}
	if !strings.HasPrefix(s.ListenerPath, "/") {
		return fmt.Errorf("/linux/seccomp/listenerPath: %q is not an absolute path", s.ListenerPath)
	}
	allowed := s.DefaultAction == specs.ActAllow || s.DefaultAction == specs.ActLog
	for i, rule := range s.Syscalls {
		if !slices.Contains(rule.Names, "sendmsg") {
			continue
		}
		if rule.Action != specs.ActAllow && rule.Action != specs.ActLog {
			return fmt.Errorf("/linux/seccomp/syscalls/%d: %s for sendmsg: the runtime needs that call to hand over the listener", i, rule.Action)
		}
		// A rule with arguments might be about other descriptors than the child's.
		allowed = allowed || len(rule.Args) == 0
	}
	if !allowed {
		return fmt.Errorf("/linux/seccomp/syscalls: sendmsg is not allowed: the runtime needs that call to hand over the listener")
	}
	return nil
}

func (c *container) sendListener(f *plan.Seccomp) {
	if f.Notify != "" {
		c.add(plan.Child, plan.Privileges, &plan.SendFD{From: f.Notify}, "/linux/seccomp/listenerPath",
			"Who listens decides about the calls that the filter doesn't.")
	}
}

// passListener writes the host's part of that. It comes after all else that the child sends before its filter.
func (c *container) passListener() error {
	// Compiled twice, for the host's lane and the child's; what is strange about it is told once.
	warnings := c.warnings
	f, err := c.filter()
	c.warnings = warnings // the child's part has them
	if err != nil || f == nil || f.Notify == "" {
		return err
	}
	if err := c.checkListener(f); err != nil {
		return err
	}
	s := c.Spec.Linux.Seccomp
	version := c.Spec.Version
	if version == "" {
		version = specs.Version
	}
	c.add(plan.Host, plan.Privileges, &plan.RecvFD{Save: f.Notify}, "/linux/seccomp/listenerPath",
		"The filter is in force; calls that it has no answer to wait.")
	c.add(plan.Host, plan.Privileges, &plan.SendListener{
		From: f.Notify, Path: s.ListenerPath, Metadata: s.ListenerMetadata,
		Version: version,
	}, "/linux/seccomp/listenerPath", "The agent answers them from now on.")
	return nil
}

func (c *container) privileges(p *specs.Process, ptr string) error {
	if err := c.checkUser(p.User, ptr); err != nil {
		return err
	}
	sets, err := c.capabilities(p, ptr+"/capabilities")
	if err != nil {
		return err
	}
	var drop []string
	for n := 0; n <= c.Facts.LastCap; n++ {
		name := plan.CapName(n)
		if name == "" {
			// To leave out one that nobody here has heard of would give it to the container.
			return fmt.Errorf("this kernel knows capability %d, which this glassbox doesn't, and so can't drop", n)
		}
		if !slices.Contains(sets["bounding"], name) {
			drop = append(drop, name)
		}
	}
	if len(drop) > 0 {
		c.add(plan.Child, plan.Privileges, &plan.DropBounding{Caps: drop}, ptr+"/capabilities/bounding",
			"No program in the container, whatever its file says, can have these.")
	}
	// Groups before the user, who may not change them; bounding set before both, as it takes CAP_SETPCAP.
	c.groups(p, ptr)
	c.add(plan.Child, plan.Privileges, &plan.Setresgid{GID: p.User.GID}, ptr+"/user", "The program's group.")
	// Asked for before setresuid, and undone by execve (prctl(2), PR_SET_KEEPCAPS).
	if p.User.UID != 0 && len(sets["permitted"]) > 0 {
		c.add(plan.Child, plan.Privileges, &plan.KeepCaps{}, ptr+"/capabilities/permitted",
			"Changing from root to another user would drop them all.")
	}
	c.add(plan.Child, plan.Privileges, &plan.Setresuid{UID: p.User.UID}, ptr+"/user", "The program's user.")
	c.add(plan.Child, plan.Privileges, &plan.Capset{
		Effective: sets["effective"], Permitted: sets["permitted"],
		Inheritable: sets["inheritable"],
	}, ptr+"/capabilities",
		"Root in the container is root without the powers over the host.")
	if len(sets["ambient"]) > 0 {
		c.add(plan.Child, plan.Privileges, &plan.AmbientCaps{Caps: sets["ambient"]}, ptr+"/capabilities/ambient",
			"They survive the start of an ordinary program.")
	}
	return nil
}

// defaultPath is what Docker uses where the image sets no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// candidates are the files that a command may stand for, as a shell would find it.
func candidates(p *specs.Process) []string {
	name := p.Args[0]
	if strings.Contains(name, "/") {
		return []string{name}
	}
	path := defaultPath
	for _, e := range p.Env {
		// The last one counts, as lastOnly has it.
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			path = v
		}
	}
	var out []string
	for _, dir := range strings.Split(path, ":") {
		if dir == "" {
			// An empty entry is the working directory (environ(7)).
			dir = "."
		}
		out = append(out, strings.TrimRight(dir, "/")+"/"+name)
	}
	return out
}

// entersAll reports whether root of the container has the power to enter every directory (capabilities(7)), as it has before it drops
// others.
func entersAll(p *specs.Process) bool {
	return p.Capabilities != nil && (slices.Contains(p.Capabilities.Effective, "CAP_DAC_OVERRIDE") ||
		slices.Contains(p.Capabilities.Effective, "CAP_DAC_READ_SEARCH"))
}
