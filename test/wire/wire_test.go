// Package wire compares this engine's answers with moby's own types for them. It is a module of its own, so that nothing else needs moby's.
package wire

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	mobyimage "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/system"
	theirs "github.com/moby/moby/api/types/volume"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"glassbox/cgroup"
	ours "glassbox/container"
	"glassbox/docker"
	"glassbox/image"
	ournetwork "glassbox/network"
	"glassbox/plan"
	"glassbox/supervise"
	"glassbox/volume"
)

// extra are paths of our answers that moby's newest types don't have: our own, and what older versions of the API had.
var extra = map[string]bool{
	"Glassbox": true, "State.Stats": true, "History": true, // ours, of an image
	"Parent": true, "Comment": true, "Author": true, // of images, empty ones, too, until version 1.51
	"NetworkSettings.Bridge": true, "NetworkSettings.HairpinMode": true, "NetworkSettings.LinkLocalIPv6Address": true,
	"NetworkSettings.LinkLocalIPv6PrefixLen": true, "NetworkSettings.SecondaryIPAddresses": true,
	"NetworkSettings.SecondaryIPv6Addresses": true,
	"NetworkSettings.EndpointID":             true, "NetworkSettings.Gateway": true, "NetworkSettings.GlobalIPv6Address": true,
	"NetworkSettings.GlobalIPv6PrefixLen": true, "NetworkSettings.IPAddress": true, "NetworkSettings.IPPrefixLen": true,
	"NetworkSettings.IPv6Gateway": true, "NetworkSettings.MacAddress": true,
}

// same sends a value through moby's type: what comes back is the same, with null where there was null and lists where there were lists, and
// nothing that moby always writes is missing.
func same[T any](t *testing.T, name string, value any) {
	t.Helper()
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	var theirs T
	if err := json.Unmarshal(data, &theirs); err != nil {
		t.Errorf("%s: moby's type doesn't take it: %v", name, err)
		return
	}
	back, err := json.Marshal(theirs)
	if err != nil {
		t.Fatal(err)
	}
	var a, b any
	if err := json.Unmarshal(data, &a); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(back, &b); err != nil {
		t.Fatal(err)
	}
	compare(t, name, "", a, b)
}

func compare(t *testing.T, name, path string, a, b any) {
	t.Helper()
	m, ok := a.(map[string]any)
	n, ok2 := b.(map[string]any)
	if !ok || !ok2 {
		if x, ok := a.([]any); ok {
			y, _ := b.([]any)
			if len(x) != len(y) || (b == nil) != (a == nil) {
				t.Errorf("%s: %s: %v, and with moby's type %v", name, path, a, b)
				return
			}
			for i := range x {
				compare(t, name, fmt.Sprintf("%s[%d]", path, i), x[i], y[i])
			}
			return
		}
		if !reflect.DeepEqual(a, b) {
			t.Errorf("%s: %s: %v, and with moby's type %v", name, path, a, b)
		}
		return
	}
	for key, v := range m {
		at := strings.TrimPrefix(path+"."+key, ".")
		other, known := n[key]
		switch {
		case extra[at] && !known:
		case !known:
			t.Errorf("%s: %s is lost: moby's type has no such field", name, at)
		default:
			compare(t, name, at, v, other)
		}
	}
	for key, v := range n {
		if _, known := m[key]; !known {
			t.Errorf("%s: %s.%s is missing: moby writes %v", name, path, key, v)
		}
	}
}

func details(t *testing.T, w ours.Words, state supervise.State, steps ...plan.Step) docker.Details {
	t.Helper()
	config, err := w.Config()
	if err != nil {
		t.Fatal(err)
	}
	d := docker.Details{
		Container: &ours.Container{
			ID: strings.Repeat("c", 64), Name: "web", Created: time.Unix(1e9, 7),
			ImageID: "sha256:" + strings.Repeat("a", 64), Config: *config,
		},
		State: &state, Dir: "/var/lib/glassbox/containers/c", Lower: []string{"/layers/b", "/layers/a"},
	}
	if steps != nil {
		d.Plan, d.Job = &plan.Plan{Arch: "amd64", Steps: steps}, &supervise.Job{Cgroups: map[string]string{"memory": "/m"}}
	}
	return d
}

