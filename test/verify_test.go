package test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"glassbox/verify"
)

// verified compares something with its plan; the arguments are those of glassbox verify.
func (s *siege) verified(args ...string) (*verify.Report, int) {
	s.Helper()
	res := s.on(append([]string{"glassbox", "verify", "--json"}, args...)...)
	var reports []*verify.Report
	if err := json.Unmarshal([]byte(res.Stdout), &reports); err != nil || len(reports) != 1 {
		s.Fatalf("verify %s: exit code %d, %d reports: %v: %s%s", strings.Join(args, " "), res.Code, len(reports), err, res.Stdout, res.Stderr)
	}
	return reports[0], res.Code
}

// faults are what differs and what is in no step, one line each: "op: what | found".
func faults(r *verify.Report) []string {
	var out []string
	for _, f := range append(slices.Clone(r.Steps), r.Unexpected...) {
		switch f.Verdict {
		case verify.Differs:
			out = append(out, fmt.Sprintf("%s: %s | %s", f.Op, f.What, f.Found))
		case verify.Unlisted:
			out = append(out, "unlisted: "+f.What)
		}
	}
	return out
}

// furnish gives the machine a store with busybox in it, a directory to share, and a loopback device that is up.
func (s *siege) furnish() {
	s.Helper()
	dir, err := run.seed.get()
	must(s.T, err)
	out, err := exec.Command("cp", "-al", filepath.Join(dir, "glassbox"), filepath.Join(s.dir, "store")).CombinedOutput()
	if err != nil {
		s.Fatalf("cp: %v: %s", err, out)
	}
	s.shell("mkdir -p shared/sub && echo x >shared/file && chmod 755 shared")
	s.ok(s.sh("ip link set lo up"))
}

// ways are command lines of glassbox run whose containers verify has to understand. BASE is a root file system, SHARED a directory.
var ways = []string{
	"busybox sleep 1077",
	"-m 64m --pids-limit 50 --cpus 0.5 -p 8080:80 -v SHARED:/data:ro --tmpfs /run:size=1m --rootfs BASE sleep 1077",
	"--network none --read-only --tmpfs /run:size=1m,mode=700 -w /tmp busybox sleep 1077",
	"--network none -u 1000:1000 --group-add 5 --group-add 7 busybox sleep 1077",
	"--network host busybox sleep 1077",
	"--network none --cap-drop ALL --cap-add CHOWN --cap-add NET_ADMIN --security-opt no-new-privileges busybox sleep 1077",
	"--network none --cap-drop ALL busybox sleep 1077",
	"--network none --privileged busybox sleep 1077",
	"--network none --ulimit nofile=100:200 --ulimit core=0 --ulimit nproc=500 --oom-score-adj 300 busybox sleep 1077",
	"--sysctl net.ipv4.ip_forward=1 --sysctl kernel.msgmax=9000 --hostname h --domainname d busybox sleep 1077",
	"--network none --device /dev/null:/dev/zwei --device-cgroup-rule 'c 10:200 rwm' --shm-size 1m busybox sleep 1077",
	"--pid host --ipc host --network none busybox sleep 1077",
	"--uts host --cgroupns host --network none busybox sleep 1077",
	"-v SHARED:/a:rshared -v SHARED:/b:rslave,ro --mount type=bind,source=SHARED,target=/c,bind-recursive=disabled -v " +
		"SHARED/file:/d/e:ro busybox sleep 1077",
	"-v /:/host:ro --network none busybox sleep 1077",
	"-v /sys:/host/sys -v /proc:/host/proc:ro --network none busybox sleep 1077",
	"--security-opt seccomp=unconfined --security-opt systempaths=unconfined --network none busybox sleep 1077",
	"-m 32m --memory-swap 64m --memory-reservation 16m --cpu-shares 512 --cpuset-cpus 0 --cpu-period 50000 --cpu-quota 25000 --network " +
		"none busybox sleep 1077",
	"-e 'A=b c' -e 'E=$(x) \"y\"' --hostname other --network none busybox sleep 1077",
	"--ip 172.30.0.77 --dns 192.0.2.1 --dns-search x.example --add-host n:192.0.2.2 busybox sleep 1077",
	"-p 127.0.0.1:8081:81 -p 8082:82/udp busybox sleep 1077",
	"--tmpfs /x --tmpfs /y:ro,exec,size=64k --mount type=tmpfs,target=/z,tmpfs-mode=1770 --network none busybox sleep 1077",
	"-w /not/there --network none busybox sleep 1077",
	"--rootfs BASE --network none --read-only sleep 1077",
	"--rootfs BASE --network none --hostname r -v SHARED:/tmp/deep/er sleep 1077",
	"--cpus 1.5 --pids-limit 100 --oom-score-adj 1000 --network none busybox sh -c 'sleep 1077; :'",
	"-v SHARED:/etc/extra --network none -u 5 busybox sleep 1077",
	"--network none busybox:user sleep 1077",
	"--network none busybox:workdir sleep 1077",
	"--network none --cap-add SYS_ADMIN --cap-add SYS_PTRACE busybox sleep 1077",
}

