package container

import (
	"strconv"
	"strings"
)

// Names of restart policies.
const (
	RestartNo            = "no"
	RestartOnFailure     = "on-failure"
	RestartAlways        = "always"
	RestartUnlessStopped = "unless-stopped"
	// RestartOnUnhealthy is our own: as on-failure, and a container whose health check says unhealthy is stopped and started again.
	RestartOnUnhealthy = "on-unhealthy"
)

// Restart is what happens when a container ends by itself. The zero value is that nothing does.
type Restart struct {
	Policy string `json:"policy,omitempty"` // one of the names above; empty: no
	Max    int    `json:"max,omitempty"`    // of on-failure and on-unhealthy: how often at most, one after the other; 0: without end
}

// None says that an end is the end.
func (r Restart) None() bool { return r.Policy == "" || r.Policy == RestartNo }

// Name is the policy's.
func (r Restart) Name() string { return first(r.Policy, RestartNo) }

// Words is the policy as --restart says it; empty for none.
func (r Restart) Words() string {
	if r.Max > 0 {
		return r.Policy + ":" + strconv.Itoa(r.Max)
	}
	return r.Policy
}

// ParseRestart reads --restart POLICY[:N]. Errors are Docker's, and say what would be right.
func ParseRestart(text string) (Restart, error) {
	fail := func(why string) (Restart, error) { return Restart{}, Invalid("--restart %s: %s", text, why) }
	name, number, counted := strings.Cut(text, ":")
	r := Restart{Policy: name}
	if counted && name == "" {
		return fail("invalid restart policy format: no policy provided before colon")
	}
	if number != "" {
		var err error
		if r.Max, err = strconv.Atoi(number); err != nil {
			return fail("invalid restart policy format: maximum retry count must be an integer")
		}
	}
	switch name {
	case "":
		return r, nil
	case RestartNo, RestartAlways, RestartUnlessStopped:
		if r.Max < 0 {
			return fail("invalid restart policy: maximum retry count can only be used with 'on-failure' and cannot be negative")
		}
		if r.Max != 0 {
			return fail("invalid restart policy: maximum retry count can only be used with 'on-failure' (or 'on-unhealthy')")
		}
	case RestartOnFailure, RestartOnUnhealthy:
		if r.Max < 0 {
			return fail("invalid restart policy: maximum retry count cannot be negative")
		}
	default:
		return fail("invalid restart policy: unknown policy '" + name +
			"'; use one of 'no', 'always', 'on-failure[:N]', 'unless-stopped', or 'on-unhealthy[:N]'")
	}
	return r, nil
}
