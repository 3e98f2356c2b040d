package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"glassbox/docker"
	"glassbox/engine"
)

func (a *app) networkCommand() *cobra.Command {
	return parent("network", "Make networks, look at them, plug containers in and out",
		a.networkCreateCommand(), a.networkLsCommand(), a.networkInspectCommand(), a.networkConnectCommand(), a.networkDisconnectCommand(),
		a.networkEgressCommand(), a.networkExplainCommand(), a.networkPruneCommand(), a.networkRmCommand())
}

func (a *app) networkCreateCommand() *cobra.Command {
	var o engine.NetworkOptions
	var labels, options []string
	var v4, attachable bool
	cmd := &cobra.Command{
		Use:   "create [OPTIONS] NETWORK",
		Short: "Make a network",
		Long: `Make a network. Containers on it find each other by name, and containers of other networks don't reach them.

Without --subnet one is chosen that is free on this host.`,
		Example: `  glassbox network create front
  glassbox network create --internal --subnet 172.28.0.0/16 --ip-range 172.28.5.0/24 --gateway 172.28.0.1 back
  glassbox network create --egress registry.example.com:443,10.1.0.0/16:5432 jobs
  glassbox network create -d macvlan -o parent=eth0 --subnet 192.0.2.0/24 --gateway 192.0.2.1 lan
  glassbox network create -o com.docker.network.driver.mtu=1400 -o com.docker.network.bridge.enable_icc=false guests`,
		Args:              exactly(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Name, o.IPv4Disabled = args[0], !v4
			var err error
			if o.Labels, err = keyValues("label", labels); err != nil {
				return err
			}
			if o.Options, err = keyValues("opt", options); err != nil {
				return err
			}
			e, err := a.open()
			if err != nil {
				return err
			}
			n, err := e.NetworkCreate(cmd.Context(), o)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(a.out, n.ID)
			return err
		},
	}
	fs := cmd.Flags()
	fs.StringVarP(&o.Driver, "driver", "d", "bridge", "Driver of the network: bridge, macvlan, ipvlan")
	fs.VarP(list{&options}, "opt", "o", "Option of the driver (key=value)")
	fs.Var(list{&o.Subnets}, "subnet", "Subnet in CIDR form (172.28.0.0/16)")
	fs.Var(list{&o.Gateways}, "gateway", "The host's address in the subnet, which is the containers' router")
	fs.Var(list{&o.Ranges}, "ip-range", "Part of the subnet that containers' addresses are taken from")
	fs.Var(list{&o.Aux}, "aux-address", "Address that no container gets (name=address)")
	fs.BoolVar(&o.Internal, "internal", false, "No way out of the network, and none in")
	fs.BoolVar(&o.IPv6, "ipv6", false, "Give containers IPv6 addresses, too")
	fs.BoolVar(&v4, "ipv4", true, "Give containers IPv4 addresses")
	fs.Var(list{&o.Egress}, "egress", "Who its containers may talk to, unless they say so themselves: deny, CIDR[:port[/proto]], name[:port]")
	fs.Var(list{&o.Ingress}, "ingress", "Who may talk to its containers: deny, CIDR[:port[/proto]], :port, a network")
	fs.Var(list{&labels}, "label", "Label (key=value)")
	fs.BoolVar(&attachable, "attachable", false, "What is so anyway: containers can be plugged in by hand")
	return cmd
}

// keyValues are pairs with a key each.
func keyValues(flag string, texts []string) (map[string]string, error) {
	out := pairs(texts)
	if value, ok := out[""]; ok {
		return nil, &usageError{fmt.Errorf("invalid value %q for --%s: want KEY=VALUE", "="+value, flag), 125}
	}
	return out, nil
}

// networkRow is a row of network ls, with Docker's fields.
type networkRow struct {
	CreatedAt, Driver, ID, IPv4, IPv6, Internal, Labels, Name, Scope string

	labels map[string]string
	header bool
}

// Label is one label's value.
func (r networkRow) Label(name string) string {
	if r.header {
		return name
	}
	return r.labels[name]
}

func (a *app) networkLsCommand() *cobra.Command {
	var filters []string
	var format string
	var quiet, full bool
	cmd := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"},
		Short: "List networks",
		Example: `  glassbox network ls
  glassbox network ls --filter dangling=true -q
  glassbox network ls --format '{{.Name}}: {{.Driver}}'`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			e, err := a.open()
			if err != nil {
				return err
			}
			all, err := e.NetworkList(cmd.Context(), filters)
			if err != nil {
				return err
			}
			if quiet && format == "" {
				format = "{{.ID}}"
			}
			var rows []networkRow
			for _, n := range all {
				rows = append(rows, newNetworkRow(n, full))
			}
			header := networkRow{
				CreatedAt: "CREATED AT", Driver: "DRIVER", ID: "NETWORK ID", IPv4: "IPV4", IPv6: "IPV6", Internal: "INTERNAL", Labels: "LABELS",
				Name: "NAME", Scope: "SCOPE", header: true,
			}
			return printRows(a.out, format, "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}", header, rows)
		},
	}
	fs := cmd.Flags()
	fs.VarP(filterList{list{&filters}}, "filter", "f", "Only those with driver=, id=, label=, name=, scope=, type=, dangling=")
	fs.StringVar(&format, "format", "", "table, json or a Go template")
	fs.BoolVarP(&quiet, "quiet", "q", false, "Only IDs")
	fs.BoolVar(&full, "no-trunc", false, "Whole IDs")
	return cmd
}

