package engine

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"glassbox/plan"
	"glassbox/supervise"
)

// object is a JSON object in Docker's shape.
type object = map[string]any

// Inspect describes a container in the shape of Docker's API (GET /containers/{id}/json), version 1.47, with two additions:
// State.Stats holds the cgroup's counters, and Glassbox the directories and the plan's hash.
func (e *Engine) Inspect(ref string) (any, error) {
	c, s, err := e.load(ref)
	if err != nil {
		return nil, err
	}
	o := &c.Options
	dir := e.dir(c.ID)
	job, _ := supervise.ReadJob(dir) // none before the first start
	if job != nil {
		if job.Plan, err = supervise.ReadPlan(dir); err != nil {
			return nil, err
		}
	}
	running := s.Status == supervise.Running || s.Status == supervise.Paused
	stats := s.Stats
	if running {
		stats, _ = e.Stats(c.ID)
	}
	command := e.commandOf(c)
	path, args := "", []string{}
	if len(command) > 0 {
		path, args = command[0], command[1:]
	}

	state := object{
		"Status": s.Status, "Running": running, "Paused": s.Status == supervise.Paused, "Restarting": false, "OOMKilled": s.OOMKilled, "Dead": false,
		"Pid": s.PID, "ExitCode": s.ExitCode, "Error": s.Error, "StartedAt": stamp(s.Started), "FinishedAt": stamp(s.Finished),
	}
	if stats != nil {
		state["Stats"] = stats
		if running && stats.Memory.OOMKills > 0 {
			state["OOMKilled"] = true
		}
	}

	image, imageConfig := "", object{}
	var workdir, user, stop string
	var entrypoint, cmd []string
	var env []string
	if c.ImageID != "" {
		image = c.ImageID
		if img, err := e.images.Resolve(c.ImageID); err == nil {
			cfg := img.Config.Config
			entrypoint, cmd, workdir, user, stop, env = cfg.Entrypoint, cfg.Cmd, cfg.WorkingDir, cfg.User, cfg.StopSignal, cfg.Env
			imageConfig["Labels"] = cfg.Labels
			imageConfig["ExposedPorts"] = cfg.ExposedPorts
			imageConfig["Volumes"] = cfg.Volumes
		}
	}
	if o.Entrypoint != nil {
		entrypoint, cmd = nil, nil
		if *o.Entrypoint != "" {
			entrypoint = []string{*o.Entrypoint}
		}
	}
	if len(o.Command) > 0 {
		cmd = o.Command
	}
	hostname := o.Hostname
	if hostname == "" {
		hostname = c.ID[:12]
	}
	mounts := []object{}
	if job != nil {
		for _, step := range job.Plan.Steps {
			switch op := step.Op.(type) {
			case *plan.Execve:
				env = op.Env
			case *plan.Chdir:
				workdir = op.Path
			case *plan.Sethostname:
				hostname = op.Name
			}
		}
		mounts = mountsOf(job.Plan, dir)
	}
	config := object{
		"Hostname": hostname, "Domainname": o.Domainname, "User": first(o.User, user), "AttachStdin": o.Interactive && !o.Detach,
		"AttachStdout": !o.Detach, "AttachStderr": !o.Detach, "Tty": o.TTY, "OpenStdin": o.Interactive, "StdinOnce": o.Interactive && !o.Detach,
		"Env": env, "Cmd": cmd, "Image": imageName(c), "Volumes": imageConfig["Volumes"], "WorkingDir": first(o.Workdir, workdir),
		"Entrypoint": entrypoint, "Labels": merged(imageConfig["Labels"], o.Label), "StopSignal": first(o.StopSignal, stop, "SIGTERM"),
		"ExposedPorts": imageConfig["ExposedPorts"],
	}
	if o.StopTimeout != nil {
		config["StopTimeout"] = *o.StopTimeout
	}

	return object{
		"Id": c.ID, "Created": stamp(c.Created), "Path": path, "Args": args, "State": state, "Image": image,
		"ResolvConfPath": filepath.Join(dir, "resolv.conf"), "HostnamePath": filepath.Join(dir, "hostname"), "HostsPath": filepath.Join(dir, "hosts"),
		"LogPath": filepath.Join(dir, supervise.LogFile), "Name": "/" + c.Name, "RestartCount": 0, "Driver": "overlay", "Platform": "linux",
		"MountLabel": "", "ProcessLabel": "", "AppArmorProfile": "", "ExecIDs": nil,
		"HostConfig": e.hostConfig(o), "GraphDriver": object{"Name": "overlay", "Data": e.graph(c, dir)},
		"Mounts": mounts, "Config": config, "NetworkSettings": e.networkSettings(c, job, running),
		"Glassbox": e.extras(job, dir),
	}, nil
}

