package api

import (
	"slices"
	"strings"

	moby "github.com/moby/moby/api/types/container"

	"glassbox/container"
	"glassbox/spec"
)

// chosenPaths are what the container doesn't see, and what it can't write to. Null is what is usual.
func chosenPaths(w *container.Words, h *moby.HostConfig) error {
	if h.MaskedPaths != nil && h.ReadonlyPaths != nil && len(h.MaskedPaths)+len(h.ReadonlyPaths) == 0 {
		// As Docker's command line sends systempaths=unconfined.
		if !slices.Contains(w.SecurityOpt, "systempaths=unconfined") {
			list(w, "security-opt", &w.SecurityOpt, []string{"systempaths=unconfined"})
		}
		return nil
	}
	for _, paths := range []struct {
		got       []string
		what, opt string
		usual     func(*container.Config) []string
	}{
		{h.MaskedPaths, "MaskedPaths", "masked-paths", spec.MaskedPaths},
		{h.ReadonlyPaths, "ReadonlyPaths", "readonly-paths", spec.ReadonlyPaths},
	} {
		if paths.got == nil || slices.Equal(paths.got, paths.usual(&container.Config{})) {
			continue
		}
		for _, p := range paths.got {
			if p == "" || strings.Contains(p, ":") {
				return invalid("HostConfig.%s: %q: want absolute paths without a colon", paths.what, p)
			}
		}
		list(w, "security-opt", &w.SecurityOpt, []string{paths.opt + "=" + strings.Join(paths.got, ":")})
	}
	return nil
}
