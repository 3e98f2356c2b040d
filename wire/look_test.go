package wire

import (
	"net/netip"
	"testing"

	"glassbox/plan"
)

func TestPortOfElement(t *testing.T) {
	for _, want := range []plan.PortRule{
		{Proto: "tcp", HostPort: 8080, ContainerIP: "172.30.0.2", ContainerPort: 80},
		{Proto: "udp", HostIP: "127.0.0.1", HostPort: 65535, ContainerIP: "10.0.0.1", ContainerPort: 1},
	} {
		e, err := portElement(want)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := e.port(); !ok || got != want {
			t.Errorf("got %+v, %v, want %+v", got, ok, want)
		}
	}
	for _, e := range []element{
		{}, {set: MapOn, key: []byte{1, 2, 3}}, {key: []byte{6, 0, 0, 0, 1}, value: make([]byte, 8)}, {key: make([]byte, 8), value: []byte{1}},
	} {
		if got, ok := e.port(); ok {
			t.Errorf("element %+v: got %+v, want nothing", e, got)
		}
	}
}

// expressionsOf are the expressions that a line of nft(8) is compiled to.
func expressionsOf(t *testing.T, line string) []byte {
	t.Helper()
	var r request
	if err := r.compile("glassbox0", []string{line}); err != nil {
		t.Fatal(err)
	}
	r.finish()
	var out []byte
	err := parse(r.b, func(m message) error {
		rule, _ := parseRule(m.body)
		out = rule.expressions
		return nil
	})
	if err != nil || len(out) == 0 {
		t.Fatalf("%s: %d bytes, %v", line, len(out), err)
	}
	return out
}

// TestSameList: a rule is the same as itself, and as no other of the bridge's rules but its copies in another chain.
func TestSameList(t *testing.T) {
	var list []string
	for _, line := range rules(t) {
		if w := tokens(line); w[1] == "rule" {
			list = append(list, line)
		}
	}
	for i, a := range list {
		for j, b := range list {
			same := i == j || tokensAfter(a) == tokensAfter(b)
			if got := sameList(expressionsOf(t, a), expressionsOf(t, b)); got != same {
				t.Errorf("%q and %q: got %v, want %v", a, b, got, same)
			}
		}
	}
	rule := RuleState{expressions: expressionsOf(t, "add rule ip glassbox0 c ip saddr 192.0.2.7/32 drop")}
	if !rule.Names(netip.MustParseAddr("192.0.2.7")) || rule.Names(netip.MustParseAddr("192.0.2.8")) {
		t.Error("which address a rule names")
	}
}

// tokensAfter is a rule without table and chain.
func tokensAfter(line string) string {
	out := ""
	for _, w := range tokens(line)[5:] {
		out += w + " "
	}
	return out
}
