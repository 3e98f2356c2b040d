package supervise

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"glassbox/dns"
	"glassbox/fork"
)

// ResolverFile is where a container's resolver finds what it knows, in the container's directory: see package dns.
const ResolverFile = "resolver"

// RewiredFile, in the container's directory, says that its networks were changed while it ran: what the start's job says of them isn't all.
const RewiredFile = "rewired"

// rewired reads the job again, if somebody has changed it since the start.
func (s *supervisor) rewired() {
	if s.job.Network == nil {
		return // it has none to be changed
	}
	if unix.Access(filepath.Join(s.job.Dir, RewiredFile), unix.F_OK) != nil {
		return
	}
	if job, err := ReadJob(s.job.Dir); err == nil {
		s.job.Network, s.job.Undo = job.Network, job.Undo
	}
	os.Remove(filepath.Join(s.job.Dir, RewiredFile))
}

// resolver are the sockets that the plan has made, or -1.
func resolver(fds map[string]int) [2]int {
	udp, ok := fds[fork.ResolverUDP]
	if !ok {
		return [2]int{-1, -1}
	}
	return [2]int{udp, fds[fork.ResolverTCP]}
}

// resolve answers the container's questions for names from now on. Until then they wait in the sockets' buffers, also while a supervisor
// starts itself anew.
func (s *supervisor) resolve() {
	if s.resolver[0] <= 0 { // 0 is never one of them
		return
	}
	server := &dns.Server{UDP: s.resolver[0], TCP: s.resolver[1], Config: dns.Watch(filepath.Join(s.job.Dir, ResolverFile)), Open: openWall}
	server.Refused = (&refusals{file: filepath.Join(s.job.Dir, RefusedFile)}).add
	server.Start()
}
