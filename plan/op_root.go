package plan

import (
	"fmt"
	"slices"
	"strings"
)

// newRootOp makes an empty step of one of the kinds of this file, or nil: the root file system.
func newRootOp(kind string) Op {
	switch kind {
	case "mount":
		return &Mount{}
	case "overlay":
		return &Overlay{}
	case "root-dir":
		return &RootDir{}
	case "root-mount":
		return &RootMount{}
	case "root-unmount":
		return &RootUnmount{}
	case "chroot":
		return &Chroot{}
	case "pivot_root":
		return &PivotRoot{}
	case "move-root":
		return &MoveRoot{}
	}
	return nil
}

// Mount is mount(2) with a path of the host, before the root is changed.
type Mount struct {
	Source string   `json:"source,omitempty"`
	Target string   `json:"target"`
	Type   string   `json:"type,omitempty"`
	Flags  []string `json:"flags,omitempty"` // bind rec private slave shared ro nosuid nodev noexec remount …
	Data   string   `json:"data,omitempty"`
}

func (*Mount) Kind() string { return "mount" }

func (*Mount) Man() string { return "mount(2)" }

func (o *Mount) String() string {
	return "mount" + prefix(" ", o.Type) + prefix(" ", o.Source) + " on " + o.Target +
		paren(append(slices.Clone(o.Flags), nonEmpty(o.Data)...))
}

func (o *Mount) hostNames() []string {
	return slices.DeleteFunc([]string{o.Source, o.Target}, func(s string) bool {
		return !strings.HasPrefix(s, "/") || s == "/" && o.Source == "" // how mounts spread from / is no use of it
	})
}

// maxData is how much of the option string of mount(2) the kernel reads: it copies one page and puts the end mark into the last byte,
// without an error (copy_mount_options in fs/namespace.c).
const maxData = 4095

func (o *Mount) check() error {
	if len(o.Data) > maxData {
		return fmt.Errorf("%d bytes of options: mount(2) reads %d and would ignore the rest", len(o.Data), maxData)
	}
	return nil
}

// Overlay mounts an overlay file system and attaches it to Target. Dir becomes the working directory first and all other
// paths are relative to it, because option strings are short (4095 bytes in all with mount(2), 255 each with fsconfig(2)).
type Overlay struct {
	Dir    string   `json:"dir"`
	Lower  []string `json:"lower"` // top first, as in overlayfs
	Upper  string   `json:"upper,omitempty"`
	Work   string   `json:"work,omitempty"`
	Target string   `json:"target"`
	// Append adds one lower layer at a time with "lowerdir+" (Linux 6.5), for which there is no limit but the kernel's 500 layers.
	Append  bool     `json:"append,omitempty"`
	Options []string `json:"options,omitempty"` // such as "userxattr", "volatile", "metacopy=off"
}

func (*Overlay) Kind() string { return "overlay" }

func (*Overlay) Man() string { return "mount(2)" }

func (o *Overlay) String() string {
	layers := "layers"
	if len(o.Lower) == 1 {
		layers = "layer"
	}
	return fmt.Sprintf("mount overlay of %d %s on %s", len(o.Lower), layers, o.Target) + when(o.Upper == "", " (read-only)")
}

func (o *Overlay) hostNames() []string {
	out := []string{}
	for _, l := range append(slices.Clone(o.Lower), o.Upper, o.Work, o.Target) {
		if l != "" {
			if !strings.HasPrefix(l, "/") {
				l = o.Dir + "/" + l
			}
			out = append(out, l)
		}
	}
	return out
}

