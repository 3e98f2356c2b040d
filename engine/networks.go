package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"glassbox/container"
	"glassbox/docker"
	"glassbox/event"
	"glassbox/network"
	"glassbox/state"
	"glassbox/wire"
)

// NetworkOptions say what a network shall be, in Docker's words.
type NetworkOptions struct {
	Name, Driver       string
	Subnets, Gateways  []string // CIDR; addresses
	Ranges             []string // CIDR
	Aux                []string // NAME=ADDRESS
	Internal           bool
	IPv6, IPv4Disabled bool
	Labels, Options    map[string]string
	Egress, Ingress    []string // walls of containers that have none of their own
}

// NetworkCreate makes a network and returns what it is.
func (e *Engine) NetworkCreate(ctx context.Context, o NetworkOptions) (docker.Network, error) {
	n := network.Network{Name: o.Name, Driver: o.Driver, Internal: o.Internal, Labels: o.Labels, Options: o.Options}
	n.WantIPv6, n.NoIPv4 = o.IPv6, o.IPv4Disabled
	var err error
	if n.Egress, err = container.ParseWall("egress", o.Egress); err != nil {
		return docker.Network{}, err
	}
	if n.Ingress, err = container.ParseWall("ingress", o.Ingress); err != nil {
		return docker.Network{}, err
	}
	if n.Subnets, n.Aux, err = o.subnets(); err != nil {
		return docker.Network{}, err
	}
	if err := ctx.Err(); err != nil {
		return docker.Network{}, err
	}
	if n, err = e.networks().Create(n); err != nil {
		if errors.Is(err, network.ErrExists) {
			return docker.Network{}, conflict("%w", err)
		}
		return docker.Network{}, invalid("%w", err)
	}
	event.Write(e.cfg.State, event.New(event.Network, event.Create, networkActor(n)))
	return docker.DescribeNetwork(n, nil), nil
}

// subnets puts together what was said of each subnet.
func (o *NetworkOptions) subnets() (out []network.Subnet, aux map[string]netip.Addr, err error) {
	aux = map[string]netip.Addr{}
	for _, text := range o.Subnets {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, nil, invalid("invalid subnet %q: want an address and the length of its prefix, as in 172.28.0.0/16", text)
		}
		out = append(out, network.Subnet{Prefix: p})
	}
	within := func(a netip.Addr) *network.Subnet {
		for i := range out {
			if out[i].Prefix.Contains(a) {
				return &out[i]
			}
		}
		return nil
	}
	for _, text := range o.Gateways {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return nil, nil, invalid("invalid gateway %q: it is no IP address", text)
		}
		s := within(a)
		if s == nil {
			return nil, nil, invalid("no matching subnet for gateway %s", a)
		}
		if s.Gateway.IsValid() {
			return nil, nil, invalid("cannot configure multiple gateways (%s, %s) for the same subnet (%s)", s.Gateway, a, s.Prefix)
		}
		s.Gateway = a
	}
	for _, text := range o.Ranges {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, nil, invalid("invalid ip-range %q: want an address and the length of its prefix, as in 172.28.5.0/24", text)
		}
		s := within(p.Addr())
		if s == nil {
			return nil, nil, invalid("no matching subnet for range %s", p)
		}
		if s.Range.IsValid() {
			return nil, nil, invalid("cannot configure multiple ranges (%s, %s) on the same subnet (%s)", s.Range, p, s.Prefix)
		}
		s.Range = p.Masked()
	}
	for _, text := range o.Aux {
		name, value, ok := strings.Cut(text, "=")
		a, err := netip.ParseAddr(value)
		if !ok || name == "" || err != nil {
			return nil, nil, invalid("invalid aux-address %q: want NAME=ADDRESS", text)
		}
		if within(a) == nil {
			return nil, nil, invalid("no matching subnet for aux-address %s", a)
		}
		aux[name] = a
	}
	return out, aux, nil
}

func networkActor(n network.Network) event.Actor {
	return event.Actor{ID: n.ID, Attributes: map[string]string{"name": n.Name, "type": n.Driver}}
}

// findNetwork finds a network by its name, or the beginning of its ID.
func (e *Engine) findNetwork(ref string) (network.Network, error) {
	n, err := e.networks().Find(ref)
	if errors.Is(err, network.ErrNotFound) {
		return n, notFound("%w", err)
	}
	if err != nil {
		return n, invalid("%w", err)
	}
	return n, nil
}

// NetworkInspect tells what a network is, and who is on it.
func (e *Engine) NetworkInspect(ctx context.Context, ref string) (docker.Network, error) {
	if err := ctx.Err(); err != nil {
		return docker.Network{}, err
	}
	n, err := e.findNetwork(ref)
	if err != nil {
		return docker.Network{}, err
	}
	on, err := e.onNetwork(ctx, n)
	return docker.DescribeNetwork(n, on), err
}

