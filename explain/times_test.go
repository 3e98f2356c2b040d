package explain

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"glassbox/plan"
)

// sampleTimes are those of sample: the child is born at 400 µs, waits for the network, and one of its steps has no time.
func sampleTimes() *plan.Times {
	return &plan.Times{
		Begin: []int64{
			0, 10_000, 20_500, 30_000, 40_000, 50_000, 500_000, 900_000, 410_000, 600_000, 700_000, 950_000, -1, 990_000, 1_200_000,
			905_000,
		},
		Clone: 150_000, Born: 400_000, Host: 1_100_000, End: 2_000_000,
	}
}

func TestDuration(t *testing.T) {
	for ns, want := range map[int64]string{
		0: "0.00 µs", 7: "0.01 µs", 412: "0.41 µs", 9_990: "9.99 µs", 9_999: "10.0 µs", 41_230: "41.2 µs", 999_400: "999 µs", 999_600: "1.00 ms",
		12_345_678:  "12.3 ms",
		999_999_999: "1.00 s", 61_000_000_000: "61.0 s",
	} {
		if got := duration(ns); got != want {
			t.Errorf("%d ns: got %q, want %q", ns, got, want)
		}
	}
}

// TestShares: what is measured twice counts once, what isn't measured has a name, and all adds up.
func TestShares(t *testing.T) {
	got := shares([]part{
		{"host", 0, 50, hostTime}, {"child", 30, 60, childTime}, {"wait", 20, 90, waiting}, {"outside", 95, 300, hostTime},
	}, 10, 100, "nobody")
	want := []Share{{"child", 30}, {"wait", 30}, {"host", 20}, {"nobody", 5}, {"outside", 5}}
	if len(got) != len(want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	sum := int64(0)
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %v, want %v", got[i], want[i])
		}
		sum += got[i].Took
	}
	if sum != 90 {
		t.Errorf("the shares add up to %d, want 90", sum)
	}
	// A piece of a piece has its own name.
	for _, parts := range [][]part{
		{{"whole", 1, 10, commandTime}, {"piece", 3, 5, commandTime}},
		{{"piece", 3, 5, commandTime}, {"whole", 1, 10, commandTime}},
	} {
		if got := fmt.Sprint(shares(parts, 0, 10, "nobody")); got != "[{whole 7} {piece 2} {nobody 1}]" {
			t.Errorf("got %s", got)
		}
	}
}

func TestTextTimes(t *testing.T) {
	var b bytes.Buffer
	if err := Write(&b, "text", sample(), About{Times: sampleTimes()}, TextOptions{Width: 90}); err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/times", b.String())
	for line := range strings.Lines(b.String()) {
		if n := len([]rune(strings.TrimRight(line, "\n"))); n > 90 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	unsound := sampleTimes()
	unsound.Born = 0
	for i, s := range sample().Steps {
		if s.Lane == plan.Child {
			unsound.Begin[i] = -1
		}
	}
	b.Reset()
	if err := Write(&b, "text", sample(), About{Times: unsound}, TextOptions{}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), "The child's steps have no times") {
		t.Error("it isn't said why the child's steps have no times")
	}
	short := sampleTimes()
	short.Begin = short.Begin[1:]
	b.Reset()
	if err := Write(&b, "text", sample(), About{Times: short}, TextOptions{}); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "µs") {
		t.Error("times of another plan are shown")
	}
}

// TestJSONTimes: the times stand beside the plan, which reads back as the same.
func TestJSONTimes(t *testing.T) {
	var b bytes.Buffer
	if err := Write(&b, "json", sample(), About{Times: sampleTimes()}, TextOptions{}); err != nil {
		t.Fatal(err)
	}
	var p plan.Plan
	if err := json.Unmarshal(b.Bytes(), &p); err != nil {
		t.Fatal(err)
	}
	var without bytes.Buffer
	if err := Write(&without, "json", sample(), About{}, TextOptions{}); err != nil {
		t.Fatal(err)
	}
	var same plan.Plan
	if err := json.Unmarshal(without.Bytes(), &same); err != nil {
		t.Fatal(err)
	}
	got, _ := p.Hash()
	if want, _ := same.Hash(); got != want {
		t.Errorf("with times the plan's hash is %s, without %s", got, want)
	}
	var v struct {
		Times struct {
			Unit   string
			End    int64
			Steps  []*stepTime
			Phases []Share
		}
	}
	if err := json.Unmarshal(b.Bytes(), &v); err != nil {
		t.Fatal(err)
	}
	if v.Times.Unit != "ns" || len(v.Times.Steps) != len(p.Steps) || v.Times.Steps[12] != nil ||
		*v.Times.Steps[8] != (stepTime{410_000, 190_000, false}) || !v.Times.Steps[10].Waits {
		t.Errorf("got %+v", v.Times)
	}
	var sum int64
	for _, s := range v.Times.Phases {
		sum += s.Took
	}
	if sum != v.Times.End {
		t.Errorf("the phases add up to %d, the start took %d", sum, v.Times.End)
	}
}
