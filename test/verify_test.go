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
	s.ok(s.on("glassbox", "run", "-d", "--name", "first", "--ipc", "shareable", "-p", "8090:80", "busybox", "sleep", "1000"))
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
		user glassbox-runtime spec --rootless
		user sh -c 'jq ".process.args = [\"sleep\", \"1000\"] | .process.terminal = false" config.json >new && mv new config.json'
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
