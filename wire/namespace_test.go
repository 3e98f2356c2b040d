package wire

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// A thread's own network namespace is found, also when it isn't the process's, and also without rights over it.
func TestOwnNamespace(t *testing.T) {
	check := func(what string) {
		t.Helper()
		fd, err := OwnNamespace()
		if err != nil {
			t.Errorf("%s: %v", what, err)
			return
		}
		defer unix.Close(fd)
		var got, want unix.Stat_t
		if err := unix.Fstat(fd, &got); err != nil {
			t.Error(err)
		}
		if err := unix.Stat("/proc/thread-self/ns/net", &want); err != nil {
			t.Error(err)
		}
		if got.Ino != want.Ino || got.Dev != want.Dev {
			t.Errorf("%s: namespace %d, want %d", what, got.Ino, want.Ino)
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("%s: the descriptor is inherited: flags %#x, %v", what, flags, err)
		}
	}
	check("the process's")
	if os.Geteuid() != 0 {
		t.Skip("needs root for another one")
	}
	done := make(chan bool)
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread is in another namespace, and then without capabilities
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
			return
		}
		check("the thread's")
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			t.Error(err)
		}
		check("without rights")
	}()
	<-done
}
