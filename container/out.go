package container

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Words gives the container back in Docker's words, as they were typed where that is known: the inverse of [Words.Config].
func (c *Container) Words() Words {
	o, l := &c.Config, &c.Config.Limits
	w := Words{
		Image: o.Image, Command: o.Command, Name: c.Name, Hostname: o.Hostname, Domainname: o.Domainname, Workdir: o.Workdir, User: o.User,
		GroupAdd: o.Groups, Env: o.Env, TTY: o.TTY, Interactive: o.OpenStdin, Detach: o.Detach, Remove: o.Remove, Init: o.Init,
		Privileged: o.Privileged, ReadOnly: o.ReadOnly, CapAdd: o.typedList("cap-add", o.CapAdd), CapDrop: o.typedList("cap-drop", o.CapDrop),
		SecurityOpt: o.Security.WireOptions(), Namespaces: o.Namespaces.New, PID: string(o.Namespaces.PID), IPC: string(o.Namespaces.IPC),
		UTS: string(o.Namespaces.UTS), CgroupNS: string(o.Namespaces.Cgroup), CgroupParent: l.CgroupParent, OOMScoreAdj: l.OOMScoreAdj,
		ShmSize: o.typedSize("shm-size", o.ShmSize), PublishAll: o.PublishAll,
		DNS: o.DNS.Servers, DNSSearch: o.DNS.Search, DNSOption: o.DNS.Options, StopSignal: o.StopSignal, StopTimeout: o.StopTimeout,
		VolumesFrom: o.VolumesFrom, VolumeDriver: o.VolumeDriver,
		Platform: o.Platform, CIDFile: o.CIDFile, Memory: o.typedSize("memory", l.Memory), MemorySwap: o.typedSize("memory-swap", l.MemorySwap),
		MemoryReservation: o.typedSize("memory-reservation", l.Reservation), MemorySwappiness: l.Swappiness, OOMKillDisable: l.OOMDisable,
		CPUShares: l.CPUShares, CPUPeriod: l.CPUPeriod, CPUQuota: l.CPUQuota,
		CPURTPeriod: l.CPURTPeriod, CPURTRuntime: l.CPURTRuntime, CpusetCpus: l.CpusetCPUs, CpusetMems: l.CpusetMems,
		PidsLimit: l.Pids, BlkioWeight: l.BlkioWeight, LimitHints: l.Hints, ConsoleSize: o.ConsoleSize, Flags: o.Origins,
	}
	if o.Rootfs != nil {
		w.Rootfs, w.RootfsOverlay = o.Rootfs.Dir, o.Rootfs.Overlay
	}
	if o.Entrypoint != nil {
		word := strings.Join(o.Entrypoint, " ")
		w.Entrypoint = &word
	}
	if l.NanoCPUs != 0 {
		w.CPUs = o.typed("cpus", strconv.FormatFloat(float64(l.NanoCPUs)/1e9, 'f', -1, 64))
	}
	for _, key := range sortedKeys(o.Labels) {
		w.Label = append(w.Label, key+"="+o.Labels[key])
	}
	for _, key := range sortedKeys(o.Annotations) {
		w.Annotation = append(w.Annotation, key+"="+o.Annotations[key])
	}
	for _, key := range sortedKeys(o.StorageOpt) {
		w.StorageOpt = append(w.StorageOpt, key+"="+o.StorageOpt[key])
	}
	w.Expose, w.Egress, w.Ingress = o.Expose, o.Egress, o.Ingress
	for _, r := range []struct {
		flag string
		n    int64
		to   *string
	}{{"net-rate-in", o.Rates.In, &w.NetRateIn}, {"net-rate-out", o.Rates.Out, &w.NetRateOut}, {"net-burst", o.Rates.Burst, &w.NetBurst}} {
		if r.n != 0 {
			*r.to = o.typed(r.flag, strconv.FormatInt(r.n, 10))
		}
	}
	w.LogDriver, w.LogOpt = o.Log.Driver, o.Log.options()
	o.healthWords(&w)
	o.endpoints(&w)
	o.lists(&w)
	return w
}

