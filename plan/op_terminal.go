package plan

import (
	"fmt"
)

// newTerminalOp makes an empty step of one of the kinds of this file, or nil: terminal and standard streams.
func newTerminalOp(kind string) Op {
	switch kind {
	case "open-console":
		return &OpenConsole{}
	case "bind-console":
		return &BindConsole{}
	case "dup3":
		return &Stdio{}
	case "setsid":
		return &Setsid{}
	}
	return nil
}

// OpenConsole opens a new pty in the container's /dev/pts and saves master and slave.
type OpenConsole struct {
	Rows   uint16 `json:"rows,omitempty"`
	Cols   uint16 `json:"cols,omitempty"`
	Master string `json:"master"`
	Slave  string `json:"slave"`
	UID    uint32 `json:"uid"` // owner of the slave
	// Plain leaves line ends as programs write them: no carriage return is added (ONLCR off, termios(3)). Whoever carries the output to
	// another terminal, or into a file, wants that.
	Plain bool `json:"plain,omitempty"`
}

func (*OpenConsole) Kind() string { return "open-console" }

func (*OpenConsole) Man() string { return "pts(4)" }

func (o *OpenConsole) String() string {
	return fmt.Sprintf("open a terminal in /dev/pts, %d×%d%s", o.Rows, o.Cols, when(o.Plain, ", line ends as they come"))
}

func (o *OpenConsole) saves() (string, held) { return o.Slave, isTerminal }

// BindConsole mounts the pty's slave on /dev/console, from its descriptor and not by a name (CVE-2025-52565).
type BindConsole struct {
	From string `json:"from"`
}

func (*BindConsole) Kind() string { return "bind-console" }

func (*BindConsole) Man() string { return "move_mount(2)" }

func (*BindConsole) String() string {
	return "mount the terminal on /dev/console"
}

func (o *BindConsole) uses() []use { return []use{{o.From, isTerminal}} }

// Stdio makes a saved descriptor the standard descriptor To (0, 1, 2). Names "stdin", "stdout" and "stderr" are given by
// whoever runs the plan; where the descriptor has the number To already, nothing is done.
//
// With Null the program never gets a null device of the host: root of the container could take it from everybody on the host
// (chmod 0 /proc/self/fd/0). If the descriptor is one, the null device with this name in the container is opened and taken instead.
type Stdio struct {
	From string `json:"from"`
	To   int    `json:"to"`
	Null string `json:"null,omitempty"`
}

func (*Stdio) Kind() string { return "dup3" }

func (*Stdio) Man() string { return "dup(2)" }

func (o *Stdio) String() string {
	return fmt.Sprintf("make %s descriptor %d", o.From, o.To) + when(o.Null != "", " (if it is null: its own "+o.Null+")")
}

func (o *Stdio) uses() []use { return []use{{o.From, isTerminal | isStream | isFile}} }

// Setsid makes the process the leader of a new session.
type Setsid struct {
	Controlling bool `json:"controlling,omitempty"` // with descriptor 0 as its controlling terminal
}

func (*Setsid) Kind() string { return "setsid" }

func (*Setsid) Man() string { return "setsid(2)" }

func (o *Setsid) String() string {
	return "start a new session" + when(o.Controlling, " with the terminal as its controlling terminal")
}
