package network

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/container"
	"glassbox/wire"
)

// Networks that somebody makes, lists and removes.

// ErrExists says that a name is taken.
var ErrExists = errors.New("network with this name already exists")

// ErrInUse says that a network has containers.
var ErrInUse = errors.New("network has active endpoints")

// ErrBuiltin says that a network is one of those that are always there.
var ErrBuiltin = errors.New("is a pre-defined network and cannot be removed")

// Create makes a network, with its bridge: n has a name and what its maker asked for, and the rest is chosen as in Open. A subnet that is
// asked for and overlaps with a route of the host or another network is an error, and so is a name that is taken; nothing is left then.
// One who is killed meanwhile leaves a network whose bridge is made by its first container.
func (s Store) Create(n Network) (_ Network, err error) {
	if err := n.check(); err != nil {
		return n, err
	}
	unlock, err := lock(s.State)
	if err != nil {
		return n, fmt.Errorf("network %s: %w", n.Name, err)
	}
	defer unlock()
	if _, _, err := s.read(n.Name); err == nil {
		return n, fmt.Errorf("%w: %s", ErrExists, n.Name)
	} else if !errors.Is(err, ErrNotFound) {
		return n, err
	}
	if n.Link != "" {
		// Docker would use a bridge that is there already. Its addresses and firewall would become the network's, and go with it.
		if _, err := os.Stat("/sys/class/net/" + n.Link); err == nil {
			return n, fmt.Errorf("network %s: a link %s is there already: choose another name for the bridge", n.Name, n.Link)
		}
	}
	n.Version, n.ID, n.Created = version, newID(), time.Now().UTC().Truncate(time.Millisecond)
	for i := range n.Subnets {
		n.Subnets[i].Fixed = true
	}
	if n.WantIPv6 && !n.hasIPv6() {
		if err := s.choose6(&n); err != nil {
			return n, fmt.Errorf("network %s: %w", n.Name, err)
		}
	}
	if n.onParent() {
		if err := s.createParent(&n); err != nil {
			return n, fmt.Errorf("network %s: %w", n.Name, err)
		}
	}
	unlockConfig, err := lock(s.Config)
	if err != nil {
		return n, err
	}
	err = s.write(n)
	unlockConfig()
	if err != nil {
		return n, err
	}
	made, err := s.open(n.Name, true)
	if err != nil {
		return n, errors.Join(fmt.Errorf("network %s: %w", n.Name, err), s.forget(n))
	}
	return made, nil
}

// check refuses what can't be.
func (n *Network) check() error {
	if err := validName(n.Name); err != nil {
		return err
	}
	if _, ok := builtin(n.Name); ok || n.Name == Bridge || n.Name == "default" {
		return fmt.Errorf("operation is not permitted on predefined %s network: choose another name", n.Name)
	}
	if strings.HasPrefix(n.Name, "container:") || n.Name == oldName {
		return fmt.Errorf("network %s: the name means something else: choose another", n.Name)
	}
	if n.Driver == "" {
		n.Driver = Bridge
	}
	if err := checkDriver(n.Driver); err != nil {
		return fmt.Errorf("network %s: %w", n.Name, err)
	}
	for i := range n.Subnets {
		if err := n.Subnets[i].check(); err != nil {
			return fmt.Errorf("network %s: %w", n.Name, err)
		}
		for _, o := range n.Subnets[:i] {
			if o.Prefix.Overlaps(n.Subnets[i].Prefix) {
				return fmt.Errorf("network %s: the subnets %s and %s overlap", n.Name, o.Prefix, n.Subnets[i].Prefix)
			}
			if o.Prefix.Addr().Is4() == n.Subnets[i].Prefix.Addr().Is4() {
				return fmt.Errorf("network %s: one subnet of each version of IP: %s and %s are two", n.Name, o.Prefix, n.Subnets[i].Prefix)
			}
		}
	}
	if n.NoIPv4 && (n.IPv4().Prefix.IsValid() || !n.WantIPv6 && !n.hasIPv6()) {
		return fmt.Errorf("network %s: IPv4 or IPv6 must be enabled, and a subnet of IPv4 goes with IPv4", n.Name)
	}
	if err := n.readOptions(); err != nil || !n.onParent() {
		return err
	}
	return n.checkParent()
}

