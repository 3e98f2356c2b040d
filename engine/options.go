package engine

import (
	"os"
	"time"

	"glassbox/image"
	"glassbox/plan"
)

// CreateOptions says what container to make. Field by field it is `docker run`'s flags: values are as typed and are parsed
// here, so that every face (command line, explain, later an API) reads them alike. Lists keep the order of the flags.
type CreateOptions struct {
	Image         string   // reference of an image in the store; empty with Rootfs
	Rootfs        string   // --rootfs DIR: run a plain directory
	RootfsOverlay bool     // --rootfs DIR:O: through an overlay that is thrown away
	Command       []string // replaces the image's Cmd
	Entrypoint    *string  // --entrypoint; "" clears the image's
	Name          string
	Hostname      string
	Domainname    string
	Workdir       string
	User          string   // --user NAME|UID[:GROUP|GID]
	GroupAdd      []string // --group-add
	Env           []string // KEY=VALUE, or KEY to take over the value of Environ
	EnvFile       []string // --env-file, read by Create
	Label         []string // KEY=VALUE
	LabelFile     []string
	TTY           bool // -t
	Interactive   bool // -i
	Detach        bool // -d; only recorded
	Remove        bool // --rm
	Init          bool
	Privileged    bool
	ReadOnly      bool
	CapAdd        []string
	CapDrop       []string
	SecurityOpt   []string // no-new-privileges[:true|false], seccomp=FILE|unconfined, apparmor=PROFILE
	Namespaces    []string // --ns mount,pid,…: exactly these are new; nil is the default six
	PID           string   // --pid host|container:ID
	IPC           string   // --ipc host|private|shareable|none|container:ID
	UTS           string   // --uts host
	CgroupNS      string   // --cgroupns host|private
	CgroupParent  string
	OOMScoreAdj   int
	Ulimit        []string // --ulimit nofile=1024:2048
	Sysctl        []string // KEY=VALUE
	ShmSize       string
	Tmpfs         []string // --tmpfs PATH[:OPTIONS]
	Volume        []string // -v SOURCE:TARGET[:OPTIONS]
	Mount         []string // --mount type=bind,source=…,target=…
	Device        []string // --device HOST[:CONTAINER[:rwm]]
	DeviceRule    []string // --device-cgroup-rule "c 1:3 rwm"
	Network       string   // bridge (default), none, host, container:ID
	Publish       []string // -p
	PublishAll    bool     // -P
	IP            string   // --ip
	MAC           string   // --mac-address
	DNS           []string
	DNSSearch     []string
	DNSOption     []string
	AddHost       []string
	StopSignal    string
	StopTimeout   *int // seconds
	Platform      string
	CIDFile       string
	LogOpt        []string // max-size=16m, max-file=3

	Memory            string // bytes with suffix b, k, m, g
	MemorySwap        string // memory and swap together; -1 unlimited
	MemoryReservation string
	MemorySwappiness  *int64
	OOMKillDisable    bool
	CPUs              string // decimal number of processors
	CPUShares         int64
	CPUPeriod         int64 // microseconds
	CPUQuota          int64 // microseconds
	CpusetCpus        string
	CpusetMems        string
	PidsLimit         *int64
	BlkioWeight       uint16
	DeviceReadBps     []string // DEVICE:RATE
	DeviceWriteBps    []string
	DeviceReadIOps    []string
	DeviceWriteIOps   []string

	ConsoleSize [2]uint16 // rows, columns of the caller's terminal

	// Flags holds, by the flag's long name without dashes ("memory"), the text as typed ("--memory=50m"; "-m 50m"), so that
	// the plan can say where each step comes from.
	Flags map[string]string
	// Environ is the caller's environment, from which Env entries without a value and PATH-like defaults are taken.
	Environ []string
	// Dir is the caller's working directory, for relative paths in Volume.
	Dir string
}

// ExecOptions says what to run in a running container.
type ExecOptions struct {
	Command     []string
	TTY         bool
	Interactive bool
	Detach      bool
	Privileged  bool
	User        string
	Workdir     string
	Env         []string
	EnvFile     []string
	Environ     []string
	ConsoleSize [2]uint16
}

// StartOptions says what the caller wants of a start.
type StartOptions struct {
	Attach bool // pass on the container's output (and, with Interactive, input)
	// Interactive connects Stdin. Without it a container that was created with -i reads end of file.
	Interactive           bool
	Stdin, Stdout, Stderr *os.File         // descriptors that the supervisor takes over while the caller lives
	Explain               func(*plan.Plan) // called with the plan before it runs
	ConsoleSize           [2]uint16
	// Before, if it is set, is called before each step of the plan, of both lanes, in the order of [plan.Plan.Order]: all before are
	// done, and the container's process, if there is one, waits. An error ends the start: what was made is taken back, the container is
	// removed if it never ran, and Start returns that error. The child makes two system calls more before each of its steps, which are
	// not in the plan.
	Before func(*Stop) error
	// TraceFor is how long after execve the program's system calls are noted in Config.Trace, beside what the start took. It is slower as
	// long. All is there when Session.Wait has returned, or without Attach Session.Traced. Not with Before.
	TraceFor time.Duration
}

// A Stop is a moment before a step of a start.
type Stop struct {
	Container *Container
	Plan      *plan.Plan
	Index     int // of the step
	PID       int // of the half-built container's process; 0: there is none yet
}

// LogOptions says which lines of a container's log to print.
type LogOptions struct {
	Follow     bool
	Tail       int // -1: all
	Since      time.Time
	Until      time.Time
	Timestamps bool
}

// ListOptions selects containers.
type ListOptions struct {
	All     bool     // also those that don't run
	Filters []string // status=, name=, id=, label=, ancestor=, exited=, network=, volume=, before=, since=
	Last    int
}

// Summary is a row of `ps`.
type Summary struct {
	ID      string
	Name    string
	Image   string
	Command string // quoted, not shortened
	Created time.Time
	Status  string // "Up 3 minutes", "Exited (0) 2 hours ago", "Created"
	State   string // created, running, paused, exited, dead
	Ports   string // "0.0.0.0:8080->80/tcp"
	Labels  map[string]string
	Mounts  []string
	Network string
}

// Config places the engine.
type Config struct {
	Root    string // images, containers, volumes: /var/lib/glassbox
	State   string // what is gone at reboot: /run/glassbox
	Runtime string // path of glassbox-runtime
	// Warn, if it is set, is told what was asked for and has no effect, or is unusual.
	Warn func(text string)
	// Trace, if it is set, is filled in with what making and starting a container takes.
	Trace *plan.Trace
}

// Images is the engine's image store.
func (e *Engine) Images() *image.Store { return e.images }
