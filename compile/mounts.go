package compile

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"glassbox/host"
	"glassbox/plan"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func (c *container) rootfs() error {
	s := c.Spec
	flags := []string{"rec", "private"}
	switch s.Linux.RootfsPropagation {
	case "", "private", "rprivate", "shared", "rshared", "unbindable", "runbindable":
	case "slave", "rslave":
		flags[1] = "slave"
	default:
		return fmt.Errorf("/linux/rootfsPropagation: unknown value %q", s.Linux.RootfsPropagation)
	}
	c.ahead = c.countAhead()
	becomes := c.users == ownUsers || c.users == joinedUsers // root of a user namespace, to which file systems are to belong
	if !becomes {
		if err := c.makeAhead(); err != nil {
			return err
		}
	}
	target := c.Mountpoint
	if !c.chroot {
		c.add(plan.Child, plan.Rootfs, &plan.Mount{Target: "/", Flags: flags}, "/linux/rootfsPropagation",
			"Mounts made from here on stay in the container's mount namespace.")
	}
	switch {
	case c.chroot: // the parent has mounted the root
		if err := c.sources(); err != nil {
			return err
		}
	case c.Overlay != nil:
		if err := c.sources(); err != nil {
			return err
		}
		c.become() // overlayfs goes on with the ids of who mounts it
		c.add(plan.Child, plan.Rootfs, c.Overlay, "/root", "The image's layers are stacked; writes go to the container's own upper directory, the image stays as it is.")
	default:
		source, err := c.hostPath(s.Root.Path, "/root/path")
		if err != nil {
			return err
		}
		if target == "" {
			target = source
		}
		c.add(plan.Child, plan.Rootfs, &plan.Mount{Source: source, Target: target, Flags: []string{"bind", "rec"}}, "/root/path",
			"pivot_root wants a mount: the directory is bound to itself or to an empty directory.")
		if err := c.sources(); err != nil {
			return err
		}
	}
	ahead := becomes && c.ahead > 0
	switch {
	case c.hooked():
		c.add(plan.Child, plan.Rootfs, &plan.RootDir{Path: target}, "/root", "Names of the container are looked up below it from here on; hooks want to see it before it becomes the root.")
	case ahead:
		c.add(plan.Child, plan.Rootfs, &plan.RootDir{Path: target}, "/root", "The way to it may be closed to root of the container.")
	default:
		c.pivot(target)
	}
	if c.Overlay == nil {
		c.become()
	}
	if ahead {
		if err := c.makeAhead(); err != nil {
			return err
		}
		if !c.hooked() {
			c.pivot(".")
		}
	}
	return nil
}

// ownTypes are file systems that are made of nothing of the host's: their source is a mere word.
var ownTypes = []string{"proc", "sysfs", "tmpfs", "ramfs", "devpts", "devtmpfs", "mqueue", "cgroup", "cgroup2"}

// needsHost reports whether a mount can only be made while the root is still the host's: the clone of a host's mount, a file system of
// the host's files or devices, or in a user namespace procfs and sysfs.
func (c *container) needsHost(m specs.Mount) bool {
	switch {
	case slices.Contains(m.Options, "remount"):
		return false
	case isBind(m):
		return c.childSources()
	}
	return !slices.Contains(ownTypes, m.Type) || c.confined() && (m.Type == "proc" || m.Type == "sysfs")
}

// countAhead counts the mounts up to the last one that needs the host. To keep to the order of the configuration all of them are made
// then; those after it are made where they belong.
func (c *container) countAhead() int {
	for i := len(c.Spec.Mounts); c.InOrder && i > 0; i-- {
		if c.needsHost(c.Spec.Mounts[i-1]) {
			return i
		}
	}
	return 0
}

