package engine

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"glassbox/supervise"
)

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1": 1, "50m": 50 << 20, "50M": 50 << 20, "50mb": 50 << 20, "1.5g": 3 << 29, "64kib": 64 << 10, "2t": 2 << 40, "7b": 7, " 5k ": 5 << 10,
	} {
		if got, err := parseSize("memory", text); err != nil || got != want {
			t.Errorf("parseSize(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "m", "-1", "1x", "1e3", "0x10", "nan", "inf", "9999999999t", "1_000", "+1", "1 2"} {
		if got, err := parseSize("memory", text); err == nil {
			t.Errorf("parseSize(%q) = %d, want an error", text, got)
		} else if !strings.Contains(err.Error(), "--memory") {
			t.Errorf("parseSize(%q): %v doesn't name the flag", text, err)
		}
	}
}

const (
	passwd = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:100:App:/home/app:/bin/sh\nbroken line\nwrap:x:4294967296:0::/:/bin/sh\nneg:x:-1:0::/:/bin/sh\n"
	group  = "root:x:0:\nusers:x:100:\nvideo:x:44:app,root\nbad:x:zz:app\n"
)

func TestLookupUser(t *testing.T) {
	for _, tc := range []struct {
		spec  string
		extra []string
		want  user
	}{
		{"", nil, user{0, 0, []uint32{44}, "/root"}},
		{"app", nil, user{1000, 100, []uint32{44}, "/home/app"}},
		{"1000", nil, user{1000, 100, []uint32{44}, "/home/app"}},
		{"app:users", nil, user{1000, 100, nil, "/home/app"}},
		{"app:0", nil, user{1000, 0, nil, "/home/app"}},
		{"4711", nil, user{4711, 0, nil, "/"}},
		{"4711:42", []string{"video", "7"}, user{4711, 42, []uint32{44, 7}, "/"}},
		{"4294967294", nil, user{4294967294, 0, nil, "/"}},
	} {
		got, err := lookupUser(tc.spec, tc.extra, []byte(passwd), []byte(group))
		if d := cmp.Diff(tc.want, got, cmp.AllowUnexported(user{})); err != nil || d != "" {
			t.Errorf("%q: %v (-want +got):\n%s", tc.spec, err, d)
		}
	}
	// CVE-2026-30892 and relatives: nothing that isn't plainly a number may become one, least of all 0.
	for _, spec := range []string{"4294967296", "4294967295", "-1", "00", "007", "99999999999999999999", "nobody", "wrap", "neg", "app:nogroup", "app:-1", "app:4294967296", "1000:00"} {
		if got, err := lookupUser(spec, nil, []byte(passwd), []byte(group)); err == nil {
			t.Errorf("%q is user %+v, want an error", spec, got)
		}
	}
	if got, err := lookupUser("0", nil, nil, nil); err != nil || got.uid != 0 {
		t.Errorf("0 without files: %+v, %v", got, err)
	}
}

func FuzzLookupUser(f *testing.F) {
	for _, spec := range []string{"", "0", "app:video", "4294967296", "-1", "00", "a:b:c", ":", "1:"} {
		f.Add(spec, passwd, group)
	}
	f.Fuzz(func(t *testing.T, spec, passwd, group string) {
		u, err := lookupUser(spec, nil, []byte(passwd), []byte(group))
		if err != nil {
			return
		}
		if u.uid == math.MaxUint32 || u.gid == math.MaxUint32 {
			t.Errorf("%q: %+v: the highest id means no change", spec, u)
		}
		// Root is only who is called root's number, no user at all, or who the file says has number 0.
		name, _, _ := strings.Cut(spec, ":")
		if u.uid == 0 && name != "" && name != "0" && !strings.Contains(passwd, ":0:") {
			t.Errorf("%q became root", spec)
		}
	})
}

func TestEnv(t *testing.T) {
	got, err := setEnv([]string{"A=1", "B=2"}, []string{"HOSTVAR=h", "EMPTY="}, []string{"B=3", "C=4"}, []string{"HOSTVAR", "A", "EMPTY", "C=5"})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"B=3", "C=5", "HOSTVAR=h", "EMPTY="}, got); d != "" {
		t.Errorf("environment (-want +got):\n%s", d)
	}
	for _, bad := range []string{"", "=x", "a\x00b=c"} {
		if _, err := setEnv(nil, nil, []string{bad}); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestEnvFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(file, []byte("\ufeff# comment\n\nA=1\r\n  B = 2\nC\nD=# no comment\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := readEnvFile(file); err == nil || !strings.Contains(err.Error(), ":4") {
		t.Errorf("a name with a blank: %v, want an error with the line", err)
	}
	if err := os.WriteFile(file, []byte("A=1\r\nC\nD=# no comment\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := readEnvFile(file)
	if d := cmp.Diff([]string{"A=1", "C", "D=# no comment"}, got); err != nil || d != "" {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
}

func TestParseSignal(t *testing.T) {
	for text, want := range map[string]unix.Signal{"9": 9, "KILL": 9, "sigterm": 15, "SIGRTMIN+3": 37, "RTMAX-1": 63, "64": 64} {
		if got, err := ParseSignal(text); err != nil || got != want {
			t.Errorf("ParseSignal(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "0", "65", "-9", "NOSUCH", "SIGRTMIN+99", "RTMIN+x"} {
		if got, err := ParseSignal(text); err == nil {
			t.Errorf("ParseSignal(%q) = %d, want an error", text, got)
		}
	}
}

func TestParseUlimit(t *testing.T) {
	name, soft, hard, err := parseUlimit("nofile=1024:unlimited")
	if err != nil || name != "RLIMIT_NOFILE" || soft != 1024 || hard != math.MaxUint64 {
		t.Errorf("got %s %d %d %v", name, soft, hard, err)
	}
	for _, text := range []string{"nofile", "nofile=", "nofile=2:1", "speed=1", "=1", "nofile=x", "nofile=1:x", "core=-2"} {
		if _, _, _, err := parseUlimit(text); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[string]bool{"web": true, "a-b_c.d": true, "9x": true, "x": false, "": false, "-x": false, "a b": false, "a/b": false, "..": false, strings.Repeat("x", 201): false} {
		if got := validName(name); got != want {
			t.Errorf("validName(%q) = %v", name, got)
		}
	}
	for range 100 {
		if name := randomName(5); !validName(name) {
			t.Errorf("random name %q is invalid", name)
		}
	}
}

func TestStatus(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for want, s := range map[string]supervise.State{
		"Created":                    {Status: supervise.Created},
		"Up 5 seconds":               {Status: supervise.Running, Started: now.Add(-5 * time.Second)},
		"Up About a minute (Paused)": {Status: supervise.Paused, Started: now.Add(-90 * time.Second)},
		"Exited (3) 2 hours ago":     {Status: supervise.Exited, ExitCode: 3, Finished: now.Add(-2 * time.Hour)},
	} {
		if got := Status(&s, now); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestMountFlags(t *testing.T) {
	dir := t.TempDir()
	b := &builder{o: &CreateOptions{Dir: dir}}
	for _, text := range []string{
		"a:b:c:d", "relative", dir + ":relative", dir + ":/", "/no/such/dir:/x", dir + ":/x:sideways", "name:/x",
	} {
		if m, err := b.volume(text); err == nil {
			t.Errorf("-v %s is accepted: %+v", text, m)
		}
	}
	m, err := b.volume(".:/x:ro,rslave")
	if err != nil || m.Source != dir || m.Destination != "/x" || cmp.Diff([]string{"rbind", "rro", "rslave"}, m.Options) != "" {
		t.Errorf("got %+v, %v", m, err)
	}
	for _, text := range []string{
		"type=bind,source=/no/such,target=/x", "type=bind,source=" + dir, "type=bind,source=rel,target=/x", "type=taste,target=/x",
		"type=tmpfs,target=/x,tmpfs-size=much", "type=tmpfs,target=/x,tmpfs-mode=9", "type=tmpfs,source=/y,target=/x", "type=bind,source=" + dir + ",target=/x,sweet=1",
		"type=bind,source=" + dir + ",target=/x,readonly=perhaps", "type=volume,source=v,target=/x", "", "\"",
	} {
		if m, err := b.mountFlag(text); err == nil {
			t.Errorf("--mount %s is accepted: %+v", text, m)
		}
	}
	m, err = b.mountFlag("type=tmpfs,destination=/x,tmpfs-size=1m,tmpfs-mode=1770")
	if err != nil || cmp.Diff([]string{"noexec", "nosuid", "nodev", "size=1048576", "mode=1770"}, m.Options) != "" {
		t.Errorf("got %+v, %v", m, err)
	}
}
