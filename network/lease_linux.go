package network

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"glassbox/wire"

	"golang.org/x/sys/unix"
)

// Where earlier versions, which knew one network, kept its leases.
func (s Store) oldLeases() string { return filepath.Join(s.State, "leases") }

func (s Store) leases(network string) string { return filepath.Join(s.State, network, "leases") }

// Lease gives a container an address of the network's first subnet of IPv4: want, if valid, else the next free one after the address
// leased last, so that an address isn't used again at once. A container that has the wanted address already keeps it.
func (s Store) Lease(n Network, containerID string, want netip.Addr) (netip.Addr, error) {
	return s.lease(n, n.IPv4(), containerID, want)
}

// lease gives an address of one of the network's subnets.
func (s Store) lease(n Network, subnet Subnet, containerID string, want netip.Addr) (netip.Addr, error) {
	if containerID == "" {
		return netip.Addr{}, errors.New("lease: no container id")
	}
	unlock, err := lock(s.State)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("lease: %w", err)
	}
	defer unlock()
	first, last := subnet.Prefix.Masked().Addr().Next(), lastOf(subnet.Prefix).Prev() // of IPv6, too, where neither is anybody's need
	if want.IsValid() {
		// Network, broadcast and the gateway are nobody's: a container with the gateway's address would take the others off the network.
		if want.Less(first) || last.Less(want) || want == subnet.Gateway {
			return netip.Addr{}, fmt.Errorf("lease: %s is no address for a container of %s", want, subnet.Prefix)
		}
		err := s.take(n.Name, containerID, want)
		if errors.Is(err, fs.ErrExist) {
			holder, _ := os.Readlink(filepath.Join(s.leases(n.Name), want.String()))
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

	if r := subnet.Range; r.IsValid() { // an address that is asked for may be outside
		if a := r.Masked().Addr(); first.Less(a) {
			first = a
		}
		if a := lastOf(r); a.Less(last) {
			last = a
		}
	}
	reserved := map[netip.Addr]bool{subnet.Gateway: true}
	for _, a := range n.Aux {
		reserved[a] = true
	}
	hint := filepath.Join(s.State, n.Name, "last")
	if subnet.Prefix.Addr().Is6() {
		hint += "6"
	}
	data, _ := os.ReadFile(hint) // whatever is wrong with it, the search starts somewhere
	// The file is written over in place (see writeHint): after a shorter address the rest of a longer one may follow.
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
		if reserved[a] {
			continue // nobody's: the search may end here without a lease
		}
		err := s.take(n.Name, containerID, a)
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
	return netip.Addr{}, fmt.Errorf("lease: all addresses of %s are taken: %w", subnet.Prefix, unix.EADDRNOTAVAIL)
}

// lastOf is the last address of a subnet.
func lastOf(p netip.Prefix) netip.Addr {
	if p.Addr().Is4() {
		return wire.Broadcast(p)
	}
	a := p.Masked().Addr().As16()
	for i := p.Bits(); i < 128; i++ {
		a[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom16(a)
}

// take makes the link that is a lease. The directory is made when it is missing, which is once after a boot.
func (s Store) take(network, containerID string, a netip.Addr) error {
	name := filepath.Join(s.leases(network), a.String())
	err := os.Symlink(containerID, name)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.makeDir(network); err != nil {
		return err
	}
	return os.Symlink(containerID, name)
}

// makeDir makes the directory of a network's leases, or moves those of an earlier version there. The caller holds the lock.
func (s Store) makeDir(network string) error {
	dir := filepath.Join(s.State, network)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if fi, err := os.Lstat(s.oldLeases()); network == Bridge && err == nil && fi.IsDir() {
		if err := os.Rename(filepath.Join(s.State, "last"), filepath.Join(dir, "last")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.Rename(s.oldLeases(), s.leases(network)); err != nil {
			return err
		}
		return os.Symlink(filepath.Join(network, "leases"), s.oldLeases())
	}
	return os.MkdirAll(s.leases(network), 0o700)
}

// writeHint writes over what is there, in a line of fixed length: cutting a file to nothing and filling it again makes ext4
// write it to the disk at once, which costs a millisecond.
func writeHint(name string, a netip.Addr) {
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err == nil {
		width := len("255.255.255.255")
		if a.Is6() {
			width = 39
		}
		_, _ = unix.Write(fd, fmt.Appendf(nil, "%-*s\n", width, a))
		unix.Close(fd)
	}
}

// Release gives an address back, if the container has it.
func (s Store) Release(network string, addr netip.Addr, containerID string) error {
	unlock, err := lock(s.State)
	if err != nil {
		return fmt.Errorf("release %s: %w", addr, err)
	}
	defer unlock()
	name := filepath.Join(s.leases(network), addr.String())
	holder, err := os.Readlink(name)
	if errors.Is(err, fs.ErrNotExist) && network == Bridge { // a lease of an earlier version, not moved yet
		name = filepath.Join(s.oldLeases(), addr.String())
		holder, err = os.Readlink(name)
	}
	// Given back already, and perhaps leased again: by its owner alone can an address be released.
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

// Leases returns the container of every leased address of a network.
func (s Store) Leases(network string) (map[netip.Addr]string, error) {
	// Names are addresses and links are ids: one readdir and a readlink each, without opening a file.
	dir := s.leases(network)
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) && network == Bridge {
		dir = s.oldLeases()
		f, err = os.Open(dir)
	}
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