// makeAhead makes mounts that will be attached once the root has changed. Nothing is private yet, so the clone of a shared mount of
// the host can still be of its peer group.
func (c *container) makeAhead() error {
	for i, m := range c.Spec.Mounts[:c.ahead] {
		o := parseOptions(m.Options)
		switch {
		case isBind(m) && !o.remount && !idMapped(m) && c.childSources():
			if err := c.bindSource(plan.Child, i, m); err != nil {
				return err
			}
		case c.madeAhead(i):
			made := *c.fileSystem(i, m, o)
			made.Target, made.Save, made.KeepMode, made.Propagation = "", mountName(i), false, nil
			reason := "Mounts are made in the order of the configuration, and a later one needs the host in sight. This one gets its place when the root has changed."
			if c.needsHost(m) {
				reason = "It needs the host in sight, so it is made now, and gets its place when the root has changed."
			}
			c.add(plan.Child, plan.Sources, &made, fmt.Sprintf("/mounts/%d", i), reason)
		}
	}
	return nil
}

// madeAhead reports whether a mount is a file system that makeAhead makes.
func (c *container) madeAhead(i int) bool {
	if i >= c.ahead {
		return false
	}
	m := c.Spec.Mounts[i]
	return !isBind(m) && !slices.Contains(m.Options, "remount") && c.substitute(m) == "" && !c.fileSystem(i, m, parseOptions(m.Options)).Classic()
}

func (c *container) pivot(root string) {
	if c.chroot {
		c.add(plan.Child, plan.Rootfs, &plan.Chroot{Root: root}, "/root", "The process, and its children, see no more than what is below. Root finds the way back: without a mount namespace there is no other means.")
		return
	}
	if c.NoPivot {
		c.add(plan.Child, plan.Rootfs, &plan.MoveRoot{Root: root}, "/root", "A ramdisk can't be left by pivot_root: the new root covers the old one.")
		return
	}
	c.add(plan.Child, plan.Rootfs, &plan.PivotRoot{Root: root}, "/root", "The new root replaces the old one, which is detached: unlike after chroot, no way leads back.")
}

// rootPropagation is what the root becomes in the end: private and slave it is already, and what is mounted below a shared mount
// would be shared, too.
func (c *container) rootPropagation() string {
	switch p := c.Spec.Linux.RootfsPropagation; p {
	case "shared", "rshared", "unbindable", "runbindable":
		return p
	}
	return ""
}

// hostPath makes a path of the host absolute.
func (c *container) hostPath(p, ptr string) (string, error) {
	switch {
	case p == "":
		return "", fmt.Errorf("%s: missing", ptr)
	case strings.HasPrefix(p, "/"):
		return p, nil
	case c.Bundle == "":
		return "", fmt.Errorf("%s: %q is not an absolute path", ptr, p)
	}
	return path.Join(c.Bundle, p), nil
}

func mountName(i int) string { return fmt.Sprintf("mount:%d", i) }

func isBind(m specs.Mount) bool {
	return m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}

// mountOptions is a mount's option list, sorted by what takes it.
type mountOptions struct {
	set, clear  []string // attributes of the mount
	recSet      []string // attributes of the mount and those below it
	recClear    []string
	super       []string // flags of the file system that fsconfig(2) knows: sync dirsync lazytime mand
	classic     []string // flags of the file system that only mount(2) knows: silent iversion
	data        []string // for the file system
	propagation []string // in order, as written
	remount     bool
	copyUp      bool
}

// opposites are the words that take back another word: of two that exclude each other the later one counts. Access times have
// three modes, of which relatime is the kernel's own choice; whoever doesn't want one of the others gets that.
var opposites = map[string]string{
	"rw": "ro", "suid": "nosuid", "dev": "nodev", "exec": "noexec", "diratime": "nodiratime", "symfollow": "nosymfollow",
	"async": "sync", "nolazytime": "lazytime", "nomand": "mand", "noiversion": "iversion", "loud": "silent",
}

var (
	attributeWords   = []string{"ro", "nosuid", "nodev", "noexec", "nodiratime", "nosymfollow", "noatime", "relatime", "strictatime"}
	atimeWords       = []string{"noatime", "relatime", "strictatime"}
	atimeDefaults    = []string{"atime", "norelatime", "nostrictatime"}
	superWords       = []string{"sync", "dirsync", "lazytime", "mand"}
	classicWords     = []string{"silent", "iversion"}
	propagationWords = []string{"private", "slave", "shared", "unbindable"}
)

func without(list []string, words ...string) []string {
	return slices.DeleteFunc(list, func(s string) bool { return slices.Contains(words, s) })
}

