package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The programs of this file are attacks; docs/security.md says which is whose. Those that go on until they are told to stop are
// told by a file.

func exists(name string) bool {
	return unix.Access(name, unix.F_OK) == nil
}

func pids() []string {
	var list []string
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil && n != os.Getpid() {
			list = append(list, e.Name())
		}
	}
	return list
}

type file struct{ dev, ino uint64 }

// ownPrograms are those of the container.
func ownPrograms() map[file]bool {
	own := map[file]bool{}
	var st unix.Stat_t
	for _, name := range []string{"/bin/busybox", "/t/prog", "/evil", "/interp"} {
		if unix.Stat(name, &st) == nil {
			own[file{uint64(st.Dev), st.Ino}] = true
		}
	}
	return own
}

// grab STOP RESULT looks for processes that run a program which isn't the container's, keeps descriptors of their executables, and
// tries to write through them, also when the processes are gone. The first find opens the FIFO /hang, at which a program may be
// waiting to be found.
func grab(args []string) error {
	own := ownPrograms()
	var st unix.Stat_t
	var kept []int
	seen, wrote, writable := 0, 0, 0
	try := func(name string) {
		if fd, err := unix.Open(name, unix.O_WRONLY|unix.O_CLOEXEC, 0); err == nil {
			unix.Pwrite(fd, []byte("overwritten"), 0)
			unix.Close(fd)
			wrote++
		}
		if unix.Access(name, unix.W_OK) == nil { // what it would be if nobody ran it: ETXTBSY is no defence
			writable++
		}
	}
	report := func() {
		text := fmt.Appendf(nil, "seen %d\nwrote %d\nwritable %d\n", min(seen, 1), wrote, writable)
		if old, _ := os.ReadFile(args[1]); string(old) != string(text) {
			os.WriteFile(args[1]+".new", text, 0o644)
			os.Rename(args[1]+".new", args[1])
		}
	}
	for !exists(args[0]) {
		for _, pid := range pids() {
			fd, err := unix.Open("/proc/"+pid+"/exe", unix.O_PATH|unix.O_CLOEXEC, 0)
			if err != nil {
				continue
			}
			if unix.Fstat(fd, &st) != nil || own[file{uint64(st.Dev), st.Ino}] {
				unix.Close(fd)
				continue
			}
			seen++
			if kept = append(kept, fd); len(kept) > 64 {
				unix.Close(kept[0])
				kept = kept[1:]
			}
			try(fmt.Sprintf("/proc/self/fd/%d", fd)) // not by its name: by now the process may be another
			if seen == 1 {
				report() // the container may end with that process
				unix.Open("/hang", unix.O_RDONLY|unix.O_NONBLOCK, 0)
			}
		}
		for _, fd := range kept {
			try(fmt.Sprintf("/proc/self/fd/%d", fd))
		}
		time.Sleep(100 * time.Microsecond) // a machine of one processor has others to run
	}
	report()
	return os.WriteFile(args[1]+".done", nil, 0o644)
}

// keys put NAME leaves a key in the session keyring, and says what the keyring is called. keys open lets everybody into the keyring.
// keys find NAME RING... looks for the key: in its own session keyring, and in those that it joins by name.
func keys(args []string) error {
	find := func() {
		if id, err := unix.KeyctlSearch(unix.KEY_SPEC_SESSION_KEYRING, "user", args[1], 0); err == nil {
			buf := make([]byte, 100)
			n, _ := unix.KeyctlBuffer(unix.KEYCTL_READ, id, buf, len(buf))
			fmt.Printf("found %s\n", buf[:max(min(n, len(buf)), 0)])
		}
	}
	ring, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, false)
	if err != nil {
		return err
	}
	switch args[0] {
	case "put":
		if _, err := unix.AddKey("user", args[1], []byte("secret"), unix.KEY_SPEC_SESSION_KEYRING); err != nil {
			return err
		}
		find()
		text, err := unix.KeyctlString(unix.KEYCTL_DESCRIBE, ring)
		fields := strings.Split(text, ";")
		fmt.Println("ring", fields[len(fields)-1])
		return err
	case "open":
		return unix.KeyctlSetperm(ring, 0x3f3f3f3f)
	}
	find()
	for _, name := range args[2:] {
		unix.KeyctlJoinSessionKeyring(name)
		find()
	}
	fmt.Println("done")
	return nil
}

