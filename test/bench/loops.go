package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// loopRuns is how often a command runs in a loop, after a twentieth as warm-up.
const loopRuns = 200

// loops measures commands in a tight loop, each on its own: where programs take turns, each finds the caches that another has filled.
// Beside them stands the floor, a loop of bare system calls that makes the same namespaces, cgroups and mounts: nobody can be below it.
func (b *bencher) loops(engines []engine) (string, error) {
	fmt.Fprintln(os.Stderr, "bench: loops")
	loop, err := b.program("loop", loopSource)
	if err != nil {
		return "", err
	}
	floor, err := b.floor()
	if err != nil {
		return "", err
	}
	type row struct {
		name string
		argv []string
	}
	var rows []row
	for _, e := range engines {
		rows = append(rows, row{e.name + " run --rm, bridge", e.verb("run", "--rm", image, "true")})
	}
	bundle := filepath.Join(b.work, "bundle")
	floorRow := row{"the floor", []string{floor, filepath.Join(bundle, "rootfs"), fmt.Sprint(loopRuns)}}
	for _, name := range []string{"glassbox-runtime", "crun"} {
		if _, err := exec.LookPath(name); err == nil || name == "glassbox-runtime" {
			rows = append(rows, row{
				name + " run",
				[]string{name, "--log", "/dev/null", "--root", "/run/loop-" + name, "run", "--bundle", bundle, "loop"},
			})
		}
	}
	var text strings.Builder
	fmt.Fprintf(&text, "\nThe same command %d times, one after the other and nothing else between, ms for each. The floor: the "+
		"namespaces, cgroups and mounts of\n"+
		"runc's default specification, made, entered and taken back by bare system calls, with `/bin/true` in them.\n\n| | ms | of the "+
		"floor |\n|---|---:|---:|\n", loopRuns)
	base, err := b.milliseconds(floorRow.argv...)
	if err != nil {
		return "", err
	}
	fmt.Fprintf(&text, "| %s | %.2f | 1.0 |\n", floorRow.name, base)
	for _, r := range rows {
		n := loopRuns
		if !strings.HasPrefix(r.name, "glassbox") && !strings.HasPrefix(r.name, "crun") {
			n = loopRuns / 10 // a tenth of a second each, and more
		}
		value, err := b.milliseconds(append([]string{loop, fmt.Sprint(n)}, r.argv...)...)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&text, "| %s | %.2f | %.1f |\n", r.name, value, value/base)
	}
	return text.String(), nil
}

// milliseconds runs a program whose last line is a number of nanoseconds.
func (b *bencher) milliseconds(argv ...string) (float64, error) {
	res, err := b.must(argv...)
	if err != nil {
		return 0, err
	}
	words := strings.Fields(res.Stdout)
	if len(words) == 0 {
		return 0, fmt.Errorf("%s says nothing", argv[0])
	}
	ns, err := strconv.ParseFloat(words[len(words)-1], 64)
	return ns / float64(time.Millisecond), err
}

// loopSource runs a command over and over and prints how many nanoseconds one takes.
const loopSource = `package main

import (
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

func main() {
	n, _ := strconv.Atoi(os.Args[1])
	argv := os.Args[2:]
	file, err := exec.LookPath(argv[0])
	if err != nil {
		println(err.Error())
		os.Exit(127)
	}
	null, _ := os.OpenFile("/dev/null", os.O_RDWR, 0)
	var begin time.Time
	for i := range n + n/20 {
		if i == n/20 {
			begin = time.Now()
		}
		pid, err := syscall.ForkExec(file, argv, &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{null.Fd(), null.Fd(), 2}})
		if err != nil {
			println(err.Error())
			os.Exit(126)
		}
		var status syscall.WaitStatus
		if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil || status.ExitStatus() != 0 {
			println("exit code", status.ExitStatus())
			os.Exit(1)
		}
	}
	os.Stdout.WriteString(strconv.FormatInt(time.Since(begin).Nanoseconds()/int64(n), 10) + "\n")
}
`

// floor builds the floor's program, in C: a clone of a Go program would have to start itself again first.
func (b *bencher) floor() (string, error) {
	source, file := filepath.Join(b.work, "floor.c"), filepath.Join(b.work, "floor")
	if err := os.WriteFile(source, []byte(floorSource), 0o644); err != nil {
		return "", err
	}
	if out, err := exec.Command("gcc", "-O2", "-static", "-Wall", "-o", file, source).CombinedOutput(); err != nil {
		return "", fmt.Errorf("gcc: %w: %s", err, out)
	}
	return file, nil
}

