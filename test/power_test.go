package test

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"glassbox/test/machine"
	"glassbox/test/power"
)

// diskSize is that of the disk on which TestPower keeps its store, in bytes.
const diskSize = 96 << 20

// A line is a command of TestPower, and what is there for certain once it has ended, and what may not be there from its beginning on.
type line struct {
	text        string
	there, gone []string // kind:name
}

// powerLines make, change and remove one of each kind. They come several times, each time with another number in the place of N.
var powerLines = []line{
	{text: "i=127.0.0.1:5000/busybox:volumes; glassbox pull -q $i && glassbox tag $i pulledN", there: []string{"image:pulledN:latest"}},
	{text: "glassbox create --name createdN -v first:/data -v second:/more --label a=b pulledN sleep 1000", there: []string{
		"container:createdN", "volume:first", "volume:second",
	}},
	{text: "glassbox volume create --label a=b volumeN", there: []string{"volume:volumeN"}},
	{text: "glassbox network create networkN", there: []string{"network:networkN"}},
	{text: "glassbox run -d --name runsN --network networkN --restart always -v thirdN:/data pulledN sleep 1000", there: []string{
		"container:runsN", "volume:thirdN",
	}},
	{text: "glassbox exec runsN sh -c 'echo some >/data/file; echo more >/file; sync'"},
	{text: "glassbox update --memory 64m --memory-swap 64m createdN"},
	{text: "glassbox commit runsN committedN", there: []string{"image:committedN:latest"}},
	{text: "glassbox run --name endedN committedN cat /file", there: []string{"container:endedN"}},
	{text: "glassbox rename endedN renamedN", there: []string{"container:renamedN"}, gone: []string{"container:endedN"}},
	{text: "glassbox save committedN >/run/saved && glassbox rm renamedN && glassbox rmi committedN", gone: []string{
		"container:renamedN", "image:committedN:latest",
	}},
	{text: "glassbox load -q </run/saved", there: []string{"image:committedN:latest"}},
	{text: "glassbox network create otherN && glassbox network connect otherN createdN", there: []string{"network:otherN"}},
	{text: "glassbox rm -f createdN && glassbox network rm otherN && glassbox volume rm volumeN", gone: []string{
		"container:createdN", "network:otherN", "volume:volumeN",
	}},
	{text: buildText + "glassbox run --rm --network none builtN cat /made", there: []string{"image:builtN:latest"}},
	{text: "glassbox restart -t 0 runsN"},
	{text: "glassbox image prune -f && glassbox volume create anotherN", there: []string{"volume:anotherN"}},
	{text: "sleep 1.2"}, // the file system's own commits come in between
}

// buildText builds an image: what a step wrote is read by the next one, also where the first comes from the cache.
const buildText = "printf 'from pulledN\\nrun for i in 1 2 3; do echo $i $i >>/f; done\\n" +
	"run test \"$(cat /f | wc -c)\" = 12 && cp /f /made\\n' | glassbox build -q -t builtN - && "

// done is a line that was executed, and the record's length before and after.
type done struct {
	line
	begin, end int64
}

// TestPower cuts the power at random moments of commands that make, change and remove each kind of thing. On the disk as it is then the
// next commands find a consistent state: what is listed is whole and can be used, and what a command said to have made is there.
// GLASSBOX_TEST_STORM is the number of cuts, 24 without it; GLASSBOX_TEST_SEED repeats a run's choices for a record of the same length,
// which is roughly what a second run has.
func TestPower(t *testing.T) {
	for _, device := range []string{"/dev/fuse", "/dev/loop-control"} {
		if _, err := os.Stat(device); err != nil {
			t.Skipf("needs a disk of its own: %v", err)
		}
	}
	for _, options := range []string{"commit=1", "commit=1,noauto_da_alloc"} { // the second is what file systems other than ext4 do
		t.Run(options, func(t *testing.T) { testPower(t, options) })
	}
}

