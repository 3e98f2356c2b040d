package plan

import (
	"fmt"
)

// newDescriptorOp makes an empty step of one of the kinds of this file, or nil: descriptors: opened, handed over, closed.
func newDescriptorOp(kind string) Op {
	switch kind {
	case "open":
		return &Open{}
	case "pidfd_open":
		return &OpenPid{}
	case "send-fd":
		return &SendFD{}
	case "send-listener":
		return &SendListener{}
	case "recv-fd":
		return &RecvFD{}
	case "inherit-fds":
		return &InheritFDs{}
	case "close_range":
		return &CloseRange{}
	}
	return nil
}

// Open opens a path of the host.
type Open struct {
	Path  string   `json:"path"`
	Other string   `json:"other,omitempty"` // a kind of namespace: it must not be this program's own
	Flags []string `json:"flags,omitempty"` // "path", "directory", "write", "nofollow"
	// Namespace is the kind of namespace that the file must stand for (ioctl_ns(2), NS_GET_NSTYPE).
	Namespace string `json:"namespace,omitempty"`
	Save      string `json:"save"`
}

func (*Open) Kind() string { return "open" }

func (*Open) Man() string { return "open(2)" }

func (o *Open) String() string {
	return fmt.Sprintf("open %s as %s%s%s", o.Path, o.Save, paren(o.Flags), when(o.Namespace != "", ", if it is a "+o.Namespace+" namespace"))
}

func (*Open) lanes() lanes { return hostLane }

func (o *Open) saves() (string, held) {
	if o.Path == "/proc" { // the host's own, which exec and a container that shares PID namespaces write through
		return o.Save, isFile | isProc
	}
	return o.Save, isFile
}

func (o *Open) hostNames() []string { return []string{o.Path} }

// OpenPid opens a pidfd. Start is the start time in clock ticks after boot (proc(5), stat field 22); if the process with
// that pid began at another time, it is another process, and the step fails.
type OpenPid struct {
	Pid   int    `json:"pid"`
	Start uint64 `json:"start"`
	Save  string `json:"save"`
}

func (*OpenPid) Kind() string { return "pidfd_open" }

func (*OpenPid) Man() string { return "pidfd_open(2)" }

func (o *OpenPid) String() string {
	return fmt.Sprintf("open process %d as %s", o.Pid, o.Save)
}

func (*OpenPid) lanes() lanes { return hostLane }

func (o *OpenPid) saves() (string, held) { return o.Save, isNamespace }

func (o *OpenPid) hostNames() []string { return []string{fmt.Sprintf("/proc/%d", o.Pid)} }

// SendFD sends a descriptor of the child to the parent, which takes it with RecvFD.
type SendFD struct {
	From string `json:"from"`
	Keep bool   `json:"keep,omitempty"` // later steps use it, too
}

func (*SendFD) Kind() string { return "send-fd" }

func (*SendFD) Man() string { return "unix(7)" }

func (o *SendFD) String() string {
	return "send descriptor " + o.From + " to the parent"
}

// SendListener hands the descriptor of a system call filter's listener (seccomp_unotify(2)) to the agent behind a unix socket, with
// the state of the container's process (runtime-spec, config-linux.md, The Container Process State).
type SendListener struct {
	From     string `json:"from"` // as received
	Path     string `json:"path"`
	Metadata string `json:"metadata,omitempty"`
	Version  string `json:"version"` // of the specification
}

func (*SendListener) Kind() string { return "send-listener" }

func (*SendListener) Man() string { return "seccomp_unotify(2)" }

func (o *SendListener) String() string {
	return "hand the filter's listener " + o.From + " to the agent at " + o.Path
}

func (*SendListener) lanes() lanes { return hostLane }

func (o *SendListener) uses() []use { return []use{{o.From, isReceived}} }

func (o *SendListener) hostNames() []string { return []string{o.Path} }

// RecvFD receives the descriptor that the child sends or, in the child, the clone of a mount that the parent sends (see OpenTree).
type RecvFD struct {
	Save string `json:"save"`
}

func (*RecvFD) Kind() string { return "recv-fd" }

func (*RecvFD) Man() string { return "unix(7)" }

func (o *RecvFD) String() string {
	return "receive descriptor " + o.Save
}

func (*RecvFD) lanes() lanes { return bothLanes }

func (o *RecvFD) saves() (string, held) { return o.Save, isReceived }

// InheritFDs makes sure that the descriptors from 3 to 2+Count were given to this program by whoever started it: each is open
// and not close-on-exec, as all of this program's own are.
type InheritFDs struct {
	Count int `json:"count"`
}

func (*InheritFDs) Kind() string { return "inherit-fds" }

func (*InheritFDs) Man() string { return "F_GETFD(2const)" }

func (o *InheritFDs) String() string {
	return fmt.Sprintf("make sure that descriptors 3 to %d are the caller's", o.Count+2)
}

// CloseRange closes all descriptors from First on, but for the one that leads to the parent, which execve closes.
type CloseRange struct {
	First int `json:"first"`
}

func (*CloseRange) Kind() string { return "close_range" }

func (*CloseRange) Man() string { return "close_range(2)" }

func (o *CloseRange) String() string {
	return fmt.Sprintf("close all descriptors from %d on", o.First)
}