// onNetwork are the containers that run on a network, by the leases of their addresses.
func (e *Engine) onNetwork(ctx context.Context, n network.Network) (map[string]docker.NetworkEndpoint, error) {
	leases, err := e.networks().Leases(n.Name)
	if err != nil {
		return nil, err
	}
	out := map[string]docker.NetworkEndpoint{}
	for a, id := range leases {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if before, ok := out[id]; ok {
			before.SetAddress(n, a)
			out[id] = before
			continue
		}
		end := docker.NetworkEndpoint{Name: id, EndpointID: network.VethName(id, 0), MacAddress: wire.MAC(a)}
		end.SetAddress(n, a)
		if c, _, err := e.load(ctx, id); err == nil {
			end.Name = c.Name
			for i, at := range c.Config.Networks() {
				if at.Network == n.Name {
					end.EndpointID = network.VethName(id, i)
					end.MacAddress = cmp.Or(at.MAC, end.MacAddress)
				}
			}
		}
		out[id] = end
	}
	return out, nil
}

// NetworkList lists the networks that meet all filters: driver, id, label, name, scope, type (builtin, custom), dangling.
func (e *Engine) NetworkList(ctx context.Context, filters []string) ([]docker.Network, error) {
	keep, err := e.networkFilter(ctx, filters)
	if err != nil {
		return nil, err
	}
	all, err := e.networks().List(func(err error) { warn(ctx, err.Error()) })
	if err != nil {
		return nil, err
	}
	var out []docker.Network
	for _, n := range all {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if keep(n) {
			out = append(out, docker.DescribeNetwork(n, nil))
		}
	}
	return out, nil
}

// networkFilter reads filters. Values of one key are alternatives, but for labels, which all have to be there.
func (e *Engine) networkFilter(ctx context.Context, filters []string) (func(network.Network) bool, error) {
	byKey := map[string][]string{}
	for _, f := range filters {
		key, value, ok := strings.Cut(f, "=")
		if !ok {
			return nil, invalid("invalid filter %q: want KEY=VALUE", f)
		}
		switch key {
		case "driver", "id", "label", "name":
		case "scope":
			if value != "local" && value != "swarm" && value != "global" {
				return nil, invalid("invalid filter 'scope=%s': want local", value)
			}
		case "type":
			if value != "builtin" && value != "custom" {
				return nil, invalid("invalid filter: 'type'='%s': want builtin or custom", value)
			}
		case "dangling":
			if value != "true" && value != "false" && value != "1" && value != "0" {
				return nil, invalid("invalid filter 'dangling=%s': want true or false", value)
			}
		default:
			return nil, invalid("invalid filter '%s': want driver, id, label, name, scope, type or dangling", key)
		}
		byKey[key] = append(byKey[key], value)
	}
	var used map[string]bool
	if byKey["dangling"] != nil {
		var err error
		if used, err = e.usedNetworks(ctx); err != nil {
			return nil, err
		}
	}
	return func(n network.Network) bool {
		custom := container.Mode(n.Name).UserDefined()
		for key, values := range byKey {
			ok := false
			switch key {
			case "driver":
				// Docker's name of the driver that its network none has is null.
				ok = slices.Contains(values, n.Driver) || n.Driver == network.None && slices.Contains(values, "null")
			case "id":
				ok = slices.ContainsFunc(values, func(v string) bool { return strings.Contains(n.ID, v) })
			case "name":
				ok = slices.ContainsFunc(values, func(v string) bool { return strings.Contains(n.Name, v) })
			case "label":
				ok = !slices.ContainsFunc(values, func(v string) bool { return !hasLabel(n.Labels, v) })
			case "scope":
				ok = slices.Contains(values, "local")
			case "type":
				ok = slices.Contains(values, "custom") == custom || len(values) > 1
			case "dangling":
				want := values[0] == "true" || values[0] == "1"
				// The three built-in networks are never dangling: they can't be removed.
				ok = want == (custom && !used[n.Name])
			}
			if !ok {
				return false
			}
		}
		return true
	}, nil
}

// usedNetworks are the names of the networks that any container is on, running or not. It fails where that can't be known: a container
// that a newer build wrote, or whose file is damaged, may be on any of them.
func (e *Engine) usedNetworks(ctx context.Context) (map[string]bool, error) {
	var unread []error
	all, err := e.items(ctx, ListOptions{All: true, Unreadable: func(id string, err error) {
		unread = append(unread, unreadableUser("networks", id, err))
	}})
	if err = errors.Join(append(unread, err)...); err != nil {
		return nil, err
	}
	used := map[string]bool{}
	for _, it := range all {
		for _, at := range it.c.Config.Networks() {
			used[at.Network] = true
		}
	}
	return used, nil
}