func testPower(t *testing.T, options string) {
	s := besiege(t)
	cuts, seed := 12, uint64(time.Now().UnixNano())
	for name, to := range map[string]func(n uint64){
		"GLASSBOX_TEST_STORM": func(n uint64) { cuts = int(n) / 2 }, "GLASSBOX_TEST_SEED": func(n uint64) { seed = n },
	} {
		if text := os.Getenv(name); text != "" {
			n, err := strconv.ParseUint(text, 10, 64)
			must(t, err)
			to(n)
		}
	}
	t.Logf("GLASSBOX_TEST_SEED=%d", seed)
	must(t, startRegistry(s.host, filepath.Join(s.dir, "registry"), "http", s.env))
	p := &powerCut{siege: s, options: options, random: rand.New(rand.NewPCG(seed, 0))}
	p.record()
	r, err := power.Open(p.recorded, diskSize)
	must(t, err)
	defer r.Close()
	from := r.At(p.done[0].begin)
	to := r.At(p.done[len(p.done)-1].end)
	t.Logf("%d writes and flushes, of which %d while the commands ran", r.Len(), to-from)
	for range cuts {
		if n := from + p.random.IntN(to-from+1); !p.cut(r, n) {
			break
		}
	}
}

type powerCut struct {
	*siege
	options  string
	random   *rand.Rand
	recorded string
	done     []done
}

// record executes the lines on a disk that records what is written to it.
func (p *powerCut) record() {
	p.Helper()
	p.recorded = filepath.Join(p.dir, "record")
	p.ok(p.sh("mkdir -p /run/power && umount /mnt"))
	self, err := os.Executable()
	must(p.T, err)
	file, err := os.Create(filepath.Join(p.dir, "disk.log"))
	must(p.T, err)
	defer file.Close()
	null, err := os.Open(os.DevNull)
	must(p.T, err)
	defer null.Close()
	_, err = p.host.Start(machine.Spec{
		Argv: []string{self, "/run/power", p.recorded}, Env: append(slices.Clone(p.env), machine.RoleEnv+"=disk"), Dir: "/", Stdin: null,
		Stdout: file, Stderr: file,
	})
	must(p.T, err)
	p.until("the disk is there", func() bool { _, err := os.Stat(p.host.Path("/run/power/" + power.Name)); return err == nil })
	p.ok(p.sh(fmt.Sprintf("mkfs.ext4 -q -F -J size=8 %[1]s && mount -o loop,%[2]s %[1]s /mnt && sync", "/run/power/"+power.Name, p.options)))
	length := func() int64 {
		st, err := os.Stat(p.recorded)
		must(p.T, err)
		return st.Size()
	}
	for n := range 2 {
		for _, l := range powerLines {
			number := func(text string) string { return strings.ReplaceAll(text, "N", strconv.Itoa(n)) }
			l.text = number(l.text)
			l.there, l.gone = mapped(l.there, number), mapped(l.gone, number)
			begin := length()
			if r := p.sh(l.text); r.Code != 0 {
				p.Fatalf("%s: %d %s%s", l.text, r.Code, r.Stdout, r.Stderr)
			}
			p.done = append(p.done, done{l, begin, length()})
		}
	}
	p.sh("glassbox rm -f $(glassbox ps -aq); umount -l /mnt; umount /run/power") // the machine's end takes what is left
	p.forget()
}

func mapped(list []string, f func(string) string) (out []string) {
	for _, text := range list {
		out = append(out, f(text))
	}
	return out
}

// forget takes away what no restart of a host leaves.
func (p *powerCut) forget() {
	p.Helper()
	p.ok(p.sh("rm -rf /run/glassbox; nft flush ruleset; for l in $(ls /sys/class/net); do case $l in lo|eth0) ;; *) " +
		"ip link del $l 2>/dev/null;; esac; done; :"))
}

