package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"glassbox/image"
)

// toFile gives write the file that -o names, or standard output unless that is a terminal.
func (a *app) toFile(name, verb string, write func(w io.Writer) error) error {
	if name == "" {
		if term.IsTerminal(int(a.out.Fd())) {
			return &usageError{err: fmt.Errorf("refusing to %s to a terminal: use the -o flag or redirect", verb)}
		}
		return write(a.out)
	}
	return writeFile(name, 0o600, write) // as docker save and docker export make it: an archive may have secrets
}

// writeFile gives write the file of a name. A regular file appears under its name when all of it is there: until then it has none, so that
// a process that is killed leaves nothing.
func writeFile(name string, mode os.FileMode, write func(w io.Writer) error) error {
	st, err := os.Stat(name)
	switch {
	case err == nil && st.IsDir():
		return fmt.Errorf("%s is a directory: -o names a file", name)
	case err == nil && !st.Mode().IsRegular():
		// A FIFO, /dev/stdout, /dev/null: rename(2) would put a file in its place, which root is let do in /dev.
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		return write(f)
	}
	// Nor is a symbolic link replaced: what it leads to is.
	if real, err := filepath.EvalSymlinks(name); err == nil {
		name = real
	}
	dir := filepath.Dir(name)
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return fmt.Errorf("%s can't be written: the directory %s does not exist", name, dir)
	}
	var f *os.File
	// A file's name has at most 255 bytes (NAME_MAX): the base is cut, or a long one couldn't be written at all.
	temporary := filepath.Join(dir, fmt.Sprintf(".%.200s.%d", filepath.Base(name), os.Getpid()))
	if err == nil {
		f = os.NewFile(uintptr(fd), name)
	} else if f, err = os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil { // no O_TMPFILE on NFS
		return fmt.Errorf("%s can't be written: %w", name, reason(err))
	} else {
		defer os.Remove(temporary)
	}
	defer f.Close()
	if err := write(f); err != nil {
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
			return fmt.Errorf("%s: the disk is full: %w", name, err)
		}
		return err
	}
	if err := f.Chmod(mode); err != nil { // whatever the umask is
		return err
	}
	// It has no name yet: linkat(2) replaces nothing, so it gets one beside the old file, and rename(2) puts it there at once.
	if _, err := os.Lstat(temporary); err != nil {
		defer os.Remove(temporary)
		// The kernel gives a file without a name one by its link in procfs: open(2), O_TMPFILE.
		err := unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.AT_FDCWD, temporary, unix.AT_SYMLINK_FOLLOW)
		if err != nil {
			return fmt.Errorf("%s can't be written: %w", name, err)
		}
	}
	if err := f.Close(); err != nil { // NFS and FUSE may say only now that there was no room
		return fmt.Errorf("%s can't be written: %w", name, reason(err))
	}
	return os.Rename(temporary, name)
}

// reason is an error without the path that its text gives already.
func reason(err error) error {
	if p := (*os.PathError)(nil); errors.As(err, &p) {
		return p.Err
	}
	return err
}

func (a *app) saveCommand() *cobra.Command {
	var output string
	var o image.SaveOptions
	var platform platformFlag
	cmd := &cobra.Command{
		Use:   "save [OPTIONS] IMAGE [IMAGE...]",
		Short: "Save images to an archive",
		Long: `Save images to an archive, which is a docker archive and an OCI layout in one: docker load, podman load and skopeo read it.

A repository's name without a tag saves all its tags. Layers are the archives that they were pulled as, byte for byte.`,
		Example: `  glassbox save -o debian.tar debian:12
  glassbox save --compress zstd app:1 app:2 | ssh host glassbox load`,
		Args:              atLeast(1),
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := a.open()
			if err != nil {
				return err
			}
			switch o.Compress {
			case "", "gzip", "zstd":
			case "none":
				o.Compress = ""
			default:
				return &usageError{err: fmt.Errorf("invalid argument %q for --compress: it is none, gzip or zstd", o.Compress)}
			}
			o.Platform = image.Platform(platform)
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			return a.toFile(output, "save", func(w io.Writer) error { return e.Images().Save(ctx, w, args, o) })
		},
	}
	fs := cmd.Flags()
	fs.StringVarP(&output, "output", "o", "", "Write to a file, instead of standard output")
	fs.Var(&platform, "platform", "Platform that the images must be for (os[/arch[/variant]])")
	fs.StringVar(&o.Compress, "compress", "", "Compress the layers: none, gzip or zstd (default none, as docker save)")
	return cmd
}

func (a *app) loadCommand() *cobra.Command {
	var input string
	var quiet bool
	var platform platformFlag
	cmd := &cobra.Command{
		Use:   "load [OPTIONS]",
		Short: "Load images from an archive",
		Long: `Load images from an archive, or from a directory with an OCI layout: what docker save, podman save, skopeo and buildx write.

The archive and its layers may be compressed with gzip, zstd or bzip2.`,
		Example: `  glassbox load -i debian.tar
  ssh host docker save app | glassbox load`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			f := a.in
			if input != "" {
				var err error
				if f, err = os.Open(input); err != nil {
					return fmt.Errorf("%s can't be read: %w", input, reason(err))
				}
				defer f.Close()
			} else if term.IsTerminal(int(f.Fd())) {
				return &usageError{err: errors.New("standard input is a terminal: name the archive with -i, or redirect it")}
			}
			e, err := a.open()
			if err != nil {
				return err
			}
			o := image.LoadOptions{Platform: image.Platform(platform)}
			// To a terminal only: scripts read the lines "Loaded image: …" from standard output.
			o.Progress = a.archiveProgress(quiet || !term.IsTerminal(int(a.out.Fd())))
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			list, err := e.Images().Load(ctx, f, o)
			// Also with an error: what was loaded before it is there, and is told.
			for _, l := range list {
				a.tellLoaded(l)
			}
			return err
		},
	}
	fs := cmd.Flags()
	fs.StringVarP(&input, "input", "i", "", "Read from a file or a directory, instead of standard input")
	fs.BoolVarP(&quiet, "quiet", "q", false, "No progress")
	fs.Var(&platform, "platform", "Platform of images that the archive has for several (os[/arch[/variant]])")
	return cmd
}

// archiveProgress shows how far an archive is.
func (a *app) archiveProgress(quiet bool) func(image.Event) {
	if quiet {
		return func(e image.Event) {
			if e.State == image.Warned {
				fmt.Fprintln(a.err, "Warning: "+printable(e.Text))
			}
		}
	}
	return image.NewPrinter(a.out).Event
}

func (a *app) tellLoaded(l image.Loaded) {
	for _, name := range l.Names {
		if old := l.Moved[name]; old != "" {
			fmt.Fprintf(a.out, "The image %s already exists, renaming the old one with ID %s to empty string\n", name, old)
		}
		fmt.Fprintln(a.out, "Loaded image: "+name)
	}
	if len(l.Names) == 0 {
		fmt.Fprintln(a.out, "Loaded image ID: "+l.Image.ID)
	}
}
