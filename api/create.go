package api

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/blkiodev"
	moby "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"

	"glassbox/container"
	"glassbox/docker"
	"glassbox/engine"
	"glassbox/image"
	"glassbox/volume"
)

// words is a list of texts, or one text, or null: how commands have been written.
type words []string

// UnmarshalJSON implements json.Unmarshaler.
func (w *words) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil && len(data) > 0 && data[0] == '"' {
		*w = words{one}
		return nil
	}
	var list []string
	if err := json.Unmarshal(data, &list); err != nil {
		return err
	}
	*w = list
	return nil
}

// createRequest is the body of POST /containers/create.
type createRequest struct {
	moby.Config
	Cmd              words
	Entrypoint       words
	HostConfig       *moby.HostConfig
	NetworkingConfig *network.NetworkingConfig
	MacAddress       string // until 1.44
}

// create answers POST /containers/create.
func (q *request) create() error {
	var body createRequest
	if err := q.body(&body, false); err != nil {
		return err
	}
	o, err := q.createOptions(&body)
	if err != nil {
		return err
	}
	if q.s.policy != nil {
		if err := q.permit(o); err != nil {
			return err
		}
	}
	c, err := q.s.engine.Create(q.Context(), *o)
	// A container that the body names (VolumesFrom, PidMode, IpcMode) is a part of what is asked for, and not what is looked for.
	if errors.Is(err, engine.ErrNotFound) && strings.HasPrefix(message(err), "No such container") {
		return invalid("%s", message(err))
	}
	if err != nil {
		return err
	}
	return q.jsonStatus(http.StatusCreated, moby.CreateResponse{ID: c.ID, Warnings: append([]string{}, q.warned...)})
}

// createOptions are a request in the engine's terms: the flags that it stands for are read as the command line reads them, so that both
// have the same rules and each step of the plan says where it comes from.
func (q *request) createOptions(r *createRequest) (*engine.CreateOptions, error) {
	if r.HostConfig == nil {
		r.HostConfig = &moby.HostConfig{}
	}
	if r.Image == "" {
		return nil, invalid("no image specified: Config.Image is empty")
	}
	if err := refused(r); err != nil {
		return nil, err
	}
	if err := checkHealth(r.Healthcheck); err != nil {
		return nil, err
	}
	// What was the default then: clients that old take it for given.
	if q.version < 40 && r.HostConfig.IpcMode == "" {
		r.HostConfig.IpcMode = "shareable"
	}
	name := strings.TrimPrefix(q.query("name"), "/")
	if _, err := q.platform(); errors.Is(err, image.ErrUnknown) { // as with Docker: no image is for it
		return nil, &statusError{http.StatusNotFound, fmt.Sprintf("No such image: %s: %v", r.Image, err)}
	}
	w := container.Words{Image: r.Image, Name: name, Platform: q.query("platform"), Flags: map[string]string{}}
	r.process(&w)
	if err := r.isolation(&w); err != nil {
		return nil, err
	}
	// Docker's command line sends 0 if the flag wasn't given.
	if n := r.HostConfig.PidsLimit; n != nil && *n == 0 {
		r.HostConfig.PidsLimit = nil
	}
	if err := resources(&w, &r.HostConfig.Resources); err != nil {
		return nil, err
	}
	if err := r.files(&w); err != nil {
		return nil, err
	}
	if err := r.network(q, &w); err != nil {
		return nil, err
	}
	config, err := w.Config()
	if err != nil {
		return nil, err
	}
	if len(r.Entrypoint) > 0 {
		config.Entrypoint = r.Entrypoint
		if len(r.Entrypoint) == 1 && r.Entrypoint[0] == "" { // how the command line clears the image's
			config.Entrypoint = []string{}
		}
	}
	// A health check of zeros says nothing, and leaves the image's.
	if h := r.Healthcheck; h != nil && len(h.Test)+int(h.Interval+h.Timeout+h.StartPeriod+h.StartInterval)+h.Retries != 0 {
		config.Health = container.Health{
			Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod, StartInterval: h.StartInterval, Retries: h.Retries,
		}
	}
	return &engine.CreateOptions{Name: w.Name, Config: *config}, nil
}

