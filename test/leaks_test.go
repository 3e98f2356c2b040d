package test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"glassbox/test/machine"
)

// What a script leaves behind: mark looks at the machine, and leaks finds it the same.

// snapshot is what a command could leave behind.
type snapshot map[string][]string

// mark starts a container once, so that what stays for all containers is there, and remembers how the machine looks.
func cmdMark(ts *testscript.TestScript, neg bool, args []string) {
	s := of(ts)
	glassbox := filepath.Join(run.bin, "glassbox")
	res, err := s.host.Run(scaled(30*time.Second), []string{glassbox, "run", "--rm", s.image, "true"}, environ(ts), "/")
	ts.Check(err)
	if res.Code != 0 {
		ts.Fatalf("mark: run --rm %s true: exit code %d\n%s%s", s.image, res.Code, res.Stdout, res.Stderr)
	}
	before, err := s.settled()
	ts.Check(err)
	s.before = &before
}

// settled looks until nothing changes any more: the kernel takes a network namespace apart after its last process has
// ended, and its links a moment later.
func (s *state) settled() (snapshot, error) {
	last, err := s.look()
	for range 20 {
		time.Sleep(scaled(50 * time.Millisecond))
		now, err2 := s.look()
		if err = errors.Join(err, err2); err != nil || last.compare(now) == "" {
			return now, err
		}
		last = now
	}
	return last, nil
}

// leaks removes every container and then finds the machine as it was at mark.
func cmdLeaks(ts *testscript.TestScript, neg bool, args []string) {
	s := of(ts)
	if s.before == nil {
		ts.Fatalf("leaks without mark")
	}
	glassbox := filepath.Join(run.bin, "glassbox")
	script := `ids=$("$0" ps -aq) || exit; [ -z "$ids" ] || "$0" rm -f $ids`
	res, err := s.host.Run(scaled(60*time.Second), []string{"/bin/sh", "-c", script, glassbox}, environ(ts), "/")
	ts.Check(err)
	if res.Code != 0 {
		ts.Fatalf("remove all containers: exit code %d\n%s%s", res.Code, res.Stdout, res.Stderr)
	}
	left, err := s.leaked()
	ts.Check(err)
	if left != "" {
		ts.Fatalf("not as before:\n%s", left)
	}
}

// leaked compares the machine with how it looked before, for a few seconds: a supervisor may be on its way out.
func (s *state) leaked() (string, error) {
	var text string
	for end := time.Now().Add(scaled(3 * time.Second)); ; time.Sleep(50 * time.Millisecond) {
		now, err := s.look()
		if err != nil {
			return "", err
		}
		text = s.before.compare(now)
		if text == "" || time.Now().After(end) {
			return text, nil
		}
	}
}

func (before snapshot) compare(now snapshot) string {
	var out strings.Builder
	for kind, list := range now {
		count := map[string]int{}
		for _, item := range before[kind] {
			count[item]++
		}
		for _, item := range list {
			if count[item]--; count[item] < 0 {
				fmt.Fprintf(&out, "left: %s %s\n", kind, item)
			}
		}
		for item, n := range count {
			// What the warm-up left may go at any time, as far as it is the kernel's to take apart.
			if n > 0 && (kind == "mount" || kind == "cgroup") {
				fmt.Fprintf(&out, "gone: %s %s\n", kind, item)
			}
		}
	}
	return out.String()
}

// look reads everything of the machine that could be left behind.
func (s *state) look() (snapshot, error) {
	now := snapshot{}
	var errs []error
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", s.host.Pid()))
	errs = append(errs, err)
	for _, line := range strings.Split(strings.TrimSpace(string(mounts)), "\n") {
		fields := strings.Fields(line)
		if len(fields) > 5 {
			now["mount"] = append(now["mount"], fields[4])
		}
	}
	for _, root := range s.host.Cgroups() {
		for _, group := range machine.Groups(root) {
			now["cgroup"] = append(now["cgroup"], strings.TrimPrefix(group, filepath.Dir(root)))
		}
	}
	for kind, script := range map[string]string{
		"link": `ip -o link | awk '{print $2}'; ls /run/netns`,
		"rule": `nft -s list ruleset`,
	} {
		res, err := s.host.Run(scaled(10*time.Second), []string{"/bin/sh", "-c", script},
			[]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, "/")
		errs = append(errs, err)
		if res.Code != 0 {
			errs = append(errs, errors.New(res.Stderr))
		}
		now[kind] = strings.Split(strings.TrimSpace(res.Stdout), "\n")
	}
	ours := map[int]bool{}
	for _, j := range s.jobs {
		ours[j.Pid] = true
	}
	for pid, line := range s.host.Processes() {
		if !ours[pid] {
			now["process"] = append(now["process"], line)
		}
	}
	for _, dir := range []string{s.host.Path(store), s.host.Path("/run/glassbox")} {
		now["file"] = append(now["file"], tree(dir, 3)...)
	}
	return now, errors.Join(errs...)
}

// tree lists what is below dir, some levels deep. Locks may stay: they hold nothing.
func tree(dir string, depth int) []string {
	var list []string
	entries, _ := os.ReadDir(dir)
	for _, entry := range entries {
		if strings.HasSuffix(entry.Name(), "lock") || entry.Name() == "locks" && filepath.Base(dir) == "image" {
			continue
		}
		list = append(list, entry.Name())
		if entry.IsDir() && depth > 1 {
			for _, below := range tree(filepath.Join(dir, entry.Name()), depth-1) {
				list = append(list, filepath.Join(entry.Name(), below))
			}
		}
	}
	return list
}
