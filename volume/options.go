package volume

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Drivers are the names of the drivers there are.
func Drivers() []string { return []string{Local} }

// CheckDriver refuses a driver that isn't there, in Docker's words; empty is [Local].
func CheckDriver(name string) error {
	if name == "" || slices.Contains(Drivers(), name) {
		return nil
	}
	return fmt.Errorf("error looking up volume plugin %s: plugin %q not found: there is one driver, local", name, name)
}

// CheckOptions accepts the options of Docker's local driver: type, o and device are mount(8)'s -t, -o and device.
func CheckOptions(options map[string]string) error {
	for _, key := range slices.Sorted(maps.Keys(options)) {
		value := options[key]
		switch {
		case strings.ContainsRune(value, 0):
			return fmt.Errorf("%w: option %s: a NUL in it", ErrInvalid, key)
		case key == "size":
			return fmt.Errorf("%w: quota size requested but no quota support: give type=tmpfs and o=size=… for a volume in memory", ErrInvalid)
		case key != "type" && key != "o" && key != "device":
			return fmt.Errorf("%w: invalid option: %.60q: want type, o or device", ErrInvalid, key)
		}
	}
	for _, need := range []struct{ key, other string }{{"device", "type"}, {"type", "device"}, {"o", "device"}, {"o", "type"}} {
		if options[need.key] != "" && options[need.other] == "" {
			return fmt.Errorf("%w: missing required option: %q", ErrInvalid, need.other)
		}
	}
	return nil
}

// Bound is the directory of the host that a volume's options make it: type=none or bind with o=bind. Empty: it is no such volume.
func (v *Volume) Bound() string {
	words := strings.Split(v.Options["o"], ",")
	if slices.Contains(words, "bind") || slices.Contains(words, "rbind") || v.Options["type"] == "bind" {
		return v.Options["device"]
	}
	return ""
}

// Words are the options of o, without those that say that it is a bind mount.
func (v *Volume) Words() []string {
	var out []string
	for word := range strings.SplitSeq(v.Options["o"], ",") {
		if word != "" && word != "bind" && word != "rbind" && word != "defaults" {
			out = append(out, word)
		}
	}
	return out
}

// FileSystem reports whether the volume is a file system that has to be mounted, such as a tmpfs or a share of another host.
func (v *Volume) FileSystem() bool { return v.Options["type"] != "" && v.Bound() == "" }

// MountWords parts the words of mount(8)'s -o into those that mount(2) has flags for, and what goes to the file system. Of two that
// contradict each other the later one counts; words for mount(8) alone are left out.
func MountWords(words []string) (flags, options []string) {
	opposites := map[string]string{
		"rw": "ro", "suid": "nosuid", "dev": "nodev", "exec": "noexec", "atime": "noatime", "diratime": "nodiratime",
		"async": "sync", "symfollow": "nosymfollow", "norelatime": "relatime", "nostrictatime": "strictatime", "nolazytime": "lazytime",
		"loud": "silent", "noiversion": "iversion",
	}
	known := append(slices.Collect(maps.Values(opposites)), "dirsync")
	for _, word := range words {
		other, isOpposite := opposites[word]
		switch {
		case isOpposite:
			flags = slices.DeleteFunc(flags, func(s string) bool { return s == other })
		case slices.Contains(known, word):
			flags = append(slices.DeleteFunc(flags, func(s string) bool { return s == word }), word)
		case slices.Contains([]string{"defaults", "auto", "noauto", "user", "nouser", "_netdev", "nofail"}, word):
		default:
			options = append(options, word)
		}
	}
	return flags, options
}
