package plan

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// newMountOp makes an empty step of one of the kinds of this file, or nil: mounts below the root.
func newMountOp(kind string) Op {
	switch kind {
	case "open_tree":
		return &OpenTree{}
	case "fsmount":
		return &FSMount{}
	case "move_mount":
		return &MoveMount{}
	case "mount_setattr":
		return &Remount{}
	case "mask-path":
		return &MaskPath{}
	case "readonly-path":
		return &ReadonlyPath{}
	case "open-dir":
		return &OpenDir{}
	case "copy-up":
		return &CopyUp{}
	}
	return nil
}

// OpenTree clones the mount at Path into a detached mount (open_tree(2) with OPEN_TREE_CLONE, Linux 5.2), so that the source
// of a bind mount is fixed before the container can influence any name. In the child it is made before the root changes.
type OpenTree struct {
	Path string `json:"path"`
	// Beneath is a place below Path that is cloned in its stead: links in it lead nowhere but below Path (openat2(2), RESOLVE_BENEATH),
	// because somebody else may write there. The host's lane only.
	Beneath string `json:"beneath,omitempty"`
	// NoLinks refuses a Path with a symbolic link anywhere in it (openat2(2), RESOLVE_NO_SYMLINKS). The host's lane only.
	NoLinks   bool   `json:"noLinks,omitempty"`
	Recursive bool   `json:"recursive,omitempty"`
	Save      string `json:"save"`
	// MakeDir makes a directory with its parents, mode 0755, where the path leads to nothing. It stays when the container is gone.
	MakeDir bool   `json:"makeDir,omitempty"`
	FSType  string `json:"fsType,omitempty"` // "proc": it must be the root of a procfs
	// Device is what the path must be, like "c 1:3": in the place of another device it would be handed to the container.
	Device string `json:"device,omitempty"`
	// Child has the parent do it in the child's mount namespace, with its own rights, and send the clone to the child, which takes it
	// with RecvFD: of mounts there the child can't change what the host set on them (read-only, nosuid, nodev).
	Child bool `json:"child,omitempty"`
	// Readonly makes the clone read-only, for who gets hold of the descriptor.
	Readonly bool `json:"readonly,omitempty"`
	// IDMap gives the files of the mount the ids of the user namespace saved under that name (MOUNT_ATTR_IDMAP, Linux 5.12).
	IDMap          string `json:"idMap,omitempty"`
	IDMapRecursive bool   `json:"idMapRecursive,omitempty"` // those of the mounts below, too
	// Mounts is a mount namespace, saved under that name, whose path Path is: another container's. Nothing there is trusted, so no link is
	// followed on the way (openat2(2), RESOLVE_NO_SYMLINKS).
	Mounts string `json:"mounts,omitempty"`
}

func (*OpenTree) Kind() string { return "open_tree" }

func (*OpenTree) Man() string { return "open_tree(2)" }

func (o *OpenTree) String() string {
	return "clone the mount at " + o.Path + prefix(", of it what is beneath ", o.Beneath) +
		when(o.NoLinks, ", by no symbolic link") + " as " + o.Save +
		when(o.Mounts != "", ", in "+o.Mounts) +
		when(o.Recursive, ", with the mounts below") +
		when(o.MakeDir, ", a directory that is made if it is missing") + when(o.Readonly, ", read-only") +
		when(o.Child, ", in the child's mount namespace, and send it") +
		when(o.Device != "", ", if it is device "+o.Device) + when(o.IDMap != "", ", with the ids of "+o.IDMap+when(o.IDMapRecursive, " for all"))
}

func (*OpenTree) lanes() lanes { return bothLanes }

func (o *OpenTree) saves() (string, held) {
	switch {
	case o.FSType == "proc": // checked by the step
		return o.Save, isMount | isProc
	case o.Device == nullDevice:
		return o.Save, isMount | isNull
	}
	return o.Save, isMount
}

func (o *OpenTree) uses() []use {
	return []use{{o.IDMap, isNamespace | isFile}, {o.Mounts, isNamespace | isFile}}
}

// UnderRoot is how the host comes to a path of a mount namespace that it knows by a file, such as /proc/42/ns/mnt (proc_pid_root(5)).
func UnderRoot(namespace, name string) string {
	if process, ok := strings.CutSuffix(namespace, "/ns/mnt"); ok {
		return path.Join(process, "root", name)
	}
	return path.Join(namespace, name)
}

func (o *OpenTree) check() error {
	if o.Mounts != "" && (o.Child || o.MakeDir || o.Device != "" || o.FSType != "" || o.IDMap != "") {
		return fmt.Errorf("what is another mount namespace's can be cloned as it is only")
	}
	return nil
}

func (o *OpenTree) hostNames() []string {
	if o.Mounts != "" { // a path of another's; how to come to it, the step tells that has opened the namespace
		return nil
	}
	return []string{o.Path}
}

