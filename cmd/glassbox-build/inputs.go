package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	gofs "io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/patternmatcher"
	digest "github.com/opencontainers/go-digest"
	"github.com/tonistiigi/fsutil"

	"glassbox/build"
	"glassbox/state"
)

// A build's inputs are written down beside the cache, so that the next one can say why a step was made anew.

// inputsDir has a file for each Dockerfile, context and target that was built lately.
func (p place) inputsDir() string { return filepath.Join(p.dir(), "inputs") }

const (
	maxInputs     = 64      // files in it
	maxInputsSize = 8 << 20 // bytes of one: a larger one is not written, and not read
)

// inputsFile is that of a request.
func (p place) inputsFile(r *build.Request) string {
	where := r.Context
	if abs, err := filepath.Abs(where); err == nil && exists(where) {
		where = abs
	}
	name := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q", where, r.Dockerfile, strings.ToLower(r.Target), r.Platforms))
	return filepath.Join(p.inputsDir(), hex.EncodeToString(name[:16])+".json")
}

// before reads what the last such build was made from; nil: nothing is known of one.
func (p place) before(r *build.Request) *build.Inputs {
	name := p.inputsFile(r)
	if st, err := os.Stat(name); err != nil || st.Size() > maxInputsSize {
		return nil
	}
	var in build.Inputs
	if data, err := os.ReadFile(name); err != nil || json.Unmarshal(data, &in) != nil || in.Version != build.InputsVersion {
		return nil // a broken one is as good as none
	}
	return &in
}

// remember writes a build's inputs down, and forgets the oldest ones of others. It is no error of the build where that can't be done.
func (p place) remember(r *build.Request, in *build.Inputs) {
	dir := p.inputsDir()
	data, err := json.Marshal(in)
	if err != nil || len(data) > maxInputsSize || len(in.Steps) == 0 || os.MkdirAll(dir, 0o700) != nil {
		return
	}
	if state.WriteJSON(p.inputsFile(r), in) != nil {
		return
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) <= maxInputs {
		return
	}
	slices.SortFunc(entries, func(a, b os.DirEntry) int {
		x, errX := a.Info()
		y, errY := b.Info()
		if errX != nil || errY != nil {
			return 0
		}
		return x.ModTime().Compare(y.ModTime())
	})
	for _, e := range entries[:len(entries)-maxInputs] {
		os.Remove(filepath.Join(dir, e.Name()))
	}
}

func hashOf(parts ...any) build.Hash {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q", parts))
	return build.Hash(hex.EncodeToString(sum[:12]))
}

// inputs are those of the build that was seen.
func (w *watch) inputs(r *build.Request, noted *notedFS, before *build.Inputs) *build.Inputs {
	w.mu.Lock()
	defer w.mu.Unlock()
	in := &build.Inputs{Version: build.InputsVersion, Args: map[string]build.Hash{}}
	for name, value := range r.Args {
		in.Args[name] = hashOf(value)
	}
	keys := map[digest.Digest]build.Hash{}
	for _, d := range w.order {
		made := w.made(d, keys)
		if made.Number > 0 {
			in.Steps = append(in.Steps, made)
		}
	}
	in.Files = noted.files(before, w.excluded())
	return in
}

// key is the key of a step, without what differs from build to build: which session the context comes from.
func (w *watch) key(d digest.Digest, keys map[digest.Digest]build.Hash) build.Hash {
	if k, ok := keys[d]; ok {
		return k
	}
	keys[d] = "" // no step can follow itself; hostile ones may say so
	op := w.ops[d]
	if op == nil {
		return ""
	}
	var k build.Hash
	if src := op.GetSource(); src != nil && strings.HasPrefix(src.Identifier, "local://") {
		k = hashOf(src.Identifier)
	} else {
		own := op.CloneVT()
		inputs := make([]any, 0, len(op.Inputs))
		for _, i := range op.Inputs {
			inputs = append(inputs, w.key(digest.Digest(i.Digest), keys), i.Index)
		}
		own.Inputs = nil
		text, err := own.MarshalVT()
		if err != nil {
			return ""
		}
		k = hashOf(string(text), inputs)
	}
	keys[d] = k
	return k
}

// made is a step as it is written down.
func (w *watch) made(d digest.Digest, keys map[digest.Digest]build.Hash) build.Made {
	op := w.ops[d]
	m := build.Made{Spot: w.spots[d], Key: w.key(d, keys), Facts: map[string]string{}}
	for _, in := range op.Inputs {
		m.Inputs = append(m.Inputs, w.key(digest.Digest(in.Digest), keys))
	}
	local := func(input int64) bool {
		if input < 0 || int(input) >= len(op.Inputs) {
			return false
		}
		from := w.ops[digest.Digest(op.Inputs[input].Digest)]
		return from.GetSource().GetIdentifier() == "local://context"
	}
	switch o := op.Op.(type) {
	case *pb.Op_Source:
		m.Facts["the base"] = o.Source.Identifier
	case *pb.Op_File:
		for _, a := range o.File.Actions {
			if c := a.GetCopy(); c != nil && local(a.SecondaryInput) {
				m.Context = append(m.Context, c.Src)
			}
		}
	case *pb.Op_Exec:
		execFacts(m.Facts, o.Exec)
		for _, mnt := range o.Exec.Mounts {
			if local(mnt.Input) {
				m.Context = append(m.Context, cmpOr(mnt.Selector, "/"))
			}
		}
	}
	return m
}

