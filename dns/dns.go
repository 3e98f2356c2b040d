// Package dns answers a container's questions for names: what its networks know from small files, all else from the host's servers.
//
// Its one idea: the file system is the table of names. A name is a directory below its network's, and each container that has the name
// puts one symbolic link into it, whose target is the container's addresses. A look-up is an open, a getdents and a readlink. Joining and
// leaving need no lock, and cost the same with one container as with a thousand. Answers are kept, and never stale: whoever changes a
// directory says so in a file of eight bytes, which resolvers have in their memory.
//
// What it refuses: to remember answers of the outside, or more of any than 64 KiB; to ask the outside for a container of an internal
// network, to answer anybody but its own container (it listens on the loopback of the container's network namespace), and package net,
// which would cost each supervisor 0.7 MB.
//
// Start reading at [Answer], which is pure; [Directories] is where names come from, [Server] is the loop around both, and kept.go
// says what it keeps.
package dns

import (
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// Address is where containers find their resolver, as with Docker, and Port the port that it really has there: port 53 of the container
// belongs to the container, and its firewall leads 53 of this one address to Port.
const (
	Address = "127.0.0.11"
	Port    = 30053
)

// Names are what a container's networks know.
type Names interface {
	// Addresses returns those of a name in lower case without the dot at its end; ok is false for a name that nobody has.
	Addresses(name string) (addrs []netip.Addr, ok bool)
	// Name is the opposite. ours is true for an address in a subnet of the container's networks: the outside isn't asked for it.
	Name(addr netip.Addr) (name string, ours bool)
}

// The sizes of messages over UDP, in bytes: what every client takes (RFC 1035, 4.2.1), and the most that is believed of a client that
// says more (RFC 6891, 6.2.3), which is also what we say of ourselves.
const (
	smallest = 512
	largest  = 4096
)

// Answer reads one question. The reply is what to send; nil means that there is none to be sent, as for what is no question at all.
// With ask, the names don't know and the outside may be asked; the reply is then what to say if there is no outside to ask: NXDOMAIN,
// because some clients (musl) try again for seconds at any other refusal. stream is true for TCP, where no reply is too long. turn rotates
// the addresses of a name that several containers have.
//
// Source: RFC 1035 and 6891; what is forwarded and what isn't as in Docker's resolver.
func Answer(query []byte, names Names, stream bool, turn uint) (reply []byte, ask bool) {
	var p dnsmessage.Parser
	h, err := p.Start(query)
	if err != nil || h.Response {
		return nil, false // an answer to an answer would let two servers talk for ever
	}
	r := response{header: dnsmessage.Header{
		ID: h.ID, Response: true, OpCode: h.OpCode, RecursionDesired: h.RecursionDesired, RecursionAvailable: true,
	}, limit: smallest}
	if stream {
		r.limit = 1<<16 - 1
	}
	if h.OpCode != 0 { // UPDATE, NOTIFY …
		return r.fail(dnsmessage.RCodeNotImplemented), false
	}
	q, err := p.Question()
	if err != nil {
		return r.fail(dnsmessage.RCodeFormatError), false
	}
	r.question = &q
	if _, err := p.Question(); err != dnsmessage.ErrSectionDone { // nobody asks two (RFC 9619)
		return r.fail(dnsmessage.RCodeFormatError), false
	}
	if p.SkipAllAnswers() != nil || p.SkipAllAuthorities() != nil || !r.readEDNS(&p, stream) {
		return r.fail(dnsmessage.RCodeFormatError), false
	}
	if q.Class != dnsmessage.ClassINET {
		return r.fail(dnsmessage.RCodeRefused), false // version.bind in class CH: no server of the outside should say what it is
	}
	name := strings.ToLower(strings.TrimSuffix(q.Name.String(), "."))
	if addr, ok := reverse(name); ok && q.Type == dnsmessage.TypePTR {
		found, ours := names.Name(addr)
		if found == "" {
			return r.fail(dnsmessage.RCodeNameError), !ours
		}
		return r.pointer(found), false
	}
	addrs, ok := names.Addresses(name)
	if !ok {
		return r.fail(dnsmessage.RCodeNameError), true
	}
	return r.addresses(rotate(addrs, turn)), false
}

// response is one on the way.
type response struct {
	header   dnsmessage.Header
	question *dnsmessage.Question
	edns     bool
	limit    int    // bytes
	life     uint32 // of the answers, in seconds
}

// readEDNS finds what the client says of itself in the additional section (OPT, RFC 6891). A second OPT is an error (6.1.1).
func (r *response) readEDNS(p *dnsmessage.Parser, stream bool) bool {
	for {
		h, err := p.AdditionalHeader()
		if err == dnsmessage.ErrSectionDone {
			return true
		}
		if err != nil || p.SkipAdditional() != nil {
			return false
		}
		if h.Type != dnsmessage.TypeOPT {
			continue
		}
		if r.edns {
			return false
		}
		r.edns = true
		if !stream {
			r.limit = min(max(int(h.Class), smallest), largest) // the class of an OPT is the size of the client's buffer
		}
	}
}

func (r *response) fail(code dnsmessage.RCode) []byte {
	r.header.RCode = code
	return r.build(nil)
}

// resource has no life time for containers' names, because one can be gone with the next packet.
func (r *response) resource() dnsmessage.ResourceHeader {
	return dnsmessage.ResourceHeader{Name: r.question.Name, Class: dnsmessage.ClassINET, TTL: r.life}
}

func (r *response) pointer(name string) []byte {
	target, err := dnsmessage.NewName(name + ".")
	if err != nil {
		return r.fail(dnsmessage.RCodeServerFailure)
	}
	return r.build(func(b *dnsmessage.Builder) error {
		return b.PTRResource(r.resource(), dnsmessage.PTRResource{PTR: target})
	})
}

// addresses answers with those of the kind that was asked for. A name that is known and has none of it, or is asked for something else
// altogether, has no data, which isn't the same as being unknown (RFC 2308, 2.2).
func (r *response) addresses(addrs []netip.Addr) []byte {
	t := r.question.Type
	return r.build(func(b *dnsmessage.Builder) error {
		for _, a := range addrs {
			var err error
			switch {
			case a.Is4() && (t == dnsmessage.TypeA || t == dnsmessage.TypeALL):
				err = b.AResource(r.resource(), dnsmessage.AResource{A: a.As4()})
			case a.Is6() && (t == dnsmessage.TypeAAAA || t == dnsmessage.TypeALL):
				err = b.AAAAResource(r.resource(), dnsmessage.AAAAResource{AAAA: a.As16()})
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// build writes the reply; one that is longer than the client can take says so and nothing else, and the client comes back by TCP.
func (r *response) build(answers func(*dnsmessage.Builder) error) []byte {
	out, err := r.write(answers)
	if err == nil && len(out) > r.limit {
		r.header.Truncated = true
		out, err = r.write(nil)
	}
	if err != nil {
		return nil
	}
	return out
}

func (r *response) write(answers func(*dnsmessage.Builder) error) ([]byte, error) {
	b := dnsmessage.NewBuilder(make([]byte, 0, smallest), r.header)
	b.EnableCompression()
	if err := b.StartQuestions(); err != nil {
		return nil, err
	}
	if r.question != nil {
		if err := b.Question(*r.question); err != nil {
			return nil, err
		}
	}
	if err := b.StartAnswers(); err != nil {
		return nil, err
	}
	if answers != nil {
		if err := answers(&b); err != nil {
			return nil, err
		}
	}
	if r.edns {
		if err := b.StartAdditionals(); err != nil {
			return nil, err
		}
		var h dnsmessage.ResourceHeader
		if err := h.SetEDNS0(largest, r.header.RCode, false); err != nil {
			return nil, err
		}
		if err := b.OPTResource(h, dnsmessage.OPTResource{}); err != nil {
			return nil, err
		}
	}
	return b.Finish()
}

func rotate(addrs []netip.Addr, turn uint) []netip.Addr {
	if len(addrs) < 2 {
		return addrs
	}
	n := int(turn % uint(len(addrs)))
	return append(addrs[n:len(addrs):len(addrs)], addrs[:n]...)
}

// reverse reads a name below in-addr.arpa or ip6.arpa as the address that it stands for (RFC 1035, 3.5; RFC 3596, 2.5).
func reverse(name string) (netip.Addr, bool) {
	if digits, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		parts := strings.Split(digits, ".")
		if len(parts) != 4 {
			return netip.Addr{}, false
		}
		a, err := netip.ParseAddr(parts[3] + "." + parts[2] + "." + parts[1] + "." + parts[0])
		return a, err == nil
	}
	digits, ok := strings.CutSuffix(name, ".ip6.arpa")
	if !ok || len(digits) != 63 {
		return netip.Addr{}, false
	}
	var b [16]byte
	for i := range 32 {
		n := strings.IndexByte("0123456789abcdef", digits[2*i])
		if n < 0 || i < 31 && digits[2*i+1] != '.' {
			return netip.Addr{}, false
		}
		b[15-i/2] |= byte(n) << (4 * (i % 2))
	}
	return netip.AddrFrom16(b), true
}
