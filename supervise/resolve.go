package supervise

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"time"

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

// HandResolver gives a running container's supervisor the sockets of a resolver, UDP and TCP, at which it answers from now on. The
// container was started on networks that have no names, and has been plugged into one that has. The sockets stay the caller's, too.
func HandResolver(ctx context.Context, dir string, s *State, sockets []int) error {
	conn, err := reach(ctx, dir, s)
	if err != nil {
		return err
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	hand := []byte{msgResolver, attachVersion}
	var failed error
	// The first message of a new connection has room in the socket.
	err = raw.Control(func(fd uintptr) {
		failed = unix.Sendmsg(int(fd), hand, unix.UnixRights(sockets...), nil, unix.MSG_NOSIGNAL)
	})
	if err = cmp.Or(err, failed); err != nil {
		return err
	}
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	var answer [2]byte
	// One that doesn't know the message closes the connection.
	if n, _ := conn.Read(answer[:]); n != len(hand) || answer[0] != msgResolver {
		return errSilent
	}
	return nil
}

// takeResolver begins to answer at sockets that were made after the start. From now on this supervisor isn't idle any more. It returns
// false, and the sockets stay the caller's, where they aren't two, or there is a resolver already.
func (s *supervisor) takeResolver(fds []int) bool {
	if len(fds) != 2 || s.resolver[0] > 0 {
		return false
	}
	s.resolver = [2]int{fds[0], fds[1]}
	s.resolve()
	return true
}

// resolve answers the container's questions for names from now on. Until then they wait in the sockets' buffers, also while a supervisor
// starts itself anew.
func (s *supervisor) resolve() {
	if s.resolver[0] <= 0 { // 0 is never one of them
		return
	}
	server := &dns.Server{UDP: s.resolver[0], TCP: s.resolver[1], Open: openWall, Settle: settleAgain}
	server.Config = dns.Watch(filepath.Join(s.job.Dir, ResolverFile))
	server.Refused = (&refusals{file: filepath.Join(s.job.Dir, RefusedFile)}).add
	server.Start()
}
