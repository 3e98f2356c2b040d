package supervise

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"
	"unicode/utf8"
)

// Log is where a container's output goes.
type Log struct {
	Driver   string `json:"driver,omitempty"` // one of the Log constants; empty: json-file
	MaxSize  int64  `json:"maxSize"`          // bytes of a file; 0: no limit
	MaxFiles int    `json:"maxFiles"`
	// Drop: what the journal doesn't take at once is lost (mode=non-blocking). Files never wait for a reader.
	Drop bool `json:"drop,omitempty"`
	// Compress: files that have been rotated away are compressed.
	Compress bool `json:"compress,omitempty"`
	// Fields go with each line: of files a JSON object, its attributes; of the journal lines KEY=VALUE, each with a newline.
	Fields string `json:"fields,omitempty"`
}

// Drivers of logs. The files of json-file and local are the same: see [Line].
const (
	LogJSONFile = "json-file"
	LogLocal    = "local"
	LogJournald = "journald"
	LogNone     = "none"
)

// drivers are in the order in which a supervisor passes them on to itself by number.
func drivers() []string { return []string{LogJSONFile, LogLocal, LogJournald, LogNone} }

// maxLine is the length at which a line without an end is written all the same.
const maxLine = 16 << 10

// sink takes lines: add gathers them, flush writes them.
type sink interface {
	add(stream string, line []byte, now time.Time)
	flush() error
	close() error
}

// logger takes a container's output apart, line by line.
type logger struct {
	mu      sync.Mutex
	to      sink // nil: nobody wants it
	partial map[string][]byte
}

// openLog opens the log of a container whose file would be path.
func openLog(path string, o Log) (*logger, error) {
	l := &logger{partial: map[string][]byte{}}
	switch o.Driver {
	case LogNone:
	case LogJournald:
		j, err := openJournal(JournalSocket, o)
		if err != nil {
			return nil, err
		}
		l.to = j
	default:
		f, err := openFileLog(path, o, &l.mu)
		if err != nil {
			return nil, err
		}
		l.to = f
	}
	return l, nil
}

// write takes a piece of a stream.
func (l *logger) write(stream string, data []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.to == nil {
		return nil
	}
	now := time.Now().UTC()
	buf := data
	if rest := l.partial[stream]; len(rest) > 0 {
		buf = append(rest, data...)
	}
	for {
		i := bytes.IndexByte(buf, '\n') + 1
		// A line that is too long is written in pieces, of which none ends within a character.
		if (i == 0 || i > maxLine) && len(buf) >= maxLine {
			i = wholeRunes(buf[:maxLine])
		}
		if i == 0 {
			break
		}
		l.to.add(stream, buf[:i], now)
		buf = buf[i:]
	}
	l.partial[stream] = append([]byte(nil), buf...)
	return l.to.flush()
}

// wholeRunes is how many bytes of a piece don't end in the middle of a character of UTF-8.
func wholeRunes(b []byte) int {
	for i := len(b) - 1; i >= 0 && i >= len(b)-utf8.UTFMax; i-- {
		if utf8.RuneStart(b[i]) {
			if !utf8.FullRune(b[i:]) && i > 0 {
				return i
			}
			break
		}
	}
	return len(b)
}

// whole reports whether nothing of a line waits for its end, and nothing that was lost waits to be told.
func (l *logger) whole() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch to := l.to.(type) {
	case *fileLog:
		if to.lost.bytes > 0 || to.gz.pid > 0 { // whoever executes itself anew forgets that child
			return false
		}
	case *journal:
		if to.lost.bytes > 0 {
			return false
		}
	}
	return len(l.partial["stdout"]) == 0 && len(l.partial["stderr"]) == 0
}

