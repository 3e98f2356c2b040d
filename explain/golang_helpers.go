package explain

// goHelper is a function of a generated program. Its name is what steps ask for; one without code only brings imports.
type goHelper struct {
	name, needs, imports, code string
}

// goHelpers are the functions that a program may have below its two lanes; it has those that its plan's steps need, in this order.
func goHelpers() []goHelper {
	return []goHelper{
		{"fmt", "", "fmt", ""},
		{"strings", "", "strings", ""},
		{"slices", "", "slices", ""},
		{"unsafe", "", "unsafe", ""},
		{"check", "", "errors", `
// check ends the program at the first error; its trace says at which step. With one left out it would be another container.
func check(errs ...error) {
	if err := errors.Join(errs...); err != nil {
		panic(err)
	}
}`},
		{"ok", "check", "", `
func ok[T any](v T, err error) T {
	check(err)
	return v
}`},
		{"second", "", "", `
func second[T any](_ T, err error) error { return err }`},
		{"umask", "", "", `
func umask(mask int) error { unix.Umask(mask); return nil }`},
		{"each", "", "", `
func each(do func(string), items ...string) {
	for _, item := range items {
		do(item)
	}
}`},
		{"null", "", "", `
var null, empty int // the null device that was made, whatever /dev/null is later, and a directory that is hidden`},
		{"cgroup", "check", "", `
func cgroup(dir string) { check(os.MkdirAll(dir, 0o755)) }`},
		{"cpuset", "ok write", "", `
// cgroup makes a cgroup. A cpuset of v1 begins empty, and so may its parent; it gets what is above.
func cgroup(dir string) {
	check(os.MkdirAll(dir, 0o755))
	for _, file := range []string{"/../cpuset.cpus", "/../cpuset.mems", "/cpuset.cpus", "/cpuset.mems"} {
		if own, err := os.ReadFile(dir + file); err == nil && len(own) < 2 {
			write(dir+file, string(ok(os.ReadFile(dir+"/.."+file))))
		}
	}
}`},
		{"write", "check", "", `
func write(file string, values ...string) {
	for _, v := range values {
		check(os.WriteFile(file, []byte(v), 0))
	}
}`},
		{"join", "write", "", `
func join(dir string) { write(dir+"/cgroup.procs", "0") }`},
		{"set1", "write", "strings", `
func set1(s string) { file, value, _ := strings.Cut(s, "="); write(file, value) }`},
		{"devices", "ok inflate", "unsafe", `
// devices loads a program that the kernel asks about each device (bpf(2)), and attaches it to the cgroup.
func devices(dir string, deflated string) {
	code, license := inflate(deflated), []byte("Apache-2.0\x00")
	load := struct {
		kind, count    uint32
		insns, license unsafe.Pointer
	}{unix.BPF_PROG_TYPE_CGROUP_DEVICE, uint32(len(code) / 8), unsafe.Pointer(&code[0]), unsafe.Pointer(&license[0])}
	program, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&load)), unsafe.Sizeof(load))
	if errno != 0 {
		panic(errno)
	}
	attach := [5]uint32{uint32(ok(unix.Open(dir, unix.O_DIRECTORY, 0))), uint32(program), unix.BPF_CGROUP_DEVICE, unix.BPF_F_ALLOW_MULTI}
	if _, _, errno = unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_ATTACH, uintptr(unsafe.Pointer(&attach)), 20); errno != 0 {
		panic(errno)
	}
}`},
		{"giveTree", "ok", "", `
// giveTree clones a mount for the child, while no name can be influenced by it.
func giveTree(name string, flags uint) {
	fd := ok(unix.OpenTree(unix.AT_FDCWD, name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|flags))
	cmd.ExtraFiles = append(cmd.ExtraFiles, os.NewFile(uintptr(fd), name))
}`},
		{"give", "giveTree", "", `
func give(name string) { giveTree(name, unix.AT_RECURSIVE) } // with what is mounted below`},
		{"giveOne", "giveTree", "", `
func giveOne(name string) { giveTree(name, 0) }`},
		{"giveFile", "ok", "", `
func giveFile(name string) { cmd.ExtraFiles = append(cmd.ExtraFiles, ok(os.Open(name))) }`},
		{"giveAs", "check", "", `
// giveAs gives clones whose files have the ids that a user namespace maps them to (mount_setattr(2), ID-mapped mounts).
func giveAs(users *os.File, clone func(string), flags uint, names ...string) {
	for _, name := range names {
		clone(name)
		check(unix.MountSetattr(int(cmd.ExtraFiles[len(cmd.ExtraFiles)-1].Fd()), "", unix.AT_EMPTY_PATH|flags,
			&unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(users.Fd())}))
	}
}`},
		{"users", "ok", "fmt", `
// users makes a user namespace. The process in it ends at once, with its input; the file that stands for the namespace keeps it.
func users(uid, gid []syscall.SysProcIDMap) *os.File {
	hold := exec.Command("cat")
	input := ok(hold.StdinPipe())
	hold.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: uid, GidMappings: gid}
	check(hold.Start())
	defer hold.Wait()
	defer input.Close()
	return ok(os.Open(fmt.Sprintf("/proc/%d/ns/user", hold.Process.Pid)))
}`},
		{"trees", "ok", "", `
var trees []int // clones of mounts

// clone clones a mount before the root changes.
func clone(name string, flags uint, attr unix.MountAttr) {
	trees = append(trees, ok(unix.OpenTree(unix.AT_FDCWD, name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|flags)))
	check(unix.MountSetattr(trees[len(trees)-1], "", unix.AT_EMPTY_PATH|flags, &attr))
}`},
		{"tree", "trees", "", `
func tree(name string) { clone(name, unix.AT_RECURSIVE, unix.MountAttr{}) } // with what is mounted below`},
		{"treeOne", "trees", "", `
func treeOne(name string) { clone(name, 0, unix.MountAttr{}) }`},
		{"treeReadonly", "trees", "", `
func treeReadonly(name string) { clone(name, unix.AT_RECURSIVE, unix.MountAttr{Attr_set: ro}) }`},
		{"treeOneReadonly", "trees", "", `
func treeOneReadonly(name string) { clone(name, 0, unix.MountAttr{Attr_set: ro}) }`},
		{"device", "treeOne check", "fmt strings", `
// device clones "TYPE MAJOR:MINOR NAME", if it is that device.
func device(what string) {
	treeOne(what[strings.Index(what, "/"):])
	var st unix.Stat_t
	check(unix.Fstat(trees[len(trees)-1], &st))
	kind := map[uint32]string{unix.S_IFCHR: "c", unix.S_IFBLK: "b"}[st.Mode&unix.S_IFMT]
	if is := fmt.Sprintf("%s %d:%d ", kind, unix.Major(st.Rdev), unix.Minor(st.Rdev)); !strings.HasPrefix(what, is) {
		panic("want " + what + ", but it is " + is)
	}
}`},
		{"evacuate", "check", "strings", `
// evacuate moves the processes of a cgroup: one that has some can't give controllers to its children (cgroups(7)).
func evacuate(from, to string) {
	check(os.MkdirAll(to, 0o755))
	processes, err := os.ReadFile(from + "/cgroup.procs")
	check(err)
	for _, p := range strings.Fields(string(processes)) {
		os.WriteFile(to+"/cgroup.procs", []byte(p), 0) // one that has ended can't be moved
	}
}`},
		{"console", "ok", "", `
// console opens a terminal in the container's /dev/pts. Its other end goes to the parent.
func console(rows, cols uint16, uid int) int {
	master := ok(unix.Open("/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0))
	check(unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0), unix.IoctlSetWinsize(master, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}))
	terminal, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		panic(errno)
	}
	check(unix.Fchown(int(terminal), uid, -1), unix.Sendmsg(3, []byte{1}, unix.UnixRights(master), nil, 0))
	return int(terminal)
}`},
		{"relay", "ok", "io strings", `
// relay carries what is typed to the container's terminal, and what is written there to this program's, until the container ends.
func relay(socket int) (done chan bool) {
	rights := make([]byte, 64)
	_, n, _, _, err := unix.Recvmsg(socket, make([]byte, 1), rights, 0)
	check(err)
	message := ok(unix.ParseSocketControlMessage(rights[:n]))
	master := os.NewFile(uintptr(ok(unix.ParseUnixRights(&message[0]))[0]), "terminal")
	before, _ := exec.Command("stty", "-F", "/dev/tty", "-g").Output() // without a terminal all three fail
	exec.Command("stty", "-F", "/dev/tty", "raw", "-echo").Run()       // each key goes through at once, Ctrl-C too
	done = make(chan bool)
	go io.Copy(master, os.Stdin)
	go func() {
		io.Copy(os.Stdout, master)
		exec.Command("stty", "-F", "/dev/tty", strings.TrimSpace(string(before))).Run()
		close(done)
	}()
	return done
}`},
		{"run", "check", "strings", `
func run(input string, commands ...string) {
	for _, c := range commands {
		cmd := exec.Command(strings.Fields(c)[0], strings.Fields(c)[1:]...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), os.Stderr, os.Stderr
		check(cmd.Run())
	}
}`},
		{"everything", "", "", `
func everything() (caps []uintptr) {
	for c := uintptr(0); unix.Prctl(unix.PR_CAPBSET_READ, c, 0, 0, 0) == nil; c++ {
		caps = append(caps, c)
	}
	return caps
}`},
		{"detached", "ok", "strings", `
// detached makes a file system that is mounted nowhere yet.
func detached(kind, source string, attrs int, options ...string) int {
	fs := ok(unix.Fsopen(kind, unix.FSOPEN_CLOEXEC))
	check(unix.FsconfigSetString(fs, "source", source))
	for _, o := range options {
		key, value, set := strings.Cut(o, "=")
		if !set {
			check(unix.FsconfigSetFlag(fs, key))
		} else {
			check(unix.FsconfigSetString(fs, key, value))
		}
	}
	check(unix.FsconfigCreate(fs))
	return ok(unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attrs))
}`},
		{"layers", "detached", "", `
// layers stacks any number of layers (lowerdir+, Linux 6.5).
func layers(target string, options ...string) {
	check(unix.MoveMount(detached("overlay", "overlay", 0, options...), "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH))
}`},
		{"mount", "check", "strings", `
// mount makes file systems at "target options". Only the mounts become read-only: a file system may be the host's, too.
func mount(kind, source string, flags uintptr, places ...string) {
	for _, place := range places {
		target, options, _ := strings.Cut(place, " ")
		check(os.MkdirAll(target, 0o755), unix.Mount(source, target, kind, flags&^unix.MS_RDONLY, options),
			unix.MountSetattr(unix.AT_FDCWD, target, 0, &unix.MountAttr{Attr_set: uint64(flags & unix.MS_RDONLY)}))
	}
}`},
		{"cover", "mount", "strings", `
// cover is mount for what has the mode of the directory that it covers, if there is one.
func cover(kind, source string, flags uintptr, places ...string) {
	for _, place := range places {
		target, _, _ := strings.Cut(place, " ")
		covered, missing := os.Stat(target)
		mount(kind, source, flags, place)
		if missing == nil {
			check(os.Chmod(target, covered.Mode()))
		}
	}
}`},
		{"bind", "attach", "", `
func bind(mount int, target string, recursive uint, set, clear, propagation uint64) error {
	check(unix.MountSetattr(mount, "", unix.AT_EMPTY_PATH|recursive, &unix.MountAttr{Attr_set: set, Attr_clr: clear, Propagation: propagation}))
	return attach(mount, target)
}`},
		{"attach", "check", "strings", `
// attach puts a clone of a mount to its place in the container; what is missing there is made.
func attach(mount int, target string) error {
	var st unix.Stat_t
	check(unix.Fstat(mount, &st))
	if _, err := os.Stat(target); err != nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		check(os.MkdirAll(target, 0o755))
	} else if err != nil {
		check(os.MkdirAll(target[:1+strings.LastIndex(target, "/")], 0o755), os.WriteFile(target, nil, 0o644))
	}
	return unix.MoveMount(mount, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_SYMLINKS)
}`},
		{"mask", "mount null ok", "fmt", `
// mask hides a file behind the null device and a directory behind an empty tmpfs, which all of them share.
func mask(name string) {
	st, err := os.Stat(name)
	if err == nil && st.IsDir() && empty == 0 {
		mount("tmpfs", "tmpfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, name+" size=0,nr_inodes=2")
		empty = ok(unix.Open(name, unix.O_PATH|unix.O_CLOEXEC, 0))
	} else if err == nil {
		check(unix.Mount(fmt.Sprint("/proc/self/fd/", map[bool]int{true: empty, false: null}[st.IsDir()]), name, "", unix.MS_BIND, ""))
	}
}`},
		{"readonly", "check", "", `
func readonly(name string) {
	if _, err := os.Stat(name); err == nil {
		check(unix.Mount(name, name, "", unix.MS_BIND|unix.MS_REC, ""),
			unix.MountSetattr(unix.AT_FDCWD, name, unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}))
	}
}`},
		{"node", "ok", "fmt", `
func node(device string) { // "mode major:minor uid:gid name"
	mode, major, minor, uid, gid, name := uint32(0), uint32(0), uint32(0), 0, 0, ""
	ok(fmt.Sscanf(device, "%o %d:%d %d:%d %s", &mode, &major, &minor, &uid, &gid, &name))
	if err := unix.Mknod(name, mode, int(unix.Mkdev(major, minor))); err != unix.EEXIST {
		check(err, os.Lchown(name, uid, gid))
	}
}`},
		{"deep", "node", "strings", `
// deep makes a device below directories that may be missing.
func deep(device string) {
	name := device[strings.Index(device, "/"):]
	check(os.MkdirAll(name[:strings.LastIndex(name, "/")], 0o755))
	node(device)
}`},
		{"relink", "link", "strings", `
// relink makes a link in the place of whatever is there.
func relink(arrow string) { os.Remove(strings.Split(arrow, " -> ")[0]); link(arrow) }`},
		{"link", "check", "strings", `
func link(arrow string) {
	name, target, _ := strings.Cut(arrow, " -> ")
	if err := os.Symlink(target, name); !os.IsExist(err) {
		check(err)
	}
}`},
		{"up", "ok", "", `
func up(link string) {
	request := ok(unix.NewIfreq(link))
	request.SetUint16(unix.IFF_UP)
	check(unix.IoctlIfreq(ok(unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)), unix.SIOCSIFFLAGS, request))
}`},
		{"set", "ok", "strings", `
func set(proc int, settings ...string) {
	for _, s := range settings {
		file, value, _ := strings.Cut(s, "=")
		ok(unix.Write(ok(unix.Openat(proc, file, unix.O_WRONLY|unix.O_CLOEXEC, 0)), []byte(value)))
	}
}`},
		{"inflate", "ok", "compress/flate encoding/base64 io strings", `
func inflate(text string) []byte {
	return ok(io.ReadAll(flate.NewReader(base64.NewDecoder(base64.StdEncoding, strings.NewReader(text)))))
}`},
	}
}
