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
	"time"

	"glassbox/explain"
)

// goRuns are the flags of run commands whose containers are made a second time, by the program that explain --format go writes of them.
// BASE is a root file system, SHARED a directory.
var goRuns = []string{
	"--network none",
	"-p 8099:80 -p 127.0.0.1:8100:81/udp --ip 172.30.0.77",
	"--ip 172.30.0.78 -m 64m --pids-limit 40 --cpu-shares 512 --cpu-quota 50000",
	"--network none -m 64m --memory-swap 128m --memory-reservation 32m --cpuset-cpus 0",
	"--network none --cap-drop ALL --cap-add CHOWN",
	"--network none --cap-drop ALL",
	"--network none --cap-add SYS_ADMIN --security-opt seccomp=unconfined",
	"--network none -u 1000:1000 --group-add 5",
	"--network none -u 65534",
	"--network none --read-only --tmpfs /run:size=1m -w /tmp",
	"--network none -w /made/here -e A=b -e EMPTY= -e 'Q=$(x) \"y\" `z`'",
	"--network none -v SHARED:/data:ro",
	"--network none -v SHARED:/data --security-opt no-new-privileges",
	"--network none -v SHARED/file:/etc/file:ro -v SHARED:/mnt/deep/er",
	"--network none --mount type=tmpfs,destination=/scratch,tmpfs-size=1m --tmpfs /y:ro,exec,size=64k",
	"-v SHARED:/a:rshared -v SHARED:/b:rslave,ro --mount type=bind,source=SHARED,target=/c,bind-recursive=disabled",
	"-v /:/host:ro --network none",
	"-v /sys:/host/sys -v /proc:/host/proc:ro --network none",
	"--network host",
	"--network host --uts host",
	"--network none --ipc host",
	"--network none --pid host",
	"--network none --ulimit nofile=100:200 --ulimit core=0 --oom-score-adj 300",
	"--network none --ulimit nproc=500 --ulimit stack=1048576:2097152",
	"--network none --sysctl net.ipv4.ip_forward=1 --sysctl kernel.msgmax=9000 --domainname d --hostname h",
	"--network none --device /dev/null:/dev/zwei --device-cgroup-rule 'c 10:200 rwm' --shm-size 1m",
	"--network none --device /dev/zero:/dev/deep/er/zero:r",
	"--network none --privileged",
	"--network none --security-opt no-new-privileges --cap-drop ALL -u 1:1",
	"--network none --cgroup-parent /by-hand-test",
	"--network none --security-opt systempaths=unconfined",
	"--network none --cgroupns host",
	"--network container:other",
	"--dns 192.0.2.1 --dns-search x.example --add-host n:192.0.2.2",
	"--network none --rootfs BASE",
	"--network none --read-only --rootfs BASE",
	"--network none -t",
	"--network none -t -u 7:8 --read-only",
}

// goSeen are run commands whose containers are compared from inside: all of it, a bridge that the program makes as well, and another
// user, who sees less.
var goSeen = []string{
	"--network none -m 64m --ulimit nproc=500 --sysctl kernel.msgmax=9000 --domainname d --hostname h -e A=b",
	"-p 8099:80 --ip 172.30.0.77 --hostname h",
	"--network none -u 1000:1000 --group-add 5 --read-only --hostname h",
	"--network none -t --hostname h",
}

