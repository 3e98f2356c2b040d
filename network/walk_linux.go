package network

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"glassbox/wire"
)

// A packet's way is found by going it, through the routes and rules of a View, as the kernel would: out of a container, through its cable
// and the bridge, through the host's hooks, and back again with the answer. Nothing is sent.

// A Verdict is what becomes of a packet.
type Verdict string

const (
	Arrives Verdict = "arrives"
	Refused Verdict = "is refused" // its sender is told so
	Lost    Verdict = "is lost"    // nobody is told
)

// Place is where a packet begins or ends.
type Place struct {
	Space *Space     // a container, or the host; nil: elsewhere
	Addr  netip.Addr // elsewhere: which; else the address that is meant, if it matters
	Name  string     // as it was asked for
}

// Question is about one packet, the first of a connection.
type Question struct {
	From, To Place
	Proto    string // tcp, udp, sctp, icmp
	Port     uint16
	IPv6     bool
}

// A Hop is one thing that a packet meets.
type Hop struct {
	Where   string   `json:"where"`
	What    string   `json:"what"`
	Rules   []string `json:"rules,omitempty"`   // those that match, in order
	Unknown []string `json:"unknown,omitempty"` // rules that can't be judged, and were taken for ones that don't match
	Answer  bool     `json:"answer,omitempty"`  // it is the answer that meets it
}

// Path is the answer.
type Path struct {
	From        string  `json:"from"`
	To          string  `json:"to"`
	Proto       string  `json:"protocol"`
	Source      string  `json:"source"`      // address with which it is sent
	Destination string  `json:"destination"` // address and port that it is sent to
	Verdict     Verdict `json:"verdict"`
	Why         string  `json:"why"`
	At          string  `json:"at,omitempty"`   // where it arrives: a container, the host, an address elsewhere
	Seen        string  `json:"seen,omitempty"` // its source, as it is seen there
	Listening   *bool   `json:"listening,omitempty"`
	Hops        []Hop   `json:"hops"`
}

// Decides is the rule that ends the packet's way, or the last one that it passes; empty: no rule has a part in it.
func (p *Path) Decides() (rule string) {
	for _, h := range p.Hops {
		if len(h.Rules) > 0 && (!h.Answer || p.Verdict != Arrives) {
			rule = h.Rules[len(h.Rules)-1]
		}
	}
	return rule
}

// walk is a packet on its way.
type walk struct {
	v    *View
	p    wire.Packet
	path *Path
	done bool

	// What the connection's entry knows, by which the answer finds its way.
	from    netip.AddrPort // before the source was translated; not valid: it wasn't
	to      netip.AddrPort // before the destination was translated
	hairpin int            // index of the port that it came from
	at      *Space         // where it has arrived; nil: elsewhere
	uplink  string         // elsewhere: by which interface
	answer  bool
}

func (w *walk) hop(where, format string, a ...any) *Hop {
	w.path.Hops = append(w.path.Hops, Hop{Where: where, What: fmt.Sprintf(format, a...), Answer: w.answer})
	return &w.path.Hops[len(w.path.Hops)-1]
}

func (w *walk) end(v Verdict, format string, a ...any) {
	w.done = true
	w.path.Verdict, w.path.Why = v, fmt.Sprintf(format, a...)
	if w.answer {
		w.path.Verdict = Lost
		w.path.Why = "it arrives, and the answer doesn't come back: " + w.path.Why
	}
}

// Explain goes the way of a packet.
func (v *View) Explain(q Question) (*Path, error) {
	w := &walk{v: v, path: &Path{From: q.From.Name, To: q.To.Name, Proto: q.Proto}, hairpin: -1}
	src, dst, err := v.ends(q)
	if err != nil {
		return nil, err
	}
	w.p = wire.Packet{Src: src, Dst: dst, DstPort: q.Port}
	switch q.Proto {
	case "tcp":
		w.p.Proto = unix.IPPROTO_TCP
	case "udp":
		w.p.Proto = unix.IPPROTO_UDP
	case "sctp":
		w.p.Proto = unix.IPPROTO_SCTP
	case "icmp":
		w.p.Proto, w.p.ICMPType, w.p.DstPort = unix.IPPROTO_ICMP, 8, 0
		if dst.Is6() {
			w.p.Proto, w.p.ICMPType = unix.IPPROTO_ICMPV6, 128
		}
	default:
		return nil, fmt.Errorf("protocol %q: want tcp, udp, sctp or icmp", q.Proto)
	}
	if w.p.ICMPType == 0 {
		w.p.SrcPort = 61000
		if q.Port == 0 {
			return nil, fmt.Errorf("a port is missing: want TO:PORT, or --proto icmp")
		}
	}
	w.path.Destination = dst.String()
	if w.p.DstPort != 0 {
		w.path.Destination = netip.AddrPortFrom(dst, w.p.DstPort).String()
	}
	if q.From.Space == nil {
		w.comeIn(q.From.Addr)
	} else {
		w.send(q.From.Space)
	}
	if w.path.Source == "" {
		w.path.Source = src.String()
	}
	if !w.done {
		w.arrived(q)
	}
	return w.path, nil
}

