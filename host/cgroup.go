package host

import (
	"path"
	"slices"
	"strconv"
	"strings"
)

// mountinfo is that of the calling thread. A thread of this process may have entered a container's mounts to do something there; if it
// was the first one, /proc/self shows them until the process ends.
const mountinfo = "/proc/thread-self/mountinfo"

// probeCgroup finds the mounted hierarchies and what they offer.
func probeCgroup(kernel Kernel, buf *[]byte) (Cgroup, error) {
	text, err := readFile("/proc/self/cgroup", buf)
	if err != nil {
		return Cgroup{}, err
	}
	own := parseSelfCgroup(string(text))
	if text, err = readFile(mountinfo, buf); err != nil {
		return Cgroup{}, err
	}
	c := Cgroup{Hierarchies: hierarchies(string(text), own)}
	v1, v2 := false, false
	for i := range c.Hierarchies {
		h := &c.Hierarchies[i]
		if h.V2 {
			v2 = true
			probeV2(h, buf)
			continue
		}
		v1 = true
		h.Files = filesV1(h, kernel)
		if slices.Contains(h.Controllers, "cpuset") {
			c.CpusetCpus = readWord(h.Mount+"/cpuset.cpus", buf)
			c.CpusetMems = readWord(h.Mount+"/cpuset.mems", buf)
		}
	}
	switch {
	case v1 && v2:
		c.Mode = CgroupHybrid
	case v1:
		c.Mode = CgroupV1
	case v2:
		c.Mode = CgroupV2
	default:
		c.Mode = CgroupNone
	}
	return c, nil
}

// CgroupsOf returns the directories of the cgroups that a process is in, by controller ("memory", "name=systemd"); "" is the v2
// directory. Hierarchies that aren't mounted, or where the process is outside of what the mount shows, are left out.
func CgroupsOf(pid int) (map[string]string, error) {
	buf := make([]byte, 32<<10)
	text, err := readFile("/proc/"+strconv.Itoa(pid)+"/cgroup", &buf)
	if err != nil {
		return nil, err
	}
	own := parseSelfCgroup(string(text))
	if text, err = readFile(mountinfo, &buf); err != nil {
		return nil, err
	}
	return directories(hierarchies(string(text), own)), nil
}

func directories(hs []Hierarchy) map[string]string {
	dirs := map[string]string{}
	for _, h := range hs {
		if h.Own == "" {
			continue
		}
		dir := path.Join(h.Mount, h.Own)
		if h.V2 {
			dirs[""] = dir
		}
		for _, c := range h.Controllers {
			dirs[c] = dir
		}
	}
	return dirs
}

func probeV2(h *Hierarchy, buf *[]byte) {
	h.Controllers = strings.Fields(readWord(h.Mount+"/cgroup.controllers", buf))
	h.Enabled = strings.Fields(readWord(h.Mount+"/cgroup.subtree_control", buf))
	// Of all cgroups only the real root has no type. It alone may have processes and give controllers to its children.
	if exists(h.Mount + "/cgroup.type") {
		h.Crowded = readWord(h.Mount+"/cgroup.procs", buf) != ""
	}
	if !slices.Contains(h.Controllers, "io") {
		return
	}
	// BFQ offers its file while it is loaded. The file of the io.cost model goes with two that only the real root has.
	if exists("/sys/module/bfq") || exists(h.Mount+"/io.bfq.weight") {
		h.Files = append(h.Files, "io.bfq.weight")
	}
	if exists(h.Mount+"/io.cost.qos") || exists(h.Mount+"/io.weight") {
		h.Files = append(h.Files, "io.weight")
	}
}

// filesV1 looks for files that depend on the kernel. The root of a v1 hierarchy has all files of its children but
// blkio.bfq.weight, which goes with the statistics of the same scheduler, and blkio.weight, which goes with leaf_weight.
func filesV1(h *Hierarchy, kernel Kernel) []string {
	var files []string
	add := func(controller, file, sign string) {
		if slices.Contains(h.Controllers, controller) && exists(h.Mount+"/"+sign) {
			files = append(files, file)
		}
	}
	add("memory", "memory.memsw.limit_in_bytes", "memory.memsw.limit_in_bytes")
	if !kernel.AtLeast(5, 16) { // commit 58056f77502f: the file stays, but what is written to it is no limit any more
		add("memory", "memory.kmem.limit_in_bytes", "memory.kmem.limit_in_bytes")
	}
	add("memory", "memory.kmem.tcp.limit_in_bytes", "memory.kmem.tcp.limit_in_bytes")
	add("blkio", "blkio.weight", "blkio.leaf_weight")
	add("blkio", "blkio.bfq.weight", "blkio.bfq.io_service_bytes")
	add("cpu", "cpu.cfs_quota_us", "cpu.cfs_quota_us")
	add("cpu", "cpu.cfs_burst_us", "cpu.cfs_burst_us")
	add("cpu", "cpu.rt_runtime_us", "cpu.rt_runtime_us")
	add("cpu", "cpu.idle", "cpu.idle")
	return files
}

