package tour

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"glassbox/plan"
)

func images() Lesson {
	const run = "--rm --network none --hostname box --memory 64m --cgroup-parent {NAME} -e PATH tour "
	return Lesson{
		Name: "image", Title: "An image taken apart, and the whole plan", Minutes: 5,
		Shows: "What an image is made of, and the complete list of what glassbox asks of the kernel for one container.",
		Intro: `In the lessons before, the boxes' files came from an image that the tour has made of this machine's own programs ` +
			`(glassbox image from-host). Now we look at the image itself, and then at all steps of a start together.`,
		Needs: needImage,
		Scenes: []Scene{
			{
				Title: "Two documents and a layer",
				Text:  `An image is a list of layers and a description. The manifest names them by their digests; the config says what to run and how.`,
				Prepare: func(s *Stage) error {
					s.vars["IMAGE"] = filepath.Join(s.dir, "image") // a short name
					if err := os.Symlink(filepath.Join("store/image/images", strings.TrimPrefix(s.img.ID, "sha256:")),
						s.vars["IMAGE"]); err != nil && !errors.Is(err, os.ErrExist) {
						return err
					}
					s.vars["ID"] = strings.TrimPrefix(s.img.ID, "sha256:")
					s.vars["LAYER"] = strings.TrimPrefix(s.img.Layers[0].DiffID, "sha256:")
					s.vars["NAME"] = s.name
					return nil
				},
				Question: &Question{
					Ask: "What is the ID of an image?",
					Choices: []string{
						"a number that the registry gives out", "a random number made when it is built",
						"the SHA-256 digest of its config",
					}, Answer: 2,
				},
				Looks: []Look{
					{Outside: "cat {IMAGE}/manifest.json", Want: outHas("{ID}", "{LAYER}")},
					{Outside: "cat {IMAGE}/config.json", Want: outHas("{LAYER}", "\"Cmd\"")},
					{
						Say:     "The image's ID is what glassbox images shows. Compare:",
						Outside: "sha256sum <{IMAGE}/config.json; {GLASSBOX} images -q --no-trunc", Want: outHas("{ID}", "sha256:{ID}"),
					},
				},
				Because: `The name of a thing is made of its content. The manifest contains the digest of the config, the config the digests of ` +
					`the layers (before they were compressed). Who knows one digest knows that all below is as it was.`,
				Break: &Break{
					Text: `One letter of the config is changed, in a copy.`,
					Looks: []Look{{
						Outside: "sed s/linux/Linux/ <{IMAGE}/config.json | sha256sum",
						Want:    func(s Seen) string { return lacks(s.Out, s.Stage.vars["ID"]) },
					}},
					Because: `Another letter, another digest: this is not the image that was asked for, and whoever pulls it refuses it.`,
				},
			},
			{
				Title: "The layer",
				Text: `A layer is an archive of files, unpacked once into a directory that nobody changes (lesson 6). This one has the ` +
					`programs that were named, and the libraries that those programs' headers ask for.`,
				Looks: []Look{
					{Outside: "ls {DIR}/store/layers; ls {DIR}/root", Want: func(s Seen) string {
						return words("outside", s.Out, s.Stage.expand, []string{s.Stage.vars["LAYER"][:12]})
					}},
				},
				Because: `The directory's name is the beginning of the layer's digest.`,
			},
			{
				Title: "The whole plan",
				Text: `Now a container as you would start it: no network, a host name, 64 MB. The image is the tour's. Steps of one kind that ` +
					`follow one another are told in one line; glassbox explain run prints each with its reason and its manual page.`,
				Question: &Question{
					Ask:     "How many requests to the kernel is the start of one ordinary container?",
					Choices: []string{"about ten", "about thirty", "about a hundred"}, Answer: 2,
				},
				Show: func(p *player) error {
					text, err := p.outside("{GLASSBOX} explain run --format json " + run + "true")
					if err != nil {
						return err
					}
					var whole plan.Plan
					if err := json.Unmarshal([]byte(text), &whole); err != nil {
						return fmt.Errorf("glassbox explain: %w: %s", err, text)
					}
					p.whole(&whole)
					return nil
				},
				Looks: []Look{{Outside: "{GLASSBOX} explain run " + run + "true | tail -2", Want: outHas("steps: ", "by the child", "plan sha256:")}},
				Because: `Look for what you know: the cgroup and its limit (5), the namespaces (1), the overlay (6), pivot_root (3), /proc and ` +
					`what is covered in it (4), capabilities (8), the filter (9), the program that becomes process 1 (11).`,
			},
			{
				Title: "And it runs",
				Text: `The same command with run in the place of explain run. glassbox has no other way to start a container than the plan ` +
					`that you have seen.`,
				Question: &Question{
					Ask:     "What will the host see of it when it has ended?",
					Choices: []string{"a stopped container", "nothing: --rm"}, Answer: 1,
				},
				Looks: []Look{
					{
						Outside: "{GLASSBOX} run " + run + "sh -c 'echo I am $$ of $(uname -n), user $(id -u); grep -E \"Cap(Eff)|Seccomp:\" " +
							"/proc/self/status; ls /'; {GLASSBOX} ps -aq",
						Root: true, Want: outHas("I am 1 of box, user 0", "Seccomp: 2"),
					},
				},
				Because: `The line of its powers is that of lesson 8. (An ordinary user has seen nothing here: glassbox run needs root for now.)`,
				Break: &Break{
					Text: `A plan has a digest, too, its last line above. --require-plan refuses to run any other. Here the memory is changed: 65 MB.`,
					Looks: []Look{{
						Outside: "{GLASSBOX} run --require-plan $({GLASSBOX} explain run " + run +
							"true | grep -o 'sha256:[0-9a-f]*$') --rm --network none --hostname box --memory 65m --cgroup-parent {NAME} -e PATH tour " +
							"true; echo exit code $?",
						Root: true, Want: all(outHas("exit code 125"), outHas("sha256:")),
					}},
					Because: `Whoever has read and approved a plan can be sure that nothing else runs.`,
				},
			},
		},
		Remember: `An image is content under the name of its digest. A container is a list of requests to the kernel: you have now made ` +
			`most of them yourself.`,
		Read: "docs/images.md, docs/architecture.md, docs/worked-example.md; glassbox explain run --help; the OCI image and runtime " +
			"specifications.",
	}
}

// lacks wants a text without a word.
func lacks(text, word string) string {
	if text == "" || strings.Contains(text, word) {
		return fmt.Sprintf("there should be something without %q: %q", word, text)
	}
	return ""
}

// ownStore says where the commands of lesson 12 find the tour's image.
func (s *Stage) ownStore() []string {
	env := []string{"GLASSBOX_ROOT=" + filepath.Join(s.dir, "store"), "GLASSBOX_STATE=" + filepath.Join(s.dir, "state")}
	if s.o.Runtime != "" {
		env = append(env, "GLASSBOX_RUNTIME="+s.o.Runtime)
	}
	if home := os.Getenv("HOME"); home != "" {
		env = append(env, "HOME="+home)
	}
	return env
}
