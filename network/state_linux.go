package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// What the network has to remember, as files that a person can read:
//
//	CONFIG/glassbox0.json         the bridge's subnet; survives a reboot
//	STATE/opened.json             interfaces on which glassbox switched forwarding on
//	STATE/leases/172.30.0.2       symbolic link to the id of the container that has the address
//	STATE/last                    the address leased last, where the search for the next one starts
//	STATE/lock                    flock(2) for changes
//
// A symbolic link, because symlink(2) makes name and content in one step that either has happened or not, and fails if the
// name is taken.

// DefaultName is the name of the default bridge and of its nft table.
const DefaultName = "glassbox0"

// stored is the JSON form of CONFIG/glassbox0.json.
type stored struct {
	Subnet netip.Prefix `json:"subnet"`
}

// DefaultBridge returns the default bridge, with a subnet that is free on this host: no route and no address of the current
// network namespace overlaps with it. The choice is remembered in configDir; it is made again when something else has come to
// overlap and no container has an address in it. It also finds out on which interfaces forwarding has to be switched on.
func DefaultBridge(stateDir, configDir string) (Bridge, error) {
	unlock, err := lock(stateDir)
	if err == nil {
		defer unlock()
		var b Bridge
		if b, err = defaultBridge(stateDir, configDir, true); err == nil {
			return b, nil
		}
	}
	return Bridge{}, fmt.Errorf("default bridge: %w", err)
}

// LikelyBridge returns what DefaultBridge would return now. It writes nothing and needs no privilege.
func LikelyBridge(stateDir, configDir string) (Bridge, error) {
	b, err := defaultBridge(stateDir, configDir, false)
	if err != nil {
		return Bridge{}, fmt.Errorf("default bridge: %w", err)
	}
	return b, nil
}

func defaultBridge(stateDir, configDir string, remember bool) (Bridge, error) {
	b := Bridge{Name: DefaultName, Table: DefaultName}
	c, err := dial(unix.NETLINK_ROUTE)
	if err != nil {
		return b, err
	}
	defer c.close()

	own := -1
	switch l, err := c.link(b.Name, 0); {
	case err == nil:
		own = l.index
	case !errors.Is(err, unix.ENODEV):
		return b, fmt.Errorf("link %s: %w", b.Name, err)
	}
	routes, err := c.routes()
	if err != nil {
		return b, fmt.Errorf("routes: %w", err)
	}
	used := usedBy(routes, own)

	file := filepath.Join(configDir, b.Name+".json")
	var s stored
	if err := readJSON(file, &s); err != nil {
		return b, err
	}
	if s.Subnet.IsValid() && s.Subnet.Addr().Is4() && s.Subnet.Bits() <= 30 {
		b.Subnet = s.Subnet.Masked()
		if overlaps(used, b.Subnet) {
			leases, err := Leases(stateDir)
			if err != nil {
				return b, err
			}
			free := true
			for a := range leases {
				free = free && !b.Subnet.Contains(a)
			}
			if free {
				b.Subnet = netip.Prefix{}
			}
		}
	}
	if !b.Subnet.IsValid() {
		addrs, err := c.addresses(0)
		if err != nil {
			return b, fmt.Errorf("addresses: %w", err)
		}
		for _, a := range addrs {
			if a.index != own {
				used = append(used, a.prefix.Masked())
			}
		}
		used = append(used, nameservers()...)
		if b.Subnet = pick(used); !b.Subnet.IsValid() {
			return b, fmt.Errorf("no free subnet: write one to %s as {\"subnet\": \"A.B.C.D/N\"}", file)
		}
		if remember {
			if err := writeJSON(file, stored{b.Subnet}); err != nil {
				return b, err
			}
		}
	}
	b.Gateway = b.Subnet.Addr().Next()
	b.MTU, b.Opened, err = outside(c, routes, own, filepath.Join(stateDir, "opened.json"), remember)
	return b, err
}

// usedBy lists the destinations of routes that don't lead to the bridge itself.
func usedBy(routes []route, own int) []netip.Prefix {
	var used []netip.Prefix
	for _, r := range routes {
		if r.dst.Bits() > 0 && !slices.Contains(r.oifs, own) {
			used = append(used, r.dst)
		}
	}
	return used
}

func overlaps(used []netip.Prefix, p netip.Prefix) bool {
	return slices.ContainsFunc(used, p.Overlaps)
}

// pick takes the first free candidate: 172.30.0.0/16 downwards to 172.18.0.0/16, then 10.200.0.0/24 to 10.254.255.0/24.
func pick(used []netip.Prefix) netip.Prefix {
	for i := byte(30); i >= 18; i-- {
		if p := netip.PrefixFrom(netip.AddrFrom4([4]byte{172, i}), 16); !overlaps(used, p) {
			return p
		}
	}
	for i := byte(200); i < 255; i++ {
		for j := range 256 {
			if p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, i, byte(j)}), 24); !overlaps(used, p) {
				return p
			}
		}
	}
	return netip.Prefix{}
}

