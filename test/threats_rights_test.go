package test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"glassbox/seccomp"
	"glassbox/test/machine"
)

// TestThreatLinkedRoot is row 7: directories of the root file system are links to directories of the host.
func TestThreatLinkedRoot(t *testing.T) {
	s := besiege(t)
	s.shell("mkdir victim")
	victim := filepath.Join(s.dir, "victim")
	before := s.ok(s.sh("cut -d' ' -f3- /proc/self/mountinfo"))
	for _, dir := range []string{"dev", "dev/pts", "dev/shm", "sys", "proc", "sys/fs/cgroup", "etc", "mnt"} {
		for _, there := range []bool{false, true} {
			for _, f := range faces {
				script := fmt.Sprintf("rm -rf %s; mkdir -p $(dirname %s); ln -s %s %s", dir, dir, victim, dir)
				if there {
					script += "; mkdir -p ." + victim
				}
				b := box{
					rootfs: s.root(script), args: []string{"sh", "-c", "[ -e " + secret + " ] && echo escaped; echo here"},
					tmpfs: []string{"/mnt/below"},
				}
				if strings.HasPrefix(dir, "dev/") || strings.HasPrefix(dir, "sys/") {
					// Nothing covers the link.
					b.edit = func(spec *specs.Spec) {
						spec.Mounts = slices.DeleteFunc(spec.Mounts, func(m specs.Mount) bool { return m.Destination == "/dev" || m.Destination == "/sys" })
						spec.Linux.MaskedPaths = nil
					}
				}
				res := s.run(f, b)
				if strings.Contains(res.Stdout, "escaped") || res.Code == 0 && res.Stdout != "here\n" {
					t.Errorf("%s, %s, there %v: exit code %d: %s%s", f, dir, there, res.Code, res.Stdout, res.Stderr)
				}
				if entries, err := os.ReadDir(victim); err != nil || len(entries) > 0 {
					t.Errorf("%s, %s, there %v: the host's directory has got %v %v", f, dir, there, entries, err)
					s.shell("rm -rf victim; mkdir victim")
				}
			}
		}
	}
	if after := s.ok(s.sh("cut -d' ' -f3- /proc/self/mountinfo")); after != before {
		t.Errorf("the machine's mounts have changed from\n%s\nto\n%s", before, after)
	}
}

// TestThreatCgroups is rows 8 and 9: writing to cgroups, as they are mounted, mounted anew and from namespaces of one's own.
func TestThreatCgroups(t *testing.T) {
	s := besiege(t)
	for _, f := range faces {
		b := box{rootfs: s.root(""), args: []string{"/t/prog", "cgescape"}}
		want := []string{"namespace cgroup denied", "namespace user denied"}
		got := strings.Split(strings.TrimSpace(s.ok(s.run(f, b))), "\n")
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", f, got, want)
		}
		// The filter is one of three walls. Without it the container can make namespaces, and must still not name the host's program.
		b.bare = true
		res := s.run(f, b)
		if res.Code != 0 || strings.Contains(res.Stdout, "release_agent") || strings.Contains(res.Stdout, "/sys/fs/cgroup") {
			t.Errorf("%s without a filter: exit code %d: %s%s", f, res.Code, res.Stdout, res.Stderr)
		}
	}
}

// TestThreatRootlessCgroups is row 8 for an ordinary user, whose configuration has no cgroup namespace as runc's example has none: the
// cgroups that the user owns are in sight, and the container's root is that user.
func TestThreatRootlessCgroups(t *testing.T) {
	s := besiege(t)
	root := s.root("")
	s.shell("mkdir -p home/b home/state && cp -a " + root + " home/b/rootfs && chown -R 1000:1000 home")
	got := s.ok(s.sh(`cd ` + s.dir + `/home/b && export HOME=$PWD XDG_RUNTIME_DIR=` + s.dir + `/home/state
		user() { setpriv --reuid 1000 --regid 1000 --clear-groups "$@"; }
		for d in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir -p $d/users/own 2>/dev/null && chown -R 1000:1000 $d/users; done
		user sh -c 'for d in /sys/fs/cgroup/users /sys/fs/cgroup/*/users; do [ ! -d $d ] || mkdir $d/mine; done' && echo outside
		user glassbox-runtime spec --rootless
		inside='for d in $(find /sys/fs/cgroup -type d -name own); do
			echo seen; mkdir $d/made && echo made $d; mount -o remount,rw $d; echo 1 >$d/cgroup.procs && echo joined $d; done 2>/dev/null; echo end'
		user sh -c 'jq --arg s "$1" ".process.args = [\"sh\", \"-c\", \$s] | .process.terminal = false" config.json >new &&
			mv new config.json' sh "$inside"
		user glassbox-runtime run mine </dev/null 2>&1`))
	if !strings.HasPrefix(got, "outside\n") || !strings.HasSuffix(got, "end\n") || strings.Contains(got, "made") ||
		strings.Contains(got, "joined") {
		t.Errorf("got %s", got)
	}
	if !strings.Contains(got, "seen") {
		t.Error("no cgroup of the user's is in sight: nothing was attacked")
	}
}

