package test

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"glassbox/test/machine"
)

// atOnce types lines at the same time, each in a process of its own; %d is its number.
func (s *siege) atOnce(n int, line string) []machine.Result {
	out := make([]machine.Result, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			text := line
			if strings.Contains(line, "%d") {
				text = fmt.Sprintf(line, i)
			}
			out[i] = s.sh(text)
		})
	}
	all.Wait()
	return out
}

// won counts those that succeeded, and tells of errors that don't have the words that they must have.
func (s *siege) won(results []machine.Result, words ...string) (n int) {
	s.Helper()
	for _, r := range results {
		if r.Code == 0 {
			n++
			continue
		}
		ok := false
		for _, w := range words {
			ok = ok || strings.Contains(r.Stderr, w)
		}
		if !ok {
			s.Errorf("exit code %d, want a sentence with one of %q: %s", r.Code, words, r.Stderr)
		}
	}
	return n
}

// TestRaces: what 16 processes want at once one gets, and the others a clear sentence; nothing is left half made.
func TestRaces(t *testing.T) {
	s := besiege(t)
	s.furnish()
	s.ok(s.sh("glassbox run --rm busybox sh -c true"))
	const many = 16

	if n := s.won(s.atOnce(many, "glassbox create --name one busybox sh"), "is already in use by container"); n != 1 {
		t.Errorf("%d containers have one name", n)
	}
	if n := s.won(s.atOnce(many, "glassbox run -d --name port%d -p 8080:80 busybox sh -c 'sleep 1000'"), "8080"); n != 1 {
		t.Errorf("%d containers have one port", n)
	}
	if n := s.won(s.atOnce(many, "glassbox volume create data")); n != many {
		t.Errorf("a volume that is made at once was there for %d of %d", n, many)
	}
	if n := s.won(s.atOnce(many, "glassbox run --rm -v data:/d -v new:/n busybox sh -c 'echo %d >/n/%[1]d'")); n != many {
		t.Errorf("%d of %d containers ran with one new volume", n, many)
	}
	// Volumes of 16 names that are one directory of the host begin with what the image has, once, and each container finds it whole.
	s.ok(s.sh("mkdir -p /run/one /run/seed && cd /run/seed && touch $(busybox seq 100) && glassbox create --name seed busybox sh && " +
		"glassbox cp /run/seed seed:/ && glassbox commit seed seeded && glassbox rm seed"))
	if n := s.won(s.atOnce(many, "glassbox volume create --opt type=none --opt o=bind --opt device=/run/one one%d && "+
		"glassbox run --rm -v one%[1]d:/seed seeded sh -c 'set -- /seed/*; test $# = 100 && test ! -e /seed/.glassbox-fill*'")); n != many {
		t.Errorf("%d of %d containers found one directory whole", n, many)
	}
	s.ok(s.sh("test $(ls -A /run/one | wc -l) = 100 && glassbox rmi seeded && " +
		"glassbox volume rm $(glassbox volume ls -q --filter name=one)"))
	if n := s.won(s.atOnce(many, "glassbox network create net"), "already exists"); n != 1 {
		t.Errorf("%d networks have one name", n)
	}
	if n := s.won(s.atOnce(many, "glassbox start one")); n != many {
		t.Errorf("of %d that start one container %d were told that it runs", many, n)
	}
	if n := s.won(s.atOnce(many, "glassbox rm -f one"), "no such container", "is already in progress", "is being"); n < 1 {
		t.Errorf("%d removed it", n)
	}
	if n := s.won(s.atOnce(many, "glassbox tag busybox two && glassbox rmi two"), "no such image", "not found"); n < 1 {
		t.Errorf("%d tagged and removed", n)
	}

	// Removal against use: whoever comes first is right, and who comes late is told.
	for i := range 8 {
		s.ok(s.sh("glassbox tag busybox race; glassbox volume create race; glassbox network create race"))
		results := make([]machine.Result, 4)
		var all sync.WaitGroup
		for k, line := range []string{
			fmt.Sprintf("glassbox run -d --pull never --name race%d -v race:/d --network race race sh -c 'sleep 1000'", i), "glassbox rmi race",
			"glassbox volume rm race", "glassbox network rm race",
		} {
			all.Go(func() { results[k] = s.sh(line) })
		}
		all.Wait()
		s.won(results[:1], "no such image", "no such volume", "volume race isn't there", "network race", "race")
		s.won(results[1:2], "in use", "no such image")
		s.won(results[2:3], "in use", "no such volume")
		s.won(results[3:], "active endpoints", "no such network", "not found")
		if results[0].Code == 0 {
			if r := s.sh(fmt.Sprintf("glassbox exec race%d sh -c 'echo x >/d/x' && ls $GLASSBOX_ROOT/volumes/race/_data/x", i)); r.Code != 0 {
				t.Errorf("round %d: a container runs without its volume: %s%s", i, r.Stdout, r.Stderr)
			}
		}
		s.sh(fmt.Sprintf("glassbox rm -f race%d; glassbox volume rm -f race; glassbox network rm race; glassbox rmi race", i))
	}
	s.ok(s.sh("glassbox rm -fv $(glassbox ps -aq); glassbox volume prune -af; glassbox network prune -f"))
	for _, dir := range []string{"containers", "volumes", "names"} {
		if r := s.sh("ls -A $GLASSBOX_ROOT/" + dir); strings.TrimSpace(r.Stdout) != "" {
			t.Errorf("left in %s: %s", dir, r.Stdout)
		}
	}
	s.ok(s.sh("glassbox fsck && glassbox run --rm busybox sh -c true"))
}

