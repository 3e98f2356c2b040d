package fork

import (
	"glassbox/host/quota"
	"glassbox/plan"
)

// Quota makes its step, also outside of a plan: the layer of a container that is being made is bounded before anything can be written to
// it. Doing it again changes nothing.
func Quota(o *plan.Quota) error {
	for _, dir := range o.Dirs {
		if err := quota.Set(dir, o.Project); err != nil {
			return err
		}
	}
	if len(o.Dirs) == 0 {
		return nil
	}
	return quota.Bound(o.Dirs[0], o.Project, o.Bytes) // they are on one file system
}
