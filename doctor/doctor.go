// Package doctor says what this host can and can't do for containers, what that costs, and the command that mends it.
//
// Its one idea: looking and judging are apart. [Probe] looks, for any user, and changes nothing that every other command of glassbox
// wouldn't put right as well; [Diagnose] is pure and turns what was seen into items, so that its tests stand on any machine. Where a
// command of glassbox would ask the same question the same code answers: whether a limit can be enforced is what package cgroup says of
// a plan, whether nf_tables is there is asked over netlink.
//
// It refuses to guess: what can't be seen from here is limited, and says so. Start reading at [Diagnose].
package doctor

import (
	"fmt"
	"slices"
	"strings"
)

// Version is that of the JSON form of a Report; docs/doctor.md describes it.
const Version = 1

// A Status is how an item stands.
type Status string

// The states of an item.
const (
	OK      Status = "ok"      // works
	Limited Status = "limited" // works in part, or can't be seen from here
	Missing Status = "missing" // doesn't work
)

// An Item is one thing that a host has or has not.
type Item struct {
	Group    string `json:"group"`
	Name     string `json:"name"`
	Status   Status `json:"status"`
	Required bool   `json:"required,omitempty"` // without it no container runs
	Value    string `json:"value,omitempty"`    // what was found
	Means    string `json:"means"`              // to the user
	Mend     string `json:"mend,omitempty"`     // command or line of configuration
	Source   string `json:"source"`             // where the fact comes from
}

// A Report is what [Diagnose] found.
type Report struct {
	Version int    `json:"version"`
	Runs    bool   `json:"runs"` // containers can run for this user
	User    uint32 `json:"user"`
	Summary string `json:"summary"`
	Items   []Item `json:"items"`
}

// Groups of items, in the order of a report.
const (
	groupKernel   = "Kernel"
	groupLimits   = "Limits"
	groupUsers    = "User namespaces"
	groupStorage  = "Storage"
	groupNetwork  = "Network"
	groupSecurity = "Security"
	groupPrograms = "Programs"
)

// Diagnose judges what was seen.
func Diagnose(f *Facts) *Report {
	d := &diagnosis{f: f, root: f.Host.UID == 0}
	for _, part := range []func(){d.kernel, d.limits, d.users, d.storage, d.network, d.security, d.programs} {
		part()
	}
	r := &Report{Version: Version, User: f.Host.UID, Items: d.items}
	r.conclude()
	return r
}

// conclude says in one line what the items amount to.
func (r *Report) conclude() {
	var bad []string
	count := map[Status]int{}
	for _, i := range r.Items {
		count[i.Status]++
		if i.Required && i.Status == Missing {
			bad = append(bad, i.Name)
		}
	}
	who := "root"
	if r.User != 0 {
		who = fmt.Sprintf("user %d", r.User)
	}
	if r.Runs = len(bad) == 0; !r.Runs {
		r.Summary = fmt.Sprintf("containers can't run for %s: %s missing", who, strings.Join(bad, ", "))
		return
	}
	r.Summary = fmt.Sprintf("containers can run for %s: %d ok, %d limited, %d missing", who, count[OK], count[Limited], count[Missing])
}

// diagnosis is a report under construction.
type diagnosis struct {
	f     *Facts
	root  bool
	items []Item
}

// yes adds an item that is as it should be.
func (d *diagnosis) yes(group, name, value, means, source string) {
	d.items = append(d.items, Item{Group: group, Name: name, Status: OK, Value: value, Means: means, Source: source})
}

// no adds one that isn't.
func (d *diagnosis) no(i Item) { d.items = append(d.items, i) }

// need adds an item that is there or missing, and must be there.
func (d *diagnosis) need(ok bool, i Item) {
	i.Required = true
	if i.Status = Missing; ok {
		i.Status, i.Mend = OK, ""
	}
	d.items = append(d.items, i)
}