// TestThreatCalls is row 10: every system call is made in a container, and new user namespaces are asked for in every way.
func TestThreatCalls(t *testing.T) {
	s := besiege(t)
	parse := func(text string) map[int]int {
		results := map[int]int{}
		for line := range strings.Lines(text) {
			var nr, errno int
			if n, _ := fmt.Sscan(line, &nr, &errno); n == 2 {
				results[nr] = errno
			}
		}
		return results
	}
	filter, err := seccomp.Compile(seccomp.Default(seccomp.DefaultOptions{Arch: runtime.GOARCH, Caps: dockerCaps, KernelMajor: 6}),
		runtime.GOARCH)
	must(t, err)
	root := s.root("")
	for _, f := range faces {
		b := box{rootfs: root, args: []string{"/t/prog", "calls"}}
		got := parse(s.ok(s.run(f, b)))
		b.bare = true
		free := parse(s.ok(s.run(f, b)))
		if len(got) < 600 || len(free) != len(got) {
			t.Fatalf("%s: %d and %d calls were made", f, len(got), len(free))
		}
		denied := 0
		for nr, errno := range got {
			want := free[nr]
			if verdict := decide(filter.Program, nr); verdict>>16 == 0x0005 {
				want = int(verdict & 0xffff)
				denied++
			}
			if errno != want {
				t.Errorf("%s: call %d: errno %d, want %d (without a filter %d)", f, nr, errno, want, free[nr])
			}
		}
		if denied < 200 {
			t.Errorf("%s: the profile denies only %d of %d calls", f, denied, len(got))
		}
		if got, want := s.ok(s.run(f, box{rootfs: root, args: []string{"/t/prog", "newns"}})),
			"clone3 ENOSYS\nclone EPERM\nunshare EPERM\n"; got != want {
			t.Errorf("%s: user namespaces: got %q, want %q", f, got, want)
		}
		if got, want := s.ok(s.run(f, box{rootfs: root, args: []string{"/t/prog", "newns"}, bare: true})),
			"clone3 ok\nclone ok\n"; !strings.HasPrefix(got, want) {
			t.Errorf("%s: user namespaces without a filter: got %q, want %q", f, got, want)
		}
	}
}

// decide runs a filter on a call whose arguments are all ones (bpf(4), seccomp(2)).
func decide(program []seccomp.Instruction, nr int) uint32 {
	audit := map[string]uint32{"amd64": 0xc000003e, "arm64": 0xc00000b7}[runtime.GOARCH]
	load := func(at uint32) uint32 {
		switch at {
		case 0:
			return uint32(nr)
		case 4:
			return audit
		}
		return ^uint32(0) // arguments; the address of the instruction is not looked at
	}
	var a uint32
	for i := 0; ; i++ {
		in := program[i]
		ok := false
		switch in.Op {
		case 0x20: // ld [k]
			a = load(in.K)
			continue
		case 0x54: // and #k
			a &= in.K
			continue
		case 0x06: // ret #k
			return in.K
		case 0x05: // ja
			i += int(in.K)
			continue
		case 0x15:
			ok = a == in.K
		case 0x25:
			ok = a > in.K
		case 0x35:
			ok = a >= in.K
		case 0x45:
			ok = a&in.K != 0
		default:
			panic(fmt.Sprintf("instruction %#x", in.Op))
		}
		if ok {
			i += int(in.Jt)
		} else {
			i += int(in.Jf)
		}
	}
}

