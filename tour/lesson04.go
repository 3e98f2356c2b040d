package tour

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"glassbox/plan"
)

// lines returns the fields of what was seen.
func lines(text string) []string { return strings.Fields(text) }

func procfs() Lesson {
	return Lesson{
		Name: "proc", Title: "/proc", Minutes: 4,
		Shows: "The kernel's window for processes: whose processes it shows, what else it shows, and how that is covered.",
		Intro: `/proc (proc(5)) is a file system without a disk: its files are made when they are read, by the kernel. ps and top know ` +
			`nothing that isn't there. It also has levers: files below /proc/sys change the kernel when they are written.`,
		Needs: needImage,
		Scenes: []Scene{
			{
				Title: "The wrong /proc",
				Text:  `A box with a PID namespace and a root of its own, and the host's /proc bound into it.`,
				Plan: func(s *Stage) (*plan.Plan, error) {
					body := s.rootWith(child(&plan.Mount{Source: "/proc", Target: filepath.Join(s.root, "proc"), Flags: []string{"bind", "rec"}},
						"The host's procfs appears in the new root, too."))
					return s.plan(recipe{namespaces: []string{"mount", "pid"}, why: "Its own mounts, and its own process IDs.", body: body}), nil
				},
				Question: &Question{
					Ask:     "How many processes does the box count in /proc?",
					Choices: []string{"one or two: it has a PID namespace of its own", "as many as the host", "none"}, Answer: 1,
				},
				Looks: []Look{
					{Inside: "echo /proc/[0-9]* | wc -w", Outside: "echo /proc/[0-9]* | wc -w", Want: func(s Seen) string {
						in, _ := strconv.Atoi(s.In)
						out, _ := strconv.Atoi(s.Out)
						if in < 3 || out < 3 {
							return "both should see the host's processes: " + s.In + " and " + s.Out
						}
						return ""
					}},
					{
						Say:    "The box can even find itself there under its number of the host:",
						Inside: "grep -E '^(Name|NSpid)' /proc/{PID}/status; echo I am $$", Want: inHas("{PID}", "I am 1"),
					},
				},
				Because: `A procfs belongs to the PID namespace of whoever mounted it. Bound somewhere else it stays the same. Everything in it ` +
					`leaks: command lines, environments of processes of the same user, the host's mounts.`,
			},
			{
				Title: "Its own /proc",
				Text: `Now the box mounts a procfs itself. Two more steps follow, which every container engine makes: one file is covered by ` +
					`/dev/null, and /proc/sys by a read-only view of itself.`,
				Prepare: func(s *Stage) error {
					// Not every kernel has each of them.
					for _, name := range []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts"} {
						if _, err := os.Stat(name); err == nil {
							s.vars["MASKED"] = name
							return nil
						}
					}
					return errors.New("this kernel has none of the files that are masked")
				},
				Plan: func(s *Stage) (*plan.Plan, error) {
					return s.plan(recipe{
						namespaces: []string{"mount", "pid", "uts"}, why: "Its own mounts, process IDs and host name.",
						body: append(s.rootAndProc(),
							child(&plan.MaskPath{Path: s.expand("{MASKED}"), Null: "null"}, "It tells of the whole machine: nothing for a container."),
							child(&plan.ReadonlyPath{Path: "/proc/sys"}, "The kernel's levers can be read, not moved."),
						),
					}), nil
				},
				Question: &Question{Ask: "Root in the box writes a new name to /proc/sys/kernel/hostname. The UTS namespace is its own. What " +
					"happens?", Choices: []string{
					"the box has a new name", "it is refused: the file is on a read-only mount",
					"the host has a new name",
				}, Answer: 1},
				Looks: []Look{
					{Inside: "echo /proc/[0-9]* | wc -w", Outside: "echo /proc/[0-9]* | wc -w", Want: func(s Seen) string {
						in, _ := strconv.Atoi(s.In)
						if in < 1 || in > 4 {
							return "the box should see its own processes only: " + s.In
						}
						return ""
					}},
					{Inside: "ls -l {MASKED}", Outside: "ls -l {MASKED}", Want: all(differ, inHas("crw"))},
					{Inside: "echo changed >/proc/sys/kernel/hostname; uname -n", Outside: "uname -n", Want: all(inHas("Read-only"), inLacks("changed"))},
					{Inside: "grep -c ' /proc/' /proc/mounts", Want: func(s Seen) string {
						if n, _ := strconv.Atoi(s.In); n < 1 {
							return "there should be mounts below /proc: " + s.In
						}
						return ""
					}},
				},
				Because: `This lever would have been harmless, but its neighbours are not: kernel/core_pattern names a program that the kernel ` +
					`runs as root of the host. So the whole directory is read-only.`,
				Break: &Break{
					Text:   `The same plan without the two covers.`,
					Change: without(func(op plan.Op) bool { return kind[*plan.MaskPath](op) || kind[*plan.ReadonlyPath](op) }),
					Looks: []Look{
						{Inside: "ls -l {MASKED}", Outside: "ls -l {MASKED}", Want: inLacks("crw")},
						{Inside: "echo changed >/proc/sys/kernel/hostname; uname -n", Outside: "uname -n", Root: true, Want: all(inIs("changed"), differ)},
						{Inside: "grep -c ' /proc/' /proc/mounts", Want: inIs("0")},
					},
					Because: `Root of the box can write to all of /proc/sys. The name it changed is its own; most other files there belong to no ` +
						`namespace, and would have changed the host. (For an ordinary user's box the files stay out of reach: they belong to the ` +
						`host's root.)`,
				},
			},
		},
		Remember: `/proc shows the PID namespace of whoever mounts it, so a container mounts its own. What it shows beyond that belongs ` +
			`to the whole machine, and is masked or made read-only.`,
		Read: "proc(5), pid_namespaces(7); docs/security.md for what glassbox masks and why.",
	}
}
