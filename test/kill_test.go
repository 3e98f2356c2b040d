package test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"glassbox/test/machine"
)

// TestKill is experiment 16: the command, the supervisor or the container is killed at a random moment of every verb, 40 times, 4 at a
// time; GLASSBOX_TEST_STORM=200 is that many, 8 at a time. Once the next command has run, every container is accounted for, and when all
// is removed nothing is left. GLASSBOX_TEST_SEED repeats a run's choices (the moments are as exact as the machine is).
func TestKill(t *testing.T) {
	k := newKiller(t)
	defer k.state.host.Close()
	k.warm()
	k.storm(k.deeds, 40)
	k.accounted()
	k.tidy()
	if halves := k.halves(); len(halves) > 0 {
		t.Errorf("half a file has a whole one's name: %q", halves)
	}
	k.nothingLeft()
}

// TestNetworkStorm does the same with what changes networks and who is on them, 24 times; GLASSBOX_TEST_STORM is how often. No address is
// given twice, and no link, address, rule, set, name or process is left.
func TestNetworkStorm(t *testing.T) {
	k := newKiller(t)
	defer k.state.host.Close()
	k.must("network", "create", "--ipv6", "first")
	k.must("run", "--rm", "--network", "first", "busybox", "true")
	k.must("network", "rm", "first")
	k.storm(k.netDeeds, 24)
	k.addressesOnce()
	k.accounted()
	k.must("network", "create", "last") // which takes away a record that was half written
	k.must("network", "prune", "-f")
	if text := k.must("network", "ls", "-q", "--filter", "type=custom"); text != "" {
		t.Errorf("networks are left: %s", text)
	}
	k.nothingLeft()
}

// newKiller starts a machine with an image.
func newKiller(t *testing.T) *killer {
	prepare(t)
	dir, err := run.seed.get()
	if err != nil {
		t.Fatal(err)
	}
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("GLASSBOX_TEST_SEED"); text != "" {
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("GLASSBOX_TEST_SEED=%d", seed)
	work := t.TempDir()
	host, err := machine.Start("kill", filepath.Join(work, "machine"))
	if err != nil {
		t.Fatal(err)
	}
	storeDir := filepath.Join(work, "store")
	k := &killer{t: t, state: &state{host: host, work: work}, work: work, random: rand.New(rand.NewPCG(seed, 0))}
	k.env = []string{
		"PATH=" + run.bin + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + work,
		"GLASSBOX_ROOT=" + store, "GLASSBOX_STATE=/run/glassbox",
	}
	if err := mountStore(host, storeDir); err != nil {
		t.Fatal(err)
	}
	if res, err := host.Run(scaled(time.Minute), []string{"cp", "-a", dir + "/.", storeDir}, k.env, "/"); err != nil || res.Code != 0 {
		t.Fatal(err, res.Stderr)
	}
	k.must("run", "--rm", "busybox", "true")
	return k
}

// storm makes rounds, of which each does one of the deeds.
func (k *killer) storm(deeds func(n int) []deed, total int) {
	atOnce := 4
	if text := os.Getenv("GLASSBOX_TEST_STORM"); text != "" {
		var err error
		if total, err = strconv.Atoi(text); err != nil {
			k.t.Fatal(err)
		}
		atOnce = 8
	}
	start := time.Now()
	k.must("run", "--rm", "busybox", "true")
	k.span = 4 * time.Since(start) // as many work at once
	before, err := k.state.settled()
	if err != nil {
		k.t.Fatal(err)
	}
	k.state.before = &before

	rounds := make(chan int)
	var workers sync.WaitGroup
	for range atOnce {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for n := range rounds {
				k.round(n, deeds(n))
			}
		}()
	}
	for n := range total {
		rounds <- n
	}
	close(rounds)
	workers.Wait()
	if k.hits < total/3 {
		k.t.Errorf("only %d of %d rounds found something to kill", k.hits, total)
	}
	k.t.Logf("what was done:\n%s", strings.Join(k.log, "\n"))
}

// nothingLeft finds the machine as it was, and working.
func (k *killer) nothingLeft() {
	// Who is killed between telling of an end and emptying the bridge's guard leaves entries of a cable that is gone. They go with the next
	// container that is the last one there.
	k.must("run", "--rm", "busybox", "true")
	left, err := k.state.leaked()
	left = strings.ReplaceAll(left, "left: file events.1\n", "") // the journal's older part
	if err != nil || left != "" {
		k.t.Errorf("%v\n%s", err, left)
	}
	if got := k.must("run", "--rm", "busybox", "echo", "fine"); got != "fine\n" {
		k.t.Errorf("run after all: got %q", got)
	}
}

