package bundle

import (
	"bytes"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// withHome adds HOME to an environment that lacks it, as runc does: from etc/passwd below root, which is the container's and for that
// reason neither followed out of it nor believed to be small or a file.
func withHome(env []string, root string, uid uint32) []string {
	if slices.ContainsFunc(env, func(s string) bool { return strings.HasPrefix(s, "HOME=") }) {
		return env
	}
	return append(slices.Clone(env), "HOME="+home(root, uid))
}

func home(root string, uid uint32) string {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "/"
	}
	defer unix.Close(dir)
	fd, err := unix.Openat2(dir, "etc/passwd", &unix.OpenHow{
		Flags: unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return "/"
	}
	f := os.NewFile(uintptr(fd), "passwd")
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return "/"
	}
	text, _ := io.ReadAll(io.LimitReader(f, 1<<20))
	return homeOf(text, uid)
}

// homeOf finds a user's directory in the text of a passwd file (passwd(5)), "/" without one.
func homeOf(passwd []byte, uid uint32) string {
	for line := range bytes.Lines(passwd) {
		fields := strings.Split(strings.TrimRight(string(line), "\n"), ":")
		if len(fields) < 6 || fields[2] != strconv.FormatUint(uint64(uid), 10) {
			continue
		}
		if strings.HasPrefix(fields[5], "/") && !strings.ContainsRune(fields[5], 0) {
			return fields[5]
		}
	}
	return "/"
}
