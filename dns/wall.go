package dns

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// A Wall stands at one of a container's cables (plan.NftWall). What the resolver answers for a name that a wall lets through, it opens
// there, before it answers.
type Wall struct {
	Table   string
	Doors   []Door
	Allowed []netip.Prefix // open without a name
}

// A Door is a name that a wall lets through.
type Door struct {
	Name  string // "example.com", "*.example.com", "web"
	Proto string // with Port
	Port  uint16 // 0: all
}

// matches reports whether a door is for a name. "*.example.com" isn't for example.com itself, as with certificates, but for
// a.b.example.com.
func (d Door) matches(name string) bool {
	if domain, ok := strings.CutPrefix(d.Name, "*"); ok {
		return len(name) > len(domain) && strings.HasSuffix(name, domain)
	}
	return d.Name == name
}

// How long an address that was answered stays open, whatever life time the answer has: long enough to connect after one look-up, which an
// answer with a life time of 0 would not be, and not for ever.
const (
	shortestLife = time.Minute
	longestLife  = time.Hour
)

// doors are those for a name, by wall.
func (c *Config) doors(name string) [][]Door {
	var out [][]Door
	found := false
	for _, w := range c.Walls {
		var own []Door
		for _, d := range w.Doors {
			if d.matches(name) {
				own, found = append(own, d), true
			}
		}
		out = append(out, own)
	}
	if !found {
		return nil
	}
	return out
}

// allowed reports whether an address is open without a name.
func (c *Config) allowed(a netip.Addr) bool {
	return slices.ContainsFunc(c.Walls, func(w Wall) bool {
		return slices.ContainsFunc(w.Allowed, func(p netip.Prefix) bool { return p.Contains(a) })
	})
}

// inside are addresses that no name of the outside has a reason to lead to: of hosts, of their neighbours, of nobody, and those that have
// an IPv4 address in them, by which a packet would come out elsewhere (IANA's registries of special-purpose addresses).
func inside(a netip.Addr) bool {
	if a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified() || a.Is4In6() {
		return true
	}
	for _, text := range [...]string{
		// This network, carriers, protocols, benchmarks, reserved.
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "198.18.0.0/15", "240.0.0.0/4",
		// IPv4 within, NAT64, discard, Teredo, 6to4, site-local.
		"::/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/32", "2002::/16", "fec0::/10",
	} {
		if netip.MustParsePrefix(text).Contains(a) {
			return true
		}
	}
	return false
}

// answer is Answer for a container behind walls: what isn't allowed doesn't exist, and nobody is asked for it.
func (s *Server) answer(c *Config, query []byte, turn uint, stream bool) (reply []byte, ask bool) {
	reply, ask = Answer(query, c.Names, stream, turn)
	if len(c.Walls) == 0 || reply == nil {
		return reply, ask
	}
	r, ok := asked(query, stream)
	if !ok {
		return reply, false // its code says what is wrong with it
	}
	name := strings.ToLower(strings.TrimSuffix(r.question.Name.String(), "."))
	doors := c.doors(name)
	plain := r.question.Type == dnsmessage.TypeA || r.question.Type == dnsmessage.TypeAAAA
	switch {
	case doors == nil && !c.Strict:
		return reply, ask // a cable without a wall leads there
	case doors == nil && !ask: // a container's name
		if m := addressesIn(reply); !slices.ContainsFunc(m, func(a netip.Addr) bool { return !c.allowed(a) }) {
			return reply, false
		}
		fallthrough
	case doors == nil:
		s.refused(name)
		return r.fail(dnsmessage.RCodeNameError), false
	case !plain:
		// Other records could lead to addresses that aren't opened (HTTPS, SVCB), or carry what isn't one (TXT, NULL).
		return r.build(nil), false
	case !ask:
		return s.open(c, r, doors, addressesIn(reply), shortestLife, reply), false
	}
	return reply, true
}

func (s *Server) refused(name string) {
	if s.Refused != nil {
		s.Refused(name)
	}
}

// asked reads a question again that Answer has understood.
func asked(query []byte, stream bool) (response, bool) {
	var p dnsmessage.Parser
	h, err := p.Start(query)
	if err != nil {
		return response{}, false
	}
	r := response{header: dnsmessage.Header{
		ID: h.ID, Response: true, RecursionDesired: h.RecursionDesired, RecursionAvailable: true,
	}, limit: smallest}
	if stream {
		r.limit = 1<<16 - 1
	}
	q, err := p.Question()
	if err != nil || h.OpCode != 0 || q.Class != dnsmessage.ClassINET {
		return r, false
	}
	r.question = &q
	if _, err := p.Question(); err != dnsmessage.ErrSectionDone {
		return r, false
	}
	return r, p.SkipAllAnswers() == nil && p.SkipAllAuthorities() == nil && r.readEDNS(&p, stream)
}

