package verify

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPatientlyLate: a descriptor that comes when nobody waits for it any more is closed.
func TestPatientlyLate(t *testing.T) {
	v := &view{kept: true}
	var fd int
	hang := make(chan bool)
	got, err := patiently(v, func() (int, error) {
		<-hang
		var err error
		fd, err = unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0)
		return fd, err
	}, func(fd int) {
		unix.Close(fd)
		close(hang)
	})
	if !errors.Is(err, errPatience) || got != 0 {
		t.Fatalf("got %d, %v", got, err)
	}
	hang <- true
	select {
	case <-hang:
	case <-time.After(time.Minute):
		t.Fatal("what came late was not closed")
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != unix.EBADF {
		t.Errorf("descriptor %d: got %v, want EBADF", fd, err)
	}
}
