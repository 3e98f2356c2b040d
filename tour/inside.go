package tour

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Inside is what lessons run inside a box that no common program does: "escape", "calls", "net", "ask" and "serve".
func Inside(args []string, out io.Writer) error {
	if len(args) == 0 {
		return fmt.Errorf("say what to do inside: escape, calls, net, ask or serve")
	}
	switch args[0] {
	case "escape":
		if len(args) < 2 {
			return fmt.Errorf("escape wants a file to read")
		}
		breakOut(out, args[1], len(args) > 2 && args[2] == "half")
		return nil
	case "net":
		return showNetwork(out)
	case "ask":
		if len(args) < 2 {
			return fmt.Errorf("ask wants an address and a port")
		}
		said, err := askWorld(args[1])
		if err != nil {
			return errors.New(errText(err))
		}
		fmt.Fprintln(out, said)
		return nil
	case "serve":
		if len(args) < 2 {
			return fmt.Errorf("serve wants a port")
		}
		l, err := net.Listen("tcp4", ":"+args[1])
		if err != nil {
			return err
		}
		greet(l, "the box")
		return nil
	case "calls":
		makeCalls(out)
		return nil
	}
	return fmt.Errorf("%q is nothing that the tour does inside", args[0])
}

// breakOut leaves a chroot, and tells of every call. With half the call that does the trick is left out.
func breakOut(out io.Writer, file string, half bool) {
	say := func(call string, err error) bool {
		result := "0"
		if err != nil {
			result = errText(err)
		}
		fmt.Fprintf(out, "%-24s %s\n", call, result)
		return err == nil
	}
	name := fmt.Sprintf("way-out-%d", os.Getpid())
	unix.Chdir("/")
	if !half {
		if !say(`mkdir("way-out")`, unix.Mkdir(name, 0o700)) {
			return
		}
		err := unix.Chroot(name)
		if !say(`chroot("way-out")`, err) {
			unix.Rmdir(name)
			return
		}
		unix.Rmdir(name) // it stays our root without having a name
	}
	// As often as any path is deep: at the top ".." is the top.
	if !say(`chdir("../../../..…")`, unix.Chdir(strings.Repeat("../", 64))) || !say(`chroot(".")`, unix.Chroot(".")) {
		return
	}
	data, err := os.ReadFile(file)
	if err != nil {
		say("read the secret", err)
		return
	}
	fmt.Fprintf(out, "%-24s %s\n", "read the secret", strings.TrimSpace(string(data)))
}

// makeCalls makes system calls that a container's filter refuses, with arguments that the kernel refuses itself, and one that nobody
// refuses. The last line says how many were answered with EPERM.
func makeCalls(out io.Writer) {
	filtered := 0
	answer := func(call string, n int, err error) {
		text := fmt.Sprint(n)
		if err != nil {
			text = errText(err)
		}
		if err == unix.EPERM {
			filtered++
		}
		fmt.Fprintf(out, "%-24s %s\n", call, text)
	}
	answer("getpid()", os.Getpid(), nil)
	n, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, false)
	answer("keyctl(GET_KEYRING_ID)", n, err)
	n, err = unix.AddKey("no-such-type", "tour", nil, unix.KEY_SPEC_SESSION_KEYRING)
	answer(`add_key("no-such-type")`, n, err)
	n, err = unix.PerfEventOpen(nil, 0, -1, -1, 0)
	answer("perf_event_open(NULL)", n, err)
	r, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, 0, 0)
	if err = nil; errno != 0 {
		err = errno
	}
	answer("io_uring_setup(NULL)", int(r), err)
	fmt.Fprintf(out, "filtered: %d\n", filtered)
}

// showNetwork prints the devices with their addresses, and the default route.
func showNetwork(out io.Writer) error {
	devices, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, d := range devices {
		state := "down"
		if d.Flags&net.FlagUp != 0 {
			state = "up"
		}
		addresses, err := d.Addrs()
		if err != nil {
			return err
		}
		line := fmt.Sprintf("%-8s %-5s", d.Name, state)
		for _, a := range addresses {
			if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil {
				line += " " + n.String()
			}
		}
		fmt.Fprintln(out, strings.TrimRight(line, " "))
	}
	if via, ok := gateway(); ok {
		fmt.Fprintln(out, "default via", via)
	}
	return nil
}

// gateway finds the default route (rtnetlink(7)).
func gateway() (via net.IP, ok bool) {
	table, err := syscall.NetlinkRIB(unix.RTM_GETROUTE, unix.AF_INET)
	if err != nil {
		return nil, false
	}
	messages, err := syscall.ParseNetlinkMessage(table)
	if err != nil {
		return nil, false
	}
	for i, m := range messages {
		if m.Header.Type != unix.RTM_NEWROUTE || len(m.Data) < unix.SizeofRtMsg || m.Data[1] != 0 { // rtm_dst_len
			continue
		}
		attributes, err := syscall.ParseNetlinkRouteAttr(&messages[i])
		if err != nil {
			continue
		}
		for _, a := range attributes {
			if a.Attr.Type == unix.RTA_GATEWAY && len(a.Value) == 4 {
				return net.IP(a.Value), true
			}
		}
	}
	return nil, false
}

// askWorld calls an address and returns what is said there.
func askWorld(address string) (string, error) {
	c, err := net.DialTimeout("tcp4", address, 1500*time.Millisecond)
	if err == nil {
		defer c.Close()
		c.SetDeadline(time.Now().Add(5 * time.Second))
		var said []byte
		if said, err = io.ReadAll(c); err == nil {
			return strings.TrimSpace(string(said)), nil
		}
	}
	if e, ok := err.(net.Error); ok && e.Timeout() {
		err = errors.New("no answer")
	}
	return "", err
}

// errText is what the C library says of an error, as programs in the box do.
func errText(err error) string {
	for e := err; e != nil; {
		if errno, ok := e.(unix.Errno); ok {
			text := errno.Error()
			return strings.ToUpper(text[:1]) + text[1:] + " (" + unix.ErrnoName(errno) + ")"
		}
		u, ok := e.(interface{ Unwrap() error })
		if !ok {
			break
		}
		e = u.Unwrap()
	}
	return err.Error()
}
