package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"glassbox/image"
)

const none = "<none>"

// imageRow is a row of images, with Docker's fields.
type imageRow struct {
	Containers   string
	CreatedAt    string
	CreatedSince string
	Digest       string
	ID           string
	Repository   string
	SharedSize   string
	Size         string
	Tag          string
	UniqueSize   string
	VirtualSize  string
}

func imageHeader() imageRow {
	return imageRow{
		Containers: "CONTAINERS", CreatedAt: "CREATED AT", CreatedSince: "CREATED", Digest: "DIGEST", ID: "IMAGE ID", Repository: "REPOSITORY",
		SharedSize: "SHARED SIZE", Size: "SIZE", Tag: "TAG", UniqueSize: "UNIQUE SIZE", VirtualSize: "SIZE",
	}
}

const (
	imageColumns  = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
	digestColumns = "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
)

// newImageRows makes one row for every name of an image. Wanted, if set, chooses among the names.
func newImageRows(i image.Summary, now time.Time, full bool, wanted string) []imageRow {
	id := i.ID
	if !full {
		id = short(strings.TrimPrefix(i.ID, "sha256:"), false)
	}
	var created time.Time
	if i.Created != 0 {
		created = time.Unix(i.Created, 0)
	}
	row := imageRow{
		Containers: "N/A", CreatedAt: stamp(created), CreatedSince: since(now, created), Digest: none, ID: id, Repository: none,
		SharedSize: "N/A", Size: size(i.Size), Tag: none, UniqueSize: "N/A", VirtualSize: size(i.Size),
	}
	var rows []imageRow
	for _, name := range i.RepoTags {
		if wanted != "" && !image.Matches(wanted, name) {
			continue
		}
		r := row
		r.Repository, r.Tag = image.SplitTag(name)
		r.Digest = digestOf(i, r.Repository)
		rows = append(rows, r)
	}
	if len(i.RepoTags) == 0 {
		for _, d := range i.RepoDigests {
			r := row
			r.Repository, r.Digest, _ = strings.Cut(d, "@")
			if wanted == "" || image.Matches(wanted, r.Repository) {
				rows = append(rows, r)
			}
		}
		if len(i.RepoDigests) == 0 && wanted == "" {
			rows = append(rows, row)
		}
	}
	return rows
}

func digestOf(i image.Summary, repository string) string {
	for _, d := range i.RepoDigests {
		if name, digest, _ := strings.Cut(d, "@"); name == repository {
			return digest
		}
	}
	return none
}

func (a *app) imagesCommand() *cobra.Command {
	var quiet, digests, full, tree bool
	var format string
	var filters []string
	cmd := &cobra.Command{
		Use:   "images [OPTIONS] [REPOSITORY[:TAG]]",
		Short: "List images",
		Example: `  glassbox images
  glassbox images --filter dangling=true -q
  glassbox images --tree --filter until=24h
  glassbox images --format '{{.Repository}}:{{.Tag}} {{.Size}}' 'debian*'`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return &usageError{fmt.Errorf("'%s' requires at most 1 argument", cmd.CommandPath()), 1}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			for flag, given := range map[string]bool{"--quiet": quiet, "--digests": digests, "--no-trunc": full, "--format": format != ""} {
				if tree && given {
					return &usageError{err: fmt.Errorf("%s is not for --tree", flag)}
				}
			}
			wanted := ""
			if len(args) > 0 {
				wanted = args[0]
			}
			e, err := a.open()
			if err != nil {
				return err
			}
			chosen, err := e.ListImages(cmd.Context(), filters)
			if err != nil {
				return err
			}
			if tree {
				return a.imageTree(cmd.Context(), e, chosen, wanted)
			}
			var rows []imageRow
			for _, i := range chosen {
				rows = append(rows, newImageRows(i, time.Now(), full, wanted)...)
			}
			if quiet {
				for _, r := range rows {
					fmt.Fprintln(a.out, r.ID)
				}
				return nil
			}
			columns := imageColumns
			if digests {
				columns = digestColumns
			}
			return printRows(a.out, format, columns, imageHeader(), rows)
		},
	}
	fs := cmd.Flags()
	fs.BoolP("all", "a", false, "Accepted for Docker's sake: glassbox has no intermediate images")
	fs.BoolVarP(&quiet, "quiet", "q", false, "Print IDs only")
	fs.BoolVar(&digests, "digests", false, "Print digests, too")
	fs.BoolVar(&full, "no-trunc", false, "Don't shorten IDs")
	fs.VarP(filterList{list{&filters}}, "filter", "f", "Only those with dangling=, reference=, label=, before=, since=, until=")
	fs.BoolVar(&tree, "tree", false, "Each image with all its names, and the platform that it is for")
	fs.StringVar(&format, "format", "", "table, table TEMPLATE, json or a Go template")
	return cmd
}

