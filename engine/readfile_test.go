package engine

import (
	"os"
	"path/filepath"
	"testing"

	"glassbox/container"
	"glassbox/image"
	"glassbox/test/hostile"
)

// TestReadFileHostile reads /etc/passwd where a container, or the author of an image, has put something else: in the writable layer, in
// a layer of the image and in a directory given with --rootfs. It counts as absent, at once; the layer beneath doesn't show through.
func TestReadFileHostile(t *testing.T) {
	const beneath = "root:x:0:0::/beneath:/bin/sh\n"
	hostile.Each(t, "tree/etc/passwd", func(t *testing.T, root string) {
		tree := filepath.Join(root, "tree")
		store := filepath.Join(root, "store")
		e := &Engine{cfg: Config{Root: store}}
		ok := func(err error) {
			if err != nil {
				t.Error(err)
			}
		}
		ok(os.MkdirAll(filepath.Join(store, "layers/one/etc"), 0o755))
		ok(os.WriteFile(filepath.Join(store, "layers/one/etc/passwd"), []byte(beneath), 0o644))
		ok(os.Symlink(tree, filepath.Join(root, "link")))
		layers := []image.Layer{{Dir: "layers/one"}}
		c := &container.Container{ID: "c"}
		if got := e.readFile(c, &image.Image{Layers: layers}, "/etc/passwd"); string(got) != beneath {
			t.Errorf("without a writable layer: got %q, want the image's", got)
		}
		for _, options := range []container.Rootfs{{Dir: tree}, {Dir: tree, Overlay: true}, {Dir: filepath.Join(root, "link"), Overlay: true}} {
			if got := e.readFile(&container.Container{ID: "c", Config: container.Config{Rootfs: &options}}, nil, "/etc/passwd"); got != nil {
				t.Errorf("%+v: got %d bytes, %.30q, want none", options, len(got), got)
			}
		}
		ok(os.MkdirAll(e.dir("c"), 0o700))
		ok(os.Rename(tree, filepath.Join(e.dir("c"), "upper")))
		if got := e.readFile(c, &image.Image{Layers: layers}, "/etc/passwd"); got != nil {
			t.Errorf("in the writable layer: got %d bytes, %.30q, want none", len(got), got)
		}
		ok(os.Rename(filepath.Join(e.dir("c"), "upper"), filepath.Join(store, "layers/two")))
		img := &image.Image{Layers: append(layers, image.Layer{Dir: "layers/two"})}
		if got := e.readFile(c, img, "/etc/passwd"); got != nil {
			t.Errorf("in a layer: got %d bytes, %.30q, want none", len(got), got)
		}
	})
}
