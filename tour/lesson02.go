package tour

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"glassbox/plan"
)

// secret makes a file of the host that no box should see.
func secret(s *Stage) error {
	return os.WriteFile(filepath.Join(s.dir, "secret"), []byte(s.vars["TOKEN"]+"\n"), 0o600)
}

// escape is the attack of lessons 2 and 3.
const escape = "glassbox tour --inside escape {DIR}/secret"

func chroot() Lesson {
	start := func(s *Stage) error {
		attr := &syscall.SysProcAttr{Chroot: s.root}
		if s.user {
			attr.Cloneflags = syscall.CLONE_NEWUSER
			attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
			attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
		}
		sh, err := exec.LookPath("sh") // it is at the same place inside
		if err != nil {
			return err
		}
		return s.program(attr, sh)
	}
	return Lesson{
		Name: "chroot", Title: "chroot, and how one breaks out of it", Minutes: 4,
		Shows: "A new root directory is not a wall: root inside is out again after four system calls.",
		Intro: `Since 1979 Unix has had a system call that changes what a process takes for the root directory: chroot(2). It is older ` +
			`than containers and looks like one. The tour has made a directory with some programs of this machine and the libraries that ` +
			`they need, and starts a shell there with nothing but chroot.`,
		Needs: needImage,
		Scenes: []Scene{
			{
				Title: "Another root",
				Text: `Outside lies a file with a word in it that was made up a moment ago: {DIR}/secret. Whoever can say the word has read ` +
					`the file.`,
				Prepare: secret,
				Start:   start,
				Question: &Question{
					Ask: "Which of the host's things can the shell still see?",
					Choices: []string{
						"files, but not the names of the host and its processes",
						"no files; but the host's name, processes and network", "nothing of the host",
					}, Answer: 1,
				},
				Looks: []Look{
					{Inside: "ls /", Outside: "ls /", Want: differ},
					{Inside: "cat {DIR}/secret", Outside: "cat {DIR}/secret", Want: all(inLacks("{TOKEN}"), outIs("{TOKEN}"))},
					{Inside: "uname -n; echo $$", Outside: "uname -n; echo {PID}", Want: same},
				},
				Because: `chroot changes where a path that begins with / is looked up, and nothing else. The name and the process ID are the ` +
					`host's: there is no namespace.`,
			},
			{
				Title: "Breaking out",
				Text: `The kernel stops at the root directory when a path says "..". It does so by comparing: is this directory my root? A process whose working directory is not below its root never meets its root on the way up.

A process with root's powers can bring that about. It makes a directory and calls chroot on it, without changing into it. Now its root is below its working directory. It goes up with "..", as often as it likes, and at the top it calls chroot once more. The program that does this stands in the tour's own code, tour/inside.go.`,
				Question: &Question{
					Ask:     "Will it read the secret?",
					Choices: []string{"no: the second chroot is refused", "no: .. ends at the first root", "yes"}, Answer: 2,
				},
				Looks: []Look{{Inside: escape, Want: inHas("{TOKEN}")}},
				Because: `Four system calls, no bug, and documented: chroot(2) says itself that it is "not intended to be used for any kind of ` +
					`security purpose". Every root inside a chroot is one step away from the host's files.`,
				Break: &Break{
					Text:    `The attack with one step left out: the first chroot, which puts the root below the working directory.`,
					Start:   start,
					Looks:   []Look{{Inside: escape + " half", Want: all(inLacks("{TOKEN}"), inHas("No such file"))}},
					Because: `Going up, it now meets its root and stays there.`,
				},
			},
		},
		Remember: `chroot changes the meaning of /, and leaves everything else as it was, the way back included. glassbox has no step ` +
			`that calls chroot alone; see the next lesson for what it does instead.`,
		Read: "chroot(2), path_resolution(7).",
	}
}

func pivotRoot() Lesson {
	return Lesson{
		Name: "pivot_root", Title: "pivot_root", Minutes: 3,
		Shows: "The same attack against a root that was not hidden but taken away.",
		Intro: `A mount namespace is a tree of mounts with one at the top. pivot_root(2) puts another mount at the top and hands over the ` +
			`old one, which can then be unmounted. After that there is no "above": the host's files are not hidden, they are not in the tree.`,
		Needs: needImage,
		Scenes: []Scene{
			{
				Title: "Taking the old root away",
				Text: `The same directory, the same secret outside. Look at the plan: a mount namespace of its own, so that the host keeps ` +
					`its root; a mount, because only a mount can become the root; then pivot_root.`,
				Prepare: secret,
				Plan: func(s *Stage) (*plan.Plan, error) {
					return s.plan(recipe{
						namespaces: []string{"mount"}, why: "The child gets a list of mounts that it can change.",
						body: s.newRoot(),
					}), nil
				},
				Question: &Question{
					Ask:     "What becomes of the attack of lesson 2?",
					Choices: []string{"it works as before", "chroot is refused now", "all its calls succeed, and it ends where it began"}, Answer: 2,
				},
				Looks: []Look{
					{Inside: "ls /", Outside: "ls /", Want: differ},
					{Inside: escape, Want: all(inLacks("{TOKEN}"), inHas("chroot", "No such file"))},
					{
						Say:     "How many mounts there are, in the box (its list can be read from outside) and on the host:",
						Outside: "wc -l </proc/{PID}/mountinfo; wc -l </proc/self/mountinfo", Want: func(s Seen) string {
							if fields := lines(s.Out); len(fields) != 2 || fields[0] != "2" {
								return "the box should have two mounts: " + s.Out
							}
							return ""
						},
					},
				},
				Because: `".." at the top of the tree is the top of the tree. The two mounts are the root and /dev/null, which a shell needs.`,
				Break: &Break{
					Text: `The plan without pivot_root. The directory is mounted, and nobody goes there. (Nothing is put on /dev/null either: ` +
						`it would be the host's.)`,
					Change:  without(func(op plan.Op) bool { return kind[*plan.PivotRoot](op) || kind[*plan.MoveMount](op) }),
					Looks:   []Look{{Inside: "cat {DIR}/secret", Outside: "cat {DIR}/secret", Want: all(same, inIs("{TOKEN}"))}},
					Because: `A mount namespace alone protects no file: it begins with all mounts of the host.`,
				},
			},
		},
		Remember: `A root directory that keeps somebody in is made of three things: a mount namespace, a mount for the new root, and ` +
			`pivot_root with the old root unmounted.`,
		Read: "pivot_root(2), mount_namespaces(7); glassbox explain run IMAGE has the same steps under \"Root file system\".",
	}
}
