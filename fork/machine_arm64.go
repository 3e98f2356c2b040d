package fork

import "golang.org/x/sys/unix"

const sysFstatat = unix.SYS_FSTATAT

const hostMachine = elfARM64

// pathArgument says which argument of a system call is a path.
func pathArgument(nr uint64) (int, bool) { return commonPathArgument(nr) }
