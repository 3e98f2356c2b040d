package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"glassbox/explain"
	"glassbox/image"
	"glassbox/plan"
)

// explainFlags say how a plan is printed.
type explainFlags struct {
	format  string
	verbose bool
}

func (x *explainFlags) register(fs *pflag.FlagSet) {
	fs.StringVar(&x.format, "format", "text", "text or json")
	fs.BoolVar(&x.verbose, "verbose", false, "Every argument of every step")
}

func (x *explainFlags) check() error {
	if x.format != "text" && x.format != "json" {
		return &usageError{fmt.Errorf("unknown format %q: text or json", x.format)}
	}
	return nil
}

func (x *explainFlags) print(a *app, p *plan.Plan) error {
	if x.format == "json" {
		return explain.JSON(a.out, p)
	}
	return explain.Text(a.out, p, a.textOptions(a.out, x.verbose))
}

func (a *app) explainCommand() *cobra.Command {
	var x explainFlags
	cmd := &cobra.Command{
		Use:   "explain CONTAINER",
		Short: "Print the plan of a container: every request to the kernel, why, and where it comes from",
		Long: `Print the plan of a container: every request to the kernel, why, and where it comes from.

With CONTAINER it is the plan that was run. With "explain run …" it is the plan of exactly that command: nothing is run,
nothing is written, and no root is needed.`,
		Example: `  glassbox explain run --memory=50m -p 8080:80 nginx
  glassbox explain run --format json debian true
  glassbox explain web`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return &usageError{errors.New("say what to explain: a container, or run with its flags and image")}
			}
			return nil
		},
		ValidArgsFunction: a.completeContainers(true),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := x.check(); err != nil {
				return err
			}
			e, err := a.open()
			if err != nil {
				return err
			}
			p, err := e.PlanOf(args[0])
			if err != nil {
				return err
			}
			return x.print(a, p)
		},
	}
	x.register(cmd.Flags())
	cmd.AddCommand(a.explainRunCommand())
	return cmd
}

func (a *app) explainRunCommand() *cobra.Command {
	var x explainFlags
	var c createFlags
	var attach []string
	var ignored bool
	cmd := &cobra.Command{
		Use:   "run [OPTIONS] IMAGE [COMMAND] [ARG...]",
		Short: "Print the plan of a run command without running it",
		Long: `Print the plan of a run command without running it. It takes the flags of "glassbox run".

No root is needed; an ordinary user's images are those of that user's own store (see "glassbox info"). The image must be
there: it is pulled only if --pull is given.`,
		Example: `  glassbox explain run --memory=50m --cpus=0.5 debian sleep 1
  glassbox explain run --format json --rootfs / true`,
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := errors.Join(x.check(), checkAttach(attach)); err != nil {
				return err
			}
			fs := cmd.LocalNonPersistentFlags()
			o, err := c.options(a, fs, args)
			if err != nil {
				return err
			}
			for _, own := range []string{"format", "verbose"} {
				delete(o.Flags, own)
			}
			e, err := a.open()
			if err != nil {
				return err
			}
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			if fs.Changed("pull") && c.pull == "always" {
				if err := c.fetch(ctx, a, e, o); err != nil {
					return err
				}
			}
			p, err := e.Plan(ctx, o)
			if errors.Is(err, image.ErrNotFound) && fs.Changed("pull") && c.pull == "missing" {
				if err := c.fetch(ctx, a, e, o); err != nil {
					return err
				}
				p, err = e.Plan(ctx, o)
			}
			if errors.Is(err, image.ErrNotFound) {
				return fmt.Errorf("%w\nhint: explain pulls nothing by itself: glassbox pull %s, or add --pull=missing", err, o.Image)
			}
			if err != nil {
				return err
			}
			return x.print(a, p)
		},
	}
	fs := cmd.Flags()
	c.register(fs, a)
	x.register(fs)
	fs.BoolVarP(&c.o.Detach, "detach", "d", false, "As with run")
	fs.VarP(list{&attach}, "attach", "a", "As with run")
	fs.BoolVar(&ignored, "sig-proxy", true, "As with run")
	fs.BoolVar(&ignored, "explain", false, "As with run")
	return cmd
}
