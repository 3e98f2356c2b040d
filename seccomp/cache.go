package seccomp

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// cacheVersion is part of every key. It must change when a profile compiles to another program than before, in the compiler or in
// the tables (TestCacheVersion).
const cacheVersion = "2"

// cacheSize is how many programs a cache keeps. A host has a handful of profiles; whoever makes one for each container has no use
// for a cache.
const cacheSize = 128

// Cached is Compile with a memory: programs are kept as files of dir, which is made if it is missing, named after [Key]. Reading one
// takes half the time that compiling takes. What can't be read back whole is compiled again, and what can't be written is
// not: the cache is no reason to fail.
//
// Whoever can write to dir decides what filters containers get. It must belong to whoever runs them, and nobody else may write to
// it; a new one has mode 0700.
func Cached(dir string, p *specs.LinuxSeccomp, arch string) (Filter, error) {
	if p == nil || machine(arch) == nil {
		return Compile(p, arch)
	}
	key := Key(p, arch)
	name := filepath.Join(dir, hex.EncodeToString(key[:]))
	if text, err := os.ReadFile(name); err == nil {
		if f, ok := decodeFilter(text, key); ok {
			return f, nil
		}
	}
	f, err := Compile(p, arch)
	if err == nil {
		_ = remember(dir, name, encodeFilter(f, key))
	}
	return f, err
}

// remember puts a file in its place at once: a reader sees all of it or nothing. It isn't forced to the disk, since after a power
// failure its checksum tells.
func remember(dir, name string, text []byte) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if old, err := os.ReadDir(dir); err == nil && len(old) >= cacheSize {
		for _, e := range old {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
	f, err := os.CreateTemp(dir, "new-")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// Key is a hash of everything that a compiled program depends on.
func Key(p *specs.LinuxSeccomp, arch string) [sha256.Size]byte {
	b := make([]byte, 0, 8<<10)
	number := func(n uint64) { b = binary.AppendUvarint(b, n) }
	text := func(s string) { number(uint64(len(s))); b = append(b, s...) }
	errno := func(n *uint) {
		if n == nil {
			number(0)
			return
		}
		number(1)
		number(uint64(*n))
	}
	text(cacheVersion)
	text(arch)
	text(string(p.DefaultAction))
	errno(p.DefaultErrnoRet)
	number(uint64(len(p.Architectures)))
	for _, a := range p.Architectures {
		text(string(a))
	}
	if p.Flags == nil { // not the same as an empty list
		number(0)
	} else {
		number(uint64(len(p.Flags)) + 1)
	}
	for _, f := range p.Flags {
		text(string(f))
	}
	text(p.ListenerPath)
	text(p.ListenerMetadata)
	number(uint64(len(p.Syscalls)))
	for i := range p.Syscalls {
		s := &p.Syscalls[i]
		number(uint64(len(s.Names)))
		for _, n := range s.Names {
			text(n)
		}
		text(string(s.Action))
		errno(s.ErrnoRet)
		number(uint64(len(s.Args)))
		for _, a := range s.Args {
			number(uint64(a.Index))
			number(a.Value)
			number(a.ValueTwo)
			text(string(a.Op))
		}
	}
	return sha256.Sum256(b)
}

// A file of the cache:
//
//	key, 32 bytes │ flags, 4 │ notify, 1 │ instructions, 4 │ program │ unknown names, each with a NUL │ SHA-256 of all before
const cacheHeader = sha256.Size + 4 + 1 + 4

func encodeFilter(f Filter, key [sha256.Size]byte) []byte {
	b := append(make([]byte, 0, cacheHeader+8*len(f.Program)+256), key[:]...)
	b = binary.LittleEndian.AppendUint32(b, f.Flags)
	if f.Notify {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(len(f.Program)))
	b = append(b, f.Bytes()...)
	for _, name := range f.Unknown {
		b = append(append(b, name...), 0)
	}
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

func decodeFilter(b []byte, key [sha256.Size]byte) (f Filter, ok bool) {
	end := len(b) - sha256.Size
	if end < cacheHeader || !bytes.Equal(b[:sha256.Size], key[:]) {
		return f, false
	}
	if sum := sha256.Sum256(b[:end]); !bytes.Equal(sum[:], b[end:]) {
		return f, false
	}
	f.Flags = binary.LittleEndian.Uint32(b[sha256.Size:])
	f.Notify = b[sha256.Size+4] == 1
	n := binary.LittleEndian.Uint32(b[sha256.Size+5:])
	b = b[cacheHeader:end]
	if n > MaxInstructions || int(n)*8 > len(b) {
		return f, false
	}
	f.Program = make([]Instruction, n)
	for i := range f.Program {
		c := b[8*i:]
		f.Program[i] = Instruction{binary.LittleEndian.Uint16(c), c[2], c[3], binary.LittleEndian.Uint32(c[4:])}
	}
	for b = b[8*n:]; len(b) > 0; {
		name, rest, found := bytes.Cut(b, []byte{0})
		if !found {
			return f, false
		}
		f.Unknown = append(f.Unknown, string(name))
		b = rest
	}
	return f, true
}
