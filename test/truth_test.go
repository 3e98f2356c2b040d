package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"glassbox/fork"
	"glassbox/plan"
)

// The truth test: what runs is what is printed.
//
// A container is started under strace, and what the trace shows is compared with the plan that explain prints of it, in both
// directions and in order.
//
// The child, from its clone to its execve: every system call, with its numbers, texts and structures, is the next one of the plan's
// child lane as package fork lowers it. Nothing is left out but how a child begins: it resets 64 signal handlers and the signal mask
// and closes the parent's end of the socket.
//
// The host: all other processes of the start, from the command to the end of the supervisor. Of what they do, this is an effect,
// whoever does it and whatever for:
//   - the mount calls, pivot_root, chroot; setns, unshare and clones into namespaces; mknod, bpf, keyctl, sethostname, sched_setaffinity,
//     prlimit of another process
//   - writes to files below /proc and /sys; cgroups made and removed
//   - messages to rtnetlink and nf_tables but those that only ask
//   - programs run, but glassbox's own two
//   - files and directories made, changed, renamed, removed anywhere but in glassbox's own two directories, which are its book-keeping
//
// Every effect must be the trace of a host step, in the plan's order, or after the end of the container of a step of Plan.Undo; and
// every step of a kind that leaves a trace must have left its own.
//
// That the test would notice is tested, too: of each kind of step one is taken out of the plan, and the same trace must fail then.

// truthRuns are run commands, in the form of a shell's words without quotes.
func truthRuns() []string {
	return []string{
		"--network none busybox true",
		"--hostname named --domainname dom --network none busybox true",
		"-p 8098:80 busybox true",
		"-p 127.0.0.1:8097:80/udp -p 8096:81 --ip 172.30.0.9 busybox true",
		"--dns 192.0.2.1 --add-host x:192.0.2.2 busybox true",
		"--network none -m 64m --memory-swap 128m --memory-reservation 32m --pids-limit 40 busybox true",
		"--network none --cpus 0.5 --cpu-shares 512 --cpuset-cpus 0 busybox true",
		"--network none --blkio-weight 300 busybox true",
		"--network none -v SHARED:/data busybox true",
		"--network none -v SHARED:/data:ro -v SHARED/file:/etc/file busybox true",
		"--network none --mount type=bind,source=SHARED,target=/data,bind-propagation=rslave busybox true",
		"--network none --tmpfs /run:size=1m,mode=700 busybox true",
		"--network none --mount type=tmpfs,destination=/scratch,tmpfs-size=1m busybox true",
		"--network none --read-only busybox true",
		"--network none -u 1000:1000 --group-add 5 busybox true",
		"--network none -u 65534 -w /made/here busybox true",
		"--network none --cap-drop ALL busybox true",
		"--network none --cap-drop ALL --cap-add CHOWN --cap-add KILL busybox true",
		"--network none --cap-add SYS_ADMIN --cap-add NET_ADMIN busybox true",
		"--network none --security-opt seccomp=unconfined busybox true",
		"--network none --security-opt seccomp=PROFILE busybox true",
		"--network none --security-opt no-new-privileges busybox true",
		"--network none --security-opt systempaths=unconfined busybox true",
		"--network none --ulimit nofile=100:200 --ulimit core=0 --ulimit nproc=500 busybox true",
		"--network none --oom-score-adj 300 busybox true",
		"--network none --sysctl net.ipv4.ip_forward=1 --sysctl kernel.msgmax=9000 busybox true",
		"--network none --device /dev/null:/dev/zwei busybox true",
		"--network none --device /dev/zero:/dev/deep/zero:r --shm-size 1m busybox true",
		"--network none --privileged busybox true",
		"--network host busybox true",
		"--network host --uts host busybox true",
		"--network none --ipc host busybox true",
		"--network none --pid host busybox true",
		"--network none --cgroupns host busybox true",
		"--network container:other busybox true",
		"--network none --pid container:other --ipc container:other busybox true",
		"--network none --init busybox true",
		"--network none -d -t busybox true",
		"--network none -e A=b -e C= --env D=e busybox true",
		"--network none -w /tmp --entrypoint /bin/true busybox",
		"--network none --cgroup-parent /truth busybox true",
		"--network none --rootfs ROOT true",
		"--network none busybox:user true",
		"--network none busybox:workdir true",
	}
}

