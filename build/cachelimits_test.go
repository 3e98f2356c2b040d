package build

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestReadCacheLimits(t *testing.T) {
	for text, want := range map[string][]Prune{
		"":                                    nil,
		"until=168h":                          {{KeepDuration: 168 * time.Hour}},
		"max-used-space=20g, until=1h":        {{KeepDuration: time.Hour}, {MaxUsedSpace: 20 << 30}},
		"min-free-space=1m,reserved-space=2k": {{MinFreeSpace: 1 << 20, ReservedSpace: 2 << 10}},
	} {
		got, err := ReadCacheLimits(text)
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: -want +got\n%s", text, diff)
		}
	}
	for _, text := range []string{"until", "until=x", "until=-1h", "until=0", "max-used-space=lots", "size=1g", "until=1h,,"} {
		if _, err := ReadCacheLimits(text); err == nil || !strings.Contains(err.Error(), CacheLimits) {
			t.Errorf("%q: error %v, want one that names %s", text, err, CacheLimits)
		}
	}
}
