package oci

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"glassbox/plan"
	"glassbox/seccomp"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Validate checks a configuration, as it is in the bundle, for what has no meaning on Linux. The error is an [Invalid]. Names of
// system calls that are unknown here are found when the filter is compiled: it warns of them.
func Validate(s *specs.Spec) ([]Problem, error) {
	c := &checker{linux: s.Linux}
	if c.linux == nil {
		c.linux = &specs.Linux{}
	}
	c.version(s.Version)
	c.process(s.Process)
	c.root(s)
	for i := range s.Mounts {
		c.mount(fmt.Sprintf("/mounts/%d", i), &s.Mounts[i])
	}
	c.hooks(s.Hooks)
	if _, ok := s.Annotations[""]; ok {
		c.fail("/annotations", "an annotation has an empty name: give it one, such as org.example.key")
	}
	c.namespaces()
	c.ids(s.Process)
	c.devices()
	c.kernel()
	c.resources()
	c.filter()
	return c.warnings, c.err()
}

// checker collects what is wrong.
type checker struct {
	linux    *specs.Linux
	errors   Invalid
	warnings []Problem
}

func (c *checker) fail(pointer, format string, args ...any) {
	c.errors = append(c.errors, Problem{Pointer: pointer, Text: fmt.Sprintf(format, args...)})
}

func (c *checker) warn(pointer, format string, args ...any) {
	c.warnings = append(c.warnings, Problem{Pointer: pointer, Text: fmt.Sprintf(format, args...)})
}

func (c *checker) err() error {
	if len(c.errors) == 0 {
		return nil
	}
	return c.errors
}

// below cuts off the beginning of all pointers, for a part of a configuration that comes alone. It returns the warnings.
func (c *checker) below(pointer string) []Problem {
	for _, list := range [...][]Problem{c.errors, c.warnings} {
		for i := range list {
			list[i].Pointer = strings.TrimPrefix(list[i].Pointer, pointer)
		}
	}
	return c.warnings
}

// namespace returns the entry of a type, or nil.
func (c *checker) namespace(t specs.LinuxNamespaceType) *specs.LinuxNamespace {
	for i := range c.linux.Namespaces {
		if c.linux.Namespaces[i].Type == t {
			return &c.linux.Namespaces[i]
		}
	}
	return nil
}

// oneOf checks a word against those that there are.
func (c *checker) oneOf(pointer, what, word string, words []string) bool {
	switch {
	case slices.Contains(words, word):
		return true
	case word == "":
		c.fail(pointer, "missing: one of %s is wanted", strings.Join(words, ", "))
	default:
		hint := maybe(word, words)
		if hint == "" {
			hint = ": there are " + strings.Join(words, ", ")
		}
		c.fail(pointer, "unknown %s %q%s", what, word, hint)
	}
	return false
}

// line checks a value that is written to a file of the kernel as one line.
func (c *checker) line(pointer, value string) bool {
	if strings.ContainsAny(value, "\n\r") {
		c.fail(pointer, "a line break in %q: it would be more than one setting", value)
		return false
	}
	return true
}

// absolute checks a path inside the container.
func (c *checker) absolute(pointer, name string) bool {
	switch {
	case name == "":
		c.fail(pointer, "missing: an absolute path is wanted")
	case !path.IsAbs(name):
		c.fail(pointer, "%q is not an absolute path: write it from / on", name)
	default:
		return true
	}
	return false
}

func (c *checker) version(v string) {
	const ptr = "/ociVersion"
	major, ok := semver(v)
	switch {
	case v == "":
		c.fail(ptr, "missing: it says which version of the runtime specification the configuration is written for, such as %q", specs.Version)
	case !ok:
		c.fail(ptr, "%q is no version: three numbers are wanted, such as %q (semver.org)", v, specs.Version)
	// Semantic versioning: of the same major number a newer one only adds, and what is unknown is warned of where it stands.
	case major != "1":
		c.fail(ptr, "version %s has other rules than 1.x, the only ones known here: write the configuration for %s", v, specs.Version)
	}
}

