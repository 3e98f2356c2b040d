package wire

import (
	"testing"

	"glassbox/test/plain"
)

func TestMain(m *testing.M) { plain.Main(m) }
