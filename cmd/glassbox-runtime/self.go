package main

import (
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

const selfExe = "/proc/self/exe"

// protect makes sure that a container which gets hold of this process's executable can't write to it (CVE-2019-5736: a program
// "#!/proc/self/exe" runs the runtime inside, and its file can be opened from there). If it is needed, protect starts the program
// again, from a read-only clone of the executable's mount or, without the right to clone mounts, from a sealed copy in memory. On
// success it doesn't return then. The entry in entry_amd64.s does the first of these before the Go runtime starts, which is
// cheaper.
func protect() error {
	var st unix.Statfs_t
	if err := unix.Statfs(selfExe, &st); err != nil {
		return fmt.Errorf("protect the runtime's executable: statfs %s: %w", selfExe, err)
	}
	if st.Flags&unix.ST_RDONLY != 0 {
		setName()
		return nil
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, selfExe, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err == nil {
		err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	}
	if err != nil {
		sealed, e := sealedCopy()
		if e != nil {
			return fmt.Errorf("protect the runtime's executable: clone its mount: %w; copy it: %w", err, e)
		}
		if sealed < 0 {
			setName()
			return nil
		}
		fd = sealed
	}
	err = unix.Exec(fmt.Sprintf("/proc/self/fd/%d", fd), os.Args, os.Environ())
	return fmt.Errorf("protect the runtime's executable: start it again: %w", err)
}

// sealedCopy returns a descriptor of a copy of the executable that nobody can change, or -1 if this process already runs from one,
// or from a file that its user, and so the root of a container of that user, can't write.
func sealedCopy() (int, error) {
	exe, err := os.Open(selfExe)
	if err != nil {
		return -1, err
	}
	defer exe.Close()
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if got, err := unix.FcntlInt(exe.Fd(), unix.F_GET_SEALS, 0); err == nil && got&seals == seals {
		return -1, nil
	}
	st, err := exe.Stat()
	if err != nil {
		return -1, err
	}
	if unix.Geteuid() != 0 && unix.Faccessat(unix.AT_FDCWD, selfExe, unix.W_OK, unix.AT_EACCESS) == unix.EACCES && !owner(st) {
		return -1, nil
	}
	fd, err := unix.MemfdCreate("glassbox-runtime", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, err
	}
	f := os.NewFile(uintptr(fd), "glassbox-runtime")
	if _, err := io.Copy(f, exe); err != nil {
		return -1, err
	}
	_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals)
	if err != nil {
		return -1, err
	}
	// The descriptor must outlive f's finalizer.
	return unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
}

// owner reports whether the file is this user's, who could then make it writable.
func owner(st os.FileInfo) bool {
	sys, ok := st.Sys().(*syscall.Stat_t)
	return !ok || int(sys.Uid) == os.Geteuid()
}

// setName names a process that was started through a descriptor, whose number would be its name.
func setName() {
	fd, err := unix.Open("/proc/self/comm", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		unix.Write(fd, []byte("glassbox-runtim"))
		unix.Close(fd)
	}
}
