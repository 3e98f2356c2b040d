package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"glassbox/engine"
	"glassbox/image"
)

var update = flag.Bool("update", false, "write the golden files")

// testApp is an app whose engine is empty and whose streams are files.
func testApp(t *testing.T) *app {
	t.Helper()
	dir := t.TempDir()
	file := func(name string) *os.File {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	return &app{
		in: file("in"), out: file("out"), err: file("err"), root: filepath.Join(dir, "root"), state: filepath.Join(dir, "state"),
		environ: []string{"HOME=" + dir, "GLASSBOX_ROOT=" + filepath.Join(dir, "root"), "GLASSBOX_STATE=" + filepath.Join(dir, "state")},
	}
}

// run runs a command line in this process.
func runMain(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	a := testApp(t)
	code = Main(args, a.in, a.out, a.err, a.environ)
	return code, read(t, a.out), read(t, a.err)
}

func read(t *testing.T, f *os.File) string {
	t.Helper()
	data, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

func TestMainErrors(t *testing.T) {
	for _, tt := range []struct {
		args   string
		code   int
		stderr string // beginning
	}{
		{"rn", 1, "glassbox: unknown command: glassbox rn\nhint: did you mean "},
		{"rnu --rm x", 1, "glassbox: unknown command: glassbox rnu\nhint: did you mean "},
		{"--rm rnu", 125, "glassbox: unknown flag: --rm\n"},
		{"image rmm -f x", 1, "glassbox: unknown command: glassbox image rmm\nhint: did you mean rm"},
		{"image nope", 1, "glassbox: unknown command: glassbox image nope\nSee 'glassbox image --help'.\n"},
		{"run", 1, "glassbox: an image (or --rootfs) is needed\nSee 'glassbox run --help'.\n"},
		{"run --nope x", 125, "glassbox: unknown flag: --nope\nSee 'glassbox run --help'.\n"},
		{"run --isolation hyperv x", 125, "glassbox: invalid isolation 'hyperv' on linux\n"},
		{"swarm", 1, "glassbox: docker has the command swarm, glassbox does not have it\nhint: glassbox is the engine of one host"},
		{"stack deploy x", 1, "glassbox: docker has the command stack, glassbox does not have it\nhint: glassbox is the engine of one host"},
		{"buildx build .", 1, "glassbox: docker has the command buildx, glassbox does not have it\nhint: glassbox build"},
		{"trust", 1, "glassbox: docker has the command trust, glassbox does not have it yet\n"},
		{"cp a b", 1, "glassbox: must specify at least one container source\n"},
		{"ps --nope", 125, "glassbox: unknown flag: --nope\n"},
		{"--nope ps", 125, "glassbox: unknown flag: --nope\nSee 'glassbox --help'.\n"},
		{"ps x", 1, "glassbox: 'glassbox ps' accepts no arguments\n"},
		{"exec x", 1, "glassbox: 'glassbox exec' requires at least 2 arguments\n"},
		{"rename x", 1, "glassbox: 'glassbox rename' requires 2 arguments\n"},
		{"run -a nope x", 125, `glassbox: invalid argument "nope" for "-a, --attach" flag: valid streams are STDIN, STDOUT and STDERR`},
		{"run -d -a stdout x", 125, "glassbox: conflicting options: cannot specify both --attach and --detach\n"},
		{"run -it x", 1, "glassbox: the input device is not a TTY\n"},
		{"run --pull never x", 125, "glassbox: "},
		{"run --cidfile /etc/passwd x", 125, "glassbox: container ID file found, make sure the other container isn't running or delete " +
			"/etc/passwd\n"},
		{"exec x y", 1, "glassbox: no such container: x\n"},
		{"debug", 125, "glassbox: 'glassbox debug' requires at least 1 argument\n"},
		{"debug x", 125, "glassbox: no such container: x\n"},
		{"stop x y", 1, "glassbox: no such container: x\nglassbox: no such container: y\n"},
		{"start x", 1, "glassbox: no such container: x\n"},
		{"start -a x y", 1, "glassbox: you cannot start and attach multiple containers at once\n"},
		{"logs x", 1, "glassbox: no such container: x\n"},
		{"logs --since yesterday x", 1, `glassbox: invalid value for "since": "yesterday" is neither`},
		{"logs -n many x", 1, `glassbox: invalid value for "tail"`},
		{"wait x", 1, "glassbox: no such container: x\n"},
		{"rm x", 1, "glassbox: no such container: x\n"},
		{"inspect x", 1, "error: no such object: x\n"},
		{"container inspect x", 1, "error: no such container: x\n"},
		{"image inspect x", 1, "error: no such image: x\n"},
		{"inspect --type sweet x", 1, "glassbox: \"sweet\" is not a valid value for --type"},
		{"inspect -f {{.X x", 64, "glassbox: template parsing error: "},
		{"rmi x", 1, "glassbox: image x: no such image\n"},
		{"tag x y", 1, "glassbox: image x: no such image\n"},
		{"images a b", 1, "glassbox: 'glassbox images' requires at most 1 argument\n"},
		{"images -f nope", 125, "glassbox: invalid argument \"nope\" for \"-f, --filter\" flag: bad format of filter (expected name=value)\n"},
		{"images -f nope=1", 1, "glassbox: invalid filter 'nope'\n"},
		{"pull -a x", 1, "glassbox: --all-tags is not supported"},
		{"explain", 125, "glassbox: say what to explain"},
		{"explain x", 1, "glassbox: x: there is no such container, image, bundle or plan"},
		{"explain container x", 1, "glassbox: no such container: x\n"},
		{"explain bundle /nowhere", 1, "glassbox: /nowhere: no such file or directory\n"},
		{"explain --diff x", 125, "glassbox: --diff wants two"},
		{"explain --policy --format=sh x", 125, "glassbox: unknown format \"sh\": want one of text, json\n"},
		{"explain run --format=yaml x", 125, "glassbox: unknown format \"yaml\": want one of text, json, sh"},
		{"explain run x", 125, "glassbox: image x: no such image\nhint: explain pulls nothing by itself: glassbox pull x"},
	} {
		code, _, stderr := runMain(t, strings.Fields(tt.args)...)
		if code != tt.code || !strings.HasPrefix(stderr, tt.stderr) {
			t.Errorf("glassbox %s: got %d, %q; want %d, %q", tt.args, code, stderr, tt.code, tt.stderr)
		}
	}
}

func TestMissingPrintsEmptyList(t *testing.T) {
	if _, stdout, _ := runMain(t, "inspect", "x"); stdout != "[]\n" {
		t.Errorf("got %q, want []", stdout)
	}
}

// TestHelp asks every command for help: each has a sentence and, unless it only holds others, an example.
func TestHelp(t *testing.T) {
	root := testApp(t).rootCommand(nil)
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		if c.Short == "" {
			t.Errorf("%s has no description", c.CommandPath())
		}
		if !c.HasSubCommands() && c.Example == "" {
			t.Errorf("%s has no example", c.CommandPath())
		}
		args := append(strings.Fields(c.CommandPath())[1:], "--help")
		if code, stdout, stderr := runMain(t, args...); code != 0 || !strings.HasPrefix(stdout, "Usage:  glassbox") || stderr != "" {
			t.Errorf("%q: got %d, %.60q, %q", args, code, stdout, stderr)
		}
		for _, child := range c.Commands() {
			visit(child)
		}
	}
	visit(root)
	_, stdout, _ := runMain(t)
	if !strings.Contains(stdout, "\n  run ") || !strings.Contains(stdout, "--root dir") {
		t.Errorf("help without arguments: got\n%s", stdout)
	}
}

// TestLazy checks that a command is built alone.
func TestLazy(t *testing.T) {
	a := testApp(t)
	for _, tt := range []struct {
		args []string
		want int
	}{
		{[]string{"run", "x", "ps"}, 1},
		{[]string{"--root", "/x", "-D", "ps"}, 1},
		{[]string{"--help"}, len(table())},
		{[]string{"nope"}, len(table())},
	} {
		if got := len(a.rootCommand(tt.args).Commands()); got != tt.want {
			t.Errorf("%q: got %d commands, want %d", tt.args, got, tt.want)
		}
	}
}

func TestPlaces(t *testing.T) {
	a := &app{environ: []string{"GLASSBOX_ROOT=/a", "GLASSBOX_STATE=/b"}}
	if root, state := a.places(); root != "/a" || state != "/b" {
		t.Errorf("from the environment: got %s, %s", root, state)
	}
	a = &app{environ: []string{"HOME=/h", "XDG_RUNTIME_DIR=/run/user/7"}}
	root, state := a.places()
	if os.Geteuid() == 0 && (root != "/var/lib/glassbox" || state != "/run/glassbox") {
		t.Errorf("for root: got %s, %s", root, state)
	}
	if os.Geteuid() != 0 && (root != "/h/.local/share/glassbox" || state != "/run/user/7/glassbox") {
		t.Errorf("for an ordinary user: got %s, %s", root, state)
	}
}

func TestExitCode(t *testing.T) {
	run, stop := &cobra.Command{Use: "run [OPTIONS]"}, &cobra.Command{Use: "stop"}
	for _, tt := range []struct {
		err       error
		own, rest int
	}{
		{nil, 0, 0},
		{&exitError{7}, 7, 7},
		{&usageError{err: errors.New("x")}, 125, 1},
		{&usageError{errors.New("x"), 1}, 1, 1},
		{&usageError{errors.New("x"), 125}, 125, 125},
		{errNoTTY, 1, 1},
		{&engine.StartError{Code: 126, Err: errors.New("x")}, 126, 126},
		{fmt.Errorf("start: %w", &engine.StartError{Code: 127, Err: errors.New("x")}), 127, 127},
		{&engine.StartError{Code: 125, Err: errors.New("x")}, 125, 1},
		{fmt.Errorf("pull: %w", context.Canceled), 130, 130},
		{engine.ErrNotFound, 125, 1},
		{engine.ErrConflict, 125, 1},
		{engine.ErrInvalid, 125, 1},
		{engine.ErrUnsupported, 125, 1},
		{image.ErrUnauthorized, 125, 1},
	} {
		if got := exitCode(run, tt.err); got != tt.own {
			t.Errorf("run, %v: got %d, want %d", tt.err, got, tt.own)
		}
		if got := exitCode(stop, tt.err); got != tt.rest {
			t.Errorf("stop, %v: got %d, want %d", tt.err, got, tt.rest)
		}
	}
}

func TestPrintable(t *testing.T) {
	if got, want := printable("a\x1b[31mb\u009bc\nd\t\u202ee"), "a\\x1b[31mb\\u009bc\nd\t\\u202ee"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
