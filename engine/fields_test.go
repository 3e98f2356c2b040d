package engine

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"glassbox/compile"
	"glassbox/container"
	"glassbox/host"
	"glassbox/spec"
)

func testFacts() *host.Facts {
	return &host.Facts{
		Kernel: host.Kernel{Release: "6.6.0", Major: 6, Minor: 6}, Arch: "amd64", Caps: 1<<41 - 1, LastCap: 40, NoFile: [2]uint64{1024, 4096},
		CPUs: 4, Memory: 8 << 30, Seccomp: true, LSM: []string{"apparmor"},
		Cgroup: host.Cgroup{Mode: host.CgroupV2, Hierarchies: []host.Hierarchy{{
			Mount: "/sys/fs/cgroup", V2: true, Controllers: []string{"cpu", "cpuset", "io", "memory", "pids"},
			Enabled: []string{"cpu", "cpuset", "io", "memory", "pids"}, Own: "/",
		}}},
	}
}

// answersFor is a host that has all that the containers of the test ask for.
func answersFor() spec.Answers {
	node := spec.Node{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229, Mode: 0o666}
	other := spec.Process{Container: strings.Repeat("e", 64), PID: 77}
	return spec.Answers{
		Hostname: "host", Passwd: []byte("app:x:7:8::/home/app:/bin/sh\n"), Group: []byte("video:x:44:\n"),
		Devices: map[string][]spec.Node{"/dev/fuse": {node}, "/dev/other": {node}}, AllDevices: []spec.Node{node},
		Blocks: map[string]spec.Node{
			"/dev/sda": {Path: "/dev/sda", Type: "b", Major: 8},
			"/dev/sdb": {Path: "/dev/sdb", Type: "b", Major: 8, Minor: 16},
		},
		SeccompProfile: []byte(`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["execve"],"action":"SCMP_ACT_ALLOW"}]}`),
		Shared:         map[string]spec.Process{"pid": other, "ipc": other, "net": other, "uts": other, "cgroup": other},
		EtcFiles:       []string{"hosts"}, SwapAccounting: true,
	}
}

