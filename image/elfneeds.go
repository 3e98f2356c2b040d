package image

import (
	"bufio"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// needs adds what a host file needs to run: for an ELF file its loader and libraries, for a script its interpreter.
func (t *hostTree) needs(src string, strict bool) error {
	if t.scanned[src] {
		return nil
	}
	// Before it is read: libraries may need each other.
	t.scanned[src] = true
	f, err := os.Open(src)
	if err != nil {
		return unwrapPath(src, err)
	}
	defer f.Close()
	head := make([]byte, 256)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return err
	}
	head, err = head[:n], nil // a short file is whole
	switch {
	case bytes.HasPrefix(head, []byte(elf.ELFMAG)):
		err = t.elfNeeds(src, f)
	case bytes.HasPrefix(head, []byte("#!")):
		err = t.scriptNeeds(head)
	}
	if err != nil && !strict {
		return nil // a directory may hold files that are not meant to run here
	}
	return err
}

// scriptNeeds reads "#!INTERPRETER [ARG]"; for env, ARG is the program that env finds.
func (t *hostTree) scriptNeeds(head []byte) error {
	line, _, _ := bytes.Cut(head[2:], []byte("\n"))
	words := strings.Fields(string(line))
	if len(words) == 0 || !path.IsAbs(words[0]) {
		return nil
	}
	if err := t.add(words[0], 0); err != nil {
		return fmt.Errorf("interpreter: %w", err)
	}
	if path.Base(words[0]) != "env" {
		return nil
	}
	for _, w := range words[1:] {
		// env's own options, and variables that it sets, come before the program's name.
		if strings.HasPrefix(w, "-") || strings.Contains(w, "=") {
			continue
		}
		p, err := lookPath(w)
		if err != nil {
			return fmt.Errorf("interpreter %s: %w", w, err)
		}
		return t.add(p, 0)
	}
	return nil
}

func (t *hostTree) elfNeeds(src string, r io.ReaderAt) error {
	obj, err := readELF(src, r)
	if err != nil {
		return err
	}
	if obj.interp != "" {
		if err := t.add(obj.interp, 0); err != nil {
			return fmt.Errorf("loader of %s: %w", src, err)
		}
	}
	return t.libraries(obj, nil, map[string]bool{})
}

// libraries adds what obj needs, and what that needs. loaders are the objects on the way to obj, the program first: their
// DT_RPATH counts for obj too, unlike DT_RUNPATH (ld.so(8)).
func (t *hostTree) libraries(obj *elfObject, loaders []*elfObject, seen map[string]bool) error {
	chain := append(slices.Clip(loaders), obj)
	for _, need := range obj.needed {
		if seen[need] {
			continue
		}
		seen[need] = true
		file, byConf, err := t.libs.find(need, chain)
		if err != nil {
			return err
		}
		if byConf && t.nodes["/etc/ld.so.cache"] == nil {
			// The loader itself knows the default directories only; others it finds through its cache.
			if _, err := os.Lstat("/etc/ld.so.cache"); err == nil {
				if err := t.add("/etc/ld.so.cache", 0); err != nil {
					return err
				}
			}
		}
		if err := t.add(file, 0); err != nil {
			return fmt.Errorf("library of %s: %w", obj.path, err)
		}
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		lib, err := readELF(file, f)
		f.Close()
		if err != nil {
			return err
		}
		if err := t.libraries(lib, chain, seen); err != nil {
			return err
		}
	}
	return nil
}

// elfObject is what the dynamic loader reads of a file.
type elfObject struct {
	path    string
	class   elf.Class
	machine elf.Machine
	interp  string
	needed  []string
	rpath   []string
	runpath []string
}

