package supervise

import (
	"encoding/binary"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// JournalSocket is where journald takes entries (systemd's "Native Journal Protocol").
const JournalSocket = "/run/systemd/journal/socket"

// journal writes lines into the journal, each as one datagram of fields: KEY=VALUE and a newline or, for a value that may hold anything,
// the key, a newline, its length (64 bits, little endian), the value and a newline. The socket is not connected, so that a journald that is
// started again is found.
type journal struct {
	fd     int
	to     unix.Sockaddr
	fields string
	drop   bool
	out    []byte
	lost   lost
	err    error // the first since the last flush
}

func openJournal(path string, o Log) (*journal, error) {
	j := &journal{to: &unix.SockaddrUnix{Name: path}, fields: o.Fields, drop: o.Drop}
	// Connected for the question alone: whether journald is there is an error of the start, and not of the first line.
	probe, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(probe)
	if err := unix.Connect(probe, j.to); err != nil {
		return nil, fmt.Errorf("log driver journald: nobody listens at %s: %w", path, err)
	}
	j.fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	return j, err
}

func (j *journal) add(stream string, line []byte, _ time.Time) {
	if j.lost.bytes > 0 && j.send("stderr", []byte(j.lost.text())) == nil {
		j.lost = lost{}
	}
	if err := j.send(stream, line); err != nil {
		// Counted by bytes and told with the next line that gets through, as for files.
		j.lost = lost{j.lost.bytes + len(line), err}
		if j.err == nil {
			j.err = err
		}
	}
}

// send sends one entry: priority 3 is err, 6 is info (syslog(3)), as with Docker.
func (j *journal) send(stream string, line []byte) error {
	priority := "6"
	if stream == "stderr" {
		priority = "3"
	}
	j.out = append(append(append(j.out[:0], j.fields...), "PRIORITY="...), priority...)
	// A line without its newline goes on in the next entry. Docker's driver marks it by this field.
	if n := len(line); n > 0 && line[n-1] == '\n' {
		line = line[:n-1]
	} else {
		j.out = append(j.out, "\nCONTAINER_PARTIAL_MESSAGE=true"...)
	}
	j.out = binary.LittleEndian.AppendUint64(append(j.out, "\nMESSAGE\n"...), uint64(len(line)))
	j.out = append(append(j.out, line...), '\n')
	flags := unix.MSG_NOSIGNAL
	if j.drop {
		flags |= unix.MSG_DONTWAIT
	}
	for {
		if err := unix.Sendto(j.fd, j.out, flags, j.to); err != unix.EINTR {
			return err
		}
	}
}

func (j *journal) flush() error {
	err := j.err
	j.err = nil
	return err
}

func (j *journal) close() error { return unix.Close(j.fd) }
