package container

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseGPUs(t *testing.T) {
	for text, want := range map[string]DeviceRequest{
		"all":                                  {GPU: true, Count: -1},
		"2":                                    {GPU: true, Count: 2},
		"count=all,capabilities=gpu":           {GPU: true, Count: -1},
		"driver=nvidia":                        {GPU: true, Count: 1, Vendor: "nvidia.com"},
		"device=0":                             {GPU: true, Names: []string{"0"}},
		`"device=0,GPU-aa",driver=vendor.test`: {GPU: true, Names: []string{"0", "GPU-aa"}, Vendor: "vendor.test"},
		"driver=cdi,device=vendor.com/gpu=all": {Names: []string{"vendor.com/gpu=all"}},
		`driver=cdi,"device=vendor.com/a=b,v.com/net=c0"`: {Names: []string{"vendor.com/a=b", "v.com/net=c0"}},
	} {
		want.Origin = "--gpus " + text
		got, err := ParseGPUs(text)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("ParseGPUs(%q): %v\n%s", text, err, diff)
		}
		if again, gpus := got.words(); again != text || !gpus {
			t.Errorf("words of %q are %q", text, again)
		}
		got.Origin = "" // as an API's
		if words, gpus := got.words(); gpus {
			if same, err := ParseGPUs(words); err != nil || !cmp.Equal(same.Names, want.Names) || same.Count != want.Count {
				t.Errorf("%q comes back as %q: %+v, %v", text, words, same, err)
			}
		}
	}
	for _, text := range []string{
		"", "0", "-1", "some", "1,2", "all,device=1", "device=", "device=a/b", "device=0,1", "x=1",
		`"device=1`, "driver=cdi", "driver=cdi,device=1",
		"all,capabilities=compute",
		"all,driver=a b", "all,options=a", "device=../x",
	} {
		if d, err := ParseGPUs(text); err == nil {
			t.Errorf("ParseGPUs(%q) = %+v, want an error", text, d)
		}
	}
}

func TestDeviceNames(t *testing.T) {
	for text, want := range map[string]bool{
		"vendor.com/class=name": true, "a/b=c:d": true, "/dev/a=b": false, "/dev/fuse": false, "a/b": false, "a=b": false, "a/b=": false,
		"a/b/c=d": false, "a/b=c=d": false, "a/=c": false, "a b/c=d": false,
	} {
		if got := isDeviceName(text); got != want {
			t.Errorf("isDeviceName(%q) = %v", text, got)
		}
	}
	w := Words{Image: "i", Device: []string{"vendor.com/class=name", "/dev/fuse"}, GPUs: []string{"all"}}
	c, err := w.Config()
	if err != nil {
		t.Fatal(err)
	}
	back := (&Container{Config: *c}).Words()
	got := strings.Join(append(back.Device, back.GPUs...), " ")
	if !strings.Contains(got, "vendor.com/class=name") || !strings.Contains(got, "all") {
		t.Errorf("the words come back as %q", got)
	}
}
