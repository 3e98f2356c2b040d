package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// TestBombIsMeasured: what a manifest says of a layer's size makes no room for a bomb. The server sends a small blob of a claimed large
// one and then nothing: the unpacker must stop before the end is missed.
func TestBombIsMeasured(t *testing.T) {
	r, s := newRegistry(t), openStore(t)
	bomb := tarOf(t, fileE("f", strings.Repeat("\x00", 64<<20)))
	m, _ := r.push(t, "x", "", amd64(), layerData{tar: bomb})
	m.Layers[0].Size = 100 << 20
	r.manifest("x", "latest", mustJSON(t, m), v1.MediaTypeImageManifest)
	release := make(chan struct{})
	r.hook = func(w http.ResponseWriter, q *http.Request) bool {
		if !strings.HasSuffix(q.URL.Path, string(m.Layers[0].Digest)) {
			return false
		}
		w.Header().Set("Content-Length", strconv.Itoa(100<<20))
		w.Write(gz(bomb))
		io.WriteString(w, randomBody(2<<20)) // a reader takes large pieces
		w.(http.Flusher).Flush()
		<-release
		return true
	}
	defer close(release)
	o := quick()
	o.IdleTimeout = 20 * time.Second
	o.Limits = Limits{Ratio: 50, RatioFloor: 1 << 20}
	begin := time.Now()
	_, err := s.Pull(t.Context(), r.host()+"/x", o)
	if !errors.Is(err, ErrLimit) || !strings.Contains(err.Error(), "bomb") || time.Since(begin) > 15*time.Second {
		t.Errorf("got %v after %v, want the limit at once", err, time.Since(begin))
	}
	nothingLeft(t, s)
}

// TestBombInPieces: each layer is below every limit, all together are not.
func TestBombInPieces(t *testing.T) {
	for name, l := range map[string]Limits{
		"ratio":   {Ratio: 50, RatioFloor: 8 << 20},
		"bytes":   {Bytes: 8 << 20},
		"entries": {Entries: 100},
		"memory":  {Notes: 4000},
	} {
		r, s := newRegistry(t), openStore(t)
		var layers []layerData
		for i := range 20 {
			list := []e{fileE(fmt.Sprint(i), strings.Repeat("\x00", 1<<20))}
			for k := range 9 {
				list = append(list, dirE(fmt.Sprintf("d%d-%d", i, k), 0o755))
			}
			layers = append(layers, layerData{tar: tarOf(t, list...)})
		}
		r.push(t, "x", "latest", amd64(), layers...)
		o := quick()
		o.Limits = l
		if _, err := s.Pull(t.Context(), r.host()+"/x", o); !errors.Is(err, ErrLimit) {
			t.Errorf("%s: got %v, want the limit", name, err)
		}
	}
}

// TestInodeBomb: many files must have cost something.
func TestInodeBomb(t *testing.T) {
	r, s := newRegistry(t), openStore(t)
	var list []e
	for range 20_000 {
		list = append(list, e{name: "f", mode: 0o644})
	}
	raw := tarOf(t, list...)
	r.push(t, "x", "latest", amd64(), layerData{tar: raw, blob: zst(raw)})
	o := quick()
	o.Limits = Limits{EntriesFloor: 5000}
	if _, err := s.Pull(t.Context(), r.host()+"/x", o); !errors.Is(err, ErrLimit) || !strings.Contains(err.Error(), "files in") {
		t.Errorf("got %v, want the limit", err)
	}
	nothingLeft(t, s)
}

// deepLinks are entries that make an expensive path: links, each to a path of 200 directories with the next link at its end.
func deepLinks() (list []e, through string) {
	deep := strings.TrimSuffix(strings.Repeat("d/", 200), "/")
	list = append(list, dirE(deep, 0o755), fileE(deep+"/target", "x"))
	for i := range 38 {
		to := "/" + deep
		if i > 0 {
			to = fmt.Sprintf("/%s/l%d", deep, i-1)
		}
		list = append(list, linkE(fmt.Sprintf("%s/l%d", deep, i), to))
	}
	return append(list, linkE("l", "/"+deep+"/l37")), "l"
}

