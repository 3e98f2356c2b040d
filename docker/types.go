package docker

import (
	"time"

	"glassbox/cgroup"
)

// MountPoint is a mount of a container (types/container.MountPoint).
type MountPoint struct {
	Type        string `json:",omitempty"`
	Name        string `json:",omitempty"`
	Source      string
	Destination string
	Driver      string `json:",omitempty"`
	Mode        string
	RW          bool
	Propagation string
}

// PortSummary is one port of a container (types/container.PortSummary). PublicPort 0: it is not published.
type PortSummary struct {
	IP          string `json:",omitempty"`
	PrivatePort uint16
	PublicPort  uint16 `json:",omitempty"`
	Type        string
}

// Container is the answer of GET /containers/{id}/json (types/container.InspectResponse).
type Container struct {
	ID              string `json:"Id"`
	Created         string
	Path            string
	Args            []string
	State           State
	Image           string
	ResolvConfPath  string
	HostnamePath    string
	HostsPath       string
	LogPath         string
	Name            string // with a slash before it
	RestartCount    int
	Driver          string
	Platform        string
	MountLabel      string
	ProcessLabel    string
	AppArmorProfile string
	ExecIDs         []string
	HostConfig      HostConfig
	GraphDriver     GraphDriver
	SizeRw          *int64 `json:",omitempty"`
	SizeRootFs      *int64 `json:",omitempty"`
	Mounts          []MountPoint
	Config          Config
	NetworkSettings NetworkSettings
	Glassbox        Extras // our own
}

// State is what has become of a container (types/container.State).
type State struct {
	Status     string
	Running    bool
	Paused     bool
	Restarting bool
	OOMKilled  bool
	Dead       bool
	Pid        int
	ExitCode   int
	Error      string
	StartedAt  string
	FinishedAt string
	Health     *Health       `json:",omitempty"`
	Stats      *cgroup.Stats `json:",omitempty"` // our own: counters of the cgroup, now or at the end
}

// Extras is what Docker has no place for.
type Extras struct {
	Directory string
	Cgroups   map[string]string `json:",omitempty"` // path in each hierarchy
	Steps     int               `json:",omitempty"` // of the plan of the last start
	PlanHash  string            `json:",omitempty"`
	// Walls as they stand, or as they were asked for: see container.Door.
	Egress  []string `json:",omitempty"`
	Rates   *Rates   `json:",omitempty"`
	Ingress []string `json:",omitempty"`
}

// GraphDriver says where the root's directories are (types/storage.DriverData).
type GraphDriver struct {
	Data map[string]string
	Name string
}

// Config is what runs, as image and flags say together (types/container.Config).
type Config struct {
	Hostname     string
	Domainname   string
	User         string
	AttachStdin  bool
	AttachStdout bool
	AttachStderr bool
	ExposedPorts map[string]struct{} `json:",omitempty"`
	Tty          bool
	OpenStdin    bool
	StdinOnce    bool
	Env          []string
	Cmd          []string
	Image        string
	Volumes      map[string]struct{}
	WorkingDir   string
	Entrypoint   []string
	OnBuild      []string `json:",omitempty"`
	Labels       map[string]string
	StopSignal   string `json:",omitempty"`
	StopTimeout  *int   `json:",omitempty"`
	// Healthcheck is flags and image together; nil: neither says anything.
	Healthcheck *Healthcheck `json:",omitempty"`
}

// Healthcheck is how a container is asked whether it is well (HealthcheckConfig of moby's image-spec). Durations are nanoseconds; zero is
// the default.
type Healthcheck struct {
	Test          []string      `json:",omitempty"`
	Interval      time.Duration `json:",omitempty"`
	Timeout       time.Duration `json:",omitempty"`
	StartPeriod   time.Duration `json:",omitempty"`
	StartInterval time.Duration `json:",omitempty"`
	Retries       int           `json:",omitempty"`
}

// Health is what the checks have said (types/container.Health).
type Health struct {
	Status        string // starting, healthy, unhealthy
	FailingStreak int
	Log           []HealthResult // the last five, the oldest first
}

// HealthResult is one check.
type HealthResult struct {
	Start    time.Time
	End      time.Time
	ExitCode int // 0: healthy; -1: it could not be started, or took too long
	Output   string
}

