package supervise

import (
	"os"
	"testing"

	"glassbox/test/plain"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "gzip" { // a log compresses its files by the program that it is in
		os.Exit(Gzip())
	}
	plain.Main(m)
}