// processorTime is what this process has used.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestWorkIsBounded: entries that are cheap for the author of an archive and dear for whoever unpacks it end it, and the bound is a time.
func TestWorkIsBounded(t *testing.T) {
	needRoot(t)
	for name, entry := range map[string]func(i int, through string) e{
		"hard link": func(i int, through string) e { return hardE(fmt.Sprintf("h%d", i), through+"/target") },
		"file":      func(i int, through string) e { return fileE([]string{through + "/f", "x"}[i%2], "") },
		"whiteout": func(i int, through string) e {
			return fileE([]string{fmt.Sprintf("%s/.wh.f%d", through, i), "x"}[i%2], "")
		},
		"directory": func(i int, through string) e { return dirE([]string{through + "/n", "y"}[i%2], 0o755) },
		"depth":     func(i int, _ string) e { return fileE(strings.Repeat(fmt.Sprintf("%d/", i%2), 250)+"f", "") },
	} {
		list, through := deepLinks()
		for i := range 20_000 {
			list = append(list, entry(i, through))
		}
		raw := tarOf(t, list...)
		const work = 1_000_000
		begin := processorTime(t)
		_, _, err := unpackTo(t, raw, Limits{Work: work})
		took := processorTime(t) - begin // others use this machine, too
		if !errors.Is(err, ErrLimit) || !strings.Contains(err.Error(), "too much work") {
			t.Errorf("%s: got %v, want the limit", name, err)
		}
		// What limits.go states, with room for a machine that does other things, too.
		if most := 2 * 3 * time.Minute * work / time.Duration(Limits{}.withDefaults().Work); took > most {
			t.Errorf("%s: %v for %d steps, want at most %v", name, took, work, most)
		}
		t.Logf("%s: %v for %d steps", name, took, work)
	}
}

