package api

import (
	"slices"

	"glassbox/build"
	"glassbox/engine"
)

// usage is what takes space of one kind (types/container.DiskUsage and others).
type usage struct {
	ActiveCount int64 `json:",omitempty"`
	Items       []any `json:",omitempty"`
	Reclaimable int64 `json:",omitempty"`
	TotalCount  int64 `json:",omitempty"`
	TotalSize   int64 `json:",omitempty"`
}

// diskUsage answers GET /system/df.
func (q *request) diskUsage() error {
	types := q.URL.Query()["type"]
	for _, t := range types {
		if !slices.Contains([]string{"container", "image", "volume", "build-cache"}, t) {
			return invalid("unknown object type: %s", t)
		}
	}
	want := func(t string) bool { return len(types) == 0 || slices.Contains(types, t) }
	use, err := q.s.engine.DiskUsage(q.Context())
	if err != nil {
		return err
	}
	volumes, err := q.s.engine.Volumes(q.Context(), nil)
	if err != nil {
		return err
	}
	q.s.engine.VolumeUsage(q.Context(), volumes)
	images, err := q.s.engine.ListImages(q.Context(), nil)
	if err != nil {
		return err
	}
	var img, ctr, vol usage
	img.TotalSize, img.Reclaimable = use.Layers, use.Layers-use.UsedLayers
	byID := map[string]engine.ImageUsage{}
	for _, i := range use.Images {
		byID[i.ID] = i
	}
	for _, i := range images {
		i.Containers, i.SharedSize = int64(byID[i.ID].Containers), byID[i.ID].Shared
		img.Items = append(img.Items, q.version.imageSummary(i))
		img.TotalCount++
		if i.Containers > 0 {
			img.ActiveCount++
		}
	}
	for _, c := range use.Containers {
		ctr.Items = append(ctr.Items, c)
		ctr.TotalCount++
		ctr.TotalSize += c.SizeRw
		if c.State == "running" || c.State == "paused" || c.State == "restarting" {
			ctr.ActiveCount++
		} else {
			ctr.Reclaimable += c.SizeRw
		}
	}
	for _, v := range volumes {
		vol.Items = append(vol.Items, v)
		vol.TotalCount++
		if u := v.UsageData; u != nil && u.Size > 0 {
			vol.TotalSize += u.Size
			if u.RefCount == 0 {
				vol.Reclaimable += u.Size
			}
		}
		if v.UsageData != nil && v.UsageData.RefCount > 0 {
			vol.ActiveCount++
		}
	}
	return q.json(q.version.diskUsage(img, ctr, vol, q.cacheUsage(want), want, q.bool("verbose")))
}

// cacheUsage is what the build cache takes.
func (q *request) cacheUsage(want func(string) bool) (out usage) {
	if !want("build-cache") {
		return out
	}
	records := q.s.buildCache(q.Context())
	for _, r := range records {
		out.Items = append(out.Items, r)
	}
	total, free, active := build.Sum(records)
	out.TotalCount, out.TotalSize, out.Reclaimable, out.ActiveCount = int64(len(records)), total, free, int64(active)
	return out
}

// legacyUsage is the answer until 1.52.
type legacyUsage struct {
	LayersSize  int64
	Images      []any
	Containers  []any
	Volumes     []any
	BuildCache  []any
	BuilderSize int64
}

// diskUsage is the answer in a version's shape: lists of all things, and since 1.52 numbers, with lists where they are asked for.
func (v version) diskUsage(img, ctr, vol, cache usage, want func(string) bool, verbose bool) any {
	list := func(kind string, u usage) []any {
		if !want(kind) {
			return nil
		}
		return append([]any{}, u.Items...)
	}
	old := legacyUsage{
		LayersSize: img.TotalSize, Images: list("image", img), Containers: list("container", ctr), Volumes: list("volume", vol),
		BuildCache: list("build-cache", cache), BuilderSize: cache.TotalSize,
	}
	if v < 52 {
		return old
	}
	out := map[string]any{}
	for kind, u := range map[string]usage{"image": img, "container": ctr, "volume": vol, "build-cache": cache} {
		if !want(kind) {
			continue
		}
		if !verbose {
			u.Items = nil
		}
		name := map[string]string{"image": "ImageUsage", "container": "ContainerUsage", "volume": "VolumeUsage", "build-cache": "BuildCacheUsage"}
		out[name[kind]] = u
	}
	if v == 52 && !verbose {
		out["LayersSize"], out["Images"], out["Containers"], out["Volumes"] = old.LayersSize, old.Images, old.Containers, old.Volumes
		out["BuildCache"] = old.BuildCache
	}
	return out
}