func all() ours.Words {
	five := 5
	return ours.Words{
		Image: "nginx:1", Command: []string{"a", "b c"}, Entrypoint: new(string), Hostname: "h", Domainname: "d", Workdir: "/w", User: "1:2",
		GroupAdd: []string{"3"}, Env: []string{"A=1"}, Label: []string{"k=v"}, TTY: true, Interactive: true, Init: true, Privileged: true,
		ReadOnly: true,
		CapAdd:   []string{"net_admin"}, CapDrop: []string{"chown"}, SecurityOpt: []string{"no-new-privileges"}, IPC: "host", UTS: "host",
		CgroupNS:    "host",
		OOMScoreAdj: 3, Ulimit: []string{"nofile=1:unlimited"}, Sysctl: []string{"net.ipv4.ip_forward=1"}, ShmSize: "1m",
		Tmpfs:  []string{"/t:size=1m"},
		Volume: []string{"/a:/b:ro,rslave"}, Device: []string{"/dev/fuse:/dev/x:r"}, DeviceRule: []string{"c 1:3 rwm"},
		Mount: []string{
			"type=bind,source=/s,target=/m,readonly,bind-propagation=rshared,bind-recursive=writable",
			"type=tmpfs,target=/u,tmpfs-size=1m,tmpfs-mode=1777", "type=bind,source=/s,target=/plain",
		},
		Publish: []string{"8000-8001:80-81", "127.0.0.1::53/udp", "9000-9010:90"}, PublishAll: true, IP: "172.30.0.9", MAC: "02:42:ac:11:00:09",
		DNS: []string{"1.1.1.1"}, DNSSearch: []string{"s"}, DNSOption: []string{"o"}, AddHost: []string{"x:1.2.3.4"}, StopSignal: "INT",
		StopTimeout: &five,
		CIDFile:     "/c", LogOpt: []string{"max-size=1m", "max-file=2"}, Memory: "64m", MemorySwap: "-1", MemoryReservation: "1m", CPUs: "1.5",
		CPUShares:  9,
		CpusetCpus: "0", CpusetMems: "0", BlkioWeight: 10, DeviceReadBps: []string{"/dev/sda:1m"}, DeviceWriteIOps: []string{"/dev/sda:3"},
	}
}

func running() supervise.State {
	return supervise.State{Status: supervise.Running, PID: 7, Started: time.Unix(1e9, 0)}
}

var wired = []plan.Step{
	{Op: &plan.LinkBridge{Name: "gb0"}},
	{Op: &plan.LinkVeth{Name: "v1", MAC: "02:42:ac:11:00:09"}},
	{Op: &plan.RouteDefault{Via: "172.30.0.1"}},
	{Op: &plan.LinkAddress{Address: "172.30.0.9/16"}},
	{Op: &plan.NftPublish{Ports: []plan.PortRule{
		{Proto: "tcp", HostPort: 8000, ContainerPort: 80},
		{Proto: "udp", HostIP: "127.0.0.1", HostPort: 49000, ContainerPort: 53},
	}}},
}

func TestInspect(t *testing.T) {
	same[container.InspectResponse](t, "created", docker.Inspect(details(t, ours.Words{Image: "i"},
		supervise.State{Status: supervise.Created})))
	same[container.InspectResponse](t, "all", docker.Inspect(details(t, all(), running(), wired...)))
	same[container.InspectResponse](t, "exited", docker.Inspect(details(t, ours.Words{Image: "i", Network: []string{"container:" +
		strings.Repeat("e", 64)}},
		supervise.State{
			Status: supervise.Exited, ExitCode: 3, Started: time.Unix(1e9, 0), Finished: time.Unix(1e9, 5), Error: "e",
			OOMKilled: true,
		})))
	d := details(t, ours.Words{Image: "i"}, supervise.State{Status: supervise.Created})
	d.Container.Image = &ours.Image{
		Env: []string{"P=1"}, Entrypoint: []string{"/e"}, Cmd: []string{"c"}, Volumes: []string{"/data"}, ExposedPorts: []string{"80/tcp"},
		Labels: map[string]string{"a": "b"}, StopSignal: "QUIT",
	}
	same[container.InspectResponse](t, "image", docker.Inspect(d))
}

