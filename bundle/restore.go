package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"glassbox/cgroup"
	"glassbox/compile"
	"glassbox/fork"
	"glassbox/host"
	"glassbox/plan"
)

// RestoreOptions are the flags of restore.
type RestoreOptions struct {
	CRIUFlags
	Bundle          string
	PIDFile         string
	Detach          bool
	LSMProfile      string // "apparmor:NAME" or "selinux:LABEL"
	LSMMountContext string
}

// Restore makes a container of the images of a checkpoint, and unless it is detached waits for its end, removes it and returns its
// exit status.
func (r *Runtime) Restore(id string, o RestoreOptions) (int, error) {
	program, err := criu()
	if err != nil {
		return 1, err
	}
	l, err := r.make(id)
	if err != nil {
		return 1, err
	}
	defer l.unlock()
	forward := &forwarder{}
	if !o.Detach {
		if err := forward.catch(); err != nil {
			return 1, err
		}
	}
	spec, text, err := r.read(o.Bundle)
	var c *record
	if err == nil {
		c, err = r.restore(id, spec, text, program, o)
	}
	if err != nil {
		os.RemoveAll(r.dir(id))
		return 1, err
	}
	if o.Detach {
		return 0, nil
	}
	// Nobody else waits for it: the process still has this pid, even if it has ended.
	pidfd, err := unix.PidfdOpen(c.PID, 0)
	if err != nil {
		return 1, fmt.Errorf("the restored process: %w", err)
	}
	defer unix.Close(pidfd)
	l.unlock() // state, kill and exec work while it runs
	code := forward.wait(&fork.Process{PID: c.PID, Pidfd: pidfd}, nil)
	l, err = r.lock(id)
	if err != nil {
		return code, nil // somebody has removed it
	}
	defer l.unlock()
	return code, r.destroy(c)
}

// restore makes the container. On an error nothing is left but its directory.
func (r *Runtime) restore(id string, spec *specs.Spec, text []byte, program string, o RestoreOptions) (*record, error) {
	bundle, err := filepath.Abs(o.Bundle)
	if err != nil {
		return nil, err
	}
	if spec.Process.Terminal {
		return nil, errors.New("/process/terminal: a container with a terminal can't be restored: criu's command line has no means to hand its other end over")
	}
	if err := checkNamespaces(spec); err != nil {
		return nil, err
	}
	//lint:ignore SA1019 prestart is deprecated, and still in use
	if h := spec.Hooks; h != nil && len(h.Prestart)+len(h.CreateRuntime)+len(h.CreateContainer)+len(h.StartContainer) > 0 {
		return nil, errors.New("/hooks: hooks of the creation and the start can't run in a restore: criu makes the container in one go")
	}
	if o.ManageCgroups == "strict" {
		return nil, errors.New("--manage-cgroups-mode: strict wants the cgroup not to exist, and it is made, with its limits, before criu begins")
	}
	if err := o.directories(); err != nil {
		return nil, err
	}
	input, err := r.input(id, bundle, spec)
	if err != nil {
		return nil, err
	}
	in := compile.RestoreInput{Input: input, Env: os.Environ()}
	mountpoint := filepath.Join(r.dir(id), "root")
	if err := os.Mkdir(mountpoint, 0o700); err != nil {
		return nil, err
	}
	out, err := r.compile(in.Input)
	if err != nil {
		return nil, err
	}
	pidFile := filepath.Join(r.dir(id), "restored.pid")
	if in.Argv, in.Namespaces, err = r.restoreArgs(out, &in.Facts, program, mountpoint, pidFile, &o); err != nil {
		return nil, err
	}
	in.Mountpoint = mountpoint
	p, err := compile.Restore(in)
	if err != nil {
		return nil, err
	}
	c := newRecord(id, in.Input, out, p)
	c.Restored = true
	if err := r.prepare(c, false); err != nil {
		return nil, err
	}
	r.debug(p)
	proc, err := fork.Start(p, fork.Options{OnExecFailure: fork.ExplainExec})
	if err != nil {
		return nil, err
	}
	unix.Close(proc.Pidfd)
	if ws := wait4(proc.PID); !ws.Exited() || ws.ExitStatus() != 0 {
		how := fmt.Errorf("exit status %d", ws.ExitStatus())
		if ws.Signaled() {
			how = fmt.Errorf("signal: %v", ws.Signal())
		}
		return nil, errors.Join(criuError(program, "restore", filepath.Join(o.WorkPath, "restore.log"), how), r.undo(c.left, true))
	}
	if err := r.restored(c, pidFile, text, out.Plan, o); err != nil {
		return nil, errors.Join(err, r.undo(c.left, true))
	}
	return c, nil
}

