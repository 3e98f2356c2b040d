package plan

import (
	"fmt"
	"strconv"
	"strings"
)

// maxListed bounds the numbers in a list: more processors or memory nodes no kernel has.
const maxListed = 1 << 13

// ParseList reads a list of numbers and ranges such as "0-3,7", the kernel's form for processors and memory nodes (cpuset(7),
// list format), as a bit mask: number n is bit n%64 of word n/64. An empty list is an empty mask.
func ParseList(s string) ([]uint64, error) {
	var mask []uint64
	if s == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		low, high, isRange := strings.Cut(strings.TrimSpace(part), "-")
		first, err := strconv.ParseUint(low, 10, 16)
		last := first
		if err == nil && isRange {
			last, err = strconv.ParseUint(high, 10, 16)
		}
		if err != nil || last < first || last >= maxListed {
			return nil, fmt.Errorf("%q: want a list such as 0-3,7", s)
		}
		for n := first; n <= last; n++ {
			for uint64(len(mask)) <= n/64 {
				mask = append(mask, 0)
			}
			mask[n/64] |= 1 << (n % 64)
		}
	}
	return mask, nil
}
