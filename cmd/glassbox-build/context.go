package main

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/ociindex"
	"github.com/moby/buildkit/frontend/dockerfile/dfgitutil"
	"github.com/moby/buildkit/session/upload/uploadprovider"
	"github.com/tonistiigi/fsutil"

	"glassbox/build"
)

// inputs is what a build reads of the caller's machine, as long as it runs.
type inputs struct{ temporary []string }

func (c *inputs) close() {
	for _, dir := range c.temporary {
		os.RemoveAll(dir)
	}
}

// maxDockerfile is the most that is read of a Dockerfile from standard input, as BuildKit's front end has it for files.
const maxDockerfile = 2 << 20

// openContext finds the build's context and its Dockerfile.
func openContext(r *build.Request, o *client.SolveOpt) (*inputs, error) {
	c := &inputs{}
	o.LocalMounts = map[string]fsutil.FS{}
	err := c.open(r, o)
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *inputs) open(r *build.Request, o *client.SolveOpt) error {
	where := r.Context
	if r.Dockerfile == "-" {
		if err := c.fromStdin(bufio.NewReaderSize(os.Stdin, 64<<10), o); err != nil {
			return err
		}
	}
	switch {
	case where == "-":
		in := bufio.NewReaderSize(os.Stdin, 64<<10)
		magic, err := in.Peek(archivePeek)
		if err != nil && len(magic) == 0 {
			return errors.New("standard input is empty: it has neither an archive of a context nor a Dockerfile")
		}
		if !isArchive(magic) {
			if r.Dockerfile != "" {
				return errors.New("ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles")
			}
			if err := c.fromStdin(in, o); err != nil {
				return err
			}
			return c.empty(o)
		}
		upload(in, o)
		filename(r, o)
		return nil
	case isURL(where):
		o.FrontendAttrs["context"] = where
		if r.Dockerfile != "-" {
			filename(r, o)
		}
		return nil
	}
	st, err := os.Stat(where)
	switch {
	case err != nil:
		return fmt.Errorf("unable to prepare context: path %q not found", where)
	case st.Mode().IsRegular():
		f, err := os.Open(where)
		if err != nil {
			return err
		}
		in := bufio.NewReaderSize(f, 64<<10)
		if magic, _ := in.Peek(archivePeek); !isArchive(magic) {
			f.Close()
			return fmt.Errorf("unable to prepare context: %s is neither a directory nor an archive (the Dockerfile is named by -f)", where)
		}
		upload(in, o)
		filename(r, o)
		return nil
	case !st.IsDir():
		return fmt.Errorf("unable to prepare context: %s is no directory", where)
	}
	if o.LocalMounts["context"], err = fsutil.NewFS(where); err != nil {
		return err
	}
	if r.Dockerfile == "-" {
		return nil
	}
	return c.dockerfile(r, where, o)
}

// dockerfile finds it in the context, or where -f says.
func (c *inputs) dockerfile(r *build.Request, dir string, o *client.SolveOpt) error {
	name := r.Dockerfile
	if isURL(name) {
		return fmt.Errorf("-f %s: a Dockerfile from a URL is not supported; fetch it and give it by -f -", name)
	}
	if name == "" {
		name = filepath.Join(dir, "Dockerfile")
		// Lstat: a Dockerfile that is a broken link is an error, and no reason to take another file.
		if _, err := os.Lstat(name); errors.Is(err, os.ErrNotExist) {
			if other := filepath.Join(dir, "Containerfile"); exists(other) {
				name = other
			}
		}
	} else if !filepath.IsAbs(name) && !exists(name) && exists(filepath.Join(dir, name)) {
		name = filepath.Join(dir, name) // as docker's classic builder had it, and scripts still do
	}
	if st, err := os.Stat(name); err != nil || st.IsDir() {
		return fmt.Errorf("failed to read dockerfile: open %s: no such file", name)
	}
	fs, err := fsutil.NewFS(filepath.Dir(name))
	if err != nil {
		return err
	}
	o.LocalMounts["dockerfile"] = fs
	o.FrontendAttrs["filename"] = filepath.Base(name)
	return nil
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

func filename(r *build.Request, o *client.SolveOpt) {
	if r.Dockerfile != "" && r.Dockerfile != "-" {
		o.FrontendAttrs["filename"] = filepath.ToSlash(r.Dockerfile)
	}
}

// fromStdin takes the Dockerfile from standard input.
func (c *inputs) fromStdin(in *bufio.Reader, o *client.SolveOpt) error {
	data, err := io.ReadAll(io.LimitReader(in, maxDockerfile+1))
	if err != nil {
		return fmt.Errorf("read the Dockerfile from standard input: %w", err)
	}
	if len(data) > maxDockerfile {
		return fmt.Errorf("the Dockerfile on standard input is larger than %d bytes", maxDockerfile)
	}
	dir, err := c.temp()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), data, 0o600); err != nil {
		return err
	}
	fs, err := fsutil.NewFS(dir)
	if err != nil {
		return err
	}
	o.LocalMounts["dockerfile"] = fs
	o.FrontendAttrs["filename"] = "Dockerfile"
	o.FrontendAttrs["dockerfilekey"] = "dockerfile" // not that of a context from elsewhere
	// Its directory has another name each time, and is what the cache of local files would go by.
	return nil
}

