// Package spec writes the OCI configuration of a container: from what was asked for (package container), what its image says, what the host
// can do (host.Facts) and what the host answered to the questions that the container raises ([Answers]).
//
// Its one idea: the questions are asked first, by the engine, and then one pure function writes the configuration. The same input gives the
// same configuration on any machine, so its tests are golden files, and a test by reflection shows that no field of container.Config is
// accepted and ignored. With the configuration it returns where each part of it comes from, for the plan to print.
//
// It refuses what this host or this combination of flags can't give, with a sentence that names the flag. It asks nothing, opens nothing,
// and changes nothing.
//
// Start reading at [Write].
package spec

import (
	"fmt"
	"path"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	cdi "tags.cncf.io/container-device-interface/specs-go"

	"glassbox/compile"
	"glassbox/container"
	"glassbox/host"
	"glassbox/plan"
)

// InitPath is where the init of --init is in the container.
const InitPath = "/dev/init"

// Input is all that a configuration depends on.
type Input struct {
	Container *container.Container
	Facts     *host.Facts
	Answers   Answers
	Root      string   // the store; layers and the container's directory are below it
	Dir       string   // the container's directory, relative to Root
	Layers    []string // directories of the layers, relative to Root, lowest first
	Runtime   string   // path of glassbox-runtime, which is also the init of --init
}

// Answers is what the host said to the questions of one container. Fields whose question the container doesn't raise are empty.
type Answers struct {
	Hostname       string               // the host's own, for --network host
	Passwd, Group  []byte               // /etc/passwd and /etc/group as the container will see them; nil where there is none
	Devices        map[string][]Node    // by container.Device.Host: the node, or those below a directory
	AllDevices     []Node               // of --privileged: those below /dev
	Blocks         map[string]Node      // by the path of a throttle
	SeccompProfile []byte               // contents of the file that Security.Seccomp names
	Shared         map[string]Process   // by kind of namespace (pid, ipc, net): the process of the container that has it
	EtcFiles       []string             // of a plain directory as root: which of resolv.conf, hosts, hostname it has as regular files in /etc
	SwapAccounting bool                 // the kernel counts swap, so that a limit on it can be set
	Used           bool                 // the container has run before: volumes of its own directory have what the image has there
	Volumes        map[string]Volume    // by name; one that is missing is new
	Owners         map[string][2]uint32 // by the target of a mount with idmap: whose its files are on the host
	CDI            []DeviceEdits        // what the files of the host want for Config.Requests, in order
	Images         map[string][]string  // by the target of an image's mount: its layers' directories, relative to Root, lowest first
}

// Volume is what the host says of a volume.
type Volume struct {
	Source string          // the directory that is mounted; empty: that of a volume without options, below Root
	Filled bool            // it has files, or begins without what the image has
	Device bool            // its files lie elsewhere: a copy can't be prepared beside them
	Mount  *plan.HostMount // a file system that is mounted at Source while containers use it
}

// DeviceEdits is what a file of the host wants for one of its devices, or for all of them (CDI's specification, containerEdits). Type and
// number of device nodes are those of the host's.
type DeviceEdits struct {
	Device string // VENDOR/CLASS=NAME; empty: for all devices of the file
	File   string
	Edits  *cdi.ContainerEdits
	Origin string // of the request
}

// Node is a device node of the host.
type Node struct {
	Path         string // on the host
	Type         string // b or c
	Major, Minor int64
	Mode         uint32 // permissions
	UID, GID     uint32
}

// Process is the first process of another container.
type Process struct {
	Container string // ID
	PID       int    // 0: it doesn't run
	Hostname  string // for net: its name, which goes with the network
}

// Output is a container's OCI configuration and what the configuration can't say.
type Output struct {
	Spec *specs.Spec
	// Origins holds by JSON pointer into Spec where a part comes from.
	Origins     map[string]string
	SeccompName string        // of the profile; empty: there is no filter
	Overlay     *plan.Overlay // nil: a plain directory
	Quota       *plan.Quota   `json:",omitempty"` // of the overlay's own layer; nil: the disk is its bound
	Mountpoint  string
	Network     string // bridge, none, host, or the id of another container
	// Mounts says by destination what the configuration has no words for.
	Mounts   map[string]compile.MountExtra
	Warnings []string
}

// writer writes one configuration.
type writer struct {
	Input
	c         *container.Config
	spec      *specs.Spec
	out       *Output
	seenMount map[string]int
}

// Write writes the configuration of a container. Its errors are of the kinds of package container.
func Write(in Input) (*Output, error) {
	w := newWriter(in)
	for _, part := range []func() error{
		w.rootfs, w.namespaces, w.process, w.capabilities, w.security, w.mounts, w.devices, w.deviceEdits, w.resources, w.sysctls,
	} {
		if err := part(); err != nil {
			return nil, err
		}
	}
	return w.out, nil
}

