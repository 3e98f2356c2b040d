package cli

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"glassbox/container"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

func ptr[T any](v T) *T { return &v }

type createCase struct {
	args []string
	want container.Words
}

// lifeFlags are those about a container's life.
func lifeFlags() []createCase {
	return []createCase{
		{[]string{"--limit-hints", "i"}, container.Words{Image: "i", LimitHints: true}},
		{
			[]string{"--cpu-rt-period", "1000000", "--cpu-rt-runtime", "950000", "i"},
			container.Words{Image: "i", CPURTPeriod: 1000000, CPURTRuntime: 950000},
		},
		{
			[]string{
				"--restart", "on-failure:3", "--health-cmd", "a b", "--health-interval", "1s", "--health-timeout=2s",
				"--health-retries=4", "i",
			},
			container.Words{
				Image: "i", Restart: "on-failure:3", HealthCmd: "a b", HealthInterval: time.Second, HealthTimeout: 2 * time.Second, HealthRetries: 4,
			},
		},
		{
			[]string{"--annotation", "k=v", "--expose", "80", "i"},
			container.Words{Image: "i", Annotation: []string{"k=v"}, Expose: []string{"80"}},
		},
		{
			[]string{"--health-start-period", "1m", "--health-start-interval", "100ms", "--no-healthcheck", "i"},
			container.Words{Image: "i", HealthStartPeriod: time.Minute, HealthStartInterval: 100 * time.Millisecond, NoHealthcheck: true},
		},
	}
}

// networkFlags are the cases of networks.
func networkFlags() []createCase {
	return []createCase{
		{[]string{"--net", "none", "i"}, container.Words{Image: "i", Network: []string{"none"}}},
		{
			[]string{
				"--network", "a", "--network", "name=b,ip=1.2.3.4", "--network-alias", "x", "--link", "o:p", "--ip6", "fd00::1",
				"--link-local-ip", "l", "i",
			},
			container.Words{
				Image: "i", Network: []string{"a", "name=b,ip=1.2.3.4"}, NetworkAlias: []string{"x"}, Link: []string{"o:p"},
				IP6: "fd00::1", LinkLocalIP: []string{"l"},
			},
		},
	}
}

