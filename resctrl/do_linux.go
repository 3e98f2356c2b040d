package resctrl

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// Create makes a class or a monitoring group. One that is there was made by somebody else in the meantime.
func Create(op *plan.ResctrlCreate) error {
	err := unix.Mkdir(op.Path, 0o755)
	if err == nil {
		return nil
	}
	hint := ""
	switch {
	case err == unix.ENOSPC:
		hint = " (the processor has a small number of them, info/*/num_closids and info/L3_MON/num_rmids, and all are in use)"
	case err == unix.EPERM || err == unix.EACCES || err == unix.EROFS:
		hint = " (only root of the host makes them, and only where processor and kernel share resources out)"
	}
	return fmt.Errorf("make %s: %w%s%s", op.Path, err, said(op.Path, err), hint)
}

// Remove removes a class or a monitoring group. One that is gone is no error. What is in it, the kernel moves to the class above: so
// one that others may use is only removed while nobody is in it.
func Remove(op *plan.ResctrlRemove) error {
	if op.Shared {
		tasks, err := os.ReadFile(op.Path + "/tasks")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if len(tasks) > 0 {
			return nil
		}
	}
	if err := unix.Rmdir(op.Path); err != nil && err != unix.ENOENT {
		return &os.PathError{Op: "rmdir", Path: op.Path, Err: err}
	}
	return nil
}

// Write writes what a class has. The kernel takes all lines or none.
func Write(op *plan.ResctrlWrite) error {
	file := op.Path + "/schemata"
	if err := write(file, strings.Join(op.Schemata, "\n")+"\n"); err != nil {
		return fmt.Errorf("write %q to %s: %w%s", op.Schemata, file, err, said(op.Path, err))
	}
	return nil
}

// Check compares what a class has with what is wanted.
func Check(op *plan.ResctrlCheck) error {
	file := op.Path + "/schemata"
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return Compare(op, string(text))
}

// Compare is Check for who has read the class's file schemata.
func Compare(op *plan.ResctrlCheck, schemata string) error {
	gran, _ := parseNumber(word(filepath.Join(root(op.Path), "info/MB/bandwidth_gran")), 10)
	for _, line := range op.Schemata {
		if !has(schemata, line, gran) {
			return fmt.Errorf("the resource class %s exists and has something else than %q: %q", op.Path, line, strings.Fields(schemata))
		}
	}
	return nil
}

// Move puts all threads of processes into a place. The list is asked for again until nobody is left outside: what a thread forks
// before it is moved is outside, too.
func Move(p Place, processes func() ([]int, error)) error {
	for _, dir := range []string{p.Class, p.Monitor} {
		if dir == "" {
			continue
		}
		if err := move(dir, processes); err != nil {
			return err
		}
	}
	return nil
}

func move(dir string, processes func() ([]int, error)) error {
	file := dir + "/tasks"
	for range 100 {
		pids, err := processes()
		if err != nil {
			return err
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		inside, moved := strings.Fields(string(text)), false
		for _, pid := range pids {
			threads, _ := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/task") // none: it has ended
			for _, t := range threads {
				if slices.Contains(inside, t.Name()) {
					continue
				}
				moved = true
				if err := write(file, t.Name()); err != nil && !errors.Is(err, unix.ESRCH) {
					return fmt.Errorf("write %q to %s: %w%s", t.Name(), file, err, said(dir, err))
				}
			}
		}
		if !moved {
			return nil
		}
	}
	return fmt.Errorf("move threads to %s: new ones come all the time: %w", dir, unix.EBUSY)
}

// write is one write(2) into a file that exists.
func write(file, value string) error {
	fd, err := unix.Open(file, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(value))
	return err
}

// said is what the kernel has to say about a refusal, in the file info/last_cmd_status.
func said(dir string, err error) string {
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EPERM) {
		return ""
	}
	status := strings.TrimSpace(word(filepath.Join(root(dir), "info/last_cmd_status")))
	if status == "" || status == "ok" {
		return ""
	}
	return ": " + strings.ReplaceAll(status, "\n", "; ")
}

// root is where the file system begins: info is there.
func root(dir string) string {
	for d := dir; d != "/"; d = path.Dir(d) {
		if _, err := os.Stat(d + "/info"); err == nil {
			return d
		}
	}
	return dir
}

func word(file string) string {
	data, _ := os.ReadFile(file)
	return strings.TrimSpace(string(data))
}
