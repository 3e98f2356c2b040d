package engine

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"glassbox/container"
)

// TestParseTop: of the host's processes only the container's are kept, with the lines of their threads; a command keeps its spaces.
func TestParseTop(t *testing.T) {
	out := "UID     PID  CMD\nroot      1  init\nroot     42  sh -c  ls\n-         -  -\nroot     43  other\n-         -  -\n\n"
	got, err := parseTop(out, []int{42})
	want := &Processes{Titles: []string{"UID", "PID", "CMD"}, Rows: [][]string{{"root", "42", "sh -c ls"}, {"-", "-", "-"}}}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(d, err)
	}
	if _, err := parseTop("COMMAND\nls\n", nil); err == nil || !strings.Contains(err.Error(), "PID") {
		t.Errorf("without a column PID: %v", err)
	}
}

// TestOwnTop: where there is no ps, /proc says as much.
func TestOwnTop(t *testing.T) {
	got := ownTop([]int{1, 1 << 22}) // the second can't be there (proc(5), pid_max)
	if len(got.Rows) != 1 || got.Rows[0][1] != "1" || got.Rows[0][2] != "0" || len(got.Rows[0]) != len(got.Titles) {
		t.Errorf("got %q", got.Rows)
	}
	if got := sinceWhen(0); got == "?" {
		t.Error("the host's start is unknown")
	}
	if tick*100 != time.Second {
		t.Error("a tick is no hundredth")
	}
}

// TestExpose: what --expose names is published by -P like what the image names, found by filters, and told.
func TestExpose(t *testing.T) {
	words := container.Words{Image: "i", Expose: []string{"8080-8081", "53/udp"}, PublishAll: true, Publish: []string{"8081:8081"}}
	config, err := words.Config()
	if err != nil {
		t.Fatal(err)
	}
	c := &container.Container{Config: *config, Image: &container.Image{ExposedPorts: []string{"53/udp", "80/tcp"}}}
	got, err := ports(c)
	var keys []string
	for _, p := range got {
		keys = append(keys, p.Key())
	}
	if d := cmp.Diff([]string{"8081/tcp", "53/udp", "80/tcp", "8080/tcp"}, keys); d != "" || err != nil {
		t.Error(d, err)
	}
	for filter, want := range map[string]bool{"8080": true, "8000-9000/tcp": true, "8080/udp": false, "53/udp": true, "54/udp": false} {
		if got := hasPort(c, filter, true); got != want {
			t.Errorf("expose=%s: %v, want %v", filter, got, want)
		}
	}
	c.Config.PublishAll = false
	if hasPort(c, "80", false) || !hasPort(c, "8081", false) || !hasPort(c, "80", true) {
		t.Error("without -P only 8081 is published")
	}
}
