package engine

import (
	"os"
	"path/filepath"

	"glassbox/container"
	"glassbox/policy"
)

// RealPaths looks what the host has at the sources of a container's bind mounts.
func RealPaths(c *container.Config) map[string]policy.Real {
	out := map[string]policy.Real{}
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
		out[m.Source] = policy.Real{Path: real, Dir: st.IsDir(), File: st.Mode().IsRegular()}
	}
	return out
}
