package verify

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"glassbox/cgroup"
	"glassbox/host"
	"glassbox/plan"
	"glassbox/resctrl"
)

func (v *view) readGroups() {
	v.groups = map[string]bool{}
	dirs, err := host.CgroupsOf(v.pid)
	if err != nil {
		return
	}
	for _, dir := range dirs {
		v.groups[dir] = true
	}
}

// directory looks for the directory of a cgroup or a resource class.
func directory(dir, what string) Finding {
	st, err := os.Stat(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return missing(dir, what, byHost())
	case err != nil:
		return failed(dir, err)
	case !st.IsDir():
		return differs(dir, what, "no directory", byHost())
	}
	return holds(dir, what)
}

// hasShare looks whether a resource class has what the plan wanted.
func hasShare(dir string, schemata []string) Finding {
	where, asked := dir+"/schemata", strings.Join(schemata, " ")
	text, err := os.ReadFile(where)
	if err != nil {
		return failed(where, err)
	}
	if resctrl.Compare(&plan.ResctrlCheck{Path: dir, Schemata: schemata}, string(text)) != nil {
		return differs(where, asked, strings.Join(strings.Fields(string(text)), " "), byHost().and(", as glassbox-runtime update does it"))
	}
	return holds(where, asked)
}

// inClass looks for the process in a file tasks. The kernel lists threads, the first of which has the number of the process.
func (v *view) inClass(tasks string) Finding {
	if tasks == "" {
		return unseen("the resource class was given by descriptor, which is closed since")
	}
	text, err := os.ReadFile(tasks)
	switch {
	case err != nil:
		return failed(tasks, err)
	case !slices.Contains(strings.Fields(string(text)), strconv.Itoa(v.pid)):
		return differs(tasks, strconv.Itoa(v.pid), "not in it", byHost())
	}
	return holds(tasks, strconv.Itoa(v.pid))
}

// groupDir is the cgroup that a file for joining it belongs to.
func groupDir(file string) string {
	if base := path.Base(file); base == "tasks" || base == "cgroup.procs" {
		return path.Dir(file)
	}
	return file
}

func (v *view) inCgroup(file string) Finding {
	if file == "" {
		return unseen("the cgroup was given by descriptor, which is closed since")
	}
	dir, where := groupDir(file), v.proc("cgroup")
	if v.groups[dir] {
		return holds(where, "in "+dir)
	}
	// Where else in this hierarchy?
	found := "not in it"
	mount := dir
	for mount != "/" && mount != "." {
		for g := range v.groups {
			if g == mount || strings.HasPrefix(g, mount+"/") {
				found = "in " + g
				if mount == dir {
					return differs(where, "in "+dir, found,
						own("below its cgroup, whose limits still hold: a process of the container may have made this one and gone there"))
				}
				return differs(where, "in "+dir, found, byHost())
			}
		}
		mount = path.Dir(mount)
		if !isCgroup(mount) {
			break
		}
	}
	return differs(where, "in "+dir, found, byHost())
}

func isCgroup(dir string) bool {
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) != nil {
		return false
	}
	return fs.Type == unix.CGROUP_SUPER_MAGIC || fs.Type == unix.CGROUP2_SUPER_MAGIC
}

func (v *view) inUnit(unit string) Finding {
	for g := range v.groups {
		for part := range strings.SplitSeq(g, "/") {
			if part == unit {
				return holds(v.proc("cgroup"), "in "+g)
			}
		}
	}
	return differs(v.proc("cgroup"), "in unit "+unit, "in another cgroup", byHost())
}

func (v *view) evacuated(o *plan.CgroupEvacuate) Finding {
	where := o.From + "/cgroup.procs"
	text, err := os.ReadFile(where)
	if err != nil {
		return failed(where, err)
	}
	if n := len(strings.Fields(string(text))); n > 0 {
		return differs(where, "no processes", fmt.Sprintf("%d processes", n), byHost())
	}
	return holds(where, "no processes")
}

// entry is what tells the entries of a file apart that has several (devices, io.max); "" for files with one value.
func entry(file, value string) string {
	name := path.Base(file)
	switch {
	case name == "devices.allow", name == "devices.deny":
		return value
	case name == "io.max", name == "rdma.max", name == "net_prio.ifpriomap", name == "io.latency", name == "misc.max",
		strings.HasPrefix(name, "blkio.throttle."), strings.HasSuffix(name, "_device"),
		strings.HasSuffix(name, ".weight") && strings.Contains(value, ":"):
		who, what, _ := strings.Cut(value, " ")
		if name == "io.max" || name == "rdma.max" {
			key, _, _ := strings.Cut(what, "=") // each write says one thing of a device
			who += " " + key
		}
		return who
	}
	return ""
}

