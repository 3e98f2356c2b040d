package tour

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"glassbox/cgroup"
	facts "glassbox/host"
	"glassbox/plan"
)

// groupPlan makes the plan of a box in a cgroup with limits of its own, below a cgroup of the tour's with wider ones. With tell the
// steps common to all scenes are shown. A lesson may
// take the box's limits away: the wider ones stay, so that neither memory nor processes of the machine can run out.
func (s *Stage) groupPlan(r *specs.LinuxResources, tell bool) (*plan.Plan, error) {
	f := s.facts.Cgroup
	// Of the v1 hierarchies only those that the lesson is about, so that the plan is short.
	f.Hierarchies = slices.DeleteFunc(slices.Clone(f.Hierarchies), func(h facts.Hierarchy) bool {
		return !slices.ContainsFunc(h.Controllers, func(c string) bool { return c == "memory" || c == "pids" || c == "cpu" })
	})
	none := func(string) string { return "" }
	wide, err := cgroup.Steps(f, "/"+s.name, &specs.LinuxResources{
		Memory: s.memory(128 << 20), Pids: &specs.LinuxPids{Limit: new(int64(64))},
		CPU: &specs.LinuxCPU{Quota: new(int64(50_000)), Period: new(uint64(100_000))},
	}, none)
	if err != nil {
		return nil, err
	}
	own, err := cgroup.Steps(f, "/"+s.name+"/box", r, none)
	if err != nil {
		return nil, err
	}
	var before []plan.Step
	for _, st := range wide.Steps {
		if kind[*plan.CgroupOpen](st.Op) {
			continue
		}
		st.Origin = always
		if w, ok := st.Op.(*plan.CgroupWrite); ok && !w.Enable && tell {
			st.Origin, st.Reason = "", "A net under everything that the tour does here; no lesson takes it away."
		}
		before = append(before, st)
	}
	for _, st := range own.Steps {
		if w, ok := st.Op.(*plan.CgroupWrite); kind[*plan.CgroupOpen](st.Op) || kind[*plan.CgroupCreate](st.Op) && !tell || ok && w.Enable {
			st.Origin = always
		}
		before = append(before, st)
	}
	var body []plan.Step
	for _, name := range own.Join {
		join := child(&plan.CgroupJoin{From: name}, "The child enters its cgroup before it does anything else.")
		if !tell {
			join.Origin = always
		}
		body = append(body, join)
	}
	body = append(body, folded(s.newRoot())...)
	body = append(body, plumbing(&plan.Rlimit{Type: "RLIMIT_AS", Soft: 1 << 30, Hard: 1 << 30}))
	s.groups = own.Paths
	for name, controller := range map[string]string{"MEMORY": "memory", "PIDS": "pids", "CPU": "cpu"} {
		dir, ok := own.Paths[controller]
		if !ok {
			dir = own.Paths[""]
		}
		s.vars[name] = dir
	}
	s.vars["OOM"] = s.vars["MEMORY"] + "/memory.events"
	if _, v1 := own.Paths["memory"]; v1 {
		s.vars["OOM"] = s.vars["MEMORY"] + "/memory.oom_control"
	}
	return s.plan(recipe{
		before: before, namespaces: []string{"mount", "pid"}, cgroup: own.CloneInto, body: body,
		why: "The box has its own mounts and process IDs, as in the lessons before.",
	}), nil
}

// memory is a limit that can't be evaded by swapping, where there is swap and it can be limited.
func (s *Stage) memory(bytes int64) *specs.LinuxMemory {
	m := &specs.LinuxMemory{Limit: &bytes}
	swaps, _ := os.ReadFile("/proc/swaps")
	if strings.Count(string(swaps), "\n") < 2 {
		return m
	}
	for _, h := range s.facts.Cgroup.Hierarchies {
		if slices.Contains(h.Controllers, "memory") && (h.V2 || slices.Contains(h.Files, "memory.memsw.limit_in_bytes")) {
			m.Swap = &bytes
		}
	}
	return m
}

// folded makes steps ones that are not shown: other lessons have told of them.
func folded(steps []plan.Step) []plan.Step {
	for i := range steps {
		steps[i].Origin = always
	}
	return steps
}

// unlimited leaves out the box's own limits.
func unlimited(steps []plan.Step) []plan.Step {
	return without(func(op plan.Op) bool {
		w, ok := op.(*plan.CgroupWrite)
		return ok && !w.Enable && filepath.Base(filepath.Dir(w.File)) == "box"
	})(steps)
}

