package test

import (
	"testing"
)

// wrongLife are wrong command lines about restart policies, health checks, update, wait, autostart and units: the exit code, and what the
// one sentence says. ccc runs, sss has ended, rrr runs and is removed at its end, kkk has --cpus, ppp a restart policy.
var wrongLife = []wrongLine{
	{"run --restart sometimes busybox true", 125, "--restart sometimes: .*unknown policy 'sometimes'; use one of"},
	{"run --restart Always busybox true", 125, "unknown policy 'Always'"},
	{"run --restart : busybox true", 125, "no policy provided before colon"},
	{"run --restart :3 busybox true", 125, "no policy provided before colon"},
	{"run --restart on-failure:many busybox true", 125, "maximum retry count must be an integer"},
	{"run --restart on-failure:1.5 busybox true", 125, "maximum retry count must be an integer"},
	{"run --restart on-failure:-1 busybox true", 125, "maximum retry count cannot be negative"},
	{"run --restart on-unhealthy:-1 busybox true", 125, "maximum retry count cannot be negative"},
	{"run --restart always:3 busybox true", 125, "can only be used with 'on-failure'"},
	{"run --restart unless-stopped:-3 busybox true", 125, "can only be used with 'on-failure' and cannot be negative"},
	{"run --restart no:1 busybox true", 125, "can only be used with 'on-failure'"},
	{"run --rm --restart always busybox true", 125, "cannot specify both --restart and --rm"},
	{"create --rm --restart on-failure busybox true", 125, "cannot specify both --restart and --rm"},
	{"run --restart", 125, "flag needs an argument: --restart"},
	{"run --health-cmd", 125, "flag needs an argument: --health-cmd"},
	{"run --no-healthcheck --health-cmd true busybox true", 125, "--no-healthcheck conflicts with --health-. options"},
	{"run --no-healthcheck --health-retries 2 busybox true", 125, "--no-healthcheck conflicts with --health-. options"},
	{"run --no-healthcheck --health-start-period 2s busybox true", 125, "--no-healthcheck conflicts with --health-. options"},
	{"run --health-interval -1s busybox true", 125, "--health-interval cannot be negative"},
	{"run --health-timeout -1s busybox true", 125, "--health-timeout cannot be negative"},
	{"run --health-retries -1 busybox true", 125, "--health-retries cannot be negative"},
	{"run --health-start-period -1ms busybox true", 125, "--health-start-period cannot be negative"},
	{"run --health-start-interval -1ms busybox true", 125, "--health-start-interval cannot be negative"},
	{"run --health-interval 1us busybox true", 125, "--health-interval 1µs: it cannot be less than 1ms"},
	{"run --health-interval 30 busybox true", 125, "want a time such as 500ms, 10s or 1m30s"},
	{"run --health-timeout soon busybox true", 125, "want a time such as"},
	{"run --health-retries many busybox true", 125, "want a whole number"},
	{"run --no-healthcheck=perhaps busybox true", 125, "want true or false"},
	{"run --limit-hints=perhaps busybox true", 125, "want true or false"},
	{"run --cpu-rt-period -1 busybox true", 125, "--cpu-rt-period -1: want microseconds"},
	{"run --cpu-rt-period 1000 --cpu-rt-runtime 2000 busybox true", 125, "at most --cpu-rt-period"},
	{"run --stop-timeout soon busybox true", 125, "want a whole number"},
	{"update", 1, "(?i)requires at least 1 argument|at least 1"},
	{"update ccc", 1, "you must provide one or more flags"},
	{"update --memory 1g", 1, "(?i)requires at least 1 argument|at least 1"},
	{"update --memory 1g nobody", 1, "no such container: nobody"},
	{"update --memory much ccc", 125, "--memory: invalid size \"much\""},
	{"update --memory 1k ccc", 1, "--memory 1k: minimum memory limit"},
	{"update --memory-swap 1g ccc", 1, "you should always set the memory limit"},
	{"update --memory 100m --memory-swap 50m ccc", 1, "minimum memory-swap limit should be larger"},
	{"update --memory 100m --memory-reservation 200m ccc", 1, "--memory-reservation 200m: the limit"},
	{"update --cpus none ccc", 125, "--cpus none: want a number of processors"},
	{"update --cpus 1000 ccc", 1, "range of CPUs is from 0.01 to"},
	{"update --cpu-quota 5000 kkk", 1, "the container has --cpus, which sets both"},
	{"update --cpu-period 10 ccc", 1, "can not be less than 1ms"},
	{"update --cpu-shares 1 ccc", 1, "want 2 to 262144"},
	{"update --blkio-weight 5 ccc", 1, "range of blkio weight"},
	{"update --blkio-weight -5 ccc", 125, "want a whole number, not below 0"},
	{"update --cpuset-cpus 0-900 ccc", 1, "nothing has changed: --cpuset-cpus=0-900"},
	{"update --cpuset-mems 77 ccc", 1, "nothing has changed: --cpuset-mems=77"},
	{"update --pids-limit many ccc", 125, "want a whole number"},
	{"update --kernel-memory 1m ccc", 125, "kernel-memory"},
	{"update --restart sometimes ccc", 1, "unknown policy 'sometimes'"},
	{"update --restart always rrr", 1, "AutoRemove is enabled for the container"},
	{"update --dry-run --memory 1k ccc", 1, "minimum memory limit"},
	{"wait --condition soon ccc", 1, "invalid condition \"soon\": want not-running, next-exit or removed"},
	{"wait nobody", 1, "no such container"},
	{"ps --filter health=fine", 1, "invalid filter 'health=fine': want none, starting, healthy or unhealthy"},
	{"autostart ccc", 125, "accepts no arguments|unknown command|(?i)no argument"},
	{"autostart --nope", 125, "unknown flag: --nope"},
	{"generate nope", 125, "unknown command"},
	{"generate systemd", 125, "(?i)requires at least 1 argument|at least 1"},
	{"generate systemd nobody", 1, "no such container"},
	{"generate systemd --restart-policy maybe sss", 125, "want one of no, always"},
	{"generate systemd ppp", 1, "has a restart policy of its own \\(always\\)"},
	{"generate systemd rrr", 1, "is removed when it ends"},
}

// TestWrongLife: one clear sentence each, the right exit code, and nothing has changed.
func TestWrongLife(t *testing.T) {
	s := besiege(t)
	s.furnish()
	run := func(args ...string) {
		s.ok(s.on(append([]string{"glassbox", "run", "-d", "--network", "none"}, args...)...))
	}
	run("--name", "ccc", "busybox", "sleep", "10000")
	run("--name", "sss", "busybox", "true")
	run("--name", "rrr", "--rm", "busybox", "sleep", "10000")
	run("--name", "kkk", "--cpus", "0.5", "busybox", "sleep", "10000")
	run("--name", "ppp", "--restart", "always", "busybox", "sleep", "10000")
	s.ok(s.on("glassbox", "wait", "sss"))
	all := func() string {
		return s.ok(s.on("glassbox", "ps", "-a", "--format", "{{.ID}} {{.Names}} {{.State}}")) +
			s.ok(s.on("glassbox", "inspect", "--format", "{{json .HostConfig}}{{json .Config}}", "ccc", "sss", "rrr", "kkk", "ppp"))
	}
	s.typeWrong(t, wrongLife, "glassbox: ", all)
}
