package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// resctrl imitates the kernel's file system of resource classes at a directory, with FUSE, for machines whose processor has none. It
// keeps to what Documentation/arch/x86/resctrl.rst says, as far as a runtime can see it: three classes beside the default one, two caches,
// four monitoring groups; a class's files appear with its directory; threads are in one class each, and what they fork as well; a
// removed class leaves its threads to the default one.
func resctrl(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: resctrl DIRECTORY")
	}
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("/dev/fuse: %w", err)
	}
	if err := unix.Mount("imitation", args[0], "fuse.resctrl", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other",
		fd)); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	c := &classes{
		fd: fd, nodes: map[uint64]string{1: "/"}, ids: map[string]uint64{"/": 1}, next: 1, dirs: map[string]*class{},
		in: map[int]string{}, said: "ok",
	}
	c.dirs["/"] = newClass()
	buf := make([]byte, 1<<17)
	for {
		n, err := unix.Read(fd, buf)
		switch {
		case err == unix.ENODEV:
			return nil // unmounted
		case err == unix.EINTR || err == unix.ENOENT:
		case err != nil:
			return err
		default:
			c.serve(buf[:n])
		}
	}
}

// withResctrl executes a program to which the imitation is the real one: in a mount namespace of its own, where its mountinfo says so.
func withResctrl(args []string) error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return err
	}
	mounts, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return err
	}
	file := fmt.Sprintf("/run/mountinfo.%d", os.Getpid())
	if err := os.WriteFile(file, bytes.ReplaceAll(mounts, []byte(" - fuse.resctrl "), []byte(" - resctrl ")), 0o644); err != nil {
		return err
	}
	if err := unix.Mount(file, fmt.Sprintf("/proc/%d/mountinfo", os.Getpid()), "", unix.MS_BIND, ""); err != nil {
		return err
	}
	return unix.Exec(args[0], args, os.Environ())
}

// class is a class, or a monitoring group: that has no schemata.
type class struct{ l3, mb [2]uint64 }

func newClass() *class { return &class{l3: [2]uint64{0xffff, 0xffff}, mb: [2]uint64{100, 100}} }

// classes is the state of the file system. Inodes stand for paths, which nothing renames.
type classes struct {
	fd    int
	nodes map[uint64]string
	ids   map[string]uint64
	next  uint64
	dirs  map[string]*class // "/", "/gold", "/gold/mon_groups/x"
	in    map[int]string    // threads that were moved, and where to
	said  string            // info/last_cmd_status
}

// Requests of the kernel (linux/fuse.h).
const (
	fuseLookup, fuseForget, fuseGetattr, fuseSetattr, fuseMkdir, fuseRmdir, fuseOpen, fuseRead, fuseWrite = 1, 2, 3, 4, 9, 11, 14, 15, 16
	fuseStatfs, fuseRelease, fuseFlush, fuseInit, fuseOpendir, fuseReaddir, fuseReleasedir                = 17, 18, 25, 26, 27, 28, 29
	fuseInterrupt, fuseBatchForget                                                                        = 36, 42
)

type fuseHeader struct {
	Len, Op             uint32
	Unique, Node        uint64
	UID, GID, PID, More uint32
}

func (c *classes) serve(b []byte) {
	var h fuseHeader
	binary.Decode(b, binary.NativeEndian, &h)
	body := b[40:]
	var out []byte
	err := unix.Errno(0)
	name := c.nodes[h.Node]
	switch h.Op {
	case fuseForget, fuseBatchForget, fuseInterrupt:
		return
	case fuseInit:
		out = words(uint32(7), uint32(31), uint32(0), uint32(0), uint16(0), uint16(0), uint32(1<<16), uint32(1), [9]uint32{})
	case fuseLookup:
		out, err = c.entry(path.Join(name, text(body)))
	case fuseGetattr, fuseSetattr:
		if c.isDir(name) || c.isFile(name) {
			out = words(uint64(0), uint32(0), uint32(0), c.attr(name))
		} else {
			err = unix.ENOENT
		}
	case fuseMkdir:
		p := path.Join(name, text(body[8:]))
		if err = c.mkdir(p); err == 0 {
			out, err = c.entry(p)
		}
	case fuseRmdir:
		err = c.rmdir(path.Join(name, text(body)))
	case fuseOpen, fuseOpendir:
		const directIO = 1
		out = words(uint64(0), uint32(directIO), uint32(0))
		if !c.isDir(name) && !c.isFile(name) {
			err = unix.ENOENT
		}
	case fuseRead:
		var in struct {
			_      uint64
			Offset uint64
			Size   uint32
		}
		binary.Decode(body, binary.NativeEndian, &in)
		content := []byte(c.read(name))
		content = content[min(in.Offset, uint64(len(content))):]
		out = content[:min(int(in.Size), len(content))]
	case fuseWrite:
		size := binary.NativeEndian.Uint32(body[16:])
		if err = c.write(name, string(body[40:40+size]), int(h.PID)); err == 0 {
			out = words(size, uint32(0))
		}
	case fuseReaddir:
		out = c.list(name, binary.NativeEndian.Uint64(body[8:]), int(binary.NativeEndian.Uint32(body[16:])))
	case fuseStatfs:
		out = make([]byte, 80)
	case fuseRelease, fuseReleasedir, fuseFlush:
	default:
		err = unix.ENOSYS
	}
	if err != 0 {
		out = nil
	}
	unix.Write(c.fd, append(words(uint32(16+len(out)), -int32(err), h.Unique), out...))
}