// TestInspectTells asks for what inspect said wrongly when flags were stored as typed, and before a first start.
func TestInspectTells(t *testing.T) {
	data, err := json.Marshal(docker.Inspect(details(t, all(), supervise.State{Status: supervise.Created})))
	if err != nil {
		t.Fatal(err)
	}
	var c container.InspectResponse
	if err := json.Unmarshal(data, &c); err != nil {
		t.Fatal(err)
	}
	var mounts []string
	for _, m := range c.Mounts {
		mounts = append(mounts, fmt.Sprint(m.Type, " ", m.Destination, " ", m.RW))
	}
	if got, want := strings.Join(mounts, ", "), "bind /b false, bind /m false, tmpfs /u true, bind /plain true"; got != want {
		t.Errorf("mounts: got %s, want %s", got, want)
	}
	var ports []string
	for key := range c.HostConfig.PortBindings {
		ports = append(ports, key.String())
	}
	if len(ports) != 4 || len(c.HostConfig.CapAdd) != 1 || c.HostConfig.CapAdd[0] != "CAP_NET_ADMIN" || len(c.Config.Env) != 1 {
		t.Errorf("got ports %q, capabilities %q, environment %q", ports, c.HostConfig.CapAdd, c.Config.Env)
	}
}

func TestList(t *testing.T) {
	now := time.Unix(1e9+100, 0)
	plain, full := details(t, ours.Words{Image: "i"}, supervise.State{Status: supervise.Created}), details(t, all(), running())
	ports := []plan.PortRule{{Proto: "tcp", HostPort: 80, ContainerPort: 80}, {Proto: "tcp", HostIP: "::1", HostPort: 81, ContainerPort: 80}}
	same[[]container.Summary](t, "list", []docker.Summary{
		docker.Summarize(plain.Container, plain.State, nil, "/d", nil, nil, now),
		docker.Summarize(full.Container, full.State, ports, "/d", nil, map[string]string{"bridge": "0123"}, now),
	})
}

func TestInfo(t *testing.T) {
	same[system.Info](t, "info", docker.Info{
		CgroupVersion: "2", Runtimes: map[string]docker.RuntimeInfo{"r": {Path: "/p"}}, DriverStatus: [][2]string{{"a", "b"}}, NCPU: 3,
		MemTotal: 5,
		Labels:   []string{}, CDISpecDirs: []string{}, Swarm: docker.Swarm{LocalNodeState: "inactive"}, SecurityOptions: []string{"name=seccomp"},
	})
	same[system.Info](t, "empty", docker.Info{CgroupVersion: "1"})
}

// TestStats: on cgroup v1 what isn't counted is an empty list, on v2 null.
func TestStats(t *testing.T) {
	counted := &cgroup.Stats{
		CPU:    cgroup.CPUStats{Usage: 7, User: 3, System: 4, Periods: 2, ThrottledPeriods: 1, ThrottledTime: 9},
		Memory: cgroup.MemoryStats{Usage: 5, MaxUsage: 6, Limit: cgroup.Unlimited, Failures: 1, Counters: map[string]uint64{"anon": 3}},
		Pids:   cgroup.PidsStats{Current: 2, Limit: 10},
		IO:     []cgroup.IOStats{{Major: 8, ReadBytes: 1, WriteBytes: 2, Reads: 3, Writes: 4}},
	}
	r := docker.Reading{
		At: time.Unix(1e9, 0).UTC(), Cgroup: counted, SystemUsage: 99, CPUs: 2, HostMemory: 1 << 30,
		Networks: map[string]docker.NetworkStats{"eth0": {RxBytes: 1, TxDropped: 2}},
	}
	before := docker.Measure("c", "web", r, nil)
	for _, r.V1 = range []bool{true, false} {
		same[container.StatsResponse](t, "stats", docker.Measure("c", "web", r, before))
	}
	same[container.StatsResponse](t, "not running", docker.Measure("c", "web", docker.Reading{Cgroup: &cgroup.Stats{}}, nil))
	data, err := json.Marshal(docker.Measure("c", "web", r, before))
	if err != nil {
		t.Fatal(err)
	}
	var theirs container.StatsResponse
	if err := json.Unmarshal(data, &theirs); err != nil {
		t.Fatal(err)
	}
	if theirs.MemoryStats.Limit != 1<<30 || theirs.PreCPUStats.CPUUsage.TotalUsage != 7 || theirs.Networks["eth0"].TxDropped != 2 ||
		theirs.MemoryStats.Stats["anon"] != 3 || theirs.PidsStats.Limit != 10 || !theirs.PreRead.Equal(r.At) {
		t.Errorf("got %s", data)
	}
}

