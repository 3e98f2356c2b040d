package engine

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestAbove moves a low descriptor out of the way of those that a started program gets at fixed numbers, and leaves a high one alone.
func TestAbove(t *testing.T) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[1])
	high, err := above(p[0], 40)
	if err != nil || high < 40 {
		t.Fatalf("got %d, %v, want 40 or more", high, err)
	}
	if flags, err := unix.FcntlInt(uintptr(high), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("the new one is not closed by execve: %d, %v", flags, err)
	}
	same, err := above(high, 3)
	if err != nil || same != high {
		t.Errorf("got %d, %v, want %d", same, err, high)
	}
	unix.Close(high)
}