// restored writes down who the restored process is. The plan is the one that would have made the container: what it has is what
// later commands ask for.
func (r *Runtime) restored(c *record, pidFile string, config []byte, p *plan.Plan, o RestoreOptions) error {
	data, err := os.ReadFile(pidFile)
	if err == nil {
		c.PID, err = strconv.Atoi(string(bytes.TrimSpace(data)))
	}
	if err != nil {
		return fmt.Errorf("criu restore doesn't tell the pid: %w", err)
	}
	os.Remove(pidFile)
	if c.Start, err = fork.StartTime(c.PID); err != nil {
		return fmt.Errorf("the restored process %d: %w", c.PID, err)
	}
	// A process outside its cgroup would be without limits, and later commands wouldn't find it.
	if len(c.Cgroups) > 0 {
		pids, err := cgroup.Procs(c.Cgroups)
		if err != nil {
			return err
		}
		if !slices.Contains(pids, c.PID) {
			unix.Kill(c.PID, unix.SIGKILL)
			return fmt.Errorf("criu has not restored process %d into the container's cgroup", c.PID)
		}
	}
	if c.spec.Process.NoNewPrivileges {
		status, err := os.ReadFile("/proc/" + strconv.Itoa(c.PID) + "/status")
		if err != nil {
			return fmt.Errorf("the restored process %d: %w", c.PID, err)
		}
		if !bytes.Contains(status, []byte("\nNoNewPrivs:\t1\n")) {
			unix.Kill(c.PID, unix.SIGKILL)
			return fmt.Errorf("/process/noNewPrivileges: this criu has restored process %d without it: criu 3.17 doesn't keep it, 4.2 does", c.PID)
		}
	}
	if o.PIDFile != "" {
		if err := writeFile(o.PIDFile, []byte(strconv.Itoa(c.PID))); err != nil {
			return fmt.Errorf("--pid-file: %w", err)
		}
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{planFile, plan.AppendBinary(nil, p)}, {configFile, config}} {
		if err := r.write(c.ID, f.name, f.data); err != nil {
			return err
		}
	}
	if err := writeFile(filepath.Join(r.dir(c.ID), stateFile), c.text()); err != nil {
		return err
	}
	return r.poststart(c)
}

