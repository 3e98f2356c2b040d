package fork

import "golang.org/x/sys/unix"

// timerSlack is the timer slack in nanoseconds (PR_SET_TIMERSLACK(2const)) that this process was started with, or 0: it still has it.
//
// Go's monitor thread wakes every twenty microseconds while a program makes system calls, which is what a start consists of, and takes
// a tenth of its time. With a larger slack the kernel lets it sleep for a millisecond, and so the entry of glassbox-runtime sets one,
// and writes this, before Go begins. Threads and processes inherit it: what a container's programs and its hooks are started from needs
// [OwnTimerSlack].
var timerSlack int64

// OwnTimerSlack gives the calling thread, which must be locked, and so the processes that it starts, the timer slack that this process
// was started with.
func OwnTimerSlack() {
	if timerSlack > 0 {
		unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(timerSlack), 0, 0, 0)
	}
}