// check refuses paths that mean one thing as a list and another in the option string that the kernel gets, where commas part options,
// colons part the layers, and a backslash takes away the meaning of what follows it.
func (o *Overlay) check() error {
	for _, opt := range o.Options {
		key, _, _ := strings.Cut(opt, "=")
		switch strings.TrimSuffix(key, "+") {
		case "lowerdir", "datadir", "upperdir", "workdir":
			return fmt.Errorf("the option %q names a directory, which has its own place in the step", opt)
		}
		if strings.Contains(opt, ",") {
			return fmt.Errorf("the option %q is more than one", opt)
		}
	}
	if o.Append {
		return nil // each path goes to the kernel alone, by fsconfig(2), which takes it as it is
	}
	for _, dir := range o.Lower {
		if strings.ContainsAny(dir, `:,\`) {
			return fmt.Errorf("the layer %q would be read as several paths or options: move it to a path without ':', ',' and '\\'", dir)
		}
	}
	for _, dir := range []string{o.Upper, o.Work} {
		if strings.ContainsAny(dir, `,\`) {
			return fmt.Errorf("the directory %q would be read as several options: move it to a path without ',' and '\\'", dir)
		}
	}
	return nil
}

// RootDir makes the root file system the working directory, below which names of the container are looked up, while the root of
// the mount namespace is still the host's: hooks of the container are found there.
type RootDir struct {
	Path string `json:"path"`
}

func (*RootDir) Kind() string { return "root-dir" }

func (*RootDir) Man() string { return "chdir(2)" }

func (o *RootDir) String() string { return "work in " + o.Path + ", the root to be" }

func (o *RootDir) hostNames() []string { return []string{o.Path} }

// RootMount mounts the root file system, with the mounts below it, at a directory of the host that it makes, in the host's mount
// namespace: for a container that has none of its own. The directory is a private mount by then, so nothing spreads from there, and
// unmounting it takes all back.
type RootMount struct {
	Source string `json:"source"`
	Target string `json:"target"`
}

func (*RootMount) Kind() string { return "root-mount" }

func (*RootMount) Man() string { return "open_tree(2)" }

func (o *RootMount) String() string {
	return "mount " + o.Source + " on " + o.Target + " of the host (private)"
}

func (*RootMount) lanes() lanes { return hostLane }

func (o *RootMount) hostNames() []string { return []string{o.Source, o.Target} }

// Undo is one unmount.
func (o *RootMount) Undo() []Op { return []Op{&RootUnmount{Target: o.Target}} }

// RootUnmount unmounts what a RootMount has mounted with all that was mounted on it, even if it is in use, and removes the directory.
// What is gone already is no error.
type RootUnmount struct {
	Target string `json:"target"`
}

func (*RootUnmount) Kind() string { return "root-unmount" }

func (*RootUnmount) Man() string { return "umount(2)" }

func (o *RootUnmount) String() string { return "unmount " + o.Target + " and what is below" }

func (*RootUnmount) lanes() lanes { return hostLane }

func (o *RootUnmount) hostNames() []string { return []string{o.Target} }

// Chroot makes a directory the root of the process. Unlike after PivotRoot the way back stays open for who has CAP_SYS_CHROOT, so it
// is for containers that share the host's mount namespace only.
type Chroot struct {
	Root string `json:"root"`
}

func (*Chroot) Kind() string { return "chroot" }

func (*Chroot) Man() string { return "chroot(2)" }

func (o *Chroot) String() string { return "make " + o.Root + " the root of the process alone" }

func (o *Chroot) hostNames() []string {
	return slices.DeleteFunc([]string{o.Root}, func(s string) bool { return s == "." })
}

// PivotRoot makes the mount at Root the root of the mount namespace and detaches the old root, so that no path of the host
// remains (unlike chroot(2), which leaves the way back open).
type PivotRoot struct {
	Root string `json:"root"`
}

func (*PivotRoot) Kind() string { return "pivot_root" }

func (*PivotRoot) Man() string { return "pivot_root(2)" }

func (o *PivotRoot) String() string {
	return "make " + o.Root + " the root, detach the old root"
}

func (o *PivotRoot) hostNames() []string {
	return slices.DeleteFunc([]string{o.Root}, func(s string) bool { return s == "." })
}

// MoveRoot makes the mount at Root the root by moving it over the old one, for hosts whose root is a ramdisk that pivot_root(2)
// refuses to leave. The old root stays beneath, out of reach of names; procfs and sysfs of the host are unmounted first, because
// the kernel would take them as a licence for new ones.
type MoveRoot struct {
	Root string `json:"root"`
}

func (*MoveRoot) Kind() string { return "move-root" }

func (*MoveRoot) Man() string { return "mount(2)" }

func (o *MoveRoot) String() string {
	return "move " + o.Root + " over the root, leave the old root beneath"
}
