package explain

import (
	"fmt"
	"slices"
	"strings"
)

// judge collects the reasons of a grade.
type judge struct {
	v   *View
	out []Finding
	// ownUser: a user namespace of its own, in which capabilities count for nothing on the host; ownIDs: and none of its users is the
	// host's root. A namespace that maps all ids to themselves has the first and not the second.
	ownUser, ownIDs bool
	// root: it is, or can become, the host's root as far as the owner of a file is concerned.
	root bool
}

// findings are the reasons of the grade, worst first.
func (v *View) findings() []Finding {
	j := &judge{v: v, out: []Finding{}, ownUser: !v.Shares("user")}
	_, rootMapped := hostID(v.UIDMap, 0, !j.ownUser)
	for _, r := range v.UIDMap {
		rootMapped = rootMapped || j.ownUser && r.Host == 0 && r.Size > 0 // whoever in it is the host's user 0
	}
	j.ownIDs = j.ownUser && !rootMapped
	j.root = !j.ownIDs && (v.UID == 0 || !v.NoNewPrivs || v.hasAny("CAP_SETUID"))
	j.capabilities()
	j.start()
	j.files()
	j.devices()
	j.filter()
	j.walls()
	j.mounts()
	j.namespaces()
	j.network()
	j.process()
	rank := map[Severity]int{Total: 0, High: 1, Moderate: 2, Low: 3}
	slices.SortStableFunc(j.out, func(a, b Finding) int { return rank[a.Severity] - rank[b.Severity] })
	return j.out
}

func (j *judge) add(ok bool, s Severity, what, why, mend string) {
	if ok {
		j.out = append(j.out, Finding{s, clean(what), clean(why), clean(mend)})
	}
}

// capabilities are judged one by one. Each counts in the user namespace that owns what it is used on.
func (j *judge) capabilities() {
	v := j.v
	level := func(s Severity) Severity {
		if j.ownUser {
			return Low
		}
		return s
	}
	for _, c := range []struct {
		name string
		s    Severity
	}{
		{"CAP_SYS_MODULE", Total},
		{"CAP_SYS_RAWIO", Total},
		{"CAP_SYS_ADMIN", High},
		{"CAP_SYS_PTRACE", Moderate},
		{"CAP_DAC_READ_SEARCH", High},
		{"CAP_SYS_BOOT", High},
		{"CAP_BPF", High},
		{"CAP_PERFMON", High},
		{"CAP_SYS_TIME", High},
		{"CAP_MAC_ADMIN", High},
		{"CAP_MAC_OVERRIDE", High},
		{"CAP_AUDIT_CONTROL", High},
		{"CAP_NET_ADMIN", Moderate},
		{"CAP_SYS_NICE", Moderate},
		{"CAP_SYS_RESOURCE", Moderate},
		{"CAP_SYSLOG", Moderate},
		{"CAP_LINUX_IMMUTABLE", Moderate},
		{"CAP_IPC_LOCK", Moderate},
		{"CAP_NET_RAW", Low},
	} {
		mend := "--cap-drop=" + strings.TrimPrefix(c.name, "CAP_")
		if v.hasAny(c.name) {
			j.add(true, level(c.s), "it has "+c.name, "it may "+capMeaning(c.name), mend)
		} else if c.s != Low && slices.Contains(v.capsLater(), c.name) {
			j.add(true, level(Moderate), "it can get "+c.name+" from a program with the setuid bit", "it may then "+capMeaning(c.name), mend)
		}
	}
	j.add(v.Shares("pid") && v.hasAny("CAP_SYS_PTRACE", "CAP_SYS_ADMIN") && !j.ownUser, Total,
		"it sees the host's processes and may look into them",
		"whoever can trace a process of the host can make it do anything", "leave out --pid=host or drop SYS_PTRACE and SYS_ADMIN")
}

