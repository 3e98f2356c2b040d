package main

import (
	"time"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/cmd/buildkitd/config"
	"github.com/moby/buildkit/util/disk"
)

// gcPolicy is BuildKit's own: what can be had again easily goes after two days when there is more than 512 MB of it, everything after 60
// days, and the whole keeps within a part of the disk.
func gcPolicy(root string) []client.PruneInfo {
	stat, err := disk.GetDiskStat(root)
	if err != nil {
		stat = disk.DiskStat{}
	}
	var out []client.PruneInfo
	for _, rule := range config.DefaultGCPolicy(config.GCConfig{}, stat) {
		out = append(out, client.PruneInfo{
			Filter: rule.Filters, All: rule.All, KeepDuration: time.Duration(rule.KeepDuration.Duration),
			ReservedSpace: rule.ReservedSpace.AsBytes(stat), MaxUsedSpace: rule.MaxUsedSpace.AsBytes(stat),
			MinFreeSpace: rule.MinFreeSpace.AsBytes(stat),
		})
	}
	return out
}
