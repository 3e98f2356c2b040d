package systemd

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long systemd may take for an answer or a job. It is also how long others wait for it.
const patience = 30 * time.Second

// Error is what a peer answers instead of a result.
type Error struct {
	Method string // that was called
	Name   string // org.freedesktop.systemd1.UnitExists
	Text   string
}

// Error says what was asked, and what was answered.
func (e *Error) Error() string {
	hint := ""
	switch e.Name {
	case "org.freedesktop.DBus.Error.AccessDenied", "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired":
		hint = " (only root may ask the system's manager; a user has one of their own, after a login)"
	}
	return fmt.Sprintf("systemd: %s: %s: %s%s", e.Method, strings.TrimPrefix(e.Name, "org.freedesktop."), e.Text, hint)
}

// isError reports whether err is an answer of the name, without its prefix.
func isError(err error, name string) bool {
	var e *Error
	return errors.As(err, &e) && strings.HasSuffix(e.Name, "."+name)
}

// client is a connection to a bus that systemd is on, or to systemd itself.
type client struct {
	fd     int
	serial uint32
	bus    bool      // false for systemd's own socket, where messages have no destination
	jobs   []message // signals JobRemoved that came while something else was awaited
}

// addresses returns the sockets to try, and which of them are buses. Systemd's private socket is the one that systemctl uses:
// it works where no D-Bus daemon is installed.
func addresses(user bool) (buses, private []string) {
	if !user {
		return []string{"/run/dbus/system_bus_socket"}, []string{"/run/systemd/private"}
	}
	dir := cmp.Or(os.Getenv("XDG_RUNTIME_DIR"), "/run/user/"+strconv.Itoa(os.Getuid()))
	if socket := socketOf(os.Getenv("DBUS_SESSION_BUS_ADDRESS")); socket != "" {
		buses = append(buses, socket)
	}
	if bus := dir + "/bus"; !slices.Contains(buses, bus) {
		buses = append(buses, bus)
	}
	return buses, []string{dir + "/systemd/private"}
}

// socketOf returns the first UNIX socket of a D-Bus address ("unix:path=/run/user/1000/bus,guid=…;…"); an abstract one begins
// with "@".
func socketOf(address string) string {
	for a := range strings.SplitSeq(address, ";") {
		rest, ok := strings.CutPrefix(a, "unix:")
		if !ok {
			continue
		}
		for option := range strings.SplitSeq(rest, ",") {
			key, v, _ := strings.Cut(option, "=")
			if v = unescape(v); key == "path" && v != "" {
				return v
			} else if key == "abstract" && v != "" {
				return "@" + v
			}
		}
	}
	return ""
}

// unescape takes back the %XX of values in addresses.
func unescape(s string) string {
	var out []byte
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				out = append(out, byte(n))
				i += 2
				continue
			}
		}
		out = append(out, s[i])
	}
	return string(out)
}

// dial connects to the system's manager, or the user's.
func dial(user bool) (*client, error) {
	buses, private := addresses(user)
	var errs []error
	for i, socket := range append(slices.Clone(buses), private...) {
		c, err := connect(socket)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", socket, err))
			continue
		}
		if c.bus = i < len(buses); c.bus {
			_, err = c.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello", "", nil)
		}
		if err == nil {
			return c, nil
		}
		c.close()
		errs = append(errs, fmt.Errorf("%s: %w", socket, err))
	}
	who := "the system's manager"
	if user {
		who = "the user's manager (it runs after a login, see loginctl enable-linger)"
	}
	return nil, fmt.Errorf("systemd: can't reach %s: %w", who, errors.Join(errs...))
}

func connect(socket string) (*client, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	c := &client{fd: fd}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
		c.close()
		return nil, err
	}
	t := unix.NsecToTimeval(int64(patience))
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &t)
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &t)
	if err := c.authenticate(); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *client) close() { unix.Close(c.fd) }

// authenticate says who we are by saying nothing: the peer takes our uid from the socket (SO_PEERCRED). Sending a number, as is
// usual, fails in a user namespace, where ours isn't the one that the peer sees.
func (c *client) authenticate() error {
	if err := c.write([]byte("\x00AUTH EXTERNAL\r\n")); err != nil {
		return err
	}
	line, err := c.line()
	if err == nil && strings.HasPrefix(line, "DATA") {
		if err = c.write([]byte("DATA\r\n")); err == nil {
			line, err = c.line()
		}
	}
	if err != nil {
		return err
	}
	if !strings.HasPrefix(line, "OK ") {
		return fmt.Errorf("D-Bus: no access: %q", line)
	}
	return c.write([]byte("BEGIN\r\n"))
}

// line reads up to a line's end, and nothing beyond.
func (c *client) line() (string, error) {
	var out []byte
	for b := make([]byte, 1); len(out) < 1024; {
		if err := c.read(b); err != nil {
			return "", err
		}
		if out = append(out, b[0]); strings.HasSuffix(string(out), "\r\n") {
			return string(out[:len(out)-2]), nil
		}
	}
	return "", errors.New("D-Bus: a line without end")
}

func (c *client) write(b []byte) error {
	for len(b) > 0 {
		n, err := unix.SendmsgN(c.fd, b, nil, nil, unix.MSG_NOSIGNAL)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return os.NewSyscallError("send", err)
		default:
			b = b[n:]
		}
	}
	return nil
}

func (c *client) read(b []byte) error {
	for len(b) > 0 {
		n, err := unix.Read(c.fd, b)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return fmt.Errorf("no answer after %v: %w", patience, unix.ETIMEDOUT)
		case err != nil:
			return os.NewSyscallError("read", err)
		case n == 0:
			return errors.New("the peer has closed the connection")
		default:
			b = b[n:]
		}
	}
	return nil
}

func (c *client) receive() (*message, error) {
	b := make([]byte, fixedHeader)
	if err := c.read(b); err != nil {
		return nil, err
	}
	n, err := length(b)
	if err != nil {
		return nil, err
	}
	b = append(b, make([]byte, n-len(b))...)
	if err := c.read(b[fixedHeader:]); err != nil {
		return nil, err
	}
	return decode(b)
}

// call calls a method and returns its reply.
func (c *client) call(destination, path, iface, method, signature string, body []byte) (*message, error) {
	c.serial++
	m := &message{kind: methodCall, serial: c.serial, path: path, iface: iface, member: method, signature: signature, body: body}
	if c.bus {
		m.destination = destination
	}
	if err := c.write(m.encode()); err != nil {
		return nil, fmt.Errorf("systemd: %s: %w", method, err)
	}
	for deadline := time.Now().Add(patience); ; {
		m, err := c.receive()
		switch {
		case err != nil:
			return nil, fmt.Errorf("systemd: %s: %w", method, err)
		case m.kind == signal && m.member == "JobRemoved":
			c.jobs = append(c.jobs, *m)
		case m.kind == methodReturn && m.replySerial == c.serial:
			return m, nil
		case m.kind == errorReply && m.replySerial == c.serial:
			e := &Error{Method: method, Name: m.errorName}
			if text, err := m.strings(); err == nil && len(text) > 0 {
				e.Text = text[0]
			}
			return nil, e
		case time.Now().After(deadline):
			return nil, fmt.Errorf("systemd: %s: no answer after %v: %w", method, patience, unix.ETIMEDOUT)
		}
	}
}
