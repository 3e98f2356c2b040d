package machine

import (
	"os"
	"strings"
	"testing"
	"time"

	"glassbox/test/plain"
)

func TestMain(m *testing.M) {
	Main()
	plain.Main(m)
}

func TestMachine(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	m, err := Start("one", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	env := []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	for _, test := range []struct{ script, want string }{
		{"hostname", "one\n"},
		{"echo $$ >&2; cat /proc/1/comm | wc -l", "1\n"},
		{"ip -4 -o addr show eth0 | grep -c 198.51.100.1", "1\n"},
		{"ip netns exec outside ip -4 -o addr show eth0 | grep -c 198.51.100.2/", "1\n"},
		{"ls /sys/class/net | tr '\\n' ' '", "eth0 lo "},
		{"grep -v ':/$' /proc/self/cgroup | grep -v '^0::/init$'; true", ""},
		{"cat /etc/resolv.conf | head -n1", "nameserver 198.51.100.2\n"},
	} {
		got, err := m.Run(10*time.Second, []string{"sh", "-c", test.script}, env, "/")
		if err != nil || got.Stdout != test.want || got.Code != 0 {
			t.Errorf("%s: got %q, code %d, %v, stderr %q; want %q", test.script, got.Stdout, got.Code, err, got.Stderr, test.want)
		}
	}
	if got, err := m.Run(10*time.Second, []string{"sh", "-c", "exit 7"}, env, "/"); got.Code != 7 {
		t.Errorf("exit 7: got %+v %v", got, err)
	}
	if got, _ := m.Run(200*time.Millisecond, []string{"sleep", "60"}, env, "/"); !got.TimedOut {
		t.Errorf("sleep 60: got %+v, want a time-out", got)
	}
	groups := m.Cgroups()
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	for _, group := range groups {
		if _, err := os.Stat(group); err == nil {
			t.Errorf("%s is left", group)
		}
		if !strings.Contains(group, "glassbox-test-") {
			t.Errorf("%s is not of a test", group)
		}
	}
}