// check completes a subnet that somebody asked for.
func (s *Subnet) check() error {
	if s.Prefix != s.Prefix.Masked() {
		return fmt.Errorf("invalid subnet %s: it should be %s", s.Prefix, s.Prefix.Masked())
	}
	a := s.Prefix.Addr()
	switch {
	case a.Is4() && s.Prefix.Bits() > 30:
		return fmt.Errorf("invalid subnet %s: it has no room for a router and a container: at most /30", s.Prefix)
	case a.Is6() && s.Prefix.Bits() > 126:
		return fmt.Errorf("invalid subnet %s: it has no room for a router and a container: at most /126", s.Prefix)
	case a.IsLinkLocalUnicast():
		return fmt.Errorf("invalid subnet %s: each link has those addresses: choose another one", s.Prefix)
	case a.IsMulticast() || a.IsLoopback() || a.IsUnspecified() || s.Prefix.Bits() == 0:
		return fmt.Errorf("invalid subnet %s: no host can have an address there", s.Prefix)
	case s.Gateway.IsValid() && !s.Prefix.Contains(s.Gateway):
		return fmt.Errorf("invalid gateway %s: it is not in the subnet %s", s.Gateway, s.Prefix)
	case a.Is4() && s.Gateway.IsValid() && (s.Gateway == a || s.Gateway == wire.Broadcast(s.Prefix)):
		return fmt.Errorf("invalid gateway %s: it is the network's or the broadcast address of %s", s.Gateway, s.Prefix)
	case s.Range.IsValid() && (s.Range.Bits() < s.Prefix.Bits() || !s.Prefix.Contains(s.Range.Addr())):
		return fmt.Errorf("invalid ip-range %s: it is not in the subnet %s", s.Range, s.Prefix)
	}
	if !s.Gateway.IsValid() {
		s.Gateway = a.Next()
	}
	return nil
}

// The options of Docker's bridge driver that are known here.
const (
	optionName       = "com.docker.network.bridge.name"
	optionICC        = "com.docker.network.bridge.enable_icc"
	optionMasquerade = "com.docker.network.bridge.enable_ip_masquerade"
	optionHostIP     = "com.docker.network.bridge.host_binding_ipv4"
	optionMTU        = "com.docker.network.driver.mtu"
	optionPrefix     = "com.docker.network.container_iface_prefix"
	optionMode4      = "com.docker.network.bridge.gateway_mode_ipv4"
	optionMode6      = "com.docker.network.bridge.gateway_mode_ipv6"
	// Those of macvlan and ipvlan.
	optionParent      = "parent"
	optionMacvlanMode = "macvlan_mode"
	optionIpvlanMode  = "ipvlan_mode"
	optionIpvlanFlag  = "ipvlan_flag"
	// optionGuard lets containers send with addresses that aren't theirs: virtual addresses that wander, routers, machines of their own.
	optionGuard = "glassbox.source_guard"
	// Walls, for whoever has no flags: programs that speak Docker's API, Compose files (driver_opts).
	optionEgress  = "glassbox.egress"
	optionIngress = "glassbox.ingress"
)

// known are the options that are read at all.
func known(key string) bool {
	return ofParent(key) || strings.HasPrefix(key, "com.docker.network.") || strings.HasPrefix(key, "glassbox.")
}

func ofParent(key string) bool {
	return key == optionParent || key == optionMacvlanMode || key == optionIpvlanMode || key == optionIpvlanFlag
}

