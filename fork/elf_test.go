package fork

import (
	"bytes"
	"debug/elf"
	"os"
	"testing"
)

// TestReadELF compares with package debug/elf, over programs of this machine.
func TestReadELF(t *testing.T) {
	for _, name := range []string{"/proc/self/exe", "/bin/sh", "/bin/ls"} {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		want, err := elf.NewFile(f)
		if err != nil {
			t.Fatal(err)
		}
		interp := ""
		for _, p := range want.Progs {
			if p.Type == elf.PT_INTERP {
				data := make([]byte, p.Filesz)
				p.ReadAt(data, 0)
				interp = string(bytes.TrimRight(data, "\x00"))
			}
		}
		got, err := readELF(f)
		if err != nil || got.machine != uint16(want.Machine) || got.interp != interp {
			t.Errorf("%s: got %+v, %v, want machine %d and loader %q", name, got, err, want.Machine, interp)
		}
	}
}

func FuzzReadELF(f *testing.F) {
	f.Add([]byte(elfMagic))
	if data, err := os.ReadFile("/bin/true"); err == nil {
		f.Add(data[:min(len(data), 4096)])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := readELF(bytes.NewReader(data))
		if err == nil && len(b.interp) > 4096 {
			t.Errorf("a loader's name of %d bytes", len(b.interp))
		}
	})
}
