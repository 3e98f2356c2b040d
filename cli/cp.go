package cli

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"glassbox/engine"
)

func (a *app) cpCommand() *cobra.Command {
	var o engine.CopyOptions
	var quiet bool
	cmd := &cobra.Command{
		Use:   "cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n  glassbox cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
		Short: "Copy files out of a container and into it",
		Example: `  glassbox cp web:/etc/nginx/nginx.conf .
  glassbox cp ./site/. web:/var/www
  glassbox cp db:/var/lib/data - | gzip >data.tar.gz`,
		Args: exactly(2),
		ValidArgsFunction: func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
			if strings.ContainsAny(typed, "/:.") {
				return nil, cobra.ShellCompDirectiveDefault // a path
			}
			var names []string
			for _, name := range a.containerNames(cmd.Context(), nil) {
				names = append(names, name+":")
			}
			return names, cobra.ShellCompDirectiveNoSpace
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("quiet") {
				quiet = !term.IsTerminal(int(a.out.Fd()))
			}
			return a.cp(cmd, args[0], args[1], o, quiet)
		},
	}
	fs := cmd.Flags()
	fs.BoolVarP(&o.Archive, "archive", "a", false, "Keep owners and all modes; into a container: give the files to its user")
	fs.BoolVarP(&o.Follow, "follow-link", "L", false, "Copy what a symbolic link leads to, in its place")
	fs.BoolVarP(&quiet, "quiet", "q", false, "Say nothing on success (default without a terminal)")
	return cmd
}

// splitCp parts CONTAINER:PATH. A path of the host has a slash before its first colon, or none.
func splitCp(arg string) (ref, path string) {
	if filepath.IsAbs(arg) {
		return "", arg
	}
	ref, path, ok := strings.Cut(arg, ":")
	if !ok || strings.HasPrefix(ref, ".") || strings.Contains(ref, "/") {
		return "", arg
	}
	return ref, path
}

func (a *app) cp(cmd *cobra.Command, from, to string, o engine.CopyOptions, quiet bool) error {
	fromRef, fromPath := splitCp(from)
	toRef, toPath := splitCp(to)
	switch {
	case fromRef != "" && toRef != "":
		return errors.New("copying between containers is not supported")
	case fromRef == "" && toRef == "":
		return errors.New("must specify at least one container source")
	case fromPath == "":
		return errors.New("the source path is empty")
	case toPath == "":
		return errors.New("the destination path is empty")
	}
	e, err := a.open()
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	var done *engine.Copied
	switch {
	case fromRef != "" && to == "-":
		if term.IsTerminal(int(a.out.Fd())) {
			return errors.New("refusing to write an archive to a terminal: send it to a file or a program, as in glassbox cp … - | tar -t")
		}
		return e.Archive(ctx, fromRef, fromPath, a.out, o)
	case fromRef != "":
		if done, err = e.CopyFrom(ctx, fromRef, fromPath, toPath, o); err == nil {
			if to, err = filepath.Abs(toPath); err != nil {
				return err
			}
		}
	case from == "-":
		if term.IsTerminal(int(a.in.Fd())) {
			return errors.New("standard input is a terminal: an archive is wanted there, as in tar -c . | glassbox cp - …")
		}
		done, err = e.Extract(ctx, toRef, toPath, a.in, o)
		quiet = true // as with Docker
	default:
		done, err = e.CopyTo(ctx, toRef, fromPath, toPath, o)
	}
	if err != nil {
		return err
	}
	for _, what := range done.LeftOut {
		a.warn("not copied: " + printable(what))
	}
	if more := done.Left - len(done.LeftOut); more > 0 {
		a.warn(fmt.Sprintf("and %d more", more))
	}
	if !quiet {
		fmt.Fprintf(a.err, "Successfully copied %s to %s\n", size(done.Bytes), to)
	}
	return nil
}
