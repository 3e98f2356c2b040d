package seccomp

import (
	"crypto/sha256"
	"encoding/hex"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// randomProfiles makes profiles that use everything there is, always the same ones.
func randomProfiles(n int) (all []*specs.LinuxSeccomp, archs []string) {
	for seed := range uint64(n) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := make(source, r.IntN(600))
		for i := range s {
			s[i] = byte(r.Uint32())
		}
		p, goarch := s.profile()
		all, archs = append(all, p), append(archs, goarch)
	}
	return all, archs
}

// TestCacheVersion fails when the compiler makes other programs than it did: the ones in caches are then out of date.
func TestCacheVersion(t *testing.T) {
	const version, want = "2", "195963e772dd542a14cce03c47aa0120208d9c1ad819129d1f10dcf53c63cd19"
	all, archs := randomProfiles(60)
	for _, goarch := range []string{"amd64", "arm64"} {
		for _, name := range []string{"none", "docker", "admin", "all"} {
			all = append(all, Default(DefaultOptions{Arch: goarch, Caps: capabilitySets[name], KernelMajor: 6, KernelMinor: 1}))
			archs = append(archs, goarch)
		}
	}
	h := sha256.New()
	for i, p := range all {
		f, err := Compile(p, archs[i])
		if err != nil {
			t.Fatal(err)
		}
		key := Key(p, archs[i])
		h.Write(encodeFilter(f, key))
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want || version != cacheVersion {
		t.Errorf("programs have changed: raise cacheVersion to a number that no cache has, and write it here with %q", got)
	}
}

func TestCached(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "cache")
	p := Default(DefaultOptions{Arch: "amd64", KernelMajor: 6})
	p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: []string{"zzz", "raed"}, Action: specs.ActAllow},
		specs.LinuxSyscall{Names: []string{"mkdir"}, Action: specs.ActNotify})
	p.ListenerPath = "/run/agent"
	want, err := Compile(p, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	same := func(when string) {
		t.Helper()
		got, err := Cached(dir, p, "amd64")
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: error %v, -want +got:\n%s", when, err, diff)
		}
	}
	same("compiled")
	key := Key(p, "amd64")
	name := filepath.Join(dir, hex.EncodeToString(key[:]))
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the cache's mode is %v, error %v", info.Mode(), err)
	}
	same("read back")

	// A marked file is used, so the second one was read and not compiled.
	marked := want
	marked.Unknown = []string{"read from the cache"}
	if err := os.WriteFile(name, encodeFilter(marked, key), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, _ := Cached(dir, p, "amd64"); cmp.Diff(marked, got) != "" {
		t.Error("the file was not used")
	}

	// Whatever happens to the file, the filter is right and the file is mended: every byte counts.
	broken := map[string][]byte{"empty": nil, "short": good[:len(good)-1], "long": append(append([]byte{}, good...), 0)}
	other := Key(Default(DefaultOptions{Arch: "amd64"}), "amd64")
	broken["another profile's"] = encodeFilter(Filter{Program: []Instruction{{Op: opRet, K: retAllow}}}, other)
	for i := 0; i < len(good); i += 97 {
		b := append([]byte{}, good...)
		b[i] ^= 1
		broken["byte "+string(rune('0'+i%10))+" "+hex.EncodeToString([]byte{byte(i >> 8), byte(i)})] = b
	}
	for what, text := range broken {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
		same(what)
		if now, err := os.ReadFile(name); err != nil || cmp.Diff(good, now) != "" {
			t.Errorf("%s: not mended, error %v", what, err)
		}
	}
	if left, _ := filepath.Glob(dir + "/new-*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}

	// A cache that can't be written is none.
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dir = file
	same("no directory")

	if _, err := Cached(dir, &specs.LinuxSeccomp{}, "amd64"); err == nil {
		t.Error("a broken profile: no error")
	}
	if _, err := Cached(dir, nil, "amd64"); err == nil {
		t.Error("no profile: no error")
	}
}

// TestCachedIsBounded makes more profiles than a cache keeps.
func TestCachedIsBounded(t *testing.T) {
	dir := t.TempDir()
	for i := range uint(cacheSize + 10) {
		p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: &i}
		if _, err := Cached(dir, p, "amd64"); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > cacheSize || len(left) == 0 {
		t.Errorf("%d files, error %v, want 1 to %d", len(left), err, cacheSize)
	}
}

// TestKeys changes one thing of a profile at a time: each must give another key.
func TestKeys(t *testing.T) {
	one, two := uint(1), uint(2)
	profile := func() *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{
			DefaultAction: specs.ActErrno, DefaultErrnoRet: &one, Architectures: []specs.Arch{"a", "b"}, ListenerPath: "/s", ListenerMetadata: "m",
			Syscalls: []specs.LinuxSyscall{{
				Names: []string{"read", "write"}, Action: specs.ActErrno, ErrnoRet: &one,
				Args: []specs.LinuxSeccompArg{{Index: 1, Value: 2, ValueTwo: 3, Op: specs.OpEqualTo}},
			}},
		}
	}
	seen := map[[32]byte]string{Key(profile(), "amd64"): "unchanged", Key(profile(), "arm64"): "arch"}
	for name, change := range map[string]func(p *specs.LinuxSeccomp){
		"action":        func(p *specs.LinuxSeccomp) { p.DefaultAction = specs.ActKill },
		"errno":         func(p *specs.LinuxSeccomp) { p.DefaultErrnoRet = &two },
		"no errno":      func(p *specs.LinuxSeccomp) { p.DefaultErrnoRet = nil },
		"architecture":  func(p *specs.LinuxSeccomp) { p.Architectures = p.Architectures[:1] },
		"two in one":    func(p *specs.LinuxSeccomp) { p.Architectures = []specs.Arch{"ab", ""} },
		"empty flags":   func(p *specs.LinuxSeccomp) { p.Flags = []specs.LinuxSeccompFlag{} },
		"flags":         func(p *specs.LinuxSeccomp) { p.Flags = []specs.LinuxSeccompFlag{"x"} },
		"listener":      func(p *specs.LinuxSeccomp) { p.ListenerPath = "/t" },
		"metadata":      func(p *specs.LinuxSeccomp) { p.ListenerMetadata = "n" },
		"no rules":      func(p *specs.LinuxSeccomp) { p.Syscalls = nil },
		"name":          func(p *specs.LinuxSeccomp) { p.Syscalls[0].Names[1] = "open" },
		"fewer names":   func(p *specs.LinuxSeccomp) { p.Syscalls[0].Names = p.Syscalls[0].Names[:1] },
		"rule's action": func(p *specs.LinuxSeccomp) { p.Syscalls[0].Action = specs.ActTrace },
		"rule's errno":  func(p *specs.LinuxSeccomp) { p.Syscalls[0].ErrnoRet = &two },
		"no args":       func(p *specs.LinuxSeccomp) { p.Syscalls[0].Args = nil },
		"index":         func(p *specs.LinuxSeccomp) { p.Syscalls[0].Args[0].Index = 4 },
		"value":         func(p *specs.LinuxSeccomp) { p.Syscalls[0].Args[0].Value = 4 },
		"second value":  func(p *specs.LinuxSeccomp) { p.Syscalls[0].Args[0].ValueTwo = 4 },
		"operator":      func(p *specs.LinuxSeccomp) { p.Syscalls[0].Args[0].Op = specs.OpNotEqual },
	} {
		p := profile()
		change(p)
		key := Key(p, "amd64")
		if other, ok := seen[key]; ok {
			t.Errorf("%s has the key of %s", name, other)
		}
		seen[key] = name
	}
}