func readWord(file string, buf *[]byte) string {
	text, err := readFile(file, buf)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// membership is a line of /proc/self/cgroup (cgroups(7)): a hierarchy and this process's cgroup in it.
type membership struct {
	controllers []string // none for v2
	path        string
}

// parseSelfCgroup parses lines like "4:cpu,cpuacct:/user.slice" and "0::/user.slice". It passes over others.
func parseSelfCgroup(text string) []membership {
	var ms []membership
	for line := range strings.Lines(text) {
		id, rest, ok1 := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		controllers, path, ok2 := strings.Cut(rest, ":")
		if _, err := strconv.ParseUint(id, 10, 32); err != nil || !ok1 || !ok2 || !strings.HasPrefix(path, "/") {
			continue
		}
		m := membership{path: path}
		if controllers != "" {
			m.controllers = strings.Split(controllers, ",")
		} else if id != "0" {
			continue // a v1 hierarchy always names something
		}
		ms = append(ms, m)
	}
	return ms
}

// node is a mount's place in the tree of mounts.
type node struct{ id, parent, point string }

// mount is what hierarchies needs of a line of /proc/self/mountinfo.
type mount struct {
	node
	root    string // of the file system, what is visible at point
	fstype  string
	options string // of the superblock
}

// parseMount parses one line of mountinfo (proc_pid_mountinfo(5)):
//
//	34 31 0:30 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu
//	id parent device root point options optional… - type source superblock-options
func parseMount(line string) (mount, bool) {
	before, after, ok := strings.Cut(line, " - ")
	options := strings.TrimSuffix(field(after, 2), "\n")
	if !ok || options == "" || field(before, 5) == "" {
		return mount{}, false
	}
	return mount{parseNode(before), Unescape(field(before, 3)), field(after, 0), options}, true
}

func parseNode(line string) node {
	return node{field(line, 0), field(line, 1), Unescape(field(line, 4))}
}

// Unescape takes back the octal escapes (\040 for a space) of /proc/PID/mountinfo (proc_pid_mountinfo(5)).
func Unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				out.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		out.WriteByte(s[i])
	}
	return out.String()
}

// hierarchies finds where the hierarchies that this process is in are mounted, in the order of mountinfo. Of several mounts of
// one hierarchy the first below /sys/fs/cgroup wins, else the first.
func hierarchies(mountinfo string, own []membership) []Hierarchy {
	var found []mount
	for line := range strings.Lines(mountinfo) {
		if !strings.Contains(line, " - cgroup") {
			continue // hundreds of overlays on a busy host
		}
		if m, ok := parseMount(line); ok && (m.fstype == "cgroup" || m.fstype == "cgroup2") {
			found = append(found, m)
		}
	}
	found = visible(found, mountinfo)

	best := make([]int, len(own)) // index in found plus one, for each membership
	for i, m := range found {
		for j, o := range own {
			if o.mountedBy(m) && (best[j] == 0 || covers("/sys/fs/cgroup", m.point) && !covers("/sys/fs/cgroup", found[best[j]-1].point)) {
				best[j] = i + 1
			}
		}
	}
	var hs []Hierarchy
	for i, m := range found {
		if j := slices.Index(best, i+1); j >= 0 {
			hs = append(hs, Hierarchy{
				Mount: m.point, V2: own[j].controllers == nil, Controllers: own[j].controllers, Own: below(m.root, own[j].path),
			})
		}
	}
	return hs
}

// mountedBy reports whether m is a mount of the hierarchy. A v1 mount names its controllers among the options of its
// superblock.
func (o membership) mountedBy(m mount) bool {
	if o.controllers == nil || m.fstype == "cgroup2" {
		return o.controllers == nil && m.fstype == "cgroup2"
	}
	for _, c := range o.controllers {
		if !hasOption(m.options, c) {
			return false
		}
	}
	return true
}

func hasOption(options, want string) bool {
	for o := range strings.SplitSeq(options, ",") {
		if o == want {
			return true
		}
	}
	return false
}

// visible leaves out the mounts that others hide: one that lies on top, or over a directory above.
//
// A mount is named by its path, so what counts are the mounts on the way from the root to it, its chain of parents. It is
// hidden if, at some point of the chain, another mount of the same parent covers the next one: it was mounted later, else
// the next one would stand on it.
func visible(found []mount, mountinfo string) []mount {
	var way []node // all mounts that are on, or cover, the way to one in found
	for line := range strings.Lines(mountinfo) {
		n := parseNode(line)
		if slices.ContainsFunc(found, func(m mount) bool { return covers(n.point, m.point) }) {
			way = append(way, n)
		}
	}
	return slices.DeleteFunc(found, func(m mount) bool {
		n := m.node
		if slices.ContainsFunc(way, func(o node) bool { return o.parent == n.id && o.point == n.point }) {
			return true
		}
		for range way { // as long as the longest chain, however strange the input
			if slices.ContainsFunc(way, func(o node) bool {
				return o.parent == n.parent && o.id != n.id && o.id != n.parent && covers(o.point, n.point)
			}) {
				return true
			}
			i := slices.IndexFunc(way, func(o node) bool { return o.id == n.parent })
			if i < 0 {
				return false
			}
			n = way[i]
		}
		return false
	})
}

// field returns the n-th field (from 0) of a line whose fields one space separates.
func field(line string, n int) string {
	for ; n > 0; n-- {
		_, line, _ = strings.Cut(line, " ")
	}
	f, _, _ := strings.Cut(line, " ")
	return f
}

// covers reports whether a mount at point hides what is at target.
func covers(point, target string) bool {
	rest, ok := strings.CutPrefix(target, point)
	return point == "/" || ok && (rest == "" || rest[0] == '/')
}

// below returns the cgroup p as seen below a mount that shows root, or "" where it isn't below it.
func below(root, p string) string {
	if root == "/" {
		if strings.HasPrefix(p, "/..") {
			return "" // the process was moved out of its cgroup namespace's root
		}
		return p
	}
	if rest, ok := strings.CutPrefix(p, root); ok && (rest == "" || rest[0] == '/') {
		return path.Join("/", rest)
	}
	return ""
}
