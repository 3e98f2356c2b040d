package tour

import (
	"runtime"
	"slices"

	"glassbox/plan"
	"glassbox/seccomp"
)

// usual are the capabilities that container engines leave to root.
func usual() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
		"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
	}
}

// fewer are the steps that leave root with the usual capabilities.
func (s *Stage) fewer() []plan.Step {
	var keep, drop []string
	for n := range s.facts.LastCap + 1 {
		switch name := plan.CapName(n); {
		case name == "":
		case !slices.Contains(usual(), name):
			drop = append(drop, name)
		case s.facts.Caps&(1<<n) != 0 || s.user: // in a user namespace a process is born with all
			keep = append(keep, name)
		}
	}
	return []plan.Step{
		child(&plan.DropBounding{Caps: drop}, "No program that is run later can have these, whatever it is."),
		child(&plan.Capset{Effective: keep, Permitted: keep}, "What is left of root's powers."),
	}
}

func locked(s *Stage) error { return s.put("etc/locked", "read although its mode is 000\n", 0) }

func capabilities() Lesson {
	return Lesson{
		Name: "capabilities", Title: "Capabilities: root's powers, cut in pieces", Minutes: 4,
		Shows: "User 0 with 14 of some 40 powers: what it may still do, and what no longer.",
		Intro: `What root may do is not one power but about forty (capabilities(7)), and each can be taken away by itself. A container's ` +
			`root keeps those that package managers and servers need, such as changing the owner of a file. It loses those that concern the ` +
			`machine, such as setting the clock, loading kernel modules and mounting.`,
		Needs: needImage,
		Scenes: []Scene{{
			Title:   "Fourteen of forty",
			Text:    `The box's shell is user 0. Its mount namespace is its own.`,
			Prepare: locked,
			Plan: func(s *Stage) (*plan.Plan, error) {
				return s.plan(recipe{
					namespaces: []string{"mount", "pid"}, why: "Its own mounts and process IDs.", body: folded(s.rootAndProc()), last: s.fewer(),
				}), nil
			},
			Question: &Question{
				Ask:     "It is root, and the mounts are its own. May it mount something?",
				Choices: []string{"yes: it is user 0", "no: mounting takes CAP_SYS_ADMIN, which is not among the 14"}, Answer: 1,
			},
			Looks: []Look{
				{
					Say:    "Each bit is a capability. CapEff counts now, CapBnd is the most that anything run from here can have.",
					Inside: "grep -E 'Cap(Eff|Bnd)' /proc/self/status", Outside: "grep -E 'Cap(Eff|Bnd)' /proc/self/status", Want: differ,
				},
				{Inside: "id -u; mount -t tmpfs none /tmp && echo mounted", Want: all(inHas("0"), inLacks("mounted"))},
				{
					Say: "CAP_DAC_OVERRIDE is among them: file permissions don't stop this root.", Inside: "ls -l /etc/locked; cat /etc/locked",
					Want: inHas("----------", "read although"),
				},
			},
			Because: `The kernel doesn't ask "is this root?" but "has it this capability?". User 0 without any is a user like others, whom ` +
				`many files happen to belong to.`,
			Break: &Break{
				Text:   `The same plan; nothing is dropped.`,
				Change: without(func(op plan.Op) bool { return kind[*plan.DropBounding](op) || kind[*plan.Capset](op) }),
				Looks: []Look{
					{Inside: "grep -E 'Cap(Eff|Bnd)' /proc/self/status", Outside: "grep -E 'Cap(Eff|Bnd)' /proc/self/status"},
					{Inside: "mount -t tmpfs none /tmp && echo mounted", Want: inIs("mounted")},
				},
				Because: `In its own mount namespace that harms nobody. But without a user namespace the same CAP_SYS_ADMIN would let it mount ` +
					`the host's disk, which is how one leaves a container that was started with --privileged.`,
			},
		}},
		Remember: `A container's root is root of its files and of little else. The bounding set makes sure that no setuid program brings ` +
			`the rest back.`,
		Read: "capabilities(7), capsh(1); glassbox run --cap-add and --cap-drop; glassbox explain --policy.",
	}
}

