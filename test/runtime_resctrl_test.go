package test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"glassbox/test/machine"
)

// classes is a machine with an imitation of the kernel's file system of resource classes (prog/resctrl.go), whose processor needs
// none. To the runtime it is the real one: the mountinfo that it finds says so.
type classes struct {
	*bundles
	dir string
}

func startClasses(t *testing.T) *classes {
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("needs /dev/fuse, to imitate resctrl")
	}
	c := &classes{startBundles(t, "resctrl"), "/run/resctrl"}
	c.must("/bin/mkdir", c.dir)
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	must(t, err)
	defer null.Close()
	_, err = c.state.host.Start(machine.Spec{
		Argv: []string{run.set.Prog(), "resctrl", c.dir}, Dir: "/", Stdin: null, Stdout: null,
		Stderr: null,
	})
	must(t, err)
	c.until("the imitation", func() bool { return c.runtime("/bin/cat", c.dir+"/tasks").Code == 0 })
	return c
}

// rt calls glassbox-runtime where resctrl seems to be mounted, as the child of some other program, such as strace.
func (c *classes) rt(before string, args ...string) machine.Result {
	c.t.Helper()
	argv := append(strings.Fields(before), run.set.Prog(), "withresctrl", filepath.Join(run.bin, "glassbox-runtime"), "--root", "/run/oci")
	return c.runtime(toFiles(append(argv, args...))...)
}

func (c *classes) ok(args ...string) string {
	c.t.Helper()
	res := c.rt("", args...)
	if res.Code != 0 {
		c.t.Fatalf("%s: exit code %d\n%s%s", strings.Join(args, " "), res.Code, res.Stdout, res.Stderr)
	}
	return res.Stdout
}

// fails wants an error with these words.
func (c *classes) fails(words []string, args ...string) {
	c.t.Helper()
	res := c.rt("", args...)
	for _, w := range words {
		if res.Code == 0 || !strings.Contains(res.Stderr, w) {
			c.t.Errorf("%s: exit code %d, want an error with %q, got: %s", strings.Join(args, " "), res.Code, w, res.Stderr)
		}
	}
}

// read reads a file of the imitation.
func (c *classes) read(name string) string {
	c.t.Helper()
	text, err := os.ReadFile(c.state.host.Path(filepath.Join(c.dir, name)))
	must(c.t, err)
	return strings.Join(strings.Fields(string(text)), " ")
}

