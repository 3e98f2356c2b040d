package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"glassbox/compile"
	"glassbox/host"
	"glassbox/plan"
)

// Checkpoints are the work of the program criu (criu.org), which writes the processes of a container into image files and makes
// them anew. It knows mounts, namespaces and cgroups; what it can't know is which mounts show parts of the host, and what belongs
// to the container's first process from outside. That is told on its command line, and noted for restore in two files beside
// criu's own:
//
//	descriptors.json   what descriptors 0, 1 and 2 were, as runc writes it
//	glassbox.json      the mounts from the host
const (
	descriptorsFile = "descriptors.json"
	imageFile       = "glassbox.json"
)

// image is what is noted of a checkpoint.
type image struct {
	Mounts     []hostMount    `json:"mounts"`
	Namespaces map[string]int `json:"namespaces"` // those of others: kind → descriptor at which criu finds it in restore
}

// hostMount is a mount of a container that shows a part of the host.
type hostMount struct {
	Mountpoint string `json:"mountpoint"` // in the container, without symbolic links
	Target     string `json:"target"`     // the mount of the configuration that it belongs to
	Below      string `json:"below,omitempty"`
}

// CRIUFlags are the flags that checkpoint and restore have in common.
type CRIUFlags struct {
	ImagePath      string
	WorkPath       string // for logs and statistics; default: ImagePath
	TCPEstablished bool
	ExtUnixSk      bool
	ShellJob       bool
	FileLocks      bool
	AutoDedup      bool
	EmptyNS        []string
	ManageCgroups  string // soft, full, strict or ignore
	LazyPages      bool   // memory comes when it is used, from a criu that serves it

	images, work *os.File // the directories, while criu works
}

// criu finds the program.
func criu() (string, error) {
	if os.Geteuid() != 0 {
		return "", errors.New("checkpoints need root: criu can't do its work as an ordinary user")
	}
	path, err := exec.LookPath("criu")
	if err != nil {
		return "", errors.New("criu is not installed: checkpoint and restore are its work. The package is named criu in the distributions " +
			"that have it; the program must be in PATH")
	}
	return filepath.Abs(path)
}

// options makes what checkpoint and restore tell criu in common. The directories must be open.
func (f *CRIUFlags) options(log string, spec *specs.Spec) (message, error) {
	var m message
	m.number(optImages, uint64(f.images.Fd()))
	m.number(optWork, uint64(f.work.Fd()))
	m.string(optLogFile, log)
	m.number(optLogLevel, 4)
	// Told at each stage, and answered: the only way to run hooks in the middle of its work.
	m.flag(optNotify, true)
	// A terminal whose other end is outside is given to us in restore.
	m.flag(optOrphanPTS, true)
	m.flag(optTCPEstablished, f.TCPEstablished)
	m.flag(optExtUnixSk, f.ExtUnixSk)
	m.flag(optShellJob, f.ShellJob)
	m.flag(optFileLocks, f.FileLocks)
	m.flag(optDedup, f.AutoDedup)
	m.flag(optLazyPages, f.LazyPages)
	for _, ns := range f.EmptyNS {
		if ns != "network" {
			return nil, fmt.Errorf("--empty-ns: %q: criu can leave out the content of network namespaces (network) only", ns)
		}
	}
	// The content of the network namespace is left out, because the hooks make it: the other ends of its links are the
	// host's.
	if f.empty(spec) {
		m.number(optEmptyNS, unix.CLONE_NEWNET)
	}
	mode, ok := map[string]uint64{"": 3, "ignore": 0, "soft": 3, "full": 4, "strict": 5}[f.ManageCgroups] // criu_cg_mode
	if !ok {
		return nil, fmt.Errorf("--manage-cgroups-mode: %q is not one of soft, full, strict, ignore", f.ManageCgroups)
	}
	m.number(optManageCgroups, mode)
	// Criu locks a network namespace with the program iptables-restore unless it is told to speak to nftables itself.
	if _, err := exec.LookPath("iptables-restore"); err != nil {
		m.number(optNetworkLock, 2)
	}
	// Administrators of runc know these two: what the file says counts more than flags.
	file, named := spec.Annotations["org.criu.config"]
	if !named {
		file = "/etc/criu/runc.conf"
	}
	if _, err := os.Stat(file); err == nil {
		m.string(optConfigFile, file)
	} else if named && file != "" {
		return nil, fmt.Errorf("/annotations/org.criu.config: %w", err)
	}
	return m, nil
}

