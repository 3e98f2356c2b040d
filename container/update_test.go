package container

import (
	"errors"
	"strings"
	"testing"
)

// TestUpdate changes the limits of a container that has some: what isn't mentioned stays, and what contradicts the rest is refused.
func TestUpdate(t *testing.T) {
	base := func(w Words) *Config {
		w.Image = "i"
		c, err := w.Config()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	pids := int64(-1)
	c := base(Words{Memory: "100m", CPUs: "1", CpusetCpus: "0", Restart: "always", Flags: map[string]string{"memory": "--memory=100m"}})
	got, err := c.Update(&Words{
		Memory: "200m", PidsLimit: &pids, Restart: "on-failure:3", Flags: map[string]string{"memory": "--memory=200m", "dry-run": "--dry-run"},
	})
	if err != nil {
		t.Fatal(err)
	}
	l := got.Limits
	if l.Memory != 200<<20 || *l.Pids != -1 || l.NanoCPUs != 1e9 || l.CpusetCPUs != "0" || got.Restart != (Restart{RestartOnFailure, 3}) {
		t.Errorf("got %+v %+v", l, got.Restart)
	}
	if got.Origins["memory"] != "--memory=200m" || got.Origins["dry-run"] != "" || c.Origins["memory"] != "--memory=100m" {
		t.Errorf("origins %v, and those of before %v", got.Origins, c.Origins)
	}
	for _, tt := range []struct {
		has, words Words
		want       string
	}{
		{Words{CPUs: "1"}, Words{CPUQuota: 5000}, "the container has --cpus"},
		{Words{CPUPeriod: 5000}, Words{CPUs: "1"}, "the container has its own"},
		{Words{Memory: "100m", MemorySwap: "150m"}, Words{Memory: "200m"}, "update the memoryswap at the same time"},
		{Words{}, Words{MemorySwap: "150m"}, "you should always set the memory limit"},
		{Words{Memory: "100m"}, Words{MemoryReservation: "200m"}, "--memory-reservation 200m: the limit"},
		{Words{}, Words{Memory: "1k"}, "--memory 1k: minimum memory limit"},
		{Words{}, Words{Memory: "much"}, "invalid size"},
		{Words{}, Words{CPUShares: 1}, "want 2 to 262144"},
		{Words{}, Words{CPUPeriod: 1}, "less than 1ms"},
		{Words{}, Words{CPURTPeriod: 5, CPURTRuntime: 6}, "at most --cpu-rt-period"},
		{Words{}, Words{BlkioWeight: 5}, "range of blkio weight"},
		{Words{}, Words{Restart: "perhaps"}, "unknown policy 'perhaps'"},
		{Words{Remove: true}, Words{Restart: "always"}, "AutoRemove is enabled"},
	} {
		got, err := base(tt.has).Update(&tt.words)
		if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: got %+v, %v, want %q", tt.words, got, err, tt.want)
		}
	}
}

// TestParseRestart reads policies, and gives them back.
func TestParseRestart(t *testing.T) {
	for text, want := range map[string]Restart{
		"": {}, "no": {Policy: "no"}, "always": {Policy: "always"}, "unless-stopped": {Policy: "unless-stopped"},
		"on-failure": {Policy: "on-failure"}, "on-failure:3": {"on-failure", 3},
		"on-unhealthy:2": {"on-unhealthy", 2}, "always:": {Policy: "always"},
	} {
		got, err := ParseRestart(text)
		if err != nil || got != want || got.Words() != strings.TrimSuffix(text, ":") {
			t.Errorf("%q: %+v %q, %v, want %+v", text, got, got.Words(), err, want)
		}
	}
	for _, text := range []string{"Always", ":", ":3", "on-failure:x", "on-failure:-1", "always:1", "no:-1", "on-failure:1:2", "x:1"} {
		if got, err := ParseRestart(text); !errors.Is(err, ErrInvalid) || !strings.HasPrefix(err.Error(), "--restart ") {
			t.Errorf("%q: %+v, %v, want an error", text, got, err)
		}
	}
}

// TestChecked puts flags and image together, as Docker does.
func TestChecked(t *testing.T) {
	img := Health{Test: []string{"CMD", "/check", "me"}, Interval: 5, Timeout: 6, StartPeriod: 7, StartInterval: 8, Retries: 9}
	for _, tt := range []struct {
		name  string
		flags Words
		image Health
		args  string // of what is run; empty: nothing
		want  Health
	}{
		{"neither", Words{}, Health{}, "", Health{}},
		{"image", Words{}, img, "/check me", img},
		{"none", Words{NoHealthcheck: true}, img, "", Health{}},
		{"flags alone", Words{HealthCmd: "a b"}, Health{}, "/bin/sh -c a b", Health{
			Interval: DefaultInterval, Timeout: DefaultTimeout, StartInterval: DefaultStartInterval, Retries: DefaultRetries,
		}},
		{"flags first", Words{HealthCmd: "a", HealthRetries: 2, HealthInterval: 1e9}, img, "/bin/sh -c a", Health{
			Interval: 1e9, Timeout: 6, StartPeriod: 7, StartInterval: 8, Retries: 2,
		}},
		{"times alone, and no command", Words{HealthRetries: 2}, Health{}, "", Health{}},
		{"the image's none", Words{}, Health{Test: []string{"NONE"}}, "", Health{}},
	} {
		tt.flags.Image = "i"
		config, err := tt.flags.Config()
		if err != nil {
			t.Fatal(err)
		}
		c := Container{Image: &Image{Health: tt.image}, Config: *config}
		got, ok := c.Checked()
		if strings.Join(got.Args(), " ") != tt.args || ok != (tt.args != "") {
			t.Errorf("%s: runs %q, want %q", tt.name, got.Args(), tt.args)
		}
		got.Test, tt.want.Test = nil, nil
		if ok && (got.Interval != tt.want.Interval || got.Timeout != tt.want.Timeout || got.StartPeriod != tt.want.StartPeriod ||
			got.StartInterval != tt.want.StartInterval || got.Retries != tt.want.Retries) {
			t.Errorf("%s: got %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

// TestHintVariables: what is set is left alone, and what isn't limited has no hint.
func TestHintVariables(t *testing.T) {
	for _, tt := range []struct {
		limits Limits
		env    string
		want   string
	}{
		{Limits{Memory: 100 << 20, NanoCPUs: 1500000000}, "", ""}, // not asked for
		{Limits{Hints: true}, "", ""},
		{Limits{Hints: true, Memory: 100 << 20, NanoCPUs: 1500000000}, "", "GOMEMLIMIT=94371840 GOMAXPROCS=2"},
		{Limits{Hints: true, NanoCPUs: 2e9}, "", "GOMAXPROCS=2"},
		{Limits{Hints: true, CPUQuota: 5000}, "", "GOMAXPROCS=1"},
		{Limits{Hints: true, CPUQuota: 250000, CPUPeriod: 50000}, "", "GOMAXPROCS=5"},
		{Limits{Hints: true, CPUQuota: -1, CPUPeriod: 50000}, "", ""},
		{Limits{Hints: true, Memory: 100 << 20, NanoCPUs: 5e8}, "GOMEMLIMIT=off", "GOMAXPROCS=1"},
		{Limits{Hints: true, Memory: 100 << 20, NanoCPUs: 5e8}, "GOMAXPROCS=", "GOMEMLIMIT=94371840"},
	} {
		if got := strings.Join(tt.limits.HintVariables(strings.Fields(tt.env)), " "); got != tt.want {
			t.Errorf("%+v with %q: got %q, want %q", tt.limits, tt.env, got, tt.want)
		}
	}
}