func (a *app) tagCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
		Short:             "Give an image a further name",
		Example:           `  glassbox tag debian:12 registry.lan:5000/base:today`,
		Args:              exactly(2),
		ValidArgsFunction: a.completeImages,
		RunE: func(_ *cobra.Command, args []string) error {
			e, err := a.open()
			if err != nil {
				return err
			}
			return e.Images().Tag(args[0], args[1])
		},
	}
}

func (a *app) rmiCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:     "rmi [OPTIONS] IMAGE [IMAGE...]",
		Aliases: []string{"remove"},
		Short:   "Remove images",
		Example: `  glassbox rmi debian:12
  glassbox rmi $(glassbox images -q --filter dangling=true)`,
		Args:              atLeast(1),
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := a.open()
			if err != nil {
				return err
			}
			return a.each(args, func(ref string) (string, error) {
				users := func(id string) []string { return e.ImageUsers(cmd.Context(), id) }
				gone, err := e.Images().Remove(ref, image.RemoveOptions{Force: force, InUse: users})
				if err != nil {
					return "", err
				}
				var lines []string
				for _, name := range gone.Untagged {
					lines = append(lines, "Untagged: "+name)
				}
				for _, id := range gone.Deleted {
					lines = append(lines, "Deleted: "+id)
				}
				return strings.Join(lines, "\n"), nil
			})
		},
	}
	cmd.Flags().Bool("no-prune", false, "Accepted for Docker's sake: there are no parents without a name that could be kept")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Also an image with several names, or one that containers use (its names only)")
	return cmd
}

func (a *app) imageCommand() *cobra.Command {
	ls := a.imagesCommand()
	ls.Use = strings.Replace(ls.Use, "images", "ls", 1)
	ls.Aliases = []string{"list"}
	rm := a.rmiCommand()
	rm.Use = strings.Replace(rm.Use, "rmi", "rm", 1)
	return parent("image", "The commands on images under one name",
		ls, rm, a.pullCommand(), a.tagCommand(), a.inspectOf("image"), a.fromHostCommand(), a.saveCommand(), a.loadCommand(), a.pushCommand(),
		a.importCommand(), a.historyCommand(), a.imagePruneCommand(), a.buildCommand())
}

func (a *app) fromHostCommand() *cobra.Command {
	var platform platformFlag
	cmd := &cobra.Command{
		Use:   "from-host NAME FILE [FILE...]",
		Short: "Make an image of this machine's own programs, without a network",
		Long: `Make an image of this machine's own programs, without a network.

A FILE is a path, a name to be found in PATH, or FILE:DEST. Shared libraries that a program's ELF header names come along;
directories come with all they hold.`,
		Example: `  glassbox image from-host box sh ls cat ps
  glassbox run -it --rm box sh`,
		Args: atLeast(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := a.open()
			if err != nil {
				return err
			}
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			i, err := e.Images().FromHost(ctx, args[0], image.FromHostOptions{Files: args[1:], Platform: image.Platform(platform)})
			if err != nil {
				return err
			}
			fmt.Fprintln(a.out, i.ID)
			return nil
		},
	}
	cmd.Flags().SetInterspersed(false)
	cmd.Flags().Var(&platform, "platform", "Platform of the image, which can be no other than this machine's")
	return cmd
}
