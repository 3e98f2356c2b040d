package cgroup

import (
	"encoding/hex"
	"fmt"
	"runtime"
	"slices"
	"unsafe"

	"glassbox/plan"

	"golang.org/x/sys/unix"
)

// The structs are parts of union bpf_attr (bpf(2), linux/bpf.h), each as long as this code needs; the kernel takes the rest
// for zeros. Of all packages but fork this file alone needs package unsafe: the attributes hold addresses.

type progLoad struct {
	progType  uint32
	insnCount uint32
	insns     unsafe.Pointer
	license   unsafe.Pointer
	logLevel  uint32
	logSize   uint32
	logBuf    unsafe.Pointer
	_         uint32 // kern_version
	_         uint32 // flags
}

type progAttach struct {
	target, prog, attachType, flags uint32
	_                               uint32 // replace
}

type progQuery struct {
	target, attachType, _, _ uint32 // query_flags, attach_flags
	ids                      unsafe.Pointer
	count, _                 uint32
}

type progByID struct{ id, _, _ uint32 } // next_id, open_flags

func bpf[T any](command uintptr, attr *T) (int, error) {
	for {
		r, _, errno := unix.Syscall(unix.SYS_BPF, command, uintptr(unsafe.Pointer(attr)), unsafe.Sizeof(*attr))
		switch errno {
		case 0:
			return int(r), nil
		case unix.EINTR, unix.EAGAIN: // the verifier was interrupted
		default:
			return -1, errno
		}
	}
}

// AttachDevices loads the program and attaches it to the cgroup. Programs that were attached to this cgroup before are
// detached afterwards, so that there is never a moment without one. Those of its parents stay in force: the kernel allows
// what all of them allow.
func AttachDevices(op *plan.DeviceFilter) error {
	fail := func(what string, err error) error {
		hint := ""
		if err == unix.EPERM {
			hint = " (it needs the capabilities CAP_BPF and CAP_NET_ADMIN, or CAP_SYS_ADMIN, of the first user namespace)"
		}
		return fmt.Errorf("device filter of %s: %s: %w%s", op.Path, what, err, hint)
	}
	if len(op.Program) == 0 || len(op.Program)%8 != 0 {
		return fail("the program isn't made of instructions of 8 bytes", unix.EINVAL)
	}
	dir, err := open(op.Path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return fail("open", err)
	}
	defer unix.Close(dir)

	// As many as the kernel lets a cgroup have (BPF_CGROUP_MAX_PROGS).
	before := make([]uint32, 64)
	query := progQuery{target: uint32(dir), attachType: unix.BPF_CGROUP_DEVICE, ids: unsafe.Pointer(&before[0]), count: uint32(len(before))}
	if _, err := bpf(unix.BPF_PROG_QUERY, &query); err != nil {
		return fail("query", err)
	}
	before = before[:query.count]

	program, license, log := slices.Clone(op.Program), []byte("Apache-2.0\x00"), make([]byte, 4096)
	load := progLoad{
		progType: unix.BPF_PROG_TYPE_CGROUP_DEVICE, insnCount: uint32(len(program) / 8),
		insns: unsafe.Pointer(&program[0]), license: unsafe.Pointer(&license[0]),
	}
	prog, err := bpf(unix.BPF_PROG_LOAD, &load)
	// Once more with a log, which the verifier writes only if it is asked for, and slows down what goes well. Who may not load any learns
	// nothing from it.
	if err != nil && err != unix.EPERM {
		load.logLevel, load.logSize, load.logBuf = 1, uint32(len(log)), unsafe.Pointer(&log[0])
		if prog, err = bpf(unix.BPF_PROG_LOAD, &load); err != nil {
			return fail("load", fmt.Errorf("%w: %s", err, unix.ByteSliceToString(log)))
		}
	}
	runtime.KeepAlive(program)
	if err != nil {
		return fail("load", err)
	}
	defer unix.Close(prog)

	// BPF_F_ALLOW_MULTI: beside those of systemd, say, and those of cgroups below; without it the kernel would refuse one of the two (EPERM).
	attach := progAttach{target: uint32(dir), prog: uint32(prog), attachType: unix.BPF_CGROUP_DEVICE, flags: unix.BPF_F_ALLOW_MULTI}
	if _, err := bpf(unix.BPF_PROG_ATTACH, &attach); err != nil {
		return fail("attach", err)
	}
	for _, id := range before {
		old, err := bpf(unix.BPF_PROG_GET_FD_BY_ID, &progByID{id: id})
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			return fail("find the program that was there before", err)
		}
		_, err = bpf(unix.BPF_PROG_DETACH, &progAttach{target: uint32(dir), prog: uint32(old), attachType: unix.BPF_CGROUP_DEVICE})
		unix.Close(old)
		if err != nil && err != unix.ENOENT {
			return fail("detach the program that was there before", err)
		}
	}
	return nil
}

// DeviceTags returns the kernel's tags, in hexadecimal, of the device programs that are attached to a cgroup.
func DeviceTags(path string) ([]string, error) {
	dir, err := open(path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	ids := make([]uint32, 64)
	query := progQuery{target: uint32(dir), attachType: unix.BPF_CGROUP_DEVICE, ids: unsafe.Pointer(&ids[0]), count: uint32(len(ids))}
	if _, err := bpf(unix.BPF_PROG_QUERY, &query); err != nil {
		return nil, fmt.Errorf("query the programs of %s: %w", path, err)
	}
	var tags []string
	for _, id := range ids[:query.count] {
		fd, err := bpf(unix.BPF_PROG_GET_FD_BY_ID, &progByID{id: id})
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("open program %d: %w", id, err)
		}
		var info struct { // struct bpf_prog_info begins with these
			typ, id uint32
			tag     [8]byte
			_       [24]uint64
		}
		ask := struct {
			fd, size uint32
			info     unsafe.Pointer
		}{uint32(fd), 16, unsafe.Pointer(&info)}
		_, err = bpf(unix.BPF_OBJ_GET_INFO_BY_FD, &ask)
		unix.Close(fd)
		if err != nil {
			return nil, fmt.Errorf("ask about program %d: %w", id, err)
		}
		tags = append(tags, hex.EncodeToString(info.tag[:]))
	}
	return tags, nil
}
