package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"glassbox/container"
	"glassbox/engine"
	"glassbox/explain"
	"glassbox/image"
	"glassbox/plan"
)

// explainFlags say how a plan is printed.
type explainFlags struct {
	format  string
	verbose bool
	output  string
	policy  bool
}

func (x *explainFlags) register(fs *pflag.FlagSet) {
	fs.StringVar(&x.format, "format", "text", strings.Join(explain.Formats(), ", "))
	fs.BoolVar(&x.verbose, "verbose", false, "Every argument of every step")
	fs.StringVarP(&x.output, "output", "o", "", "Write to a `file` instead of standard output")
	fs.BoolVar(&x.policy, "policy", false, "What the container can reach, and how much that exposes the host (--format text or json)")
}

// planOptions forgets the flags that say nothing of the container: with or without them its plan is the same.
func planOptions(o container.Words) container.Words {
	flags := map[string]string{}
	for name, typed := range o.Flags {
		switch name {
		case "format", "verbose", "output", "policy", "explain", "plan", "require-plan", "attach", "sig-proxy", "detach", "pull", "quiet",
			"insecure-registry", "cidfile", "step", "break", "trace":
		default:
			flags[name] = typed
		}
	}
	o.Flags, o.Detach, o.CIDFile = flags, false, ""
	return o
}

func (x *explainFlags) check() error {
	formats := explain.Formats()
	if x.policy {
		formats = []string{"text", "json"}
	}
	if !slices.Contains(formats, x.format) {
		return &usageError{err: fmt.Errorf("unknown format %q: want one of %s", x.format, strings.Join(formats, ", "))}
	}
	return nil
}

// subject is a plan, and what is known beside it.
type subject struct {
	plan  *plan.Plan
	about explain.About
	life  *engine.Life // of a container; nil: there is none, or nothing is known of it
}

func (x *explainFlags) print(a *app, s *subject) error {
	return x.to(a, func(w io.Writer, o explain.TextOptions) error {
		if x.policy {
			return explain.WritePolicy(w, x.format, s.plan, s.about, o)
		}
		if err := explain.Write(w, x.format, s.plan, s.about, o); err != nil || x.format != "text" || s.life == nil {
			return err
		}
		return a.explainLife(w, s.life, o)
	})
}

// to opens the output and lets write fill it. A file is replaced only when all is written.
func (x *explainFlags) to(a *app, write func(io.Writer, explain.TextOptions) error) error {
	if x.output == "" || x.output == "-" {
		w := bufio.NewWriter(a.out)
		if err := write(w, a.textOptions(a.out, x.verbose)); err != nil {
			return err
		}
		return w.Flush()
	}
	mode := os.FileMode(0o644)
	if x.format == "sh" {
		mode = 0o755
	}
	err := writeFile(x.output, mode, func(out io.Writer) error {
		w := bufio.NewWriter(out)
		return errors.Join(write(w, explain.TextOptions{Verbose: x.verbose}), w.Flush())
	})
	if err != nil {
		return fmt.Errorf("--output: %w", err)
	}
	return nil
}

// subjectOf finds what a name on the command line stands for.
func (a *app) subjectOf(ctx context.Context, e *engine.Engine, ref string) (*subject, error) {
	s, err := e.Subject(ctx, ref)
	if err != nil {
		return nil, err
	}
	out := &subject{plan: s.Plan, about: explain.About{Title: s.Kind + " " + s.Name}}
	switch {
	case s.Container != nil:
		if out.life, err = e.Life(ctx, s.Container.ID); err != nil {
			return nil, err
		}
		o := likeWords(s.Container)
		if s.Container.Fixed {
			out.about.Name, out.about.Labels, out.about.Times = s.Container.Name, o.Label, s.Times
			break
		}
		if o.Name == "" {
			o.Name = s.Container.Name
		}
		out.about = a.about(out.about.Title, o)
		out.about.Times = s.Times
	case s.Kind == "image":
		out.about = a.about(out.about.Title, container.Words{Image: s.Name})
	case s.Kind == "plan":
		out.about.Refused = s.Refused
		// The origin of the root says of which image it was made.
		if ref, ok := strings.CutPrefix(explain.Read(s.Plan).Root.Origin, "image "); ok {
			out.about.Image = ref
		}
	}
	return out, nil
}

