package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"glassbox/build"
	"glassbox/container"
	"glassbox/docker"
	"glassbox/engine"
)

func (a *app) builderCommand() *cobra.Command {
	return parent("builder", "The build cache, and the builder",
		a.buildCommand(), a.builderPruneCommand(), a.builderUsageCommand(), a.builderServeCommand())
}

func (a *app) builderPruneCommand() *cobra.Command {
	var p build.Prune
	var force bool
	var filters []string
	var keep, reserved, most, free string
	cmd := &cobra.Command{
		Use:   "prune [OPTIONS]",
		Short: "Remove build cache",
		Long: `Remove build cache: what no build has in use. The caches of RUN --mount=type=cache are part of it.

Without this the builder keeps within limits of its own: what can be had again easily goes after two days, all after sixty.`,
		Example: `  glassbox builder prune
  glassbox builder prune -af
  glassbox builder prune -f --filter until=72h --reserved-space 10g`,
		Args: noArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := p.ReadFilters(filters); err != nil {
				return &usageError{err: err}
			}
			for _, f := range []struct {
				name, text string
				to         *int64
			}{
				{"keep-storage", keep, &p.ReservedSpace},
				{"reserved-space", reserved, &p.ReservedSpace},
				{"max-used-space", most, &p.MaxUsedSpace},
				{"min-free-space", free, &p.MinFreeSpace},
			} {
				if f.text == "" {
					continue
				}
				var err error
				if *f.to, err = container.ParseBytes(f.text); err != nil {
					return &usageError{err: fmt.Errorf("--%s %s: %w", f.name, f.text, err)}
				}
			}
			what := "This will remove all dangling build cache."
			if p.All {
				what = "This will remove all build cache."
			}
			if !force && !a.agree("WARNING! "+what) {
				return nil
			}
			gone, err := a.records(cmd.Context(), "prune", &build.Order{Prune: &p})
			if err != nil {
				return err
			}
			a.printPrunedCache(gone)
			total, _, _ := build.Sum(gone)
			fmt.Fprintln(a.out, "Total reclaimed space:", size(total))
			return nil
		},
	}
	fs := cmd.Flags()
	fs.BoolVarP(&p.All, "all", "a", false, "All of it, also what the builder keeps for itself")
	fs.BoolVarP(&force, "force", "f", false, "Don't ask")
	fs.Var(filterList{list{&filters}}, "filter", "Only what matches: until=24h, type=exec.cachemount, id=, inuse, shared, private …")
	fs.StringVar(&keep, "keep-storage", "", "The old name of --reserved-space")
	fs.StringVar(&reserved, "reserved-space", "", "So much is kept in any case, as in 10g")
	fs.StringVar(&most, "max-used-space", "", "So much is kept at most")
	fs.StringVar(&free, "min-free-space", "", "So much of the disk is to be free")
	return cmd
}

// printPrunedCache lists what was removed, as docker does.
func (a *app) printPrunedCache(gone []build.Record) {
	if len(gone) == 0 {
		return
	}
	fmt.Fprintln(a.out, "Deleted build cache objects:")
	for _, r := range gone {
		fmt.Fprintln(a.out, printable(r.ID))
	}
	fmt.Fprintln(a.out)
}

func (a *app) builderUsageCommand() *cobra.Command {
	var verbose bool
	var filters []string
	var format string
	cmd := &cobra.Command{
		Use:   "du [OPTIONS]",
		Short: "What the build cache takes",
		Example: `  glassbox builder du
  glassbox builder du --verbose
  glassbox builder du --filter type=exec.cachemount`,
		Args: noArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var p build.Prune
			if err := p.ReadFilters(filters); err != nil {
				return &usageError{err: err}
			}
			if format != "" && format != "json" {
				return &usageError{err: fmt.Errorf("--format %s: it is json", format)}
			}
			records, err := a.records(cmd.Context(), "du", &build.Order{Usage: &build.Usage{Filters: p.Filters}})
			if err != nil {
				return err
			}
			slices.SortStableFunc(records, func(x, y build.Record) int { return cmp.Compare(y.Size, x.Size) })
			switch {
			case format == "json":
				for _, r := range records {
					if err := printValue(a.out, "json", r); err != nil {
						return err
					}
				}
				return nil
			case verbose:
				a.printRecords(records)
			default:
				printCache(a.out, records)
			}
			return a.printSums(records)
		},
	}
	cmd.Flags().BoolVar(&verbose, "verbose", false, "All that is known of each part")
	cmd.Flags().Var(filterList{list{&filters}}, "filter", "Only what matches: type=exec.cachemount, id=, inuse, shared, private …")
	cmd.Flags().StringVar(&format, "format", "", "json: an object a line")
	return cmd
}

// printSums are the last lines of builder du, as buildx has them.
func (a *app) printSums(records []build.Record) error {
	total, free, _ := build.Sum(records)
	shared := int64(0)
	for _, r := range records {
		if r.Shared {
			shared += r.Size
		}
	}
	w := tabwriter.NewWriter(a.out, 1, 8, 1, '\t', 0)
	if shared > 0 {
		fmt.Fprintf(w, "Shared:\t%s\nPrivate:\t%s\n", size(shared), size(total))
	}
	fmt.Fprintf(w, "Reclaimable:\t%s\nTotal:\t%s\n", size(free), size(total+shared))
	return w.Flush()
}