// start judges what the start does to the host, which no container would be asked about.
func (j *judge) start() {
	v := j.v
	for _, what := range v.OnHost {
		j.add(true, Total, "its start will "+what, "what the start does, it does with all the rights of whoever starts it", "")
	}
	j.add(v.Spread != "", High, "its start will "+v.Spread+", which appears on the host, too",
		"the mount around it is shared with the host's: "+
			"no step makes it private", "")
	for _, set := range v.HostSets {
		key, found := strings.CutPrefix(set, "/proc/sys/net/")
		s, why := Total, "that file is the host's, and it is written with all the rights of whoever starts the container"
		if found {
			// A bridge needs forwarding, and that is what published ports and the way out are made of.
			s, why = Moderate, "that setting is the host's network's"
			if strings.HasPrefix(key, "ipv4/conf/") || strings.HasPrefix(key, "ipv6/conf/") || strings.HasPrefix(key, "ipv4/ip_forward=") {
				continue
			}
		}
		j.add(true, s, "its start sets "+set+" on the host", why, "")
	}
	for _, hook := range v.Hooks {
		j.add(true, High, "its start runs a program of the host, "+hook, "hooks run outside of the container, with all privileges", "")
	}
	for _, u := range v.Unread {
		j.add(true, High, "step "+u, "this version doesn't know what it does", "")
	}
}

func (j *judge) files() {
	v := j.v
	j.add(!v.table.Entered(), Total, "its root is the host's", "no step changes the root: the host's files are its files", "")
	j.add(v.Root.Chroot && !v.Shares("mount"), Moderate, "its root is entered by chroot",
		"the host's file system is still mounted, out of sight, below it: pivot_root would have taken it away", "leave out --no-pivot")
	for _, m := range v.hostFiles() {
		exposure := judgePath(m.Source, m.ReadOnly, m.Recursive, m.BelowWritable)
		s := exposure.severity
		if j.ownIDs {
			s = weaker(s) // its root is nobody on the host: files that only root may open stay shut
		}
		what, mend := "it may change the host's "+m.Source, "mount it read-only, or mount less"
		switch {
		case exposure.socket:
			what, mend = "it may talk to the host's "+m.Source, "leave it out, or put something in between that lets single requests through"
		case m.ReadOnly:
			what, mend = "it may read the host's "+m.Source, ""
		}
		j.add(true, s, what, exposure.why, mend)
		// In a user namespace of its own its mounts are slaves of the host's (mount_namespaces(7)).
		j.add(m.Propagation == "shared" && !j.ownUser, High, "mounts that it makes below "+m.Target+" appear on the host", "shared propagation",
			"use slave or private propagation")
	}
}

// weaker is a severity a step lower, but never less than something.
func weaker(s Severity) Severity {
	switch s {
	case Total:
		return High
	case High:
		return Moderate
	}
	return s
}

func (j *judge) devices() {
	v := j.v
	access := v.deviceAccess()
	every := slices.Contains(access, "a *:* w") || slices.Contains(access, "b *:* w")
	j.add(every && !j.ownUser, Total, "it may write to every block device of the host", "writing to a disk is writing to every file on it",
		"leave out --privileged; name single devices with --device")
	// There the kernel lets nobody make nodes, so it can use what it is given (mknod(2), user_namespaces(7)).
	j.add(every && j.ownUser, High, "no rule keeps it from the host's devices", "nodes that it is given can be used", "")
	if every {
		return
	}
	memory := []string{"c 1:1", "c 1:2", "c 1:4", "c 1:*", "c *:*", "a *:*"} // mem, kmem, port
	for _, entry := range access {
		f := strings.Fields(entry)
		if f[2] == "m" {
			continue // to make a node is to be able to use it only where a rule says so
		}
		disk := High // to read it is to read every file on it
		if f[2] == "w" && !j.ownIDs {
			disk = Total
		}
		j.add(f[0] == "b" || f[0] == "a", disk, "it may "+deviceWords(entry), "the permissions of the files on it don't count below them",
			"--device with :r, or a mount of what is needed")
		j.add(slices.Contains(memory, f[0]+" "+f[1]), Total, "it may "+deviceWords(entry), "the host's memory is among them", "")
	}
	extra, usual := v.extraRules()
	for _, r := range extra {
		j.add(strings.HasPrefix(r, "allow c") && usual && strings.ContainsAny(r[strings.LastIndexByte(r, ' ')+1:], "rw"), Low,
			"it may use "+strings.TrimPrefix(r, "allow "), "a device of the host, and its driver", "")
	}
}

