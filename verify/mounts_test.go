package verify

import (
	"slices"
	"testing"
)

const tree = `22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:20 / /a\040b ro,nosuid,nodev shared:3 master:2 - tmpfs none rw,size=64k
31 30 0:21 /x /a\040b/c rw - fuse.sshfs host:/ rw
32 22 0:22 / /dev rw - tmpfs tmpfs rw
33 32 0:23 / /dev/pts rw - devpts devpts rw
34 22 0:24 / /dev rw - tmpfs over rw
nonsense
`

func TestParseMountinfo(t *testing.T) {
	all := parseMountinfo(tree)
	if len(all) != 6 {
		t.Fatalf("got %d mounts, want 6", len(all))
	}
	m := all[1]
	if m.point != "/a b" || !m.has("ro") || m.has("rw") || !m.tag("shared") || m.group("master") != "2" || m.tag("unbindable") ||
		m.fstype != "tmpfs" || m.below != all[0] {
		t.Errorf("got %+v", m)
	}
	if !sameType("fuse", all[2].fstype) || sameType("fu", all[2].fstype) {
		t.Errorf("the type of %+v", all[2])
	}
}

// TestDescend: of what is mounted on a mount, a path meets the first on its way; what was mounted last at a place covers the rest.
func TestDescend(t *testing.T) {
	all := parseMountinfo(tree)
	for at, want := range map[string]string{
		"/": "22", "/x": "22", "/a b": "30", "/a b/c/d": "31", "/a bc": "22", "/dev/pts": "34",
		"/dev": "34",
	} {
		got := descend(all[0], at, all, func(m *mount) *mount { return m.below }, func(m *mount) string { return m.point })
		if got.id != want {
			t.Errorf("%s leads to mount %s, want %s", at, got.id, want)
		}
	}
}

func TestCompareOptions(t *testing.T) {
	for _, c := range []struct {
		fstype       string
		asked, shown []string
		wrong        int
	}{
		{"tmpfs", []string{"mode=755", "size=65536k"}, []string{"rw", "size=65536k", "mode=755", "inode64"}, 0},
		{"tmpfs", []string{"mode=1777", "size=67108864"}, []string{"rw", "size=65536k", "inode64"}, 0},
		{"tmpfs", []string{"mode=1777", "size=67108864"}, []string{"rw", "size=1048576k"}, 1},
		{"tmpfs", []string{"size=1m"}, []string{"rw"}, 1},
		{"tmpfs", []string{"size=50%"}, []string{"rw"}, 0},
		{"tmpfs", []string{"mode=700"}, []string{"rw", "mode=755"}, 1},
		{"tmpfs", []string{"size=0", "nr_inodes=2"}, []string{"ro", "size=0k", "nr_inodes=2"}, 0},
		{"devpts", []string{"newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}, []string{"rw", "gid=5", "mode=620", "ptmxmode=666"}, 0},
		{"devpts", []string{"ptmxmode=0666", "mode=0620"}, []string{"rw", "mode=600", "ptmxmode=000"}, 2},
		{"proc", []string{"hidepid=2"}, []string{"rw", "hidepid=invisible"}, 0},
		{"proc", []string{"hidepid=2"}, []string{"rw"}, 1},
		{"tmpfs", []string{"mode=755", `context="u:r:t:s0:c1,c2"`}, splitOptions(`rw,context="u:r:t:s0:c1,c2",mode=755`), 0},
		{"tmpfs", []string{"context=u:r:t:s0:c1,c2"}, splitOptions(`rw,context="u:r:t:s0:c1,c3"`), 1},
		{"tmpfs", []string{"context=u:r:t:s0"}, splitOptions("rw,seclabel"), 1},
	} {
		tab := &table{v: &view{dir: -1}}
		if got := tab.compareOptions(&node{fstype: c.fstype, options: c.asked}, &mount{options: c.shown}); len(got) != c.wrong {
			t.Errorf("%s %v, shown as %v: got %v, want %d", c.fstype, c.asked, c.shown, got, c.wrong)
		}
	}
}

// FuzzMountinfo: whatever a line holds, it is read or left out, and a walk through it ends.
func FuzzMountinfo(f *testing.F) {
	f.Add(tree, "/dev/pts")
	f.Add("1 1 0:0 / / rw - x x x\n", "/")
	f.Fuzz(func(t *testing.T, text, at string) {
		all := parseMountinfo(text)
		if len(all) == 0 {
			return
		}
		got := descend(all[0], at, all, func(m *mount) *mount { return m.below }, func(m *mount) string { return m.point })
		if !slices.Contains(all, got) {
			t.Errorf("%q leads to no mount", at)
		}
	})
}
