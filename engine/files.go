package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/container"
	"glassbox/fork"
	"glassbox/host/tree"
	"glassbox/plan"
	"glassbox/spec"
	"glassbox/state"
	"glassbox/supervise"
	"glassbox/volume"
)

// files is a container's file system as the container sees it, with its volumes: that of its first process while it runs, else one that is
// mounted for the occasion in a mount namespace that ends with close.
type files struct {
	container *container.Container
	root      int // O_PATH; names below it are looked up by package tree alone
	close     func()
}

// openFiles opens the files of a container. While those of one that doesn't run are open, it can't be started or removed.
func (e *Engine) openFiles(ctx context.Context, ref string) (*files, error) {
	id, err := e.find(ctx, ref)
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(10 * time.Second); ; {
		c, s, err := e.loadID(id)
		if err != nil {
			return nil, err
		}
		if s.Alive() {
			root, err := rootOf(s)
			if err == nil {
				return &files{c, root, func() { unix.Close(root) }}, nil
			}
			if !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.ENOENT) {
				return nil, err
			}
			// It has ended between the two looks. Its files are there all the same, and are mounted for the occasion below.
		}
		lock, fresh, err := state.Lock(e.lockFile(id), false)
		if err == nil {
			if !fresh {
				err = supervise.RepairOne(e.dir(id), e.nameFileOf)
			}
			f := &files{container: c}
			if err == nil {
				f, err = e.mountFiles(ctx, c)
			}
			if err != nil {
				state.Unlock(lock, e.lockFile(id))
				return nil, err
			}
			unmount := f.close
			f.close = func() {
				unmount()
				state.Unlock(lock, e.lockFile(id))
			}
			return f, nil
		}
		if err != unix.EWOULDBLOCK {
			return nil, err
		}
		if time.Now().After(end) {
			return nil, conflict("container %s is %s, or being changed by another command: try again", ref, s.Status)
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// rootOf opens the root directory of a container's first process, and of no other that may have its pid by now.
func rootOf(s *supervise.State) (int, error) {
	pidfd, err := unix.PidfdOpen(s.PID, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(pidfd)
	// Asked after the descriptor is open: from then on the pid can't become another process's unseen.
	if start, err := fork.StartTime(s.PID); err != nil || start != s.Start {
		return -1, unix.ESRCH
	}
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", s.PID), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.PidfdSendSignal(pidfd, 0, nil, 0); err != nil { // it was the process until now
		unix.Close(root)
		return -1, err
	}
	return root, nil
}

// mountFiles mounts the files of a container that doesn't run and whose lock is held.
func (e *Engine) mountFiles(ctx context.Context, c *container.Container) (*files, error) {
	facts, err := e.Facts(ctx)
	if err != nil {
		return nil, err
	}
	if facts.UID != 0 {
		return nil, unsupported("the files of a container that doesn't run can be mounted by root only: use sudo")
	}
	img, err := e.imageOf(c)
	if err != nil {
		return nil, err
	}
	f := &files{container: c}
	opened, end, ended := make(chan error), make(chan bool), make(chan bool)
	go func() {
		defer close(ended)
		runtime.LockOSThread() // for good: thread and mount namespace end with this function
		err := e.mountHere(ctx, c, f, func() (*plan.Overlay, error) { return spec.Overlay(e.specInput(c, img, facts, nil)) })
		opened <- err
		if err == nil {
			<-end
		}
	}()
	if err := <-opened; err != nil {
		<-ended
		return nil, fmt.Errorf("mount the files of container %s: %w", c.Name, err)
	}
	f.close = func() {
		unix.Close(f.root)
		close(end)
		<-ended
	}
	return f, nil
}

// mountHere enters a new mount namespace with the calling thread, and mounts a container's files there.
func (e *Engine) mountHere(ctx context.Context, c *container.Container, f *files, describe func() (*plan.Overlay, error)) (err error) {
	// CLONE_FS, too: mountOverlay changes this thread's working directory, which all threads of a Go program share
	// otherwise.
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return err
	}
	// Private, or every mount made here would appear on the host as well, where systemd makes / shared.
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return err
	}
	overlay, err := describe()
	if err != nil {
		return err
	}
	dir := filepath.Join(e.dir(c.ID), "merged")
	if overlay == nil { // a plain directory
		dir = c.Config.Rootfs.Dir
	} else if err := mountOverlay(overlay); err != nil {
		return err
	}
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	mounts := c.Mounts()
	// A mount on /a hides what was mounted on /a/b before, so those with fewer slashes come first.
	slices.SortStableFunc(mounts, func(a, b container.Mount) int { return strings.Count(a.Target, "/") - strings.Count(b.Target, "/") })
	for _, m := range mounts {
		if err := e.attachHere(ctx, root, c, &m); err != nil {
			unix.Close(root)
			return fmt.Errorf("%s: %w", originOfMount(&m), err)
		}
	}
	// Last: the targets of mounts may have to be made in the root.
	if c.Config.ReadOnly && overlay != nil {
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		if err := unix.MountSetattr(root, "", unix.AT_EMPTY_PATH, &attr); err != nil {
			unix.Close(root)
			return err
		}
	}
	f.root = root
	return nil
}