func readELF(file string, r io.ReaderAt) (*elfObject, error) {
	e, err := elf.NewFile(r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	o := &elfObject{path: file, class: e.Class, machine: e.Machine}
	for _, p := range e.Progs {
		// The longest path is 4096 bytes: a header that says more is no program's.
		if p.Type == elf.PT_INTERP && p.Filesz < 4096 {
			b := make([]byte, p.Filesz)
			if _, err := p.ReadAt(b, 0); err != nil {
				return nil, fmt.Errorf("%s: loader: %w", file, err)
			}
			o.interp = string(bytes.TrimRight(b, "\x00"))
		}
	}
	// A static file has no dynamic section, which these report as an error or as nothing.
	o.needed, _ = e.DynString(elf.DT_NEEDED)
	origin := filepath.Dir(file)
	// $ORIGIN is where the file really lies, as the loader finds it after following links (ld.so(8)).
	if real, err := filepath.EvalSymlinks(file); err == nil {
		origin = filepath.Dir(real)
	}
	lib := "lib"
	if e.Class == elf.ELFCLASS64 {
		lib = "lib64"
	}
	expand := func(tag elf.DynTag) (dirs []string) {
		list, _ := e.DynString(tag)
		for _, s := range list {
			for d := range strings.SplitSeq(s, ":") {
				d = strings.NewReplacer("${ORIGIN}", origin, "$ORIGIN", origin, "${LIB}", lib, "$LIB", lib).Replace(d)
				// Relative directories would depend on where the program is run.
				if filepath.IsAbs(d) {
					dirs = append(dirs, filepath.Clean(d))
				}
			}
		}
		return dirs
	}
	o.rpath, o.runpath = expand(elf.DT_RPATH), expand(elf.DT_RUNPATH)
	return o, nil
}

// libFinder knows where this host's loader looks.
type libFinder struct {
	loaded   bool
	conf     []string // from ld.so.conf and ld.so.cache
	defaults []string
}

func (l *libFinder) load() {
	if l.loaded {
		return
	}
	l.loaded = true
	seen := map[string]bool{}
	l.conf = readLdConf("/etc/ld.so.conf", seen, 0)
	for _, d := range cacheDirs("/etc/ld.so.cache") {
		if !slices.Contains(l.conf, d) {
			l.conf = append(l.conf, d)
		}
	}
	for _, base := range []string{"/lib", "/usr/lib"} {
		for _, triplet := range multiarch() {
			l.defaults = append(l.defaults, base+"/"+triplet)
		}
	}
	l.defaults = append(l.defaults, "/lib64", "/usr/lib64", "/lib", "/usr/lib")
	for _, f := range globSorted("/etc/ld-musl-*.path") {
		b, err := os.ReadFile(f)
		if err == nil {
			l.conf = append(l.conf, strings.FieldsFunc(string(b), func(r rune) bool { return r == ':' || r == '\n' })...)
		}
	}
}

func multiarch() []string {
	return []string{"x86_64-linux-gnu", "aarch64-linux-gnu", "i386-linux-gnu", "arm-linux-gnueabihf"}
}

// find looks for a library as ld.so(8) does; byConf tells that only the loader's cache leads to it.
func (l *libFinder) find(name string, chain []*elfObject) (file string, byConf bool, err error) {
	l.load()
	obj := chain[len(chain)-1]
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			return "", false, fmt.Errorf("%s needs %s, a path relative to wherever it is run", obj.path, name)
		}
		if _, err := os.Stat(name); err != nil {
			return "", false, unwrapPath(name, err)
		}
		return name, false, nil
	}
	var own []string
	// DT_RUNPATH switches DT_RPATH off, that of the loaders on the way as well (ld.so(8), searching).
	if len(obj.runpath) == 0 {
		for _, o := range slices.Backward(chain) {
			if len(o.runpath) == 0 {
				own = append(own, o.rpath...)
			}
		}
	}
	own = append(own, obj.runpath...)
	try := func(dirs []string) string {
		for _, d := range dirs {
			p := filepath.Join(d, name)
			if sameMachine(p, obj) {
				return p
			}
		}
		return ""
	}
	if p := try(own); p != "" {
		return p, false, nil
	}
	// ld.so(8) asks its cache before its default directories. Here those come first: what is found there runs without a
	// cache in the image.
	if p := try(l.defaults); p != "" {
		return p, false, nil
	}
	if p := try(l.conf); p != "" {
		return p, true, nil
	}
	return "", false, fmt.Errorf("%s needs %s, which is in none of the loader's directories on this host", obj.path, name)
}

