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

import "time"

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
	Call          string            `json:"call,omitempty"`   // "" builds; check, outline, targets
	Format        string            `json:"format,omitempty"` // of what Call answers: "", json
	Progress      string            `json:"progress,omitempty"`
	Quiet         bool              `json:"quiet,omitempty"`
	MetadataFile  string            `json:"metadataFile,omitempty"`
	IIDFile       string            `json:"iidFile,omitempty"`
	Trace         string            `json:"trace,omitempty"` // file
}

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
}

// Order is what glassbox-build is started with, in memory, as descriptor [OrderFD].
type Order struct {
	Place
	Build *Request `json:"build,omitempty"`
	Prune *Prune   `json:"prune,omitempty"`
	Usage *Usage   `json:"usage,omitempty"`
	Debug bool     `json:"debug,omitempty"`
}

// OrderFD is the descriptor of an [Order] in JSON.
const OrderFD = 3

// Prune says what of the build cache is to go.
type Prune struct {
	All           bool          `json:"all,omitempty"`
	Filters       []string      `json:"filters,omitempty"`
	KeepDuration  time.Duration `json:"keepDuration,omitempty"`
	ReservedSpace int64         `json:"reservedSpace,omitempty"`
	MaxUsedSpace  int64         `json:"maxUsedSpace,omitempty"`
	MinFreeSpace  int64         `json:"minFreeSpace,omitempty"`
	Verbose       bool          `json:"verbose,omitempty"`
}

// Usage asks for what the build cache takes.
type Usage struct {
	Filters []string `json:"filters,omitempty"`
	Verbose bool     `json:"verbose,omitempty"`
	Format  string   `json:"format,omitempty"`
}

// Record is a part of the build cache.
type Record struct {
	ID          string     `json:"ID"`
	Parents     []string   `json:"Parents,omitempty"`
	Type        string     `json:"Type"`
	Description string     `json:"Description"`
	InUse       bool       `json:"InUse"`
	Shared      bool       `json:"Shared"`
	Size        int64      `json:"Size"` // bytes
	CreatedAt   time.Time  `json:"CreatedAt"`
	LastUsedAt  *time.Time `json:"LastUsedAt"`
	UsageCount  int        `json:"UsageCount"`
}
