package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"glassbox/docker"
	"glassbox/engine"
)

func (a *app) volumeCommand() *cobra.Command {
	inspect := a.inspectOf("volume")
	inspect.Use = "inspect [OPTIONS] VOLUME [VOLUME...]"
	inspect.Example = `  glassbox volume inspect data
  glassbox volume inspect -f '{{.Mountpoint}}' data`
	return parent("volume", "Directories that outlive containers",
		a.volumeCreateCommand(), inspect, a.volumeListCommand(), a.volumePruneCommand(), a.volumeRemoveCommand())
}

// pairs reads KEY=VALUE flags into a map; KEY alone has an empty value.
func pairs(list []string) map[string]string {
	var out map[string]string
	for _, text := range list {
		key, value, _ := strings.Cut(text, "=")
		if out == nil {
			out = map[string]string{}
		}
		out[key] = value
	}
	return out
}

func (a *app) volumeCreateCommand() *cobra.Command {
	var o engine.VolumeOptions
	var name string
	var labels, options []string
	cmd := &cobra.Command{
		Use:   "create [OPTIONS] [VOLUME]",
		Short: "Make a volume",
		Example: `  glassbox volume create data
  glassbox volume create --label backup=daily --opt type=none --opt o=bind --opt device=/srv/data data`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return &usageError{fmt.Errorf("'%s' requires at most 1 argument", cmd.CommandPath()), 1}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				if name != "" {
					return &usageError{err: errors.New("conflicting options: cannot specify a volume-name through both --name and as a positional arg")}
				}
				name = args[0]
				if name == "" {
					return &usageError{err: errors.New("the volume's name is empty: give one, or none for a new one")}
				}
			}
			for _, text := range options {
				if key, _, ok := strings.Cut(text, "="); !ok || key == "" {
					return &usageError{err: fmt.Errorf("--opt %q: want KEY=VALUE", text)}
				}
			}
			o.Name, o.Labels, o.Options = name, pairs(labels), pairs(options)
			e, err := a.open()
			if err != nil {
				return err
			}
			v, same, err := e.CreateVolume(cmd.Context(), o)
			if err != nil {
				return err
			}
			if !same {
				a.warn("volume " + v.Name + " is there already, and keeps the labels and options that it has (glassbox volume inspect " + v.Name + ")")
			}
			fmt.Fprintln(a.out, v.Name)
			return nil
		},
	}
	fs := cmd.Flags()
	fs.StringVarP(&o.Driver, "driver", "d", "local", "Volume driver: local")
	fs.VarP(list{&options}, "opt", "o", "Option of the driver: type=, o=, device=, as of mount(8)")
	fs.Var(list{&labels}, "label", "Label (key=value)")
	fs.StringVar(&name, "name", "", "The volume's name")
	fs.Lookup("name").Hidden = true // as with Docker
	return cmd
}

// volumeRow is a row of volume ls, with Docker's fields.
type volumeRow struct {
	Availability string
	Driver       string
	Group        string
	Labels       string
	Links        string
	Mountpoint   string
	Name         string
	Scope        string
	Size         string
	Status       string

	labels map[string]string
	header bool
}

// Label is one label's value.
func (r volumeRow) Label(name string) string {
	if r.header {
		return name
	}
	return r.labels[name]
}

func volumeHeader() volumeRow {
	return volumeRow{
		Availability: "AVAILABILITY", Driver: "DRIVER", Group: "GROUP", Labels: "LABELS", Links: "LINKS", Mountpoint: "MOUNTPOINT",
		Name: "VOLUME NAME", Scope: "SCOPE", Size: "SIZE", Status: "STATUS", header: true,
	}
}

func newVolumeRow(v docker.Volume) volumeRow {
	var labels []string
	for _, k := range slices.Sorted(maps.Keys(v.Labels)) {
		labels = append(labels, k+"="+v.Labels[k])
	}
	r := volumeRow{
		Availability: "N/A", Driver: v.Driver, Group: "N/A", Labels: printable(strings.Join(labels, ",")), Links: "N/A", Mountpoint: v.Mountpoint,
		Name: v.Name, Scope: v.Scope, Size: "N/A", Status: "N/A", labels: v.Labels,
	}
	if u := v.UsageData; u != nil {
		r.Links, r.Size = fmt.Sprint(u.RefCount), size(u.Size)
	}
	return r
}