// attribute puts a word of a mount's attributes into the lists of those to set and those to clear, if it is one.
func attribute(word string, set, clear *[]string) bool {
	if slices.Contains(atimeDefaults, word) {
		word = "relatime"
	}
	other := opposites[word]
	switch {
	case slices.Contains(atimeWords, word):
		*set = append(without(*set, atimeWords...), word)
	case slices.Contains(attributeWords, word):
		*set, *clear = append(without(*set, word), word), without(*clear, word)
	case slices.Contains(attributeWords, other):
		*set, *clear = without(*set, other), append(without(*clear, other), other)
	default:
		return false
	}
	return true
}

// own are the attributes that a mount without others below it gets.
func (o mountOptions) own() []string {
	set, clear := slices.Clone(o.set), slices.Clone(o.clear)
	for _, word := range o.recSet {
		attribute(word, &set, &clear)
	}
	return without(set, o.recClear...)
}

func parseOptions(options []string) mountOptions {
	var o mountOptions
	for _, opt := range options {
		plain, rec := strings.CutPrefix(opt, "r")
		other := opposites[opt]
		switch {
		case opt == "bind" || opt == "rbind" || opt == "defaults" || opt == "" || opt == "idmap" || opt == "ridmap":
		case forTable(opt):
		case opt == "remount":
			o.remount = true
		case opt == "tmpcopyup":
			o.copyUp = true
		case slices.Contains(superWords, opt):
			o.super = append(without(o.super, opt), opt)
		case slices.Contains(classicWords, opt):
			o.classic = append(without(o.classic, opt), opt)
		case slices.Contains(superWords, other):
			o.super = without(o.super, other)
		case slices.Contains(classicWords, other):
			o.classic = without(o.classic, other)
		case slices.Contains(propagationWords, opt), rec && slices.Contains(propagationWords, plain):
			o.propagation = append(o.propagation, opt)
		case attribute(opt, &o.set, &o.clear), rec && attribute(plain, &o.recSet, &o.recClear):
		default:
			o.data = append(o.data, opt)
		}
	}
	return o
}

// forTable reports whether a word is for who reads /etc/fstab, and means nothing for a mount (fstab(5), mount(8)).
func forTable(word string) bool {
	return word == "nofail" || word == "_netdev" || strings.HasPrefix(word, "x-") || strings.HasPrefix(word, "comment=")
}

// unnamed are the attributes that a bind mount loses because its options name others (see Input.NamedFlags). Access times stay as they
// are: mount(2) preserves them in a remount that doesn't name them, and that is what runc makes.
func (o mountOptions) unnamed() []string {
	if len(o.set)+len(o.clear)+len(o.super)+len(o.classic) == 0 {
		return nil
	}
	return without([]string{"ro", "nosuid", "nodev", "noexec", "nosymfollow"}, slices.Concat(o.set, o.clear)...)
}

// sealed is a mount that becomes read-only when everything is in it.
type sealed struct{ from, target, ptr string }

func (c *container) mounts() error {
	for i, m := range c.Spec.Mounts {
		ptr := fmt.Sprintf("/mounts/%d", i)
		if m.Destination == "" {
			return fmt.Errorf("%s/destination: missing", ptr)
		}
		if !strings.HasPrefix(m.Destination, "/") {
			c.warnings = append(c.warnings, fmt.Sprintf("%s/destination: %q is not an absolute path: it is taken as one, which is deprecated", ptr, m.Destination))
		}
		dest := path.Clean("/" + m.Destination)
		o := parseOptions(m.Options)
		if dest == "/" && !o.remount {
			return fmt.Errorf("%s/destination: the root itself can't be a mount's target", ptr)
		}
		if err := c.refuseProc(dest, m, ptr); err != nil {
			return err
		}
		if err := c.checkOptions(m, o, ptr); err != nil {
			return err
		}
		switch {
		case o.remount:
			r := &plan.Remount{Target: dest, Set: o.set, Clear: o.clear, RecSet: o.recSet, RecClear: o.recClear, Propagation: o.propagation, Options: slices.Concat(o.super, o.data)}
			c.add(plan.Child, plan.Mounts, r, ptr, "What is mounted there is changed, as far as the options say.")
		case c.taken(i, m, dest, o, ptr):
		case isBind(m):
			c.bind(i, m, dest, o, ptr)
		case m.Type == "cgroup" || m.Type == "cgroup2":
			if err := c.cgroupMount(i, m, dest, o, ptr); err != nil {
				return err
			}
		default:
			c.newMount(i, m, dest, o, ptr)
		}
	}
	return nil
}

