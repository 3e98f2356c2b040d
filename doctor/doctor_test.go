package doctor

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"glassbox/cgroup"
	"glassbox/host"
	"glassbox/network"
)

// good are the facts of a host that lacks nothing; uid says whose.
func good(uid uint32) *Facts {
	controllers := []string{"cpuset", "cpu", "io", "memory", "hugetlb", "pids"}
	place := Place{Path: "/var/lib", Type: "ext4", Free: 50 << 30, Writable: true}
	f := &Facts{
		Host: &host.Facts{
			Kernel: host.Kernel{Release: "6.12.1", Major: 6, Minor: 12}, Arch: "amd64", UID: uid, Seccomp: true, LSM: []string{"apparmor"},
			Cgroup: host.Cgroup{
				Mode:        host.CgroupV2,
				Hierarchies: []host.Hierarchy{{Mount: "/sys/fs/cgroup", V2: true, Controllers: controllers, Own: "/", Files: []string{"io.weight"}}},
			},
		},
		User: "ann", Distribution: []string{"debian"},
		Sysctl: map[string]string{"user.max_user_namespaces": "1000", "kernel.seccomp.actions_avail": "errno user_notif"},
		Booted: true, Features: map[string]string{"overlay": loaded, "nf_tables": loaded, "bridge": loaded, "veth": builtIn},
		Bridge: network.Network{Link: "glassbox0", Subnets: []network.Subnet{{Prefix: netip.MustParsePrefix("172.30.0.0/16")}}},
		Root:   place, State: place, Runtime: "/bin/glassbox-runtime", Programs: map[string]string{"criu": "/sbin/criu", "pasta": "/bin/pasta"},
	}
	if uid == 0 {
		f.Host.Caps = 1<<41 - 1
	} else {
		f.SubUID, f.SubGID, f.IDMapPrograms, f.NFTables = 65536, 65536, true, denied
		f.Delegation = &cgroup.Delegation{Path: "/user", Controllers: controllers}
	}
	return f
}

func find(t *testing.T, r *Report, name string) Item {
	t.Helper()
	n := slices.IndexFunc(r.Items, func(i Item) bool { return i.Name == name })
	if n < 0 {
		t.Fatalf("no item %q", name)
	}
	return r.Items[n]
}

func TestGoodHost(t *testing.T) {
	for _, uid := range []uint32{0, 1000} {
		r := Diagnose(good(uid))
		if !r.Runs {
			t.Errorf("user %d: %s", uid, r.Summary)
		}
		for _, i := range r.Items {
			// What an ordinary user can't do on any host.
			if uid != 0 && (i.Name == "bridge network" || i.Name == "glassbox run") {
				continue
			}
			if i.Status != OK || i.Mend != "" || i.Means == "" || i.Source == "" {
				t.Errorf("user %d: got %+v, want it ok, with meaning and source", uid, i)
			}
		}
	}
}

