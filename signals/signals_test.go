package signals

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestCatch(t *testing.T) {
	c, err := Catch(syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTERM, syscall.SIGWINCH, 40)
	if err != nil {
		t.Fatal(err)
	}
	// Wherever the signal finds this process: in Go code, in the kernel, in the collector.
	stop := make(chan struct{})
	var busy sync.WaitGroup
	for range 4 {
		busy.Go(func() {
			var keep [][]byte
			for {
				select {
				case <-stop:
					return
				default:
					keep = append(keep[max(0, len(keep)-32):], make([]byte, 1<<14))
				}
			}
		})
	}
	want := []syscall.Signal{syscall.SIGUSR1, syscall.SIGTERM, syscall.SIGUSR2, 40, syscall.SIGWINCH}
	for range 200 {
		for _, s := range want {
			if err := syscall.Kill(os.Getpid(), s); err != nil {
				t.Fatal(err)
			}
			if got := c.Next(); !slices.Equal(got, []syscall.Signal{s}) {
				t.Fatalf("got %v, want %v", got, s)
			}
		}
	}
	close(stop)
	busy.Wait()

	// What is executed has the default action.
	out, err := exec.Command("sh", "-c", "kill -TERM $$; echo survived").CombinedOutput()
	if ee := (*exec.ExitError)(nil); !errors.As(err, &ee) || ee.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
		t.Errorf("a shell that kills itself: %v, %s", err, out)
	}

	time.AfterFunc(50*time.Millisecond, func() { c.Stop() })
	if got := c.Next(); got != nil {
		t.Errorf("after Stop: got %v", got)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	if line := caught(string(status)); line>>(40-1)&1 != 0 {
		t.Errorf("signal 40 is still caught: %x", line)
	}
}

func caught(status string) (mask uint64) {
	_, rest, _ := strings.Cut(status, "SigCgt:")
	for _, c := range strings.TrimSpace(rest[:strings.IndexByte(rest, '\n')]) {
		mask = mask<<4 | uint64(strings.IndexRune("0123456789abcdef", c))
	}
	return mask
}

// TestStopped: a process whose signals are no longer caught dies of them.
func TestStopped(t *testing.T) {
	if os.Getenv("GLASSBOX_STOPPED") != "" {
		c, err := Catch(syscall.SIGTERM)
		if err != nil {
			t.Fatal(err)
		}
		syscall.Kill(os.Getpid(), syscall.SIGTERM)
		if got := c.Next(); len(got) != 1 {
			t.Fatal(got)
		}
		c.Stop()
		syscall.Kill(os.Getpid(), syscall.SIGTERM)
		time.Sleep(time.Minute)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestStopped$")
	cmd.Env = append(os.Environ(), "GLASSBOX_STOPPED=1")
	out, err := cmd.CombinedOutput()
	if ee := (*exec.ExitError)(nil); !errors.As(err, &ee) || ee.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
		t.Errorf("got %v, %s, want death by SIGTERM", err, out)
	}
}
