package main

import (
	"strings"
	"sync"

	"glassbox/policy"
)

// sessions are those that were opened by guarded sockets, and whose they are: a session is its client's files and secrets, and how it is
// called is chosen by the client. What images their builds were told of is beside them.
type sessions struct {
	live func(id string) bool // whoever has opened it

	mu sync.Mutex
	of map[string]string // policy by session

	pinned map[pinned]bool
}

// open notes whose a session is, until it is closed.
func (s *sessions) open(g *guard, id string) (closed func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil {
		s.of = map[string]string{}
	}
	if _, taken := s.of[id]; taken || id == "" || strings.Contains(id, ":") || s.live(id) {
		return nil, g.refuse("the session %.100q: there is one already, or it is no name for one", id)
	}
	s.of[id] = g.Name
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.of, id)
	}, nil
}

// session judges whose files are used. One that isn't there yet is about to be opened: by the client itself, because names of others are
// random numbers.
func (g *guard) session(id string) error {
	s := g.sessions
	s.mu.Lock()
	defer s.mu.Unlock()
	owner, ok := s.of[id]
	// A colon parts names that BuildKit's manager takes apart (session.Manager.Get): what was judged would be another.
	if strings.Contains(id, ":") || ok && owner != g.Name || !ok && s.live(id) {
		return g.refuse("the session %.100q was not opened through this socket", id)
	}
	return nil
}

// Headers of a session (BuildKit's package session).
const (
	sessionHeader = "X-Docker-Expose-Session-Uuid"
	sharedHeader  = "X-Docker-Expose-Session-Sharedkey"
)

// only is the value of a header that was given once; else there is none, whichever of several somebody would take.
func only(values []string) string {
	if len(values) != 1 {
		return ""
	}
	return values[0]
}

// shared is the key by which a session finds what was sent of its directories before. With another's key a client would get the other's
// files, by saying that its own are of the same size and time: each policy has its own keys.
func (g *guard) shared(key string) string { return g.Name + "/" + key }

// pin remembers the digest that a name was found to have: steps name both.
func (g *guard) pin(name, digest string) {
	s := g.sessions
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pinned == nil || len(s.pinned) >= mostPinned {
		s.pinned = map[pinned]bool{}
	}
	name, _, _ = strings.Cut(strings.TrimPrefix(name, imageScheme), "@")
	s.pinned[pinned{g.Name, name + "@" + digest}] = true
}

// pinned is a name with the digest that it was found to have, for clients of a policy.
type pinned struct{ policy, ref string }

// mostPinned is how many of them are remembered.
const mostPinned = 10_000

// allowsImage reports whether an image may be used. With a digest it is the one that the name stands for, or the policy has the digest,
// too.
func (g *guard) allowsImage(ref string) bool {
	if g.AllowsImage(policy.ImageNames(ref)...) {
		return true
	}
	g.sessions.mu.Lock()
	defer g.sessions.mu.Unlock()
	name, _, _ := strings.Cut(ref, "@")
	return g.sessions.pinned[pinned{g.Name, ref}] && g.AllowsImage(policy.ImageNames(name)...)
}
