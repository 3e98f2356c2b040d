package container

import (
	"errors"
	"math"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1": 1, "50m": 50 << 20, "50M": 50 << 20, "50mb": 50 << 20, "1.5g": 3 << 29, "64kib": 64 << 10, "2t": 2 << 40, "7b": 7,
		" 5k ": 5 << 10, "2GiB": 2 << 30, "3mb": 3 << 20,
	} {
		if got, err := ParseSize("memory", text); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "m", "-1", "NaNg", "1e300", "1x", "1e3", "0x10", "nan", "inf", "9999999999t", "1_000", "+1", "1 2"} {
		if got, err := ParseSize("memory", text); err == nil {
			t.Errorf("ParseSize(%q) = %d, want an error", text, got)
		} else if !strings.Contains(err.Error(), "--memory") {
			t.Errorf("ParseSize(%q): %v doesn't name the flag", text, err)
		}
	}
}

func TestEnv(t *testing.T) {
	got, err := MergeEnv([]string{"A=1", "B=2"}, []string{"HOSTVAR=h", "EMPTY="}, []string{"B=3", "C=4"},
		[]string{"HOSTVAR", "A", "EMPTY", "C=5"})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"B=3", "C=5", "HOSTVAR=h", "EMPTY="}, got); d != "" {
		t.Errorf("environment (-want +got):\n%s", d)
	}
	for _, bad := range []string{"", "=x", "a\x00b=c"} {
		if _, err := MergeEnv(nil, nil, []string{bad}); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestParseUlimit(t *testing.T) {
	u, err := ParseUlimit("nofile=1024:unlimited")
	if err != nil || u.Name != "nofile" || u.Soft != 1024 || u.Hard != math.MaxUint64 {
		t.Errorf("got %+v %v", u, err)
	}
	for _, text := range []string{"nofile", "nofile=", "nofile=2:1", "speed=1", "=1", "nofile=x", "nofile=1:x", "core=-2"} {
		if _, err := ParseUlimit(text); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
}

func TestMountFlags(t *testing.T) {
	for _, text := range []string{
		"a:b:c:d", "relative", ":/x:ro", "/d:relative", "/d:/", "/d:/x:sideways",
		"/d:/x:ro,rw", "/d:/../x/..", "", ":", ":/x", "x:/y", "name:", "na/me:/x",
		"-name:/x", "name:/x:rslave", "name:/x:shared", "/", "/x:",
		"::", "n\x00me:/x", "/d:/x\x00y", "/d\x00:/x", "name:/x:taste",
		strings.Repeat("n", 256) + ":/x",
	} {
		if m, err := ParseVolume(text, "/here"); err == nil {
			t.Errorf("-v %q is accepted: %+v", text, m)
		}
	}
	for text, want := range map[string]Mount{
		".:/x:ro,rslave":      {Type: Bind, Source: "/here", Target: "/x", ReadOnly: true, Propagation: "rslave", MakeSource: true},
		"../a/:/x/:rw,nosuid": {Type: Bind, Source: "/a", Target: "/x", MakeSource: true, Options: []string{"nosuid"}},
		"data:/x":             {Type: Volume, Source: "data", Target: "/x"},
		"da.t-a_1:/x/:ro,z":   {Type: Volume, Source: "da.t-a_1", Target: "/x", ReadOnly: true, Relabel: "z"},
		"data:/x:nocopy":      {Type: Volume, Source: "data", Target: "/x", NoCopy: true},
		"data:/x:idmap,Z":     {Type: Volume, Source: "data", Target: "/x", IDMap: true, Relabel: "Z"},
		"/anon/":              {Type: Volume, Target: "/anon"},
		"/anon:nocopy":        {Type: Volume, Target: "/anon", NoCopy: true},
	} {
		want.Form, want.Origin = FormVolume, "-v "+text
		got, err := ParseVolume(text, "/here")
		if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); err != nil || d != "" {
			t.Errorf("-v %s: %v (-want +got):\n%s", text, err, d)
		}
		again, err := ParseVolume(got.Volume(), "/here")
		if again.Origin = got.Origin; err != nil || !got.Anonymous() && cmp.Diff(got, again) != "" {
			t.Errorf("-v %s is given back as %s: %v, %+v", text, got.Volume(), err, again)
		}
	}
	for _, text := range []string{
		"type=bind,source=/d", "type=bind,source=rel,target=/x", "type=taste,target=/x", "type=bind,target=/x", "type=image,target=/x",
		"type=tmpfs,target=/x,tmpfs-size=much", "type=tmpfs,target=/x,tmpfs-mode=9", "type=tmpfs,source=/y,target=/x",
		"type=bind,source=/d,target=/x,sweet=1", "type=bind,source=/d,target=/x,readonly=perhaps", "", "\"",
		"type=bind,source=/d,target=/", "type=bind,source=/d,target=/x,tmpfs-size=1m", "type=volume,source=v,target=/x", "source=a/b,target=/x",
		"source=vol,target=/x,bind-recursive=disabled", "type=bind,source=/d,target=/x,volume-nocopy", "source=vol,target=/x,volume-subpath=/a",
		"source=vol,target=/x,volume-subpath=../a", "source=vol,target=/x,volume-subpath=a/../../b", "source=vol,target=/x,volume-subpath=",
		"type=bind,source=/d,target=/x,bind-recursive=readonly", "type=bind,source=/d,target=/x,bind-recursive=writable",
		"type=bind,source=/d,target=/x,readonly,bind-recursive=readonly,bind-propagation=rslave",
		"type=bind,source=/d,target=/x,bind-recursive=x",
		"source=vol,target", "target=/x,volume-nocopy=perhaps", "type=tmpfs,target=/x,idmap", "type=bind,source=/d,target=/x,bind-propagation=x",
	} {
		if m, err := ParseMount(text); err == nil {
			t.Errorf("--mount %s is accepted: %+v", text, m)
		}
	}
	for text, want := range map[string]Mount{
		"type=tmpfs,destination=/x,tmpfs-mode=1770,tmpfs-size=1m": {Type: Tmpfs, Target: "/x", Options: []string{"size=1048576", "mode=1770"}},
		"source=data,target=/x,volume-nocopy,volume-subpath=./a/b/,volume-label=k=v,volume-driver=local,volume-opt=type=none,readonly": {
			Type: Volume, Source: "data", Target: "/x", NoCopy: true, Subpath: "a/b", Labels: map[string]string{"k": "v"}, Driver: "local",
			DriverOptions: map[string]string{"type": "none"}, ReadOnly: true,
		},
		"target=/x": {Type: Volume, Target: "/x"},
		"type=image,source=busybox,target=/x,image-subpath=bin": {
			Type: Layers, Source: "busybox", Target: "/x", Subpath: "bin", ReadOnly: true,
		},
		"type=bind,src=/a,dst=/x,ro=true,bind-recursive=readonly,consistency=cached,idmap=true": {
			Type: Bind, Source: "/a", Target: "/x", ReadOnly: true, Recursive: RecursiveReadOnly, IDMap: true,
		},
		"type=bind,src=/a,dst=/x,bind-create-src": {Type: Bind, Source: "/a", Target: "/x", MakeSource: true},
		"type=bind,src=/a,dst=/x,bind-nonrecursive,bind-propagation=shared": {
			Type: Bind, Source: "/a", Target: "/x", Recursive: RecursiveDisabled, Propagation: "shared",
		},
	} {
		want.Form, want.Origin = FormMount, "--mount "+text
		got, err := ParseMount(text)
		if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); err != nil || d != "" {
			t.Errorf("--mount %s: %v (-want +got):\n%s", text, err, d)
		}
		again, err := ParseMount(got.mountWords())
		if again.Origin = got.Origin; err != nil || cmp.Diff(got, again) != "" {
			t.Errorf("--mount %s is given back as %s: %v, %+v", text, got.mountWords(), err, again)
		}
	}
	for _, text := range []string{"", ":ro", "c:", "c:x", "c:ro,x"} {
		if _, _, err := ParseVolumesFrom(text); err == nil {
			t.Errorf("--volumes-from %q is accepted", text)
		}
	}
}

