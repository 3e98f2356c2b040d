package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// variant makes the form of a layer that fits on the stack below.
func (p *pull) variant(h *held, below []Layer, id string) (*layerRecord, error) {
	// Another process, or another image of this one, may have made it.
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
		// Labels of SELinux and capabilities belong to the file where it is, and are the host's to set.
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
	// The layer itself on top: a link's target may be another link of this layer, made a moment ago.
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
