package doctor

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"glassbox/cgroup"
	"glassbox/host"
	"glassbox/network"
	"glassbox/systemd"
	"glassbox/wire"

	"golang.org/x/sys/unix"
)

// Options say where to look.
type Options struct {
	Root, State string // directories
	Runtime     string // program; "" if it wasn't found
}

// Facts are what was seen.
type Facts struct {
	Host         *host.Facts
	User         string   // name, "" if it isn't known
	Distribution []string // ID and ID_LIKE of os-release(5)
	// Calls has what a system call said that does nothing: "" where it is there.
	Calls    map[string]string
	Lowerdir string            // "ok", "" if it can't be tried, else the error
	Clock    string            // "" if it is right, as far as the kernel knows
	Sysctl   map[string]string // by name with dots; absent if the kernel doesn't have it
	UserNS   string            // error of an attempt to make a user namespace

	Booted             bool // with systemd
	Systemd            systemd.Facts
	SystemdErr         string
	Delegation         *cgroup.Delegation
	ManagerControllers []string        // of the user's systemd manager
	Controllers        map[string]bool // /proc/cgroups: enabled
	ReadOnlyCgroups    []string        // mount points
	NoSwapAccount      bool

	SubUID, SubGID uint64 // number of ids granted
	IDMapPrograms  bool   // newuidmap and newgidmap, with what privilege they need

	Features  map[string]string // of the kernel: builtIn, loaded, loadable, absent, or "" where it can't be seen
	NFTables  string            // "" if it answers; denied, unasked, or an error
	Bridge    network.Network
	BridgeErr string
	Blocking  []string // chains of other firewalls that would drop what is forwarded for the default network
	Unseen    []string // programs of firewalls that are in use and not installed
	MendErr   string   // why the networks that run can't be let through again

	Root, State Place
	Runtime     string
	Programs    map[string]string
}

// A Place is a directory, or the nearest parent that exists.
type Place struct {
	Path, Type                 string
	Err                        string
	Free                       uint64
	ReadOnly, NoExec, Writable bool
}

// How the kernel has a feature.
const (
	builtIn  = "built in"
	loaded   = "loaded"
	loadable = "loadable"
	absent   = "not in this kernel"
)

// What nf_tables said, besides errors.
const (
	denied  = "denied"
	unasked = "unasked"
)

// Probe looks. What is tried ends with the attempt, and a question that would load a module isn't asked. One thing it does, as every
// command does: it lets networks with containers through firewalls that have forgotten them, as whether that can be done is the question.
func Probe(o Options) (*Facts, error) {
	h, err := host.Probe()
	if err != nil {
		return nil, err
	}
	f := &Facts{Host: h, Runtime: o.Runtime, Sysctl: map[string]string{}, Features: map[string]string{}, Programs: map[string]string{}}
	answers := make(chan answer, 1) // asked first, because another process has to answer
	if f.Booted = systemd.Booted(); f.Booted {
		go func() {
			m, err := systemd.Probe(systemd.User())
			answers <- answer{m, err}
		}()
	}
	for _, name := range []string{
		"user.max_user_namespaces", "kernel.unprivileged_userns_clone", "kernel.apparmor_restrict_unprivileged_userns",
		"net.ipv4.ip_forward", "net.bridge.bridge-nf-call-iptables", "kernel.seccomp.actions_avail",
	} {
		if text := readLine("/proc/sys/" + strings.ReplaceAll(name, ".", "/")); text != "" {
			f.Sysctl[name] = text
		}
	}
	f.Calls = calls()
	f.Distribution = distribution("/etc/os-release")
	f.features()
	f.Lowerdir = f.lowerdir()
	f.Clock = clock()
	f.UserNS = userNamespace()
	f.cgroups()
	f.ids()
	f.wires(o)
	f.Root, f.State = place(o.Root), place(o.State)
	for _, name := range []string{"criu", "pasta"} {
		f.Programs[name], _ = lookPath(name)
	}
	f.manager(answers)
	return f, nil
}

// answer is what systemd said.
type answer struct {
	facts *systemd.Facts
	err   error
}

