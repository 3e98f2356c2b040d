package test

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"glassbox/test/machine"
)

// The tests of this file are the attacks of docs/security.md, made through the engine and through the OCI runtime. That page tells
// for each what was taken out of the code to see it fail, and what the failure looked like.

// few is how often something is tried: fewer times on an emulated processor.
func few(n int) int {
	if testing.Short() {
		return max(n/10, 3)
	}
	return n
}

// asInterpreter is a program whose interpreter is what starts it.
func asInterpreter() []byte {
	const base, at = 0x10000000, 64 + 2*56
	machine := elf.EM_X86_64
	if runtime.GOARCH == "arm64" {
		machine = elf.EM_AARCH64
	}
	name := "/proc/self/exe\x00"
	h := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: 1, Entry: base, Phoff: 64, Ehsize: 64, Phentsize: 56,
		Phnum: 2,
	}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	size := uint64(at + len(name))
	var out bytes.Buffer
	binary.Write(&out, binary.LittleEndian, h)
	binary.Write(&out, binary.LittleEndian, []elf.Prog64{
		{Type: uint32(elf.PT_INTERP), Flags: 4, Off: at, Vaddr: base + at, Filesz: uint64(len(name)), Memsz: uint64(len(name)), Align: 1},
		{Type: uint32(elf.PT_LOAD), Flags: 5, Vaddr: base, Filesz: size, Memsz: size, Align: 0x1000},
	})
	out.WriteString(name)
	return out.Bytes()
}

// TestThreatExecutable is row 1: programs of the container make the runtime execute itself in the container, where others wait
// for it, keep descriptors of its executable, and write through them when they can.
func TestThreatExecutable(t *testing.T) {
	s := besiege(t)
	hash := func() (sum [2][32]byte) {
		for i, name := range []string{"glassbox", "glassbox-runtime"} {
			data, err := os.ReadFile(filepath.Join(s.bin, name))
			must(t, err)
			sum[i] = sha256.Sum256(data)
		}
		return sum
	}
	before := hash()
	interp := filepath.Join(s.dir, "interp")
	must(t, os.WriteFile(interp, asInterpreter(), 0o755))
	for _, f := range []face{engineFace, runtimeFace} {
		for _, caps := range [][]string{nil, {"CAP_SYS_PTRACE"}} {
			for _, entrypoint := range []bool{false, true} {
				root := s.root(`cp ` + interp + ` interp; mkfifo hang
					printf '#!/proc/self/exe --log=/hang\n' >evil; printf '#!/proc/self/exe\n' >plain; chmod 755 evil plain`)
				b := box{rootfs: root, caps: caps, args: []string{"/t/prog", "grab", "/stop", "/result"}}
				if entrypoint {
					b.args = []string{"/evil"}
				}
				id, _ := s.start(f, b)
				result := filepath.Join(root, "result")
				if entrypoint {
					s.background(s.exec(f, nil, id, "/t/prog", "grab", "/stop", "/result")...)
					s.until("a look at the entrypoint", func() bool { return s.exists(result) })
				} else {
					s.on(s.exec(f, nil, id, "/evil")...)
					script := `i=0; while [ $i -lt ` + fmt.Sprint(few(34)) +
						` ]; do for p in /plain /interp /bin/true; do "$@" $p; done; i=$((i+1)); done >/dev/null 2>&1`
					s.sh(script, append([]string{"sh"}, s.exec(f, nil, id)...)...)
					must(t, os.WriteFile(filepath.Join(root, "stop"), nil, 0o644))
					s.until("the attacker's end", func() bool { return s.exists(result + ".done") })
				}
				got, err := os.ReadFile(result)
				must(t, err)
				if want := "seen 1\nwrote 0\nwritable 0\n"; string(got) != want {
					t.Errorf("%s, %v, as entrypoint %v: the attacker says %q, want %q", f, caps, entrypoint, got, want)
				}
				s.remove(f, id)
			}
		}
	}
	if hash() != before {
		t.Error("the executables have changed")
	}
}