// number finds the number behind a word, -1 if there is none.
func number(text, word string) int {
	fields := strings.Fields(text)
	i := slices.Index(fields, word)
	if i < 0 || i+1 == len(fields) {
		return -1
	}
	n, err := strconv.Atoi(fields[i+1])
	if err != nil {
		return -1
	}
	return n
}

func cgroups() Lesson {
	return Lesson{
		Name: "cgroups", Title: "Control groups: a memory bomb, a fork bomb and a busy loop", Minutes: 6,
		Shows: "Namespaces limit what a process sees, cgroups what it uses. Three attacks, and the three lines that stop them.",
		Intro: `All boxes share one machine. Nothing in the lessons before keeps one of them from taking all of its memory. Control groups (cgroups(7)) do: a cgroup is a directory below /sys/fs/cgroup, made with mkdir. Processes are put into it, the kernel counts what they use together, and a number written into a file of the directory is a limit.

The attacks of this lesson are real and the limits are small. Around the box's cgroup lies another one with wider limits (128 MB, 64 processes, half a processor) that stays in force when you break a step.`,
		Needs: func(s *Stage) string {
			if need := needRoot("only root may make cgroups where the system manages them")(s); need != "" {
				return need
			}
			for _, want := range []string{"memory", "pids", "cpu"} {
				if !slices.ContainsFunc(s.facts.Cgroup.Hierarchies, func(h facts.Hierarchy) bool { return slices.Contains(h.Controllers, want) }) {
					return "the cgroup controller " + want + ", which this kernel doesn't offer here"
				}
			}
			return ""
		},
		Scenes: []Scene{
			{
				Title: "A memory bomb",
				Text:  `A shell that makes a text twice as long, again and again. The box may have 64 MB.`,
				Plan: func(s *Stage) (*plan.Plan, error) {
					return s.groupPlan(&specs.LinuxResources{Memory: s.memory(64 << 20)}, true)
				},
				Question: &Question{
					Ask: "What happens when it needs more than its 64 MB?",
					Choices: []string{
						"the shell is told that there is no more memory, and prints an error", "the kernel kills it",
						"it gets slower and slower",
					}, Answer: 1,
				},
				Looks: []Look{
					{
						Inside: "(x=0123456789abcdef; while :; do x=$x$x; [ ${#x} -lt 1048576 ] || echo $((${#x} / 1048576)) MB; done)\necho exit code $?",
						Want: all(inHas("exit code 137", "4 MB"), func(s Seen) string {
							s.Stage.vars["REACHED"] = strconv.Itoa(strings.Count(s.In, " MB"))
							return ""
						}),
					},
					{
						Say: "137 is 128 + 9: it was ended by signal 9, SIGKILL. The cgroup has counted it:", Outside: "grep oom_kill {OOM}",
						Want: func(s Seen) string {
							if number(s.Out, "oom_kill") < 1 {
								return "the cgroup should have counted a kill: " + s.Out
							}
							return ""
						},
					},
					{
						Say: "The box's first shell is still there, and so is the host:", Inside: "echo I am still here",
						Outside: "grep MemAvailable /proc/meminfo", Want: inIs("I am still here"),
					},
				},
				Because: `Linux promises memory before it has it, so there is nobody to give an error to when a page is touched and none is ` +
					`left. The kernel's OOM killer takes the largest process of the cgroup: of this one, not of the host.`,
				Break: &Break{
					Text: `The same plan without the box's memory limit. The wider limit of 128 MB is still there: without it this would be an ` +
						`attack on your machine.`,
					Change: unlimited,
					Looks: []Look{{
						Inside: "(x=0123456789abcdef; while :; do x=$x$x; [ ${#x} -lt 1048576 ] || echo $((${#x} / 1048576)) MB; done)\necho exit code $?",
						Want: all(inHas("exit code 137"), func(s Seen) string {
							if before, _ := strconv.Atoi(s.Stage.vars["REACHED"]); strings.Count(s.In, " MB") <= before {
								return fmt.Sprintf("without its limit it should come further than %d rounds", before)
							}
							return ""
						}),
					}},
					Because: `It came further, and was stopped by the cgroup above. Limits hold for everything below a cgroup.`,
				},
			},
			{
				Title: "A fork bomb",
				Text: `A loop that starts processes and waits for none. Without a limit it fills the table of processes, and then nobody can ` +
					`log in to stop it. The limit is in force before there is a process: 20.`,
				Plan: func(s *Stage) (*plan.Plan, error) {
					return s.groupPlan(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: new(int64(20))}}, false)
				},
				Question: &Question{
					Ask:     "What becomes of the 21st process?",
					Choices: []string{"it isn't made: fork(2) fails", "it waits until another one ends", "the kernel kills the oldest one for it"},
					Answer:  0,
				},
				Looks: []Look{
					{
						Inside:  "(while :; do sleep 60 & done) >/tmp/said 2>&1 &",
						Outside: "until grep -q ' [1-9]' {PIDS}/pids.events; do sleep 0.1; done; cat {PIDS}/pids.max {PIDS}/pids.current",
						Want: func(s Seen) string {
							n := lines(s.Out)
							if len(n) != 2 || n[0] != "20" {
								return "the limit should be 20: " + s.Out
							}
							if have, _ := strconv.Atoi(n[1]); have < 15 || have > 20 {
								return "there should be nearly 20 processes: " + n[1]
							}
							return ""
						},
					},
					{
						Say:    "What the loop was told (the line is read by the shell itself, which needs no new process for it):",
						Inside: "until read said </tmp/said; do :; done; echo \"$said\"", Want: inHas("fork"),
					},
					{Say: "How often the kernel has refused:", Outside: "cat {PIDS}/pids.events", Want: func(s Seen) string {
						if number(s.Out, "max") < 1 {
							return "the cgroup should have counted refusals: " + s.Out
						}
						return ""
					}},
				},
				Because: `fork(2) gives the error EAGAIN, "Resource temporarily unavailable". The host makes processes as before.`,
				Break: &Break{
					Text:   `Without the box's limit, below the wider one of 64.`,
					Change: unlimited,
					Looks: []Look{{
						Inside:  "(while :; do sleep 60 & done) >/tmp/said 2>&1 &",
						Outside: "until [ $(cat {PIDS}/pids.current) -ge 60 ]; do sleep 0.1; done; cat {PIDS}/pids.current",
						Want: func(s Seen) string {
							if have, _ := strconv.Atoi(s.Out); have < 50 || have > 64 {
								return "there should be nearly 64 processes: " + s.Out
							}
							return ""
						},
					}},
					Because: `The next limit on the way up stopped it. To end it, the tour now kills the box's process 1: the kernel ends ` +
						`everything in its PID namespace (lesson 11).`,
				},
			},
			{
				Title: "A busy loop",
				Text:  `A loop that does nothing, as fast as it can, for one second. The box may use 20 milliseconds of processor time in every 100.`,
				Plan: func(s *Stage) (*plan.Plan, error) {
					return s.groupPlan(&specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: new(int64(20_000)), Period: new(uint64(100_000))}}, false)
				},
				Question: &Question{
					Ask: "What happens to the loop?",
					Choices: []string{
						"it is killed after 20 ms", "it runs to the end of the second, but only a fifth of the time",
						"nothing, as long as no other program wants the processor",
					}, Answer: 1,
				},
				Looks: []Look{
					{
						Inside:  "(while :; do :; done) & loop=$!; sleep 1; kill $loop; wait $loop; times",
						Outside: "grep nr_ {CPU}/cpu.stat",
						Want: func(s Seen) string {
							if number(s.Out, "nr_throttled") < 1 {
								return "the loop should have been stopped for a while: " + s.Out
							}
							return ""
						},
					},
				},
				Because: `The second line of times is the processor time of the children, in the program and in the kernel. In nr_throttled of ` +
					`nr_periods the box had used up its share and was not scheduled again before the next period, although a processor may have ` +
					`been idle.`,
				Break: &Break{
					Text:   `Without the box's quota, below the wider one of half a processor.`,
					Change: unlimited,
					Looks: []Look{{
						Inside:  "(while :; do :; done) & loop=$!; sleep 1; kill $loop; wait $loop; times",
						Outside: "grep nr_ {CPU}/cpu.stat; grep nr_ {CPU}/../cpu.stat",
						Want: func(s Seen) string {
							if n := number(s.Out, "nr_throttled"); n > 0 {
								return "the box's own cgroup should not have stopped it: " + s.Out
							}
							return ""
						},
					}},
					Because: `The box's own cgroup has no quota and stops nothing (the first numbers, or none); the one above it does.`,
				},
			},
		},
		Remember: `A limit is a number in a file. Memory beyond it means death, processes beyond it an error, processor time beyond it ` +
			`waiting. The limits are written before the process is made, so there is no moment without them.`,
		Read: "cgroups(7), fork(2); docs/cgroups.md; glassbox run --memory --pids-limit --cpus.",
	}
}
