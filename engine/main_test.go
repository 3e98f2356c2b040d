package engine

import (
	"os"
	"testing"

	"glassbox/supervise"
	"glassbox/test/plain"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "gzip" { // as glassbox-runtime does
		os.Exit(supervise.Gzip())
	}
	plain.Main(m)
}