func (v *view) cgroupValue(i int, o *plan.CgroupWrite) Finding {
	dir, name := path.Split(o.File)
	switch name {
	case "devices.allow", "devices.deny":
		return v.deviceRule(i, o)
	}
	data, err := os.ReadFile(o.File)
	if errors.Is(err, os.ErrNotExist) {
		return missing(o.File, o.Value, others("the cgroup is gone, or the controller was taken away: %s", byHost().why))
	}
	if err != nil {
		return failed(o.File, err)
	}
	have := strings.TrimSpace(string(data))
	// Others enable controllers there, too, and one that the cgroup itself hasn't got is no fault of the step's: it asks for what it can get.
	if name == "cgroup.subtree_control" {
		available, _ := os.ReadFile(dir + "cgroup.controllers")
		for _, c := range strings.Fields(o.Value) {
			c = strings.TrimPrefix(c, "+")
			if !slices.Contains(strings.Fields(have), c) && slices.Contains(strings.Fields(string(available)), c) {
				return differs(o.File, o.Value, have, byHost())
			}
		}
		return holds(o.File, have)
	}
	ok, note := sameValue(name, o.Value, have)
	found := have
	if lines := strings.Split(have, "\n"); len(lines) > 1 {
		found = strings.Join(lines, "; ")
	}
	if !ok {
		return differs(o.File, o.Value, found, byHost().and(", as glassbox-runtime update does it"))
	}
	f := holds(o.File, found)
	f.Why = note
	return f
}

// unlimited is from where on v1 means no limit: the kernel shows the largest number of pages in bytes.
const unlimited = 1 << 62

// sameValue compares what was written to a file of a cgroup with what is read from it.
func sameValue(name, asked, have string) (ok bool, note string) {
	if squeeze(asked) == squeeze(have) {
		return true, ""
	}
	if who := entry(name, asked); who != "" {
		return sameEntry(name, asked, have), ""
	}
	// Its file shows a line of a key and a number for each of several things, of which one is what was written.
	if name == "memory.oom_control" {
		return slices.Contains(strings.Split(have, "\n"), "oom_kill_disable "+asked), ""
	}
	if strings.HasPrefix(name, "cpuset.") {
		// "0-3" and "0,1,2,3" are the same: the kernel shows ranges.
		a, err1 := plan.ParseList(asked)
		h, err2 := plan.ParseList(have)
		if err1 == nil && err2 == nil && slices.Equal(a, h) {
			return true, ""
		}
	}
	if strings.HasSuffix(name, ".weight") {
		// What holds for all devices comes first; lines for single ones follow.
		if rest, ok := strings.CutPrefix(strings.SplitN(have, "\n", 2)[0], "default "); ok {
			return rest == strings.TrimPrefix(asked, "default "), ""
		}
	}
	if name == "cpu.max" { // a quota alone leaves the period as it was
		a, h := strings.Fields(asked), strings.Fields(have)
		return len(a) <= len(h) && len(a) > 0 && slices.Equal(a, h[:len(a)]), ""
	}
	a, ok1 := amount(asked)
	h, ok2 := amount(have)
	switch {
	case !ok1 || !ok2:
		return false, ""
	case a == h:
		return true, ""
	case strings.HasPrefix(name, "memory.") && a < unlimited && h == a/int64(os.Getpagesize())*int64(os.Getpagesize()):
		return true, "the kernel counts in pages"
	case strings.HasPrefix(name, "hugetlb.") && h < a && a-h < 1<<30 && h%(1<<20) == 0:
		return true, "the kernel counts in huge pages"
	}
	return false, ""
}

// amount reads a number, or a word for no limit.
func amount(s string) (int64, bool) {
	if s == "max" || s == "-1" {
		return unlimited, true
	}
	if n, err := strconv.ParseUint(s, 0, 64); err == nil {
		if n >= unlimited {
			return unlimited, true
		}
		return int64(n), true
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

// sameEntry compares one entry of a file that has several: what was written must be among the words of its line.
func sameEntry(name, asked, have string) bool {
	want := strings.Fields(asked)
	for line := range strings.Lines(have) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] != want[0] {
			continue
		}
		for _, w := range want[1:] {
			if !slices.Contains(words[1:], w) {
				return false
			}
		}
		return true
	}
	// A limit of none has no line.
	for _, w := range want[1:] {
		_, value, _ := strings.Cut(w, "=")
		if w != "0" && value != "max" {
			return false
		}
	}
	return true
}

// ---- devices ----

// deviceAccess is which accesses to which devices are allowed, "c 1:3" → "rwm".
type deviceAccess map[string]string