// sudo is how a user who isn't root gets a command of root's done.
func (d *diagnosis) sudo(command string) string {
	if d.root {
		return command
	}
	return "sudo " + command
}

// install is the command that installs a package, in the words of the distribution. Names are those of Debian, then of those
// others that have another one: "uidmap", "fedora=shadow-utils".
func (d *diagnosis) install(debian string, others ...string) string {
	family := map[string]string{
		"debian": "apt install ", "ubuntu": "apt install ", "fedora": "dnf install ", "rhel": "dnf install ", "arch": "pacman -S ",
		"alpine": "apk add ", "suse": "zypper install ", "opensuse": "zypper install ",
	}
	// The most particular name comes first (ID, then ID_LIKE): what is known of a family holds for those that are like it.
	for _, id := range d.f.Distribution {
		command, ok := family[id]
		if !ok {
			continue
		}
		name := debian
		for _, o := range others {
			if of, n, _ := strings.Cut(o, "="); of == id {
				name = n
			}
		}
		return d.sudo(command + name)
	}
	return "install the package " + debian
}

// sysctl is the command that sets a kernel setting for now and for good.
func (d *diagnosis) sysctl(setting string) string {
	name, _, _ := strings.Cut(setting, "=")
	tee := d.sudo("tee /etc/sysctl.d/90-glassbox-" + name[strings.LastIndexByte(name, '.')+1:] + ".conf")
	return "echo " + setting + " | " + tee + " && " + d.sudo("sysctl -w "+setting)
}

// commandLine says how an option comes to the kernel's command line.
func (d *diagnosis) commandLine(option string) string {
	return "add " + option + " to GRUB_CMDLINE_LINUX in /etc/default/grub, then " + d.sudo("update-grub") +
		" (or grub2-mkconfig -o /boot/grub2/grub.cfg) and reboot"
}

func (d *diagnosis) kernel() {
	f := d.f
	update := "boot Linux 5.14 or newer: update the distribution's kernel package and reboot"
	d.need(f.Host.Kernel.AtLeast(5, 14), Item{
		Group: groupKernel, Name: "kernel", Value: f.Host.Kernel.Release + " " + f.Host.Arch, Mend: update, Source: "uname(2)",
		Means: "glassbox needs Linux 5.14 or newer.",
	})
	for _, c := range []struct{ name, since, means string }{
		{"new mount API", "5.2", "Mounts are made whole and then put in place; there is no other way in glassbox."},
		{"openat2", "5.6", "Paths in a container are opened without leaving it by a symbolic link."},
		{"clone3", "5.3", "Containers are cloned with it."},
		{"pidfd", "5.3", "A signal can't reach another process that got the same number."},
		{"close_range", "5.9", "No open file of the host leaks into a container."},
		{"mount_setattr", "5.12", "Mounts become read-only with all that is below them, and take ids of their own."},
	} {
		err := f.Calls[c.name]
		i := Item{
			Group: groupKernel, Name: c.name, Means: c.means, Mend: update, Source: "the call itself, with arguments that do nothing",
			Value: "Linux " + c.since,
		}
		if err != "" {
			i.Value = err
			if f.Host.Kernel.AtLeast(5, 14) {
				i.Mend = "a filter forbids the call here: allow it in the seccomp profile of what glassbox runs in (docker run --security-opt " +
					"seccomp=unconfined)"
			}
		}
		d.need(err == "", i)
	}
	d.version("clone into cgroup", 5, 7, "A container is born with its limits (cgroup v2).",
		"Containers join their cgroup by themselves, before anything else.")
	d.version("idmapped mounts", 5, 12, "Volumes can show other owners; file systems must support it, most do since 5.19.",
		"idmap mounts are refused.")
	switch {
	case f.Lowerdir == "ok":
		d.yes(groupKernel, "overlay lowerdir+", "Linux 6.5", "Images may have 500 layers, below any path.",
			"fsconfig(2) on an overlay that is never mounted")
	// Where it can't be tried the version has to do.
	case f.Lowerdir == "" && f.Host.Kernel.AtLeast(6, 8):
		d.yes(groupKernel, "overlay lowerdir+", "Linux 6.5", "Images may have 500 layers, below any path.", "kernel version")
	default:
		d.no(Item{
			Group: groupKernel, Name: "overlay lowerdir+", Status: Limited, Value: f.Lowerdir, Source: "fsconfig(2), kernel version",
			Mend:  "boot Linux 6.8 or newer",
			Means: "Images of more than about 190 layers are refused, and --rootfs paths with a colon or comma.",
		})
	}
	switch f.Clock {
	case "":
		d.yes(groupKernel, "clock", "synchronised", "Certificates of registries and times in logs are right.", "adjtimex(2)")
	default:
		d.no(Item{
			Group: groupKernel, Name: "clock", Status: Limited, Value: f.Clock, Mend: d.sudo("timedatectl set-ntp true"), Source: "adjtimex(2)",
			Means: "If the clock is wrong, registries' certificates don't hold and times in logs mislead.",
		})
	}
}