// filter judges what the system call filters let through, not what they are called.
func (j *judge) filter() {
	v := j.v
	const why, mend = "every system call is in reach, and every bug in one", "leave out seccomp=unconfined and --privileged"
	if len(v.Filters) == 0 {
		j.add(true, High, "no filter stands between it and the kernel", why, mend)
		return
	}
	if !v.filtered() {
		j.add(true, High, "its system call filter lets everything through", why, mend)
		return
	}
	for _, f := range v.Filters {
		name := f.Name
		if name == "default" {
			name = "though it is called default"
		}
		j.add(!v.isStandard(f), Low, "its system call filter is not the default one ("+name+")", "what it allows is listed below", "")
	}
	more := v.wider()
	if len(more) > 0 {
		worst := slices.DeleteFunc(slices.Clone(more), func(name string) bool {
			_, call, foreign := strings.Cut(name, " ")
			if !foreign {
				call = name
			}
			return !slices.Contains(surface(), call)
		})
		s, tell := Low, more
		if len(worst) > 0 {
			s, tell = Moderate, worst
		}
		j.add(true, s, "its filter lets through what the default one refuses: "+some(tell), "behind these calls lies more of the kernel", "")
	}
	for _, c := range v.Calls() {
		j.add(c.Sometimes && slices.Contains(byCapability(), c.Name) && !slices.Contains(more, c.Name), Low, "its filter allows "+c.Name,
			"default filters refuse it without a capability", "")
	}
}