// LogConfig is where output goes.
type LogConfig struct {
	Type   string
	Config map[string]string
}

// RestartPolicy is what happens when a container ends.
type RestartPolicy struct {
	Name              string
	MaximumRetryCount int
}

// PortBinding is the host's side of a published port. An empty HostPort is a free one.
type PortBinding struct {
	HostIP   string `json:"HostIp"`
	HostPort string
}

// DeviceMapping is a device that the container has.
type DeviceMapping struct {
	PathOnHost        string
	PathInContainer   string
	CgroupPermissions string
}

// ThrottleDevice is a limit of a block device, per second.
type ThrottleDevice struct {
	Path string
	Rate uint64
}

// WeightDevice is a weight of a block device.
type WeightDevice struct {
	Path   string
	Weight uint16
}

// Ulimit is a limit of each process; -1 is none.
type Ulimit struct {
	Name string
	Hard int64
	Soft int64
}

// DeviceRequest asks for devices by driver: "cdi", or "" and a vendor's name for GPUs.
type DeviceRequest struct {
	Driver       string
	Count        int // -1: all
	DeviceIDs    []string
	Capabilities [][]string
	Options      map[string]string
}

// BindOptions, TmpfsOptions and Mount are --mount in Docker's words (types/mount).
type BindOptions struct {
	Propagation            string `json:",omitempty"`
	NonRecursive           bool   `json:",omitempty"`
	CreateMountpoint       bool   `json:",omitempty"`
	ReadOnlyNonRecursive   bool   `json:",omitempty"`
	ReadOnlyForceRecursive bool   `json:",omitempty"`
}

// TmpfsOptions are those of a tmpfs; Mode is in the bits of os.FileMode.
type TmpfsOptions struct {
	SizeBytes int64  `json:",omitempty"`
	Mode      uint32 `json:",omitempty"`
}

// VolumeOptions are those of a volume.
type VolumeOptions struct {
	NoCopy       bool              `json:",omitempty"`
	Labels       map[string]string `json:",omitempty"`
	Subpath      string            `json:",omitempty"`
	DriverConfig *Driver           `json:",omitempty"`
}

// Driver is what makes a volume.
type Driver struct {
	Name    string            `json:",omitempty"`
	Options map[string]string `json:",omitempty"`
}

// ImageOptions are those of an image that is mounted.
type ImageOptions struct {
	Subpath string `json:",omitempty"`
}

// Mount is a mount as it was asked for with --mount.
type Mount struct {
	Type          string         `json:",omitempty"`
	Source        string         `json:",omitempty"`
	Target        string         `json:",omitempty"`
	ReadOnly      bool           `json:",omitempty"`
	BindOptions   *BindOptions   `json:",omitempty"`
	VolumeOptions *VolumeOptions `json:",omitempty"`
	ImageOptions  *ImageOptions  `json:",omitempty"`
	TmpfsOptions  *TmpfsOptions  `json:",omitempty"`
}

