package bundle

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"glassbox/oci"
	"glassbox/plan"
	"glassbox/resctrl"
	"glassbox/systemd"
)

// sameAsJSON compares what is read with what package encoding/json reads. That takes more than is ever written: properties twice, texts
// that aren't UTF-8.
func sameAsJSON(t *testing.T, text []byte) {
	t.Helper()
	var c, want record
	_, err := oci.Decode(text, &c)
	if wantErr := json.Unmarshal(text, &want); err == nil && (wantErr != nil || !reflect.DeepEqual(c, want)) {
		t.Errorf("state %q: got %+v\nwant %+v, %v", text, c, want, wantErr)
	}
	var l, wantLeft leftovers
	err, wantErr := l.read(text), json.Unmarshal(text, &wantLeft)
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
		{
			Format: recordFormat, ID: "x", Created: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), Namespaces: []string{"pid", "mount"}, Start: 7,
			PID: 8,
		},
		{
			Format: recordFormat, ID: "x", Bundle: `/a "b"\`, Annotations: map[string]string{"a": "ä\n"}, Cgroups: map[string]string{"cpu": "/c"},
			Place: resctrl.Place{Class: "/r", Monitor: "/r/m"}, Hooks: []string{"poststop"}, Restored: true, SharedPIDs: true, Unit: "u",
			Systemd: &systemd.Facts{},
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
	for i, text := range texts(t) {
		sameAsJSON(t, text)
		var c record
		if warnings, err := oci.Decode(text, &c); i > 5 && i < 9 && (err != nil || len(warnings) > 0) {
			t.Errorf("%q: %v, %v", text, warnings, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, text := range texts(f) {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) { sameAsJSON(t, text) })
}
