package api

import (
	"cmp"
	"context"
	"net/http"
	"net/netip"
	"strings"

	"github.com/moby/moby/api/types/network"

	"glassbox/docker"
	"glassbox/engine"
)

// networks answers GET /networks.
func (q *request) networks() error {
	filters, err := q.filters()
	if err != nil {
		return err
	}
	list, err := q.s.engine.NetworkList(q.Context(), filters)
	if err != nil {
		return err
	}
	out := []any{}
	for _, n := range list {
		if q.s.policy != nil && !q.s.seesNetwork(n) {
			continue
		}
		if q.s.policy != nil {
			q.s.hideOthers(q.Context(), &n)
		}
		out = append(out, q.version.network(n))
	}
	return q.json(out)
}

// inspectNetwork answers GET /networks/{id}.
func (q *request) inspectNetwork() error {
	if scope := q.query("scope"); scope != "" && scope != "local" {
		return &statusError{http.StatusNotFound, "network " + q.id() + " not found"}
	}
	n, err := q.s.engine.NetworkInspect(q.Context(), q.id())
	if err != nil {
		return err
	}
	if q.s.policy != nil {
		q.s.hideOthers(q.Context(), &n)
	}
	return q.json(q.version.network(n))
}

// networkRequest is the body of POST /networks/create. Addresses are texts here: the engine says in its own words what is wrong with them.
type networkRequest struct {
	Name, Driver, Scope           string
	EnableIPv4                    *bool
	EnableIPv6                    *bool
	Internal, Attachable, Ingress bool
	ConfigOnly                    bool
	ConfigFrom                    *docker.ConfigReference
	IPAM                          *struct {
		Driver  string
		Options map[string]string
		Config  []struct {
			Subnet, IPRange, Gateway string
			AuxiliaryAddresses       map[string]string
			AuxAddress               map[string]string // as it was called once
		}
	}
	Options, Labels map[string]string
	CheckDuplicate  bool // until 1.44; names are always unique here
}

// createNetwork answers POST /networks/create.
func (q *request) createNetwork() error {
	var body networkRequest
	if err := q.body(&body, false); err != nil {
		return err
	}
	o := engine.NetworkOptions{
		Name: body.Name, Driver: cmp.Or(body.Driver, "bridge"), Internal: body.Internal, Labels: body.Labels, Options: body.Options,
	}
	switch {
	case strings.TrimSpace(body.Name) == "":
		return invalid("name is missing: a network needs one")
	case body.Ingress || body.Scope == "swarm" || body.Driver == "overlay":
		return &statusError{http.StatusForbidden, "This node is not a swarm manager: there are no networks across hosts here"}
	case body.ConfigOnly || body.ConfigFrom != nil && body.ConfigFrom.Network != "":
		return invalid("networks that only hold a configuration are not supported")
	}
	o.IPv6 = body.EnableIPv6 != nil && *body.EnableIPv6
	o.IPv4Disabled = body.EnableIPv4 != nil && !*body.EnableIPv4
	if i := body.IPAM; i != nil {
		if i.Driver != "" && i.Driver != "default" {
			return invalid("IPAM driver %q is not supported: there is one, default", i.Driver)
		}
		if len(i.Options) > 0 {
			return invalid("options of the IPAM driver are not supported")
		}
		for _, c := range i.Config {
			if p, err := netip.ParsePrefix(c.Subnet); err == nil && q.version < 44 {
				c.Subnet = p.Masked().String() // servers of then took an address in the subnet for it
			}
			for _, f := range []struct {
				to   *[]string
				from string
			}{{&o.Subnets, c.Subnet}, {&o.Gateways, c.Gateway}, {&o.Ranges, c.IPRange}} {
				if f.from != "" {
					*f.to = append(*f.to, f.from)
				}
			}
			o.Aux = append(append(o.Aux, pairs(c.AuxiliaryAddresses)...), pairs(c.AuxAddress)...)
		}
	}
	if err := q.permitNetwork(&o); err != nil {
		return err
	}
	n, err := q.s.engine.NetworkCreate(q.Context(), o)
	if err != nil {
		return err
	}
	return q.jsonStatus(http.StatusCreated, network.CreateResponse{ID: n.ID, Warning: strings.Join(q.warned, "\n")})
}

// removeNetwork answers DELETE /networks/{id}.
func (q *request) removeNetwork() error {
	err := q.s.engine.NetworkRemove(q.Context(), q.id())
	if err != nil {
		if status(err) == http.StatusConflict { // Docker's status for networks in use, and for those of its own
			return &statusError{http.StatusForbidden, message(err)}
		}
		return err
	}
	return q.none()
}

// connect answers POST /networks/{id}/connect.
func (q *request) connect() error {
	var body network.ConnectRequest
	if err := q.body(&body, false); err != nil {
		return err
	}
	var o engine.ConnectOptions
	if s := body.EndpointConfig; s != nil {
		o.Links = s.Links
		o.Aliases, o.Options, o.Priority = s.Aliases, pairs(s.DriverOpts), s.GwPriority
		o.MAC = s.MacAddress.String()
		if c := s.IPAMConfig; c != nil {
			if c.IPv4Address.IsValid() {
				o.IP = c.IPv4Address.String()
			}
			if c.IPv6Address.IsValid() {
				o.IP6 = c.IPv6Address.String()
			}
			for _, a := range c.LinkLocalIPs {
				o.LinkLocal = append(o.LinkLocal, a.String())
			}
		}
	}
	if body.Container == "" {
		return invalid("container is missing")
	}
	if err := q.permitContainer(&body.Container, len(o.Options) > 0); err != nil {
		return err
	}
	if err := q.s.engine.NetworkConnect(context.WithoutCancel(q.Context()), q.id(), body.Container, o); err != nil {
		return forbidden(err)
	}
	q.w.WriteHeader(http.StatusOK)
	return nil
}

// forbidden gives a conflict Docker's status for connections of networks.
func forbidden(err error) error {
	if status(err) == http.StatusConflict {
		return &statusError{http.StatusForbidden, message(err)}
	}
	return err
}

// disconnect answers POST /networks/{id}/disconnect.
func (q *request) disconnect() error {
	var body network.DisconnectRequest
	if err := q.body(&body, false); err != nil {
		return err
	}
	if body.Container == "" {
		return invalid("container is missing")
	}
	if err := q.permitContainer(&body.Container, false); err != nil {
		return err
	}
	if err := q.s.engine.NetworkDisconnect(context.WithoutCancel(q.Context()), q.id(), body.Container, body.Force); err != nil {
		return forbidden(err)
	}
	q.w.WriteHeader(http.StatusOK)
	return nil
}

// pruneNetworks answers POST /networks/prune.
func (q *request) pruneNetworks() error {
	filters, err := q.filters()
	if err != nil {
		return err
	}
	var p engine.Pruned
	if err := q.s.engine.PruneNetworks(q.Context(), filters, &p); err != nil {
		return err
	}
	return q.json(network.PruneReport{NetworksDeleted: p.Networks})
}
