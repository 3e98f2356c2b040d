package supervise

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Signal reads a signal (signal(7)): a number from 0, which only asks whether a process is there, to 64, or a name in any case, with
// or without SIG, of which those of real-time signals may go on with a difference: RTMIN+3, RTMAX-1.
func Signal(s string) (unix.Signal, bool) {
	if n, err := strconv.Atoi(s); err == nil {
		return unix.Signal(n), n >= 0 && n <= 64
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if sig := unix.SignalNum(name); sig != 0 {
		return sig, true
	}
	for prefix, base := range map[string]int{"SIGRTMIN": 34, "SIGRTMAX": 64} {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			n, err := strconv.Atoi(rest)
			return unix.Signal(base + n), rest == "" || err == nil && base+n >= 34 && base+n <= 64
		}
	}
	return 0, false
}
