package fork

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"glassbox/plan"
	"glassbox/state"
)

// hostMount makes the step of that name. The file of the one who needs the mount comes first and goes first, both under a lock: whoever is
// killed in between leaves a file whose container's repair takes it back, and with it the mount.
func hostMount(o *plan.HostMount) error {
	if o.Users == "" {
		return Mount(o)
	}
	if err := os.Mkdir(o.Target, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := os.Mkdir(o.Users, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	unlock, err := state.LockDir(o.Users)
	if err != nil {
		return fmt.Errorf("lock %s: %w", o.Users, err)
	}
	defer unlock()
	mounted, err := Mounted(o.Target)
	if err != nil {
		return err
	}
	if !mounted { // files of an earlier boot stand for nobody
		others, err := os.ReadDir(o.Users)
		if err != nil {
			return err
		}
		for _, e := range others {
			os.Remove(filepath.Join(o.Users, e.Name()))
		}
	}
	mark := filepath.Join(o.Users, o.User)
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		return err
	}
	if mounted {
		return nil
	}
	if err := mountOnHost(o); err != nil {
		os.Remove(mark)
		return err
	}
	return nil
}

// Mounted reports whether a directory is the root of a mount (statx(2), Linux 5.8).
func Mounted(dir string) (bool, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, dir, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, 0, &st); err != nil {
		return false, &os.PathError{Op: "statx", Path: dir, Err: err}
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

// Mount mounts a file system in the mount namespace of the calling thread, for it alone.
func Mount(o *plan.HostMount) error {
	if err := os.Mkdir(o.Target, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return mountOnHost(o)
}

// mountOnHost mounts a file system. Nothing spreads from it or to it.
func mountOnHost(o *plan.HostMount) error {
	err := attachOnHost(o)
	if err == nil {
		err = unix.Mount("", o.Target, "", unix.MS_PRIVATE, "")
	}
	if err != nil {
		return fmt.Errorf("mount %s %s on %s: %w%s", o.Type, o.Source, o.Target, err, hostMountHint(o, err))
	}
	return nil
}

func attachOnHost(o *plan.HostMount) error {
	if !o.OneByOne() {
		flags, err := bits("mount flag", o.Flags, mountFlags)
		if err != nil {
			return err
		}
		return unix.Mount(o.Source, o.Target, o.Type, flags, strings.Join(o.Options, ","))
	}
	set, err := attrs(o.Flags)
	if err != nil {
		return err
	}
	fs, err := unix.Fsopen(o.Type, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fs)
	for _, opt := range o.Options {
		key, value, _ := strings.Cut(opt, "=")
		if err := unix.FsconfigSetString(fs, key, value); err != nil {
			return fmt.Errorf("%s: %w", opt, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return err
	}
	mount, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, int(set))
	if err != nil {
		return err
	}
	defer unix.Close(mount)
	return unix.MoveMount(mount, "", unix.AT_FDCWD, o.Target, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// hostMountHint says what may help, where the error itself doesn't.
func hostMountHint(o *plan.HostMount, err error) string {
	switch {
	case errors.Is(err, unix.ENODEV):
		return fmt.Sprintf("\nhint: this kernel has no file system %s: modprobe %[1]s loads it, where it is a module", o.Type)
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTBLK):
		return "\nhint: the volume's device must be there: glassbox volume inspect shows its options"
	case errors.Is(err, unix.EINVAL):
		return "\nhint: the volume's options are those of mount -t " + o.Type + " -o …; the kernel's log says which one it doesn't take: dmesg"
	}
	return ""
}

// hostUnmount takes it back: the last one who needs the mount unmounts it, even if something is open in it.
func hostUnmount(o *plan.HostUnmount) error {
	if o.Users != "" {
		unlock, err := state.LockDir(o.Users)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("lock %s: %w", o.Users, err)
		}
		defer unlock()
		if err := os.Remove(filepath.Join(o.Users, o.User)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if others, err := os.ReadDir(o.Users); err != nil || len(others) > 0 {
			return err
		}
	}
	if err := unix.Unmount(o.Target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && err != unix.EINVAL && err != unix.ENOENT {
		return &os.PathError{Op: "unmount", Path: o.Target, Err: err}
	}
	if o.Users == "" {
		if err := unix.Rmdir(o.Target); err != nil && err != unix.ENOENT {
			return &os.PathError{Op: "rmdir", Path: o.Target, Err: err}
		}
	}
	return nil
}
