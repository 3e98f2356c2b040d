package compile

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"glassbox/plan"
)

// copyUp fills a tmpfs with what it will cover. The child can't copy, so the parent does, while the tmpfs is still nowhere.
func (c *container) copyUp(i int, fm *plan.FSMount, dest, ptr string) {
	name := mountName(i)
	attach := &plan.MoveMount{From: name, Target: dest, Create: "dir", Keep: fm.Save != "", Propagation: fm.Propagation}
	fm.Target, fm.Save, fm.KeepMode, fm.Propagation = "", name, false, nil
	if !c.madeAhead(i) {
		c.add(plan.Child, plan.Mounts, fm, ptr, mountReason(fm.Type, dest))
	}
	c.sendUnder(i, name, dest, ptr, true, "What is there now is to be found in the new directory, too.")
	c.add(plan.Child, plan.Mounts, attach, ptr, "The copy covers the directory.")
}

// sendUnder has the parent copy what is at a mount's place into the mount, which is attached nowhere yet, and waits for it. A mount that
// the child made (own) is sent, too; any other is a volume, which begins with what the image has.
func (c *container) sendUnder(i int, name, dest, ptr string, own bool, reason string) {
	under := underName(i)
	c.add(plan.Child, plan.Mounts, &plan.OpenDir{Path: dest, Image: !own, Else: name, Save: under}, ptr, reason)
	c.add(plan.Child, plan.Mounts, &plan.SendFD{From: under}, ptr, "The parent copies.")
	if own {
		c.add(plan.Child, plan.Mounts, &plan.SendFD{From: name, Keep: true}, ptr, "The parent copies.")
	}
	c.add(plan.Child, plan.Mounts, &plan.Await{Name: under}, ptr, "The parent copies.")
}

// underName is what stands for the directory that a mount will cover.
func underName(i int) string { return fmt.Sprintf("under:%d", i) }

// copies writes the host's part of that.
func (c *container) copies() {
	for i, m := range c.Spec.Mounts {
		o := parseOptions(m.Options)
		what := "tmpfs"
		extra := c.Mounts[path.Clean("/"+m.Destination)]
		switch {
		case isBind(m) && extra.CopyUp:
			what = "volume"
		case !o.copyUp || o.remount || isBind(m):
			continue
		}
		ptr := fmt.Sprintf("/mounts/%d", i)
		name, under := mountName(i), underName(i)
		// A mode that the configuration names counts more than the image's.
		mode := slices.ContainsFunc(o.data, func(s string) bool { return strings.HasPrefix(s, "mode=") })
		c.add(plan.Host, plan.Mounts, &plan.RecvFD{Save: under}, ptr, "The directory that the "+what+" will cover.")
		if what == "tmpfs" {
			c.add(plan.Host, plan.Mounts, &plan.RecvFD{Save: name}, ptr, "The tmpfs, which is not in the container yet.")
		}
		up := &plan.CopyUp{From: under, To: name, KeepMode: mode, Volume: extra.Volume, Within: extra.Within}
		// A tmpfs of the container's user namespace takes files of its own ids alone: see fork's makeAs.
		if c.users == ownUsers {
			m := c.idMap()
			up.UID, up.GID = m.UID[0].Host, m.GID[0].Host
		}
		c.add(plan.Host, plan.Mounts, up, ptr, "The "+what+" begins with what the image has there.")
		c.add(plan.Host, plan.Mounts, &plan.Release{Name: under}, ptr, "The copy is complete.")
	}
}