func sameMachine(p string, obj *elfObject) bool {
	f, err := os.Open(p)
	if err != nil {
		return false
	}
	defer f.Close()
	var h [20]byte
	if _, err := io.ReadFull(f, h[:]); err != nil || !bytes.HasPrefix(h[:], []byte(elf.ELFMAG)) {
		return false
	}
	order := binary.ByteOrder(binary.LittleEndian)
	if elf.Data(h[elf.EI_DATA]) == elf.ELFDATA2MSB {
		order = binary.BigEndian
	}
	return elf.Class(h[elf.EI_CLASS]) == obj.class && elf.Machine(order.Uint16(h[18:])) == obj.machine
}

// readLdConf reads ld.so.conf with its include lines.
// Files that include each other.
func readLdConf(file string, seen map[string]bool, depth int) (dirs []string) {
	if seen[file] || depth > 8 {
		return nil
	}
	seen[file] = true
	b, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	sc := bufio.NewScanner(bytes.NewReader(b))
	for sc.Scan() {
		line, _, _ := strings.Cut(sc.Text(), "#")
		words := strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t:,", r) })
		if len(words) == 0 {
			continue
		}
		if words[0] == "include" {
			for _, pattern := range words[1:] {
				if !filepath.IsAbs(pattern) {
					pattern = filepath.Join(filepath.Dir(file), pattern)
				}
				for _, f := range globSorted(pattern) {
					dirs = append(dirs, readLdConf(f, seen, depth+1)...)
				}
			}
			continue
		}
		for _, d := range words {
			if filepath.IsAbs(d) {
				dirs = append(dirs, filepath.Clean(d))
			}
		}
	}
	return dirs
}

func globSorted(pattern string) []string {
	m, _ := filepath.Glob(pattern) // sorted; the only error is a bad pattern
	return m
}

// cacheDirs returns the directories that ld.so.cache (format 1.1, glibc 2.32 and later by default) refers to.
func cacheDirs(file string) []string {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	const magic = "glibc-ld.so.cache1.1"
	i := bytes.Index(b, []byte(magic)) // older caches have the old format in front
	if i < 0 || len(b)-i < 48 {
		return nil
	}
	b = b[i:]
	n := binary.NativeEndian.Uint32(b[20:])
	var dirs []string
	for k := range uint64(n) {
		e := 48 + k*24
		if e+24 > uint64(len(b)) {
			break
		}
		v := binary.NativeEndian.Uint32(b[e+8:])
		if uint64(v) >= uint64(len(b)) {
			continue
		}
		s, _, ok := bytes.Cut(b[v:], []byte{0})
		if !ok || len(s) > 4096 {
			continue
		}
		d := filepath.Dir(string(s))
		if filepath.IsAbs(d) && !strings.Contains(d, "glibc-hwcaps") && !slices.Contains(dirs, d) {
			dirs = append(dirs, d)
		}
	}
	return dirs
}

func owner(st fs.FileInfo) (uid, gid int) {
	if s, ok := st.Sys().(*syscall.Stat_t); ok {
		return int(s.Uid), int(s.Gid)
	}
	return 0, 0
}

// inode identifies a file that has several names.
func inode(st fs.FileInfo) (id [2]uint64, several bool) {
	s, ok := st.Sys().(*syscall.Stat_t)
	if !ok || s.Nlink < 2 {
		return id, false
	}
	return [2]uint64{uint64(s.Dev), s.Ino}, true
}
