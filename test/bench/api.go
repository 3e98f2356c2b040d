package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Rows of the API: one client (apiclient) and Compose speak to glassbox serve and to dockerd, in turn, with the same requests.

// apiServer is a server that is measured, by its socket.
type apiServer struct {
	engine
	socket    string
	processes []string // that are the server: those of a supervisor for each container are not
	idles     bool     // it ends by itself when nobody needs it
}

// followers is how many follow a log, and how many the events, at once.
const followers = 1000

// serving measures the servers. compose is Compose's program, or nothing.
func (b *bencher) serving(engines []engine, compose string, runs, containers int) (string, error) {
	client := filepath.Join(b.work, "apiclient")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", client, "./test/bench/apiclient")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the API's client: %w: %s", err, out)
	}
	servers, err := b.servers(engines)
	if err != nil {
		return "", err
	}
	var t table
	// Before the many containers, and with them.
	for range 3 {
		for _, s := range servers {
			err := b.numbered(&t, "create and start through the API, ms", s.name, client, s.socket, "start", strconv.Itoa(runs), image)
			if err != nil {
				return "", err
			}
		}
	}
	if err := b.composing(servers, compose, min(runs, 5), &t); err != nil {
		return "", err
	}
	for _, s := range servers {
		if err := b.manyServed(s, client, runs, containers, &t); err != nil {
			return "", err
		}
	}
	for _, s := range servers {
		if s.idles {
			if err := b.unneeded(s, client); err != nil {
				return "", err
			}
		}
		t.add("server that nobody needs, PSS, MB", s.name, b.serverMemory(s))
	}
	list := make([]engine, len(servers))
	for i, s := range servers {
		list[i] = s.engine
	}
	return tabulate(list, t), nil
}

// servers are those of the engines that have one, glassbox's first.
func (b *bencher) servers(engines []engine) ([]apiServer, error) {
	var out []apiServer
	for _, e := range engines {
		switch e.name {
		case "glassbox":
			s := apiServer{engine: e, socket: "/run/bench-api.sock", processes: []string{"glassbox-api"}, idles: true}
			if err := b.serve(e.verb("serve", "-H", "unix://"+s.socket)...); err != nil {
				return nil, err
			}
			out = append(out, s)
		case "docker":
			out = append(out, apiServer{engine: e, socket: "/run/docker.sock", processes: []string{"dockerd", "containerd"}})
		}
	}
	return out, nil
}

// numbered runs a command in the machine that prints a number, which is a row's.
func (b *bencher) numbered(t *table, row, name string, argv ...string) error {
	fmt.Fprintln(os.Stderr, "bench:", row, name)
	res, err := b.must(argv...)
	if err == nil {
		t.add(row, name, number(res.Stdout))
	}
	return err
}

// serverMemory is what a server's processes have, in MB (PSS).
func (b *bencher) serverMemory(s apiServer) float64 {
	kb := 0
	for pid, comm := range b.resident() {
		if slices.Contains(s.processes, comm) {
			kb += b.pss(pid)
		}
	}
	return float64(kb) * 1024 / 1e6
}

// descriptors is how many files a server's processes have open.
func (b *bencher) descriptors(s apiServer) float64 {
	n := 0
	for pid, comm := range b.resident() {
		if slices.Contains(s.processes, comm) {
			list, _ := os.ReadDir(b.m.Path(fmt.Sprintf("/proc/%d/fd", pid)))
			n += len(list)
		}
	}
	return float64(n)
}

// manyServed measures a server with many containers: lists, memory, and a thousand followers each of a log and of the events.
func (b *bencher) manyServed(s apiServer, client string, runs, n int, t *table) error {
	loop, err := b.program("starts", startsSource)
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "bench: API of", s.name, "with", n, "containers")
	started, err := b.within(20*time.Minute, append([]string{loop, strconv.Itoa(n)}, s.verb("run", "-d", image, "sleep", "86400")...)...)
	if err != nil {
		return err
	}
	row := fmt.Sprintf("`GET /containers/json` with %d running, ms", n)
	for range 3 {
		if err := b.numbered(t, row, s.name, client, s.socket, "list", strconv.Itoa(runs)); err != nil {
			return err
		}
	}
	t.add(fmt.Sprintf("server with %d running, after %d lists, PSS, MB", n, 3*(runs+2)), s.name, b.serverMemory(s))
	if err := b.followed(s, client, t); err != nil {
		return err
	}
	_, err = b.within(20*time.Minute, s.verb(append([]string{"rm", "-f"}, strings.Fields(started.Stdout)...)...)...)
	return err
}

