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
		Short: "Check what is stored, and mend it",
		Long: `Check what is stored: of images names, configurations, manifests, and the content of every file of every layer, by their digests;
what is written of containers, volumes and networks.

With --repair an image that is damaged is fetched again from the registry that it came from, and removed if that fails; what is written
of a volume or a container is written anew as far as it is known. Nothing that a container has written is touched. Without --repair
nothing is changed. The exit code is 1 if something is wrong and not mended.`,
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
			out, err := e.Check(ctx, image.CheckOptions{
				Repair: repair, Pull: image.PullOptions{InsecureRegistries: insecure},
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
				return fmt.Errorf("the store is damaged: what is left can't be mended, or containers use it\nhint: remove these containers " +
					"(glassbox rm -f), having copied what they have, and repair again")
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
