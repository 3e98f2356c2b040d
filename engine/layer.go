package engine

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"glassbox/container"
	"glassbox/fork"
	"glassbox/host/quota"
	"glassbox/image"
	"glassbox/plan"
	"glassbox/supervise"
)

// storageEnv is the default of --storage-opt, for all that is made. It is no file: each start would read it.
const storageEnv = "GLASSBOX_STORAGE_OPT"

// boundLayer finds out how much a container that is being made may write to its own layer, and refuses what can't be enforced here.
func (e *Engine) boundLayer(c *container.Container) error {
	if c.Layer != nil {
		return nil // it is made already
	}
	size, flag := c.Config.LayerBytes(), "--storage-opt size="+c.Config.StorageOpt["size"]
	plain := c.Config.Rootfs != nil && !c.Config.Rootfs.Overlay
	if text := os.Getenv(storageEnv); size == 0 && text != "" && !plain {
		options, err := container.ParseStorageOpt([]string{text})
		if err != nil {
			return invalid("%s=%s: want size=BYTES", storageEnv, text)
		}
		size, flag = (&container.Config{StorageOpt: options}).LayerBytes(), storageEnv+"="+text
	}
	if size == 0 {
		return nil
	}
	if plain {
		return invalid("%s: --rootfs DIR has no layer of the container's own that could be bounded\nhint: --rootfs DIR:O has one", flag)
	}
	// The store may not be there yet: then what will hold it says what there is.
	dir := e.cfg.Root
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			break
		}
	}
	err := quota.Enforced(dir)
	if errors.Is(err, quota.ErrNone) {
		return unsupported("%s: the file system of %s can't bound what a directory takes: %w\nhint: %s; or --read-only, with volumes and "+
			"--tmpfs PATH:size=1g for what is written", flag, dir, err, quotaHint(dir))
	}
	c.Layer = &container.Layer{Bytes: size, Project: supervise.Project(c.ID)}
	return err
}

// quotaHint says how a file system comes to have project quotas.
func quotaHint(dir string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err == nil {
		switch st.Type {
		case unix.EXT4_SUPER_MAGIC:
			return "ext4 has project quotas after tune2fs -O quota,project DEVICE (unmounted) and when it is mounted with prjquota, if the kernel " +
				"has them (CONFIG_QUOTA)"
		case unix.XFS_SUPER_MAGIC:
			return "XFS has project quotas when it is mounted with pquota, if the kernel has them (CONFIG_XFS_QUOTA)"
		}
	}
	return "--root on a file system of its own, ext4 mounted with prjquota or XFS mounted with pquota, has them"
}

// makeBound bounds the layer of a container whose directories have just been made, before anything can be written there. Each start makes
// the same step again.
func (e *Engine) makeBound(c *container.Container) error {
	if c.Layer == nil {
		return nil
	}
	n, err := supervise.TakeProject(e.cfg.Root, c.ID)
	if err != nil {
		return err
	}
	c.Layer.Project = n
	dir := e.dir(c.ID)
	return fork.Quota(&plan.Quota{Dirs: []string{filepath.Join(dir, "upper"), filepath.Join(dir, "work")}, Project: n, Bytes: c.Layer.Bytes})
}

// dropBound takes the bound of a container back that is gone.
func (e *Engine) dropBound(c *container.Container) {
	if c.Layer != nil {
		supervise.DropProject(e.cfg.Root, c.Layer.Project)
	}
}

// checkProjects takes back bounds of containers that are gone.
func (e *Engine) checkProjects(repair bool, found func(image.Finding)) error {
	stale, err := supervise.SweepProjects(e.cfg.Root, repair)
	for _, n := range stale {
		f := image.Finding{
			What:  filepath.Join(supervise.Projects, strconv.FormatUint(uint64(n), 10)),
			Text:  "the container whose layer was bounded as project " + strconv.FormatUint(uint64(n), 10) + " is gone",
			Minor: true,
		}
		if repair {
			f.Done = "taken back"
		}
		found(f)
	}
	return err
}