// mountOverlay mounts a container's root in the calling thread's mount namespace. Paths are relative to the store, which becomes the
// thread's working directory.
func mountOverlay(o *plan.Overlay) error {
	if err := unix.Chdir(o.Dir); err != nil {
		return err
	}
	options := slices.DeleteFunc(slices.Clone(o.Options), func(s string) bool { return s == "volatile" }) // which allows no second mount
	// mount(2) takes one page of options, which some hundred layers fill. There fsconfig(2) names one layer at a time.
	if !o.Append {
		data := append([]string{"lowerdir=" + strings.Join(o.Lower, ":"), "upperdir=" + o.Upper, "workdir=" + o.Work}, options...)
		return unix.Mount("overlay", o.Target, "overlay", 0, strings.Join(data, ","))
	}
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fs)
	set := func(key, value string) {
		if err == nil {
			err = unix.FsconfigSetString(fs, key, value)
		}
	}
	for _, l := range o.Lower {
		set("lowerdir+", l)
	}
	set("upperdir", o.Upper)
	set("workdir", o.Work)
	for _, opt := range options {
		key, value, _ := strings.Cut(opt, "=")
		set(key, value)
	}
	if err == nil {
		err = unix.FsconfigCreate(fs)
	}
	if err != nil {
		return err
	}
	mount, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(mount)
	return unix.MoveMount(mount, "", unix.AT_FDCWD, o.Target, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// attachHere mounts a volume or a bind mount below a container's root. A container that never ran finds in its volumes what the image has,
// as it will when it starts.
func (e *Engine) attachHere(ctx context.Context, root int, c *container.Container, m *container.Mount) error {
	source, beneath := m.Source, ""
	var err error
	switch {
	case m.Type == container.Volume && m.Dir != "":
		source = filepath.Join(e.dir(c.ID), m.Dir)
	case m.Type == container.Volume:
		v, err := e.volumes().Get(m.Source)
		if err != nil {
			return ofVolume(err)
		}
		if source, err = e.volumeHere(ctx, root, c, v, m); err != nil {
			return err
		}
		beneath = m.Subpath
	case m.Type == container.Layers:
		if source, err = e.layersHere(ctx, c, m); err != nil {
			return err
		}
		beneath = m.Subpath
	case m.Type != container.Bind:
		return nil // memory, which it will get when it starts
	}
	// A clone of the mount, not its path: between a look and a mount a container's link could change what the path means.
	mount, err := fork.OpenTree(&plan.OpenTree{Path: source, Beneath: beneath, NoLinks: m.NoLinks, Recursive: m.Type == container.Bind})
	if errors.Is(err, unix.ENOENT) && m.Type == container.Bind {
		return nil // it will be made, or refused, when the container starts
	}
	if err != nil {
		return err
	}
	defer unix.Close(mount)
	if m.ReadOnly {
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		if err := unix.MountSetattr(mount, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
			return err
		}
	}
	target, err := tree.Lookup(root, m.Target, true)
	if errors.Is(err, unix.ENOENT) {
		target, err = makeTarget(root, m.Target, mount)
	}
	if err != nil {
		return err
	}
	defer unix.Close(target)
	return unix.MoveMount(mount, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// volumeHere finds the files of a volume, mounts its file system in this thread's mount namespace if the host hasn't, and fills it.
func (e *Engine) volumeHere(ctx context.Context, root int, c *container.Container, v *volume.Volume, m *container.Mount) (string, error) {
	answer, err := e.volumeAnswer(ctx, c, v, m)
	if err != nil {
		return "", err
	}
	if answer.Source == "" {
		answer.Source = e.volumes().Data(m.Source)
	}
	if answer.Mount != nil {
		mounted, err := fork.Mounted(answer.Source)
		if err != nil {
			return "", err
		}
		if !mounted && slices.Contains([]string{"tmpfs", "ramfs"}, answer.Mount.Type) {
			// What is written there would be gone in a moment: that is refused, as on any mount that can't be written.
			return answer.Source, fork.Mount(&plan.HostMount{Type: "tmpfs", Source: "tmpfs", Flags: []string{"ro"}, Target: answer.Source})
		}
		if !mounted {
			if err := fork.Mount(answer.Mount); err != nil {
				return "", err
			}
		}
	}
	return answer.Source, e.fillHere(root, m, answer)
}

// layersHere mounts the files of an image in this thread's mount namespace.
func (e *Engine) layersHere(ctx context.Context, c *container.Container, m *container.Mount) (string, error) {
	var a spec.Answers
	if err := e.gatherLayers(c, m, &a); err != nil {
		return "", err
	}
	facts, err := e.Facts(ctx)
	if err != nil {
		return "", err
	}
	mount, err := spec.ImageMount(e.specInput(c, nil, facts, &a), m)
	if err != nil {
		return "", err
	}
	return mount.Target, fork.Mount(mount)
}

func (e *Engine) fillHere(root int, m *container.Mount, answer spec.Volume) error {
	if answer.Filled || m.NoCopy || m.Subpath != "" {
		return nil
	}
	fd, err := tree.Lookup(root, m.Target, true)
	if err != nil {
		return nil //nolint:nilerr // the image has nothing there
	}
	defer unix.Close(fd)
	dir, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil //nolint:nilerr // no directory
	}
	source := os.NewFile(uintptr(dir), m.Target)
	defer source.Close()
	if !answer.Device {
		return fork.FillVolume(e.volumes().Path(m.Source), source)
	}
	data, err := os.Open(answer.Source)
	if err != nil {
		return err
	}
	defer data.Close()
	return fork.FillWithin(e.volumes().Path(m.Source), data, source)
}

// makeTarget makes what a mount needs to be attached to, as a start does.
func makeTarget(root int, target string, mount int) (int, error) {
	var st unix.Stat_t
	if err := unix.Fstat(mount, &st); err != nil {
		return -1, err
	}
	parts := strings.Split(strings.Trim(target, "/"), "/")
	for i := range parts {
		name := path.Join(parts[:i+1]...)
		dir, base, err := tree.Parent(root, name)
		if err != nil {
			return -1, err
		}
		if i == len(parts)-1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			err = unix.Mknodat(int(dir.Fd()), base, unix.S_IFREG|0o644, 0)
		} else {
			err = unix.Mkdirat(int(dir.Fd()), base, 0o755)
		}
		dir.Close()
		if err != nil && err != unix.EEXIST {
			return -1, err
		}
	}
	return tree.Lookup(root, target, true)
}
