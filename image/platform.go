package image

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Platform is what an image's programs are made for, in the words of Go and of the OCI image specification: "linux", "arm", "v7".
// The zero value stands for no wish at all.
type Platform struct {
	OS           string
	Architecture string
	Variant      string // version of the architecture; empty is the oldest one, or the usual one (arm: v7, arm64: v8)
}

// IsZero reports whether nothing is asked for.
func (p Platform) IsZero() bool { return p == Platform{} }

// String is "linux/amd64", with the variant if there is one that says more than the architecture.
func (p Platform) String() string {
	if p.IsZero() {
		return ""
	}
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" && !(p.Architecture == "arm64" && p.Variant == "v8") && !(p.Architecture == "amd64" && p.Variant == "v1") {
		s += "/" + p.Variant
	}
	return s
}

// MarshalText writes a platform as String does.
func (p Platform) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads what String writes, and unlike [ParsePlatform] knows no names: the store has what an image says of itself.
func (p *Platform) UnmarshalText(text []byte) error {
	*p = Platform{}
	p.OS, p.Architecture, _ = strings.Cut(string(text), "/")
	p.Architecture, p.Variant, _ = strings.Cut(p.Architecture, "/")
	return nil
}

// ParsePlatform reads "os/arch[/variant]", "os" or "arch" as people type them; what is left out is this machine's. The empty string
// is no wish. What is no name of an operating system or an architecture is refused, because it could match nothing.
func ParsePlatform(s string) (Platform, error) {
	if s == "" {
		return Platform{}, nil
	}
	bad := func(kind error, format string, args ...any) (Platform, error) {
		return Platform{}, &Error{
			Op: "platform", Name: fmt.Sprintf("%.60q", s), Kind: kind, Text: fmt.Sprintf(format, args...),
			Hint: "it has the form os/arch[/variant], for example linux/amd64, linux/arm64 or linux/arm/v7",
		}
	}
	parts := strings.Split(strings.ToLower(s), "/")
	if len(parts) > 3 || slices.Contains(parts, "") {
		return bad(ErrReference, "it has parts that are empty, or more than three")
	}
	p := Platform{OS: "linux"}
	switch {
	case len(parts) > 1:
		p.OS, p.Architecture = parts[0], parts[1]
		if len(parts) > 2 {
			p.Variant = parts[2]
		}
	case knownOS(normalOS(parts[0])):
		p.OS, p.Architecture, p.Variant = parts[0], runtime.GOARCH, thisMachine().Variant
	default:
		p.Architecture = parts[0]
	}
	p = p.normal()
	switch {
	case !knownOS(p.OS):
		return bad(ErrUnknown, "%q is no operating system that is known", p.OS)
	case !knownArch(p.Architecture):
		return bad(ErrUnknown, "%q is no architecture that is known", p.Architecture)
	case !knownVariant(p.Architecture, p.Variant):
		return bad(ErrUnknown, "%q is no variant of %s that is known", p.Variant, p.Architecture)
	}
	return p, nil
}

func knownOS(s string) bool {
	switch s {
	case "aix", "android", "darwin", "dragonfly", "freebsd", "illumos", "ios", "js", "linux", "netbsd", "openbsd", "plan9", "solaris",
		"wasip1", "windows":
		return true
	}
	return false
}

func knownArch(s string) bool {
	switch s {
	case "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le", "riscv64", "s390x", "wasm":
		return true
	}
	return false
}

