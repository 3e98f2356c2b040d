package test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"glassbox/test/machine"
)

// garbage damages files of a store that is in use.
type garbage struct {
	*siege
	saved string // the store as it is while nothing runs
}

// ruins are what a disk, a person or a program that went mad make of a file.
var ruins = []struct {
	name string
	ruin func(old []byte) []byte
}{
	{"empty", func([]byte) []byte { return nil }},
	{"cut", func(old []byte) []byte { return old[:len(old)/2] }},
	{"zeros", func(old []byte) []byte { return make([]byte, max(len(old), 64)) }},
	{"garbage", func([]byte) []byte { return bytes.Repeat([]byte("\x7f{\"\xff[\x001}\n"), 40) }},
	{"another", func([]byte) []byte { return []byte("{\"version\": 1, \"id\": 7, \"name\": [\"x\"]}\n") }},
}

// TestGarbage walks a store and the directory of state while containers run, and damages each kind of file that it finds there, in one of
// five ways (with GLASSBOX_TEST_STORM in each): a new kind joins by itself. No command panics or hangs: each works, or says in a sentence
// or two what it can't do. What the file is not about is as it was. fsck finds what no command has mended by itself, and after
// fsck --repair, or what that says is left to do, the store is in order.
func TestGarbage(t *testing.T) {
	g := &garbage{siege: besiege(t)}
	g.furnish()
	must(t, startRegistry(g.host, filepath.Join(g.dir, "registry"), "http", g.env)) // from where fsck fetches again
	g.ok(g.sh(`cd /; set -e
		glassbox pull -q 127.0.0.1:5000/busybox:volumes >/dev/null
		glassbox volume create --label a=b vol; glassbox network create net; glassbox tag busybox two
		glassbox run --name ended --log-driver local -v vol:/data -v /anon --health-cmd true busybox \
			sh -c 'echo said; echo kept >/kept; echo kept >/data/kept'
		glassbox create --name victim --network net --restart always --health-cmd true --health-interval 1s -v vol:/data -p 8080:80 \
			busybox sh -c 'echo said; exec sleep 1000'
		glassbox create --name other busybox sh -c 'echo said; exec sleep 1000'`))
	g.saved = filepath.Join(g.dir, "saved")
	g.shell("cp -a store " + g.saved)
	g.begin()
	all := os.Getenv("GLASSBOX_TEST_STORM") != ""
	for i, file := range g.kinds() {
		for n, r := range ruins {
			if all || n == i%len(ruins) {
				g.try(file, r.name, r.ruin)
			}
		}
	}
}

// begin makes the store what it was, and lets its containers run.
func (g *garbage) begin() {
	g.Helper()
	g.sh(`ids=$(glassbox ps -aq); [ -z "$ids" ] || timeout 20 glassbox rm -f $ids; nft flush ruleset
		umount /mnt/glassbox/containers/*/merged 2>/dev/null`)
	g.ok(g.sh("rm -rf /run/glassbox /mnt/glassbox && cp -a " + g.saved + "/glassbox /mnt/ && glassbox start victim other >/dev/null && " +
		"glassbox exec victim true"))
}

var (
	long  = regexp.MustCompile(`[0-9a-f]{64}`)
	short = regexp.MustCompile(`[0-9a-f]{12}`)
	addr  = regexp.MustCompile(`[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+`)
)

// kinds finds one file of each kind: those of the container that ended and of the one that runs are two.
func (g *garbage) kinds() []string {
	g.Helper()
	names := map[string]string{}
	for _, name := range []string{"ended", "victim", "other"} {
		names[strings.TrimSpace(g.ok(g.on("glassbox", "inspect", "--format", "{{.Id}}", name)))] = name
	}
	seen := map[string]bool{}
	var out []string
	for _, root := range []string{store, "/run/glassbox"} {
		must(g.T, filepath.WalkDir(g.host.Path(root), func(path string, e fs.DirEntry, err error) error {
			path = root + strings.TrimPrefix(path, g.host.Path(root))
			if err != nil || e.IsDir() {
				foreign := slices.Contains([]string{"_data", "upper", "work", "merged"}, e.Name()) || filepath.Dir(path) == store+"/layers"
				if err == nil && foreign {
					return filepath.SkipDir // files of images and containers
				}
				return err
			}
			kind := path
			for id, name := range names {
				kind = strings.ReplaceAll(kind, id, name)
			}
			if strings.Contains(kind, "/other") {
				return nil
			}
			kind = addr.ReplaceAllString(short.ReplaceAllString(long.ReplaceAllString(kind, "ID"), "ID"), "IP")
			if e.Type().IsRegular() && !seen[kind] {
				seen[kind] = true
				out = append(out, path)
			}
			return nil
		}))
	}
	if len(out) < 30 {
		g.Fatalf("only %d kinds of files: %q", len(out), out)
	}
	return out
}

