package compile

import (
	"fmt"
	"path"
	"strings"

	"glassbox/plan"
)

// null is the descriptor of a verified null device, for masking.
func (c *container) null() string {
	for _, s := range c.steps {
		switch n := s.Op.(type) {
		case *plan.Mknod:
			if n.Save == "null" {
				return "null"
			}
		case *plan.MoveMount:
			if n.Keep && n.From == deviceName("/dev/null") {
				return n.From
			}
		}
	}
	return ""
}

// paths hides paths and makes others read-only, each once: a name that is given twice would get a second mount over the first.
func (c *container) paths() error {
	null, named := c.null(), map[string]bool{}
	for i, p := range c.Spec.Linux.MaskedPaths {
		ptr := fmt.Sprintf("/linux/maskedPaths/%d", i)
		if !strings.HasPrefix(p, "/") {
			return fmt.Errorf("%s: %q is not an absolute path", ptr, p)
		}
		if name := path.Clean(p); !named[name] {
			named[name] = true
			c.add(plan.Child, plan.Mounts, &plan.MaskPath{Path: p, Null: null, Label: c.Spec.Linux.MountLabel}, ptr,
				"It tells about the host, or lets it be changed.")
		}
	}
	clear(named)
	for i, p := range c.Spec.Linux.ReadonlyPaths {
		ptr := fmt.Sprintf("/linux/readonlyPaths/%d", i)
		if !strings.HasPrefix(p, "/") {
			return fmt.Errorf("%s: %q is not an absolute path", ptr, p)
		}
		if name := path.Clean(p); !named[name] {
			named[name] = true
			c.add(plan.Child, plan.Mounts, &plan.ReadonlyPath{Path: p}, ptr, "It holds settings of the whole host.")
		}
	}
	return nil
}
