package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) autostartCommand() *cobra.Command {
	var stop bool
	cmd := &cobra.Command{
		Use:   "autostart [OPTIONS]",
		Short: "Start the containers that are to run with the host",
		Long: `Start the containers that are to run with the host: those with --restart always, those with unless-stopped that
nobody has stopped by hand, and those with on-failure or on-unhealthy whose last run failed, as one does that the host's
end has cut short. What runs is left alone.

There is no daemon: the unit glassbox.service, which make install puts there, calls this when the host has started, and
with --stop before it goes down. What a power failure has left is repaired first, as by every command.`,
		Example: `  glassbox autostart
  systemctl enable --now glassbox.service`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			e, err := a.open()
			if err != nil {
				return err
			}
			var failed []error
			each := func(name string, err error) {
				if err != nil {
					failed = append(failed, fmt.Errorf("container %s: %w", name, err))
					return
				}
				fmt.Fprintln(a.out, name)
			}
			if stop {
				err = e.StopAll(cmd.Context(), each)
			} else {
				err = e.Autostart(cmd.Context(), each)
			}
			return errors.Join(append(failed, err)...)
		},
	}
	cmd.Flags().BoolVar(&stop, "stop", false, "Stop all containers, because the host goes down: the next autostart starts them again")
	return cmd
}
