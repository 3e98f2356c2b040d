package bundle

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"glassbox/cgroup"
	"glassbox/fork"
	"glassbox/host"
)

// CheckpointOptions are the flags of checkpoint.
type CheckpointOptions struct {
	CRIUFlags
	ParentPath      string // images of an earlier pre-dump, relative to ImagePath
	LeaveRunning    bool
	TCPSkipInFlight bool
	LinkRemap       bool
	PageServer      string // ADDRESS:PORT that gets the memory
	PreDump         bool   // memory only, and the container goes on
	StatusFD        int    // with LazyPages, gets a zero byte when the memory is served; -1: none
}

// Checkpoint writes the processes of a container into image files. Unless it is left running, it ends thereby, and is removed.
func (r *Runtime) Checkpoint(id string, o CheckpointOptions) error {
	c, l, err := r.open(id)
	if err != nil {
		return err
	}
	defer l.unlock()
	status := c.status()
	if status == Created || status == Stopped {
		return fmt.Errorf("cannot checkpoint a container that is %s", status)
	}
	program, err := criu()
	if err != nil {
		// Before anything of the container is read: on most hosts there is no criu, and that is the error that helps.
		return err
	}
	if err := o.open(); err != nil {
		return err
	}
	defer o.close()
	opts, join, err := r.checkpointOptions(c, &o)
	if err != nil {
		return err
	}
	// A feature that is missing shows in criu late and in its log alone; asked beforehand it can be named.
	if err := o.can(program); err != nil {
		return err
	}
	for _, pid := range c.strangers() {
		r.warn("process %d was started in the container by exec: it is not part of the checkpoint", pid)
	}
	if status == Paused && !o.PreDump && !o.LeaveRunning {
		defer cgroup.Thaw(c.Cgroups) // so that what was killed can end
	}
	kind, action := reqDump, "dump"
	if o.PreDump {
		kind, action = reqPreDump, "pre-dump"
	}
	if o.LazyPages {
		l.unlock() // criu serves the memory until another command has restored it
	}
	a, err := criuCall(program, join, kind, opts, o.notify)
	if err != nil || !a.success {
		return criuError(program, action, filepath.Join(o.WorkPath, "dump.log"), a, err)
	}
	if o.PreDump || o.LeaveRunning {
		return nil
	}
	if o.LazyPages {
		if l, err = r.relock(c); err != nil || l == nil {
			return err
		}
		defer l.unlock()
	}
	// criu kills what it has written, and doesn't wait for it.
	if err := c.end(status); err != nil {
		return err
	}
	return r.destroy(c, l, false)
}

// notify hears what criu does. Whoever waits for its memory server is told when it is there.
func (o *CheckpointOptions) notify(script string, _ int, fds []int) error {
	for _, fd := range fds {
		unix.Close(fd)
	}
	if script != "status-ready" || o.StatusFD < 0 {
		return nil
	}
	fd := o.StatusFD
	o.StatusFD = -1
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte{0}); err != nil {
		return fmt.Errorf("--status-fd: %w", err)
	}
	return nil
}

// can asks criu whether it and the kernel can do what isn't everywhere.
func (o *CheckpointOptions) can(program string) error {
	const memTrack, lazyPages = 1, 2 // criu_features
	for _, f := range []struct {
		wanted bool
		field  int
		flag   string
		needs  string
	}{
		{o.PreDump || o.ParentPath != "", memTrack, "--pre-dump and --parent-path", "a kernel with CONFIG_MEM_SOFT_DIRTY"},
		{o.LazyPages, lazyPages, "--lazy-pages", "a kernel with userfaultfd(2)"},
	} {
		if !f.wanted {
			continue
		}
		var features message
		features.flag(f.field, true)
		a, err := criuCall(program, nil, reqFeatureCheck, features, nil)
		// An old criu doesn't know the question.
		if err != nil || !a.success {
			return nil // it will say more about it when it is to work
		}
		has := false
		err = a.features.each(func(field int, n uint64, _ []byte) { has = has || field == f.field && n != 0 })
		if err != nil {
			return err
		}
		if !has {
			return fmt.Errorf("%s: criu can't do it here: it needs %s", f.flag, f.needs)
		}
	}
	return nil
}

