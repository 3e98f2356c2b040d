package image

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"glassbox/host/remove"
)

// variant makes the form of a layer that fits on the stack below.
func (p *pull) variant(h *held, below []Layer, id string) (*layerRecord, error) {
	if rec, err := p.store.lookupLayer(id); rec != nil || err != nil {
		return rec, err
	}
	in, rec := h.in, h.raw
	if in == nil {
		// The plain form exists and others may use it: same files by hard links, own directories.
		rec = *h.rec
		var err error
		if in, err = p.store.newIngest(); err != nil {
			return nil, err
		}
		if err := linkTree(filepath.Join(p.store.root, h.rec.Dir), int(in.f.Fd()), in.user, p.meter); err != nil {
			in.discard()
			return nil, fmt.Errorf("layer %s: %w", h.rec.ID, err)
		}
	}
	if err := mend(p.store, in, &rec, below, p.meter); err != nil {
		in.discard()
		return nil, err
	}
	rec.ID = id
	out, err := in.publish(rec, &p.sync)
	if err != nil {
		in.discard()
		return nil, err
	}
	if h.in != nil {
		h.in, h.rec = nil, out
	}
	return out, nil
}

// mending is what mend knows of a layer while it moves directories about.
type mending struct {
	m       *merged // the layers beneath
	root    int     // the layer
	user    bool
	meter   *meter
	implied []string
	is      map[string]bool // what is in implied
	links   []pendingLink
	hiding  []string
}

// mend makes a filled layer look as if it had been unpacked on top of the layers beneath. What it does for each directory is paid for
// from the pull's work.
func mend(s *Store, in *ingest, rec *layerRecord, below []Layer, mt *meter) error {
	m, err := openMerged(s.root, below)
	if err != nil {
		return err
	}
	defer m.close()
	m.meter = mt
	d := &mending{
		m: m, root: int(in.f.Fd()), user: in.user, meter: mt, is: map[string]bool{},
		implied: slices.Clone(rec.Implied), links: slices.Clone(rec.Links), hiding: slices.Clone(rec.Hiding),
	}
	for _, p := range d.implied {
		d.is[p] = true
	}
	// First what moves, because it changes the times of directories; parents come before children.
	for i := 0; i < len(d.implied); i++ {
		if err := d.follow(i); err != nil {
			return fmt.Errorf("layer %s: directory %.200q: %w", rec.ID, d.implied[i], err)
		}
	}
	for _, p := range d.hiding {
		if err := d.unhide(p); err != nil {
			return fmt.Errorf("layer %s: directory %.200q: %w", rec.ID, p, err)
		}
	}
	if err := mendLinks(s, in, d.links, below, mt); err != nil {
		return err
	}
	for _, p := range d.implied {
		f, err := m.lookup(p, false)
		if err == unix.ENOENT || err == unix.ENOTDIR {
			continue
		}
		if err != nil {
			return err
		}
		if f.is(unix.S_IFDIR) {
			err = inherit(d.root, p, f, in.user)
		}
		f.close()
		if err != nil {
			return fmt.Errorf("layer %s: directory %.200q: %w", rec.ID, p, err)
		}
	}
	return nil
}

// follow moves what the layer has in an implied directory to where a link leads that the layers beneath have in its place.
func (d *mending) follow(i int) error {
	p := d.implied[i]
	if p == "" {
		return nil
	}
	f, err := d.m.lookup(p, false)
	if err != nil {
		return over(err)
	}
	isLink := f.is(unix.S_IFLNK)
	f.close()
	if !isLink {
		return nil
	}
	to, err := d.m.destination(p)
	if err != nil || to == "" || to == p || strings.HasPrefix(to, p+"/") || strings.HasPrefix(p, to+"/") {
		return over(err) // the link leads nowhere: the directory takes its place
	}
	if err := d.meter.spend(len(d.implied) + len(d.links) + len(d.hiding)); err != nil {
		return err
	}
	// A directory that the layer describes at the new place keeps its description.
	described := map[string]bool{}
	for _, q := range d.implied[i+1:] {
		if rest, ok := strings.CutPrefix(q, p+"/"); ok {
			q = to + "/" + rest
			if fd, err := openBeneath(d.root, q); err == nil {
				unix.Close(fd)
				described[q] = !d.is[q]
			}
		}
	}
	made, ok, err := moveTree(d.root, p, to, d.user, d.meter)
	if err != nil {
		return fmt.Errorf("move to %.200q: %w", to, err)
	}
	if !ok {
		return nil
	}
	for j := i + 1; j < len(d.implied); j++ {
		if rest, ok := strings.CutPrefix(d.implied[j], p+"/"); ok && !described[to+"/"+rest] {
			delete(d.is, d.implied[j])
			d.implied[j] = to + "/" + rest
			d.is[d.implied[j]] = true
		}
	}
	for j := range d.links {
		if rest, ok := strings.CutPrefix(d.links[j].Name, p+"/"); ok {
			d.links[j].Name = to + "/" + rest
		}
	}
	for j := range d.hiding {
		if rest, ok := strings.CutPrefix(d.hiding[j]+"/", p+"/"); ok {
			d.hiding[j] = strings.TrimSuffix(to+"/"+rest, "/")
		}
	}
	for _, q := range made {
		d.implied = append(d.implied, q)
		d.is[q] = true
	}
	return nil
}

