package test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"glassbox/explain"
)

// goRuns are run commands whose containers are made a second time, by the program that explain --format go writes of them.
func goRuns() []string {
	return []string{
		"--network none",
		"-p 8099:80 --ip 172.30.0.77",
		"--ip 172.30.0.78 -m 64m --pids-limit 40 --cpu-shares 512 --cpu-quota 50000",
		"--network none -m 64m --memory-reservation 32m --cpuset-cpus 0",
		"--network none --cap-drop ALL --cap-add CHOWN",
		"--network none --cap-drop ALL",
		"--network none --cap-add SYS_ADMIN --security-opt seccomp=unconfined",
		"--network none -u 1000:1000 --group-add 5",
		"--network none -u 65534",
		"--network none --read-only --tmpfs /run:size=1m -w /tmp",
		"--network none -w /made/here -e A=b -e EMPTY=",
		"--network none -v $PWD/shared:/data:ro",
		"--network none -v $PWD/shared:/data --security-opt no-new-privileges",
		"--network none -v $PWD/shared/file:/etc/file:ro -v $PWD/shared:/mnt/deep/er",
		"--network none --mount type=tmpfs,destination=/scratch,tmpfs-size=1m",
		"--network host",
		"--network host --uts host --hostname=",
		"--network none --ipc host",
		"--network none --pid host",
		"--network none --ulimit nofile=100:200 --ulimit core=0 --oom-score-adj 300",
		"--network none --ulimit nproc=500 --ulimit stack=1048576:2097152",
		"--network none --sysctl net.ipv4.ip_forward=1 --sysctl kernel.msgmax=9000 --domainname d",
		"--network none --device /dev/null:/dev/zwei --shm-size 1m",
		"--network none --device /dev/zero:/dev/deep/er/zero:r",
		"--network none --privileged",
		"--network none --security-opt seccomp=unconfined",
		"--network none --security-opt no-new-privileges --cap-drop ALL -u 1:1",
		"--network none --cgroup-parent /by-hand-test",
		"--network none --security-opt systempaths=unconfined",
		"--network none --cgroupns host",
		"--network none --entrypoint /bin/sh",
		"--network container:other",
		"--network none --rootfs-image",
	}
}

// goProbe tells what a container is from inside.
const goProbe = `exec 2>&1
hostname; cat /proc/sys/kernel/domainname; id; pwd; umask; env | sort
grep -E "^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|Speculation|Cpus_allowed_list|Mems_allowed_list)" /proc/self/status
sed "s/[0-9a-f]\{64\}/ID/g" /proc/self/mountinfo | cut -d" " -f4- | sed "s/master:[0-9]*/master/;s/shared:[0-9]*/shared/" | sort
cat /proc/self/cgroup /proc/self/limits /proc/self/oom_score_adj | sed "s/[0-9a-f]\{64\}/ID/g"
for f in memory/memory.limit_in_bytes memory/memory.memsw.limit_in_bytes memory/memory.soft_limit_in_bytes cpu/cpu.cfs_quota_us cpu/cpu.shares pids/pids.max devices/devices.list cpuset/cpuset.cpus memory.max cpu.max pids.max; do
	if [ -e /sys/fs/cgroup/$f ]; then echo $f; cat /sys/fs/cgroup/$f; fi
done
for ns in /proc/self/ns/*; do test $(readlink $ns) = "$(readlink /proc/1/ns/${ns##*/})" && echo ${ns##*/} as process 1; done
cut -f1-3 /proc/net/route; ip addr 2>/dev/null | grep -E "inet |link/" | grep -v fe80 | sed "s/link-netnsid.*//"
ls -lR /dev | grep -v ^total | sed "s/[A-Z][a-z][a-z] .[0-9] [0-9:]*//;s/ 136,.*//"
sysctl -a 2>/dev/null | grep -E "ip_forward |unprivileged_port|ping_group|kernel.msgmax"
ls -l /proc/kcore /proc/acpi 2>&1 | sed "s/[A-Z][a-z][a-z] .[0-9] [0-9:]*//"
ls / /data /etc/file /mnt/deep/er 2>/dev/null; cat /etc/hostname
echo x >/sys/kernel/profiling; echo x >/proc/sys/vm/swappiness; mount -t tmpfs none /mnt; unshare -U true; touch /read-only && rm /read-only && echo writable
echo fds: $(ls /proc/self/fd | wc -l)
[ $$ = 1 ] && echo first process
exit 7`