// TestUniqueMounts puts several mounts on one target: the same twice is one, two different ones are an error, as with Docker.
func TestUniqueMounts(t *testing.T) {
	for _, tt := range []struct {
		w    Words
		want int // mounts; 0: refused
	}{
		{Words{Volume: []string{"/a:/x", "/a:/x"}}, 1},
		{Words{Volume: []string{"/a:/x"}, Mount: []string{"type=bind,source=/a,target=/x/"}}, 1},
		{Words{Volume: []string{"/a:/x", "/b:/x"}}, 0},
		{Words{Volume: []string{"/a:/x", "/a:/x:ro"}}, 0},
		{Words{Volume: []string{"/a:/x"}, Tmpfs: []string{"/x"}}, 0},
		{Words{Volume: []string{"/a:/x"}, Tmpfs: []string{"/y"}}, 2},
	} {
		tt.w.Image = "i"
		c, err := tt.w.Config()
		if tt.want == 0 {
			if err == nil || !errors.Is(err, ErrInvalid) {
				t.Errorf("%+v: got %v, want an error", tt.w, err)
			}
			continue
		}
		if err != nil || len(c.Mounts) != tt.want {
			t.Errorf("%+v: got %+v, %v, want %d mounts", tt.w, c, err, tt.want)
		}
	}
}

// TestLimitsAsTyped looks at the sizes in what is refused: they are those that were typed.
func TestLimitsAsTyped(t *testing.T) {
	for want, w := range map[string]Words{
		"--memory 4k: minimum memory limit": {Memory: "4k"},
		"--memory-swap 1m:":                 {Memory: "2m", MemorySwap: "1m"},
		"(--memory 2m)":                     {Memory: "2m", MemorySwap: "1m"},
		"--memory-reservation 3m:":          {Memory: "2m", MemoryReservation: "3m"},
	} {
		w.Image = "i"
		if _, err := w.Config(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
}

func TestHostEntry(t *testing.T) {
	for text, want := range map[string]HostEntry{
		"db:10.0.0.5": {"db", "10.0.0.5"}, "six:fd00::1": {"six", "fd00::1"}, "six2=[fd00::2]": {"six2", "fd00::2"},
		"gw:host-gateway": {"gw", HostGateway}, "a=host-gateway": {"a", HostGateway},
	} {
		if got, err := ParseHostEntry(text); err != nil || got != want {
			t.Errorf("add-host %q: got %+v, %v, want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "a", "a:", ":1.2.3.4", "a:b", "a b:1.2.3.4", "a\n:1.2.3.4", "a:1.2.3.4\n", "a:[1.2.3.4", "a:1.2.3.4 b"} {
		if got, err := ParseHostEntry(text); err == nil {
			t.Errorf("add-host %q: got %+v, want an error", text, got)
		}
	}
}
