package cli

import (
	"strconv"
	"time"

	"github.com/spf13/cobra"
)

// refusedRow is a row of network egress.
type refusedRow struct {
	Container, Direction, Name, Address, Port, Count, Since, Last string
}

func (a *app) networkEgressCommand() *cobra.Command {
	var format string
	var quiet bool
	cmd := &cobra.Command{
		Use:   "egress [OPTIONS] NETWORK|CONTAINER",
		Short: "What the walls of a container, or of a network's containers, have refused",
		Long: `What the walls of a container, or of a network's containers, have refused: names that its resolver didn't answer, and addresses and
ports that it sent to in vain (--egress), or that others wanted to reach (--ingress). The last ones come first.`,
		Example: `  glassbox network egress agent
  glassbox network egress --format '{{.Name}}{{.Address}} {{.Port}} {{.Count}}' front`,
		Args:              exactly(1),
		ValidArgsFunction: a.completeNetworks(true),
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := a.open()
			if err != nil {
				return err
			}
			all, err := e.NetworkEgress(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if quiet && format == "" {
				format = "{{.Name}}{{.Address}}"
			}
			var rows []refusedRow
			for _, r := range all {
				row := refusedRow{
					Container: r.Container, Direction: "out", Name: r.Name, Address: r.Address, Port: r.Proto,
					Count: strconv.FormatUint(r.Count, 10), Since: since(time.Now(), r.Last), Last: stamp(r.Last),
				}
				if r.In {
					row.Direction = "in"
				}
				if r.Port != 0 {
					row.Port = strconv.Itoa(int(r.Port)) + "/" + r.Proto
				}
				rows = append(rows, row)
			}
			header := refusedRow{
				Container: "CONTAINER", Direction: "DIRECTION", Name: "NAME", Address: "ADDRESS", Port: "PORT", Count: "COUNT", Since: "LAST",
				Last: "LAST",
			}
			const columns = "{{.Container}}\t{{.Direction}}\t{{.Name}}\t{{.Address}}\t{{.Port}}\t{{.Count}}\t{{.Since}}"
			return printRows(a.out, format, columns, header, rows)
		},
	}
	cmd.Flags().StringVar(&format, "format", "", "table, json or a Go template")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Only names and addresses")
	return cmd
}
