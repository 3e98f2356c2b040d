package host

import (
	"os"
	"strings"
)

// Mount is a line of /proc/PID/mountinfo (proc_pid_mountinfo(5)), its octal escapes taken back.
type Mount struct {
	ID, Parent   string
	Device, Root string // major:minor; what of the file system is visible
	Point        string
	Attrs        string   // of the mount, by commas: ro or rw, nosuid …
	Tags         []string // shared:1 master:2 unbindable
	Type, Source string
	Options      string // of the file system
}

// Under reports whether a clean path is a directory, or is below it.
func Under(name, dir string) bool {
	return name == dir || dir == "/" || strings.HasPrefix(name, dir+"/")
}

// MountsOf reads the mounts of a process, "self" or a number, in the kernel's order.
func MountsOf(pid string) ([]Mount, error) {
	data, err := os.ReadFile("/proc/" + pid + "/mountinfo")
	return ParseMounts(string(data)), err
}

// ParseMounts reads the text of a mountinfo. Lines that make no sense are left out.
func ParseMounts(text string) []Mount {
	var out []Mount
	for line := range strings.Lines(text) {
		before, after, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		f, tail := strings.Split(before, " "), strings.Split(after, " ")
		if !ok || len(f) < 6 || len(tail) < 3 {
			continue
		}
		out = append(out, Mount{
			ID: f[0], Parent: f[1], Device: f[2], Root: Unescape(f[3]), Point: Unescape(f[4]), Attrs: f[5], Tags: f[6:],
			Type: Unescape(tail[0]), Source: Unescape(tail[1]), Options: tail[2],
		})
	}
	return out
}