// TestCreateFlags parses every flag and compares what the engine is given.
func TestCreateFlags(t *testing.T) {
	covered := map[string]bool{}
	for _, tt := range append(append(lifeFlags(), networkFlags()...), []createCase{
		{[]string{"img"}, container.Words{Image: "img"}},
		{[]string{"img", "ls", "-l", "--name", "x"}, container.Words{Image: "img", Command: []string{"ls", "-l", "--name", "x"}}},
		{[]string{"--rootfs", "/srv", "ls", "-l"}, container.Words{Rootfs: "/srv", Command: []string{"ls", "-l"}}},
		{[]string{"--rootfs=/srv:O", "ls"}, container.Words{Rootfs: "/srv", RootfsOverlay: true, Command: []string{"ls"}}},
		{[]string{"--entrypoint", "/bin/sh", "i"}, container.Words{Image: "i", Entrypoint: ptr("/bin/sh")}},
		{[]string{"--entrypoint", "", "i"}, container.Words{Image: "i", Entrypoint: ptr("")}},
		{[]string{"--name", "web", "i"}, container.Words{Image: "i", Name: "web"}},
		{[]string{"-h", "a", "--domainname", "b", "i"}, container.Words{Image: "i", Hostname: "a", Domainname: "b"}},
		{[]string{"-w", "/a", "-u", "1:2", "i"}, container.Words{Image: "i", Workdir: "/a", User: "1:2"}},
		{[]string{"--group-add", "a", "--group-add=b", "i"}, container.Words{Image: "i", GroupAdd: []string{"a", "b"}}},
		{[]string{"-e", "A=1,2", "-eB", "--env-file", "f", "i"}, container.Words{
			Image: "i", Env: []string{"A=1,2", "B"},
			EnvFile: []string{"f"},
		}},
		{[]string{"-l", "a=b", "--label-file", "f", "i"}, container.Words{Image: "i", Label: []string{"a=b"}, LabelFile: []string{"f"}}},
		{[]string{"-i", "--rm", "--init", "i"}, container.Words{Image: "i", Interactive: true, Remove: true, Init: true}},
		{[]string{"--storage-opt", "size=1g", "i"}, container.Words{Image: "i", StorageOpt: []string{"size=1g"}}},
		{[]string{"-it", "i"}, container.Words{Image: "i", Interactive: true, TTY: true}},
		{[]string{"--privileged", "--read-only", "i"}, container.Words{Image: "i", Privileged: true, ReadOnly: true}},
		{[]string{"--cap-add", "SYS_ADMIN", "--cap-drop=ALL", "i"}, container.Words{
			Image: "i", CapAdd: []string{"SYS_ADMIN"},
			CapDrop: []string{"ALL"},
		}},
		{[]string{"--security-opt", "no-new-privileges", "i"}, container.Words{Image: "i", SecurityOpt: []string{"no-new-privileges"}}},
		{[]string{"--ns", "mount,pid", "i"}, container.Words{Image: "i", Namespaces: []string{"mount", "pid"}}},
		{[]string{"--ns=", "i"}, container.Words{Image: "i", Namespaces: []string{}}},
		{[]string{"--pid=host", "--ipc=none", "--uts=host", "--cgroupns=host", "i"}, container.Words{
			Image: "i", PID: "host", IPC: "none", UTS: "host", CgroupNS: "host",
		}},
		{[]string{"--cgroup-parent", "/a", "--oom-score-adj", "-5", "i"}, container.Words{Image: "i", CgroupParent: "/a", OOMScoreAdj: -5}},
		{[]string{"--ulimit", "nofile=1:2", "--sysctl", "a=b", "--shm-size", "1m", "--blkio-weight-device", "w:9", "i"}, container.Words{
			Image:  "i",
			Ulimit: []string{"nofile=1:2"}, Sysctl: []string{"a=b"}, ShmSize: "1m", BlkioWeightDevice: []string{"w:9"},
		}},
		{[]string{"--tmpfs", "/t:size=1m,ro", "-v", "/a:/b", "-v", "/c:/d:ro", "i"}, container.Words{
			Image: "i",
			Tmpfs: []string{"/t:size=1m,ro"}, Volume: []string{"/a:/b", "/c:/d:ro"},
		}},
		{
			[]string{"--mount", "type=bind,source=/a,target=/b", "i"},
			container.Words{Image: "i", Mount: []string{"type=bind,source=/a,target=/b"}},
		},
		{
			[]string{"--volumes-from", "a:ro", "--volumes-from", "b", "--volume-driver", "local", "i"},
			container.Words{Image: "i", VolumesFrom: []string{"a:ro", "b"}, VolumeDriver: "local"},
		},
		{[]string{"--device", "/dev/fuse", "--gpus", "all", "--device-cgroup-rule", "c 1:3 rwm", "i"}, container.Words{
			Image: "i", Device: []string{"/dev/fuse"}, GPUs: []string{"all"},
			DeviceRule: []string{"c 1:3 rwm"},
		}},
		{[]string{"-p", "80", "--publish", "1:2/udp", "-P", "i"}, container.Words{
			Image: "i", Publish: []string{"80", "1:2/udp"},
			PublishAll: true,
		}},
		{[]string{"--egress", "a.example:443,10.0.0.0/8", "--egress", "b", "--ingress", "deny", "i"}, container.Words{
			Image: "i", Egress: []string{"a.example:443,10.0.0.0/8", "b"}, Ingress: []string{"deny"},
		}},
		{[]string{"--ip", "1.2.3.4", "--mac-address", "m", "i"}, container.Words{Image: "i", IP: "1.2.3.4", MAC: "m"}},
		{
			[]string{"--dns", "1.1.1.1", "--dns-search", "a", "--dns-opt", "b", "--add-host", "h:1", "i"},
			container.Words{Image: "i", DNS: []string{"1.1.1.1"}, DNSSearch: []string{"a"}, DNSOption: []string{"b"}, AddHost: []string{"h:1"}},
		},
		{[]string{"--stop-signal", "INT", "--stop-timeout", "0", "i"}, container.Words{Image: "i", StopSignal: "INT", StopTimeout: ptr(0)}},
		{
			[]string{"--platform", "linux/arm64", "--cidfile", "f", "--log-driver", "local", "--log-opt", "max-size=1m", "i"},
			container.Words{Image: "i", Platform: "linux/arm64", CIDFile: "f", LogDriver: "local", LogOpt: []string{"max-size=1m"}},
		},
		{[]string{"-m", "50m", "--memory-swap", "-1", "--memory-reservation=1m", "i"}, container.Words{
			Image: "i", Memory: "50m",
			MemorySwap: "-1", MemoryReservation: "1m",
		}},
		{[]string{"--memory-swappiness", "0", "--oom-kill-disable", "i"}, container.Words{
			Image: "i", MemorySwappiness: ptr(int64(0)),
			OOMKillDisable: true,
		}},
		{
			[]string{"--cpus", "0.5", "-c", "512", "--cpu-period", "1", "--cpu-quota", "2", "i"},
			container.Words{Image: "i", CPUs: "0.5", CPUShares: 512, CPUPeriod: 1, CPUQuota: 2},
		},
		{
			[]string{"--cpuset-cpus", "0", "--cpuset-mems", "1", "--pids-limit", "-1", "--blkio-weight", "10", "i"},
			container.Words{Image: "i", CpusetCpus: "0", CpusetMems: "1", PidsLimit: ptr(int64(-1)), BlkioWeight: 10},
		},
		{
			[]string{"--device-read-bps", "a:1", "--device-write-bps", "b:2", "--device-read-iops", "c:3", "--device-write-iops", "d:4", "i"},
			container.Words{
				Image: "i", DeviceReadBps: []string{"a:1"}, DeviceWriteBps: []string{"b:2"}, DeviceReadIOps: []string{"c:3"},
				DeviceWriteIOps: []string{"d:4"},
			},
		},
	}...) {
		got, err := parseCreate(t, tt.args)
		if err != nil {
			t.Errorf("%q: %v", tt.args, err)
			continue
		}
		for i, v := 0, reflect.ValueOf(got); i < v.NumField(); i++ {
			if !v.Field(i).IsZero() {
				covered[v.Type().Field(i).Name] = true
			}
		}
		got.Flags, got.Environ, got.Dir, got.ConsoleSize = nil, nil, "", [2]uint16{}
		if len(got.Command) == 0 {
			got.Command = nil
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%q: -want +got\n%s", tt.args, diff)
		}
	}
	// run's own flag; the terminal's size; update's flags; TestRates of package container reads the rates.
	elsewhere := []string{"Detach", "ConsoleSize", "PublishAdd", "PublishRm", "NetRateIn", "NetRateOut", "NetBurst"}
	for i, v := 0, reflect.TypeFor[container.Words](); i < v.NumField(); i++ {
		if name := v.Field(i).Name; !covered[name] && !slices.Contains(elsewhere, name) {
			t.Errorf("no flag in this test sets CreateOptions.%s", name)
		}
	}
}

