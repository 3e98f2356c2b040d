package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"glassbox/test/machine"
)

// idleEngines are those that are measured with many containers: a start of Podman's takes as long as twenty of ours.
const idleEngines = "glassbox docker"

// idle measures an engine with n containers that only sleep, each with a restart policy and a health check every 10 s: how long it takes to
// start them one after the other and to remove them with one command, what a list of them and their statistics cost, and by how much the
// memory that is available on the host falls for each, with everything that engine and kernel keep for it: processes, page tables,
// namespaces, cgroups, links, mounts, directory entries.
func (b *bencher) idle(engines []engine, n int, add func(row, name string, value float64)) error {
	loop, err := b.program("starts", startsSource)
	if err != nil {
		return err
	}
	for _, e := range engines {
		if !strings.Contains(idleEngines, e.name) {
			continue
		}
		fmt.Fprintln(os.Stderr, "bench:", n, "idle containers of", e.name)
		verb := e.verb
		run := verb("run", "-d", "--restart", "always", "--health-cmd", "true", "--health-interval", "10s", image, "sleep", "86400")
		// What the engine needs once, it has by now.
		warm, err := b.must(run...)
		if err != nil {
			return err
		}
		if _, err := b.must(verb("rm", "-f", strings.TrimSpace(warm.Stdout))...); err != nil {
			return err
		}
		before, err := b.available()
		if err != nil {
			return err
		}
		started, err := b.within(20*time.Minute, append([]string{loop, strconv.Itoa(n)}, run...)...)
		if err != nil {
			return err
		}
		ids := strings.Fields(started.Stdout)
		if len(ids) != n {
			return fmt.Errorf("%s has started %d containers, not %d", e.name, len(ids), n)
		}
		row := "`run -d` of %d containers that sleep (restart policy, health check every 10 s), one after the other, ms each"
		add(fmt.Sprintf(row, n), e.name, started.Took.Seconds()*1000/float64(n))
		after, err := b.available()
		if err != nil {
			return err
		}
		add(fmt.Sprintf("fall of the host's available memory for each of %d, MB", n), e.name, (before-after)/float64(n))
		for range 5 {
			list, err := b.must(verb("ps", "-q")...)
			if err != nil {
				return err
			}
			if lines := len(strings.Fields(list.Stdout)); lines != n {
				return fmt.Errorf("%s lists %d containers, not %d", e.name, lines, n)
			}
			add(fmt.Sprintf("`ps` with %d running, ms", n), e.name, list.Took.Seconds()*1000)
		}
		for range 3 {
			stats, err := b.must(verb("stats", "--no-stream")...)
			if err != nil {
				return err
			}
			if lines := strings.Count(stats.Stdout, "\n"); lines < n {
				return fmt.Errorf("%s has statistics in %d lines for %d containers", e.name, lines, n)
			}
			add(fmt.Sprintf("`stats --no-stream` with %d running, ms", n), e.name, stats.Took.Seconds()*1000)
		}
		removed, err := b.within(20*time.Minute, verb(append([]string{"rm", "-f"}, ids...)...)...)
		if err != nil {
			return err
		}
		add(fmt.Sprintf("`rm -f` of %d running at once, s", n), e.name, removed.Took.Seconds())
		list, err := b.must(verb("ps", "-aq")...)
		if err != nil {
			return err
		}
		if strings.TrimSpace(list.Stdout) != "" {
			return fmt.Errorf("%s has left %s", e.name, list.Stdout)
		}
	}
	return nil
}

// available is MemAvailable in MB, once it has settled: the kernel gives some things back by and by. Page cache counts as available,
// whoever has filled it.
func (b *bencher) available() (float64, error) {
	last, limit := 0.0, time.Now().Add(20*time.Second)
	runtime.GC()
	for {
		time.Sleep(2 * time.Second)
		text, err := os.ReadFile("/proc/meminfo")
		if err != nil {
			return 0, err
		}
		_, rest, ok := strings.Cut(string(text), "MemAvailable:")
		if !ok {
			return 0, errors.New("/proc/meminfo has no MemAvailable")
		}
		kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
		if err != nil {
			return 0, err
		}
		now := kib * 1024 / 1e6
		if d := now - last; d < 2 && d > -2 || time.Now().After(limit) {
			return now, nil
		}
		last = now
	}
}

// within runs a command in the machine to its good end, which may take long.
func (b *bencher) within(limit time.Duration, argv ...string) (machine.Result, error) {
	res, err := b.m.Run(limit, argv, b.env, "/")
	if err == nil && (res.Code != 0 || res.TimedOut) {
		err = fmt.Errorf("%s …: exit code %d\n%s", strings.Join(argv[:min(len(argv), 8)], " "), res.Code, res.Stderr)
	}
	return res, err
}

// startsSource runs a command N times, one after the other, with its own output.
const startsSource = `package main

import (
	"os"
	"os/exec"
	"strconv"
)

func main() {
	n, _ := strconv.Atoi(os.Args[1])
	for range n {
		cmd := exec.Command(os.Args[2], os.Args[3:]...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			println(err.Error())
			os.Exit(1)
		}
	}
}
`
