// Glassbox-build is the builder: BuildKit's solver as a library, with an executor that compiles each RUN to a plan and lets a small process
// execute it (glassbox-runtime once). It is a program of its own, and a module of its own, so that BuildKit costs nobody else anything.
//
// People don't type it: `glassbox build` starts it with an order in memory (package build). It takes the lock of the builder's root, opens
// the builder, speaks with it over an in-memory connection as buildx does with a daemon, and is gone when the build is over.
// `glassbox-build serve` keeps it open behind a socket, which speaks BuildKit's control API, until nobody has used it for a while.
//
// Mounts of builds are made in a mount namespace of the builder's own: when it is killed, the kernel takes them away.
//
// Start reading at [main], then open.go, executor.go, export.go.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"glassbox/build"
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	// BuildKit and containerd log what goes on inside them: that is for -D.
	logrus.SetOutput(io.Discard)
	log.SetOutput(io.Discard) // where Go's HTTP server writes that a client went away
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	err := command(ctx, args)
	if err == nil {
		return 0
	}
	var exit exitCode
	if errors.As(err, &exit) {
		return int(exit)
	}
	if ctx.Err() != nil {
		fmt.Fprintln(os.Stderr, "ERROR: interrupted")
		return 130
	}
	tell(os.Stderr, err)
	return 1
}

// exitCode is an error that has been told already.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func command(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errors.New("glassbox-build is started by glassbox build: it takes no command line of its own")
	}
	order, err := readOrder()
	if err != nil {
		return err
	}
	if order.Debug {
		logrus.SetOutput(os.Stderr)
		logrus.SetLevel(logrus.DebugLevel)
	}
	if args[0] == "explain" && order.Build != nil {
		return explainBuild(ctx, place{order.Place}, order.Build)
	}
	if err := ownMounts(); err != nil {
		return err
	}
	// Modes of what steps make are meant exactly, as in buildkitd; files of the caller's are made as the caller's umask has it.
	umask := unix.Umask(0)
	if order.Build != nil {
		order.Build.Umask = os.FileMode(umask)
	}
	p := place{order.Place}
	switch {
	case args[0] == "build" && order.Build != nil:
		collectLater()
		return solve(ctx, p, order.Build)
	case args[0] == "prune" && order.Prune != nil:
		return prune(ctx, p, order.Prune)
	case args[0] == "du" && order.Usage != nil:
		return usage(ctx, p, order.Usage)
	case args[0] == "serve" && order.Serve != nil:
		return serve(ctx, p, order.Serve)
	}
	return fmt.Errorf("glassbox-build %s: no such order", args[0])
}

func readOrder() (*build.Order, error) {
	f := os.NewFile(build.OrderFD, "order")
	defer f.Close()
	// A file in memory, whose offset may be at its end: it came from another process.
	data, err := io.ReadAll(io.NewSectionReader(f, 0, 64<<20))
	if err != nil {
		return nil, fmt.Errorf("the order: %w", err)
	}
	var o build.Order
	if err := json.Unmarshal(data, &o); err != nil {
		return nil, fmt.Errorf("the order: %w", err)
	}
	return &o, nil
}

// ownMounts refuses to go on in the host's mount namespace: what a killed builder leaves mounted there would stay.
func ownMounts() error {
	var mine, first unix.Stat_t
	if err := unix.Stat("/proc/self/ns/mnt", &mine); err != nil {
		return err
	}
	if err := unix.Stat("/proc/1/ns/mnt", &first); err == nil && mine.Ino == first.Ino {
		return errors.New("glassbox-build needs a mount namespace of its own: start it by glassbox")
	}
	return nil
}
