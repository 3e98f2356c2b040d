package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"glassbox/image"
)

func (a *app) fsckCommand() *cobra.Command {
	var repair, quiet bool
	var insecure []string
	cmd := &cobra.Command{
		Use:   "fsck [OPTIONS]",
		Short: "Check the store of images, and mend it",
		Long: `Check the store of images: names, configurations, manifests, and the content of every file of every layer, by their digests.

With --repair what is damaged is fetched again from the registry that it came from, and removed if that fails. Without it nothing is
changed. The exit code is 1 if something is wrong and not mended.`,
		Example: `  glassbox fsck
  glassbox fsck --repair`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			e, err := a.open()
			if err != nil {
				return err
			}
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			left := 0
			out, err := e.Images().Check(ctx, image.CheckOptions{
				Repair: repair, InUse: func(id string) []string { return e.ImageUsers(ctx, id) }, Pull: image.PullOptions{InsecureRegistries: insecure},
				Found: func(f image.Finding) {
					line := f.What + ": " + f.Text
					switch {
					case f.Done != "":
						line += "; " + f.Done
					case !f.Minor:
						left++
					}
					fmt.Fprintln(a.out, printable(line))
				},
			})
			if err != nil {
				return err
			}
			if !quiet {
				fmt.Fprintf(a.out, "%d images, %d layers: %d findings, %d mended\n", out.Images, out.Layers, out.Found, out.Mended)
			}
			switch {
			case left > 0 && !repair:
				return fmt.Errorf("the store is damaged\nhint: glassbox fsck --repair mends what it can")
			case left > 0:
				return fmt.Errorf("the store is damaged, and containers use what is\nhint: remove them, or export what they have, and repair again")
			}
			return nil
		},
	}
	fs := cmd.Flags()
	fs.BoolVar(&repair, "repair", false, "Fetch again or remove what is damaged")
	fs.BoolVarP(&quiet, "quiet", "q", false, "Print findings only")
	a.insecureFlag(fs, &insecure)
	return cmd
}
