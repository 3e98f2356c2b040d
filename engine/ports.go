package engine

import (
	"slices"
	"strconv"
	"strings"

	"glassbox/container"
)

// portSpan is several ports in a row, of one protocol.
type portSpan struct {
	first, last int
	proto       string
}

// portRange reads PORT[-PORT][/PROTO], as filters and images write ports.
func portRange(text string) (portSpan, error) {
	numbers, proto, ok := strings.Cut(text, "/")
	if !ok {
		proto = "tcp"
	}
	from, to, isRange := strings.Cut(numbers, "-")
	if !isRange {
		to = from
	}
	first, errFirst := strconv.ParseUint(from, 10, 16)
	last, errLast := strconv.ParseUint(to, 10, 16)
	if errFirst != nil || errLast != nil || last < first || !slices.Contains([]string{"tcp", "udp", "sctp"}, proto) {
		return portSpan{}, invalid("invalid port %q: want PORT[-PORT][/PROTO], as in 80/tcp", text)
	}
	return portSpan{int(first), int(last), proto}, nil
}

// hasPort reports whether a container publishes one of some of its ports, or exposes one.
func hasPort(c *container.Container, text string, exposed bool) bool {
	want, err := portRange(text)
	if err != nil {
		return false
	}
	var keys []string
	for _, p := range c.Config.Ports {
		keys = append(keys, p.Key())
	}
	// As with Docker, publish asks for -p, and expose for what the image says, too; with -P the one is the other.
	if exposed || c.Config.PublishAll {
		keys = append(keys, c.Exposed()...)
	}
	return slices.ContainsFunc(keys, func(key string) bool {
		got, err := portRange(key)
		return err == nil && got.proto == want.proto && got.first <= want.last && want.first <= got.last
	})
}
