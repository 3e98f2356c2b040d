package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/cmd/buildkitd/config"
	"github.com/moby/buildkit/util/disk"

	"glassbox/build"
)

// gcPolicy is the administrator's (GLASSBOX_BUILD_CACHE), and BuildKit's own: what can be had again easily goes after two days when there
// is more than 512 MB of it, everything after 60 days, and the whole keeps within a part of the disk.
func gcPolicy(root string) ([]client.PruneInfo, error) {
	own, err := build.ReadCacheLimits(os.Getenv(build.CacheLimits))
	if err != nil {
		return nil, err
	}
	var out []client.PruneInfo
	for _, p := range own {
		out = append(out, client.PruneInfo{
			All: true, KeepDuration: p.KeepDuration, ReservedSpace: p.ReservedSpace, MaxUsedSpace: p.MaxUsedSpace, MinFreeSpace: p.MinFreeSpace,
		})
	}
	stat, err := disk.GetDiskStat(root)
	if err != nil {
		stat = disk.DiskStat{}
	}
	for _, rule := range config.DefaultGCPolicy(config.GCConfig{}, stat) {
		out = append(out, client.PruneInfo{
			Filter: rule.Filters, All: rule.All, KeepDuration: time.Duration(rule.KeepDuration.Duration),
			ReservedSpace: rule.ReservedSpace.AsBytes(stat), MaxUsedSpace: rule.MaxUsedSpace.AsBytes(stat),
			MinFreeSpace: rule.MinFreeSpace.AsBytes(stat),
		})
	}
	return out, nil
}

// collectEvery is how often the cache is looked through, as in a daemon of BuildKit's.
const collectEvery = time.Minute

// collect keeps the cache within its limits. BuildKit does so a second after a build, and a builder that is gone by then never would.
func (b *builder) collect(ctx context.Context) error {
	stamp := filepath.Join(b.dir(), "collected")
	if st, err := os.Stat(stamp); err == nil && time.Since(st.ModTime()) < collectEvery && time.Since(st.ModTime()) >= 0 {
		return nil
	}
	gone := make(chan client.UsageInfo)
	told := make(chan struct{})
	go func() {
		for range gone {
		}
		close(told)
	}()
	err := b.cache.Prune(ctx, gone, b.cache.GCPolicy()...)
	close(gone)
	<-told
	if err != nil {
		return fmt.Errorf("keep the build cache within its limits: %w", err)
	}
	return os.WriteFile(stamp, nil, 0o600)
}