// over keeps the errors of a look-up that are no answer.
func over(err error) error {
	if errors.Is(err, ErrLimit) {
		return err
	}
	return nil
}

// unhide drops the whiteouts of a directory that hides nothing, and the directory with them if it was made for their sake.
func (d *mending) unhide(p string) error {
	ok, err := d.m.isDir(p)
	if err == nil && !ok {
		err = dropWhiteouts(d.root, p)
	}
	for up := p; err == nil && !ok && up != "" && d.is[up]; {
		gone, err := removeIfEmpty(d.root, up)
		if err != nil || !gone {
			return err
		}
		up = parentOf(up)
		if ok, err = d.m.isDir(up); err != nil {
			return err
		}
	}
	return err
}

func removeIfEmpty(root int, p string) (bool, error) {
	parent, base := splitPath(p)
	fd, err := openBeneath(root, parent)
	if err != nil {
		return false, nil
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return false, err
	}
	switch err := unix.Unlinkat(fd, base, unix.AT_REMOVEDIR); err {
	case nil:
		return true, setTimes(fd, &st)
	case unix.ENOTEMPTY, unix.EEXIST, unix.ENOENT, unix.ENOTDIR:
		return false, nil
	default:
		return false, err
	}
}

// dropWhiteouts removes the marks from a directory that hides nothing.
func dropWhiteouts(root int, p string) error {
	fd, err := openBeneath(root, p)
	if err == unix.ENOENT || err == unix.ENOTDIR || err == unix.ELOOP {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	err = eachEntry(fd, func(e os.DirEntry) error {
		var s unix.Stat_t
		if err := unix.Fstatat(fd, e.Name(), &s, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if isWhiteout(&s) {
			return unix.Unlinkat(fd, e.Name(), 0)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return setTimes(fd, &st)
}

// destination follows links to where a directory is or would be made; what is missing on the way stays as named.
func (m *merged) destination(p string) (string, error) {
	done, links := "", 0
	for rest := p; rest != ""; {
		var c string
		c, rest, _ = strings.Cut(rest, "/")
		if c == "" {
			continue
		}
		f, err := m.lookup(joinPath(done, c), false)
		if err == unix.ENOENT {
			done = joinPath(done, c)
			continue
		}
		if err != nil {
			return "", err
		}
		target := ""
		if f.is(unix.S_IFLNK) {
			target, err = readlinkat(f.dir, f.base)
		} else if !f.is(unix.S_IFDIR) {
			err = unix.ENOTDIR
		}
		f.close()
		if err != nil {
			return "", err
		}
		if target == "" {
			done = joinPath(done, c)
			continue
		}
		if links++; links > maxLinks {
			return "", unix.ELOOP
		}
		to, err := resolveLink(done, target)
		if err != nil {
			return "", err
		}
		done, rest = "", strings.TrimSuffix(to+"/"+rest, "/")
	}
	return done, nil
}

// inherit gives a directory of the layer the owner, mode, attributes and times of the one beneath it.
func inherit(root int, p string, from *found, user bool) error {
	fd, err := openBeneath(root, p)
	if err == unix.ENOENT || err == unix.ENOTDIR || err == unix.ELOOP {
		return nil // moved away, or replaced
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	src, err := unix.Openat(from.dir, from.base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	return copyMeta(src, fd, user, false)
}

// copyMeta copies owner, mode, attributes and times of a directory; marks says whether overlay's own marks go along.
func copyMeta(src, dst int, user, marks bool) error {
	var st unix.Stat_t
	if err := unix.Fstat(src, &st); err != nil {
		return err
	}
	if !user {
		if err := unix.Fchown(dst, int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	buf := make([]byte, 64<<10)
	n, err := unix.Flistxattr(src, buf)
	if err != nil && err != unix.EOPNOTSUPP {
		return err
	}
	// First, because it changes the mask of an ACL.
	if err := unix.Fchmod(dst, st.Mode&0o7777); err != nil {
		return err
	}
	for name := range strings.SplitSeq(string(buf[:max(n, 0)]), "\x00") {
		mark := strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.")
		acl := name == aclAccess || name == aclDefault
		if mark && !marks || !mark && !acl && !strings.HasPrefix(name, "user.") {
			continue
		}
		val := make([]byte, 64<<10)
		k, err := unix.Fgetxattr(src, name, val)
		if err != nil {
			return err
		}
		if err := unix.Fsetxattr(dst, name, val[:k], 0); err != nil {
			return err
		}
	}
	return setTimes(dst, &st)
}

// setTimes sets an open directory's times.
func setTimes(fd int, st *unix.Stat_t) error {
	return unix.UtimesNanoAt(fd, ".", []unix.Timespec{st.Atim, st.Mtim}, 0)
}

// mendLinks makes the hard links whose targets are in the layers beneath. Layers never change, so that they may share the
// file itself.
func mendLinks(s *Store, in *ingest, links []pendingLink, below []Layer, mt *meter) error {
	if len(links) == 0 {
		return nil
	}
	dirs := []string{in.dir}
	for _, l := range slices.Backward(below) {
		dirs = append(dirs, filepath.Join(s.root, l.Dir))
	}
	m, err := openMergedDirs(dirs)
	if err != nil {
		return err
	}
	defer m.close()
	m.meter = mt
	for _, l := range links {
		if err := mt.spend(strings.Count(l.Name, "/")); err != nil {
			return err
		}
		if err := mendLink(m, int(in.f.Fd()), l); err != nil {
			return err
		}
	}
	return nil
}

func mendLink(m *merged, root int, l pendingLink) error {
	f, err := m.lookup(l.Target, false)
	if errors.Is(err, ErrLimit) {
		return err
	}
	if err != nil || f.is(unix.S_IFDIR) {
		if err == nil {
			f.close()
			err = errors.New("is a directory")
		}
		return badEntry(l.Name, "a hard link to %q: %v", l.Target, err)
	}
	defer f.close()
	parent, base := splitPath(l.Name)
	fd, err := openBeneath(root, parent)
	if err != nil {
		return fmt.Errorf("layer entry %q: %w", l.Name, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if err := unix.Linkat(f.dir, f.base, fd, base, 0); err != nil {
		return fmt.Errorf("layer entry %q: hard link to %s: %w", l.Name, l.Target, err)
	}
	return setTimes(fd, &st)
}

// moveTree moves what a layer has in directory from to directory to, which the layer may have or not. It returns the
// directories that it had to make, and false without any change where something is in the way.
func moveTree(root int, from, to string, user bool, mt *meter) (made []string, ok bool, err error) {
	src, err := openBeneath(root, from)
	if err != nil {
		return nil, false, nil // moved with a parent already
	}
	defer unix.Close(src)
	dst, err := unix.Openat(root, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, false, err
	}
	defer func() { unix.Close(dst) }()
	path, fresh := "", false
	for c := range strings.SplitSeq(to, "/") {
		path = joinPath(path, c)
		// Deleted by this very layer, and needed again: a directory that shows nothing from beneath.
		var st unix.Stat_t
		if unix.Fstatat(dst, c, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && isWhiteout(&st) {
			if err := freshDir(dst, c, user); err != nil {
				return made, false, err
			}
			fresh = true
		}
		fd, err := unix.Openat(dst, c, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err == unix.ENOENT {
			if err := unix.Mkdirat(dst, c, 0o755); err != nil {
				return made, false, err
			}
			if !fresh {
				made = append(made, path)
			}
			fd, err = unix.Openat(dst, c, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		}
		if err != nil {
			return made, false, nil
		}
		unix.Close(dst)
		dst = fd
	}
	if err := mergeDir(src, dst, mt); err != nil {
		return made, false, err
	}
	parent, base := splitPath(from)
	pfd, err := openBeneath(root, parent)
	if err != nil {
		return made, false, err
	}
	defer unix.Close(pfd)
	return made, true, unix.Unlinkat(pfd, base, unix.AT_REMOVEDIR)
}

// freshDir turns a whiteout into an opaque directory.
func freshDir(dirfd int, name string, user bool) error {
	if err := unix.Unlinkat(dirfd, name, 0); err != nil {
		return err
	}
	if err := unix.Mkdirat(dirfd, name, 0o755); err != nil {
		return err
	}
	return markOpaqueAt(dirfd, name, user)
}

// mergeDir moves the entries of one directory into another; directories on both sides are merged.
func mergeDir(src, dst int, mt *meter) error {
	var st unix.Stat_t
	if err := unix.Fstat(dst, &st); err != nil {
		return err
	}
	if isOpaque(src) {
		if err := copyMarks(src, dst); err != nil {
			return err
		}
	}
	err := eachEntry(src, func(e os.DirEntry) error {
		if err := mt.spend(1); err != nil {
			return err
		}
		return mergeEntry(src, dst, e.Name(), mt)
	})
	if err != nil {
		return err
	}
	return setTimes(dst, &st)
}

// mergeEntry moves one entry; the one that is moved wins over what is there, except that two directories become one.
func mergeEntry(src, dst int, name string, mt *meter) error {
	err := unix.Renameat2(src, name, dst, name, unix.RENAME_NOREPLACE)
	if err != unix.EEXIST {
		return err
	}
	a, aerr := openDirAt(src, name)
	if aerr == nil {
		defer unix.Close(a)
	}
	b, berr := openDirAt(dst, name)
	if berr == nil {
		defer unix.Close(b)
	}
	switch {
	case aerr == nil && berr == nil:
		if err := mergeDir(a, b, mt); err != nil {
			return err
		}
		return unix.Unlinkat(src, name, unix.AT_REMOVEDIR)
	case berr == nil:
		err = remove.At(dst, name)
	case aerr == nil:
		err = unix.Unlinkat(dst, name, 0)
	default:
		err = nil
	}
	if err != nil {
		return err
	}
	return unix.Renameat(src, name, dst, name)
}

func copyMarks(src, dst int) error {
	for _, attr := range []string{opaqueAttr(false), opaqueAttr(true)} {
		var b [1]byte
		if n, err := unix.Fgetxattr(src, attr, b[:]); err == nil && n == 1 {
			if err := unix.Fsetxattr(dst, attr, b[:], 0); err != nil {
				return err
			}
		}
	}
	return nil
}

// eachEntry calls f for each entry of an open directory, a few at a time: a hostile one may have millions. F may take the entry out of
// the directory; what else changes there while it is read is seen or not, see readdir(3).
func eachEntry(fd int, f func(os.DirEntry) error) error {
	again, err := openDirAt(fd, ".")
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(again), ".")
	defer dir.Close()
	for {
		entries, err := dir.ReadDir(1024)
		for _, e := range entries {
			if err := f(e); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// linkTree copies a layer's directories and hard-links everything else.
func linkTree(from string, dst int, user bool, mt *meter) error {
	src, err := unix.Open(from, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	return linkDir(src, dst, user, mt)
}

func linkDir(src, dst int, user bool, mt *meter) error {
	err := eachEntry(src, func(e os.DirEntry) error {
		if err := mt.spend(1); err != nil {
			return err
		}
		if !e.IsDir() {
			if err := unix.Linkat(src, e.Name(), dst, e.Name(), 0); err != nil {
				return fmt.Errorf("link %.200q: %w", e.Name(), err)
			}
			return nil
		}
		if err := mt.write(4096); err != nil { // the files are shared, the directories are not
			return err
		}
		a, err := openDirAt(src, e.Name())
		if err != nil {
			return err
		}
		defer unix.Close(a)
		if err := unix.Mkdirat(dst, e.Name(), 0o700); err != nil {
			return err
		}
		b, err := openDirAt(dst, e.Name())
		if err != nil {
			return err
		}
		defer unix.Close(b)
		return linkDir(a, b, user, mt)
	})
	if err != nil {
		return err
	}
	return copyMeta(src, dst, user, true)
}
