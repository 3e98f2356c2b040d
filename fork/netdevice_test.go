package fork

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestNetDevices moves devices into containers: with a new network namespace and with one that exists. Their addresses go along.
func TestNetDevices(t *testing.T) {
	inNamespace(t)
	ip, err := exec.LookPath("ip")
	if err != nil {
		t.Skip("needs ip (Debian: iproute2)")
	}
	file := filepath.Join(t.TempDir(), "net")
	if err := errors.Join(unix.Unshare(unix.CLONE_NEWNET), os.WriteFile(file, nil, 0o600), unix.Mount("/proc/thread-self/ns/net", file, "",
		unix.MS_BIND, "")); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(file, unix.MNT_DETACH)
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil { // in which the devices are made
		t.Fatal(err)
	}
	for _, join := range []string{"", file} {
		for _, args := range []string{
			"link add one type veth peer name two", "addr add 192.0.2.7/24 dev one", "addr add 2001:db8::7/64 dev one nodad", "link set one up",
		} {
			if out, err := exec.Command(ip, strings.Fields(args)...).CombinedOutput(); err != nil {
				t.Fatalf("ip %s: %v\n%s", args, err, out)
			}
		}
		s := bundle(t, "sh", "-c",
			"busybox ip -o addr | busybox grep -E 'one|box'; busybox ip -o link show up | busybox cut -d: -f2 | busybox sort")
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs"})
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "network", Path: join})
		s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"one": {}, "two": {Name: "box%d"}}
		code, got, err := runSpec(t, s)
		if err != nil || code != 0 {
			t.Fatalf("join %q: code %d, %v", join, code, err)
		}
		for _, want := range []string{"inet 192.0.2.7/24", "inet6 2001:db8::7/64", " one@box0\n", " box0@one\n"} {
			if !strings.Contains(got, want) {
				t.Errorf("join %q: no %q in\n%s", join, want, got)
			}
		}
		if strings.Count(got, "2001:db8::7") != 1 {
			t.Errorf("join %q: not one address:\n%s", join, got)
		}
	}
	// A name that is taken there, which the kernel sees when the device has moved: it must not leave the host for that. The join above
	// has left box0 in the namespace.
	for _, args := range []string{"link add three type veth peer name four", "addr add 192.0.2.8/24 dev three", "link set three up"} {
		if out, err := exec.Command(ip, strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v\n%s", args, err, out)
		}
	}
	taken := bundle(t, "true")
	taken.Linux.Namespaces = append(taken.Linux.Namespaces, specs.LinuxNamespace{Type: "network", Path: file})
	taken.Linux.NetDevices = map[string]specs.LinuxNetDevice{"three": {Name: "lo"}}
	if _, _, err := runSpec(t, taken); !errors.Is(err, unix.EEXIST) || !strings.Contains(err.Error(), "/linux/netDevices/three") {
		t.Errorf("a name that is taken: got %v, want EEXIST", err)
	}
	if out, err := exec.Command(ip, "-o", "addr", "show", "dev", "three").CombinedOutput(); err != nil ||
		!strings.Contains(string(out), "192.0.2.8/24") {
		t.Errorf("after a name that was taken the host has lost the device or its address: %v, %s", err, out)
	}
	s := bundle(t, "true")
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "network"})
	s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"none": {}}
	if _, _, err := runSpec(t, s); !errors.Is(err, unix.ENODEV) || !strings.Contains(err.Error(), "/linux/netDevices/none") {
		t.Errorf("got %v, want ENODEV", err)
	}
}
