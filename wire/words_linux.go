package wire

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// CheckName keeps to what the kernel takes as a name of a link, and to what is safe in a path and in a rule.
func CheckName(s string) error {
	if s == "" || len(s) >= unix.IFNAMSIZ || s == "." || s == ".." {
		return fmt.Errorf("link name %q: want 1 to 15 bytes", s)
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c == '/' || c == ':' || c == '"' || c == '\\' || c == '%' || c >= 0x7f {
			return fmt.Errorf("link name %q: invalid character %q", s, c)
		}
	}
	return nil
}

func parseMAC(s string) ([]byte, error) {
	mac := make([]byte, 0, 6)
	for i := 0; i < len(s); i += 3 {
		if i+2 > len(s) || i+2 < len(s) && s[i+2] != ':' {
			break
		}
		n, err := strconv.ParseUint(s[i:i+2], 16, 8)
		if err != nil {
			break
		}
		mac = append(mac, byte(n))
	}
	if len(mac) != 6 || len(s) != 17 {
		return nil, fmt.Errorf("hardware address %q: want six bytes like 02:42:ac:1e:00:02", s)
	}
	// The lowest bit of the first byte is the group bit (IEEE 802): a link can't have such an address.
	if mac[0]&1 != 0 {
		return nil, fmt.Errorf("hardware address %q is a multicast address", s)
	}
	return mac, nil
}