func words(values ...any) []byte {
	var b bytes.Buffer
	for _, v := range values {
		binary.Write(&b, binary.NativeEndian, v)
	}
	return b.Bytes()
}

func text(b []byte) string { return string(b[:bytes.IndexByte(b, 0)]) }

type fuseAttr struct {
	Ino, Size, Blocks, Atime, Mtime, Ctime                   uint64
	AtimeN, MtimeN, CtimeN, Mode, Links, UID, GID, Rdev, Blk uint32
	_                                                        uint32
}

func (c *classes) attr(name string) fuseAttr {
	a := fuseAttr{Ino: c.id(name), Mode: unix.S_IFREG | 0o644, Links: 1}
	if c.isDir(name) {
		a.Mode = unix.S_IFDIR | 0o755
	}
	return a
}

func (c *classes) id(name string) uint64 {
	if c.ids[name] == 0 {
		c.next++
		c.ids[name], c.nodes[c.next] = c.next, name
	}
	return c.ids[name]
}

func (c *classes) entry(name string) ([]byte, unix.Errno) {
	if !c.isDir(name) && !c.isFile(name) {
		return nil, unix.ENOENT
	}
	return words(c.id(name), uint64(0), uint64(0), uint64(0), uint32(0), uint32(0), c.attr(name)), 0
}

// fixed are the directories and files that are always there.
func fixed() map[string]string {
	return map[string]string{
		"/info/L3/cbm_mask": "ffff\n", "/info/L3/min_cbm_bits": "1\n", "/info/L3/num_closids": "4\n",
		"/info/MB/bandwidth_gran": "10\n", "/info/MB/delay_linear": "1\n", "/info/MB/min_bandwidth": "10\n", "/info/MB/num_closids": "4\n",
		"/info/L3_MON/num_rmids": "8\n",
	}
}

// names are what is in a directory.
func (c *classes) names(dir string) []string {
	children := func(paths []string) (out []string) {
		for _, p := range paths {
			if rest, ok := strings.CutPrefix(p, strings.TrimSuffix(dir, "/")+"/"); ok && rest != "" {
				first, _, _ := strings.Cut(rest, "/")
				out = append(out, first)
			}
		}
		return out
	}
	var all []string
	for p := range fixed() {
		all = append(all, p)
	}
	all = append(all, "/info/last_cmd_status")
	for p := range c.dirs {
		for _, f := range []string{
			"tasks", "mon_data/mon_L3_00/llc_occupancy", "mon_data/mon_L3_00/mbm_total_bytes",
			"mon_data/mon_L3_00/mbm_local_bytes", "mon_data/mon_L3_01/llc_occupancy",
		} {
			all = append(all, path.Join(p, f))
		}
		if !monitors(p) {
			all = append(all, path.Join(p, "schemata"), path.Join(p, "mon_groups")+"/.")
		}
	}
	out := children(all)
	slices.Sort(out)
	return slices.DeleteFunc(slices.Compact(out), func(s string) bool { return s == "." })
}

func monitors(p string) bool { return strings.Contains(p, "/mon_groups/") }

func (c *classes) isDir(name string) bool {
	return len(c.names(name)) > 0 || path.Base(name) == "mon_groups" && c.dirs[path.Dir(name)] != nil && !monitors(name)
}

func (c *classes) isFile(name string) bool {
	return !c.isDir(name) && slices.Contains(c.names(path.Dir(name)), path.Base(name))
}

func (c *classes) list(dir string, offset uint64, size int) []byte {
	var out []byte
	for i, name := range c.names(dir) {
		if uint64(i) < offset {
			continue
		}
		p, kind := path.Join(dir, name), uint32(unix.DT_REG)
		if c.isDir(p) {
			kind = unix.DT_DIR
		}
		e := append(words(c.id(p), uint64(i+1), uint32(len(name)), kind), name...)
		e = append(e, make([]byte, -len(e)&7)...)
		if len(out)+len(e) > size {
			break
		}
		out = append(out, e...)
	}
	return out
}

// refuse keeps the reason for who asks.
func (c *classes) refuse(err unix.Errno, format string, a ...any) unix.Errno {
	c.said = fmt.Sprintf(format, a...)
	return err
}

func (c *classes) mkdir(p string) unix.Errno {
	c.said = "ok"
	class, groups := 0, 0
	for d := range c.dirs {
		if monitors(d) {
			groups++
		} else if d != "/" {
			class++
		}
	}
	switch dir := path.Dir(p); {
	case c.isDir(p) || c.isFile(p):
		return unix.EEXIST
	case dir == "/" && class >= 3:
		return c.refuse(unix.ENOSPC, "Out of CLOSIDs")
	case dir == "/":
	case path.Base(dir) == "mon_groups" && groups >= 4:
		return c.refuse(unix.ENOSPC, "Out of RMIDs")
	case path.Base(dir) == "mon_groups":
	default:
		return unix.EPERM
	}
	c.dirs[p] = newClass()
	return 0
}

