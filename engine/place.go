package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// placeable reports why a directory that isn't there yet can't be made: a file system of the kernel's own (procfs, sysfs, cgroups) has no
// room for files. A list of containers there would be empty for ever, and say nothing. One that is missing elsewhere is a new installation.
func placeable(dir string) error {
	var at unix.Statfs_t
	for above := dir; ; above = filepath.Dir(above) {
		err := unix.Statfs(above, &at)
		switch {
		// A new installation: the directories above are made with it, if the file system there takes any.
		case errors.Is(err, fs.ErrNotExist) && above != "/":
			continue
		case err != nil:
			return fmt.Errorf("%s: %w", above, err)
		case above == dir:
			return nil // whether it can be used is seen when it is
		}
		switch at.Type {
		case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEVPTS_SUPER_MAGIC,
			unix.SECURITYFS_MAGIC, unix.TRACEFS_MAGIC:
			return fmt.Errorf("%s is no place for images and containers: %s holds no files\nhint: give another directory with --root or "+
				"GLASSBOX_ROOT", dir, above)
		}
		return nil
	}
}
