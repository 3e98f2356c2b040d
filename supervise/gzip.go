package supervise

import (
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Files of a log that have been rotated away are compressed by a program of its own (`glassbox-runtime gzip FILE`), one at a time: a
// compressor takes more memory than all else of a supervisor, and what a Go process once used it keeps. It is a filter: names are the
// supervisor's, which may rotate meanwhile, and goes on writing in any case.
//
//	log ──rotate──▶ log.1 ──gzip──▶ log.gz ──rename──▶ log.1.gz, then log.1 goes
//
// Whoever is killed in between leaves both, of which the plain one counts, and log.gz, which the next file takes the place of.

// Gzipped is what the name of a compressed file of a log ends with.
const Gzipped = ".gz"

// gzipping is the compressing of a log's files.
type gzipping struct {
	mu   *sync.Mutex // the logger's, which all of this is used under
	pid  int         // of the program that compresses a file; 0: none does
	file int         // the number of that file
	over bool        // no other one is begun
	done chan struct{}
}

// name is a file of the log: log, log.1 …
func (l *fileLog) name(n int) string {
	if n == 0 {
		return l.path
	}
	return fmt.Sprintf("%s.%d", l.path, n)
}

// compress begins with the newest file that isn't compressed yet, unless one is under way. What can't be compressed now (the disk is full)
// stays as it is until the next rotation.
func (l *fileLog) compress() {
	if l.gz.pid > 0 || l.gz.over {
		return
	}
	for n := 1; n < l.MaxFiles; n++ {
		from, err := os.Open(l.name(n))
		if err != nil {
			continue
		}
		os.Remove(l.name(n) + Gzipped) // of one that was killed
		l.gz.file = n
		l.startGzip(from)
		from.Close()
		return
	}
}

func (l *fileLog) startGzip(from *os.File) {
	to, err := os.OpenFile(l.path+Gzipped, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return
	}
	defer to.Close()
	// Its end is seen by that of a pipe, as a check's is: no thread has to wait.
	var pipe [2]int
	if unix.Pipe2(pipe[:], unix.O_CLOEXEC) != nil {
		return
	}
	unix.SetNonblock(pipe[0], true)
	ended := os.NewFile(uintptr(pipe[0]), "gzip")
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"glassbox-runtime", "gzip", l.path}, &syscall.ProcAttr{
		Dir: "/", Env: []string{"GOMAXPROCS=1"}, Files: []uintptr{from.Fd(), to.Fd(), uintptr(pipe[1])},
	})
	unix.Close(pipe[1])
	if err != nil {
		ended.Close()
		return
	}
	done := make(chan struct{})
	l.gz.pid, l.gz.done = pid, done
	go func() {
		defer close(done)
		var buf [1]byte
		for {
			if n, err := ended.Read(buf[:]); n <= 0 || err != nil {
				break
			}
		}
		ended.Close()
		l.gz.mu.Lock()
		defer l.gz.mu.Unlock()
		ws := reap(pid) // a moment
		l.gz.pid = 0
		l.compressed(ws.Exited() && ws.ExitStatus() == 0)
	}()
}

// compressed puts a file that is ready into its place, and begins with the next one.
func (l *fileLog) compressed(ok bool) {
	n := l.gz.file
	if !ok || n >= l.MaxFiles { // it was forgotten meanwhile
		os.Remove(l.path + Gzipped)
	} else if os.Rename(l.path+Gzipped, l.name(n)+Gzipped) == nil {
		os.Remove(l.name(n)) // after that, or a reader could find neither
	}
	if ok {
		l.compress()
	}
}

// stopGzip waits for the file that is being compressed, for at most as long as that takes, or kills it; others stay as they are. It is
// called without the lock.
func (l *fileLog) stopGzip(kill bool) {
	l.gz.mu.Lock()
	l.gz.over = true
	if kill && l.gz.pid > 0 {
		unix.Kill(l.gz.pid, unix.SIGKILL) // it isn't reaped yet: the number is its own
	}
	done := l.gz.done
	if l.gz.pid == 0 {
		done = nil
	}
	l.gz.mu.Unlock()
	if done != nil {
		<-done
	}
}

// Gzip compresses standard input to standard output, and brings it to the disk. Which file it was stands in the header: who has followed
// it is not shown it again.
func Gzip() int {
	unix.Setpriority(unix.PRIO_PROCESS, 0, 19)
	var st unix.Stat_t
	if unix.Fstat(0, &st) != nil {
		return 1
	}
	w := gzip.NewWriter(os.Stdout)
	w.Extra = fileExtra(&st)
	_, err := io.Copy(w, os.Stdin)
	if err != nil || w.Close() != nil || unix.Fsync(1) != nil {
		return 1
	}
	return 0
}

// extraID names our field in the header of a gzip file (RFC 1952, 2.3.1.1).
const extraID = "gb"

// fileExtra is the extra field of a compressed file: the numbers of the one that it was.
func fileExtra(st *unix.Stat_t) []byte {
	b := append([]byte(extraID), 16, 0)
	b = binary.LittleEndian.AppendUint64(b, st.Dev)
	return binary.LittleEndian.AppendUint64(b, st.Ino)
}

// WasFile reports whether the extra field of a compressed file names a file. A number is no other file's as long as somebody has the
// file open.
func WasFile(extra []byte, st *unix.Stat_t) bool { return string(extra) == string(fileExtra(st)) }