func filters() Lesson {
	return Lesson{
		Name: "seccomp", Title: "seccomp: a filter for system calls", Minutes: 3,
		Shows: "A program in the kernel that answers system calls before the kernel does.",
		Intro: `Linux has more than 350 system calls, and a program uses perhaps fifty. Every other one is code of the kernel that an ` +
			`attacker can call. seccomp(2) puts a filter in front: a small program, in the kernel's own BPF language, that sees the number ` +
			`and the arguments of each call and says what is to be done. It can't be taken off again, and children inherit it.`,
		Needs: func(s *Stage) string {
			if need := needImage(s); need != "" {
				return need
			}
			if !s.facts.Seccomp {
				return "a kernel with seccomp filters (CONFIG_SECCOMP_FILTER)"
			}
			return ""
		},
		Scenes: []Scene{{
			Title: "The default filter",
			Text: `The box has the filter that every container of glassbox has by default; it lets through what ordinary programs need. A ` +
				`small program of the tour makes some calls with arguments that do no harm, and says what it was answered.`,
			Plan: func(s *Stage) (*plan.Plan, error) {
				profile := seccomp.Default(seccomp.DefaultOptions{
					Arch: runtime.GOARCH, Caps: usual(), KernelMajor: s.facts.Kernel.Major,
					KernelMinor: s.facts.Kernel.Minor,
				})
				f, err := seccomp.Compile(profile, runtime.GOARCH)
				if err != nil {
					return nil, err
				}
				return s.plan(recipe{
					namespaces: []string{"mount", "pid"}, why: "Its own mounts and process IDs.", body: folded(s.rootAndProc()),
					last: append(folded(s.fewer()),
						child(&plan.NoNewPrivs{}, "Without this promise a filter could be used to confuse setuid programs, so the kernel asks for it."),
						child(&plan.Seccomp{Name: "default", Flags: f.Flags, Program: f.Bytes()},
							"From here on every system call passes through the filter, execve included."),
					),
				}), nil
			},
			Question: &Question{
				Ask:     "keyctl(2) is not on the list. What happens to a program that calls it?",
				Choices: []string{"it is killed", "it gets an error: operation not permitted", "it hangs"}, Answer: 1,
			},
			Looks: []Look{
				{Inside: "glassbox tour --inside calls", Outside: "{GLASSBOX} tour --inside calls", Want: func(s Seen) string {
					if number(s.In, "filtered:") < 4 || number(s.Out, "filtered:") > 2 {
						return "inside, the filter should answer: " + s.In + "; outside: " + s.Out
					}
					return ""
				}},
				{
					Say: "2 means: there is a filter.", Inside: "grep Seccomp: /proc/self/status", Outside: "grep Seccomp: /proc/self/status",
					Want: inHas("2"),
				},
			},
			Because: `The filter answers EPERM in the kernel's place, so that programs which only try go on. Killing is possible, too, and ` +
				`so is asking another process (seccomp_unotify(2)).`,
			Break: &Break{
				Text:   `The same plan without the filter.`,
				Change: without(kind[*plan.Seccomp]),
				Looks: []Look{{Inside: "glassbox tour --inside calls", Want: func(s Seen) string {
					if number(s.In, "filtered:") > 2 {
						return "without the filter the kernel should answer: " + s.In
					}
					return ""
				}}},
				Because: `Now the kernel's own code answers: that an argument is wrong, or that there is no such key. To answer, it had to run, ` +
					`and each of these calls has had bugs that let attackers in.`,
			},
		}},
		Remember: `Capabilities decide whether a call may do something; seccomp decides whether the call is made at all. What doesn't run ` +
			`can't be exploited.`,
		Read: "seccomp(2), syscalls(2); glassbox run --security-opt seccomp=FILE.",
	}
}
