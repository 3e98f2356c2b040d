package container

import (
	"slices"
	"strconv"
	"strings"
)

// Rates bound how much a container's cables carry. Zero: as much as they can.
type Rates struct {
	In    int64 `json:"in,omitempty"`    // bytes per second that come to the container
	Out   int64 `json:"out,omitempty"`   // bytes per second that it sends
	Burst int64 `json:"burst,omitempty"` // bytes that may come at once, after a silence; 0: a hundredth of a second's, at least 64 KiB
}

// unlimited takes a rate away again.
const unlimited = -1

// rates reads --net-rate-in, --net-rate-out and --net-burst over what there is already.
func (w *Words) rates(r *Rates) error {
	for _, f := range []struct {
		flag, text string
		to         *int64
	}{{"net-rate-in", w.NetRateIn, &r.In}, {"net-rate-out", w.NetRateOut, &r.Out}, {"net-burst", w.NetBurst, &r.Burst}} {
		if f.text == "" {
			continue
		}
		n, err := parseRate(f.flag, f.text)
		if err != nil {
			return err
		}
		if *f.to = n; n == unlimited {
			*f.to = 0
		}
	}
	if r.Burst > 0 && r.In == 0 && r.Out == 0 {
		return Invalid("--net-burst goes with a rate: --net-rate-in or --net-rate-out")
	}
	return nil
}

// parseRate reads bytes ("10m", powers of 1024) or bits ("100mbit", powers of 1000, as tc(8) has them) per second; -1 is no limit.
func parseRate(flag, text string) (int64, error) {
	const least, most = 1 << 10, 1 << 40
	if text == "-1" || text == "unlimited" {
		return unlimited, nil
	}
	var n int64
	if number, ok := strings.CutSuffix(strings.ToLower(text), "bit"); ok && flag != "net-burst" {
		factor := int64(1)
		if number != "" {
			if i := strings.IndexByte("kmg", number[len(number)-1]); i >= 0 {
				factor = []int64{1e3, 1e6, 1e9}[i]
				number = number[:len(number)-1]
			}
		}
		bits, err := strconv.ParseFloat(number, 64)
		if err != nil || bits <= 0 || bits*float64(factor) > 8*most {
			return 0, Invalid("--%s %s: want bytes per second (10m) or bits (100mbit)", flag, text)
		}
		n = int64(bits * float64(factor) / 8)
	} else {
		var err error
		if n, err = ParseSize(flag, text); err != nil {
			return 0, err
		}
	}
	if n < least || n > most {
		return 0, Invalid("--%s %s: want at least 1k and at most 1t, or -1 for no limit", flag, text)
	}
	return n, nil
}

// check refuses rates that nobody would enforce.
func (r Rates) check(c *Config) error {
	if r == (Rates{}) {
		return nil
	}
	for _, e := range c.Networks() {
		mode := Mode(e.Network)
		switch {
		case mode.IsHost(), mode == "none", mode.Container() != "":
			return Invalid("--net-rate-in and --net-rate-out are about a cable of the container's own: with --network %s it has none", e.Network)
		}
	}
	if r.Out > 0 && (c.Privileged || slices.Contains(c.CapAdd, "CAP_NET_ADMIN") || slices.Contains(c.CapAdd, "CAP_ALL")) {
		return Invalid("--net-rate-out is kept at the container's end of the cable, which NET_ADMIN lets it change: " +
			"a limit that it may lift is none")
	}
	return nil
}
