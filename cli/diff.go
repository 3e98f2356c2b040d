package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) diffCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "diff CONTAINER",
		Short: "What a container has changed in its file system",
		Example: `  glassbox diff web
  glassbox diff web | grep ^D`,
		Args:              exactly(1),
		ValidArgsFunction: a.completeContainers(true),
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := a.open()
			if err != nil {
				return err
			}
			changes, err := e.Diff(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			for _, c := range changes {
				fmt.Fprintf(a.out, "%s %s\n", c.Kind, a.forReader(c.Path))
			}
			return nil
		},
	}
}
