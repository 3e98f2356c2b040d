package seccomp

import "testing"

// TestKeepProject: of all requests of ioctl those are refused that take a file out of its project, whatever the upper bits say, and no
// other.
func TestKeepProject(t *testing.T) {
	refused := map[uint64]bool{0x401c5820: true, 0x40086602: true, 0x40046602: true}
	for _, goarch := range []string{"amd64", "arm64"} {
		for _, keep := range []bool{false, true} {
			f, err := Compile(Default(DefaultOptions{Arch: goarch, KernelMajor: 6, KernelMinor: 1, KeepProject: keep}), goarch)
			if err != nil {
				t.Fatal(err)
			}
			p := f.Program
			for _, a := range machine(goarch) {
				n := calls[findCall("ioctl")].nr[a]
				if n < 0 {
					continue
				}
				try := func(request uint64, want bool) {
					t.Helper()
					d := data{nr: uint32(n), arch: abiInfos[a].audit, args: [6]uint64{3, request}}
					if a == abiX32 {
						d.nr |= x32Bit
					}
					if got := run(p, d); (got != retAllow) != want {
						t.Errorf("%s, ioctl %#x: %#x, want it refused: %v", abiInfos[a].name, request, got, want)
					}
				}
				for request := range refused {
					try(request, keep)
					try(request|0xdead<<32, keep)
				}
				// FSGETXATTR, GETFLAGS, TCGETS, TIOCSWINSZ, FIONREAD, FICLONE, their neighbours.
				for _, request := range []uint64{0x801c581f, 0x80086601, 0x5401, 0x5414, 0x541b, 0x40049409, 0x401c5821, 0x40086603, 0, 0xffffffff} {
					try(request, false)
				}
				if keep {
					for low := range uint64(1 << 16) {
						try(0x40000000|low, low == 0x5820 || low == 0x6602)
					}
				}
			}
		}
	}
}
