package engine

import (
	"context"

	"glassbox/docker"
	"glassbox/image"
)

// DiskUsage is what takes space below Root.
type DiskUsage struct {
	Images     []ImageUsage
	Layers     int64 // bytes of all layers, each once
	UsedLayers int64 // of those of images that containers are made from
	Containers []docker.Summary
	Volumes    []VolumeUse
}

// VolumeUse is a volume with what it takes.
type VolumeUse struct {
	Name  string
	Links int // containers that use it
	Bytes int64
}

// ImageUsage is an image with what it takes.
type ImageUsage struct {
	*image.Image
	Shared     int64 // bytes of layers that other images have, too
	Containers int   // made from it
}

// DiskUsage reads what images, containers and volumes take, which takes as long as reading all directories of these two.
func (e *Engine) DiskUsage(ctx context.Context) (*DiskUsage, error) {
	out := &DiskUsage{}
	var err error
	if out.Containers, err = e.List(ctx, ListOptions{All: true, Size: true}); err != nil {
		return nil, err
	}
	list, err := e.images.List()
	if err != nil {
		return nil, err
	}
	users := map[string]int{}
	for _, c := range out.Containers {
		users[c.ImageID]++
	}
	owners := map[string]int{} // of a layer, by its directory: images
	used := map[string]bool{}
	sizes := map[string]int64{}
	for _, img := range list {
		for _, l := range img.Layers {
			// Layers that several images have are on the disk once.
			if _, known := sizes[l.Dir]; !known {
				out.Layers += l.Size
			}
			sizes[l.Dir] = l.Size
			owners[l.Dir]++
			if users[img.ID] > 0 && !used[l.Dir] {
				used[l.Dir] = true
				out.UsedLayers += l.Size
			}
		}
	}
	for _, img := range list {
		u := ImageUsage{Image: img, Containers: users[img.ID]}
		for _, l := range img.Layers {
			if owners[l.Dir] > 1 {
				u.Shared += l.Size
			}
		}
		out.Images = append(out.Images, u)
	}
	volumes, err := e.Volumes(ctx, nil)
	if err != nil {
		return nil, err
	}
	e.VolumeUsage(ctx, volumes)
	for _, v := range volumes {
		if v.UsageData != nil {
			out.Volumes = append(out.Volumes, VolumeUse{v.Name, int(max(v.UsageData.RefCount, 0)), max(v.UsageData.Size, 0)})
		}
	}
	return out, ctx.Err()
}