// empty reports whether what is in the container's network namespace is left out: if the flag says so, or if hooks make it. The other ends
// of its links are the host's then, and the hooks make them again in restore.
func (f *CRIUFlags) empty(spec *specs.Spec) bool {
	h := spec.Hooks
	//lint:ignore SA1019 prestart is deprecated, and still in use
	return len(f.EmptyNS) > 0 || h != nil && len(h.Prestart)+len(h.CreateRuntime) > 0
}

// open makes the paths absolute, and opens the directories, which are made if there are none.
func (f *CRIUFlags) open() error {
	if f.ImagePath == "" {
		return errors.New("--image-path: missing")
	}
	if f.WorkPath == "" {
		f.WorkPath = f.ImagePath
	}
	for _, d := range []struct {
		flag string
		path *string
		file **os.File
	}{{"--image-path", &f.ImagePath, &f.images}, {"--work-path", &f.WorkPath, &f.work}} {
		abs, err := filepath.Abs(*d.path)
		if err == nil {
			*d.path, err = abs, os.MkdirAll(abs, 0o700)
		}
		if err == nil {
			*d.file, err = os.Open(abs)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", d.flag, err)
		}
	}
	return nil
}

// move opens the directories where criu finds them among its own mounts: it mounts in its working directory.
func (f *CRIUFlags) move(pid int) error {
	for name, d := range map[string]*os.File{stagedImages + f.ImagePath: f.images, stagedWork: f.work} {
		fd, err := unix.Open(fmt.Sprintf("/proc/%d/root%s/%s", pid, compile.CriuStage, name), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Dup3(fd, int(d.Fd()), unix.O_CLOEXEC)
			unix.Close(fd)
		}
		if err != nil {
			return fmt.Errorf("%s, among criu's mounts: %w", d.Name(), err)
		}
	}
	return nil
}

func (f *CRIUFlags) close() {
	f.images.Close() // of nil, too
	f.work.Close()
}

// criuError says why criu has failed: because it works for nothing on this host, or what its log says.
func criuError(path, action, log string, a *answer, err error) error {
	// Asked only after an error: a check takes as long as the work.
	out, checkErr := exec.Command(path, "check").CombinedOutput()
	if checkErr != nil {
		lines := errorLines(out)
		if len(lines) == 0 {
			lines = []string{checkErr.Error()}
		}
		last := lines[len(lines)-1]
		if first := lines[0]; first != last {
			last += " (first: " + first + ")"
		}
		return fmt.Errorf("criu is installed but doesn't work on this kernel: criu check: %s: a newer criu, or another kernel, is needed", last)
	}
	data, _ := os.ReadFile(log)
	lines := errorLines(data)
	if len(lines) == 0 && a != nil && a.message != "" {
		lines = []string{strings.TrimSpace(a.message)}
	}
	why := strings.Join(lines, "; ")
	if why == "" {
		why = "no error in its log"
	}
	if err != nil {
		why = err.Error() + ": " + why
	}
	return fmt.Errorf("criu %s: %s; its log is %s", action, why, log)
}

// errorLines are the messages of level error in criu's output, at most the last eight.
func errorLines(out []byte) []string {
	var lines []string
	for line := range strings.Lines(string(out)) {
		_, text, ok := strings.Cut(line, "Error (")
		if !ok {
			continue
		}
		if _, message, ok := strings.Cut(text, "): "); ok {
			text = message
		}
		lines = append(lines, strings.TrimSpace(text))
	}
	return lines[max(0, len(lines)-8):]
}

// tree is a part of the host that a plan shows in a container.
type tree struct {
	*plan.OpenTree
	origin string
	ids    *plan.UserNamespace // of the mount's own
}

// hostTrees are the parts of the host that a plan shows in a container, by their targets there.
func hostTrees(p *plan.Plan) (map[string]tree, error) {
	saved, ids, trees := map[string]tree{}, map[string]*plan.UserNamespace{}, map[string]tree{}
	for _, s := range p.Steps {
		switch o := s.Op.(type) {
		case *plan.UserNamespace:
			ids[o.Save] = o
		case *plan.OpenTree:
			saved[o.Save] = tree{o, s.Origin, ids[o.IDMap]}
		case *plan.MoveMount:
			t, ok := saved[o.From]
			if !ok {
				continue
			}
			if t.IDMap != "" && t.ids == nil {
				return nil, fmt.Errorf("%s: criu can't bring back a mount with the ids of the container's user namespace; give it uidMappings and "+
					"gidMappings of its own", s.Origin)
			}
			trees[o.Target] = t
		}
	}
	return trees, nil
}