// refused says no to what there is none of here, and would change what the container may do.
func refused(r *createRequest) error {
	h := r.HostConfig
	switch {
	// Its own, and the names that Docker has for its default one, which clients repeat.
	case h.Runtime != "" && h.Runtime != docker.Runtime && h.Runtime != "runc" && h.Runtime != "io.containerd.runc.v2":
		return invalid("unknown or invalid runtime name: %s", h.Runtime)
	case h.Isolation != "" && h.Isolation != moby.IsolationDefault:
		return invalid("invalid isolation '%s' on linux", h.Isolation)
	case h.UsernsMode != "" && h.UsernsMode != "host":
		return invalid("invalid user namespace mode %q: want host, or nothing", h.UsernsMode)
	case h.Cgroup != "":
		return invalid("HostConfig.Cgroup is not supported: %q", h.Cgroup)
	case h.CPUCount != 0 || h.CPUPercent != 0 || h.IOMaximumIOps != 0 || h.IOMaximumBandwidth != 0:
		return invalid("CpuCount, CpuPercent, IOMaximumIOps and IOMaximumBandwidth are for Windows")
	case volume.CheckDriver(h.VolumeDriver) != nil:
		return invalid("%v", volume.CheckDriver(h.VolumeDriver))
	case h.Umask != nil:
		return invalid("HostConfig.Umask is not supported")
	}
	return nil
}

// checkHealth refuses what can't be a health check, with Docker's words.
func checkHealth(h *moby.HealthConfig) error {
	if h == nil {
		return nil
	}
	if len(h.Test) > 0 && !slices.Contains([]string{"NONE", "CMD", "CMD-SHELL"}, h.Test[0]) {
		return invalid("unknown health check type %q: want NONE, CMD or CMD-SHELL", h.Test[0])
	}
	for _, d := range []struct {
		name string
		time time.Duration
	}{{"Interval", h.Interval}, {"Timeout", h.Timeout}, {"StartPeriod", h.StartPeriod}, {"StartInterval", h.StartInterval}} {
		if d.time != 0 && d.time < moby.MinimumDuration {
			return invalid("%s in Healthcheck cannot be less than %s", d.name, moby.MinimumDuration)
		}
	}
	if h.Retries < 0 {
		return invalid("Retries in Healthcheck cannot be negative")
	}
	return nil
}

// set notes a flag, as one would type it.
func set(w *container.Words, flag string, values ...string) {
	for _, v := range values {
		text := "--" + flag
		if v != "true" {
			text += "=" + v
		}
		if w.Flags[flag] != "" {
			text = w.Flags[flag] + " " + text
		}
		w.Flags[flag] = text
	}
}

// text notes a flag with a text, if there is one.
func text[T ~string](w *container.Words, flag string, to *string, value T) {
	if *to = string(value); value != "" {
		set(w, flag, string(value))
	}
}

// list notes a flag for each text.
func list(w *container.Words, flag string, to *[]string, values []string) {
	*to = append(*to, values...)
	set(w, flag, values...)
}

// flag notes one that is there or not.
func flag(w *container.Words, name string, to *bool, value bool) {
	if *to = value; value {
		set(w, name, "true")
	}
}

func pairs(m map[string]string) []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, k+"="+m[k])
	}
	return out
}

func (r *createRequest) process(w *container.Words) {
	h := r.HostConfig
	w.Command = r.Cmd
	text(w, "user", &w.User, r.User)
	text(w, "workdir", &w.Workdir, r.WorkingDir)
	text(w, "hostname", &w.Hostname, r.Hostname)
	text(w, "domainname", &w.Domainname, r.Domainname)
	text(w, "stop-signal", &w.StopSignal, r.StopSignal)
	list(w, "env", &w.Env, r.Env)
	list(w, "label", &w.Label, pairs(r.Labels))
	// A wall of one container, for which Docker's API has no field. Labels of the image, which is somebody else's, build none.
	for _, wall := range []struct {
		flag string
		to   *[]string
	}{{"egress", &w.Egress}, {"ingress", &w.Ingress}} {
		if text, ok := r.Labels["glassbox."+wall.flag]; ok {
			list(w, wall.flag, wall.to, []string{text})
		}
	}
	list(w, "annotation", &w.Annotation, pairs(h.Annotations))
	list(w, "group-add", &w.GroupAdd, h.GroupAdd)
	flag(w, "tty", &w.TTY, r.Tty)
	flag(w, "interactive", &w.Interactive, r.OpenStdin)
	flag(w, "rm", &w.Remove, h.AutoRemove)
	w.Detach = !r.AttachStdin && !r.AttachStdout && !r.AttachStderr || r.OpenStdin && !r.StdinOnce
	if r.StopTimeout != nil {
		w.StopTimeout = r.StopTimeout
		set(w, "stop-timeout", strconv.Itoa(*r.StopTimeout))
	}
	if h.Init != nil {
		flag(w, "init", &w.Init, *h.Init)
	}
	if r.Healthcheck != nil && len(r.Healthcheck.Test) > 0 {
		set(w, "health-cmd", strings.Join(r.Healthcheck.Test[1:], " "))
	}
	text(w, "cidfile", &w.CIDFile, h.ContainerIDFile)
	text(w, "log-driver", &w.LogDriver, h.LogConfig.Type)
	// Options without a driver are for the default one.
	if h.LogConfig.Type == "" && len(h.LogConfig.Config) > 0 {
		w.LogDriver = container.JSONFile
	}
	list(w, "log-opt", &w.LogOpt, pairs(h.LogConfig.Config))
	text(w, "restart", &w.Restart, restartWords(h.RestartPolicy))
	// A terminal's size has 16 bits (TIOCSWINSZ, ioctl_tty(2)).
	w.ConsoleSize = [2]uint16{uint16(min(h.ConsoleSize[0], 65535)), uint16(min(h.ConsoleSize[1], 65535))}
}

