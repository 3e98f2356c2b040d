package main

import (
	"path/filepath"

	"glassbox/build"
	"glassbox/network"
)

// place says where things are, as the engine has them.
type place struct{ build.Place }

func (p place) dir() string { return p.Dir() }

// runs holds, while a RUN runs, what takes it back.
func (p place) runs() string { return filepath.Join(p.dir(), "runs") }

// roots is where the file systems of RUNs are mounted, in the builder's own mount namespace.
func (p place) roots() string { return filepath.Join(p.dir(), "roots") }

// lockFile is one of the engine's locks, so that an address of a RUN counts as taken as long as it is held.
func (p place) lockFile(id string) string { return filepath.Join(p.State, "locks", id+".lock") }

func (p place) networks() network.Store {
	return network.Store{Config: filepath.Join(p.Root, "network"), State: filepath.Join(p.State, "network")}
}
