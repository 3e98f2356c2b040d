package supervise

import (
	"bytes"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// settle gives memory back once a resident supervisor has nothing to do but wait: what is free on the heap, and the pages of
// the executable that only its beginning used. Those stay in the page cache; what is needed again comes back page by page.
func settle() {
	time.Sleep(100 * time.Millisecond)
	debug.FreeOSMemory()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	spans := fileSpans(maps)
	drop(spans)
	// Once more: what this function itself has used goes, too.
	time.Sleep(200 * time.Millisecond)
	drop(spans)
}

// settleAgain does the same for what a process that is settled has just used.
func settleAgain() {
	if maps, err := os.ReadFile("/proc/self/maps"); err == nil {
		drop(fileSpans(maps))
	}
}

func drop(spans [][2]uintptr) {
	for _, s := range spans {
		// Only mappings of files that nobody can write: their pages can be read again at any time.
		unix.RawSyscall(unix.SYS_MADVISE, s[0], s[1], unix.MADV_DONTNEED)
	}
}

// fileSpans reads /proc/self/maps and returns start and size of the mappings of files that are not writable.
func fileSpans(maps []byte) [][2]uintptr {
	var spans [][2]uintptr
	for line := range bytes.Lines(maps) {
		fields := strings.Fields(string(line)) // address, permissions, offset, device, inode, path
		if len(fields) < 5 || strings.Contains(fields[1], "w") || fields[4] == "0" {
			continue
		}
		from, to, _ := strings.Cut(fields[0], "-")
		start, err1 := strconv.ParseUint(from, 16, 64)
		end, err2 := strconv.ParseUint(to, 16, 64)
		if err1 == nil && err2 == nil && start < end {
			spans = append(spans, [2]uintptr{uintptr(start), uintptr(end - start)})
		}
	}
	return spans
}