// version adds an item that the kernel's version decides.
func (d *diagnosis) version(name string, major, minor int, means, cost string) {
	i := Item{
		Group: groupKernel, Name: name, Status: OK, Value: fmt.Sprintf("Linux %d.%d", major, minor), Means: means,
		Source: "kernel version",
	}
	if !d.f.Host.Kernel.AtLeast(major, minor) {
		i.Status, i.Value, i.Means, i.Mend = Missing, "", cost, fmt.Sprintf("boot Linux %d.%d or newer", major, minor)
	}
	d.no(i)
}

func (d *diagnosis) users() {
	f := d.f
	i := Item{
		Group: groupUsers, Name: "user namespaces", Source: "/proc/sys/user/max_user_namespaces, an attempt",
		Means: "The root of a container can be nobody on the host.", Value: "max " + f.Sysctl["user.max_user_namespaces"],
	}
	max := f.Sysctl["user.max_user_namespaces"]
	i.Status = OK
	bad := func(status Status, value, mend, source string) {
		i.Status, i.Value, i.Mend, i.Source = status, value, mend, source
		i.Means = "Containers with a user namespace are refused; an ordinary user can run none."
	}
	switch {
	case max == "0" || max == "":
		bad(Missing, "user.max_user_namespaces="+max, d.sysctl("user.max_user_namespaces=15000"), "/proc/sys/user/max_user_namespaces")
		if max == "" {
			i.Mend = "boot a kernel with CONFIG_USER_NS=y"
		}
	// Before the attempt's own error, which is a bare EPERM for all of these.
	case !d.root && f.Sysctl["kernel.unprivileged_userns_clone"] == "0":
		bad(Missing, "kernel.unprivileged_userns_clone=0", d.sysctl("kernel.unprivileged_userns_clone=1"),
			"/proc/sys/kernel/unprivileged_userns_clone (Debian)")
	case !d.root && f.Sysctl["kernel.apparmor_restrict_unprivileged_userns"] == "1":
		bad(Missing, "kernel.apparmor_restrict_unprivileged_userns=1", d.sysctl("kernel.apparmor_restrict_unprivileged_userns=0"),
			"/proc/sys/kernel/apparmor_restrict_unprivileged_userns (Ubuntu)")
	case f.UserNS != "":
		bad(Missing, "clone: "+f.UserNS, "allow CLONE_NEWUSER in the seccomp profile or security module of what glassbox runs in",
			"clone(2) with CLONE_NEWUSER")
	}
	i.Required = !d.root
	d.no(i)

	if d.root {
		d.yes(groupUsers, "ids to map", "any", "Root maps any ids that its own user namespace has; /etc/subuid isn't asked.",
			"user_namespaces(7)")
		return
	}
	who := f.User
	if who == "" {
		who = fmt.Sprint(f.Host.UID)
	}
	if f.SubUID > 0 && f.SubGID > 0 {
		d.yes(groupUsers, "ids to map", fmt.Sprintf("%d users, %d groups", f.SubUID, f.SubGID),
			"Images may have files and programs of several users.", "/etc/subuid, /etc/subgid")
	} else {
		d.no(Item{
			Group: groupUsers, Name: "ids to map", Status: Limited, Value: "the own id only", Source: "/etc/subuid, /etc/subgid",
			Means: "A container has one user, root, who is you; images whose programs change user don't work.",
			Mend:  d.sudo("usermod --add-subuids 100000-165535 --add-subgids 100000-165535 " + who),
		})
	}
	if f.IDMapPrograms {
		d.yes(groupUsers, "newuidmap", "privileged", "The ids of /etc/subuid can be used.", "PATH, setuid bit or capability of the file")
		return
	}
	d.no(Item{
		Group: groupUsers, Name: "newuidmap", Status: Limited, Value: "newuidmap or newgidmap missing, or without privilege",
		Source: "PATH, setuid bit or capability of the file",
		Means:  "The ids of /etc/subuid can't be used: one user per container.",
		Mend: d.install("uidmap", "fedora=shadow-utils", "rhel=shadow-utils", "arch=shadow", "alpine=shadow-uidmap", "suse=shadow",
			"opensuse=shadow"),
	})
}