// execFacts are what a RUN's outcome may depend on beside its words. Of variables it has digests.
func execFacts(facts map[string]string, e *pb.ExecOp) {
	for _, text := range e.Meta.Env {
		name, value, _ := strings.Cut(text, "=")
		facts["variable "+name] = string(hashOf(value))
	}
	facts["USER"], facts["WORKDIR"] = e.Meta.User, e.Meta.Cwd
	facts["--network"], facts["--security"] = e.Network.String(), e.Security.String()
	if len(e.Meta.Args) > 2 {
		facts["SHELL"] = strings.Join(e.Meta.Args[:len(e.Meta.Args)-1], " ")
	}
	for _, m := range e.Mounts {
		if m.Dest != "/" {
			facts["the mount on "+m.Dest] = fmt.Sprintf("%s %v %s %s", m.MountType, m.Readonly, m.Selector, m.GetCacheOpt().GetID())
		}
	}
}

// excluded are the patterns of .dockerignore, as the front end has read them.
func (w *watch) excluded() []string {
	var patterns []string
	for _, op := range w.ops {
		src := op.GetSource()
		if src.GetIdentifier() == "local://context" {
			json.Unmarshal([]byte(src.Attrs[pb.AttrExcludePatterns]), &patterns)
		}
	}
	return patterns
}

// notedFS notes the files of the context as they are listed, and their digests as they are read: nothing is read for it.
type notedFS struct {
	fsutil.FS

	room   int64       // bytes that the disk has room for; 0: not known
	where  string      // that disk
	refuse func(error) // ends the build

	mu   sync.Mutex
	seen map[string]build.File
	many bool  // more than are kept
	sent int64 // bytes
}

// Walk implements fsutil.FS.
func (n *notedFS) Walk(ctx context.Context, target string, fn gofs.WalkDirFunc) error {
	return n.FS.Walk(ctx, target, func(path string, d gofs.DirEntry, err error) error {
		if err == nil && d != nil {
			n.note(path, d)
		}
		return fn(path, d, err)
	})
}

func (n *notedFS) note(path string, d gofs.DirEntry) {
	info, err := d.Info()
	if err != nil {
		return
	}
	f := build.File{Mode: uint32(info.Mode())}
	if info.Mode().IsRegular() {
		f.Size, f.Mtime = info.Size(), info.ModTime().UnixNano()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.seen) >= build.MaxFiles {
		n.many = true
		return
	}
	path = filepath.ToSlash(path)
	f.Hash = n.seen[path].Hash
	n.seen[path] = f
}

// Open implements fsutil.FS.
func (n *notedFS) Open(path string) (io.ReadCloser, error) {
	r, err := n.FS.Open(path)
	if err != nil {
		return nil, err
	}
	err = n.sends(path)
	if err != nil {
		n.refuse(err)
	}
	// The error is that of the first read, too: of a file that can't be opened fsutil sends that it is empty.
	return &notedFile{r, n, filepath.ToSlash(path), sha256.New(), err}, nil
}

// sends refuses to begin with a file for which there is no room: a hole in a file costs nothing here, and is zeros there.
func (n *notedFS) sends(path string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sent += n.seen[filepath.ToSlash(path)].Size
	if n.room > 0 && n.sent > n.room {
		return fmt.Errorf("the context: with %s it is %d MB, more than %s has room for (%d MB); what isn't needed goes into .dockerignore",
			path, n.sent>>20, n.where, n.room>>20)
	}
	return nil
}

type notedFile struct {
	io.ReadCloser
	fs   *notedFS
	path string
	sum  hash.Hash
	err  error
}

// Read implements io.Reader.
func (f *notedFile) Read(b []byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	n, err := f.ReadCloser.Read(b)
	f.sum.Write(b[:n])
	if err == io.EOF {
		f.fs.mu.Lock()
		defer f.fs.mu.Unlock()
		// Only what was read to its end: of half a file there is no digest.
		if known, ok := f.fs.seen[f.path]; ok {
			known.Hash = build.Hash(hex.EncodeToString(f.sum.Sum(nil)[:12]))
			f.fs.seen[f.path] = known
		}
	}
	return n, err
}

// files are those that .dockerignore leaves in. What wasn't read now has the digest that it had, if it is as it was.
func (n *notedFS) files(before *build.Inputs, excluded []string) map[string]build.File {
	if n == nil {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.many {
		return nil
	}
	ignore, err := patternmatcher.New(excluded)
	if err != nil {
		return nil
	}
	out := map[string]build.File{}
	for path, f := range n.seen {
		if out, err := ignore.MatchesOrParentMatches(path); err != nil || out {
			continue
		}
		if before != nil && f.Hash == "" {
			if was := before.Files[path]; was.Size == f.Size && was.Mtime == f.Mtime && was.Mode == f.Mode {
				f.Hash = was.Hash
			}
		}
		out[path] = f
	}
	return out
}
