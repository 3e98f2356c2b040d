// Package quota bounds what the files of a directory may take on the disk, by the project quota of their file system: each file carries the
// number of a project, which new ones take from their directory, and the file system counts and bounds what a project has (quotactl(2),
// xfs_quota(8)). ext4, XFS and f2fs have it, where they were mounted with it.
//
// Its one idea: a directory is given a number and a number a bound, both by descriptors of the directory, so that neither block devices nor
// mount points are looked for. It refuses file systems that only count ([Enforced]).
//
// Start reading at [Set].
package quota

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Numbers of linux/quota.h, linux/dqblk_xfs.h and linux/fs.h that package unix doesn't have.
const (
	getQuota = 0x800007 // Q_GETQUOTA
	setQuota = 0x800008 // Q_SETQUOTA
	getState = 0x5808   // Q_XGETQSTATV, which the kernel answers for file systems other than XFS, too
	project  = 2        // PRJQUOTA

	limits   = 1      // QIF_BLIMITS: what is set of a dqblk
	enforced = 1 << 5 // FS_QUOTA_PDQ_ENFD

	getAttributes = 0x801c581f // FS_IOC_FSGETXATTR
	setAttributes = 0x401c5820 // FS_IOC_FSSETXATTR
	inherit       = 0x200      // FS_XFLAG_PROJINHERIT

	// block is the unit of limits, in bytes (QIF_DQBLKSIZE).
	block = 1024
)

// dqblk is struct if_dqblk of linux/quota.h.
type dqblk struct {
	hard, soft, space             uint64 // blocks, blocks, bytes
	hardFiles, softFiles, files   uint64
	graceSpace, graceFiles, valid uint64 // valid is 32 bits and padding; all processors of ours are little-endian
}

// attributes is struct fsxattr of linux/fs.h.
type attributes struct {
	flags, extent, extents, project, cow uint32
	_                                    [8]byte
}

// Usage is what a project has, and may have.
type Usage struct {
	Bytes, Files int64
	Limit        int64 // bytes; 0: there is none
}

func control(fd, command int, id uint32, p unsafe.Pointer) error {
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, uintptr(fd), uintptr(command<<8|project), uintptr(id), uintptr(p), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func ioctl(fd int, request uint, a *attributes) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(unsafe.Pointer(a)))
	if errno != 0 {
		return errno
	}
	return nil
}

func open(dir string) (int, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", dir, err)
	}
	return fd, nil
}

// ErrNone is the kind of error for a file system that bounds no projects.
var ErrNone = errors.New("no project quotas")

// Enforced reports whether the file system of a directory bounds what a project has; the error, of the kind ErrNone, says what is missing.
func Enforced(dir string) error {
	fd, err := open(dir)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var state [256]byte // struct fs_quota_statv: version, padding, flags
	state[0] = 1        // FS_QSTATV_VERSION1
	switch err := control(fd, getState, 0, unsafe.Pointer(&state)); {
	case err == unix.ENOSYS || err == unix.EOPNOTSUPP || err == unix.EINVAL || err == unix.ENODEV || err == unix.ENOTBLK:
		return fmt.Errorf("%w: this kernel has none for that file system", ErrNone)
	case err == unix.ESRCH:
		return fmt.Errorf("%w: the file system was mounted without", ErrNone)
	case err != nil:
		return fmt.Errorf("quotactl_fd on %s: %w", dir, err)
	}
	if uint16(state[2])|uint16(state[3])<<8&enforced == 0 {
		return fmt.Errorf("%w: the file system was mounted without", ErrNone)
	}
	return nil
}

// Set makes a directory, and what will be made in it, part of a project. What is in it already stays what it is.
func Set(dir string, id uint32) error {
	fd, err := open(dir)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var a attributes
	if err := ioctl(fd, getAttributes, &a); err != nil {
		return fmt.Errorf("read the project of %s: %w", dir, err)
	}
	if a.project == id && a.flags&inherit != 0 {
		return nil
	}
	a.project, a.flags = id, a.flags|inherit
	if err := ioctl(fd, setAttributes, &a); err != nil {
		return fmt.Errorf("set the project of %s: %w", dir, err)
	}
	return nil
}

// Of gives the project of a directory; 0 where new files would not take it over.
func Of(dir string) (uint32, error) {
	fd, err := open(dir)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	var a attributes
	if err := ioctl(fd, getAttributes, &a); err != nil {
		return 0, fmt.Errorf("read the project of %s: %w", dir, err)
	}
	if a.flags&inherit == 0 {
		return 0, nil
	}
	return a.project, nil
}

// Bound sets how many bytes a project may have on the file system of a directory; 0: any number.
func Bound(dir string, id uint32, bytes int64) error {
	fd, err := open(dir)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	blocks := uint64(bytes+block-1) / block
	q := dqblk{hard: blocks, soft: blocks, valid: limits}
	if err := control(fd, setQuota, id, unsafe.Pointer(&q)); err != nil {
		return fmt.Errorf("bound project %d of %s: %w", id, dir, err)
	}
	return nil
}

// Get says what a project has on the file system of a directory.
func Get(dir string, id uint32) (Usage, error) {
	fd, err := open(dir)
	if err != nil {
		return Usage{}, err
	}
	defer unix.Close(fd)
	var q dqblk
	err = control(fd, getQuota, id, unsafe.Pointer(&q))
	if err == unix.ENOENT { // XFS knows nothing of a project that has nothing
		return Usage{}, nil
	}
	if err != nil {
		return Usage{}, fmt.Errorf("read what project %d of %s has: %w", id, dir, err)
	}
	return Usage{Bytes: int64(q.space), Files: int64(q.files), Limit: int64(q.hard) * block}, nil
}
