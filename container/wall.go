package container

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// A Door is one entry of --egress or --ingress: who is on the other side, and on which port.
type Door struct {
	Prefix netip.Prefix // of addresses; not valid: see Name
	Name   string       // of a host, a domain (*.example.com), a network or a container; "": everybody, with a port
	Proto  string       // tcp, udp, sctp; with Port
	Port   uint16       // of who is called: the other side's of --egress, the container's own of --ingress; 0: all
}

// The words that are no door.
const (
	WallDeny  = "deny"  // nothing
	WallAllow = "allow" // everything: there is no wall
)

// mostDoors is how many entries a wall may have: each is a rule that packets meet one after the other.
const mostDoors = 256

// wallList reads the values of --egress or --ingress, each of which may be several with commas between them. Each is understood or refused,
// and comes back as it is kept; "deny" and "allow" stand alone.
func wallList(flag string, values []string) ([]string, error) {
	var out []string
	for _, value := range values {
		for text := range strings.SplitSeq(value, ",") {
			text = strings.TrimSpace(text)
			if text != WallDeny && text != WallAllow {
				d, err := ParseDoor(text)
				if err != nil {
					return nil, Invalid("--%s %s: %w", flag, value, err)
				}
				if flag == "ingress" && strings.HasPrefix(d.Name, "*") {
					return nil, Invalid("--ingress %s: who comes in has an address: want CIDR[:PORT], :PORT, a network or a container", text)
				}
				text = d.String()
			}
			if !slices.Contains(out, text) {
				out = append(out, text)
			}
		}
	}
	for _, word := range []string{WallDeny, WallAllow} {
		if slices.Contains(out, word) && len(out) > 1 {
			return nil, Invalid("--%s %s: %s stands alone: what else is listed would change nothing, or contradict it", flag, strings.Join(out, ","),
				word)
		}
	}
	if len(out) > mostDoors {
		return nil, Invalid("--%s: %d entries: at most %d", flag, len(out), mostDoors)
	}
	return out, nil
}

// ParseWall reads what was said with --egress ("egress") or --ingress for a network: see wallList.
func ParseWall(flag string, values []string) ([]string, error) { return wallList(flag, values) }

const wantDoor = "want deny, allow, CIDR[:PORT[/PROTO]], [CIDR]:PORT for IPv6, NAME[:PORT], *.DOMAIN[:PORT] or :PORT"

// ParseDoor reads "10.0.0.0/8:443/tcp", "[fd00::/8]:53/udp", "example.com:443", "*.example.com", "web", ":80".
func ParseDoor(text string) (Door, error) {
	var d Door
	host, port, hasPort := text, "", false
	switch {
	case text == "":
		return d, Invalid("an entry is empty: %s", wantDoor)
	case text[0] == '[':
		var ok bool
		if host, port, ok = strings.Cut(text[1:], "]"); !ok {
			return d, Invalid("%q: the bracket isn't closed: want [CIDR]:PORT", text)
		}
		if port != "" && port[0] != ':' {
			return d, Invalid("%q: want [CIDR]:PORT", text)
		}
		if hasPort = port != ""; hasPort {
			port = port[1:]
		}
		if !isAddress(host) {
			return d, Invalid("%q: want an address in brackets", text)
		}
	// An IPv6 address alone has colons of its own.
	case !isAddress(text):
		if i := strings.LastIndexByte(text, ':'); i >= 0 {
			host, port, hasPort = text[:i], text[i+1:], true
		}
	}
	if hasPort && text[0] != '[' && strings.Contains(host, ":") {
		return d, Invalid("%q: a port behind an IPv6 address could be a part of it: want [CIDR]:PORT", text)
	}
	if hasPort {
		number, proto, hasProto := strings.Cut(port, "/")
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil || n == 0 {
			return d, Invalid("%q: invalid port %q: want a number from 1 to 65535", text, number)
		}
		d.Port, d.Proto = uint16(n), "tcp"
		if hasProto {
			if d.Proto = proto; proto != "tcp" && proto != "udp" && proto != "sctp" {
				return d, Invalid("%q: invalid protocol %q: want tcp, udp or sctp", text, proto)
			}
		}
	}
	switch {
	case host == "" && hasPort:
		return d, nil
	case isAddress(host):
		return d, d.prefix(host)
	case strings.ContainsAny(host, "/:"):
		return d, Invalid("%q: invalid CIDR %q: %s", text, host, wantDoor)
	}
	// As names are compared: without regard to case, and with the root's dot or without (RFC 1034, 3.1).
	d.Name = strings.ToLower(strings.TrimSuffix(host, "."))
	return d, checkDoorName(d.Name)
}

func isAddress(text string) bool {
	if _, err := netip.ParsePrefix(text); err == nil {
		return true
	}
	_, err := netip.ParseAddr(text)
	return err == nil
}

// prefix reads an address or a CIDR.
func (d *Door) prefix(text string) error {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" {
			return Invalid("%q: want an address without a zone", text)
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	switch a := p.Addr(); {
	case a.Is4In6():
		return Invalid("%s: an IPv4 address in IPv6's clothes never leaves a host: want %s", text, a.Unmap())
	// Whether the one host or its whole network is meant isn't known: to guess would open the wall, or close it.
	case p != p.Masked():
		return Invalid("%s: it has bits behind its prefix: want %s", text, p.Masked())
	}
	d.Prefix = p
	return nil
}

// checkDoorName refuses what is no name. "1.2.3" is a mistyped address, and not a host.
func checkDoorName(name string) error {
	rest := name
	if domain, ok := strings.CutPrefix(name, "*."); ok {
		rest = domain
	}
	if rest == "*" {
		return Invalid("%q: everything is said by allow, or with a port by :PORT", name)
	}
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789-_."
	switch {
	case rest == "" || len(name) > 253 || strings.Trim(rest, letters) != "" || strings.Contains(rest, ".."):
	case rest[0] == '.' || rest[0] == '-' || rest[len(rest)-1] == '.' || strings.Trim(rest, "0123456789.") == "":
	default:
		return nil
	}
	return Invalid("invalid name %q: %s", name, wantDoor)
}

// String is the entry as it is kept.
func (d Door) String() string {
	host := d.Name
	if d.Prefix.IsValid() {
		host = d.Prefix.String()
		if d.Prefix.IsSingleIP() {
			host = d.Prefix.Addr().String()
		}
		if d.Port != 0 && d.Prefix.Addr().Is6() {
			host = "[" + host + "]"
		}
	}
	if d.Port == 0 {
		return host
	}
	s := host + ":" + strconv.Itoa(int(d.Port))
	if d.Proto != "tcp" {
		s += "/" + d.Proto
	}
	return s
}

// walls reads --egress and --ingress.
func (w *Words) walls(c *Config) (err error) {
	if c.Egress, err = wallList("egress", w.Egress); err != nil {
		return err
	}
	if c.Ingress, err = wallList("ingress", w.Ingress); err != nil {
		return err
	}
	if err := w.rates(&c.Rates); err != nil {
		return err
	}
	if len(c.Egress)+len(c.Ingress) == 0 {
		return nil
	}
	for _, e := range c.Networks() {
		mode := Mode(e.Network)
		switch {
		case mode.IsHost():
			return Invalid("--egress and --ingress need a cable to stand on: with --network host the container has the host's own network")
		case mode == "none":
			return Invalid("--egress and --ingress go with a network: with --network none nobody is reached anyway")
		case mode.Container() != "":
			return Invalid("--egress and --ingress belong to the container whose network it is: %s", e.Network)
		}
	}
	return nil
}
