package test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestThreatLinkedTargets is row 32: links in the root file system where something is mounted, made or entered. A dangling one leads to
// what is then made inside; the root itself is no target of a mount; and nothing is made in a directory of the host.
func TestThreatLinkedTargets(t *testing.T) {
	s := besiege(t)
	s.shell("mkdir -p given/dir && echo given >given/file && echo given >given/dir/file")
	given := filepath.Join(s.dir, "given")
	const links = `
		ln -s /new/absolute absolute; ln -s ../../../../new/up mnt/up; ln -s chain2 chain1
		ln -s /mnt/chain3 chain2; ln -s ../new/chain mnt/chain3
		ln -s /gone var; ln -s /mnt/../new/dots/./../dotted dotted; ln -s / all
		ln -s mnt/.. all2; ln -s all2 all3; ln -s loop loop; ln -s /dev devices`
	for _, f := range faces {
		for path, want := range map[string]string{
			"/absolute": "/new/absolute", "/mnt/up": "/new/up", "/chain1": "/new/chain", "/var/run/x": "/gone/run/x", "/dotted": "/new/dotted",
			"/all/below": "/below", "/chain1/below/more": "/new/chain/below/more",
		} {
			show := func(what string) []string {
				return []string{"sh", "-c", what + "; [ ! -L " + want + " ] || echo a link"}
			}
			for kind, b := range map[string]box{
				"bind of a directory": {binds: [][2]string{{given + "/dir", path}}, args: show("cat " + path + "/file " + want + "/file")},
				"bind of a file":      {binds: [][2]string{{given + "/file", path}}, args: show("cat " + path + " " + want)},
				"tmpfs":               {tmpfs: []string{path}, args: show("grep -c ' " + want + " tmpfs' /proc/mounts")},
				"workdir":             {cwd: path, args: show("pwd -P")},
			} {
				b.rootfs = s.root(links)
				wanted := map[string]string{"tmpfs": "1\n", "workdir": want + "\n"}[kind]
				if wanted == "" {
					wanted = "given\ngiven\n"
				}
				if res := s.run(f, b); res.Stdout != wanted {
					t.Errorf("%s, %s at %s: got %q, want %q: %s", f, kind, path, res.Stdout, wanted, res.Stderr)
				}
			}
		}
		// A link that is in a directory of the host's leads to a place of the container's, too.
		s.shell("rm -rf given/dir/link; ln -s ../../../new/inner given/dir/link")
		b := box{
			rootfs: s.root(""), binds: [][2]string{{given + "/dir", "/data"}, {given + "/file", "/data/link"}},
			args: []string{"cat", "/new/inner"},
		}
		if res := s.run(f, b); res.Stdout != "given\n" {
			t.Errorf("%s, a link inside another mount: got %q: %s", f, res.Stdout, res.Stderr)
		}
		// The root is no target, by whatever name.
		for _, path := range []string{"/all", "/all2", "/all3", "/all/.", "/loop"} {
			for kind, b := range map[string]box{
				"bind": {binds: [][2]string{{given + "/dir", path}}}, "tmpfs": {tmpfs: []string{path}},
			} {
				b.rootfs, b.args = s.root(links), []string{"echo", "started"}
				res := s.run(f, b)
				if res.Code == 0 || strings.Contains(res.Stdout, "started") ||
					path != "/loop" && !strings.Contains(res.Stderr, "leads to the root directory") {
					t.Errorf("%s, %s at %s: got %d, %q: %s", f, kind, path, res.Code, res.Stdout, res.Stderr)
				}
			}
		}
		// Devices are made in the container's own /dev: not in what has come to lie over it, nor where a link leads out of it.
		s.shell("rm -rf devs && mkdir -p devs")
		devs := filepath.Join(s.dir, "devs")
		for what, b := range map[string]box{
			"a directory over /dev": {rootfs: s.root(links), binds: [][2]string{{devs, "/devices"}}},
			"a device over a bind":  {rootfs: s.root(links), binds: [][2]string{{devs, "/devices"}}, device: "/dev/more/x"},
			"/dev elsewhere, with a bind on it": {
				rootfs: s.root("rmdir dev; ln -s /mnt/d dev"), binds: [][2]string{{devs, "/mnt/d"}},
				device: "/dev/y",
			},
			"a device where a link leads out":    {rootfs: s.root("ln -s /mnt out"), binds: [][2]string{{devs, "/mnt"}}, device: "/out/z"},
			"a device in a directory of another": {rootfs: s.root(""), binds: [][2]string{{devs, "/mnt"}}, device: "/mnt/z"},
			"a device by a loop":                 {rootfs: s.root(links), binds: [][2]string{{devs, "/mnt"}}, device: "/loop/z"},
		} {
			b.args = []string{"true"}
			s.run(f, b)
			entries, err := os.ReadDir(devs)
			must(t, err)
			for _, e := range entries {
				if e.Type()&(os.ModeDevice|os.ModeSymlink|os.ModeNamedPipe) != 0 {
					t.Errorf("%s, %s: %s was made in a directory of the host: %v", f, what, e.Name(), e.Type())
				}
			}
		}
		// That a device is made where it may be.
		for _, path := range []string{"/dev/full2", "/dev/more/full", "/data/full", "/mnt/link/full"} {
			b := box{rootfs: s.root("ln -s /tmp mnt/link"), device: path, args: []string{"stat", "-c", "%F %t:%T", path}}
			if res := s.run(f, b); !strings.HasPrefix(res.Stdout, "character special file 1:7") {
				t.Errorf("%s, a device at %s: %q %s", f, path, res.Stdout, res.Stderr)
			}
		}
	}
	if entries, _ := os.ReadDir(filepath.Join(s.dir, "given")); len(entries) != 2 {
		t.Errorf("in the directory of the host: %v", entries)
	}
}

