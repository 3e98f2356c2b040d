// Package nofile knows RLIMIT_NOFILE as this process was given it.
//
// Go's package syscall raises the soft limit to the hard one when it initialises (go.dev/issue/46279) and keeps the original
// to itself, to restore it in children that it starts. The raw child of package fork isn't one of them, so the original has to
// be known here: a container that inherits a soft limit of a million descriptors makes programs that close "all" of them slow.
//
// The limit is read before package syscall does anything, by the order that the language defines ("Program initialization" in
// the Go specification, from Go 1.21 on): packages are sorted by import path, and each time the first one whose imports are
// all initialised is next. This package imports nothing, so it is ready from the start, and "glassbox/host/nofile" sorts
// before "syscall". For this it must import nothing, which leaves assembly for the one system call; a test starts itself with
// a lower limit and compares.
package nofile

var soft, hard = prlimit()

// Limits returns the soft and the hard limit at the start of the process. Both are 0 if they could not be read.
func Limits() (softLimit, hardLimit uint64) { return soft, hard }

// prlimit is prlimit64(0, RLIMIT_NOFILE, NULL, &result).
func prlimit() (soft, hard uint64)