func newWriter(in Input) *writer {
	s := &specs.Spec{
		Version: "1.2.0", Annotations: in.Container.Config.Annotations, Process: &specs.Process{},
		Linux: &specs.Linux{Resources: &specs.LinuxResources{}},
	}
	return &writer{
		Input: in, c: &in.Container.Config, spec: s, out: &Output{
			Spec: s, Origins: map[string]string{"": "default"},
			Mounts: map[string]compile.MountExtra{},
		},
		seenMount: map[string]int{},
	}
}

// Privileges gives a further process of a container the capabilities of its first one, unless it has some, and the filter.
func Privileges(in Input, p *specs.Process) (*Output, error) {
	w := newWriter(in)
	w.spec.Process = p
	if p.Capabilities == nil {
		if err := w.capabilities(); err != nil {
			return nil, err
		}
	}
	if err := w.security(); err != nil {
		return nil, err
	}
	return w.out, nil
}

// Overlay is the part of the configuration that says what the container's root is made of.
func Overlay(in Input) (*plan.Overlay, error) {
	w := newWriter(in)
	if err := w.rootfs(); err != nil {
		return nil, err
	}
	return w.out.Overlay, nil
}

// from notes that the part of the configuration at a pointer comes from a flag; without the flag it comes from otherwise.
func (w *writer) from(pointer, flag, otherwise string) {
	if text := w.c.Origin(flag); text != "" {
		w.out.Origins[pointer] = text
	} else if otherwise != "" {
		w.out.Origins[pointer] = otherwise
	}
}

// origin notes where a part comes from, if it says so itself.
func (w *writer) origin(pointer, text string) {
	if text != "" {
		w.out.Origins[pointer] = text
	}
}

func (w *writer) dir(name string) string { return path.Join(w.Root, w.Dir, name) }

func (w *writer) rootfs() error {
	c := w.c
	w.out.Mountpoint = w.dir("merged")
	w.spec.Root = &specs.Root{Path: w.out.Mountpoint, Readonly: c.ReadOnly}
	w.from("/root/readonly", "read-only", "")
	w.from("/root", "rootfs", "image "+c.Image)
	rel := w.Dir + "/"
	var lower []string
	switch {
	case c.Rootfs != nil && !c.Rootfs.Overlay:
		w.spec.Root.Path = c.Rootfs.Dir
		return nil
	case c.Rootfs != nil:
		lower = []string{c.Rootfs.Dir}
	default:
		if img := w.Container.Image; img != nil && img.Architecture != "" && img.Architecture != w.Facts.Arch {
			w.out.Warnings = append(w.out.Warnings,
				fmt.Sprintf("the image's platform (%s) is not this machine's (linux/%s)", img.Platform, w.Facts.Arch))
		}
		for i := len(w.Layers) - 1; i >= 0; i-- {
			lower = append(lower, w.Layers[i])
		}
		if len(lower) == 0 {
			lower = []string{rel + "merged"} // an image without layers is an empty directory
		}
	}
	if len(lower) > 500 { // OVL_MAX_STACK of fs/overlayfs
		return container.Unsupported("image %s has %d layers; overlay file systems take 500", c.Image, len(lower))
	}
	if l := w.Container.Layer; l != nil {
		w.out.Quota = &plan.Quota{Dirs: []string{w.dir("upper"), w.dir("work")}, Project: l.Project, Bytes: l.Bytes}
		w.from(compile.QuotaPointer, "storage-opt", "GLASSBOX_STORAGE_OPT")
	}
	ov := &plan.Overlay{Dir: w.Root, Lower: lower, Upper: rel + "upper", Work: rel + "work", Target: w.out.Mountpoint}
	size := len("lowerdir=,upperdir=,workdir=") + len(ov.Upper) + len(ov.Work) + 64
	special := false
	for _, l := range lower {
		size += len(l) + 1
		special = special || strings.ContainsAny(l, ":,\\")
	}
	// mount(2) takes a page of options, in which colons part the layers. Since Linux 6.5 each layer can be an option of its own
	// (lowerdir+ of fsconfig(2)), without an end and without special characters.
	if size > 4000 || special {
		if !w.Facts.Kernel.AtLeast(6, 5) {
			if special {
				return container.Unsupported("--rootfs %s: before Linux 6.5 an overlay can't be made of a path with a colon, comma or backslash",
					c.Rootfs.Dir)
			}
			return container.Unsupported("image %s has %d layers: before Linux 6.5 overlay options end at 4095 bytes, about 190 layers",
				c.Image, len(lower))
		}
		ov.Append = true
	}
	if c.Remove && w.Facts.Kernel.AtLeast(5, 10) {
		ov.Options = append(ov.Options, "volatile") // nothing has to reach the disk: the directory goes with the container
	}
	w.out.Overlay = ov
	return nil
}
