package test

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/tools/txtar"

	"glassbox/test/machine"
)

var updateDockerfiles = flag.Bool("update", false, "write what stock BuildKit makes of dockerfiles/ into the golden files (buildkit.sh)")

// kitchen builds Dockerfiles by glassbox and, where it is there, by stock BuildKit.
type kitchen struct {
	*siege
	began time.Time
	base  *picture
	stock string // directory of buildkitd and buildctl, or ""
}

// dish is a case of dockerfiles/: a file with the context, and how the builder is called.
type dish struct {
	name string
	args []string // of glassbox build
	dir  string   // the context
}

// TestDockerfiles builds each case of dockerfiles/, of kinds that people write, and compares what every layer has (names, types, modes,
// owners, sizes, contents, times that were set, link targets, extended attributes) and the image's configuration with what stock BuildKit
// makes of it: that is in golden files, which buildkit.sh writes. In BUILDKIT can be a directory with buildkitd and buildctl: then both
// build, side by side.
func TestDockerfiles(t *testing.T) {
	if os.Getenv("GLASSBOX_TEST_VM") != "" {
		t.Skip("compares files, to which the machine makes no difference: make test does")
	}
	k := &kitchen{siege: besiege(t), began: time.Now().Add(-time.Minute), stock: os.Getenv("BUILDKIT")}
	seed, err := run.seed.get()
	must(t, err)
	k.shell("cp -al " + filepath.Join(seed, "glassbox") + " store/")
	k.open()
	files, err := filepath.Glob("dockerfiles/*.txtar")
	must(t, err)
	if len(files) < 38 {
		t.Fatalf("only %d cases", len(files))
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txtar")
		t.Run(name, func(t *testing.T) {
			d := k.dish(t, name, file)
			golden := filepath.Join("dockerfiles", name+".golden")
			ours := k.cook(t, d, "ours", k.ours(d))
			if k.stock != "" {
				stock := k.cook(t, d, "stock", k.theirs(d))
				if *updateDockerfiles {
					must(t, os.WriteFile(golden, []byte(stock), 0o644))
				}
				if diff := cmp.Diff(lines(stock), lines(ours)); diff != "" {
					t.Errorf("stock buildkitd and glassbox differ (-stock +glassbox):\n%s", diff)
				}
			}
			want, err := os.ReadFile(golden)
			must(t, err)
			if diff := cmp.Diff(lines(string(want)), lines(ours)); diff != "" {
				t.Errorf("differs from what stock BuildKit has made (-stock +glassbox):\n%s", diff)
			}
		})
	}
}

// lines are a text's, with what is quoted in several of them cut where its lines end.
func lines(text string) []string {
	return strings.Split(strings.ReplaceAll(text, `\n`, "\n    "), "\n")
}

// open gets the builders ready: stock BuildKit takes busybox from the archive that glassbox gives away.
func (k *kitchen) open() {
	k.ok(k.sh("cd " + k.dir + " && glassbox save -o base.tar busybox:latest && mkdir busybox && tar -C busybox -xf base.tar"))
	k.base = k.image(k.T, filepath.Join(k.dir, "busybox"))
	// One that stays: to open the builder is a good part of so small a build.
	job, err := k.host.Go([]string{"glassbox", "builder", "serve", "--idle", "0"}, k.env, "/", nil)
	must(k.T, err)
	k.answers(job, "test", "-S", "/run/glassbox/build.sock")
	if k.stock == "" {
		return
	}
	k.env[0] = strings.Replace(k.env[0], "=", "="+k.stock+":", 1)
	job, err = k.host.Go([]string{
		"buildkitd", "--addr", "unix:///run/stock/buildkitd.sock", "--root", "/mnt/stock", "--containerd-worker=false",
		"--oci-worker-snapshotter=overlayfs",
	}, k.env, "/", nil)
	must(k.T, err)
	k.answers(job, "buildctl", "--addr", "unix:///run/stock/buildkitd.sock", "debug", "workers")
}

