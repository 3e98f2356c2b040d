package resctrl

import (
	"os"
	"path/filepath"
	"testing"

	"glassbox/plan"
)

func TestHas(t *testing.T) {
	const schemata = "    MB:0= 30;1=100\n    L3:0=00ff;1=ffff\nL3CODE:0=f\n"
	for _, test := range []struct {
		line string
		gran uint64
		want bool
	}{
		{"L3:0=ff", 0, true},
		{"L3:0=0xFF;1=ffff", 0, true},
		{"L3: 1=ffff; 0=ff", 0, true},
		{"L3:0=f", 0, false},
		{"L3:2=ff", 0, false},
		{"L2:0=ff", 0, false},
		{"L3CODE:0=f", 0, true},
		{"MB:0=30", 10, true},
		{"MB:0=25", 10, true}, // the kernel has rounded it
		{"MB:0=25", 0, false},
		{"MB:0=20", 10, false},
		{"MB:0=31", 10, false},
		{"MB:0=10", 16, false}, // a number is no mask
	} {
		if got := has(schemata, test.line, test.gran); got != test.want {
			t.Errorf("%q, in steps of %d: got %v, want %v", test.line, test.gran, got, test.want)
		}
	}
}

// TestRemove: a class that others may use stays while somebody is in it.
func TestRemove(t *testing.T) {
	for _, test := range []struct {
		shared bool
		tasks  string
		gone   bool
	}{{true, "1\n", false}, {true, "", true}, {false, "1\n", true}} {
		// Of the real one rmdir takes the files, too: here there must be none but the one that is asked for.
		dir := filepath.Join(t.TempDir(), "class")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if test.shared && test.tasks != "" {
			if err := os.WriteFile(dir+"/tasks", []byte(test.tasks), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := Remove(&plan.ResctrlRemove{Path: dir, Shared: test.shared}); err != nil {
			t.Errorf("%+v: %v", test, err)
		}
		if _, err := os.Stat(dir); os.IsNotExist(err) != test.gone {
			t.Errorf("%+v: got %v", test, err)
		}
	}
	if err := Remove(&plan.ResctrlRemove{Path: "/no/such/class", Shared: true}); err != nil {
		t.Errorf("one that is gone: %v", err)
	}
}
