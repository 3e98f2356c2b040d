//go:build amd64 || arm64

package fork

// lateTimers is in slack_*.s. Only the entries of programs call it, which are no Go.
//
//lint:ignore U1000 the linker knows it
func lateTimers()