// semver returns the major number of a version (semver.org, 2.0.0).
func semver(v string) (major string, ok bool) {
	numeric := func(s string) bool {
		return s != "" && strings.Trim(s, "0123456789") == "" && (s == "0" || s[0] != '0')
	}
	words := func(s string, zeros bool) bool {
		for _, w := range strings.Split(s, ".") {
			if w == "" || strings.Trim(w, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-") != "" {
				return false
			}
			// A number in front of "+" has no leading zeros (semver.org, 9).
			if !zeros && strings.Trim(w, "0123456789") == "" && !numeric(w) {
				return false
			}
		}
		return true
	}
	v, build, hasBuild := strings.Cut(v, "+")
	v, pre, hasPre := strings.Cut(v, "-")
	numbers := strings.Split(v, ".")
	ok = len(numbers) == 3 && !slices.ContainsFunc(numbers, func(s string) bool { return !numeric(s) }) &&
		(!hasPre || words(pre, false)) && (!hasBuild || words(build, true))
	return numbers[0], ok
}

func (c *checker) root(s *specs.Spec) {
	switch {
	case s.Root == nil:
		c.fail("/root", "missing: say in path where the container's root file system is")
	case s.Root.Path == "":
		c.fail("/root/path", "missing: it says where the container's root file system is, such as \"rootfs\"")
	}
	for _, name := range [...]struct{ field, value string }{{"/hostname", s.Hostname}, {"/domainname", s.Domainname}} {
		if name.value == "" {
			continue
		}
		if len(name.value) > 64 {
			c.fail(name.field, "%d bytes are too long for the kernel, which takes 64", len(name.value))
		}
		if c.namespace(specs.UTSNamespace) == nil {
			c.fail(name.field, `without an entry {"type": "uts"} in /linux/namespaces it would become the name of the host: add that or leave `+
				`the name out`)
		}
	}
}

func (c *checker) mount(ptr string, m *specs.Mount) {
	switch {
	case m.Destination == "":
		c.fail(ptr+"/destination", "missing: an absolute path in the container is wanted")
	case !path.IsAbs(m.Destination):
		c.warn(ptr+"/destination", "%q is not an absolute path, it is taken below /", m.Destination)
	}
	bind, remount := isBind(m), slices.Contains(m.Options, "remount")
	for i, o := range m.Options {
		if ofTable(o) {
			c.warn(fmt.Sprintf("%s/options/%d", ptr, i), "%q is a word of /etc/fstab, for those who read that: it means nothing here", o)
		}
	}
	switch {
	case bind && m.Source == "" && !remount:
		c.fail(ptr+"/source", "missing: a bind mount shows a file or directory of the host, say which")
	case bind:
		for i, o := range m.Options {
			switch {
			case slices.Contains(mountOptions, o), o == "", ofTable(o):
			case isData(o):
				c.warn(fmt.Sprintf("%s/options/%d", ptr, i),
					"%q has no effect on a bind mount: its file system's own options were decided when the host mounted it", o)
			default:
				c.fail(fmt.Sprintf("%s/options/%d", ptr, i),
					"unknown option %q of a bind mount (what there is of a file system's own options was decided when the host mounted it)%s", o,
					maybe(o, mountOptions))
			}
		}
	case remount:
	case m.Type == "":
		c.fail(ptr+"/type", "missing: a file system such as tmpfs is wanted, or bind or rbind in options")
	case m.Type == "none":
		c.fail(ptr+"/type", "none is no file system: name one such as tmpfs, or add bind or rbind to options")
	}
	c.mappings(ptr+"/uidMappings", m.UIDMappings)
	c.mappings(ptr+"/gidMappings", m.GIDMappings)
	switch u, g := len(m.UIDMappings) > 0, len(m.GIDMappings) > 0; {
	case u && !g:
		c.fail(ptr+"/gidMappings", "missing, and there are uidMappings: a mapped mount needs both")
	case g && !u:
		c.fail(ptr+"/uidMappings", "missing, and there are gidMappings: a mapped mount needs both")
	case !u && (slices.Contains(m.Options, "idmap") || slices.Contains(m.Options, "ridmap")) && c.namespace(specs.UserNamespace) == nil:
		c.fail(ptr+"/options", "idmap needs uidMappings and gidMappings, here or for a user namespace of the container")
	}
}

