package dns

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"glassbox/container"
)

// Directories are a container's networks as it finds names in them, the one that it prefers first.
//
//	DIR/web/4f1c…      symbolic link to the addresses of the container 4f1c…, separated by commas, which has the name web
//	DIR/172.30.0.2     symbolic link to the first name of the container that has the address
type Directories []Directory

// Directory is one network.
type Directory struct {
	Path    string
	Network string            // its name: "web.NETWORK" is web there
	Subnets []netip.Prefix    // whose addresses nobody else is asked about
	Links   map[string]string // names that this container alone has, and what they stand for
}

// Addresses looks a name up. The first network that knows it answers, as with Docker.
func (d Directories) Addresses(name string) ([]netip.Addr, bool) {
	for _, n := range d {
		if addrs := n.addresses(name); len(addrs) > 0 {
			return addrs, true
		}
	}
	for _, n := range d {
		if short, ok := strings.CutSuffix(name, "."+n.Network); ok && n.Network != "" {
			if addrs := n.addresses(short); len(addrs) > 0 {
				return addrs, true
			}
		}
	}
	return nil, false
}

// most is how many addresses of one name are told: they fill an answer of 8 KiB over TCP.
const most = 256

func (n Directory) addresses(name string) []netip.Addr {
	if target, ok := n.Links[name]; ok {
		name = target
	}
	if !ValidName(name) {
		return nil // and no path either
	}
	// Bare system calls, because this is what each answer costs: os.Open and its like triple it.
	dir, err := open(filepath.Join(n.Path, name))
	if err != nil {
		return nil // ENOENT; or ENOTDIR, of an address's link
	}
	defer unix.Close(dir)
	var buf [4096]byte
	var owners []string
	for len(owners) < most {
		size, err := unix.Getdents(dir, buf[:])
		if err != nil || size <= 0 {
			break
		}
		_, _, owners = unix.ParseDirent(buf[:size], most-len(owners), owners)
	}
	slices.Sort(owners)
	var addrs []netip.Addr
	for _, owner := range owners {
		size, err := unix.Readlinkat(dir, owner, buf[:])
		if err != nil {
			continue // gone since
		}
		addrs = parseAddrs(addrs, string(buf[:size]))
	}
	return addrs
}

func open(path string) (fd int, err error) {
	for {
		fd, err = unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

func parseAddrs(addrs []netip.Addr, text string) []netip.Addr {
	for part := range strings.SplitSeq(text, ",") {
		if a, err := netip.ParseAddr(part); err == nil {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// Name looks an address up.
func (d Directories) Name(addr netip.Addr) (name string, ours bool) {
	for _, n := range d {
		text, err := os.Readlink(filepath.Join(n.Path, addr.String()))
		if err == nil {
			if n.Network != "" {
				text += "." + n.Network // as with Docker
			}
			return text, true
		}
		ours = ours || slices.ContainsFunc(n.Subnets, func(p netip.Prefix) bool { return p.Contains(addr) })
	}
	return "", ours
}

// ValidName reports whether a name, in lower case, can stand in a directory of names and in a question: what container.ValidAlias takes
// has no slash and no empty part, so it is no path, and it can't be read as an address.
func ValidName(name string) bool { return name == strings.ToLower(name) && container.ValidAlias(name) }

// Add gives a container's names to a network's directory; names in upper case are found in lower case, as all are. What cannot be asked
// for (ValidName) is an error. Adding what is there already is none. The directory is made.
func Add(dir, owner string, names []string, addrs []netip.Addr) error {
	texts := make([]string, len(addrs))
	for i, a := range addrs {
		texts[i] = a.String()
	}
	target := strings.Join(texts, ",")
	for i, name := range names {
		name = strings.ToLower(name)
		if !ValidName(name) {
			return fmt.Errorf("%q is no name that can be looked up", name)
		}
		if err := link(target, filepath.Join(dir, name), owner); err != nil {
			return err
		}
		if i > 0 {
			continue
		}
		for _, text := range texts { // an address has one name, the first
			if err := replace(name, filepath.Join(dir, text)); err != nil {
				return err
			}
		}
	}
	if len(names) == 0 {
		return nil
	}
	return Tell(dir)
}

// link makes DIR/OWNER. The directory can go between its making and the link's, because another who had the name leaves: then once more.
func link(target, dir, owner string) error {
	for {
		err := os.Mkdir(dir, 0o755) // not MkdirAll: it fails where a directory goes while it looks
		if errors.Is(err, fs.ErrNotExist) {
			err = os.MkdirAll(filepath.Dir(dir), 0o755)
			if err == nil {
				continue
			}
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		err = replace(target, filepath.Join(dir, owner))
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
}

// replace makes a link. One that is there is of a container that was killed, or the same once more.
func replace(target, path string) error {
	err := os.Symlink(target, path)
	if errors.Is(err, fs.ErrExist) {
		os.Remove(path)
		err = os.Symlink(target, path)
	}
	return err
}

// Remove takes a container's names back, which has to happen before its addresses are given to others. What isn't there is no error.
func Remove(dir, owner string, names []string, addrs []netip.Addr) error {
	var first error
	keep := func(err error) {
		if err != nil && first == nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
			first = err
		}
	}
	for _, name := range names {
		name = strings.ToLower(name)
		if !ValidName(name) {
			continue
		}
		keep(os.Remove(filepath.Join(dir, name, owner)))
		keep(unix.Rmdir(filepath.Join(dir, name))) // the last one of the name; others: ENOTEMPTY
	}
	for _, a := range addrs {
		keep(os.Remove(filepath.Join(dir, a.String())))
	}
	keep(Tell(dir)) // ENOENT: it went with its network
	return first
}

// Forget takes back whatever a container has in a directory of names, known or not: for one that was killed.
func Forget(dir, owner string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var names []string
	var addrs []netip.Addr
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		text, err := os.Readlink(filepath.Join(dir, e.Name(), owner))
		if err != nil {
			continue
		}
		names = append(names, e.Name())
		addrs = parseAddrs(addrs, text)
	}
	return errors.Join(err, Remove(dir, owner, names, addrs))
}