// parseRule reads a rule in the form of v1's devices.list.
func parseRule(line string) (device, access string) {
	f := strings.Fields(line)
	switch len(f) {
	case 0:
		return "", ""
	case 1: // "a"
		return f[0] + " *:*", "rwm"
	case 2:
		return f[0] + " " + f[1], "rwm"
	}
	return f[0] + " " + f[1], f[2]
}

func accessWord(s string) string {
	out := ""
	for _, c := range "rwm" {
		if strings.ContainsRune(s, c) {
			out += string(c)
		}
	}
	return out
}

// deviceRule compares devices.list with what all rules of the plan for this cgroup amount to.
func (v *view) deviceRule(i int, o *plan.CgroupWrite) Finding {
	dir := path.Dir(o.File)
	list := dir + "/devices.list"
	data, err := os.ReadFile(list)
	if err != nil {
		return failed(list, err)
	}
	have := deviceAccess{}
	for line := range strings.Lines(string(data)) {
		if d, a := parseRule(line); d != "" {
			have[d] = accessWord(a + have[d])
		}
	}
	want, closed := deviceAccess{}, false
	for _, s := range v.plan.Steps {
		w, ok := s.Op.(*plan.CgroupWrite)
		if !ok || path.Dir(w.File) != dir {
			continue
		}
		d, a := parseRule(w.Value)
		switch path.Base(w.File) {
		case "devices.deny":
			if strings.HasPrefix(d, "a ") {
				want, closed = deviceAccess{}, true
				continue
			}
			left := strings.Map(func(r rune) rune {
				if strings.ContainsRune(a, r) {
					return -1
				}
				return r
			}, want[d])
			if want[d] = left; left == "" {
				delete(want, d)
			}
		case "devices.allow":
			if strings.HasPrefix(d, "a ") {
				want, closed = deviceAccess{"a *:*": "rwm"}, false
				continue
			}
			want[d] = accessWord(a + want[d])
		}
	}
	device, access := parseRule(o.Value)
	if path.Base(o.File) == "devices.deny" {
		if !closed {
			if strings.HasPrefix(device, "a ") {
				return unseen("a later step allows all devices again")
			}
			return unseen("%s doesn't show exceptions from what is allowed as a whole", list)
		}
		var more []string
		for d, a := range have {
			if want[d] != a && extra(a, want[d]) != "" {
				more = append(more, d+" "+extra(a, want[d]))
			}
		}
		slices.Sort(more)
		if strings.HasPrefix(device, "a ") && len(more) > 0 {
			return differs(list, "no devices but those of the following steps", "also "+strings.Join(more, ", "), byHost())
		}
		if extra(accessWord(access), extra("rwm", have[device])) != "" && want[device] == "" && !strings.HasPrefix(device, "a ") {
			return differs(list, "not "+o.Value, device+" "+have[device], byHost())
		}
		return holds(list, fmt.Sprintf("%d devices", len(have)))
	}
	lost := extra(extra(accessWord(access), extra("rwm", want[device])), have[device])
	if have["a *:*"] != "" {
		lost = ""
	}
	if lost != "" {
		found := "not allowed"
		if have[device] != "" {
			found = device + " " + have[device]
		}
		return differs(list, o.Value, found, byHost())
	}
	return holds(list, device+" "+have[device])
}

// extra is what is in a and not in b.
func extra(a, b string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(b, r) {
			return -1
		}
		return r
	}, a)
}

// deviceFilter looks for the plan's program among those of the cgroup. The kernel gives each program a tag, a hash of its
// instructions.
func (v *view) deviceFilter(o *plan.DeviceFilter) Finding {
	where := "the BPF programs of " + o.Path
	tags, err := cgroup.DeviceTags(o.Path)
	if errors.Is(err, unix.ENOENT) {
		return missing(o.Path, "a cgroup", byHost())
	}
	if err != nil {
		return failed(where, err)
	}
	want := programTags(o.Program)
	for _, t := range tags {
		if slices.Contains(want, t) {
			return holds(where, "tag "+t)
		}
	}
	if len(tags) == 0 {
		return differs(where, "a program with tag "+strings.Join(want, " or "), "none", byHost())
	}
	return differs(where, "a program with tag "+strings.Join(want, " or "), "tag "+strings.Join(tags, ", "), byHost())
}

// programTags are the tags that the kernel may give to a program without maps: the first 8 bytes of a hash of its instructions,
// SHA-256 since Linux 6.18 and SHA-1 before.
func programTags(program []byte) []string {
	before, now := sha1.Sum(program), sha256.Sum256(program)
	return []string{hex.EncodeToString(now[:8]), hex.EncodeToString(before[:8])}
}

// ---- processes ----