// cut looks at the disk of one moment. It returns false if it makes no sense to look at another one.
func (p *powerCut) cut(r *power.Record, n int) bool {
	disk := filepath.Join(p.dir, "cut")
	must(p.T, r.Cut(disk, n, p.random))
	moment, there, open := p.expected(r, n)
	failed := p.Failed()
	fault := func(format string, a ...any) {
		p.Errorf("power gone at %d of %d, %s: "+format, append([]any{n, r.Len(), moment}, a...)...)
	}
	run := func(text string) string {
		res := p.sh(text)
		if res.Code != 0 {
			fault("%s: exit code %d: %s%s", text, res.Code, res.Stdout, res.Stderr)
		}
		return strings.TrimSpace(res.Stdout)
	}
	run("mount -o loop " + disk + " /mnt")
	// Which boot it is, is how the builder knows what it can't trust.
	run("cat /proc/sys/kernel/random/uuid >/run/boot && mount --bind /run/boot /proc/sys/kernel/random/boot_id")
	defer func() {
		p.ok(p.sh("umount /proc/sys/kernel/random/boot_id; umount /mnt || { grep /mnt /proc/mounts; false; }"))
		p.forget()
	}()
	lists := map[string][]string{}
	for kind, text := range map[string]string{
		"container": "ps -a --format '{{.Names}}'", "image": "images --format '{{.Repository}}:{{.Tag}}'", "volume": "volume ls -q",
		"network": "network ls --format '{{.Name}}'",
	} {
		res := p.sh("glassbox " + text)
		if res.Code != 0 || res.Stderr != "" {
			fault("glassbox %s: exit code %d: %s", text, res.Code, res.Stderr)
		}
		lists[kind] = strings.Fields(res.Stdout)
	}
	for what, want := range there {
		kind, name, _ := strings.Cut(what, ":")
		if want && !open[what] && !slices.Contains(lists[kind], name) {
			fault("%s is not there, and the command that made it had ended", what)
		}
	}
	run("glassbox fsck")
	for _, name := range lists["image"] {
		if !strings.HasPrefix(name, "<none>") {
			run("glassbox run --rm --network none --pull never " + name + " true")
		}
	}
	for _, name := range lists["container"] {
		run("glassbox inspect " + name)
		run("glassbox start " + name)
	}
	for _, name := range lists["volume"] {
		run("glassbox volume inspect " + name)
	}
	for _, name := range lists["network"] {
		run("glassbox network inspect " + name)
	}
	// All can be made again, and nothing is left once all is removed.
	run("ids=$(glassbox ps -aq); [ -z \"$ids\" ] || glassbox rm -f $ids; glassbox network prune -f; glassbox volume prune -af")
	for _, l := range powerLines[:5] {
		run(strings.ReplaceAll(l.text, "N", "1"))
	}
	for _, n := range []string{"0", "1"} {
		run("glassbox tag pulled1 pulled0 && " + strings.ReplaceAll(buildText, "N", n) +
			"test \"$(glassbox run --rm --network none built" + n + " cat /made | tr -d '\n')\" = '1 12 23 3'")
	}
	run("glassbox rm -f $(glassbox ps -aq); glassbox network prune -f; glassbox volume prune -af; glassbox fsck")
	for _, dir := range []string{"containers", "names", "volumes"} {
		entries, err := os.ReadDir(p.host.Path(store + "/" + dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) || len(entries) > 0 {
			fault("left in %s: %v %v", dir, entries, err)
		}
	}
	return !p.Failed() || failed
}

// expected is what must and must not be there after n entries of the record; open are things that the command of that moment was about.
func (p *powerCut) expected(r *power.Record, n int) (moment string, there, open map[string]bool) {
	moment = "after the last command"
	there, open = map[string]bool{}, map[string]bool{}
	for _, d := range p.done {
		begun, ended := r.At(d.begin) <= n, r.At(d.end) <= n
		for _, what := range d.there {
			if ended {
				there[what] = true
			} else if begun {
				open[what] = true
			}
		}
		for _, what := range d.gone { // what was removed may be there again, whole
			if begun {
				delete(there, what)
				open[what] = true
			}
		}
		if begun && !ended {
			moment = fmt.Sprintf("during %q", d.text)
			break
		}
	}
	return moment, there, open
}
