package plan

import (
	"fmt"
)

// newPrivilegeOp makes an empty step of one of the kinds of this file, or nil: privileges.
func newPrivilegeOp(kind string) Op {
	switch kind {
	case "pdeathsig":
		return &ParentDeath{}
	case "dumpable":
		return &Dumpable{}
	case "no-new-privs":
		return &NoNewPrivs{}
	case "keyctl":
		return &Keyring{}
	case "seccomp":
		return &Seccomp{}
	case "drop-bounding":
		return &DropBounding{}
	case "keepcaps":
		return &KeepCaps{}
	case "setgroups":
		return &Setgroups{}
	case "setresgid":
		return &Setresgid{}
	case "setresuid":
		return &Setresuid{}
	case "capset":
		return &Capset{}
	case "ambient-caps":
		return &AmbientCaps{}
	}
	return nil
}

// ParentDeath asks for a signal when the parent dies (PR_SET_PDEATHSIG).
type ParentDeath struct {
	Signal int `json:"signal"`
}

func (*ParentDeath) Kind() string { return "pdeathsig" }

func (*ParentDeath) Man() string { return "PR_SET_PDEATHSIG(2const)" }

func (o *ParentDeath) String() string {
	return fmt.Sprintf("die with signal %d when the supervisor dies", o.Signal)
}

// Dumpable sets PR_SET_DUMPABLE: 0 hides the process's /proc entries and memory from others in the container.
type Dumpable struct {
	Value int `json:"value"`
}

func (*Dumpable) Kind() string { return "dumpable" }

func (*Dumpable) Man() string { return "PR_SET_DUMPABLE(2const)" }

func (o *Dumpable) String() string {
	return fmt.Sprintf("set dumpable to %d", o.Value)
}

// NoNewPrivs sets PR_SET_NO_NEW_PRIVS: execve can't gain privileges by setuid bits or file capabilities.
type NoNewPrivs struct{}

func (*NoNewPrivs) Kind() string { return "no-new-privs" }

func (*NoNewPrivs) Man() string { return "PR_SET_NO_NEW_PRIVS(2const)" }

func (*NoNewPrivs) String() string {
	return "allow no new privileges"
}

// Keyring joins a session keyring, so that the host's keys are out of reach: a new one of the process's own that nobody else can join or,
// with a Name, the one of that name, which is everybody's who knows it (keyctl(2), KEYCTL_JOIN_SESSION_KEYRING).
type Keyring struct {
	Name string `json:"name,omitempty"`
}

func (*Keyring) Kind() string { return "keyctl" }

func (*Keyring) Man() string { return "keyctl(2)" }

func (o *Keyring) String() string {
	return "join " + when(o.Name == "", "a new session keyring of its own") + prefix("the session keyring ", o.Name)
}

// Seccomp installs a system call filter.
type Seccomp struct {
	Name    string   `json:"name"` // "default", a file's name
	Flags   uint32   `json:"flags,omitempty"`
	Program []byte   `json:"program"` // struct sock_filter, 8 bytes each, little endian
	Notify  string   `json:"notify,omitempty"`
	Summary []string `json:"summary,omitempty"`
}

func (*Seccomp) Kind() string { return "seccomp" }

func (*Seccomp) Man() string { return "seccomp(2)" }

func (o *Seccomp) String() string {
	return fmt.Sprintf("install the system call filter %s, %d instructions", o.Name, len(o.Program)/8)
}

func (o *Seccomp) saves() (string, held) { return o.Notify, isListener }

// DropBounding removes capabilities from the bounding set: nothing executed later can have them.
type DropBounding struct {
	Caps []string `json:"caps"`
}

func (*DropBounding) Kind() string { return "drop-bounding" }

func (*DropBounding) Man() string { return "capabilities(7)" }

func (o *DropBounding) String() string {
	return fmt.Sprintf("drop %d capabilities from the bounding set", len(o.Caps))
}

// KeepCaps sets PR_SET_KEEPCAPS, so that the permitted set survives the change of user.
type KeepCaps struct{}

func (*KeepCaps) Kind() string { return "keepcaps" }

func (*KeepCaps) Man() string { return "PR_SET_KEEPCAPS(2const)" }

func (*KeepCaps) String() string {
	return "keep capabilities over the change of user"
}

// Setgroups sets the supplementary groups.
type Setgroups struct {
	Groups []uint32 `json:"groups"`
	// IfAllowed leaves it out where the user namespace denies setgroups (EPERM).
	IfAllowed bool `json:"ifAllowed,omitempty"`
}

func (*Setgroups) Kind() string { return "setgroups" }

func (*Setgroups) Man() string { return "setgroups(2)" }

func (o *Setgroups) String() string {
	return fmt.Sprintf("set supplementary groups %v%s", o.Groups, when(o.IfAllowed, " unless denied"))
}

// Setresgid sets real, effective and saved group ID.
type Setresgid struct {
	GID uint32 `json:"gid"`
}

func (*Setresgid) Kind() string { return "setresgid" }

func (*Setresgid) Man() string { return "setresgid(2)" }

func (o *Setresgid) String() string {
	return fmt.Sprintf("become group %d", o.GID)
}

// Setresuid sets real, effective and saved user ID.
type Setresuid struct {
	UID uint32 `json:"uid"`
}

func (*Setresuid) Kind() string { return "setresuid" }

func (*Setresuid) Man() string { return "setresuid(2)" }

func (o *Setresuid) String() string {
	return fmt.Sprintf("become user %d", o.UID)
}

// Capset sets the capability sets of the process.
type Capset struct {
	Effective   []string `json:"effective"`
	Permitted   []string `json:"permitted"`
	Inheritable []string `json:"inheritable"`
}

func (*Capset) Kind() string { return "capset" }

func (*Capset) Man() string { return "capset(2)" }

func (o *Capset) String() string {
	return fmt.Sprintf("set capabilities: %d effective, %d permitted, %d inheritable", len(o.Effective), len(o.Permitted), len(o.Inheritable))
}

// AmbientCaps raises ambient capabilities, which survive execve of an ordinary program.
type AmbientCaps struct {
	Caps []string `json:"caps"`
}

func (*AmbientCaps) Kind() string { return "ambient-caps" }

func (*AmbientCaps) Man() string { return "capabilities(7)" }

func (o *AmbientCaps) String() string {
	return "raise ambient capabilities " + list(o.Caps)
}