// TestMendIsBounded: so do layers that leave out their directories, on a base that makes them dear.
func TestMendIsBounded(t *testing.T) {
	needRoot(t)
	// A link in the base for each directory that the layer leaves out.
	var links, through, hiding []e
	for i := range 1000 {
		links = append(links, linkE(fmt.Sprintf("l%d", i), fmt.Sprintf("/to/%d", i)))
		through = append(through, fileE(fmt.Sprintf("l%d/f", i), ""))
		hiding = append(hiding, fileE(fmt.Sprintf("w%d/.wh.x", i), ""))
	}
	for name, layers := range map[string][][]byte{
		"links":  {tarOf(t, links...), tarOf(t, through...)},
		"hiding": {tarOf(t, links...), tarOf(t, hiding...)},
	} {
		r, s := newRegistry(t), openStore(t)
		var data []layerData
		for _, b := range layers {
			data = append(data, layerData{tar: b})
		}
		r.push(t, "x", "latest", amd64(), data...)
		begin := time.Now()
		if _, err := s.Pull(t.Context(), r.host()+"/x", quick()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		t.Logf("%s: %v", name, time.Since(begin))
		o := quick()
		o.Limits = Limits{Work: 3000}
		if _, err := openStore(t).Pull(t.Context(), r.host()+"/x", o); !errors.Is(err, ErrLimit) {
			t.Errorf("%s: got %v, want the limit", name, err)
		}
	}
}

// TestMendLinear: eight times the directories take about eight times as long.
func TestMendLinear(t *testing.T) {
	needRoot(t)
	if testing.Short() {
		t.Skip("slow")
	}
	measure := func(n int) time.Duration {
		var hiding []e
		for i := range n {
			hiding = append(hiding, fileE(fmt.Sprintf("w/%d/.wh.x", i), ""))
		}
		r, s := newRegistry(t), openStore(t)
		r.push(t, "x", "latest", amd64(), layerData{tar: tarOf(t, fileE("f", ""))}, layerData{tar: tarOf(t, hiding...)})
		begin := time.Now()
		if _, err := s.Pull(t.Context(), r.host()+"/x", quick()); err != nil {
			t.Fatal(err)
		}
		return time.Since(begin)
	}
	small, large := measure(1000), measure(8000)
	if large > 20*small+time.Second {
		t.Errorf("1,000 take %v, 8,000 take %v: not linear", small, large)
	}
}

// TestDiskIsBounded: attributes and links are disk, too.
func TestDiskIsBounded(t *testing.T) {
	for name, one := range map[string]e{
		"attributes": {mode: 0o644, pax: map[string]string{"SCHILY.xattr.user.x": strings.Repeat("v", 3000)}},
		"links":      {typ: tar.TypeSymlink, link: strings.Repeat("l", 4000)},
		"holes":      {mode: 0o644, body: strings.Repeat("\x00", 10_000)},
		"empty":      {mode: 0o644},
	} {
		var list []e
		for i := range 300 {
			one.name = fmt.Sprint(i)
			list = append(list, one)
		}
		if _, _, err := unpackTo(t, tarOf(t, list...), Limits{Bytes: 1 << 20}); !errors.Is(err, ErrLimit) {
			t.Errorf("%s: got %v, want the limit", name, err)
		}
	}
}

// zstdStream compresses with a window of 2^bits bytes, as a stream whose end is not known at its beginning.
func zstdStream(t *testing.T, w io.Writer, bits int, body func(io.Writer)) {
	t.Helper()
	z, err := zstd.NewWriter(w, zstd.WithWindowSize(1<<bits), zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		t.Fatal(err)
	}
	body(z)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestMemoryIsBounded pulls eight layers at once whose decoders want 128 MiB each, in a process of its own, whose memory at its peak is
// looked at.
func TestMemoryIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("slow")
	}
	r := newRegistry(t)
	config := v1.Image{Platform: v1.Platform{OS: "linux", Architecture: runtime.GOARCH}}
	config.RootFS.Type = "layers"
	m := v1.Manifest{MediaType: v1.MediaTypeImageManifest}
	m.SchemaVersion = 2
	for i := range 8 {
		var plain, blob strings.Builder
		// Half of it doesn't compress: a file of zeros alone would be a bomb.
		body := strings.Repeat(randomBody(1<<20), 200)
		tw := tar.NewWriter(&plain)
		tw.WriteHeader(&tar.Header{Name: fmt.Sprint(i), Mode: 0o644, Size: int64(len(body)), Typeflag: tar.TypeReg})
		io.WriteString(tw, body)
		tw.Close()
		zstdStream(t, &blob, 27, func(w io.Writer) { io.WriteString(w, plain.String()) })
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.Digest(digestOf([]byte(plain.String()))))
		m.Layers = append(m.Layers, v1.Descriptor{
			MediaType: v1.MediaTypeImageLayerZstd, Digest: digest.Digest(r.blob([]byte(blob.String()))), Size: int64(blob.Len()),
		})
	}
	raw := mustJSON(t, config)
	m.Config = v1.Descriptor{MediaType: v1.MediaTypeImageConfig, Digest: digest.Digest(r.blob(raw)), Size: int64(len(raw))}
	r.manifest("x", "latest", mustJSON(t, m), v1.MediaTypeImageManifest)
	cmd := exec.Command(os.Args[0], "-test.run=^TestHelperMemory$", "-test.v")
	cmd.Env = append(os.Environ(), "PULL_MEMORY="+r.host()+"/x", "PULL_ROOT="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	_, peak, ok := strings.Cut(string(out), "peak ")
	if !ok {
		t.Fatalf("no peak in %s", out)
	}
	kb, _ := strconv.Atoi(strings.Fields(peak)[0])
	t.Logf("peak: %d MiB", kb>>10)
	if kb > maxPullMemory>>10 {
		t.Errorf("at its peak the pull took %d MiB, want at most %d", kb>>10, maxPullMemory>>20)
	}
}

func TestHelperMemory(t *testing.T) {
	ref := os.Getenv("PULL_MEMORY")
	if ref == "" {
		t.Skip("is run by TestMemoryIsBounded")
	}
	s, err := Open(filepath.Join(os.Getenv("PULL_ROOT"), "store"))
	if err != nil {
		t.Fatal(err)
	}
	o := quick()
	o.IdleTimeout = time.Minute
	o.Parallel = 8
	if _, err := s.Pull(t.Context(), ref, o); err != nil {
		t.Fatal(err)
	}
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.SplitSeq(string(status), "\n") {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			fmt.Println("peak", strings.TrimSpace(rest))
		}
	}
}