// manager takes the answer of systemd's manager, if one comes soon.
func (f *Facts) manager(answers <-chan answer) {
	if !f.Booted {
		return
	}
	select {
	case a := <-answers:
		if a.err != nil {
			f.SystemdErr = a.err.Error()
			return
		}
		f.Systemd = *a.facts
	case <-time.After(50 * time.Millisecond):
		f.SystemdErr = "no answer within 50 ms"
		return
	}
	for _, h := range f.Host.Cgroup.Hierarchies {
		if h.V2 && f.Systemd.User && f.Host.Cgroup.Mode == host.CgroupV2 {
			f.ManagerControllers = strings.Fields(readLine(filepath.Join(h.Mount, f.Systemd.Cgroup, "cgroup.controllers")))
		}
	}
}

// calls tries the system calls without which no container starts.
func calls() map[string]string {
	// Each with arguments that no kernel accepts: what is there says EINVAL, EFAULT or EBADF.
	_, _, clone := unix.Syscall(unix.SYS_CLONE3, 0, 0, 0)
	// Impossible flags and size are refused before the kernel looks at privileges.
	_, _, setattr := unix.Syscall6(unix.SYS_MOUNT_SETATTR, 0, 0, 1<<30, 0, 0, 0)
	tree, treeErr := unix.OpenTree(-1, "none", 0)
	if treeErr == nil {
		unix.Close(tree)
	}
	_, openat2 := unix.Openat2(-1, "none", &unix.OpenHow{})
	pidfd, pidfdErr := unix.PidfdOpen(os.Getpid(), 0)
	if pidfdErr == nil {
		unix.Close(pidfd)
	}
	said := map[string]string{}
	for name, err := range map[string]error{
		"new mount API": treeErr, "openat2": openat2, "clone3": clone, "pidfd": pidfdErr,
		"mount_setattr": setattr,
		"close_range":   unix.CloseRange(1<<31, 1<<31, 0), // no descriptor has this number
	} {
		// EPERM is what the filters of container engines say to calls that they don't know.
		if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
			said[name] = err.Error()
		}
	}
	return said
}

// lowerdir gives one layer to an overlay that is never mounted. Only root can, and only if that doesn't load a module.
func (f *Facts) lowerdir() string {
	if state := f.Features["overlay"]; f.Host.UID != 0 || state != loaded && state != builtIn {
		return ""
	}
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	if err := unix.FsconfigSetString(fd, "lowerdir+", "/"); err != nil {
		return err.Error()
	}
	return "ok"
}

func clock() string {
	// Before this program was written: a board without a clock's battery, mostly, and then no certificate is valid yet.
	if now := time.Now(); now.Year() < 2025 {
		return "it is set to " + now.Format(time.DateOnly)
	}
	var t unix.Timex
	const timeError = 5 // TIME_ERROR of adjtimex(2)
	if state, err := unix.Adjtimex(&t); err == nil && state == timeError {
		return "not synchronised, as far as the kernel knows"
	}
	return ""
}

// userNamespace tries to make one: a child is cloned into it, and ends because there is no such program.
func userNamespace() string {
	_, err := syscall.ForkExec("/proc/self/no-such-program", []string{"none"},
		&syscall.ProcAttr{Sys: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}})
	if err == nil || errors.Is(err, unix.ENOENT) {
		return ""
	}
	return err.Error()
}

func (f *Facts) cgroups() {
	if d, ok := cgroup.Delegated(f.Host.Cgroup); ok {
		f.Delegation = &d
	}
	for _, h := range f.Host.Cgroup.Hierarchies {
		if unix.Access(h.Mount, unix.W_OK) != nil {
			f.ReadOnlyCgroups = append(f.ReadOnlyCgroups, h.Mount)
		}
	}
	f.Controllers = map[string]bool{}
	text, _ := os.ReadFile("/proc/cgroups")
	for line := range strings.Lines(string(text)) {
		if w := strings.Fields(line); len(w) == 4 && !strings.HasPrefix(line, "#") {
			f.Controllers[w[0]] = w[3] == "1"
		}
	}
	for _, word := range strings.Fields(readLine("/proc/cmdline")) {
		// Of a word that is given twice the last one counts.
		f.NoSwapAccount = word == "swapaccount=0" || f.NoSwapAccount && word != "swapaccount=1"
	}
}