// TestFullDisk: verbs on a store of 24 MB. Each says that the disk is full, leaves nothing of what it began, and the next one works.
func TestFullDisk(t *testing.T) {
	s := besiege(t)
	s.ok(s.sh("mkdir -p /run/small /run/out && mount -t tmpfs -o size=24m small /run/small && mount -t tmpfs -o size=1m out /run/out"))
	s.env = append(s.env, "GLASSBOX_ROOT=/run/small/store")
	s.ok(s.sh("glassbox image from-host busybox /bin/busybox:/bin/busybox /bin/busybox:/bin/sh && " +
		"glassbox run -d --name ccc busybox sh -c 'busybox sleep 1000'"))
	s.ok(s.sh("head -c 40000000 /dev/urandom >/run/big && mkdir /run/many && cp /run/big /run/many/1"))
	used := func() string { return strings.TrimSpace(s.sh("df --output=used /run/small | tail -1").Stdout) }
	must(t, startRegistry(s.host, filepath.Join(s.dir, "registry"), "http", s.env))
	const full = "no space left on device"
	for _, line := range []string{
		"glassbox pull -q 127.0.0.1:5000/debian",
		"glassbox cp /run/big ccc:/big",
		"glassbox cp /run/many ccc:/many",
		"glassbox cp ccc:/bin/busybox /run/out/busybox",
		"glassbox save -o /run/out/image.tar busybox",
		"glassbox export -o /run/out/files.tar ccc",
		"tar -C /run/many -cf - . | glassbox import - big",
		"cat /run/big | glassbox cp - ccc:/ 2>&1 | grep -q . && false", // no archive
	} {
		before := used()
		r := s.sh(line)
		if r.Code == 0 {
			t.Errorf("%s: succeeded on a full disk", line)
		}
		told := strings.Contains(strings.ToLower(r.Stderr+r.Stdout), full) || strings.Contains(r.Stderr, "disk full")
		if !strings.HasSuffix(line, "false") && !told {
			t.Errorf("%s: got %q, want a word of the full disk", line, r.Stderr)
		}
		s.sh("glassbox exec ccc sh -c 'busybox rm -rf /big /many'")
		s.ok(s.sh("glassbox image prune -f"))
		if after := used(); after > before && len(after) >= len(before) {
			t.Logf("%s: %s KiB were used, and are %s now", line, before, after)
		}
		if r := s.sh("ls -A /run/out"); strings.TrimSpace(r.Stdout) != "" && !strings.Contains(line, " cp ") {
			t.Errorf("%s: left %s", line, r.Stdout)
		}
		s.sh("rm -rf /run/out/*")
	}
	// A commit of what just fits, whose layer doesn't.
	s.ok(s.sh("head -c 12000000 /dev/urandom >/run/mid && glassbox cp /run/mid ccc:/mid"))
	if r := s.sh("glassbox commit ccc mid"); r.Code == 0 || !strings.Contains(r.Stderr, full) && !strings.Contains(r.Stderr, "disk full") {
		t.Errorf("commit: %d %s", r.Code, r.Stderr)
	}
	s.ok(s.sh("glassbox image prune -f"))
	// A container that writes to its log when there is no room goes on, and is heard again when there is.
	s.ok(s.sh("glassbox rm -f ccc && glassbox run -d --name ccc busybox sh -c 'busybox sleep 1000' && " +
		"glassbox run -d --name writes busybox sh -c 'until [ -e /dev/shm/go ]; do busybox usleep 10000; done; " +
		"busybox seq 200000; echo >/dev/shm/done; busybox sleep 1000'"))
	s.ok(s.sh("glassbox exec writes sh -c 'echo >/dev/shm/ready'")) // exec's own helper is there by now
	s.sh("head -c 30000000 /dev/zero >/run/small/rest")
	s.sh("glassbox exec writes sh -c 'echo >/dev/shm/go'")
	s.until("a container writes on when its log has no room", func() bool {
		return s.sh("glassbox exec writes busybox test -e /dev/shm/done").Code == 0
	})
	s.ok(s.sh("glassbox logs writes >/dev/null; rm /run/small/rest; glassbox exec writes sh -c 'echo heard again >/proc/1/fd/1'"))
	s.until("its output is in the log again", func() bool {
		return strings.Contains(s.sh("glassbox logs writes").Stdout, "heard again\n")
	})
	s.ok(s.sh("glassbox rm -f writes"))
	// With the last byte gone everything that reads still works, and the container goes on writing its log to nowhere.
	s.sh("head -c 30000000 /dev/zero >/run/small/rest")
	s.ok(s.sh("glassbox ps -a | grep -q ccc && glassbox exec ccc sh -c true && glassbox inspect ccc >/dev/null"))
	s.sh("glassbox run -d --name loud busybox sh -c 'busybox seq 200000; busybox sleep 1000'")
	s.ok(s.sh("glassbox rm -f ccc; glassbox ps -aq | xargs -r glassbox rm -f; rm /run/small/rest; glassbox fsck && " +
		"glassbox run --rm busybox sh -c true"))
	if r := s.sh("ls -A $GLASSBOX_ROOT/containers"); strings.TrimSpace(r.Stdout) != "" {
		t.Errorf("left: %s", r.Stdout)
	}
}
