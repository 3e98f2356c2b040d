package engine

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"glassbox/container"
	"glassbox/supervise"
)

// readContainer reads what a container is.
func (e *Engine) readContainer(id string) (*container.Container, error) {
	name := filepath.Join(e.dir(id), supervise.ContainerFile)
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	c, err := container.Read(data)
	if err != nil {
		return nil, &os.PathError{Op: "read", Path: name, Err: err}
	}
	// Paths are made of both: a file that is damaged, or another container's, must not lead out of the store.
	if c.ID != id || !validName(c.Name) {
		return nil, &os.PathError{Op: "read", Path: name, Err: fmt.Errorf("it says ID %q and name %q: it is not this container's", c.ID, c.Name)}
	}
	if c.Image == nil && c.ImageID != "" {
		// Version 1 didn't keep what the image said.
		if img, err := e.images.Resolve(c.ImageID); err == nil {
			c.Image, _ = imageWords(img, false)
		}
	}
	return c, nil
}

func newID() string {
	b := make([]byte, 32)
	rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}

// validName reports whether a name may be a container's: [a-zA-Z0-9][a-zA-Z0-9_.-]+, as with Docker.
func validName(s string) bool {
	if len(s) < 2 || len(s) > 200 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || !strings.ContainsRune("_.-", rune(c))) {
			return false
		}
	}
	return true
}

var (
	nameColours = strings.Fields("amber azure beryl bronze cerulean citrine clear cobalt copper coral crimson cyan emerald frosted garnet " +
		"golden hazel indigo ivory jade lilac lime lucid magenta maroon mauve ochre olive opal orange pearl pink plum prismatic purple ruby " +
		"russet saffron sapphire scarlet sepia silver smoky tawny teal topaz turquoise umber velvet violet")
	nameGlasses = strings.Fields("ampoule aquarium beaker bell bottle bowl bulb carafe chalice crystal decanter dome drop flask flute " +
		"goblet goggle hourglass jar jug kaleidoscope lamp lantern lens loupe magnifier marble mirror monocle mosaic ornament pane periscope " +
		"phial pitcher porthole prism retort scope shard skylight sphere spectacle teapot telescope terrarium tumbler vase vial window")
)

// randomName makes a name like amber_prism. Retries after a clash append a digit, as the lists are finite.
func randomName(attempt int) string {
	var b [2]byte
	rand.Read(b[:])
	name := nameColours[int(b[0])%len(nameColours)] + "_" + nameGlasses[int(b[1])%len(nameGlasses)]
	if attempt > 2 {
		name += hex.EncodeToString(b[:])
	}
	return name
}