// TestThreatInheritable is row 11: capabilities that whoever starts the runtime has as inheritable ones stay outside.
func TestThreatInheritable(t *testing.T) {
	s := besiege(t)
	generous := func(argv []string) string {
		return s.ok(s.on(append([]string{"setpriv", "--inh-caps=+chown,+kill,+setuid,+net_raw,+sys_admin", "--ambient-caps=+chown,+sys_admin"},
			argv...)...))
	}
	if got := generous([]string{"grep", "CapInh", "/proc/self/status"}); strings.Contains(got, "0000000000000000") {
		t.Fatalf("setpriv gives no inheritable capabilities: %s", got)
	}
	for _, f := range faces {
		for _, user := range []string{"0", "1000"} {
			program := []string{"grep", "-E", "Cap(Inh|Amb)", "/proc/self/status"}
			b := box{rootfs: s.root(""), args: program, user: user}
			want := "CapInh:\t0000000000000000\nCapAmb:\t0000000000000000\n"
			if got := generous(s.command(f, s.id("box"), b)); got != want {
				t.Errorf("%s run as %s: got %q, want %q", f, user, got, want)
			}
			b.args = []string{"sleep", "1000"}
			id, _ := s.start(f, b)
			if got := generous(s.exec(f, []string{"-u", user}, id, program...)); got != want {
				t.Errorf("%s exec as %s: got %q, want %q", f, user, got, want)
			}
			if f != engineFace {
				if got := generous(s.exec(f, []string{"--cap", "CAP_SYS_PTRACE"}, id, program...)); got != want {
					t.Errorf("%s exec with a further capability: got %q, want %q", f, got, want)
				}
			}
			s.remove(f, id)
		}
	}
}

// TestThreatUser is row 12: numbers of users that are none, or wrap around to root.
func TestThreatUser(t *testing.T) {
	s := besiege(t)
	root := s.root("")
	program := []string{"sh", "-c", "echo $(id -u):$(id -g)"}
	for _, f := range faces {
		id, _ := s.start(f, box{rootfs: root, args: []string{"sleep", "1000"}})
		try := func(user, want string) {
			t.Helper()
			for what, res := range map[string]machine.Result{
				"run":  s.run(f, box{rootfs: root, args: program, user: user}),
				"exec": s.on(s.exec(f, []string{"-u", user}, id, program...)...),
			} {
				if want == "" && (res.Code == 0 || res.Stdout != "") || want != "" && (res.Code != 0 || res.Stdout != want+"\n") {
					t.Errorf("%s %s as %q: exit code %d, got %q (%s), want %q", f, what, user, res.Code, res.Stdout, strings.TrimSpace(res.Stderr), want)
				}
			}
		}
		try("1000:1001", "1000:1001")
		try("2147483647:2147483647", "2147483647:2147483647")
		for _, user := range []string{
			"4294967296", "4294967295", "-1", "00", "007", "0x0", "+1", "1e3", "1.0", "18446744073709551616", "99999999999999999999999999999999",
			"٣", "１", "1_000", "1 000",
		} {
			try(user, "")
			try("1000:"+user, "")
		}
		s.remove(f, id)
	}
	for _, gid := range []string{"4294967295", "4294967296", "-1"} {
		if res := s.on("glassbox", "run", "--rm", "--network", "none", "--group-add", gid, "--rootfs", root, "id"); res.Code != 125 {
			t.Errorf("--group-add %s: exit code %d: %s", gid, res.Code, res.Stdout)
		}
	}
	// The number that is "leave it as it is" to the kernel, where no parser of a flag comes first.
	id, _ := s.start(runtimeFace, box{rootfs: root, args: []string{"sleep", "1000"}})
	for what, user := range map[string]specs.User{
		"uid": {UID: 4294967295, GID: 1000}, "gid": {UID: 1000, GID: 4294967295},
		"additionalGids": {UID: 1000, GID: 1000, AdditionalGids: []uint32{4294967295}},
	} {
		process := filepath.Join(s.dir, "process.json")
		text, err := json.Marshal(specs.Process{Args: program, Cwd: "/", Env: []string{"PATH=/bin"}, User: user})
		must(t, err)
		must(t, os.WriteFile(process, text, 0o644))
		for how, res := range map[string]machine.Result{
			"config.json":    s.run(runtimeFace, box{rootfs: root, args: program, edit: func(spec *specs.Spec) { spec.Process.User = user }}),
			"exec --process": s.on("glassbox-runtime", "exec", "--process", process, id),
		} {
			if res.Code == 0 || res.Stdout != "" || !strings.Contains(res.Stderr, "/user/"+what) {
				t.Errorf("%s: 4294967295 as %s: exit code %d, got %q (%s), want an error that names it", how, what, res.Code, res.Stdout,
					strings.TrimSpace(res.Stderr))
			}
		}
	}
	s.remove(runtimeFace, id)
}