func (s *siege) ways() []string {
	s.furnish()
	base, shared := s.root(""), filepath.Join(s.dir, "shared")
	var out []string
	for i, w := range ways {
		if testing.Short() && i%3 != 0 && !strings.Contains(w, "-m ") && !strings.Contains(w, "--device") {
			continue // an emulated processor takes minutes for all
		}
		out = append(out, strings.NewReplacer("BASE", base, "SHARED", shared).Replace(w))
	}
	return out
}

// TestVerifyFresh: a container that nobody has touched is what its plan says, whatever its flags are.
func TestVerifyFresh(t *testing.T) {
	s := besiege(t)
	for _, w := range s.ways() {
		id := s.id("fresh")
		s.ok(s.sh("glassbox run -d --name " + id + " " + w))
		r, code := s.verified(id)
		if bad := faults(r); code != 0 || len(bad) > 0 || r.Counts[verify.Holds] < 60 {
			t.Errorf("run %s: exit code %d, %v\n%s", w, code, r.Counts, strings.Join(bad, "\n"))
		}
		s.ok(s.on("glassbox", "rm", "-f", id))
	}
	// A terminal, a first process of glassbox's own, and what the image has in the place of a link.
	for _, argv := range [][]string{
		{"-t", "--network", "none", "busybox", "sleep", "1000"},
		{"--init", "--ulimit", "nofile=100:200", "--network", "none", "busybox", "sleep", "1000"},
	} {
		id := s.id("fresh")
		s.ok(s.on(append([]string{"glassbox", "run", "-d", "--name", id}, argv...)...))
		time.Sleep(scaled(300 * time.Millisecond)) // glassbox's own first process has to come up
		r, code := s.verified(id)
		if bad := faults(r); code != 0 || len(bad) > 0 {
			t.Errorf("run %v: exit code %d\n%s", argv, code, strings.Join(bad, "\n"))
		}
		s.ok(s.on("glassbox", "rm", "-f", id))
	}
	// Other processes of a container, and other containers, are no differences.
	s.ok(s.on("glassbox", "run", "-d", "--name", "first", "-p", "8090:80", "busybox", "sleep", "1000"))
	s.ok(s.on("glassbox", "run", "-d", "--name", "second", "--network", "container:first", "--pid", "container:first", "--ipc",
		"container:first", "busybox", "sleep", "1000"))
	s.ok(s.on("glassbox", "exec", "-d", "first", "sleep", "999"))
	for _, id := range []string{"first", "second"} {
		r, code := s.verified(id)
		if bad := faults(r); code != 0 || len(bad) > 0 {
			t.Errorf("%s: exit code %d\n%s", id, code, strings.Join(bad, "\n"))
		}
	}
	s.ok(s.on("glassbox", "pause", "first"))
	if r, code := s.verified("first"); code != 0 {
		t.Errorf("a paused container: exit code %d\n%s", code, strings.Join(faults(r), "\n"))
	}
}

// TestVerifyServices: what servers do to themselves is told, and is no alarm, alone and in a list, until somebody tampers with one.
func TestVerifyServices(t *testing.T) {
	s := besiege(t)
	s.furnish()
	base := s.root("")
	for _, flags := range []string{
		"", "-p 8091:80 -m 64m", "--network none --read-only --tmpfs /tmp",
		"--network none --cap-drop ALL --cap-add SETUID --cap-add SETGID",
	} {
		s.ok(s.sh("glassbox run -d --name " + s.id("service") + " " + flags + " --rootfs " + base + " /t/prog service"))
	}
	s.ok(s.sh(`for n in $(glassbox ps --format '{{.Names}}'); do until glassbox logs $n | grep -q ready; do sleep 0.05; done; done`))
	res := s.sh("glassbox verify --all")
	if res.Code != 0 || strings.Contains(res.Stdout, "DIFFERS") || strings.Count(res.Stdout, "service : maste") != 4 {
		t.Errorf("all: exit code %d\n%s%s", res.Code, res.Stdout, res.Stderr)
	}
	if res := s.sh("glassbox verify --all --strict"); res.Code != 2 {
		t.Errorf("strict: exit code %d, want 2", res.Code)
	}
	r, code := s.verified("service2")
	var own []string
	for _, f := range r.Steps {
		if f.Own {
			own = append(own, f.Op)
		}
	}
	slices.Sort(own)
	want := "capset chdir execve prlimit setgroups setresgid setresuid umask"
	if got := strings.Join(slices.Compact(own), " "); code != 0 || r.Own != r.Counts[verify.Differs] || got != want {
		t.Errorf("exit code %d, %d of %d differences its own: got %q, want %q", code, r.Own, r.Counts[verify.Differs], got, want)
	}
	s.ok(s.sh(`nsenter -t $(glassbox inspect -f '{{.State.Pid}}' service3) -m mount -t tmpfs none /etc`))
	if res := s.sh("glassbox verify --all"); res.Code != 1 || strings.Count(res.Stdout, "IN NO STEP") != 1 {
		t.Errorf("tampered with: exit code %d, want 1\n%s", res.Code, res.Stdout)
	}
}