// has wants that these are all the classes.
func (c *classes) has(when string, want ...string) {
	c.t.Helper()
	top := c.state.host.Path(c.dir)
	got := []string{}
	for _, pattern := range []string{"*", "mon_groups/*", "*/mon_groups/*"} {
		dirs, err := filepath.Glob(filepath.Join(top, pattern, "tasks"))
		must(c.t, err)
		for _, file := range dirs {
			dir, err := filepath.Rel(top, filepath.Dir(file))
			must(c.t, err)
			got = append(got, dir)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, append([]string{}, want...)) {
		c.t.Errorf("%s: there are %q, want %q", when, got, want)
	}
}

// TestRuntimeResctrl puts containers into resource classes, by the rules of the specification (config-linux.md, IntelRdt).
func TestRuntimeResctrl(t *testing.T) {
	c := startClasses(t)
	root := c.rootfs("root")
	bundle := func(name string, r *specs.LinuxIntelRdt, args ...string) string {
		return c.bundle(name, root, func(s *specs.Spec) {
			s.Linux.IntelRdt = r
			if s.Process.Args = args; len(args) == 0 {
				s.Process.Args = []string{"sh", "-c", "sleep 1000 & sleep 1000"}
			}
		})
	}
	pids := func(id string) (out []string) {
		var n []json.Number
		if err := json.Unmarshal([]byte(c.ok("ps", "-f", "json", id)), &n); err != nil {
			t.Fatal(err)
		}
		for _, p := range n {
			out = append(out, p.String())
		}
		slices.Sort(out)
		return out
	}
	inside := func(when, id, tasks string, n int) {
		t.Helper()
		got := strings.Fields(c.read(tasks))
		slices.Sort(got)
		if want := pids(id); !slices.Equal(got, want) || len(got) != n {
			t.Errorf("%s: %s has %v, and the container %v, want %d", when, tasks, got, want, n)
		}
	}

	// A class of the container's own, and a monitoring group.
	dir := bundle("own", &specs.LinuxIntelRdt{
		L3CacheSchema: "L3:0=ff", MemBwSchema: "MB:1=20", Schemata: []string{"MB:0=35"},
		EnableMonitoring: true,
	})
	c.ok("create", "--bundle", dir, "own")
	c.has("created", "own", "own/mon_groups/own")
	if got, want := c.read("own/schemata"), "MB:0= 40;1= 20 L3:0=00ff;1=ffff"; got != strings.Join(strings.Fields(want), " ") {
		t.Errorf("schemata: got %q, want %q", got, want)
	}
	inside("created", "own", "own/tasks", 1)
	inside("created", "own", "own/mon_groups/own/tasks", 1)
	c.ok("start", "own")
	c.until("the second process", func() bool { return len(pids("own")) == 2 })
	c.ok("exec", "--detach", "own", "sleep", "1000")
	inside("after exec", "own", "own/tasks", 3)
	inside("after exec", "own", "own/mon_groups/own/tasks", 3)
	if got := c.must("/bin/cat", "/run/oci/own/state.json"); !strings.Contains(got, `"intel_rdt_path":"/run/resctrl/own"`) {
		t.Errorf("state.json: %s", got)
	}
	events := c.ok("events", "--stats", "own")
	if _, got, _ := strings.Cut(events, `"intel_rdt":`); !strings.HasPrefix(got,
		`{"l3_cache_info":{"cbm_mask":"ffff","min_cbm_bits":1,"num_closids":4},"l3_cache_schema_root":"L3:0=ffff;1=ffff",`+
			`"l3_cache_schema":"L3:0=00ff;1=ffff",`+
			`"mem_bw_info":{"bandwidth_gran":10,"delay_linear":1,"min_bandwidth":10,"num_closids":4},"mem_bw_schema_root":"MB:0=100;1=100",`+
			`"mem_bw_schema":"MB:0= 40;1= 20",`+
			`"mbm_stats":[{"mbm_total_bytes":2000,"mbm_local_bytes":1000}],"cmt_stats":[{"llc_occupancy":65536},{"llc_occupancy":65536}]}`) {
		t.Errorf("events: %s", events)
	}
	c.ok("update", "--l3-cache-schema", "L3:0=f", "--mem-bw-schema", "MB:0=10", "own")
	if got := c.read("own/schemata"); got != "MB:0= 10;1= 20 L3:0=000f;1=ffff" {
		t.Errorf("after update: %q", got)
	}
	c.fails([]string{`non-consecutive 1-bits`, "/linux/intelRdt"}, "update", "--mem-bw-schema", "MB:0=50", "--l3-cache-schema",
		"L3:0=f0f", "own")
	if got := c.read("own/schemata"); got != "MB:0= 10;1= 20 L3:0=000f;1=ffff" {
		t.Errorf("after an update that was refused: %q", got)
	}
	c.ok("delete", "--force", "own")
	c.has("deleted")

	// A container without a class gets one by update, with all its threads.
	c.ok("run", "--detach", "--bundle", bundle("late", nil), "late")
	c.has("without")
	c.until("the second process", func() bool { return len(pids("late")) == 2 })
	c.fails([]string{"/linux/intelRdt", "out of range"}, "update", "--mem-bw-schema", "MB:0=5", "late")
	c.has("after an update that was refused")
	c.ok("update", "--mem-bw-schema", "MB:0=50", "late")
	inside("after update", "late", "late/tasks", 2)
	c.ok("exec", "--detach", "late", "sleep", "1000")
	inside("after exec", "late", "late/tasks", 3)
	c.ok("delete", "--force", "late")
	c.has("deleted")

	// A name of its own. Who comes first makes it, others find in it what they want or don't start, and it stays.
	gold := &specs.LinuxIntelRdt{ClosID: "gold", L3CacheSchema: "L3:0=ff", MemBwSchema: "MB:0=25"}
	c.fails([]string{"/linux/intelRdt/closID", `no resource class`}, "create", "--bundle",
		bundle("none", &specs.LinuxIntelRdt{ClosID: "gold"}), "g0")
	c.fails([]string{"no such file"}, "create", "--bundle", bundle("broken", gold, "/no/such/program"), "g1")
	c.has("after a create that failed")
	c.ok("create", "--bundle", bundle("gold", gold), "g1")
	c.ok("create", "--bundle", bundle("gold2", gold), "g2")
	c.ok("create", "--bundle", bundle("gold3", &specs.LinuxIntelRdt{ClosID: "gold"}), "g3")
	c.fails([]string{"/linux/intelRdt/memBwSchema", "gold exists"}, "create", "--bundle",
		bundle("other", &specs.LinuxIntelRdt{ClosID: "gold", MemBwSchema: "MB:0=50"}), "g4")
	c.fails([]string{"no such file"}, "create", "--bundle", bundle("broken2", gold, "/no/such/program"), "g4")
	if got := strings.Fields(c.read("gold/tasks")); len(got) != 3 {
		t.Errorf("the class has %v, want three containers", got)
	}
	for _, id := range []string{"g1", "g2", "g3"} {
		c.ok("delete", "--force", id)
	}
	c.has("deleted", "gold")
	c.must("/bin/rmdir", c.dir+"/gold")

	// The default class, with a monitoring group, which goes.
	c.ok("create", "--bundle", bundle("default", &specs.LinuxIntelRdt{ClosID: "/", EnableMonitoring: true}), "d")
	c.has("created", "mon_groups/d")
	inside("created", "d", "mon_groups/d/tasks", 1)
	c.ok("delete", "--force", "d")
	c.has("deleted")

	c.refusals(dir, bundle)
}

// refusals are of the kernel or of the host. What is left then is nothing.
func (c *classes) refusals(dir string, bundle func(name string, r *specs.LinuxIntelRdt, args ...string) string) {
	c.t.Helper()
	c.must("/bin/mkdir", c.dir+"/a", c.dir+"/b", c.dir+"/c")
	c.fails([]string{"/linux/intelRdt", "Out of CLOSIDs", "num_closids"}, "create", "--bundle", dir, "full")
	c.must("/bin/rmdir", c.dir+"/a", c.dir+"/b", c.dir+"/c")
	c.fails([]string{"/linux/intelRdt/l3CacheSchema", "non-consecutive 1-bits"}, "create", "--bundle",
		bundle("mask", &specs.LinuxIntelRdt{L3CacheSchema: "L3:0=f0f"}), "mask")
	c.fails([]string{"/linux/intelRdt/schemata/0", "can't share out L2, only L3, MB"}, "create", "--bundle",
		bundle("l2", &specs.LinuxIntelRdt{Schemata: []string{"L2:0=f"}}), "l2")
	if res := c.runtime("create", "--bundle", dir, "absent"); res.Code == 0 ||
		!strings.Contains(res.Stderr, "/linux/intelRdt: there is no resctrl file system") {
		c.t.Errorf("without resctrl: %+v", res)
	}
	c.has("after refusals")
}

// TestRuntimeResctrlKilled kills the runtime at calls that come before, between and after those that make a class: what the next
// command of the same ID finds, it cleans.
func TestRuntimeResctrlKilled(t *testing.T) {
	c := startClasses(t)
	dir := c.bundle("killed", c.rootfs("root"), func(s *specs.Spec) {
		s.Linux.IntelRdt = &specs.LinuxIntelRdt{ClosID: "gold", MemBwSchema: "MB:0=20", EnableMonitoring: true}
	})
	for _, kill := range []struct {
		at   string // a call of strace's --inject
		left bool   // is there a class then?
	}{
		{"mkdirat --inject=mkdirat:signal=KILL:when=2", true}, // at the monitoring group, once it is made
		{"clone3 --inject=clone3:signal=KILL:when=1", true},
		{"mkdirat --inject=mkdirat:error=ENOSPC:when=2", false}, // no kill: what the runtime itself takes back
	} {
		before := "strace -f -qq -o /dev/null -P " + c.dir + "/gold -P " + c.dir + "/gold/mon_groups/k -e trace=" + kill.at
		if strings.HasPrefix(kill.at, "clone3") {
			before = "strace -f -qq -o /dev/null -e trace=" + kill.at
		}
		res := c.rt(before, "create", "--bundle", dir, "k")
		if res.Code == 0 {
			t.Errorf("%s: create has succeeded", kill.at)
		}
		if left := c.runtime("/bin/ls", c.dir+"/gold").Code == 0; left != kill.left {
			t.Errorf("%s: a class is left: %v, want %v: %s", kill.at, left, kill.left, res.Stderr)
		}
		c.ok("delete", "--force", "k")
		c.has("after " + kill.at)
	}
	// A runtime that was killed in delete.
	c.ok("create", "--bundle", dir, "k")
	c.must("/bin/sh", "-c", "mkdir -p /run/oci/k/x; "+filepath.Join(run.bin, "glassbox-runtime")+" --root /run/oci kill k KILL")
	if res := c.rt("strace -f -qq -o /dev/null -P "+c.dir+"/gold/mon_groups/k -e trace=rmdir,unlinkat "+
		"--inject=rmdir,unlinkat:signal=KILL:when=1", "delete", "--force", "k"); res.Code == 0 {
		t.Error("delete has succeeded")
	}
	c.ok("delete", "--force", "k")
	c.has("deleted", "gold")
}
