package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"glassbox/container"
	"glassbox/engine"
	"glassbox/fork"
	"glassbox/image"
)

// createFlags are the flags that run, create and explain run share.
type createFlags struct {
	o container.Words

	rootfs     string
	entrypoint string
	stop       int
	swappiness int64
	pids       int64
	namespaces string

	starts   bool // it is run
	pull     string
	quiet    bool
	insecure []string
}

// list is a flag that may be given several times. Unlike pflag's it does not split at commas: they belong to values.
type list struct{ to *[]string }

func (l list) Set(s string) error { *l.to = append(*l.to, s); return nil }
func (l list) Type() string       { return "list" }

func (l list) String() string {
	if l.to == nil {
		return ""
	}
	return strings.Join(*l.to, " ")
}

// filterList takes KEY=VALUE.
type filterList struct{ list }

func (f filterList) Type() string { return "filter" }

func (f filterList) Set(s string) error {
	if !strings.Contains(s, "=") {
		return errors.New("bad format of filter (expected name=value)")
	}
	return f.list.Set(s)
}

// envList takes NAME[=VALUE].
type envList struct{ list }

func (e envList) Set(s string) error {
	if s == "" || s[0] == '=' {
		return errors.New("invalid environment variable: " + s)
	}
	return e.list.Set(s)
}

// text is a string whose kind is shown in the help.
type text struct {
	to   *string
	kind string
}

func (t text) Set(s string) error { *t.to = s; return nil }
func (t text) Type() string       { return t.kind }

func (t text) String() string {
	if t.to == nil {
		return ""
	}
	return *t.to
}