// TestGoProgramsMake builds and runs the programs that explain --format go writes: what a program sees inside is what it sees in the
// container of the same command, its exit code comes through, and nothing is left.
func TestGoProgramsMake(t *testing.T) {
	gotool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("needs the go tool")
	}
	s := besiege(t)
	seed, err := run.seeds["busybox"].get("busybox")
	must(t, err)
	s.shell("cp -al " + filepath.Join(seed, "glassbox") + " store/ && mkdir -p shared/sub && echo x >shared/file")
	s.ok(s.sh("ip link set lo up"))
	s.ok(s.on("glassbox", "run", "-d", "--name", "other", "--hostname", "other", "--network", "none", "busybox", "sleep", "10000"))

	// One module with a folder for each program.
	module := filepath.Join(s.dir, "programs")
	must(t, os.Mkdir(module, 0o755))
	sums, err := os.ReadFile("../go.sum")
	must(t, err)
	mod, err := os.ReadFile("../go.mod")
	must(t, err)
	version := regexp.MustCompile(`golang.org/x/sys (v\S+)`).FindSubmatch(mod)
	must(t, os.WriteFile(filepath.Join(module, "go.sum"), sums, 0o644))
	must(t, os.WriteFile(filepath.Join(module, "go.mod"), fmt.Appendf(nil, "module by-hand\n\ngo 1.26\n\nrequire golang.org/x/sys %s\n", version[1]), 0o644))
	cases := map[string][]string{}
	var names []string
	for i, flags := range goRuns() {
		name := fmt.Sprintf("p%02d", i)
		argv := strings.Fields(strings.ReplaceAll(flags, "$PWD", s.dir))
		for k := range argv {
			argv[k] = strings.ReplaceAll(argv[k], "\\", "")
		}
		if !strings.Contains(flags, "--uts host") {
			argv = append(argv, "--hostname", "h")
		}
		image := []string{"busybox", "sh", "-c", goProbe}
		switch {
		case strings.Contains(flags, "--entrypoint"):
			image = []string{"busybox", "-c", goProbe}
		case strings.Contains(flags, "--rootfs-image"):
			argv = []string{"--network", "none", "--hostname", "h", "--rootfs"}
			image = []string{s.root(""), "sh", "-c", goProbe}
		case strings.Contains(flags, "container:"):
			argv = argv[:len(argv)-2] // the name is that of the other one
		}
		cases[name] = append(append([]string{"--rm"}, argv...), image...)
		names = append(names, name)
		program := s.goProgram(cases[name])
		if n := strings.Count(program, "\n"); n > explain.MaxGo {
			t.Errorf("%s: the program has %d lines, more than %d", flags, n, explain.MaxGo)
		}
		must(t, os.Mkdir(filepath.Join(module, name), 0o755))
		must(t, os.WriteFile(filepath.Join(module, name, "main.go"), []byte(program), 0o644))
	}
	// These go on until they have been verified.
	verified := map[string][]string{
		"look1": {"--network", "none", "-m", "64m", "--pids-limit", "50", "-v", filepath.Join(s.dir, "shared") + ":/data:ro", "--ulimit", "nofile=100:200", "busybox", "sleep", "10000"},
		"look2": {"-p", "8095:80", "-u", "1000:5", "--cap-drop", "ALL", "--cap-add", "KILL", "--read-only", "--tmpfs", "/run", "--security-opt", "no-new-privileges", "busybox", "sleep", "10000"},
		"look3": {"--network", "host", "--sysctl", "kernel.msgmax=9000", "--device", "/dev/null:/dev/zwei", "--oom-score-adj", "300", "busybox", "sleep", "10000"},
	}
	for name, args := range verified {
		must(t, os.Mkdir(filepath.Join(module, name), 0o755))
		must(t, os.WriteFile(filepath.Join(module, name, "main.go"), []byte(s.goProgram(args)), 0o644))
		must(t, os.WriteFile(filepath.Join(module, name, "plan.json"), []byte(s.ok(s.on(append([]string{"glassbox", "explain", "run", "--format", "json"}, args...)...))), 0o644))
	}
	for _, args := range [][]string{{"vet", "./..."}, {"build", "-o", "bin/", "./..."}} {
		cmd := exec.Command(gotool, args...)
		cmd.Dir = module
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=mod -buildvcs=false", "GOPROXY=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	left := func() string {
		return s.sh(`ip -o link | cut -d: -f2 | sort; find /sys/fs/cgroup -type d -name "????????????????????????????????????????????????????????????????" | sort; ls ` + store + `/containers`).Stdout
	}
	s.on(append([]string{"glassbox", "run", "--rm"}, "busybox", "true")...) // the bridge stays
	s.until("the end of the bridge's ports", func() bool { return !strings.Contains(left(), " gb") })
	before := left()
	short := regexp.MustCompile(`\b[0-9a-f]{12}\b`)
	for i, name := range names {
		flags := goRuns()[i]
		bridge := strings.HasPrefix(flags, "-p")
		tables := func() (text string) {
			if bridge {
				text = s.ok(s.sh(`nft list table ip glassbox0; ip -d link show dev glassbox0 | grep -o "mtu [0-9]*"; cat /proc/sys/net/ipv4/conf/glassbox0/*`))
			}
			return text
		}
		first := tables()
		if bridge { // the program makes it, too
			s.ok(s.sh("ip link del dev glassbox0 && nft delete table ip glassbox0"))
		}
		two := s.on(filepath.Join(module, "bin", name))
		if second := tables(); second != first {
			t.Errorf("%s: the program makes another bridge:\n%s", flags, lineDiff(first, second))
		}
		one := s.on(append([]string{"glassbox", "run"}, cases[name]...)...)
		// An id that nothing was named after is another one each time.
		one.Stdout, two.Stdout = short.ReplaceAllString(one.Stdout, "ID"), short.ReplaceAllString(two.Stdout, "ID")
		if one.Code != two.Code || one.Stdout != two.Stdout || one.Stderr != two.Stderr {
			t.Errorf("%s: glassbox ended with %d and the program with %d %s; -glassbox +program\n%s", flags, one.Code, two.Code, two.Stderr, lineDiff(one.Stdout, two.Stdout))
		}
		if one.Code != 7 {
			t.Errorf("%s: the probe ended with %d: %s", flags, one.Code, one.Stderr)
		}
		s.sh("sleep 0.1; true") // the kernel removes links in its own time
		if after := left(); after != before {
			t.Errorf("%s: something is left:\n%s", flags, lineDiff(before, after))
		}
	}
	for name, args := range verified {
		out := s.background(filepath.Join(module, "bin", name))
		pid := ""
		s.until("the sleep of "+name, func() bool {
			pid = strings.TrimSpace(s.sh(`for p in $(pgrep -x ` + name + `); do pgrep -x sleep -P $p; done`).Stdout)
			return pid != ""
		})
		res := s.on("glassbox", "verify", "--plan", filepath.Join(module, name, "plan.json"), "--pid", pid)
		if res.Code != 0 {
			text, _ := os.ReadFile(out)
			t.Errorf("%v: verify ended with %d: %s%s\n%s", args, res.Code, res.Stdout, res.Stderr, text)
		}
		s.ok(s.sh("kill -9 " + pid))
		s.until("the end of "+name, func() bool { return s.sh("pgrep -x "+name).Code != 0 })
		if after := left(); after != before {
			t.Errorf("%v: something is left:\n%s", args, lineDiff(before, after))
		}
	}
}

// goProgram explains a run command as a Go program.
func (s *siege) goProgram(args []string) string {
	s.Helper()
	return s.ok(s.on(append([]string{"glassbox", "explain", "run", "--format", "go"}, args...)...))
}

// lineDiff are the lines that only one of two texts has.
func lineDiff(a, b string) string {
	count := map[string]int{}
	for line := range strings.Lines(a) {
		count[line]++
	}
	for line := range strings.Lines(b) {
		count[line]--
	}
	var out bytes.Buffer
	for _, side := range []struct {
		text, mark string
		sign       int
	}{{a, "-", 1}, {b, "+", -1}} {
		for line := range strings.Lines(side.text) {
			if count[line]*side.sign > 0 {
				count[line] -= side.sign
				out.WriteString(side.mark + line)
			}
		}
	}
	return out.String()
}