func TestTruth(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("needs strace")
	}
	if runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		t.Skip("needs the numbers of this machine's system calls")
	}
	s := besiege(t)
	s.furnish()
	s.shell(`printf '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}' >profile.json`)
	s.ok(s.on("glassbox", "run", "-d", "--name", "other", "--network", "none", "--ipc", "shareable", "busybox", "sleep", "10000"))
	root := s.root("")
	mutated := map[string]bool{}
	for i, flags := range truthRuns() {
		name := fmt.Sprintf("truth%d", i)
		line := strings.NewReplacer("SHARED", filepath.Join(s.dir, "shared"), "ROOT", root, "PROFILE",
			filepath.Join(s.dir, "profile.json")).Replace(flags)
		file := filepath.Join(s.dir, name+".trace")
		argv := []string{strace, "-f", "-n", "-v", "-s", "1000000", "-xx", "-yy", "-X", "raw", "-o", file, "glassbox", "run", "--name", name}
		res := s.on(append(argv, strings.Fields(line)...)...)
		if res.Code != 0 {
			t.Errorf("%s: exit code %d: %s", flags, res.Code, res.Stderr)
			continue
		}
		var p plan.Plan
		must(t, json.Unmarshal([]byte(s.ok(s.on("glassbox", "explain", "container", "--format", "json", name))), &p))
		s.judge(flags, &p, file, mutated)
		s.ok(s.on("glassbox", "rm", "-f", name))
		os.Remove(file)
	}
	for _, c := range []struct {
		what string
		b    box
	}{
		{"bundle", box{}},
		{"bundle with limits", box{memory: 64 << 20, pids: 30, nofile: 100, score: 200}},
		{"bundle with binds and tmpfs", box{binds: [][2]string{{filepath.Join(s.dir, "shared"), "/mnt"}}, tmpfs: []string{"/scratch"}}},
		{"bundle of a user, without a filter", box{user: "1000:5", bare: true, cwd: "/tmp"}},
		{"bundle with a user namespace", box{
			binds: [][2]string{{filepath.Join(s.dir, "shared"), "/mnt"}}, nofile: 100,
			edit: func(spec *specs.Spec) {
				spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
				ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 0, Size: 65536}}
				spec.Linux.UIDMappings, spec.Linux.GIDMappings = ids, ids
			},
		}},
		{"bundle with other clocks", box{edit: func(spec *specs.Spec) {
			spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
			spec.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1000}}
		}}},
		{"bundle with hooks", box{edit: func(spec *specs.Spec) {
			spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/true"}}, CreateContainer: []specs.Hook{{Path: "/bin/true"}}}
		}}},
		{"bundle scheduled", box{edit: func(spec *specs.Spec) {
			spec.Process.Scheduler = &specs.Scheduler{Policy: "SCHED_BATCH", Nice: 5}
			spec.Process.IOPriority = &specs.LinuxIOPriority{Class: "IOPRIO_CLASS_BE", Priority: 6}
			spec.Linux.Personality = &specs.LinuxPersonality{Domain: "LINUX"}
			spec.Process.Capabilities.Inheritable, spec.Process.Capabilities.Ambient = []string{"CAP_CHOWN"}, []string{"CAP_CHOWN"}
		}}},
		{"bundle without a mount namespace", box{binds: [][2]string{{filepath.Join(s.dir, "shared"), "/mnt"}}, edit: withoutMounts}},
		{"bundle with sysctls and capabilities", box{sysctl: map[string]string{"net.ipv4.ip_forward": "1"}, caps: []string{"CAP_NET_ADMIN"}}},
	} {
		c.b.rootfs, c.b.args = s.root(""), []string{"true"}
		dir := s.bundle(runtimeFace, c.b)
		id := s.id("truth-bundle")
		file := filepath.Join(s.dir, id+".trace")
		res := s.on(strace, "-f", "-n", "-v", "-s", "1000000", "-xx", "-yy", "-X", "raw", "-o", file, "glassbox-runtime", "run", "--bundle",
			dir, id)
		if res.Code != 0 {
			t.Errorf("%s: exit code %d: %s", c.what, res.Code, res.Stderr)
			continue
		}
		// The id decides over the cgroup's name: explain takes the directory's.
		text := s.ok(s.on("glassbox", "explain", "bundle", "--format", "json", dir))
		var p plan.Plan
		must(t, json.Unmarshal([]byte(strings.ReplaceAll(text, filepath.Base(dir), id)), &p))
		s.judge(c.what, &p, file, mutated)
		os.Remove(file)
	}
	t.Logf("taken out, and missed: %v", slices.Sorted(maps.Keys(mutated)))
	if len(mutated) < 50 {
		t.Errorf("only %d kinds of steps were taken out to see the test fail: %v", len(mutated), mutated)
	}
}

