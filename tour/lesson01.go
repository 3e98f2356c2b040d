package tour

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"glassbox/plan"
)

func namespaces() Lesson {
	return Lesson{
		Name: "namespaces", Title: "Namespaces, one by one", Minutes: 6,
		Shows: "The same command gives two answers: what a process sees of the machine depends on its namespaces.",
		Intro: `A container is not a thing that the kernel knows. It is an ordinary process whose view of the machine has been narrowed. ` +
			`The narrowing is done by namespaces (namespaces(7)): each kind keeps one sort of thing apart, such as names, processes, mounts ` +
			`or network devices. This lesson takes one kind after the other. In every scene there is one process of yours inside, called ` +
			`the box here, which is a shell. What you see of it is real: the tour starts it, asks it, and ends it.`,
		Needs: needBox,
		Scenes: []Scene{
			{
				Title: "UTS: the name of the machine",
				Text: `The simplest kind first. The UTS namespace holds two strings, the host name and the NIS domain name ` +
					`(uts_namespaces(7)). The box gets a namespace of its own and sets the name there.`,
				Plan: func(s *Stage) (*plan.Plan, error) {
					return s.plan(recipe{
						namespaces: []string{"uts"}, why: "One process becomes two. The new one gets a copy of the two names, which is its own.",
						body: []plan.Step{child(&plan.Sethostname{Name: "inside-the-box"}, "Sets the name in the UTS namespace of the caller.")},
					}), nil
				},
				Question: &Question{
					Ask: "The child has called sethostname(2). What does the host say when it is asked for its name now?",
					Choices: []string{
						"inside-the-box: there is one kernel, and it has one name", "what it has always said",
						"nothing, until the child has ended",
					},
					Answer: 1,
				},
				Looks: []Look{
					{Inside: "uname -n", Outside: "uname -n", Want: all(differ, inIs("inside-the-box"))},
					{
						Say: "A namespace has no name, but it has a number, the inode of a file in /proc/PID/ns. Two processes with the same " +
							"number share the namespace. Here the numbers of the UTS namespaces differ:",
						Inside: "readlink /proc/self/ns/uts", Outside: "readlink /proc/self/ns/uts", Want: all(differ, inHas("uts:["), outHas("uts:[")),
					},
					{
						Say:    "Nothing else was asked for, so all else is shared, such as the network:",
						Inside: "readlink /proc/self/ns/net", Outside: "readlink /proc/self/ns/net", Want: all(same, inHas("net:[")),
					},
				},
				Because: `The kernel looks for the name in the namespace of the process that asks. The host's processes are in another one. ` +
					`(This scene can't be broken: without the namespace the same step would give your machine a new name.)`,
			},
			{
				Title: "PID: process IDs",
				Text: `In a new PID namespace (pid_namespaces(7)) counting begins again. A process in it has two IDs: one inside, and one in ` +
					`the namespace that it was made from.`,
				Plan: func(s *Stage) (*plan.Plan, error) {
					return s.plan(recipe{namespaces: []string{"pid"}, why: "The child is the first process of a new PID namespace."}), nil
				},
				Question: &Question{
					Ask:     "The shell inside prints its own process ID with echo $$. What is it?",
					Choices: []string{"the number that the host sees, too", "1", "0: it has no number of its own"},
					Answer:  1,
				},
				Looks: []Look{
					{Inside: "echo $$", Outside: "echo {PID}", Want: all(differ, inIs("1"), outIs("{PID}"))},
					{
						Say: "The kernel knows both. The last line of numbers in the process's status has them, from the outermost namespace to " +
							"the innermost:",
						Outside: "grep NSpid /proc/{PID}/status", Want: outHas("{PID}"),
					},
					{
						Say: "And the other way round: can the box name a process of the host? kill -0 sends nothing, it only asks whether there " +
							"is such a process that one may signal.",
						Inside: "kill -0 {SELF} && echo yes || echo no", Outside: "kill -0 {SELF} && echo yes || echo no",
						Want: all(inHas("no"), outIs("yes")),
					},
				},
				Because: `What has no number inside can't be named there: it can't be signalled, traced or waited for.`,
				Break: &Break{
					Text:   `The same plan, but the clone doesn't ask for a PID namespace.`,
					Change: sharing("pid"),
					Looks: []Look{
						{Inside: "echo $$", Outside: "echo {PID}", Want: same},
						{Inside: "kill -0 {SELF} && echo yes || echo no", Outside: "kill -0 {SELF} && echo yes || echo no", Want: all(inIs("yes"), same)},
					},
					Because: `Now the box sees the host's numbers, and can signal every process that belongs to the same user: for root that is ` +
						`all of them.`,
				},
			},
			{
				Title: "Mount: what is mounted where",
				Text: `The oldest kind (mount_namespaces(7)). A new mount namespace begins as a copy of the list of mounts. The box mounts an ` +
					`empty file system in memory on a directory; the directory is the tour's, and there is a file in it.`,
				Prepare: func(s *Stage) error {
					dir := filepath.Join(s.dir, "mnt")
					if err := os.MkdirAll(dir, 0o755); err != nil {
						return err
					}
					return os.WriteFile(filepath.Join(dir, "on-the-disk"), nil, 0o644)
				},
				Plan: func(s *Stage) (*plan.Plan, error) {
					return s.plan(recipe{
						namespaces: []string{"mount"}, why: "The child gets a copy of the list of mounts.",
						body: []plan.Step{
							child(&plan.Mount{Target: "/", Flags: []string{"rec", "private"}},
								"Many systems share mounts between namespaces unless they are told not to. From here on what is mounted in the box stays there."),
							child(&plan.Mount{Source: "none", Target: filepath.Join(s.dir, "mnt"), Type: "tmpfs", Flags: []string{"nosuid", "nodev"}},
								"An empty file system in memory covers what is on the disk."),
						},
					}), nil
				},
				Question: &Question{
					Ask:     "The box makes a file in the directory. Who sees it there?",
					Choices: []string{"the box only", "the box and the host", "the host only"},
					Answer:  0,
				},
				Looks: []Look{
					{Inside: "touch {DIR}/mnt/in-memory; ls {DIR}/mnt", Outside: "ls {DIR}/mnt", Want: all(inIs("in-memory"), outIs("on-the-disk"))},
				},
				Because: `The file is in the file system that is mounted in the box's list only. The host's list has no such entry, so the host ` +
					`looks at the disk. When the last process of the namespace ends, its mounts are gone: nothing has to be unmounted. (This can't ` +
					`be broken either: the mount would be your machine's. What a missing mount namespace means is shown in lesson 7.)`,
			},
			{
				Title: "Network and IPC",
				Text: `A network namespace (network_namespaces(7)) has its own devices, addresses, routes, firewall and ports. An IPC ` +
					`namespace (ipc_namespaces(7)) has its own message queues and shared memory, by which programs talk to one another without files.`,
				Plan: func(s *Stage) (*plan.Plan, error) {
					return s.plan(recipe{
						namespaces: []string{"net", "ipc"},
						why:        "A network with nothing in it, and System V IPC with nothing in it.",
					}), nil
				},
				Question: &Question{
					Ask:     "Which network devices are there in a network namespace that has just been made?",
					Choices: []string{"copies of the host's", "none at all", "one: the loopback device, and it is down"},
					Answer:  2,
				},
				Looks: []Look{
					{Inside: "grep -o '[^ :]*:' /proc/net/dev", Outside: "grep -o '[^ :]*:' /proc/net/dev", Want: all(inHas("lo:"), func(s Seen) string {
						if strings.Contains(s.In, "\n") {
							return "inside there should be one device: " + s.In
						}
						return ""
					})},
					{Inside: "readlink /proc/self/ns/ipc", Outside: "readlink /proc/self/ns/ipc", Want: differ},
				},
				Because: `Copies would make no sense: a network card is in one namespace at a time. How to get out of this lonely place by hand ` +
					`is lesson 10.`,
				Break: &Break{
					Text:   `The same plan, but the clone doesn't ask for a network namespace.`,
					Change: sharing("net"),
					Looks: []Look{
						{Inside: "grep -o '[^ :]*:' /proc/net/dev", Outside: "grep -o '[^ :]*:' /proc/net/dev", Want: same},
						{Inside: "readlink /proc/self/ns/ipc", Outside: "readlink /proc/self/ns/ipc", Want: differ},
					},
					Because: `Now the devices are the host's, and so are its addresses and ports: a server in the box would be one on the host. ` +
						`That is what --network host means. The other namespace of the plan is as before: the kinds don't depend on one another.`,
				},
			},
			{
				Title: "All together",
				Text: `A container asks for several at once. There are three more kinds: cgroup (which hides where the process stands in the ` +
					`tree of control groups, lesson 5), user (lesson 7) and time (which shifts the clocks that count from boot).`,
				Plan: func(s *Stage) (*plan.Plan, error) {
					return s.plan(recipe{
						namespaces: []string{"mount", "pid", "uts", "ipc", "net"}, why: "One system call, five new namespaces.",
						body: []plan.Step{child(&plan.Unshare{Namespaces: []string{"cgroup"}},
							"The sixth: the cgroup that the process is in at this moment becomes the root of what it sees.")},
					}), nil
				},
				Looks: []Look{
					{
						Inside:  "for n in mnt pid uts ipc net cgroup user; do readlink /proc/{PID}/ns/$n; done",
						Outside: "for n in mnt pid uts ipc net cgroup user; do readlink /proc/self/ns/$n; done",
						Want: func(s Seen) string {
							in, out := strings.Split(s.In, "\n"), strings.Split(s.Out, "\n")
							if len(in) != 7 || len(out) != 7 {
								return "there should be seven namespaces on each side"
							}
							for i := range 6 {
								if in[i] == out[i] {
									return "they should differ: " + in[i]
								}
							}
							if (in[6] == out[6]) == s.Stage.user {
								return fmt.Sprintf("user namespaces: %s and %s", in[6], out[6])
							}
							return ""
						},
					},
				},
				Because: `Six of seven lines differ; as an ordinary user, who can do all this in a user namespace only, all seven. And still ` +
					`this box can read every file of yours: its root directory is yours. That is next.`,
				Break: &Break{
					Text:   `The same plan without the step that makes the cgroup namespace.`,
					Change: without(kind[*plan.Unshare]),
					Looks: []Look{{
						Inside:  "readlink /proc/self/ns/cgroup; cat /proc/self/cgroup",
						Outside: "readlink /proc/self/ns/cgroup; cat /proc/self/cgroup", Want: all(same, inHas("cgroup:[")),
					}},
					Because: `The box sees where it stands in the host's tree of control groups: their names often tell what else runs on a ` +
						`machine. To see them is not to change them: what a namespace hides and what a process may do are two things.`,
				},
			},
		},
		Remember: `A namespace decides what a name means: a host name, a process ID, a path, a device. Each kind is asked for by its own ` +
			`flag of clone(2) or unshare(2), costs next to nothing, and ends with its last process. What no namespace keeps apart is shared: ` +
			`the kernel, its memory, its processors.`,
		Read: "namespaces(7), clone(2), unshare(1), nsenter(1); glassbox explain run --ns pid,mount IMAGE.",
	}
}

// needBox says whether this user can make namespaces at all.
func needBox(s *Stage) string {
	// Some systems let everybody make user namespaces, and take the powers in them away: a name shows it.
	probe := recipe{namespaces: []string{"uts"}, body: []plan.Step{child(&plan.Sethostname{Name: "probe"}, "")}}
	if _, err := s.run(s.plan(probe)); err != nil {
		if s.user {
			return "namespaces for ordinary users, which this machine doesn't give (glassbox doctor says what mends it), or root: " + err.Error()
		}
		return "the right to make namespaces: " + err.Error()
	}
	s.end()
	return ""
}

// needImage says whether there is what a box with a root of its own needs.
func needImage(s *Stage) string {
	if need := needBox(s); need != "" {
		return need
	}
	if err := s.image(); err != nil {
		return "programs of this machine to make an image of: " + err.Error()
	}
	if slices.Contains(s.lacks, "sh") {
		return "a shell (sh), which this machine lacks"
	}
	return ""
}

// needRoot says that a lesson needs root, and what for.
func needRoot(why string) func(*Stage) string {
	return func(s *Stage) string {
		if s.user {
			return "root, because " + why + ": sudo glassbox tour"
		}
		return needImage(s)
	}
}
