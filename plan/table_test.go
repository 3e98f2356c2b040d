package plan

import (
	"fmt"
	"strings"
	"testing"
)

// TestTable plays mounts and compares what can be reached in the end.
func TestTable(t *testing.T) {
	proc := &FSMount{Type: "proc", Target: "/proc", Save: "proc"}
	root := []Op{
		&Mount{Target: "/", Flags: []string{"rec", "private"}}, &Mount{Source: "/srv/root", Target: "/m", Flags: []string{"bind", "rec"}},
		&PivotRoot{Root: "/m"},
	}
	null := &Mknod{Path: "/dev/null", Type: "c", Major: 1, Minor: 3, Save: "null"}
	for _, tt := range []struct {
		name string
		ops  []Op
		want string
	}{
		{"the host", nil, "/ bind /"},
		{"a root", root, "/ bind /srv/root"},
		{
			"an overlay",
			[]Op{&Overlay{Dir: "/d", Lower: []string{"a", "b:/c"}, Upper: "u", Target: "/m"}, &PivotRoot{Root: "/m"}},
			"/ overlay /d/a+/d/b+/c+/d/u",
		},
		{
			"each layer by itself",
			[]Op{&Overlay{Dir: "/d", Lower: []string{"b:/c"}, Append: true, Target: "/m"}, &PivotRoot{Root: "/m"}},
			"/ overlay /d/b:/c",
		},
		{"a directory that nobody mounted", []Op{&RootDir{Path: "/b/rootfs"}, &PivotRoot{Root: "."}}, "/ bind /b/rootfs"},
		{"covered", append(root, &FSMount{Type: "proc", Target: "/a/b"}, &FSMount{Type: "tmpfs", Target: "/a"}), "/ bind /srv/root, /a tmpfs"},
		{"covered at its own place", append(root, proc, &FSMount{Type: "tmpfs", Target: "/proc/"}), "/ bind /srv/root, /proc tmpfs"},
		{"on the root", append(root, &FSMount{Type: "tmpfs", Target: "/"}), "/ bind /srv/root"},
		{"masked", append(root, proc, null, &MaskPath{Path: "/proc/kcore", Null: "null"}), "/ bind /srv/root, /proc proc, /proc/kcore mask ro"},
		{"read-only", append(root, proc, &ReadonlyPath{Path: "/proc/sys"}), "/ bind /srv/root, /proc proc, /proc/sys proc/sys ro"},
		{
			"and back", append(root, proc, &ReadonlyPath{Path: "/proc/sys"}, &Remount{Target: "/proc/sys", Clear: []string{"ro"}}),
			"/ bind /srv/root, /proc proc, /proc/sys proc/sys",
		},
		{
			"from above", append(root, proc, &ReadonlyPath{Path: "/proc/sys"}, &Remount{Target: "/proc", RecClear: []string{"ro"}}),
			"/ bind /srv/root, /proc proc, /proc/sys proc/sys",
		},
		{
			"above alone", append(root, proc, &ReadonlyPath{Path: "/proc/sys"}, &Remount{Target: "/proc", Clear: []string{"ro"}}),
			"/ bind /srv/root, /proc proc, /proc/sys proc/sys ro",
		},
		{"by its descriptor", append(root, proc, &FSMount{Type: "tmpfs", Target: "/proc"},
			&Remount{Target: "/proc", From: "proc", Set: []string{"ro"}}), "/ bind /srv/root, /proc tmpfs"},
		{"where nothing is mounted", append(root, &Remount{Target: "/etc", Set: []string{"ro"}}), "/ bind /srv/root"},
		{
			"moved, with what is below", append(root, proc, null, &MaskPath{Path: "/proc/kcore", Null: "null"},
				&MoveMount{From: "proc", Target: "/p"}),
			"/ bind /srv/root, /p proc, /p/kcore mask ro",
		},
		{
			"cloned by the child", append(root, proc, null, &MaskPath{Path: "/proc/kcore", Null: "null"}, &OpenTree{Path: "/proc", Save: "x"},
				&MoveMount{From: "x", Target: "/p"}),
			"/ bind /srv/root, /proc proc, /proc/kcore mask ro, /p proc",
		},
		{
			"cloned with what is below", append(root, proc, null, &MaskPath{Path: "/proc/kcore", Null: "null"},
				&OpenTree{Path: "/proc", Recursive: true, Save: "x"}, &MoveMount{From: "x", Target: "/p"}),
			"/ bind /srv/root, /proc proc, /proc/kcore mask ro, /p proc, /p/kcore mask ro",
		},
		{
			"through a link", append(root, &Symlink{Path: "/l", Target: "/etc"}, &FSMount{Type: "tmpfs", Target: "/l/x"}),
			"/ bind /srv/root, /etc/x tmpfs",
		},
		{
			"through a loop", append(root, &Symlink{Path: "/l", Target: "l"}, &FSMount{Type: "tmpfs", Target: "/l/x"}),
			"/ bind /srv/root, /l/x tmpfs",
		},
		{
			"a part of a bind", append(root, &OpenTree{Path: "/etc", Save: "x"}, &MoveMount{From: "x", Target: "/p", RecSet: []string{"ro"}}),
			"/ bind /srv/root, /p bind /srv/root/etc ro",
		},
		{"what nobody knows", append(root, &MoveMount{From: "x", Target: "/p"}), "/ bind /srv/root, /p ?"},
		{
			"an old remount", append(root[:2:2], &Mount{Target: "/m", Flags: []string{"bind", "remount", "ro"}}, &PivotRoot{Root: "/m"}),
			"/ bind /srv/root ro",
		},
	} {
		t.Run(strings.ReplaceAll(tt.name, " ", "-"), func(t *testing.T) {
			p := &Plan{}
			for _, op := range tt.ops {
				p.Steps = append(p.Steps, at(Child, op))
			}
			var got []string
			for _, m := range p.Table().Mounts() {
				s := m.Path() + " " + m.Type
				switch {
				case m.Type == "bind":
					s += " " + m.Source
				case m.Type == "overlay":
					layers := m.Layers
					if m.Upper != "" {
						layers = append(layers, m.Upper)
					}
					s += " " + strings.Join(layers, "+")
				case m.Type == "":
					s += "?"
				}
				s += m.Sub
				if m.ReadOnly {
					s += " ro"
				}
				got = append(got, s)
			}
			if fmt.Sprint(got) != fmt.Sprint(strings.Split(tt.want, ", ")) {
				t.Errorf("got %q, want %q", strings.Join(got, ", "), tt.want)
			}
		})
	}
}

// FuzzTable: a table is made of whatever plan there is, and never for ever.
func FuzzTable(f *testing.F) {
	f.Add(AppendBinary(nil, full(f)))
	f.Fuzz(func(_ *testing.T, data []byte) {
		var p Plan
		if ReadBinary(data, &p) == nil && len(p.Steps) < 200 {
			t := p.Table()
			t.Mounts()
		}
	})
}