// effects writes all that a container's data decide: its configuration, its plan, what it asks of the network, and what its supervisor and
// the verbs are told.
func effects(t *testing.T, c *container.Container) string {
	t.Helper()
	e := &Engine{cfg: Config{Root: "/root", State: "/state", Runtime: "/bin/glassbox-runtime"}}
	s, err := spec.Write(spec.Input{
		Container: c, Facts: testFacts(), Answers: answersFor(), Root: "/root", Dir: "containers/" + c.ID, Layers: []string{"layers/one"},
		Runtime: "/bin/glassbox-runtime",
	})
	if err != nil {
		return "refused: " + err.Error() // with a sentence, not in silence
	}
	r, err := request(c, s)
	if err != nil {
		return "refused: " + err.Error()
	}
	out, err := compile.Container(compile.Input{
		Spec: s.Spec, Facts: *testFacts(), Overlay: s.Overlay, Mountpoint: s.Mountpoint, SeccompName: s.SeccompName, Mounts: s.Mounts,
		DieWithParent: true, MakeCwd: true,
	})
	if err != nil {
		return "refused: " + err.Error()
	}
	job := e.supervisorJob(c, s, out)
	check, err := e.check(c, job, testFacts())
	if err != nil {
		return "refused: " + err.Error()
	}
	stop := ""
	if c.Config.StopTimeout != nil {
		stop = fmt.Sprint(*c.Config.StopTimeout)
	}
	text, err := json.Marshal([]any{s.Spec, s.SeccompName, s.Network, r, job, out.Plan, c.StopSignal(), stop, check})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestEveryFieldCounts changes each field of a container's data, and of all that they hold: each one must change what is made, or be
// refused with a sentence. So no flag can be accepted and ignored.
func TestEveryFieldCounts(t *testing.T) {
	// What is only kept and told, and by whom.
	told := map[string]string{
		"Image":         "which image: Engine.imageOf",
		"Platform":      "which image: Engine.imageOf",
		"Detach":        "inspect",
		"CIDFile":       "inspect; the command line writes it",
		"Labels":        "inspect, ps and filters",
		"Origins":       "what the plan prints; not a wish",
		"PublishAll":    "tested below, as it needs an image with ports",
		"Expose":        "inspect and filters; with -P it is published: TestExpose",
		"ConsoleSize.1": "goes with ConsoleSize.0",

		"Log.Labels":      "chooses among labels: TestLogOf",
		"Log.LabelsRegex": "chooses among labels: TestLogOf",
		"Log.Env":         "chooses among variables: TestLogOf",
		"Log.EnvRegex":    "chooses among variables: TestLogOf",

		"Security.Options":      "inspect; read into the other fields of Security",
		"Security.Profile":      "the text of the file that Security.Seccomp names: script seccomp",
		"Security.LabelDisable": "what there is anyway",
		"Mounts.Form":           "inspect: in which list it stands",
		"Mounts.Subpath":        "tested below, as it is of a volume",
		"Mounts.NoCopy":         "tested below, as it is of a volume",
		"Mounts.Labels":         "of a volume that is made: Engine.takeVolumes",
		"Mounts.Driver":         "of a volume that is made: Engine.takeVolumes",
		"Mounts.DriverOptions":  "of a volume that is made: Engine.takeVolumes",
		"Mounts.Relabel":        "inspect: processes of this engine have no SELinux label that files could fit",
		"Mounts.Dir":            "of a volume of the image only, in containers of version 2",
		"Requests.Names":        "which edits of the host's files: Engine.gatherCDI, script cdi",
		"Requests.GPU":          "which edits of the host's files: Engine.gatherCDI, script cdi",
		"Requests.Vendor":       "which edits of the host's files: Engine.gatherCDI, script cdi",
		"Requests.Count":        "which edits of the host's files: Engine.gatherCDI, script cdi",
		"StorageOpt":            "bounds the layer, where the file system can: Engine.boundLayer, script storage-opt",
		"VolumesFrom":           "the mounts are taken over when the container is made: Engine.inherit",
		"VolumeDriver":          "of a volume that is made: Engine.takeVolumes",
	}
	base := func() *container.Container {
		words := container.Words{
			Image: "i", Command: []string{"true"}, TTY: true, Memory: "100m", MemorySwap: "200m", Network: []string{"bridge"},
			Volume: []string{"/srv/a:/a"}, Device: []string{"/dev/fuse", "a.b/c=d"}, DeviceRule: []string{"c 1:3 rwm"},
			Ulimit: []string{"nofile=5:9"}, Sysctl: []string{"net.ipv4.ip_forward=1"}, Publish: []string{"8080:80"}, AddHost: []string{"h:1.2.3.4"},
			DNS: []string{"1.1.1.1"}, DNSSearch: []string{"a"}, DNSOption: []string{"b"}, DeviceReadBps: []string{"/dev/sda:1m"},
			BlkioWeightDevice: []string{"/dev/sda:100"},
			DeviceWriteBps:    []string{"/dev/sda:1m"}, DeviceReadIOps: []string{"/dev/sda:1"}, DeviceWriteIOps: []string{"/dev/sda:1"},
			Restart: "on-failure:1", HealthCmd: "true",
			GroupAdd: []string{"1"}, Env: []string{"A=1"}, CapAdd: []string{"SYS_TIME"}, CapDrop: []string{"KILL"},
		}
		config, err := words.Config()
		if err != nil {
			t.Fatal(err)
		}
		config.Rootfs, config.ConsoleSize = nil, [2]uint16{24, 80}
		return &container.Container{ID: strings.Repeat("c", 64), Name: "n", Config: *config}
	}
	before := effects(t, base())
	if strings.HasPrefix(before, "refused") {
		t.Fatal(before)
	}
	used := map[string]bool{}
	for _, leaf := range leaves(reflect.ValueOf(base().Config), nil) {
		name := strings.Join(slices.DeleteFunc(slices.Clone(leaf), func(s string) bool { return s == "*" }), ".")
		last := leaf[len(leaf)-1]
		if last == "Origin" {
			continue // as Origins
		}
		c := base()
		change(t, reflect.ValueOf(&c.Config).Elem(), leaf, name)
		changed := effects(t, c) != before
		if _, isTold := told[name]; isTold {
			used[name] = true
			if changed && name != "ConsoleSize.1" && name != "Origins" && name != "Image" {
				t.Errorf("%s is said to be only told, but it changes something", name)
			}
			continue
		}
		if !changed {
			t.Errorf("%s changes nothing: it would be accepted and ignored", name)
		}
	}
	for name := range told {
		if !used[name] {
			t.Errorf("%s is in the list, but no field", name)
		}
	}
	for name, set := range map[string]func(*container.Mount){
		"Subpath": func(m *container.Mount) { m.Subpath = "sub" }, "NoCopy": func(m *container.Mount) { m.NoCopy = true },
		"ReadOnly": func(m *container.Mount) { m.ReadOnly = true }, "IDMap": func(m *container.Mount) { m.IDMap = true },
	} {
		c := base()
		c.Config.Mounts[0].Type, c.Config.Mounts[0].Source = container.Volume, "data"
		plain := effects(t, c)
		if set(&c.Config.Mounts[0]); effects(t, c) == plain {
			t.Errorf("%s of a volume changes nothing", name)
		}
	}
	c := base()
	c.Image = &container.Image{ExposedPorts: []string{"99/udp"}}
	without := effects(t, c)
	if c.Config.PublishAll = true; effects(t, c) == without {
		t.Error("PublishAll changes nothing")
	}
}

// leaves lists the paths of the fields of a value that hold no others. "*" is the first element of a list.
func leaves(v reflect.Value, at []string) [][]string {
	at = slices.Clone(at)
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[netip.Addr]() {
			return [][]string{at}
		}
		var out [][]string
		for i := range v.NumField() {
			out = append(out, leaves(v.Field(i), append(at, v.Type().Field(i).Name))...)
		}
		return out
	case reflect.Array:
		var out [][]string
		for i := range v.Len() {
			out = append(out, leaves(v.Index(i), append(at, fmt.Sprint(i)))...)
		}
		return out
	case reflect.Slice:
		if v.Len() > 0 && v.Type().Elem().Kind() == reflect.Struct {
			return leaves(v.Index(0), append(at, "*"))
		}
	}
	return [][]string{at}
}

