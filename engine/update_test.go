package engine

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"glassbox/container"
	"glassbox/plan"
	"glassbox/state"
	"glassbox/supervise"
)

// fewer is an update of the number of processes, whose file has one name on both versions of cgroups.
func fewer() container.Words {
	n := int64(7)
	return container.Words{PidsLimit: &n, Flags: map[string]string{"pids-limit": "--pids-limit 7"}}
}

// prepare writes a container's plan and job, with cgroups that are plain directories.
func prepare(t *testing.T, e *Engine, c *container.Container) (pidsMax string) {
	t.Helper()
	planned(t, e, c)
	job, err := supervise.ReadJob(e.dir(c.ID))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	job.Cgroups = map[string]string{"": dir, "pids": dir}
	if err := state.WriteJSON(filepath.Join(job.Dir, supervise.JobFile), job); err != nil {
		t.Fatal(err)
	}
	pidsMax = filepath.Join(dir, "pids.max")
	if err := os.WriteFile(pidsMax, []byte("3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return pidsMax
}

// TestUpdateAndConnect: what is written of a container between the look of an update and its doing, such as a network that it was connected
// to, is still there after it.
func TestUpdateAndConnect(t *testing.T) {
	e := opened(t)
	c := create(t, e, container.Words{Name: "web"})
	prepare(t, e, c)
	supervised(t, e, c, supervise.State{Status: supervise.Restarting})
	u, err := e.Update(t.Context(), "web", fewer())
	if err != nil {
		t.Fatal(err)
	}
	// As connect does.
	p, err := supervise.ReadPlan(e.dir(c.ID))
	if err != nil {
		t.Fatal(err)
	}
	cable := plan.Step{
		Lane: plan.Host, Phase: plan.Network, Op: &plan.RouteDefault{Link: "eth7", Via: "10.0.0.1"},
		Origin: "network connect backend", Reason: "r",
	}
	at := slices.IndexFunc(p.Steps, func(s plan.Step) bool { return s.Phase > plan.Network })
	p.Steps = slices.Insert(p.Steps, max(at, 0), cable)
	if err := state.WriteJSON(filepath.Join(e.dir(c.ID), supervise.PlanFile), p); err != nil {
		t.Fatal(err)
	}
	c.Config.Endpoints = append(c.Config.Networks(), container.Endpoint{Network: "backend"})
	if err := e.saveRewired(c); err != nil {
		t.Fatal(err)
	}
	if err := e.Apply(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	after, err := supervise.ReadPlan(e.dir(c.ID))
	if err != nil {
		t.Fatal(err)
	}
	has := func(origin string) bool {
		return slices.ContainsFunc(after.Steps, func(s plan.Step) bool { return s.Origin == origin })
	}
	if !has("network connect backend") || !has("--pids-limit 7") {
		t.Error("the plan has lost a step")
	}
	again, err := e.readContainer(c.ID)
	if err != nil || !onNetwork(again, "backend") || again.Config.Limits.Pids == nil || *again.Config.Limits.Pids != 7 {
		t.Errorf("what the container is: %+v, %v", again, err)
	}
}

// TestUpdateWaitsForStart: a container that is being started has its limits from before; an update waits until it runs, and changes those.
func TestUpdateWaitsForStart(t *testing.T) {
	e := opened(t)
	c := create(t, e, container.Words{Name: "web"})
	pidsMax := prepare(t, e, c)
	u, err := e.Update(t.Context(), "web", fewer()) // it doesn't run
	if err != nil || len(u.Steps) > 0 {
		t.Fatal(u, err)
	}
	lock, _, err := state.Lock(e.lockFile(c.ID), true) // a command that starts it
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	done := make(chan error)
	go func() { done <- e.Apply(t.Context(), u) }()
	select {
	case err := <-done:
		t.Fatalf("it didn't wait: %v", err)
	case <-time.After(30 * time.Millisecond):
	}
	became(t, e, c, supervise.State{Status: supervise.Running, PID: os.Getpid(), Started: time.Now(), Boot: supervise.BootID()})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(pidsMax); err != nil || strings.TrimSpace(string(text)) != "7" || len(u.Steps) != 1 {
		t.Errorf("its cgroup has %q, %v; steps %v", text, err, u.Steps)
	}
}
