package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"glassbox/engine"
)

// prune is the command that takes away what nobody needs of one kind of things, or of all.
type prune struct {
	short, example string
	filters        string                 // what of them its help says
	check          func(f []string) error // of the filters, before anybody is asked; nil: do says what is wrong with them
	warning        func() string          // what will be removed, in docker's words
	noTotal        bool                   // nothing is freed that is worth a line
	do             func(ctx context.Context, e *engine.Engine, filters []string, gone *engine.Pruned) error
}

func (a *app) pruneCommand(p prune) *cobra.Command {
	var force bool
	var filters []string
	cmd := &cobra.Command{
		Use: "prune [OPTIONS]", Short: p.short, Example: p.example, Args: noArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if p.check != nil {
				if err := p.check(filters); err != nil {
					return err
				}
			}
			e, err := a.open()
			if err != nil {
				return err
			}
			if !force && !a.agree("WARNING! "+p.warning()) {
				return nil
			}
			var gone engine.Pruned
			err = p.do(cmd.Context(), e, filters, &gone)
			a.printPruned(&gone)
			if !p.noTotal && (err == nil || gone.Freed > 0) {
				fmt.Fprintln(a.out, "Total reclaimed space:", size(gone.Freed))
			}
			return err
		},
	}
	cmd.Flags().VarP(filterList{list{&filters}}, "filter", "", p.filters)
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Don't ask")
	return cmd
}

const commonFilters = "Only those with until=, label=KEY[=VALUE], label!=KEY[=VALUE]"

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
}

func (a *app) containerPruneCommand() *cobra.Command {
	return a.pruneCommand(prune{
		short: "Remove all containers that don't run",
		example: `  glassbox container prune
  glassbox container prune -f --filter until=24h --filter label!=keep`,
		filters: commonFilters, check: engine.CheckPruneFilters,
		warning: func() string { return "This will remove all stopped containers." },
		do: func(ctx context.Context, e *engine.Engine, filters []string, gone *engine.Pruned) error {
			return e.PruneContainers(ctx, filters, gone)
		},
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
	cmd := a.pruneCommand(prune{
		short: "Remove images that have no name, or that no container uses",
		example: `  glassbox image prune
  glassbox image prune -af --filter until=240h`,
		filters: commonFilters, check: engine.CheckPruneFilters,
		warning: func() string { return "This will remove " + images() + "." },
		do: func(ctx context.Context, e *engine.Engine, filters []string, gone *engine.Pruned) error {
			return e.PruneImages(ctx, all, filters, gone)
		},
	})
	cmd.Flags().BoolVarP(&all, "all", "a", false, "Also those with a name, if no container is made from them")
	return cmd
}

func (a *app) systemPruneCommand() *cobra.Command {
	var all, volumes bool
	cmd := a.pruneCommand(prune{
		short: "Remove what nothing needs: stopped containers, networks, images, build cache",
		example: `  glassbox system prune
  glassbox system prune -af --volumes`,
		filters: commonFilters, check: engine.CheckPruneFilters,
		warning: func() string {
			lines := []string{"This will remove:", "  - all stopped containers", "  - all networks not used by at least one container"}
			if volumes {
				lines = append(lines, "  - all anonymous volumes not used by at least one container")
			}
			if all {
				return strings.Join(append(lines, "  - "+unusedImages, "  - all build cache", ""), "\n")
			}
			return strings.Join(append(lines, "  - "+danglingImages, "  - unused build cache", ""), "\n")
		},
		do: func(ctx context.Context, e *engine.Engine, filters []string, gone *engine.Pruned) error {
			// Containers first: networks, volumes and images that only they have used are free then. What fails doesn't keep the rest.
			err := e.PruneContainers(ctx, filters, gone)
			err = errors.Join(err, e.PruneNetworks(ctx, filters, gone))
			if volumes {
				err = errors.Join(err, e.PruneAnonymous(ctx, filters, gone))
			}
			err = errors.Join(err, e.PruneImages(ctx, all, filters, gone))
			return errors.Join(err, a.pruneCache(ctx, all, filters, gone))
		},
	})
	cmd.Flags().BoolVarP(&all, "all", "a", false, "Also images with a name, if no container is made from them")
	cmd.Flags().BoolVar(&volumes, "volumes", false, "Also anonymous volumes that no container uses")
	return cmd
}

func (a *app) systemCommand() *cobra.Command {
	return parent("system", "What this host has, what takes its space, and what is not needed",
		a.dfCommand(), a.eventsCommand(), a.infoCommand(), a.systemPruneCommand())
}
