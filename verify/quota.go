package verify

import (
	"fmt"

	"glassbox/host/quota"
	"glassbox/plan"
)

// bounded looks whether directories are part of a project, and what that may have.
func bounded(o *plan.Quota) Finding {
	if len(o.Dirs) == 0 {
		return unseen("it names no directory")
	}
	for _, dir := range o.Dirs {
		n, err := quota.Of(dir)
		if err != nil {
			return failed(dir, err)
		}
		if n != o.Project {
			return differs(dir, fmt.Sprint("project ", o.Project), fmt.Sprint("project ", n), byHost())
		}
	}
	used, err := quota.Get(o.Dirs[0], o.Project)
	if err != nil {
		return failed(o.Dirs[0], err)
	}
	// The file system counts in blocks of 1024 bytes.
	if asked := (o.Bytes + 1023) / 1024 * 1024; used.Limit != asked {
		return differs("quotactl project "+fmt.Sprint(o.Project), fmt.Sprint(asked, " bytes"), fmt.Sprint(used.Limit, " bytes"), byHost())
	}
	return holds("quotactl project "+fmt.Sprint(o.Project), fmt.Sprint(used.Limit, " bytes"))
}
