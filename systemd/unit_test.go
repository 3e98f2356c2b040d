package systemd

import (
	"bufio"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"glassbox/plan"
)

// peer plays systemd behind a bus: it notes the calls and answers them.
type peer struct {
	t      *testing.T
	mu     sync.Mutex
	calls  []string                                   // methods with the strings of their arguments
	answer func(n int, m *message) (reply []*message) // to the n-th call of a method of the manager
	ok     string                                     // in place of the answer to AUTH
}

func (p *peer) listen() {
	dir := p.t.TempDir()
	p.t.Setenv("XDG_RUNTIME_DIR", dir)
	p.t.Setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path="+dir+"/nobody")
	l, err := net.Listen("unix", filepath.Join(dir, "bus"))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(c)
		}
	}()
}

func (p *peer) serve(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	for _, step := range [][2]string{{"\x00AUTH EXTERNAL\r\n", "DATA\r\n"}, {"DATA\r\n", "OK 0123\r\n"}, {"BEGIN\r\n", ""}} {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		if line != step[0] {
			p.t.Errorf("authentication: %q, want %q", line, step[0])
		}
		if p.ok != "" {
			io.WriteString(c, p.ok)
			return
		}
		io.WriteString(c, step[1])
	}
	n := 0
	for {
		head := make([]byte, fixedHeader)
		if _, err := io.ReadFull(in, head); err != nil {
			return
		}
		size, err := length(head)
		if err != nil {
			p.t.Error(err)
			return
		}
		b := append(head, make([]byte, size-len(head))...)
		if _, err := io.ReadFull(in, b[fixedHeader:]); err != nil {
			return
		}
		m, err := decode(b)
		if err != nil {
			p.t.Error(err)
			return
		}
		args, err := m.strings()
		if err != nil {
			p.t.Error(err)
		}
		p.mu.Lock()
		p.calls = append(p.calls, strings.TrimSpace(m.member+" "+strings.Join(args, " ")))
		p.mu.Unlock()
		replies := []*message{{kind: methodReturn}}
		if m.destination == name && m.member != "Subscribe" {
			replies = p.answer(n, m)
			n++
		}
		for _, r := range replies {
			if r == nil {
				return // closes the connection
			}
			if r.kind != signal {
				r.replySerial = m.serial
			}
			r.serial = 1
			c.Write(r.encode())
		}
	}
}

func text(values ...string) []byte {
	e := &encoder{}
	for _, v := range values {
		e.string(v)
	}
	return e.b
}

func jobReply() *message {
	return &message{kind: methodReturn, signature: "o", body: text("/job/7")}
}

func removed(job, result string) *message {
	e := &encoder{}
	e.uint32(7)
	for _, s := range []string{job, "x.scope", result} {
		e.string(s)
	}
	return &message{kind: signal, path: object, iface: manager, member: "JobRemoved", signature: "uoss", body: e.b}
}

func fails(name string) *message {
	return &message{kind: errorReply, errorName: "org.freedesktop." + name, signature: "s", body: text("because")}
}

