// Package build says what a build is asked for, as typed data: flags in Docker's and buildx's words become a [Request], which glassbox
// hands to the program that has the builder (glassbox-build), and what the builder tells of itself comes back as the types of this package.
//
// Its one idea: BuildKit is in one program, and all that the others need to know of a build is plain data and pure functions. The package
// reads flags and checks them; it opens no file and starts nothing.
//
// It refuses what makes no sense on one machine (drivers, remote builders, bake's files) by not having it, and every value that it doesn't
// understand with a sentence that names the flag.
//
// Start reading at [Words.Request].
package build

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"glassbox/container"
)

// Request is one build.
type Request struct {
	Context    string            `json:"context"`              // a directory, an archive, "-", or the URL of git or of an archive
	Dockerfile string            `json:"dockerfile,omitempty"` // -f; "-" is standard input
	Tags       []string          `json:"tags,omitempty"`
	Target     string            `json:"target,omitempty"`
	Args       map[string]string `json:"args,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	NoCache    bool              `json:"noCache,omitempty"`
	// NoCacheFilter are the stages without cache.
	NoCacheFilter []string          `json:"noCacheFilter,omitempty"`
	Pull          bool              `json:"pull,omitempty"`
	Platforms     []string          `json:"platforms,omitempty"`
	Secrets       []Secret          `json:"secrets,omitempty"`
	SSH           []SSH             `json:"ssh,omitempty"`
	Network       string            `json:"network,omitempty"` // "", default, none, host
	AddHosts      []string          `json:"addHosts,omitempty"`
	CacheFrom     []Typed           `json:"cacheFrom,omitempty"`
	CacheTo       []Typed           `json:"cacheTo,omitempty"`
	Outputs       []Typed           `json:"outputs,omitempty"` // none: the store
	Contexts      map[string]string `json:"contexts,omitempty"`
	Allow         []string          `json:"allow,omitempty"`
	Attests       map[string]string `json:"attests,omitempty"` // type → its attributes, as one string
	Annotations   map[string]string `json:"annotations,omitempty"`
	Ulimits       []string          `json:"ulimits,omitempty"`
	ShmSize       int64             `json:"shmSize,omitempty"`
	CgroupParent  string            `json:"cgroupParent,omitempty"`
	Limits        map[string]string `json:"limits,omitempty"` // of RUN, by the front end's names
	Call          string            `json:"call,omitempty"`   // "" builds; check, outline, targets
	Format        string            `json:"format,omitempty"` // of what Call answers: "", json
	Progress      string            `json:"progress,omitempty"`
	Quiet         bool              `json:"quiet,omitempty"`
	MetadataFile  string            `json:"metadataFile,omitempty"`
	IIDFile       string            `json:"iidFile,omitempty"`
	Trace         string            `json:"trace,omitempty"` // file
	Step          bool              `json:"step,omitempty"`  // whoever started the builder is asked at [AskFD] before each RUN
	// DebugOnError runs a command in the state before a RUN that failed; [Shell] is a shell on the terminal.
	DebugOnError string          `json:"debugOnError,omitempty"`
	Policy       json.RawMessage `json:"policy,omitempty"` // judges each step before anything is made
	Umask        fs.FileMode     `json:"-"`                // of the caller, for files of the caller's
}

// Shell is the value of [Request.DebugOnError] that asks for a shell.
const Shell = "\x00shell"

// Secret is where a secret comes from. Its value is in no Request.
type Secret struct {
	ID   string `json:"id"`
	File string `json:"file,omitempty"`
	Env  string `json:"env,omitempty"`
}

// SSH is an agent's socket, or keys.
type SSH struct {
	ID    string   `json:"id"`
	Paths []string `json:"paths,omitempty"`
	Raw   bool     `json:"raw,omitempty"`
}

// Typed is something of a kind, with attributes: a cache, an output.
type Typed struct {
	Type  string            `json:"type"`
	Attrs map[string]string `json:"attrs,omitempty"`
}

// Place says where the engine has its things.
type Place struct {
	Root    string `json:"root"`
	State   string `json:"state"`
	Runtime string `json:"runtime"` // path of glassbox-runtime
	// TimerSlack in nanoseconds is what RUNs get (PR_SET_TIMERSLACK(2const)); 0: the builder's own.
	TimerSlack int64 `json:"timerSlack,omitempty"`
}

// Order is what glassbox-build is started with, in memory, as descriptor [OrderFD].
type Order struct {
	Place
	Build *Request `json:"build,omitempty"`
	Prune *Prune   `json:"prune,omitempty"`
	Usage *Usage   `json:"usage,omitempty"`
	Serve *Serve   `json:"serve,omitempty"`
	Debug bool     `json:"debug,omitempty"`
}

// OrderFD is the descriptor of an [Order] in JSON.
const OrderFD = 3

// Prune says what of the build cache is to go. Without limits that is all that isn't in use and, without All, isn't what images were pulled
// for or what the builder itself needs.
type Prune struct {
	All           bool          `json:"all,omitempty"`
	Filters       []string      `json:"filters,omitempty"`
	KeepDuration  time.Duration `json:"keepDuration,omitempty"` // what was used since isn't touched
	ReservedSpace int64         `json:"reservedSpace,omitempty"`
	MaxUsedSpace  int64         `json:"maxUsedSpace,omitempty"`
	MinFreeSpace  int64         `json:"minFreeSpace,omitempty"`
}

// Usage asks for what the build cache takes.
type Usage struct {
	Filters []string `json:"filters,omitempty"`
	NoWait  bool     `json:"noWait,omitempty"` // an answer at once or, while somebody builds, none: [Busy]
}

// Serve keeps the builder open at the socket [Place.Socket], for others that speak BuildKit's control API.
type Serve struct {
	Idle time.Duration `json:"idle"` // it ends when nobody has used it for so long; 0: never
}

// Busy is the exit status of the builder's program where somebody else builds, and it wasn't to wait.
const Busy = 75

// Socket is where a builder serves that stays.
func (p Place) Socket() string { return path.Join(p.State, "build.sock") }

// FaceSocket is where it answers the API's server, in the words of Docker's API.
func (p Place) FaceSocket() string { return path.Join(p.State, "build-api.sock") }

// Dir is the builder's own directory.
func (p Place) Dir() string { return path.Join(p.Root, "build") }

// Records is where the builder's databases and contents are.
func (p Place) Records() string { return path.Join(p.Dir(), "records") }

// Record is a part of the build cache, with the fields of Docker's API (BuildCache).
type Record struct {
	ID          string
	Parents     []string `json:",omitempty"`
	Type        string
	Description string
	InUse       bool
	Shared      bool  // its files are an image's, too
	Size        int64 // bytes
	CreatedAt   time.Time
	LastUsedAt  *time.Time
	UsageCount  int
}

// Sum is how much all records take, and how much of it could go now. What images share with the cache is counted in neither.
func Sum(records []Record) (total, reclaimable int64, active int) {
	for _, r := range records {
		if r.InUse {
			active++
		}
		if r.Shared {
			continue
		}
		total += r.Size
		if !r.InUse {
			reclaimable += r.Size
		}
	}
	return total, reclaimable, active
}

// CacheLimits is the variable with limits of the build cache beside BuildKit's own, as in max-used-space=20g,until=168h.
const CacheLimits = "GLASSBOX_BUILD_CACHE"

// ReadCacheLimits reads [CacheLimits]: until (what nobody has used for so long goes), max-used-space, min-free-space and reserved-space, as
// builder prune has them. Each of the results is what goes.
func ReadCacheLimits(text string) ([]Prune, error) {
	var age, space Prune
	list := map[bool][]Prune{}
	for word := range strings.SplitSeq(text, ",") {
		key, value, ok := strings.Cut(strings.TrimSpace(word), "=")
		if text == "" {
			break
		}
		var err error
		switch to := map[string]*int64{
			"max-used-space": &space.MaxUsedSpace, "min-free-space": &space.MinFreeSpace, "reserved-space": &space.ReservedSpace,
		}[key]; {
		case to != nil && ok:
			*to, err = container.ParseBytes(value)
			list[false] = []Prune{space}
		case key == "until" && ok:
			age.KeepDuration, err = time.ParseDuration(value)
			if err == nil && age.KeepDuration <= 0 {
				err = fmt.Errorf("a time is needed, as in 168h")
			}
			list[true] = []Prune{age}
		default:
			return nil, fmt.Errorf("%s: %q: there are until, max-used-space, min-free-space and reserved-space, each with =VALUE", CacheLimits, word)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", CacheLimits, word, err)
		}
	}
	return append(list[true], list[false]...), nil
}

// ReadFilters reads Docker's filters of builder prune: until=DURATION (unused-for is the same), and KEY=VALUE of a record (id, parent,
// type, description, inuse, shared, private, mutable).
func (p *Prune) ReadFilters(texts []string) error {
	for _, text := range texts {
		key, value, ok := strings.Cut(text, "=")
		negated := strings.HasSuffix(key, "!")
		key = strings.TrimRight(key, "!~")
		switch key {
		case "until", "unused-for":
			d, err := time.ParseDuration(value)
			if err != nil || d < 0 || negated {
				return fmt.Errorf("--filter %s: want a duration, as in %s=24h", text, key)
			}
			p.KeepDuration = d
		case "id", "parent", "type", "description":
			if !ok {
				return fmt.Errorf("--filter %s: want %s=VALUE", text, key)
			}
			op := "=="
			// Looked for before the value: that may have ~= itself.
			if strings.Contains(text[:len(text)-len(value)], "~=") {
				op = "~="
			}
			if negated {
				op = "!="
			}
			p.Filters = append(p.Filters, key+op+value)
		case "inuse", "shared", "private", "mutable", "immutable":
			on := !ok || value == "true" || value == "1"
			if !on && value != "false" && value != "0" {
				return fmt.Errorf("--filter %s: want %s, or %s=false", text, key, key)
			}
			// containerd's filters have no bare "not" (pkg/filters): a field that is off is compared with false.
			if on == negated {
				p.Filters = append(p.Filters, key+"==false")
			} else {
				p.Filters = append(p.Filters, key)
			}
		default:
			return fmt.Errorf("invalid filter '%s': want until, id, parent, type, description, inuse, shared, private or mutable", key)
		}
	}
	return nil
}