// nameservers lists the host's DNS servers: one that is reached by the default route has no route of its own, and must not
// disappear behind a bridge.
func nameservers() []netip.Prefix {
	data, _ := os.ReadFile("/etc/resolv.conf")
	var out []netip.Prefix
	for _, s := range parseResolv(data).Servers {
		if a, err := netip.ParseAddr(s); err == nil && a.Is4() {
			out = append(out, netip.PrefixFrom(a, 32))
		}
	}
	return out
}

// outside returns the smallest MTU of the interfaces that the host has routes over, and those of them that glassbox has to
// switch forwarding on for, or has done so before. Where the host is a router anyway (ip_forward is 1), there are none.
func outside(c *conn, routes []route, own int, file string, remember bool) (mtu int, opened []string, err error) {
	const lo = 1
	all, dev, err := c.forwarding()
	if err != nil {
		return 0, nil, fmt.Errorf("forwarding: %w", err)
	}
	var before, now []string
	if err := readJSON(file, &before); err != nil {
		return 0, nil, err
	}
	seen := map[int]bool{}
	mtu = 1500
	for _, r := range routes {
		if r.table == unix.RT_TABLE_LOCAL || r.typ != unix.RTN_UNICAST {
			continue
		}
		for _, i := range r.oifs {
			if i == own || i == lo || seen[i] {
				continue
			}
			seen[i] = true
			l, err := c.link("", i)
			if errors.Is(err, unix.ENODEV) {
				continue
			} else if err != nil {
				return 0, nil, fmt.Errorf("link %d: %w", i, err)
			}
			if l.mtu >= 576 && r.dst.Bits() == 0 {
				mtu = min(mtu, l.mtu)
			}
			if !all && (!dev[i] || slices.Contains(before, l.name)) {
				now = append(now, l.name)
			}
		}
	}
	if !all {
		// An interface without a route at the moment is still open, and still has to be guarded.
		for _, name := range before {
			if !slices.Contains(now, name) {
				if l, err := c.link(name, 0); err == nil && dev[l.index] {
					now = append(now, name)
				}
			}
		}
	}
	slices.Sort(now)
	if remember && !slices.Equal(before, now) {
		if err := writeJSON(file, now); err != nil {
			return 0, nil, err
		}
	}
	return mtu, now, nil
}

// ---- leases ----

// Lease gives a container an address of the bridge's subnet: want, if valid, else the next free one after the address leased
// last, so that an address isn't used again at once. A container that has the wanted address already keeps it.
func Lease(stateDir string, b Bridge, containerID string, want netip.Addr) (netip.Addr, error) {
	if containerID == "" {
		return netip.Addr{}, errors.New("lease: no container id")
	}
	unlock, err := lock(stateDir)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("lease: %w", err)
	}
	defer unlock()
	dir := filepath.Join(stateDir, "leases")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return netip.Addr{}, fmt.Errorf("lease: %w", err)
	}
	first, last := b.Subnet.Masked().Addr().Next(), lastAddr(b.Subnet).Prev()
	if want.IsValid() {
		if want.Less(first) || last.Less(want) || want == b.Gateway {
			return netip.Addr{}, fmt.Errorf("lease: %s is no address for a container of %s", want, b.Subnet)
		}
		err := os.Symlink(containerID, filepath.Join(dir, want.String()))
		if errors.Is(err, fs.ErrExist) {
			holder, _ := os.Readlink(filepath.Join(dir, want.String()))
			if holder == containerID {
				return want, nil
			}
			return netip.Addr{}, fmt.Errorf("lease: %s belongs to container %s: %w", want, holder, unix.EADDRINUSE)
		}
		if err != nil {
			return netip.Addr{}, fmt.Errorf("lease: %w", err)
		}
		return want, nil
	}

	hint := filepath.Join(stateDir, "last")
	data, _ := os.ReadFile(hint) // whatever is wrong with it, the search starts somewhere
	line, _, _ := strings.Cut(string(data), "\n")
	start, err := netip.ParseAddr(strings.TrimSpace(line))
	if err != nil || start.Less(first) || !start.Less(last) {
		start = first
	}
	for a, again := start.Next(), false; ; a = a.Next() {
		if last.Less(a) {
			if again {
				break
			}
			a, again = first, true
		}
		if a == b.Gateway {
			continue
		}
		err := os.Symlink(containerID, filepath.Join(dir, a.String()))
		if err == nil {
			writeHint(hint, a)
			return a, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return netip.Addr{}, fmt.Errorf("lease: %w", err)
		}
		if again && a == start {
			break
		}
	}
	return netip.Addr{}, fmt.Errorf("lease: all addresses of %s are taken: %w", b.Subnet, unix.EADDRNOTAVAIL)
}

