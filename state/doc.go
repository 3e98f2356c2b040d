// Package state is how glassbox keeps what it knows: plain files that a person can read, replaced whole, and locks that die with
// their holder. There is no daemon to ask, so several processes read and write the same files at any time, and each of them can be
// killed at any moment.
//
// Its one idea: a file is replaced by rename, so a reader sees the old or the new one; who works on an object holds the flock of a
// file of its own, which the kernel gives up when the holder dies, and the file that is left is the trace to repair by.
//
// It refuses to know what is stored. Start reading at [WriteJSON], then [Lock].
package state
