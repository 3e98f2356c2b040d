package network

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"glassbox/plan"
	"glassbox/plan/lazyjson"
	"glassbox/wire"
)

// Network is what containers are plugged into, as an installation of glassbox remembers it.
type Network struct {
	Version int       `json:"version"`
	ID      string    `json:"id,omitempty"` // 64 hexadecimal digits, as with Docker
	Name    string    `json:"name"`
	Driver  string    `json:"driver"` // bridge, none, host: see Steps
	Created time.Time `json:"created,omitzero"`
	// Link is the name of the network's device on the host, and of its nft table. Of the driver bridge: the bridge.
	Link    string            `json:"link,omitempty"`
	Subnets []Subnet          `json:"subnets,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
	Options map[string]string `json:"options,omitempty"` // as given with --opt; what they say stands in the fields below
	// Aux are addresses that no container gets, because somebody else has them, by a name that is only told.
	Aux map[string]netip.Addr `json:"aux,omitempty"`
	// Internal networks have no way out, and nobody asks the outside for names on their behalf.
	Internal bool   `json:"internal,omitempty"`
	Isolated bool   `json:"isolated,omitempty"` // the containers of a bridge can't reach each other
	NoIPv4   bool   `json:"noIPv4,omitempty"`   // its containers have addresses of IPv6 alone
	Parent   string `json:"parent,omitempty"`   // of macvlan and ipvlan: the link of the host that its containers are on top of; empty: Link
	Mode     string `json:"mode,omitempty"`     // of macvlan: bridge, private, vepa, passthru; of ipvlan: l2, l3, l3s
	Flag     string `json:"flag,omitempty"`     // of ipvlan: bridge (empty), private, vepa
	Open     bool   `json:"open,omitempty"`     // its containers may send frames with any address (see guarded)
	Routed6  bool   `json:"routed6,omitempty"`  // the same for IPv6 alone
	Routed   bool   `json:"routed,omitempty"`   // packets leave with the containers' addresses, not the host's
	FixedMTU int    `json:"mtu,omitempty"`      // bytes; 0: that of the host's way out
	// Egress and Ingress are the walls of containers that have none of their own: see container.ParseDoor.
	Egress  []string `json:"egress,omitempty"`
	Ingress []string `json:"ingress,omitempty"`
	// HostIP is where ports are published that are published on no address. Zero: on all.
	HostIP netip.Addr `json:"hostIP,omitzero"`

	WantIPv6 bool `json:"-"` // for Create: with a subnet of IPv6, chosen where none is given

	// What follows is no property of the network but of the host at the moment, found when the network was opened.

	MTU int `json:"-"` // bytes; 0: the kernel's own
	// VLAN makes the parent, where its name is that of a VLAN and it isn't there, or was made for a network here. Else nil.
	VLAN *plan.LinkVLAN `json:"-"`
	// Opened are the interfaces to the outside that glassbox has to switch forwarding on for, because the host is no router
	// (net.ipv4.ip_forward is 0). Empty where it is one.
	Opened []string `json:"-"`
	// Opened6 are the same for IPv6, and Forward6 are the settings that switch it on: see forwarding6.
	Opened6, Forward6 []string `json:"-"`
	// Uplinks are the interfaces that lead to the outside: those that the host has routes over, but for bridges of others.
	Uplinks []string `json:"-"`
	// Beside are the chains of other firewalls that would drop the network's packets, with what lets it through.
	Beside []*plan.FirewallAccept `json:"-"`
}

// Subnet is a range of addresses of a network, and the host's own address in it, which is the containers' router.
type Subnet struct {
	Prefix  netip.Prefix `json:"subnet"`
	Gateway netip.Addr   `json:"gateway,omitzero"`
	Range   netip.Prefix `json:"range,omitzero"`  // containers' addresses are taken from here; zero: from all of it
	Fixed   bool         `json:"fixed,omitempty"` // asked for: another one won't do
}

// withBits is the gateway's address with the length of the subnet's prefix.
func (s Subnet) withBits() netip.Prefix { return netip.PrefixFrom(s.Gateway, s.Prefix.Bits()) }

// The drivers, and the networks that are always there and have their names.
const (
	Bridge  = "bridge"
	Macvlan = "macvlan"
	Ipvlan  = "ipvlan"
	None    = "none"
	Host    = "host"
)

// version is that of the records written here.
const version = 1

// IPv4 is the network's first subnet of IPv4. The zero Subnet, whose prefix isn't valid, stands for none.
func (n Network) IPv4() Subnet {
	for _, s := range n.Subnets {
		if s.Prefix.Addr().Is4() {
			return s
		}
	}
	return Subnet{}
}

// IPv6 is the same of IPv6.
func (n Network) IPv6() Subnet {
	for _, s := range n.Subnets {
		if s.Prefix.Addr().Is6() {
			return s
		}
	}
	return Subnet{}
}

func (n Network) hasIPv6() bool { return n.IPv6().Prefix.IsValid() }

// primary is the subnet that a bridge is marked with: that of IPv4 where there is one.
func (n Network) primary() Subnet {
	if s := n.IPv4(); s.Prefix.IsValid() || !n.NoIPv4 {
		return s
	}
	return n.IPv6()
}

// setPrimary gives a network another subnet in the place of its primary one.
func (n *Network) setPrimary(s Subnet) {
	old := n.primary().Prefix
	n.Subnets = slices.DeleteFunc(slices.Clone(n.Subnets), func(o Subnet) bool { return o.Prefix == old })
	n.Subnets = slices.Insert(n.Subnets, 0, s)
}

// Table is the name of the network's nft table, of family ip.
func (n Network) Table() string { return n.Link }

// Store is where one installation keeps its networks. Another root or state directory is another installation, which has networks,
// bridges, tables and subnets of its own.
//
//	CONFIG/bridge.json            what the network "bridge" is (Network); survives a reboot
//	STATE/bridge/leases/172.30.0.2  symbolic link to the id of the container that has the address
//	STATE/bridge/last             the address leased last, where the search for the next one starts
//	STATE/opened.json             interfaces on which glassbox switched forwarding on
//	STATE/lock                    flock(2) for changes
//
// A symbolic link, because symlink(2) makes name and content in one step that either has happened or not, and fails if the
// name is taken.
//
// Earlier versions had one network, kept in CONFIG/glassbox0.json (its subnet), STATE/leases and STATE/last. They are read and moved;
// STATE/leases stays as a link to the new directory, because supervisors that were started before an update still give their
// addresses back there.
type Store struct {
	Config string // below the root directory
	State  string // below the state directory
}

func (s Store) recordFile(name string) string { return filepath.Join(s.Config, name+".json") }

// oldName is what earlier versions called their only bridge, and the first installation of a host still does.
const oldName = "glassbox0"

// ErrNotFound says that there is no network of a name.
var ErrNotFound = errors.New("there is no such network")

// builtin returns those networks that are the same everywhere and need no record.
func builtin(name string) (Network, bool) {
	if name == None || name == Host {
		return Network{Version: version, Name: name, Driver: name}, true
	}
	return Network{}, false
}

// read returns the record of a network, and false if it has never been written. Only the default network may be without.
func (s Store) read(name string) (Network, bool, error) {
	n := Network{Version: version, Name: name, Driver: Bridge}
	if err := validName(name); err != nil {
		return n, false, err
	}
	file := s.recordFile(name)
	data, err := os.ReadFile(file)
	old := false
	if errors.Is(err, fs.ErrNotExist) && name == Bridge {
		file, old = s.recordFile(oldName), true
		data, err = os.ReadFile(file)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist) && name == Bridge:
		return n, false, nil
	case errors.Is(err, fs.ErrNotExist):
		return n, false, fmt.Errorf("network %s: %w", name, ErrNotFound)
	case err != nil:
		return n, false, err
	}
	n, err = parseRecord(name, data)
	if err != nil {
		return n, false, fmt.Errorf("%s: %w", file, err)
	}
	if old {
		n.Link = oldName
	}
	return n, true, nil
}

// parseRecord reads a record of any version. The one without a number held a subnet and nothing else, which is also what an administrator
// may write where no subnet is free (see Store.choose).
func parseRecord(name string, data []byte) (Network, error) {
	var n Network
	if err := lazyjson.Unmarshal(data, &n); err != nil {
		return Network{}, err
	}
	if n.Version > version {
		const newer = "it was written by a newer glassbox (version %d of the record, this one knows %d): update this one"
		return n, fmt.Errorf(newer, n.Version, version)
	}
	if n.Version == 0 {
		var r struct {
			Subnet netip.Prefix `json:"subnet"`
		}
		if err := json.Unmarshal(data, &r); err != nil {
			return Network{}, err
		}
		if r.Subnet.IsValid() {
			n.Subnets = []Subnet{{Prefix: r.Subnet}}
		}
	}
	n.Version, n.Name = version, name // the file's name is what it was asked for by
	if n.Driver == "" {
		n.Driver = Bridge
	}
	for i := range n.Subnets {
		s := &n.Subnets[i]
		// A /31 has no room for a router and a container.
		if !s.Prefix.IsValid() || s.Prefix.Addr().BitLen()-s.Prefix.Bits() < 2 {
			return n, fmt.Errorf("subnet %q: want CIDR form, with room for two addresses (/30, /126)", s.Prefix)
		}
		s.Prefix = s.Prefix.Masked()
		if !s.Gateway.IsValid() {
			s.Gateway = s.Prefix.Addr().Next()
		}
		if !s.Prefix.Contains(s.Gateway) {
			return n, fmt.Errorf("gateway %s is not in %s", s.Gateway, s.Prefix)
		}
	}
	if n.Link != "" {
		if err := wire.CheckName(n.Link); err != nil {
			return n, err
		}
		if err := wire.CheckTable(n.Table()); err != nil {
			return n, err
		}
	}
	return n, nil
}

// write replaces the record of a network. The caller holds the lock.
func (s Store) write(n Network) error {
	if err := writeJSON(s.recordFile(n.Name), n); err != nil {
		return err
	}
	if n.Name != Bridge {
		return nil
	}
	// Read no more, and it would come back to life if the new one were removed.
	if err := os.Remove(s.recordFile(oldName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// names lists the networks that have a record, and the default one.
func (s Store) names() ([]string, error) {
	names := []string{Bridge}
	entries, err := os.ReadDir(s.Config)
	if errors.Is(err, fs.ErrNotExist) {
		return names, nil
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		if ok && name != Bridge && name != oldName && validName(name) == nil {
			names = append(names, name)
		}
	}
	return names, err
}

// validName keeps to what Docker takes as the name of a network, which is also safe as the name of a file.
func validName(s string) error {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	if s == "" || len(s) > 128 || !strings.Contains(letters, s[:1]) || strings.Trim(s, letters+"_.-") != "" {
		return fmt.Errorf("network %q: want a name of letters, digits and _.- that begins with a letter or digit", s)
	}
	return nil
}

func newID() string {
	b := make([]byte, 32)
	rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}

// An owner is what is written on a bridge (IFLA_IFALIAS, "ip link" shows it as alias), so that installations leave each other's
// alone, and people see whose it is: "glassbox bridge 172.30.0.0/16 0123456789ab /var/lib/glassbox/network /run/glassbox/network".
// The kernel keeps at most 255 bytes (IFALIASZ of linux/if.h).
type owner struct {
	network       string
	subnet        netip.Prefix
	id            string // the first digits of the network's
	config, state string
}

const (
	ownerWord = "glassbox"
	ownerID   = 12 // as many digits as people are used to
)

func (s Store) owner(n Network) owner {
	return owner{n.Name, n.primary().Prefix, n.ID[:min(len(n.ID), ownerID)], s.Config, s.State}
}

// String is never longer than the kernel takes: what is too long for it or holds blanks is given by its hash.
func (o owner) String() string {
	return strings.Join([]string{ownerWord, short(o.network, 40), o.subnet.String(), o.id, short(o.config, 80), short(o.state, 80)}, " ")
}

func short(s string, most int) string {
	odd := strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c >= 0x7f })
	if len(s) <= most && !odd && s != "" {
		return s
	}
	h := fnv.New64a()
	h.Write([]byte(s))
	return fmt.Sprintf("#%016x", h.Sum64())
}

// parseOwner reads what String wrote, and reports whether it is that.
func parseOwner(alias string) (owner, bool) {
	f := strings.Fields(alias)
	if len(f) != 6 || f[0] != ownerWord || len(f[3]) > ownerID {
		return owner{}, false
	}
	p, err := netip.ParsePrefix(f[2])
	return owner{f[1], p, f[3], f[4], f[5]}, err == nil
}

// owns reports whether a bridge with this owner is a network's of this installation. The network's id tells roots apart, also where a
// container of the host's network has a root of the same path, and the state directory tells apart who leases addresses: two that
// share neither would give the same address twice.
func (s Store) owns(o owner, n Network) bool {
	if o.id == "" || n.ID == "" || o.id != n.ID[:min(len(n.ID), ownerID)] {
		return false
	}
	if o.state == short(s.State, 80) {
		return true
	}
	// The same directory by another name: a link, a bind mount.
	a, err := os.Stat(o.state)
	if err != nil {
		return false
	}
	b, err := os.Stat(s.State)
	return err == nil && os.SameFile(a, b)
}
