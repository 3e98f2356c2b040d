package supervise

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"glassbox/fork"
	"glassbox/host/remove"
	"glassbox/network"
	"glassbox/plan"
)

// Undo takes back what the plan of a job made and gives its address back. Doing it twice does no harm.
func Undo(job *Job) error {
	err := undoSteps(job)
	releaseNetwork(job)
	return err
}

func undoSteps(job *Job) error {
	var errs []error
	for _, step := range job.Undo {
		if _, ok := step.Op.(*plan.LinkDelete); ok {
			continue // the pair goes with the container's network namespace, which nobody has to wait for
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

// RemoveFiles removes a container's name and directory, in an order in which a kill at any moment leaves either the container
// or something that Repair takes for one that was never finished. If something can't be removed the container is there as before, with
// what is left of its files, and can be removed again; the error says what.
func RemoveFiles(dir, nameFile string) error {
	// Out of everybody's sight in one step; the file itself goes last, because without it nobody would know of the rest.
	seen, going := filepath.Join(dir, ContainerFile), filepath.Join(dir, goingFile)
	if err := os.Rename(seen, going); err != nil && !os.IsNotExist(err) {
		return err
	}
	// The container wrote what is in there: remove follows no links and crosses no mounts.
	err := remove.Contents(dir, goingFile, StateFile)
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
	os.Rename(going, seen)
	return err
}