// FSMount makes a new file system and attaches it (fsopen, fsconfig, fsmount, move_mount; Linux 5.2). From here on targets
// are paths in the container. A target is resolved inside the root without magic links, its missing directories are made,
// and the mount is attached to the descriptor found, so that a swapped symbolic link leads nowhere.
type FSMount struct {
	Type    string   `json:"type"`
	Source  string   `json:"source,omitempty"`
	Options []string `json:"options,omitempty"` // "key" or "key=value", given to the file system
	Attrs   []string `json:"attrs,omitempty"`   // ro nosuid nodev noexec noatime nodiratime relatime strictatime nosymfollow
	Target  string   `json:"target,omitempty"`  // empty: leave it detached
	Save    string   `json:"save,omitempty"`    // descriptor of the (detached or attached) mount
	// Optional mounts are left out where the kernel lacks the file system (ENODEV).
	Optional    bool     `json:"optional,omitempty"`
	Propagation []string `json:"propagation,omitempty"` // as in MoveMount
	// KeepMode gives the new root the mode of the directory that it covers, if there is one.
	KeepMode bool `json:"keepMode,omitempty"`
	// Flags of the file system that only mount(2) has a name for: silent, iversion. With them, and with options that are too long for
	// fsconfig(2), mount(2) is used, on the descriptor of the target.
	Flags []string `json:"flags,omitempty"`
	Label string   `json:"label,omitempty"` // SELinux label to set on the root
}

// maxOption is how long an option may be with fsconfig(2).
const maxOption = 255

// Classic reports whether mount(2) makes it, which can't leave it detached.
func (o *FSMount) Classic() bool {
	return len(o.Flags) > 0 || slices.ContainsFunc(o.Options, func(s string) bool { return len(s) > maxOption })
}

func (*FSMount) Kind() string { return "fsmount" }

func (*FSMount) Man() string { return "fsmount(2)" }

func (o *FSMount) String() string {
	return "mount " + o.Type + prefix(" on ", o.Target) + when(o.Target == "", " detached as "+o.Save) +
		paren(slices.Concat(o.Attrs, o.Options, o.Flags, o.Propagation))
}

func (o *FSMount) saves() (string, held) {
	if o.Type == "proc" {
		return o.Save, isMount | isProc
	}
	return o.Save, isMount
}

// MoveMount attaches a detached mount to a path of the container after setting its attributes.
type MoveMount struct {
	From   string `json:"from"`
	Target string `json:"target"`
	// Create is what a missing target becomes: "dir", "file", "like" (what the source is), or "" (an error).
	Create      string   `json:"create,omitempty"`
	Set         []string `json:"set,omitempty"` // attributes to set: ro nosuid nodev noexec …; others stay
	Clear       []string `json:"clear,omitempty"`
	RecSet      []string `json:"recSet,omitempty"` // the same for the mounts below, too
	RecClear    []string `json:"recClear,omitempty"`
	Propagation []string `json:"propagation,omitempty"` // private slave shared unbindable, in order; rprivate … for the mounts below, too
	NoSymlinks  bool     `json:"noSymlinks,omitempty"`  // none in the target: it must lie where its name says (CVE-2019-19921)
	Keep        bool     `json:"keep,omitempty"`        // later steps use From, too
	KeepMode    bool     `json:"keepMode,omitempty"`    // as in FSMount, for one that was made detached
	// Unlocked are attributes to clear, too, unless the kernel refuses because another user namespace has locked one of them, or of Clear
	// (mount_namespaces(7)): then they all stay.
	Unlocked []string `json:"unlocked,omitempty"`
	// Replace takes away what is in the way in the root file system itself, as Docker does for the files that it brings: a link, dangling
	// or not, becomes a file, and a file on the way a directory. Nothing is taken away in what is mounted below the root.
	Replace bool `json:"replace,omitempty"`
}

func (*MoveMount) Kind() string { return "move_mount" }

func (*MoveMount) Man() string { return "move_mount(2)" }

func (o *MoveMount) String() string {
	return "attach " + o.From + " to " + o.Target +
		paren(slices.Concat(o.Set, recursive(o.RecSet), o.Propagation, negated(o.Clear), negated(recursive(o.RecClear)), negated(o.Unlocked)))
}

func (o *MoveMount) uses() []use { return []use{{o.From, isMount | isReceived}} }

// Remount changes the attributes of what is mounted at a path of the container (mount_setattr(2), Linux 5.12). If From is set,
// the mount is the one saved under that name, whatever is now to be found at Target.
type Remount struct {
	Target      string   `json:"target"`
	From        string   `json:"from,omitempty"`
	Set         []string `json:"set,omitempty"`
	Clear       []string `json:"clear,omitempty"`
	RecSet      []string `json:"recSet,omitempty"`
	RecClear    []string `json:"recClear,omitempty"`
	Propagation []string `json:"propagation,omitempty"`
	Options     []string `json:"options,omitempty"` // of the file system itself (fspick(2)), wherever it is mounted
}

