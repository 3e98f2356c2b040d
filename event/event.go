// Package event is what happens to containers, images, networks and volumes, in Docker's words (api/types/events of
// github.com/moby/moby/api): whoever changes something writes a line into one bounded journal, so that `glassbox events` needs no daemon
// that has seen it.
//
// It refuses to fail for it: what was done is done, whether or not it could be written down. Start reading at [Event].
package event

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"time"

	"glassbox/plan/lazyjson"
	"glassbox/state"
)

// Types of what something happens to.
const (
	Container = "container"
	Image     = "image"
	Network   = "network"
	Volume    = "volume"
)

// Actions.
const (
	Create     = "create"
	Start      = "start"
	Die        = "die" // attributes exitCode, execDuration (seconds)
	OOM        = "oom"
	Stop       = "stop"
	Restart    = "restart"
	Kill       = "kill" // attribute signal
	Pause      = "pause"
	Unpause    = "unpause"
	Update     = "update"
	Rename     = "rename" // attribute oldName
	Destroy    = "destroy"
	Attach     = "attach"
	Detach     = "detach"
	ExecCreate = "exec_create" // followed by ": " and the command; attribute execID, as with the others of exec
	ExecStart  = "exec_start"
	ExecDie    = "exec_die"
	// HealthStatus is followed by ": " and the health: starting, healthy, unhealthy.
	HealthStatus = "health_status"
	Pull         = "pull"
	Tag          = "tag"
	Untag        = "untag"
	Delete       = "delete"
	Import       = "import"
	Load         = "load"
	Save         = "save"
	Push         = "push"
	Commit       = "commit" // of a container; attribute comment
	Export       = "export"
	Connect      = "connect"
	Disconnect   = "disconnect"
	Mount        = "mount" // attributes container, destination, propagation, read/write
	Unmount      = "unmount"
)

// The journal in the directory of state, and its bound in bytes: about 800 events, and as many again; Docker's daemon remembers 256.
const (
	journalFile = "events"
	journalMax  = 256 << 10
)

// Event is one that has happened, as Docker's API tells it.
type Event struct {
	Type     string `json:"Type"`
	Action   string `json:"Action"`
	Actor    Actor  `json:"Actor"`
	Scope    string `json:"scope"`    // local
	Time     int64  `json:"time"`     // seconds since 1970
	TimeNano int64  `json:"timeNano"` // the same in nanoseconds
}

// Actor is what it happened to.
type Actor struct {
	ID         string            `json:"ID"`
	Attributes map[string]string `json:"Attributes"` // name, image and labels of a container, and what the action brings
}

// New is something that happens to an actor now; more are pairs of a further attribute's name and its value.
func New(kind, action string, a Actor, more ...string) Event {
	now := time.Now()
	attributes := make(map[string]string, len(a.Attributes)+len(more)/2)
	for k, v := range a.Attributes {
		attributes[k] = v
	}
	for i := 0; i+1 < len(more); i += 2 {
		attributes[more[i]] = more[i+1]
	}
	return Event{
		Type: kind, Action: action, Actor: Actor{a.ID, attributes}, Scope: "local", Time: now.Unix(), TimeNano: now.UnixNano(),
	}
}

// Name is the action without what it was done with: exec_create for "exec_create: sh -c ls".
func (e Event) Name() string {
	name, _, _ := strings.Cut(e.Action, ": ")
	return name
}

// Journal is that of a directory of state.
func Journal(dir string) state.Journal {
	return state.Journal{Path: filepath.Join(dir, journalFile), Max: journalMax}
}

// Write writes events down, in one piece. An empty directory is nowhere.
func Write(dir string, events ...Event) {
	if dir == "" {
		return
	}
	var lines [][]byte
	for _, e := range events {
		if line, err := lazyjson.Marshal(e); err == nil {
			lines = append(lines, line)
		}
	}
	Journal(dir).Append(lines...) // on a full or read-only STATE containers go on
}

// Parse reads a line of the journal; false for one whose writer was killed.
func Parse(line []byte) (Event, bool) {
	var e Event
	err := json.Unmarshal(line, &e)
	return e, err == nil && e.Type != "" && e.Action != ""
}
