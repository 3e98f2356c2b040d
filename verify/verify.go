// Package verify reads back from the kernel whether what a plan asked for is still so.
//
// Its one idea: a plan is a list of claims. A step that made something that lasts is a claim that it is there; /proc, the cgroup
// files, netlink and the container's own files say whether it HOLDS or DIFFERS. A step that left nothing (a descriptor that was
// closed, a byte between parent and child) CAN'T BE OBSERVED, and the finding says why. What is there and in no step is told, too:
// mounts, links, addresses, routes, firewall rules, processes, devices.
//
// It only reads, and it stops nothing. It refuses to trust what it looks at: names of the container are resolved below its root and
// through no magic link (openat2(2)), files in it are looked at but never read, and a file system that doesn't answer costs two
// seconds. What it can't tell is who changed a thing: a finding says who may have.
//
// Start reading at [Run], then step.go, where each kind of step is decided, and mounts.go.
package verify

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"glassbox/host"
	"glassbox/plan"
)

// Version is the version of the JSON form of a [Report].
const Version = 1

// Verdict is what was found about a step.
type Verdict string

// The verdicts. Unlisted is for what is there and in no step.
const (
	Holds    Verdict = "holds"
	Differs  Verdict = "differs"
	Unseen   Verdict = "unobservable"
	Unlisted Verdict = "unlisted"
)

// Finding is what was found about a step, or beside all steps.
type Finding struct {
	Step    int     `json:"step,omitempty"` // from 1, as explain counts; 0: none
	Op      string  `json:"op,omitempty"`   // the step's kind
	What    string  `json:"what"`           // the step in words, or what was found beside the plan
	Origin  string  `json:"origin,omitempty"`
	Verdict Verdict `json:"verdict"`
	Asked   string  `json:"asked,omitempty"`
	Found   string  `json:"found,omitempty"`
	Where   string  `json:"where,omitempty"` // what was read
	Why     string  `json:"why,omitempty"`   // why it can't be observed, or who may have changed it
	Own     bool    `json:"own,omitempty"`   // it differs or is in no step, and the container can have done so itself
}

// Report is what was found about a container.
type Report struct {
	Version    int             `json:"version"`
	Name       string          `json:"name,omitempty"`
	PID        int             `json:"pid"`
	Plan       string          `json:"plan"`              // hash
	Refused    string          `json:"refused,omitempty"` // why run --plan would not run it here; Run leaves it empty
	Counts     map[Verdict]int `json:"counts"`
	Own        int             `json:"own"` // how many of those that differ or are in no step the container can have made so itself
	Steps      []Finding       `json:"steps"`
	Unexpected []Finding       `json:"unexpected"`
}

// Clean reports whether nothing differs from the plan and nothing was found beside it.
func (r *Report) Clean() bool { return r.Counts[Differs] == 0 && r.Counts[Unlisted] == 0 }

// Tampered reports whether something differs, or is in no step, that nobody in the container can have done.
func (r *Report) Tampered() bool { return r.Counts[Differs]+r.Counts[Unlisted] > r.Own }

// Target is the process that a plan is compared with.
type Target struct {
	Name  string // for the report
	PID   int
	Start uint64 // start time (see plan.OpenPid); 0: whatever process has the pid
}

// ErrGone is the error for a process that has ended, or ends while it is looked at.
var ErrGone = errors.New("there is no such process, or it has just ended")

// Run compares a process with a plan. A process that becomes another program meanwhile is looked at again.
func Run(p *plan.Plan, t Target) (r *Report, err error) {
	hash, err := p.Hash()
	if err != nil {
		return nil, err
	}
	// Thrice: a program that becomes another one again and again would keep this busy for ever.
	for range 3 {
		var again bool
		if r, again, err = once(p, t, hash); err != nil || !again {
			break
		}
	}
	return r, err
}

func once(p *plan.Plan, t Target, hash string) (r *Report, again bool, err error) {
	v, err := look(p, t)
	if err != nil {
		return nil, false, err
	}
	defer v.close()
	r = &Report{
		Version: Version, Name: t.Name, PID: t.PID, Plan: hash,
		Counts: map[Verdict]int{Holds: 0, Differs: 0, Unseen: 0, Unlisted: 0}, Unexpected: []Finding{},
	}
	for i, s := range p.Steps {
		f, decided := v.step(i)
		if !decided {
			return nil, false, fmt.Errorf("step %d: verify has no decision about %s", i+1, s.Op.Kind())
		}
		f.Step, f.Op, f.What, f.Origin = i+1, s.Op.Kind(), s.Op.String(), s.Origin
		r.Counts[f.Verdict]++
		r.Steps = append(r.Steps, f)
	}
	v.unlisted()
	r.Unexpected = append(r.Unexpected, v.extra...)
	r.Counts[Unlisted] = len(r.Unexpected)
	for _, f := range slices.Concat(r.Steps, r.Unexpected) {
		if f.Own {
			r.Own++
		}
	}
	// Had the process ended meanwhile, half of what was read would be about nobody.
	if !v.alive() {
		return nil, false, fmt.Errorf("process %d: %w", t.PID, ErrGone)
	}
	after, _ := v.read("cmdline")
	return r, after != v.cmdline, nil
}

