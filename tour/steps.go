package tour

import (
	"os"
	"os/exec"
	"runtime"

	"glassbox/plan"
)

// recipe is what differs between the plans of the lessons.
type recipe struct {
	before     []plan.Step // of the host, before the clone
	namespaces []string
	cgroup     string // descriptor to be born into
	why        string // of the clone
	after      []plan.Step
	body       []plan.Step // of the child
	last       []plan.Step // of the child, right before execve
	ids        *plan.IDMap // with a user namespace
	entry      []plan.Step // of the child, before it becomes root of that
	argv       []string    // nil: a shell that reads commands
}

// always is the origin of steps that stand in every plan of the tour, and are told in one line.
const always = "the tour"

func host(op plan.Op, reason string) plan.Step {
	return plan.Step{Lane: plan.Host, Phase: plan.Isolation, Op: op, Reason: reason}
}

func child(op plan.Op, reason string) plan.Step {
	return plan.Step{Lane: plan.Child, Phase: plan.Isolation, Op: op, Reason: reason}
}

func plumbing(op plan.Op) plan.Step {
	return plan.Step{Lane: plan.Child, Phase: plan.Exec, Op: op, Origin: always}
}

// ownIDs makes an ordinary user, or root, root of a user namespace: one id.
func ownIDs() *plan.IDMap {
	return &plan.IDMap{
		UID:           []plan.IDRange{{Container: 0, Host: uint32(os.Geteuid()), Size: 1}},
		GID:           []plan.IDRange{{Container: 0, Host: uint32(os.Getegid()), Size: 1}},
		DenySetgroups: true,
	}
}

// plan makes a recipe into a plan whose process is a shell that reads commands from the tour.
func (s *Stage) plan(r recipe) *plan.Plan {
	if s.user && r.ids == nil {
		r.ids = ownIDs()
	}
	namespaces := r.namespaces
	steps := r.before
	if r.ids != nil {
		namespaces = append([]string{"user"}, namespaces...)
	}
	steps = append(steps, host(&plan.Clone{Namespaces: namespaces, Cgroup: r.cgroup}, r.why))
	if r.ids != nil {
		reason := "Root of the container is an ordinary user outside."
		if s.user {
			reason = "You are an ordinary user, so it all happens in a user namespace, where you are root (lesson 7)."
		}
		steps = append(steps, host(r.ids, reason),
			plan.Step{Lane: plan.Host, Phase: plan.Isolation, Op: &plan.Release{Name: "ids"}, Origin: always})
	}
	steps = append(steps, r.after...)
	if r.ids != nil {
		steps = append(steps, plumbing(&plan.Await{Name: "ids"}))
		steps = append(steps, r.entry...)
		if !r.ids.DenySetgroups {
			steps = append(steps, plumbing(&plan.Setgroups{}))
		}
		steps = append(steps, plumbing(&plan.Setresgid{}), plumbing(&plan.Setresuid{}))
	}
	steps = append(steps, r.body...)
	for i, name := range []string{"stdin", "stdout", "stderr"} {
		steps = append(steps, plumbing(&plan.Stdio{From: name, To: i}))
	}
	steps = append(steps, plumbing(&plan.Setsid{}), plumbing(&plan.CloseRange{First: 3}), plumbing(&plan.Umask{Mask: 0o022}),
		plumbing(&plan.ParentDeath{Signal: 9}))
	steps = append(steps, r.last...)
	argv := r.argv
	if argv == nil {
		argv = []string{"sh"}
	}
	candidates := []string{"/bin/" + argv[0], "/usr/bin/" + argv[0]}
	if file, err := exec.LookPath(argv[0]); err == nil {
		candidates = append([]string{file}, candidates...)
	}
	steps = append(steps, child(&plan.Execve{
		Candidates: candidates, Argv: argv, Env: s.environ(),
	}, "The child becomes the program."))
	return &plan.Plan{Version: plan.Version, Arch: runtime.GOARCH, Steps: steps}
}

// newRoot are the steps that make the tour's image the root directory.
func (s *Stage) newRoot() []plan.Step { return s.rootWith() }

// rootWith is newRoot with further steps between the mount of the new root and pivot_root, where both roots can be named.
func (s *Stage) rootWith(between ...plan.Step) []plan.Step {
	steps := []plan.Step{
		child(&plan.Mount{Target: "/", Flags: []string{"rec", "private"}},
			"What is mounted from now on is seen in this mount namespace only (mount_namespaces(7))."),
		plumbing(&plan.OpenTree{Path: "/dev/null", Save: "null", Device: "c 1:3"}),
		child(&plan.Mount{Source: s.root, Target: s.root, Flags: []string{"bind", "rec"}},
			"pivot_root wants a mount point, so the directory is mounted on itself."),
	}
	steps = append(steps, between...)
	return append(steps,
		child(&plan.PivotRoot{Root: s.root}, "The directory becomes the root, and the old root is unmounted: no path leads back."),
		plumbing(&plan.MoveMount{From: "null", Target: "/dev/null", Create: "file", Keep: true}),
	)
}

// rootAndProc is newRoot with a procfs of the box's own.
func (s *Stage) rootAndProc() []plan.Step {
	return append(s.rootWith(
		child(&plan.FSMount{Type: "proc", Source: "proc", Attrs: []string{"nosuid", "nodev", "noexec"}, Save: "proc"},
			"A procfs shows the processes of the PID namespace that makes it. It is made before the root changes, because in a user "+
				"namespace the kernel allows it only where the host's is in sight."),
	), child(&plan.MoveMount{From: "proc", Target: "/proc"}, "It gets its place in the new root."))
}
