package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"glassbox/image"
)

// searchRow is a row of search, with Docker's fields.
type searchRow struct {
	Description string
	IsAutomated string
	IsOfficial  string
	Name        string
	StarCount   string
}

func (a *app) searchCommand() *cobra.Command {
	var format string
	var filters, insecure []string
	var limit int
	var full bool
	cmd := &cobra.Command{
		Use:   "search [OPTIONS] TERM",
		Short: "Search Docker Hub, or another registry, for images",
		Example: `  glassbox search --filter is-official=true debian
  glassbox search registry.lan:5000/app`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			keep, err := image.SearchFilter(filters)
			if err != nil {
				return err
			}
			// Docker's default and its most.
			if limit == 0 {
				limit = 25
			}
			if limit < 1 || limit > 100 {
				return fmt.Errorf("invalid argument \"%d\" for --limit: it is 1 to 100", limit)
			}
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			list, err := image.Search(ctx, args[0], limit, image.PullOptions{InsecureRegistries: insecure})
			if err != nil {
				return err
			}
			var rows []searchRow
			for _, r := range list {
				if !keep(r) {
					continue
				}
				row := searchRow{Description: printable(strings.ReplaceAll(r.Description, "\n", " ")), Name: printable(r.Name)}
				if !full {
					row.Description = ellipsis(row.Description, 45)
				}
				if row.StarCount = strconv.Itoa(r.Stars); r.Official {
					row.IsOfficial = "[OK]"
				}
				rows = append(rows, row)
			}
			header := searchRow{Description: "DESCRIPTION", IsAutomated: "AUTOMATED", IsOfficial: "OFFICIAL", Name: "NAME", StarCount: "STARS"}
			return printRows(a.out, format, "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}", header, rows)
		},
	}
	fs := cmd.Flags()
	fs.VarP(filterList{list{&filters}}, "filter", "f", "Only those with stars=NUMBER, is-official=BOOL")
	fs.StringVar(&format, "format", "", "table, table TEMPLATE, json or a Go template")
	fs.IntVar(&limit, "limit", 0, "Number of results, at most 100 (default 25)")
	fs.BoolVar(&full, "no-trunc", false, "Don't shorten")
	a.insecureFlag(fs, &insecure)
	return cmd
}

func (a *app) manifestCommand() *cobra.Command {
	var verbose, insecure bool
	var registries []string
	inspect := &cobra.Command{
		Use:   "inspect [OPTIONS] NAME[:TAG|@DIGEST]",
		Short: "Show the manifest that a registry has under a name; nothing is kept",
		Example: `  glassbox manifest inspect debian:12
  glassbox manifest inspect -v registry.lan:5000/team/app`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if ref, err := image.ParseRef(args[0]); err == nil && insecure {
				registries = append(registries, ref.Registry)
			}
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			raw, list, err := image.RemoteManifest(ctx, args[0], verbose, image.PullOptions{InsecureRegistries: registries})
			if err != nil {
				return err
			}
			if verbose { // as docker: one manifest, or a list of those of an index
				var v any = list
				if len(list) == 1 {
					v = list[0]
				}
				if raw, err = json.Marshal(v); err != nil {
					return err
				}
			}
			var out bytes.Buffer
			if err := json.Indent(&out, raw, "", "\t"); err != nil {
				return err
			}
			fmt.Fprintln(a.out, a.forReader(out.String()))
			return nil
		},
	}
	fs := inspect.Flags()
	fs.BoolVarP(&verbose, "verbose", "v", false, "With digests, platforms, and the manifests that an index names")
	fs.BoolVar(&insecure, "insecure", false, "The registry may be spoken to without TLS, or with a certificate nobody vouches for")
	a.insecureFlag(fs, &registries)
	return parent("manifest", "What registries have under a name", inspect)
}
