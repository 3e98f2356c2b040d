package plan

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// ops returns one op of every kind, found in the source, so that none can be forgotten.
func ops(t testing.TB) []Op {
	t.Helper()
	var source []byte
	files, _ := filepath.Glob("op_*.go")
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		source = append(source, text...)
	}
	var out []Op
	for _, m := range regexp.MustCompile(`Kind\(\) string +\{ return "([^"]+)" \}`).FindAllSubmatch(source, -1) {
		op := newOp(string(m[1]))
		if op == nil {
			t.Fatalf("newOp(%q) = nil: the switch lacks it", m[1])
		}
		fill(reflect.ValueOf(op).Elem())
		out = append(out, op)
	}
	if len(out) < 60 {
		t.Fatalf("found %d kinds of ops, want all", len(out))
	}
	return out
}

// fill sets every field to something that isn't zero.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case reflect.String:
		v.SetString("a b")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(-7)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(200)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(v.Index(i))
		}
	}
}

func full(t testing.TB) *Plan {
	p := &Plan{Version: Version, Arch: "amd64"}
	for _, op := range ops(t) {
		p.Steps = append(p.Steps, Step{Lanes(op)[0], Exec, op, "--flag", "Because."})
	}
	return p
}

func TestRoundTrips(t *testing.T) {
	want := full(t)
	data, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got Plan
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, &got); d != "" {
		t.Errorf("JSON round trip (-want +got):\n%s", d)
	}
	array, back := struct{ A [2]uint64 }{[2]uint64{1, 1 << 40}}, struct{ A [2]uint64 }{}
	if err := ReadBinary(AppendBinary(nil, &array), &back); err != nil || back != array {
		t.Errorf("array: %v, %v, want %v", back, err, array)
	}
	var again Plan
	if err := ReadBinary(AppendBinary(nil, want), &again); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, &again); d != "" {
		t.Errorf("binary round trip (-want +got):\n%s", d)
	}
	h1, _ := want.Hash()
	h2, _ := got.Hash()
	if h1 != h2 || !strings.HasPrefix(h1, "sha256:") {
		t.Errorf("hashes %s and %s, want the same", h1, h2)
	}
}

func TestEveryOpHasAText(t *testing.T) {
	for _, op := range ops(t) {
		if op.String() == "" || op.Man() == "" {
			t.Errorf("%s: text %q, manual page %q", op.Kind(), op.String(), op.Man())
		}
		if strings.Contains(op.String(), "%!") {
			t.Errorf("%s: %q", op.Kind(), op.String())
		}
	}
}

func TestUnknownIsRefused(t *testing.T) {
	for _, text := range []string{
		`{"lane":"host","phase":"exec","op":"levitate","args":{}}`,
		`{"lane":"host","phase":"exec","op":"umask","args":{"mask":1,"extra":2}}`,
		`{"lane":"host","phase":"exec","op":"umask","args":{"mask":1},"extra":2}`,
		`{"lane":"host","phase":"exec","op":"umask","args":{"mask":-1}}`,
	} {
		var s Step
		if err := json.Unmarshal([]byte(text), &s); err == nil {
			t.Errorf("%s: accepted as %v", text, s)
		}
	}
}

func at(lane Lane, op Op) Step { return Step{Lane: lane, Op: op} }

