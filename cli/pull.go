package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"glassbox/engine"
	"glassbox/image"
)

// pull is one pull.
type pull struct {
	platform image.Platform
	insecure []string
	quiet    bool
	progress *os.File
}

func (p *pull) do(ctx context.Context, a *app, e *engine.Engine, name string) (*image.Image, error) {
	defer a.timed("pull " + name)()
	o, done := p.options(a)
	defer done()
	ctx, stop := interruptible(ctx)
	defer stop()
	return e.Images().Pull(ctx, name, o)
}

// options are those of a pull or a push; done leaves the screen in order.
func (p *pull) options(a *app) (o image.PullOptions, done func()) {
	o, done = image.PullOptions{Platform: p.platform, InsecureRegistries: p.insecure}, func() {}
	if p.quiet {
		o.Progress = func(event image.Event) {
			if event.State == image.Warned {
				fmt.Fprintln(a.err, "Warning: "+printable(event.Text))
			}
		}
	} else {
		printer := image.NewPrinter(p.progress)
		o.Progress, done = printer.Event, printer.Close
	}
	return o, done
}

// platformFlag is a platform as a flag: what is no platform is refused before anything is done.
type platformFlag image.Platform

func (f *platformFlag) String() string { return image.Platform(*f).String() }
func (f *platformFlag) Type() string   { return "string" }

func (f *platformFlag) Set(s string) error {
	p, err := image.ParsePlatform(s)
	*f = platformFlag(p)
	return err
}

// platformText is one whose words are kept.
type platformText string

func (f *platformText) String() string { return string(*f) }
func (f *platformText) Type() string   { return "string" }

func (f *platformText) Set(s string) error {
	_, err := image.ParsePlatform(s)
	*f = platformText(s)
	return err
}

// insecureFlag declares --insecure-registry, whose default is the environment's list.
func (a *app) insecureFlag(fs *pflag.FlagSet, to *[]string) {
	*to = strings.FieldsFunc(a.getenv("GLASSBOX_INSECURE_REGISTRIES"), func(r rune) bool { return r == ',' || r == ' ' })
	fs.Var(list{to}, "insecure-registry",
		"Registry that may be spoken to without TLS, or with a certificate nobody vouches for (host[:port]; GLASSBOX_INSECURE_REGISTRIES)")
}

func (a *app) pullCommand() *cobra.Command {
	var p pull
	var all bool
	cmd := &cobra.Command{
		Use:   "pull [OPTIONS] NAME[:TAG|@DIGEST]",
		Short: "Fetch an image from a registry",
		Example: `  glassbox pull debian:12
  glassbox pull --platform linux/arm64 alpine
  glassbox pull --insecure-registry registry.lan:5000 registry.lan:5000/team/app`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if all {
				return errors.New("--all-tags is not supported: it would fetch every image that a repository has ever kept\n" +
					"hint: pull the tags that you need, one by one")
			}
			e, err := a.open()
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			p.progress = a.out
			if _, err := p.do(ctx, a, e, args[0]); err != nil {
				return err
			}
			if ref, err := image.ParseRef(args[0]); err == nil {
				fmt.Fprintln(a.out, ref.String())
			}
			return nil
		},
	}
	fs := cmd.Flags()
	fs.Var((*platformFlag)(&p.platform), "platform", "Platform of the image (os[/arch[/variant]])")
	fs.BoolVarP(&p.quiet, "quiet", "q", false, "Print the name only")
	fs.BoolVarP(&all, "all-tags", "a", false, "Not supported: pull tags one by one")
	a.insecureFlag(fs, &p.insecure)
	return cmd
}
