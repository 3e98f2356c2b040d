package supervise

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"glassbox/host/quota"
	"glassbox/state"
)

// Projects is the directory, below the root, in which a symbolic link NUMBER → ID stands for each project that a container has: the number
// by which the file system bounds what the container writes (package quota). Where no container has one there is no such directory.
const Projects = "projects"

// projectBase is the least number that is given away: people count from 1, and so do other engines.
const projectBase = 1 << 30

// Project is the number that a container gets if nobody has it. It follows from the ID, which is random, so that installations that share a
// file system hardly ever meet.
func Project(id string) uint32 {
	n, _ := strconv.ParseUint(id[:min(len(id), 7)], 16, 32)
	return projectBase + uint32(n)
}

// lockProjects lets one process at a time give numbers away or take them back.
func lockProjects(root string) (unlock func(), err error) {
	dir := filepath.Join(root, Projects)
	if unlock, err = state.LockDir(dir); err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return unlock, nil
}

// TakeProject gives a container, whose directory is there, a project of its own: one that no other container and nobody else on that file
// system has.
func TakeProject(root, id string) (uint32, error) {
	if err := os.Mkdir(filepath.Join(root, Projects), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return 0, err
	}
	unlock, err := lockProjects(root)
	if err != nil {
		return 0, err
	}
	defer unlock()
	if _, err := sweepProjects(root, true); err != nil {
		return 0, err
	}
	dir := filepath.Join(root, "containers", id)
	for n := Project(id); ; n++ {
		// Somebody else's: another engine's, another installation's, or files that were copied from one.
		used, err := quota.Get(dir, n)
		if err != nil {
			return 0, err
		}
		if used != (quota.Usage{}) {
			continue
		}
		err = os.Symlink(id, filepath.Join(root, Projects, strconv.FormatUint(uint64(n), 10)))
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		return n, err
	}
}

// DropProject takes back the project of a container that is gone. What isn't taken back now, [SweepProjects] finds.
func DropProject(root string, n uint32) {
	unlock, err := lockProjects(root)
	if err != nil {
		return
	}
	defer unlock()
	if id, err := os.Readlink(filepath.Join(root, Projects, strconv.FormatUint(uint64(n), 10))); err == nil {
		_ = dropProject(root, n, id)
	}
}

// dropOf takes the project of a container back that its job has removed.
func dropOf(job *Job) {
	if job.Project != 0 {
		DropProject(filepath.Dir(filepath.Dir(job.Dir)), job.Project) // DIR is ROOT/containers/ID
	}
}

// dropProject takes a project back if its container is gone; the lock is held.
func dropProject(root string, n uint32, id string) error {
	if _, err := os.Lstat(filepath.Join(root, "containers", filepath.Base(id))); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// The bound first: the link says that there is one.
	if err := quota.Bound(filepath.Join(root, Projects), n, 0); err != nil && quota.Enforced(root) == nil {
		return err
	}
	return os.Remove(filepath.Join(root, Projects, strconv.FormatUint(uint64(n), 10)))
}

// SweepProjects lists the projects whose containers are gone, because somebody was killed before he could take them back, and does so if
// it is wished.
func SweepProjects(root string, mend bool) ([]uint32, error) {
	unlock, err := lockProjects(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer unlock()
	return sweepProjects(root, mend)
}

func sweepProjects(root string, mend bool) ([]uint32, error) {
	entries, err := os.ReadDir(filepath.Join(root, Projects))
	if err != nil {
		return nil, err
	}
	var stale []uint32
	for _, entry := range entries {
		n, err := strconv.ParseUint(entry.Name(), 10, 32)
		id, lerr := os.Readlink(filepath.Join(root, Projects, entry.Name()))
		if err != nil || lerr != nil {
			continue // not ours
		}
		if _, err := os.Lstat(filepath.Join(root, "containers", filepath.Base(id))); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		stale = append(stale, uint32(n))
		if mend {
			if err := dropProject(root, uint32(n), id); err != nil {
				return stale, err
			}
		}
	}
	return stale, nil
}
