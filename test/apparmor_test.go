package test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// appArmor loads the profiles of apparmor.profile into the kernel, where they stay; the error says what is missing. A program that
// compiles them is needed, or the compiled ones in the file that GLASSBOX_TEST_APPARMOR names.
var appArmor = sync.OnceValue(func() error {
	if enabled, _ := os.ReadFile("/sys/module/apparmor/parameters/enabled"); !bytes.HasPrefix(enabled, []byte("Y")) {
		return errors.New("AppArmor is not active in this kernel")
	}
	policy, err := os.ReadFile(os.Getenv("GLASSBOX_TEST_APPARMOR"))
	if err != nil {
		if policy, err = exec.Command("apparmor_parser", "--stdout", "--skip-cache", "apparmor.profile").Output(); err != nil {
			return fmt.Errorf("apparmor_parser: %w", err)
		}
	}
	return os.WriteFile("/sys/kernel/security/apparmor/.replace", policy, 0)
})

// TestRuntimeAppArmor confines containers by profiles that the kernel has.
func TestRuntimeAppArmor(t *testing.T) {
	if err := appArmor(); err != nil {
		t.Skip("needs AppArmor: ", err)
	}
	b := startBundles(t, "apparmor")
	root := b.rootfs("root")
	b.write(filepath.Join(root, "etc/hidden"), "a secret\n", 0o644)
	const look = "cat /proc/self/attr/current; cat /etc/hidden"
	bundle := func(name, profile string, strict bool) string {
		return b.bundle(name, root, func(s *specs.Spec) {
			s.Process.ApparmorProfile, s.Process.NoNewPrivileges = profile, strict
			s.Process.Args = []string{"sh", "-c", look}
			if strings.HasPrefix(name, "stays") {
				s.Process.Args = []string{"sleep", "1000"}
			}
		})
	}
	for _, test := range []struct {
		name, profile string
		strict        bool
		out, err      string // of what it writes
	}{
		{"none", "", false, "unconfined\na secret\n", ""},
		{"unconfined", "unconfined", false, "unconfined\na secret\n", ""},
		{"confined", "glassbox-test", false, "glassbox-test (enforce)\n", "Permission denied"},
		{"strict", "glassbox-test", true, "glassbox-test (enforce)\n", "Permission denied"},
		{"other", "glassbox-test-other", true, "glassbox-test-other (enforce)\na secret\n", ""},
		{"missing", "glassbox-test-missing", false, "", "no AppArmor profile of this name"},
	} {
		res := b.runtime("run", "--bundle", bundle(test.name, test.profile, test.strict), test.name)
		if res.Stdout != test.out || !strings.Contains(res.Stderr, test.err) {
			t.Errorf("%s: got %+v, want output %q and error %q", test.name, res, test.out, test.err)
		}
	}
	b.must("run", "--detach", "--bundle", bundle("stays", "glassbox-test", true), "stays")
	for _, test := range []struct{ flag, out, err string }{
		{"", "glassbox-test (enforce)\n", "Permission denied"},
		{"--apparmor=glassbox-test-other", "glassbox-test-other (enforce)\na secret\n", ""},
		{"--apparmor=glassbox-test-missing", "", "apparmorProfile"},
	} {
		args := []string{"exec", "stays", "sh", "-c", look}
		if test.flag != "" {
			args = append([]string{"exec", test.flag}, args[1:]...)
		}
		res := b.runtime(args...)
		if res.Stdout != test.out || !strings.Contains(res.Stderr, test.err) {
			t.Errorf("exec %s: got %+v, want output %q and error %q", test.flag, res, test.out, test.err)
		}
	}
	b.must("delete", "--force", "stays")
}
