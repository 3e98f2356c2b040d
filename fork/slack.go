package fork

import (
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// timerSlack is the timer slack in nanoseconds (PR_SET_TIMERSLACK(2const)) that this process was started with, or 0: it still has it.
//
// Go's monitor thread wakes every twenty microseconds while a program makes system calls, which is what a start consists of, and takes
// a tenth of its time. With a larger slack the kernel lets it sleep for a millisecond, and so the entries of glassbox and glassbox-runtime
// set one, and write this, before Go begins (lateTimers). Threads and processes inherit it: what a container's programs and its hooks are
// started from needs [ownTimerSlack].
var timerSlack int64

// StartCommand starts a command with the timer slack that this process was started with.
func StartCommand(cmd *exec.Cmd) error { return WithOwnTimerSlack(cmd.Start) }

// WithOwnTimerSlack calls start, which starts a process from its thread, with the timer slack that this process was started with.
func WithOwnTimerSlack(start func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ownTimerSlack()
	return start()
}

// ownTimerSlack gives the calling thread, which must be locked, that one.
func ownTimerSlack() {
	if timerSlack > 0 {
		unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(timerSlack), 0, 0, 0)
	}
}

// LateTimers gives the calling thread, which must be locked and is about to call execve(2), a timer slack of a millisecond, which the new
// program's threads have from their beginning. It answers the one that this process was started with, which the new program's children
// should get, or 0: it was no smaller.
func LateTimers() int64 {
	const late = 1_000_000
	now, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if timerSlack > 0 && now == late { // a word of the command line looked like the verb that this is done for
		return timerSlack
	}
	if err != nil || now <= 0 || now >= late || unix.Prctl(unix.PR_SET_TIMERSLACK, late, 0, 0, 0) != nil {
		return 0
	}
	return int64(now)
}
