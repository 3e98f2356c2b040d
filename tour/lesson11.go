package tour

import (
	"path/filepath"
	"slices"
	"strings"

	"glassbox/plan"
)

// children lists the child processes of the box, as the host sees them.
const children = "for p in $(grep -ls '^PPid:[[:space:]]*{PID}$' /proc/[0-9]*/status); do grep -E '^(Name|State|Pid)' $p; done | " +
	"grep . || echo no children"

func first() Lesson {
	withArgs := func(script string) func([]plan.Step) []plan.Step {
		return changed(func(o *plan.Execve) { o.Argv = []string{"sh", "-c", script} })
	}
	return Lesson{
		Name: "pid1", Title: "PID 1", Minutes: 4,
		Shows: "The first process of a PID namespace has duties: signals, orphans, and its own end.",
		Intro: `On every Unix the first process is special. It is never killed by accident, it inherits the children of processes that ` +
			`end, and when it ends, so does the system. In a PID namespace the container's program gets this job, whether it has been ` +
			`written for it or not.`,
		Needs: needImage,
		Scenes: []Scene{
			{
				Title: "Signals",
				Text: `The shell in the box is process 1. It sends itself SIGTERM, the polite request to end, and then SIGKILL, which nobody ` +
					`can refuse.`,
				Plan: func(s *Stage) (*plan.Plan, error) {
					return s.plan(recipe{
						namespaces: []string{"mount", "pid"}, why: "The child is process 1 of a new PID namespace.",
						body: folded(s.newRoot()),
					}), nil
				},
				Question: &Question{Ask: "Which of the two ends it?", Choices: []string{"SIGTERM", "SIGKILL only", "neither"}, Answer: 2},
				Looks: []Look{
					{Inside: "kill -TERM $$; echo still here; kill -KILL $$; echo still here", Want: inIs("still here\nstill here")},
					{Say: "The host sends SIGTERM, too:", Outside: "kill -TERM {PID}; sleep 0.2; grep State /proc/{PID}/status", Want: outHas("sleeping")},
				},
				Because: `The kernel doesn't deliver a signal to process 1 unless the process has a handler for it; from outside, only SIGKILL ` +
					`and SIGSTOP get through. That is why "docker stop" takes ten seconds with some programs: SIGTERM does nothing, and SIGKILL ` +
					`comes after the grace period.`,
				Break: &Break{
					Text:    `Without a PID namespace the same shell is a process like others.`,
					Change:  sharing("pid"),
					Looks:   []Look{{Inside: "kill -KILL $$; echo still here", Want: all(inHas("has ended"), inLacks("still here"))}},
					Because: `It is gone, before it could say anything.`,
				},
			},
			{
				Title: "Orphans and zombies",
				Text: `A process that has ended remains as an entry in the process table, a zombie, until its parent asks how it ended ` +
					`(wait(2)). Who loses its parent is given to process 1. Here process 1 starts a child that ends after a fifth of a second, and ` +
					`then becomes a program that waits for nobody: sleep.`,
				Plan: func(s *Stage) (*plan.Plan, error) {
					return s.plan(recipe{
						namespaces: []string{"mount", "pid"}, why: "The child is process 1 of a new PID namespace.", body: folded(s.newRoot()),
						argv: []string{"sh", "-c", "sleep 0.2 & exec sleep 1000"},
					}), nil
				},
				Question: &Question{
					Ask:     "What is there of the child after half a second?",
					Choices: []string{"nothing", "a zombie, for as long as the container runs", "it is still running"}, Answer: 1,
				},
				Looks: []Look{{Outside: "sleep 0.8; " + children, Want: outHas("zombie")}},
				Because: `A zombie uses no memory, but it has a process ID and counts in the cgroup's limit. A server that starts programs and ` +
					`doesn't wait for strangers fills its container with them.`,
				Break: &Break{
					Text:    `The same with a process 1 that does its duty: it waits before it becomes sleep.`,
					Change:  withArgs("sleep 0.2 & wait; exec sleep 1000"),
					Looks:   []Look{{Outside: "sleep 0.8; " + children, Want: outHas("no children")}},
					Because: `glassbox run --init puts a small process 1 in front of your program that passes on signals and waits for everybody.`,
				},
			},
			{
				Title: "The end",
				Text:  `The shell starts a program in the background. Then the host kills process 1.`,
				Plan: func(s *Stage) (*plan.Plan, error) {
					return s.plan(recipe{
						namespaces: []string{"mount", "pid"}, why: "The child is process 1 of a new PID namespace.",
						body: folded(s.newRoot()),
					}), nil
				},
				Question: &Question{
					Ask:     "What becomes of the program in the background?",
					Choices: []string{"it goes on, as a child of the host's process 1", "the kernel kills it"}, Answer: 1,
				},
				Looks: []Look{
					{Inside: "sleep 1000 & echo started", Outside: "sleep 0.5; " + children, Want: all(outHas("sleep"), keepPid)},
					{Outside: "kill -KILL {PID}; sleep 0.5; if [ -e /proc/{CHILD} ]; then echo process {CHILD} lives; else echo process {CHILD} is " +
						"gone; fi", Want: outHas("is gone")},
				},
				Because: `With process 1 the whole PID namespace ends: the kernel sends SIGKILL to all that is left and lets nobody in any ` +
					`more. That is how a container ends for certain, whatever it has started.`,
				Break: &Break{
					Text:   `Without a PID namespace.`,
					Change: sharing("pid"),
					Looks: []Look{
						{Inside: "sleep 1000 & echo started", Outside: "sleep 0.5; " + children, Want: all(outHas("sleep"), keepPid)},
						{Outside: "kill -KILL {PID}; sleep 0.5; if [ -e /proc/{CHILD} ]; then echo process {CHILD} lives; else echo process {CHILD} " +
							"is gone; fi", Want: outHas("lives")},
					},
					Because: `The program has outlived its container. (The tour ends it now; it knows its own processes by a variable in their ` +
						`environment.)`,
				},
			},
		},
		Remember: `Process 1 gets only the signals that it handles, must wait for orphans, and takes everything with it when it goes.`,
		Read:     "pid_namespaces(7), signal(7), wait(2); glassbox run --init, glassbox stop --time.",
	}
}

// keepPid remembers the child that was seen.
func keepPid(s Seen) string {
	fields := strings.Fields(s.Out)
	i := slices.Index(fields, "Pid:")
	if i < 0 || i+1 == len(fields) {
		return "there should be a process: " + s.Out
	}
	s.Stage.vars["CHILD"] = filepath.Base(fields[i+1])
	return ""
}
