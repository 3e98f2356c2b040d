package plan

import (
	"strings"
)

// newExecOp makes an empty step of one of the kinds of this file, or nil: the program.
func newExecOp(kind string) Op {
	switch kind {
	case "chdir":
		return &Chdir{}
	case "find-program":
		return &FindProgram{}
	case "execve":
		return &Execve{}
	}
	return nil
}

// Chdir enters the working directory and checks that it lies inside the root (CVE-2024-21626).
type Chdir struct {
	Path string `json:"path"`
	// Try is for a first attempt with the rights of root: no permission is no error, and the Chdir without Try that follows tries
	// again. If the first attempt succeeded, the second only checks.
	Try bool `json:"try,omitempty"`
}

func (*Chdir) Kind() string { return "chdir" }

func (*Chdir) Man() string { return "chdir(2)" }

func (o *Chdir) String() string {
	return "enter " + o.Path + when(o.Try, " if root may")
}

// FindProgram checks that one of the candidates is a file that this process may execute, so that a container whose program is
// missing doesn't count as created.
type FindProgram struct {
	Candidates []string `json:"candidates"`
	Name       string   `json:"name"` // as in argv, for the error
}

func (*FindProgram) Kind() string { return "find-program" }

func (*FindProgram) Man() string { return "faccessat2(2)" }

func (o *FindProgram) String() string {
	return "make sure that " + o.Name + " can be run"
}

// Execve runs the program. Candidates are tried in order while the kernel answers that there is no such file (or that it may
// not be executed), as a shell walks PATH.
type Execve struct {
	Candidates []string `json:"candidates"`
	Argv       []string `json:"argv"`
	Env        []string `json:"env"`
}

func (*Execve) Kind() string { return "execve" }

func (*Execve) Man() string { return "execve(2)" }

func (o *Execve) String() string {
	return "run " + command(o.Argv)
}

func command(argv []string) string {
	out := make([]string, len(argv))
	for i, a := range argv {
		if a == "" || strings.ContainsAny(a, " \t\n'\"\\$`*?;&|<>(){}") {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		out[i] = a
	}
	return strings.Join(out, " ")
}
