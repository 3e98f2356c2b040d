// Package netns gives a test network namespaces of its own.
//
// Its one idea: what a new namespace inherits from the machine (settings of the kernel) is part of a test's input, so it is set. It needs
// root, and refuses to touch the namespace of the test's own process. Start reading at [New].
package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// NS is a network namespace that lives as long as the test.
type NS struct {
	T  testing.TB
	FD int
}

// NeedRoot skips the test where it can't make namespaces.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, for network namespaces")
	}
}

// New makes a namespace with nothing in it but a loopback interface that is down.
func New(t testing.TB) *NS {
	t.Helper()
	NeedRoot(t)
	ns := &NS{T: t, FD: -1}
	own := Own(t)
	defer unix.Close(own)
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("unshare: %v", err)
	}
	ns.FD = Own(t)
	// A new namespace has these from the one that the machine started with (net.core.devconf_inherit_init_net), or from the kernel's
	// configuration: tests take nothing for granted.
	for _, set := range []string{
		"ipv4/ip_forward=0", "ipv4/conf/all/rp_filter=0", "ipv4/conf/default/rp_filter=0", "ipv4/conf/all/route_localnet=0",
		"ipv4/conf/default/route_localnet=0", "ipv6/conf/all/forwarding=0", "ipv6/conf/all/disable_ipv6=0", "ipv6/conf/default/disable_ipv6=0",
		"ipv6/conf/all/accept_ra=1", "ipv6/conf/default/accept_ra=1",
	} {
		file, value, _ := strings.Cut(set, "=")
		if err := os.WriteFile("/proc/sys/net/"+file, []byte(value), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	if err := unix.Setns(own, unix.CLONE_NEWNET); err != nil {
		t.Fatalf("setns: %v", err)
	}
	runtime.UnlockOSThread()
	t.Cleanup(func() { unix.Close(ns.FD) })
	return ns
}

// Own opens the namespace that the calling thread is in.
func Own(t testing.TB) int {
	t.Helper()
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// Do runs f on a thread in the namespace. What f panics with is the test's failure.
func (ns *NS) Do(f func()) {
	ns.T.Helper()
	done := make(chan any)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		defer func() { done <- recover() }()
		if err := unix.Setns(ns.FD, unix.CLONE_NEWNET); err != nil {
			panic(err)
		}
		f()
	}()
	if p := <-done; p != nil {
		ns.T.Fatal(p)
	}
}

// Sh runs a shell script in the namespace and returns what it printed, on both streams.
func (ns *NS) Sh(format string, a ...any) string {
	ns.T.Helper()
	var out []byte
	var err error
	script := fmt.Sprintf(format, a...)
	ns.Do(func() { out, err = exec.Command("sh", "-ec", script).CombinedOutput() })
	if err != nil {
		ns.T.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}
