package bundle

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"glassbox/host/beneath"
)

// WithHome adds HOME to an environment that lacks it, or in which the last one, which counts, is empty, as runc does: from etc/passwd
// below root, which is the container's and for that reason neither followed out of it nor believed to be small or a file.
func WithHome(env []string, root string, uid uint32) []string {
	is := func(s string) bool { return strings.HasPrefix(s, "HOME=") }
	for _, e := range slices.Backward(env) {
		if is(e) && e != "HOME=" {
			return env
		}
		if is(e) {
			break
		}
	}
	return append(slices.DeleteFunc(slices.Clone(env), is), "HOME="+home(root, uid))
}

func home(root string, uid uint32) string {
	text, err := beneath.ReadFile(root, "etc/passwd", 1<<20)
	if err != nil {
		return "/" // as where there is none
	}
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
