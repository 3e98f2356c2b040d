package engine

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"time"

	"glassbox/supervise"
)

// Container is what a container is, apart from its running process: container.json.
type Container struct {
	ID      string        `json:"id"` // 64 hexadecimal digits
	Name    string        `json:"name"`
	Created time.Time     `json:"created"`
	ImageID string        `json:"imageID,omitempty"`
	Options CreateOptions `json:"options"` // with environment and label files read
	// Fixed says that it runs a plan that was given (replay.json), and no other.
	Fixed bool `json:"fixed,omitempty"`
}

func readContainer(dir string) (*Container, error) {
	data, err := os.ReadFile(filepath.Join(dir, supervise.ContainerFile))
	if err != nil {
		return nil, err
	}
	var c Container
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, &os.PathError{Op: "parse", Path: filepath.Join(dir, supervise.ContainerFile), Err: err}
	}
	return &c, nil
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
	nameColours = strings.Fields("amber azure beryl bronze cerulean citrine clear cobalt copper coral crimson cyan emerald frosted garnet golden hazel indigo ivory jade lilac lime lucid magenta maroon mauve ochre olive opal orange pearl pink plum prismatic purple ruby russet saffron sapphire scarlet sepia silver smoky tawny teal topaz turquoise umber velvet violet")
	nameGlasses = strings.Fields("ampoule aquarium beaker bell bottle bowl bulb carafe chalice crystal decanter dome drop flask flute goblet goggle hourglass jar jug kaleidoscope lamp lantern lens loupe magnifier marble mirror monocle mosaic ornament pane periscope phial pitcher porthole prism retort scope shard skylight sphere spectacle teapot telescope terrarium tumbler vase vial window")
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