// view is a process being looked at.
type view struct {
	plan    *plan.Plan
	pid     int
	dir     int               // /proc/PID: it stands for this process, whoever has the number later
	root    int               // its root directory, or -1
	noRoot  error             // why not
	status  map[string]string // /proc/PID/status
	stat    host.Stat         // /proc/PID/stat
	cmdline string            // when the look began
	waits   int               // index of the step at which the child still waits (AwaitStart), or -1: it has become the program

	keys   map[string]int // of steps that set the same thing: the last
	mounts *table
	net    *netView
	groups map[string]bool // directories of its cgroups
	extra  []Finding
	kept   bool // waiting: see patiently
}

func look(p *plan.Plan, t Target) (*view, error) {
	v := &view{plan: p, pid: t.PID, dir: -1, root: -1, waits: -1, keys: map[string]int{}}
	var err error
	if v.dir, err = unix.Open("/proc/"+strconv.Itoa(t.PID), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("process %d: %w", t.PID, ErrGone)
	}
	// First: what it becomes from here on is seen when the look is over.
	v.cmdline, _ = v.read("cmdline")
	if err = v.readStat(); err == nil && (v.stat.Ended() || t.Start != 0 && v.stat.Start != t.Start) {
		err = ErrGone
	}
	if err != nil {
		v.close()
		return nil, fmt.Errorf("process %d: %w", t.PID, err)
	}
	v.root, v.noRoot = unix.Openat(v.dir, "root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	for i, s := range p.Steps {
		if k := key(s.Op); k != "" {
			v.keys[k] = i
		}
		if _, ok := s.Op.(*plan.AwaitStart); ok && v.stat.Forked() {
			v.waits = i
		}
	}
	v.readGroups()
	v.readNet()
	v.readMounts()
	return v, nil
}

func (v *view) close() {
	for _, fd := range []int{v.dir, v.root} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	v.net.close()
}

// read reads a file below /proc/PID. It doesn't wait for ever: some files are in the memory of the process, which may be memory that
// a file system of its own has to bring (cmdline, environ).
func (v *view) read(name string) (string, error) {
	dir := v.dir
	return patiently(v, func() (string, error) {
		fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return "", err
		}
		f := os.NewFile(uintptr(fd), name)
		defer f.Close()
		// A bound on what the container can make this command hold; 100,000 mounts (fs.mount-max) take half of it.
		data, err := io.ReadAll(io.LimitReader(f, 64<<20))
		return string(data), err
	}, nil)
}

func (v *view) link(name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(v.dir, name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// proc is the name of a file for the report.
func (v *view) proc(name string) string { return "/proc/" + strconv.Itoa(v.pid) + "/" + name }

func (v *view) readStat() error {
	text, err := v.read("stat")
	if err != nil {
		return ErrGone
	}
	var ok bool
	if v.stat, ok = host.ParseStat(text); !ok {
		return ErrGone
	}
	text, err = v.read("status")
	if err != nil {
		return ErrGone
	}
	v.status = map[string]string{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		v.status[name] = strings.TrimSpace(value)
	}
	return nil
}

// alive looks at the process anew: dead, and a zombie, have nothing to be compared.
func (v *view) alive() bool {
	text, err := v.read("stat")
	if err != nil {
		return false
	}
	stat, ok := host.ParseStat(text)
	return ok && !stat.Ended()
}

// Results.

func holds(where, found string) Finding { return Finding{Verdict: Holds, Where: where, Found: found} }

func unseen(format string, a ...any) Finding {
	return Finding{Verdict: Unseen, Why: fmt.Sprintf(format, a...)}
}

func differs(where, asked, found string, who cause) Finding {
	return Finding{Verdict: Differs, Where: where, Asked: asked, Found: found, Why: who.why, Own: who.own}
}

// same is holds where asked and found are equal, else differs.
func same(where, asked, found string, who cause) Finding {
	if asked == found {
		return holds(where, found)
	}
	return differs(where, asked, found, who)
}

// failed is the finding for something that couldn't be read.
func failed(where string, err error) Finding {
	f := unseen("%s: %v", where, err)
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		f = unseen("this user may not read %s; root may", where)
	}
	f.Where = where
	return f
}

// missing is the finding for something that should be there, and isn't.
func missing(where, asked string, who cause) Finding {
	return differs(where, asked, "it isn't there", who)
}

// beside notes something that is there and in no step.
func (v *view) beside(what, where string, who cause) {
	v.extra = append(v.extra, Finding{What: what, Verdict: Unlisted, Where: where, Why: who.why, Own: who.own})
}

const (
	noTraceOf   = "%s: it leaves no trace"
	closedSince = "a descriptor, closed since: it leaves no trace"
)