func (c *checker) hooks(h *specs.Hooks) {
	if h == nil {
		return
	}
	for _, kind := range [...]struct {
		name string
		list []specs.Hook
	}{
		//lint:ignore SA1019 callers still send prestart hooks
		{"prestart", h.Prestart},
		{"createRuntime", h.CreateRuntime},
		{"createContainer", h.CreateContainer},
		{"startContainer", h.StartContainer},
		{"poststart", h.Poststart},
		{"poststop", h.Poststop},
	} {
		for i, hook := range kind.list {
			ptr := fmt.Sprintf("/hooks/%s/%d", kind.name, i)
			c.absolute(ptr+"/path", hook.Path)
			c.env(ptr+"/env", hook.Env)
			// The specification: "if set, timeout MUST be greater than zero".
			if hook.Timeout != nil && *hook.Timeout <= 0 {
				c.fail(ptr+"/timeout", "%d seconds: it must be greater than zero; leave it out for no limit", *hook.Timeout)
			}
		}
	}
}

func (c *checker) env(ptr string, env []string) {
	for i, e := range env {
		switch strings.IndexByte(e, '=') {
		case -1:
			c.fail(fmt.Sprintf("%s/%d", ptr, i), "%q has no =: a variable is written NAME=value", e)
		case 0:
			c.fail(fmt.Sprintf("%s/%d", ptr, i), "%q has no name in front of the =", e)
		}
	}
}

func rlimits() []string {
	return []string{
		"RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_CPU", "RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_LOCKS", "RLIMIT_MEMLOCK", "RLIMIT_MSGQUEUE",
		"RLIMIT_NICE", "RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_RSS", "RLIMIT_RTPRIO", "RLIMIT_RTTIME", "RLIMIT_SIGPENDING", "RLIMIT_STACK",
	}
}

// nobody is the id -1, which asks the kernel to leave the id as it is.
const nobody = ^uint32(0)

