package fork

import "net/netip"

// parseAddrs reads the addresses of a step about names; what is none is left out, and nobody is found by it.
func parseAddrs(texts []string) []netip.Addr {
	var out []netip.Addr
	for _, text := range texts {
		if a, err := netip.ParseAddr(text); err == nil {
			out = append(out, a)
		}
	}
	return out
}