// ownGroups are the cgroups that the plan makes for this container alone, or has it join.
func (v *view) ownGroups() []string {
	var dirs []string
	for _, s := range v.plan.Steps {
		if o, ok := s.Op.(*plan.CgroupCreate); ok {
			dirs = append(dirs, o.Path)
		}
	}
	return dirs
}

// otherProcesses finds processes in the container's cgroups that aren't its, and processes of the container elsewhere.
func (v *view) otherProcesses() {
	groups := v.ownGroups()
	if len(groups) == 0 || !slices.Contains(v.newKinds(), "pid") {
		return
	}
	its, _, err := v.namespace("pid")
	if err != nil {
		return
	}
	mounts, _, err := v.namespace("mount")
	if err != nil {
		return
	}
	seen := map[int]bool{v.pid: true}
	for _, dir := range groups {
		filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
			if err != nil || !d.IsDir() {
				return nil
			}
			text, _ := os.ReadFile(name + "/cgroup.procs")
			for _, w := range strings.Fields(string(text)) {
				pid, _ := strconv.Atoi(w)
				// 0 is a process out of our sight, in another PID namespace than this command's.
				if pid == 0 || seen[pid] {
					continue
				}
				seen[pid] = true
				theirs, err := os.Readlink("/proc/" + w + "/ns/pid")
				if err == nil && theirs != its && !below(pid, its) {
					v.beside(fmt.Sprintf("process %d (%s) is in its cgroup, and not in its PID namespace", pid, comm(pid)), name+"/cgroup.procs", byHost())
				} else if err == nil {
					v.nested(pid)
				}
			}
			return nil
		})
	}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == v.pid {
			continue
		}
		if theirs, err := os.Readlink("/proc/" + e.Name() + "/ns/pid"); err != nil || theirs != its {
			continue
		}
		// Who has other mounts belongs to another container, which has joined this one's PID namespace.
		if theirs, err := os.Readlink("/proc/" + e.Name() + "/ns/mnt"); err != nil || theirs != mounts {
			continue
		}
		dirs, err := host.CgroupsOf(pid)
		if err != nil {
			continue
		}
		for _, dir := range dirs {
			if !slices.ContainsFunc(groups, func(g string) bool { return dir == g || strings.HasPrefix(dir, g+"/") }) &&
				v.hasGroupBeside(dir, groups) {
				v.beside(fmt.Sprintf("process %d (%s) of the container is in cgroup %s", pid, comm(pid), dir), "/proc/"+e.Name()+"/cgroup", byHost())
				break
			}
		}
	}
}

// hasGroupBeside reports whether the plan has a cgroup in the hierarchy of a directory.
func (v *view) hasGroupBeside(dir string, groups []string) bool {
	var a unix.Stat_t
	if unix.Stat(dir, &a) != nil {
		return false
	}
	for _, g := range groups {
		var b unix.Stat_t
		if unix.Stat(g, &b) == nil && a.Dev == b.Dev {
			return true
		}
	}
	return false
}

// nested notes namespaces that a process of the container has for itself.
func (v *view) nested(pid int) {
	itsUsers, _, _ := v.namespace("user")
	for _, kind := range []string{"mount", "uts", "ipc", "net", "user", "cgroup"} {
		its, _, err := v.namespace(kind)
		if err != nil {
			continue
		}
		file := "/proc/" + strconv.Itoa(pid) + "/" + nsFile(kind)
		if theirs, err := os.Readlink(file); err == nil && theirs != its {
			who := v.who("CAP_SYS_ADMIN")
			if users, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/ns/user"); err == nil && users != itsUsers {
				// In one that it made without any capability (user_namespaces(7)) it may make all others: browsers do.
				who = own("a process of the container may make a user namespace, and others in it, unless its filter forbids that")
			}
			v.beside(fmt.Sprintf("process %d (%s) has a %s namespace of its own", pid, comm(pid), kind), file, who)
		}
	}
}

// newKinds are the namespaces that the plan makes.
func (v *view) newKinds() []string {
	var kinds []string
	for _, s := range v.plan.Steps {
		switch o := s.Op.(type) {
		case *plan.Clone:
			kinds = append(kinds, o.Namespaces...)
		case *plan.Unshare:
			kinds = append(kinds, o.Namespaces...)
		}
	}
	return kinds
}

// below reports whether a process's PID namespace descends from the one named.
func below(pid int, ns string) bool {
	fd, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/ns/pid", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	for range 33 { // MAX_PID_NS_LEVEL
		up, err := unix.IoctlRetInt(fd, unix.NS_GET_PARENT)
		unix.Close(fd)
		if err != nil {
			return false
		}
		fd = up
		if name, _ := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd)); name == ns {
			unix.Close(fd)
			return true
		}
	}
	unix.Close(fd)
	return false
}

func comm(pid int) string {
	text, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
	return strings.TrimSpace(string(text))
}