// TestFaults breaks one thing at a time and looks for the item that says so.
func TestFaults(t *testing.T) {
	v1 := func(f *Facts) {
		f.Delegation = nil
		f.Host.Cgroup = host.Cgroup{
			Mode:        host.CgroupV1,
			Hierarchies: []host.Hierarchy{{Mount: "/sys/fs/cgroup/memory", Controllers: []string{"memory"}, Own: "/"}},
		}
	}
	for _, c := range []struct {
		what   string
		uid    uint32
		spoil  func(*Facts)
		item   string
		status Status
		runs   bool
		mend   string
	}{
		{
			"old kernel", 0, func(f *Facts) { f.Host.Kernel = host.Kernel{Release: "5.10.0", Major: 5, Minor: 10} }, "kernel", Missing, false,
			"boot Linux 5.14",
		},
		{
			"a filter", 0, func(f *Facts) { f.Calls = map[string]string{"clone3": "function not implemented"} }, "clone3", Missing, false,
			"seccomp",
		},
		{"an old overlay", 0, func(f *Facts) { f.Lowerdir = "invalid argument" }, "overlay lowerdir+", Limited, true, "6.8"},
		{"no overlay", 0, func(f *Facts) { f.Features["overlay"] = "" }, "overlayfs", Missing, false, "modprobe overlay"},
		{"overlay not loaded", 1000, func(f *Facts) { f.Features["overlay"] = loadable }, "overlayfs", Missing, false, "sudo modprobe overlay"},
		{"overlay loads itself for root", 0, func(f *Facts) { f.Features["overlay"] = loadable }, "overlayfs", OK, true, ""},
		{"swapaccount=0", 0, func(f *Facts) { f.NoSwapAccount = true }, "swap", Missing, true, "remove swapaccount=0"},
		{"v1 without swap accounting", 0, v1, "swap", Missing, true, "swapaccount=1"},
		{"v1 with memory", 0, v1, "memory", OK, true, ""},
		{"v1 for users", 1000, v1, "memory", Missing, true, "unified_cgroup_hierarchy"},
		{
			"pids not mounted", 0, func(f *Facts) { v1(f); f.Controllers = map[string]bool{"pids": true} }, "pids", Missing, true,
			"mount -t cgroup -o pids cgroup /sys/fs/cgroup/pids",
		},
		{
			"pids disabled", 0, func(f *Facts) { v1(f); f.Controllers = map[string]bool{"pids": false} }, "pids", Missing, true,
			"cgroup_enable=pids",
		},
		{"read-only cgroups", 0, func(f *Facts) { f.ReadOnlyCgroups = []string{"/sys/fs/cgroup"} }, "memory", Missing, true, "remount,rw"},
		{"no cgroups", 0, func(f *Facts) { f.Host.Cgroup = host.Cgroup{Mode: host.CgroupNone} }, "cgroups", Limited, true, "mount -t cgroup2"},
		{
			"no io.weight", 0, func(f *Facts) { f.Host.Cgroup.Hierarchies[0].Controllers = []string{"memory"} }, "io weight", Missing, true,
			"BLK_CGROUP",
		},
		{"nothing delegated", 1000, func(f *Facts) { f.Delegation = nil }, "delegation", Missing, true, "Delegate=cpu"},
		{
			"two controllers of the manager", 1000, func(f *Facts) { f.Delegation, f.ManagerControllers = nil, []string{"memory", "pids"} },
			"delegation", Limited, true, "Delegate=cpu",
		},
		{
			"and cpu isn't among them", 1000, func(f *Facts) { f.Delegation, f.ManagerControllers = nil, []string{"memory", "pids"} }, "cpu",
			Missing, true, "Delegate=cpu",
		},
		{"but memory is", 1000, func(f *Facts) { f.Delegation, f.ManagerControllers = nil, []string{"memory", "pids"} }, "memory", OK, true, ""},
		{"systemd silent", 1000, func(f *Facts) { f.SystemdErr = "no answer" }, "systemd", Limited, true, "enable-linger ann"},
		{
			"no user namespaces", 1000, func(f *Facts) { f.Sysctl["user.max_user_namespaces"] = "0" }, "user namespaces", Missing, false,
			"sudo sysctl -w user.max_user_namespaces",
		},
		{
			"root needs none", 0, func(f *Facts) { f.Sysctl["user.max_user_namespaces"] = "0" }, "user namespaces", Missing, true,
			"sysctl -w user.max_user_namespaces",
		},
		{
			"Debian's sysctl", 1000, func(f *Facts) { f.Sysctl["kernel.unprivileged_userns_clone"] = "0" }, "user namespaces", Missing, false,
			"kernel.unprivileged_userns_clone=1",
		},
		{"isn't for root", 0, func(f *Facts) { f.Sysctl["kernel.unprivileged_userns_clone"] = "0" }, "user namespaces", OK, true, ""},
		{
			"Ubuntu's AppArmor", 1000, func(f *Facts) { f.Sysctl["kernel.apparmor_restrict_unprivileged_userns"] = "1" }, "user namespaces",
			Missing, false, "apparmor_restrict_unprivileged_userns=0",
		},
		{"clone refused", 1000, func(f *Facts) { f.UserNS = "operation not permitted" }, "user namespaces", Missing, false, "CLONE_NEWUSER"},
		{"no subuid", 1000, func(f *Facts) { f.SubGID = 0 }, "ids to map", Limited, true, "--add-subgids 100000-165535 ann"},
		{"no newuidmap", 1000, func(f *Facts) { f.IDMapPrograms = false }, "newuidmap", Limited, true, "sudo apt install uidmap"},
		{
			"no newuidmap on Fedora", 1000, func(f *Facts) { f.IDMapPrograms, f.Distribution = false, []string{"fedora"} }, "newuidmap",
			Limited, true, "sudo dnf install shadow-utils",
		},
		{"root directory read-only", 0, func(f *Facts) { f.Root.ReadOnly = true }, "root directory", Missing, false, "--root"},
		{"root directory on overlay", 0, func(f *Facts) { f.Root.Type = "overlay" }, "root directory", Limited, true, "--root"},
		{"root directory noexec", 0, func(f *Facts) { f.Root.NoExec = true }, "root directory", Limited, true, "remount,exec"},
		{"root directory full", 0, func(f *Facts) { f.Root.Free = 1 << 20 }, "root directory", Limited, true, "rmi"},
		{"state on tmpfs", 0, func(f *Facts) { f.State.Type, f.State.Free = "tmpfs", 1<<20 }, "state directory", OK, true, ""},
		{"nf_tables missing", 0, func(f *Facts) { f.NFTables = "invalid argument" }, "nftables", Missing, true, "modprobe nf_tables"},
		{"nf_tables not loaded", 0, func(f *Facts) { f.NFTables, f.Features["nf_tables"] = unasked, loadable }, "nftables", OK, true, ""},
		{
			"nf_tables perhaps not loaded", 0, func(f *Facts) { f.NFTables, f.Features["nf_tables"] = unasked, "" }, "nftables", Limited, true,
			"modprobe nf_tables",
		},
		{"nf_tables unseen", 1000, func(f *Facts) { f.Features["nf_tables"] = "" }, "nftables", Limited, true, "as root"},
		{"no veth", 0, func(f *Facts) { f.Features["veth"] = absent }, "veth", Missing, true, "CONFIG_VETH"},
		{"no subnet", 0, func(f *Facts) { f.BridgeErr = "no free subnet" }, "default bridge", Missing, true, "see"},
		{
			"firewall", 0, func(f *Facts) { f.Blocking, f.MendErr = []string{"ip filter FORWARD"}, "permission denied" },
			"other firewalls", Limited, true, "permission denied",
		},
		{
			"legacy firewall", 0, func(f *Facts) { f.Unseen = []string{"iptables-legacy"} }, "other firewalls", Limited, true,
			"install iptables",
		},
		{
			"br_netfilter", 0, func(f *Facts) { f.Sysctl["net.bridge.bridge-nf-call-iptables"] = "1" }, "br_netfilter", Limited, true,
			"bridge-nf-call-iptables=0",
		},
		{"no seccomp", 0, func(f *Facts) { f.Host.Seccomp = false }, "seccomp", Missing, false, "CONFIG_SECCOMP_FILTER"},
		{"no notify", 0, func(f *Facts) { f.Sysctl["kernel.seccomp.actions_avail"] = "errno" }, "seccomp notify", Missing, true, "5.5"},
		{"no CAP_SYS_RESOURCE", 0, func(f *Facts) { f.Host.Caps &^= 1 << 24 }, "capabilities", Limited, true, "--cap-add SYS_RESOURCE"},
		{"no CAP_SYS_ADMIN", 0, func(f *Facts) { f.Host.Caps &^= 1 << 21 }, "capabilities", Missing, false, "--cap-add SYS_ADMIN"},
		{"no runtime", 0, func(f *Facts) { f.Runtime = "" }, "glassbox-runtime", Missing, false, "make install"},
		{"no criu", 0, func(f *Facts) { delete(f.Programs, "criu") }, "criu", Missing, true, "apt install criu"},
		{"wrong time", 0, func(f *Facts) { f.Clock = "it is set to 1970-01-01" }, "clock", Limited, true, "timedatectl"},
	} {
		t.Run(c.what, func(t *testing.T) {
			f := good(c.uid)
			c.spoil(f)
			r := Diagnose(f)
			i := find(t, r, c.item)
			if i.Status != c.status || r.Runs != c.runs {
				t.Errorf("got %s, runs %v (%s); want %s, %v", i.Status, r.Runs, r.Summary, c.status, c.runs)
			}
			if !strings.Contains(i.Mend, c.mend) || (c.mend == "") != (i.Mend == "") {
				t.Errorf("got mend %q, want %q in it", i.Mend, c.mend)
			}
			if !c.runs && !strings.Contains(r.Summary, c.item) {
				t.Errorf("got summary %q, want %q named in it", r.Summary, c.item)
			}
		})
	}
}