func (c *inputs) temp() (string, error) {
	dir, err := os.MkdirTemp("", "glassbox-build-")
	if err == nil {
		c.temporary = append(c.temporary, dir)
	}
	return dir, err
}

// empty is a context without files.
func (c *inputs) empty(o *client.SolveOpt) error {
	dir, err := c.temp()
	if err != nil {
		return err
	}
	o.LocalMounts["context"], err = fsutil.NewFS(dir)
	return err
}

// upload hands an archive to the builder as if it were a URL.
func upload(in *bufio.Reader, o *client.SolveOpt) {
	up := uploadprovider.New()
	o.FrontendAttrs["context"] = up.Add(knowable(in))
	o.Session = append(o.Session, up)
}

// archivePeek is how much of a stream tells whether it is an archive: a tar's magic is at 257.
const archivePeek = 512

// isArchive tells an archive, plain or compressed, from a Dockerfile.
func isArchive(head []byte) bool {
	for _, magic := range []string{"\x1f\x8b", "BZh", "\xfd7zXZ\x00", "\x28\xb5\x2f\xfd"} {
		if strings.HasPrefix(string(head), magic) {
			return true
		}
	}
	return len(head) >= 262 && string(head[257:262]) == "ustar"
}

// knowable is an archive as one that BuildKit's front end knows to be one. It reads the first 1,024 bytes as a tar, and takes what hasn't a
// whole entry there for a Dockerfile: any archive that begins with records of extended attributes, which is every one of Python's (pax(1),
// "ustar interchange format": types g and x; GNU's L and K are the same). What begins as gzip does is an archive without a look.
func knowable(in *bufio.Reader) io.ReadCloser {
	const typeFlag = 156 // where a tar's header has it
	head, err := in.Peek(archivePeek)
	if err != nil || string(head[257:262]) != "ustar" || !strings.ContainsRune("gxLK", rune(head[typeFlag])) {
		return io.NopCloser(in)
	}
	return &stored{in: in}
}

// stored is a stream in the frame of gzip, as it is: nothing is compressed. The first Read begins it: what nobody reads needs no Close.
type stored struct {
	in  *bufio.Reader
	out *io.PipeReader
}

func (s *stored) Read(p []byte) (int, error) {
	if s.out == nil {
		r, w := io.Pipe()
		s.out = r
		go func() {
			z, err := gzip.NewWriterLevel(w, gzip.NoCompression)
			if err == nil {
				_, err = s.in.WriteTo(z)
			}
			if err == nil {
				err = z.Close()
			}
			w.CloseWithError(err)
		}()
	}
	return s.out.Read(p)
}

func (s *stored) Close() error {
	if s.out == nil {
		return nil
	}
	return s.out.Close()
}

func isURL(s string) bool {
	if strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://") {
		return true
	}
	if exists(s) {
		return false
	}
	_, ok, err := dfgitutil.ParseGitRef(s)
	return ok && err == nil
}

// namedContext adds one of --build-context.
func namedContext(o *client.SolveOpt, name, where string) error {
	key := "context:" + name
	switch {
	case isURL(where), strings.HasPrefix(where, "docker-image://"), strings.HasPrefix(where, "target:"):
		o.FrontendAttrs[key] = where
		return nil
	case strings.HasPrefix(where, "oci-layout://"):
		return ociContext(o, key, name, strings.TrimPrefix(where, "oci-layout://"))
	}
	st, err := os.Stat(where)
	if err != nil || !st.IsDir() {
		return fmt.Errorf("--build-context %s=%s: there is no such directory", name, where)
	}
	fs, err := fsutil.NewFS(where)
	if err != nil {
		return err
	}
	local := name
	if name == "context" || name == "dockerfile" {
		local = "_" + name // the names of the main ones
	}
	o.LocalMounts[local] = fs
	o.FrontendAttrs[key] = "local:" + local
	return nil
}

func ociContext(o *client.SolveOpt, key, name, where string) error {
	// The digest first, which has a colon, too: DIR:TAG@DIGEST means that image, whatever the tag stands for now.
	dir, dgst, pinned := strings.Cut(where, "@")
	dir, tag, _ := strings.Cut(dir, ":")
	store, err := local.NewStore(dir)
	if err != nil {
		return fmt.Errorf("--build-context %s: %w", name, err)
	}
	if !pinned {
		if tag == "" {
			tag = "latest"
		}
		idx := ociindex.NewStoreIndex(dir)
		desc, err := idx.Get(tag)
		if err == nil && desc == nil {
			desc, err = idx.GetSingle()
		}
		if err != nil || desc == nil {
			return fmt.Errorf("--build-context %s: the layout %s has no image %s", name, dir, tag)
		}
		dgst = desc.Digest.String()
	}
	if o.OCIStores == nil {
		o.OCIStores = map[string]content.Store{}
	}
	o.OCIStores[name] = store
	o.FrontendAttrs[key] = "oci-layout://" + name + "@" + dgst
	return nil
}
