package bundle

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// criuSays plays criu: it reads one request, and for each of its messages that is a notification the reply to it.
func criuSays(t *testing.T, sock int, says []message, fd int) <-chan []message {
	t.Helper()
	heard := make(chan []message, 1)
	go func() {
		defer unix.Close(sock)
		var all []message
		defer func() { heard <- all }()
		buf := make([]byte, 4096)
		for _, m := range append([]message{nil}, says...) {
			var rights []byte
			if strings.Contains(string(m), "orphan-pts-master") {
				rights = unix.UnixRights(fd)
			}
			if m != nil && unix.Sendmsg(sock, m, rights, nil, 0) != nil {
				return
			}
			if m != nil && m[1] != reqNotify {
				return
			}
			n, err := unix.Read(sock, buf)
			if err != nil || n == 0 {
				return
			}
			all = append(all, slices.Clone(message(buf[:n])))
		}
	}()
	return heard
}

func notification(script string, pid int) message {
	var inner, m message
	inner.string(1, script)
	inner.number(2, uint64(pid))
	m.number(respType, reqNotify)
	m.number(respSuccess, 1)
	m.message(respNotify, inner)
	return m
}

// TestCall talks as criu does: notifications with a pid and with a terminal, an answer, and a refusal that ends the work.
func TestCall(t *testing.T) {
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var restored message
	restored.number(respType, reqRestore)
	restored.number(respSuccess, 1)
	refuse := errors.New("no such luck")
	for _, tt := range []struct {
		name    string
		says    []message
		refuse  string
		scripts []string
		err     error
	}{
		{
			"restore",
			[]message{notification("setup-namespaces", 300), notification("orphan-pts-master", 0), restored},
			"",
			[]string{"setup-namespaces 300", "orphan-pts-master 0"},
			nil,
		},
		{
			"refused",
			[]message{notification("setup-namespaces", 300), notification("post-restore", 300), restored},
			"setup-namespaces",
			[]string{"setup-namespaces 300"},
			refuse,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ours, theirs, err := sockets()
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(ours)
			heard := criuSays(t, theirs, tt.says, int(file.Fd()))
			var scripts []string
			c := call{sock: ours, notify: func(script string, pid int, fds []int) error {
				scripts = append(scripts, script+" "+strconv.Itoa(pid))
				if script == "orphan-pts-master" {
					var a, b unix.Stat_t
					if len(fds) != 1 || unix.Fstat(fds[0], &a) != nil || unix.Fstat(int(file.Fd()), &b) != nil || a.Ino != b.Ino {
						t.Errorf("got descriptors %v, want the one that was sent", fds)
					}
				}
				for _, fd := range fds {
					unix.Close(fd)
				}
				if script == tt.refuse {
					return refuse
				}
				return nil
			}}
			var opts message
			opts.string(optRoot, "/r")
			a, err := c.request(reqRestore, opts)
			if !errors.Is(err, tt.err) || err == nil && !a.success {
				t.Errorf("got %+v, %v, want %v", a, err, tt.err)
			}
			if !slices.Equal(scripts, tt.scripts) {
				t.Errorf("got notifications %q, want %q", scripts, tt.scripts)
			}
			all := <-heard
			var want message
			want.number(reqType, reqRestore)
			want.message(reqOpts, opts)
			if len(all) == 0 || !slices.Equal(all[0], want) {
				t.Fatalf("criu heard %x, want first %x", all, want)
			}
			for i, m := range all[1:] {
				yes := false
				m.each(func(field int, n uint64, _ []byte) { yes = yes || field == reqNotifySuccess && n != 0 })
				if yes != (tt.refuse == "") {
					t.Errorf("reply %d: got %t, want %t", i, yes, tt.refuse == "")
				}
			}
		})
	}
	ours, theirs, _ := sockets()
	unix.Close(theirs)
	if _, err := (&call{sock: ours}).request(reqDump, nil); err == nil {
		t.Error("a criu that is gone has answered")
	}
	unix.Close(ours)
}

// TestMessage reads what isn't a message.
func TestMessage(t *testing.T) {
	var m message
	m.number(1, 1<<40)
	m.string(200, "text")
	var got []string
	err := m.each(func(field int, n uint64, b []byte) {
		if field == 1 && n == 1<<40 || field == 200 && string(b) == "text" {
			got = append(got, "ok")
		}
	})
	if err != nil || len(got) != 2 {
		t.Errorf("got %v, %v", got, err)
	}
	for _, broken := range []message{{8}, {10, 5, 'a'}, {9, 0}, {0x80}} {
		if err := broken.each(func(int, uint64, []byte) {}); err == nil {
			t.Errorf("% x: no error", broken)
		}
	}
}

// TestShare lets a group read images, and takes it back.
func TestShare(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files to any group")
	}
	parent, dir := t.TempDir(), t.TempDir()
	files := []string{dir, dir + "/core-1.img", parent, parent + "/pages-1.img"}
	for _, f := range []string{files[1], files[3]} {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	os.Chmod(dir, 0o700)
	os.Chmod(parent, 0o700)
	os.Symlink(parent, dir+"/parent")
	modes := func() (list []uint32) {
		for _, f := range files {
			var st unix.Stat_t
			if err := unix.Stat(f, &st); err != nil {
				t.Fatal(err)
			}
			list = append(list, st.Mode&0o777, st.Gid)
		}
		return list
	}
	before := modes()
	undo, err := (&CRIUFlags{ImagePath: dir}).share(100000)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := modes(), []uint32{0o750, 100000, 0o640, 100000, 0o750, 100000, 0o640, 100000}; !slices.Equal(got, want) {
		t.Errorf("got %o, want %o", got, want)
	}
	undo()
	if got := modes(); !slices.Equal(got, before) {
		t.Errorf("afterwards: got %o, want %o", got, before)
	}
}