// ids finds the subordinate ids of the user. Other sources than the two files (nsswitch, "subid:") aren't asked.
func (f *Facts) ids() {
	id := strconv.Itoa(int(f.Host.UID))
	passwd, _ := os.ReadFile("/etc/passwd")
	for line := range strings.Lines(string(passwd)) {
		if w := strings.Split(line, ":"); len(w) > 2 && w[2] == id {
			f.User = w[0]
			break
		}
	}
	subuid, _ := os.ReadFile("/etc/subuid")
	subgid, _ := os.ReadFile("/etc/subgid")
	f.SubUID, f.SubGID = granted(string(subuid), f.User, id), granted(string(subgid), f.User, id)
	f.IDMapPrograms = privileged("newuidmap") && privileged("newgidmap")
}

// granted counts the ids of a user in the text of /etc/subuid: lines "name or id:first:count".
func granted(text, name, id string) (n uint64) {
	for line := range strings.Lines(text) {
		w := strings.Split(strings.TrimSpace(line), ":")
		if len(w) != 3 || w[0] != id && (name == "" || w[0] != name) {
			continue
		}
		if count, err := strconv.ParseUint(w[2], 10, 32); err == nil {
			n += count
		}
	}
	return n
}

// privileged reports whether a program is there and becomes more than its caller: setuid, or with capabilities of its file.
func privileged(name string) bool {
	file, err := lookPath(name)
	if err != nil {
		return false
	}
	info, err := os.Stat(file)
	if err != nil {
		return false
	}
	// Debian's have the bit, Fedora's have file capabilities.
	if info.Mode()&os.ModeSetuid != 0 {
		return true
	}
	n, err := unix.Getxattr(file, "security.capability", nil)
	return err == nil && n > 0
}

// lookPath looks where root's programs are, too: an ordinary user's PATH often lacks those directories.
func lookPath(name string) (string, error) {
	if file, err := exec.LookPath(name); err == nil {
		return file, nil
	}
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		if file, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return file, nil
		}
	}
	return "", exec.ErrNotFound
}

func (f *Facts) wires(o Options) {
	_, noModules := os.Stat("/proc/modules")
	switch state := f.Features["nf_tables"]; {
	case f.Host.Caps&(1<<unix.CAP_NET_ADMIN) == 0:
		f.NFTables = denied
	case state == loadable || state == "" && noModules == nil: // the question would load the module, or might
		f.NFTables = unasked
	default:
		rs, err := wire.ReadForeign(unix.NF_INET_FORWARD)
		rs.Close()
		if errors.Is(err, unix.EPERM) {
			f.NFTables = denied
		} else if err != nil {
			f.NFTables = err.Error()
		}
	}
	var err error
	networks := network.Store{Config: filepath.Join(o.Root, "network"), State: filepath.Join(o.State, "network")}
	if f.Bridge, err = networks.Likely(network.Bridge); err != nil {
		f.BridgeErr = err.Error()
	}
	for _, op := range f.Bridge.Beside {
		f.Blocking = append(f.Blocking, "chain "+op.Chain+" of "+op.Where())
	}
	for _, program := range wire.Legacy(true) {
		if _, err := wire.LegacyChain(program, "FORWARD"); errors.Is(err, wire.ErrNoProgram) {
			f.Unseen = append(f.Unseen, program)
		}
	}
	if f.NFTables == "" || len(f.Unseen) > 0 {
		// Containers that run are let through again where another firewall has forgotten it.
		if err := networks.Mend(); err != nil {
			f.MendErr = err.Error()
		}
	}
}