// restoreArgs makes criu's command line, and says under which descriptors it will look for namespaces.
func (r *Runtime) restoreArgs(out *compile.Output, facts *host.Facts, program, root, pidFile string, o *RestoreOptions) ([]string, map[string]int, error) {
	common, err := o.args("restore.log")
	if err != nil {
		return nil, nil, err
	}
	args := append([]string{program, "restore"}, common...)
	args = append(args, "--restore-detached", "--restore-sibling", "--root", root, "--pidfile", pidFile)
	if o.LSMProfile != "" {
		args = append(args, "--lsm-profile", o.LSMProfile)
	}
	if o.LSMMountContext != "" {
		args = append(args, "--lsm-mount-context", o.LSMMountContext)
	}
	roots, err := cgroupRoots(out.Cgroups, facts)
	if err != nil {
		return nil, nil, err
	}
	args = append(args, roots...)
	trees, err := hostTrees(out.Plan)
	if err != nil {
		return nil, nil, err
	}
	var note image
	err = readJSON(filepath.Join(o.ImagePath, imageFile), &note)
	if os.IsNotExist(err) { // another runtime's checkpoint
		err = nil
		for target := range maps.Keys(trees) {
			note.Mounts = append(note.Mounts, hostMount{Mountpoint: target, Target: target})
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("--image-path: %w", err)
	}
	for _, m := range note.Mounts {
		source := "/dev/null"
		if m.Target != "" {
			tree := trees[m.Target]
			if tree == nil {
				return nil, nil, fmt.Errorf("/mounts: the checkpoint has a bind mount on %s, and the configuration has none", m.Target)
			}
			source = path.Join(tree.Path, m.Below)
		}
		made := slices.Contains(slices.Collect(maps.Values(out.Cgroups)), source) // the container's cgroup will be there
		if _, err := os.Stat(source); err != nil && !made {
			return nil, nil, fmt.Errorf("/mounts: the source of the mount on %s: %w", m.Mountpoint, err)
		}
		args = append(args, "--external", fmt.Sprintf("mnt[%s]:%s", m.Mountpoint, source))
	}
	for target := range trees {
		if !slices.ContainsFunc(note.Mounts, func(m hostMount) bool { return m.Target == target }) {
			return nil, nil, fmt.Errorf("/mounts: the configuration has a bind mount on %s, and the checkpoint has none", target)
		}
	}
	kinds := others(out.Plan)
	for kind := range note.Namespaces {
		if !slices.Contains(kinds, kind) {
			return nil, nil, fmt.Errorf("/linux/namespaces: the checkpoint shares the %s namespace of others, and the configuration doesn't", kind)
		}
	}
	fds := map[string]int{}
	for _, kind := range kinds {
		name, fd, err := foreign(kind)
		if err != nil {
			return nil, nil, err
		}
		fds[kind] = fd
		args = append(args, "--inherit-fd", fmt.Sprintf("fd[%d]:%s", fd, name))
	}
	var names []string
	if err := readJSON(filepath.Join(o.ImagePath, descriptorsFile), &names); err != nil {
		return nil, nil, fmt.Errorf("--image-path: %w", err)
	}
	for fd, name := range names[:min(3, len(names))] {
		if strings.HasPrefix(name, "file[") {
			if _, err := unix.Seek(fd, 0, unix.SEEK_CUR); err != nil {
				return nil, nil, fmt.Errorf("descriptor %d was a file at the checkpoint, which criu can replace by another file or /dev/null only: %w", fd, err)
			}
		}
		if (strings.HasPrefix(name, "pipe:[") || strings.HasPrefix(name, "file[")) && !slices.Contains(names[:fd], name) {
			args = append(args, "--inherit-fd", fmt.Sprintf("fd[%d]:%s", fd, name))
		}
	}
	return args, fds, nil
}

// cgroupRoots tells criu the container's cgroups, which may be others than before. A root without a controller, as v2 has it, counts
// for all that have none of their own: in hierarchies that glassbox doesn't use the processes stay where criu is.
func cgroupRoots(cgroups map[string]string, facts *host.Facts) ([]string, error) {
	var args []string
	used := map[string]bool{}
	for _, h := range facts.Cgroup.Hierarchies {
		key, prefix := "", ""
		if !h.V2 {
			if len(h.Controllers) == 0 {
				continue
			}
			key = h.Controllers[0] // criu compares with each one of a hierarchy
			prefix = key + ":"
		}
		if rest, ok := strings.CutPrefix(cgroups[key], h.Mount); ok {
			args = append(args, "--cgroup-root", prefix+path.Join("/", rest))
			used[key] = true
		}
	}
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(data)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) < 3 || f[1] == "" {
			continue
		}
		controllers := strings.Split(f[1], ",")
		if !slices.ContainsFunc(controllers, func(c string) bool { return used[c] }) {
			args = append(args, "--cgroup-root", controllers[0]+":"+f[2])
		}
	}
	return args, nil
}