func (d *diagnosis) storage() {
	f := d.f
	switch state := f.Features["overlay"]; state {
	case builtIn, loaded, loadable:
		i := Item{
			Group: groupStorage, Name: "overlayfs", Status: OK, Required: true, Value: state,
			Means: "Containers share the layers of images.", Source: "/proc/filesystems, modules.dep",
		}
		if state == loadable && !d.root {
			i.Status, i.Value = Missing, "not loaded"
			i.Means, i.Mend = "Images can't be mounted: only root can load the module.",
				"echo overlay | sudo tee /etc/modules-load.d/overlay.conf && sudo modprobe overlay"
		}
		d.no(i)
	default:
		d.no(Item{
			Group: groupStorage, Name: "overlayfs", Status: Missing, Required: true, Means: "Images can't be mounted.",
			Source: "/proc/filesystems, modules.dep",
			Mend:   d.sudo("modprobe overlay") + " (kernels have it as CONFIG_OVERLAY_FS)",
		})
	}
	if !d.root || f.Host.UserNS {
		d.version("rootless overlayfs", 5, 11, "Layers can be mounted without root.", "Layers can't be mounted without root.")
		d.items[len(d.items)-1].Group = groupStorage
	}
	d.place("root directory", "--root", &f.Root, true)
	d.place("state directory", "--state", &f.State, false)
	d.yes(groupStorage, "zstd and gzip", "built in", "Layers in either form are unpacked without programs of others.", "glassbox itself")
}

// place judges a directory of glassbox's. Upper is set where overlay needs it for the writable layers of containers.
func (d *diagnosis) place(name, flag string, p *Place, upper bool) {
	i := Item{
		Group: groupStorage, Name: name, Status: OK, Value: p.describe(), Means: "Images and the writable layers of containers are there.",
		Source: "statfs(2), access(2) of the directory or its nearest parent that exists",
	}
	if !upper {
		i.Means = "Locks, sockets and leases of addresses are there, until reboot."
	}
	other := "name another directory with " + flag
	if !d.root && !upper && d.f.Booted {
		other = "sudo loginctl enable-linger " + d.f.User + ", or " + other
	}
	bad := func(s Status, means, mend string) { i.Status, i.Means, i.Mend = s, means, mend }
	switch {
	case p.Type == "":
		bad(Missing, "It can't be read: "+p.Err+".", other)
		i.Required = true
	case p.ReadOnly || !p.Writable:
		bad(Missing, "Nothing can be written there.", other)
		i.Required = true
	case upper && slices.Contains([]string{"overlay", "nfs", "cifs", "vfat", "exfat", "fuse", "9p", "ecryptfs"}, p.Type):
		bad(Limited, "An overlay can't have its writable layer on "+p.Type+" (some versions of it may).",
			"name a directory on ext4, xfs, btrfs or tmpfs with "+flag)
	case upper && p.NoExec:
		bad(Limited, "It is mounted noexec: what a container writes can't be executed.", d.sudo("mount -o remount,exec "+p.Path))
	case upper && p.Free < 1<<30:
		bad(Limited, "Less than 1 GiB is free: images may not fit.", "glassbox rmi what isn't needed, or "+other)
	case upper && p.Type == "tmpfs":
		bad(Limited, "Images and containers are in memory, and gone at reboot.", other)
	}
	d.no(i)
}

