package container

import (
	"path"
	"reflect"
	"strings"
	"testing"
)

// sound checks what holds of any mount that is accepted, and that it is read back from its own words.
func sound(t *testing.T, m Mount, again Mount, err error) {
	t.Helper()
	if !path.IsAbs(m.Target) || m.Target == "/" || path.Clean(m.Target) != m.Target || strings.ContainsRune(m.Target, 0) {
		t.Fatalf("target %q", m.Target)
	}
	switch m.Type {
	case Bind:
		if !path.IsAbs(m.Source) || path.Clean(m.Source) != m.Source || strings.ContainsRune(m.Source, 0) {
			t.Fatalf("source %q of a bind mount", m.Source)
		}
	case Volume:
		if strings.ContainsAny(m.Source, "/\x00 \n") || strings.HasPrefix(m.Source, ".") {
			t.Fatalf("source %q of a volume", m.Source)
		}
	}
	if path.IsAbs(m.Subpath) || m.Subpath == ".." || strings.HasPrefix(m.Subpath, "../") {
		t.Fatalf("subpath %q", m.Subpath)
	}
	m.Origin, again.Origin = "", ""
	if err != nil || !reflect.DeepEqual(m, again) {
		t.Fatalf("read back as\n%+v\nwant\n%+v\n%v", again, m, err)
	}
}

func FuzzParseMount(f *testing.F) {
	for _, text := range []string{
		"type=bind,source=/a,target=/b,readonly,bind-propagation=rslave", "type=tmpfs,target=/x,tmpfs-size=1m,tmpfs-mode=1777", "target=/x",
		"source=data,target=/x,volume-subpath=a/b,volume-nocopy,volume-label=k=v,volume-opt=o=bind", "type=image,source=busybox,target=/x",
		`type=bind,"source=/a,b",target=/c`, "type=bind,src=/a,dst=/b,ro=false,bind-recursive=disabled,idmap",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := ParseMount(text)
		if err != nil || strings.ContainsAny(text, "\r\n") { // a line of values has its own ideas of line ends
			return
		}
		again, err := ParseMount(m.mountWords())
		sound(t, m, again, err)
	})
}

func FuzzParseVolume(f *testing.F) {
	for _, text := range []string{
		"/a:/b:ro,rslave", "data:/x:nocopy,z", "/anon", ".:/here", "../up/:/x/:rw,nosuid,idmap", "/anon:nocopy", "a:b:c:d",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := ParseVolume(text, "/dir")
		if err != nil {
			return
		}
		if strings.Contains(m.Target+m.Source, ":") {
			t.Fatalf("a colon in %+v", m)
		}
		again, err := ParseVolume(m.Volume(), "/other")
		again.Recursive = m.Recursive // bind has no word of its own
		sound(t, m, again, err)
	})
}
