package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"glassbox/host/remove"
	"glassbox/state"
	"glassbox/supervise"
)

// keeper brings what a builder writes of its cache to the disk: once, when the build is over.
//
// A step is dozens of small transactions of BuildKit's and containerd's databases, each of which waits for the disk twice (fdatasync(2)),
// which takes longer than most steps do. So a builder that is there for one build has its records on an overlay file system with the option
// "volatile" (Documentation/filesystems/overlayfs.rst, since Linux 5.10), over the directory that they are in: it is asked to wait, and
// doesn't. Who is killed loses nothing by that: what was written is the kernel's. A power cut is another matter. A database may be older
// and younger in parts then, and files of steps may be empty, for which BuildKit never waits. So a mark says that there is a builder that
// doesn't wait, and in which boot of the machine. If that boot is over, the cache isn't what its records say, and it begins anew.
type keeper struct {
	place
	boot  string
	mark  *os.File
	under *os.File // the directory of records, below the mount
	steps [2]time.Time
}

// The words of the mark have the same length, so that one takes the place of the other with one write.
const (
	markOpen = "open" // somebody doesn't wait
	markKept = "kept" // all of it is on the disk
)

// databases are the files of records.
func databases() []string {
	return []string{"cache.db", "metadata_v2.db", "containerdmeta.db", "snapshots.db", "history.db"}
}

// gather makes the directory of records, into which an older glassbox's are moved. The caller holds the lock.
func (p place) gather() error {
	if err := os.MkdirAll(p.Records(), 0o700); err != nil {
		return err
	}
	moved := false
	for name, from := range map[string]string{"snapshots.db": "snapshots/metadata.db", "content": "content"} {
		moved = p.move(from, name) || moved
	}
	for _, name := range databases() {
		moved = p.move(name, name) || moved
	}
	// A builder that stays makes more files than one that doesn't: this one is there from the beginning, and is empty until then.
	f, err := os.OpenFile(filepath.Join(p.Records(), "history.db"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	f.Close()
	if !moved {
		return nil
	}
	return state.Sync(p.Records(), p.dir(), filepath.Join(p.dir(), "snapshots"))
}

// move leaves what is there already: an older glassbox that was used once more has made files of its own.
func (p place) move(from, to string) bool {
	to = filepath.Join(p.Records(), to)
	if _, err := os.Lstat(to); err == nil {
		return false
	}
	return os.Rename(filepath.Join(p.dir(), from), to) == nil
}

// keep begins with not waiting for the disk. Where the file system of the root can't be below an overlay it goes on waiting, and the keeper
// is nil. The caller holds the lock.
func (p place) keep() (*keeper, error) {
	k := &keeper{place: p, boot: supervise.BootID()}
	var err error
	if k.mark, err = os.OpenFile(filepath.Join(p.dir(), "mark"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600); err != nil {
		return nil, err
	}
	mounted, err := k.begin()
	if err != nil || !mounted {
		k.mark.Close()
		return nil, err
	}
	k.steps = k.changed()
	return k, nil
}

func (k *keeper) begin() (mounted bool, err error) {
	was, err := state.ReadFD(int(k.mark.Fd()))
	if err != nil {
		return false, err
	}
	word, boot, _ := strings.Cut(strings.TrimSpace(string(was)), " ")
	if word == markOpen && boot != k.boot {
		fmt.Fprintln(os.Stderr, "the machine went down before a build was on the disk: the build cache begins anew")
		if err := k.forget(); err != nil {
			return false, err
		}
	}
	if err := k.gather(); err != nil {
		return false, err
	}
	if k.under, err = os.Open(k.Records()); err != nil {
		return false, err
	}
	// Before anything is written that may get to the disk in parts. A builder that was killed in this boot has left it as it must be.
	if word != markOpen || boot != k.boot {
		if err := k.write(markOpen); err != nil {
			return false, err
		}
		if err := state.Sync(k.mark.Name()); err != nil {
			return false, err
		}
		if len(was) == 0 {
			if err := state.Sync(k.dir()); err != nil {
				return false, err
			}
		}
	}
	if err := k.mount(); err != nil {
		k.under.Close()
		// Nothing was written yet.
		return false, k.write(markKept)
	}
	return true, nil
}

// mount puts the overlay over the records, in the builder's own mount namespace.
func (k *keeper) mount() error {
	dir := filepath.Join(k.dir(), "volatile")
	// The last one's directory has a mark of the kernel's own, with which it would refuse the next mount.
	if err := remove.All(dir); err != nil {
		return err
	}
	for _, name := range []string{"", "work", "empty"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			return err
		}
	}
	at, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer at.Close()
	// By descriptors: names may have what an option can't (a comma, a colon).
	fd, under := fmt.Sprintf("/proc/self/fd/%d", at.Fd()), fmt.Sprintf("/proc/self/fd/%d", k.under.Fd())
	return unix.Mount("records", under, "overlay", unix.MS_NODEV|unix.MS_NOSUID|unix.MS_NOEXEC,
		fmt.Sprintf("volatile,lowerdir=%s/empty,upperdir=%s,workdir=%s/work", fd, under, fd))
}

func (k *keeper) write(word string) error {
	_, err := k.mark.WriteAt([]byte(word+" "+k.boot+"\n"), 0)
	return err
}

// changed says when a snapshot, or a content, was made or removed last.
func (k *keeper) changed() (at [2]time.Time) {
	for i, name := range []string{filepath.Join(k.dir(), "snapshots", "snapshots"), filepath.Join(k.Records(), "content", "blobs", "sha256")} {
		if st, err := os.Stat(name); err == nil {
			at[i] = st.ModTime()
		}
	}
	return at
}

// forget removes the cache. What is not of it stays: the lock, the mark, what RUNs left that is to be taken back, and what builds were made
// from.
func (k *keeper) forget() error {
	entries, err := os.ReadDir(k.dir())
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch e.Name() {
		case "lock", "mark", "runs", "roots", "inputs", "seccomp":
			continue
		}
		if err := remove.All(filepath.Join(k.dir(), e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// close waits for the disk, after which nobody may write. A nil keeper has waited all the time.
func (k *keeper) close() error {
	if k == nil {
		return nil
	}
	defer k.mark.Close()
	defer k.under.Close()
	if err := k.sync(); err != nil {
		return fmt.Errorf("bring the build cache to the disk: %w", err)
	}
	// That it is there needs no waiting: until this word is on the disk, too, the cache counts as lost with the power.
	return k.write(markKept)
}

func (k *keeper) sync() error {
	if k.changed() != k.steps { // with the files of steps
		return unix.Syncfs(int(k.mark.Fd()))
	}
	// At once: they share what the file system does for one of them.
	var all errgroup.Group
	for _, name := range databases() {
		all.Go(func() error {
			// Below the mount, where it means something.
			fd, err := unix.Openat(int(k.under.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
			if errors.Is(err, unix.ENOENT) {
				return nil
			}
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.Fdatasync(fd)
		})
	}
	return all.Wait()
}