func TestValidate(t *testing.T) {
	clone, exec := at(Host, &Clone{}), at(Child, &Execve{Candidates: []string{"/x"}, Argv: []string{"x"}})
	tree, move := at(Host, &OpenTree{Path: "/x", Save: "m"}), at(Child, &MoveMount{From: "m", Target: "/x"})
	memory, null := &Mknod{Path: "/n", Type: "c", Major: 1, Minor: 1, Save: "m"}, &Mknod{Path: "/n", Type: "c", Major: 1, Minor: 3, Save: "m"}
	mask := at(Child, &MaskPath{Path: "/proc/kcore", Null: "m"})
	for _, tc := range []struct {
		name  string
		steps []Step
		want  string // part of the error; "" for none
	}{
		{"least", []Step{clone, exec}, ""},
		{"no clone", []Step{exec}, "before there is one"},
		{"no execve", []Step{clone}, "no clone or no execve"},
		{"two clones", []Step{clone, clone, exec}, "second clone"},
		{"after execve", []Step{clone, exec, at(Child, &Umask{})}, "after execve"},
		{"wrong lane", []Step{clone, at(Child, &LinkDelete{}), exec}, "can't be made in lane"},
		{"unknown descriptor", []Step{clone, at(Child, &MoveMount{From: "m", Target: "/x"}), exec}, `"m"`},
		{"host descriptor in the child", []Step{tree, clone, move, exec}, ""},
		{"host descriptor saved too late", []Step{clone, tree, move, exec}, `"m"`},
		// What a step does with a descriptor is what it says only if that is of the right kind.
		{"a mount as a stream", []Step{tree, clone, at(Child, &Stdio{From: "m"}), exec}, "none of the kind"},
		{"a mount under a stream's name", []Step{at(Host, &OpenTree{Path: "/", Save: "stdin"}), clone, exec}, "name of a stream"},
		{"a stream", []Step{clone, at(Child, &Stdio{From: "stdin"}), exec}, ""},
		{"hidden behind a file of the host", []Step{tree, clone, mask, exec}, "none of the kind"},
		{"hidden behind memory", []Step{clone, at(Child, memory), mask, exec}, "none of the kind"},
		{"hidden behind null", []Step{clone, at(Child, null), mask, exec}, ""},
		{"a file of the host as console", []Step{tree, clone, at(Child, &BindConsole{From: "m"}), exec}, "none of the kind"},
		{"a setting through a directory", []Step{tree, clone, at(Child, &Sysctl{From: "m", Key: "net/x"}), exec}, "none of the kind"},
		{"no op", []Step{{Lane: Host}, clone, exec}, "no op"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := (&Plan{Version: Version, Steps: tc.steps}).Validate()
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got error %v, want one with %q", err, tc.want)
			}
		})
	}
	if err := (&Plan{Version: 2, Steps: []Step{clone, exec}}).Validate(); err == nil {
		t.Error("a plan of version 2 is valid")
	}
}

func TestUndo(t *testing.T) {
	p := &Plan{Steps: []Step{
		at(Host, &CgroupCreate{Path: "/a"}), at(Host, &Clone{}), at(Host, &LinkVeth{Name: "v"}),
		at(Host, &NftPublish{Table: "t", Ports: []PortRule{{Proto: "tcp", HostPort: 1}}}),
	}}
	var got []string
	for _, s := range p.Undo(len(p.Steps)) {
		got = append(got, s.Op.Kind())
	}
	if d := cmp.Diff([]string{"nft-unpublish", "link-delete", "cgroup-remove"}, got); d != "" {
		t.Errorf("undo (-want +got):\n%s", d)
	}
	if got := p.Undo(1); len(got) != 1 || got[0].Op.Kind() != "cgroup-remove" {
		t.Errorf("undo of the first step: %v", got)
	}
}

func FuzzJSON(f *testing.F) {
	data, _ := json.Marshal(full(f))
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		var p Plan
		if json.Unmarshal(data, &p) != nil {
			return
		}
		p.Validate()
		again, err := json.Marshal(&p)
		if err != nil {
			return // a step without an op
		}
		var q Plan
		if err := json.Unmarshal(again, &q); err != nil {
			t.Fatalf("%v\n%s", err, again)
		}
		if third, _ := json.Marshal(&q); string(third) != string(again) {
			t.Errorf("not stable:\n%s\n%s", again, third)
		}
	})
}

func FuzzBinary(f *testing.F) {
	f.Add(AppendBinary(nil, full(f)))
	f.Fuzz(func(t *testing.T, data []byte) {
		var p Plan
		if ReadBinary(data, &p) == nil {
			p.Validate()
		}
	})
}

func TestNoFileOutsideThisPackageIsNeeded(t *testing.T) {
	// The package is data only: it must not import what asks the kernel.
	files, _ := filepath.Glob("*.go")
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		source, _ := os.ReadFile(name)
		for _, bad := range []string{`"os"`, `"syscall"`, `"net"`, `"golang.org/x/sys/unix"`, `"unsafe"`} {
			if strings.Contains(string(source), "\t"+bad+"\n") {
				t.Errorf("%s imports %s", name, bad)
			}
		}
	}
}