// goProbe tells what a container is from inside.
const goProbe = `exec 2>&1
hostname; cat /proc/sys/kernel/domainname; id; pwd; umask; env | sort
grep -E "^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|Speculation|Cpus_allowed_list|Mems_allowed_list)" /proc/self/status
sed "s/[0-9a-f]\{64\}/ID/g" /proc/self/mountinfo | cut -d" " -f4- | sed "s/master:[0-9]*/master/;s/shared:[0-9]*/shared/" | sort
cat /proc/self/cgroup /proc/self/limits /proc/self/oom_score_adj | sed "s/[0-9a-f]\{64\}/ID/g"
for f in memory/memory.limit_in_bytes memory/memory.memsw.limit_in_bytes memory/memory.soft_limit_in_bytes \
	cpu/cpu.cfs_quota_us cpu/cpu.shares pids/pids.max devices/devices.list cpuset/cpuset.cpus memory.max cpu.max pids.max; do
	if [ -e /sys/fs/cgroup/$f ]; then echo $f; cat /sys/fs/cgroup/$f; fi
done
for ns in /proc/self/ns/*; do test $(readlink $ns) = "$(readlink /proc/1/ns/${ns##*/})" && echo ${ns##*/} as process 1; done
cut -f1-3 /proc/net/route; ip addr 2>/dev/null | grep -E "inet |link/" | grep -v fe80 | sed "s/link-netnsid.*//"
ls -lR /dev | grep -v ^total | sed "s/[A-Z][a-z][a-z] .[0-9] [0-9:]*//;s/ 136,.*//"
sysctl -a 2>/dev/null | grep -E "ip_forward |unprivileged_port|ping_group|kernel.msgmax"
ls -l /proc/kcore /proc/acpi 2>&1 | sed "s/[A-Z][a-z][a-z] .[0-9] [0-9:]*//"
cat /etc/hostname
echo x >/sys/kernel/profiling; echo x >/proc/sys/vm/swappiness; mount -t tmpfs none /mnt; unshare -U true
touch /read-only && rm /read-only && echo writable
echo fds: $(ls /proc/self/fd | wc -l)
[ $$ = 1 ] && echo first process
exit 7`