// knownVariant goes by the image specification's table; architectures that it has none for take any plain word.
func knownVariant(arch, v string) bool {
	if v == "" {
		return true
	}
	switch arch {
	case "amd64":
		return len(v) == 2 && v[0] == 'v' && v[1] >= '1' && v[1] <= '4'
	case "arm":
		return len(v) == 2 && v[0] == 'v' && v[1] >= '5' && v[1] <= '8'
	case "arm64":
		_, ok := arm64Level(v)
		return ok
	}
	for _, c := range []byte(v) {
		if !isAlnum(c) && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return len(v) <= 32
}

func normalOS(s string) string {
	switch s = strings.ToLower(s); s {
	case "":
		return "linux" // old tools left it out
	case "macos":
		return "darwin"
	}
	return s
}

// normal writes a platform with the specification's names. Builders have also written those of uname(2) and of Debian, in indexes, too.
func (p Platform) normal() Platform {
	p.OS, p.Architecture, p.Variant = normalOS(p.OS), strings.ToLower(p.Architecture), strings.ToLower(p.Variant)
	switch p.Architecture {
	case "x86_64", "x86-64":
		p.Architecture = "amd64"
	case "aarch64", "arm64be":
		p.Architecture = "arm64"
	case "armhf", "armv7l":
		p.Architecture, p.Variant = "arm", "v7"
	case "armel", "armv6l":
		p.Architecture, p.Variant = "arm", "v6"
	case "i386", "i486", "i586", "i686", "x86":
		p.Architecture, p.Variant = "386", ""
	case "riscv":
		p.Architecture = "riscv64"
	case "loongarch64":
		p.Architecture = "loong64"
	}
	// "8" for "v8" has been seen in configs of ARM images.
	if (p.Architecture == "arm" || p.Architecture == "arm64") && p.Variant != "" && p.Variant[0] >= '0' && p.Variant[0] <= '9' {
		p.Variant = "v" + p.Variant
	}
	if p.Variant == "" {
		p.Variant = defaultVariant(p.Architecture)
	}
	return p
}

func defaultVariant(arch string) string {
	switch arch {
	case "amd64":
		return "v1"
	case "arm64":
		return "v8"
	case "arm":
		return "v7"
	}
	return ""
}

// platformOf is a document's platform in our form.
func platformOf(p v1.Platform) Platform {
	return Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}.normal()
}

// thisMachine is the best that this machine runs.
func thisMachine() Platform {
	p := Platform{OS: "linux", Architecture: runtime.GOARCH, Variant: defaultVariant(runtime.GOARCH)}
	if p.Architecture == "amd64" {
		p.Variant = "v" + strconv.Itoa(amd64Level())
	}
	return p
}

// amd64Level is this processor's level as the x86-64 psABI defines them, by the words of /proc/cpuinfo: what the kernel doesn't let
// programs use isn't there. A file is read when a level is asked for; package cpu asks the processor in every program's start, and under a
// hypervisor each of its questions is a trap.
func amd64Level() int {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return 1
	}
	return amd64LevelOf(string(text))
}

func amd64LevelOf(cpuinfo string) int {
	_, rest, _ := strings.Cut(cpuinfo, "\nflags")
	line, _, _ := strings.Cut(rest, "\n") // of the first processor
	have := strings.Fields(line)
	for level, want := range []string{
		"cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3", // pni is SSE3
		"avx avx2 bmi1 bmi2 f16c fma abm movbe xsave", // abm is LZCNT
		"avx512f avx512bw avx512cd avx512dq avx512vl",
	} {
		for flag := range strings.FieldsSeq(want) {
			if !slices.Contains(have, flag) {
				return level + 1
			}
		}
	}
	return 4
}

// arm64Level numbers the versions of 64-bit ARM so that each includes all lower ones: v9.N is v8.(N+5) and more.
func arm64Level(v string) (int, bool) {
	rest, ok := strings.CutPrefix(v, "v")
	major, minor, dotted := strings.Cut(rest, ".")
	n := 0
	if dotted {
		var err error
		if n, err = strconv.Atoi(minor); err != nil || n > 9 || strconv.Itoa(n) != minor {
			return 0, false
		}
	}
	switch major {
	case "8":
		return 2 * n, ok
	case "9":
		return 2*(n+5) + 1, ok
	}
	return 0, false
}

// exactArch is the score of the architecture that was asked for; its version adds 0 to 99. What is only the next best is below it.
const exactArch = 100

