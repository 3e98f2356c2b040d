//go:build amd64 || arm64

package main

// entry is in entry_*.s. The linker's flag -E makes it the program's first instruction; without the flag nothing calls it.
//
//lint:ignore U1000 the linker knows it
func entry()