// restartWords is a policy as --restart says it.
func restartWords(p moby.RestartPolicy) string {
	name := string(p.Name)
	if name != "" && p.MaximumRetryCount != 0 {
		name += ":" + strconv.Itoa(p.MaximumRetryCount)
	}
	return name
}

func (r *createRequest) isolation(w *container.Words) error {
	h := r.HostConfig
	flag(w, "privileged", &w.Privileged, h.Privileged)
	flag(w, "read-only", &w.ReadOnly, h.ReadonlyRootfs)
	list(w, "cap-add", &w.CapAdd, h.CapAdd)
	list(w, "cap-drop", &w.CapDrop, h.CapDrop)
	for _, opt := range h.SecurityOpt {
		// Docker's command line sends a profile's text. The name of a file would be the server's, and anybody's.
		if value, ok := strings.CutPrefix(opt, "seccomp="); ok && value != "unconfined" && value != "builtin" &&
			!strings.HasPrefix(value, "{") {
			return invalid("--security-opt seccomp=%s: want the text of a profile, unconfined or builtin", value)
		}
		if opt == "seccomp=builtin" {
			continue
		}
		list(w, "security-opt", &w.SecurityOpt, []string{opt})
	}
	text(w, "pid", &w.PID, h.PidMode)
	text(w, "ipc", &w.IPC, h.IpcMode)
	text(w, "uts", &w.UTS, h.UTSMode)
	text(w, "cgroupns", &w.CgroupNS, h.CgroupnsMode)
	list(w, "sysctl", &w.Sysctl, pairs(h.Sysctls))
	if h.OomScoreAdj != 0 {
		w.OOMScoreAdj = h.OomScoreAdj
		set(w, "oom-score-adj", strconv.Itoa(h.OomScoreAdj))
	}
	return chosenPaths(w, h)
}

// sizeText is a number of bytes as a flag's value.
func sizeText(n int64) string { return strconv.FormatInt(n, 10) + "b" }

