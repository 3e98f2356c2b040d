package network

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"glassbox/dns"
	"glassbox/wire"

	"golang.org/x/sys/unix"
)

// Repair removes what containers left that are gone: leases, published ports and links, of every network. alive says whether a
// container, or the process that is about to start it, still exists; it must not use this package, because the lock is held.
// Everything that a container has on a network hangs on its lease, which is taken first and given back last.
func (s Store) Repair(alive func(containerID string) bool) error {
	if err := s.repair(alive); err != nil {
		return fmt.Errorf("repair network: %w", err)
	}
	return nil
}

func (s Store) repair(alive func(string) bool) error {
	if _, err := os.Stat(s.State); errors.Is(err, fs.ErrNotExist) {
		return nil // there never was a container with a network
	}
	// Nobody leases while this looks: an address that is given to a container between the two looks would be taken from it.
	unlock, err := lock(s.State)
	if err != nil {
		return err
	}
	defer unlock()
	names, err := s.names()
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		if err := s.repairNetwork(name, alive); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err)) // the others can be repaired all the same
		}
	}
	return errors.Join(errs...)
}

func (s Store) repairNetwork(name string, alive func(string) bool) error {
	leases, err := s.Leases(name)
	if err != nil || leases == nil {
		return err
	}
	n, _, err := s.read(name)
	if err != nil {
		return err
	}
	ips, veths := map[netip.Addr]bool{}, map[string]bool{}
	var gone []netip.Addr
	for a, id := range leases {
		if alive(id) {
			ips[a], veths[vethStem(id)] = true, true
		} else {
			gone = append(gone, a)
		}
	}
	// A network without a link of its own (macvlan on a parent) leaves nothing on the host: its links went with the
	// containers' namespaces.
	if n.Link != "" {
		if err := s.removeStale(n, ips, veths); err != nil {
			return err
		}
	}
	forgotten := map[string]bool{}
	for _, a := range gone { // a name that leads to an address which another has by now would be worse than none
		if id := leases[a]; !forgotten[id] && n.Named() {
			if err := dns.Forget(s.NamesDir(name), id); err != nil {
				return err
			}
			forgotten[id] = true
			if err := dns.Follow(s.NamesDir(name), nil, admit); err != nil {
				return err
			}
		}
	}
	for _, a := range gone { // last, so that a Repair that is killed is done again
		for _, dir := range []string{s.leases(name), s.oldLeases()} {
			if err := os.Remove(filepath.Join(dir, a.String())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			if name != Bridge {
				break
			}
		}
	}
	return nil
}

// removeStale removes published ports that lead to none of the addresses, and links that begin with none of the names, of a network's
// table and bridge, unless the bridge is another installation's by now: what is there isn't in our leases.
func (s Store) removeStale(n Network, ips map[netip.Addr]bool, veths map[string]bool) error {
	rt, err := wire.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer rt.Close()
	bridge, err := rt.Link(n.Link, 0)
	there := err == nil
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return err
	}
	if _, marked := parseOwner(bridge.Alias); there && marked && !s.ours(bridge, n) {
		return nil
	}

	nft, err := wire.Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer nft.Close()
	if err := nft.Forget(n.Table(), func(ip netip.Addr) bool { return !ips[ip] }); err != nil {
		return err
	}
	if err := forgetPorts(nft, n, veths); err != nil {
		return err
	}
	if !there {
		return nil
	}
	ports, err := rt.Ports(bridge.Index)
	if err != nil {
		return fmt.Errorf("links: %w", err)
	}
	for _, l := range ports {
		if l.Kind == "veth" && strings.HasPrefix(l.Name, vethPrefix) && !veths[l.Name[:min(len(l.Name), vethLength)]] {
			if err := rt.DeleteLink(l.Name); err != nil {
				return fmt.Errorf("remove %s: %w", l.Name, err)
			}
		}
	}
	return nil
}