// register declares the flags. Names, shorthands and defaults are those of `docker run`.
func (c *createFlags) register(fs *pflag.FlagSet, a *app) {
	o := &c.o
	c.pull = "missing"
	strs := func(to *[]string, name, short, usage string) { fs.VarP(list{to}, name, short, usage) }
	kind := func(to *string, kind, name, short, usage string) { fs.VarP(text{to, kind}, name, short, usage) }

	// What runs.
	fs.StringVar(&o.Name, "name", "", "Name of the container")
	fs.StringVar(&c.rootfs, "rootfs", "", "Run a plain directory instead of an image; with :O through an overlay that is thrown away "+
		"(dir[:O])")
	fs.StringVar(&c.entrypoint, "entrypoint", "", "Replace the image's ENTRYPOINT")
	fs.StringVarP(&o.Workdir, "workdir", "w", "", "Working directory in the container")
	fs.StringVarP(&o.User, "user", "u", "", "User (name|uid[:group|gid])")
	strs(&o.GroupAdd, "group-add", "", "Join a further group")
	strs(&o.Env, "env", "e", "Set an environment variable")
	strs(&o.EnvFile, "env-file", "", "Read environment variables from a file")
	strs(&o.Label, "label", "l", "Set a label")
	strs(&o.LabelFile, "label-file", "", "Read labels from a file")
	strs(&o.Annotation, "annotation", "", "Add an annotation to the OCI configuration (key=value)")
	fs.BoolVarP(&o.TTY, "tty", "t", false, "Give the container a terminal")
	fs.BoolVarP(&o.Interactive, "interactive", "i", false, "Keep standard input open")
	fs.BoolVar(&o.Init, "init", false, "Run an init in the container that forwards signals and reaps processes")
	fs.StringVar(&o.StopSignal, "stop-signal", "", "Signal that stops the container")
	fs.IntVar(&c.stop, "stop-timeout", 0, "Seconds to wait before a container that is stopped is killed")
	fs.StringVar(&o.CIDFile, "cidfile", "", "Write the container's ID to a file that must not exist")
	fs.StringVar(&o.LogDriver, "log-driver", "", "Where output goes: json-file, local, journald, none")
	strs(&o.LogOpt, "log-opt", "", "Log option: max-size=16m, max-file=3, labels=, env=, tag=, mode=")
	fs.BoolVar(&o.Remove, "rm", false, "Remove the container when it exits")

	// Health.
	fs.StringVar(&o.HealthCmd, "health-cmd", "", "Command that says by its exit code whether the container is well")
	fs.DurationVar(&o.HealthInterval, "health-interval", 0, "Time between two checks (default the image's, 30s)")
	fs.DurationVar(&o.HealthTimeout, "health-timeout", 0, "Time after which a check is ended (default the image's, 30s)")
	fs.IntVar(&o.HealthRetries, "health-retries", 0, "Failures in a row that make it unhealthy (default the image's, 3)")
	fs.DurationVar(&o.HealthStartPeriod, "health-start-period", 0, "Time for which failures of a start don't count (default the image's, 0s)")
	fs.DurationVar(&o.HealthStartInterval, "health-start-interval", 0, "Time between two checks in the start period (default the image's, 5s)")
	fs.BoolVar(&o.NoHealthcheck, "no-healthcheck", false, "No health check, whatever the image says")

	// The image.
	fs.StringVar(&c.pull, "pull", "missing", "Pull the image first: always, missing, never")
	fs.BoolVarP(&c.quiet, "quiet", "q", false, "Don't print the progress of a pull")
	fs.Var((*platformText)(&o.Platform), "platform", "Platform of the image (os[/arch[/variant]])")
	a.insecureFlag(fs, &c.insecure)

	// Limits.
	fs.BoolVar(&o.LimitHints, "limit-hints", false, "Tell programs in Go of their limits: GOMEMLIMIT is 90% of the memory limit, GOMAXPROCS "+
		"the CPU quota rounded up, unless image or user set them")
	limitFlags(fs, o, &c.pids)
	fs.Int64Var(&c.swappiness, "memory-swappiness", -1, "Tune swappiness (0 to 100)")
	fs.BoolVar(&o.OOMKillDisable, "oom-kill-disable", false, "Don't kill when memory runs out")
	fs.IntVar(&o.OOMScoreAdj, "oom-score-adj", 0, "Tune the host's preference when memory runs out (-1000 to 1000)")
	strs(&o.BlkioWeightDevice, "blkio-weight-device", "", "Relative weight of block I/O of a device, 10 to 1000 (device:weight)")
	strs(&o.DeviceReadBps, "device-read-bps", "", "Limit bytes read per second (device:rate)")
	strs(&o.DeviceWriteBps, "device-write-bps", "", "Limit bytes written per second (device:rate)")
	strs(&o.DeviceReadIOps, "device-read-iops", "", "Limit reads per second (device:rate)")
	strs(&o.DeviceWriteIOps, "device-write-iops", "", "Limit writes per second (device:rate)")
	fs.StringVar(&o.CgroupParent, "cgroup-parent", "", "Parent of the container's cgroup")
	strs(&o.Ulimit, "ulimit", "", "Resource limit of processes (type=soft[:hard])")

	// Isolation.
	fs.StringVar(&c.namespaces, "ns", "", "Exactly these namespaces are new, of mount,pid,uts,ipc,net,cgroup,time,user (default all but "+
		"time and user) (list)")
	fs.StringVar(&o.PID, "pid", "", "PID namespace (host|container:ID)")
	fs.StringVar(&o.IPC, "ipc", "", "IPC namespace (host|private|shareable|none|container:ID)")
	fs.StringVar(&o.UTS, "uts", "", "UTS namespace (host)")
	fs.StringVar(&o.CgroupNS, "cgroupns", "", "Cgroup namespace (host|private)")
	fs.StringVarP(&o.Hostname, "hostname", "h", "", "Host name in the container")
	fs.StringVar(&o.Domainname, "domainname", "", "NIS domain name in the container")
	strs(&o.Sysctl, "sysctl", "", "Kernel setting of the container (key=value)")

	// Privileges.
	fs.BoolVar(&o.Privileged, "privileged", false, "Give the container all privileges")
	strs(&o.CapAdd, "cap-add", "", "Add a Linux capability")
	strs(&o.CapDrop, "cap-drop", "", "Drop a Linux capability")
	strs(&o.SecurityOpt, "security-opt", "", "no-new-privileges, seccomp=FILE|unconfined, apparmor=PROFILE")
	strs(&o.Device, "device", "", "Give the container a device of the host (host[:container[:rwm]]), or one that a CDI file describes "+
		"(vendor/class=name)")
	strs(&o.GPUs, "gpus", "", "Give the container GPUs of the host (all|count|device=index)")
	strs(&o.DeviceRule, "device-cgroup-rule", "", "Allow devices by rule (\"c 1:3 rwm\")")

	// Files.
	fs.BoolVar(&o.ReadOnly, "read-only", false, "Mount the root file system read-only")
	strs(&o.Volume, "volume", "v", "Mount a volume or a path ([source:]target[:options])")
	strs(&o.VolumesFrom, "volumes-from", "", "Mount what another container has mounted (container[:ro])")
	fs.StringVar(&o.VolumeDriver, "volume-driver", "", "Driver of volumes that are made: local")
	strs(&o.Mount, "mount", "", "Mount (type=…,source=…,target=…)")
	strs(&o.Tmpfs, "tmpfs", "", "Mount a tmpfs (path[:options])")
	kind(&o.ShmSize, "bytes", "shm-size", "", "Size of /dev/shm")
	strs(&o.StorageOpt, "storage-opt", "", "Bound what the container may write to its own layer (size=10G)")

	// Network.
	strs(&o.Network, "network", "", "Network by name, or name=NAME,alias=,ip=; also none, host, container:ID")
	strs(&o.Link, "link", "", "A name that this container alone finds another one of its network by (NAME[:ALIAS])")
	strs(&o.NetworkAlias, "network-alias", "", "Another name by which containers of the network find this one")
	strs(&o.Publish, "publish", "p", "Publish a port ([ip:][host:]container[/udp])")
	strs(&o.Expose, "expose", "", "Expose a port, which -P publishes (port[-port][/udp])")
	fs.BoolVarP(&o.PublishAll, "publish-all", "P", false, "Publish every exposed port on a free port")
	fs.StringVar(&o.IP, "ip", "", "IPv4 address")
	fs.StringVar(&o.IP6, "ip6", "", "IPv6 address")
	strs(&o.LinkLocalIP, "link-local-ip", "", "Further address of 169.254.0.0/16 or fe80::/10")
	fs.StringVar(&o.MAC, "mac-address", "", "MAC address")
	strs(&o.DNS, "dns", "", "DNS server")
	strs(&o.DNSSearch, "dns-search", "", "DNS search domain")
	strs(&o.DNSOption, "dns-option", "", "DNS option")
	strs(&o.AddHost, "add-host", "", "Add a line to /etc/hosts (`host:ip`; ip may be host-gateway)")

	rateFlags(fs, o)
	strs(&o.Egress, "egress", "", "Who the container may talk to: deny, allow, CIDR[:port[/proto]], name[:port], *.domain[:port]")
	strs(&o.Ingress, "ingress", "", "Who may talk to the container: deny, allow, CIDR[:port[/proto]], :port, a network or container")

	// Flags end at the image: what follows are the container's words, such as sh -c.
	fs.SetInterspersed(false)
	fs.SetNormalizeFunc(aliases)
}

