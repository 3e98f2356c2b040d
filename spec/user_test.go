package spec

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	passwd = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:100:App:/home/app:/bin/sh\nbroken line\n" +
		"wrap:x:4294967296:0::/:/bin/sh\nneg:x:-1:0::/:/bin/sh\n"
	group = "root:x:0:\nusers:x:100:\nvideo:x:44:app,root\nbad:x:zz:app\n"
)

func TestLookupUser(t *testing.T) {
	for _, tc := range []struct {
		spec  string
		extra []string
		want  User
	}{
		{"", nil, User{0, 0, []uint32{44}, "/root"}},
		{"app", nil, User{1000, 100, []uint32{44}, "/home/app"}},
		{"1000", nil, User{1000, 100, []uint32{44}, "/home/app"}},
		{"app:users", nil, User{1000, 100, nil, "/home/app"}},
		{"app:0", nil, User{1000, 0, nil, "/home/app"}},
		{"4711", nil, User{4711, 0, nil, "/"}},
		{"4711:42", []string{"video", "7"}, User{4711, 42, []uint32{44, 7}, "/"}},
		{"4294967294", nil, User{4294967294, 0, nil, "/"}},
	} {
		got, err := LookupUser(tc.spec, tc.extra, []byte(passwd), []byte(group))
		if d := cmp.Diff(tc.want, got); err != nil || d != "" {
			t.Errorf("%q: %v (-want +got):\n%s", tc.spec, err, d)
		}
	}
	// CVE-2026-30892 and relatives: nothing that isn't plainly a number may become one, least of all 0.
	for _, spec := range []string{
		"4294967296", "4294967295", "-1", "00", "007", "99999999999999999999", "nobody", "wrap", "neg",
		"app:nogroup", "app:-1", "app:4294967296", "1000:00",
	} {
		if got, err := LookupUser(spec, nil, []byte(passwd), []byte(group)); err == nil {
			t.Errorf("%q is user %+v, want an error", spec, got)
		}
	}
	if got, err := LookupUser("0", nil, nil, nil); err != nil || got.UID != 0 {
		t.Errorf("0 without files: %+v, %v", got, err)
	}
}

func FuzzLookupUser(f *testing.F) {
	for _, spec := range []string{"", "0", "app:video", "4294967296", "-1", "00", "a:b:c", ":", "1:"} {
		f.Add(spec, passwd, group)
	}
	f.Fuzz(func(t *testing.T, spec, passwd, group string) {
		u, err := LookupUser(spec, nil, []byte(passwd), []byte(group))
		if err != nil {
			return
		}
		if u.UID == math.MaxUint32 || u.GID == math.MaxUint32 {
			t.Errorf("%q: %+v: the highest id means no change", spec, u)
		}
		// Root is only who is called root's number, no user at all, or who the file says has number 0.
		name, _, _ := strings.Cut(spec, ":")
		if u.UID == 0 && name != "" && name != "0" && !strings.Contains(passwd, ":0:") {
			t.Errorf("%q became root", spec)
		}
	})
}
