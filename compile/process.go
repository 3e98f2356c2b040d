package compile

import (
	"fmt"
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
	c.add(plan.Child, plan.Kernel, &plan.FSMount{Type: "proc", Source: "proc", Attrs: []string{"nosuid", "nodev", "noexec"}, Save: "proc"}, ptr,
		"A private procfs: no name in the container can stand in for it.")
	c.procfs = "proc"
	return nil
}

// sysctls are checked for being namespaced: one that isn't would change the host.
func (c *container) sysctls(fresh []string) error {
	keys := make([]string, 0, len(c.Spec.Linux.Sysctl))
	for k := range c.Spec.Linux.Sysctl {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		ptr := "/linux/sysctl/" + strings.ReplaceAll(strings.ReplaceAll(k, "~", "~0"), "/", "~1")
		key := k
		if !strings.Contains(k, "/") {
			key = strings.ReplaceAll(k, ".", "/")
		}
		var need string
		switch {
		case strings.Contains(key, "..") || strings.HasPrefix(key, "/") || key == "":
			return fmt.Errorf("%s: not the name of a sysctl", ptr)
		case strings.HasPrefix(key, "net/"):
			need = "net"
		case strings.HasPrefix(key, "fs/mqueue/"), slices.Contains([]string{"kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/sem", "kernel/shmall", "kernel/shmmax", "kernel/shmmni", "kernel/shm_rmid_forced"}, key):
			need = "ipc"
		case key == "kernel/domainname":
			need = "uts"
		case key == "kernel/hostname":
			return fmt.Errorf("%s: use the hostname setting", ptr)
		default:
			return fmt.Errorf("%s: sysctl %q is not separate for each container: setting it would change the host", ptr, k)
		}
		if !slices.Contains(fresh, need) {
			return fmt.Errorf("%s: sysctl %q needs a %s namespace of the container's own: it would change the host", ptr, k, need)
		}
		if err := c.needProc(ptr); err != nil {
			return err
		}
		c.add(plan.Child, plan.Kernel, &plan.Sysctl{From: c.procfs, Key: key, Value: c.Spec.Linux.Sysctl[k]}, ptr, "A kernel setting of the container's own namespaces.")
	}
	return nil
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
		c.add(plan.Child, plan.Kernel, &plan.Keyring{Name: "_glassbox"}, "", "Keys of the session that started glassbox stay out of reach.")
	}
	if err := c.scheduling(p, ptr); err != nil {
		return err
	}
	if p.Terminal {
		for fd := range 3 {
			c.add(plan.Child, plan.Terminal, &plan.Stdio{From: "terminal", To: fd}, ptr+"/terminal", stdioReason[fd])
		}
		c.add(plan.Child, plan.Terminal, &plan.Setsid{Controlling: true}, ptr+"/terminal", "A session with this terminal: Ctrl-C reaches the container's processes.")
	} else {
		for fd, name := range []string{"stdin", "stdout", "stderr"} {
			if c.InheritStdio {
				break
			}
			c.add(plan.Child, plan.Terminal, &plan.Stdio{From: name, To: fd}, "", stdioReason[fd])
		}
		c.add(plan.Child, plan.Terminal, &plan.Setsid{}, "", "Signals from the terminal of whoever started it reach the container through its supervisor only.")
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
		c.add(plan.Child, plan.Privileges, &plan.Notify{Name: "user namespace"}, "/linux/namespaces", "Only the parent has the right to map ids of the host.")
		c.add(plan.Child, plan.Privileges, &plan.Await{Name: "ids"}, "/linux/namespaces", "Without mapped ids this process is nobody.")
	}
	filter, err := c.filter()
	if err != nil {
		return err
	}
	if c.PreserveFDs > 0 {
		c.add(plan.Child, plan.Exec, &plan.InheritFDs{Count: c.PreserveFDs}, "", "The caller gives these descriptors to the program, and none of the runtime's own may be among them.")
	}
	c.add(plan.Child, plan.Exec, &plan.CloseRange{First: 3 + max(c.PreserveFDs, 0)}, "", "No descriptor of the host leaks into the container (CVE-2024-21626).")
	if p.User.UID != 0 && p.Cwd != "/" {
		c.add(plan.Child, plan.Exec, &plan.Chdir{Path: p.Cwd, Try: true}, ptr+"/cwd", "The program may work in a directory that its user could not enter.")
	}
	const filterReason = "System calls that ordinary programs don't need are refused."
	if filter != nil && !p.NoNewPrivileges {
		c.add(plan.Child, plan.Privileges, filter, "/linux/seccomp", filterReason+" It is installed now because it takes a privilege that is dropped next.")
	}
	if err := c.privileges(p, ptr); err != nil {
		return err
	}
	if c.DieWithParent {
		c.add(plan.Child, plan.Exec, &plan.ParentDeath{Signal: 9}, "", "A container without its supervisor would run unseen.")
	}
	umask := uint32(0o022)
	if p.User.Umask != nil {
		umask = *p.User.Umask
	}
	c.add(plan.Child, plan.Exec, &plan.Umask{Mask: umask}, ptr+"/user/umask", "New files aren't writable for everyone.")
	c.add(plan.Child, plan.Exec, &plan.Chdir{Path: p.Cwd}, ptr+"/cwd", "The program's working directory.")
	if c.FindProgram {
		c.add(plan.Child, plan.Exec, &plan.FindProgram{Candidates: candidates(p), Name: p.Args[0]}, ptr+"/args", "A program that is missing is an error now, and not when the container is started.")
	}
	if c.Record || c.StartDir != "" {
		c.add(plan.Child, plan.Exec, &plan.Notify{Name: "ready"}, "", "The parent learns that only execve is missing.")
		c.add(plan.Child, plan.Exec, &plan.Await{Name: "record"}, "", "The parent writes down who this process is.")
	}
	if c.StartDir != "" {
		c.add(plan.Child, plan.Exec, &plan.AwaitStart{Dir: "start", File: StartFIFO}, "", "The container is created; it runs when it is started.")
	}
	if p.NoNewPrivileges {
		c.add(plan.Child, plan.Privileges, &plan.NoNewPrivs{}, ptr+"/noNewPrivileges", "Programs with the setuid bit stay unprivileged.")
		if filter != nil {
			c.add(plan.Child, plan.Privileges, filter, "/linux/seccomp", filterReason)
		}
	}
	c.add(plan.Child, plan.Exec, &plan.Execve{Candidates: candidates(p), Argv: p.Args, Env: p.Env}, ptr+"/args", "The child becomes the program.")
	return nil
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
	return &plan.Seccomp{Name: name, Flags: f.Flags, Program: f.Bytes()}, nil
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
			return fmt.Errorf("this kernel knows capability %d, which this glassbox doesn't, and so can't drop", n)
		}
		if !slices.Contains(sets["bounding"], name) {
			drop = append(drop, name)
		}
	}
	if len(drop) > 0 {
		c.add(plan.Child, plan.Privileges, &plan.DropBounding{Caps: drop}, ptr+"/capabilities/bounding", "No program in the container, whatever its file says, can have these.")
	}
	c.groups(p, ptr)
	c.add(plan.Child, plan.Privileges, &plan.Setresgid{GID: p.User.GID}, ptr+"/user", "The program's group.")
	if p.User.UID != 0 && len(sets["permitted"]) > 0 {
		c.add(plan.Child, plan.Privileges, &plan.KeepCaps{}, ptr+"/capabilities/permitted", "Changing from root to another user would drop them all.")
	}
	c.add(plan.Child, plan.Privileges, &plan.Setresuid{UID: p.User.UID}, ptr+"/user", "The program's user.")
	c.add(plan.Child, plan.Privileges, &plan.Capset{Effective: sets["effective"], Permitted: sets["permitted"], Inheritable: sets["inheritable"]}, ptr+"/capabilities",
		"Root in the container is root without the powers over the host.")
	if len(sets["ambient"]) > 0 {
		c.add(plan.Child, plan.Privileges, &plan.AmbientCaps{Caps: sets["ambient"]}, ptr+"/capabilities/ambient", "They survive the start of an ordinary program.")
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
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			path = v
		}
	}
	var out []string
	for _, dir := range strings.Split(path, ":") {
		if dir == "" {
			dir = "."
		}
		out = append(out, strings.TrimRight(dir, "/")+"/"+name)
	}
	return out
}
