package plan

import (
	"fmt"
	"slices"
	"strings"
)

// newQuotaOp makes an empty step of one of the kinds of this file, or nil: how much a container may write.
func newQuotaOp(kind string) Op {
	switch kind {
	case "quota":
		return &Quota{}
	}
	return nil
}

// Quota bounds what the files of some directories, together, may take on the disk: they become a project of their file system, and so does
// what will be made in them. The bound belongs to the files and stays as long as they do: removing the container takes it back.
type Quota struct {
	Dirs    []string `json:"dirs"` // on one file system
	Project uint32   `json:"project"`
	Bytes   int64    `json:"bytes"`
}

func (*Quota) Kind() string { return "quota" }

func (*Quota) Man() string { return "quotactl(2)" }

func (o *Quota) String() string {
	return fmt.Sprintf("bound what is in %s to %d bytes (project %d)", strings.Join(o.Dirs, " and "), o.Bytes, o.Project)
}

func (*Quota) lanes() lanes { return hostLane }

func (o *Quota) hostNames() []string { return slices.Clone(o.Dirs) }

func (o *Quota) check() error {
	switch {
	case len(o.Dirs) == 0:
		return fmt.Errorf("no directories")
	case o.Project == 0: // what belongs to no project belongs to this one
		return fmt.Errorf("project 0 can't be bounded")
	case o.Bytes <= 0:
		return fmt.Errorf("%d bytes", o.Bytes)
	}
	return nil
}