// arrived finds out who takes it, and whether the answer comes back.
func (w *walk) arrived(q Question) {
	at := netip.AddrPortFrom(w.p.Dst, w.p.DstPort)
	w.path.At, w.path.Seen = w.p.Dst.String(), w.p.Src.String()
	why := "it arrives at " + w.path.At
	if w.at != nil {
		w.path.At = w.at.Name
		why = "it arrives at " + w.at.Name
		if q.Proto == "tcp" || q.Proto == "udp" {
			ok, elsewhere := w.at.listens(q.Proto, at)
			w.path.Listening = &ok
			switch {
			case ok:
			case elsewhere != "":
				why += fmt.Sprintf(", where somebody listens on port %d of %s alone: the connection is refused", at.Port(), elsewhere)
			default:
				why += fmt.Sprintf(", where nobody listens on port %d: the connection is refused", at.Port())
			}
		}
	}
	forward := w.p
	w.answer = true
	w.p = wire.Packet{
		Src: forward.Dst, Dst: forward.Src, SrcPort: forward.DstPort, DstPort: forward.SrcPort, Proto: forward.Proto, Reply: true,
		Translated: forward.Translated, SourceTranslated: forward.SourceTranslated,
	}
	switch forward.ICMPType {
	case 128:
		w.p.ICMPType = 129
	case 8:
		w.p.ICMPType = 0
	}
	w.hairpin = -1
	if w.at == nil {
		if w.uplink == "" { // it has gone past the host
			w.answer = false
			w.end(Arrives, "%s", why)
			return
		}
		w.receive(w.uplink)
	} else {
		w.send(w.at)
	}
	if !w.done {
		w.path.Verdict, w.path.Why = Arrives, why
	}
}

// send is what a namespace does with a packet of its own.
func (w *walk) send(s *Space) {
	if s.local(w.p.Dst) {
		w.sendLocal(s)
		return
	}
	if w.answer && s == w.v.Host {
		w.restoreDestination()
	}
	link, next, ok := w.wayOut(s)
	if !ok {
		return
	}
	if !w.p.Src.IsValid() || w.p.Src.IsUnspecified() {
		w.p.Src = sourceFor(link, next)
	}
	if !w.p.Src.IsValid() {
		w.end(Refused, "%s has no address of that version of IP", s.Name)
		return
	}
	if w.path.Source == "" {
		w.path.Source = w.p.Src.String()
	}
	w.hop(s.Name, "sends it by %s%s, with the address %s", link.Name, w.via(next), w.p.Src)
	before := w.p.Dst
	if !w.hook(s, unix.NF_INET_LOCAL_OUT, "", link.Name) {
		return
	}
	if w.p.Dst != before { // it goes elsewhere by now
		if s.local(w.p.Dst) {
			w.input(s, "lo")
			return
		}
		if link, next, ok = w.wayOut(s); !ok {
			return
		}
	}
	if w.answer && s == w.v.Host {
		w.restoreSource()
	}
	if w.hook(s, unix.NF_INET_POST_ROUTING, "", link.Name) {
		w.masquerade(link, next)
		w.leave(s, link, next)
	}
}

// sendLocal is a packet of a namespace to itself.
func (w *walk) sendLocal(s *Space) {
	if !w.p.Src.IsValid() || w.p.Src.IsUnspecified() {
		w.p.Src = w.p.Dst
	}
	w.hop(s.Name, "sends it to itself")
	before := w.p.Dst
	if !w.hook(s, unix.NF_INET_LOCAL_OUT, "", "lo") {
		return
	}
	if w.p.Dst == before || s.local(w.p.Dst) {
		w.input(s, "lo")
		return
	}
	link, next, ok := w.wayOut(s)
	if ok && w.hook(s, unix.NF_INET_POST_ROUTING, "", link.Name) {
		w.masquerade(link, next)
		w.leave(s, link, next)
	}
}

func (w *walk) via(next netip.Addr) string {
	if next == w.p.Dst {
		return ""
	}
	return " through " + next.String()
}