// checkOptions refuses what would be without effect.
func (c *container) checkOptions(m specs.Mount, o mountOptions, ptr string) error {
	if k := c.Facts.Kernel; slices.Contains(o.super, "mand") && (k.Major > 5 || k.Major == 5 && k.Minor >= 15) {
		return fmt.Errorf("%s/options: \"mand\": Linux has no mandatory locks since 5.15", ptr)
	}
	if o.copyUp && m.Type != "tmpfs" {
		return fmt.Errorf("%s/options: \"tmpcopyup\" is for tmpfs", ptr)
	}
	if o.copyUp && len(o.classic) > 0 {
		return fmt.Errorf("%s/options: \"tmpcopyup\" is not possible with silent or iversion", ptr)
	}
	if o.copyUp && (c.users == joinedUsers || c.users == ownUsers && !c.privileged()) {
		return fmt.Errorf("%s/options: \"tmpcopyup\" is not possible in a user namespace that exists already, nor for an ordinary user", ptr)
	}
	if isBind(m) {
		if super := slices.Concat(o.super, without(slices.Clone(o.classic), "silent")); len(super) > 0 {
			if !c.NamedFlags {
				return fmt.Errorf("%s/options: %q belongs to the file system as a whole, a bind mount can't change it", ptr, super[0])
			}
			c.warnings = append(c.warnings,
				fmt.Sprintf("%s/options: %q belongs to the file system as a whole: the bind mount has it as its source has", ptr, super[0]))
		}
		if len(o.data) > 0 {
			return fmt.Errorf("%s/options: %q means nothing for a bind mount", ptr, o.data[0])
		}
		return nil
	}
	if o.remount {
		if len(o.classic) > 0 {
			return fmt.Errorf("%s/options: %q can't be changed later", ptr, o.classic[0])
		}
		return nil
	}
	if m.Type == "" || m.Type == "none" {
		return fmt.Errorf("%s/type: missing: a mount that isn't a bind mount (options bind, rbind) needs the type of a file system", ptr)
	}
	return nil
}

// bind attaches the mount that was cloned from the host.
//
// The clone is of the same peer group as its source where that is shared. Without a word about it, it leaves the group. Words
// count in order; if none of them speaks for the mounts below, these follow the host's, but not the other way around.
func (c *container) bind(i int, m specs.Mount, dest string, o mountOptions, ptr string) {
	if dest == "/dev" {
		c.ownDev, c.hostDev, c.devMount = false, true, ""
	}
	words := o.propagation
	switch {
	case len(words) > 0:
		if slices.Contains(m.Options, "rbind") && !slices.ContainsFunc(words, func(w string) bool { return strings.HasPrefix(w, "r") || w == "shared" }) {
			words = slices.Insert(slices.Clone(words), 0, "rslave")
		}
	case strings.HasSuffix(c.Spec.Linux.RootfsPropagation, "slave"):
		words = []string{"rslave"}
	case strings.HasSuffix(c.Spec.Linux.RootfsPropagation, "shared"):
		words = []string{"rshared"}
	default:
		words = []string{"rprivate"}
	}
	reason := fmt.Sprintf("The host's %s is seen at %s.", m.Source, dest)
	if slices.Contains(o.set, "ro") || slices.Contains(o.recSet, "ro") {
		reason = fmt.Sprintf("The host's %s is seen at %s, where it can only be read.", m.Source, dest)
	}
	var unlocked []string
	if c.NamedFlags {
		unlocked = o.unnamed()
	}
	if c.Mounts[dest].CopyUp {
		c.sendUnder(i, mountName(i), dest, ptr, false, "A volume begins with what the image has there.")
	}
	c.add(plan.Child, plan.Mounts, &plan.MoveMount{
		From: mountName(i), Target: dest, Create: "like", Set: o.set, Clear: o.clear, RecSet: o.recSet, RecClear: o.recClear, Propagation: words,
		Unlocked: unlocked, Replace: c.Overlay != nil && slices.Contains(c.Replace, dest),
	}, ptr, reason)
}