// some are the first of many names.
func some(names []string) string {
	const most = 12
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// walls judges the paths of kernel file systems that are out of reach in other containers.
func (j *judge) walls() {
	breaches := j.v.breaches()
	var seen []string
	hidden, low := 0, true
	for _, b := range breaches {
		w := b.wall
		if !w.locked {
			seen, hidden = append(seen, b.at), hidden+1
			low = low && w.severity == Low
			continue
		}
		s := w.severity
		switch {
		case j.ownIDs:
			continue // the kernel asks whether it is the host's root (proc_sys_permission in fs/proc/proc_sysctl.c)
		case s == Total && !j.root:
			s = Moderate
		}
		why := map[string]string{
			"/sys":           "kernel/core_pattern there names a program that the kernel runs on the host as root",
			"/sysrq-trigger": "a letter written there restarts the machine, or kills all its processes",
			"/irq":           "it sets which processors answer the host's devices",
			"/bus":           "it is the configuration of the host's devices",
			"/fs":            "it sets the host's file systems",
		}[w.path]
		j.add(true, s, b.at+" can be written", why, "leave out systempaths=unconfined and --privileged")
	}
	s, what := Moderate, "not hidden: "+some(seen)
	all := 0
	for _, w := range walls() {
		if !w.locked {
			all++
		}
	}
	if hidden >= all {
		what = "nothing in /proc and /sys is hidden"
	}
	if low {
		s = Low
	}
	j.add(hidden > 0, s, what, "/proc/kcore, /sys/firmware and others tell of the host or control it",
		"leave out systempaths=unconfined and --privileged")
}

// mounts judges file systems that aren't files of the host, and yet lead there.
func (j *judge) mounts() {
	for _, m := range j.v.table.Mounts() {
		at := m.Path() + " (" + m.Type + ")"
		switch m.Type {
		case "bind", "overlay", "mask", "terminal", "tmpfs", "ramfs", "devpts", "mqueue", "proc", "device":
		case "sysfs":
			j.add(!m.ReadOnly && !j.ownIDs, High, at+" can be written", "it sets the host's devices and drivers", "")
		case "cgroup", "cgroup2":
			j.add(!m.ReadOnly, High, at+" can be written", "it could raise its own limits, and on v1 run programs on the host (CVE-2022-0492)", "")
		case "debugfs", "tracefs", "securityfs", "configfs", "efivarfs", "pstore", "bpf", "binfmt_misc", "fusectl", "devtmpfs", "nsfs":
			s := Total
			if m.ReadOnly || j.ownIDs {
				s = High
			}
			j.add(true, s, at+" is the whole kernel's", "what is seen and set there is the host's, not the container's", "")
		case "nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs", "ceph", "fuse":
			j.add(true, Moderate, at+" is another machine's, or the hypervisor's", "whoever is behind it answers the kernel's questions", "")
		default:
			why := "a file system of which this version doesn't know what lies in it; from a disk it is every file on it"
			j.add(true, Total, "it mounts "+or(m.Source, "something")+" on "+at, why, "")
		}
	}
}

func (j *judge) namespaces() {
	v := j.v
	j.add(v.Shares("mount"), Total, "it has no mount namespace of its own", "the host's files are its files", "")
	j.add(v.Joined["mount"] != "", High, "it shares the mounts of "+v.Joined["mount"], "another's files are its files", "")
	j.add(v.Shares("pid"), Moderate, "it sees the host's processes",
		"names, arguments and environments tell much; processes of its user can be signalled",
		"leave out --pid=host")
	j.add(v.Shares("ipc"), Moderate, "it shares System V IPC and message queues with the host", "programs of the host leave data there",
		"leave out --ipc=host")
	j.add(v.Joined["ipc"] != "", Low, "it shares System V IPC and message queues with another container",
		"what one leaves there, the other can change", "")
	j.add(v.Joined["pid"] != "", Low, "it sees the processes of another container", "those of its user can be signalled", "")
	j.add(v.Shares("uts"), Low, "it shares the host's name", "", "")
	j.add(v.Shares("cgroup"), Low, "it sees its place in the host's cgroup tree", "", "")
	j.add(v.Keyring == "", Moderate, "it keeps the keyring of whoever starts it", "keys of the host's session are in reach", "")
	j.add(v.FDs > 0, Moderate, fmt.Sprintf("it gets %d descriptors of whoever starts it", v.FDs), "what they lead to is in reach", "")
}

func (j *judge) network() {
	v := j.v
	j.add(v.Net.Mode == "host", Moderate, "it uses the host's network",
		"it reaches what listens on 127.0.0.1 only, and may take the host's ports",
		"use the bridge, and publish ports")
	j.add(v.Net.Mode == "joined", Low, "it shares the network of another container", "what listens on 127.0.0.1 there is in reach", "")
	j.add(len(v.Net.Parents) > 0, Low, "it is on the host's own cable",
		"whoever is there reaches all of its ports, and no firewall of the host is asked",
		"a network of the driver bridge")
	j.add(v.Net.Mode == "bridge" && !v.behindWalls(), Low, "it reaches other machines", "what runs in it can talk to the outside",
		"--egress deny, or what it needs; --network=none")
	for _, p := range v.Net.Ports {
		j.add(p.HostIP == "" || p.HostIP == "0.0.0.0", Low, fmt.Sprintf("port %d/%s of every address of the host leads to it", p.HostPort,
			p.Proto),
			"others can reach it", fmt.Sprintf("-p 127.0.0.1:%d:%d for this machine only", p.HostPort, p.ContainerPort))
	}
}

func (j *judge) process() {
	v := j.v
	uid, mapped := hostID(v.UIDMap, v.UID, !j.ownUser)
	j.add(mapped && uid == 0, Low, "it runs as root, who is also the host's root", "a way out of the container would be a way to root",
		"--user, or a user namespace")
	j.add(!v.NoNewPrivs, Low, "programs with the setuid bit can raise its privileges", "", "--security-opt no-new-privileges")
	j.add(v.Limits.Memory == nil || *v.Limits.Memory < 0, Low, "its memory has no limit", "it can use up the host's", "--memory")
	j.add(v.Limits.Pids == nil || *v.Limits.Pids < 0, Low, "the number of its processes has no limit", "a fork bomb would hit the host",
		"--pids-limit")
}
