package cgroup

import (
	"fmt"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// DeviceProgram assembles the program for rules in words, as plan.DeviceFilter has them: "allow c 1:3 rwm". Whoever gets a plan from
// elsewhere compares: the kernel runs the program, and people read the rules.
func DeviceProgram(words []string) ([]byte, error) {
	var rules []rule
	for _, text := range words {
		f := strings.Fields(text)
		if len(f) != 4 || f[0] != "allow" && f[0] != "deny" {
			return nil, fmt.Errorf("device rule %q: want allow or deny, then a type, a number and the accesses, as in \"allow c 1:3 rwm\"", text)
		}
		d := specs.LinuxDeviceCgroup{Allow: f[0] == "allow", Type: f[1], Access: f[3]}
		major, minor, ok := strings.Cut(f[2], ":")
		for _, n := range []struct {
			text string
			to   **int64
		}{{major, &d.Major}, {minor, &d.Minor}} {
			if n.text == "*" {
				continue
			}
			var number int64
			if read, err := fmt.Sscanf(n.text, "%d", &number); !ok || err != nil || read != 1 {
				return nil, fmt.Errorf("device rule %q: %q is no number", text, f[2])
			}
			*n.to = &number
		}
		r, err := parseRule(d)
		if err != nil {
			return nil, fmt.Errorf("device rule %q: %w", text, err)
		}
		rules = append(rules, r)
	}
	return deviceProgram(rules), nil
}
