package bundle

import (
	"bytes"
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
	Namespaces map[string]int `json:"namespaces,omitempty"` // those of others: kind → descriptor at which criu finds it in restore
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
}

// criu finds the program.
func criu() (string, error) {
	if os.Geteuid() != 0 {
		return "", errors.New("checkpoints need root: criu can't do its work as an ordinary user")
	}
	path, err := exec.LookPath("criu")
	if err != nil {
		return "", errors.New("criu is not installed: checkpoint and restore are its work. The package is named criu in the distributions that have it; the program must be in PATH")
	}
	return filepath.Abs(path)
}

// args makes the common part of criu's command line. Paths are absolute.
func (f *CRIUFlags) args(log string) ([]string, error) {
	args := []string{"--images-dir", f.ImagePath, "--work-dir", f.WorkPath, "--log-file", log, "-v4"}
	for _, o := range []struct {
		set  bool
		name string
	}{
		{f.TCPEstablished, "--tcp-established"},
		{f.ExtUnixSk, "--ext-unix-sk"},
		{f.ShellJob, "--shell-job"},
		{f.FileLocks, "--file-locks"},
		{f.AutoDedup, "--auto-dedup"},
	} {
		if o.set {
			args = append(args, o.name)
		}
	}
	for _, ns := range f.EmptyNS {
		if ns != "network" {
			return nil, fmt.Errorf("--empty-ns: %q: criu can leave out the content of network namespaces (network) only", ns)
		}
		args = append(args, "--empty-ns", "net")
	}
	switch f.ManageCgroups {
	case "":
		args = append(args, "--manage-cgroups=soft")
	case "soft", "full", "strict", "ignore":
		args = append(args, "--manage-cgroups="+f.ManageCgroups)
	default:
		return nil, fmt.Errorf("--manage-cgroups-mode: %q is not one of soft, full, strict, ignore", f.ManageCgroups)
	}
	// Criu locks a network namespace with the program iptables-restore unless it is told to speak to nftables itself.
	if _, err := exec.LookPath("iptables-restore"); err != nil {
		args = append(args, "--network-lock", "nftables")
	}
	return args, nil
}

// directories makes the paths absolute, and the working directory.
func (f *CRIUFlags) directories() error {
	if f.ImagePath == "" {
		return errors.New("--image-path: missing")
	}
	if f.WorkPath == "" {
		f.WorkPath = f.ImagePath
	}
	for _, path := range []*string{&f.ImagePath, &f.WorkPath} {
		abs, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		*path = abs
	}
	if err := os.MkdirAll(f.WorkPath, 0o700); err != nil {
		return fmt.Errorf("--work-path: %w", err)
	}
	return nil
}

// criuError says why criu has failed: because it works for nothing on this host, or what its log says.
func criuError(path, action, log string, err error) error {
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
	why := strings.Join(errorLines(data), "; ")
	if why == "" {
		why = "no error in its log"
	}
	return fmt.Errorf("criu %s: %w: %s; its log is %s", action, err, why, log)
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

// hostTrees are the parts of the host that a plan shows in a container, by their targets there.
func hostTrees(p *plan.Plan) (map[string]*plan.OpenTree, error) {
	saved, trees := map[string]*plan.OpenTree{}, map[string]*plan.OpenTree{}
	for _, s := range p.Steps {
		switch o := s.Op.(type) {
		case *plan.OpenTree:
			saved[o.Save] = o
		case *plan.MoveMount:
			t := saved[o.From]
			if t == nil {
				continue
			}
			if t.IDMap != "" {
				return nil, fmt.Errorf("%s: criu can't bring back a mount with mapped ids", s.Origin)
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
	data, err := os.ReadFile("/proc/" + pid + "/mountinfo")
	if err != nil {
		return nil, err
	}
	var mounts []mount
	for line := range bytes.Lines(data) {
		f := strings.Fields(string(line))
		if len(f) < 5 {
			return nil, fmt.Errorf("/proc/%s/mountinfo: can't make out %q", pid, line)
		}
		mounts = append(mounts, mount{f[0], f[2], host.Unescape(f[3]), host.Unescape(f[4])})
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
		fd, err := unix.Openat2(root, "."+path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
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
		if err == nil && strings.HasPrefix(name, "/") && !slices.ContainsFunc(mounts, func(m mount) bool { return m.id == id }) && unix.Stat(path, &st) == nil {
			n, _ := strconv.Atoi(id)
			name = fmt.Sprintf("file[%x:%x]", n, st.Ino)
			files = append(files, name)
		}
		names = append(names, name)
	}
	return names, files, nil
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

// checkNamespaces refuses a container whose processes criu would write and end, and could not make again.
func checkNamespaces(spec *specs.Spec) error {
	if !compile.OwnMounts(spec.Linux.Namespaces) {
		return errors.New("/linux/namespaces: a container without a mount namespace has the mounts of the host, which criu would take for its own")
	}
	for i, n := range spec.Linux.Namespaces {
		if n.Type == specs.UserNamespace {
			return fmt.Errorf("/linux/namespaces/%d: criu (seen with 3.17 and 4.2) can't restore a container in a user namespace: it may neither enter the cgroups again nor read what is the host's", i)
		}
	}
	return nil
}

// foreign are the names that criu and runc have for namespaces that belong to others.
func foreign(kind string) (name string, fd int, err error) {
	switch kind {
	case "net":
		return "extRootNetNS", 100, nil
	case "pid":
		return "extRootPidNS", 101, nil
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
