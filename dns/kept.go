package dns

import (
	"encoding/binary"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// How an answer can be kept and never be stale. Each directory of names has a file of eight bytes beside it, its tally; so has a
// container's file. Whoever changes the one writes the other anew, after the change and before he says that it is made. A resolver has that
// file in its memory (mmap(2)), so that to see whether anything has changed costs no system call. It looks at the tally before it reads the
// directory: what is changed while it reads is told behind that. So a name is there before its container's first instruction, and gone
// before its address is another's, as if the directory were read each time.

// tallyFile is a tally's name, from that of what changes.
func tallyFile(path string) string { return path + ".changed" }

// Tell says to the resolvers that know it that a directory of names, or a container's file, has changed.
func Tell(path string) error {
	fd, err := unix.Open(tallyFile(path), unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &os.PathError{Op: "open", Path: tallyFile(path), Err: err}
	}
	defer unix.Close(fd)
	// No value comes twice: two processes may write in the same nanosecond, and one can't.
	var b [8]byte
	binary.NativeEndian.PutUint64(b[:], uint64(time.Now().UnixNano())<<22|uint64(os.Getpid()))
	if _, err := unix.Pwrite(fd, b[:], 0); err != nil {
		return &os.PathError{Op: "write", Path: tallyFile(path), Err: err}
	}
	return nil
}

// A tally is one as a resolver has it in its memory.
type tally struct {
	page []byte
	seen uint64
}

func openTally(path string) (tally, error) {
	fd, err := unix.Open(tallyFile(path), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return tally{}, err
	}
	defer unix.Close(fd)
	// There is no memory behind the end of a file (SIGBUS). One that is longer than nothing is as long as this already.
	if err := unix.Ftruncate(fd, 8); err != nil {
		return tally{}, err
	}
	page, err := unix.Mmap(fd, 0, 8, unix.PROT_READ, unix.MAP_SHARED)
	return tally{page: page}, err
}

// moved reports whether anybody has told of a change since the last time.
func (t *tally) moved() bool {
	now := binary.NativeEndian.Uint64(t.page) // half of an old and half of a new value is one more that differs
	was := t.seen
	t.seen = now
	return now != was
}

// The bounds of what is kept: bytes of an answer and of a question, and of all together.
const (
	mostOfOne = 512
	mostKept  = 64 << 10
)

// keptFor is how long answers are kept where nobody says that they have changed: somebody who was killed between a change and his saying
// so, or who doesn't know of tallies (a supervisor of an older version, at the end of its container) is heard of a second late.
const keptFor = time.Second

// kept are a container's answers from the names of its networks, by the bytes of the question behind its number. The outside's aren't
// kept, nor what is answered behind a wall, which is opened each time.
type kept struct {
	config  *Config
	since   time.Time
	tallies []tally // of the networks; nil: nothing is kept
	answers map[string]*keptAnswer
	size    int
}

// keptAnswer has one for each turn of the addresses, when it has been asked for.
type keptAnswer struct {
	turns [][]byte
	next  uint
}

// renew forgets what may not be true any more. It comes before each question, or batch of them.
func (k *kept) renew(c *Config, now time.Time) {
	if c != k.config || now.Sub(k.since) > keptFor {
		k.begin(c, now)
		return
	}
	for i := range k.tallies {
		if k.tallies[i].moved() {
			k.forget()
		}
	}
}

func (k *kept) forget() {
	clear(k.answers)
	k.size = 0
}

// begin forgets all, and opens the tallies.
func (k *kept) begin(c *Config, now time.Time) {
	for _, t := range k.tallies {
		unix.Munmap(t.page)
	}
	k.forget()
	k.config, k.since, k.tallies = c, now, k.tallies[:0]
	dirs, ok := c.Names.(Directories)
	if !ok || len(c.Walls) > 0 {
		return
	}
	for _, d := range dirs {
		t, err := openTally(d.Path)
		if err != nil { // nobody says then whether anything changes
			for _, t := range k.tallies {
				unix.Munmap(t.page)
			}
			k.tallies = k.tallies[:0]
			return
		}
		t.moved()
		k.tallies = append(k.tallies, t)
	}
}

// find looks for the answer to a question. Where there is none, turn is what to ask [Answer] with: the one that is given, or whose turn
// it is of the addresses of a name of which one answer is kept already.
func (k *kept) find(query []byte, next uint) (reply []byte, turn uint) {
	if len(query) <= 2 {
		return nil, next
	}
	a := k.answers[string(query[2:])]
	if a == nil {
		return nil, next
	}
	turn, a.next = a.next, a.next+1
	return a.turns[turn%uint(len(a.turns))], turn
}

// keep keeps a reply to a question that came from the names, if it is worth it.
func (k *kept) keep(query, reply []byte, turn uint) {
	switch {
	case len(k.tallies) == 0, len(query) > mostOfOne, len(reply) > mostOfOne, reply[3]&0xf != 0, reply[2]&truncated != 0:
		return
	}
	a := k.answers[string(query[2:])]
	if a == nil {
		if k.size += len(query); k.answers == nil {
			k.answers = map[string]*keptAnswer{}
		}
		a = &keptAnswer{turns: make([][]byte, max(1, binary.BigEndian.Uint16(reply[6:]))), next: turn + 1} // ANCOUNT
		k.answers[string(query[2:])] = a
	}
	a.turns[turn%uint(len(a.turns))] = reply
	// What is asked for is a few names. Whoever asks for more than that begins anew.
	if k.size += len(reply); k.size > mostKept {
		k.forget()
	}
}
