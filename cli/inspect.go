package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"glassbox/docker"
	"glassbox/engine"
	"glassbox/explain"
	"glassbox/image"
)

// objects are the kinds of what can be inspected, in the order in which a name is looked up.
var objects = []string{"container", "image", "network", "volume"}

func (a *app) inspectCommand() *cobra.Command {
	var kind string
	cmd := a.inspectOf("")
	cmd.Use = "inspect [OPTIONS] NAME|ID [NAME|ID...]"
	cmd.Short = "Everything known of containers, images, networks and volumes, as JSON"
	cmd.Example = `  glassbox inspect web
  glassbox inspect -f '{{.State.Pid}} {{.NetworkSettings.IPAddress}}' web
  glassbox inspect --type image debian`
	cmd.ValidArgsFunction = a.completeObjects("")
	cmd.Flags().StringVar(&kind, "type", "", "Only objects of this type (container|image|network|volume)")
	format := cmd.Flags().Lookup("format")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		return a.inspect(cmd, kind, format.Value.String(), image.Platform{}, args)
	}
	return cmd
}

// inspectOf is the inspect of one kind of object.
func (a *app) inspectOf(kind string) *cobra.Command {
	var format string
	var platform platformFlag
	cmd := &cobra.Command{
		Use:     "inspect [OPTIONS] NAME|ID [NAME|ID...]",
		Short:   "Everything known of " + kind + "s, as JSON",
		Example: "  glassbox " + kind + " inspect -f '{{.Id}}' NAME",
		Args:    atLeast(1),

		ValidArgsFunction: a.completeObjects(kind),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.inspect(cmd, kind, format, image.Platform(platform), args)
		},
	}
	if kind == "image" {
		cmd.Flags().Var(&platform, "platform", "Platform that the image must be for (os[/arch[/variant]])")
	}
	if kind == "" || kind == "container" {
		cmd.Flags().BoolP("size", "s", false, "Also what a container's files take, alone and with its image")
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "json or a Go template")
	return cmd
}

func (a *app) inspect(cmd *cobra.Command, kind, format string, platform image.Platform, args []string) error {
	if kind != "" && !slices.Contains(objects, kind) {
		return &usageError{err: fmt.Errorf("%q is not a valid value for --type: container, image, network or volume", kind)}
	}
	ctx := cmd.Context()
	sizes := cmd.Flag("size") != nil && cmd.Flag("size").Value.String() == "true"
	return a.inspectAll(kind, format, args, func(e *engine.Engine, ref string) (any, error) {
		v, err := lookup(ctx, e, kind, ref, platform)
		if c, ok := v.(*docker.Container); ok && err == nil && sizes {
			e.InspectSize(ctx, c)
		}
		return v, err
	})
}

// inspectAll prints what lookup finds of each. A lookup's error that is errNoObject, or says that nothing was found, is told in Docker's
// words.
func (a *app) inspectAll(kind, format string, args []string, lookup func(e *engine.Engine, ref string) (any, error)) error {
	if format != "" && format != "json" { // before anything is looked up
		if _, err := newTemplate(format); err != nil {
			return err
		}
	}
	e, err := a.open()
	if err != nil {
		return err
	}
	found := []any{}
	failed := false
	for _, ref := range args {
		v, err := lookup(e, ref)
		if err == nil && format != "" && format != "json" {
			var b bytes.Buffer
			if err = printValue(&b, format, v); err == nil {
				_, err = io.WriteString(a.out, a.forReader(b.String()))
			}
		}
		switch {
		case err == nil:
			found = append(found, v)
			continue
		case errors.Is(err, errNoObject):
			defer fmt.Fprintf(a.err, "error: no such %s: %s\n", object(kind), printable(ref)) // after what was found
		default:
			defer a.complain(err)
		}
		failed = true
	}
	if format == "" || format == "json" {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		if format == "" {
			enc.SetIndent("", "    ")
		}
		enc.SetEscapeHTML(false)
		if err = enc.Encode(found); err == nil {
			_, err = a.out.Write(explain.EscapeJSON(b.Bytes())) // the same to a machine
		}
	}
	if err == nil && failed {
		err = &exitError{code: 1}
	}
	return err
}

var errNoObject = errors.New("no such object")

func object(kind string) string {
	if kind == "" {
		return "object"
	}
	return kind
}

// lookup finds a container, or else an image, or else a network, or else a volume.
func lookup(ctx context.Context, e *engine.Engine, kind, ref string, platform image.Platform) (any, error) {
	if kind == "" || kind == "container" {
		v, err := e.Inspect(ctx, ref)
		if !errors.Is(err, engine.ErrNotFound) {
			return v, err
		}
	}
	if kind == "" || kind == "image" {
		i, err := e.InspectImage(ctx, ref, platform)
		if err == nil {
			return i, nil
		}
		if !errors.Is(err, image.ErrNotFound) && (!errors.Is(err, image.ErrReference) || !platform.IsZero()) {
			return nil, err
		}
	}
	if kind == "" || kind == "network" {
		n, err := e.NetworkInspect(ctx, ref)
		if !errors.Is(err, engine.ErrNotFound) {
			return n, err
		}
	}
	if kind == "" || kind == "volume" {
		v, err := e.Volume(ctx, ref)
		if !errors.Is(err, engine.ErrNotFound) {
			return v, err
		}
	}
	return nil, errNoObject
}