func (*Remount) Kind() string { return "mount_setattr" }

func (*Remount) Man() string { return "mount_setattr(2)" }

func (o *Remount) String() string {
	return "change the mount at " + o.Target +
		paren(slices.Concat(o.Set, recursive(o.RecSet), o.Options, o.Propagation, negated(o.Clear), negated(recursive(o.RecClear))))
}

func (o *Remount) uses() []use { return []use{{o.From, isMount | isReceived}} }

// MaskPath hides a path: a file behind a clone of the null device saved as Null, a directory behind an empty read-only tmpfs,
// which all directories that a plan hides share: the first makes it, each further one gets a clone.
// Null is saved by the Mknod that made the device or the OpenTree that took the host's, so that nothing can stand in for it
// (CVE-2025-31133: a fake /dev/null).
// A path that doesn't exist is left alone.
type MaskPath struct {
	Path  string `json:"path"`
	Null  string `json:"null"`
	Label string `json:"label,omitempty"` // SELinux label of the tmpfs
}

func (*MaskPath) Kind() string { return "mask-path" }

func (*MaskPath) Man() string { return "move_mount(2)" }

func (o *MaskPath) String() string {
	if o.Label != "" {
		return "hide " + o.Path + ", as " + o.Label
	}
	return "hide " + o.Path
}

func (o *MaskPath) uses() []use { return []use{{o.Null, isNull}} }

// ReadonlyPath puts a read-only clone of the mount tree at a path over it. A path that doesn't exist is left alone.
type ReadonlyPath struct {
	Path string `json:"path"`
}

func (*ReadonlyPath) Kind() string { return "readonly-path" }

func (*ReadonlyPath) Man() string { return "mount_setattr(2)" }

func (o *ReadonlyPath) String() string {
	return "make " + o.Path + " read-only"
}

// OpenDir opens a directory of the container, if there is one, or else the directory that is saved as Else.
type OpenDir struct {
	Path string `json:"path"`
	// Image looks at the root file system alone, without what is mounted in it: an image's link must not lead into the host's own procfs.
	Image bool   `json:"image,omitempty"`
	Else  string `json:"else"`
	Save  string `json:"save"`
}

func (*OpenDir) Kind() string { return "open-dir" }

func (*OpenDir) Man() string { return "openat2(2)" }

func (o *OpenDir) String() string {
	where := ""
	if o.Image {
		where = " of the root file system alone"
	}
	return fmt.Sprintf("open %s%s, or else %s, as %s", o.Path, where, o.Else, o.Save)
}

func (o *OpenDir) saves() (string, held) { return o.Save, isDir }

func (o *OpenDir) uses() []use { return []use{{o.Else, isMount | isDir}} }

// CopyUp copies what is in a directory, which the child has sent, into a new file system or a volume: what an image has there shall be
// in the mount that covers it.
type CopyUp struct {
	From string `json:"from"`
	To   string `json:"to"`
	// Volume is the directory of a volume, with its files in _data. It is filled if it is empty, and all at once: by way of _fill, which
	// becomes _filled when it is whole, from where everything is renamed into _data. So what a killed copy left is known for what it is.
	Volume string `json:"volume,omitempty"`
	// Within prepares the copy in To itself, by names that begin with a dot, because the volume's files lie elsewhere than in _data: a
	// directory of the host, a file system that is mounted.
	Within   bool   `json:"within,omitempty"`
	KeepMode bool   `json:"keepMode,omitempty"` // the new root has a mode already
	UID      uint32 `json:"uid,omitempty"`      // who makes the files, before they get their owners: somebody who exists in the
	GID      uint32 `json:"gid,omitempty"`      // user namespace that the new file system belongs to
}

func (*CopyUp) Kind() string { return "copy-up" }

func (*CopyUp) Man() string { return "tmpfs(5)" }

func (o *CopyUp) String() string {
	if o.UID != 0 || o.GID != 0 {
		return fmt.Sprintf("copy what is in %s into %s, made by %d:%d", o.From, o.To, o.UID, o.GID)
	}
	return "copy what is in " + o.From + " into " + o.To +
		when(o.Volume != "", ", the volume "+path.Base(o.Volume)+", if that is empty"+when(o.Within, ", prepared there"))
}

func (*CopyUp) lanes() lanes { return hostLane }

func (o *CopyUp) hostNames() []string {
	if o.Volume == "" {
		return nil
	}
	return []string{o.Volume}
}

func (o *CopyUp) uses() []use { return []use{{o.From, isReceived}, {o.To, isReceived | isMount}} }

func negated(words []string) []string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = "not " + w
	}
	return out
}

func recursive(words []string) []string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = "r" + w
	}
	return out
}