// addressesIn are those of an answer.
func addressesIn(message []byte) []netip.Addr {
	out, _, _ := records(message)
	return out
}

// records are the addresses of an answer, and the shortest life time of all that leads to them. ok is false for one that can't be read.
func records(message []byte) (out []netip.Addr, life time.Duration, ok bool) {
	var p dnsmessage.Parser
	if _, err := p.Start(message); err != nil || p.SkipAllQuestions() != nil {
		return nil, 0, false
	}
	life = longestLife
	for len(out) < most {
		h, err := p.AnswerHeader()
		if err == dnsmessage.ErrSectionDone {
			return out, life, true
		}
		if err != nil {
			return nil, 0, false
		}
		life = min(life, time.Duration(h.TTL)*time.Second)
		switch h.Type {
		case dnsmessage.TypeA:
			r, err := p.AResource()
			if err != nil {
				return nil, 0, false
			}
			out = append(out, netip.AddrFrom4(r.A))
		case dnsmessage.TypeAAAA:
			r, err := p.AAAAResource()
			if err != nil {
				return nil, 0, false
			}
			out = append(out, netip.AddrFrom16(r.AAAA))
		default:
			if p.SkipAnswer() != nil {
				return nil, 0, false
			}
		}
	}
	return out, life, true
}

// through asks the outside for a name, and opens the walls for what it says. The container gets the addresses under the name that it asked
// for, and nothing else of the answer: no alias's name, no further records.
func (s *Server) through(c *Config, query, refusal []byte, stream bool) []byte {
	reply := s.outside(c.Servers, query, refusal, stream)
	if len(c.Walls) == 0 || len(reply) < 12 {
		return reply
	}
	r, ok := asked(query, stream)
	if !ok {
		return refusal
	}
	doors := c.doors(strings.ToLower(strings.TrimSuffix(r.question.Name.String(), ".")))
	if doors == nil {
		return reply // not strict: see answer
	}
	if code := dnsmessage.RCode(reply[3] & 0xf); code != dnsmessage.RCodeSuccess {
		return r.fail(code)
	}
	if reply[2]&truncated != 0 {
		r.header.Truncated = true
		return r.build(nil)
	}
	addrs, life, ok := records(reply)
	if !ok {
		return r.fail(dnsmessage.RCodeServerFailure)
	}
	// A name whose owner lets it lead into this network (rebinding) opens nothing there.
	addrs = slices.DeleteFunc(addrs, func(a netip.Addr) bool {
		return a.Is4() != (r.question.Type == dnsmessage.TypeA) || inside(a) && !c.allowed(a)
	})
	r.life = uint32(life / time.Second)
	return s.open(c, r, doors, addrs, min(max(life, shortestLife), longestLife), r.addresses(addrs))
}

// open opens the walls, and returns the reply if that is done.
func (s *Server) open(c *Config, r response, doors [][]Door, addrs []netip.Addr, life time.Duration, reply []byte) []byte {
	for i, own := range doors {
		if len(own) == 0 || len(addrs) == 0 {
			continue
		}
		if s.Open == nil || s.Open(c.Walls[i].Table, addrs, own, life) != nil {
			return r.fail(dnsmessage.RCodeServerFailure)
		}
	}
	return reply
}

// wallLine reads a line about walls. One that can't be read opens nothing.
func (c *Config) wallLine(f []string) {
	switch {
	case len(f) == 2 && f[0] == "wall":
		c.Walls = append(c.Walls, Wall{Table: f[1]})
		return
	case len(f) == 1 && f[0] == "strict":
		c.Strict = true
		return
	case len(c.Walls) == 0:
		return
	}
	w := &c.Walls[len(c.Walls)-1]
	switch {
	case len(f) == 2 && f[0] == "cidr":
		if p, err := netip.ParsePrefix(f[1]); err == nil {
			w.Allowed = append(w.Allowed, p)
		}
	case len(f) == 4 && f[0] == "allow":
		if port, err := strconv.ParseUint(f[2], 10, 16); err == nil {
			w.Doors = append(w.Doors, Door{Name: f[1], Port: uint16(port), Proto: f[3]})
		}
	}
}