// where is a program for a container that tells where it is, and looks for the host from there.
var where = []string{"sh", "-c", `for d in . .. ../../../../../../../..; do [ -e $d` + secret +
	` ] && echo escaped; done; echo "in $(pwd -P)"`}

// TestThreatWorkingDirectory is row 2: the working directory is named through a descriptor of the runtime or of its caller.
func TestThreatWorkingDirectory(t *testing.T) {
	s := besiege(t)
	root := s.root("")
	// The caller has forgotten to close some.
	leaky := func(argv []string) machine.Result {
		return s.on(append([]string{"/bin/sh", "-c", `exec 7</ 8</etc 9</proc 11</run 12</; exec "$@"`, "sh"}, argv...)...)
	}
	harmless := func(what string, res machine.Result) {
		t.Helper()
		if strings.Contains(res.Stdout, "escaped") || res.Code == 0 && !strings.Contains(res.Stdout, "in /") {
			t.Errorf("%s: exit code %d: %s%s", what, res.Code, res.Stdout, res.Stderr)
		}
	}
	for _, f := range faces {
		// That the attacker sees what there is to see.
		if res := s.run(f, box{rootfs: root, args: where, cwd: "/tmp"}); res.Stdout != "in /tmp\n" {
			t.Errorf("%s in /tmp: %q %s", f, res.Stdout, res.Stderr)
		}
		b := box{rootfs: root, args: where, cwd: "/mnt", binds: [][2]string{{"/", "/mnt"}}}
		if res := s.run(f, b); !strings.Contains(res.Stdout, "escaped") {
			t.Errorf("%s in the host's root directory: %q %s", f, res.Stdout, res.Stderr)
		}
		id, _ := s.start(f, box{rootfs: root, args: []string{"sleep", "1000"}})
		s.fds(f, id, 0)
		for fd := 3; fd <= 20; fd++ {
			for _, dir := range []string{fmt.Sprintf("/proc/self/fd/%d", fd), fmt.Sprintf("/proc/self/fd/%d/../..", fd)} {
				harmless(string(f)+" run in "+dir, leaky(s.command(f, s.id("box"), box{rootfs: root, args: where, cwd: dir})))
				harmless(string(f)+" exec in "+dir, leaky(s.exec(f, []string{"-w", dir}, id, where...)))
			}
		}
		if f == engineFace {
			s.background(append([]string{"/bin/sh", "-c", `exec 7</ 8</etc; exec "$@"`, "sh"}, s.exec(f, nil, id, "sleep", "999")...)...)
		} else {
			s.background(append([]string{"/bin/sh", "-c", `exec 7</ 8</etc; exec "$@"`, "sh"}, s.exec(f, nil, id, "sleep", "999")...)...)
		}
		s.until("the second process", func() bool { return s.fds(f, id, 1) })
		s.remove(f, id)
	}
}

// fds looks at the descriptors of a container's first process, or of its other ones: there are three.
func (s *siege) fds(f face, id string, others int) (found bool) {
	s.Helper()
	first := s.pid(f, id)
	ns := func(pid int) string {
		link, _ := os.Readlink(s.host.Path(fmt.Sprintf("/proc/%d/ns/pid", pid)))
		return link
	}
	for pid, line := range s.host.Processes() {
		if (pid == first) != (others == 0) || ns(pid) != ns(first) || others > 0 && !strings.HasPrefix(line, "sleep 999") {
			continue
		}
		found = true
		dir := s.host.Path(fmt.Sprintf("/proc/%d/fd", pid))
		entries, err := os.ReadDir(dir)
		must(s.T, err)
		for _, e := range entries {
			// Standard descriptors are the caller's, but none is a null device of the host.
			var st, null unix.Stat_t
			if unix.Stat(filepath.Join(dir, e.Name()), &st) == nil && unix.Stat(s.host.Path("/dev/null"), &null) == nil && st.Dev == null.Dev &&
				st.Ino == null.Ino {
				s.Errorf("%s: %q has the host's /dev/null as descriptor %s", f, line, e.Name())
			}
			if !slices.Contains([]string{"0", "1", "2"}, e.Name()) {
				link, _ := os.Readlink(filepath.Join(dir, e.Name()))
				s.Errorf("%s: %q has descriptor %s, %s", f, line, e.Name(), link)
			}
		}
	}
	return found
}