func (c *checker) process(p *specs.Process) {
	if p == nil {
		c.fail("/process", "missing: it says what runs in the container")
		return
	}
	switch {
	case len(p.Args) == 0:
		c.fail("/process/args", "missing: the program to run and its arguments, such as [\"sh\"]")
	case p.Args[0] == "":
		c.fail("/process/args/0", "empty: the name of the program is wanted")
	}
	c.absolute("/process/cwd", p.Cwd)
	c.env("/process/env", p.Env)
	if b := p.ConsoleSize; b != nil && p.Terminal && (b.Height > 65535 || b.Width > 65535) {
		c.fail("/process/consoleSize", "%d × %d characters are more than a terminal has, 65535 each way", b.Height, b.Width)
	}
	const keeps = "%d is -1 for the kernel, which then leaves the id as it is: that of whoever runs the container"
	if p.User.UID == nobody {
		c.fail("/process/user/uid", keeps, nobody)
	}
	if p.User.GID == nobody {
		c.fail("/process/user/gid", keeps, nobody)
	}
	if i := slices.Index(p.User.AdditionalGids, nobody); i >= 0 {
		c.fail(fmt.Sprintf("/process/user/additionalGids/%d", i), "%d is -1 for the kernel, no group has that number", nobody)
	}
	if u := p.User.Umask; u != nil && *u > 0o777 {
		c.fail("/process/user/umask", "%d (octal %o) is more than nine bits: JSON's numbers are decimal, write 0o022 as 18", *u, *u)
	}
	if p.Capabilities != nil {
		c.capabilities(*p.Capabilities)
	}
	for i, r := range p.Rlimits {
		ptr := fmt.Sprintf("/process/rlimits/%d", i)
		c.oneOf(ptr+"/type", "limit", r.Type, rlimits())
		if slices.ContainsFunc(p.Rlimits[:i], func(o specs.POSIXRlimit) bool { return o.Type == r.Type }) {
			c.fail(ptr+"/type", "%s is there twice: remove one", r.Type)
		}
		if r.Soft > r.Hard {
			c.fail(ptr+"/soft", "the soft limit %d is above the hard one, %d: lower it or raise that", r.Soft, r.Hard)
		}
	}
	if strings.ContainsFunc(p.ApparmorProfile, func(r rune) bool { return r < ' ' }) {
		c.fail("/process/apparmorProfile", "%q is no name of a profile: it has a control character", p.ApparmorProfile)
	}
	c.label("/process/selinuxLabel", p.SelinuxLabel)
	if o := p.OOMScoreAdj; o != nil && (*o < -1000 || *o > 1000) {
		c.fail("/process/oomScoreAdj", "%d is outside of -1000 (never killed) to 1000 (killed first)", *o)
	}
	if p.Scheduler != nil {
		c.scheduler(p.Scheduler)
	}
	if o := p.IOPriority; o != nil {
		c.oneOf("/process/ioPriority/class", "class", string(o.Class),
			[]string{string(specs.IOPRIO_CLASS_RT), string(specs.IOPRIO_CLASS_BE), string(specs.IOPRIO_CLASS_IDLE)})
		if o.Priority < 0 || o.Priority > 7 {
			c.fail("/process/ioPriority/priority", "%d is outside of 0 (first) to 7 (last)", o.Priority)
		}
	}
	if a := p.ExecCPUAffinity; a != nil {
		c.list("/process/execCPUAffinity/initial", "processors", a.Initial)
		c.list("/process/execCPUAffinity/final", "processors", a.Final)
	}
}

func (c *checker) label(ptr, label string) {
	if label != "" && strings.Count(label, ":") < 2 {
		c.fail(ptr, "%q is no SELinux label: user:role:type or user:role:type:level is wanted", label)
	}
}

// eachCapability calls keep for each entry of the five sets with what it lacks to be granted, "" if nothing, and removes it if
// the answer is false. The kernel takes an effective capability only if it is permitted, an ambient one only if it is permitted and
// inheritable (capabilities(7)). The specification wants a warning, not an error.
func eachCapability(caps *specs.LinuxCapabilities, keep func(set *[]string, i int, lacks string) bool) {
	unknown := func(name string) string {
		if plan.CapNumber(strings.ToUpper(name)) >= 0 {
			return ""
		}
		return "unknown capability"
	}
	has := func(set []string, name string) bool {
		return slices.ContainsFunc(set, func(s string) bool { return strings.EqualFold(s, name) })
	}
	// As they were asked for: what follows takes out of the sets while it compares with them.
	permitted, inheritable := caps.Permitted, caps.Inheritable
	for _, set := range [...]*[]string{&caps.Bounding, &caps.Effective, &caps.Permitted, &caps.Inheritable, &caps.Ambient} {
		var kept []string
		for i, name := range *set {
			lacks := unknown(name)
			switch {
			case lacks != "" || set != &caps.Effective && set != &caps.Ambient:
			case !has(permitted, name):
				lacks = "it is not permitted"
			case set == &caps.Ambient && !has(inheritable, name):
				lacks = "it is not inheritable"
			}
			if keep(set, i, lacks) {
				kept = append(kept, name)
			}
		}
		if len(kept) < len(*set) {
			*set = kept
		}
	}
}

