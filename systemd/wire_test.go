package systemd

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"glassbox/plan"
)

// transient is a call of StartTransientUnit as another implementation of D-Bus (godbus) wrote it.
const transient = "6c01000190010000000000005e00000001016f00190000002f6f72672f667265656465736b746f702f73797374656d643100000000000000030173" +
	"001200000053746172745472616e7369656e74556e697400000000000008016700107373612873762961287361287376292900000007000000782e" +
	"73636f706500070000007265706c616365006a0100000000000005000000536c6963650001730000000009000000612d622e736c69636500000008" +
	"00000044656c6567617465000162000100000000000000040000005049447300026175000000000800000007000000ffffffff0000000009000000" +
	"4d656d6f72794d6178000174000000000000000000000000000100000b000000416c6c6f7765644350557300026179000200000003800000000000" +
	"00010000004e00016900000000feffffff01000000580001780000000000000000fdffffffffffffff010000004400016400000000000000000000" +
	"00000000f83f050000004166746572000261730000000f000000010000006100000002000000626300000000000005000000456d70747900026174" +
	"00000000000000000000000b000000446576696365416c6c6f7700056128737329000032000000000000000d0000002f6465762f636861722f313a" +
	"330000000300000072776d000000000006000000636861722d2a0000010000006d00000000000000"

func all() []plan.SystemdProperty {
	return []plan.SystemdProperty{
		{Name: "Slice", Type: "s", Value: []string{"a-b.slice"}},
		{Name: "Delegate", Type: "b", Value: []string{"true"}},
		{Name: "PIDs", Type: "au", Value: []string{"7", "4294967295"}},
		{Name: "MemoryMax", Type: "t", Value: []string{"1099511627776"}},
		{Name: "AllowedCPUs", Type: "ay", Value: []string{"3", "128"}},
		{Name: "N", Type: "i", Value: []string{"-2"}},
		{Name: "X", Type: "x", Value: []string{"-3"}},
		{Name: "D", Type: "d", Value: []string{"1.5"}},
		{Name: "After", Type: "as", Value: []string{"a", "bc"}},
		{Name: "Empty", Type: "at"},
		{Name: "DeviceAllow", Type: "a(ss)", Value: []string{"/dev/char/1:3", "rwm", "char-*", "m"}},
	}
}

func TestEncode(t *testing.T) {
	e := &encoder{}
	e.string("x.scope")
	e.string("replace")
	e.properties(all())
	e.array(8, func() {})
	if e.err != nil {
		t.Fatal(e.err)
	}
	m := &message{kind: methodCall, path: object, member: "StartTransientUnit", signature: "ssa(sv)a(sa(sv))", body: e.b}
	want, err := hex.DecodeString(transient)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(hex.Dump(want), hex.Dump(m.encode())); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	got, err := decode(want)
	if err != nil {
		t.Fatal(err)
	}
	if got.path != m.path || got.member != m.member || got.signature != m.signature || cmp.Diff(m.body, got.body) != "" {
		t.Errorf("decoded %+v, want %+v", got, m)
	}
	if s, err := got.strings(); strings.Join(s, " ") != "x.scope replace" || err != nil {
		t.Errorf("strings: %q, %v", s, err)
	}
}

func TestEncodeErrors(t *testing.T) {
	for _, p := range []plan.SystemdProperty{
		{Name: "A", Type: "t", Value: []string{"-1"}},
		{Name: "A", Type: "t"},
		{Name: "A", Type: "t", Value: []string{"1", "2"}},
		{Name: "A", Type: "b", Value: []string{"maybe"}},
		{Name: "A", Type: "ay", Value: []string{"256"}},
		{Name: "A", Type: "a(ss)", Value: []string{"x"}},
		{Name: "A", Type: "a(st)", Value: []string{"x", "1"}},
		{Name: "A", Type: "q", Value: []string{"1"}},
		{Name: "A", Type: "s", Value: []string{"a\x00b"}},
		{Name: "A", Type: "", Value: []string{"1"}},
	} {
		e := &encoder{}
		e.properties([]plan.SystemdProperty{p})
		if e.err == nil || !strings.HasPrefix(e.err.Error(), "property A: ") {
			t.Errorf("%+v: error %v", p, e.err)
		}
	}
}

// Header fields that nobody knows, of any type, are read over.
func TestDecodeUnknownFields(t *testing.T) {
	e := &encoder{b: []byte{'l', signal, 0, 1}}
	e.uint32(0)
	e.uint32(9)
	e.array(8, func() {
		for _, f := range []struct {
			sig   string
			value func()
		}{
			{"(ya{sv}x)", func() {
				e.align(8)
				e.byte(1)
				e.array(8, func() {
					e.align(8)
					e.string("k")
					e.signature("ai")
					e.array(4, func() { e.uint32(5) })
				})
				e.uint64(7)
			}},
			{"v", func() { e.signature("g"); e.signature("a{sv}") }},
			{"aas", func() { e.array(4, func() { e.array(4, func() { e.string("x") }) }) }},
			{"q", func() { e.align(2); e.b = append(e.b, 1, 0) }},
			{"h", func() { e.uint32(0) }},
		} {
			e.align(8)
			e.byte(77)
			e.signature(f.sig)
			f.value()
		}
		e.align(8)
		e.byte(fieldMember)
		e.signature("s")
		e.string("JobRemoved")
	})
	e.align(8)
	m, err := decode(e.b)
	if err != nil || m.member != "JobRemoved" || m.serial != 9 {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestVersionNumber(t *testing.T) {
	for s, want := range map[string]int{"252.39-1~deb12u1": 252, "v245": 245, "255-rc1": 255, "260": 260, "": 0, "x": 0} {
		if got := versionNumber(s); got != want {
			t.Errorf("versionNumber(%q) = %d, want %d", s, got, want)
		}
	}
}

func TestSocketOf(t *testing.T) {
	for s, want := range map[string]string{
		"unix:path=/run/user/1000/bus":           "/run/user/1000/bus",
		"tcp:host=x;unix:guid=7,path=/a%20b%2fc": "/a b/c",
		"unix:abstract=/tmp/dbus-x,guid=1":       "@/tmp/dbus-x",
		"autolaunch:":                            "",
		"":                                       "",
		"unix:path=":                             "",
		"unix:path=%":                            "%",
	} {
		if got := socketOf(s); got != want {
			t.Errorf("socketOf(%q) = %q, want %q", s, got, want)
		}
	}
}

// What a peer sends can be anything.
func FuzzDecode(f *testing.F) {
	b, _ := hex.DecodeString(transient)
	f.Add(b)
	e := &encoder{}
	e.signature("s")
	e.string("252")
	f.Add((&message{kind: methodReturn, serial: 3, replySerial: 2, signature: "v", body: e.b}).encode())
	f.Add((&message{kind: errorReply, replySerial: 2, errorName: "org.x.Y"}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decode(b)
		if err != nil {
			return
		}
		m.strings()
		again, err := decode(m.encode())
		if err != nil {
			if strings.ContainsRune(m.path+m.iface+m.member+m.errorName+m.destination+m.signature, 0) || len(m.signature) > 255 {
				return
			}
			t.Fatalf("%v from the encoding of %+v", err, m)
		}
		if again.member != m.member || again.path != m.path || again.replySerial != m.replySerial || string(again.body) != string(m.body) {
			t.Errorf("%+v became %+v", m, again)
		}
	})
}