// runtimeBoxes are bundles that verify has to understand. The one named device wants a link x1.
func (s *siege) runtimeBoxes() map[string]box {
	s.Helper()
	own := func(spec *specs.Spec) {
		spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		spec.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
		spec.Linux.GIDMappings = spec.Linux.UIDMappings
	}
	return map[string]box{
		"plain":     {},
		"limits":    {memory: 64 << 20, pids: 30, score: 200, nofile: 64, sysctl: map[string]string{"net.ipv4.ip_forward": "1"}},
		"tmpfs":     {tmpfs: []string{"/run", "/tmp"}, size: "1m", binds: [][2]string{{"/etc", "/mnt"}}},
		"tty-less":  {user: "1000:1000", cwd: "/tmp", caps: []string{"CAP_SYS_ADMIN"}},
		"own users": {edit: own},
		"own user": {edit: func(spec *specs.Spec) {
			own(spec)
			spec.Process.User = specs.User{UID: 7, GID: 8, AdditionalGids: []uint32{9}}
		}},
		"process": {edit: func(spec *specs.Spec) {
			domain, mask := specs.LinuxPersonality{Domain: specs.PerLinux32}, uint32(0o027)
			spec.Linux.Personality, spec.Process.User.Umask = &domain, &mask
			spec.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 3}
			spec.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 6}
			spec.Process.ExecCPUAffinity = &specs.CPUAffinity{Initial: "0", Final: "0"}
		}},
		"spread": {edit: func(spec *specs.Spec) {
			spec.Linux.RootfsPropagation = "shared"
			spec.Root.Readonly = true
			spec.Mounts = append(spec.Mounts, specs.Mount{
				Destination: "/mnt", Type: "bind", Source: "/etc",
				Options: []string{"bind", "ro", "nosuid", "slave"},
			})
		}},
		"device": {edit: func(spec *specs.Spec) {
			spec.Linux.NetDevices = map[string]specs.LinuxNetDevice{"x1": {Name: "eth7"}}
			spec.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x/fuse", Type: "c", Major: 10, Minor: 229}, {Path: "/dev/pipe", Type: "p"}}
		}},
		"mapped": {edit: func(spec *specs.Spec) {
			ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 5000, Size: 100}}
			spec.Mounts = append(spec.Mounts, specs.Mount{
				Destination: "/mnt", Type: "bind", Source: s.dir + "/shared",
				Options: []string{"rbind", "ro", "ridmap"}, UIDMappings: ids, GIDMappings: ids,
			})
		}},
		"host mounts": {edit: withoutMounts},
		"time": {edit: func(spec *specs.Spec) {
			spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
			spec.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1000}}
		}},
	}
}

// TestVerifyRuntime is the same for containers of glassbox-runtime, those that wait for start among them.
func TestVerifyRuntime(t *testing.T) {
	s := besiege(t)
	root := s.root("")
	s.shell("mkdir -p shared/sub")
	for name, b := range s.runtimeBoxes() {
		b.rootfs, b.args = root, []string{"sleep", "1000"}
		for _, f := range []face{runtimeFace, hookedFace} {
			s.ok(s.sh("ip link del x0 2>/dev/null; ip link add x0 type veth peer name x1"))
			id := s.create(f, b)
			for _, state := range []string{"created", "running"} {
				r, code := s.verified("--runtime-root", "/run/glassbox-runtime", id)
				if bad := faults(r); code != 0 || len(bad) > 0 || r.Counts[verify.Holds] < 20 || state == "running" && !rooted(r) {
					t.Errorf("%s, %s, %s: exit code %d, %v\n%s", name, f, state, code, r.Counts, strings.Join(bad, "\n"))
				}
				if state == "created" {
					s.ok(s.on("glassbox-runtime", "start", id))
				}
			}
			s.remove(f, id)
		}
	}
}

// rooted reports whether the step by which the root changes was found to hold.
func rooted(r *verify.Report) bool {
	return slices.ContainsFunc(r.Steps, func(f verify.Finding) bool {
		return (f.Op == "pivot_root" || f.Op == "chroot") && f.Verdict == verify.Holds
	})
}

// TestVerifyRootless: an ordinary user's container, looked at by that user and by root.
func TestVerifyRootless(t *testing.T) {
	s := besiege(t)
	root := s.root("")
	s.shell("mkdir -p home/b home/state && cp -a " + root + " home/b/rootfs && chown -R 1000:1000 home")
	s.ok(s.sh(`cd ` + s.dir + `/home/b && export HOME=$PWD XDG_RUNTIME_DIR=` + s.dir + `/home/state
		user() { setpriv --reuid 1000 --regid 1000 --clear-groups "$@"; }
		user glassbox-runtime spec --rootless && user sh -c 'jq ".process.args = [\"sleep\", \"1000\"] | .process.terminal = false" config.json >new && mv new config.json'
		user glassbox-runtime run --detach mine </dev/null >log 2>&1 || { cat log; exit 1; }
		user glassbox verify --runtime-root $XDG_RUNTIME_DIR/glassbox-runtime mine >seen || { cat seen; exit 1; }`))
	r, code := s.verified("--runtime-root", s.dir+"/home/state/glassbox-runtime", "mine")
	if bad := faults(r); code != 0 || len(bad) > 0 || r.Counts[verify.Holds] < 40 {
		t.Errorf("as root: exit code %d, %v\n%s", code, r.Counts, strings.Join(bad, "\n"))
	}
	text, err := os.ReadFile(filepath.Join(s.dir, "home/b/seen"))
	must(t, err)
	if !strings.Contains(string(text), "Everything that can be observed is as the plan says") {
		t.Errorf("as the user: %s", text)
	}
	s.ok(s.sh("setpriv --reuid 1000 --regid 1000 --clear-groups nsenter -t " + fmt.Sprint(r.PID) +
		" -U -m -p --preserve-credentials mount -t tmpfs none /tmp"))
	if r, code = s.verified("--runtime-root", s.dir+"/home/state/glassbox-runtime", "mine"); code != 0 || len(faults(r)) != 1 || r.Own != 1 {
		t.Errorf("with another mount, which the user may make: exit code %d, %v", code, faults(r))
	}
}