// judge compares a trace with a plan, and with plans from which a step is missing.
func (s *siege) judge(what string, p *plan.Plan, file string, mutated map[string]bool) {
	s.Helper()
	data, err := os.ReadFile(file)
	must(s.T, err)
	tr, err := readTrace(string(data))
	if err != nil {
		s.Errorf("%s: %v", what, err)
		return
	}
	tr.own = strings.HasPrefix(what, "bundle")
	if strings.HasPrefix(what, "FROM") { // a step of a build, whose files have gone with it
		tr.files = []string{"/etc/hosts", "/etc/resolv.conf", "/run/secrets/t"}
	}
	if err := tr.compare(s, networkFirst(p)); err != nil {
		s.Errorf("%s: %v", what, err)
		return
	}
	for i, step := range p.Steps {
		key := string(step.Lane) + " " + step.Op.Kind()
		if mutated[key] {
			continue
		}
		switch op := step.Op.(type) {
		case *plan.Clone, *plan.Release: // without them it is no plan
			continue
		case *plan.Affinity:
			if op.Unless > 0 {
				continue // this process isn't bound, so nothing is taken back: see TestBoundCaller
			}
		case *plan.CgroupOpen, *plan.Open, *plan.Expect, *plan.RecvFD, *plan.OpenPid:
			if step.Lane == plan.Host {
				continue // they only get a descriptor
			}
		case *plan.WriteFile, *plan.LinkBridge, *plan.NftBridge:
			if len(hostWants(p, i)) == 0 {
				continue
			}
		}
		without := &plan.Plan{Version: p.Version, Arch: p.Arch, Steps: slices.Delete(slices.Clone(p.Steps), i, i+1)}
		if tr.compare(s, networkFirst(without)) == nil {
			if c, ok := step.Op.(*plan.CgroupWrite); ok && c.Enable {
				continue // it was enabled already
			}
			if wants := hostWants(p, i); step.Lane == plan.Host && !slices.ContainsFunc(wants, func(w want) bool { return w.min > 0 }) {
				continue // it found everything there
			}
			s.Errorf("%s: without step %d, %s, the trace is still that of the plan", what, i+1, step.Op)
		}
		mutated[key] = true
	}
}

// networkFirst is the plan after that of its network: the first start on a host makes the bridge before it plans, with the step that
// the plan has, too (network.Store.Open). Every other start finds everything there.
func networkFirst(p *plan.Plan) *plan.Plan {
	i := slices.IndexFunc(p.Steps, func(s plan.Step) bool { _, ok := s.Op.(*plan.LinkBridge); return ok })
	if i < 0 {
		return p
	}
	out := *p
	out.Steps = append([]plan.Step{p.Steps[i]}, p.Steps...)
	return &out
}

// compare says how a trace differs from a plan, or nil.
func (tr *trace) compare(s *siege, p *plan.Plan) error {
	if err := p.Validate(); err != nil {
		return err
	}
	children, err := tr.compareChild(s, p)
	if err != nil {
		return fmt.Errorf("child: %w", err)
	}
	if err := tr.compareHost(p, children); err != nil {
		return fmt.Errorf("host: %w", err)
	}
	return nil
}

