package docker

// Version is that of glassbox.
const Version = "0.1.0"

// Info is the answer of GET /info (types/system.Info), as far as one machine without swarm has something to say.
type Info struct {
	ID                 string
	Containers         int
	ContainersRunning  int
	ContainersPaused   int
	ContainersStopped  int
	Images             int
	Driver             string
	DriverStatus       [][2]string
	Plugins            Plugins
	MemoryLimit        bool
	SwapLimit          bool
	CPUCfsPeriod       bool `json:"CpuCfsPeriod"`
	CPUCfsQuota        bool `json:"CpuCfsQuota"`
	CPUShares          bool
	CPUSet             bool
	PidsLimit          bool
	IPv4Forwarding     bool
	Debug              bool
	NFd                int
	OomKillDisable     bool
	NGoroutines        int
	SystemTime         string
	LoggingDriver      string
	CgroupDriver       string
	CgroupVersion      string
	NEventsListener    int
	KernelVersion      string
	OperatingSystem    string
	OSVersion          string
	OSType             string
	Architecture       string // as uname -m
	IndexServerAddress string
	RegistryConfig     *struct{}
	NCPU               int
	MemTotal           int64 // bytes
	GenericResources   []struct{}
	DockerRootDir      string
	HTTPProxy          string `json:"HttpProxy"`
	HTTPSProxy         string `json:"HttpsProxy"`
	NoProxy            string
	Name               string // of the host
	Labels             []string
	ExperimentalBuild  bool
	ServerVersion      string
	Runtimes           map[string]RuntimeInfo
	DefaultRuntime     string
	Swarm              Swarm
	LiveRestoreEnabled bool
	Isolation          string
	InitBinary         string
	ContainerdCommit   Commit
	RuncCommit         Commit
	InitCommit         Commit
	SecurityOptions    []string
	CDISpecDirs        []string
	Warnings           []string
	Glassbox           InfoExtras // our own
}

// Plugins are the drivers there are.
type Plugins struct {
	Volume        []string
	Network       []string
	Authorization []string
	Log           []string
}

// RuntimeInfo is where a runtime is.
type RuntimeInfo struct {
	Path string `json:"path,omitempty"`
}

// Swarm is the answer of a Docker that is no swarm node.
type Swarm struct {
	NodeID           string
	NodeAddr         string
	LocalNodeState   string
	ControlAvailable bool
	Error            string
	RemoteManagers   []struct{}
}

// Commit is a version of a part that there is none of here.
type Commit struct{ ID string }

// InfoExtras is what Docker has no place for.
type InfoExtras struct {
	State   string   // directory of what is gone at reboot
	Runtime string   // path of glassbox-runtime
	Cgroup  string   // v1, v2, hybrid, none
	LSM     []string // active security modules
	Seccomp bool
	User    uint32
}

// Machine is an architecture as uname -m says it.
func Machine(goarch string) string {
	if m, ok := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[goarch]; ok {
		return m
	}
	return goarch
}