// followed measures what followers cost a server, from the first connection to when each has got what it follows.
func (b *bencher) followed(s apiServer, client string, t *table) error {
	res, err := b.must(s.verb("run", "-d", "--name", "ticks", image, "sh", "-c", "while true; do echo tick; sleep 0.5; done")...)
	if err != nil {
		return err
	}
	end := filepath.Join(b.work, "end-"+s.name)
	before, begin := b.serverMemory(s), time.Now()
	job, err := b.m.Go([]string{client, s.socket, "follow", strconv.Itoa(followers), "ticks", end}, b.env, "/", nil)
	if err != nil {
		return err
	}
	for !strings.Contains(job.Output(), "held") {
		select {
		case <-job.Done():
			res, err := job.Finish(0)
			return errors.Join(err, fmt.Errorf("followers of %s: %s%s", s.name, res.Stdout, res.Stderr))
		case <-time.After(20 * time.Millisecond):
		}
	}
	what := fmt.Sprintf("%d followers of a log and %d of the events: ", followers, followers)
	t.add(what+"until each has got its lines, s", s.name, time.Since(begin).Seconds())
	t.add(what+"growth of the server, PSS, MB", s.name, b.serverMemory(s)-before)
	t.add(what+"descriptors of the server", s.name, b.descriptors(s))
	if err := os.WriteFile(end, nil, 0o644); err != nil {
		return err
	}
	if res, err := job.Finish(time.Minute); err != nil || res.Code != 0 {
		return fmt.Errorf("followers of %s: %w: %s", s.name, err, res.Stderr)
	}
	_, err = b.must(s.verb("rm", "-f", strings.TrimSpace(res.Stdout))...)
	return err
}

// composing measures Compose with the application of three tiers that test/clients.sh drives.
func (b *bencher) composing(servers []apiServer, compose string, runs int, t *table) error {
	if compose == "" {
		fmt.Fprintln(os.Stderr, "bench: no Compose: test/clients.sh compose builds it")
		return nil
	}
	file, err := filepath.Abs("test/clients/compose/compose.yaml")
	if err != nil {
		return err
	}
	started := filepath.Join(filepath.Dir(file), "started.yaml")
	for i := range runs + 1 {
		for _, s := range servers {
			if i == 0 {
				if _, err := b.must(s.verb("tag", image, "box")...); err != nil {
					return err
				}
			}
			fmt.Fprintln(os.Stderr, "bench: compose with", s.name)
			for _, c := range []struct {
				row   string
				files []string
			}{
				{"`docker compose up -d` of an application of three tiers, each waiting for the other's health, ms", []string{"-f", file}},
				// Compose looks only each 500 ms whether a service is healthy, and twice one waits for another.
				{"the same without waiting for health, ms", []string{"-f", file, "-f", started}},
			} {
				command := func(args ...string) []string {
					argv := append([]string{"env", "DOCKER_HOST=unix://" + s.socket, compose, "--progress", "plain"}, c.files...)
					return append(argv, args...)
				}
				up, err := b.must(command("up", "-d")...)
				if err != nil {
					return err
				}
				down, err := b.must(command("down", "-v", "-t", "1")...)
				if err != nil {
					return err
				}
				if i > 0 {
					t.add(c.row, s.name, milliseconds(up))
				}
				if i > 0 && len(c.files) == 2 {
					t.add("`docker compose down -v` of it, ms", s.name, milliseconds(down))
				}
			}
		}
	}
	return nil
}

// unneeded ends a server, starts one that ends when it is idle, asks it for something and waits until it has gone.
func (b *bencher) unneeded(s apiServer, client string) error {
	for pid, comm := range b.resident() {
		if slices.Contains(s.processes, comm) {
			if err := b.m.Kill(pid, syscall.SIGTERM); err != nil {
				return err
			}
		}
	}
	if err := b.gone(s); err != nil {
		return err
	}
	if err := b.serve(s.verb("serve", "-H", "unix://"+s.socket, "--idle", "4s")...); err != nil {
		return err
	}
	if _, err := b.must(client, s.socket, "list", "1"); err != nil {
		return err
	}
	return b.gone(s)
}

// gone waits until a server's processes have ended.
func (b *bencher) gone(s apiServer) error {
	for end := time.Now().Add(time.Minute); b.serverMemory(s) > 0; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("the server of %s is there a minute after its last client", s.name)
		}
	}
	return nil
}