func (tr *trace) compareChild(s *siege, p *plan.Plan) (children []int, err error) {
	first := tr.calls[tr.child].ret
	children = []int{first}
	var got []traced
	sock, executed := -1, false
	for _, c := range tr.calls[:tr.child] {
		if c.name == "socketpair" && c.pid == tr.calls[tr.child].pid { // the last one before the clone
			if m := regexp.MustCompile(`\[\d+[^,]*, (\d+)`).FindStringSubmatch(c.text); m != nil {
				sock, _ = strconv.Atoi(m[1])
			}
		}
	}
	for _, c := range tr.calls {
		if c.pid != children[len(children)-1] || executed {
			continue
		}
		got = append(got, c)
		if c.name == "clone3" && c.errno == "" && c.ret > 0 {
			children = append(children, c.ret)
		}
		executed = c.name == "execve" && c.errno == "" || c.name == "exit_group"
	}
	if len(got) < 67 || got[63].name != "rt_sigaction" || got[64].name != "rt_sigprocmask" || got[65].name != "close" {
		return nil, fmt.Errorf("it begins otherwise than a child does: %d calls", len(got))
	}
	got = got[66:]
	fds, kinds := tr.descriptors(s, p)
	calls, err := fork.List(p, fds, sock, kinds)
	if err != nil {
		return nil, err
	}
	bound := map[uint64]uint64{}
	i := 0
	for k, c := range got {
		for i < len(calls) && calls[i].Nr != c.nr && calls[i].Maybe {
			i++
		}
		if i >= len(calls) {
			return nil, fmt.Errorf("call %d, %s, comes after the plan's last", k, unhex(c.text))
		}
		want := calls[i]
		where := fmt.Sprintf("step %d, %s", want.Step+1, p.Steps[want.Step].Op)
		if want.Nr != c.nr {
			return nil, fmt.Errorf("call %d is %s, where the plan has system call %d: %s", k, unhex(c.text), want.Nr, where)
		}
		for n, w := range want.Args {
			if w == "" || n >= len(c.args) {
				continue
			}
			if c.name == "mount" && w == `""` && strings.HasPrefix(c.args[n], "0x") {
				continue // strace knows that the kernel doesn't look at it, and prints the address
			}
			if !sameArgument(w, c.args[n], bound) {
				return nil, fmt.Errorf("call %d is %s, where argument %d is %s in the plan: %s", k, unhex(c.text), n+1, w, where)
			}
		}
		if o, ok := p.Steps[want.Step].Op.(*plan.Execve); ok && len(c.args) == 3 {
			if err := sameProgram(o, c); err != nil {
				return nil, err
			}
			if c.errno == "" {
				return children, atTheEnd(p, want.Step, len(got) == k+1)
			}
		}
		if c.errno == "" {
			i = want.Next
			continue
		}
		if strings.HasPrefix(c.errno, "ERESTART") {
			continue // by a signal, and made again by the kernel
		}
		next, ok := want.OnError[errnoOf(c.errno)]
		if every, all := want.OnError[^unix.Errno(0)&0xffff]; !ok && all {
			next, ok = every, true
		}
		if !ok {
			return nil, fmt.Errorf("call %d, %s, failed, and the plan doesn't foresee that: %s", k, unhex(c.text), where)
		}
		i = next
	}
	return nil, fmt.Errorf("it did not come to execve")
}

