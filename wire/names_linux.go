package wire

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// listen makes the sockets of a container's resolver, in its network namespace, and the rules that lead its questions there.
func (w *Executor) listen(op *plan.NameListen) (err error) {
	addr, err := netip.ParseAddr(op.Address)
	if err != nil || !addr.Is4() || !addr.IsLoopback() {
		// On any other address the container's neighbours could ask, too.
		return fmt.Errorf("address %q: want an IPv4 address of the loopback", op.Address)
	}
	ns, err := w.childFD()
	if err != nil {
		return err
	}
	var nft *Conn
	defer func() { nft.Close() }()
	lost, err := KeepNamespace(func() (err error) {
		if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter the child's network namespace: %w", err)
		}
		// Both protocols: an answer that is too long for a datagram is asked for again by TCP (RFC 7766).
		for _, kind := range []int{unix.SOCK_DGRAM, unix.SOCK_STREAM} {
			fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
			if err != nil {
				return err
			}
			w.Resolver = append(w.Resolver, fd)
			if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(op.Port), Addr: addr.As4()}); err != nil {
				return err
			}
		}
		if err := unix.Listen(w.Resolver[1], 16); err != nil {
			return err
		}
		// The rules belong to the container's network namespace, as the socket does.
		nft, err = Dial(unix.NETLINK_NETFILTER)
		return err
	})
	if lost != nil {
		// The thread is lost, not the sockets: they are closed below, and the start fails.
		err = errors.Join(err, fmt.Errorf("return to the host's network namespace: %w", lost))
	}
	if err == nil {
		err = nft.sendRules(op.Table, op.Rules)
	}
	if err != nil {
		for _, fd := range w.Resolver {
			unix.Close(fd)
		}
		w.Resolver = nil
	}
	return err
}

// sendRules sends lines of nft(8) in one transaction.
func (c *Conn) sendRules(table string, lines []string) error {
	err := c.sendAll(table, lines)
	ofBridge := func(line string) bool { w := tokens(line); return len(w) > 2 && w[2] == FamilyBridge }
	if noFamily(err) && slices.ContainsFunc(lines, ofBridge) {
		// A kernel without CONFIG_NF_TABLES_BRIDGE: containers aren't kept from lying to their neighbours, as with other engines.
		return c.sendAll(table, slices.DeleteFunc(slices.Clone(lines), ofBridge))
	}
	return err
}

func (c *Conn) sendAll(table string, lines []string) error {
	r := request{b: make([]byte, 0, 16<<10)}
	r.begin()
	if err := r.compile(table, lines); err != nil {
		return err
	}
	r.ackLast()
	failed, err := c.transact(&r)
	if err != nil && failed >= 2 && int(failed)-2 < len(lines) {
		return fmt.Errorf("%q: %w", lines[failed-2], err) // one message for each line, after the begin
	}
	return err
}
