package tour

import (
	"os"
	"path/filepath"
	"strconv"

	"glassbox/plan"
)

// foreign is the first of the ids that root maps for a box: others of the system's users are far below.
const foreign = 100_000

func users() Lesson {
	ids := func(s *Stage) *plan.IDMap {
		if s.user {
			s.vars["HOSTID"] = strconv.Itoa(os.Geteuid())
			return ownIDs()
		}
		s.vars["HOSTID"] = strconv.Itoa(foreign)
		m := []plan.IDRange{{Container: 0, Host: foreign, Size: 65536}}
		return &plan.IDMap{UID: m, GID: m}
	}
	share := func(s *Stage) error {
		dir := filepath.Join(s.dir, "share")
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return err
		}
		return os.Chmod(dir, 0o777)
	}
	recipeOf := func(s *Stage, namespaces ...string) *plan.Plan {
		return s.plan(recipe{
			namespaces: namespaces, ids: ids(s), why: "The child is born in a new user namespace, in which it has all capabilities, and on " +
				"the host none.",
			entry: []plan.Step{child(&plan.Chdir{Path: filepath.Join(s.dir, "share"), Try: true},
				"The shell begins in a directory that everybody may write to.")},
		})
	}
	nobody := without(func(op plan.Op) bool {
		return kind[*plan.IDMap](op) || kind[*plan.Setresuid](op) || kind[*plan.Setresgid](op) || kind[*plan.Setgroups](op)
	})
	return Lesson{
		Name: "users", Title: "User namespaces: root who is not root", Minutes: 4,
		Shows: "A process that is root inside and nobody in particular outside. Runs as an ordinary user.",
		Intro: `To the kernel a user is a number, and 0 is root. A user namespace (user_namespaces(7)) has its own numbers, and a table ` +
			`that says which number of the host each one is. It also has its own powers: root in it may do what concerns its own namespaces, ` +
			`and nothing else.`,
		Needs: needBox,
		Scenes: []Scene{
			{
				Title:   "Two numbers for one user",
				Text:    `The box's 0 is another user of the host. The host's process writes the table, because nobody may choose whom to be.`,
				Prepare: share,
				Plan:    func(s *Stage) (*plan.Plan, error) { return recipeOf(s), nil },
				Question: &Question{
					Ask:     "The shell inside is root. As whom does the host see it?",
					Choices: []string{"as root", "as the user that the table names", "as nobody, 65534"}, Answer: 1,
				},
				Looks: []Look{
					{Inside: "id -u", Outside: "grep ^Uid /proc/{PID}/status", Want: all(inIs("0"), outHas("{HOSTID}"))},
					{Say: "The table: first number inside, first number outside, how many.", Inside: "cat /proc/self/uid_map", Want: inHas("{HOSTID}")},
					{
						Say:    "A file that the shell makes belongs to root inside; look at the third and fourth column:",
						Inside: "touch made-inside; ls -ln", Outside: "ls -ln {DIR}/share", Want: all(inHas(" 0 ", "made-inside"), outHas(" {HOSTID} ")),
					},
				},
				Because: `There is one user; inside and outside have different numbers for it. What the host's files allow to that number is ` +
					`what the box may do with them: as the number is not 0, root's files are safe.`,
				Break: &Break{
					Text:    `The same plan without the table (and without the steps that become 0 by it).`,
					Prepare: share,
					Change:  nobody,
					Looks: []Look{{
						Inside: "id -u; cat /proc/sys/kernel/overflowuid", Outside: "grep ^Uid /proc/{PID}/status",
						Want: func(s Seen) string { return sameNumbers(s.In) },
					}},
					Because: `A user without a number inside is shown as the overflow user, "nobody". It can't become anybody else there, and has ` +
						`lost the powers that it was born with when it ran the shell. To the host it is still whoever started it.`,
				},
			},
			{
				Title:   "What this root may do",
				Text:    `With the user namespace the box gets a mount namespace, which so belongs to it.`,
				Prepare: share,
				Plan:    func(s *Stage) (*plan.Plan, error) { return recipeOf(s, "mount"), nil },
				Question: &Question{
					Ask:     "mount(2) is for root only. May the box's root mount a file system in memory over its /tmp?",
					Choices: []string{"yes", "no: it isn't the host's root"}, Answer: 0,
				},
				Looks: []Look{
					{Inside: "mount -t tmpfs none /tmp && echo mounted", Outside: "grep -c . /proc/self/mounts", Want: inIs("mounted")},
					{Say: "And read what only the host's root may read?", Inside: "cat /etc/shadow", Want: inHas("denied")},
				},
				Because: `Every namespace belongs to a user namespace, and powers count in the namespaces that belong to one's own. The mounts ` +
					`are the box's; /etc/shadow is the host's.`,
				Break: &Break{
					Text:    `Without a mount namespace of its own.`,
					Prepare: share,
					Change:  sharing("mount"),
					Looks:   []Look{{Inside: "mount -t tmpfs none /tmp && echo mounted", Want: inLacks("mounted\n", "mounted")}},
					Because: `The mount namespace is the host's now, and there this root is an ordinary user. The same powers, and nothing to use ` +
						`them on.`,
				},
			},
		},
		Remember: `Root in a user namespace is a mask worn by an ordinary user. That is how people without root run containers, and why a ` +
			`breakout from such a container ends as a user with no rights.`,
		Read: "user_namespaces(7), capabilities(7), newuidmap(1); docs/architecture.md, \"User namespaces\".",
	}
}

// sameNumbers wants two lines that are the same.
func sameNumbers(text string) string {
	if n := lines(text); len(n) != 2 || n[0] != n[1] || n[0] == "0" {
		return "the shell should be the overflow user: " + text
	}
	return ""
}
