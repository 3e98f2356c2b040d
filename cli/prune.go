package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"glassbox/engine"
)

// pruneCommand is the prune of one kind of things, or of all.
func (a *app) pruneCommand(
	short, example string, warning func() string, do func(context.Context, *engine.Engine, []string, *engine.Pruned) error,
) *cobra.Command {
	var force bool
	var filters []string
	cmd := &cobra.Command{
		Use: "prune [OPTIONS]", Short: short, Example: example, Args: noArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := engine.CheckPruneFilters(filters); err != nil { // before anybody is asked
				return err
			}
			e, err := a.open()
			if err != nil {
				return err
			}
			if !force && !a.agree("WARNING! "+warning()) {
				return nil
			}
			var gone engine.Pruned
			err = do(cmd.Context(), e, filters, &gone)
			a.printPruned(&gone)
			return err
		},
	}
	cmd.Flags().VarP(filterList{list{&filters}}, "filter", "", "Only those with until=, label=KEY[=VALUE], label!=KEY[=VALUE]")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Don't ask")
	return cmd
}

// printPruned lists what was removed, as docker does.
func (a *app) printPruned(gone *engine.Pruned) {
	list := func(title string, lines []string) {
		if len(lines) > 0 {
			fmt.Fprintf(a.out, "%s:\n%s\n\n", title, printable(strings.Join(lines, "\n")))
		}
	}
	list("Deleted Containers", gone.Containers)
	list("Deleted Networks", gone.Networks)
	list("Deleted Volumes", gone.Volumes)
	var images []string
	for _, name := range gone.Untagged {
		images = append(images, "untagged: "+name)
	}
	for _, id := range gone.Images {
		images = append(images, "deleted: "+id)
	}
	list("Deleted Images", images)
	a.printPrunedCache(a.pruned)
	fmt.Fprintln(a.out, "Total reclaimed space:", size(gone.Freed))
}

func (a *app) containerPruneCommand() *cobra.Command {
	return a.pruneCommand("Remove all containers that don't run", `  glassbox container prune
  glassbox container prune -f --filter until=24h --filter label!=keep`,
		func() string { return "This will remove all stopped containers." },
		func(ctx context.Context, e *engine.Engine, filters []string, out *engine.Pruned) error {
			return e.PruneContainers(ctx, filters, out)
		})
}

const (
	danglingImages = "all dangling images"
	unusedImages   = "all images without at least one container associated to them"
)

func (a *app) imagePruneCommand() *cobra.Command {
	var all bool
	images := func() string {
		if all {
			return unusedImages
		}
		return danglingImages
	}
	cmd := a.pruneCommand("Remove images that have no name, or that no container uses", `  glassbox image prune
  glassbox image prune -af --filter until=240h`,
		func() string { return "This will remove " + images() + "." },
		func(ctx context.Context, e *engine.Engine, filters []string, out *engine.Pruned) error {
			return e.PruneImages(ctx, all, filters, out)
		})
	cmd.Flags().BoolVarP(&all, "all", "a", false, "Also those with a name, if no container is made from them")
	return cmd
}

func (a *app) systemPruneCommand() *cobra.Command {
	var all, volumes bool
	cmd := a.pruneCommand("Remove what nothing needs: stopped containers, networks, images, build cache", `  glassbox system prune
  glassbox system prune -af --volumes`,
		func() string {
			lines := []string{"This will remove:", "  - all stopped containers", "  - all networks not used by at least one container"}
			if volumes {
				lines = append(lines, "  - all anonymous volumes not used by at least one container")
			}
			if all {
				return strings.Join(append(lines, "  - "+unusedImages, "  - all build cache", ""), "\n")
			}
			return strings.Join(append(lines, "  - "+danglingImages, "  - unused build cache", ""), "\n")
		},
		func(ctx context.Context, e *engine.Engine, filters []string, out *engine.Pruned) error {
			// Containers first: networks, volumes and images that only they have used are free then. What fails doesn't keep the rest.
			err := e.PruneContainers(ctx, filters, out)
			err = errors.Join(err, e.PruneNetworks(ctx, filters, out))
			if volumes {
				err = errors.Join(err, e.PruneAnonymous(ctx, filters, out))
			}
			err = errors.Join(err, e.PruneImages(ctx, all, filters, out))
			return errors.Join(err, a.pruneCache(ctx, all, filters, out))
		})
	cmd.Flags().BoolVarP(&all, "all", "a", false, "Also images with a name, if no container is made from them")
	cmd.Flags().BoolVar(&volumes, "volumes", false, "Also anonymous volumes that no container uses")
	return cmd
}

func (a *app) systemCommand() *cobra.Command {
	return parent("system", "What this host has, what takes its space, and what is not needed",
		a.dfCommand(), a.eventsCommand(), a.infoCommand(), a.systemPruneCommand())
}
