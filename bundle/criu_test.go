package bundle

import (
	"slices"
	"testing"
)

func TestErrorLines(t *testing.T) {
	log := `(00.006144) Error (criu/tun.c:85): tun: Unable to create tun: Operation not permitted
(00.008860) Warn  (criu/kerndat.c:1642): CRIU was built without libnftables support
(00.103690)      1: Error (criu/namespaces.c:1407): uns: send req error: Invalid argument
Error: ipv4: Address already assigned.
`
	want := []string{"tun: Unable to create tun: Operation not permitted", "uns: send req error: Invalid argument"}
	if got := errorLines([]byte(log)); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := errorLines(nil); len(got) != 0 {
		t.Errorf("got %q of an empty log", got)
	}
}
