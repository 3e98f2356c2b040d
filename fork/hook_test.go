package fork

import (
	"runtime"
	"strings"
	"testing"

	"glassbox/plan"
)

// TestHookThatTalks: what a hook writes is told by its beginning, and takes no more memory than that.
func TestHookThatTalks(t *testing.T) {
	const written = 64 << 20
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := RunHook(&plan.Hook{
		Path: "/bin/sh", Args: []string{"sh", "-c", "yes said | head -c 67108864 >&2; exit 3"}, Env: []string{"PATH=/usr/bin:/bin"},
	}, nil)
	runtime.ReadMemStats(&after)
	if err == nil || !strings.HasPrefix(err.Error(), "exit status 3: said\nsaid") || len(err.Error()) > 1100 {
		t.Errorf("got %.200v", err)
	}
	if got := after.TotalAlloc - before.TotalAlloc; got > written/2 {
		t.Errorf("%d bytes were allocated for %d that the hook wrote", got, written)
	}
}
