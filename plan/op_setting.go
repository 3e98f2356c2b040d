package plan

import (
	"fmt"
	"strings"
)

// newSettingOp makes an empty step of one of the kinds of this file, or nil: settings of the kernel.
func newSettingOp(kind string) Op {
	switch kind {
	case "sethostname":
		return &Sethostname{}
	case "setdomainname":
		return &Setdomainname{}
	case "sysctl":
		return &Sysctl{}
	case "write-proc":
		return &WriteProc{}
	case "write-file":
		return &WriteFile{}
	}
	return nil
}

// Sethostname sets the host name of the UTS namespace.
type Sethostname struct {
	Name string `json:"name"`
}

func (*Sethostname) Kind() string { return "sethostname" }

func (*Sethostname) Man() string { return "sethostname(2)" }

func (o *Sethostname) String() string {
	return "set the host name to " + o.Name
}

// Setdomainname sets the NIS domain name of the UTS namespace.
type Setdomainname struct {
	Name string `json:"name"`
}

func (*Setdomainname) Kind() string { return "setdomainname" }

func (*Setdomainname) Man() string { return "setdomainname(2)" }

func (o *Setdomainname) String() string {
	return "set the domain name to " + o.Name
}

// Sysctl writes a kernel setting of the container through the private procfs saved as From.
type Sysctl struct {
	From  string `json:"from"`
	Key   string `json:"key"` // as in /proc/sys: net/ipv4/ip_forward
	Value string `json:"value"`
}

func (*Sysctl) Kind() string { return "sysctl" }

func (*Sysctl) Man() string { return "proc(5)" }

func (o *Sysctl) String() string {
	return fmt.Sprintf("set sysctl %s to %q", strings.ReplaceAll(o.Key, "/", "."), o.Value)
}

func (o *Sysctl) uses() []use { return []use{{o.From, isProc}} }

// WriteProc writes a file below /proc/self through the private procfs saved as From: oom_score_adj, attr/apparmor/exec. The host
// writes that of the child, without From.
type WriteProc struct {
	From  string `json:"from,omitempty"`
	File  string `json:"file"`
	Value string `json:"value"`
}

func (*WriteProc) Kind() string { return "write-proc" }

func (*WriteProc) Man() string { return "proc(5)" }

func (o *WriteProc) String() string {
	return fmt.Sprintf("write %q to /proc/%s/%s", o.Value, when(o.From == "", "CHILD")+when(o.From != "", "self"), o.File)
}

func (*WriteProc) lanes() lanes { return bothLanes }

func (o *WriteProc) uses() []use { return []use{{o.From, isProc}} }

// WriteFile writes a file of the host, such as a forwarding setting below /proc/sys.
type WriteFile struct {
	Path  string `json:"path"`
	Value string `json:"value"`
}

func (*WriteFile) Kind() string { return "write-file" }

func (*WriteFile) Man() string { return "proc(5)" }

func (o *WriteFile) String() string {
	return fmt.Sprintf("write %q to %s", o.Value, o.Path)
}

func (*WriteFile) lanes() lanes { return hostLane }

func (o *WriteFile) hostNames() []string { return []string{o.Path} }
