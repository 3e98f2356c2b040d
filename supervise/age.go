package supervise

import (
	"time"

	"golang.org/x/sys/unix"
)

// tick is the unit of a process's start time (proc_pid_stat(5), field 22): USER_HZ, which is 100 on all that we build for.
const tick = 10 * time.Millisecond

// Age is how long ago the run began, by a clock that nobody sets, and that goes on while the host sleeps: Started is what people read, and
// is as wrong as the clock was. It is for a run of this boot, such as any that is alive.
func (s *State) Age() time.Duration {
	if !s.Began.IsZero() {
		return time.Since(s.Began) // which needs no system call
	}
	var now unix.Timespec
	if s.Start == 0 || unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) != nil {
		return time.Since(s.Started)
	}
	return max(0, time.Duration(now.Nano())-time.Duration(s.Start)*tick)
}
