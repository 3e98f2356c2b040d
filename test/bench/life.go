package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"glassbox/test/fixture"
)

// Rows of what people do all day: files in and out of containers, images made of containers and carried about, health checks.

const (
	copied = 1 << 30 // bytes of the one large file
	many   = 20_000  // small files
)

// material makes what is copied: once, outside of the machine.
func (b *bencher) material() (large, small string, err error) {
	large, small = filepath.Join(b.work, "large"), filepath.Join(b.work, "many")
	f, err := os.Create(large)
	if err != nil {
		return "", "", err
	}
	defer f.Close()
	block := make([]byte, 1<<20)
	for i := range block {
		block[i] = byte(i*7 + i>>8*13)
	}
	for i := range copied / len(block) {
		copy(block, fmt.Sprint(i)) // no two blocks alike
		if _, err := f.Write(block); err != nil {
			return "", "", err
		}
	}
	for i := range many {
		dir := filepath.Join(small, fmt.Sprint(i/200))
		if i%200 == 0 {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return "", "", err
			}
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), block[:100+i%2000], 0o644); err != nil {
			return "", "", err
		}
	}
	return large, small, nil
}

// copies measures cp in both directions, with a container that runs.
func (b *bencher) copies(engines []engine, runs int, t *table) error {
	large, small, err := b.material()
	if err != nil {
		return err
	}
	var list []engine
	for _, e := range engines {
		if !strings.Contains(idleEngines, e.name) {
			continue
		}
		list = append(list, e)
		if _, err := b.must(e.verb("run", "-d", "--name", "copies", image, "sleep", "86400")...); err != nil {
			return err
		}
	}
	for _, c := range []struct{ what, from string }{{"a file of 1 GB", large}, {fmt.Sprintf("%d small files", many), small}} {
		there := "copies:/" + filepath.Base(c.from)
		out := filepath.Join(b.work, "out")
		if err := os.Mkdir(out, 0o755); err != nil {
			return err
		}
		into := func(e engine) []string { return e.verb("cp", c.from, "copies:/") }
		outOf := func(e engine) []string { return e.verb("cp", there, filepath.Join(out, "to")) }
		// The copy before is put aside and not removed: for minutes ext4 looks at each inode that was freed before it gives another one
		// away (EXT4_RECENCY_MIN), and whoever comes next would pay for that. What was written is brought to the disk first, for the
		// same reason.
		turn := 0
		err := b.turn(list, t, "`cp` of "+c.what+" into a container, ms", min(runs, 2), into, func(e engine) []string {
			turn++
			script := fmt.Sprintf("if [ -e %[1]s ]; then mv %[1]s /aside.%[2]d; fi; sync", "/"+filepath.Base(c.from), turn)
			return e.verb("exec", "copies", "sh", "-c", script)
		})
		if err == nil {
			err = b.turn(list, t, "`cp` of "+c.what+" out of a container, ms", min(runs, 2), outOf, func(engine) []string {
				turn++
				return []string{"sh", "-c", fmt.Sprintf("cd %s && if [ -e to ]; then mv to aside.%d; fi; sync", out, turn)}
			})
		}
		if err != nil {
			return err
		}
		os.RemoveAll(out)
		os.RemoveAll(c.from)
	}
	for _, e := range list {
		if _, err := b.must(e.verb("rm", "-f", "copies")...); err != nil {
			return err
		}
	}
	return nil
}

// images measures commit, save, load and push of an image that is another one each time, so that nothing of its last layer is anywhere.
func (b *bencher) images(engines []engine, runs int, t *table) error {
	dir := filepath.Join(b.work, "pushed")
	config := fixture.RegistryConfig{Storage: filepath.Join(dir, "storage"), Addr: "127.0.0.1:5002", Dir: dir, Writable: true}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	file := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(file, []byte(config.File()), 0o644); err != nil {
		return err
	}
	if err := b.serve("docker-registry", "serve", file); err != nil {
		return err
	}
	for i := range runs + 1 {
		for _, e := range engines {
			name, tar := fmt.Sprintf("127.0.0.1:5002/made%d", i), filepath.Join(b.work, "saved.tar")
			// 30 MB that nothing makes smaller, and what the image's programs are once more.
			script := "mkdir /new && cp -a /usr/lib /new/ && head -c 30000000 /dev/urandom >/new/random"
			push := e.verb(append(append([]string{"push"}, e.pull...), name)...)
			if _, err := b.must(e.verb("run", "--name", "commits", debian, "sh", "-c", script)...); err != nil {
				return err
			}
			for _, step := range []struct {
				row  string
				argv []string
			}{
				{"`commit` of a container with 100 MB of changes, ms", e.verb("commit", "commits", name)},
				{"`push` of it to a registry on loopback, ms", push},
				{"`save` of it, ms", e.verb("save", "-o", tar, name)},
				{"", e.verb("rm", "-f", "commits")},
				{"", e.verb("rmi", name)},
				{"`load` of it, ms", e.verb("load", "-i", tar)},
				{"", e.verb("rmi", name)},
			} {
				res, err := b.must(step.argv...)
				if err != nil {
					return err
				}
				if step.row != "" && i > 0 {
					t.add(step.row, e.name, milliseconds(res))
				}
			}
			os.Remove(tar)
		}
	}
	return nil
}

// checked measures the memory of a supervisor that makes a health check every second.
func (b *bencher) checked(e engine, t *table) error {
	before := b.resident()
	_, err := b.must(e.verb("run", "-d", "--name", "checked", "--health-cmd", "true", "--health-interval", "1s", image, "sleep", "86400")...)
	if err != nil {
		return err
	}
	time.Sleep(10 * time.Second)
	for range 20 {
		time.Sleep(150 * time.Millisecond)
		// A check is a process of its own for a moment, and the supervisor the one that was there first.
		first := 0
		for pid, comm := range b.resident() {
			if _, was := before[pid]; !was && strings.HasPrefix(e.resides, comm) && (first == 0 || pid < first) {
				first = pid
			}
		}
		if pss := b.pss(first); pss > 0 {
			t.add("resident supervisor with a health check every second, PSS, MB", e.name, float64(pss)/1000)
		}
	}
	_, err = b.must(e.verb("rm", "-f", "checked")...)
	return err
}

// life is all of this page.
func (b *bencher) life(engines []engine, runs int, t *table) error {
	if err := b.checked(engines[0], t); err != nil {
		return err
	}
	if err := b.copies(engines, runs, t); err != nil {
		return err
	}
	var pair []engine // Docker's daemon compresses nothing on save, and pushes through containerd's or its own store: Podman is the peer
	for _, e := range engines {
		if e.name != "docker" {
			pair = append(pair, e)
		}
	}
	return b.images(pair, runs, t)
}