// fileSystem is a mount that is no clone, and not of cgroups of v1.
func (c *container) fileSystem(i int, m specs.Mount, o mountOptions) *plan.FSMount {
	dest := path.Clean("/" + m.Destination)
	fm := &plan.FSMount{
		Type: m.Type, Source: m.Source, Options: slices.Concat(o.super, o.data), Attrs: o.own(), Target: dest,
		Propagation: o.propagation, Flags: o.classic,
	}
	switch {
	case m.Type == "proc" && dest == "/proc":
		fm.Save = "proc"
	case m.Type == "cgroup" || m.Type == "cgroup2":
		return c.cgroupTop(i, m, o)
	}
	// What is still to be filled becomes read-only in the end.
	if (m.Type == "tmpfs" || dest == "/dev") && slices.Contains(fm.Attrs, "ro") {
		fm.Attrs, fm.Save = without(fm.Attrs, "ro"), mountName(i)
	}
	if m.Type == "tmpfs" && dest == "/dev" && fm.Save == "" {
		fm.Save = "dev" // devices are made in it, whatever its name comes to stand for
	}
	if m.Type == "tmpfs" && len(fm.Flags) == 0 && !slices.ContainsFunc(o.data, func(s string) bool { return strings.HasPrefix(s, "mode=") }) {
		fm.KeepMode = true
	}
	if strings.HasPrefix(m.Source, "/") && slices.Contains(fm.Attrs, "ro") {
		fm.Options = append(fm.Options, "ro") // a device that can't be written to can't be mounted otherwise
	}
	// Only what glassbox itself adds may be missing.
	fm.Optional = m.Type == "mqueue" && c.origin(fmt.Sprintf("/mounts/%d", i)) == "default"
	if label := c.Spec.Linux.MountLabel; label != "" {
		switch m.Type {
		case "proc", "sysfs":
		case "mqueue":
			fm.Label = label
		default:
			if len(fm.Flags) > 0 {
				label = `"` + label + `"` // the comma in it
			}
			fm.Options = append(fm.Options, "context="+label)
		}
	}
	return fm
}

// newMount makes a file system, unless it is made already, and attaches it.
func (c *container) newMount(i int, m specs.Mount, dest string, o mountOptions, ptr string) {
	fm := c.fileSystem(i, m, o)
	switch {
	case fm.Save == "proc" && c.madeAhead(i):
		c.procfs = mountName(i)
	case fm.Save == "proc":
		c.procfs = "proc"
	case dest == "/dev":
		c.ownDev, c.hostDev, c.devMount = m.Type == "tmpfs", m.Type == "devtmpfs", ""
		if c.ownDev {
			c.devMount = fm.Save
			if c.madeAhead(i) || o.copyUp {
				c.devMount = mountName(i)
			}
		}
	}
	if fm.Save == mountName(i) {
		c.seal = append(c.seal, sealed{fm.Save, dest, ptr})
	}
	if o.copyUp {
		c.copyUp(i, fm, dest, ptr)
		return
	}
	c.put(i, fm, ptr, mountReason(m.Type, dest))
}

// put gives a file system its place: in one step with making it, or if it is made already by attaching it.
func (c *container) put(i int, fm *plan.FSMount, ptr, reason string) {
	if !c.madeAhead(i) {
		c.add(plan.Child, plan.Mounts, fm, ptr, reason)
		return
	}
	c.add(plan.Child, plan.Mounts, &plan.MoveMount{
		From: mountName(i), Target: fm.Target, Create: "dir", Propagation: fm.Propagation, NoSymlinks: fm.Type == "proc" || fm.Type == "sysfs",
		Keep: fm.Save != "" || c.procfs == mountName(i), KeepMode: fm.KeepMode,
	}, ptr, reason)
}

