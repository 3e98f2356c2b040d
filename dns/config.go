package dns

import (
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A container's file of what its resolver knows has a line for each of its networks, the one that it prefers first, and for the servers of
// the outside, or the file of the host that names them, which is read again when it changes (a laptop that moves, a VPN that comes):
//
//	network NAME DIR SUBNET...
//	link ALIAS NAME              of the network above: a name that only this container has for another
//	server ADDRESS
//	servers /etc/resolv.conf
//	wall TABLE
//	cidr PREFIX                  of the wall above: open without a name
//	allow NAME PORT PROTO        of the wall above
//	strict

// file is a file that is read again when another one has taken its place, or it was written to.
type file struct {
	path string
	seen stamp
	data []byte
}

type stamp struct {
	inode       uint64
	sec, nsec   int64
	size        int64
	there, read bool
}

// changed reads the file, if it isn't the one that was read before.
func (f *file) changed() bool {
	var st unix.Stat_t
	now := stamp{read: true}
	if unix.Stat(f.path, &st) == nil {
		now = stamp{inode: st.Ino, sec: int64(st.Mtim.Sec), nsec: int64(st.Mtim.Nsec), size: st.Size, there: true, read: true}
	}
	if now == f.seen {
		return false
	}
	f.seen, f.data = now, nil
	if now.there {
		f.data, _ = os.ReadFile(f.path) // one that can't be read has nothing in it
	}
	return true
}

// Watch returns a function that gives what a container's file says at the moment, for [Server.Config]. Whoever changes the file says so by
// [Tell]; who doesn't is heard of a second late.
func Watch(path string) func() *Config {
	var mu sync.Mutex
	own, outside := &file{path: path}, &file{}
	var c *Config
	var looked time.Time
	told, err := openTally(path)
	return func() *Config {
		mu.Lock()
		defer mu.Unlock()
		late := time.Since(looked) > time.Second
		if !late && err == nil && !told.moved() {
			return c
		}
		fresh := own.changed()
		if fresh {
			if _, path := parse(own.data); path != outside.path {
				outside, late = &file{path: path}, true
			}
		}
		// The host's file changes a few times a day: a second late is early enough, and most questions need no outside.
		if late {
			looked = time.Now()
			fresh = outside.path != "" && outside.changed() || fresh
		}
		if fresh || c == nil {
			c, _ = parse(own.data)
			c.Servers = append(c.Servers, nameservers(outside.data)...)
		}
		return c
	}
}

// parse reads the lines. What can't be read is left out: the file is glassbox's own.
func parse(data []byte) (c *Config, outside string) {
	var dirs Directories
	c = &Config{}
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		switch {
		case len(f) >= 3 && f[0] == "network":
			d := Directory{Network: strings.ToLower(f[1]), Path: f[2]}
			for _, text := range f[3:] {
				if p, err := netip.ParsePrefix(text); err == nil {
					d.Subnets = append(d.Subnets, p)
				}
			}
			dirs = append(dirs, d)
		case len(f) == 3 && f[0] == "link" && len(dirs) > 0:
			d := &dirs[len(dirs)-1]
			if d.Links == nil {
				d.Links = map[string]string{}
			}
			d.Links[f[1]] = f[2]
		case len(f) == 2 && f[0] == "server":
			c.Servers = append(c.Servers, server(f[1])...)
		case len(f) == 2 && f[0] == "servers":
			outside = f[1]
		default:
			c.wallLine(f)
		}
	}
	c.Names = dirs
	return c, outside
}

// nameservers are those of a resolv.conf(5).
func nameservers(data []byte) (servers []netip.AddrPort) {
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "nameserver" {
			servers = append(servers, server(f[1])...)
		}
	}
	return servers
}

func server(text string) []netip.AddrPort {
	a, err := netip.ParseAddr(text)
	if err != nil {
		return nil
	}
	return []netip.AddrPort{netip.AddrPortFrom(a, 53)}
}
