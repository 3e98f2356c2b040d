package wire

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// carry makes the sockets of a PortCarry, in the host's network namespace.
func (w *Executor) carry(op *plan.PortCarry) error {
	for _, p := range op.Ports {
		fd, err := listenAt(p)
		if err != nil {
			for _, fd := range w.Carried {
				unix.Close(fd)
			}
			w.Carried = nil
			return err
		}
		w.Carried = append(w.Carried, fd)
	}
	return nil
}

// listenAt listens at the host's end of a port.
func listenAt(p plan.PortRule) (fd int, err error) {
	addr, err := netip.ParseAddr(p.HostIP)
	if err != nil || addr.Zone() != "" || !p.Carried() {
		return -1, fmt.Errorf("host address %q: want one that is carried to %s", p.HostIP, p.ContainerIP)
	}
	kind := unix.SOCK_STREAM
	switch p.Proto {
	case "tcp":
	case "udp":
		kind = unix.SOCK_DGRAM
	default:
		return -1, fmt.Errorf("protocol %q: only tcp and udp are carried", p.Proto)
	}
	family, sa := unix.AF_INET, unix.Sockaddr(nil)
	if addr.Is6() {
		family, sa = unix.AF_INET6, &unix.SockaddrInet6{Port: int(p.HostPort), Addr: addr.As16()}
	} else {
		sa = &unix.SockaddrInet4{Port: int(p.HostPort), Addr: addr.As4()}
	}
	if fd, err = unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return -1, err
	}
	var errs []error
	set := func(level, option int) { errs = append(errs, unix.SetsockoptInt(fd, level, option, 1)) }
	if addr.Is6() {
		set(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY) // else [::] would be all addresses of IPv4, too (ipv6(7))
	}
	switch {
	case kind == unix.SOCK_STREAM:
		set(unix.SOL_SOCKET, unix.SO_REUSEADDR) // connections that were closed a moment ago (TIME_WAIT) don't count
	case addr.Is6():
		set(unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO) // an answer has to have the address that was asked
	default:
		set(unix.IPPROTO_IP, unix.IP_PKTINFO)
	}
	errs = append(errs, unix.Bind(fd, sa))
	if kind == unix.SOCK_STREAM {
		errs = append(errs, unix.Listen(fd, 128))
	}
	if err = errors.Join(errs...); err != nil {
		unix.Close(fd)
		if errors.Is(err, unix.EADDRINUSE) {
			return -1, fmt.Errorf("port %d/%s of %s is in use on this host (ss -lnp shows by whom): %w", p.HostPort, p.Proto, addr, unix.EADDRINUSE)
		}
		return -1, fmt.Errorf("listen at port %d/%s of %s: %w", p.HostPort, p.Proto, addr, err)
	}
	return fd, nil
}