func (e *Engine) extras(job *supervise.Job, dir string) object {
	out := object{"Directory": dir}
	if job != nil {
		out["Cgroups"] = job.Cgroups
		out["Steps"] = len(job.Plan.Steps)
		if hash, err := job.Plan.Hash(); err == nil {
			out["PlanHash"] = hash
		}
	}
	return out
}

func (e *Engine) graph(c *Container, dir string) object {
	data := object{"UpperDir": filepath.Join(dir, "upper"), "WorkDir": filepath.Join(dir, "work"), "MergedDir": filepath.Join(dir, "merged")}
	if c.ImageID != "" {
		if img, err := e.images.Resolve(c.ImageID); err == nil {
			var lower []string
			for i := len(img.Layers) - 1; i >= 0; i-- {
				lower = append(lower, filepath.Join(e.cfg.Root, img.Layers[i].Dir))
			}
			data["LowerDir"] = strings.Join(lower, ":")
		}
	}
	return data
}

func (e *Engine) hostConfig(o *CreateOptions) object {
	size := func(s string) int64 {
		if s == "-1" {
			return -1
		}
		if s == "" {
			return 0
		}
		n, _ := parseSize("", s) // was checked at create
		return n
	}
	memory, swap := size(o.Memory), size(o.MemorySwap)
	if memory > 0 && swap == 0 {
		swap = 2 * memory
	}
	nano := int64(0)
	if n, err := strconv.ParseFloat(o.CPUs, 64); err == nil {
		nano = int64(n*1e9 + 0.5)
	}
	shm := size(o.ShmSize)
	if shm == 0 {
		shm = 64 << 20
	}
	var binds []string
	binds = append(binds, o.Volume...)
	bindings := object{}
	for _, text := range o.Publish {
		spec, proto, _ := strings.Cut(text, "/")
		parts := strings.Split(spec, ":")
		port := parts[len(parts)-1] + "/" + first(proto, "tcp")
		b := object{"HostIp": "", "HostPort": ""}
		if len(parts) > 1 {
			b["HostPort"] = parts[len(parts)-2]
		}
		if len(parts) > 2 {
			b["HostIp"] = strings.Join(parts[:len(parts)-2], ":")
		}
		bindings[port] = []object{b}
	}
	var ulimits []object
	for _, text := range o.Ulimit {
		if name, soft, hard, err := parseUlimit(text); err == nil {
			ulimits = append(ulimits, object{"Name": strings.ToLower(strings.TrimPrefix(name, "RLIMIT_")), "Soft": int64(soft), "Hard": int64(hard)})
		}
	}
	sysctls := object{}
	for _, text := range o.Sysctl {
		key, value, _ := strings.Cut(text, "=")
		sysctls[key] = value
	}
	tmpfs := object{}
	for _, text := range o.Tmpfs {
		target, options, _ := strings.Cut(text, ":")
		tmpfs[target] = options
	}
	pids := int64(0)
	if o.PidsLimit != nil {
		pids = *o.PidsLimit
	}
	network := o.Network
	if network == "" || network == "default" {
		network = "bridge"
	}
	logSize, logFiles, _ := logLimits(o.LogOpt)
	return object{
		"Binds": binds, "ContainerIDFile": o.CIDFile, "LogConfig": object{"Type": "json-file", "Config": object{"max-size": fmt.Sprint(logSize), "max-file": fmt.Sprint(logFiles)}},
		"NetworkMode": network, "PortBindings": bindings, "RestartPolicy": object{"Name": "no", "MaximumRetryCount": 0}, "AutoRemove": o.Remove,
		"VolumeDriver": "", "VolumesFrom": nil, "ConsoleSize": []int{int(o.ConsoleSize[0]), int(o.ConsoleSize[1])},
		"CapAdd": o.CapAdd, "CapDrop": o.CapDrop, "CgroupnsMode": first(o.CgroupNS, "private"), "Dns": o.DNS, "DnsOptions": o.DNSOption, "DnsSearch": o.DNSSearch,
		"ExtraHosts": o.AddHost, "GroupAdd": o.GroupAdd, "IpcMode": first(o.IPC, "private"), "Cgroup": "", "Links": nil, "OomScoreAdj": o.OOMScoreAdj,
		"PidMode": o.PID, "Privileged": o.Privileged, "PublishAllPorts": o.PublishAll, "ReadonlyRootfs": o.ReadOnly, "SecurityOpt": o.SecurityOpt,
		"Tmpfs": tmpfs, "UTSMode": o.UTS, "UsernsMode": "", "ShmSize": shm, "Sysctls": sysctls, "Runtime": "glassbox-runtime", "Isolation": "",
		"CpuShares": o.CPUShares, "Memory": memory, "NanoCpus": nano, "CgroupParent": o.CgroupParent, "BlkioWeight": o.BlkioWeight,
		"BlkioDeviceReadBps": o.DeviceReadBps, "BlkioDeviceWriteBps": o.DeviceWriteBps, "BlkioDeviceReadIOps": o.DeviceReadIOps, "BlkioDeviceWriteIOps": o.DeviceWriteIOps,
		"CpuPeriod": o.CPUPeriod, "CpuQuota": o.CPUQuota, "CpusetCpus": o.CpusetCpus, "CpusetMems": o.CpusetMems, "Devices": o.Device, "DeviceCgroupRules": o.DeviceRule,
		"MemoryReservation": size(o.MemoryReservation), "MemorySwap": swap, "MemorySwappiness": o.MemorySwappiness, "OomKillDisable": o.OOMKillDisable,
		"PidsLimit": pids, "Ulimits": ulimits, "Init": o.Init, "MaskedPaths": maskedOf(o), "ReadonlyPaths": readonlyOf(o), "Mounts": o.Mount,
	}
}

