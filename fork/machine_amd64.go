package fork

import "golang.org/x/sys/unix"

const sysFstatat = unix.SYS_NEWFSTATAT

const hostMachine = elfAMD64

// pathArgument says which argument of a system call is a path.
func pathArgument(nr uint64) (int, bool) {
	switch nr {
	case unix.SYS_OPEN, unix.SYS_STAT, unix.SYS_LSTAT, unix.SYS_ACCESS, unix.SYS_READLINK, unix.SYS_MKDIR, unix.SYS_RMDIR, unix.SYS_UNLINK,
		unix.SYS_CREAT, unix.SYS_CHMOD, unix.SYS_CHOWN:
		return 0, true
	}
	return commonPathArgument(nr)
}
