package wire

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// An Executor carries out the network steps of one start. Its sockets belong to network namespaces and are opened when first needed.
// One goroutine uses it.
type Executor struct {
	child func() (fd int, err error)

	host, inside, nft *Conn

	buf []byte // for receiving, shared by the sockets

	bridges map[string]int    // indices of links of the host
	links   map[string]int    // indices of links of the child
	peers   map[string]string // host's ends of the child's links
	busy    map[string]bool   // links of the child whose hardware address another one may have yet

	// Resolver are the sockets of a NameListen, UDP and TCP; they belong to the caller. Empty: there was none.
	Resolver []int
	// Carried are the sockets of a PortCarry, in the order of its ports; they belong to the caller, too.
	Carried []int
}

// Open returns an Executor. childNetns gives a descriptor of the child's network namespace, which it uses and doesn't close;
// it is called when a step first needs it, and may be nil for Undo. The host's network namespace is that of the thread that
// makes the first step.
func Open(childNetns func() (fd int, err error)) *Executor { return &Executor{child: childNetns} }

// Close closes the sockets.
func (w *Executor) Close() {
	for _, c := range []*Conn{w.host, w.inside, w.nft} {
		c.Close()
	}
	*w = Executor{child: w.child}
}

// Do makes one step: LinkBridge, LinkVeth, LinkMacvlan, LinkVLAN, LinkMove, LinkDelete, LinkAddress, RouteDefault, NftBridge, NftPublish,
// NftUnpublish, PortCarry, NameListen, NftWall, NftUnwall or FirewallAccept. The
// error has the kernel's explanation, and its errno is found by errors.Is and errors.As; what was asked is not repeated in it,
// because the step that failed says so.
func (w *Executor) Do(op plan.Op) error {
	switch op := op.(type) {
	case *plan.LinkBridge:
		c, err := w.hostConn()
		if err != nil {
			return err
		}
		index, err := c.EnsureBridge(op)
		if err != nil {
			return err
		}
		if w.bridges == nil {
			w.bridges = map[string]int{}
		}
		w.bridges[op.Name] = index
		return nil
	case *plan.LinkVeth:
		c, err := w.hostConn()
		if err != nil {
			return err
		}
		// Its index is known if the step that made it was ours; after a restart of the plan in the middle it is asked for.
		bridge, ok := w.bridges[op.Bridge]
		if !ok {
			l, err := c.Link(op.Bridge, 0)
			if err != nil {
				return fmt.Errorf("bridge %s: %w", op.Bridge, err)
			}
			bridge = l.Index
		}
		ns, err := w.childFD()
		if err != nil {
			return err
		}
		if w.peers == nil {
			w.peers = map[string]string{}
		}
		w.peers[op.Peer] = op.Name
		// The usual cable has no settings, and pays nothing for going into the namespace here.
		if err := c.veth(op, bridge, ns); err != nil || len(op.Sysctls) == 0 {
			return err
		}
		return w.settings(op.Peer, op.Sysctls)
	case *plan.LinkMacvlan:
		return w.macvlan(op)
	case *plan.LinkVLAN:
		return w.vlan(op)
	case *plan.LinkRate:
		return w.rate(op)
	case *plan.LinkMove:
		return w.move(op)
	case *plan.LinkDelete:
		return w.deleteLink(op)
	case *plan.LinkAddress:
		c, err := w.childConn()
		if err != nil {
			return err
		}
		index, err := w.upAgain(c, op)
		if err == nil && index > 0 {
			if w.links == nil {
				w.links = map[string]int{}
			}
			w.links[op.Link] = index
			if end, ok := w.peers[op.Link]; ok {
				// Now both ends are up. Until the bridge forwards, the container's first packet would be lost, and TCP tries again after a second.
				w.host.awaitPort(end)
			}
		}
		return err
	case *plan.RouteDefault:
		return w.route(op)
	case *plan.NftBridge:
		c, err := w.nftConn()
		if err != nil {
			return err
		}
		return c.ensureTable(op)
	case *plan.NftPublish:
		c, err := w.nftConn()
		if err != nil {
			return err
		}
		return c.publish(op)
	case *plan.NameListen:
		return w.listen(op)
	case *plan.PortCarry:
		return w.carry(op)
	case *plan.NftGuard, *plan.NftUnguard:
		c, err := w.nftConn()
		if err != nil {
			return err
		}
		if off, ok := op.(*plan.NftUnguard); ok {
			return c.unguard(off)
		}
		return c.guard(op.(*plan.NftGuard))
	case *plan.FirewallAccept:
		return w.accept(op)
	case *plan.NftWall, *plan.NftUnwall:
		c, err := w.nftConn()
		if err != nil {
			return err
		}
		if down, ok := op.(*plan.NftUnwall); ok {
			return c.unwall(down)
		}
		return c.wall(op.(*plan.NftWall))
	case *plan.NftUnpublish:
		c, err := w.nftConn()
		if err != nil {
			return err
		}
		return c.unpublish(op)
	}
	return fmt.Errorf("%s is no step of the network", op.Kind())
}