// unreadableUser says why nothing is known to be unused.
func unreadableUser(what, id string, err error) error {
	return fmt.Errorf("which %s container %s uses can't be read (%w): mend it, or remove it with glassbox rm -f %[2]s",
		what, id[:min(len(id), 12)], err)
}

// networkIDs are the IDs of the networks that containers are on, by name. One that can't be read is left out. Others' records are not
// opened: a host may have many networks, and mostly all containers of a list are on one.
func (e *Engine) networkIDs(of ...*container.Container) map[string]string {
	ids, looked := map[string]string{}, map[string]bool{}
	for _, c := range of {
		for _, at := range c.Config.Networks() {
			if looked[at.Network] {
				continue
			}
			looked[at.Network] = true
			if n, err := e.networks().Known(at.Network); err == nil {
				ids[at.Network] = n.ID
			}
		}
	}
	return ids
}

// onNetwork reports whether a container is on a network.
func onNetwork(c *container.Container, name string) bool {
	return slices.ContainsFunc(c.Config.Networks(), func(e container.Endpoint) bool { return e.Network == name })
}

// NetworkRemove removes a network that no running container is on.
func (e *Engine) NetworkRemove(ctx context.Context, ref string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	n, err := e.findNetwork(ref)
	if err != nil {
		return err
	}
	err = e.networks().Remove(n)
	if errors.Is(err, network.ErrInUse) {
		// A command that was killed while it connected a container may have left an address, which nobody else gives back.
		// Looked for only when the network seems to be in use: it reads every lease of every network.
		if err = e.repairLeases(); err == nil {
			err = e.networks().Remove(n)
		}
	}
	switch {
	case errors.Is(err, network.ErrInUse):
		on, lookErr := e.onNetwork(ctx, n)
		if lookErr != nil {
			return lookErr
		}
		var who []string
		for id, c := range on {
			who = append(who, fmt.Sprintf("name:%q id:%q", c.Name, id[:min(len(id), 12)]))
		}
		slices.Sort(who)
		return conflict("error while removing network: network %s has active endpoints (%s): stop them, or glassbox network disconnect them",
			n.Name, strings.Join(who, ", "))
	case errors.Is(err, network.ErrBuiltin):
		return conflict("%w", err)
	case err != nil:
		return err
	}
	event.Write(e.cfg.State, event.New(event.Network, event.Destroy, networkActor(n)))
	return nil
}

// repairLeases takes back what containers have on networks that are gone.
func (e *Engine) repairLeases() error {
	return e.networks().Repair(func(id string) bool { return state.Held(e.lockFile(id)) })
}

// PruneNetworks removes the networks that no container is on, running or not, as far as filters (until=, label=, label!=) leave them.
func (e *Engine) PruneNetworks(ctx context.Context, filters []string, out *Pruned) error {
	f, err := readPruneFilter(filters, time.Now())
	if err != nil {
		return err
	}
	all, err := e.networks().List(func(err error) { warn(ctx, err.Error()) })
	if err != nil {
		return err
	}
	used, err := e.usedNetworks(ctx)
	if err != nil {
		return err
	}
	for _, n := range all {
		if used[n.Name] || !container.Mode(n.Name).UserDefined() || f.keeps(n.Created, n.Labels) {
			continue
		}
		switch err := e.NetworkRemove(ctx, n.Name); {
		case err == nil:
			out.Networks = append(out.Networks, n.Name)
		case !errors.Is(err, ErrConflict) && !errors.Is(err, ErrNotFound): // somebody uses it by now, or has removed it
			return err
		}
	}
	return nil
}

// resolveNetworks puts the names of networks in the place of their IDs, and refuses those that aren't there.
func (e *Engine) resolveNetworks(c *container.Container) error {
	for i := range c.Config.Endpoints {
		at := &c.Config.Endpoints[i]
		if !container.Mode(at.Network).UserDefined() {
			if len(at.Links) > 0 {
				return invalid("links are names, which there are on user-defined networks only: make one with glassbox network create")
			}
			if len(at.Aliases) > 0 && !container.Mode(at.Network).IsHost() && container.Mode(at.Network).Container() == "" {
				return invalid("network-scoped aliases are only supported for user-defined networks: make one with glassbox network create")
			}
			continue
		}
		n, err := e.findNetwork(at.Network)
		if err != nil {
			return err
		}
		at.Network = n.Name
	}
	return nil
}