// writeHint writes over what is there, in a line of fixed length: cutting a file to nothing and filling it again makes ext4
// write it to the disk at once, which costs a millisecond.
func writeHint(name string, a netip.Addr) {
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err == nil {
		_, _ = unix.Write(fd, fmt.Appendf(nil, "%-15s\n", a))
		unix.Close(fd)
	}
}

// ReleaseLease gives an address back, if the container has it.
func ReleaseLease(stateDir string, addr netip.Addr, containerID string) error {
	unlock, err := lock(stateDir)
	if err != nil {
		return fmt.Errorf("release %s: %w", addr, err)
	}
	defer unlock()
	name := filepath.Join(stateDir, "leases", addr.String())
	holder, err := os.Readlink(name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && holder != containerID {
		return nil
	}
	if err == nil {
		err = os.Remove(name)
	}
	if err != nil {
		return fmt.Errorf("release %s: %w", addr, err)
	}
	return nil
}

// Leases returns the container of every leased address.
func Leases(stateDir string) (map[netip.Addr]string, error) {
	dir := filepath.Join(stateDir, "leases")
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("leases: %w", err)
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("leases: %w", err)
	}
	leases := make(map[netip.Addr]string, len(names))
	for _, name := range names {
		a, err := netip.ParseAddr(name)
		if err != nil {
			continue // not ours
		}
		id, err := os.Readlink(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // released meanwhile
		} else if err != nil {
			return nil, fmt.Errorf("leases: %w", err)
		}
		leases[a] = id
	}
	return leases, nil
}

// Repair removes what containers left that are gone: leases, published ports and links of the default bridge. alive says
// whether a container, or the process that is about to start it, still exists; it must not use this package, because the
// lock is held. Everything that a container has on the bridge hangs on its lease, which is taken first and given back last.
func Repair(stateDir string, alive func(containerID string) bool) error {
	if err := repair(stateDir, alive); err != nil {
		return fmt.Errorf("repair network: %w", err)
	}
	return nil
}

func repair(stateDir string, alive func(string) bool) error {
	if _, err := os.Stat(filepath.Join(stateDir, "leases")); errors.Is(err, fs.ErrNotExist) {
		return nil // there never was a container with a network
	}
	unlock, err := lock(stateDir)
	if err != nil {
		return err
	}
	defer unlock()
	leases, err := Leases(stateDir)
	if err != nil {
		return err
	}
	ips, veths := map[netip.Addr]bool{}, map[string]bool{}
	var gone []netip.Addr
	for a, id := range leases {
		if alive(id) {
			ips[a], veths[VethName(id)] = true, true
		} else {
			gone = append(gone, a)
		}
	}

	nft, err := dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer nft.close()
	var stale []element
	for _, set := range []string{mapAny, mapOn} {
		all, err := nft.elements(DefaultName, set)
		if err != nil {
			return fmt.Errorf("published ports: %w", err)
		}
		for _, e := range all {
			if ip, ok := e.containerIP(); ok && !ips[ip] {
				stale = append(stale, e)
			}
		}
	}
	if err := nft.remove(DefaultName, stale); err != nil {
		return fmt.Errorf("unpublish: %w", err)
	}

	rt, err := dial(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer rt.close()
	bridge, err := rt.link(DefaultName, 0)
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return err
	}
	if err == nil {
		ports, err := rt.links(bridge.index)
		if err != nil {
			return fmt.Errorf("links: %w", err)
		}
		for _, l := range ports {
			if l.kind == "veth" && strings.HasPrefix(l.name, vethPrefix) && !veths[l.name] {
				if err := rt.deleteLink(l.name); err != nil {
					return fmt.Errorf("remove %s: %w", l.name, err)
				}
			}
		}
	}
	for _, a := range gone { // last, so that a Repair that is killed is done again
		if err := os.Remove(filepath.Join(stateDir, "leases", a.String())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// ---- files ----

// lock takes the lock of a state directory and makes the directory. The kernel frees it when the process dies.
func lock(stateDir string) (unlock func(), err error) {
	name := filepath.Join(stateDir, "lock")
	open := func() (int, error) {
		return unix.Open(name, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	}
	fd, err := open()
	if err == unix.ENOENT {
		if err := os.MkdirAll(stateDir, 0o700); err != nil {
			return nil, err
		}
		fd, err = open()
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	for {
		if err = unix.Flock(fd, unix.LOCK_EX); err != unix.EINTR {
			break
		}
	}
	if err != nil {
		unix.Close(fd)
		return nil, &os.PathError{Op: "flock", Path: name, Err: err}
	}
	return func() { unix.Close(fd) }, nil
}

// readJSON leaves v alone where there is no file.
func readJSON(name string, v any) error {
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// writeJSON replaces a file, so that there is always an old or a new one. The caller holds the lock.
func writeJSON(name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	tmp := name + ".tmp"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(data, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, name)
	}
	return err
}