func FuzzDecodeFilter(f *testing.F) {
	p := Default(DefaultOptions{Arch: "amd64", KernelMajor: 6})
	filter, err := Compile(p, "amd64")
	if err != nil {
		f.Fatal(err)
	}
	key := Key(p, "amd64")
	f.Add(encodeFilter(filter, key)[sha256.Size:])
	f.Fuzz(func(t *testing.T, b []byte) {
		// Give it the right key and checksum, so that the rest is looked at.
		b = append(key[:], b...)
		sum := sha256.Sum256(b)
		got, ok := decodeFilter(append(b, sum[:]...), key)
		if ok && len(got.Program) > MaxInstructions {
			t.Errorf("%d instructions", len(got.Program))
		}
	})
}

// fourHundred is a profile of the size that engines send.
func fourHundred() *specs.LinuxSeccomp {
	return Default(DefaultOptions{Arch: "amd64", Caps: capabilitySets["docker"], KernelMajor: 6, KernelMinor: 1})
}

func BenchmarkCompile(b *testing.B) {
	p := fourHundred()
	for b.Loop() {
		if _, err := Compile(p, "amd64"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCached(b *testing.B) {
	p, dir := fourHundred(), b.TempDir()
	for b.Loop() {
		if _, err := Cached(dir, p, "amd64"); err != nil {
			b.Fatal(err)
		}
	}
}
