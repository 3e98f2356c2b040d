package explain

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"glassbox/plan"
)

// writeOCI writes a config.json. JSON has no comments: what it can't say is in annotations.
func writeOCI(w io.Writer, v *View, a About) error {
	ids := func(rs []plan.IDRange) []object {
		var out []object
		for _, r := range rs {
			out = append(out, object{"containerID": r.Container, "hostID": r.Host, "size": r.Size})
		}
		return out
	}
	names := map[string]string{"net": "network"}
	namespaces := []object{}
	for _, ns := range v.New {
		namespaces = append(namespaces, object{"type": or(names[ns], ns)})
	}
	for _, ns := range []string{"mount", "pid", "net", "ipc", "uts", "cgroup", "user", "time"} {
		if p := v.Joined[ns]; p != "" {
			namespaces = append(namespaces, object{"type": or(names[ns], ns), "path": p})
		}
	}
	mounts, devices := v.ociMounts(), []object{}
	for _, d := range v.UserDevices() {
		devices = append(devices, object{
			"path": d.Path, "type": d.Type, "major": d.Major, "minor": d.Minor, "fileMode": d.Mode, "uid": d.UID,
			"gid": d.GID,
		})
	}
	sysctl := object{}
	for _, s := range v.Sysctls {
		key, value, _ := strings.Cut(s, "=")
		sysctl[key] = value
	}
	rlimits := []object{}
	for _, r := range v.Rlimits {
		rlimits = append(rlimits, object{"type": r.Type, "soft": r.Soft, "hard": r.Hard})
	}
	// Never null, which the specification has no place for.
	some := func(names []string) []string { return append([]string{}, names...) }
	var unsaid []string
	process := object{
		"terminal": v.Terminal, "args": v.Argv, "env": v.Env, "cwd": or(v.Cwd, "/"), "noNewPrivileges": v.NoNewPrivs, "rlimits": rlimits,
		"user": object{"uid": v.UID, "gid": v.GID, "umask": v.Umask, "additionalGids": append([]uint32{}, v.Groups...)},
		"capabilities": object{
			"bounding": some(v.Bounding), "effective": some(v.Effective), "permitted": some(v.Permitted), "inheritable": some(v.Inheritable),
			"ambient": some(v.Ambient),
		},
	}
	for _, p := range v.Proc {
		if score, ok := strings.CutPrefix(p, "oom_score_adj="); ok && json.Valid([]byte(score)) {
			process["oomScoreAdj"] = json.RawMessage(score)
		} else if profile, ok := strings.CutPrefix(p, "attr/apparmor/exec=exec "); ok {
			process["apparmorProfile"] = profile
		} else {
			unsaid = append(unsaid, clean("it writes to /proc/self/"+p))
		}
	}
	linux := object{
		"namespaces": namespaces, "maskedPaths": some(v.Masked), "readonlyPaths": some(v.Locked), "resources": v.ociResources(), "sysctl": sysctl,
		"devices":     devices,
		"cgroupsPath": v.Cgroup(), "rootfsPropagation": or(v.Root.Propagation, "private"),
	}
	if len(v.UIDMap) > 0 {
		linux["uidMappings"], linux["gidMappings"] = ids(v.UIDMap), ids(v.GIDMap)
	}
	var allow, partly []string
	if len(v.Filters) > 0 {
		for _, c := range v.Calls() {
			switch {
			case c.Always:
				allow = append(allow, c.Name)
			case c.Sometimes:
				partly = append(partly, c.Name)
			}
		}
		linux["seccomp"] = object{
			"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
			"syscalls": []object{{"names": some(allow), "action": "SCMP_ACT_ALLOW"}},
		}
	}
	unsaid = append(unsaid, v.unsaid("command", "env", "cwd", "umask", "terminal", "user", "groups", "hostname", "domainname", "readonly",
		"propagation", "binds", "tmpfs", "filesystems", "shm",
		"masked", "locked", "devices", "devicerules", "pidns", "ipcns", "utsns", "cgroupns", "timens", "userns", "mountns", "cgroup", "memory",
		"swap", "reservation", "swappiness",
		"oomkill", "shares", "quota", "cpuset", "cpumems", "pids", "blkio", "sysctls", "rlimits", "proc",
		"caps", "capsets", "nonewprivs", "seccomp", "root")...)
	if len(v.Root.Layers) > 0 {
		unsaid = append(unsaid, "the root is an overlay, which must be mounted at /root/path first: "+strings.Join(v.layers(), " on "))
	}
	if len(partly) > 0 {
		unsaid = append(unsaid, "allowed with some arguments only, and here not at all: "+strings.Join(partly, " "))
	}
	annotations := object{}
	for i, s := range unsaid {
		annotations[fmt.Sprintf("glassbox.unsaid/%02d", i+1)] = s
	}
	if a.Refused != "" {
		annotations["glassbox.refused"] = clean(refusal(a.Refused))
	}
	config := object{
		"ociVersion": "1.2.0", "process": process, "root": object{"path": or(v.Root.Source, v.Root.Mountpoint), "readonly": v.Root.ReadOnly},
		"mounts": mounts, "linux": linux,
		"annotations": annotations,
	}
	if v.Hostname != "" {
		config["hostname"] = v.Hostname
	}
	if v.Domainname != "" {
		config["domainname"] = v.Domainname
	}
	return writeJSON(w, config)
}

