package fork

import (
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// timerSlack is the timer slack in nanoseconds (PR_SET_TIMERSLACK(2const)) that this process was started with, or 0: it still has it.
//
// Go's monitor thread wakes every twenty microseconds while a program makes system calls, which is what a start consists of, and takes
// a tenth of its time. With a larger slack the kernel lets it sleep for a millisecond, and so the entry of glassbox-runtime sets one,
// and writes this, before Go begins. Threads and processes inherit it: what a container's programs and its hooks are started from needs
// [ownTimerSlack].
var timerSlack int64

// StartCommand starts a command with the timer slack that this process was started with.
func StartCommand(cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ownTimerSlack()
	return cmd.Start()
}

// ownTimerSlack gives the calling thread, which must be locked, that one.
func ownTimerSlack() {
	if timerSlack > 0 {
		unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(timerSlack), 0, 0, 0)
	}
}