// copyUp fills a tmpfs with what it will cover. The child can't copy, so the parent does, while the tmpfs is still nowhere.
func (c *container) copyUp(i int, fm *plan.FSMount, dest, ptr string) {
	name := mountName(i)
	attach := &plan.MoveMount{From: name, Target: dest, Create: "dir", Keep: fm.Save != "", Propagation: fm.Propagation}
	fm.Target, fm.Save, fm.KeepMode, fm.Propagation = "", name, false, nil
	if !c.madeAhead(i) {
		c.add(plan.Child, plan.Mounts, fm, ptr, mountReason(fm.Type, dest))
	}
	c.sendUnder(i, name, dest, ptr, true, "What is there now is to be found in the new directory, too.")
	c.add(plan.Child, plan.Mounts, attach, ptr, "The copy covers the directory.")
}

// sendUnder has the parent copy what is at a mount's place into the mount, which is attached nowhere yet, and waits for it. A mount that the child
// made (own) is sent, too.
func (c *container) sendUnder(i int, name, dest, ptr string, own bool, reason string) {
	under := underName(i)
	c.add(plan.Child, plan.Mounts, &plan.OpenDir{Path: dest, Else: name, Save: under}, ptr, reason)
	c.add(plan.Child, plan.Mounts, &plan.SendFD{From: under}, ptr, "The parent copies.")
	if own {
		c.add(plan.Child, plan.Mounts, &plan.SendFD{From: name, Keep: true}, ptr, "The parent copies.")
	}
	c.add(plan.Child, plan.Mounts, &plan.Await{Name: under}, ptr, "The parent copies.")
}

// underName is what stands for the directory that a mount will cover.
func underName(i int) string { return fmt.Sprintf("under:%d", i) }

// copies writes the host's part of that.
func (c *container) copies() {
	for i, m := range c.Spec.Mounts {
		o := parseOptions(m.Options)
		what := "tmpfs"
		switch {
		case isBind(m) && c.Mounts[path.Clean("/"+m.Destination)].CopyUp:
			what = "volume"
		case !o.copyUp || o.remount || isBind(m):
			continue
		}
		ptr := fmt.Sprintf("/mounts/%d", i)
		name, under := mountName(i), underName(i)
		mode := slices.ContainsFunc(o.data, func(s string) bool { return strings.HasPrefix(s, "mode=") })
		c.add(plan.Host, plan.Mounts, &plan.RecvFD{Save: under}, ptr, "The directory that the "+what+" will cover.")
		if what == "tmpfs" {
			c.add(plan.Host, plan.Mounts, &plan.RecvFD{Save: name}, ptr, "The tmpfs, which is not in the container yet.")
		}
		up := &plan.CopyUp{From: under, To: name, KeepMode: mode}
		if c.users == ownUsers {
			m := c.idMap()
			up.UID, up.GID = m.UID[0].Host, m.GID[0].Host
		}
		c.add(plan.Host, plan.Mounts, up, ptr, "The "+what+" begins with what the image has there.")
		c.add(plan.Host, plan.Mounts, &plan.Release{Name: under}, ptr, "The copy is complete.")
	}
}

// refuseProc keeps mounts out of /proc: a fake file there would be taken for the kernel's by the container's own programs
// and, in other engines, by the engine (CVE-2019-16884). The files that lxcfs offers are the exception that runc makes, too.
func (c *container) refuseProc(dest string, m specs.Mount, ptr string) error {
	inside, ok := strings.CutPrefix(dest, "/proc/")
	if dest == "/proc" && m.Type == "proc" {
		return nil
	}
	if dest == "/proc" && isBind(m) {
		return nil // of a procfs, as debugging tools want: OpenTree makes sure of it
	}
	if !ok && dest != "/proc" {
		return nil
	}
	if ok && slices.Contains([]string{"cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo", "net/dev", "sys/kernel/ns_last_pid", "sys/crypto/fips_enabled"}, inside) {
		return nil
	}
	return fmt.Errorf("%s/destination: %s: mounts over /proc are refused, because what reads the kernel's files there would be deceived", ptr, dest)
}

func mountReason(kind, dest string) string {
	switch kind {
	case "proc":
		return "Process information of the container's own PID namespace."
	case "sysfs":
		return "The kernel's view of devices, and the network devices of the container's own namespace."
	case "devpts":
		return "Terminals of the container's own."
	case "mqueue":
		return "POSIX message queues of the container's own IPC namespace."
	case "tmpfs":
		switch dest {
		case "/dev":
			return "An empty directory in memory: the devices in it are those that this plan makes."
		case "/dev/shm":
			return "POSIX shared memory, limited in size."
		}
		return "A directory in memory, gone with the container."
	}
	return "A new " + kind + " file system."
}