// Undo makes a LinkDelete, NftUnpublish or NftUnguard, for which there is no child any more.
func Undo(op plan.Op) error {
	w := Open(nil)
	defer w.Close()
	return w.Do(op)
}

func (w *Executor) hostConn() (_ *Conn, err error) {
	if w.host == nil {
		w.host, err = w.share(Dial(unix.NETLINK_ROUTE))
	}
	return w.host, err
}

func (w *Executor) nftConn() (_ *Conn, err error) {
	if w.nft == nil {
		w.nft, err = w.share(Dial(unix.NETLINK_NETFILTER))
	}
	return w.nft, err
}

func (w *Executor) share(c *Conn, err error) (*Conn, error) {
	if err != nil {
		return nil, err
	}
	// One buffer for three sockets: the steps follow each other, and 16 KB more per start would be seen in the supervisor's memory.
	if w.buf == nil {
		w.buf = make([]byte, recvSize)
	}
	c.buf = w.buf
	return c, nil
}

func (w *Executor) childFD() (int, error) {
	if w.child == nil {
		return -1, errors.New("there is no child whose network namespace could be used")
	}
	fd, err := w.child()
	if err != nil {
		return -1, fmt.Errorf("network namespace of the child: %w", err)
	}
	return fd, nil
}

func (w *Executor) childConn() (_ *Conn, err error) {
	if w.inside != nil {
		return w.inside, nil
	}
	fd, err := w.childFD()
	if err != nil {
		return nil, err
	}
	w.inside, err = w.share(dialIn(fd))
	return w.inside, err
}

// connAt is the socket for links of the host, or for those inside, of the child.
func (w *Executor) connAt(inside bool) (*Conn, error) {
	if inside {
		return w.childConn()
	}
	return w.hostConn()
}

