package image

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestParsePlatform(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "linux": thisMachine().String(), "linux/amd64": "linux/amd64", "amd64": "linux/amd64", "x86_64": "linux/amd64",
		"linux/amd64/v1": "linux/amd64", "linux/amd64/v3": "linux/amd64/v3", "linux/arm64/v8": "linux/arm64", "arm64/v9.1": "",
		"linux/arm64/v9.1": "linux/arm64/v9.1", "linux/arm64/8": "linux/arm64", "arm": "linux/arm/v7", "linux/arm/v6": "linux/arm/v6",
		"windows/amd64": "windows/amd64", "i386": "linux/386", "Linux/AArch64": "linux/arm64", "linux/riscv64/rva22u64": "linux/riscv64/rva22u64",
		"macos/arm64": "darwin/arm64",
	} {
		p, err := ParsePlatform(in)
		if want == "" && in != "" {
			if err == nil {
				t.Errorf("ParsePlatform(%q) = %s, want an error", in, p)
			}
			continue
		}
		if err != nil || p.String() != want {
			t.Errorf("ParsePlatform(%q) = %s, %v; want %s", in, p, err, want)
		}
	}
	for _, in := range []string{
		"a/b/c/d", "/", "linux/", "/amd64", "linux//v8", "linux/nonsense", "nonsense", "nonsense/amd64", "linux/amd64/v5", "linux/amd64/v",
		"linux/arm/v9", "linux/arm64/v7", "linux/arm64/v8.x", "linux/arm64/v8.10", "linux/arm64/v8.01", "linux/amd64\x00",
		" linux/amd64", "linux/s390x/a b",
		"linux/amd64/\x1b", "unknown/unknown",
	} {
		if p, err := ParsePlatform(in); !errors.Is(err, ErrReference) {
			t.Errorf("ParsePlatform(%q) = %+v, %v; want an error", in, p, err)
		}
	}
}

