package host

import (
	"strconv"
	"strings"
)

// Stat is what /proc/pid/stat says of a process (proc_pid_stat(5)).
type Stat struct {
	State    byte // 'Z' and 'X': it has ended
	Parent   int
	Session  int
	Terminal int // device number of the controlling terminal, 0 without one
	Flags    uint64
	Used     uint64 // clock ticks of processor time, user and system
	Start    uint64 // clock ticks after boot
}

// Forked reports whether a process has been cloned and not yet become a program (PF_FORKNOEXEC).
func (s Stat) Forked() bool { return s.Flags&0x40 != 0 }

// Exiting reports whether a process is on its way out, or out (PF_EXITING). It is so before its files are closed.
func (s Stat) Exiting() bool { return s.Flags&0x4 != 0 }

// Ended reports whether nothing is left of a process but, perhaps, what its parent has not waited for.
func (s Stat) Ended() bool { return s.State == 'Z' || s.State == 'X' }

// ParseStat takes the text of /proc/pid/stat apart; ok is false for any other text. Field 2, the name, may hold spaces and parentheses:
// what follows is found from its last one.
func ParseStat(text string) (s Stat, ok bool) {
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 20 || len(fields[0]) != 1 {
		return Stat{}, false
	}
	ok = true
	number := func(field int) int64 { // counted from 1, as there
		n, err := strconv.ParseInt(fields[field-3], 10, 64)
		ok = ok && err == nil
		return n
	}
	s = Stat{
		State: fields[0][0], Parent: int(number(4)), Session: int(number(6)), Terminal: int(number(7)),
		Flags: uint64(number(9)), Used: uint64(number(14)) + uint64(number(15)), Start: uint64(number(22)),
	}
	return s, ok
}