// mount is a line of mountinfo (proc_pid_mountinfo(5)).
type mount struct {
	id, dev, root, point string
}

func mountsOf(pid string) ([]mount, error) {
	all, err := host.MountsOf(pid)
	if err != nil {
		return nil, err
	}
	var mounts []mount
	for _, m := range all {
		mounts = append(mounts, mount{m.ID, m.Device, m.Root, m.Point})
	}
	return mounts, nil
}

// hostMounts finds the mounts of a running container that show parts of the host.
func (c *record) hostMounts(p *plan.Plan) ([]hostMount, error) {
	trees, err := hostTrees(p)
	if err != nil {
		return nil, err
	}
	mounts, err := mountsOf(strconv.Itoa(c.PID))
	if err != nil {
		// The host's mounts, to tell which file systems the container doesn't have for itself.
		return nil, err
	}
	hosts, err := mountsOf("self")
	if err != nil {
		return nil, err
	}
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", c.PID), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("the container's root: %w", err)
	}
	defer unix.Close(root)
	// at is the mount on a path of the container, whose symbolic links don't lead out.
	at := func(path string) (mount, bool) {
		fd, err := unix.Openat2(root, "."+path, &unix.OpenHow{
			Flags:   unix.O_PATH | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
		})
		if err != nil {
			return mount{}, false
		}
		defer unix.Close(fd)
		name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		id, err2 := fdMount("self", fd)
		i := slices.IndexFunc(mounts, func(m mount) bool { return m.id == id && m.point == name })
		if err != nil || err2 != nil || i < 0 {
			return mount{}, false
		}
		return mounts[i], true
	}
	found := map[string]hostMount{}
	// By its mount and not by its path: the target of the configuration may lead through links of the container's.
	for target := range trees {
		if m, ok := at(target); ok {
			found[m.point] = hostMount{Mountpoint: m.point, Target: target}
		}
	}
	// The file that masks another one is a null device. Where it isn't of a /dev of the container's own, it is the host's.
	for _, s := range p.Steps {
		mask, ok := s.Op.(*plan.MaskPath)
		if !ok {
			continue
		}
		if m, ok := at(mask.Path); ok && m.root != "/" && onHost(hosts, m) {
			found[m.point] = hostMount{Mountpoint: m.point}
		}
	}
	// What is mounted below belongs to the bind mount if it is of the host: the container's own mounts have new file systems.
	for _, m := range mounts {
		if _, ok := found[m.point]; ok || !onHost(hosts, m) {
			continue
		}
		for target, tree := range trees {
			top, ok := at(target)
			if !ok || !tree.Recursive {
				continue
			}
			if rest, ok := strings.CutPrefix(m.point, strings.TrimSuffix(top.point, "/")+"/"); ok {
				// Of two bind mounts that have it below them it belongs to the nearer one.
				if old, ok := found[m.point]; !ok || len(old.Target) < len(target) {
					found[m.point] = hostMount{Mountpoint: m.point, Target: target, Below: rest}
				}
			}
		}
	}
	list := make([]hostMount, 0, len(found))
	for _, m := range found {
		list = append(list, m)
	}
	slices.SortFunc(list, func(a, b hostMount) int { return strings.Compare(a.Mountpoint, b.Mountpoint) })
	return list, nil
}

func onHost(hosts []mount, m mount) bool {
	return slices.ContainsFunc(hosts, func(h mount) bool { return h.dev == m.dev })
}

// fdMount is the id of the mount that a process's descriptor is on.
func fdMount(pid string, fd int) (string, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%s/fdinfo/%d", pid, fd))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		if id, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			return strings.TrimSpace(id), nil
		}
	}
	return "", errors.New("no mnt_id in fdinfo")
}

// stdio says what the descriptors 0, 1 and 2 of the container's first process are, by names that criu knows: "pipe:[inode]", or
// "file[mount:inode]" for a file that isn't to be found in the container.
func (c *record) stdio() (names, files []string, err error) {
	pid := strconv.Itoa(c.PID)
	mounts, err := mountsOf(pid)
	if err != nil {
		return nil, nil, err
	}
	for fd := range 3 {
		path := fmt.Sprintf("/proc/%s/fd/%d", pid, fd)
		name, err := os.Readlink(path)
		if err != nil {
			names = append(names, "") // closed
			continue
		}
		var st unix.Stat_t
		id, err := fdMount(pid, fd)
		if err == nil && unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && terminal(st.Rdev) {
			names = append(names, name) // criu has --shell-job for a terminal of others
			continue
		}
		if err == nil && strings.HasPrefix(name, "/") && !slices.ContainsFunc(mounts, func(m mount) bool { return m.id == id }) &&
			unix.Stat(path, &st) == nil {
			n, _ := strconv.Atoi(id)
			name = fmt.Sprintf("file[%x:%x]", n, st.Ino)
			files = append(files, name)
		}
		names = append(names, name)
	}
	return names, files, nil
}