// accounted looks for every container and removes it: the next command finds a consistent state. It ends, and every container that a
// command named as made is either there and can be looked at, or gone with all that was its own.
func (k *killer) accounted() {
	listed := map[string]bool{}
	for _, id := range strings.Fields(k.must("ps", "-aq", "--no-trunc")) {
		// Whose command was killed goes by itself, with `--rm`, in its own time.
		res, err := k.gb("inspect", id)
		if err == nil && res.Code == 1 && k.removable[id] && !strings.Contains(k.must("ps", "-aq", "--no-trunc"), id) {
			continue
		}
		listed[id] = true
		var list []struct {
			State struct {
				Status  string
				Running bool
				Pid     int
			}
		}
		if err == nil {
			err = json.Unmarshal([]byte(res.Stdout), &list)
		}
		if err != nil || len(list) != 1 {
			k.t.Errorf("inspect %s: exit code %d, %v in %s%s", id, res.Code, err, res.Stdout, res.Stderr)
			continue
		}
		s := list[0].State
		if s.Running && s.Status != "restarting" { // which has no process, and counts as running, as with Docker
			if _, err := os.Stat(k.state.host.Path(fmt.Sprintf("/proc/%d", s.Pid))); err != nil {
				k.t.Errorf("%s is said to run as %d, which is gone", id, s.Pid)
			}
		}
	}
	for _, id := range k.made {
		if !listed[id] && !k.removable[id] {
			k.t.Errorf("container %s is neither there nor was it removed", id)
		}
	}
	for id := range listed {
		k.must("rm", "-f", id)
	}
	if text := k.must("ps", "-aq"); text != "" {
		k.t.Errorf("after rm -f of all there is still %s", text)
	}
}

// warm does once what leaves something for good: a registry's images, directories, which blobs layers became.
func (k *killer) warm() {
	if err := startRegistry(k.state.host, filepath.Join(k.work, "registry"), "http", k.env); err != nil {
		k.t.Fatal(err)
	}
	if err := startRegistry(k.state.host, filepath.Join(k.work, "pushed"), "spare", k.env); err != nil {
		k.t.Fatal(err)
	}
	k.must("pull", "-q", "127.0.0.1:5000/busybox:volumes")
	k.must("tag", "busybox", "127.0.0.1:5001/first")
	k.must("push", "-q", "127.0.0.1:5001/first") // which blobs its layers became is kept
	k.must("rmi", "127.0.0.1:5001/first")
	for _, kind := range []string{"volume", "network"} { // their directories stay
		k.must(kind, "create", "first")
		k.must(kind, "rm", "first")
	}
}

type killer struct {
	t     *testing.T
	state *state
	env   []string
	work  string
	span  time.Duration // what a round's command takes at most, roughly

	mu        sync.Mutex
	random    *rand.Rand
	made      []string        // IDs from cidfiles
	removable map[string]bool // of those, which may be gone
	hits      int
	log       []string
}

func (k *killer) must(args ...string) string {
	k.t.Helper()
	res, err := k.gb(args...)
	if err != nil || res.Code != 0 || res.TimedOut {
		k.t.Errorf("glassbox %s: exit code %d, timed out %v, %v\n%s%s", strings.Join(args, " "), res.Code, res.TimedOut, err,
			res.Stdout, res.Stderr)
	}
	return res.Stdout
}

func (k *killer) gb(args ...string) (machine.Result, error) {
	return k.state.host.Run(scaled(60*time.Second), append([]string{filepath.Join(run.bin, "glassbox")}, args...), k.env, "/")
}

func (k *killer) pick(n int) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.random.IntN(n)
}

// round makes a container, does one thing with it, and kills one of its processes meanwhile.
func (k *killer) round(n int, list []deed) {
	name := fmt.Sprintf("round%d", n)
	cidfile := filepath.Join(k.work, name)
	d := list[k.pick(len(list))]
	victim := []string{"command", "supervisor", "container"}[k.pick(3)]
	delay := time.Duration(k.pick(int(k.span)))
	for _, args := range d.before {
		k.must(args...)
	}
	job, err := k.state.host.Go(append([]string{filepath.Join(run.bin, "glassbox")}, d.args...), k.env, "/", nil)
	if err != nil {
		k.t.Error(err)
		return
	}
	time.Sleep(delay)
	id, _ := os.ReadFile(cidfile)
	hit := 0
	switch victim {
	case "command":
		hit = job.Pid
	default:
		hit = k.find(string(id), name, victim)
	}
	if hit > 1 {
		k.state.host.Kill(hit, syscall.SIGKILL)
	}
	res, _ := job.Finish(scaled(30 * time.Second))
	if res.TimedOut {
		k.t.Errorf("round %d: %s with its %s killed after %v does not end", n, d.name, victim, delay)
	}
	id, _ = os.ReadFile(cidfile)
	k.mu.Lock()
	defer k.mu.Unlock()
	if hit > 1 {
		k.hits++
	}
	k.log = append(k.log, fmt.Sprintf("%s %.12s: %s, %s (%d) killed after %v: exit code %d %s", name, id, d.name, victim, hit, delay,
		res.Code, strings.TrimSpace(res.Stderr)))
	if len(id) > 0 {
		k.made = append(k.made, strings.TrimSpace(string(id)))
		if k.removable == nil {
			k.removable = map[string]bool{}
		}
		// Who dies while it makes a container may leave none; who removes has said so.
		k.removable[strings.TrimSpace(string(id))] = d.ends
	}
}

// find looks for a container's supervisor or for its first process by what the machine's /proc says.
func (k *killer) find(id, name, what string) int {
	if id == "" {
		return 0
	}
	id = strings.TrimSpace(id)
	for pid, line := range k.state.host.Processes() {
		comm, _ := os.ReadFile(k.state.host.Path(fmt.Sprintf("/proc/%d/comm", pid)))
		supervisor := strings.HasPrefix(string(comm), "glassbox-runtim")
		groups, _ := os.ReadFile(k.state.host.Path(fmt.Sprintf("/proc/%d/cgroup", pid)))
		switch what {
		case "supervisor":
			if supervisor && (strings.Contains(line, id) || strings.Contains(line, name)) {
				return pid
			}
		case "container":
			if !supervisor && strings.Contains(string(groups), id) {
				return pid
			}
		}
	}
	return 0
}
