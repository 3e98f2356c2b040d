package bundle

import (
	"encoding/json"
	"math"
	"reflect"
	"testing"
	"time"

	"glassbox/plan"
	"glassbox/resctrl"
	"glassbox/systemd"
)

// sameAsJSON compares what is read with what package encoding/json reads, errors included.
func sameAsJSON(t *testing.T, text []byte) {
	t.Helper()
	var c, want record
	err, wantErr := c.read(text), json.Unmarshal(text, &want)
	if (err == nil) != (wantErr == nil) || err == nil && !reflect.DeepEqual(c, want) {
		t.Errorf("state %q: got %+v, %v\nwant %+v, %v", text, c, err, want, wantErr)
	}
	var l, wantLeft leftovers
	err, wantErr = l.read(text), json.Unmarshal(text, &wantLeft)
	if (err == nil) != (wantErr == nil) || err == nil && !reflect.DeepEqual(l, wantLeft) {
		t.Errorf("undo %q: got %+v, %v\nwant %+v, %v", text, l, err, wantLeft, wantErr)
	}
}

func texts(t testing.TB) [][]byte {
	remove := func(path string) plan.Step {
		return plan.Step{Lane: plan.Host, Phase: plan.Limits, Op: &plan.CgroupRemove{Path: path}}
	}
	list := [][]byte{[]byte(`{}`), []byte(`{"format":2,"id":"x"}`), []byte(`{"pid":-1}`), []byte(`{"restored":false}`), []byte("null"), nil}
	for _, c := range []record{
		{Format: recordFormat, ID: "x", Created: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), Namespaces: []string{"pid", "mount"}, Start: 7, PID: 8},
		{
			Format: recordFormat, ID: "x", Bundle: `/a "b"\`, Annotations: map[string]string{"a": "ä\n"}, Cgroups: map[string]string{"cpu": "/c"},
			Place: resctrl.Place{Class: "/r", Monitor: "/r/m"}, Hooks: []string{"poststop"}, Restored: true, SharedPIDs: true, Unit: "u", Systemd: &systemd.Facts{},
		},
		{ID: "\xff", Owner: 1000, Annotations: map[string]string{"": "x", "y": ""}, Cgroups: map[string]string{"": "/c"}},
	} {
		list = append(list, c.text())
	}
	for _, l := range []leftovers{
		{Cgroups: map[string]string{"cpu": "/c"}, Steps: []plan.Step{remove("/c"), remove("/d")}},
		{Steps: []plan.Step{remove("/c"), {Lane: plan.Host, Phase: plan.Limits, Op: &plan.ResctrlRemove{Path: "/r"}}}},
		{},
	} {
		text, err := l.text()
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, text)
	}
	return list
}

func TestRead(t *testing.T) {
	for _, text := range texts(t) {
		sameAsJSON(t, text)
	}
	// What an ordinary container has needs no help.
	for i, text := range texts(t)[6:] {
		r := reader{text: string(text)}
		r.object(func(string) {
			switch {
			case r.pos == len(r.text):
			case r.text[r.pos] == '{':
				r.table()
			case r.text[r.pos] == '"':
				r.string()
			case r.text[r.pos] == '[' && i < 3:
				r.strings()
			case r.text[r.pos] == '[':
				r.list('[', ']', func() { r.removal() })
			default:
				r.number(math.MaxUint64)
			}
		})
		if r.end(); r.other != (i == 1 || i == 4) {
			t.Errorf("%q: is it left to encoding/json: %v", text, r.other)
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, text := range texts(f) {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) { sameAsJSON(t, text) })
}