// checkpointOptions makes what criu has to know, and says in which namespaces it is to be. What restore
// has to know is noted beside the images.
func (r *Runtime) checkpointOptions(c *record, o *CheckpointOptions) (m message, join []string, err error) {
	p, err := r.plan(c.ID)
	if err != nil {
		return nil, nil, err
	}
	spec, err := r.config(c)
	if err != nil {
		return nil, nil, err
	}
	if err := checkMounts(spec); err != nil {
		return nil, nil, err
	}
	m, err = o.options("dump.log", spec)
	if err != nil {
		return nil, nil, err
	}
	m.number(optPID, uint64(c.PID))
	// A pre-dump that others build on needs the kernel to note which pages are written from now on, and so does one that
	// builds on another.
	m.flag(optTrackMem, o.PreDump || o.ParentPath != "")
	if o.ParentPath != "" {
		if filepath.IsAbs(o.ParentPath) {
			return nil, nil, fmt.Errorf("--parent-path: %q: it must be relative to --image-path", o.ParentPath)
		}
		if st, err := os.Stat(filepath.Join(o.ImagePath, o.ParentPath)); err != nil || !st.IsDir() {
			return nil, nil, fmt.Errorf("--parent-path: %q is no directory, as seen from --image-path", o.ParentPath)
		}
		m.string(optParent, o.ParentPath)
	}
	if o.PageServer != "" {
		// The last colon: an IPv6 address has more, in brackets.
		i := strings.LastIndexByte(o.PageServer, ':')
		port, err := strconv.ParseUint(o.PageServer[i+1:], 10, 16)
		if i < 1 || err != nil {
			return nil, nil, fmt.Errorf("--page-server: %q is not ADDRESS:PORT", o.PageServer)
		}
		m.message(optPageServer, pair(strings.Trim(o.PageServer[:i], "[]"), int(port)))
	}
	if o.LazyPages && o.StatusFD >= 0 {
		flags, err := unix.FcntlInt(uintptr(o.StatusFD), unix.F_GETFL, 0)
		if err == nil && flags&unix.O_ACCMODE == unix.O_RDONLY {
			err = errors.New("it is open for reading only")
		}
		if err != nil {
			return nil, nil, fmt.Errorf("--status-fd: %d: %w", o.StatusFD, err)
		}
	}
	m.flag(optSkipInFlight, o.TCPSkipInFlight)
	m.flag(optLinkRemap, o.LinkRemap)
	m.flag(optLeaveRunning, o.LeaveRunning && !o.PreDump)
	// With the freezer criu stops all processes at once, and finds a paused container as it is.
	for _, file := range []string{filepath.Join(c.Cgroups[""], "cgroup.freeze"), filepath.Join(c.Cgroups["freezer"], "freezer.state")} {
		if _, err := os.Stat(file); filepath.IsAbs(file) && err == nil {
			m.string(optFreezer, filepath.Dir(file))
			break
		}
	}
	note := image{Namespaces: map[string]int{}}
	// Namespaces of others are left alone by criu, and have to be there again in restore, under a name or a descriptor.
	for _, kind := range others(p) {
		name, fd, err := foreign(kind)
		if err != nil {
			return nil, nil, err
		}
		var st unix.Stat_t
		if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/%s", c.PID, kind), &st); err != nil {
			return nil, nil, fmt.Errorf("the container's %s namespace: %w", kind, err)
		}
		note.Namespaces[kind] = fd
		if name == "" {
			join = append(join, fmt.Sprintf("/proc/%d/ns/%s", c.PID, kind))
		} else {
			m.string(optExternal, fmt.Sprintf("%s[%d]:%s", kind, st.Ino, name))
		}
	}
	if note.Mounts, err = c.hostMounts(p); err != nil {
		return nil, nil, err
	}
	for _, mount := range note.Mounts {
		m.string(optExternal, fmt.Sprintf("mnt[%s]:%s", mount.Mountpoint, mount.Mountpoint))
	}
	names, files, err := c.stdio()
	if err != nil {
		return nil, nil, err
	}
	for _, name := range files {
		m.string(optExternal, name)
	}
	if o.PreDump {
		return m, join, nil
	}
	if err := writeJSON(filepath.Join(o.ImagePath, descriptorsFile), names); err != nil {
		return nil, nil, err
	}
	return m, join, writeJSON(filepath.Join(o.ImagePath, imageFile), note)
}

// strangers are the processes of a container that don't descend from its first one, which criu doesn't see.
func (c *record) strangers() []int {
	if len(c.Cgroups) == 0 {
		return nil
	}
	pids, _ := cgroup.Procs(c.Cgroups)
	var list []int
	for _, pid := range pids {
		// Up through the parents to the first process. Whoever doesn't come by it was started from outside, by exec.
		s := host.Stat{Parent: pid}
		var err error
		for err == nil && s.Parent > 1 && s.Parent != c.PID {
			s, err = fork.ReadStat(s.Parent)
		}
		if err == nil && s.Parent != c.PID { // and not gone meanwhile
			list = append(list, pid)
		}
	}
	return list
}