func resources(w *container.Words, h *moby.Resources) error {
	for _, n := range []struct {
		flag string
		to   *string
		from int64
	}{
		{"memory", &w.Memory, h.Memory},
		{"memory-swap", &w.MemorySwap, h.MemorySwap},
		{"memory-reservation", &w.MemoryReservation, h.MemoryReservation},
	} {
		switch {
		case n.from == -1 && n.flag == "memory-swap":
			text(w, n.flag, n.to, "-1")
		case n.from < 0:
			return invalid("invalid %s: %d is negative", n.flag, n.from)
		case n.from != 0:
			text(w, n.flag, n.to, sizeText(n.from))
		}
	}
	for _, n := range []struct {
		flag string
		to   *int64
		from int64
	}{
		{"cpu-shares", &w.CPUShares, h.CPUShares},
		{"cpu-period", &w.CPUPeriod, h.CPUPeriod},
		{"cpu-quota", &w.CPUQuota, h.CPUQuota},
		{"cpu-rt-period", &w.CPURTPeriod, h.CPURealtimePeriod},
		{"cpu-rt-runtime", &w.CPURTRuntime, h.CPURealtimeRuntime},
	} {
		if n.from != 0 {
			*n.to = n.from
			set(w, n.flag, strconv.FormatInt(n.from, 10))
		}
	}
	for _, c := range []struct{ name, list string }{{"cpus", h.CpusetCpus}, {"mems", h.CpusetMems}} {
		if strings.Trim(c.list, "0123456789,-") != "" {
			return invalid("Invalid value %s for cpuset %s", c.list, c.name)
		}
	}
	if h.NanoCPUs != 0 {
		text(w, "cpus", &w.CPUs, nanoCPUs(h.NanoCPUs))
	}
	text(w, "cpuset-cpus", &w.CpusetCpus, h.CpusetCpus)
	text(w, "cpuset-mems", &w.CpusetMems, h.CpusetMems)
	text(w, "cgroup-parent", &w.CgroupParent, h.CgroupParent)
	if h.PidsLimit != nil {
		w.PidsLimit = h.PidsLimit
		set(w, "pids-limit", strconv.FormatInt(*h.PidsLimit, 10))
	}
	// Docker's command line sends -1 if the flag wasn't given.
	if h.MemorySwappiness != nil && *h.MemorySwappiness != -1 {
		w.MemorySwappiness = h.MemorySwappiness
		set(w, "memory-swappiness", strconv.FormatInt(*h.MemorySwappiness, 10))
	}
	if h.OomKillDisable != nil {
		flag(w, "oom-kill-disable", &w.OOMKillDisable, *h.OomKillDisable)
	}
	if h.BlkioWeight != 0 {
		w.BlkioWeight = h.BlkioWeight
		set(w, "blkio-weight", strconv.Itoa(int(h.BlkioWeight)))
	}
	for _, t := range []struct {
		flag string
		to   *[]string
		from []*blkiodev.ThrottleDevice
	}{
		{"device-read-bps", &w.DeviceReadBps, h.BlkioDeviceReadBps},
		{"device-write-bps", &w.DeviceWriteBps, h.BlkioDeviceWriteBps},
		{"device-read-iops", &w.DeviceReadIOps, h.BlkioDeviceReadIOps},
		{"device-write-iops", &w.DeviceWriteIOps, h.BlkioDeviceWriteIOps},
	} {
		for _, d := range t.from {
			if d != nil {
				list(w, t.flag, t.to, []string{d.Path + ":" + strconv.FormatUint(d.Rate, 10)})
			}
		}
	}
	for _, d := range h.BlkioWeightDevice {
		if d != nil {
			list(w, "blkio-weight-device", &w.BlkioWeightDevice, []string{d.Path + ":" + strconv.Itoa(int(d.Weight))})
		}
	}
	for _, u := range h.Ulimits {
		if u != nil {
			list(w, "ulimit", &w.Ulimit, []string{fmt.Sprintf("%s=%d:%d", u.Name, u.Soft, u.Hard)})
		}
	}
	for _, d := range h.DeviceRequests {
		if err := deviceRequest(w, d); err != nil {
			return err
		}
	}
	for _, d := range h.Devices {
		if strings.Contains(d.PathOnHost+d.PathInContainer+d.CgroupPermissions, ":") {
			return invalid("invalid device %q: a colon can't be in a path", d.PathOnHost)
		}
		words := d.PathOnHost + ":" + cmp.Or(d.PathInContainer, d.PathOnHost) + ":" + cmp.Or(d.CgroupPermissions, "rwm")
		list(w, "device", &w.Device, []string{words})
	}
	list(w, "device-cgroup-rule", &w.DeviceRule, h.DeviceCgroupRules)
	return nil
}

// nanoCPUs writes billionths as a decimal number, which --cpus is.
func nanoCPUs(n int64) string {
	sign := ""
	if n < 0 {
		sign, n = "-", -n
	}
	text := fmt.Sprintf("%s%d.%09d", sign, n/1e9, n%1e9)
	return strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
}

func (r *createRequest) files(w *container.Words) error {
	h := r.HostConfig
	if h.ShmSize < 0 {
		return invalid("SHM size can not be less than 0")
	}
	if h.ShmSize > 0 {
		text(w, "shm-size", &w.ShmSize, sizeText(h.ShmSize))
	}
	for _, key := range slices.Sorted(maps.Keys(h.StorageOpt)) {
		w.StorageOpt = append(w.StorageOpt, key+"="+h.StorageOpt[key])
	}
	for _, target := range slices.Sorted(maps.Keys(h.Tmpfs)) {
		words := target
		if o := h.Tmpfs[target]; o != "" {
			words += ":" + o
		}
		list(w, "tmpfs", &w.Tmpfs, []string{words})
	}
	for _, b := range h.Binds {
		if strings.HasPrefix(b, ".") {
			return invalid("invalid volume specification: '%s': the source is a path that isn't absolute", b)
		}
		list(w, "volume", &w.Volume, []string{b})
	}
	for _, target := range slices.Sorted(maps.Keys(r.Volumes)) {
		if strings.Contains(target, ":") {
			return invalid("invalid volume specification: '%s'", target)
		}
		if !mountedOn(h, target) {
			list(w, "volume", &w.Volume, []string{target})
		}
	}
	text(w, "volume-driver", &w.VolumeDriver, h.VolumeDriver)
	list(w, "volumes-from", &w.VolumesFrom, h.VolumesFrom)
	for i := range h.Mounts {
		m, err := mountWords(&h.Mounts[i])
		if err != nil {
			return err
		}
		list(w, "mount", &w.Mount, []string{m})
	}
	return nil
}