// change gives the field at a path another value.
func change(t *testing.T, v reflect.Value, path []string, name string) {
	t.Helper()
	for _, step := range path {
		switch {
		case step == "*":
			v = v.Index(0)
		case v.Kind() == reflect.Array:
			n := 0
			fmt.Sscan(step, &n)
			v = v.Index(n)
		default:
			v = v.FieldByName(step)
		}
	}
	other := map[string]any{
		"Rootfs": &container.Rootfs{Dir: "/srv/root"}, "Entrypoint": []string{"/sh"}, "Namespaces.New": []string{
			"mount", "net", "pid", "uts",
			"cgroup",
		},
		"Namespaces.PID": container.Mode("host"), "Namespaces.IPC": container.Mode("container:x"), "Namespaces.UTS": container.Mode("host"),
		"Namespaces.Cgroup": container.Mode("host"), "CapAdd": []string{"CAP_SYS_ADMIN"}, "CapDrop": []string{"CAP_CHOWN"},
		"Log.Compress": "true", "Security.Seccomp": "unconfined",
		"Security.AppArmor": "p", "Security.Masked": &[]string{"/proc/keys"}, "Security.ReadOnly": &[]string{},
		"Endpoints.Network": "none", "Endpoints.IP": "172.30.0.9", "Endpoints.MAC": "02:42:ac:11:00:09",
		"User":          "app",
		"Endpoints.IP6": "fd00::9", "Endpoints.LinkLocal": []string{"169.254.0.9"}, "Endpoints.Aliases": []string{"www"},
		"Endpoints.Links":   []string{"db:store"},
		"Endpoints.Options": map[string]string{container.SysctlOption: "net.ipv4.conf.IFNAME.rp_filter=1"},
		"Groups":            []string{"video"}, "Workdir": "/w", "StopSignal": "SIGINT",
		"Limits.CgroupParent": "/parent", "Limits.CpusetCPUs": "0",
		"Limits.CpusetMems": "0",
		"Mounts.Type":       container.Tmpfs, "Mounts.Recursive": container.RecursiveDisabled, "Mounts.Options": []string{"nosuid"},
		"Mounts.Propagation": "rslave",
		"Mounts.Target":      "/other", "Mounts.Form": container.FormMount, "Ports.Proto": "udp",
		"Ports.HostIP":   netip.MustParseAddr("127.0.0.1"),
		"Devices.Host":   "/dev/other",
		"Devices.Inside": "/dev/x", "Devices.Access": "r", "Rules.Type": "b", "Rules.Access": "r", "Env": []string{"B=2"}, "Hosts.IP": "4.3.2.1",
		"DNS.Servers": []string{"9.9.9.9"}, "Limits.Memory": int64(101 << 20), "Limits.MemorySwap": int64(201 << 20),
		"Limits.Reservation": int64(1 << 20),
		"Limits.CPUShares":   int64(512), "Limits.CPUPeriod": int64(50000), "Limits.CPUQuota": int64(5000), "Limits.NanoCPUs": int64(1e9),
		"Limits.BlkioWeight": uint16(100), "Ports.HostEnd": uint16(8090), "Sysctls.Key": "net.ipv4.ip_default_ttl",
		"Health.Test": []string{"CMD", "false"}, "Restart.Policy": "always",
		"Limits.ReadBps.Device": "/dev/sdb", "Limits.WriteBps.Device": "/dev/sdb", "Limits.ReadIOps.Device": "/dev/sdb",
		"Limits.WriteIOps.Device": "/dev/sdb", "Limits.BlkioWeights.Device": "/dev/sdb",
		"Limits.Ulimits.Name": "core",
	}
	if value, ok := other[name]; ok {
		v.Set(reflect.ValueOf(value))
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() + 5)
	case reflect.Uint16, reflect.Uint64:
		v.SetUint(v.Uint() + 1)
	case reflect.Pointer:
		p := reflect.New(v.Type().Elem())
		p.Elem().SetInt(7)
		v.Set(p)
	case reflect.Slice:
		v.Set(reflect.Append(v, reflect.ValueOf("x").Convert(v.Type().Elem())))
	case reflect.Map:
		m := reflect.MakeMap(v.Type())
		m.SetMapIndex(reflect.ValueOf("k"), reflect.ValueOf("v"))
		v.Set(m)
	default:
		t.Fatalf("%s: a field of kind %v: say how to change it", name, v.Kind())
	}
}
