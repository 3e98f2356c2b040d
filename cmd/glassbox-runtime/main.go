// Glassbox-runtime is the lean half of glassbox: the supervisor of one container, and the process that enters a running one. It
// is started by glassbox and not meant to be typed.
package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"glassbox/supervise"
)

const usage = `glassbox-runtime is started by glassbox; it is not meant to be typed.

  glassbox-runtime supervise ID      supervise a container (descriptor 3: its lock, 4: the caller, 5: what to do)
  glassbox-runtime resident DIR N…   what a supervisor becomes once its container runs
  glassbox-runtime exec              start the process that descriptor 3 describes in a running container
  glassbox-runtime init -- COMMAND   be process 1 of a container: pass signals on, reap orphans
`

func main() {
	args := os.Args[1:]
	switch {
	case len(args) == 2 && args[0] == "supervise": // the id is for readers of process lists
		unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
		setName()
		os.Exit(supervise.Main())
	case len(args) == 3 && args[0] == "resident":
		unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
		setName()
		os.Exit(supervise.Resident(args[1], args[2]))
	case len(args) == 1 && args[0] == "exec":
		unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
		setName()
		os.Exit(supervise.Exec())
	case len(args) > 2 && args[0] == "init" && args[1] == "--":
		os.Exit(supervise.Init(args[2:]))
	case len(args) > 1 && args[0] == "--": // as /dev/init
		os.Exit(supervise.Init(args[1:]))
	}
	fmt.Fprint(os.Stderr, usage)
	os.Exit(2)
}

// setName names the process: it was started through a descriptor, whose number would be its name.
func setName() {
	os.WriteFile("/proc/self/comm", []byte("glassbox-runtime"), 0)
}