// mountedOn says whether something is mounted on a place that Config.Volumes names, too: then no volume is made for it.
func mountedOn(h *moby.HostConfig, target string) bool {
	if slices.ContainsFunc(h.Mounts, func(m mount.Mount) bool { return m.Target == target }) {
		return true
	}
	if _, ok := h.Tmpfs[target]; ok {
		return true
	}
	return slices.ContainsFunc(h.Binds, func(b string) bool {
		parts := strings.SplitN(b, ":", 3)
		return len(parts) > 1 && parts[1] == target || len(parts) == 1 && b == target
	})
}

// fields are words of a flag's value that is a line of CSV.
type fields []string

func (f *fields) add(key, value string) {
	if value == "" {
		return
	}
	word := key + "=" + value
	if strings.ContainsAny(word, ",\"\n") {
		word = `"` + strings.ReplaceAll(word, `"`, `""`) + `"`
	}
	*f = append(*f, word)
}

// String is the line.
func (f fields) String() string { return strings.Join(f, ",") }

func (f *fields) flag(key string, on bool) {
	if on {
		f.add(key, "true")
	}
}

// unixMode is a mode in the kernel's bits; clients send those, or Go's.
func unixMode(m fs.FileMode) uint32 {
	n := uint32(m) & 0o7777
	for flag, bit := range map[fs.FileMode]uint32{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if m&flag != 0 {
			n |= bit
		}
	}
	return n
}

// mountWords is a mount as --mount says it.
func mountWords(m *mount.Mount) (string, error) {
	var f fields
	switch m.Type {
	case mount.TypeBind, mount.TypeVolume, mount.TypeTmpfs, mount.TypeImage:
	default:
		return "", invalid("invalid mount config: mount type unknown: %q", m.Type)
	}
	if m.BindOptions != nil && m.Type != mount.TypeBind || m.VolumeOptions != nil && m.Type != mount.TypeVolume ||
		m.TmpfsOptions != nil && m.Type != mount.TypeTmpfs || m.ImageOptions != nil && m.Type != mount.TypeImage || m.ClusterOptions != nil {
		return "", invalid("invalid mount config for type %q: it has options of another type", m.Type)
	}
	f.add("type", string(m.Type))
	f.add("source", m.Source)
	f.add("target", m.Target)
	f.flag("readonly", m.ReadOnly)
	if b := m.BindOptions; b != nil {
		f.add("bind-propagation", string(b.Propagation))
		switch {
		case b.NonRecursive:
			f.add("bind-recursive", string(container.RecursiveDisabled))
		case b.ReadOnlyNonRecursive:
			f.add("bind-recursive", string(container.RecursiveWritable))
		case b.ReadOnlyForceRecursive:
			f.add("bind-recursive", string(container.RecursiveReadOnly))
		}
		f.flag("bind-create-src", b.CreateMountpoint)
	}
	if v := m.VolumeOptions; v != nil {
		f.flag("volume-nocopy", v.NoCopy)
		f.add("volume-subpath", v.Subpath)
		for _, l := range pairs(v.Labels) {
			f.add("volume-label", l)
		}
		if d := v.DriverConfig; d != nil {
			f.add("volume-driver", d.Name)
			for _, o := range pairs(d.Options) {
				f.add("volume-opt", o)
			}
		}
	}
	if i := m.ImageOptions; i != nil {
		f.add("image-subpath", i.Subpath)
	}
	if t := m.TmpfsOptions; t != nil {
		if t.SizeBytes != 0 {
			f.add("tmpfs-size", strconv.FormatInt(t.SizeBytes, 10))
		}
		if t.Mode != 0 {
			f.add("tmpfs-mode", strconv.FormatUint(uint64(unixMode(t.Mode)), 8))
		}
		if len(t.Options) > 0 {
			return "", invalid("invalid mount config for type \"tmpfs\": options of mount(8) are not supported with Mounts: use Tmpfs")
		}
	}
	return f.String(), nil
}
