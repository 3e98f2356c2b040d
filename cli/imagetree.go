package cli

import (
	"context"
	"strings"

	"glassbox/engine"
	"glassbox/image"
)

// treeRow is a row of images --tree: an image's name, or its platform.
type treeRow struct {
	Image, ID, DiskUsage, ContentSize, Extra string
}

const treeColumns = "{{.Image}}\t{{.ID}}\t{{.DiskUsage}}\t{{.ContentSize}}\t{{.Extra}}"

// imageTree prints each image with its names, and below it the platform that it is for, as docker images --tree does. A store has one
// platform of an image. What docker calls the content are compressed layers, which glassbox doesn't keep.
func (a *app) imageTree(ctx context.Context, e *engine.Engine, list []image.Summary, wanted string) error {
	var rows []treeRow
	for _, i := range list {
		var names []string
		for _, n := range i.RepoTags {
			if wanted == "" || image.Matches(wanted, n) {
				names = append(names, n)
			}
		}
		if len(names) == 0 && (wanted != "" || len(i.RepoTags) > 0) {
			continue
		}
		if len(names) == 0 {
			names = []string{"<untagged>"}
		}
		img, err := e.Images().Resolve(i.ID)
		if err != nil {
			continue // it has gone meanwhile
		}
		inUse := ""
		if len(e.ImageUsers(ctx, i.ID)) > 0 {
			inUse = "U"
		}
		row := treeRow{ID: short(strings.TrimPrefix(i.ID, "sha256:"), false), DiskUsage: size(i.Size), ContentSize: "N/A", Extra: inUse}
		for _, n := range names {
			row.Image = n
			rows = append(rows, row)
			row = treeRow{}
		}
		rows = append(rows, treeRow{
			Image: "└─ " + img.Platform.String(), ID: short(strings.TrimPrefix(img.ManifestDigest, "sha256:"), false),
			DiskUsage: size(i.Size), ContentSize: "N/A", Extra: inUse,
		})
	}
	header := treeRow{"IMAGE", "ID", "DISK USAGE", "CONTENT SIZE", "IN USE"}
	return printRows(a.out, "", treeColumns, header, rows)
}
