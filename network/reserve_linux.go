package network

import (
	"errors"
	"fmt"

	"glassbox/container"

	"golang.org/x/sys/unix"
)

// Reserve takes the ports on the host, as long as the descriptors it returns are open (close-on-exec): it binds a socket to
// each and doesn't listen, so that a port in use is an error now and other programs get EADDRINUSE later. Nothing ever
// arrives at these sockets, because the firewall sends everything on to the container before. Where a port is to be chosen
// (HostPort 0 or HostEnd set), the choice is written into ports. On an error nothing is taken.
func Reserve(ports []container.Port) (fds []int, err error) {
	defer func() {
		if err != nil {
			for _, fd := range fds {
				unix.Close(fd)
			}
			fds = nil
		}
	}()
	for i := range ports {
		p := &ports[i]
		// HostPort 0 is one turn with port 0, for which the kernel chooses one of ip_local_port_range.
		first, last := p.HostPort, max(p.HostPort, p.HostEnd)
		var fd int
		for n := int(first); n <= int(last); n++ {
			var chosen uint16
			fd, chosen, err = reserve(*p, uint16(n))
			if err == unix.EPROTONOSUPPORT && n != 0 {
				// A kernel without SCTP: no program of the host can have the port, so there is nothing to hold. Containers bring
				// their own SCTP (over raw sockets), and the firewall knows its ports.
				fd, chosen, err = -1, uint16(n), nil
			}
			if err == nil {
				p.HostPort, p.HostEnd = chosen, 0
				break
			}
			// No other port of the range will do better: the address isn't this host's, or the protocol isn't the kernel's.
			if !errors.Is(err, unix.EADDRINUSE) {
				break
			}
		}
		if err != nil {
			switch {
			case errors.Is(err, unix.EADDRINUSE) && last > first:
				return fds, fmt.Errorf("publish %s: all ports of the range are in use: %w", *p, err)
			case errors.Is(err, unix.EADDRINUSE):
				return fds, fmt.Errorf("publish %s: the port is in use on this host (ss -lnp shows by whom): %w", *p, err)
			case errors.Is(err, unix.EPROTONOSUPPORT):
				return fds, fmt.Errorf("publish %s: this kernel has no sockets of that protocol and can't choose a port: give one", *p)
			case errors.Is(err, unix.EADDRNOTAVAIL):
				return fds, fmt.Errorf("publish %s: this host doesn't have the address %s: %w", *p, p.HostIP, err)
			}
			return fds, fmt.Errorf("publish %s: %w", *p, err)
		}
		if fd >= 0 {
			fds = append(fds, fd)
		}
	}
	return fds, nil
}

func reserve(p container.Port, port uint16) (fd int, chosen uint16, err error) {
	fd, err = bind(p, port, false)
	if err == unix.EADDRINUSE && p.Proto == "tcp" {
		// Closed connections of a server that just ended (TIME_WAIT) also count as use, for a minute. With SO_REUSEADDR they
		// don't; but then others that are bound and don't listen, such as our own, don't count either, until one listens.
		fd, err = bind(p, port, true)
	}
	if err != nil {
		return -1, 0, err
	}
	// The only way to learn what the kernel chose for port 0.
	sa, err := unix.Getsockname(fd)
	if err != nil {
		unix.Close(fd)
		return -1, 0, err
	}
	if sa, ok := sa.(*unix.SockaddrInet6); ok {
		return fd, uint16(sa.Port), nil
	}
	return fd, uint16(sa.(*unix.SockaddrInet4).Port), nil
}

func bind(p container.Port, port uint16, reuse bool) (int, error) {
	typ, proto := unix.SOCK_STREAM, 0
	switch p.Proto {
	case "udp":
		typ = unix.SOCK_DGRAM
	case "sctp":
		proto = unix.IPPROTO_SCTP
	}
	family, sa := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: int(port)})
	switch {
	case p.HostIP.Is6():
		family, sa = unix.AF_INET6, &unix.SockaddrInet6{Port: int(port), Addr: p.HostIP.As16()}
	case p.HostIP.IsValid():
		sa = &unix.SockaddrInet4{Port: int(port), Addr: p.HostIP.As4()}
	}
	fd, err := unix.Socket(family, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if err != nil {
		return -1, err
	}
	if family == unix.AF_INET6 {
		// Else [::] would be all addresses of IPv4, too (ipv6(7)).
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if err == nil && reuse {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err == nil {
		err = unix.Bind(fd, sa)
	}
	if err == nil && reuse {
		// Listening is refused if anybody else holds the port. Then stop at once: the port stays bound, and without
		// SO_REUSEADDR nobody else can listen there.
		if err = unix.Listen(fd, 0); err == nil {
			err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 0), unix.Shutdown(fd, unix.SHUT_RD))
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