type object = map[string]any

func (v *View) ociMounts() []object {
	mounts := []object{}
	cgroup := false
	for _, m := range v.Mounts {
		options := slices.Clone(m.Options)
		if m.Type == "bind" {
			options = append(options, when(m.Recursive, "rbind", "bind"))
			if m.Propagation != "" {
				options = append(options, "r"+m.Propagation)
			}
		}
		if m.ReadOnly {
			options = append(options, when(m.Type == "bind" && m.Recursive, "rro", "ro"))
		}
		if strings.HasPrefix(m.Target, "/sys/fs/cgroup") { // one entry, of which each runtime makes what its host has
			if !cgroup {
				mounts = append(mounts, object{
					"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
					"options": without(options, "mode=755"),
				})
			}
			cgroup = true
			continue
		}
		mounts = append(mounts, object{"destination": m.Target, "type": m.Type, "source": or(m.Source, m.Type), "options": options})
	}
	return mounts
}

// ociRules are the rules for devices, as far as they are of the form that the specification has.
func (v *View) ociRules() []object {
	rules := []object{}
	for _, r := range v.DeviceRules {
		if f := strings.Fields(r); len(f) == 4 {
			o := object{"allow": f[0] == "allow", "type": f[1], "access": f[3]}
			major, minor, _ := strings.Cut(f[2], ":")
			if major != "*" {
				o["major"] = json.RawMessage(major)
			}
			if minor != "*" {
				o["minor"] = json.RawMessage(minor)
			}
			// The rule is a text of the plan's, which may say anything there.
			if json.Valid([]byte(major)) || major == "*" {
				rules = append(rules, o)
			}
		}
	}
	return rules
}

func (v *View) ociResources() object {
	l := v.Limits
	set := func(pairs ...any) object {
		out := object{}
		for i := 0; i < len(pairs); i += 2 {
			switch n := pairs[i+1].(type) {
			case *int64:
				if n != nil {
					out[pairs[i].(string)] = *n
				}
			case string:
				if n != "" {
					out[pairs[i].(string)] = n
				}
			case bool:
				if n {
					out[pairs[i].(string)] = n
				}
			}
		}
		return out
	}
	resources := object{"devices": v.ociRules()}
	for name, o := range map[string]object{
		"memory": set("limit", l.Memory, "swap", l.MemorySwap, "reservation", l.Reservation, "swappiness", l.Swappiness, "disableOOMKiller",
			l.OOMKillDisable),
		"cpu":     set("shares", l.shares(), "quota", l.Quota, "period", l.Period, "cpus", l.Cpus, "mems", l.Mems),
		"pids":    set("limit", l.Pids),
		"blockIO": set("weight", l.BlkioWeight),
	} {
		if len(o) > 0 {
			resources[name] = o
		}
	}
	return resources
}