// TestThreatStandard is row 23: a container is given a null device of the host as standard input, output and error, and changes who may
// use it.
func TestThreatStandard(t *testing.T) {
	s := besiege(t)
	type state struct {
		mode     uint32
		uid, gid uint32
		mtime    unix.Timespec
		acl      string
	}
	var names []string
	// The engine opens /dev/null; who calls the runtime may have another one.
	other := filepath.Join(s.dir, "other-null")
	must(t, unix.Mknod(other, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(t, os.Chmod(other, 0o666))
	names = append(names, s.host.Path("/dev/null"), other, "/dev/null")
	look := func() (out []state) {
		for _, name := range names {
			var st unix.Stat_t
			must(t, unix.Stat(name, &st))
			acl := make([]byte, 256)
			n, _ := unix.Getxattr(name, "system.posix_acl_access", acl)
			out = append(out, state{st.Mode, st.Uid, st.Gid, st.Mtim, string(acl[:max(n, 0)])})
		}
		return out
	}
	before := look()
	t.Cleanup(func() {
		for i, name := range names {
			unix.Removexattr(name, "system.posix_acl_access")
			os.Chown(name, int(before[i].uid), int(before[i].gid))
			os.Chmod(name, os.FileMode(before[i].mode&0o777))
			unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{before[i].mtime, before[i].mtime}, 0)
		}
	})
	check := func(what, root string) {
		t.Helper()
		result := filepath.Join(root, "result")
		s.until(what+": the attack", func() bool { return s.exists(result) })
		text, err := os.ReadFile(result)
		must(t, err)
		if !strings.HasSuffix(string(text), "done\n") {
			t.Errorf("%s: the attacker says %q", what, text)
		}
		os.Remove(result)
		if after := look(); !slices.Equal(after, before) {
			t.Errorf("%s: null devices of the host were %+v, are %+v", what, before, after)
		}
	}
	caller := func(null string, argv []string) {
		t.Helper()
		s.ok(s.sh(`null=$1; shift; exec "$@" <$null >$null 2>&1`, append([]string{"sh", null}, argv...)...))
	}
	for _, f := range faces {
		for _, null := range []string{"/dev/null", other} {
			root := s.root("")
			spoil := []string{"/t/prog", "spoil", "/result"}
			b := box{rootfs: root, args: spoil, caps: []string{"CAP_FOWNER"}}
			caller(null, s.command(f, s.id("box"), b))
			check(fmt.Sprintf("%s run with %s", f, null), root)
			id, _ := s.start(f, b)
			check(string(f)+" run -d", root)
			s.remove(f, id)
			if f != engineFace { // as a shim does
				id := s.id("box")
				caller(null, []string{"glassbox-runtime", "create", "--bundle", s.bundle(f, b), id})
				caller(null, []string{"glassbox-runtime", "start", id})
				check(fmt.Sprintf("%s create and start with %s", f, null), root)
				s.remove(f, id)
			}
			b.args = []string{"sleep", "1000"}
			id, _ = s.start(f, b)
			s.fds(f, id, 0)
			caller(null, s.exec(f, nil, id, spoil...))
			check(fmt.Sprintf("%s exec with %s", f, null), root)
			caller(null, s.exec(f, []string{"-d"}, id, spoil...))
			check(fmt.Sprintf("%s exec -d with %s", f, null), root)
			// Who has no null device of its own gets nobody else's.
			s.ok(s.on(s.exec(f, nil, id, "sh", "-c", "rm /dev/null; mkfifo /dev/null")...))
			if res := s.on(s.exec(f, nil, id, spoil...)...); res.Code == 0 || !strings.Contains(res.Stderr, "is no null device") {
				t.Errorf("%s exec without a null device: exit code %d: %s", f, res.Code, res.Stderr)
			}
			s.remove(f, id)
		}
	}
}

// TestThreatLook is row 2, too: processes of a container look for the host through what /proc shows of those that are on their way
// into it: by exec, by sharing its PID namespace, or created and not started yet.
func TestThreatLook(t *testing.T) {
	s := besiege(t)
	attacker := []string{"/t/prog", "watch", "/stop", "/result", secret, "exe"}
	check := func(what, root string) {
		t.Helper()
		must(t, os.WriteFile(filepath.Join(root, "stop"), nil, 0o644))
		result := filepath.Join(root, "result")
		s.until("result", func() bool { return s.exists(result) })
		got, err := os.ReadFile(result)
		must(t, err)
		if want := "rounds true\n"; string(got) != want {
			t.Errorf("%s: the attacker says %q, want %q", what, got, want)
		}
	}
	for _, f := range faces {
		root := s.root("")
		id, _ := s.start(f, box{rootfs: root, args: attacker})
		for range few(50) {
			s.ok(s.on(s.exec(f, nil, id, "true")...))
			s.ok(s.run(f, box{rootfs: root, args: []string{"true"}, pid: id}))
		}
		check(string(f)+", exec and run", root)
		s.remove(f, id)
	}
	for _, f := range []face{runtimeFace, hookedFace} {
		for _, tracer := range []bool{false, true} {
			b := box{rootfs: s.root(""), args: []string{"sleep", "1000"}}
			program := attacker
			if tracer {
				// Its right to look at others includes their executables; see TestThreatExecutable.
				b.caps, program = []string{"CAP_SYS_PTRACE"}, attacker[:5]
			}
			id := s.create(f, b)
			out := s.background(s.exec(f, nil, id, program...)...)
			time.Sleep(scaled(200 * time.Millisecond))
			text, _ := os.ReadFile(out)
			check(fmt.Sprintf("%s, created, tracer %v: %s", f, tracer, text), b.rootfs)
			s.remove(f, id)
		}
	}
}

// TestThreatSwap is row 3: while containers are set up, another one that shares a volume with them swaps the target of a mount
// between a directory and a link to the host's root directory.
func TestThreatSwap(t *testing.T) {
	s := besiege(t)
	s.shell("mkdir -p volume/a/mnt marker && touch marker/marker && ln -s ../../../../../../../../ volume/b && chmod -R 777 volume")
	volume, marker := filepath.Join(s.dir, "volume"), filepath.Join(s.dir, "marker")
	attacker, _ := s.start(engineFace, box{
		rootfs: s.root(""), binds: [][2]string{{volume, "/vol"}},
		args: []string{"/t/prog", "swap", "/stop", "/vol/a", "/vol/b"},
	})
	before := s.ok(s.sh("cut -d' ' -f3- /proc/self/mountinfo; ls /; ls /mnt"))
	started := 0
	for _, f := range faces {
		root := s.root("")
		b := box{rootfs: root, binds: [][2]string{{volume, "/vol"}, {marker, "/vol/a/mnt"}, {marker, "/vol/a/made/here"}}}
		// Whether a mount came to lie in the directory or, by the link, in the container's own root: it is in the container.
		b.args = []string{"sh", "-c", `echo $(grep -c " - .* [^ ]*$" /proc/self/mountinfo) $(grep -c "/marker /" /proc/self/mountinfo)
			ls / | grep -c boot`}
		n := few(map[face]int{engineFace: 200, runtimeFace: 300, hookedFace: 500}[f])
		bundle := ""
		if f != engineFace {
			bundle = s.bundle(f, b)
		}
		script := `i=0; while [ $i -lt ` + fmt.Sprint(n) + ` ]; do i=$((i+1)); `
		if f == engineFace {
			script += `glassbox run --rm "$@"; done`
		} else {
			script += `glassbox-runtime run --bundle ` + bundle + ` swapped$i; done`
		}
		// A race can also end in an error: what can't be resolved is not mounted.
		res := s.sh("("+script+") 2>&1", append([]string{"sh"}, s.flags(b)...)...)
		good, refused := 0, map[string]int{}
		for line := range strings.Lines(res.Stdout) {
			fields := strings.Fields(line)
			switch {
			case len(fields) == 2 && fields[1] == "2":
				good++
			case len(fields) == 2:
				t.Errorf("%s: of two mounts, the container has %s", f, fields[1])
			case line != "0\n":
				refused[regexp.MustCompile("[0-9a-f]{12,}|[0-9]+|time=[^ ]* ").ReplaceAllString(strings.TrimSpace(line), "N")]++
			}
		}
		t.Logf("%s: %d of %d containers were started; the others: %v", f, good, n, refused)
		if good < n/4 {
			t.Errorf("%s: only %d of %d containers were started: %v", f, good, n, refused)
		}
		started += good
		if dir := filepath.Join(root, "made/here"); !s.exists(dir) {
			t.Logf("%s: no target was made through the link", f)
		}
	}
	if after := s.ok(s.sh("cut -d' ' -f3- /proc/self/mountinfo; ls /; ls /mnt")); after != before {
		t.Errorf("the machine has changed from\n%s\nto\n%s", before, after)
	}
	if s.exists("/made") {
		t.Error("the target of a mount was made in the host's root directory")
		s.shell("rmdir /made/here /made")
	}
	s.remove(engineFace, attacker)
}

// noDev leaves /dev to the root file system.
func noDev(spec *specs.Spec) {
	spec.Mounts = slices.DeleteFunc(spec.Mounts, func(m specs.Mount) bool { return strings.HasPrefix(m.Destination, "/dev") })
}

// sharedDev is a /dev that others have, too, with terminals of the container's own.
func sharedDev(volume string) func(*specs.Spec) {
	return func(spec *specs.Spec) {
		noDev(spec)
		spec.Linux.MaskedPaths = nil // there is no null device
		spec.Mounts = append(spec.Mounts,
			specs.Mount{Destination: "/dev", Type: "bind", Source: volume, Options: []string{"rbind"}},
			specs.Mount{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666"}})
	}
}

// TestThreatNull is row 4: the null device that hides files is none.
func TestThreatNull(t *testing.T) {
	s := besiege(t)
	for name, script := range map[string]string{
		"link":      `ln -s /proc/sys/kernel/core_pattern null`,
		"file":      `echo fake >null`,
		"directory": `mkdir null`,
		"pipe":      `mkfifo null`,
		"zero":      `mknod null c 1 5`,
		"block":     `mknod null b 1 3`,
		"missing":   `true`,
		"null":      `mknod -m 666 null c 1 3`,
	} {
		for _, f := range faces {
			root := s.root("cd dev; " + script)
			b := box{rootfs: root, edit: noDev}
			if f == engineFace {
				b.rootfs, b.binds = s.root(""), [][2]string{{filepath.Join(root, "dev"), "/dev"}}
			}
			b.args = []string{"sh", "-c", `stat -c "%n %F %t:%T" /proc/keys; grep -c core_pattern /proc/self/mountinfo
				stat -c "%F %t:%T" /proc/sys/kernel/core_pattern; timeout 5 cat /proc/keys | wc -c`}
			res := s.run(f, b)
			want := "/proc/keys character special file 1:3\n0\nregular empty file 0:0\n0\n"
			if res.Code == 0 && res.Stdout != want {
				t.Errorf("%s, %s: got %q, want %q or an error", f, name, res.Stdout, want)
			}
			if res.Code != 0 && res.Stdout != "" {
				t.Errorf("%s, %s: an error after the program has begun: %s%s", f, name, res.Stdout, res.Stderr)
			}
			if (name == "null" || name == "missing") && f == runtimeFace && res.Code != 0 {
				t.Logf("%s, %s: %s", f, name, strings.TrimSpace(res.Stderr))
			}
		}
	}
}

// TestThreatConsole is row 5: another container that shares the directory of the terminals swaps it, and the console, while a
// container is started on a terminal.
func TestThreatConsole(t *testing.T) {
	s := besiege(t)
	s.shell(`mkdir -p volume/pts volume/evil && cd volume && for n in 0 1 2; do ln -s /proc/sys/kernel/core_pattern evil/$n; done
		ln -s /proc/sys/kernel/core_pattern evil/ptmx; ln -s /proc/sys/kernel/core_pattern evilconsole; touch console`)
	volume := filepath.Join(s.dir, "volume")
	attacker, _ := s.start(runtimeFace, box{
		rootfs: s.root(""), binds: [][2]string{{volume, "/vol"}},
		args: []string{"/t/prog", "swap", "/stop", "/vol/pts", "/vol/evil", "/vol/console", "/vol/evilconsole"},
	})
	program := []string{"sh", "-c", `[ -t 0 ] && echo terminal; stat -Lc "%t" /proc/self/fd/0
		grep -c core_pattern /proc/self/mountinfo; stat -c "%F" /proc/sys/kernel/core_pattern`}
	want := "terminal\n88\n0\nregular empty file\n"
	// A /dev that the attacker shares; terminals of the attacker's making; and what every container has.
	fake := func(spec *specs.Spec) {
		spec.Mounts = slices.DeleteFunc(spec.Mounts, func(m specs.Mount) bool { return m.Destination == "/dev/pts" })
		spec.Mounts = append(spec.Mounts, specs.Mount{
			Destination: "/dev/pts", Type: "bind", Source: filepath.Join(volume, "evil"),
			Options: []string{"rbind"},
		})
	}
	for name, edit := range map[string]func(*specs.Spec){"shared /dev": sharedDev(volume), "fake terminals": fake, "own": nil} {
		for _, f := range faces {
			if f == engineFace && name == "shared /dev" {
				continue // hiding files needs a null device
			}
			b := box{rootfs: s.root(""), args: program, tty: true, edit: edit}
			n := few(20)
			if name == "shared /dev" {
				n = few(100)
			}
			if f == engineFace && name == "fake terminals" {
				b.binds = [][2]string{{filepath.Join(volume, "evil"), "/dev/pts"}}
			}
			good := 0
			for range n {
				res := s.run(f, b)
				if got := strings.ReplaceAll(res.Stdout, "\r", ""); got == want {
					good++
				} else if res.Code == 0 || got != "" {
					t.Errorf("%s, %s: exit code %d, got %q, want %q or an error (%s)", f, name, res.Code, got, want, res.Stderr)
					break
				}
			}
			t.Logf("%s, %s: %d of %d containers were started", f, name, good, n)
			if name == "own" && good < n {
				t.Errorf("%s, %s: %d of %d containers were started", f, name, good, n)
			}
		}
	}
	s.remove(runtimeFace, attacker)
}

// TestThreatTerminal is the other half of row 5: the directory of the terminals is swapped while the container's one is opened, for
// which the attacker has time, because the container's start is held up after each ioctl. In its place is a link to a file of the
// container's, which root would make the user's.
func TestThreatTerminal(t *testing.T) {
	s := besiege(t)
	s.shell("mkdir -p volume/pts volume/evil && for n in 0 1 2 3; do ln -s /victim volume/evil/$n; done")
	volume := filepath.Join(s.dir, "volume")
	attacker, _ := s.start(runtimeFace, box{
		rootfs: s.root(""), binds: [][2]string{{volume, "/vol"}},
		args: []string{"/t/prog", "turn", "/stop", "/vol/pts", "/vol/evil"},
	})
	root := s.root("touch victim")
	b := box{
		rootfs: root, args: []string{"sh", "-c", `[ -t 0 ] && stat -Lc "%t %u" /proc/self/fd/0`}, tty: true, user: "1000:1000",
		edit: sharedDev(volume),
	}
	good := 0
	const n = 8
	for range n {
		res := s.on(append([]string{"strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=ioctl", "-e", "inject=ioctl:delay_exit=15000"},
			s.command(runtimeFace, s.id("box"), b)...)...)
		if got := strings.ReplaceAll(res.Stdout, "\r", ""); got == "88 1000\n" {
			good++
		} else if res.Code == 0 || got != "" {
			t.Errorf("exit code %d, got %q, want a terminal of the user's or an error (%s)", res.Code, got, res.Stderr)
		}
		if st, err := os.Stat(filepath.Join(root, "victim")); err != nil || st.Sys().(*syscall.Stat_t).Uid != 0 {
			t.Fatalf("the file behind the link is the user's now: %v %v", st.Sys(), err)
		}
	}
	t.Logf("%d of %d containers were started", good, n)
	if good == 0 {
		t.Error("no container was started: nothing was to be seen")
	}
	s.remove(runtimeFace, attacker)
}

// TestThreatProc is row 6: what looks like procfs is none, or is covered.
func TestThreatProc(t *testing.T) {
	s := besiege(t)
	s.shell("mkdir -p fake/attr && for n in oom_score_adj attr/exec attr/keycreate loginuid status; do echo fake >fake/$n; done")
	fake := filepath.Join(s.dir, "fake")
	program := []string{"sh", "-c", `cat /proc/1/comm; stat -f -c %t /proc /proc/self/attr
		cat /proc/self/oom_score_adj /proc/sys/net/ipv4/ip_forward`}
	want := "sh\n9fa0\n9fa0\n500\n1\n"
	type try struct {
		name, script string
		dest         string // of a bind mount
		tmpfs        string
		refused      bool // always
	}
	for _, c := range []try{
		{name: "plain"},
		{name: "bind", dest: "/proc", refused: true},
		{name: "bind", dest: "/proc/self", refused: true},
		{name: "bind", dest: "/proc/self/attr", refused: true},
		{name: "bind", dest: "/proc/1/attr", refused: true},
		{name: "bind", dest: "/proc/sys", refused: true},
		{name: "bind", dest: "/data/../proc/./self/attr", refused: true},
		{name: "tmpfs", tmpfs: "/proc", refused: true},
		{name: "tmpfs", tmpfs: "/proc/self/attr", refused: true},
		{name: "link to", script: "rmdir proc; mkdir fakeproc; ln -s fakeproc proc"},
		{name: "link to", script: "rmdir proc; mkdir -p fakeproc/self/attr; echo fake >fakeproc/self/oom_score_adj; ln -s /fakeproc proc"},
		{name: "link from", script: "ln -s proc data", dest: "/data"},
		{name: "link from", script: "ln -s /proc/self/attr data", dest: "/data"},
		{name: "link from", script: "ln -s /proc/1 data", dest: "/data"},
		{name: "link from", script: "ln -s /proc/sys data", dest: "/data"},
		{name: "link from", script: "ln -s /proc data", dest: "/data/self"},
		{name: "link from", script: "ln -s /proc data", tmpfs: "/data/sys"},
		{name: "link from", script: "ln -s /proc/self/attr data", tmpfs: "/data"},
	} {
		for _, f := range faces {
			b := box{rootfs: s.root(c.script), args: program, score: 500, sysctl: map[string]string{"net.ipv4.ip_forward": "1"}}
			if c.dest != "" {
				b.binds = [][2]string{{fake, c.dest}}
			}
			if c.tmpfs != "" {
				b.tmpfs = []string{c.tmpfs}
			}
			res := s.run(f, b)
			what := fmt.Sprintf("%s, %s %s%s %s", f, c.name, c.dest, c.tmpfs, c.script)
			switch {
			case res.Code == 0 && (c.refused || res.Stdout != want):
				t.Errorf("%s: got %q (%s), want %q or an error", what, res.Stdout, res.Stderr, want)
			case res.Code != 0 && res.Stdout != "":
				t.Errorf("%s: an error after the program has begun: %s%s", what, res.Stdout, res.Stderr)
			case res.Code != 0 && c.name == "plain":
				t.Errorf("%s: %s", what, res.Stderr)
			}
		}
	}
	s.shell(`[ "$(cat fake/*_adj fake/attr/* | sort -u)" = fake ] && [ -z "$(find fake -mindepth 3)" ]`)
}