// cgroupMount shows the container its own cgroups: one mount on v2; on v1 a tmpfs with one mount per hierarchy.
//
// Without a cgroup namespace a v2 mount shows the tree from the host's root, as the paths in /proc/PID/cgroup do. The mounts of v1
// hierarchies are then binds of the container's own directory.
func (c *container) cgroupMount(i int, m specs.Mount, dest string, o mountOptions, ptr string) error {
	f := c.Facts.Cgroup
	attrs := o.own()
	top := c.cgroupTop(i, m, o)
	if len(o.super)+len(o.classic) > 0 {
		return fmt.Errorf("%s/options: %q means nothing for cgroups", ptr, slices.Concat(o.super, o.classic)[0])
	}
	switch {
	case top.Type == "cgroup2":
		c.put(i, top, ptr, "The container sees its own limits and use; its cgroup namespace hides the rest of the tree.")
		return nil
	case f.Mode != host.CgroupV1 && f.Mode != host.CgroupHybrid:
		return fmt.Errorf("%s/type: this host has no cgroups mounted", ptr)
	case len(o.data) > 0:
		return fmt.Errorf("%s/options: %q: the hierarchies of cgroup v1 are mounted as the host has them", ptr, o.data[0])
	}
	c.put(i, top, ptr, "With cgroup v1 each controller has a mount of its own; this directory holds them.")
	for _, h := range f.Hierarchies {
		if h.V2 || len(h.Controllers) == 0 {
			continue
		}
		name := h.Mount[strings.LastIndexByte(h.Mount, '/')+1:]
		reason := "The container sees its own limits and use of " + strings.Join(h.Controllers, " and ") + "."
		if c.mountsCgroups() {
			var options []string
			for _, ctl := range h.Controllers {
				if strings.HasPrefix(ctl, "name=") {
					options = append(options, "none", ctl)
				} else {
					options = append(options, ctl)
				}
			}
			c.add(plan.Child, plan.Mounts, &plan.FSMount{Type: "cgroup", Source: "cgroup", Options: options, Attrs: attrs, Target: dest + "/" + name}, ptr, reason)
		} else {
			c.add(plan.Child, plan.Mounts, &plan.MoveMount{From: cgroupSource(ptr, h), Target: dest + "/" + name, Create: "dir", Set: attrs, Propagation: []string{"private"}}, ptr, reason)
		}
		for _, ctl := range h.Controllers {
			if ctl != name && !strings.HasPrefix(ctl, "name=") {
				c.add(plan.Child, plan.Mounts, &plan.Symlink{Target: name, Path: dest + "/" + ctl}, ptr, "Programs look for the controller under its own name, too.")
			}
		}
	}
	if top.Save != "" {
		holder := top.Save
		if c.madeAhead(i) {
			holder = mountName(i)
		}
		c.add(plan.Child, plan.Mounts, &plan.Remount{Target: dest, From: holder, Set: []string{"ro"}}, ptr, "A container must not change its own limits.")
	}
	return nil
}

// cgroupTop is the mount at the place of a cgroup mount: on v2 all of it, on v1 the directory for the hierarchies, which becomes
// read-only when they are in it.
func (c *container) cgroupTop(i int, m specs.Mount, o mountOptions) *plan.FSMount {
	dest := path.Clean("/" + m.Destination)
	if c.Facts.Cgroup.Mode == host.CgroupV2 || m.Type == "cgroup2" {
		return &plan.FSMount{Type: "cgroup2", Source: "cgroup", Attrs: o.own(), Options: o.data, Target: dest, Propagation: o.propagation}
	}
	top := &plan.FSMount{Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=755"}, Attrs: o.own(), Target: dest, Propagation: o.propagation}
	if label := c.Spec.Linux.MountLabel; label != "" {
		top.Options = append(top.Options, "context="+label)
	}
	if slices.Contains(top.Attrs, "ro") {
		top.Attrs, top.Save = without(top.Attrs, "ro"), fmt.Sprintf("cgroups:/mounts/%d", i)
	}
	return top
}

// mountsCgroups reports whether a cgroup namespace makes the container's own cgroups the roots of what it can mount.
func (c *container) mountsCgroups() bool {
	if c.confined() {
		return c.owns("cgroup")
	}
	return c.cgroupNamespace()
}

func (c *container) cgroupNamespace() bool {
	return slices.ContainsFunc(c.Spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.CgroupNamespace })
}