func maskedOf(o *CreateOptions) []string {
	if o.Privileged {
		return nil
	}
	return maskedPaths
}

func readonlyOf(o *CreateOptions) []string {
	if o.Privileged {
		return nil
	}
	return readonlyPaths
}

// networkSettings reads address, gateway and ports from the plan that ran.
func (e *Engine) networkSettings(c *Container, job *supervise.Job, running bool) object {
	ports := object{}
	out := object{
		"Bridge": "", "SandboxID": c.ID, "Ports": ports, "IPAddress": "", "IPPrefixLen": 0, "Gateway": "", "MacAddress": "", "SandboxKey": "",
		"GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "IPv6Gateway": "",
	}
	network := networkOf(c)
	ep := object{"IPAddress": "", "IPPrefixLen": 0, "Gateway": "", "MacAddress": "", "NetworkID": network, "EndpointID": "", "Aliases": nil}
	if job != nil && running {
		for _, step := range job.Plan.Steps {
			switch op := step.Op.(type) {
			case *plan.LinkBridge:
				out["Bridge"] = op.Name
			case *plan.LinkVeth:
				out["MacAddress"], ep["MacAddress"], ep["EndpointID"] = op.MAC, op.MAC, op.Name
			case *plan.RouteDefault:
				out["Gateway"], ep["Gateway"] = op.Via, op.Via
			case *plan.LinkAddress:
				if op.Address != "" {
					ip, bits, _ := strings.Cut(op.Address, "/")
					n, _ := strconv.Atoi(bits)
					out["IPAddress"], ep["IPAddress"], out["IPPrefixLen"], ep["IPPrefixLen"] = ip, ip, n, n
				}
			case *plan.NftPublish:
				for _, r := range op.Ports {
					key := fmt.Sprintf("%d/%s", r.ContainerPort, r.Proto)
					list, _ := ports[key].([]object)
					ports[key] = append(list, object{"HostIp": first(r.HostIP, "0.0.0.0"), "HostPort": fmt.Sprint(r.HostPort)})
				}
			}
		}
		if s, err := supervise.ReadState(e.dir(c.ID)); err == nil && s.PID != 0 {
			out["SandboxKey"] = fmt.Sprintf("/proc/%d/ns/net", s.PID)
		}
	}
	out["Networks"] = object{network: ep}
	return out
}

// mountsOf lists the mounts that the user asked for.
func mountsOf(p *plan.Plan, dir string) []object {
	sources := map[string]*plan.OpenTree{}
	out := []object{}
	for _, step := range p.Steps {
		switch op := step.Op.(type) {
		case *plan.OpenTree:
			sources[op.Save] = op
		case *plan.MoveMount:
			source := sources[op.From]
			if source == nil || strings.HasPrefix(source.Path, dir+"/") || op.Target == initPath {
				continue
			}
			ro := false
			for _, attr := range op.Set {
				ro = ro || attr == "ro"
			}
			out = append(out, object{"Type": "bind", "Source": source.Path, "Destination": op.Target, "Mode": "", "RW": !ro, "Propagation": first(strings.Join(op.Propagation, ","), "rprivate")})
		case *plan.FSMount:
			if op.Type == "tmpfs" && strings.HasPrefix(step.Origin, "--") && op.Target != "/dev/shm" {
				out = append(out, object{"Type": "tmpfs", "Source": "", "Destination": op.Target, "Mode": strings.Join(op.Options, ","), "RW": true, "Propagation": ""})
			}
		}
	}
	return out
}

func first(words ...string) string {
	for _, w := range words {
		if w != "" {
			return w
		}
	}
	return ""
}

func merged(image any, own []string) map[string]string {
	out := map[string]string{}
	if m, ok := image.(map[string]string); ok {
		for k, v := range m {
			out[k] = v
		}
	}
	for k, v := range labels(own) {
		out[k] = v
	}
	return out
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "0001-01-01T00:00:00Z"
	}
	return t.UTC().Format(time.RFC3339Nano)
}
