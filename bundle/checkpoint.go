package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"glassbox/cgroup"
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
		return err
	}
	args, err := r.checkpointArgs(c, &o)
	if err != nil {
		return err
	}
	for _, pid := range c.strangers() {
		r.warn("process %d was started in the container by exec: it is not part of the checkpoint", pid)
	}
	if status == Paused && !o.PreDump && !o.LeaveRunning {
		defer cgroup.Thaw(c.Cgroups) // so that what was killed can end
	}
	if err := exec.Command(program, args...).Run(); err != nil {
		return criuError(program, args[0], filepath.Join(o.WorkPath, "dump.log"), err)
	}
	if o.PreDump || o.LeaveRunning {
		return nil
	}
	if err := c.end(status); err != nil {
		return err
	}
	return r.destroy(c)
}

// checkpointArgs makes criu's command line, and notes beside the images what restore has to know.
func (r *Runtime) checkpointArgs(c *record, o *CheckpointOptions) ([]string, error) {
	p, err := r.plan(c.ID)
	if err != nil {
		return nil, err
	}
	spec, err := r.config(c)
	if err != nil {
		return nil, err
	}
	if spec.Process.Terminal {
		return nil, errors.New("/process/terminal: a container with a terminal can't be checkpointed: criu's command line has no means to hand its other end over again")
	}
	if err := checkNamespaces(spec); err != nil {
		return nil, err
	}
	if err := o.directories(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.ImagePath, 0o700); err != nil {
		return nil, fmt.Errorf("--image-path: %w", err)
	}
	common, err := o.args("dump.log")
	if err != nil {
		return nil, err
	}
	args := []string{"dump"}
	if o.PreDump {
		args = []string{"pre-dump", "--track-mem"}
	}
	args = append(append(args, common...), "--tree", strconv.Itoa(c.PID))
	if o.ParentPath != "" {
		if filepath.IsAbs(o.ParentPath) {
			return nil, fmt.Errorf("--parent-path: %q: it must be relative to --image-path", o.ParentPath)
		}
		if st, err := os.Stat(filepath.Join(o.ImagePath, o.ParentPath)); err != nil || !st.IsDir() {
			return nil, fmt.Errorf("--parent-path: %q is no directory, as seen from --image-path", o.ParentPath)
		}
		args = append(args, "--prev-images-dir", o.ParentPath)
		if !o.PreDump {
			args = append(args, "--track-mem")
		}
	}
	if o.PageServer != "" {
		host, port, err := net.SplitHostPort(o.PageServer)
		if err != nil {
			return nil, fmt.Errorf("--page-server: %w", err)
		}
		args = append(args, "--page-server", "--address", host, "--port", port)
	}
	if o.TCPSkipInFlight {
		args = append(args, "--skip-in-flight")
	}
	if o.LinkRemap {
		args = append(args, "--link-remap")
	}
	if o.LeaveRunning && !o.PreDump {
		args = append(args, "--leave-running")
	}
	// With the freezer criu stops all processes at once, and finds a paused container as it is.
	for _, file := range []string{filepath.Join(c.Cgroups[""], "cgroup.freeze"), filepath.Join(c.Cgroups["freezer"], "freezer.state")} {
		if _, err := os.Stat(file); filepath.IsAbs(file) && err == nil {
			args = append(args, "--freeze-cgroup", filepath.Dir(file))
			break
		}
	}
	note := image{Namespaces: map[string]int{}}
	for _, kind := range others(p) {
		name, fd, err := foreign(kind)
		if err != nil {
			return nil, err
		}
		var st unix.Stat_t
		if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/%s", c.PID, kind), &st); err != nil {
			return nil, fmt.Errorf("the container's %s namespace: %w", kind, err)
		}
		note.Namespaces[kind] = fd
		args = append(args, "--external", fmt.Sprintf("%s[%d]:%s", kind, st.Ino, name))
	}
	if note.Mounts, err = c.hostMounts(p); err != nil {
		return nil, err
	}
	for _, m := range note.Mounts {
		args = append(args, "--external", fmt.Sprintf("mnt[%s]:%s", m.Mountpoint, m.Mountpoint))
	}
	names, files, err := c.stdio()
	if err != nil {
		return nil, err
	}
	for _, name := range files {
		args = append(args, "--external", name)
	}
	if o.PreDump {
		return args, nil
	}
	if err := writeJSON(filepath.Join(o.ImagePath, descriptorsFile), names); err != nil {
		return nil, err
	}
	return args, writeJSON(filepath.Join(o.ImagePath, imageFile), note)
}

// strangers are the processes of a container that don't descend from its first one, which criu doesn't see.
func (c *record) strangers() []int {
	if len(c.Cgroups) == 0 {
		return nil
	}
	pids, _ := cgroup.Procs(c.Cgroups)
	var list []int
	for _, pid := range pids {
		for p := pid; p != c.PID; {
			if p = parent(p); p <= 1 {
				list = append(list, pid)
				break
			}
		}
	}
	return list
}

// parent is the process whose child a process is, 0 if it has none or is gone.
func parent(pid int) int {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	i := bytes.LastIndexByte(data, ')') // proc_pid_stat(5): the parent is the second field after the name
	if err != nil || i < 0 {
		return 0
	}
	f := bytes.Fields(data[i+1:])
	if len(f) < 2 {
		return 0
	}
	n, _ := strconv.Atoi(string(f[1]))
	return n
}
