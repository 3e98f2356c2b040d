package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"glassbox/engine"
	"glassbox/image"
)

func (a *app) commitCommand() *cobra.Command {
	var o engine.CommitOptions
	cmd := &cobra.Command{
		Use:   "commit [OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
		Short: "Make an image of what a container has changed",
		Example: `  glassbox commit -m "with vim" box base:vim
  glassbox commit --change 'CMD ["nginx", "-g", "daemon off;"]' --change 'EXPOSE 80' box web`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return &usageError{fmt.Errorf("'%s' requires 1 or 2 arguments", cmd.CommandPath()), 1}
			}
			return nil
		},
		ValidArgsFunction: a.completeContainers(true),
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := a.open()
			if err != nil {
				return err
			}
			if len(args) > 1 {
				o.Name = args[1]
			}
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			img, err := e.Commit(ctx, args[0], o)
			if err != nil {
				return err
			}
			fmt.Fprintln(a.out, img.ID)
			return nil
		},
	}
	fs := cmd.Flags()
	fs.StringVarP(&o.Author, "author", "a", "", "Author, for example \"Anna <anna@example.com>\"")
	fs.VarP(list{&o.Changes}, "change", "c", "Apply a Dockerfile instruction: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, "+
		"STOPSIGNAL, USER, VOLUME or WORKDIR")
	fs.StringVarP(&o.Message, "message", "m", "", "Message, which history shows")
	fs.BoolVarP(&o.Pause, "pause", "p", true, "The container stands still meanwhile")
	return cmd
}

func (a *app) exportCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "export [OPTIONS] CONTAINER",
		Short: "Write a container's files as a tar archive",
		Long: `Write a container's files as a tar archive, as the container sees them, without what is mounted.

The container may be running, or stopped, or never have been started. Nothing of it is run for this.`,
		Example: `  glassbox export -o box.tar box
  glassbox export box | tar -t`,
		Args:              exactly(1),
		ValidArgsFunction: a.completeContainers(true),
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := a.open()
			if err != nil {
				return err
			}
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			return a.toFile(output, "export", func(w io.Writer) error { return e.Export(ctx, args[0], w) })
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "Write to a file, instead of standard output")
	return cmd
}

func (a *app) importCommand() *cobra.Command {
	var o image.ImportOptions
	var platform platformFlag
	cmd := &cobra.Command{
		Use:   "import [OPTIONS] FILE|URL|- [REPOSITORY[:TAG]]",
		Short: "Make an image of a file system's archive",
		Long: `Make an image of one layer out of a tar archive, as export writes it.

The archive may be compressed with gzip, zstd or bzip2.`,
		Example: `  glassbox export box | glassbox import - flat
  glassbox import --change 'CMD ["bash"]' rootfs.tar.gz base:1`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return &usageError{fmt.Errorf("'%s' requires 1 or 2 arguments", cmd.CommandPath()), 1}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := a.open()
			if err != nil {
				return err
			}
			if len(args) > 1 {
				o.Name = args[1]
			}
			o.Platform = image.Platform(platform)
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			var src io.ReadCloser
			switch source := args[0]; {
			case source == "-":
				if term.IsTerminal(int(a.in.Fd())) {
					return &usageError{err: errors.New("standard input is a terminal: name a file, or redirect it")}
				}
				src = a.in
			case strings.HasPrefix(source, "http://"), strings.HasPrefix(source, "https://"):
				if src, err = image.Fetch(ctx, source); err != nil {
					return err
				}
				o.Message = orText(o.Message, "Imported from "+source)
			default:
				f, err := os.Open(source)
				if err != nil {
					return fmt.Errorf("%s can't be read: %w", source, reason(err))
				}
				if st, err := f.Stat(); err == nil && st.IsDir() {
					f.Close()
					return fmt.Errorf("%s is a directory\nhint: tar -C %s -c . | glassbox import -", source, source)
				}
				src = f
			}
			defer src.Close()
			img, err := e.Images().Import(ctx, src, o)
			if err != nil {
				return err
			}
			fmt.Fprintln(a.out, img.ID)
			return nil
		},
	}
	fs := cmd.Flags()
	fs.VarP(list{&o.Changes}, "change", "c", "Apply a Dockerfile instruction: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, "+
		"STOPSIGNAL, USER, VOLUME or WORKDIR")
	fs.StringVarP(&o.Message, "message", "m", "", "Message, which history shows")
	fs.Var(&platform, "platform", "Platform that the files are for (os[/arch[/variant]])")
	return cmd
}

func orText(text, other string) string {
	if text == "" {
		return other
	}
	return text
}

// historyRow is a row of history, with Docker's fields.
type historyRow struct {
	Comment      string
	CreatedAt    string
	CreatedBy    string
	CreatedSince string
	ID           string
	Size         string
}

func (a *app) historyCommand() *cobra.Command {
	var format string
	var human, full, quiet bool
	var platform platformFlag
	cmd := &cobra.Command{
		Use:   "history [OPTIONS] IMAGE",
		Short: "Show how an image was made",
		Example: `  glassbox history debian:12
  glassbox history --no-trunc --format '{{.CreatedBy}}' app`,
		Args:              exactly(1),
		ValidArgsFunction: a.completeImages,
		RunE: func(_ *cobra.Command, args []string) error {
			e, err := a.open()
			if err != nil {
				return err
			}
			img, err := e.Images().ResolveFor(args[0], image.Platform(platform))
			if err != nil {
				return err
			}
			var rows []historyRow
			for _, h := range img.History() {
				r := historyRow{Comment: h.Comment, CreatedAt: h.Created.Local().Format(time.RFC3339), CreatedSince: since(time.Now(), h.Created)}
				r.CreatedBy = strings.ReplaceAll(h.CreatedBy, "\t", " ")
				if !full {
					r.CreatedBy = ellipsis(r.CreatedBy, 45)
				}
				if r.ID = h.ID; h.ID == img.ID && !full {
					r.ID = img.ShortID()
				}
				if r.Size = size(h.Size); !human {
					r.Size, r.CreatedSince = fmt.Sprint(h.Size), r.CreatedAt
				}
				rows = append(rows, r)
			}
			if quiet {
				for _, r := range rows {
					fmt.Fprintln(a.out, r.ID)
				}
				return nil
			}
			header := historyRow{
				Comment: "COMMENT", CreatedAt: "CREATED AT", CreatedBy: "CREATED BY", CreatedSince: "CREATED", ID: "IMAGE", Size: "SIZE",
			}
			if !human {
				header.CreatedSince = "CREATED AT"
			}
			return printRows(a.out, format, "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}", header, rows)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&format, "format", "", "table, table TEMPLATE, json or a Go template")
	fs.BoolVarP(&human, "human", "H", true, "Sizes and dates for people")
	fs.BoolVar(&full, "no-trunc", false, "Don't shorten")
	fs.BoolVarP(&quiet, "quiet", "q", false, "Print IDs only")
	fs.Var(&platform, "platform", "Platform that the image must be for (os[/arch[/variant]])")
	return cmd
}
