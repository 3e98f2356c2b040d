package container

import (
	"slices"
	"strings"
)

// Config is what was asked for. Every field changes the container's OCI configuration, its plan, or what its supervisor does; the few that
// are only kept and told are named in package spec's test. The zero value is a container as Docker makes one without flags.
type Config struct {
	// What runs.
	Image      string   `json:"imageName,omitempty"` // reference as asked for; empty with Rootfs
	Rootfs     *Rootfs  `json:"rootfs,omitempty"`
	Platform   string   `json:"platform,omitempty"`   // os/arch[/variant] that was asked for
	Command    []string `json:"command,omitempty"`    // replaces the image's Cmd
	Entrypoint []string `json:"entrypoint,omitzero"`  // nil: the image's; empty: none
	Workdir    string   `json:"workdir,omitempty"`    // absolute
	User       string   `json:"user,omitempty"`       // NAME|UID[:GROUP|GID]
	Groups     []string `json:"groups,omitempty"`     // further groups, by name or number
	Env        []string `json:"env,omitempty"`        // KEY=VALUE; KEY alone removes the image's
	TTY        bool     `json:"tty,omitempty"`        // a terminal
	OpenStdin  bool     `json:"openStdin,omitempty"`  // standard input is kept open
	Detach     bool     `json:"detach,omitempty"`     // made by a command that stayed unattached; only told
	Init       bool     `json:"init,omitempty"`       // a process 1 that forwards signals and reaps
	StopSignal string   `json:"stopSignal,omitempty"` // name or number
	// StopTimeout is how long stop waits before it kills, in seconds; nil: 10, negative: for ever.
	StopTimeout *int              `json:"stopTimeout,omitempty"`
	Remove      bool              `json:"remove,omitempty"` // goes when it ends
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"` // of the OCI configuration
	CIDFile     string            `json:"cidFile,omitempty"`     // where the caller wrote the ID; only told
	Log         Log               `json:"log,omitzero"`
	Restart     Restart           `json:"restart,omitzero"` // what happens when it ends by itself
	Health      Health            `json:"health,omitzero"`  // how it is asked whether it is well
	// ConsoleSize is rows and columns of the terminal that the container was made for; zeros where there is none.
	ConsoleSize [2]uint16 `json:"consoleSize,omitzero"`

	// Isolation.
	Namespaces Namespaces   `json:"namespaces,omitzero"`
	Hostname   string       `json:"hostname,omitempty"`
	Domainname string       `json:"domainname,omitempty"` // NIS
	Sysctls    []KeyValue   `json:"sysctls,omitempty"`
	Privileged bool         `json:"privileged,omitempty"`
	CapAdd     []string     `json:"capAdd,omitempty"` // CAP_NAME or CAP_ALL
	CapDrop    []string     `json:"capDrop,omitempty"`
	Security   Security     `json:"security,omitzero"`
	Devices    []Device     `json:"devices,omitempty"`
	Rules      []DeviceRule `json:"deviceRules,omitempty"`
	// Requests are for devices that files of the host describe, and for GPUs.
	Requests []DeviceRequest `json:"deviceRequests,omitempty"`

	// Files.
	ReadOnly bool    `json:"readOnly,omitempty"` // the root file system
	Mounts   []Mount `json:"mounts,omitempty"`   // in the order in which they were asked for: of --tmpfs, -v, --mount
	// VolumesFrom are containers whose mounts it gets, too: CONTAINER[:MODE], by ID once it is made.
	VolumesFrom  []string `json:"volumesFrom,omitempty"`
	VolumeDriver string   `json:"volumeDriver,omitempty"` // of volumes that -v makes; empty: local
	ShmSize      int64    `json:"shmSize,omitempty"`      // bytes of /dev/shm; 0: 64 MiB
	// StorageOpt are options of the container's layer, as typed: size is how much it may take on the disk.
	StorageOpt map[string]string `json:"storageOpt,omitempty"`

	// Network.
	Endpoints  []Endpoint  `json:"endpoints,omitempty"` // empty: one on the default bridge
	Ports      []Port      `json:"ports,omitempty"`
	PublishAll bool        `json:"publishAll,omitempty"` // the exposed ports, too
	Expose     []string    `json:"expose,omitempty"`     // PORT/PROTO: exposed beside those of the image
	DNS        Resolver    `json:"dns,omitzero"`
	Hosts      []HostEntry `json:"hosts,omitempty"` // lines of /etc/hosts
	// Who it may talk to, and who may talk to it: deny, allow or the text of Doors. Empty: what its networks say.
	Egress  []string `json:"egress,omitempty"`
	Rates   Rates    `json:"rates,omitzero"`
	Ingress []string `json:"ingress,omitempty"`

	Limits Limits `json:"limits,omitzero"`

	// Origins holds, by the flag's long name without dashes ("memory"), the text as typed ("--memory=50m"; "-m 50m"), so that
	// the plan can say where each step comes from. What stands in a list has its own Origin.
	Origins map[string]string `json:"origins,omitempty"`
}