func (p *Place) describe() string {
	var words []string
	if p.Type != "" {
		words = append(words, p.Path, p.Type, fmt.Sprintf("%.1f GiB free", float64(p.Free)/(1<<30)))
	}
	for _, w := range []struct {
		on   bool
		word string
	}{{p.ReadOnly, "read-only"}, {p.NoExec, "noexec"}, {p.Type != "" && !p.Writable, "not writable for you"}} {
		if w.on {
			words = append(words, w.word)
		}
	}
	return strings.Join(words, ", ")
}

func (d *diagnosis) network() {
	f := d.f
	if !d.root {
		d.no(Item{
			Group: groupNetwork, Name: "bridge network", Status: Limited, Source: "uid", Value: "needs root", Mend: "sudo glassbox run …",
			Means: "Only root can plug containers into a bridge and publish ports; --network none and host work without.",
		})
	}
	i := Item{
		Group: groupNetwork, Name: "nftables", Status: OK,
		Means:  "Addresses are translated and ports published, without the nft or iptables program.",
		Source: "a question to nf_tables over netlink", Value: "answers",
	}
	switch {
	case f.NFTables == "":
	case f.NFTables == unasked && f.Features["nf_tables"] != loadable:
		i.Status, i.Value, i.Means, i.Mend = Limited, "can't be seen",
			"Asking might load the module, so it wasn't asked; the first start on the default network will.", d.sudo("modprobe nf_tables")
	case f.NFTables == unasked:
		i.Value, i.Source = "loadable", "modules.dep; not asked, because that would load the module"
	// Who may not ask is told what the kernel's lists say.
	case f.NFTables == denied && f.Features["nf_tables"] != "" && f.Features["nf_tables"] != absent:
		i.Value, i.Source = f.Features["nf_tables"], "/proc/config.gz, /sys/module, modules.dep; the kernel answers only root"
	case f.NFTables == denied:
		i.Status, i.Value, i.Means, i.Mend = Limited, "can't be seen", "The kernel answers only who may administer the network.",
			"run glassbox doctor as root"
	default:
		i.Status, i.Value, i.Means, i.Mend = Missing, f.NFTables, "Bridge networks and published ports fail; --network none and host work.",
			d.sudo("modprobe nf_tables")+" (kernels have it as CONFIG_NF_TABLES)"
	}
	d.no(i)
	for _, m := range []struct{ name, config, cost string }{
		{"bridge", "CONFIG_BRIDGE", "The default network fails; --network none and host work."},
		{"veth", "CONFIG_VETH", "Containers on the default network can't be plugged in; --network none and host work."},
	} {
		i := Item{Group: groupNetwork, Name: m.name, Value: f.Features[m.name], Source: "/proc/config.gz, /sys/module, modules.dep"}
		switch f.Features[m.name] {
		case builtIn, loaded, loadable:
			i.Status, i.Means = OK, "Containers can be plugged into the default network."
		case absent:
			i.Status, i.Means, i.Mend = Missing, m.cost, "boot a kernel with "+m.config
		default:
			i.Status, i.Value, i.Means, i.Mend = Limited, "can't be seen", "Whether the kernel has it shows at the first start.",
				d.sudo("modprobe "+m.name)
		}
		d.no(i)
	}
	switch {
	case f.BridgeErr != "":
		d.no(Item{
			Group: groupNetwork, Name: "default bridge", Status: Missing, Value: f.BridgeErr,
			Means: "The default network fails; --network none and host work.",
			Mend:  "see the error", Source: "routes, addresses and resolvers over netlink",
		})
	default:
		d.yes(groupNetwork, "default bridge", f.Bridge.Link+" "+f.Bridge.IPv4().Prefix.String(),
			"This subnet is free: no route, address or name server of the host is in it.", "routes, addresses and resolvers over netlink")
		value := "on (the host is a router)"
		if f.Sysctl["net.ipv4.ip_forward"] != "1" {
			value = "off"
			if len(f.Bridge.Opened) > 0 {
				value = "off; glassbox will forward on " + strings.Join(f.Bridge.Opened, ", ") + " only"
			}
		}
		d.yes(groupNetwork, "forwarding", value,
			"Nothing has to be set: glassbox switches forwarding on per interface where the host is no router, and guards those.",
			"RTM_GETNETCONF, net.ipv4.ip_forward")
	}
	d.firewalls()
	switch f.Sysctl["net.bridge.bridge-nf-call-iptables"] {
	case "1":
		d.no(Item{
			Group: groupNetwork, Name: "br_netfilter", Status: Limited, Value: "net.bridge.bridge-nf-call-iptables=1",
			Source: "/proc/sys/net/bridge",
			Means: "Traffic between containers of one bridge passes through the host's firewall, too: slower, and a forward policy of drop " +
				"stops it. Kubernetes wants it so.",
			Mend: d.sysctl("net.bridge.bridge-nf-call-iptables=0"),
		})
	default:
		d.yes(groupNetwork, "br_netfilter", "off", "Containers of one bridge reach each other without the host's firewall.",
			"/proc/sys/net/bridge")
	}
}