// spoil RESULT changes mode, group, access control list and times of whatever is behind the standard descriptors, and says for which it
// could. The mode shuts nobody out: this may be the device of the machine that the tests run on.
func spoil(args []string) error {
	// An access control list (acl(5)) as the kernel keeps it: version 2, then tag, permissions and id of each entry.
	acl := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range [][3]uint32{{1, 6, ^uint32(0)}, {2, 7, 4242}, {4, 6, ^uint32(0)}, {16, 7, ^uint32(0)}, {32, 6, ^uint32(0)}} {
		acl = binary.LittleEndian.AppendUint16(acl, uint16(e[0]))
		acl = binary.LittleEndian.AppendUint16(acl, uint16(e[1]))
		acl = binary.LittleEndian.AppendUint32(acl, e[2])
	}
	var done strings.Builder
	for fd := range 3 {
		name := fmt.Sprintf("/proc/self/fd/%d", fd)
		for what, err := range map[string]error{
			"group": unix.Chown(name, -1, 4242), "acl": unix.Setxattr(name, "system.posix_acl_access", acl, 0),
			"times": unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{{Sec: 1}, {Sec: 1}}, 0), "mode": unix.Chmod(name, 0o676),
		} {
			if err != nil {
				fmt.Fprintf(&done, "%s of %d: %v\n", what, fd, err)
			}
		}
	}
	done.WriteString("done\n")
	if err := os.WriteFile(args[0]+".new", []byte(done.String()), 0o644); err != nil {
		return err
	}
	return os.Rename(args[0]+".new", args[0])
}

// watch STOP RESULT MARK [exe] looks for a way to the host's file MARK through what /proc shows of other processes: their root, their
// working directory and their descriptors; and for the runtime's executable.
func watch(args []string) error {
	up := strings.Repeat("/..", 12) + args[2]
	ways, rounds := map[string]bool{}, 0
	own := ownPrograms()
	var st unix.Stat_t
	for !exists(args[0]) {
		rounds++
		for _, pid := range pids() {
			dir := "/proc/" + pid
			for _, way := range []string{"root", "cwd"} {
				if exists(dir+"/"+way+args[2]) || exists(dir+"/"+way+up) {
					ways[way] = true
				}
			}
			if len(args) > 3 && unix.Stat(dir+"/exe", &st) == nil && !own[file{uint64(st.Dev), st.Ino}] {
				ways["exe"] = true
			}
			for fd := range 24 {
				name := fmt.Sprintf("%s/fd/%d", dir, fd)
				if exists(name+args[2]) || exists(name+up) {
					ways["fd"] = true
				}
			}
		}
		time.Sleep(100 * time.Microsecond)
	}
	text := fmt.Sprintf("rounds %v\n", rounds > 10)
	for way := range ways {
		text += "way " + way + "\n"
	}
	if err := os.WriteFile(args[1]+".new", []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(args[1]+".new", args[1])
}

// swap STOP A B… exchanges the names of each pair over and over.
func swap(args []string) error {
	for !exists(args[0]) {
		for n := range 200 {
			at := 1 + n*2%(len(args)-1)
			if err := unix.Renameat2(unix.AT_FDCWD, args[at], unix.AT_FDCWD, args[at+1], unix.RENAME_EXCHANGE); err != nil {
				return fmt.Errorf("exchange: %w", err)
			}
		}
		time.Sleep(500 * time.Microsecond) // a machine of one processor has others to run
	}
	return nil
}

// turn exchanges two names every ten milliseconds, until a file is there.
func turn(args []string) error {
	for !exists(args[0]) {
		if err := unix.Renameat2(unix.AT_FDCWD, args[1], unix.AT_FDCWD, args[2], unix.RENAME_EXCHANGE); err != nil {
			return fmt.Errorf("exchange: %w", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

// calls makes every system call there is, with arguments that make no sense, and prints what each said. Those that end or stop
// their caller whatever the arguments are left out.
func calls([]string) error {
	runtime.LockOSThread()
	deadly := []uintptr{unix.SYS_EXIT, unix.SYS_EXIT_GROUP, unix.SYS_RT_SIGRETURN, unix.SYS_SYNC}
	if runtime.GOARCH == "amd64" {
		deadly = append(deadly, 34, 57, 58, 335, 336) // pause, fork, vfork; uretprobe and uprobe are the kernel's own
	}
	var out strings.Builder
	const no = ^uintptr(0)
	for nr := range uintptr(620) {
		if slices.Contains(deadly, nr) {
			continue
		}
		_, _, errno := unix.RawSyscall6(nr, no, no, no, no, no, no)
		fmt.Fprintln(&out, nr, int(errno))
	}
	fmt.Print(out.String())
	return nil
}

// newns asks for a user namespace in every way.
func newns([]string) error {
	runtime.LockOSThread()
	report := func(name string, errno syscall.Errno) {
		if errno == 0 {
			fmt.Println(name, "ok")
		} else {
			fmt.Println(name, unix.ErrnoName(errno))
		}
	}
	clone3 := struct {
		flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls uint64
	}{flags: unix.CLONE_NEWUSER, exitSignal: uint64(unix.SIGCHLD)}
	r, _, errno := unix.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&clone3)), unsafe.Sizeof(clone3), 0)
	if errno == 0 && r == 0 {
		unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
	report("clone3", errno)
	r, _, errno = unix.RawSyscall6(unix.SYS_CLONE, unix.CLONE_NEWUSER|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno == 0 && r == 0 {
		unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
	report("clone", errno)
	// Last: a thread can't leave the namespace again. A program with several threads gets EINVAL where nothing denies it.
	_, _, errno = unix.RawSyscall(unix.SYS_UNSHARE, unix.CLONE_NEWUSER, 0, 0)
	report("unshare", errno)
	return nil
}

// cgescape tries to change cgroups: in /sys/fs/cgroup as it is, after mounting it anew, and in namespaces of its own. It prints a
// line for each success.
func cgescape(args []string) error {
	if len(args) > 0 {
		return cgInside()
	}
	cgWrite("/sys/fs/cgroup")
	dirs, _ := filepath.Glob("/sys/fs/cgroup/*")
	for _, dir := range append(dirs, "/sys/fs/cgroup") {
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND, ""); err == nil {
			fmt.Println("remounted", dir)
		}
		unix.Unmount(dir, unix.MNT_DETACH)
	}
	cgWrite("/sys/fs/cgroup")
	for name, flags := range map[string]uintptr{
		"cgroup": unix.CLONE_NEWCGROUP,
		"user":   unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP,
	} {
		cmd := exec.Command("/proc/self/exe", "cgescape", "inside")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
		if flags&unix.CLONE_NEWUSER != 0 {
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}
			cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}
		}
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			fmt.Println("namespace", name, "denied")
		}
	}
	return nil
}

func cgInside() error {
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return err
	}
	for i, line := range strings.Split(strings.TrimSpace(string(groups)), "\n") {
		controllers := strings.Split(line, ":")[1]
		kind, data := "cgroup", controllers
		if controllers == "" {
			kind = "cgroup2"
		} else if strings.HasPrefix(controllers, "name=") {
			data = "none," + controllers
		}
		dir := fmt.Sprintf("/tmp/cg%d", i)
		os.Mkdir(dir, 0o755)
		if err := unix.Mount("cgroup", dir, kind, 0, data); err == nil {
			fmt.Println("mounted", kind, data)
			cgWrite(dir)
		}
	}
	return nil
}

