package supervise

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"glassbox/event"
	"glassbox/fork"
	"glassbox/host/remove"
	"glassbox/network"
	"glassbox/plan"
	"glassbox/state"
	"glassbox/volume"
)

// Undo takes back what the plan of a job made and gives its address back. Doing it twice does no harm.
func Undo(job *Job) error {
	err := undoSteps(job)
	releaseNetwork(job)
	vacate(job)
	return err
}

func undoSteps(job *Job) error {
	var errs []error
	for _, step := range job.Undo {
		switch step.Op.(type) {
		case *plan.LinkDelete:
			continue // the pair goes with the container's network namespace, which nobody has to wait for
		case *plan.NftUnguard:
			continue // it says something of that pair, and costs a grace period: network.Store sweeps many at once
		}
		// All are tried: a cgroup that is busy is no reason to leave firewall entries behind.
		if err := fork.Undo(step.Op); err != nil {
			errs = append(errs, fmt.Errorf("undo %s: %w", step.Op, err))
		}
	}
	return errors.Join(errs...)
}

func releaseNetwork(job *Job) {
	n := job.Network
	if n == nil {
		return
	}
	for _, l := range n.All() {
		if addr, err := netip.ParseAddr(l.Address); err == nil {
			_ = network.Store{State: n.State}.Release(l.Network, addr, job.ID) // what stays, network.Repair finds
		}
	}
}

// vacate comes after releaseNetwork, and after everybody who waits for the end has been told: it takes back what the bridges' guards say,
// if no container is left there.
func vacate(job *Job) {
	if job.Network == nil {
		return
	}
	store := network.Store{State: job.Network.State}
	for _, step := range job.Undo {
		guard, ok := step.Op.(*plan.NftUnguard)
		if !ok {
			continue
		}
		for _, l := range job.Network.All() {
			if slices.Contains(guard.Addresses, l.Address) {
				_ = store.Vacate(l.Network, guard) // what stays, the next sweep finds
				break
			}
		}
	}
}

// linger vacates a moment later. The command that has just been told ends in the meantime: it has looked at nf_tables, and its end would
// wait for a deletion (see wire.Conn.Close). If another container has come by then, there is nothing to do.
func (s *supervisor) linger() {
	if !slices.ContainsFunc(s.job.Undo, func(step plan.Step) bool { _, ok := step.Op.(*plan.NftUnguard); return ok }) {
		return
	}
	s.leave() // whoever reads the container's output finds its end now
	time.Sleep(50 * time.Millisecond)
	vacate(s.job)
}

// RemoveFiles removes a container's name and directory, in an order in which a kill at any moment leaves either the container
// or something that Repair takes for one that was never finished. If something can't be removed the container is there as before, with
// what is left of its files, and can be removed again; the error says what. With volumes those go, too, that were made for it alone and
// that no other container uses; so do those of a container that was never finished. Events of that go to the directory of state, if any.
func RemoveFiles(dir, nameFile, stateDir string, volumes bool) error {
	// Out of everybody's sight in one step; the file itself goes last, because without it nobody would know of the rest. Its name says
	// what was wished, to whoever goes on after a kill.
	seen := filepath.Join(dir, ContainerFile)
	keep, all := filepath.Join(dir, goingFile), filepath.Join(dir, goingAllFile)
	going := keep
	if volumes {
		going = all
	}
	// A rename is one step: from then on there is no container for anybody, and still a file that says what is to be
	// removed.
	if err := os.Rename(seen, going); err != nil {
		if !os.IsNotExist(err) {
			return err
		}
		if _, err := os.Lstat(keep); err == nil {
			// Somebody was killed while removing it, or making it: what he wished decides, and half a container takes its
			// volumes along.
			going = keep
		} else {
			going, volumes = all, true
		}
	}
	err := removeVolumes(dir, stateDir, volumes)
	if err == nil {
		// The container wrote what is in there: remove follows no links and crosses no mounts.
		err = remove.Contents(dir, filepath.Base(going), StateFile)
	}
	if err == nil && nameFile != "" {
		if err = os.Remove(nameFile); os.IsNotExist(err) {
			err = nil
		}
	}
	if err == nil {
		return remove.All(dir)
	}
	if errors.Is(err, fs.ErrNotExist) { // the directory itself
		return nil
	}
	// It could not be removed whole. It is in sight again, so that somebody can mend what is in the way and try once more.
	os.Rename(going, seen)
	return err
}

// Going reports whether a container's directory is that of one whose removal was begun.
func Going(dir string) bool {
	for _, name := range []string{goingFile, goingAllFile} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			return true
		}
	}
	return false
}

// removeVolumes removes the volumes that were made for a container alone.
func removeVolumes(dir, stateDir string, wanted bool) error {
	var names []string
	if !wanted || state.ReadJSON(filepath.Join(dir, VolumesFile), &names) != nil { // it has none
		return nil
	}
	// DIR is ROOT/containers/ID.
	store := volume.Of(filepath.Dir(filepath.Dir(dir)), stateDir)
	for _, name := range names {
		err := store.Remove(name, filepath.Base(dir))
		if err != nil && !errors.Is(err, volume.ErrNotFound) && !errors.Is(err, volume.ErrInUse) {
			return err
		}
	}
	return nil
}

// volumeEvents are what happens to a container's volumes at its start and its end.
func (j *Job) volumeEvents(action string) []event.Event {
	var out []event.Event
	for _, v := range j.Volumes {
		attributes := map[string]string{"container": j.ID, "driver": volume.Local}
		if action == event.Mount {
			attributes["destination"], attributes["propagation"] = v.Target, ""
			attributes["read/write"] = strconv.FormatBool(!v.ReadOnly)
		}
		out = append(out, event.New(event.Volume, action, event.Actor{ID: v.Name, Attributes: attributes}))
	}
	return out
}
