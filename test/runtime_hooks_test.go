package test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// reachable lets every user come to the test's files, as a container's root that is another user needs.
func (b *bundles) reachable() {
	for dir := b.work; dir != filepath.Dir(os.TempDir()) && len(dir) > 1; dir = filepath.Dir(dir) {
		if st, err := os.Stat(dir); err == nil && st.Mode().Perm()&0o001 == 0 {
			must(b.t, os.Chmod(dir, st.Mode().Perm()|0o711))
		}
	}
}

// surroundings is a hook that writes down what it is given: one file for each kind.
const surroundings = `#!/bin/sh
state=$(cat)
cd . && here=$(pwd)
out=$1/$2
{
	echo "pid=$(echo "$state" | sed 's/.*"pid":\([0-9]*\).*/\1/')"
	echo "cwd=$here"
	echo "env=$(env | cut -d= -f1 | grep -vE '^(PWD|OLDPWD|SHLVL|_)$' | sort | tr '\n' ' ')"
	echo "fds=$(ls /proc/self/fd | wc -l)"
	echo "uid=$(id -u) $(cat /proc/self/uid_map | tr -s ' ')"
	for n in user mnt net uts ipc pid cgroup time; do echo "$n=$(readlink /proc/self/ns/$n)"; done
} > $out 2>&1
echo > made-by-$2
`

// TestRuntimeHookSurroundings looks at what hooks are given: runc's 1.5 environment and working directory, the state's pid, no descriptors
// but three, and for those of the container its namespaces, the user's and the clocks' among them.
func TestRuntimeHookSurroundings(t *testing.T) {
	b := startBundles(t, "surroundings")
	b.reachable()
	for _, c := range []struct {
		name string
		edit func(*specs.Spec)
		root int // the container's root on the host
	}{
		{"plain", func(*specs.Spec) {}, 0},
		{"user", mappedIDs, 100000},
		{"time", func(s *specs.Spec) {
			mappedIDs(s)
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace},
				specs.LinuxNamespace{Type: specs.CgroupNamespace})
			s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1000}}
		}, 100000},
	} {
		t.Run(c.name, func(t *testing.T) {
			b.t = t
			root := b.rootfs("root-" + c.name)
			for _, name := range []string{"sed", "cut", "grep", "sort", "tr", "wc"} {
				os.Symlink("busybox", filepath.Join(root, "bin", name))
			}
			must(t, os.Lchown(root, c.root, c.root))
			must(t, os.Chmod(filepath.Join(root, "tmp"), 0o777))
			out := filepath.Join(b.work, "out-"+c.name)
			must(t, os.MkdirAll(out, 0o777))
			must(t, os.Chmod(out, 0o777))
			hook := filepath.Join(out, "hook")
			b.write(hook, surroundings, 0o755)
			b.write(filepath.Join(root, "bin/hook"), surroundings, 0o755)
			dir := b.bundle("b-"+c.name, root, func(s *specs.Spec) {
				s.Root.Readonly = false
				s.Process.Env = append(s.Process.Env, "OF_THE_PROCESS=1")
				s.Process.Cwd = "/tmp"
				h := func(name string) []specs.Hook { return []specs.Hook{{Path: hook, Args: []string{"hook", out, name}}} }
				s.Hooks = &specs.Hooks{
					CreateRuntime: h("createRuntime"), CreateContainer: h("createContainer"), Poststart: h("poststart"), Poststop: h("poststop"),
					StartContainer: []specs.Hook{{Path: "/bin/hook", Args: []string{"hook", "/tmp", "startContainer"}}},
				}
				//lint:ignore SA1019 deprecated, and still in use
				s.Hooks.Prestart = h("prestart")
				c.edit(s)
			})
			program := filepath.Join(run.bin, "glassbox-runtime") + " --root /run/oci "
			call := func(args string) {
				t.Helper()
				// Descriptors that the caller has left open, and one that it gives to the container.
				b.must(toFiles([]string{"/bin/sh", "-c", "exec 3</etc/passwd 8</etc/passwd 9</etc/passwd; OF_THE_CALLER=1 " + program + args})...)
			}
			call("create --preserve-fds 1 --bundle " + dir + " " + c.name)
			pid := b.pid(c.name)
			own := map[string]string{}
			for _, n := range []string{"user", "mnt", "net", "uts", "ipc", "pid", "cgroup", "time"} {
				link, err := os.Readlink(b.state.host.Path("/proc/" + pid + "/ns/" + n))
				must(t, err)
				own[n] = link
			}
			call("start " + c.name)
			call("delete --force " + c.name)
			for _, kind := range []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"} {
				file, cwd, state, env := filepath.Join(out, kind), dir, pid, `OF_THE_CALLER PATH `
				switch kind {
				case "createContainer":
					cwd, state, env = root, "1", ``
				case "startContainer":
					file, cwd, state, env = filepath.Join(root, "tmp", kind), "/tmp", "1", `HOME OF_THE_PROCESS PATH TERM `
				case "poststop":
					state = `\{.*`
				}
				text, err := os.ReadFile(file)
				must(t, err)
				for _, want := range []string{"pid=" + state, "cwd=" + cwd, "env=" + env, "fds=4"} { // ls has opened the directory
					if !regexp.MustCompile(`(?m)^` + want + `$`).Match(text) {
						t.Errorf("%s: got\n%swant %s", kind, text, want)
					}
				}
				inside := kind == "createContainer" || kind == "startContainer"
				for n, link := range own {
					if has := strings.Contains(string(text), n+"="+link+"\n"); inside && !has {
						t.Errorf("%s: it is in another %s namespace than the container, %s: %s", kind, n, link, text)
					}
				}
				if !inside {
					continue
				}
				made := filepath.Join(root, "made-by-"+kind)
				if kind == "startContainer" {
					made = filepath.Join(root, "tmp", "made-by-"+kind)
				}
				var st unix.Stat_t
				if err := unix.Stat(made, &st); err != nil || int(st.Uid) != c.root {
					t.Errorf("%s: what it made is of user %d, %v, want %d", kind, st.Uid, err, c.root)
				}
			}
		})
	}
}