// descriptors are the numbers that the descriptors of a plan had, by their names, and what kind of file each is.
func (tr *trace) descriptors(s *siege, p *plan.Plan) (fds map[string]int, kinds map[string]string) {
	fds, kinds = map[string]int{"stdin": unknownFD, "stdout": unknownFD + 1, "stderr": unknownFD + 2}, map[string]string{}
	kinds["stdin"] = "null" // no run of these has input; what goes out goes into pipes
	if tr.own {
		fds = map[string]int{"stdin": 0, "stdout": 1, "stderr": 2}
	}
	for i, step := range p.Steps {
		if step.Lane != plan.Host {
			continue
		}
		save, name, call := "", "", "openat"
		switch o := step.Op.(type) {
		case *plan.CgroupOpen:
			save, name = o.Save, o.Path
		case *plan.Open:
			save, name = o.Save, o.Path
		case *plan.OpenTree:
			save, name, call = o.Save, o.Path, "open_tree"
			kinds[o.Save] = "dir"
			if st, err := os.Stat(s.host.Path(o.Path)); err == nil && !st.IsDir() || err != nil && tr.isFile(p, o.Save) {
				kinds[o.Save] = "file"
			}
		}
		if save == "" {
			continue
		}
		fds[save] = unknownFD + 16 + i
		for _, c := range tr.calls[:tr.child] {
			if c.name == call && c.errno == "" && len(c.args) > 1 {
				if path, _ := quoted(c.args[1]); path == name && c.pid == tr.calls[tr.child].pid {
					fds[save] = c.ret
				}
			}
		}
	}
	return fds, kinds
}

// isFile reports whether what a descriptor stands for is mounted where a file is said to be.
func (tr *trace) isFile(p *plan.Plan, name string) bool {
	return slices.ContainsFunc(p.Steps, func(s plan.Step) bool {
		m, ok := s.Op.(*plan.MoveMount)
		return ok && m.From == name && slices.Contains(tr.files, m.Target)
	})
}

// sameProgram compares the arguments and the environment of an execve with a step's.
func sameProgram(o *plan.Execve, c traced) error {
	for n, words := range [][]string{o.Argv, o.Env} {
		list := make([]string, len(words))
		for j, word := range words {
			list[j] = fmt.Sprintf("%q", word)
		}
		var seen []string
		for _, item := range arguments("(" + strings.Trim(c.args[n+1], "[]") + ")") {
			text, _ := quoted(item)
			seen = append(seen, fmt.Sprintf("%q", text))
		}
		if !slices.Equal(list, seen) {
			return fmt.Errorf("execve has %v, the plan %v", seen, list)
		}
	}
	return nil
}

// atTheEnd looks whether an execve that succeeded was the last thing to do.
func atTheEnd(p *plan.Plan, step int, lastCall bool) error {
	if !lastCall {
		return errors.New("calls after execve")
	}
	for j := step + 1; j < len(p.Steps); j++ {
		if p.Steps[j].Lane == plan.Child {
			return fmt.Errorf("step %d, %s, did not come to be made", j+1, p.Steps[j].Op)
		}
	}
	return nil
}

func errnoOf(name string) unix.Errno {
	for n := range unix.Errno(200) {
		if unix.ErrnoName(n) == name {
			return n
		}
	}
	return 0
}

// sameArgument compares an argument with what the plan has. Numbers from unknownFD on stand for the number seen first.
func sameArgument(want, got string, bound map[uint64]uint64) bool {
	switch {
	case strings.HasPrefix(want, `"`):
		text, ok := quoted(got)
		return ok && fmt.Sprintf("%q", text) == want
	case strings.HasPrefix(want, "{"):
		// Each field that the plan has; a trace leaves zeros out.
		for _, f := range strings.Split(strings.Trim(want, "{}"), ", ") {
			name, value, _ := strings.Cut(f, "=")
			if strings.Contains(value, "|") && !strings.Contains(got, f) { // two halves
				return false
			}
			if n, _ := number(value); n != field(got, name) && !(field(got, name) == ^uint64(0) && n == ^uint64(0)) {
				return false
			}
		}
		return true
	case strings.HasPrefix(want, "["):
		return want == got
	}
	w, ok := number(want)
	g, ok2 := number(got)
	if !ok || !ok2 {
		return !ok2 && strings.ContainsAny(got[:1], `[{"`) // a structure that the kernel fills
	}
	if w >= unknownFD && w < unknownFD+1<<20 {
		if seen, ok := bound[w]; ok {
			return seen == g
		}
		bound[w] = g
		return true
	}
	return uint32(w) == uint32(g)
}
