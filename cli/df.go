package cli

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"glassbox/build"
	"glassbox/docker"
	"glassbox/engine"
)

// dfRow is a row of system df, with Docker's fields.
type dfRow struct {
	Active      string
	Reclaimable string
	Size        string
	TotalCount  string
	Type        string
}

const dfColumns = "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}"

func dfHeader() dfRow {
	return dfRow{Active: "ACTIVE", Reclaimable: "RECLAIMABLE", Size: "SIZE", TotalCount: "TOTAL", Type: "TYPE"}
}

// newDfRow makes a row; free is what would go with what isn't active.
func newDfRow(kind string, total, active int, bytes, free int64) dfRow {
	row := dfRow{strconv.Itoa(active), fineSize(free), fineSize(bytes), strconv.Itoa(total), kind}
	if bytes > 0 {
		row.Reclaimable += fmt.Sprintf(" (%d%%)", free*100/bytes)
	}
	return row
}

// fineSize is size with four digits, as docker system df has them.
func fineSize(n int64) string {
	f, units, i := float64(n), []string{"B", "kB", "MB", "GB", "TB", "PB", "EB"}, 0
	for f >= 1000 && i < len(units)-1 {
		f /= 1000
		i++
	}
	return fmt.Sprintf("%.4g%s", f, units[i])
}

// dfRows are the rows of system df. cache is the build cache.
func dfRows(u *engine.DiskUsage, cache []build.Record) []dfRow {
	active, running, files, free := 0, 0, int64(0), int64(0)
	for _, i := range u.Images {
		if i.Containers > 0 {
			active++
		}
	}
	for _, c := range u.Containers {
		files += c.SizeRw
		if c.State == "running" || c.State == "paused" || c.State == "restarting" {
			running++
		} else {
			free += c.SizeRw
		}
	}
	volumes, unused, used := int64(0), int64(0), 0
	for _, v := range u.Volumes {
		volumes += v.Bytes
		if v.Links > 0 {
			used++
		} else {
			unused += v.Bytes
		}
	}
	cached, evictable, inUse := build.Sum(cache)
	return []dfRow{
		newDfRow("Images", len(u.Images), active, u.Layers, u.Layers-u.UsedLayers),
		newDfRow("Containers", len(u.Containers), running, files, free),
		newDfRow("Local Volumes", len(u.Volumes), used, volumes, unused),
		newDfRow("Build Cache", len(cache), inUse, cached, evictable),
	}
}

func (a *app) dfCommand() *cobra.Command {
	var verbose bool
	var format string
	cmd := &cobra.Command{
		Use:   "df [OPTIONS]",
		Short: "What takes space: images, containers, volumes",
		Long: `What takes space: images, containers, volumes.

Layers that several images have count once. RECLAIMABLE is what system prune -a --volumes and container prune would give back.`,
		Example: `  glassbox system df
  glassbox system df -v
  glassbox system df --format '{{.Type}} {{.Size}}'`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if verbose && format != "" && format != "json" {
				return &usageError{err: errors.New("the verbose and the format options conflict")}
			}
			if err := checkRows(format); err != nil {
				return err
			}
			e, err := a.open()
			if err != nil {
				return err
			}
			u, err := e.DiskUsage(cmd.Context())
			if err != nil {
				return err
			}
			cache, err := a.buildCache(cmd.Context())
			if err != nil {
				return err
			}
			if verbose {
				return a.dfVerbose(u, cache, format)
			}
			return printRows(a.out, format, dfColumns, dfHeader(), dfRows(u, cache))
		},
	}
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "Each image, container and volume")
	cmd.Flags().StringVar(&format, "format", "", "table, table TEMPLATE, json or a Go template")
	return cmd
}

// volumeUseRow is a row of the volumes of system df -v.
type volumeUseRow struct{ Name, Links, Size string }

// dfVerbose prints each thing, in tables, or all as one object of JSON.
func (a *app) dfVerbose(u *engine.DiskUsage, cache []build.Record, format string) error {
	now := time.Now()
	images, containers, volumes := []imageRow{}, []psRow{}, []volumeUseRow{}
	for _, i := range u.Images {
		for _, row := range newImageRows(i.Summary(), now, false, "") {
			row.SharedSize, row.UniqueSize, row.Containers = size(i.Shared), size(i.Size-i.Shared), strconv.Itoa(i.Containers)
			images = append(images, row)
		}
	}
	for _, c := range u.Containers {
		row := newPsRow(c, now, false)
		row.Size = size(c.SizeRw)
		containers = append(containers, row)
	}
	for _, v := range u.Volumes {
		volumes = append(volumes, volumeUseRow{printable(v.Name), strconv.Itoa(v.Links), size(v.Bytes)})
	}
	if format == "json" {
		return printValue(a.out, format, struct {
			BuildCache []build.Record
			Containers []psRow
			Images     []imageRow
			Volumes    []volumeUseRow
		}{append([]build.Record{}, cache...), containers, images, volumes})
	}
	part := func(w io.Writer, title string) { fmt.Fprintf(w, "%s space usage:\n\n", title) }
	part(a.out, "Images")
	err := printRows(a.out, "", imageColumns+"\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}", imageHeader(), images)
	part(a.out, "\nContainers")
	err = errors.Join(err, printRows(a.out, "",
		"{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}", psHeader(), containers))
	part(a.out, "\nLocal Volumes")
	err = errors.Join(err, printRows(a.out, "", "{{.Name}}\t{{.Links}}\t{{.Size}}", volumeUseRow{"VOLUME NAME", "LINKS", "SIZE"}, volumes))
	total, _, _ := build.Sum(cache)
	fmt.Fprintf(a.out, "\nBuild cache usage: %s\n\n", size(total))
	return errors.Join(err, printRows(a.out, "", cacheColumns, cacheHeader(), cacheRows(cache, now)))
}

// containerSize is what docker ps -s says: what a container has written and, if it is known, what it sees in all.
func containerSize(s docker.Summary) string {
	text := size(s.SizeRw)
	if s.SizeRootFs > 0 {
		text += " (virtual " + size(s.SizeRootFs) + ")"
	}
	return text
}
