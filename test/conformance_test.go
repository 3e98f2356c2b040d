package test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"glassbox/test/machine"
)

// conformancePage says of each test of the suite what comes of it: a page for people, and this test's expectations.
const conformancePage = "../docs/conformance.md"

// TestConformance runs the validation suite of the Open Container Initiative against glassbox-runtime, or against the
// program that the variable RUNTIME names. Each of its tests has a machine of its own.
func TestConformance(t *testing.T) {
	prepare(t)
	suite, err := run.set.Conformance(".", os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	path := runtimePath()
	hierarchies, err := machine.Hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	column := filepath.Base(path)
	switch {
	case column == "crun":
		// It refuses a host with both kinds of hierarchies.
		hierarchies = slices.DeleteFunc(hierarchies, func(h machine.Hierarchy) bool { return h.Unified && len(hierarchies) > 1 })
	case column == "glassbox-runtime" && len(hierarchies) == 1 && hierarchies[0].Unified:
		column = "glassbox, v2"
	case column == "glassbox-runtime":
		column = "glassbox, v1"
	}
	want := expectations(t, column)
	programs, err := os.ReadDir(filepath.Join(suite, "bin"))
	if err != nil {
		t.Fatal(err)
	}
	var (
		mu    sync.Mutex
		table []string
	)
	t.Cleanup(func() {
		slices.Sort(table)
		t.Logf("%s, %s\n%s", path, column, strings.Join(table, "\n"))
	})
	line := func(name, verdict string) {
		mu.Lock()
		defer mu.Unlock()
		table = append(table, fmt.Sprintf("%-34s%s", name, verdict))
	}
	for _, program := range programs {
		name := program.Name()
		expected, listed := want[name]
		if !listed && want != nil {
			t.Errorf("%s has no row in %s", name, conformancePage)
		}
		delete(want, name)
		t.Run(name, func(t *testing.T) {
			extra := controllersOf(name, hierarchies)
			if len(extra) == 0 {
				t.Parallel()
			}
			hierarchies := slices.Clone(hierarchies)
			lack := ""
			if name[strings.LastIndex(name, "_")+1:] == "cpus" && runtime.NumCPU() == 1 {
				lack = "two processors: it writes 0-0 and expects to read that"
			}
			for _, controller := range extra {
				free(t, hierarchies, controller)
				h, release, err := machine.Attach(controller)
				if err != nil {
					lack = "the controller " + controller + " in a v1 hierarchy: " + err.Error()
					break
				}
				t.Cleanup(release)
				hierarchies = append(hierarchies, h)
			}
			if lack != "" {
				line(name, "skipped: needs "+lack)
				t.Skip("needs " + lack)
			}
			if name == "linux_process_apparmor_profile" && appArmor() == nil {
				expected = "ok" // the profile is there
			}
			err := conform(t, suite, name, path, hierarchies)
			// It sends its signals as soon as the container runs. A shell that hasn't set its trap by then takes no notice of them, being the
			// first process, and the test waits for its end in vain: on a busy machine that is the test's fault, not the runtime's.
			for again := 0; name == "killsig" && err != nil && again < 3; again++ {
				err = conform(t, suite, name, path, hierarchies)
			}
			switch {
			case expected == "ok" && err != nil:
				t.Error(err)
			case expected == "fails" && err == nil:
				t.Errorf("it passes, and %s says that it fails, and why: mend the page", conformancePage)
			}
			if err == nil {
				line(name, "ok")
				return
			}
			reason, output, _ := strings.Cut(err.Error(), "\n")
			if errors.Is(err, errExit) {
				// What the programs wrote last says more than the code.
				rest := strings.Split(strings.TrimSpace(output), "\n")
				reason = rest[max(0, len(rest)-2)]
			}
			line(name, "failed: "+reason)
		})
	}
	for name := range want {
		t.Errorf("%s has a row for %s, which the suite doesn't have", conformancePage, name)
	}
}

// controllersOf are the controllers of v1 that a test asks for and that the host has not mounted, as few have. They are there
// for that test alone: a hierarchy without a mount confuses others (CRIU, containerd).
func controllersOf(name string, hierarchies []machine.Hierarchy) []string {
	if !slices.ContainsFunc(hierarchies, func(h machine.Hierarchy) bool { return !h.Unified && h.Options == "memory" }) {
		return nil
	}
	wanted := map[string][]string{"hugetlb": {"hugetlb"}, "network": {"net_cls", "net_prio"}}[name[strings.LastIndex(name, "_")+1:]]
	return slices.DeleteFunc(wanted, func(controller string) bool {
		return slices.ContainsFunc(hierarchies, func(h machine.Hierarchy) bool {
			return !h.Unified && slices.Contains(strings.Split(h.Options, ","), controller)
		})
	})
}

// free takes a controller from the unified hierarchy of a host that has both kinds, until the test's end, if no process
// is in a group there.
func free(t *testing.T, list []machine.Hierarchy, controller string) {
	at := slices.IndexFunc(list, func(h machine.Hierarchy) bool { return h.Unified })
	if at < 0 {
		return
	}
	root := list[at].Path
	enabled, err := os.ReadFile(filepath.Join(root, "cgroup.subtree_control"))
	if err != nil || !slices.Contains(strings.Fields(string(enabled)), controller) {
		return
	}
	groups := machine.Groups(root)
	for _, group := range groups {
		if processes, err := os.ReadFile(filepath.Join(group, "cgroup.procs")); err != nil || len(processes) > 0 {
			return
		}
	}
	for _, group := range append(groups, root) {
		file := filepath.Join(group, "cgroup.subtree_control")
		if enabled, _ := os.ReadFile(file); !slices.Contains(strings.Fields(string(enabled)), controller) {
			continue
		}
		if err := os.WriteFile(file, []byte("-"+controller), 0o644); err != nil {
			t.Log(err)
			return
		}
		t.Cleanup(func() { os.WriteFile(file, []byte("+"+controller), 0o644) })
	}
}

// expectations reads a column of the page's table: "ok", "fails", or "either" where both can be right. Nil if the
// page has no such column.
func expectations(t *testing.T, column string) map[string]string {
	page, err := os.Open(conformancePage)
	if err != nil {
		t.Fatal(err)
	}
	defer page.Close()
	var (
		want map[string]string
		at   int
	)
	for lines := bufio.NewScanner(page); lines.Scan(); {
		cells := strings.Split(strings.Trim(lines.Text(), "| "), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case want == nil && cells[0] == "test":
			if at = slices.Index(cells, column); at < 0 {
				t.Logf("%s has no column %q: nothing is compared", conformancePage, column)
				return nil
			}
			want = map[string]string{}
		case want == nil || strings.HasPrefix(cells[0], "-"):
		case len(cells) <= at:
			return want
		case !slices.Contains([]string{"ok", "fails", "either"}, cells[at]):
			t.Errorf("%s, %s: %q is neither ok, fails nor either", conformancePage, cells[0], cells[at])
		case cells[at] != "ok" && cells[len(cells)-1] == "":
			t.Errorf("%s, %s: %s without a reason", conformancePage, cells[0], cells[at])
		default:
			want[cells[0]] = cells[at]
		}
	}
	return want
}

// conform runs one test of the suite in a machine with a /dev of its own: a faulty runtime may change what it finds there.
func conform(t *testing.T, suite, name, path string, hierarchies []machine.Hierarchy) error {
	dir := t.TempDir()
	// A user of the container must be able to reach its root.
	for _, reach := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(reach, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m, err := machine.StartWith("suite", filepath.Join(dir, "machine"), hierarchies)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}()
	tmp := filepath.Join(dir, "tmp")
	if err := os.Mkdir(tmp, 0o755); err != nil {
		t.Fatal(err)
	}
	const script = `
set -e
mkdir "$TMPDIR/dev"
mount -t tmpfs -o mode=755,nosuid dev "$TMPDIR/dev"
cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty /dev/fd /dev/stdin /dev/stdout /dev/stderr "$TMPDIR/dev"
for dir in pts shm mqueue; do
	mkdir "$TMPDIR/dev/$dir"
	[ ! -d "/dev/$dir" ] || mount --rbind "/dev/$dir" "$TMPDIR/dev/$dir"
done
ln -s pts/ptmx "$TMPDIR/dev/ptmx"
mount --rbind "$TMPDIR/dev" /dev
cd "$1"
exec "$2"`
	env := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8",
		"TMPDIR=" + tmp, "RUNTIME=" + path,
	}
	argv := []string{"/bin/sh", "-c", script, "sh", suite, filepath.Join(suite, "bin", name)}
	res, err := m.Run(scaled(60*time.Second), argv, env, "/")
	if err != nil {
		t.Fatal(err)
	}
	return judgeTAP(res)
}

var errExit = errors.New("exit code")

// judgeTAP reads what a test of the suite has printed. Some of its tests have no line for success and none for failure
// either: what they find is a diagnostic that belongs to no line. After a line, an error may be what was asked for.
func judgeTAP(res machine.Result) error {
	var errs []error
	first := true
	for _, line := range strings.Split(res.Stdout, "\n") {
		switch {
		case strings.HasPrefix(line, "not ok"):
			errs = append(errs, errors.New(line))
			first = false
		case strings.HasPrefix(line, "ok"):
			first = false
		case first && strings.HasPrefix(strings.TrimSpace(line), `"error":`):
			errs = append(errs, errors.New(strings.TrimSpace(line)))
		}
	}
	switch {
	case res.TimedOut:
		errs = append(errs, errors.New("no end within the time limit"))
	case res.Code != 0:
		errs = append(errs, fmt.Errorf("%w %d", errExit, res.Code))
	}
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("%w\n%s%s", errors.Join(errs...), res.Stdout, res.Stderr)
}
