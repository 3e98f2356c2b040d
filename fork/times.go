package fork

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// ticks reads the processor's counter of time: the child can't ask a clock without a system call for each step, and one
// instruction is no function that a child between clone and execve must fear. It is the time-stamp counter on amd64 and the
// virtual counter on arm64, which run at one speed on all processors of a machine wherever the kernel takes time from them.
func ticks() uint64

// stopwatch notes when steps begin, in ticks. The child's notes are in memory that it shares with the parent; they outlive its
// execve, and its failure. The two calls for that memory are all that the kernel is asked for.
type stopwatch struct {
	plan   *plan.Plan
	start  time.Time
	zero   uint64
	begin  []uint64 // of the host's steps; 0: not made
	clone  uint64
	host   uint64
	failed uint64         // when a step had failed; what follows takes back what was made
	shared unsafe.Pointer // the child's birth, a word for each step, when it waited to be traced; nil: no memory, and no times of the child
	size   uintptr
}

func newStopwatch(p *plan.Plan) *stopwatch {
	w := &stopwatch{plan: p, begin: make([]uint64, len(p.Steps)), size: uintptr(8 * (len(p.Steps) + 2))}
	// Populated by the parent, so that the page doesn't count in the container's cgroup.
	w.shared, _ = unix.MmapPtr(-1, 0, nil, w.size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	w.start, w.zero = time.Now(), ticks()
	return w
}

// stop fills in what was noted, and gives the memory back.
func (w *stopwatch) stop(t *plan.Times) {
	last, took := ticks(), time.Since(w.start)
	// Measured anew each time: what a tick is differs between machines, and where it can be read is not the same on all of them.
	scale := float64(took) / float64(max(last-w.zero, 1))
	ns := func(at uint64) int64 {
		if at < w.zero {
			return 0
		}
		return int64(float64(at-w.zero) * scale)
	}
	*t = plan.Times{Begin: make([]int64, len(w.begin)), Clone: ns(w.clone), Host: ns(w.host), End: int64(took)}
	if w.failed != 0 {
		t.End = ns(w.failed)
	}
	for i, at := range w.begin {
		t.Begin[i] = -1
		if at != 0 {
			t.Begin[i] = ns(at)
		}
	}
	if w.shared == nil {
		return
	}
	noted := unsafe.Slice((*uint64)(w.shared), len(w.begin)+2)
	if sound(noted[:len(w.begin)+1], w.clone, last) {
		t.Born = ns(noted[0])
		if at := noted[len(w.begin)+1]; at != 0 {
			t.Ready = ns(at)
		}
		for i, at := range noted[1 : len(w.begin)+1] {
			if at != 0 {
				t.Begin[i] = ns(at)
			}
		}
	}
	unix.MunmapPtr(w.shared, w.size)
}

// sound reports whether the child's times lie in order between two of the parent's. They don't where processors count
// differently; then no times are better than wrong ones.
func sound(noted []uint64, from, to uint64) bool {
	for _, at := range noted {
		if at == 0 {
			continue
		}
		if at < from || at > to {
			return false
		}
		from = at
	}
	return noted[0] != 0
}