func (a *app) volumeListCommand() *cobra.Command {
	var quiet bool
	var format string
	var filters []string
	cmd := &cobra.Command{
		Use:     "ls [OPTIONS]",
		Aliases: []string{"list"},
		Short:   "List volumes",
		Example: `  glassbox volume ls
  glassbox volume ls -q --filter dangling=true
  glassbox volume ls --format '{{.Name}}: {{.Mountpoint}}'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			e, err := a.open()
			if err != nil {
				return err
			}
			list, err := e.Volumes(cmd.Context(), filters)
			// With an error there may be a list: one volume that can't be read doesn't hide the others.
			if err != nil && list == nil {
				return err
			}
			if quiet && format == "" {
				for _, v := range list {
					fmt.Fprintln(a.out, v.Name)
				}
				return err
			}
			// Sizes are counted file by file, which takes long: only for who asks.
			if format != "" && !strings.HasPrefix(format, "table") && format != "json" && strings.Contains(format, ".Size") {
				e.VolumeUsage(cmd.Context(), list)
			}
			rows := make([]volumeRow, len(list))
			for i, v := range list {
				rows[i] = newVolumeRow(v)
			}
			return errors.Join(err, printRows(a.out, format, "{{.Driver}}\t{{.Name}}", volumeHeader(), rows))
		},
	}
	fs := cmd.Flags()
	fs.BoolVarP(&quiet, "quiet", "q", false, "Print names only")
	fs.VarP(filterList{list{&filters}}, "filter", "f", "Only those with dangling=, driver=, label=, name=")
	fs.StringVar(&format, "format", "", "table, table TEMPLATE, json or a Go template")
	return cmd
}

func (a *app) volumeRemoveCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:     "rm [OPTIONS] VOLUME [VOLUME...]",
		Aliases: []string{"remove"},
		Short:   "Remove volumes that no container uses",
		Example: "  glassbox volume rm data",
		Args:    atLeast(1),

		ValidArgsFunction: a.completeVolumes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withEngine(args, func(e *engine.Engine, name string) (string, error) {
				err := e.RemoveVolume(cmd.Context(), name)
				if force && errors.Is(err, engine.ErrNotFound) {
					err = nil
				}
				return name, err
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "A missing volume is no error")
	return cmd
}

func (a *app) volumePruneCommand() *cobra.Command {
	var all bool
	cmd := a.pruneCommand(prune{
		short: "Remove volumes that no container uses",
		example: `  glassbox volume prune
  glassbox volume prune -af --filter label!=keep`,
		filters: "Only those with label=KEY[=VALUE], label!=KEY[=VALUE]",
		warning: func() string {
			what := "anonymous local volumes"
			if all {
				what = "all local volumes"
			}
			return "This will remove " + what + " not used by at least one container."
		},
		do: func(ctx context.Context, e *engine.Engine, filters []string, gone *engine.Pruned) (err error) {
			gone.Volumes, gone.Freed, err = e.PruneVolumes(ctx, engine.PruneVolumesOptions{All: all, Filters: filters})
			return err
		},
	})
	cmd.Flags().BoolVarP(&all, "all", "a", false, "Also those with a name")
	return cmd
}

// agree asks whether to go on. The end of the input is no.
func (a *app) agree(warning string) bool {
	fmt.Fprint(a.out, warning+"\nAre you sure you want to continue? [y/N] ")
	answer, _ := bufio.NewReader(a.in).ReadString('\n')
	return strings.EqualFold(strings.TrimSpace(answer), "y")
}

// completeVolumes completes names of volumes.
func (a *app) completeVolumes(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.volumeNames(cmd.Context(), args), cobra.ShellCompDirectiveNoFileComp
}

func (a *app) volumeNames(ctx context.Context, without []string) []string {
	e, err := a.open()
	if err != nil {
		return nil
	}
	list, _ := e.Volumes(ctx, nil)
	var names []string
	for _, v := range list {
		if !slices.Contains(without, v.Name) {
			names = append(names, v.Name)
		}
	}
	return names
}
