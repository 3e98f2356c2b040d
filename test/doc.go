// Package test holds the scripts that try glassbox against real parts: images made from this machine's Debian packages, a
// real registry server, the real kernel.
//
// Its one idea: each script has a small host of its own (package machine) in which it runs the two binaries as a person
// would, and at its end that host must look as it did before. It refuses to fake: what a machine can't show is skipped
// with the reason. Start reading at script/01-hostname.txtar, then README.md for the scripts' own commands.
package test