func TestGranted(t *testing.T) {
	const text = "ann:100000:65536\nbob:165536:1000\n1000:300000:10\nann:bad:x\nann:1:2:3\n"
	for _, c := range []struct {
		name, id string
		want     uint64
	}{{"ann", "7", 65536}, {"bob", "1000", 1010}, {"", "1000", 10}, {"eve", "8", 0}} {
		if got := granted(text, c.name, c.id); got != c.want {
			t.Errorf("%s (%s): got %d, want %d", c.name, c.id, got, c.want)
		}
	}
}

func TestFeature(t *testing.T) {
	config := parseConfig(strings.NewReader("# comment\nCONFIG_VETH=y\nCONFIG_BRIDGE=m\n# CONFIG_NF_TABLES is not set\n"))
	const dep = "kernel/net/bridge/bridge.ko.xz: kernel/net/llc/llc.ko.xz\n"
	for _, c := range []struct {
		name, option string
		present      bool
		builtin, dep string
		want         string
	}{
		{"veth", "CONFIG_VETH", false, "", "", builtIn},
		{"bridge", "CONFIG_BRIDGE", true, "", dep, loaded},
		{"bridge", "CONFIG_BRIDGE", false, "", dep, loadable},
		{"bridge", "CONFIG_BRIDGE", false, "", "", ""},
		{"nf_tables", "CONFIG_NF_TABLES", false, "", "", absent},
		{"overlay", "", false, "kernel/fs/overlayfs/overlay.ko\n", dep, builtIn},
		{"overlay", "", false, "kernel/fs/ext4/ext4.ko\n", dep, absent},
	} {
		if got := feature(c.name, c.present, config[c.option], c.builtin, c.dep); got != c.want {
			t.Errorf("%+v: got %q", c, got)
		}
	}
}

// TestProbe looks at this host and checks that nothing was made on the way.
func TestProbe(t *testing.T) {
	dir := t.TempDir()
	f, err := Probe(Options{Root: dir + "/root", State: dir + "/state/deep"})
	if err != nil {
		t.Fatal(err)
	}
	if f.Root.Path != dir || f.Root.Type == "" || f.Root.Free == 0 || !f.Root.Writable {
		t.Errorf("got %+v, want the nearest directory, %s", f.Root, dir)
	}
	for _, name := range []string{"root", "state"} {
		if _, err := os.Stat(dir + "/" + name); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: got %v, want it not made", name, err)
		}
	}
	if r := Diagnose(f); len(r.Items) < 30 || r.Version != Version {
		t.Errorf("got %d items of version %d", len(r.Items), r.Version)
	}
}