// answers waits until a command succeeds.
func (k *kitchen) answers(job *machine.Job, argv ...string) {
	for range 600 {
		if k.on(argv...).Code == 0 {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	k.Fatalf("%s: %s", strings.Join(argv, " "), job.Output())
}

// dish unpacks a case.
func (k *kitchen) dish(t *testing.T, name, file string) *dish {
	a, err := txtar.ParseFile(file)
	must(t, err)
	d := &dish{name: name, dir: filepath.Join(k.dir, "dishes", name)}
	must(t, os.MkdirAll(d.dir, 0o755))
	for _, f := range a.Files {
		to := filepath.Join(d.dir, f.Name)
		must(t, os.MkdirAll(filepath.Dir(to), 0o755))
		must(t, os.WriteFile(to, f.Data, 0o644))
	}
	for line := range strings.SplitSeq(string(a.Comment), "\n") {
		if rest, ok := strings.CutPrefix(line, "args "); ok {
			d.args = strings.Fields(rest)
		}
	}
	script := filepath.Join(d.dir, "setup.sh")
	if text, err := os.ReadFile(script); err == nil {
		must(t, os.Remove(script))
		cmd := exec.Command("/bin/sh", "-e")
		cmd.Dir, cmd.Stdin = d.dir, bytes.NewReader(text)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("setup: %v: %s", err, out)
		}
	}
	// As long ago as a checkout would never be.
	must(t, exec.Command("find", d.dir, "-newermt", "@1700000000", "-exec", "touch", "-h", "-d", "@1000000000", "{}", "+").Run())
	return d
}

// ours is glassbox build's command line.
func (k *kitchen) ours(d *dish) []string {
	argv := []string{"glassbox", "build", "--progress", "plain", "-o", "type=oci,dest=../" + d.name + ".ours.tar"}
	return append(append(argv, d.args...), ".")
}

// theirs is buildctl's, which has other words for the same.
func (k *kitchen) theirs(d *dish) []string {
	base := filepath.Join(k.dir, "busybox")
	index, err := os.ReadFile(filepath.Join(base, "index.json"))
	must(k.T, err)
	var i v1.Index
	must(k.T, json.Unmarshal(index, &i))
	argv := []string{
		"buildctl", "--addr", "unix:///run/stock/buildkitd.sock", "build", "--progress", "plain", "--frontend", "dockerfile.v0",
		"--local", "context=.", "--local", "dockerfile=.", "--oci-layout", "base=" + base,
		"--opt", "context:busybox=oci-layout://base@" + i.Manifests[0].Digest.String(),
		"--output", "type=oci,dest=../" + d.name + ".stock.tar",
	}
	hosts, limits := []string{}, []string{}
	for n := 0; n < len(d.args); n += 2 {
		value := d.args[n+1]
		name, rest, _ := strings.Cut(value, "=")
		switch d.args[n] {
		case "--build-arg":
			argv = append(argv, "--opt", "build-arg:"+value)
		case "--label":
			argv = append(argv, "--opt", "label:"+value)
		case "--target":
			argv = append(argv, "--opt", "target="+value)
		case "--shm-size":
			argv = append(argv, "--opt", "shm-size="+value)
		case "-f":
			argv = append(argv, "--opt", "filename="+value)
		case "--secret":
			argv = append(argv, "--secret", value)
		case "--build-context":
			argv = append(argv, "--local", name+"="+rest, "--opt", "context:"+name+"=local:"+name)
		case "--add-host":
			host, address, _ := strings.Cut(value, ":")
			hosts = append(hosts, host+"="+address)
		case "--ulimit":
			limits = append(limits, value)
		default:
			k.Fatalf("%s: no word of buildctl's for %s", d.name, d.args[n])
		}
	}
	if len(hosts) > 0 {
		argv = append(argv, "--opt", "add-hosts="+strings.Join(hosts, ","))
	}
	if len(limits) > 0 {
		argv = append(argv, "--opt", "ulimit="+strings.Join(limits, ","))
	}
	return argv
}

// cook builds a case and says what came of it.
func (k *kitchen) cook(t *testing.T, d *dish, who string, argv []string) string {
	t.Helper()
	res, err := k.host.Run(scaled(5*time.Minute), argv, k.env, d.dir)
	must(t, err)
	if res.Code != 0 || res.TimedOut {
		t.Fatalf("%s: exit code %d\n%s%s", strings.Join(argv, " "), res.Code, res.Stdout, res.Stderr)
	}
	dir := d.dir + "." + who
	must(t, os.Mkdir(dir, 0o755))
	if out, err := exec.Command("tar", "-C", dir, "-xf", dir+".tar").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	must(t, os.Remove(dir+".tar"))
	defer os.RemoveAll(dir)
	return k.describe(t, dir)
}

// picture is what an archive of an image has.
type picture struct {
	config map[string]any
	layers []string
	media  []string
	sums   []any // diff IDs
}

func (k *kitchen) image(t *testing.T, dir string) *picture {
	t.Helper()
	read := func(name string, into any) {
		data, err := os.ReadFile(filepath.Join(dir, name))
		must(t, err)
		must(t, json.Unmarshal(data, into))
	}
	blob := func(d v1.Descriptor) string {
		return filepath.Join("blobs", d.Digest.Algorithm().String(), d.Digest.Encoded())
	}
	var index v1.Index
	read("index.json", &index)
	if len(index.Manifests) != 1 {
		t.Fatalf("%d manifests", len(index.Manifests))
	}
	var m v1.Manifest
	read(blob(index.Manifests[0]), &m)
	p := &picture{config: map[string]any{}, media: []string{string(index.Manifests[0].MediaType), m.Config.MediaType}}
	read(blob(m.Config), &p.config)
	p.sums, _ = p.config["rootfs"].(map[string]any)["diff_ids"].([]any)
	for _, l := range m.Layers {
		p.layers = append(p.layers, filepath.Join(dir, blob(l)))
	}
	return p
}

// describe writes down all that must be the same.
func (k *kitchen) describe(t *testing.T, dir string) string {
	t.Helper()
	p := k.image(t, dir)
	delete(p.config, "created")
	delete(p.config["rootfs"].(map[string]any), "diff_ids")
	history, _ := p.config["history"].([]any)
	for _, h := range history {
		delete(h.(map[string]any), "created")
	}
	from := len(k.base.layers)
	if slices.Equal(p.sums[:min(from, len(p.sums))], k.base.sums) {
		p.config["history"] = history[len(k.base.config["history"].([]any)):]
	} else {
		from = 0
	}
	var out strings.Builder
	config, err := json.MarshalIndent(p.config, "", "  ")
	must(t, err)
	fmt.Fprintf(&out, "%s\n%s\n%d layers of the base\n", strings.Join(p.media, "\n"), config, from)
	for n, l := range p.layers[from:] {
		fmt.Fprintf(&out, "layer %d\n", n+1)
		k.list(t, &out, l)
	}
	return out.String()
}

// list writes a line for each entry of a layer.
func (k *kitchen) list(t *testing.T, out io.Writer, layer string) {
	t.Helper()
	f, err := os.Open(layer)
	must(t, err)
	defer f.Close()
	in := bufio.NewReader(f)
	var r io.Reader = in
	if magic, _ := in.Peek(2); string(magic) == "\x1f\x8b" {
		r, err = gzip.NewReader(in)
		must(t, err)
	}
	var lines []string
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		must(t, err)
		sum := sha256.New()
		head, err := io.ReadAll(io.TeeReader(io.LimitReader(tr, 1<<10), sum))
		must(t, err)
		_, err = io.Copy(sum, tr)
		must(t, err)
		when := "now"
		if h.ModTime.Before(k.began) {
			when = fmt.Sprint(h.ModTime.Unix())
		}
		line := fmt.Sprintf("%c %04o %d:%d %s %q", h.Typeflag, h.Mode, h.Uid, h.Gid, when, h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			line += fmt.Sprintf(" %d bytes", h.Size)
			if h.Size <= 1<<10 {
				line += fmt.Sprintf(" %q", head)
			} else {
				line += fmt.Sprintf(" %.8x", sum.Sum(nil))
			}
		case tar.TypeChar, tar.TypeBlock:
			line += fmt.Sprintf(" device %d:%d", h.Devmajor, h.Devminor)
		case tar.TypeSymlink, tar.TypeLink:
			line += fmt.Sprintf(" -> %q", h.Linkname)
		}
		for _, key := range slices.Sorted(maps.Keys(h.PAXRecords)) {
			if name, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok {
				line += fmt.Sprintf(" %s=%q", name, h.PAXRecords[key])
			}
		}
		lines = append(lines, line)
	}
	if len(lines) > 300 { // what is many is compared as a whole
		sum := sha256.Sum256([]byte(strings.Join(lines, "\n")))
		lines = append(append(lines[:20:20], fmt.Sprintf("… %d entries in all, %x", len(lines), sum)), lines[len(lines)-20:]...)
	}
	for _, l := range lines {
		fmt.Fprintln(out, l)
	}
}
