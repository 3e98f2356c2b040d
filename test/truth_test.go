package test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path"
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

// traced is a system call of a trace.
type traced struct {
	pid   int
	nr    int
	name  string
	args  []string
	ret   int
	errno string
	done  bool // it returned: a thread that ends may have stood before a call
	text  string
}

type trace struct {
	calls []traced
	child int  // index of the clone that made the child
	own   bool // the program has the standard descriptors of the one that runs the plan
}

// unhex is the text that strace has written as \x7f\x45….
func unhex(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if strings.HasPrefix(s[i:], `\x`) && i+4 <= len(s) {
			if n, err := strconv.ParseUint(s[i+2:i+4], 16, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// readTrace reads what strace -f -n -xx -yy -X raw has written. Calls stand in the order in which they began.
func readTrace(text string) (*trace, error) {
	tr := &trace{child: -1}
	line := regexp.MustCompile(`^(\d+) +\[ *(\d+)\] (.*)$`)
	result := regexp.MustCompile(`\) += (?:=> \{.*\}, \d+\) = )?(-?\d+|0x[0-9a-f]+|\?)[^=]*?(?: (E[A-Z0-9]+) \(.*\))?$`)
	pending := map[int]int{}
	for l := range strings.Lines(text) {
		m := line.FindStringSubmatch(strings.TrimSpace(l))
		if m == nil || strings.HasPrefix(m[3], "+++") || strings.HasPrefix(m[3], "---") {
			continue
		}
		pid, _ := strconv.Atoi(m[1])
		nr, _ := strconv.Atoi(m[2])
		rest := m[3]
		at := -1
		if strings.HasPrefix(rest, "<... ") {
			i, ok := pending[pid]
			if !ok {
				continue
			}
			delete(pending, pid)
			_, rest, _ = strings.Cut(rest, " resumed>")
			tr.calls[i].text += rest
			at = i
		} else {
			name, _, _ := strings.Cut(rest, "(")
			tr.calls = append(tr.calls, traced{pid: pid, nr: nr, name: name, text: rest})
			at = len(tr.calls) - 1
		}
		c := &tr.calls[at]
		if head, ok := strings.CutSuffix(c.text, "<unfinished ...>"); ok {
			c.text = strings.TrimSuffix(head, " ")
			pending[pid] = at
			continue
		}
		if r := result.FindStringSubmatch(c.text); r != nil {
			n, _ := strconv.ParseInt(r[1], 0, 64)
			c.ret, c.errno, c.done = int(n), r[2], r[1] != "?"
		}
	}
	for i := range tr.calls {
		c := &tr.calls[i]
		c.args = arguments(c.text)
		if c.name == "clone3" && c.errno == "" && tr.child < 0 && field(c.text, "flags")>>32&1 != 0 { // CLONE_CLEAR_SIGHAND
			tr.child = i
		}
	}
	if tr.child < 0 {
		return nil, fmt.Errorf("nobody cloned a child")
	}
	return tr, nil
}

// field is a number of a structure.
func field(text, name string) uint64 {
	_, rest, _ := strings.Cut(text, name+"=")
	end := strings.IndexAny(rest, ", })")
	if end < 0 {
		return 0
	}
	n, _ := number(rest[:end])
	return n
}

// arguments splits a call's arguments. There are no commas and brackets in texts, which are in hexadecimal.
func arguments(text string) []string {
	_, text, ok := strings.Cut(text, "(")
	if !ok {
		return nil
	}
	var out []string
	depth, start := 0, 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '(', '[', '{':
			depth++
		case ')', ']', '}':
			if depth == 0 {
				if s := strings.TrimSpace(text[start:i]); s != "" {
					out = append(out, s)
				}
				return out
			}
			depth--
		case ',':
			if depth == 0 {
				out = append(out, strings.TrimSpace(text[start:i]))
				start = i + 1
			}
		}
	}
	return out
}

// number reads 0x1|0x80000, 0644, -100</tmp>, NULL.
func number(s string) (uint64, bool) {
	s, _, _ = strings.Cut(s, "<")
	if s == "NULL" {
		return 0, true
	}
	var n uint64
	for _, part := range strings.Split(strings.TrimPrefix(s, "|"), "|") {
		if v, err := strconv.ParseInt(part, 0, 64); err == nil {
			n |= uint64(v)
		} else if v, err := strconv.ParseUint(part, 0, 64); err == nil {
			n |= v
		} else {
			return 0, false
		}
	}
	return n, true
}

// behind is what a descriptor stands for: 3</proc>.
func behind(arg string) string {
	_, p, _ := strings.Cut(arg, "<")
	p, _, _ = strings.Cut(strings.TrimSuffix(p, ">"), "<") // and what kind of device that is
	return unhex(p)
}

// quoted is a text argument.
func quoted(arg string) (string, bool) {
	s, ok := strings.CutPrefix(arg, `"`)
	return unhex(strings.TrimSuffix(s, `"`)), ok
}

// unknownFD is the first number for descriptors that only who runs the plan knows.
const unknownFD = 1 << 28

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
	fds, kinds := map[string]int{"stdin": unknownFD, "stdout": unknownFD + 1, "stderr": unknownFD + 2}, map[string]string{}
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
			if st, err := os.Stat(s.host.Path(o.Path)); err == nil && !st.IsDir() {
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
					return nil, fmt.Errorf("execve has %v, the plan %v", seen, list)
				}
			}
			if c.errno == "" {
				if len(got) != k+1 {
					return nil, fmt.Errorf("calls after execve")
				}
				for j := want.Step + 1; j < len(p.Steps); j++ {
					if p.Steps[j].Lane == plan.Child {
						return nil, fmt.Errorf("step %d, %s, did not come to be made", j+1, p.Steps[j].Op)
					}
				}
				return children, nil
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

// effect is something that the host's processes did, in a normal form: a word, and what it was done to.
type effect struct {
	text string
	raw  string
}

// want is what a step leaves in a trace: effects whose text matches, at least min and at most max of them.
type want struct {
	re       string
	min, max int
}

const many = 1 << 20

func exactly(text string) want { return want{"^" + regexp.QuoteMeta(text) + "$", 1, 1} }

func like(re string, min, max int) want { return want{re, min, max} }

// hostWants are the effects of a step of the host, in order.
func hostWants(p *plan.Plan, i int) []want {
	q := regexp.QuoteMeta
	switch o := p.Steps[i].Op.(type) {
	case *plan.CgroupCreate:
		// Missing parents are made first, and a cpuset of v1 gets what its parent has.
		parents := `(/[^/ ]*)*`
		return []want{
			like("^mkdir /sys/fs/cgroup"+parents+"$|^write /sys/fs/cgroup"+parents+`/(cpuset\.(cpus|mems)|cgroup\.clone_children) `, 0, many),
			like("^mkdir "+q(o.Path)+"$", 0, 1), like("^write "+q(o.Path)+`/cpuset\.(cpus|mems) `, 0, 2),
		}
	case *plan.CgroupWrite:
		if o.Enable {
			return []want{like("^write "+q(o.File)+" ", 0, many)}
		}
		return []want{exactly("write " + o.File + " " + o.Value)}
	case *plan.CgroupEvacuate:
		return []want{like("^(mkdir|write) "+q(o.To), 0, many)}
	case *plan.DeviceFilter:
		return []want{like("^bpf ", 2, many)}
	case *plan.OpenTree:
		if o.Child {
			return []want{like("^setns ", 0, many), like("^open_tree "+q(o.Path)+" ", 1, 1), like("^mount_setattr ", 0, 2), like("^setns ", 0, many)}
		}
		wants := []want{exactly(fmt.Sprintf("open_tree %s %v", o.Path, o.Recursive))}
		if o.Readonly || o.IDMap != "" {
			wants = append(wants, like("^mount_setattr ", 1, 2))
		}
		return wants
	case *plan.RootMount:
		return []want{
			like("^mkdir "+q(o.Target)+"$", 0, 1),
			exactly("open_tree " + o.Target + " false"), like("^move_mount .*"+q(o.Target), 1, 1), like("^mount_setattr ", 1, 1),
			exactly("open_tree " + o.Source + " true"), like("^move_mount .*"+q(o.Target), 1, 1), like("^mount_setattr ", 1, 1),
		}
	case *plan.Clone:
		return []want{exactly("clone " + strings.Join(slices.Sorted(slices.Values(o.Namespaces)), ","))}
	case *plan.Setns:
		return []want{exactly("setns " + strings.Join(o.Namespaces, ","))}
	case *plan.Unshare:
		return []want{exactly("unshare " + strings.Join(o.Namespaces, ","))}
	case *plan.Affinity:
		return []want{like("^sched_setaffinity", 1, 1)}
	case *plan.IDMap:
		return []want{
			like(`^write /proc/\d+/setgroups deny$`, 0, 1), like(`^write /proc/\d+/uid_map `, 1, 1),
			like(`^write /proc/\d+/gid_map `, 1, 1),
		}
	case *plan.WriteProc:
		return []want{like(`^write /proc/\d+/`+q(o.File+" "+o.Value)+"$", 1, 1)}
	case *plan.WriteFile:
		return []want{exactly("write " + o.Path + " " + o.Value)}
	case *plan.Rlimit:
		return []want{like(`^prlimit64 `, 1, 1)}
	case *plan.NftBridge:
		var wants []want
		for _, r := range o.Rules {
			words := strings.Fields(r)
			kind := map[string]string{"add table": "0", "flush table": "8", "add map": "9", "add chain": "3", "add rule": "6"}[words[0]+" "+words[1]]
			re := "^nft " + kind + " .*" + q(words[3])
			if len(words) > 4 {
				re += ".*" + q(words[4])
			}
			wants = append(wants, like(re, 1, 1))
		}
		return oneOrNone(wants)
	case *plan.LinkBridge:
		wants := []want{
			like("^route new link .*"+q(o.Name)+".*bridge|^route new link .*bridge.*"+q(o.Name), 1, 1),
			like("^route set link .*"+q(o.Name)+".*glassbox", 1, 1), // whose it is
		}
		for _, set := range o.Sysctls {
			key, value, _ := strings.Cut(set, "=")
			wants = append(wants, exactly("write /proc/sys/"+key+" "+value))
		}
		address := netip.MustParsePrefix(o.Address).Addr().As4()
		return oneOrNone(append(wants, like("^route new address .*"+q(plainBytes(address[:])), 1, 1), like("^route new link", 1, 1)))
	case *plan.LinkVeth:
		wants := []want{like("(?s)^route new link .*"+q(o.Name)+".*veth.*"+q(o.Peer), 1, 1), like("^route (new|set) link ", 0, 3)}
		for _, set := range o.Sysctls {
			key, value, _ := strings.Cut(set, "=")
			wants = append(wants, like("^setns net$", 0, 2), exactly("write /proc/sys/"+key+" "+value))
		}
		return wants
	case *plan.LinkAddress:
		wants := []want{like("^setns net$", 0, 2)}
		if o.Address != "" {
			address := netip.MustParsePrefix(o.Address).Addr().As4()
			wants = append(wants, like("(?s)^route new address .*"+q(plainBytes(address[:])), 1, 1))
		}
		return append(wants, like("^route new link ", 1, 1))
	case *plan.RouteDefault:
		via := netip.MustParseAddr(o.Via).As4()
		return []want{like("(?s)^route new route .*"+q(plainBytes(via[:])), 1, 1)}
	case *plan.NftPublish:
		var ports []want
		for _, port := range o.Ports {
			ports = append(ports, like("(?s)^nft 12 .*"+q(o.Table)+".*"+q(plainBytes(binary.BigEndian.AppendUint16(nil, port.HostPort))), 1, 1))
		}
		return ports
	case *plan.Hook:
		if o.Enter { // it is started as exec starts a program: in the container's cgroups and namespaces, with what limits the caller had
			before := like(`^(setns|unshare|clone|setgroups|setresuid|setresgid|capset) |^prlimit64 |`+
				`^write /sys/fs/cgroup/[^ ]*/(tasks|cgroup\.procs) 0$`, 1, many)
			return []want{before, like("^exec "+q(o.Path)+"$", 1, 1), like(`^setns `, 0, many)}
		}
		return []want{like(`^(setns|unshare) `, 0, many), like("^exec "+q(o.Path)+"$", 1, 1), like(`^(setns|unshare) `, 0, many)}
	}
	return nil
}

// oneOrNone makes wants of which all or none are there: what a bridge has is made once.
func oneOrNone(wants []want) []want {
	for i := range wants {
		wants[i].min = -1 // as the first one
	}
	return wants
}

// undoWants are the effects of a step that takes something back.
func undoWants(op plan.Op) []want {
	q := regexp.QuoteMeta
	switch o := op.(type) {
	case *plan.CgroupRemove:
		return []want{like("^rmdir "+q(o.Path)+"(/|$)", 1, many)}
	case *plan.LinkDelete:
		return []want{like("^route delete link ", 0, 1)} // it goes with the network namespace, if that is faster
	case *plan.RootUnmount:
		return []want{like("^umount2 .*"+q(o.Target), 2, 3), like("^rmdir "+q(o.Target)+"$", 0, 1)}
	case *plan.NftUnpublish:
		var ports []want
		for _, port := range o.Ports {
			ports = append(ports, like("(?s)^nft 14 .*"+q(o.Table)+".*"+q(plainBytes(binary.BigEndian.AppendUint16(nil, port.HostPort))), 1, 1))
		}
		return ports
	}
	return nil
}

func (tr *trace) compareHost(p *plan.Plan, children []int) error {
	effects := tr.effects(children)
	at := 0
	consume := func(what string, wants []want) error {
		all := 0 // of those that are there together or not at all: 1 there, -1 not
		for _, w := range wants {
			re := regexp.MustCompile("(?s)" + w.re)
			n := 0
			for at < len(effects) && n < w.max && re.MatchString(effects[at].text) {
				at++
				n++
			}
			min := w.min
			if min < 0 {
				if all == 0 {
					all = 1
					if n == 0 {
						all = -1
					}
				}
				min = max(all, 0)
				if all < 0 && n > 0 {
					return fmt.Errorf("%s: only a part of it was made", what)
				}
			}
			if n < min {
				next := "there is nothing more"
				if at < len(effects) {
					next = fmt.Sprintf("next comes %q: %s", effects[at].text, effects[at].raw)
				}
				return fmt.Errorf("%s left no trace (%s): %s", what, w.re, next)
			}
		}
		return nil
	}
	for i, s := range p.Steps {
		if s.Lane != plan.Host {
			continue
		}
		if err := consume(fmt.Sprintf("step %d, %s,", i+1, s.Op), hostWants(p, i)); err != nil {
			return err
		}
	}
	// What is left in the cgroup is ended before all else.
	if err := consume("the end", []want{like(`^write /sys/fs/cgroup/\S+/cgroup\.kill 1$`, 0, 1)}); err != nil {
		return err
	}
	for _, s := range p.Undo(len(p.Steps)) {
		if err := consume("taking back: "+s.Op.String(), undoWants(s.Op)); err != nil {
			return err
		}
	}
	if at < len(effects) {
		return fmt.Errorf("%q is in no step: %s", effects[at].text, effects[at].raw)
	}
	return nil
}

// effects are what the processes of the host did, in order.
func (tr *trace) effects(children []int) []effect {
	var out []effect
	// The host's threads are the first one and those that they clone; what a container clones has numbers of its own.
	host := map[int]bool{tr.calls[0].pid: true}
	for n := 0; n != len(host); {
		n = len(host)
		for _, c := range tr.calls {
			if host[c.pid] && slices.Contains([]string{"clone", "clone3", "fork", "vfork"}, c.name) && c.ret > 0 &&
				!slices.Contains(children, c.ret) {
				host[c.ret] = true
			}
		}
	}
	exe := map[int]bool{} // clones of the runtime's own executable, which it runs from a read-only mount
	// A new network namespace may be made ahead by another thread; the one that clones is in it for the clone. Together that is the
	// clone's effect, if all of it is there: one unshare and the way back of that thread, and both ways of the one that clones.
	const net = unix.CLONE_NEWNET
	cloner, maker, turns := tr.calls[tr.child].pid, 0, 0
	for i, c := range tr.calls {
		if !host[c.pid] || c.errno != "" || !c.done || i == 0 {
			continue
		}
		add := func(format string, a ...any) {
			raw := unhex(c.text)
			out = append(out, effect{fmt.Sprintf(format, a...), raw[:min(len(raw), 300)]})
		}
		arg := func(n int) string {
			if n < len(c.args) {
				return c.args[n]
			}
			return ""
		}
		// file is the path that a call names by a directory and a name.
		file := func(dir, name string) string {
			p, _ := quoted(name)
			if !path.IsAbs(p) {
				p = path.Join(behind(dir), p)
			}
			return path.Clean(p)
		}
		changed := func(word, p string) {
			if !ours(p) {
				add("%s %s", word, p)
			}
		}
		if n, ok := number(arg(0)); ok && exe[int(n)] && (c.name == "mount_setattr" || c.name == "execveat") {
			if c.name == "execveat" {
				delete(exe, int(n)) // the number is free again
			}
			continue
		}
		switch c.name {
		case "mount", "umount2", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr", "pivot_root", "chroot", "mknod",
			"mknodat", "bpf", "keyctl", "add_key", "sethostname",
			"setdomainname", "sched_setaffinity", "sched_setattr", "ioprio_set", "set_mempolicy", "personality", "init_module", "finit_module",
			"swapon", "swapoff", "reboot", "settimeofday",
			"clock_settime", "adjtimex", "quotactl", "ptrace", "setgroups", "setresuid", "setresgid", "setuid", "setgid", "capset", "seccomp",
			"acct", "kexec_load", "umount":
			add("%s %s", c.name, unhex(strings.Join(c.args, " ")))
		case "open_tree":
			if name, _ := quoted(arg(1)); name == "/proc/self/exe" || path.Base(name) == "glassbox-runtime" && c.pid != tr.calls[tr.child].pid {
				exe[c.ret] = true
				continue
			}
			delete(exe, c.ret)
			if flags, _ := number(arg(2)); flags&unix.OPEN_TREE_CLONE != 0 {
				add("open_tree %s %v", file(arg(0), arg(1)), flags&unix.AT_RECURSIVE != 0)
			}
		case "setns", "unshare":
			n := 0
			if c.name == "setns" {
				n = 1
			}
			flags, _ := number(arg(n))
			switch {
			case c.name == "unshare" && flags == net && c.pid != cloner && maker == 0:
				maker = c.pid
				continue
			case c.name == "setns" && flags == net && maker != 0 &&
				(turns == 0 && c.pid == maker || turns == 1 && c.pid == cloner && i < tr.child || turns == 2 && c.pid == cloner && i > tr.child):
				turns++
				continue
			}
			if words := spaces(flags); words != "" || c.name == "setns" {
				add("%s %s", c.name, words)
			}
		case "clone3", "clone":
			flags := field(c.text, "flags")
			if i == tr.child && turns == 2 {
				flags |= net
			}
			if words := spaces(flags); words != "" || i == tr.child {
				add("clone %s", words)
			}
		case "prlimit64":
			if pid, _ := number(arg(0)); pid != 0 && arg(2) != "NULL" {
				add("prlimit64 %s %s", arg(1), arg(2))
			}
		case "write", "pwrite64", "writev":
			text, _ := quoted(arg(1))
			p := behind(arg(0))
			switch {
			case strings.HasPrefix(p, "NETLINK:"):
				add("netlink by %s", c.name)
			case regexp.MustCompile(`^/proc/\d+/comm$`).MatchString(p): // its own name
			case strings.HasPrefix(p, "/proc/") || strings.HasPrefix(p, "/sys/"):
				add("write %s %s", p, text)
			case path.IsAbs(p):
				changed("write", p)
			}
		case "sendto", "sendmsg":
			if strings.HasPrefix(behind(arg(0)), "NETLINK:") {
				for _, m := range messages(c.text) {
					add("%s", m)
				}
			}
		case "mkdir", "rmdir", "unlink", "chmod", "chown", "lchown", "truncate", "creat":
			p, _ := quoted(arg(0))
			changed(c.name, p)
		case "mkdirat", "fchmodat", "fchmodat2", "fchownat":
			changed(strings.TrimSuffix(c.name, "at"), file(arg(0), arg(1)))
		case "unlinkat":
			word := "unlink"
			if flags, _ := number(arg(2)); flags&unix.AT_REMOVEDIR != 0 {
				word = "rmdir"
			}
			changed(word, file(arg(0), arg(1)))
		case "rename", "link", "symlink":
			p, _ := quoted(arg(1))
			changed(c.name, p)
		case "renameat", "renameat2", "linkat":
			changed(c.name, file(arg(2), arg(3)))
		case "symlinkat":
			changed(c.name, file(arg(1), arg(2)))
		case "fchmod", "fchown", "ftruncate", "fsetxattr", "fallocate":
			if p := behind(arg(0)); path.IsAbs(p) && !strings.HasPrefix(p, "/memfd:") {
				changed(c.name, p)
			}
		case "execve", "execveat":
			p, _ := quoted(arg(0))
			if name := path.Base(p); name != "glassbox" && name != "glassbox-runtime" && p != "/proc/self/exe" &&
				!strings.HasPrefix(p, "/proc/self/fd/") {
				add("exec %s", p)
			}
		case "openat", "open", "openat2":
			n := 2
			if c.name == "open" {
				n = 1
			}
			flags, _ := number(arg(n))
			if c.name == "openat2" {
				flags = field(arg(2), "flags")
			}
			if flags&(unix.O_CREAT|unix.O_TRUNC) != 0 {
				changed("create", file(arg(0), arg(1)))
			}
		}
	}
	return out
}

// ours reports whether a path is glassbox's own: its book-keeping.
func ours(p string) bool {
	for _, dir := range []string{store, "/run/glassbox", "/run/glassbox-runtime"} {
		if p == dir || strings.HasPrefix(p, dir+"/") {
			return true
		}
	}
	return p == "/dev/null" || strings.HasPrefix(p, "/memfd:")
}

// spaces are the namespaces of clone flags, sorted.
func spaces(flags uint64) string {
	var out []string
	for name, bit := range map[string]uint64{
		"mount": unix.CLONE_NEWNS, "pid": unix.CLONE_NEWPID, "uts": unix.CLONE_NEWUTS, "ipc": unix.CLONE_NEWIPC, "net": unix.CLONE_NEWNET,
		"user":   unix.CLONE_NEWUSER,
		"cgroup": unix.CLONE_NEWCGROUP, "time": unix.CLONE_NEWTIME,
	} {
		if flags&bit != 0 {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return strings.Join(out, ",")
}

// plainBytes writes what is no printable character as \xNN.
func plainBytes(data []byte) string {
	var b strings.Builder
	for _, c := range data {
		if c > ' ' && c < 0x7f {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String()
}

// messages are the netlink messages of a call that change something, each with the texts and addresses that are in it.
func messages(text string) []string {
	var out []string
	for _, part := range strings.Split(text, "{nlmsg_len=")[1:] {
		kind, _, _ := strings.Cut(part[strings.Index(part, "nlmsg_type=")+len("nlmsg_type="):], ",")
		high, low, subsystem := strings.Cut(kind, "<<8|")
		var typ uint64
		if subsystem {
			h, _ := number(high)
			l, _ := number(low)
			typ = h<<8 | l
		} else {
			typ, _ = number(kind)
		}
		var payload strings.Builder
		for _, m := range regexp.MustCompile(`"((?:\\x[0-9a-f]{2})*)"`).FindAllStringSubmatch(part, -1) {
			payload.WriteString(plainBytes([]byte(unhex(m[1]))) + " ")
		}
		nft := strings.Contains(text, "NETFILTER") || typ>>8 == unix.NFNL_SUBSYS_NFTABLES
		switch {
		case typ>>8 == unix.NFNL_SUBSYS_NFTABLES:
			t := typ & 0xff
			if !slices.Contains([]uint64{1, 4, 7, 10, 13, 16, 19, 21}, t) { // NFT_MSG_GET…
				out = append(out, fmt.Sprintf("nft %d %s", t, payload.String()))
			}
		case nft: // begin and end of a transaction
		case typ >= unix.RTM_BASE && (typ-unix.RTM_BASE)%4 != 2:
			verb := []string{"new", "delete", "get", "set"}[(typ-unix.RTM_BASE)%4]
			what := map[uint64]string{0: "link", 1: "address", 2: "route"}[(typ-unix.RTM_BASE)/4]
			if what == "" {
				what = fmt.Sprint(typ)
			}
			out = append(out, fmt.Sprintf("route %s %s %s", verb, what, payload.String()))
		}
	}
	return out
}
