package docker

import (
	"maps"

	"glassbox/volume"
)

// Volume is a volume (types/volume.Volume).
type Volume struct {
	CreatedAt  string `json:",omitempty"` // RFC 3339, seconds
	Driver     string
	Labels     map[string]string // null if there are none
	Mountpoint string
	Name       string
	Options    map[string]string // null if there are none
	Scope      string
	Status     map[string]any `json:",omitempty"`
	UsageData  *UsageData     `json:",omitempty"` // in `system df` only, as it takes long to find out
}

// UsageData is how much a volume holds, and how many containers were made with it; -1 is not known.
type UsageData struct {
	RefCount int64
	Size     int64 // bytes
}

// DescribeVolume describes a volume whose files are in a directory.
func DescribeVolume(v *volume.Volume, data string) Volume {
	return Volume{
		CreatedAt: v.Created.UTC().Format("2006-01-02T15:04:05Z07:00"), Driver: v.Driver, Labels: maps.Clone(v.Labels), Mountpoint: data,
		Name: v.Name, Options: maps.Clone(v.Options), Scope: "local",
	}
}
