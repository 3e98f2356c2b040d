package fork

import (
	"fmt"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

var mountAttrs = map[string]uint64{
	"ro": unix.MOUNT_ATTR_RDONLY, "nosuid": unix.MOUNT_ATTR_NOSUID, "nodev": unix.MOUNT_ATTR_NODEV, "noexec": unix.MOUNT_ATTR_NOEXEC,
	"nodiratime": unix.MOUNT_ATTR_NODIRATIME, "nosymfollow": unix.MOUNT_ATTR_NOSYMFOLLOW,
	"noatime": unix.MOUNT_ATTR_NOATIME, "strictatime": unix.MOUNT_ATTR_STRICTATIME, "relatime": unix.MOUNT_ATTR_RELATIME,
}

var propagations = map[string]uint64{
	"private": unix.MS_PRIVATE, "slave": unix.MS_SLAVE, "shared": unix.MS_SHARED, "unbindable": unix.MS_UNBINDABLE,
}

var mountFlags = map[string]uintptr{
	"bind": unix.MS_BIND, "rec": unix.MS_REC, "private": unix.MS_PRIVATE, "slave": unix.MS_SLAVE, "shared": unix.MS_SHARED,
	"unbindable": unix.MS_UNBINDABLE, "ro": unix.MS_RDONLY, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV,
	"noexec": unix.MS_NOEXEC, "remount": unix.MS_REMOUNT, "noatime": unix.MS_NOATIME, "relatime": unix.MS_RELATIME,
	"nodiratime": unix.MS_NODIRATIME, "strictatime": unix.MS_STRICTATIME, "nosymfollow": unix.MS_NOSYMFOLLOW,
	"silent": unix.MS_SILENT, "iversion": unix.MS_I_VERSION, "sync": unix.MS_SYNCHRONOUS, "dirsync": unix.MS_DIRSYNC,
	"lazytime": unix.MS_LAZYTIME,
}

// bits joins the flags that words stand for; what says what they are, for an error.
func bits[T ~uint64 | ~uintptr](what string, words []string, table map[string]T) (T, error) {
	var n T
	for _, w := range words {
		b, ok := table[w]
		if !ok {
			return 0, fmt.Errorf("unknown %s %q", what, w)
		}
		n |= b
	}
	return n, nil
}

func attrs(words []string) (uint64, error) { return bits("mount attribute", words, mountAttrs) }

// nsFlags are the clone flags of the namespaces.
var nsFlags = map[string]uint64{
	"mount": unix.CLONE_NEWNS, "pid": unix.CLONE_NEWPID, "uts": unix.CLONE_NEWUTS, "ipc": unix.CLONE_NEWIPC,
	"net": unix.CLONE_NEWNET, "user": unix.CLONE_NEWUSER, "cgroup": unix.CLONE_NEWCGROUP, "time": unix.CLONE_NEWTIME,
}

func namespaces(names []string) (uint64, error) { return bits("namespace", names, nsFlags) }

var rlimits = map[string]int{
	"RLIMIT_CPU": 0, "RLIMIT_FSIZE": 1, "RLIMIT_DATA": 2, "RLIMIT_STACK": 3, "RLIMIT_CORE": 4, "RLIMIT_RSS": 5, "RLIMIT_NPROC": 6,
	"RLIMIT_NOFILE": 7, "RLIMIT_MEMLOCK": 8, "RLIMIT_AS": 9, "RLIMIT_LOCKS": 10, "RLIMIT_SIGPENDING": 11, "RLIMIT_MSGQUEUE": 12,
	"RLIMIT_NICE": 13, "RLIMIT_RTPRIO": 14, "RLIMIT_RTTIME": 15,
}

func capBits(names []string) (uint64, error) {
	var bits uint64
	for _, name := range names {
		n := plan.CapNumber(name)
		if n < 0 {
			return 0, fmt.Errorf("unknown capability %q", name)
		}
		bits |= 1 << n
	}
	return bits, nil
}
