package test

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"glassbox/test/machine"
)

// countsFile has how many system calls each of the three processes of a start makes, by name.
const countsFile = "counts.txt"

var updateCounts = flag.Bool("update-counts", false, "write the counts that are seen into "+countsFile)

// runtimes are calls of which Go's runtime or the kernel's scheduler decide how many there are: it also writes to its own eventfd, and
// looks into a lock's file again when another process was in between.
var runtimes = strings.Fields("arch_prctl brk clone epoll_create1 epoll_ctl epoll_pwait eventfd2 exit exit_group fcntl futex getpid " +
	"getrandom gettid madvise mmap mprotect munmap nanosleep poll ppoll pread64 prlimit64 read recvmsg restart_syscall " +
	"rt_sigaction rt_sigprocmask rt_sigreturn ??? rseq sched_getaffinity sched_yield set_robust_list set_tid_address sigaltstack " +
	"tgkill wait4 waitid write")

// TestCounts: no start gets one system call longer for a feature that it doesn't use. What a later feature adds to these two commands
// fails here; a defence that needs a call more changes the table, and its commit says why. The least of three runs counts: a call that a
// signal interrupts is made again.
func TestCounts(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("needs strace")
	}
	hierarchies, err := machine.Hierarchies()
	must(t, err)
	if runtime.GOARCH != "amd64" || len(hierarchies) != 10 {
		t.Skipf("the table is that of amd64 and ten cgroup hierarchies, each of which is a few calls; here are %d", len(hierarchies))
	}
	s := besiege(t)
	s.furnish()
	table := readCounts(t)
	got := map[string]int{}
	for _, flags := range []string{"--network none", "--network bridge"} {
		argv := append([]string{"glassbox", "run", "--rm"}, append(strings.Fields(flags), "busybox", "true")...)
		s.ok(s.on(argv...)) // the first one makes what all others find
		for i := range 3 {
			file := filepath.Join(s.dir, "counts.trace")
			res := s.on(append([]string{strace, "-f", "-n", "-v", "-s", "1000000", "-xx", "-yy", "-X", "raw", "-o", file}, argv...)...)
			if res.Code != 0 {
				t.Fatalf("%s: exit code %d: %s", flags, res.Code, res.Stderr)
			}
			data, err := os.ReadFile(file)
			must(t, err)
			tr, err := readTrace(string(data))
			must(t, err)
			// See wire.OwnNamespace. The thread that a process begins with is gone with it. The names of iptables-legacy are nowhere else.
			for _, c := range tr.calls {
				path := unhex(c.text)
				if strings.Contains(path, `"/proc/thread-self/n`) && !strings.Contains(path, "_tables_names") { // ns, net
					t.Errorf("a thread leaves names behind that are to be forgotten when it ends: %s", path)
				}
			}
			for key, n := range tr.counts() {
				key = strings.TrimPrefix(flags, "--network ") + " " + key
				if old, ok := got[key]; i == 0 || !ok || n < old {
					got[key] = n
				}
			}
		}
	}
	var lines, more []string
	for _, key := range slices.Sorted(maps.Keys(got)) {
		lines = append(lines, fmt.Sprintf("%s %d", key, got[key]))
		if got[key] > table[key] {
			more = append(more, fmt.Sprintf("%s: %d, not %d", key, got[key], table[key]))
		}
	}
	if *updateCounts {
		text := strings.Join(append([]string{"# network, process, system call, how many times: see TestCounts"}, lines...), "\n") + "\n"
		must(t, os.WriteFile(countsFile, []byte(text), 0o644))
	} else if len(more) > 0 {
		t.Errorf("a start is longer than it was:\n%s", strings.Join(more, "\n"))
	}
}

// counts are the calls of a trace: "command openat", "supervisor openat", "child openat".
func (tr *trace) counts() map[string]int {
	process := map[int]int{}
	role := map[int]string{tr.calls[0].pid: "command", tr.calls[tr.child].ret: "child"}
	for _, c := range tr.calls { // threads belong to who made the first of them
		if (c.name == "clone" || c.name == "clone3") && c.errno == "" && c.ret > 0 {
			of := c.pid
			if p, ok := process[c.pid]; ok {
				of = p
			}
			if field(c.text, "flags")&unix.CLONE_THREAD != 0 {
				process[c.ret] = of
			} else if c.ret != tr.calls[tr.child].ret {
				role[c.ret] = "supervisor"
			}
		}
	}
	counts := map[string]int{}
	executed := map[int]bool{}
	for _, c := range tr.calls {
		of := c.pid
		if p, ok := process[c.pid]; ok {
			of = p
		}
		if r := role[of]; r != "" && !executed[of] && !slices.Contains(runtimes, c.name) {
			counts[r+" "+c.name]++
		}
		if r := role[of]; r == "child" && c.name == "execve" && c.errno == "" {
			executed[of] = true
		}
	}
	return counts
}

func readCounts(t *testing.T) map[string]int {
	data, err := os.ReadFile(countsFile)
	must(t, err)
	table := map[string]int{}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) == 4 && !strings.HasPrefix(line, "#") {
			n, err := strconv.Atoi(f[3])
			must(t, err)
			table[strings.Join(f[:3], " ")] = n
		}
	}
	return table
}