// TestThreatChroot is row 21: a second chroot, by a root that may do it.
func TestThreatChroot(t *testing.T) {
	s := besiege(t)
	for _, f := range faces {
		for _, caps := range [][]string{nil, {"CAP_SYS_ADMIN"}} {
			got := strings.Fields(s.ok(s.run(f, box{rootfs: s.root(""), args: []string{"/t/prog", "breakout"}, caps: caps})))
			if !slices.Contains(got, "t") || slices.Contains(got, "boot") || slices.Contains(got, "var") {
				t.Errorf("%s with %v ends in a root directory with %v", f, caps, got)
			}
		}
	}
}

// processes counts those of a container's PID namespace.
func (s *siege) processes(f face, id string) (n int) {
	s.Helper()
	ns := func(pid int) string {
		link, _ := os.Readlink(s.host.Path(fmt.Sprintf("/proc/%d/ns/pid", pid)))
		return link
	}
	own := ns(s.pid(f, id))
	for pid := range s.host.Processes() {
		if ns(pid) == own {
			n++
		}
	}
	return n
}

// TestThreatBombs is row 22: containers that take all they can get, beside one that works.
func TestThreatBombs(t *testing.T) {
	s := besiege(t)
	root := s.root("")
	for _, f := range []face{engineFace, runtimeFace} {
		neighbour, _ := s.start(f, box{rootfs: root, args: []string{"sleep", "1000"}})
		bombs := []struct {
			box
			says string
		}{
			{box{args: []string{"/t/prog", "forkbomb"}, pids: 60}, "can't fork"},
			{box{args: []string{"sh", "-c", "/t/prog membomb; echo ended with $?; sleep 1000"}, memory: 64 << 20}, "ended with 137"},
			{box{
				args: []string{"/t/prog", "diskbomb", "/scratch/file", "/dev/shm/file"}, tmpfs: []string{"/scratch"}, size: "8m",
				memory: 256 << 20,
			}, "can't write: write /dev/shm/file: no space left"},
			{box{
				args: []string{"sh", "-c", "/t/prog diskbomb /scratch/file; echo ended with $?; sleep 1000"}, tmpfs: []string{"/scratch"},
				size: "900m", memory: 64 << 20,
			}, "ended with 137"},
			{box{args: []string{"/t/prog", "fdbomb"}, nofile: 256, pids: 60}, "can't open more after 255: too many open files"},
		}
		type running struct{ id, out string }
		var list []running
		for _, bomb := range bombs {
			bomb.rootfs = root
			id, out := s.start(f, bomb.box)
			list = append(list, running{id, out})
		}
		alive := func() {
			t.Helper()
			begin := time.Now()
			if got := s.ok(s.on(s.exec(f, nil, neighbour, "echo", "alive")...)); got != "alive\n" {
				t.Errorf("%s: the neighbour says %q", f, got)
			}
			verb := "ps"
			if f != engineFace {
				verb = "list"
			}
			s.ok(s.on(strings.TrimSuffix("glassbox-runtime", map[bool]string{true: "-runtime"}[f == engineFace]), verb))
			if took := time.Since(begin); took > scaled(15*time.Second) {
				t.Errorf("%s: exec and %s took %v beside the bombs", f, verb, took)
			}
		}
		for i, bomb := range bombs {
			alive()
			s.until(fmt.Sprintf("%s: %q from %v", f, bomb.says, bomb.args), func() bool {
				return strings.Contains(s.logs(f, list[i].id, list[i].out), bomb.says)
			})
			if n := s.processes(f, list[i].id); bomb.pids > 0 && n > int(bomb.pids) {
				t.Errorf("%s: %v has %d processes, want at most %d", f, bomb.args, n, bomb.pids)
			}
		}
		alive()
		for _, b := range list {
			s.remove(f, b.id)
		}
		alive()
		s.remove(f, neighbour)
	}
}