// settings makes the settings of a link that the child has just got. They are files, not messages: the thread has to be in the
// child's network namespace, which decides what /proc/sys/net shows (proc_sys_lookup goes by the caller). The socket for the messages
// to come is opened at the same time, because going there and back costs more than all else.
func (w *Executor) settings(link string, sysctls []string) error {
	for _, s := range sysctls {
		// Plans can come from elsewhere (replay): a step about a cable must not switch on forwarding for the host.
		if !strings.HasPrefix(s, "net/ipv4/conf/"+link+"/") && !strings.HasPrefix(s, "net/ipv6/conf/"+link+"/") {
			return fmt.Errorf("setting %q is none of %s", s, link)
		}
	}
	fd, err := w.childFD()
	if err != nil {
		return err
	}
	c, err := dialAnd(fd, func() error {
		for _, s := range sysctls {
			if err := writeSysctl(s); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	w.inside.Close() // of a link before this one
	w.inside, err = w.share(c, nil)
	return err
}

// dialAt opens a socket for the links of the network namespace that a descriptor stands for, or of this thread's where it is negative.
func dialAt(netns int) (*Conn, error) {
	if netns < 0 {
		return Dial(unix.NETLINK_ROUTE)
	}
	return dialIn(netns)
}

// dialIn opens a socket in another network namespace. The thread is in it for the time of three system calls.
func dialIn(netns int) (*Conn, error) { return dialAnd(netns, func() error { return nil }) }

// dialAnd does something else there, too.
func dialAnd(netns int, f func() error) (*Conn, error) {
	var c *Conn
	lost, err := KeepNamespace(func() (err error) {
		if err := unix.Setns(netns, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter the child's network namespace: %w", err)
		}
		if c, err = Dial(unix.NETLINK_ROUTE); err != nil {
			return err
		}
		return f()
	})
	if lost != nil {
		c.Close()
		return nil, fmt.Errorf("return to the host's network namespace: %w", lost)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// KeepNamespace runs f, which may change the network namespace of the thread that it runs on, and gives the thread its own back. If that
// fails, lost says why, and the thread stays locked to the goroutine and must never serve anything else: the goroutine's end ends it.
func KeepNamespace(f func() error) (lost, err error) {
	runtime.LockOSThread()
	// The thread's, not the process's: another goroutine may be elsewhere at this moment with its own thread.
	own, err := OwnNamespace()
	if err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	defer unix.Close(own)
	err = f()
	if lost = unix.Setns(own, unix.CLONE_NEWNET); lost == nil {
		runtime.UnlockOSThread()
	}
	return lost, err
}

// OwnNamespace opens the calling thread's network namespace, by asking a socket that was made in it (ioctl SIOCGSKNS, Linux 4.10).
// What a thread has looked up in /proc/thread-self the kernel forgets at the thread's end, which may be that of the process: who waits for
// that spins meanwhile (d_invalidate), for milliseconds where the ending thread gets no processor. So that is the way of those only who
// have no rights over the namespace.
func OwnNamespace() (int, error) {
	if sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err == nil {
		fd, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(sock), unix.SIOCGSKNS, 0)
		unix.Close(sock)
		if errno == 0 {
			return int(fd), nil
		}
	}
	const path = "/proc/thread-self/ns/net"
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

// setSysctl makes a setting like "net/ipv4/conf/glassbox0/forwarding=1", unless it is so already. Settings of IPv6 are left
// out on a kernel without it.
func setSysctl(s string) error {
	path, value, err := sysctl(s)
	if err != nil {
		return err
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return missingSysctl(path, err)
	}
	var buf [64]byte
	// Read first: /proc/sys may be read-only here (glassbox in a container), and a setting that is right already is no reason to fail.
	n, err := unix.Read(fd, buf[:])
	unix.Close(fd)
	if err == nil && strings.TrimSpace(string(buf[:n])) == value {
		return nil
	}
	return writeSysctl(s)
}

// sysctl takes a setting apart.
func sysctl(s string) (path, value string, err error) {
	key, value, ok := strings.Cut(s, "=")
	if !ok || !strings.HasPrefix(key, "net/") || strings.Contains(key, "..") {
		return "", "", fmt.Errorf("setting %q: want net/…=value", s)
	}
	return "/proc/sys/" + key, value, nil
}

func missingSysctl(path string, err error) error {
	if err == unix.ENOENT && strings.HasPrefix(path, "/proc/sys/net/ipv6/") {
		return nil
	}
	return &os.PathError{Op: "open", Path: path, Err: err}
}

// writeSysctl makes a setting that a link can't have yet.
func writeSysctl(s string) error {
	path, value, err := sysctl(s)
	if err != nil {
		return err
	}
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return missingSysctl(path, err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(value)); err != nil {
		return &os.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}
