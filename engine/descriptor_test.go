package engine

import (
	"os"
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

// TestForkExec starts a program whose descriptor is just where package syscall would put its own: it failed with EACCES before, once in
// some thousands of starts of an engine that many use.
func TestForkExec(t *testing.T) {
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	const last = 60
	if err := unix.Dup3(int(null.Fd()), last, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(last)
	for at := last + 1; at < last+12; at++ {
		program, err := os.Open("/bin/true")
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Dup3(int(program.Fd()), at, unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		program.Close()
		program = os.NewFile(uintptr(at), "true")
		if err := forkExec(program, []string{"true"}, nil, []uintptr{last, last, last, last}); err != nil {
			t.Errorf("the program is open as %d, the last of its files as %d: %v", at, last, err)
		}
		program.Close()
	}
}