// readOptions reads what was asked for with --opt.
func (n *Network) readOptions() error {
	for _, key := range slices.Sorted(maps.Keys(n.Options)) {
		value := n.Options[key]
		fail := func(want string) error {
			return fmt.Errorf("network %s: option %s=%s: want %s", n.Name, key, value, want)
		}
		if known(key) && n.onParent() != ofParent(key) && key != optionMTU && key != "mtu" && key != optionPrefix {
			return fmt.Errorf("network %s: option %s is none of driver %s", n.Name, key, n.Driver)
		}
		switch key {
		case optionParent:
			if wire.CheckName(value) != nil {
				return fail("the name of a link of the host")
			}
			n.Parent = value
		case optionMacvlanMode, optionIpvlanMode, optionIpvlanFlag:
			if !strings.HasPrefix(key, n.Driver) {
				return fmt.Errorf("network %s: option %s is none of driver %s", n.Name, key, n.Driver)
			}
			if key != optionIpvlanFlag {
				n.Mode = value
				break
			}
			if _, ok := wire.IpvlanFlags(value); !ok {
				return fail("bridge, private or vepa")
			}
			if n.Flag = value; value == "bridge" {
				n.Flag = ""
			}
		case optionName:
			if wire.CheckName(value) != nil || wire.CheckTable(value) != nil {
				return fail("a name of a link, of at most 15 letters, digits, dots, _ and -")
			}
			n.Link = value
		case optionICC, optionMasquerade, optionGuard:
			on, err := strconv.ParseBool(value)
			if err != nil {
				return fail("true or false")
			}
			switch key {
			case optionICC:
				n.Isolated = !on
			case optionGuard:
				n.Open = !on
			default:
				n.Routed = n.Routed || !on
			}
		case optionMode4, optionMode6:
			if value != "nat" && value != "routed" {
				return fail("nat or routed")
			}
			if key == optionMode4 {
				n.Routed = n.Routed || value == "routed"
			} else {
				n.Routed6 = value == "routed"
			}
		case optionHostIP:
			ip, err := netip.ParseAddr(value)
			if err != nil || !ip.Is4() {
				return fail("an IPv4 address")
			}
			n.HostIP = ip
		case optionMTU, "mtu":
			mtu, err := strconv.Atoi(value)
			if err != nil || mtu < 68 || mtu > 65535 {
				return fail("a number of bytes between 68 and 65535")
			}
			n.FixedMTU = mtu
		case optionEgress, optionIngress:
			wall, flag := &n.Egress, "egress"
			if key == optionIngress {
				wall, flag = &n.Ingress, "ingress"
			}
			doors, err := container.ParseWall(flag, []string{value})
			if err != nil {
				return fmt.Errorf("network %s: option %s: %w", n.Name, key, err)
			}
			if len(*wall) > 0 && !slices.Equal(*wall, doors) {
				return fail("the same as --" + flag + ", or one of them")
			}
			*wall = doors
		case optionPrefix:
			if value == "" || len(value) > 12 || wire.CheckName(value) != nil {
				return fail("the beginning of a name of an interface, of at most 12 characters")
			}
		default:
			return fmt.Errorf("network %s: unknown option %s: want one of %s", n.Name, key, strings.Join([]string{
				optionName, optionICC, optionMasquerade, optionHostIP, optionMTU, optionPrefix, optionMode4, optionMode6, optionGuard,
				optionEgress, optionIngress, optionParent, optionMacvlanMode, optionIpvlanMode,
				optionIpvlanFlag,
			}, ", "))
		}
	}
	return nil
}

