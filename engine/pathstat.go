package engine

import (
	"context"
	"io/fs"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/host/tree"
)

// PathStat says what is at a path of a container.
type PathStat struct {
	Name     string
	Size     int64
	Mode     fs.FileMode
	Modified time.Time
	Link     string // of a symbolic link, what it leads to: an absolute path in the container
}

// StatPath looks a path of a container up. A symbolic link at its end is what is told of, unless a slash or a dot follows.
func (e *Engine) StatPath(ctx context.Context, ref, name string) (*PathStat, error) {
	f, err := e.openFiles(ctx, ref)
	if err != nil {
		return nil, err
	}
	defer f.close()
	s := side{f.root, ref}
	src, err := s.source(name, false)
	if err != nil {
		return nil, err
	}
	defer unix.Close(src.fd)
	var st unix.Stat_t
	if err := unix.Fstat(src.fd, &st); err != nil {
		return nil, err
	}
	out := &PathStat{Name: src.base, Size: st.Size, Mode: tree.Mode(st.Mode), Modified: time.Unix(st.Mtim.Unix())}
	if path.Clean("/"+name) == "/" {
		out.Name = "/"
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(src.fd, "", buf)
		if err != nil {
			return nil, err
		}
		// Only told: whoever asks for it has it resolved inside the container's root.
		out.Link = string(buf[:n])
		if !strings.HasPrefix(out.Link, "/") {
			out.Link = path.Join(path.Dir(path.Clean("/"+name)), out.Link)
		}
		out.Link = path.Clean(out.Link)
	}
	return out, nil
}