// try damages a file in one way, looks, mends, and looks again.
func (g *garbage) try(file, how string, ruin func([]byte) []byte) {
	g.Helper()
	old, err := os.ReadFile(g.host.Path(file))
	if err != nil {
		return // it comes and goes
	}
	what := how + " " + strings.TrimPrefix(file, store+"/")
	must(g.T, os.WriteFile(g.host.Path(file), ruin(old), 0o600))
	told := ""
	for _, args := range []string{
		"ps -a", "ps -s", "images", "volume ls", "network ls", "inspect victim ended", "inspect -s other", "logs victim", "logs ended",
		"exec victim true", "exec other true", "stats --no-stream", "top victim", "system df", "port victim", "diff ended",
		"events --since 1h --until 0s", "explain victim", "verify victim", "history two", "network inspect net", "volume inspect vol",
		"update --restart no victim", "cp ended:/kept -", "run --rm --network net -v vol:/x two cat /x/kept", "restart -t 0 victim",
		"start ended", "fsck",
	} {
		r := g.command(what, "glassbox "+args)
		told += r.Stderr
		if args == "fsck" {
			told += r.Stdout
		}
	}
	for _, args := range []string{"exec other true", "inspect other", "logs other", "diff other"} {
		if r := g.sh("glassbox " + args); r.Code != 0 && !strings.Contains(file, "/image/") {
			g.Errorf("%s: %s fails: %s", what, args, r.Stderr)
		}
	}
	r := g.command(what, "glassbox fsck --repair")
	if strings.Contains(r.Stdout, "glassbox network create net") {
		g.command(what, "glassbox network create net")
	}
	if r.Code != 0 { // then what it says is left to do is done
		if !strings.Contains(r.Stdout+r.Stderr, "rm -f") {
			g.Errorf("%s: fsck --repair mends it not, and says no way: %s%s", what, r.Stdout, r.Stderr)
		}
		g.command(what, "glassbox rm -f victim ended other")
		g.command(what, "ids=$(glassbox ps -aq 2>/dev/null); [ -z \"$ids\" ] || glassbox rm -f $ids")
		g.command(what, "glassbox fsck --repair")
		if r := g.command(what, "glassbox fsck"); r.Code != 0 {
			g.Errorf("%s: fsck after all: %s%s", what, r.Stdout, r.Stderr)
		}
	} else if r := g.sh("glassbox restart -t 0 victim && glassbox exec victim cat /data/kept && glassbox start -a ended"); r.Code != 0 {
		g.Errorf("%s: after fsck --repair: %s%s", what, r.Stdout, r.Stderr)
	}
	if r := g.sh("cat /mnt/glassbox/volumes/vol/_data/kept"); r.Stdout != "kept\n" {
		g.Errorf("%s: the volume's file is lost", what)
	}
	// An image that nobody else has is gone if it was damaged; its container's volume, and what a registry has, are there.
	r = g.sh("glassbox run --rm --network none -v vol:/x 127.0.0.1:5000/busybox:volumes cat /x/kept")
	if r.Code != 0 || r.Stdout != "kept\n" {
		g.Errorf("%s: after all: %s%s", what, r.Stdout, r.Stderr)
	}
	if r := g.sh("glassbox fsck"); r.Code != 0 {
		g.Errorf("%s: fsck after all: %s%s", what, r.Stdout, r.Stderr)
	}
	g.begin()
}

// command types a line on a damaged store.
func (g *garbage) command(what, text string) machine.Result {
	g.Helper()
	r, err := g.host.Run(scaled(30e9), []string{"/bin/sh", "-c", text}, g.env, "/")
	must(g.T, err)
	lines := strings.Split(strings.TrimSpace(r.Stderr), "\n")
	switch {
	case r.TimedOut:
		g.Errorf("%s: %s hangs", what, text)
	case regexp.MustCompile(`(?m)^(goroutine \d|panic: )`).MatchString(r.Stderr):
		g.Errorf("%s: %s panics: %s", what, text, r.Stderr)
	case r.Code != 0 && !slices.Contains([]int{1, 125}, r.Code):
		g.Errorf("%s: %s: exit code %d: %s", what, text, r.Code, r.Stderr)
	case r.Code != 0 && r.Stderr == "" && r.Stdout == "": // what verify finds is its output
		g.Errorf("%s: %s: exit code %d without a word: %s", what, text, r.Code, r.Stdout)
	case len(lines) > 6 || len(r.Stderr) > 1500:
		g.Errorf("%s: %s: these are more than a sentence: %s", what, text, r.Stderr)
	}
	return r
}