func TestUnits(t *testing.T) {
	start := func() error { return Start(&plan.SystemdScope{Unit: "x.scope", User: true, Properties: all()}, 42) }
	stop := func() error { return Stop(&plan.SystemdStop{Unit: "x.scope", User: true}) }
	before := []string{
		"Hello",
		"AddMatch type='signal',sender='org.freedesktop.systemd1',interface='org.freedesktop.systemd1.Manager'," +
			"member='JobRemoved'",
		"Subscribe",
	}
	for _, c := range []struct {
		name    string
		do      func() error
		answers []*message // to each call, in order; signals and the end (nil) go with the answer before them
		calls   []string   // but those of before
		err     string     // a part of it
	}{
		{"start", start, []*message{jobReply(), removed("/job/7", "done")}, []string{"StartTransientUnit x.scope replace"}, ""},
		{
			"the job ends before the answer", start,
			[]*message{removed("/job/6", "failed"), removed("/job/7", "done"), jobReply()},
			[]string{"StartTransientUnit x.scope replace"},
			"",
		},
		{
			"another one's job", start,
			[]*message{jobReply(), removed("/job/8", "failed"), {kind: signal, member: "UnitNew"}, removed("/job/7", "done")},
			[]string{"StartTransientUnit x.scope replace"},
			"",
		},
		{
			"the job fails", start,
			[]*message{jobReply(), removed("/job/7", "failed"), {kind: methodReturn}},
			[]string{"StartTransientUnit x.scope replace", "ResetFailedUnit x.scope"},
			"start unit x.scope: failed",
		},
		{
			"a failed unit of the name", start,
			[]*message{fails("systemd1.UnitExists"), {kind: methodReturn}, jobReply(), removed("/job/7", "done")},
			[]string{"StartTransientUnit x.scope replace", "ResetFailedUnit x.scope", before[1], before[2], "StartTransientUnit x.scope replace"},
			"",
		},
		{
			"a unit of the name runs", start,
			[]*message{fails("systemd1.UnitExists"), {kind: methodReturn}, fails("systemd1.UnitExists")},
			[]string{"StartTransientUnit x.scope replace", "ResetFailedUnit x.scope", before[1], before[2], "StartTransientUnit x.scope replace"},
			"UnitExists: because",
		},
		{"not allowed", start, []*message{fails("DBus.Error.AccessDenied")}, []string{"StartTransientUnit x.scope replace"}, "only root may ask"},
		{"the peer goes away", start, []*message{nil}, []string{"StartTransientUnit x.scope replace"}, "closed the connection"},
		{
			"the peer goes away while the job runs", start,
			[]*message{jobReply(), {kind: signal, member: "UnitNew"}, nil, fails("systemd1.NoSuchUnit")},
			slices.Concat([]string{"StartTransientUnit x.scope replace"}, before, []string{"StopUnit x.scope replace"}), "waiting for the job",
		},
		{"no job", start, []*message{{kind: methodReturn}}, []string{"StartTransientUnit x.scope replace"}, "an answer of 0 strings"},
		{
			"stop", stop,
			[]*message{jobReply(), removed("/job/7", "done"), fails("systemd1.NoSuchUnit")},
			[]string{"StopUnit x.scope replace", "ResetFailedUnit x.scope"},
			"",
		},
		{"stop nothing", stop, []*message{fails("systemd1.NoSuchUnit")}, []string{"StopUnit x.scope replace"}, ""},
		{
			"stop fails", stop,
			[]*message{fails("systemd1.Other"), {kind: methodReturn}},
			[]string{"StopUnit x.scope replace", "ResetFailedUnit x.scope"},
			"StopUnit: systemd1.Other: because",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			left := c.answers
			p := &peer{t: t}
			p.answer = func(_ int, _ *message) (out []*message) {
				for answered := false; len(left) > 0; left = left[1:] {
					isSignal := left[0] == nil || left[0].kind == signal
					if answered && !isSignal {
						break
					}
					answered = answered || !isSignal
					out = append(out, left[0])
				}
				return out
			}
			p.listen()
			err := c.do()
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("error %v, want %q", err, c.err)
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			if want := append(slices.Clone(before), c.calls...); !slices.Equal(p.calls, want) {
				t.Errorf("calls %q, want %q", p.calls, want)
			}
		})
	}
}

func TestSetAttachProbe(t *testing.T) {
	p := &peer{t: t, answer: func(_ int, m *message) []*message {
		if m.member != "Get" {
			return []*message{{kind: methodReturn}}
		}
		args, _ := m.strings()
		e := &encoder{}
		e.signature("s")
		e.string(map[string]string{"Version": "252.1", "ControlGroup": "/user.slice/x"}[args[1]])
		return []*message{{kind: methodReturn, signature: "v", body: e.b}}
	}}
	p.listen()
	if err := Set(&plan.SystemdSet{Unit: "x.scope", User: true, Properties: all()}); err != nil {
		t.Error(err)
	}
	if err := Attach(&plan.SystemdAttach{Unit: "x.scope", User: true}, 7); err != nil {
		t.Error(err)
	}
	if f, err := Probe(true); err != nil || *f != (Facts{User: true, Version: 252, Cgroup: "/user.slice/x"}) {
		t.Errorf("Probe: %+v, %v", f, err)
	}
	want := "Hello, SetUnitProperties x.scope, Hello, AttachProcessesToUnit x.scope, Hello, Get org.freedesktop.systemd1.Manager " +
		"Version, Get org.freedesktop.systemd1.Manager ControlGroup"
	if got := strings.Join(p.calls, ", "); got != want {
		t.Errorf("calls: %s\nwant:  %s", got, want)
	}
	err := Set(&plan.SystemdSet{Unit: "x.scope", User: true, Properties: []plan.SystemdProperty{{Name: "A", Type: "t", Value: []string{"x"}}}})
	if err == nil || !strings.Contains(err.Error(), "property A") {
		t.Errorf("a bad property: %v", err)
	}
}

func TestNoManager(t *testing.T) {
	p := &peer{t: t, ok: "REJECTED EXTERNAL\r\n"}
	p.listen()
	_, err := Probe(true)
	for _, want := range []string{"/nobody: no such file", `no access: "REJECTED EXTERNAL"`, "loginctl enable-linger"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
}
