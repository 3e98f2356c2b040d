package main

import (
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"

	"github.com/moby/buildkit/source/git"
	"github.com/moby/buildkit/worker/base"
	"golang.org/x/sys/unix"
)

// What follows is about the time that a build takes whose steps all come from the cache: most of that is this program's beginning.

// collectLater lets the heap grow to 32 MB before garbage is collected for the first time; from then on it is collected as ever. A build
// out of the cache allocates less than that in all, and would collect six times, of which the first ones are mostly the tables of the
// libraries that stay. A daemon has collected long ago when somebody asks it.
func collectLater() {
	if os.Getenv("GOGC") != "" {
		return // somebody has said what is wanted
	}
	type sentinel struct{ *int } // with a pointer: several small objects without one share a place, and live as long as each other
	s := &sentinel{new(int)}
	// The least heap is 4 MB at 100 (runtime/debug.SetGCPercent, "GOGC" in package runtime), and grows with the number.
	debug.SetGCPercent(800)
	runtime.AddCleanup(s, func(usual int) { debug.SetGCPercent(usual) }, 100)
}

// startProcess starts a RUN's process with the timer slack that glassbox was started with: this program has a larger one
// (fork.LateTimers), which the programs of a RUN would inherit.
func startProcess(cmd *exec.Cmd, slack int64) error {
	if slack <= 0 {
		return cmd.Start()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	late, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(slack), 0, 0, 0); err != nil {
		return err
	}
	defer unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(late), 0, 0, 0)
	return cmd.Start()
}

// newWorker makes BuildKit's worker without running git(1), which BuildKit does each time to learn whether it is there. It looks in PATH,
// and so does this: nothing else runs yet that could miss it.
func newWorker(make func() (*base.Worker, error)) (*base.Worker, error) {
	path, set := os.LookupEnv("PATH")
	_, missing := exec.LookPath("git")
	if !set || missing != nil {
		return make()
	}
	if err := os.Setenv("PATH", ""); err != nil {
		return nil, err
	}
	w, err := make()
	os.Setenv("PATH", path)
	if err != nil || w.GitSource != nil {
		return w, err
	}
	if w.GitSource, err = git.NewSource(git.Opt{CacheAccessor: w.CacheMgr, RegistryHosts: registryHosts}); err != nil {
		return nil, err
	}
	w.SourceManager.Register(w.GitSource)
	return w, nil
}