// lists gives back what was asked for in flags that may be repeated.
func (c *Config) lists(w *Words) {
	l := &c.Limits
	add := func(to *[]string, origin, flag, canonical string) {
		if text, ok := strings.CutPrefix(origin, flag+" "); ok {
			canonical = text
		}
		if !slices.Contains(*to, canonical) { // a range of ports is one flag
			*to = append(*to, canonical)
		}
	}
	for _, m := range c.Mounts {
		switch m.Form {
		case FormVolume:
			add(&w.Volume, m.Origin, "-v", m.Volume())
		case FormTmpfs:
			add(&w.Tmpfs, m.Origin, "--tmpfs", strings.TrimSuffix(m.Target+":"+strings.Join(m.Options, ","), ":"))
		default:
			add(&w.Mount, m.Origin, "--mount", m.mountWords())
		}
	}
	for _, p := range c.Ports {
		add(&w.Publish, p.Origin, "-p", p.String())
	}
	for _, s := range c.Sysctls {
		add(&w.Sysctl, s.Origin, "--sysctl", s.Key+"="+s.Value)
	}
	for _, d := range c.Devices {
		add(&w.Device, d.Origin, "--device", d.Host+":"+d.Inside+":"+d.Access)
	}
	for _, r := range c.Requests {
		if text, gpus := r.words(); gpus {
			w.GPUs = append(w.GPUs, text)
		} else {
			w.Device = append(w.Device, text)
		}
	}
	for _, r := range c.Rules {
		add(&w.DeviceRule, r.Origin, "--device-cgroup-rule", r.Words())
	}
	for _, u := range l.Ulimits {
		add(&w.Ulimit, u.Origin, "--ulimit", fmt.Sprintf("%s=%d:%d", u.Name, int64(u.Soft), int64(u.Hard)))
	}
	for _, h := range c.Hosts {
		w.AddHost = append(w.AddHost, h.Name+":"+h.IP)
	}
	for _, t := range []struct {
		flag string
		list []Throttle
		to   *[]string
	}{
		{"--blkio-weight-device", l.BlkioWeights, &w.BlkioWeightDevice},
		{"--device-read-bps", l.ReadBps, &w.DeviceReadBps},
		{"--device-write-bps", l.WriteBps, &w.DeviceWriteBps},
		{"--device-read-iops", l.ReadIOps, &w.DeviceReadIOps},
		{"--device-write-iops", l.WriteIOps, &w.DeviceWriteIOps},
	} {
		for _, one := range t.list {
			add(t.to, one.Origin, t.flag, fmt.Sprintf("%s:%d", one.Device, one.Rate))
		}
	}
}

// typed is a flag's value as it was typed, or else the canonical one.
func (c *Config) typed(flag, canonical string) string {
	if text, ok := strings.CutPrefix(c.Origins[flag], "--"+flag+"="); ok {
		return text
	}
	return canonical
}

func (c *Config) typedSize(flag string, n int64) string {
	if n == 0 {
		return ""
	}
	return c.typed(flag, strconv.FormatInt(n, 10))
}

// typedList is typed for a flag that was repeated, which stands in Origins as often.
func (c *Config) typedList(flag string, canonical []string) []string {
	words := strings.Split(c.Origins[flag], " ")
	// A flag's value may have had a space in it: then it isn't known where one ends.
	if len(words) != len(canonical) {
		return canonical
	}
	var out []string
	for _, word := range words {
		text, ok := strings.CutPrefix(word, "--"+flag+"=")
		if !ok {
			return canonical
		}
		out = append(out, text)
	}
	return out
}

// mountWords is the mount as --mount says it.
func (m *Mount) mountWords() string {
	words := []string{"type=" + string(m.Type)}
	add := func(key, value string) {
		if value != "" {
			words = append(words, key+"="+value)
		}
	}
	flag := func(word string, on bool) {
		if on {
			words = append(words, word)
		}
	}
	add("source", m.Source)
	add("target", m.Target)
	flag("readonly", m.ReadOnly && m.Type != Layers)
	add("bind-propagation", m.Propagation)
	add("bind-recursive", string(m.Recursive))
	flag("bind-create-src", m.MakeSource && m.Type == Bind)
	flag("volume-nocopy", m.NoCopy)
	add(string(m.Type)+"-subpath", m.Subpath)
	for _, key := range sortedKeys(m.Labels) {
		add("volume-label", key+"="+m.Labels[key])
	}
	add("volume-driver", m.Driver)
	for _, key := range sortedKeys(m.DriverOptions) {
		add("volume-opt", key+"="+m.DriverOptions[key])
	}
	flag("idmap", m.IDMap)
	for _, opt := range m.Options {
		words = append(words, "tmpfs-"+opt)
	}
	for i, word := range words { // as in a line of comma-separated values (RFC 4180)
		if strings.ContainsAny(word, `",`) {
			words[i] = `"` + strings.ReplaceAll(word, `"`, `""`) + `"`
		}
	}
	return strings.Join(words, ",")
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
