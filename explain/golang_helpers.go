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
var null int // the null device that was made, whatever /dev/null is later`},
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
		{"give", "ok", "", `
// give clones a mount, with what is mounted below it, for the child, while no name can be influenced by it.
func give(name string) {
	fd := ok(unix.OpenTree(unix.AT_FDCWD, name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE))
	cmd.ExtraFiles = append(cmd.ExtraFiles, os.NewFile(uintptr(fd), name))
}`},
		{"giveOne", "ok", "", `
// giveOne clones a mount alone.
func giveOne(name string) {
	fd := ok(unix.OpenTree(unix.AT_FDCWD, name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC))
	cmd.ExtraFiles = append(cmd.ExtraFiles, os.NewFile(uintptr(fd), name))
}`},
		{"giveFile", "ok", "", `
func giveFile(name string) { cmd.ExtraFiles = append(cmd.ExtraFiles, ok(os.Open(name))) }`},
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
		{"layers", "ok", "strings", `
// layers stacks any number of layers (lowerdir+, Linux 6.5).
func layers(target string, options ...string) {
	fs := ok(unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC))
	for _, o := range options {
		key, value, set := strings.Cut(o, "=")
		if !set {
			check(unix.FsconfigSetFlag(fs, key))
		} else {
			check(unix.FsconfigSetString(fs, key, value))
		}
	}
	check(unix.FsconfigCreate(fs))
	check(unix.MoveMount(ok(unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)), "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH))
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
		{"mask", "mount null", "fmt", `
// mask hides a file behind the null device and a directory behind an empty tmpfs.
func mask(name string) {
	if st, err := os.Stat(name); err == nil && st.IsDir() {
		mount("tmpfs", "tmpfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, name+" size=0,nr_inodes=2")
	} else if err == nil {
		check(unix.Mount(fmt.Sprint("/proc/self/fd/", null), name, "", unix.MS_BIND, ""))
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
		{"set", "ok", "", `
func set(proc int, file, value string) {
	ok(unix.Write(ok(unix.Openat(proc, file, unix.O_WRONLY|unix.O_CLOEXEC, 0)), []byte(value)))
}`},
		{"inflate", "ok", "compress/flate encoding/base64 io strings", `
func inflate(text string) []byte {
	return ok(io.ReadAll(flate.NewReader(base64.NewDecoder(base64.StdEncoding, strings.NewReader(text)))))
}`},
	}
}
