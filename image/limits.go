package image

// Limits bound what one layer may cost before its digest is known to be right. A zero field takes the default.
type Limits struct {
	Bytes      int64  // unpacked bytes of one layer, archive included (default 64 GiB)
	Entries    int    // entries in one layer: inodes (default 1,500,000)
	Ratio      int64  // unpacked per compressed byte, once RatioFloor bytes are out (default 300; gzip cannot exceed 1032)
	RatioFloor int64  // below this many unpacked bytes the ratio is not looked at (default 1 GiB)
	ZstdWindow uint64 // largest zstd window, memory of the decoder (default 128 MiB, what the zstd program allows)
	Path       int    // bytes of a path or link target (default 4096, PATH_MAX)
	Depth      int    // components of a path (default 256); one descriptor is held for each
	Notes      int64  // memory for the directories and whiteouts of one layer (default 64 MiB: some 400,000 of them)
	Xattr      int    // bytes of extended attributes of one entry (default 128 KiB)
	Manifest   int64  // bytes of a manifest or index (default 4 MiB, what registries accept)
	Config     int64  // bytes of an image config (default 8 MiB)
	Layers     int    // layers of an image (default 500, what overlayfs stacks)
}

func (l Limits) withDefaults() Limits {
	def(&l.Bytes, 64<<30)
	def(&l.Entries, 1_500_000)
	def(&l.Ratio, 300)
	def(&l.RatioFloor, 1<<30)
	def(&l.ZstdWindow, 128<<20)
	def(&l.Path, 4096)
	def(&l.Depth, 256)
	def(&l.Notes, 64<<20)
	def(&l.Xattr, 128<<10)
	def(&l.Manifest, 4<<20)
	def(&l.Config, 8<<20)
	def(&l.Layers, 500)
	return l
}

func def[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}
