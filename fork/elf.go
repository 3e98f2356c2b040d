package fork

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// binaryFile is what is asked of a program's ELF header (elf(5)). Package debug/elf knows all of it, and costs every start a tenth of
// a millisecond before main, because it can read debugging information.
type binaryFile struct {
	machine uint16 // e_machine
	interp  string // the loader, of PT_INTERP
}

const elfMagic = "\x7fELF"

// readELF reads the header of a file that begins with elfMagic.
func readELF(f io.ReaderAt) (binaryFile, error) {
	var b binaryFile
	head := make([]byte, 64)
	if n, _ := f.ReadAt(head, 0); n < 52 {
		return b, errors.New("its header is cut short")
	}
	var order binary.ByteOrder = binary.LittleEndian
	if head[5] == 2 { // EI_DATA: ELFDATA2MSB
		order = binary.BigEndian
	}
	b.machine = order.Uint16(head[18:])
	wide := head[4] == 2 // EI_CLASS: ELFCLASS64
	off, size, count := uint64(order.Uint32(head[28:])), order.Uint16(head[42:]), order.Uint16(head[44:])
	if wide {
		off, size, count = order.Uint64(head[32:]), order.Uint16(head[54:]), order.Uint16(head[56:])
	}
	// The file is an image's and says what it likes. More than 512 headers no linker writes, and none begins beyond a terabyte: the sums
	// below can't overflow then.
	if count > 512 || off > 1<<40 || wide && size < 56 || !wide && size < 32 {
		return b, errors.New("its program headers make no sense")
	}
	for i := range uint64(count) {
		p := make([]byte, size)
		if n, _ := f.ReadAt(p, int64(off+i*uint64(size))); n < len(p) {
			return b, errors.New("its program headers are cut short")
		}
		if order.Uint32(p) != 3 { // PT_INTERP
			continue
		}
		at, length := uint64(order.Uint32(p[4:])), uint64(order.Uint32(p[16:]))
		if wide {
			at, length = order.Uint64(p[8:]), order.Uint64(p[32:])
		}
		if at > 1<<40 || length > 4096 {
			return b, errors.New("its loader's name makes no sense")
		}
		name := make([]byte, length)
		if n, _ := f.ReadAt(name, int64(at)); n < len(name) {
			return b, errors.New("its loader's name is cut short")
		}
		b.interp = strings.TrimRight(string(name), "\x00")
	}
	return b, nil
}

// Machines of ELF files (elf.h).
const (
	elf386     = 3
	elfPPC64   = 21
	elfS390    = 22
	elfARM     = 40
	elfAMD64   = 62
	elfARM64   = 183
	elfRISCV64 = 243
)

func machineName(m uint16) string {
	switch m {
	case elfAMD64:
		return "amd64"
	case elfARM64:
		return "arm64"
	case elf386:
		return "386"
	case elfARM:
		return "arm"
	case elfRISCV64:
		return "riscv64"
	case elfS390:
		return "s390x"
	case elfPPC64:
		return "ppc64le"
	}
	return fmt.Sprintf("machine %d", m)
}