// mappedIDs gives the container's root another user of the host.
func mappedIDs(s *specs.Spec) {
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	s.Linux.UIDMappings, s.Linux.GIDMappings = ids, ids
}

// TestRuntimeHookFailures has each kind of hook fail, and a create that fails for another reason: the container is gone, and the
// poststop hooks have run, once (runtime-spec 1.3, runtime.md, lifecycle).
func TestRuntimeHookFailures(t *testing.T) {
	b := startBundles(t, "hook-failures")
	root := b.rootfs("root")
	log := filepath.Join(b.work, "log")
	hook := filepath.Join(b.work, "hook")
	b.write(hook, "#!/bin/sh\ncat >/dev/null\necho $1 >> "+log+"\n[ $# = 1 ] || { echo $1 says no >&2; eval \"$2\"; }\n", 0o755)
	b.write(filepath.Join(root, "bin/hook"), "#!/bin/sh\n[ $# = 1 ] || { echo $1 says no >&2; eval \"$2\"; }\n", 0o755)
	before, err := b.state.settled()
	must(t, err)
	b.state.before = &before
	one := 1
	type hookCase struct {
		name, kind, fails string
		edit              func(*specs.Spec)
		verb, want        string
		ran               string // hooks
	}
	const created = "prestart createRuntime createContainer "
	cases := []hookCase{
		{
			name: "prestart", kind: "prestart", fails: "exit 3", verb: "create", want: `/hooks/prestart/0.*exit status 3: prestart says no`,
			ran: "prestart poststop ",
		},
		{
			name: "create-runtime", kind: "createRuntime", fails: "exit 3", verb: "create", want: `/hooks/createRuntime/0`,
			ran: "prestart createRuntime poststop ",
		},
		{
			name: "create-runtime-slow", kind: "createRuntime", fails: "sleep 100", verb: "create", want: `timeout of 1 s`,
			ran: "prestart createRuntime poststop ",
		},
		{
			name: "create-container", kind: "createContainer", fails: "exit 3", verb: "create",
			want: `step \d+/\d+ \[host\] run the createContainer hook.*/hooks/createContainer/0.*exit status 3: createContainer says no`,
			ran:  created + "poststop ",
		},
		{
			name: "create-container-slow", kind: "createContainer", fails: "sleep 100", verb: "create",
			want: `/hooks/createContainer/0.*timeout of 1 s`, ran: created + "poststop ",
		},
		{
			name: "start-container", kind: "startContainer", fails: "exit 3", verb: "start",
			want: `/hooks/startContainer/0.*exit status 3: startContainer says no`, ran: created + "poststop ",
		},
		{
			name: "start-container-slow", kind: "startContainer", fails: "sleep 100", verb: "start", want: `/hooks/startContainer/0.*timeout of 1 s`,
			ran: created + "poststop ",
		},
		{
			name: "poststart", kind: "poststart", fails: "exit 3", verb: "start", want: `/hooks/poststart/0.*exit status 3: poststart says no`,
			ran: created + "poststart poststop ",
		},
		{
			name: "poststart-slow", kind: "poststart", fails: "sleep 100", verb: "start", want: `/hooks/poststart/0.*timeout of 1 s`,
			ran: created + "poststart poststop ",
		},
		{
			name: "no-program", edit: func(s *specs.Spec) { s.Process.Args = []string{"nothing"} }, verb: "create",
			want: `nothing.*executable file not found`, ran: created + "poststop ",
		},
		{name: "no-mount", edit: func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "nosuchfs", Source: "x"})
		}, verb: "create", want: `nosuchfs`, ran: ""}, // no hook has run
		{name: "pid-file", verb: "create --pid-file /nowhere/pid", want: `--pid-file`, ran: created + "poststop "},
	}
	for _, c := range cases {
		for _, verb := range []string{c.verb, "run", "run --detach"} {
			if strings.Contains(c.verb, "--pid-file") && verb != c.verb {
				continue
			}
			t.Run(c.name+"/"+verb, func(t *testing.T) {
				b.t = t
				os.Remove(log)
				id := "h-" + c.name
				dir := b.bundle(id, root, func(s *specs.Spec) {
					h := func(kind, path string) []specs.Hook {
						h := specs.Hook{Path: path, Args: []string{"hook", kind}, Env: []string{"PATH=/usr/bin:/bin"}}
						if kind == c.kind {
							h.Args, h.Timeout = append(h.Args, c.fails), &one
						}
						return []specs.Hook{h}
					}
					s.Hooks = &specs.Hooks{
						CreateRuntime: h("createRuntime", hook), CreateContainer: h("createContainer", hook),
						StartContainer: h("startContainer", "/bin/hook"),
						Poststart:      h("poststart", hook), Poststop: h("poststop", hook),
					}
					//lint:ignore SA1019 deprecated, and still in use
					s.Hooks.Prestart = h("prestart", hook)
					if c.edit != nil {
						c.edit(s)
					}
				})
				call := append(strings.Fields(verb), "--bundle", dir, id)
				if verb == "start" {
					b.must("create", "--bundle", dir, id)
					call = []string{"start", id}
				}
				res := b.runtime(call...)
				if res.Code != 1 || !regexp.MustCompile(`(?s)`+c.want).MatchString(res.Stderr) {
					t.Errorf("%v: %+v, want %s", call, res, c.want)
				}
				text, _ := os.ReadFile(log)
				if got := strings.ReplaceAll(string(text), "\n", " "); got != c.ran {
					t.Errorf("ran %q, want %q", got, c.ran)
				}
				if res := b.runtime("state", id); res.Code != 1 || !strings.Contains(res.Stderr, "container does not exist") {
					t.Errorf("state: %+v", res)
				}
				b.must("delete", "--force", id)
				if left, err := b.state.leaked(); err != nil || left != "" {
					t.Errorf("%v\n%s", err, left)
				}
			})
		}
	}
}

