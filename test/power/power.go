// Package power is a disk that loses what was not flushed when the power goes.
//
// Its one idea: a disk is a file of a FUSE file system, over which the kernel puts a loop device and a real file system. Each write and
// each flush (a loop device makes fsync(2) of it) is appended to a record, so that afterwards the disk can be had as it was at any
// moment: all that was written before the last flush, and of what came later any part, because a disk may write in any order what it
// was not told to write at once. It is what dm-log-writes does for those who have device mapper.
//
// It refuses discards, and files other than its one. Start reading at [Serve], then [Record.Cut].
package power

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Name is that of the disk's file in the directory that [Serve] mounts.
const Name = "disk"

// head is a record's entry: offset and length; a length of zero is a flush. The data follows.
type head struct{ Offset, Length int64 }

const headSize = 16

// Serve mounts a disk of so many bytes at dir, and records it in a file. It returns when the mount ends.
func Serve(dir, record string, size int64) error {
	f, err := os.OpenFile(record, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	root := &fs.Inode{}
	server, err := fs.Mount(dir, root, &fs.Options{
		MountOptions: fuse.MountOptions{DirectMountStrict: true, MaxWrite: 128 << 10, Name: "power", FsName: "power"},
		OnAdd: func(ctx context.Context) {
			d := &disk{record: f, data: make([]byte, size)}
			root.AddChild(Name, root.NewPersistentInode(ctx, d, fs.StableAttr{Mode: syscall.S_IFREG}), false)
		},
	})
	if err != nil {
		return fmt.Errorf("mount the disk: %w", err)
	}
	server.Wait()
	return nil
}

type disk struct {
	fs.Inode
	mu     sync.Mutex
	record *os.File
	data   []byte
}

var (
	_ fs.NodeOpener    = (*disk)(nil)
	_ fs.NodeReader    = (*disk)(nil)
	_ fs.NodeWriter    = (*disk)(nil)
	_ fs.NodeFsyncer   = (*disk)(nil)
	_ fs.NodeGetattrer = (*disk)(nil)
	_ fs.NodeSetattrer = (*disk)(nil)
)

func (d *disk) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0 // what is written comes here at once, and as it was written
}

func (d *disk) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size = syscall.S_IFREG|0o600, uint64(len(d.data))
	return 0
}

func (d *disk) Setattr(ctx context.Context, f fs.FileHandle, _ *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	return d.Getattr(ctx, f, out)
}

func (d *disk) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	off = min(off, int64(len(d.data)))
	return fuse.ReadResultData(append([]byte(nil), d.data[off:min(off+int64(len(dest)), int64(len(d.data)))]...)), 0
}

func (d *disk) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	if off+int64(len(data)) > int64(len(d.data)) {
		return 0, syscall.ENOSPC
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	copy(d.data[off:], data)
	return uint32(len(data)), d.note(head{off, int64(len(data))}, data)
}

func (d *disk) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.note(head{}, nil)
}

func (d *disk) note(h head, data []byte) syscall.Errno {
	b := binary.LittleEndian.AppendUint64(nil, uint64(h.Offset))
	b = binary.LittleEndian.AppendUint64(b, uint64(h.Length))
	if _, err := d.record.Write(append(b, data...)); err != nil {
		return fs.ToErrno(err)
	}
	return 0
}

// Record is what was written to a disk.
type Record struct {
	file    *os.File
	size    int64
	entries []head
	starts  []int64 // where in the file each entry's data is
}

// Open reads a record that is complete.
func Open(name string, size int64) (*Record, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	r := &Record{file: f, size: size}
	for at := int64(0); ; {
		var b [headSize]byte
		if _, err := f.ReadAt(b[:], at); err == io.EOF {
			return r, nil
		} else if err != nil {
			f.Close()
			return nil, err
		}
		h := head{int64(binary.LittleEndian.Uint64(b[:])), int64(binary.LittleEndian.Uint64(b[8:]))}
		r.entries, r.starts = append(r.entries, h), append(r.starts, at+headSize)
		at += headSize + h.Length
	}
}

// Close closes the record's file.
func (r *Record) Close() error { return r.file.Close() }

// Len is how many writes and flushes there were.
func (r *Record) Len() int { return len(r.entries) }

// At is how many of them a record of so many bytes has: the length of the file at a moment tells what was done by then.
func (r *Record) At(bytes int64) int {
	n := 0
	for n < len(r.entries) && r.starts[n]+r.entries[n].Length <= bytes {
		n++
	}
	return n
}

// Cut writes the disk as it is when the power goes after the first n entries: all before the last flush among them is there, and each write
// after it or not, as random says.
func (r *Record) Cut(name string, n int, random *rand.Rand) error {
	flushed := 0
	for i, h := range r.entries[:n] {
		if h.Length == 0 {
			flushed = i
		}
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(r.size); err != nil {
		return err
	}
	keep := random.IntN(4) // of four: some disks have written nothing of it, some nearly all
	for i, h := range r.entries[:n] {
		if h.Length == 0 || i > flushed && random.IntN(4) >= keep {
			continue
		}
		data := make([]byte, h.Length)
		if _, err := r.file.ReadAt(data, r.starts[i]); err != nil {
			return err
		}
		if _, err := f.WriteAt(data, h.Offset); err != nil {
			return err
		}
	}
	return f.Close()
}
