package test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// enforceSELinux loads the policy of selinux.conf, which stays, and enforces it until the test ends.
func enforceSELinux(t *testing.T) {
	t.Helper()
	// A policy is the whole machine's.
	if os.Getenv("GLASSBOX_TEST_VM") == "" {
		t.Skip("needs a machine that is thrown away")
	}
	modules, _ := os.ReadFile("/sys/kernel/security/lsm")
	if !slices.Contains(strings.Split(strings.TrimSpace(string(modules)), ","), "selinux") {
		t.Skip("needs a kernel that was started with SELinux")
	}
	policy, err := os.ReadFile(os.Getenv("GLASSBOX_TEST_SELINUX"))
	if err != nil {
		file := filepath.Join(t.TempDir(), "policy")
		if out, err := exec.Command("checkpolicy", "-M", "-U", "allow", "-c", "33", "-o", file, "selinux.conf").CombinedOutput(); err != nil {
			t.Fatalf("checkpolicy: %v: %s", err, out)
		}
		if policy, err = os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "selinuxfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	if err := os.WriteFile(filepath.Join(dir, "load"), policy, 0); err != nil {
		t.Fatal(err)
	}
	enforce := filepath.Join(dir, "enforce")
	if err := os.WriteFile(enforce, []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.WriteFile(enforce, []byte("0"), 0) })
}

// TestRuntimeSELinux labels containers by a policy that the kernel enforces.
func TestRuntimeSELinux(t *testing.T) {
	enforceSELinux(t)
	b := startBundles(t, "selinux")
	root := b.rootfs("root")
	b.write(filepath.Join(root, "etc/hidden"), "a secret\n", 0o644)
	b.write(filepath.Join(root, "etc/other"), "another's\n", 0o644)
	b.write(filepath.Join(root, "etc/own"), "its own\n", 0o644)
	for name, label := range map[string]string{"hidden": "secret_t:s0", "other": "container_file_t:s0:c0", "own": "container_file_t:s0:c1"} {
		if err := unix.Setxattr(filepath.Join(root, "etc", name), "security.selinux", []byte("system_u:object_r:"+label), 0); err != nil {
			t.Fatal(err)
		}
	}
	const (
		label   = "system_u:system_r:container_t:s0:c1,c2"
		mounts  = "system_u:object_r:container_file_t:s0:c1,c2"
		base    = "system_u:system_r:base_t:s0"
		missing = "system_u:system_r:missing_t:s0"
		look    = "cat /proc/self/attr/current; echo; cat /etc/hidden /etc/other /etc/own"
	)
	bundle := func(name, label, mounts string, strict bool, script string) string {
		return b.bundle(name, root, func(s *specs.Spec) {
			s.Process.SelinuxLabel, s.Linux.MountLabel, s.Process.NoNewPrivileges = label, mounts, strict
			s.Process.Args = []string{"sh", "-c", script}
			s.Root.Readonly = false
			s.Linux.MaskedPaths = []string{"/sys/firmware"}
			if name == "users" {
				s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
				all := []specs.LinuxIDMapping{{Size: 65536}}
				s.Linux.UIDMappings, s.Linux.GIDMappings = all, all
			}
		})
	}
	for _, test := range []struct {
		name, label, mounts string
		strict              bool
		out, err            string // of what it writes
	}{
		{"none", "", "", false, base + "-s0:c0.c2\na secret\nanother's\nits own\n", ""},
		{"confined", label, mounts, false, label + "\nits own\n", "hidden': Permission denied"},
		{"strict", label, mounts, true, label + "\nits own\n", "other': Permission denied"},
		{"users", label, mounts, true, label + "\nits own\n", "other': Permission denied"},
		{"missing", missing, "", true, "", `(?s)/process/selinuxLabel\): .*SELinux's policy has no such label`},
		{"badmount", label, missing, true, "", `(?s)/mounts/\d+\): .*it is /linux/mountLabel`},
	} {
		res := b.runtime("run", "--bundle", bundle(test.name, test.label, test.mounts, test.strict, look), test.name)
		res.Stdout = strings.ReplaceAll(res.Stdout, "\x00", "")
		if res.Stdout != test.out || !regexp.MustCompile(test.err).MatchString(res.Stderr) {
			t.Errorf("%s: got %+v, want output %q and error %q", test.name, res, test.out, test.err)
		}
	}

	b.must("run", "--detach", "--bundle", bundle("stays", label, mounts, true, "cat /proc/keys >/dev/shm/keys; sleep 1000; :"), "stays")
	for _, test := range []struct {
		flag, out, err string
		code           int
	}{
		{"", label + "\nits own\n", "hidden': Permission denied", 1},
		{"--process-label=" + base, base + "\na secret\n", "other': Permission denied", 1},
		{"--process-label=" + missing, "", "(?s)/process/selinuxLabel\\): .*SELinux's policy has no such label", 255},
	} {
		args := []string{"exec", "stays", "sh", "-c", look}
		if test.flag != "" {
			args = append([]string{"exec", test.flag}, args[1:]...)
		}
		res := b.runtime(args...)
		res.Stdout = strings.ReplaceAll(res.Stdout, "\x00", "")
		if !strings.HasPrefix(res.Stdout, test.out) || test.out == "" && res.Stdout != "" || res.Code != test.code ||
			!regexp.MustCompile(test.err).MatchString(res.Stderr) {
			t.Errorf("exec %s: got %+v, want output %q, error %q and exit code %d", test.flag, res, test.out, test.err, test.code)
		}
	}

	// What it mounts has the label that was asked for, the queue by an attribute, and so has what hides a directory.
	var s struct{ PID int }
	if err := json.Unmarshal([]byte(b.must("state", "stays")), &s); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"dev", "dev/pts", "dev/shm", "dev/mqueue", "dev/null", "dev/shm/keys", "sys/firmware"} {
		out := b.must("/bin/ls", "-Zd", fmt.Sprintf("/proc/%d/root/%s", s.PID, name))
		if !strings.Contains(out, mounts) {
			t.Errorf("/%s: got %q, want the label %s", name, out, mounts)
		}
	}
	if res := b.runtime(filepath.Join(run.bin, "glassbox"), "verify", "--runtime-root", "/run/oci", "stays"); res.Code != 0 {
		t.Errorf("verify: %+v", res)
	}
	// Its session keyring has the label of its program.
	keys := b.must("exec", "stays", "cat", "/dev/shm/keys")
	// The session keyrings of others are among those that it sees.
	labels := map[string]bool{}
	for _, serial := range regexp.MustCompile(`(?m)^([0-9a-f]{8}) .* keyring +_ses`).FindAllStringSubmatch(keys, -1) {
		id, _ := strconv.ParseInt(serial[1], 16, 64)
		buf := make([]byte, 200)
		if n, err := unix.KeyctlBuffer(unix.KEYCTL_GET_SECURITY, int(id), buf, 0); err == nil {
			labels[strings.TrimRight(string(buf[:n]), "\x00")] = true
		}
	}
	if !labels[label] {
		t.Errorf("labels of keyrings: got %v, want %s among them; keys:\n%s", labels, label, keys)
	}
	b.must("delete", "--force", "stays")
}