// terminal reports whether a device is a terminal (the kernel's admin-guide/devices.txt).
func terminal(rdev uint64) bool {
	major := unix.Major(rdev)
	return major == 4 || major == 5 || major >= 136 && major <= 143
}

// others are the kinds of the namespaces that a plan joins.
func others(p *plan.Plan) []string {
	var kinds []string
	for _, s := range p.Steps {
		if o, ok := s.Op.(*plan.Open); ok && o.Namespace != "" {
			kinds = append(kinds, o.Namespace)
		}
	}
	return kinds
}

// checkMounts refuses a container whose processes criu would write and end, and could not make again.
func checkMounts(spec *specs.Spec) error {
	if !compile.OwnMounts(spec.Linux.Namespaces) {
		return errors.New("/linux/namespaces: a container without a mount namespace has the mounts of the host, which criu would take for " +
			"its own")
	}
	return nil
}

// share lets a group read the images, until the function that it returns is called: in a user namespace criu reads them as the
// container's root, to whom root's files are closed. With images of pre-dumps belong those that they build on.
func (f *CRIUFlags) share(gid uint32) (func(), error) {
	type before struct {
		file *os.File
		gid  int
		mode uint32
	}
	var changed []before
	undo := func() {
		for _, b := range changed {
			b.file.Chown(-1, b.gid)
			unix.Fchmod(int(b.file.Fd()), b.mode)
			b.file.Close()
		}
	}
	open := func(path string) error {
		// A name in the directory is criu's, or somebody's who could write there: no link is followed, and a FIFO keeps
		// nobody waiting.
		file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(file.Fd()), &st); err != nil {
			file.Close()
			return err
		}
		changed = append(changed, before{file, int(st.Gid), st.Mode & 0o7777})
		more := uint32(0o040)
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			more = 0o050
		}
		if err := file.Chown(-1, int(gid)); err != nil {
			return err
		}
		return unix.Fchmod(int(file.Fd()), st.Mode&0o7777|more)
	}
	for _, dir := range f.chain() {
		names, err := filepath.Glob(filepath.Join(dir, "*.img"))
		for _, name := range append([]string{dir}, names...) {
			if err == nil {
				err = open(name)
			}
		}
		if err != nil {
			undo()
			return nil, fmt.Errorf("let the container's root read the images: %w", err)
		}
	}
	return undo, nil
}

// chain is the directory of the images, and those of the earlier images that they build upon, as criu finds them: by a link named
// parent, from one to the next.
func (f *CRIUFlags) chain() []string {
	dirs := []string{f.ImagePath}
	for range 1000 { // it may be long, and not endless
		dir := dirs[len(dirs)-1]
		link, err := os.Readlink(filepath.Join(dir, "parent"))
		if err != nil {
			break
		}
		if !filepath.IsAbs(link) {
			link = filepath.Join(dir, link)
		}
		dirs = append(dirs, link)
	}
	return dirs
}

// rootGroup is the group on the host that is the container's group 0, if it has groups of its own.
func rootGroup(spec *specs.Spec) (uint32, bool) {
	for _, m := range spec.Linux.GIDMappings {
		if m.ContainerID == 0 && m.Size > 0 {
			return m.HostID, m.HostID != 0
		}
	}
	return 0, false
}

// foreign says how criu is told that a namespace belongs to others: net and pid have a name, which is runc's, and a descriptor. Criu is
// itself in the IPC or UTS namespace, and leaves alone what it shares with the container.
func foreign(kind string) (name string, fd int, err error) {
	switch kind {
	case "net":
		return "extRootNetNS", 100, nil
	case "pid":
		return "extRootPidNS", 101, nil
	case "ipc", "uts":
		return "", 0, nil
	}
	return "", 0, fmt.Errorf("/linux/namespaces: the container shares the %s namespace of others, which criu can't give back to it", kind)
}

func writeJSON(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return writeFile(path, data)
}

func readJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
