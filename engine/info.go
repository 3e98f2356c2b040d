package engine

import (
	"bufio"
	"context"
	"os"
	"slices"
	"strings"
	"time"

	"glassbox/docker"
	"glassbox/host"
	"glassbox/network"
	"glassbox/supervise"
	"glassbox/volume"
)

// Info describes this engine and its host in the shape of Docker's API (GET /info).
func (e *Engine) Info(ctx context.Context, version string) (*docker.Info, error) {
	f, err := e.Facts(ctx)
	if err != nil {
		return nil, err
	}
	i := &docker.Info{
		Driver: "overlay", DriverStatus: [][2]string{}, MemoryLimit: controlled(f, "memory"), SwapLimit: swapAccounting(f),
		CPUCfsPeriod: controlled(f, "cpu"), CPUCfsQuota: controlled(f, "cpu"), CPUShares: controlled(f, "cpu"), CPUSet: controlled(f, "cpuset"),
		PidsLimit: controlled(f, "pids"), IPv4Forwarding: forwarding(),
		OomKillDisable: f.Cgroup.Mode == host.CgroupV1 || f.Cgroup.Mode == host.CgroupHybrid,
		SystemTime:     docker.Stamp(time.Now()), LoggingDriver: "json-file", CgroupDriver: "cgroupfs", CgroupVersion: "1",
		KernelVersion: f.Kernel.Release, OSType: "linux", Architecture: docker.Machine(f.Arch), IndexServerAddress: "https://index.docker.io/v1/",
		NCPU: f.CPUs, MemTotal: int64(f.Memory), DockerRootDir: e.cfg.Root, Labels: []string{}, ServerVersion: version,
		HTTPProxy: os.Getenv("HTTP_PROXY"), HTTPSProxy: os.Getenv("HTTPS_PROXY"), NoProxy: os.Getenv("NO_PROXY"),
		Runtimes: map[string]docker.RuntimeInfo{docker.Runtime: {Path: e.cfg.Runtime}}, DefaultRuntime: docker.Runtime,
		Swarm: docker.Swarm{LocalNodeState: "inactive"}, InitBinary: docker.Runtime, SecurityOptions: []string{}, CDISpecDirs: []string{},
		Plugins: docker.Plugins{Volume: volume.Drivers(), Network: network.Drivers(), Log: []string{"json-file"}},
		Glassbox: docker.InfoExtras{
			State: e.cfg.State, Runtime: e.cfg.Runtime, Cgroup: f.Cgroup.Mode, LSM: f.LSM, Seccomp: f.Seccomp, User: f.UID,
		},
	}
	if f.Cgroup.Mode == host.CgroupV2 {
		i.CgroupVersion = "2"
	}
	// The rest is about the host, and none of it is worth an error: what can't be read is left empty.
	i.Name, _ = os.Hostname()
	i.OperatingSystem, i.OSVersion = osRelease("/etc/os-release")
	if slices.Contains(f.LSM, "apparmor") {
		i.SecurityOptions = append(i.SecurityOptions, "name=apparmor")
	}
	if f.Seccomp {
		i.SecurityOptions = append(i.SecurityOptions, "name=seccomp,profile=builtin")
	}
	if f.Cgroup.Mode == host.CgroupV2 {
		i.SecurityOptions = append(i.SecurityOptions, "name=cgroupns")
	}
	if !i.IPv4Forwarding {
		i.Warnings = append(i.Warnings, "WARNING: IPv4 forwarding is disabled")
	}
	list, err := e.List(ctx, ListOptions{All: true})
	if err != nil {
		return nil, err
	}
	i.Containers = len(list)
	for _, s := range list {
		switch s.State {
		case supervise.Running:
			i.ContainersRunning++
		case supervise.Paused:
			i.ContainersPaused++
		default:
			i.ContainersStopped++
		}
	}
	stored, err := e.images.List()
	i.Images = len(stored)
	return i, err
}

// controlled says whether there is a cgroup controller.
func controlled(f *host.Facts, controller string) bool {
	return slices.ContainsFunc(f.Cgroup.Hierarchies, func(h host.Hierarchy) bool { return slices.Contains(h.Controllers, controller) })
}

func forwarding() bool {
	data, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
	return err == nil && strings.TrimSpace(string(data)) == "1"
}

// osRelease reads name and version of the distribution (os-release(5)).
func osRelease(file string) (name, version string) {
	f, err := os.Open(file)
	if err != nil {
		return "Linux", ""
	}
	defer f.Close()
	name = "Linux"
	for lines := bufio.NewScanner(f); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), "=")
		switch value = strings.Trim(value, `"'`); key {
		case "PRETTY_NAME":
			name = value
		case "VERSION_ID":
			version = value
		}
	}
	return name, version
}