func (c *checker) capabilities(caps specs.LinuxCapabilities) {
	names := map[*[]string]string{
		&caps.Bounding: "bounding", &caps.Effective: "effective", &caps.Permitted: "permitted",
		&caps.Inheritable: "inheritable", &caps.Ambient: "ambient",
	}
	eachCapability(&caps, func(set *[]string, i int, lacks string) bool {
		name := (*set)[i]
		ptr := fmt.Sprintf("/process/capabilities/%s/%d", names[set], i)
		switch lacks {
		case "":
		case "unknown capability":
			hint := maybe(name, capabilityNames())
			if plan.CapNumber("CAP_"+strings.ToUpper(name)) >= 0 {
				hint = ": is CAP_" + strings.ToUpper(name) + " meant?"
			}
			c.warn(ptr, "%s %q, ignored%s", lacks, name, hint)
		case "it is not permitted":
			c.warn(ptr, "%s can't be granted, %s: add it to permitted", name, lacks)
		default:
			c.warn(ptr, "%s can't be granted, %s: add it to inheritable", name, lacks)
			c.warnings[len(c.warnings)-1].Usual = true // runc 1.1's example has three of them
		}
		return true
	})
}

func capabilityNames() []string {
	names := make([]string, plan.CapCount())
	for i := range names {
		names[i] = plan.CapName(i)
	}
	return names
}

func (c *checker) scheduler(s *specs.Scheduler) {
	const ptr = "/process/scheduler"
	policies := []string{"SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "SCHED_IDLE", "SCHED_DEADLINE"}
	switch {
	case s.Policy == specs.SchedISO:
		c.fail(ptr+"/policy", "Linux never had SCHED_ISO: there are %s", strings.Join(policies, ", "))
		return
	case !c.oneOf(ptr+"/policy", "policy", string(s.Policy), policies):
		return
	}
	if s.Nice < -20 || s.Nice > 19 {
		c.fail(ptr+"/nice", "%d is outside of -20 (first) to 19 (last)", s.Nice)
	}
	switch s.Policy {
	case specs.SchedFIFO, specs.SchedRR:
		if s.Priority < 1 || s.Priority > 99 {
			c.fail(ptr+"/priority", "%d is outside of 1 to 99, which %s needs", s.Priority, s.Policy)
		}
	default:
		if s.Priority != 0 {
			c.fail(ptr+"/priority", "%s has no priority, only SCHED_FIFO and SCHED_RR have: leave it out", s.Policy)
		}
	}
	switch deadline := s.Policy == specs.SchedDeadline; {
	case !deadline && (s.Runtime != 0 || s.Deadline != 0 || s.Period != 0):
		c.fail(ptr, "runtime, deadline and period are for SCHED_DEADLINE, the policy is %s", s.Policy)
	// DL_SCALE in kernel/sched/deadline.c: the lowest ten bits are not counted.
	case deadline && s.Runtime < 1024:
		c.fail(ptr+"/runtime", "%d ns is less than the 1024 that the kernel takes", s.Runtime)
	case deadline && (s.Deadline < s.Runtime || s.Period != 0 && s.Period < s.Deadline):
		c.fail(ptr, "runtime %d, deadline %d and period %d must not get smaller in this order (a period of 0 is the deadline)", s.Runtime,
			s.Deadline, s.Period)
	}
	for i, f := range s.Flags {
		c.oneOf(fmt.Sprintf("%s/flags/%d", ptr, i), "flag", string(f), []string{
			"SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_RECLAIM", "SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_KEEP_POLICY",
			"SCHED_FLAG_KEEP_PARAMS", "SCHED_FLAG_UTIL_CLAMP_MIN", "SCHED_FLAG_UTIL_CLAMP_MAX",
		})
	}
}

func (c *checker) filter() {
	if c.linux.Seccomp == nil {
		return
	}
	if err := seccomp.Check(c.linux.Seccomp); err != nil {
		p := Problem{Pointer: "/linux/seccomp", Text: err.Error()}
		if e := (*seccomp.Error)(nil); errors.As(err, &e) {
			p = Problem{Pointer: p.Pointer + e.Pointer, Text: e.Text}
		}
		c.errors = append(c.errors, p)
	}
}