// Rootfs is a plain directory in an image's place.
type Rootfs struct {
	Dir     string `json:"dir"`               // absolute
	Overlay bool   `json:"overlay,omitempty"` // through an overlay that is thrown away
}

// KeyValue is a setting that keeps its place in a list.
type KeyValue struct {
	Key    string `json:"key"`
	Value  string `json:"value"`
	Origin string `json:"origin,omitempty"`
}

// Mode is whose namespace of a kind a container is in: "" (its own), "host", "none" or "shareable" (IPC only), or "container:ID".
type Mode string

// Container is the container whose namespace is meant, by ID or name; empty if none is.
func (m Mode) Container() string {
	id, ok := strings.CutPrefix(string(m), "container:")
	if !ok {
		return ""
	}
	return id
}

// IsHost says whether it is the host's.
func (m Mode) IsHost() bool { return m == "host" }

// Namespaces says which namespaces are the container's own (namespaces(7)).
type Namespaces struct {
	// New is exactly those that are new, of mount, pid, uts, ipc, net, cgroup, time, user; nil is the default six, all but time and user.
	New    []string `json:"new,omitzero"`
	PID    Mode     `json:"pid,omitempty"`
	IPC    Mode     `json:"ipc,omitempty"`
	UTS    Mode     `json:"uts,omitempty"`
	Cgroup Mode     `json:"cgroup,omitempty"`
}

// Security is what --security-opt says.
type Security struct {
	NoNewPrivileges bool `json:"noNewPrivileges,omitempty"` // PR_SET_NO_NEW_PRIVS(2const)
	// "": the default profile, unconfined when privileged; "unconfined"; else a file of the host, or "custom" where only its text came
	Seccomp string `json:"seccomp,omitempty"`
	// Profile is the text of that file when the container was made, or as it came: JSON without white space.
	Profile  string `json:"profile,omitempty"`
	AppArmor string `json:"apparmor,omitempty"` // profile
	Unmasked bool   `json:"unmasked,omitempty"` // systempaths=unconfined
	// Masked and ReadOnly are chosen instead of the usual hidden and read-only paths; nil: none was chosen. A privileged one has neither.
	Masked       *[]string `json:"masked,omitempty"`
	ReadOnly     *[]string `json:"readonly,omitempty"`
	LabelDisable bool      `json:"labelDisable,omitempty"` // label=disable: what there is anyway
	// Options are the options as typed, in order, for those who ask in Docker's words.
	Options []string `json:"options,omitempty"`
}

// Network is the name or word of the first endpoint's network.
func (c *Config) Network() string { return c.Endpoint().Network }

// Networks are the endpoints, each with its network's name filled in: one on the default network where nothing was said.
func (c *Config) Networks() []Endpoint {
	if len(c.Endpoints) == 0 {
		return []Endpoint{{Network: "bridge"}}
	}
	out := slices.Clone(c.Endpoints)
	for i := range out {
		// One name for one network, so that who compares them needs to know of no other: "default" is what Docker's own clients send.
		if out[i].Network == "" || out[i].Network == "default" {
			out[i].Network = "bridge"
		}
	}
	return out
}

// Endpoint is the first of the networks.
func (c *Config) Endpoint() Endpoint { return c.Networks()[0] }

// Resolver is what /etc/resolv.conf gets in place of the host's (resolv.conf(5)).
type Resolver struct {
	Servers []string `json:"servers,omitempty"` // IP addresses
	Search  []string `json:"search,omitempty"`
	Options []string `json:"options,omitempty"`
}

// IsZero is for encoding/json.
func (r Resolver) IsZero() bool { return len(r.Servers)+len(r.Search)+len(r.Options) == 0 }

// HostEntry is a line of /etc/hosts.
type HostEntry struct {
	Name string `json:"name"`
	IP   string `json:"ip"` // an address, or HostGateway
}

// HostGateway stands for the host's address on the container's network.
const HostGateway = "host-gateway"

// Origin is the flag that a thing comes from, as typed, or "" if no such flag was given.
func (c *Config) Origin(flag string) string { return c.Origins[flag] }