// score says how well a machine for p runs programs for have: 0 is not at all, more is better.
func (p Platform) score(have Platform) int {
	if p.OS != have.OS {
		return 0
	}
	if p.Architecture != have.Architecture {
		return 0
	}
	if p.Variant == have.Variant {
		// The very one that was asked for is better than any older one that runs as well.
		return exactArch + 99
	}
	switch p.Architecture {
	case "amd64", "arm":
		// Versions are one digit: older ones have a smaller letter.
		if knownVariant(p.Architecture, have.Variant) && have.Variant < p.Variant {
			return exactArch + int(have.Variant[1]-'0')
		}
	case "arm64":
		want, _ := arm64Level(p.Variant)
		// An odd level is v9.N, which v8.M is below if it is not later than its counterpart.
		if got, ok := arm64Level(have.Variant); ok && got <= want && (want%2 == 1 || got%2 == 0) {
			return exactArch + got
		}
	}
	return 0
}

// rank is score for what a user asked for; nothing asked for is this machine, which runs its 32-bit half, too, if there is nothing
// better. The version of an architecture that is this machine's is the machine's if none was named: an index that has amd64/v3
// alone is one for this machine's amd64 if it runs that.
func rank(want, have Platform, machine Platform) int {
	have = have.normal()
	if want.IsZero() {
		if n := machine.score(have); n > 0 {
			return n
		}
		half := map[string]Platform{"amd64": {"linux", "386", ""}, "arm64": {"linux", "arm", "v8"}}[machine.Architecture]
		return max(half.score(have)-exactArch, 0)
	}
	want = want.normal()
	n := want.score(have)
	if n == 0 && want.OS == machine.OS && want.Architecture == machine.Architecture && want.Variant == defaultVariant(want.Architecture) {
		n = max(machine.score(have)-exactArch, 0)
	}
	return n
}

// Runs reports whether an image for this platform is what a user gets who asks for another; the zero value asks for nothing.
func (p Platform) Runs(want Platform) bool {
	return want.IsZero() || p.Architecture == "" || rank(want, p, thisMachine()) > 0
}

// choose picks the manifest for a platform from an index; the zero value is this machine's.
func choose(idx *v1.Index, want, machine Platform, name string) (v1.Descriptor, error) {
	best, score := v1.Descriptor{}, 0
	var have []string
	for _, d := range idx.Manifests {
		p := d.Platform
		if p == nil {
			// An index of one unlabelled manifest is a name for it.
			if len(idx.Manifests) == 1 {
				return d, nil
			}
			continue
		}
		if p.OS == "unknown" { // attestations
			continue
		}
		have = append(have, platformOf(*p).String())
		if n := rank(want, platformOf(*p), machine); n > score {
			best, score = d, n
		}
	}
	if score > 0 {
		return best, nil
	}
	if want.IsZero() {
		want = machine
	}
	slices.Sort(have)
	have = slices.Compact(have)
	list := "none"
	if len(have) > 0 {
		list = join(have, 20)
	}
	return best, &Error{
		Op: "pull", Name: name, Kind: ErrPlatform,
		Text: fmt.Sprintf("no image for %s; there are: %s", want, list),
		Hint: "choose one with --platform",
	}
}

// ResolveFor is [Store.Resolve] for an image that must be for a platform; the zero value takes any. The error is [ErrPlatform], and not
// [ErrNotFound], if the image that is there is for another one.
func (s *Store) ResolveFor(name string, want Platform) (*Image, error) {
	img, err := s.Resolve(name)
	if err != nil || img.Platform.Runs(want) {
		return img, err
	}
	if strings.HasPrefix(img.ID, name) || strings.HasPrefix(hexOf(img.ID), name) {
		return nil, &Error{
			Op: "image", Name: name, Kind: ErrReference,
			Text: fmt.Sprintf("this ID is that of an image for %s, not for %s", img.Platform, want),
			Hint: "leave --platform out, or name the image",
		}
	}
	return nil, &Error{
		Op: "image", Name: name, Kind: ErrPlatform,
		Text: fmt.Sprintf("the image that is here is for %s, not for %s", img.Platform, want),
		Hint: fmt.Sprintf("fetch the other one with glassbox pull --platform %s", want),
	}
}