func printCache(out *os.File, records []build.Record) {
	w := tabwriter.NewWriter(out, 1, 8, 1, '\t', 0)
	fmt.Fprintln(w, "ID\tRECLAIMABLE\tSIZE\tLAST ACCESSED")
	for _, r := range records {
		id := r.ID
		if r.Shared {
			id += "*"
		}
		last := ""
		if r.LastUsedAt != nil {
			last = docker.Ago(time.Since(*r.LastUsedAt)) + " ago"
		}
		fmt.Fprintf(w, "%s\t%t\t%s\t%s\n", printable(id), !r.InUse, size(r.Size), last)
	}
	w.Flush()
}

// printRecords prints each record with all its fields, as buildx du --verbose.
func (a *app) printRecords(records []build.Record) {
	w := tabwriter.NewWriter(a.out, 1, 8, 1, '\t', 0)
	for _, r := range records {
		fmt.Fprintf(w, "ID:\t%s\n", printable(r.ID))
		if len(r.Parents) > 0 {
			fmt.Fprintf(w, "Parents:\t%s\n", printable(strings.Join(r.Parents, ", ")))
		}
		fmt.Fprintf(w, "Created at:\t%s\nReclaimable:\t%t\nShared:\t%t\nSize:\t%s\n", r.CreatedAt, !r.InUse, r.Shared, size(r.Size))
		fmt.Fprintf(w, "Description:\t%s\nUsage count:\t%d\n", printable(r.Description), r.UsageCount)
		if r.LastUsedAt != nil {
			fmt.Fprintf(w, "Last used:\t%s ago\n", docker.Ago(time.Since(*r.LastUsedAt)))
		}
		fmt.Fprintf(w, "Type:\t%s\n\n", printable(r.Type))
	}
	w.Flush()
}

func (a *app) builderServeCommand() *cobra.Command {
	var idle time.Duration
	cmd := &cobra.Command{
		Use:   "serve [OPTIONS]",
		Short: "Keep the builder open for other programs, at a socket",
		Long: `Keep the builder open at the socket build.sock in the directory --state, which speaks BuildKit's control API: for buildctl, and
buildx with the driver remote. Builds of glassbox use it meanwhile, side by side. It ends when nobody has used it for a while.`,
		Example: `  glassbox builder serve --idle 10m
  docker buildx create --name glass --driver remote unix:///run/glassbox/build.sock`,
		Args: noArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			if idle < 0 {
				return &usageError{err: errors.New("--idle: a time is needed, as in 10m")}
			}
			return a.builder("serve", &build.Order{Serve: &build.Serve{Idle: idle}})
		},
	}
	cmd.Flags().DurationVar(&idle, "idle", time.Minute, "End when nobody has used it for so long; 0: never")
	return cmd
}

// cacheRow is a part of the build cache in system df -v, with Docker's fields.
type cacheRow struct {
	ID, CacheType, Size, CreatedSince, LastUsedSince, UsageCount, Shared string
}

const cacheColumns = "{{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.UsageCount}}\t{{.Shared}}"

func cacheHeader() cacheRow {
	return cacheRow{"CACHE ID", "CACHE TYPE", "SIZE", "CREATED", "LAST USED", "USAGE", "SHARED"}
}

func cacheRows(records []build.Record, now time.Time) []cacheRow {
	rows := []cacheRow{}
	for _, r := range records {
		row := cacheRow{
			ID: printable(r.ID), CacheType: printable(r.Type), Size: size(r.Size), CreatedSince: since(now, r.CreatedAt),
			UsageCount: strconv.Itoa(r.UsageCount), Shared: strconv.FormatBool(r.Shared),
		}
		if len(row.ID) > 12 {
			row.ID = row.ID[:12]
		}
		if r.LastUsedAt != nil {
			row.LastUsedSince = since(now, *r.LastUsedAt)
		}
		rows = append(rows, row)
	}
	return rows
}

// buildCache is what the build cache has. Who has never built, may not, or has no builder's program has none; while somebody builds, the
// cache isn't looked into, which is said.
func (a *app) buildCache(ctx context.Context) ([]build.Record, error) {
	if !a.hasBuildCache() {
		return nil, nil
	}
	if _, err := beside(builderProgram); err != nil {
		return nil, nil
	}
	records, err := a.records(ctx, "du", &build.Order{Usage: &build.Usage{NoWait: true}})
	var exit *exitError
	// du is not worth waiting for the end of a build.
	if errors.As(err, &exit) && exit.code == build.Busy {
		a.warn("the build cache is in use by a build, and not counted")
		return nil, nil
	}
	return records, err
}

// hasBuildCache reports whether there is a build cache that this user may look into. To ask the builder would make one.
func (a *app) hasBuildCache() bool {
	p := build.Place{Root: a.root}
	for _, dir := range []string{p.Records(), p.Dir()} { // the second is where an older glassbox had it
		if _, err := os.Stat(filepath.Join(dir, "cache.db")); err == nil {
			return os.Geteuid() == 0
		}
	}
	return false
}

// pruneCache is the part of system prune that is the builder's. Of its filters until is one of the cache's, too; labels are none: with
// such a filter no cache is removed.
func (a *app) pruneCache(ctx context.Context, all bool, filters []string, out *engine.Pruned) error {
	p := build.Prune{All: all}
	if slices.ContainsFunc(filters, func(f string) bool { return strings.HasPrefix(f, "label") }) {
		return nil
	}
	if err := p.ReadFilters(filters); err != nil {
		return err
	}
	if !a.hasBuildCache() {
		return nil
	}
	gone, err := a.records(ctx, "prune", &build.Order{Prune: &p})
	if err != nil {
		return err
	}
	a.pruned = gone // told with what else is gone
	total, _, _ := build.Sum(gone)
	out.Freed += total
	return nil
}