// TestGoProgramsMake builds and runs the programs that explain --format go writes. They have got every step. What they make
// is found by verify as what glassbox makes; what a program sees inside is the same, its exit code comes through, and nothing is left.
func TestGoProgramsMake(t *testing.T) {
	gotool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("needs the go tool")
	}
	s := besiege(t)
	s.furnish()
	s.ok(s.on("glassbox", "run", "-d", "--name", "other", "--hostname", "other", "--network", "none", "busybox", "sleep", "10000"))
	module, base := filepath.Join(s.dir, "programs"), s.root("")
	must(t, os.Mkdir(module, 0o755))

	var commands, twins []string
	add := func(command string) {
		name := fmt.Sprintf("p%02d", len(commands))
		commands = append(commands, command)
		kind, what, _ := strings.Cut(command, " ")
		text := s.ok(s.sh("glassbox explain " + kind + " --format go " + what))
		if n := strings.Count(text, "\n"); n > explain.MaxGo {
			t.Errorf("%s: the program has %d lines, more than %d", command, n, explain.MaxGo)
		}
		if missing := regexp.MustCompile(`(?m)^//\s+\d+\. .*`).FindAllString(text, -1); len(missing) > 0 {
			t.Errorf("%s: the program hasn't got %d steps:\n%s", command, len(missing), strings.Join(missing, "\n"))
		}
		if len(commands) > len(goSeen) {
			text = strings.Replace(strings.Replace(text, "\npackage main\n", "\npackage "+name+"\n", 1), "\nfunc main() {\n", "\nfunc Main() {\n", 1)
			twins = append(twins, name)
		}
		must(t, os.Mkdir(filepath.Join(module, name), 0o755))
		must(t, os.WriteFile(filepath.Join(module, name, "main.go"), []byte(text), 0o644))
	}
	for _, flags := range goSeen {
		add("run --rm " + flags + " busybox sh -c '" + goProbe + "'")
	}
	for i, flags := range goRuns {
		if testing.Short() && i%6 != 0 {
			continue // an emulated processor takes minutes for all
		}
		flags = strings.NewReplacer("BASE", base, "SHARED", filepath.Join(s.dir, "shared")).Replace(flags)
		if !strings.Contains(flags, base) {
			flags += " busybox"
		}
		add("run " + flags + " sleep 1077")
	}
	for _, command := range s.bundles("plain", "limits", "tmpfs", "tty-less", "own users", "own user", "process", "spread", "device",
		"mapped") {
		add(command)
	}
	s.build(gotool, module, twins)

	left := func() string {
		return s.sh(`ip -o link | cut -d: -f2 | sort; find /sys/fs/cgroup -type d -name ` +
			`"????????????????????????????????????????????????????????????????" | sort; ls ` + store + `/containers`).Stdout
	}
	s.on("glassbox", "run", "--rm", "busybox", "true") // the bridge stays
	s.until("the end of the bridge's ports", func() bool { return !strings.Contains(left(), " gb") })
	before := left()
	clean := func(command string) {
		after := ""
		for range 100 { // the kernel removes links in its own time
			if after = left(); after == before {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Errorf("%s: something is left:\n%s", command, lineDiff(before, after))
	}
	for i, command := range commands {
		name := fmt.Sprintf("p%02d", i)
		if i < len(goSeen) {
			s.sameInside(goSeen[i], command, filepath.Join(module, "bin", name))
			clean(goSeen[i])
			continue
		}
		s.same(s.twin(command), nil, "env", "TWIN="+name, filepath.Join(module, "bin", "twins"))
		clean(command)
	}
}

// build builds a module with a folder for each program. To link each of dozens takes long: twins are packages of one program, which
// runs the one that TWIN names.
func (s *siege) build(gotool, module string, twins []string) {
	s.Helper()
	sums, err := os.ReadFile("../go.sum")
	must(s.T, err)
	mod, err := os.ReadFile("../go.mod")
	must(s.T, err)
	version := regexp.MustCompile(`golang.org/x/sys (v\S+)`).FindSubmatch(mod)
	must(s.T, os.WriteFile(filepath.Join(module, "go.sum"), sums, 0o644))
	must(s.T, os.WriteFile(filepath.Join(module, "go.mod"),
		fmt.Appendf(nil, "module byhand\n\ngo 1.26\n\nrequire golang.org/x/sys %s\n", version[1]), 0o644))
	text := "package main\n\nimport (\n\t\"os\"\n"
	for _, name := range twins {
		text += fmt.Sprintf("\t%q\n", "byhand/"+name)
	}
	text += ")\n\nfunc main() {\n\tmap[string]func(){\n"
	for _, name := range twins {
		text += fmt.Sprintf("\t\t%q: %s.Main,\n", name, name)
	}
	text += "\t}[os.Getenv(\"TWIN\")]()\n}\n"
	must(s.T, os.Mkdir(filepath.Join(module, "twins"), 0o755))
	must(s.T, os.WriteFile(filepath.Join(module, "twins", "main.go"), []byte(text), 0o644))
	for _, args := range [][]string{{"vet", "./..."}, {"build", "-ldflags=-s -w", "-o", "bin/", "./..."}} {
		cmd := exec.Command(gotool, args...)
		cmd.Dir = module
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=mod -buildvcs=false", "GOPROXY=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			s.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// sameInside compares what a container prints with what that of a program prints.
func (s *siege) sameInside(flags, command, program string) {
	s.Helper()
	bridge := strings.HasPrefix(flags, "-p")
	tables := func() (text string) {
		if bridge {
			text = s.ok(s.sh(`nft list table ip glassbox0; ip -d link show dev glassbox0 | grep -o "mtu [0-9]*"; cat ` +
				`/proc/sys/net/ipv4/conf/glassbox0/*`))
		}
		return text
	}
	first := tables()
	if bridge { // the program makes it, too
		s.ok(s.sh("ip link del dev glassbox0 && nft delete table ip glassbox0"))
	}
	two := s.on(program)
	if second := tables(); second != first {
		s.Errorf("%s: the program makes another bridge:\n%s", flags, lineDiff(first, second))
	}
	one := s.sh("glassbox " + command)
	if one.Code != 7 || two.Code != 7 || one.Stdout != two.Stdout || one.Stderr != two.Stderr {
		s.Errorf("%s: glassbox ended with %d %s and the program with %d %s, want 7; -glassbox +program\n%s", flags, one.Code, one.Stderr,
			two.Code, two.Stderr, lineDiff(one.Stdout, two.Stdout))
	}
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