// TestRuntimeHooks looks at when hooks run, with what state, and where.
func TestRuntimeHooks(t *testing.T) {
	b := startBundles(t, "hooks")
	root := b.rootfs("root")
	log := filepath.Join(b.work, "log")
	hook := filepath.Join(b.work, "hook")
	b.write(hook, `#!/bin/sh
state=$(cat)
status=$(echo "$state" | sed 's/.*"status":"\([a-z]*\)".*/\1/')
mounted=no; [ -e `+root+`/proc/self ] && mounted=yes
echo "$1 $status $A $(readlink /proc/self/ns/uts | cut -d: -f1) mounted=$mounted host=$(hostname)" >> `+log+`
`, 0o755)
	b.write(filepath.Join(root, "bin/hook"), "#!/bin/sh\ncat > /tmp/state\necho \"start $(hostname) $A\" > /tmp/hook\n", 0o755)
	dir := b.bundle("hooked", root, func(s *specs.Spec) {
		s.Process.Args = []string{"sh", "-c", "cat /tmp/hook; cat /tmp/state"}
		s.Hostname = "inside"
		s.Root.Readonly = false
		h := func(name string) []specs.Hook {
			return []specs.Hook{{Path: hook, Args: []string{"hook", name}, Env: []string{"A=" + name + "-env", "PATH=/usr/bin:/bin"}}}
		}
		s.Hooks = &specs.Hooks{
			CreateRuntime: h("createRuntime"), CreateContainer: h("createContainer"), Poststart: h("poststart"), Poststop: h("poststop"),
			StartContainer: []specs.Hook{{Path: "/bin/hook", Env: []string{"A=inner", "PATH=/bin"}}},
		}
		//lint:ignore SA1019 deprecated, and still in use
		s.Hooks.Prestart = h("prestart")
		s.Hooks.Poststop = append([]specs.Hook{{Path: "/nowhere"}}, s.Hooks.Poststop...) // a failing one only warns
	})
	res := b.runtime("run", "--bundle", dir, "hooked")
	if res.Code != 0 || !strings.HasPrefix(res.Stdout, "start inside inner\n") || !strings.Contains(res.Stdout, `"status":"created"`) ||
		!strings.Contains(res.Stdout, `"bundle":"`+dir+`"`) {
		t.Errorf("run: %+v", res)
	}
	if !strings.Contains(res.Stderr, "/hooks/poststop/0: run /nowhere") {
		t.Errorf("no warning of a failing poststop hook: %s", res.Stderr)
	}
	text, _ := os.ReadFile(log)
	host := strings.TrimSpace(b.must("/bin/hostname"))
	want := "prestart creating prestart-env uts mounted=no host=" + host + "\n" +
		"createRuntime creating createRuntime-env uts mounted=no host=" + host + "\n" +
		"createContainer creating createContainer-env uts mounted=yes host=" + host + "\n" +
		"poststart running poststart-env uts mounted=no host=" + host + "\n" +
		"poststop stopped poststop-env uts mounted=no host=" + host + "\n"
	if string(text) != want {
		t.Errorf("got\n%swant\n%s", text, want)
	}
}

