package test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"glassbox/test/machine"
)

// The runtime classes that are compared: names of the cluster.
var clusterClasses = []string{"runc", "glassbox"}

// TestCluster compares runc and glassbox-runtime below Kubernetes on one node, side by side: each case (cluster/cases) is run with
// both, must end well and say the same. Then it measures how long many pods take. The programs lie in the directory CLUSTER: see
// cluster.sh. With CLUSTER_COMMAND, a command for bash, this is run in the cluster instead of the cases.
func TestCluster(t *testing.T) {
	programs := os.Getenv("CLUSTER")
	if programs == "" {
		t.Skip("needs what test/cluster.sh builds, in half an hour: run that")
	}
	prepare(t)
	c := startCluster(t, programs)
	if command := os.Getenv("CLUSTER_COMMAND"); command != "" {
		c.must(t, 24*time.Hour, "bash", "-c", command)
		return
	}
	for _, dir := range []string{"cases", "alone"} {
		files, err := filepath.Glob("cluster/" + dir + "/*.sh")
		if err != nil || len(files) == 0 {
			t.Fatalf("cases of cluster/%s: %v %v", dir, files, err)
		}
		for _, file := range files {
			t.Run(strings.TrimSuffix(filepath.Base(file), ".sh"), func(t *testing.T) { c.compare(t, file, dir == "alone") })
		}
	}
	t.Run("many", c.many)
}

type cluster struct {
	host *machine.Machine
	env  []string
	dir  string // of the scripts
	work string
}

func startCluster(t *testing.T, programs string) *cluster {
	dir, err := filepath.Abs("cluster")
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{dir: dir, work: filepath.Join(run.dir, "cluster")}
	if c.host, err = machine.Start("node", filepath.Join(c.work, "machine")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			c.keepLogs(t)
		}
		if err := c.host.Close(); err != nil {
			t.Error(err)
		}
	})
	c.env = []string{
		"PATH=" + programs + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + c.work, "TERM=xterm",
		"CLUSTER=" + programs, "WORK=" + c.work, "GLASSBOX=" + runtimePath(), "RUNC=" + filepath.Join(programs, "runc"),
		"KUBECONFIG=" + filepath.Join(c.work, "pki/admin.conf"), "CONTAINERD_ADDRESS=/run/c.sock",
		"SUITE=" + os.Getenv("SUITE"),
	}
	if err := startRegistry(c.host, filepath.Join(c.work, "registry"), "http", c.env); err != nil {
		t.Fatal(err)
	}
	c.must(t, 10*time.Minute, "bash", filepath.Join(dir, "start.sh"))
	t.Logf("the cluster runs; a look into it: nsenter -t %d -m -n -p -u -i -C env %s bash", c.host.Pid(), strings.Join(c.env, " "))
	return c
}

// must runs a command in the cluster's machine, which writes as the test does.
func (c *cluster) must(t *testing.T, limit time.Duration, argv ...string) {
	t.Helper()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	p, err := c.host.Start(machine.Spec{Argv: argv, Env: c.env, Dir: "/", Stdin: null, Stdout: os.Stdout, Stderr: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.Done():
	case <-time.After(scaled(limit)):
		t.Fatalf("%v: not done after %v", argv, limit)
	}
	if code, err := p.Wait(); code != 0 {
		t.Fatalf("%v: exit code %d %v", argv, code, err)
	}
}

// compare runs a case with both classes, at once if it may have company.
func (c *cluster) compare(t *testing.T, file string, alone bool) {
	results := make([]machine.Result, len(clusterClasses))
	errs := make([]error, len(clusterClasses))
	var both sync.WaitGroup
	for i, class := range clusterClasses {
		both.Add(1)
		go func() {
			defer both.Done()
			results[i], errs[i] = c.run(file, class)
		}()
		if alone {
			both.Wait()
		}
	}
	both.Wait()
	var said []string
	for i, class := range clusterClasses {
		r := results[i]
		if errs[i] != nil || r.Code != 0 || r.TimedOut || r.Stdout == "" {
			t.Errorf("%s: exit code %d, timed out: %v %v\n%s%s", class, r.Code, r.TimedOut, errs[i], r.Stdout, r.Stderr)
		}
		said = append(said, strings.ReplaceAll(r.Stdout, class, "CLASS"))
	}
	if diff := cmp.Diff(said[0], said[1]); diff != "" {
		t.Errorf("runc (-) and glassbox-runtime (+) differ:\n%s", diff)
	}
	t.Logf("%d lines; %.0f s with runc, %.0f s with glassbox-runtime",
		strings.Count(said[0], "\n"), results[0].Took.Seconds(), results[1].Took.Seconds())
	if testing.Verbose() {
		os.WriteFile(filepath.Join(c.work, "log", filepath.Base(file)+".said"), []byte(said[0]), 0o644)
	}
}

func (c *cluster) run(file, class string) (machine.Result, error) {
	path, err := filepath.Abs(file)
	if err != nil {
		return machine.Result{}, err
	}
	return c.host.Run(scaled(10*time.Minute), []string{"bash", filepath.Join(c.dir, "case.sh"), path, class}, c.env, "/")
}

// many measures in turns, and tells the medians, with the average load of the host before each turn.
func (c *cluster) many(t *testing.T) {
	const rounds = 3
	whats := []string{"ready", "gone", "ready, of processors", "gone, of processors"}
	took := map[string][4][]int{}
	for round := range rounds {
		order := slices.Clone(clusterClasses)
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, class := range order {
			load, _ := os.ReadFile("/proc/loadavg")
			r, err := c.run("cluster/many.sh", class)
			var now [4]int
			if _, scanErr := fmt.Sscan(r.Stdout, &now[0], &now[1], &now[2], &now[3]); err != nil || scanErr != nil {
				t.Fatalf("%s: %v %v\n%s%s", class, err, scanErr, r.Stdout, r.Stderr)
			}
			all := took[class]
			for i := range now {
				all[i] = append(all[i], now[i])
			}
			took[class] = all
			t.Logf("%s: %v ms; load %s", class, now, strings.Fields(string(load))[0])
			c.must(t, 2*time.Minute, "kubectl", "wait", "--for=delete", "--timeout=100s", "namespace/"+class+"-many")
		}
	}
	for i, what := range whats {
		var medians []float64
		for _, class := range clusterClasses {
			times := slices.Sorted(slices.Values(took[class][i]))
			medians = append(medians, float64(times[len(times)/2]))
		}
		t.Logf("60 pods %s: %.1f s with runc, %.1f s with glassbox-runtime (%.2f)", what, medians[0]/1000, medians[1]/1000, medians[1]/medians[0])
	}
}

// keepLogs prints the ends of what the daemons wrote.
func (c *cluster) keepLogs(t *testing.T) {
	logs, _ := filepath.Glob(filepath.Join(c.work, "log", "*"))
	for _, log := range logs {
		if strings.HasSuffix(log, ".said") {
			continue
		}
		out, _ := exec.Command("tail", "-n", "15", log).Output()
		t.Logf("%s:\n%s", filepath.Base(log), regexp.MustCompile(`(?m)^`).ReplaceAll(bytes.TrimSpace(out), []byte("  ")))
	}
}