func (d *diagnosis) security() {
	f := d.f
	d.need(f.Host.Seccomp, Item{
		Group: groupSecurity, Name: "seccomp", Means: "System calls that ordinary programs don't need are refused.", Source: "prctl(2)",
		Mend: "boot a kernel with CONFIG_SECCOMP_FILTER=y",
	})
	if slices.Contains(strings.Fields(f.Sysctl["kernel.seccomp.actions_avail"]), "user_notif") {
		d.yes(groupSecurity, "seccomp notify", "user_notif", "Profiles may hand system calls to a listener.",
			"/proc/sys/kernel/seccomp/actions_avail")
	} else {
		d.no(Item{
			Group: groupSecurity, Name: "seccomp notify", Status: Missing, Means: "Profiles with SCMP_ACT_NOTIFY are refused.",
			Mend:   "boot Linux 5.5 or newer",
			Source: "/proc/sys/kernel/seccomp/actions_avail",
		})
	}
	if slices.ContainsFunc(f.Host.LSM, func(m string) bool { return m == "apparmor" || m == "selinux" }) {
		d.yes(groupSecurity, "security modules", strings.Join(f.Host.LSM, " "), "A container can have a profile or label besides all else.",
			"/sys/kernel/security/lsm")
	} else {
		d.no(Item{
			Group: groupSecurity, Name: "security modules", Status: Limited, Value: strings.Join(f.Host.LSM, " "),
			Source: "/sys/kernel/security/lsm, /proc/self/attr",
			Means:  "Neither AppArmor nor SELinux: containers are held by namespaces, capabilities and seccomp alone, and profiles are refused.",
			Mend:   d.commandLine("lsm=landlock,lockdown,yama,integrity,apparmor,bpf") + ", with a kernel that has it",
		})
	}
	if !d.root {
		return
	}
	missing := map[string]string{}
	var names []string
	for _, c := range capabilities() {
		if f.Host.Caps&(1<<c.bit) == 0 {
			names = append(names, c.name)
			missing[c.name] = c.cost
		}
	}
	i := Item{
		Group: groupSecurity, Name: "capabilities", Status: OK, Value: "all that containers use",
		Means: "Nothing that a container may ask for is out of reach.", Source: "/proc/self/status CapEff",
	}
	if len(names) > 0 {
		i.Status, i.Value = Limited, "missing: "+strings.Join(names, " ")
		var costs []string
		for _, n := range names {
			if c := missing[n]; c != "" && !slices.Contains(costs, c) {
				costs = append(costs, c)
			}
		}
		i.Means = "Root here isn't all of root. " +
			strings.Join(append(costs, "A container that asks for one of these is refused or goes without."), " ")
		i.Mend = "give them to what glassbox runs in: docker run --cap-add " + strings.TrimPrefix(names[0], "CAP_") +
			" …, or CapabilityBoundingSet= of the unit"
		if slices.Contains(names, "CAP_SYS_ADMIN") {
			i.Status, i.Required = Missing, true
		}
	}
	d.no(i)
}