// aliases are second names of flags, docker's too.
func aliases(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	switch name {
	case "net":
		name = "network"
	case "dns-opt":
		name = "dns-option"
	case "time":
		name = "timeout"
	}
	return pflag.NormalizedName(name)
}

// options turns parsed flags and arguments into what the engine takes.
func (c *createFlags) options(a *app, fs *pflag.FlagSet, args []string) (container.Words, error) {
	o := c.o
	switch c.pull {
	case "missing", "always", "never":
	default:
		return o, &usageError{err: fmt.Errorf("invalid pull option: '%s': must be one of \"always\", \"missing\" or \"never\"", c.pull)}
	}
	// Whether a flag was given and not its value decides here and below: --entrypoint= and --stop-timeout 0 are meant.
	if fs.Changed("rootfs") {
		o.Rootfs, o.RootfsOverlay = strings.CutSuffix(c.rootfs, ":O")
		if o.Rootfs == "" {
			return o, &usageError{err: errors.New("--rootfs: the directory is empty")}
		}
		o.Command = args
	} else {
		if len(args) == 0 {
			return o, &usageError{errors.New("an image (or --rootfs) is needed"), 1}
		}
		o.Image, o.Command = args[0], args[1:]
	}
	if fs.Changed("entrypoint") {
		o.Entrypoint = &c.entrypoint
	}
	if fs.Changed("stop-timeout") {
		o.StopTimeout = &c.stop
	}
	if c.swappiness != -1 {
		o.MemorySwappiness = &c.swappiness
	}
	if fs.Changed("pids-limit") {
		o.PidsLimit = &c.pids
	}
	if fs.Changed("ns") {
		o.Namespaces = strings.FieldsFunc(c.namespaces, func(r rune) bool { return r == ',' || r == ' ' })
		if o.Namespaces == nil {
			// None at all, other than not to say: compile tells the two apart by nil.
			o.Namespaces = []string{}
		}
	}
	o.Flags = typed(fs)
	o.Environ = a.environ
	if o.TTY {
		o.ConsoleSize = a.consoleSize()
	}
	var err error
	o.Dir, err = os.Getwd()
	return o, err
}

// typed gives each flag that was set as one would type it, by its long name: -m 50m and --memory=50m are one origin.
func typed(fs *pflag.FlagSet) map[string]string {
	m := map[string]string{}
	fs.VisitAll(func(f *pflag.Flag) {
		if !f.Changed {
			return
		}
		switch v := f.Value.(type) {
		case list:
			words := make([]string, len(*v.to))
			for i, s := range *v.to {
				words[i] = "--" + f.Name + "=" + s
			}
			m[f.Name] = strings.Join(words, " ")
		default:
			// A flag that may stand without a value is given without one where it has that.
			m[f.Name] = "--" + f.Name
			if f.NoOptDefVal == "" || v.String() != f.NoOptDefVal {
				m[f.Name] += "=" + v.String()
			}
		}
	})
	return m
}

