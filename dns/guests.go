package dns

import (
	"bytes"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"glassbox/container"
	"glassbox/state"
)

// Walls that let containers in by their names. Beside a network's directory of names there is one of its walls that do: a file for each
// wall, DIR.walls/TABLE, with what it says of names, one entry a line. Whoever changes names brings those walls up to date. Each does it
// under a lock, and from what the names are then, so that the last one leaves what is true: a wall is posted before the names are read, and
// names change before the walls are.

// A Guest is whom a wall lets in: an address, with one port of the container's own or with all (0).
type Guest struct {
	Addr  netip.Addr
	Proto string
	Port  uint16
}

// Guests are those who have the names of a wall's entries at the moment.
func Guests(dir string, entries []string) []Guest {
	var out []Guest
	names := Directories{{Path: dir, Network: networkOf(dir)}}
	for _, text := range entries {
		d, err := container.ParseDoor(text)
		if err != nil || d.Name == "" {
			continue
		}
		addrs, _ := names.Addresses(strings.ToLower(d.Name))
		for _, a := range addrs {
			out = append(out, Guest{Addr: a, Proto: d.Proto, Port: d.Port})
		}
	}
	return out
}

// networkOf is the name of the network whose directory it is, as in STATE/network/NAME/names.
func networkOf(dir string) string { return strings.ToLower(filepath.Base(filepath.Dir(dir))) }

func wallsDir(dir string) string { return dir + ".walls" }

// Post notes a wall that stands, and has it let in who has the names now.
func Post(dir, table string, entries []string, let func(table string, guests []Guest) error) error {
	walls := wallsDir(dir)
	if err := os.MkdirAll(walls, 0o700); err != nil {
		return err
	}
	unlock, err := state.LockDir(walls)
	if err != nil {
		return err
	}
	defer unlock()
	// By rename: half of a list would let in half of the guests.
	if err := state.WriteFile(filepath.Join(walls, table), []byte(strings.Join(entries, "\n")+"\n"), 0o600); err != nil {
		return err
	}
	return let(table, Guests(dir, entries))
}

// Withdraw forgets a wall. One that isn't there is no error.
func Withdraw(dir, table string) error {
	if err := os.Remove(filepath.Join(wallsDir(dir), table)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Follow brings the walls up to date that let in one of the names, after these have changed; with nil, all of them.
func Follow(dir string, names []string, let func(table string, guests []Guest) error) error {
	walls := wallsDir(dir)
	entries, err := os.ReadDir(walls)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil // most networks have none
	} else if err != nil {
		return err
	}
	unlock, err := state.LockDir(walls)
	if err != nil {
		return err
	}
	defer unlock()
	var errs []error
	for _, e := range entries {
		table := e.Name()
		text, err := os.ReadFile(filepath.Join(walls, table))
		if err != nil || strings.HasSuffix(table, ".new") { // withdrawn meanwhile, or of somebody who was killed
			continue
		}
		doors := strings.Fields(string(bytes.TrimSpace(text)))
		if names != nil && !slices.ContainsFunc(doors, func(door string) bool { return isOf(door, networkOf(dir), names) }) {
			continue
		}
		err = let(table, Guests(dir, doors))
		if errors.Is(err, unix.ENOENT) { // the wall is gone, with a container that was killed
			err = os.Remove(filepath.Join(walls, table))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// isOf reports whether a wall's entry is one of the names.
func isOf(door, network string, names []string) bool {
	d, err := container.ParseDoor(door)
	if err != nil {
		return false
	}
	name := strings.ToLower(d.Name)
	return slices.ContainsFunc(names, func(n string) bool {
		n = strings.ToLower(n)
		return n == name || n+"."+network == name
	})
}