func cgWrite(top string) {
	filepath.WalkDir(top, func(path string, e os.DirEntry, err error) error {
		if err != nil || e == nil || !e.IsDir() {
			return nil
		}
		made := path + "/made"
		if unix.Mkdir(made, 0o755) == nil {
			fmt.Println("made", made)
			unix.Rmdir(made)
		}
		// Writing back what is there changes nothing, and release_agent is read by nobody below the root of a hierarchy.
		for _, name := range []string{
			"release_agent", "notify_on_release", "cgroup.clone_children", "memory.limit_in_bytes", "memory.max", "pids.max",
			"devices.allow", "cgroup.procs", "cgroup.subtree_control", "cgroup.freeze",
		} {
			fd, err := unix.Open(path+"/"+name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				continue
			}
			old, _ := os.ReadFile(path + "/" + name)
			if _, err := unix.Write(fd, old); err == nil || name != "release_agent" {
				fmt.Println("wrote", path+"/"+name)
			}
			unix.Close(fd)
		}
		return nil
	})
}

// fdbomb opens descriptors in more and more processes until something says no, says what, and stays.
func fdbomb([]string) error {
	for last := 0; ; {
		fd, err := unix.Open("/dev/null", unix.O_RDONLY, 0)
		if err != nil {
			fmt.Printf("can't open more after %d: %v\n", last, err)
			break
		}
		last = fd
	}
	cmd := exec.Command("/proc/self/exe", "fdbomb")
	cmd.Stdout = os.Stdout
	err := cmd.Run()
	fmt.Println("can't go on:", err)
	for { // the Go runtime's own sleep would need a descriptor
		unix.Ppoll(nil, nil, nil)
	}
}

// nest N makes N directories in /tmp, each in the one before.
func nest(args []string) error {
	n := 0
	if len(args) == 1 {
		n, _ = strconv.Atoi(args[0])
	}
	if err := os.Chdir("/tmp"); err != nil {
		return err
	}
	for range n {
		if err := unix.Mkdir("d", 0o700); err != nil {
			return err
		}
		if err := unix.Chdir("d"); err != nil { // os.Chdir would ask for a path that is too long
			return err
		}
	}
	fmt.Println("at", n)
	return nil
}

// diskbomb FILE… writes to each until there is no more room, says so, and stays.
func diskbomb(args []string) error {
	block := make([]byte, 1<<20)
	for _, name := range args {
		f, err := os.Create(name)
		if err != nil {
			return err
		}
		for n := 0; ; n++ {
			if _, err := f.Write(block); err != nil {
				fmt.Println("can't write:", err)
				break
			}
			if n == 512 {
				fmt.Println("nothing stopped it in", name)
				break
			}
		}
	}
	return sleep([]string{"1000"})
}
