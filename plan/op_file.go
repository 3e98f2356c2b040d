package plan

import (
	"fmt"
)

// newFileOp makes an empty step of one of the kinds of this file, or nil: files and nodes of the container.
func newFileOp(kind string) Op {
	switch kind {
	case "mkdir":
		return &Mkdir{}
	case "mknod":
		return &Mknod{}
	case "symlink":
		return &Symlink{}
	}
	return nil
}

// Mkdir makes a directory of the container, with its parents.
type Mkdir struct {
	Path string `json:"path"`
	Mode uint32 `json:"mode"`
}

func (*Mkdir) Kind() string { return "mkdir" }

func (*Mkdir) Man() string { return "mkdir(2)" }

func (o *Mkdir) String() string {
	return fmt.Sprintf("make directory %s, mode %04o", o.Path, o.Mode)
}

// Mknod makes a device node or a FIFO in the container, with the owner given. The node is then verified by its descriptor, so
// that what a saved descriptor stands for is certain.
//
// In is the mount in which it is made, saved by the step that attached it, where there is one: a tmpfs of the plan's own. What an
// image's link or a later mount makes of the name since then, which could be a directory of the host, makes no difference. Without In no
// link on the way may lead into another mount than the root's (EXDEV).
type Mknod struct {
	Path  string `json:"path"`
	Type  string `json:"type"` // c, u, b, p
	Major uint32 `json:"major"`
	Minor uint32 `json:"minor"`
	Mode  uint32 `json:"mode"`
	UID   uint32 `json:"uid"`
	GID   uint32 `json:"gid"`
	Save  string `json:"save,omitempty"` // descriptor of the new node (O_PATH)
	In    string `json:"in,omitempty"`
	// Existing says what a file that is there already must be: "" is an error, "same" the same device, which then stays as it
	// is, and "required" the same, and nothing is made.
	Existing string `json:"existing,omitempty"`
}

func (*Mknod) Kind() string { return "mknod" }

func (*Mknod) Man() string { return "mknod(2)" }

func (o *Mknod) String() string {
	if o.Existing == "required" {
		return fmt.Sprintf("make sure that %s is device %s %d:%d", o.Path, o.Type, o.Major, o.Minor)
	}
	return fmt.Sprintf("make device %s, %s %d:%d, mode %04o", o.Path, o.Type, o.Major, o.Minor, o.Mode) +
		when(o.Existing == "same", ", unless it exists")
}

// device is "c 1:3", as in rules.
func (o *Mknod) device() string { return fmt.Sprintf("%s %d:%d", o.Type, o.Major, o.Minor) }

func (o *Mknod) saves() (string, held) {
	if o.device() == nullDevice {
		return o.Save, isNull
	}
	return o.Save, 0
}

func (o *Mknod) uses() []use { return []use{{o.In, isMount | isReceived}} }

// Symlink makes a symbolic link in the container; a file that exists stays, unless it is to be replaced.
type Symlink struct {
	Target  string `json:"target"`
	Path    string `json:"path"`
	Replace bool   `json:"replace,omitempty"`
	// Existing leaves the link out if there is nothing that it leads to.
	Existing bool   `json:"existing,omitempty"`
	In       string `json:"in,omitempty"` // as in Mknod
}

func (*Symlink) Kind() string { return "symlink" }

func (*Symlink) Man() string { return "symlink(2)" }

func (o *Symlink) String() string {
	return "link " + o.Path + " -> " + o.Target
}

func (o *Symlink) uses() []use { return []use{{o.In, isMount | isReceived}} }
