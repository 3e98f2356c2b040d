package plan

import (
	"path"
	"slices"
	"strings"
)

// newHostMountOp makes an empty step of one of the kinds of this file, or nil: file systems that the host mounts for a container.
func newHostMountOp(kind string) Op {
	switch kind {
	case "host-mount":
		return &HostMount{}
	case "host-unmount":
		return &HostUnmount{}
	}
	return nil
}

// HostMount mounts a file system in the host's mount namespace, at a directory that it makes where it is missing: the file system of a
// volume, which all containers that use the volume share while any of them runs, or the layers of an image that a container mounts.
type HostMount struct {
	Type   string   `json:"type"`
	Source string   `json:"source"`
	Flags  []string `json:"flags,omitempty"` // as in Mount: ro nosuid nodev noexec …
	// Options go to the file system. Those of an overlay's layers, "lowerdir+=DIR" (Linux 6.5), are given one by one by fsconfig(2), any other
	// list as one string by mount(2), which is the interface that file systems with binary options of their own (NFS) are sure to have.
	Options []string `json:"options,omitempty"`
	Target  string   `json:"target"`
	// Users is a directory in which a file of the name User stands for whoever needs the mount: a mount that is there already is joined,
	// and the last one to go unmounts it. Empty: it is this container's alone.
	Users string `json:"users,omitempty"`
	User  string `json:"user,omitempty"`
}

func (*HostMount) Kind() string { return "host-mount" }

func (*HostMount) Man() string { return "mount(2)" }

func (o *HostMount) String() string {
	return "mount " + o.Type + " " + o.Source + " on " + o.Target + " of the host" + paren(slices.Concat(o.Flags, o.Options)) +
		when(o.Users != "", ", unless another container has done so")
}

func (*HostMount) lanes() lanes { return hostLane }

func (o *HostMount) hostNames() []string {
	names := append([]string{o.Target}, o.Layers()...)
	if strings.HasPrefix(o.Source, "/") {
		names = append(names, o.Source)
	}
	return append(names, nonEmpty(o.Users)...)
}

// OneByOne reports whether the options are given one by one.
func (o *HostMount) OneByOne() bool {
	return slices.ContainsFunc(o.Options, func(s string) bool { return strings.HasPrefix(s, "lowerdir+=") })
}

// Layers are the directories that an overlay is made of, top first.
func (o *HostMount) Layers() []string {
	var out []string
	for _, opt := range o.Options {
		if dir, ok := strings.CutPrefix(opt, "lowerdir+="); ok {
			out = append(out, dir)
		} else if dirs, ok := strings.CutPrefix(opt, "lowerdir="); ok {
			out = append(out, strings.Split(dirs, ":")...)
		}
	}
	return out
}

func (o *HostMount) check() error {
	if o.OneByOne() {
		return nil
	}
	return (&Mount{Data: strings.Join(o.Options, ",")}).check()
}

// Undo is one unmount, by the last one who needs it.
func (o *HostMount) Undo() []Op {
	return []Op{&HostUnmount{Target: o.Target, Users: o.Users, User: o.User}}
}

// HostUnmount takes a HostMount back. Without Users the directory goes, too. What is gone already is no error.
type HostUnmount struct {
	Target string `json:"target"`
	Users  string `json:"users,omitempty"`
	User   string `json:"user,omitempty"`
}

func (*HostUnmount) Kind() string { return "host-unmount" }

func (*HostUnmount) Man() string { return "umount(2)" }

func (o *HostUnmount) String() string {
	return "unmount " + o.Target + when(o.Users != "", ", unless others than "+path.Base(o.User)[:min(12, len(path.Base(o.User)))]+" need it")
}

func (*HostUnmount) lanes() lanes { return hostLane }

func (o *HostUnmount) hostNames() []string { return append([]string{o.Target}, nonEmpty(o.Users)...) }