// TestRuntimeStartProtects looks at the executable of a start whose hook enters the container: nobody could write to it.
func TestRuntimeStartProtects(t *testing.T) {
	b := startBundles(t, "protect")
	root := b.rootfs("root")
	b.write(filepath.Join(root, "bin/hook"), "#!/bin/sh\n: > /tmp/here\nwhile ! [ -e /tmp/go ]; do sleep 0.02; done\n", 0o755)
	dir := b.bundle("hooked", root, func(s *specs.Spec) {
		s.Root.Readonly = false
		s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/bin/hook", Env: []string{"PATH=/bin"}}}}
	})
	if res := b.runtime("create", "--bundle", dir, "protected"); res.Code != 0 {
		t.Fatalf("%+v", res)
	}
	job, err := b.state.host.Go([]string{filepath.Join(run.bin, "glassbox-runtime"), "--root", "/run/oci", "start", "protected"},
		[]string{"PATH=/usr/bin:/bin"}, "/", nil)
	if err != nil {
		t.Fatal(err)
	}
	b.until("the hook", func() bool {
		_, err := os.Stat(filepath.Join(root, "tmp/here"))
		return err == nil
	})
	var st unix.Statfs_t
	if err := unix.Statfs(b.state.host.Path(fmt.Sprintf("/proc/%d/exe", job.Pid)), &st); err != nil || st.Flags&unix.ST_RDONLY == 0 {
		t.Errorf("the executable lies on a mount with flags %x, %v: it can be written to", st.Flags, err)
	}
	b.write(filepath.Join(root, "tmp/go"), "", 0o644)
	if res, err := job.Finish(scaled(10 * time.Second)); err != nil || res.Code != 0 {
		t.Errorf("start: %+v, %v", res, err)
	}
	b.must("delete", "--force", "protected")
}