func newNetworkRow(n docker.Network, full bool) networkRow {
	id := n.ID
	if !full {
		id = id[:min(len(id), 12)]
	}
	var labels []string
	for k, v := range n.Labels {
		labels = append(labels, k+"="+v)
	}
	slices.Sort(labels)
	return networkRow{
		CreatedAt: stamp(n.Created), Driver: n.Driver, ID: id, IPv4: fmt.Sprint(n.EnableIPv4), IPv6: fmt.Sprint(n.EnableIPv6),
		Internal: fmt.Sprint(n.Internal), Labels: strings.Join(labels, ","), Name: n.Name, Scope: n.Scope, labels: n.Labels,
	}
}

func (a *app) networkInspectCommand() *cobra.Command {
	cmd := a.inspectOf("network")
	cmd.Use = "inspect [OPTIONS] NETWORK [NETWORK...]"
	cmd.Example = `  glassbox network inspect front
  glassbox network inspect -f '{{range .IPAM.Config}}{{.Subnet}}{{end}}' front`
	cmd.Flags().BoolP("verbose", "v", false, "What is told anyway")
	return cmd
}

func (a *app) networkConnectCommand() *cobra.Command {
	var o engine.ConnectOptions
	cmd := &cobra.Command{
		Use:   "connect [OPTIONS] NETWORK CONTAINER",
		Short: "Plug a container into a network, also while it runs",
		Example: `  glassbox network connect back web
  glassbox network connect --alias db --ip 172.28.5.9 back postgres`,
		Args:              exactly(2),
		ValidArgsFunction: a.completeNetworks(true),
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := a.open()
			if err != nil {
				return err
			}
			return e.NetworkConnect(cmd.Context(), args[0], args[1], o)
		},
	}
	fs := cmd.Flags()
	fs.StringSliceVar(&o.Aliases, "alias", nil, "Another name by which containers of the network find this one")
	fs.StringSliceVar(&o.Links, "link", nil, "A name that this container alone finds another one by (NAME[:ALIAS])")
	fs.StringVar(&o.IP, "ip", "", "IPv4 address")
	fs.StringVar(&o.IP6, "ip6", "", "IPv6 address")
	fs.StringSliceVar(&o.LinkLocal, "link-local-ip", nil, "Further address of 169.254.0.0/16 or fe80::/10")
	fs.StringSliceVar(&o.Options, "driver-opt", nil, "Option of the driver (key=value)")
	fs.IntVar(&o.Priority, "gw-priority", 0, "The network of the highest priority is the way to the rest of the world")
	return cmd
}

func (a *app) networkDisconnectCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:               "disconnect [OPTIONS] NETWORK CONTAINER",
		Short:             "Unplug a container from a network, also while it runs",
		Example:           `  glassbox network disconnect back web`,
		Args:              exactly(2),
		ValidArgsFunction: a.completeNetworks(true),
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := a.open()
			if err != nil {
				return err
			}
			return e.NetworkDisconnect(cmd.Context(), args[0], args[1], force)
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Also a container that is gone")
	return cmd
}

func (a *app) networkRmCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "rm NETWORK [NETWORK...]", Aliases: []string{"remove"},
		Short:             "Remove networks",
		Example:           `  glassbox network rm front back`,
		Args:              atLeast(1),
		ValidArgsFunction: a.completeNetworks(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withEngine(args, func(e *engine.Engine, ref string) (string, error) {
				err := e.NetworkRemove(cmd.Context(), ref)
				if force && errors.Is(err, engine.ErrNotFound) {
					return "", nil
				}
				return ref, err
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "No error for a network that isn't there")
	return cmd
}

func (a *app) networkPruneCommand() *cobra.Command {
	return a.pruneCommand(prune{
		short: "Remove all networks that no container is on",
		example: `  glassbox network prune
  glassbox network prune -f --filter until=24h`,
		filters: commonFilters, check: engine.CheckPruneFilters, noTotal: true,
		warning: func() string { return "This will remove all custom networks not used by at least one container." },
		do: func(ctx context.Context, e *engine.Engine, filters []string, gone *engine.Pruned) error {
			return e.PruneNetworks(ctx, filters, gone)
		},
	})
}

// completeNetworks completes names of networks; with thenContainer, a container follows.
func (a *app) completeNetworks(thenContainer bool) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		switch {
		case thenContainer && len(args) == 1:
			return a.containerNames(cmd.Context(), nil), cobra.ShellCompDirectiveNoFileComp
		case thenContainer && len(args) > 1:
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return a.networkNames(args), cobra.ShellCompDirectiveNoFileComp
	}
}

func (a *app) networkNames(without []string) []string {
	e, err := a.open()
	if err != nil {
		return nil
	}
	all, _ := e.NetworkList(context.Background(), nil)
	var names []string
	for _, n := range all {
		if !slices.Contains(without, n.Name) {
			names = append(names, n.Name)
		}
	}
	return names
}