// floorSource makes, N times: a cgroup in each hierarchy below /sys/fs/cgroup, a process in new mount, PID, network, IPC, UTS and cgroup
// namespaces, in it the mounts of runc's default specification (ten, the masked and the read-only paths), the root changed, /bin/true
// executed; and all of it taken back. It prints how many nanoseconds one takes.
const floorSource = `#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char stack[1 << 16] __attribute__((aligned(16)));
static char *root;
static int ready[2];

static void die(const char *what) { perror(what); _exit(120); }
static void mnt(const char *src, const char *dst, const char *type, unsigned long flags, const char *data) {
	mkdir(dst, 0755);
	if (mount(src, dst, type, flags, data)) die(dst);
}

static int child(void *unused) {
	static const char *masked[] = {"acpi", "asound", "kcore", "keys", "latency_stats", "timer_list", "timer_stats", "sched_debug", "scsi"};
	static const char *locked[] = {"bus", "fs", "irq", "sys", "sysrq-trigger"};
	static const struct { const char *name; int minor; } devs[] = {{"null", 3}, {"zero", 5}, {"full", 7}, {"random", 8}, {"urandom", 9}};
	char c, path[256];
	struct stat st;
	if (read(ready[0], &c, 1) != 1 || unshare(CLONE_NEWCGROUP)) die("cgroup namespace");
	if (mount(0, "/", 0, MS_REC | MS_PRIVATE, 0) || mount(root, root, 0, MS_BIND | MS_REC, 0) || chdir(root)) die(root);
	mnt("proc", "proc", "proc", 0, 0);
	mnt("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k");
	mnt("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620");
	mnt("shm", "dev/shm", "tmpfs", MS_NOSUID | MS_NOEXEC | MS_NODEV, "mode=1777,size=65536k");
	mnt("mqueue", "dev/mqueue", "mqueue", MS_NOSUID | MS_NOEXEC | MS_NODEV, 0);
	mnt("sysfs", "sys", "sysfs", MS_NOSUID | MS_NOEXEC | MS_NODEV | MS_RDONLY, 0);
	for (unsigned i = 0; i < sizeof devs / sizeof *devs; i++) {
		snprintf(path, sizeof path, "dev/%s", devs[i].name);
		mknod(path, S_IFCHR | 0666, makedev(1, devs[i].minor));
	}
	for (unsigned i = 0; i < sizeof masked / sizeof *masked; i++) {
		snprintf(path, sizeof path, "proc/%s", masked[i]);
		if (stat(path, &st)) continue;
		if (S_ISDIR(st.st_mode) ? mount("tmpfs", path, "tmpfs", MS_RDONLY, 0) : mount("dev/null", path, 0, MS_BIND, 0)) die(path);
	}
	for (unsigned i = 0; i < sizeof locked / sizeof *locked; i++) {
		snprintf(path, sizeof path, "proc/%s", locked[i]);
		if (stat(path, &st)) continue;
		if (mount(path, path, 0, MS_BIND | MS_REC, 0) || mount(0, path, 0, MS_BIND | MS_REMOUNT | MS_RDONLY, 0)) die(path);
	}
	if (syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) || chdir("/")) die("pivot_root");
	if (sethostname("floor", 5)) die("sethostname");
	setsid();
	execl("/bin/true", "true", (char *)0);
	die("/bin/true");
	return 1;
}

static char groups[32][280];
static int count;

static void hierarchies(const char *dir) {
	DIR *d = opendir(dir);
	struct dirent *e;
	struct stat st;
	char path[512];
	snprintf(path, sizeof path, "%s/cgroup.procs", dir);
	if (!stat(path, &st)) {
		snprintf(groups[count++], sizeof groups[0], "%.200s/floor", dir);
		if (d) closedir(d);
		return;
	}
	while (d && (e = readdir(d)) && count < 32) {
		if (*e->d_name == '.' || e->d_type != DT_DIR) continue; /* links are second names */
		snprintf(path, sizeof path, "%.200s/%.200s", dir, e->d_name);
		hierarchies(path);
	}
	if (d) closedir(d);
}

static void put(const char *group, const char *file, const char *text) {
	char path[320];
	snprintf(path, sizeof path, "%s/%s", group, file);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0) return;
	if (write(fd, text, strlen(text)) < 0 && strcmp(file, "cgroup.procs") == 0) die(path);
	close(fd);
}

static void inherit(const char *group, const char *file) {
	char path[320], text[256] = "";
	snprintf(path, sizeof path, "%.*s/%s", (int)(strlen(group) - 6), group, file);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) return;
	if (read(fd, text, sizeof text - 1) > 0) put(group, file, text);
	close(fd);
}

int main(int argc, char **argv) {
	int n = atoi(argv[2]), status;
	struct timespec a, b;
	root = argv[1];
	hierarchies("/sys/fs/cgroup");
	for (int i = 0; i < n + n / 20; i++) {
		char pid[16];
		if (i == n / 20) clock_gettime(CLOCK_MONOTONIC, &a);
		if (pipe2(ready, O_CLOEXEC)) die("pipe");
		int p = clone(child, stack + sizeof stack, CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | SIGCHLD, 0);
		if (p < 0) die("clone");
		snprintf(pid, sizeof pid, "%d", p);
		for (int g = 0; g < count; g++) {
			if (mkdir(groups[g], 0755) && errno != EEXIST) die(groups[g]);
			inherit(groups[g], "cpuset.cpus");
			inherit(groups[g], "cpuset.mems");
			put(groups[g], "cgroup.procs", pid);
		}
		if (write(ready[1], "x", 1) != 1) die("write");
		if (waitpid(p, &status, 0) < 0 || status) {
			fprintf(stderr, "status %x\n", status);
			return 1;
		}
		close(ready[0]);
		close(ready[1]);
		for (int g = 0; g < count; g++)
			while (rmdir(groups[g]) && errno == EBUSY) usleep(100);
	}
	clock_gettime(CLOCK_MONOTONIC, &b);
	printf("%lld\n", ((b.tv_sec - a.tv_sec) * 1000000000LL + b.tv_nsec - a.tv_nsec) / n);
	return 0;
}
`