// capability is one that containers or glassbox itself use as root.
type capability struct {
	bit  uint
	name string
	cost string
}

// capabilities are those of an ordinary container, and what glassbox needs itself; capability.h has the numbers.
func capabilities() []capability {
	return []capability{
		{0, "CAP_CHOWN", ""},
		{1, "CAP_DAC_OVERRIDE", ""},
		{3, "CAP_FOWNER", ""},
		{4, "CAP_FSETID", ""},
		{5, "CAP_KILL", ""},
		{6, "CAP_SETGID", ""},
		{7, "CAP_SETUID", ""},
		{8, "CAP_SETPCAP", ""},
		{10, "CAP_NET_BIND_SERVICE", ""},
		{12, "CAP_NET_ADMIN", "Bridge networks can't be made."},
		{13, "CAP_NET_RAW", ""},
		{18, "CAP_SYS_CHROOT", ""},
		{19, "CAP_SYS_PTRACE", ""},
		{21, "CAP_SYS_ADMIN", "Nothing can be mounted: no container runs."},
		{24, "CAP_SYS_RESOURCE", "Hard limits (--ulimit) can't be raised above glassbox's own, nor --oom-score-adj lowered."},
		{27, "CAP_MKNOD", "The devices of a container can't be made."},
		{29, "CAP_AUDIT_WRITE", ""},
		{31, "CAP_SETFCAP", "Layers whose programs have file capabilities can't be unpacked."},
	}
}

func (d *diagnosis) programs() {
	f := d.f
	d.need(f.Runtime != "", Item{
		Group: groupPrograms, Name: "glassbox-runtime", Value: f.Runtime, Source: "--runtime, beside glassbox, PATH",
		Means: "It is the parent of each container.",
		Mend:  "put glassbox-runtime beside glassbox (" + d.sudo("make install") + ") or name it with --runtime",
	})
	if d.root {
		d.yes(groupPrograms, "glassbox run", "as root", "All of glassbox can be used.", "uid")
	} else {
		d.no(Item{
			Group: groupPrograms, Name: "glassbox run", Status: Limited, Value: "needs root", Mend: "sudo glassbox run …", Source: "uid",
			Means: "As an ordinary user glassbox explains and pulls; containers run from bundles only (glassbox-runtime run).",
		})
	}
	program := func(name, have, cost, mend string) {
		if where := f.Programs[name]; where != "" {
			d.yes(groupPrograms, name, where, have, "PATH")
			return
		}
		d.no(Item{Group: groupPrograms, Name: name, Status: Missing, Means: cost, Mend: mend, Source: "PATH"})
	}
	program("criu", "glassbox-runtime checkpoint and restore can use it.", "Containers can't be checkpointed and restored.", d.install("criu"))
	if !d.root {
		program("pasta", "A network for an ordinary user's processes; glassbox doesn't use it yet.",
			"No program here gives an ordinary user's processes a network of their own; glassbox doesn't use it yet.", d.install("passt"))
	}
}
