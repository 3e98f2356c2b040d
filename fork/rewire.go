package fork

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"glassbox/dns"
	"glassbox/network"
	"glassbox/plan"
	"glassbox/wire"
)

// Rewire makes network steps of the host's lane for a process that runs already, whose network namespace is netns. On an error those that
// were made are taken back. The steps that undo others are taken, too.
func Rewire(steps []plan.Step, netns int) error {
	w := wire.Open(func() (int, error) { return netns, nil })
	defer w.Close()
	for i, s := range steps {
		var err error
		switch op := s.Op.(type) {
		case *plan.NameAdd:
			err = followed(op, dns.Add(op.Dir, op.Owner, op.Names, parseAddrs(op.Addresses)))
		case *plan.LinkDelete:
			// A link in the container's namespace is out of Undo's sight, which looks on the host.
			if op.Inside {
				err = w.Do(op)
			} else {
				err = Undo(op)
			}
		case *plan.NameRemove, *plan.NftUnpublish, *plan.NftUnguard, *plan.NftUnwall:
			err = Undo(op)
		case *plan.WriteFile:
			err = writeFile(op)
		case *plan.NameListen, *plan.PortCarry:
			err = errors.New("its sockets would be nobody's") // Listen, or a start
		default:
			err = followed(op, w.Do(op))
		}
		if err == nil {
			continue
		}
		err = fmt.Errorf("step %d/%d %s: %w", i+1, len(steps), s.Op, err)
		done := plan.Plan{Steps: steps}
		for _, s := range steps[:i] { // which ends with the namespace otherwise
			if op, ok := s.Op.(*plan.LinkMacvlan); ok {
				err = errors.Join(err, w.Do(&plan.LinkDelete{Name: op.Name, Inside: true}))
			}
		}
		// ENOENT: a repair in between, or the end of the container, has done the same.
		for _, u := range done.Undo(i) {
			if undone := Undo(u.Op); undone != nil && !errors.Is(undone, unix.ENOENT) {
				err = errors.Join(err, fmt.Errorf("undo %s: %w", u.Op, undone))
			}
		}
		return err
	}
	return nil
}

// followed lets walls follow a step that has made a name, or a wall that lets in by name.
func followed(op plan.Op, err error) error {
	if err != nil {
		return err
	}
	return network.FollowNames(op)
}

// Listen makes a resolver's sockets (UDP, TCP) and its rules for a process that runs already, whose network namespace is netns. The sockets
// belong to the caller. EADDRINUSE: somebody has them already.
func Listen(op *plan.NameListen, netns int) (resolver []int, err error) {
	w := wire.Open(func() (int, error) { return netns, nil })
	defer w.Close()
	if err := w.Do(op); err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	return w.Resolver, nil
}