// close writes what is left of lines without an end.
func (l *logger) close() error {
	if f, ok := l.to.(*fileLog); ok {
		f.stopGzip(false)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.to == nil {
		return nil
	}
	for _, stream := range []string{"stdout", "stderr"} {
		if rest := l.partial[stream]; len(rest) > 0 {
			l.to.add(stream, rest, time.Now().UTC())
			l.partial[stream] = nil
		}
	}
	err := l.to.flush()
	if errClose := l.to.close(); err == nil {
		err = errClose
	}
	return err
}

// forget ends what is done for a log that is about to be removed.
func (l *logger) forget() {
	if f, ok := l.to.(*fileLog); ok {
		f.stopGzip(true)
	}
}

// fileLog writes lines into a file, and keeps the files small.
type fileLog struct {
	Log
	path string
	file *os.File
	size int64
	out  []byte // lines that are to be written
	raw  int    // bytes of output in them
	lost lost
	gz   gzipping
}

// lost is output that could not be written: the container goes on, and the next line that can be written tells it.
type lost struct {
	bytes int
	err   error
}

func (l *lost) text() string {
	return fmt.Sprintf("glassbox: %d bytes of output are missing here: %v\n", l.bytes, l.err)
}

func openFileLog(path string, o Log, mu *sync.Mutex) (*fileLog, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if o.Compress {
		os.Remove(path + Gzipped) // of a supervisor that was killed
	}
	o.MaxFiles = max(o.MaxFiles, 1)
	return &fileLog{Log: o, path: path, file: f, size: st.Size(), gz: gzipping{mu: mu}}, nil
}

func (l *fileLog) add(stream string, line []byte, now time.Time) {
	before := len(l.out)
	l.out = appendLine(l.out, stream, line, l.Fields, now)
	if before > 0 && l.MaxSize > 0 && l.size+int64(len(l.out)) > l.MaxSize {
		// The lines before this one are the last of their file, so that no file is larger than it may be, or much smaller.
		next := slices.Clone(l.out[before:])
		l.out = l.out[:before]
		l.flush() // if that fails, what is lost is told before the next line
		l.out = append(l.out, next...)
	}
	l.raw += len(line)
}

func (l *fileLog) flush() error {
	if len(l.out) == 0 {
		return nil
	}
	err := l.write()
	if err != nil {
		var where *os.PathError
		if errors.As(err, &where) {
			err = where.Err // which file it was is known
		}
		l.lost = lost{l.lost.bytes + l.raw, err}
	} else {
		l.lost = lost{}
	}
	l.out, l.raw = l.out[:0], 0
	if cap(l.out) > 4*maxLine { // of one long line with much to be escaped
		l.out = nil
	}
	return err
}

func (l *fileLog) write() error {
	data := l.out
	if l.lost.bytes > 0 {
		data = append(appendLine(nil, "stderr", []byte(l.lost.text()), l.Fields, time.Now().UTC()), data...)
	}
	if l.MaxSize > 0 && l.size > 0 && l.size+int64(len(data)) > l.MaxSize {
		if err := l.rotate(); err != nil {
			return err
		}
	}
	n, err := l.file.Write(data)
	// The file is appended to, so its length is where the half line began.
	if err != nil && n > 0 && l.file.Truncate(l.size) == nil { // half a line would spoil the next one
		n = 0
	}
	l.size += int64(n)
	return err
}

// close tells of what was lost at the very end, if there is room by now.
func (l *fileLog) close() error {
	if l.lost.bytes > 0 {
		l.write()
	}
	return l.file.Close()
}

// rotate renames log to log.1, log.1 to log.2 …, and forgets the oldest.
func (l *fileLog) rotate() error {
	ends := []string{""}
	if l.Compress {
		ends = append(ends, Gzipped)
		os.Remove(l.name(l.MaxFiles - 1)) // what takes its place may have the other name
		os.Remove(l.name(l.MaxFiles-1) + Gzipped)
	}
	for i := l.MaxFiles - 1; i >= 1; i-- {
		// From the oldest on, or one would be renamed over the next.
		for _, end := range ends[:min(i, len(ends))] {
			if err := os.Rename(l.name(i-1)+end, l.name(i)+end); err != nil && !os.IsNotExist(err) {
				return err
			}
		}
	}
	if l.MaxFiles == 1 { // a reader keeps the file that it has
		if err := os.Remove(l.path); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	l.file.Close()
	l.file, l.size = f, 0
	if l.Compress {
		l.gz.file++ // the one that is being compressed has moved, too
		l.compress()
	}
	return nil
}