// forget removes what a network has: its table and bridge, if it is this installation's, what its containers had, and its record, which
// goes last: one who is killed meanwhile leaves a network that can be removed again. The caller holds the lock of State.
func (s Store) forget(n Network) error {
	var errs []error
	if n.Link == "" && !n.onParent() && n.Options[optionName] == "" {
		n.Link = ownBridge(n) // who made it was killed before the record had its name
	}
	if n.Link != "" {
		rt, err := wire.Dial(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer rt.Close()
		l, err := rt.Link(n.Link, 0)
		switch {
		case err == nil && s.ours(l, n):
			errs = append(errs, s.forgetTable(n), rt.DeleteIndex(l.Index))
		case err != nil && !errors.Is(err, unix.ENODEV):
			errs = append(errs, fmt.Errorf("link %s: %w", n.Link, err))
		case err != nil:
			errs = append(errs, s.forgetTable(n))
		}
		errs = append(errs, wire.DeleteAccepts(n.Link, nil))
	}
	errs = append(errs, s.forgetVLAN(n))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(s.State, n.Name)); err != nil {
		return err
	}
	unlock, err := lock(s.Config)
	if err != nil {
		return err
	}
	defer unlock()
	if err := os.Remove(s.recordFile(n.Name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Remove removes a network that no running container is on.
func (s Store) Remove(n Network) error {
	if _, ok := builtin(n.Name); ok || n.Name == Bridge {
		return fmt.Errorf("%s %w", n.Name, ErrBuiltin)
	}
	unlock, err := lock(s.State)
	if err != nil {
		return fmt.Errorf("network %s: %w", n.Name, err)
	}
	defer unlock()
	now, _, err := s.read(n.Name)
	if err != nil {
		return err
	}
	if now.ID != n.ID {
		return fmt.Errorf("network %s: %w: another one has the name by now", n.ID, ErrNotFound)
	}
	leases, err := s.Leases(n.Name)
	if err != nil {
		return err
	}
	if len(leases) > 0 {
		return fmt.Errorf("network %s: %w", n.Name, ErrInUse)
	}
	if err := s.forget(now); err != nil {
		return fmt.Errorf("network %s: %w", n.Name, err)
	}
	return nil
}

// List returns all networks, the built-in ones too, by name. One whose record can't be read is told by unread, if that isn't nil.
func (s Store) List(unread func(error)) ([]Network, error) {
	names, err := s.names()
	if err != nil {
		return nil, err
	}
	var out []Network
	for _, name := range append(names, None, Host) {
		n, err := s.Known(name)
		switch {
		case err == nil:
			out = append(out, n)
		case errors.Is(err, ErrNotFound): // removed since
		case unread != nil:
			unread(err)
		}
	}
	slices.SortFunc(out, func(a, b Network) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// Damaged lists the networks whose records are there and can't be read.
func (s Store) Damaged() (out []string) {
	names, err := s.names()
	if err != nil {
		return nil
	}
	for _, name := range names {
		if _, err := s.Known(name); err != nil && !errors.Is(err, ErrNotFound) {
			out = append(out, name)
		}
	}
	return out
}

// Halves lists records that somebody was writing who was killed, and removes them.
func (s Store) Halves(remove bool) ([]string, error) {
	if _, err := os.Stat(s.State); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, dir := range []string{s.State, s.Config} { // whoever writes one has one of them
		unlock, err := lock(dir)
		if err != nil {
			return nil, err
		}
		defer unlock()
	}
	left, err := unfinished(s.Config)
	if err != nil || !remove {
		return left, err
	}
	for _, name := range left {
		if err := os.Remove(name); err != nil {
			return nil, err
		}
	}
	return left, nil
}

// Known returns what is remembered of a network, without looking at the host.
func (s Store) Known(name string) (Network, error) {
	if n, ok := builtin(name); ok {
		n.ID = s.builtinID(name)
		return n, nil
	}
	n, written, err := s.read(name)
	if err == nil && !written {
		n.ID = s.builtinID(name) // until its first container
	}
	return n, err
}

// builtinID is the ID of a network that needs no record: always the same in one installation.
func (s Store) builtinID(name string) string {
	sum := sha256.Sum256([]byte(s.Config + "\x00" + name))
	return hex.EncodeToString(sum[:])
}

// Find returns the network of an ID, a name, or the beginning of an ID that is nobody else's; in this order, as Docker looks: who has kept
// an ID removes that network, even where another one is named like it.
func (s Store) Find(ref string) (Network, error) {
	if ref == "default" {
		ref = Bridge
	}
	hexadecimal := ref != "" && strings.Trim(ref, "0123456789abcdef") == ""
	whole := hexadecimal && len(ref) == 2*sha256.Size
	if whole {
		all, err := s.List(nil)
		if err != nil {
			return Network{}, err
		}
		if i := slices.IndexFunc(all, func(n Network) bool { return n.ID == ref }); i >= 0 {
			return all[i], nil
		}
	}
	if validName(ref) == nil {
		if n, err := s.Known(ref); err == nil || !errors.Is(err, ErrNotFound) {
			return n, err
		}
	}
	var found []Network
	if hexadecimal && !whole {
		all, err := s.List(nil)
		if err != nil {
			return Network{}, err
		}
		found = slices.DeleteFunc(all, func(n Network) bool { return !strings.HasPrefix(n.ID, ref) })
	}
	switch len(found) {
	case 0:
		return Network{}, fmt.Errorf("network %s %w", ref, errNotFoundWord)
	case 1:
		return found[0], nil
	}
	return Network{}, fmt.Errorf("network %s is ambiguous (%d matches found on name)", ref, len(found))
}

// errNotFoundWord reads as Docker says it, and is ErrNotFound.
var errNotFoundWord = notFound{}

type notFound struct{}

func (notFound) Error() string        { return "not found" }
func (notFound) Is(target error) bool { return target == ErrNotFound }

// NamesDir is where the containers of a network are found by name: see package dns.
func (s Store) NamesDir(network string) string { return filepath.Join(s.State, network, "names") }
