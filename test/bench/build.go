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
	"time"
)

// Rows of building: glassbox, which has nothing running, beside dockerd with BuildKit, buildah, and stock buildkitd where the directory of
// its programs is given (test/buildkit.sh makes them).

// builder is one of those compared. Its commands get flags, and then the context.
type builder struct {
	engine
	fresh []string // flag for a build without cache
	pid   int      // of a daemon whose memory counts; 0: the process's own
}

const buildkitSocket = "unix:///run/bench/buildkitd.sock"

// building makes the contexts and measures each builder with them.
func (b *bencher) building(engines []engine, stock string, runs int, t *table) ([]engine, error) {
	builders, err := b.builders(engines, stock)
	if err != nil {
		return nil, err
	}
	var list []engine
	for _, e := range builders {
		list = append(list, e.engine)
	}
	steps := "FROM " + image + "\n"
	for i := range 9 {
		steps += fmt.Sprintf("RUN echo %d >/step-%d\n", i, i)
	}
	contexts := map[string]string{
		"one": "FROM " + image + "\nRUN true\n", "ten": steps + "COPY Dockerfile /\n",
		"fifty": "FROM " + image + "\n" + strings.Repeat("RUN true\n", 50),
	}
	for name, text := range contexts {
		dir := filepath.Join(b.work, "build-"+name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	by := map[string]builder{}
	for _, e := range builders {
		by[e.name] = e
	}
	with := func(name string, cached bool) func(engine) []string {
		return func(e engine) []string {
			argv := slices.Clone(e.command)
			if !cached {
				argv = append(argv, by[e.name].fresh...)
			}
			if strings.HasPrefix(e.name, "buildkitd") {
				dir := filepath.Join(b.work, "build-"+name)
				return append(argv, "--local", "context="+dir, "--local", "dockerfile="+dir)
			}
			return append(argv, filepath.Join(b.work, "build-"+name))
		}
	}
	for _, row := range []struct {
		what, context string
		cached        bool
	}{
		{"`build` of ten steps without cache, ms", "ten", false},
		{"`build` of the same, all from the cache, ms", "ten", true},
		{"`build` of 50 RUN true in one stage, ms", "fifty", false},
		{"`build` of one RUN true, from typing to the end, ms", "one", false},
	} {
		if err := b.turn(list, t, row.what, runs, with(row.context, row.cached), nil); err != nil {
			return nil, err
		}
	}
	for _, e := range builders {
		peak, err := b.buildPeak(e, with("ten", false)(e.engine))
		if err != nil {
			return nil, err
		}
		t.add("peak memory of the builder (a daemon's since it began), MB", e.name, peak)
	}
	return list, nil
}

// buildPeak is the most memory that a builder had at a time: a daemon's, or the process's own.
func (b *bencher) buildPeak(e builder, argv []string) (float64, error) {
	if e.pid == 0 {
		return b.peak(argv...)
	}
	if _, err := b.must(argv...); err != nil {
		return 0, err
	}
	text, err := os.ReadFile(b.m.Path(fmt.Sprintf("/proc/%d/status", e.pid)))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	return kib * 1024 / 1e6, err
}

// daemon is the process of that name in the machine.
func (b *bencher) daemon(name string) int {
	for pid, comm := range b.resident() {
		if comm == name {
			return pid
		}
	}
	return 0
}

// builders finds them and makes them ready, glassbox first.
func (b *bencher) builders(engines []engine, stock string) ([]builder, error) {
	var out []builder
	for _, e := range engines {
		switch e.name {
		case "glassbox":
			e.command = e.verb("build", "-q", "-t", "built")
			out = append(out, builder{engine: e, fresh: []string{"--no-cache"}})
		case "docker":
			// The command line 20.10 has BuildKit's client built in; later ones need buildx.
			if _, err := os.Stat("/usr/bin/docker"); err == nil {
				e.command[0] = "/usr/bin/docker"
			}
			e.command = append([]string{"env", "DOCKER_BUILDKIT=1"}, e.verb("build", "-q", "-t", "built")...)
			out = append(out, builder{engine: e, fresh: []string{"--no-cache"}, pid: b.daemon("dockerd")})
		}
	}
	if _, err := exec.LookPath("buildah"); err == nil {
		dir := filepath.Join(b.work, "buildah")
		e := engine{name: "buildah", command: []string{
			"buildah", "--root", dir, "--runroot", "/run/buildah", "--storage-driver", "overlay", "bud", "-q", "--layers", "--isolation", "chroot",
			"--tls-verify=false", "-t", "built",
		}}
		out = append(out, builder{engine: e, fresh: []string{"--no-cache"}})
	}
	if stock == "" {
		return out, nil
	}
	err := b.serve(filepath.Join(stock, "buildkitd"), "--addr", buildkitSocket, "--root", filepath.Join(b.work, "buildkit"),
		"--containerd-worker=false", "--oci-worker-snapshotter=overlayfs")
	if err != nil {
		return nil, err
	}
	client := []string{filepath.Join(stock, "buildctl"), "--addr", buildkitSocket}
	for range 300 {
		if _, err = b.must(append(client, "debug", "workers")...); err == nil {
			e := engine{name: "buildkitd", command: append(client, "build", "--progress", "plain", "--frontend", "dockerfile.v0",
				"--output", "type=image,name=built")}
			return append(out, builder{engine: e, fresh: []string{"--no-cache"}, pid: b.daemon("buildkitd")}), nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return nil, errors.Join(errors.New("buildkitd doesn't answer"), err)
}
