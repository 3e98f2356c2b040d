package network

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"glassbox/plan"
	"glassbox/wire"
)

// What a bridge's guard says of a cable is not taken back at the container's end. It does no harm: the cable is gone, and a cable's name is
// made of the container's ID, so that nobody else's is called the same. But to take something out of nf_tables costs an RCU grace period,
// in which all others who change something there wait, and it costs the same for one entry as for many. So many are swept at once: by one
// start of thirty-two, by [Store.Repair], by the last container that leaves the network, and with the network's table.

// sweeps reports whether a container's start is one that sweeps. An ID is as good as a die, and it needs no file that counts. One that was
// on a network before may have entries there for another address, with which it must not speak any more: they go first.
func sweeps(r Request) bool {
	return r.Again || len(r.Container) == idLength && r.Container[idLength-2:] < "08"
}

// idLength is that of a container's ID, in hexadecimal digits.
const idLength = 64

// Sweep takes out what a network's guard says of cables of containers that have no address on it.
func (s Store) Sweep(n Network) error {
	if !n.guarded() {
		return nil
	}
	// Nobody leases while this looks: an entry comes after the lease, and goes before it.
	unlock, err := lock(s.State)
	if err != nil {
		return err
	}
	defer unlock()
	leases, err := s.Leases(n.Name)
	if err != nil {
		return err
	}
	veths := map[string]bool{}
	for _, id := range leases {
		veths[vethStem(id)] = true
	}
	nft, err := wire.Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer nft.Close()
	if err := forgetPorts(nft, n, veths); err != nil {
		return fmt.Errorf("network %s: %w", n.Name, err)
	}
	return nil
}

// Vacate empties a guard if no container has an address on its network any more. what is what the last one's plan has to take back.
func (s Store) Vacate(network string, what *plan.NftUnguard) error {
	dir := s.leases(network)
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil // the network went, and its table
	} else if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	// Without the lock first: hundreds that are removed at once would all wait for it, and one of them is the last.
	if empty, err := isEmpty(fd); err != nil || !empty {
		return err
	}
	unlock, err := lock(s.State)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := unix.Seek(fd, 0, io.SeekStart); err != nil {
		return os.NewSyscallError("lseek", err)
	}
	if empty, err := isEmpty(fd); err != nil || !empty {
		return err
	}
	nft, err := wire.Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer nft.Close()
	return nft.ForgetAllPorts(what)
}

// isEmpty looks at no more of a directory than shows whether it has entries.
func isEmpty(fd int) (bool, error) {
	var buf [256]byte
	for {
		n, err := unix.ReadDirent(fd, buf[:])
		if err != nil {
			return false, os.NewSyscallError("getdents64", err)
		}
		if n <= 0 {
			return true, nil
		}
		if _, _, names := unix.ParseDirent(buf[:n], 1, nil); len(names) > 0 { // without . and ..
			return false, nil
		}
	}
}

// forgetPorts takes out what is said of cables that begin with none of the names.
func forgetPorts(nft *wire.Conn, n Network, veths map[string]bool) error {
	return nft.ForgetPorts(n.Table(), func(link string) bool { return !veths[link[:min(len(link), vethLength)]] })
}