func anImage() *image.Image {
	return &image.Image{
		ID: "sha256:" + strings.Repeat("a", 64), ManifestDigest: "sha256:" + strings.Repeat("b", 64), Created: time.Unix(1e9, 7).UTC(), Size: 5,
		Pulled: time.Unix(2e9, 0).UTC(), Names: []string{"web:1"}, Digests: []string{"web@sha256:" + strings.Repeat("c", 64)},
		Layers: []image.Layer{{DiffID: "sha256:" + strings.Repeat("d", 64), Dir: "layers/d"}},
		Config: v1.Image{
			Author: "me", Platform: v1.Platform{Architecture: "arm64", OS: "linux", Variant: "v8", OSVersion: "1"},
			Config: v1.ImageConfig{
				User: "1", Env: []string{"A=1"}, Entrypoint: []string{"/e"}, Cmd: []string{"c"}, WorkingDir: "/w", StopSignal: "INT",
				ExposedPorts: map[string]struct{}{"80/tcp": {}}, Volumes: map[string]struct{}{"/v": {}}, Labels: map[string]string{"k": "v"},
			},
			History: []v1.History{{CreatedBy: "RUN x"}},
		},
		RawConfig: []byte(`{"comment":"said","config":{"OnBuild":["RUN y"],"Shell":["/bin/bash"],` +
			`"Healthcheck":{"Test":["CMD","x"],"Retries":3}}}`),
	}
}

// TestImages: rows of the list, and inspect, of an image that says everything and of one that says nothing.
func TestImages(t *testing.T) {
	nothing := &image.Image{ID: "sha256:" + strings.Repeat("a", 64), RawConfig: []byte(`{}`)}
	same[[]mobyimage.Summary](t, "list", []image.Summary{anImage().Summary(), nothing.Summary()})
	same[mobyimage.InspectResponse](t, "inspect", anImage().Inspect())
	same[mobyimage.InspectResponse](t, "nothing", nothing.Inspect())
}

// TestVolumes: a volume with everything and one with nothing, alone and in the list of `system df`.
func TestVolumes(t *testing.T) {
	full := docker.DescribeVolume(&volume.Volume{
		Name: "data", Driver: "local", Labels: map[string]string{"a": "b"}, Options: map[string]string{"type": "none"},
		Created: time.Unix(1e9, 0),
	}, "/var/lib/glassbox/volumes/data/_data")
	full.UsageData = &docker.UsageData{RefCount: 2, Size: 4096}
	same[theirs.Volume](t, "volume", full)
	same[theirs.Volume](t, "plain volume", docker.DescribeVolume(&volume.Volume{Name: "data", Driver: "local"}, "/d"))
}

func TestNetworks(t *testing.T) {
	n := ournetwork.Network{
		ID: strings.Repeat("a", 64), Name: "front", Driver: "bridge", Created: time.Unix(1e9, 0).UTC(), Internal: true,
		Labels: map[string]string{"a": "b"}, Options: map[string]string{"com.docker.network.driver.mtu": "1400"},
		Subnets: []ournetwork.Subnet{{
			Prefix: netip.MustParsePrefix("172.28.0.0/16"), Gateway: netip.MustParseAddr("172.28.0.1"),
			Range: netip.MustParsePrefix("172.28.5.0/24"),
		}},
		Aux: map[string]netip.Addr{"printer": netip.MustParseAddr("172.28.0.9")},
	}
	on := map[string]docker.NetworkEndpoint{strings.Repeat("b", 64): {
		Name: "web", EndpointID: "e", MacAddress: "02:42:ac:1c:00:02", IPv4Address: "172.28.0.2/16",
	}}
	same[network.Inspect](t, "network", docker.DescribeNetwork(n, on))
	same[network.Inspect](t, "none", docker.DescribeNetwork(ournetwork.Network{Name: "none", Driver: "none"}, nil))
}