func cgroupSource(ptr string, h host.Hierarchy) string {
	return "cgroups:" + ptr + ":" + h.Controllers[0]
}

// bindSource takes the source of a bind mount from the host.
func (c *container) bindSource(lane plan.Lane, i int, m specs.Mount) error {
	ptr := fmt.Sprintf("/mounts/%d", i)
	source, err := c.hostPath(m.Source, ptr+"/source")
	if err != nil {
		return err
	}
	t := &plan.OpenTree{
		Path: source, Recursive: slices.Contains(m.Options, "rbind"), Save: mountName(i),
		MakeDir: lane == plan.Host && c.Mounts[path.Clean("/"+m.Destination)].MakeSource,
	}
	if path.Clean("/"+m.Destination) == "/proc" {
		t.FSType = "proc"
	}
	c.add(lane, plan.Sources, t, ptr, sourceReason)
	return nil
}

// cgroupSources takes the container's own cgroups from the host, where no cgroup namespace makes them the root of the tree. The parent
// does it, or where systemd makes the cgroups around the child, the child.
func (c *container) cgroupSources(lane plan.Lane) {
	if lane == plan.Child == (c.unit != "") && !c.confined() {
		c.ownCgroups(lane)
	}
}

// ownCgroups takes them. In a user namespace the child does it, in its own mount namespace.
func (c *container) ownCgroups(lane plan.Lane) {
	for i, m := range c.Spec.Mounts {
		ptr := fmt.Sprintf("/mounts/%d", i)
		if isBind(m) || m.Type != "cgroup" || c.Facts.Cgroup.Mode == host.CgroupV2 || c.mountsCgroups() {
			continue
		}
		for _, h := range c.Facts.Cgroup.Hierarchies {
			if h.V2 || len(h.Controllers) == 0 {
				continue
			}
			dir, ok := c.cgroup.Paths[h.Controllers[0]]
			if !ok {
				dir = path.Join(h.Mount, h.Own)
			}
			c.add(lane, plan.Sources, &plan.OpenTree{Path: dir, Save: cgroupSource(ptr, h)}, ptr, "Without a cgroup namespace the container would see the cgroups of the whole host; it gets its own.")
		}
	}
}

// null is the descriptor of a verified null device, for masking.
func (c *container) null() string {
	for _, s := range c.steps {
		switch n := s.Op.(type) {
		case *plan.Mknod:
			if n.Save == "null" {
				return "null"
			}
		case *plan.MoveMount:
			if n.Keep && n.From == deviceName("/dev/null") {
				return n.From
			}
		}
	}
	return ""
}

// paths hides paths and makes others read-only, each once: a name that is given twice would get a second mount over the first.
func (c *container) paths() error {
	null, named := c.null(), map[string]bool{}
	for i, p := range c.Spec.Linux.MaskedPaths {
		ptr := fmt.Sprintf("/linux/maskedPaths/%d", i)
		if !strings.HasPrefix(p, "/") {
			return fmt.Errorf("%s: %q is not an absolute path", ptr, p)
		}
		if name := path.Clean(p); !named[name] {
			named[name] = true
			c.add(plan.Child, plan.Mounts, &plan.MaskPath{Path: p, Null: null, Label: c.Spec.Linux.MountLabel}, ptr,
				"It tells about the host, or lets it be changed.")
		}
	}
	clear(named)
	for i, p := range c.Spec.Linux.ReadonlyPaths {
		ptr := fmt.Sprintf("/linux/readonlyPaths/%d", i)
		if !strings.HasPrefix(p, "/") {
			return fmt.Errorf("%s: %q is not an absolute path", ptr, p)
		}
		if name := path.Clean(p); !named[name] {
			named[name] = true
			c.add(plan.Child, plan.Mounts, &plan.ReadonlyPath{Path: p}, ptr, "It holds settings of the whole host.")
		}
	}
	return nil
}