// wayOut finds the route.
func (w *walk) wayOut(s *Space) (link *wire.LinkState, next netip.Addr, ok bool) {
	r, ok := s.route(w.p.Dst)
	switch {
	case !ok:
		w.end(Refused, "%s has no route to %s", s.Name, w.p.Dst)
		return nil, next, false
	case r.Type != unix.RTN_UNICAST:
		w.end(Refused, "the route of %s to %s leads nowhere (%s)", s.Name, r.Destination, routeType(r.Type))
		return nil, next, false
	}
	next = w.p.Dst
	if r.Via.IsValid() {
		next = r.Via
	}
	if link = s.link(r.Link); link == nil {
		w.end(Lost, "the route of %s to %s leads to a link that is gone", s.Name, r.Destination)
		return nil, next, false
	}
	if !link.Up {
		w.end(Refused, "%s of %s is down", link.Name, s.Name)
		return nil, next, false
	}
	return link, next, true
}

func routeType(t byte) string {
	switch t {
	case unix.RTN_BLACKHOLE:
		return "blackhole"
	case unix.RTN_UNREACHABLE:
		return "unreachable"
	case unix.RTN_PROHIBIT:
		return "prohibit"
	}
	return fmt.Sprint("type ", t)
}

// hook gives the packet to the chains of a namespace; false where it ends there.
func (w *walk) hook(s *Space, hook uint32, in, out string) bool {
	return w.hookWhere(s, hook, in, out, nil)
}

func (w *walk) hookWhere(s *Space, hook uint32, in, out string, skip func(wire.ChainState) bool) bool {
	if s.Rules == nil {
		return true
	}
	w.p.In, w.p.Out, w.p.Local = in, out, s.local
	before := netip.AddrPortFrom(w.p.Dst, w.p.DstPort)
	done := false
	o := s.Rules.Judge(hook, &w.p, func(c wire.ChainState) bool {
		// A connection is translated once in each direction.
		done = done || netip.AddrPortFrom(w.p.Dst, w.p.DstPort) != before
		return c.Type == "nat" && done || skip != nil && skip(c)
	})
	if now := netip.AddrPortFrom(w.p.Dst, w.p.DstPort); now != before {
		w.to = before
		h := w.hop(s.Name+" "+hookName(hook), "its destination becomes %s", now)
		h.Rules, h.Unknown = o.Met, o.Unknown
		return w.judged(o, h)
	}
	if len(o.Met)+len(o.Unknown) == 0 && !o.Dropped {
		return true
	}
	return w.passes(s.Name+" "+hookName(hook), o)
}

// passes notes the rules that a packet has met on its way, and reports whether it goes on.
func (w *walk) passes(where string, o wire.Outcome) bool {
	h := w.hop(where, "passes")
	h.Rules, h.Unknown = o.Met, o.Unknown
	return w.judged(o, h)
}

// judged ends the way where rules say so.
func (w *walk) judged(o wire.Outcome, h *Hop) bool {
	if !o.Dropped {
		return true
	}
	h.What = "ends here"
	if o.Rejected {
		w.end(Refused, "%s refuses it", o.By())
	} else {
		w.end(Lost, "%s drops it", o.By())
	}
	return false
}

func hookName(hook uint32) string {
	switch hook {
	case unix.NF_INET_PRE_ROUTING:
		return "prerouting"
	case unix.NF_INET_LOCAL_IN:
		return "input"
	case unix.NF_INET_FORWARD:
		return "forward"
	case unix.NF_INET_LOCAL_OUT:
		return "output"
	}
	return "postrouting"
}

// masquerade puts the address of the way out in the place of the source, if a rule said so.
func (w *walk) masquerade(link *wire.LinkState, next netip.Addr) {
	if !w.p.SourceTranslated || w.answer || w.from.IsValid() {
		return
	}
	if a := sourceFor(link, next); a.IsValid() && a != w.p.Src {
		w.from = netip.AddrPortFrom(w.p.Src, w.p.SrcPort)
		w.p.Src = a
		w.hop("host", "it goes on with the host's address %s", a)
	}
}

// restoreDestination and restoreSource undo for the answer what was translated.
func (w *walk) restoreDestination() {
	if w.from.IsValid() {
		w.p.Dst, w.p.DstPort = w.from.Addr(), w.from.Port()
	}
}

func (w *walk) restoreSource() {
	if w.to.IsValid() {
		w.p.Src, w.p.SrcPort = w.to.Addr(), w.to.Port()
	}
}
