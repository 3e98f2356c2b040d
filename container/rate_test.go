package container

import (
	"strings"
	"testing"
)

func TestRates(t *testing.T) {
	for text, want := range map[string]int64{
		"10m": 10 << 20, "80mbit": 1e7, "1gbit": 125e6, "8kbit": -2, "1500": 1500, "-1": 0, "16.5kbit": 2062,
	} {
		c, err := (&Words{NetRateIn: text, NetRateOut: text}).Config()
		if want == -2 {
			if err == nil || !strings.Contains(err.Error(), "at least 1k") {
				t.Errorf("%s: got %v, want that it is too little", text, err)
			}
			continue
		}
		if err != nil || c.Rates.In != want || c.Rates.Out != want {
			t.Errorf("%s: got %+v, %v, want %d", text, c, err, want)
		}
	}
	for _, w := range []Words{
		{NetRateIn: "fast"},
		{NetRateIn: "0"},
		{NetRateIn: "-5"},
		{NetRateIn: "bit"},
		{NetRateIn: "1e30bit"},
		{NetRateIn: "nanbit"},
		{NetBurst: "1m"},
		{NetRateIn: "1m", NetBurst: "1mbit"},
		{NetRateOut: "1m", Privileged: true},
		{NetRateOut: "1m", CapAdd: []string{"NET_ADMIN"}},
		{NetRateIn: "1m", Network: []string{"host"}},
		{NetRateIn: "1m", Network: []string{"none"}},
		{NetRateIn: "2000000m"},
	} {
		if c, err := w.Config(); err == nil {
			t.Errorf("%+v: got %+v, want an error", w, c.Rates)
		}
	}
}
