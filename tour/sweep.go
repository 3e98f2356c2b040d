package tour

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/cgroup"
	facts "glassbox/host"
	"glassbox/plan"
)

// lockFile makes a lock file and holds it. It goes with the process, however that ends.
func lockFile(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	var here, there unix.Stat_t
	err = unix.Fstat(int(f.Fd()), &here)
	if err == nil {
		err = unix.Stat(name, &there)
	}
	if err == nil && here.Ino != there.Ino {
		err = unix.ENOENT
	}
	if err != nil { // somebody has removed it, and has held it until now
		f.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return f, nil
}

// sweep removes what tours have left that were killed.
func sweep(base string, f *facts.Facts) error {
	locks, err := filepath.Glob(filepath.Join(base, "*.lock"))
	if err != nil {
		return err
	}
	for _, file := range locks {
		lock, err := lockFile(file)
		if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.ENOENT) {
			continue // it is alive, or somebody else removes it
		}
		if err != nil {
			return err
		}
		dir := strings.TrimSuffix(file, ".lock")
		err = remove(dir, prefix+filepath.Base(dir), f)
		if err == nil {
			err = os.Remove(file)
		}
		lock.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// remove ends the processes of a tour and removes its cgroups, mounts and files.
func remove(dir, name string, f *facts.Facts) error {
	killMarked(name)
	var errs []error
	for _, h := range f.Cgroup.Hierarchies {
		errs = append(errs, removeCgroups(filepath.Join(h.Mount, name)))
	}
	if mounts, err := facts.MountsOf("self"); err == nil {
		var points []string
		for _, m := range mounts {
			if strings.HasPrefix(m.Point, dir+"/") {
				points = append(points, m.Point)
			}
		}
		slices.Sort(points)
		for _, p := range slices.Backward(points) {
			errs = append(errs, unix.Unmount(p, unix.MNT_DETACH))
		}
	}
	// Directories of the image may be without write permission, which stops an ordinary user.
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			if info, err := d.Info(); err == nil && info.Mode()&0o700 != 0o700 {
				os.Chmod(path, info.Mode().Perm()|0o700)
			}
		}
		return nil
	})
	return errors.Join(append(errs, os.RemoveAll(dir))...)
}

// removeCgroups removes a cgroup and those below it.
func removeCgroups(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeCgroups(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return cgroup.Remove(&plan.CgroupRemove{Path: dir})
}

// killMarked ends all processes of a tour. A process can begin another one while the list is read, so it is read until it is empty.
func killMarked(name string) {
	want := []byte(marker + "=" + name)
	for range 200 {
		found := false
		entries, err := os.ReadDir("/proc")
		if err != nil {
			return
		}
		for _, e := range entries {
			pid, err := strconv.Atoi(e.Name())
			if err != nil || pid == os.Getpid() {
				continue
			}
			environ, err := os.ReadFile("/proc/" + e.Name() + "/environ")
			if err != nil || !slices.ContainsFunc(bytes.Split(environ, []byte{0}), func(v []byte) bool { return bytes.Equal(v, want) }) {
				continue
			}
			found = unix.Kill(pid, unix.SIGKILL) == nil || found
		}
		if !found {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
}