// TestEtcLinks has an image whose /etc/resolv.conf, hosts and hostname are what no file can be mounted on: the container starts, with the
// engine's files, as with Docker.
func TestEtcLinks(t *testing.T) {
	s := besiege(t)
	for what, script := range map[string]string{
		"plain":           "echo image >etc/hosts",
		"dangling":        "for f in resolv.conf hosts hostname; do ln -s ../run/systemd/$f etc/$f; done",
		"absolute":        "for f in resolv.conf hosts hostname; do ln -s /run/systemd/$f etc/$f; done",
		"loops":           "for f in resolv.conf hosts hostname; do ln -s $f etc/$f; done",
		"leads somewhere": "echo image >mnt/file; for f in resolv.conf hosts hostname; do ln -s /mnt/file etc/$f; done",
		"etc is a file":   "rm -r etc; echo >etc",
		"etc is missing":  "rm -r etc",
		"etc is a link":   "mv etc elsewhere; ln -s elsewhere etc",
		"etc is dangling": "rm -r etc; ln -s /run/etc etc",
	} {
		root := s.root(script)
		before := s.sh("cd " + root + " && ls -lR etc mnt run").Stdout
		b := box{rootfs: root + ":O", args: []string{"sh", "-c", "cat /etc/hostname; grep -c localhost /etc/hosts; [ -f /etc/resolv.conf ] " +
			"&& echo resolv"}}
		argv := slices.Insert(s.command(engineFace, s.id("box"), b), 2, "--rm", "--hostname", "named")
		if res := s.on(argv...); !strings.HasPrefix(res.Stdout, "named\n") || !strings.HasSuffix(res.Stdout, "\nresolv\n") ||
			strings.Contains(res.Stdout, "\n0\n") {
			t.Errorf("%s: got %d, %q: %s", what, res.Code, res.Stdout, res.Stderr)
		}
		if after := s.sh("cd " + root + " && ls -lR etc mnt run").Stdout; after != before {
			t.Errorf("%s: the image's own directory has changed: was %s, is %s", what, before, after)
		}
	}
}

// TestThreatKeyring is row 28: containers that may call keyctl look for one another's keys. The first one opens its keyring to all, before
// the others are there.
func TestThreatKeyring(t *testing.T) {
	s := besiege(t)
	for _, f := range faces {
		name, root := s.id("key"), s.root("")
		early, earlyOut := s.start(f, box{rootfs: root, bare: true, args: []string{"sh", "-c", "/t/prog keys open; echo open; " +
			"while [ ! -e /go ]; do sleep 0.1; done; /t/prog keys find " + name + " _glassbox _ses; sleep 1000"}})
		s.until("the open keyring", func() bool { return strings.Contains(s.logs(f, early, earlyOut), "open") })
		b := box{rootfs: s.root(""), bare: true, args: []string{"sh", "-c", "/t/prog keys put " + name + " && exec sleep 1000"}}
		id, out := s.start(f, b)
		var text string
		s.until("the key", func() bool { text = s.logs(f, id, out); return strings.Contains(text, "ring ") })
		if !strings.HasPrefix(text, "found secret\n") {
			t.Errorf("%s: it doesn't find its own key: %s", f, text)
		}
		_, ring, _ := strings.Cut(strings.TrimSpace(text), "ring ")
		must(t, os.WriteFile(filepath.Join(root, "go"), nil, 0o644))
		s.until("the attack", func() bool { text = s.logs(f, early, earlyOut); return strings.Contains(text, "done") })
		if text != "open\ndone\n" {
			t.Errorf("%s: a container that was there before says %q", f, text)
		}
		attack := []string{"/t/prog", "keys", "find", name, "_glassbox", "_ses", ring, id, "_ses." + id}
		b.args = attack
		if res := s.run(f, b); res.Stdout != "done\n" {
			t.Errorf("%s: a later container says %q %s", f, res.Stdout, res.Stderr)
		}
		if res := s.on(s.exec(f, nil, early, attack...)...); res.Stdout != "done\n" {
			t.Errorf("%s: exec in another container says %q %s", f, res.Stdout, res.Stderr)
		}
		s.remove(f, id)
		s.remove(f, early)
	}
}
