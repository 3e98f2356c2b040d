package network

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// A netns is a network namespace that lives as long as the test.
type netns struct {
	t  testing.TB
	fd int
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, for network namespaces")
	}
}

func newNetns(t testing.TB) *netns {
	t.Helper()
	needRoot(t)
	ns := &netns{t: t, fd: -1}
	own := openNS(t)
	defer unix.Close(own)
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("unshare: %v", err)
	}
	ns.fd = openNS(t)
	if err := unix.Setns(own, unix.CLONE_NEWNET); err != nil {
		t.Fatalf("setns: %v", err)
	}
	runtime.UnlockOSThread()
	t.Cleanup(func() { unix.Close(ns.fd) })
	return ns
}

func openNS(t testing.TB) int {
	t.Helper()
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// do runs f on a thread in the namespace.
func (ns *netns) do(f func()) {
	ns.t.Helper()
	done := make(chan any)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		defer func() { done <- recover() }()
		if err := unix.Setns(ns.fd, unix.CLONE_NEWNET); err != nil {
			panic(err)
		}
		f()
	}()
	if p := <-done; p != nil {
		ns.t.Fatal(p)
	}
}

func (ns *netns) sh(format string, a ...any) string {
	ns.t.Helper()
	var out []byte
	var err error
	script := fmt.Sprintf(format, a...)
	ns.do(func() { out, err = exec.Command("sh", "-ec", script).CombinedOutput() })
	if err != nil {
		ns.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

func testBridge(opened ...string) Bridge {
	return Bridge{Name: "glassbox0", Subnet: netip.MustParsePrefix("172.30.0.0/16"), Gateway: netip.MustParseAddr("172.30.0.1"),
		MTU: 1500, Table: "glassbox0", Opened: opened}
}

func testOrigin(what string) string { return what }

// run makes the steps, the part of package fork.
func (ns *netns) run(child *netns, steps []plan.Step) error {
	var err error
	ns.do(func() {
		w := Open(func() (int, error) { return child.fd, nil })
		defer w.Close()
		for _, s := range steps {
			if f, ok := s.Op.(*plan.WriteFile); ok {
				err = os.WriteFile(f.Path, []byte(f.Value), 0)
			} else {
				err = w.Do(s.Op)
			}
			if err != nil {
				err = fmt.Errorf("%s: %w", s.Op, err)
				return
			}
		}
	})
	return err
}

func TestWire(t *testing.T) {
	host, c1 := newNetns(t), newNetns(t)
	ip := netip.MustParseAddr("172.30.0.2")
	e := Endpoint{Bridge: testBridge(), IP: ip, MAC: MAC(ip), Veth: VethName("0123456789abcdef"),
		Ports: []Port{{HostPort: 8080, ContainerPort: 80, Proto: "tcp"}, {HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: 53, ContainerPort: 53, Proto: "udp"}}}
	if err := host.run(c1, Steps(e, testOrigin)); err != nil {
		t.Fatal(err)
	}
	t.Log(host.sh("nft list ruleset; ip -br a; ip r"))
	t.Log(c1.sh("ip a; ip r; ping -c1 -W1 172.30.0.1 || true"))
}