// features finds out how the kernel has what may be a module of it. In a container neither the modules nor the configuration
// need be in sight; then only what is loaded shows.
func (f *Facts) features() {
	options := map[string]string{
		"overlay": "CONFIG_OVERLAY_FS", "nf_tables": "CONFIG_NF_TABLES", "bridge": "CONFIG_BRIDGE",
		"veth": "CONFIG_VETH",
	}
	config := kernelConfig(f.Host.Kernel.Release)
	dir := "/lib/modules/" + f.Host.Kernel.Release
	dep, _ := os.ReadFile(dir + "/modules.dep")
	in, _ := os.ReadFile(dir + "/modules.builtin")
	filesystems, _ := os.ReadFile("/proc/filesystems")
	for name, option := range options {
		_, err := os.Stat("/sys/module/" + name)
		f.Features[name] = feature(name, err == nil || strings.Contains(string(filesystems), "\t"+name+"\n"), config[option], string(in),
			string(dep))
	}
}

// feature judges: is it there now, what does the configuration say (y, m, n or nothing), is it in the lists of modules.
func feature(name string, present bool, config, builtin, dep string) string {
	switch {
	case config == "y" || strings.Contains(builtin, "/"+name+".ko"):
		return builtIn
	case present:
		return loaded
	case strings.Contains(dep, "/"+name+".ko"):
		return loadable
	// Only where both lists could be read is what is in neither not there.
	case config == "n" || builtin != "" && dep != "":
		return absent
	}
	return ""
}

// kernelConfig reads the kernel's configuration, if it is there; options that aren't set are "n".
func kernelConfig(release string) map[string]string {
	var r io.Reader
	if file, err := os.Open("/proc/config.gz"); err == nil {
		defer file.Close()
		if r, err = gzip.NewReader(file); err != nil {
			return nil
		}
	} else if file, err := os.Open("/boot/config-" + release); err == nil {
		defer file.Close()
		r = file
	} else {
		return nil
	}
	return parseConfig(r)
}

func parseConfig(r io.Reader) map[string]string {
	config := map[string]string{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if name, ok := strings.CutSuffix(lines.Text(), " is not set"); ok {
			config[strings.TrimPrefix(name, "# ")] = "n"
		} else if name, value, ok := strings.Cut(lines.Text(), "="); ok {
			config[name] = value
		}
	}
	return config
}

func place(dir string) Place {
	p := Place{Path: dir}
	var s unix.Statfs_t
	for {
		err := unix.Statfs(p.Path, &s)
		if err == nil {
			break
		}
		// What isn't there yet will be made below the next that is.
		if p.Err = err.Error(); !errors.Is(err, unix.ENOENT) || p.Path == "/" || p.Path == "." {
			return p
		}
		p.Path = filepath.Dir(p.Path)
	}
	p.Err = ""
	// Without what a file system keeps for root (mke2fs(8), -m).
	p.Free = s.Bavail * uint64(s.Bsize)
	p.ReadOnly, p.NoExec = s.Flags&unix.ST_RDONLY != 0, s.Flags&unix.ST_NOEXEC != 0
	p.Writable = unix.Faccessat(unix.AT_FDCWD, p.Path, unix.W_OK|unix.X_OK, unix.AT_EACCESS) == nil
	p.Type = fileSystem(int64(s.Type))
	return p
}

func fileSystem(magic int64) string {
	names := map[int64]string{
		unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.TMPFS_MAGIC: "tmpfs",
		unix.OVERLAYFS_SUPER_MAGIC: "overlay", unix.NFS_SUPER_MAGIC: "nfs", unix.F2FS_SUPER_MAGIC: "f2fs", unix.FUSE_SUPER_MAGIC: "fuse",
		unix.MSDOS_SUPER_MAGIC: "vfat", unix.EXFAT_SUPER_MAGIC: "exfat", unix.V9FS_MAGIC: "9p", unix.ECRYPTFS_SUPER_MAGIC: "ecryptfs",
		unix.SMB2_SUPER_MAGIC: "cifs", 0x2fc12fc1: "zfs", 0xca451a4e: "bcachefs",
	}
	if name, ok := names[magic&0xffffffff]; ok {
		return name
	}
	return fmt.Sprintf("type %#x", magic&0xffffffff)
}

func distribution(file string) (ids []string) {
	text, _ := os.ReadFile(file)
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch value = strings.Trim(value, `"'`); name {
		case "ID":
			ids = append([]string{value}, ids...)
		case "ID_LIKE":
			ids = append(ids, strings.Fields(value)...)
		}
	}
	return ids
}

func readLine(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}