// tampering is something done to a container behind glassbox's back.
type tampering struct {
	name  string
	do    string   // a script: $P is the process, $ID the container, $IP its address, $SHARED and $DIR directories
	undo  string   // for what is the host's
	want  []string // beginnings of what is found: "op: what", and a part of the rest after " | "
	flags string   // beside the usual ones
	cmd   string   // instead of sleep
	need  string   // what the host must have, as a test of the shell
	more  bool     // so much goes with it that not all is listed
	own   bool     // the container can have done it itself: all of it
}

// TestVerifyTampered: what is changed behind glassbox's back is found, and nothing else.
func TestVerifyTampered(t *testing.T) {
	s := besiege(t)
	s.furnish()
	lib := filepath.Join(s.dir, "lib.sh")
	must(t, os.WriteFile(lib, []byte(`set -e
SHARED=`+s.dir+`/shared
settle() { sleep `+fmt.Sprint(scaled(400*time.Millisecond).Seconds())+`; }
in_mounts() { nsenter -t $P -m -p "$@"; }
in_net() { nsenter -t $P -n "$@"; }
# group CONTROLLER: the container's directory; v1's, or the one of v2.
group() { for d in /sys/fs/cgroup/$1/glassbox/$ID /sys/fs/cgroup/glassbox/$ID /sys/fs/cgroup/unified/glassbox/$ID; do [ ! -d $d ] || { echo $d; return; }; done; }
v1() { [ -d /sys/fs/cgroup/$1/glassbox/$ID ]; }
`), 0o644))
	const usual = "-m 64m --pids-limit 50 --cpus 0.5 -p 8080:80 -v SHARED:/data:ro --tmpfs /run:size=1m --ulimit nofile=100:200 " +
		"--oom-score-adj 300 --sysctl net.ipv4.ip_forward=1 "
	for i, x := range tamperings {
		if testing.Short() && i%4 != 0 && !strings.Contains(x.do, "$(group") && !strings.Contains(x.do, "/sys/fs/cgroup") {
			continue // an emulated processor takes minutes for all
		}
		if x.need != "" && s.sh(x.need).Code != 0 {
			continue
		}
		id := s.id("tampered")
		command := x.cmd
		if command == "" {
			command = "sleep 1000"
		}
		s.shell("rm -rf shared && mkdir -p shared/sub && echo x >shared/file")
		s.ok(s.sh("glassbox run -d --name " + id + " " + strings.ReplaceAll(usual+x.flags, "SHARED", s.dir+"/shared") + " busybox " + command))
		if x.cmd == "" {
			if r, code := s.verified(id); code != 0 {
				t.Errorf("%s, before: %s", x.name, strings.Join(faults(r), "\n"))
			}
		}
		id64 := strings.TrimSpace(s.ok(s.on("glassbox", "inspect", "-f", "{{.Id}}", id)))
		ip := strings.TrimSpace(s.ok(s.on("glassbox", "inspect", "-f", "{{.NetworkSettings.IPAddress}}", id)))
		vars := fmt.Sprintf(". %s\nNAME=%s P=%d ID=%s IP=%s VETH=gb%s\n", lib, id, s.pid(engineFace, id), id64, ip, id64[:12])
		if res := s.sh(vars + x.do); res.Code != 0 {
			t.Errorf("%s: the tampering itself: %s%s", x.name, res.Stdout, res.Stderr)
		}
		r, code := s.verified(id)
		got := faults(r)
		left := slices.Clone(got)
		for _, w := range x.want {
			begin, part, _ := strings.Cut(w, " | ")
			k := slices.IndexFunc(left, func(f string) bool { return strings.HasPrefix(f, begin) && strings.Contains(f[len(begin):], part) })
			if k < 0 {
				t.Errorf("%s: not found: %q among\n%s", x.name, w, strings.Join(got, "\n"))
				continue
			}
			left = slices.Delete(left, k, k+1)
		}
		wantCode := 1
		if x.own {
			wantCode = 0
		}
		if code != wantCode || len(left) > 0 && !x.more || x.own && r.Own != len(got) {
			t.Errorf("%s: exit code %d, want %d, and this was not tampered with:\n%s", x.name, code, wantCode, strings.Join(left, "\n"))
		}
		for _, f := range append(slices.Clone(r.Steps), r.Unexpected...) {
			if (f.Verdict == verify.Differs || f.Verdict == verify.Unlisted) && (f.Where == "" || f.Why == "") {
				t.Errorf("%s: %q says not where it was read, or who may have done it", x.name, f.What)
			}
		}
		s.ok(s.on("glassbox", "rm", "-f", id))
		if x.undo != "" {
			s.ok(s.sh(x.undo))
		}
	}
}

