package test

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

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
	h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: 1, Entry: base, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 2}
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
					script := `i=0; while [ $i -lt ` + fmt.Sprint(few(33)) + ` ]; do for p in /plain /interp /bin/true; do "$@" $p; done; i=$((i+1)); done >/dev/null 2>&1`
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
var where = []string{"sh", "-c", `for d in . .. ../../../../../../../..; do [ -e $d` + secret + ` ] && echo escaped; done; echo "in $(pwd -P)"`}

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
		if res := s.run(f, box{rootfs: root, args: where, cwd: "/mnt", binds: [][2]string{{"/", "/mnt"}}}); !strings.Contains(res.Stdout, "escaped") {
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
			if !slices.Contains([]string{"0", "1", "2"}, e.Name()) {
				link, _ := os.Readlink(filepath.Join(dir, e.Name()))
				s.Errorf("%s: %q has descriptor %s, %s", f, line, e.Name(), link)
			}
		}
	}
	return found
}

// TestThreatLook is row 2, too: processes of a container look for the host through what /proc shows of those that are on their way
// into it: by exec, by sharing its PID namespace, or created and not started yet.
func TestThreatLook(t *testing.T) {
	s := besiege(t)
	attacker := []string{"/t/prog", "watch", "/stop", "/result", secret}
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
		root := s.root("")
		id := s.create(f, box{rootfs: root, args: []string{"sleep", "1000"}, caps: []string{"CAP_SYS_PTRACE"}})
		out := s.background(s.exec(f, nil, id, attacker...)...)
		time.Sleep(scaled(200 * time.Millisecond))
		text, _ := os.ReadFile(out)
		check(string(f)+", created: "+string(text), root)
		s.remove(f, id)
	}
}