// TestChoose: which entry of an index which machine takes, asked for nothing or for a platform.
func TestChoose(t *testing.T) {
	v4 := Platform{"linux", "amd64", "v4"}
	v1only := Platform{"linux", "amd64", "v1"}
	arm := Platform{"linux", "arm64", "v8"}
	for _, tt := range []struct {
		machine Platform
		want    string // --platform
		index   []string
		chosen  string // "" is none
	}{
		{v4, "", []string{"amd64"}, "amd64"},
		{v4, "", []string{"amd64/v2", "amd64/v3"}, "amd64/v3"},
		{v4, "", []string{"amd64/v3", "amd64/v2", "amd64/v1"}, "amd64/v3"},
		{v4, "", []string{"amd64/v4", "amd64"}, "amd64/v4"},
		{v1only, "", []string{"amd64/v3", "amd64/v2"}, ""},
		{v1only, "", []string{"amd64/v3", "amd64/v1"}, "amd64/v1"},
		{v4, "linux/amd64", []string{"amd64/v1", "amd64/v3"}, "amd64/v1"},
		{v4, "linux/amd64", []string{"amd64/v2", "amd64/v3"}, "amd64/v3"},
		{v1only, "linux/amd64", []string{"amd64/v2", "amd64/v3"}, ""},
		{arm, "linux/amd64", []string{"amd64/v2", "amd64/v3"}, ""},
		{v4, "linux/amd64/v2", []string{"amd64/v3", "amd64/v2", "amd64"}, "amd64/v2"},
		{v4, "linux/amd64/v2", []string{"amd64/v3", "amd64"}, "amd64"},
		{v1only, "linux/amd64/v3", []string{"amd64/v3", "amd64"}, "amd64/v3"},
		{v4, "", []string{"x86_64"}, "x86_64"},
		{arm, "", []string{"aarch64", "x86_64"}, "aarch64"},
		{v4, "linux/arm64", []string{"x86_64", "aarch64"}, "aarch64"},
		{v4, "", []string{"386", "arm64"}, "386"},
		{v4, "", []string{"386", "amd64"}, "amd64"},
		{v4, "linux/amd64", []string{"386"}, ""},
		{arm, "", []string{"arm/v6", "arm/v7"}, "arm/v7"},
		{arm, "", []string{"arm64/v9", "arm64/v8"}, "arm64/v8"},
		{arm, "linux/arm64/v9.1", []string{"arm64/v8", "arm64/v8.6", "arm64/v9.2"}, "arm64/v8.6"},
		{arm, "linux/arm64/v8.2", []string{"arm64/v9", "arm64/v8.1", "arm64"}, "arm64/v8.1"},
		{arm, "linux/arm/v6", []string{"arm/v7", "arm/v5"}, "arm/v5"},
		{arm, "linux/arm", []string{"arm/v5", "arm/v6", "arm/v8"}, "arm/v6"},
		{v4, "windows", []string{"amd64"}, ""},
	} {
		idx := &v1.Index{}
		for _, p := range tt.index {
			have := &v1.Platform{OS: "linux"}
			var parsed Platform
			parsed.UnmarshalText([]byte("linux/" + p))
			have.Architecture, have.Variant = parsed.Architecture, parsed.Variant
			idx.Manifests = append(idx.Manifests, v1.Descriptor{Digest: digest.Digest(p), Platform: have})
		}
		want, err := ParsePlatform(tt.want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := choose(idx, want, tt.machine, "x")
		if string(got.Digest) != tt.chosen || (err != nil) != (tt.chosen == "") || err != nil && !errors.Is(err, ErrPlatform) {
			t.Errorf("on %s, asked for %q, of %v: got %q, %v; want %q", tt.machine, tt.want, tt.index, got.Digest, err, tt.chosen)
		}
	}
}

// TestPlatformCounts: an index that disagrees with the config, and an image that is here when another one is asked for.
func TestPlatformCounts(t *testing.T) {
	r, s := newRegistry(t), openStore(t)
	layer := layerData{tar: tarOf(t, fileE("f", "x"))}
	other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	if other == "" {
		other = "amd64"
	}
	here := "linux/" + runtime.GOARCH
	// The config says this machine, the index the other one.
	_, d := r.push(t, "m", "direct", v1.Platform{OS: "linux", Architecture: runtime.GOARCH}, layer)
	idx := v1.Index{MediaType: v1.MediaTypeImageIndex}
	idx.SchemaVersion = 2
	idx.Manifests = []v1.Descriptor{{
		MediaType: v1.MediaTypeImageManifest, Digest: digest.Digest(d), Size: int64(len(r.manifests["m:"+d])),
		Platform: &v1.Platform{OS: "linux", Architecture: other},
	}}
	r.manifest("m", "latest", mustJSON(t, idx), v1.MediaTypeImageIndex)
	var warnings []string
	pull := func(tag, platform string) (*Image, error) {
		o := quick()
		o.Platform, _ = ParsePlatform(platform)
		warnings = nil
		o.Progress = func(e Event) {
			if e.State == Warned {
				warnings = append(warnings, e.Text)
			}
		}
		return s.Pull(t.Context(), r.host()+"/m:"+tag, o)
	}
	img, err := pull("latest", "linux/"+other)
	if err != nil || img.Platform.Architecture != other || len(warnings) != 1 {
		t.Fatalf("the index says %s: got %+v, %v, warnings %q", other, img, err, warnings)
	}
	if _, err := pull("latest", here); !errors.Is(err, ErrPlatform) {
		t.Errorf("asked for %s, the index has %s: got %v", here, other, err)
	}
	name := r.host() + "/m"
	want := func(ref, platform string, kind error) {
		t.Helper()
		p, err := ParsePlatform(platform)
		if err != nil {
			t.Fatal(err)
		}
		if img, err := s.ResolveFor(ref, p); fmt.Sprint(kind) != "<nil>" && !errors.Is(err, kind) || kind == nil && err != nil {
			t.Errorf("ResolveFor(%s, %s) = %v, %v; want %v", ref, platform, img, err, kind)
		}
	}
	want(name, "linux/"+other, nil)
	want(name, "", nil)
	want(name, here, ErrPlatform)
	want(name, "windows/"+other, ErrPlatform)
	want(img.ShortID(), here, ErrReference)
	want(name+":none", here, ErrNotFound)
	// Without an index the config counts.
	if _, err := pull("direct", "linux/"+other); !errors.Is(err, ErrPlatform) {
		t.Errorf("asked for %s, the config has %s: got %v", other, here, err)
	}
	if img, err := pull("direct", here); err != nil || len(warnings) != 0 || img.Platform.Architecture != runtime.GOARCH {
		t.Errorf("got %+v, %v, %q", img, err, warnings)
	}
}

// TestAMD64Level: the flags of real processors, shortened.
func TestAMD64Level(t *testing.T) {
	two := "cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3"
	three := two + " avx avx2 bmi1 bmi2 f16c fma abm movbe xsave"
	four := three + " avx512f avx512bw avx512cd avx512dq avx512vl"
	for _, c := range []struct {
		flags string
		want  int
	}{
		{"", 1},
		{"fpu sse sse2 pni cx16 lahf_lm", 1}, // AMD's first with 64 bits
		{"fpu " + two, 2},                    // Nehalem
		{two + " avx f16c xsave", 2},         // Ivy Bridge
		{strings.ReplaceAll(three, " avx2", " avx2x"), 2}, // words, not parts of them
		{three + " sha_ni", 3},                            // Haswell
		{strings.ReplaceAll(four, " avx512vl", ""), 3},    // Knights Landing
		{four, 4}, // Skylake-SP
		{four + "\n\nprocessor\t: 1\nflags\t\t: fpu sse2", 4}, // the first one counts
	} {
		if got := amd64LevelOf("processor\t: 0\nmodel name\t: x\nflags\t\t: " + c.flags + "\nbugs\t\t:\n"); got != c.want {
			t.Errorf("%q: got %d, want %d", c.flags, got, c.want)
		}
	}
	if got := amd64LevelOf("processor\t: 0\nFeatures\t: fp asimd\n"); got != 1 {
		t.Errorf("without flags: got %d, want 1", got)
	}
}