// HostConfig is what a container asked of the host (types/container.HostConfig).
type HostConfig struct {
	Binds           []string
	ContainerIDFile string
	LogConfig       LogConfig
	NetworkMode     string
	PortBindings    map[string][]PortBinding
	RestartPolicy   RestartPolicy
	AutoRemove      bool
	VolumeDriver    string
	VolumesFrom     []string
	ConsoleSize     [2]uint
	Annotations     map[string]string `json:",omitempty"`
	CapAdd          []string
	CapDrop         []string
	CgroupnsMode    string
	DNS             []string `json:"Dns"`
	DNSOptions      []string `json:"DnsOptions"`
	DNSSearch       []string `json:"DnsSearch"`
	ExtraHosts      []string
	GroupAdd        []string
	IpcMode         string
	Cgroup          string
	Links           []string
	OomScoreAdj     int
	PidMode         string
	Privileged      bool
	PublishAllPorts bool
	ReadonlyRootfs  bool
	SecurityOpt     []string
	StorageOpt      map[string]string `json:",omitempty"`
	Tmpfs           map[string]string `json:",omitempty"`
	UTSMode         string
	UsernsMode      string
	ShmSize         int64
	Sysctls         map[string]string `json:",omitempty"`
	Runtime         string
	Isolation       string

	CPUShares            int64 `json:"CpuShares"`
	Memory               int64
	NanoCPUs             int64 `json:"NanoCpus"`
	CgroupParent         string
	BlkioWeight          uint16
	BlkioWeightDevice    []WeightDevice
	BlkioDeviceReadBps   []ThrottleDevice
	BlkioDeviceWriteBps  []ThrottleDevice
	BlkioDeviceReadIOps  []ThrottleDevice
	BlkioDeviceWriteIOps []ThrottleDevice
	CPUPeriod            int64 `json:"CpuPeriod"`
	CPUQuota             int64 `json:"CpuQuota"`
	CPURealtimePeriod    int64 `json:"CpuRealtimePeriod"`
	CPURealtimeRuntime   int64 `json:"CpuRealtimeRuntime"`
	CpusetCpus           string
	CpusetMems           string
	Devices              []DeviceMapping
	DeviceCgroupRules    []string
	DeviceRequests       []DeviceRequest
	MemoryReservation    int64
	MemorySwap           int64
	MemorySwappiness     *int64
	OomKillDisable       *bool
	PidsLimit            *int64
	Ulimits              []Ulimit
	CPUCount             int64 `json:"CpuCount"`
	CPUPercent           int64 `json:"CpuPercent"`
	IOMaximumIOps        uint64
	IOMaximumBandwidth   uint64

	Mounts        []Mount `json:",omitempty"`
	MaskedPaths   []string
	ReadonlyPaths []string
	Init          *bool `json:",omitempty"`
}

// Endpoint is a container's place in a network (types/network.EndpointSettings).
type Endpoint struct {
	IPAMConfig          *IPAMConfig
	Links               []string
	Aliases             []string
	DriverOpts          map[string]string
	GwPriority          int
	NetworkID           string
	EndpointID          string
	Gateway             string
	IPAddress           string
	MacAddress          string
	IPPrefixLen         int
	IPv6Gateway         string
	GlobalIPv6Address   string
	GlobalIPv6PrefixLen int
	DNSNames            []string
}

// IPAMConfig is the address that was asked for.
type IPAMConfig struct {
	IPv4Address  string   `json:",omitempty"`
	IPv6Address  string   `json:",omitempty"`
	LinkLocalIPs []string `json:",omitempty"`
}

// NetworkSettings is what a running container has of networks (types/container.NetworkSettings). The fields between Ports and Networks are
// those of the first endpoint, which clients of older versions of the API read.
type NetworkSettings struct {
	Bridge                 string
	SandboxID              string
	SandboxKey             string
	Ports                  map[string][]PortBinding
	HairpinMode            bool
	LinkLocalIPv6Address   string
	LinkLocalIPv6PrefixLen int
	SecondaryIPAddresses   []string
	SecondaryIPv6Addresses []string
	EndpointID             string
	Gateway                string
	GlobalIPv6Address      string
	GlobalIPv6PrefixLen    int
	IPAddress              string
	IPPrefixLen            int
	IPv6Gateway            string
	MacAddress             string
	Networks               map[string]*Endpoint
}

// Summary is an element of the answer of GET /containers/json (types/container.Summary).
type Summary struct {
	ID              string `json:"Id"`
	Names           []string
	Image           string
	ImageID         string
	Command         string
	Created         int64 // seconds since 1970
	Ports           []PortSummary
	SizeRw          int64 `json:",omitempty"`
	SizeRootFs      int64 `json:",omitempty"`
	Labels          map[string]string
	State           string
	Status          string
	HostConfig      SummaryHostConfig
	NetworkSettings SummaryNetworks
	Mounts          []MountPoint
}

// SummaryHostConfig is the part of HostConfig in a list.
type SummaryHostConfig struct {
	NetworkMode string            `json:",omitempty"`
	Annotations map[string]string `json:",omitempty"`
}

// SummaryNetworks is the part of NetworkSettings in a list.
type SummaryNetworks struct {
	Networks map[string]*Endpoint
}

// Rates are how much a container's cables carry, in bytes per second and bytes.
type Rates struct{ In, Out, Burst int64 }
