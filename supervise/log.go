package supervise

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"
)

// Line is an entry of a container's log, in the form of Docker's json-file: one JSON object a line.
type Line struct {
	Log    string    `json:"log"` // with its newline, unless the line was longer than maxLine or the stream ended
	Stream string    `json:"stream"`
	Time   time.Time `json:"time"`
}

// maxLine is the length at which a line without an end is written all the same.
const maxLine = 16 << 10

// logger writes a container's output, line by line, and keeps the files small.
type logger struct {
	mu       sync.Mutex
	path     string
	maxSize  int64
	maxFiles int
	file     *os.File
	size     int64
	partial  map[string][]byte
}

func openLog(path string, maxSize int64, maxFiles int) (*logger, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return &logger{path: path, maxSize: maxSize, maxFiles: max(maxFiles, 1), file: f, size: st.Size(), partial: map[string][]byte{}}, nil
}

// write takes a piece of a stream.
func (l *logger) write(stream string, data []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	buf := append(l.partial[stream], data...)
	var out bytes.Buffer
	for {
		i := bytes.IndexByte(buf, '\n') + 1
		if i == 0 && len(buf) >= maxLine {
			i = maxLine
		}
		if i == 0 {
			break
		}
		if err := encode(&out, stream, buf[:i]); err != nil {
			return err
		}
		buf = buf[i:]
	}
	l.partial[stream] = append([]byte(nil), buf...)
	return l.flush(out.Bytes())
}

// close writes what is left of lines without an end.
func (l *logger) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out bytes.Buffer
	for stream, rest := range l.partial {
		if len(rest) > 0 {
			if err := encode(&out, stream, rest); err != nil {
				return err
			}
		}
	}
	if err := l.flush(out.Bytes()); err != nil {
		return err
	}
	return l.file.Close()
}

func (l *logger) flush(data []byte) error {
	if len(data) == 0 {
		return nil
	}
	if l.maxSize > 0 && l.size > 0 && l.size+int64(len(data)) > l.maxSize {
		if err := l.rotate(); err != nil {
			return err
		}
	}
	n, err := l.file.Write(data)
	l.size += int64(n)
	return err
}

// rotate renames log to log.1, log.1 to log.2 …, and forgets the oldest.
func (l *logger) rotate() error {
	for i := l.maxFiles - 1; i >= 1; i-- {
		from := l.path
		if i > 1 {
			from = fmt.Sprintf("%s.%d", l.path, i-1)
		}
		if err := os.Rename(from, fmt.Sprintf("%s.%d", l.path, i)); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	l.file.Close()
	l.file, l.size = f, 0
	return nil
}

func encode(out *bytes.Buffer, stream string, line []byte) error {
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	return e.Encode(Line{Log: string(line), Stream: stream, Time: time.Now().UTC()})
}
