package systemd

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"glassbox/plan"

	"golang.org/x/sys/unix"
)

const (
	name    = "org.freedesktop.systemd1"
	object  = "/org/freedesktop/systemd1"
	manager = "org.freedesktop.systemd1.Manager"
)

// Facts are what has to be known of a manager before units can be described.
type Facts struct {
	User    bool   // it is a user's, not the system's
	Version int    // 252
	Cgroup  string // that its units are below: "/" for the system's, "/user.slice/user-1000.slice/user@1000.service" for a user's
}

// Booted reports whether systemd is the machine's first process (sd_booted(3)).
func Booted() bool {
	var st unix.Stat_t
	return unix.Lstat("/run/systemd/system", &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// User reports whether the manager to ask is the caller's own: that of an ordinary user, or of one who is root in a user namespace
// only, as those are whom a user's Podman calls. In a container with a systemd of its own the system's belongs to root there.
func User() bool {
	var st unix.Stat_t
	return unix.Geteuid() != 0 || unix.Lstat("/run/systemd/system", &st) == nil && st.Uid != 0
}

// Probe asks the system's manager, or the caller's own, who it is.
func Probe(user bool) (*Facts, error) {
	c, err := dial(user)
	if err != nil {
		return nil, err
	}
	defer c.close()
	version, err := c.property("Version")
	if err != nil {
		return nil, err
	}
	group, err := c.property("ControlGroup")
	if err != nil {
		return nil, err
	}
	f := &Facts{User: user, Version: versionNumber(version), Cgroup: group}
	if f.Cgroup == "" {
		f.Cgroup = "/"
	}
	return f, nil
}

// versionNumber reads "252.39-1~deb12u1", "v245", "255-rc1". It is 0 for what it can't read.
func versionNumber(s string) int {
	s = strings.TrimPrefix(s, "v")
	if i := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		s = s[:i]
	}
	n, _ := strconv.Atoi(s)
	return n
}

func (c *client) property(property string) (string, error) {
	e := &encoder{}
	e.string(manager)
	e.string(property)
	m, err := c.call(name, object, "org.freedesktop.DBus.Properties", "Get", "ss", e.b)
	if err != nil {
		return "", err
	}
	return m.one()
}

// method calls a method of the manager.
func (c *client) method(method, signature string, body func(*encoder)) (*message, error) {
	e := &encoder{}
	body(e)
	if e.err != nil {
		return nil, fmt.Errorf("systemd: %s: %w", method, e.err)
	}
	return c.call(name, object, manager, method, signature, e.b)
}

// job calls a method that starts a job, and waits for its end. The result is "done", "failed", "timeout", "canceled" …
func (c *client) job(method, signature string, body func(*encoder)) (result string, err error) {
	if c.bus {
		e := &encoder{}
		e.string("type='signal',sender='" + name + "',interface='" + manager + "',member='JobRemoved'")
		if _, err := c.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "AddMatch", "s", e.b); err != nil {
			return "", err
		}
	}
	if _, err := c.method("Subscribe", "", func(*encoder) {}); err != nil && !isError(err, "AlreadySubscribed") {
		return "", err
	}
	m, err := c.method(method, signature, body)
	if err != nil {
		return "", err
	}
	job, err := m.one()
	if err != nil {
		return "", fmt.Errorf("systemd: %s: %w", method, err)
	}
	for deadline := time.Now().Add(patience); ; {
		for _, m := range c.jobs {
			if v, err := m.strings(); err == nil && len(v) == 3 && v[0] == job { // job, unit, result
				return v[2], nil
			}
		}
		c.jobs = nil
		m, err := c.receive()
		if err == nil && time.Now().After(deadline) {
			err = unix.ETIMEDOUT
		}
		if err != nil {
			return "", fmt.Errorf("systemd: %s: %w: %w", method, errWaiting, err)
		}
		if m.kind == signal && m.member == "JobRemoved" {
			c.jobs = append(c.jobs, *m)
		}
	}
}

// errWaiting says that a job has begun, and that it isn't known how it ended.
var errWaiting = errors.New("waiting for the job")

func (c *client) resetFailed(unit string) error {
	_, err := c.method("ResetFailedUnit", "s", func(e *encoder) { e.string(unit) })
	return err
}

// Start makes a transient scope with one process in it. A unit of that name which failed and is still remembered is forgotten
// first; one that runs is an error. After an error there is no unit that this call made.
func Start(op *plan.SystemdScope, pid int) error {
	c, err := dial(op.User)
	if err != nil {
		return err
	}
	defer c.close()
	properties := append(slices.Clone(op.Properties), plan.SystemdProperty{Name: "PIDs", Type: "au", Value: []string{strconv.Itoa(pid)}})
	start := func() (string, error) {
		return c.job("StartTransientUnit", "ssa(sv)a(sa(sv))", func(e *encoder) {
			e.string(op.Unit)
			e.string("replace")
			e.properties(properties)
			e.array(8, func() {}) // no further units
		})
	}
	result, err := start()
	if isError(err, "UnitExists") && c.resetFailed(op.Unit) == nil {
		result, err = start()
	}
	if errors.Is(err, errWaiting) {
		Stop(&plan.SystemdStop{Unit: op.Unit, User: op.User})
	}
	if err != nil {
		return err
	}
	if result != "done" {
		c.resetFailed(op.Unit)
		return fmt.Errorf("systemd: start unit %s: %s (see journalctl -u %s)", op.Unit, result, op.Unit)
	}
	return nil
}

// Set changes properties of a unit until it ends.
func Set(op *plan.SystemdSet) error {
	c, err := dial(op.User)
	if err != nil {
		return err
	}
	defer c.close()
	_, err = c.method("SetUnitProperties", "sba(sv)", func(e *encoder) {
		e.string(op.Unit)
		e.basic('b', "true") // runtime only: nothing is written to /etc
		e.properties(op.Properties)
	})
	return err
}

// Attach moves a process into a unit.
func Attach(op *plan.SystemdAttach, pid int) error {
	c, err := dial(op.User)
	if err != nil {
		return err
	}
	defer c.close()
	_, err = c.method("AttachProcessesToUnit", "ssau", func(e *encoder) {
		e.string(op.Unit)
		e.string("") // the unit's own cgroup, none below it
		e.array(4, func() { e.uint32(uint32(pid)) })
	})
	return err
}

// Stop stops a unit, waits for it, and makes systemd forget it.
func Stop(op *plan.SystemdStop) error {
	c, err := dial(op.User)
	if err != nil {
		return err
	}
	defer c.close()
	_, err = c.job("StopUnit", "ss", func(e *encoder) {
		e.string(op.Unit)
		e.string("replace")
	})
	if isError(err, "NoSuchUnit") {
		return nil
	}
	c.resetFailed(op.Unit) // fails if the unit is gone, as it should be
	return err
}
