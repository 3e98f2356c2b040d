package container

import (
	"slices"
	"strings"
	"time"
)

// Health is how a container is asked whether it is well: a command in it, again and again. In a [Config] each zero is the image's value,
// and where that is zero, too, Docker's default.
type Health struct {
	// Test is what is run: CMD and a program with arguments, CMD-SHELL and a line for /bin/sh, NONE for nothing; empty: the image's.
	Test          []string      `json:"test,omitempty"`
	Interval      time.Duration `json:"interval,omitempty"`      // from the end of one check to the next
	Timeout       time.Duration `json:"timeout,omitempty"`       // after which a check is ended, and has failed
	StartPeriod   time.Duration `json:"startPeriod,omitempty"`   // for which failures don't count while no check has succeeded
	StartInterval time.Duration `json:"startInterval,omitempty"` // Interval in the start period
	Retries       int           `json:"retries,omitempty"`       // failures one after the other that make it unhealthy
}

// Docker's defaults.
const (
	DefaultInterval      = 30 * time.Second
	DefaultTimeout       = 30 * time.Second
	DefaultStartInterval = 5 * time.Second
	DefaultRetries       = 3
)

// First words of a Health's Test.
const (
	testNone  = "NONE"
	testCmd   = "CMD"
	testShell = "CMD-SHELL"
)

// IsZero is for encoding/json.
func (h Health) IsZero() bool {
	return len(h.Test) == 0 && h.Interval == 0 && h.Timeout == 0 && h.StartPeriod == 0 && h.StartInterval == 0 && h.Retries == 0
}

// Args is the program and its arguments; nil if nothing is to be run.
func (h Health) Args() []string {
	switch {
	case len(h.Test) > 1 && h.Test[0] == testCmd:
		return h.Test[1:]
	case len(h.Test) > 1 && h.Test[0] == testShell:
		// Docker's, whatever SHELL the image was built with: its configuration keeps the line and not the shell.
		return append([]string{"/bin/sh", "-c"}, h.Test[1:]...)
	}
	return nil
}

// Filled is h with Docker's defaults in place of zeros.
func (h Health) Filled() Health {
	for _, d := range []struct {
		to    *time.Duration
		value time.Duration
	}{{&h.Interval, DefaultInterval}, {&h.Timeout, DefaultTimeout}, {&h.StartInterval, DefaultStartInterval}} {
		if *d.to == 0 {
			*d.to = d.value
		}
	}
	if h.Retries == 0 {
		h.Retries = DefaultRetries
	}
	return h
}

// Asked is the container's health check as flags and image say together, without defaults, as Docker keeps it. It is zero if neither says
// anything.
func (c *Container) Asked() Health {
	h, img := c.Config.Health, c.image().Health
	// Nothing of the image's is filled in: what isn't run has no interval.
	if len(h.Test) == 1 && h.Test[0] == testNone {
		return h
	}
	if len(h.Test) == 0 {
		h.Test = img.Test
	}
	for _, d := range []struct {
		to    *time.Duration
		value time.Duration
	}{
		{&h.Interval, img.Interval}, {&h.Timeout, img.Timeout}, {&h.StartPeriod, img.StartPeriod}, {&h.StartInterval, img.StartInterval},
	} {
		if *d.to == 0 {
			*d.to = d.value
		}
	}
	if h.Retries == 0 {
		h.Retries = img.Retries
	}
	return h
}

// Checked reports whether the container has a health check, and returns it with nothing left out.
func (c *Container) Checked() (Health, bool) {
	h := c.Asked()
	return h.Filled(), h.Args() != nil
}

// health reads the words about the health check, and what happens when the container ends: both are about a container's life.
func (w *Words) health(c *Config) error {
	h := &c.Health
	*h = Health{
		Interval: w.HealthInterval, Timeout: w.HealthTimeout, StartPeriod: w.HealthStartPeriod, StartInterval: w.HealthStartInterval,
		Retries: w.HealthRetries,
	}
	for _, d := range []struct {
		flag  string
		value time.Duration
	}{
		{"interval", h.Interval},
		{"timeout", h.Timeout},
		{"start-period", h.StartPeriod},
		{"start-interval", h.StartInterval},
	} {
		switch {
		case d.value < 0:
			return Invalid("--health-%s cannot be negative", d.flag)
		// Docker's least. Less was mostly meant as seconds: a bare number is nanoseconds in the API.
		case d.value != 0 && d.value < time.Millisecond:
			return Invalid("--health-%s %v: it cannot be less than 1ms: give a unit, as in 30s", d.flag, d.value)
		}
	}
	if h.Retries < 0 {
		return Invalid("--health-retries cannot be negative")
	}
	if strings.ContainsRune(w.HealthCmd, 0) {
		return Invalid("--health-cmd: a zero byte can't be in a command")
	}
	if w.HealthCmd != "" {
		h.Test = []string{testShell, w.HealthCmd}
	}
	if w.NoHealthcheck {
		if !h.IsZero() {
			return Invalid("--no-healthcheck conflicts with --health-* options")
		}
		h.Test = []string{testNone}
	}
	var err error
	if c.Restart, err = ParseRestart(w.Restart); err != nil {
		return err
	}
	if w.Remove && !c.Restart.None() {
		return Invalid("conflicting options: cannot specify both --restart and --rm: one that is removed when it ends can't be started again")
	}
	return nil
}

// healthWords gives the health check back in Docker's words.
func (c *Config) healthWords(w *Words) {
	h := &c.Health
	w.HealthInterval, w.HealthTimeout, w.HealthStartPeriod, w.HealthStartInterval = h.Interval, h.Timeout, h.StartPeriod, h.StartInterval
	w.HealthRetries, w.NoHealthcheck = h.Retries, slices.Equal(h.Test, []string{testNone})
	if len(h.Test) == 2 && h.Test[0] == testShell {
		w.HealthCmd = h.Test[1]
	}
	w.Restart = c.Restart.Words()
}
