// Glassbox-runtime is the lean half of glassbox. To container engines it is an OCI runtime with runc's command line; to glassbox
// it is the supervisor of one container, and the process that enters a running one.
//
// The Go runtime would keep the files of a cpu cgroup open, and read them again and again, to adapt GOMAXPROCS to its quota
// (since Go 1.25): hundreds of supervisors that wait have no use for it.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

import (
	"os"

	"golang.org/x/sys/unix"

	"glassbox/supervise"
)

func main() { os.Exit(run(os.Args[1:])) }

// run tells the commands that glassbox itself uses, which begin with what no caller of an OCI runtime types, from the others.
func run(args []string) int {
	switch {
	case len(args) == 2 && args[0] == "supervise": // the id is for readers of process lists
		hide()
		return supervise.Main()
	case len(args) == 3 && (args[0] == "resident" || args[0] == supervise.Idle || args[0] == supervise.Awake):
		hide()
		return supervise.Resident(args[0], args[1], args[2])
	case len(args) == 4 && args[0] == "resident": // with ports to carry
		hide()
		return supervise.Resident(args[0], args[1], args[2], args[3])
	case len(args) == 3 && args[0] == "again":
		hide()
		return supervise.Again(args[1], args[2])
	case len(args) == 2 && args[0] == "check":
		hide()
		return supervise.RunCheck(args[1])
	case len(args) == 2 && args[0] == "gzip": // the file is for readers of process lists
		hide()
		return supervise.Gzip()
	case len(args) == 2 && args[0] == "once":
		hide()
		return supervise.Once()
	case len(args) == 2 && args[0] == "doorkeeper":
		hide()
		return supervise.Doorkeeper(args[1])
	case len(args) > 2 && args[0] == "init" && args[1] == "--":
		return supervise.Init(args[2:])
	case len(args) > 1 && args[0] == "--": // as /dev/init
		return supervise.Init(args[1:])
	}
	return runOCI(args)
}

// hide keeps other processes from looking into this one.
func hide() {
	unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	setName()
}