const legacy = "[ -d /sys/fs/cgroup/memory ]"

var tamperings = []tampering{
	// Limits.
	{
		name: "memory limit", do: `if v1 memory; then echo 268435456 >$(group memory)/memory.memsw.limit_in_bytes; echo 134217728 ` +
			`>$(group memory)/memory.limit_in_bytes; fi`, need: legacy,
		want: []string{
			`cgroup-write: write "67108864" to | memory.limit_in_bytes | 134217728`,
			`cgroup-write: write "134217728" to | memory.memsw.limit_in_bytes | 268435456`,
		},
	},
	{
		name: "memory limit (v2)", do: `echo 134217728 >$(group memory)/memory.max`, need: "! " + legacy,
		want: []string{`cgroup-write: write "67108864" to | memory.max | 134217728`},
	},
	{name: "pids limit", do: `echo 60 >$(group pids)/pids.max`, want: []string{`cgroup-write: write "50" to | pids.max | 60`}},
	{name: "no pids limit", do: `echo max >$(group pids)/pids.max`, want: []string{`cgroup-write: write "50" to | pids.max | max`}},
	{name: "processor time", do: `if v1 cpu; then echo 80000 >$(group cpu)/cpu.cfs_quota_us; else echo '80000 100000' >$(group ` +
		`cpu)/cpu.max; fi`, want: []string{`cgroup-write: write "50000 | | 80000`}},
	{
		name: "another device", do: `echo 'c 10:200 rwm' >$(group devices)/devices.allow`, need: legacy,
		want: []string{`cgroup-write: write "a *:* rwm" to | also c 10:200 rwm`},
	},
	{
		name: "all devices", do: `echo a >$(group devices)/devices.allow`, need: legacy,
		want: []string{`cgroup-write: write "a *:* rwm" to | also a *:* rwm`},
	},
	{
		name: "a device less", do: `echo 'c 1:5 rw' >$(group devices)/devices.deny`, need: legacy,
		want: []string{`cgroup-write: write "c 1:5 rwm" to | c 1:5 m`},
	},
	{
		name: "the process to another cgroup", do: `if v1 pids; then echo $P >/sys/fs/cgroup/pids/cgroup.procs; else echo $P ` +
			`>/sys/fs/cgroup/init/cgroup.procs; fi`, need: legacy,
		want: []string{"cgroup-join: join cgroup cgroup:pids | in /sys/fs/cgroup/pids"},
	},
	{
		name: "the process to another cgroup (v2)", do: `mkdir -p /sys/fs/cgroup/other; echo $P >/sys/fs/cgroup/other/cgroup.procs`,
		undo: `rmdir /sys/fs/cgroup/other`, need: "! " + legacy, want: []string{"clone3: | in /sys/fs/cgroup/other"},
	},
	{name: "a second process to another cgroup", do: `glassbox exec -d $NAME sleep 999; settle; for p in $(cat $(group pids)/cgroup.procs); do [ $p = $P ] || break; done
		if v1 pids; then echo $p >/sys/fs/cgroup/pids/cgroup.procs; else echo $p >/sys/fs/cgroup/init/cgroup.procs; fi`, want: []string{"unlisted: process | (sleep) of the container is in cgroup"}},
	{
		name: "a stranger in its cgroup", do: `sleep 988 >/dev/null 2>&1 & echo $! >$(group pids)/cgroup.procs`,
		want: []string{"unlisted: process | (sleep) is in its cgroup, and not in its PID namespace"},
	},
	{name: "oom score", own: true, do: `echo 500 >/proc/$P/oom_score_adj`, want: []string{`write-proc: write "300" | 500`}},
	{
		name: "open files", own: true, do: `prlimit --pid $P --nofile=50:200`,
		want: []string{"prlimit: set RLIMIT_NOFILE to 100 | 50, hard 200"},
	},

	// Mounts.
	{
		name: "another mount", do: `in_mounts mount -t tmpfs none /mnt 2>/dev/null || in_mounts mount -t tmpfs none /home`,
		want: []string{"unlisted: mount tmpfs on /"},
	},
	{name: "writable again", do: `in_mounts mount -o remount,bind,rw /data`, want: []string{"move_mount: | /data is writable"}},
	{
		name: "writable sysfs", do: `in_mounts mount -o remount,bind,rw,nosuid,nodev,noexec /sys`,
		want: []string{"fsmount: mount sysfs on /sys | /sys is writable"},
	},
	{
		name: "suid", do: `in_mounts mount -o remount,bind,suid /dev/shm`,
		want: []string{"fsmount: mount tmpfs on /dev/shm | /dev/shm is not nosuid"},
	},
	{name: "read-only root", do: `in_mounts mount -o remount,ro,bind /`, want: []string{"overlay: | / is ro"}},
	{name: "a masked file", do: `in_mounts umount /proc/interrupts`, want: []string{"mask-path: hide /proc/interrupts"}},
	{name: "a masked directory", do: `in_mounts umount /sys/firmware`, want: []string{"mask-path: hide /sys/firmware"}},
	{
		name: "a masked file by another file", do: `in_mounts umount /proc/keys; in_mounts mount --bind /etc/hostname /proc/keys`,
		want: []string{"mask-path: hide /proc/keys", "unlisted: mount | on /proc/keys"},
	},
	{
		name: "a masked directory made writable", do: `in_mounts mount -o remount,rw /sys/firmware`,
		want: []string{"mask-path: hide /sys/firmware | isn't empty and read-only"},
	},
	{name: "read-only settings", do: `in_mounts umount /proc/sys`, want: []string{"readonly-path: make /proc/sys read-only"}},
	{
		name: "writable settings", do: `in_mounts mount -o remount,bind,rw /proc/sys`,
		want: []string{"readonly-path: make /proc/sys read-only | writable"},
	},
	{name: "shared memory", do: `in_mounts umount /dev/shm`, want: []string{"fsmount: mount tmpfs on /dev/shm"}},
	{
		name: "shared memory covered", do: `in_mounts mount -t tmpfs none /dev/shm`,
		want: []string{"fsmount: mount tmpfs on /dev/shm | it is covered", "unlisted: mount tmpfs on /dev/shm"},
	},
	{
		name: "shared memory without its limit", do: `in_mounts mount -o remount,size=1g /dev/shm`,
		want: []string{"fsmount: mount tmpfs on /dev/shm | 1048576k"},
	},
	{name: "a tmpfs", do: `in_mounts mount -o remount,size=2m /run`, want: []string{"fsmount: mount tmpfs on /run | 2048k"}},
	{
		name: "a tmpfs in the place of another",
		do:   `in_mounts umount /run; in_mounts mount -t tmpfs -o nosuid,nodev,noexec,size=9m tmpfs /run`,
		want: []string{"fsmount: mount tmpfs on /run | 9216k"},
	},
	{
		name: "/dev as a whole", do: `in_mounts mount -t tmpfs none /dev`,
		want: []string{
			"unlisted: mount tmpfs on /dev", "fsmount: mount tmpfs on /dev | it is covered",
			"fsmount: mount devpts on /dev/pts | it is covered", "mknod: make device /dev/null | it isn't there",
		}, more: true,
	},
	{name: "/etc/passwd", do: `in_mounts mount --bind /etc/hosts /etc/passwd`, want: []string{"unlisted: mount | on /etc/passwd"}},
	{
		name: "resolv.conf by another file", do: `in_mounts umount /etc/resolv.conf; in_mounts mount --bind /etc/passwd /etc/resolv.conf`,
		want: []string{"move_mount: | in its place is overlay", "unlisted: mount overlay | on /etc/resolv.conf"},
	},
	{name: "no resolv.conf", do: `in_mounts umount /etc/resolv.conf`, want: []string{"move_mount: | /etc/resolv.conf"}},
	{name: "a bind mount by another", do: `in_mounts umount /data; in_mounts mount --bind /etc /data; in_mounts mount -o ` +
		`remount,bind,ro /data`, want: []string{"move_mount: | in its place is overlay", "unlisted: mount overlay | on /data"}},
	{
		name: "a bind mount by another of the same file system", flags: "-v SHARED/sub:/sub",
		do:   `in_mounts umount /data; in_mounts mount --bind /sub /data; in_mounts mount -o remount,bind,ro /data`,
		want: []string{"move_mount: | /data shows"},
	},
	{
		name: "the source of a bind mount", flags: "-v SHARED/file:/file", do: `echo y >$SHARED/new; mv $SHARED/new $SHARED/file`,
		want: []string{"move_mount: | deleted or replaced on the host"},
	},
	{name: "propagation", do: `in_mounts mount --make-shared /data`, want: []string{"move_mount: | /data is shared"}},
	{
		name: "propagation of the root", do: `in_mounts mount --make-rshared /; in_mounts mount --make-rprivate /dev; in_mounts mount ` +
			`--make-rprivate /proc; in_mounts mount --make-rprivate /sys; for d in data run etc/hosts etc/hostname etc/resolv.conf; do ` +
			`in_mounts mount --make-private /$d; done`,
		want: []string{"mount: mount on / (rec,private) | / is shared"},
	},

	{
		name: "a file system that never answers", need: "[ -c /dev/fuse ]", more: true, want: []string{"unlisted: mount fuse on /dev"},
		do: `(exec 3<>/dev/fuse; in_mounts mount -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 none /dev && exec sleep 20) ` +
			`>/dev/null 2>&1 & settle`,
	},

	// Names and settings.
	{name: "host name", do: `nsenter -t $P -u hostname evil`, want: []string{"sethostname: | evil"}},
	{name: "sysctl", do: `in_net sh -c 'echo 0 >/proc/sys/net/ipv4/ip_forward'`, want: []string{"sysctl: set sysctl net.ipv4.ip_forward | 0"}},
	{name: "device node", own: true, do: `in_mounts mknod /dev/evil c 10 200`, want: []string{"unlisted: device /dev/evil, c 10:200"}},
	{
		name: "device node below a directory", own: true, do: `in_mounts mkdir /dev/x; in_mounts mknod /dev/x/evil b 8 0`,
		want: []string{"unlisted: device /dev/x/evil, b 8:0"},
	},
	{
		name: "another device", own: true, do: `in_mounts rm /dev/zero; in_mounts mknod /dev/zero c 1 3`,
		want: []string{"mknod: make device /dev/zero | c 1:3"},
	},
	{name: "no device", own: true, do: `in_mounts rm /dev/full`, want: []string{"mknod: make device /dev/full | it isn't there"}},
	{name: "mode of a device", own: true, do: `in_mounts chmod 600 /dev/full`, want: []string{"mknod: make device /dev/full | mode 0600"}},
	{
		name: "a link", own: true, do: `in_mounts ln -sf /etc/passwd /dev/stdin`,
		want: []string{"symlink: link /dev/stdin | a link to /etc/passwd"},
	},

	// The same where the plan leaves no right to it.
	{
		name: "hard limit", need: "prlimit --pid $$ --core=0:0 && prlimit --pid $$ --core=0:1 2>/dev/null",
		do: `prlimit --pid $P --nofile=150:300`, want: []string{"prlimit: set RLIMIT_NOFILE to 100 | hard 300"},
	},
	{
		name: "device node without CAP_MKNOD", flags: "--cap-drop MKNOD", do: `in_mounts mknod /dev/evil c 10 200`,
		want: []string{"unlisted: device /dev/evil, c 10:200"},
	},
	{
		name: "no device, without root", flags: "-u 1000 --cap-drop ALL --security-opt no-new-privileges", do: `in_mounts rm /dev/full`,
		want: []string{"mknod: make device /dev/full | it isn't there"},
	},

	// Network.
	{
		name: "no address", do: `in_net ip addr flush dev eth0`,
		want: []string{"link-address: set eth0 up with | eth0 has", "route-default: | no default route"},
	},
	{name: "another address", do: `in_net ip addr add 192.0.2.7/24 dev eth0`, want: []string{"unlisted: address 192.0.2.7/24 on eth0"}},
	{name: "an address on lo", do: `in_net ip addr add 192.0.2.8/32 dev lo`, want: []string{"unlisted: address 192.0.2.8/32 on lo"}},
	{name: "no route", do: `in_net ip route del default`, want: []string{"route-default: | no default route"}},
	{
		name: "another default route", do: `in_net ip route replace default via 172.30.0.9`,
		want: []string{"route-default: | default via 172.30.0.9 on eth0", "unlisted: route default via 172.30.0.9"},
	},
	{
		name: "another route", do: `in_net ip route add 192.0.2.0/24 via 172.30.0.1`,
		want: []string{"unlisted: route 192.0.2.0/24 via 172.30.0.1 on eth0"},
	},
	{
		name: "a route in another table", do: `in_net ip route add 192.0.2.0/24 via 172.30.0.1 table 77`,
		want: []string{"unlisted: route 192.0.2.0/24 | in table 77"},
	},
	{
		name: "eth0 down", do: `in_net ip link set eth0 down`,
		want: []string{"link-address: set eth0 up with | eth0 down", "route-default: | no default route"},
	},
	{name: "lo down", do: `in_net ip link set lo down`, want: []string{"link-address: set lo up | lo down"}},
	{name: "hardware address", do: `in_net ip link set eth0 address 02:00:00:00:00:09`, want: []string{"link-veth: | 02:00:00:00:00:09"}},
	{
		name: "IPv6 switched on", do: `in_net sh -c 'echo 0 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6'`,
		want: []string{"link-veth: | eth0 has IPv6"},
	},
	{
		name: "another link", do: `ip link add x1 type veth peer name x2 netns $P`, undo: `ip link del x1 2>/dev/null; :`,
		want: []string{"unlisted: link x2"},
	},
	{name: "out of the bridge", do: `ip link set $VETH nomaster`, want: []string{"link-veth: | it is in no bridge"}},
	{name: "the host's end down", do: `ip link set $VETH down`, want: []string{"link-veth: | it is down"}},
	{name: "bridge down", do: `ip link set glassbox0 down`, undo: `ip link set glassbox0 up`, want: []string{"link-bridge: | it is down"}},
	{
		name: "bridge without its address", do: `ip addr flush dev glassbox0`, undo: `ip addr add 172.30.0.1/16 dev glassbox0`,
		want: []string{"link-bridge: | no address 172.30.0.1/16"},
	},
	{
		name: "a setting of the bridge", do: `echo 0 >/proc/sys/net/ipv4/conf/glassbox0/route_localnet`,
		undo: `echo 1 >/proc/sys/net/ipv4/conf/glassbox0/route_localnet`, want: []string{"link-bridge: | route_localnet is 0"},
	},

	// Firewall.
	{name: "unpublished", do: `nft delete element ip glassbox0 published '{ tcp . 8080 }'`, want: []string{"nft-publish: | *:8080/tcp"}},
	{
		name: "published elsewhere", do: `nft delete element ip glassbox0 published '{ tcp . 8080 }'; nft add element ip glassbox0 ` +
			`published "{ tcp . 8080 : $IP . 22 }"`, undo: `nft delete table ip glassbox0`,
		want: []string{"nft-publish: | *:8080/tcp", "unlisted: published port *:8080/tcp | :22"},
	},
	{
		name: "another port", do: `nft add element ip glassbox0 published "{ tcp . 9999 : $IP . 22 }"`,
		undo: `nft delete table ip glassbox0`, want: []string{"unlisted: published port *:9999/tcp | :22"},
	},
	{
		name: "another port on one address", do: `nft add element ip glassbox0 published_on "{ 127.0.0.1 . udp . 9998 : $IP . 22 }"`,
		undo: `nft delete table ip glassbox0`, want: []string{"unlisted: published port 127.0.0.1:9998/udp | :22"},
	},
	{
		name: "a rule that publishes", do: `nft add rule ip glassbox0 prerouting tcp dport 9999 dnat to $IP:22`,
		undo: `nft delete table ip glassbox0`, want: []string{"unlisted: in the firewall of its bridge: rule | of chain prerouting"},
	},
	{
		name: "a rule in another table", do: `nft add table ip other; nft add chain ip other pre '{ type nat hook prerouting priority ` +
			`-101 ; }'; nft add rule ip other pre tcp dport 9999 dnat to $IP:22`, undo: `nft delete table ip other`,
		want: []string{"unlisted: rule | in table ip other names its address"},
	},
	{
		name: "rules flushed", do: `nft flush table ip glassbox0`, undo: `nft delete table ip glassbox0`,
		want: []string{"nft-bridge: | lines are missing"},
	},
	{name: "a rule less", do: `nft delete rule ip glassbox0 forward handle $(nft -a list chain ip glassbox0 forward | sed -n 's/.* ` +
		`drop # handle //p' | tail -1)`, undo: `nft delete table ip glassbox0`, want: []string{"nft-bridge: | 1 of"}},
	{
		name: "rules in another order", do: `h=$(nft -a list chain ip glassbox0 loopback | sed -n 's/.*ip daddr.*handle //p'); nft add ` +
			`rule ip glassbox0 loopback iifname "glassbox0" ip daddr 127.0.0.0/8 drop; nft delete rule ip glassbox0 loopback handle $h`,
		undo: `nft delete table ip glassbox0`,
		want: []string{"nft-bridge: | 1 of", "unlisted: in the firewall of its bridge: rule | of chain loopback"},
	},
	{
		name: "policy", do: `nft 'add chain ip glassbox0 forward { policy drop ; }'`, undo: `nft delete table ip glassbox0`,
		want: []string{"nft-bridge: | 1 of"},
	},
	{
		name: "another chain", do: `nft add chain ip glassbox0 evil`, undo: `nft delete table ip glassbox0`,
		want: []string{"unlisted: in the firewall of its bridge: chain evil"},
	},
	{name: "no table", do: `nft delete table ip glassbox0`, want: []string{"nft-bridge: | it isn't there", "nft-publish: | *:8080/tcp"}},

	// What a program does itself.
	{
		name: "another user", own: true, cmd: `sh -c 'echo n:x:7:7::/:/bin/sh >>/etc/passwd; exec su n -c "exec sleep 1000"'`, do: `settle`,
		want: []string{
			"setresuid: become user 0 | Uid 7 7 7 7", "setresgid: become group 0 | Gid 7 7 7 7", "setgroups: | Groups [7]",
			"capset: | CapPrm 0000000000000000", "execve: | sleep 1000",
		},
	},
	{
		name: "working directory", own: true, cmd: "sh -c 'cd /tmp; while :; do sleep 1; done'", do: `settle`,
		want: []string{"chdir: enter / | /tmp"},
	},
	{name: "another program", own: true, cmd: "sh -c 'exec sleep 1000'", do: `settle`, want: []string{"execve: | sleep 1000"}},
	{
		name: "limits of its own", own: true, cmd: "sh -c 'ulimit -n 77; while :; do sleep 1; done'", do: `settle`,
		want: []string{"prlimit: set RLIMIT_NOFILE | 77"},
	},
	{
		name: "umask", own: true, cmd: "sh -c 'umask 077; while :; do sleep 1; done'", do: `settle`,
		want: []string{"umask: set umask 0022 | 0077"},
	},
	{
		name: "namespaces of a process", own: true, flags: "--cap-add SYS_ADMIN", do: `glassbox exec -d $NAME unshare -m sleep 998; settle`,
		want: []string{"unlisted: process | (sleep) has a mount namespace of its own"},
	},
	{
		name: "a mount of its own", own: true, flags: "--cap-add SYS_ADMIN", do: `glassbox exec $NAME mount -t tmpfs own /tmp`,
		want: []string{"unlisted: mount tmpfs own on /tmp"},
	},
}
