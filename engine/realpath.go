package engine

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"glassbox/container"
	"glassbox/host"
	"glassbox/policy"
)

// RealPaths looks what the host has at the sources of a container's bind mounts.
func RealPaths(c *container.Config) map[string]policy.Real {
	out := map[string]policy.Real{}
	mounts, _ := host.MountsOf("self") // none, where they can't be read: then no path is inert
	for _, m := range c.Mounts {
		if m.Type != container.Bind {
			continue
		}
		real, err := filepath.EvalSymlinks(m.Source)
		if err != nil {
			continue
		}
		st, err := os.Lstat(real)
		if err != nil {
			continue
		}
		out[m.Source] = policy.Real{Path: real, Dir: st.IsDir(), File: st.Mode().IsRegular(), Inert: inert(mounts, real)}
	}
	return out
}

// inert reports whether the mount that a path lies on, and all that are mounted below the path, have nosuid and nodev (mount(8)).
func inert(mounts []host.Mount, path string) bool {
	has := func(m host.Mount) bool {
		attrs := strings.Split(m.Attrs, ",")
		return slices.Contains(attrs, "nosuid") && slices.Contains(attrs, "nodev")
	}
	var at *host.Mount
	for i := range mounts {
		m := &mounts[i]
		if host.Under(m.Point, path) && m.Point != path && !has(*m) {
			return false
		}
		// Of those that are mounted on one point the last is the one that is seen.
		if host.Under(path, m.Point) && (at == nil || len(m.Point) >= len(at.Point)) {
			at = m
		}
	}
	return at != nil && has(*at)
}