func (c *classes) rmdir(p string) unix.Errno {
	if c.dirs[p] == nil || p == "/" {
		return unix.EPERM
	}
	for tid, in := range c.in {
		if in == p || strings.HasPrefix(in, p+"/") {
			if c.in[tid] = "/"; monitors(p) {
				c.in[tid] = path.Dir(path.Dir(p))
			}
		}
	}
	for name := range c.ids {
		if name == p || strings.HasPrefix(name, p+"/") {
			delete(c.ids, name) // the next one of this name is another one
		}
	}
	for d := range c.dirs {
		if d == p || strings.HasPrefix(d, p+"/") {
			delete(c.dirs, d)
		}
	}
	return 0
}

func (c *classes) read(name string) string {
	if s, ok := fixed()[name]; ok {
		return s
	}
	dir := path.Dir(name)
	switch path.Base(name) {
	case "last_cmd_status":
		return c.said + "\n"
	case "schemata":
		x := c.dirs[dir]
		return fmt.Sprintf("    MB:0=%3d;1=%3d\n    L3:0=%04x;1=%04x\n", x.mb[0], x.mb[1], x.l3[0], x.l3[1])
	case "tasks":
		return c.tasks(dir)
	case "llc_occupancy":
		return "65536\n"
	case "mbm_total_bytes":
		return "2000\n"
	}
	return "1000\n"
}

// place is where a thread is: where it was moved to, or else where who forked it is.
func (c *classes) place(tid int, seen int) string {
	if p, ok := c.in[tid]; ok || seen > 50 {
		return p
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return "/"
	}
	field := func(name string) int {
		_, rest, _ := strings.Cut(string(status), "\n"+name+":\t")
		line, _, _ := strings.Cut(rest, "\n")
		n, _ := strconv.Atoi(line)
		return n
	}
	up := field("Tgid")
	if up == tid {
		up = field("PPid")
	}
	if up == 0 {
		return "/"
	}
	return c.place(up, seen+1)
}

// tasks lists a class's threads, those of its monitoring groups among them.
func (c *classes) tasks(dir string) string {
	var out strings.Builder
	procs, _ := os.ReadDir("/proc")
	for _, p := range procs {
		threads, _ := os.ReadDir("/proc/" + p.Name() + "/task")
		for _, t := range threads {
			tid, _ := strconv.Atoi(t.Name())
			in := c.place(tid, 0)
			if in == dir || monitors(in) && path.Dir(path.Dir(in)) == dir {
				fmt.Fprintln(&out, tid)
			}
		}
	}
	return out.String()
}

func (c *classes) write(name, value string, caller int) unix.Errno {
	c.said = "ok"
	dir := path.Dir(name)
	switch path.Base(name) {
	case "tasks":
		tid, err := strconv.Atoi(strings.TrimSpace(value))
		if err != nil {
			return c.refuse(unix.EINVAL, "Task list parsing error")
		}
		if tid == 0 {
			tid = caller
		}
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", tid)); err != nil {
			return c.refuse(unix.ESRCH, "No task %d", tid)
		}
		if in := c.place(tid, 0); monitors(dir) && in != path.Dir(path.Dir(dir)) && in != dir {
			return c.refuse(unix.EINVAL, "Can't move task to different control group")
		}
		c.in[tid] = dir
		return 0
	case "schemata":
		if !strings.HasSuffix(value, "\n") {
			return unix.EINVAL
		}
		x := *c.dirs[dir]
		for line := range strings.Lines(value) {
			resource, values, _ := strings.Cut(strings.TrimSpace(line), ":")
			for part := range strings.SplitSeq(values, ";") {
				id, number, _ := strings.Cut(part, "=")
				domain, err := strconv.Atoi(strings.TrimSpace(id))
				if err != nil || domain > 1 {
					return c.refuse(unix.EINVAL, "Missing or unknown domain")
				}
				switch resource {
				case "L3":
					mask, err := strconv.ParseUint(number, 16, 64)
					low := mask & -mask
					if err != nil || mask == 0 || mask > 0xffff || (mask+low)&mask != 0 {
						return c.refuse(unix.EINVAL, "The mask %s has non-consecutive 1-bits", number)
					}
					x.l3[domain] = mask
				case "MB":
					n, err := strconv.ParseUint(number, 10, 64)
					if err != nil || n < 10 || n > 100 {
						return c.refuse(unix.EINVAL, "MB value %s out of range [10,100]", number)
					}
					x.mb[domain] = (n + 9) / 10 * 10
				default:
					return c.refuse(unix.EINVAL, "Unknown or unsupported resource name '%s'", resource)
				}
			}
		}
		*c.dirs[dir] = x
		return 0
	}
	return unix.EPERM
}
