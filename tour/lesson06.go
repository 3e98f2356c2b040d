package tour

import (
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

func overlay() Lesson {
	prepare := func(s *Stage) error {
		for _, dir := range []string{"second/etc", "upper", "work", "merged"} {
			if err := os.MkdirAll(filepath.Join(s.dir, dir), 0o755); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(s.dir, "second/etc/motd"), []byte("hello from the second layer\n"), 0o644); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(s.dir, "second/extra"), []byte("a file of the second layer\n"), 0o644)
	}
	return Lesson{
		Name: "overlay", Title: "Layers: an overlay file system", Minutes: 4,
		Shows: "An image is shared and never changes; a container writes all the same. Where do its changes go?",
		Intro: `Ten containers of one image don't need ten copies of its files. The image's layers are directories that nobody changes. ` +
			`An overlay file system (see the kernel's Documentation/filesystems/overlayfs.rst) lays them over one another and puts a ` +
			`writable directory on top: upper.`,
		Needs: func(s *Stage) string {
			if need := needImage(s); need != "" {
				return need
			}
			var st unix.Statfs_t
			if unix.Statfs(s.dir, &st) == nil && int64(st.Type) == unix.OVERLAYFS_SUPER_MAGIC {
				return "a directory for changes that isn't an overlay itself: give another disk or a tmpfs with --root"
			}
			return ""
		},
		Scenes: []Scene{
			{
				Title: "Two layers and an upper directory",
				Text: `The lower layer is the tour's image, with a greeting in /etc/motd. The layer on it brings another /etc/motd and a ` +
					`file /extra. The upper directory is empty.`,
				Prepare: prepare,
				Plan: func(s *Stage) (*plan.Plan, error) {
					o := &plan.Overlay{Dir: s.dir, Lower: []string{"second", "root"}, Upper: "upper", Work: "work", Target: filepath.Join(s.dir, "merged")}
					if s.user {
						o.Options = []string{"userxattr"}
					}
					body := []plan.Step{
						plumbing(&plan.Mount{Target: "/", Flags: []string{"rec", "private"}}),
						plumbing(&plan.OpenTree{Path: "/dev/null", Save: "null", Device: "c 1:3"}),
						child(o, "The layers, the topmost first, and what is written goes to upper. (work is for the file system itself.)"),
						child(&plan.PivotRoot{Root: o.Target}, "The stack becomes the root."),
						plumbing(&plan.MoveMount{From: "null", Target: "/dev/null", Create: "file"}),
					}
					return s.plan(recipe{namespaces: []string{"mount"}, why: "The child gets a list of mounts that it can change.", body: body}), nil
				},
				Question: &Question{
					Ask: "What does the box read from /etc/motd?",
					Choices: []string{
						"the greeting of the lower layer: it was there first", "that of the upper layer of the two",
						"both, one after the other",
					}, Answer: 1,
				},
				Looks: []Look{
					{
						Inside: "cat /etc/motd /extra", Outside: "cat {DIR}/root/etc/motd {DIR}/second/etc/motd",
						Want: all(inHas("hello from the second layer", "a file of"), inLacks("from the image")),
					},
					{
						Say: "Programs come from the lower layer. Nothing has been copied:", Inside: "ls /", Outside: "ls {DIR}/upper | wc -l",
						Want: outIs("0"),
					},
				},
				Because: `A name is looked up from the top down, and the first layer that has it wins. Directories are merged.`,
				Break: &Break{
					Text: `The same two layers the other way round.`,
					Change: changed(func(o *plan.Overlay) {
						o.Lower = slices.Clone(o.Lower)
						slices.Reverse(o.Lower)
					}),
					Looks: []Look{{
						Inside: "cat /etc/motd /extra", Outside: "cat {DIR}/root/etc/motd",
						Want: all(inHas("a file of the second layer"), inLacks("hello from the second layer")),
					}},
					Because: `The image's greeting covers the other one now; what only one layer has is there in any order. The order of the ` +
						`layers is part of an image: the config lists them from the bottom up.`,
				},
			},
			{
				Title: "Writing and removing",
				Text:  `Now the box changes the one file and removes the other. Both belong to the image.`,
				Question: &Question{
					Ask:     "What is in the image's layers after that?",
					Choices: []string{"the changed file, and no /extra", "what was there before", "the changed file; /extra can't be removed"}, Answer: 1,
				},
				Looks: []Look{
					{
						Inside: "echo changed >/etc/motd; rm /extra; cat /etc/motd; ls /extra", Outside: "cat {DIR}/second/etc/motd {DIR}/second/extra",
						Want: all(inHas("changed", "No such file"), outHas("hello from the second layer", "a file of the second layer")),
					},
					{
						Say: "And here is what the box has done:", Outside: "cat {DIR}/upper/etc/motd; ls -l {DIR}/upper",
						Want: outHas("changed", "c---------"),
					},
				},
				Because: `A file is copied up when it is opened for writing for the first time. What is removed gets a mark in upper that hides ` +
					`it, a "whiteout": a character device with the numbers 0, 0. Throw upper away, and the container is as good as new: that is ` +
					`all that "docker rm" does to its files.`,
				Break: &Break{
					Text:    `The same stack without an upper directory.`,
					Prepare: prepare,
					Change:  changed(func(o *plan.Overlay) { o.Upper, o.Work = "", "" }),
					Looks:   []Look{{Inside: "cat /etc/motd; echo changed >/etc/motd", Want: all(inHas("hello from the second layer", "Read-only"))}},
					Because: `Without a place to write to, the overlay is read-only. Mounting a layer itself as the root would work, and every ` +
						`change would be in the image, for all containers to come.`,
				},
			},
		},
		Remember: `An image is a stack of directories that stay as they are; a container is one more directory on top. Copying happens ` +
			`file by file, at the first write.`,
		Read: "overlayfs.rst of the kernel, mount(8); docs/images.md.",
	}
}