func parseCreate(t *testing.T, args []string) (container.Words, error) {
	t.Helper()
	a := testApp(t)
	fs := pflag.NewFlagSet("run", pflag.ContinueOnError)
	var c createFlags
	c.register(fs, a)
	if err := fs.Parse(args); err != nil {
		return container.Words{}, err
	}
	return c.options(a, fs, fs.Args())
}

func TestTyped(t *testing.T) {
	got, err := parseCreate(t, []string{"-m", "50m", "-it", "-v", "/a:/b", "--volume=/c:/d", "--net=none", "--rm=false", "img", "-e", "X"})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"memory": "--memory=50m", "interactive": "--interactive", "tty": "--tty", "volume": "--volume=/a:/b --volume=/c:/d",
		"network": "--network=none", "rm": "--rm=false",
	}
	if diff := cmp.Diff(want, got.Flags); diff != "" {
		t.Errorf("flags as typed: -want +got\n%s", diff)
	}
}

func TestCreateErrors(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{nil, "an image (or --rootfs) is needed"},
		{[]string{"--pull", "sometimes", "i"}, `invalid pull option: 'sometimes': must be one of "always", "missing" or "never"`},
		{[]string{"--rootfs", "", "i"}, "--rootfs: the directory is empty"},
		{[]string{"--rootfs", ":O", "i"}, "--rootfs: the directory is empty"},
		{[]string{"--cpu-shares", "x", "i"}, `invalid argument "x" for "-c, --cpu-shares" flag: strconv.ParseInt: parsing "x": invalid syntax`},
	} {
		_, err := parseCreate(t, tt.args)
		if err == nil || err.Error() != tt.want {
			t.Errorf("%q: got error %v, want %s", tt.args, err, tt.want)
		}
	}
}

func TestInsecureRegistries(t *testing.T) {
	a := testApp(t)
	a.environ = append(a.environ, "GLASSBOX_INSECURE_REGISTRIES=a:1, b")
	fs := pflag.NewFlagSet("pull", pflag.ContinueOnError)
	var got []string
	a.insecureFlag(fs, &got)
	if err := fs.Parse([]string{"--insecure-registry", "c"}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a:1", "b", "c"}, got); diff != "" {
		t.Error(diff)
	}
}