// create makes the container and writes its ID file.
func (c *createFlags) create(ctx context.Context, a *app, e *engine.Engine, o container.Words) (*container.Container, error) {
	if o.CIDFile == "" {
		return c.make(ctx, a, e, o)
	}
	// O_EXCL, and before the container is made: of two runs with the same file one fails, and leaves nothing behind.
	f, err := os.OpenFile(o.CIDFile, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("container ID file found, make sure the other container isn't running or delete %s", o.CIDFile)
	}
	if err != nil {
		return nil, fmt.Errorf("container ID file: %w", err)
	}
	defer f.Close()
	made, err := c.make(ctx, a, e, o)
	if err == nil {
		_, err = f.WriteString(made.ID)
	}
	if err != nil {
		os.Remove(o.CIDFile)
	}
	return made, err
}

// make makes the container, pulling the image where the policy says so.
func (c *createFlags) make(ctx context.Context, a *app, e *engine.Engine, o container.Words) (*container.Container, error) {
	co, err := createOptions(o) // before anything is pulled or made
	co.Starts = c.starts
	if err != nil {
		return nil, err
	}
	if o.Image != "" && c.pull == "always" {
		if err := c.fetch(ctx, a, e, o); err != nil {
			return nil, err
		}
	}
	done := a.timed("create the container")
	made, err := e.Create(ctx, co)
	done()
	if o.Image != "" && c.pull == "missing" && (errors.Is(err, image.ErrNotFound) || errors.Is(err, image.ErrPlatform)) {
		if !c.quiet {
			fmt.Fprintf(a.err, "Unable to find image '%s' locally\n", familiar(o.Image))
		}
		if err := c.fetch(ctx, a, e, o); err != nil {
			return nil, err
		}
		made, err = e.Create(ctx, co)
	}
	return made, err
}

// createOptions reads what words mean.
func createOptions(w container.Words) (engine.CreateOptions, error) {
	config, err := engine.ReadWords(w)
	if err != nil {
		return engine.CreateOptions{}, err
	}
	return engine.CreateOptions{Name: w.Name, Config: *config}, nil
}

// fetch pulls the image of a container. Progress goes to stderr: stdout is the container's.
func (c *createFlags) fetch(ctx context.Context, a *app, e *engine.Engine, o container.Words) error {
	defer fork.Timed(a.trace, "command", "pulls the image")()
	platform, err := image.ParsePlatform(o.Platform)
	if err != nil {
		return err
	}
	p := pull{platform: platform, insecure: c.insecure, quiet: c.quiet, progress: a.err}
	_, err = p.do(ctx, a, e, o.Image)
	return err
}

// familiar writes a reference as docker prints it; what is no reference stays as it is.
func familiar(name string) string {
	ref, err := image.ParseRef(name)
	if err != nil {
		return name
	}
	return ref.Familiar()
}

// consoleSize is rows and columns of the caller's terminal, or zeros.
func (a *app) consoleSize() [2]uint16 {
	// Any of them: with output or input in a pipe the window is still the one that a person looks at.
	for _, f := range []*os.File{a.out, a.in, a.err} {
		if cols, rows, err := term.GetSize(int(f.Fd())); err == nil {
			return [2]uint16{uint16(rows), uint16(cols)}
		}
	}
	return [2]uint16{}
}

func (a *app) createCommand() *cobra.Command {
	var c createFlags
	var attach []string
	cmd := &cobra.Command{
		Use:   "create [OPTIONS] IMAGE [COMMAND] [ARG...]",
		Short: "Make a container without starting it",
		Example: `  glassbox create --name web -p 8080:80 nginx
  glassbox start -a web`,
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkAttach(attach); err != nil {
				return err
			}
			o, err := c.options(a, cmd.LocalNonPersistentFlags(), args)
			if err != nil {
				return err
			}
			e, err := a.open()
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			made, err := c.create(ctx, a, e, o)
			if err != nil {
				return err
			}
			fmt.Fprintln(a.out, made.ID)
			return nil
		},
	}
	c.register(cmd.Flags(), a)
	cmd.Flags().VarP(list{&attach}, "attach", "a", "Attach to STDIN, STDOUT or STDERR (taken note of by run only)")
	return cmd
}