func (a *app) explainCommand() *cobra.Command {
	var x explainFlags
	var diff bool
	cmd := &cobra.Command{
		Use:   "explain [OPTIONS] CONTAINER|BUNDLE|PLAN|IMAGE",
		Short: "Print the plan of a container: every request to the kernel, why, and where it comes from",
		Long: `Print the plan of a container: every request to the kernel, why, and where it comes from.

Of a container it is the plan that was run, with the time that each step took (text, json, html); of a bundle (a directory with
an OCI config.json, or that file), an image or a stored plan it is the plan that would be. With explain run and its flags it is the plan of
exactly that command, with explain build DIR what a build would do. Nothing is run, nothing is written, and no root is needed.

A name is looked for as a file, a container and an image, in this order; container:NAME, image:NAME, bundle:DIR and plan:FILE
say which is meant. --policy says what the container can reach; --diff A B what each of two may do that the other may not.

Formats: text and json are the plan. sh is a script that makes the container by hand, go a program of one file. docker, podman,
compose, quadlet, kube and oci say it in others' words, with a comment for what can't be said there. html is a page of its own.`,
		Example: `  glassbox explain run --memory=50m -p 8080:80 nginx
  glassbox explain web
  glassbox explain bundle ./bundle
  glassbox explain run --format sh -o by-hand.sh debian true
  glassbox explain --policy web
  glassbox explain --diff web config.json`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case diff && len(args) != 2:
				return &usageError{err: errors.New("--diff wants two: containers, bundles, images, plans or config.json files")}
			case !diff && len(args) != 1:
				return &usageError{err: errors.New("say what to explain: a container, bundle, image or plan, or run with its flags and image")}
			}
			return nil
		},
		ValidArgsFunction: a.completeContainers(true),
		RunE: func(cmd *cobra.Command, args []string) error {
			if diff {
				return a.explainDiff(cmd.Context(), &x, args[0], args[1])
			}
			return a.explainRef(cmd.Context(), &x, args[0])
		},
	}
	x.register(cmd.Flags())
	cmd.Flags().BoolVar(&diff, "diff", false, "What each of two may do that the other may not (--format text or json)")
	cmd.AddCommand(a.explainRunCommand(), a.explainBuildCommand(),
		a.explainKind("bundle", "DIR", "an OCI bundle: a directory with config.json, or such a file", "./bundle"),
		a.explainKind("image", "IMAGE", "what running an image without any flags would do", "debian:12"),
		a.explainKind("container", "CONTAINER", "the last start of a container", "web"),
		a.explainKind("plan", "FILE", "a stored plan", "plan.json"))
	return cmd
}

func (a *app) explainRef(ctx context.Context, x *explainFlags, ref string) error {
	if err := x.check(); err != nil {
		return err
	}
	e, err := a.open()
	if err != nil {
		return err
	}
	s, err := a.subjectOf(ctx, e, ref)
	if err != nil {
		return err
	}
	return x.print(a, s)
}

// explainKind is explain for a name of which one kind is meant.
func (a *app) explainKind(kind, arg, what, example string) *cobra.Command {
	var x explainFlags
	cmd := &cobra.Command{
		Use:     kind + " [OPTIONS] " + arg,
		Short:   "Print the plan of " + what,
		Example: "  glassbox explain " + kind + " " + example + "\n  glassbox explain " + kind + " --policy " + example,
		Args:    exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.explainRef(cmd.Context(), &x, kind+":"+args[0])
		},
	}
	x.register(cmd.Flags())
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
  glassbox explain run --format json -o plan.json --rootfs / true
  glassbox explain run --policy --privileged debian`,
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
			o = planOptions(o)
			e, err := a.open()
			if err != nil {
				return err
			}
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			p, err := c.plan(ctx, a, e, o, fs)
			if err != nil {
				return err
			}
			return x.print(a, &subject{p, a.about(titleOf(o), o), lifeOf(o)})
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

// plan is the plan of the options. An image that isn't there is pulled only if --pull was typed.
func (c *createFlags) plan(ctx context.Context, a *app, e *engine.Engine, o container.Words, fs *pflag.FlagSet) (*plan.Plan, error) {
	co, err := createOptions(o)
	if err != nil {
		return nil, err
	}
	if fs.Changed("pull") && c.pull == "always" {
		if err := c.fetch(ctx, a, e, o); err != nil {
			return nil, err
		}
	}
	p, err := e.Plan(ctx, co)
	if errors.Is(err, image.ErrNotFound) && fs.Changed("pull") && c.pull == "missing" {
		if err := c.fetch(ctx, a, e, o); err != nil {
			return nil, err
		}
		p, err = e.Plan(ctx, co)
	}
	if errors.Is(err, image.ErrNotFound) {
		return nil, fmt.Errorf("%w\nhint: explain pulls nothing by itself: glassbox pull %s, or add --pull=missing", err, o.Image)
	}
	return p, err
}

// explainDiff compares two things that have plans.
func (a *app) explainDiff(ctx context.Context, x *explainFlags, refA, refB string) error {
	if x.format != "text" && x.format != "json" {
		return &usageError{err: fmt.Errorf("--diff: unknown format %q: want text or json", x.format)}
	}
	e, err := a.open()
	if err != nil {
		return err
	}
	one, err := a.subjectOf(ctx, e, refA)
	if err != nil {
		return err
	}
	two, err := a.subjectOf(ctx, e, refB)
	if err != nil {
		return err
	}
	return x.to(a, func(w io.Writer, o explain.TextOptions) error {
		return explain.WriteDiff(w, x.format, explain.Diff(one.plan, two.plan, one.about, two.about), o)
	})
}

// titleOf is what a run command is called in headings, with the quotes that tell its words apart.
func titleOf(o container.Words) string {
	words := []string{"run"}
	if o.Image != "" {
		words = append(words, o.Image)
	}
	return explain.Quoted(append(words, o.Command...))
}
