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
	for _, dir := range o.Dirs[:min(len(o.Dirs), 1)] { // they are on one file system
		if err := quota.Bound(dir, o.Project, o.Bytes); err != nil {
			return err
		}
	}
	return nil
}
