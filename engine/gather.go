package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"glassbox/container"
	"glassbox/host"
	"glassbox/host/beneath"
	"glassbox/image"
	"glassbox/spec"
	"glassbox/supervise"
)

// specification writes the OCI configuration of a container: it asks the host what the container needs to know and leaves the rest to
// package spec. It reads the image, the caller's files and device nodes, and changes nothing.
func (e *Engine) specification(ctx context.Context, c *container.Container, img *image.Image, facts *host.Facts) (*spec.Output, error) {
	defer timed(ctx, "writes the specification: user, capabilities, filter, mounts")()
	answers, err := e.gather(ctx, c, img, facts)
	if err != nil {
		return nil, err
	}
	return spec.Write(e.specInput(c, img, facts, answers))
}

func (e *Engine) specInput(c *container.Container, img *image.Image, facts *host.Facts, answers *spec.Answers) spec.Input {
	in := spec.Input{
		Container: c, Facts: facts, Root: e.cfg.Root, Dir: filepath.Join("containers", c.ID), Runtime: e.cfg.Runtime,
	}
	if answers != nil {
		in.Answers = *answers
	}
	if img != nil {
		in.Layers = append(in.Layers, image.BaseLayer)
		for _, l := range img.Layers {
			in.Layers = append(in.Layers, l.Dir)
		}
	}
	return in
}

// imageOf finds the image of a container: the very one that it was made from. Nil for one on a plain directory.
func (e *Engine) imageOf(c *container.Container) (*image.Image, error) {
	if c.Config.Rootfs != nil {
		return nil, nil
	}
	// By digest and not by the name that was typed: a tag that was moved since, or removed, must not change what the container is.
	if c.ImageID != "" { // a container that was made has its image
		return e.images.Resolve(c.ImageID)
	}
	platform, err := image.ParsePlatform(c.Config.Platform)
	if err != nil {
		return nil, err
	}
	return e.images.ResolveFor(c.Config.Image, platform)
}

// imageWords is what a container keeps of its image's configuration. With ports (-P) those that the image exposes must be sound; else
// nobody needs them.
func imageWords(img *image.Image, ports bool) (*container.Image, error) {
	c := img.Config.Config
	out := &container.Image{
		Env: c.Env, Entrypoint: c.Entrypoint, Cmd: c.Cmd, User: c.User, WorkingDir: c.WorkingDir, Labels: c.Labels, StopSignal: c.StopSignal,
		Platform: img.Platform.String(), Architecture: img.Platform.Architecture,
	}
	// Images are foreign: what their configuration says of ports, volumes and health is checked here, before it is stored as a container's.
	exposed, err := img.ExposedPorts()
	if err != nil && ports {
		return nil, invalid("%w", err)
	}
	for _, port := range exposed {
		out.ExposedPorts = append(out.ExposedPorts, port.String())
	}
	if out.Volumes, err = img.Volumes(); err != nil {
		return nil, invalid("%w", err)
	}
	check, err := img.Healthcheck()
	if err != nil {
		return nil, invalid("%w", err)
	}
	if check != nil {
		out.Health = container.Health{
			Test: check.Test, Interval: check.Interval, Timeout: check.Timeout, StartPeriod: check.StartPeriod,
			StartInterval: check.StartInterval, Retries: check.Retries,
		}
	}
	return out, nil
}

// gather asks the host the questions that a container raises.
func (e *Engine) gather(ctx context.Context, c *container.Container, img *image.Image, facts *host.Facts) (*spec.Answers, error) {
	a := &spec.Answers{Passwd: e.readFile(c, img, "/etc/passwd"), Group: e.readFile(c, img, "/etc/group")}
	if c.Network() == "host" {
		// With the host's network comes the host's name, as with Docker: what resolves there would not find another one.
		a.Hostname, _ = os.Hostname()
	}
	// Docker gives as much swap as memory where only memory is limited; whether the kernel counts swap at all is a question of its command
	// line.
	if l := &c.Config.Limits; l.Memory != 0 && l.MemorySwap == 0 {
		a.SwapAccounting = swapAccounting(facts)
	}
	// It may be the image's, and is needed when somebody wants the container to stop: too late to find out that it means nothing.
	if _, err := ParseSignal(c.StopSignal()); err != nil {
		return nil, err
	}
	if err := gatherProfile(c, a); err != nil {
		return nil, err
	}
	for _, part := range []func(*container.Container, *spec.Answers) error{
		e.gatherRootfs,
		func(c *container.Container, a *spec.Answers) error { return e.gatherMounts(ctx, c, a) },
		e.gatherDevices,
		e.gatherCDI,
	} {
		if err := part(c, a); err != nil {
			return nil, err
		}
	}
	return a, e.gatherShared(ctx, c, a)
}

// gatherProfile finds the text of a system call filter. The file is read once, when the container is made, and kept with it: it is the
// caller's, and may be gone or another one when the container is started again, or when something is run in it.
func gatherProfile(c *container.Container, a *spec.Answers) error {
	s := &c.Config.Security
	switch s.Seccomp {
	case "", "unconfined", "default", "builtin":
		return nil
	}
	if s.Profile == "" {
		data, err := os.ReadFile(s.Seccomp)
		if err != nil {
			return invalid("opening seccomp profile (%s) failed: %v", s.Seccomp, errOf(err))
		}
		var text bytes.Buffer
		if err := json.Compact(&text, data); err != nil {
			return invalid("seccomp profile %s: %v", s.Seccomp, err)
		}
		s.Profile = text.String()
	}
	a.SeccompProfile = []byte(s.Profile)
	return nil
}

// privileges gives a further process of a container its capabilities, unless it has some, and its filter.
func (e *Engine) privileges(c *container.Container, facts *host.Facts, p *specs.Process) (*spec.Output, error) {
	var a spec.Answers
	if err := gatherProfile(c, &a); err != nil {
		return nil, err
	}
	return spec.Privileges(e.specInput(c, nil, facts, &a), p)
}

func (e *Engine) gatherRootfs(c *container.Container, a *spec.Answers) error {
	r := c.Config.Rootfs
	if r == nil {
		return nil
	}
	st, err := os.Stat(r.Dir)
	if err != nil {
		return invalid("--rootfs: %s: %v", r.Dir, errOf(err))
	}
	if !st.IsDir() {
		return invalid("--rootfs %s: it is no directory", r.Dir)
	}
	// The directory is the user's, but what lies in it may have been written by a container: /etc can be a link that leads out of it.
	root, err := os.OpenRoot(r.Dir)
	if err != nil {
		return invalid("--rootfs %s: %v", r.Dir, errOf(err))
	}
	defer root.Close()
	for _, name := range []string{"resolv.conf", "hostname", "hosts"} {
		if st, err := root.Lstat("etc/" + name); err == nil && st.Mode().IsRegular() {
			a.EtcFiles = append(a.EtcFiles, name)
		}
	}
	return nil
}

// gatherLayers finds the layers of an image that is mounted.
func (e *Engine) gatherLayers(c *container.Container, m *container.Mount, a *spec.Answers) error {
	img, err := e.images.Resolve(c.ImageOf(m))
	if errors.Is(err, image.ErrNotFound) { // only the image that a container is made of is fetched without being asked
		return invalid("%s: no such image: %s\nhint: fetch it first: glassbox pull %[2]s", m.Origin, m.Source)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", m.Origin, err)
	}
	if c.ImageMounts == nil {
		c.ImageMounts = map[string]string{}
	}
	c.ImageMounts[m.Target] = img.ID // whatever becomes of the name
	dirs := []string{image.BaseLayer}
	for _, l := range img.Layers {
		dirs = append(dirs, l.Dir)
	}
	if len(dirs) == 1 {
		return invalid("%s: image %s has no layers, there is nothing to mount", m.Origin, m.Source)
	}
	if a.Images == nil {
		a.Images = map[string][]string{}
	}
	a.Images[m.Target] = dirs
	return nil
}

// aroundRoot makes what is mounted in a container from the engine's own directory, or from one above it, follow the host, as Docker does: a
// copy of the mounts there that nothing can take away again would keep them busy for as long as the container lives.
func (e *Engine) aroundRoot(c *container.Container) error {
	var roots []string
	for i := range c.Config.Mounts {
		m := &c.Config.Mounts[i]
		if m.Type != container.Bind || m.Recursive == container.RecursiveReadOnly {
			continue
		}
		if roots == nil { // a start without a bind looks for nothing
			roots = []string{path.Clean(e.cfg.Root)}
			if real, err := filepath.EvalSymlinks(e.cfg.Root); err == nil && real != roots[0] {
				roots = append(roots, real)
			}
		}
		source := path.Clean(m.Source)
		if !slices.ContainsFunc(roots, func(root string) bool { return host.Under(source, root) || host.Under(root, source) }) {
			continue
		}
		switch m.Propagation {
		case "":
			m.Propagation = "rslave"
		case "rslave", "rshared":
		default:
			return invalid("%s: %s contains, or lies in, the engine's own directory %s: its propagation must be rslave or rshared, not %s",
				m.Origin, m.Source, roots[0], m.Propagation)
		}
	}
	return nil
}

// gatherMounts looks whether the sources of bind mounts are there, and whether volumes were in use.
func (e *Engine) gatherMounts(ctx context.Context, c *container.Container, a *spec.Answers) error {
	if err := e.aroundRoot(c); err != nil {
		return err
	}
	for _, m := range c.Mounts() {
		if m.Type == container.Layers {
			if err := e.gatherLayers(c, &m, a); err != nil {
				return err
			}
		}
		// -v makes a directory where there is none, --mount refuses: Docker's difference, which scripts rely on.
		if m.Type != container.Bind || m.MakeSource {
			continue
		}
		if _, err := os.Stat(m.Source); err != nil {
			return invalid("%s: bind source path does not exist: %w (--mount makes none, -v does)", m.Origin, errOf(err))
		}
	}
	// Version 2 kept a VOLUME as a directory of the container, whose first use is its first start. Later ones are volumes,
	// which know for themselves whether they were filled.
	if c.Version == 2 {
		s, err := supervise.ReadState(e.dir(c.ID))
		// A volume is filled from the image before its first use only: what a program has deleted there must not come back.
		a.Used = err == nil && !s.Started.IsZero()
	}
	return e.gatherVolumes(ctx, c, a)
}

func (e *Engine) gatherDevices(c *container.Container, a *spec.Answers) error {
	if c.Config.Privileged {
		a.AllDevices = hostDevices("/dev")
	}
	for _, d := range c.Config.Devices {
		st, err := os.Stat(d.Host)
		if err != nil {
			return invalid("%s: error gathering device information: %v", d.Origin, errOf(err))
		}
		if a.Devices == nil {
			a.Devices = map[string][]spec.Node{}
		}
		if st.IsDir() {
			// --device /dev/snd: every node below it, as with Docker.
			a.Devices[d.Host] = hostDevices(d.Host)
		} else if n, ok := nodeOf(d.Host); ok {
			a.Devices[d.Host] = []spec.Node{n}
		}
	}
	l := &c.Config.Limits
	for _, t := range slices.Concat(l.BlkioWeights, l.ReadBps, l.WriteBps, l.ReadIOps, l.WriteIOps) {
		if n, ok := nodeOf(t.Device); ok {
			if a.Blocks == nil {
				a.Blocks = map[string]spec.Node{}
			}
			a.Blocks[t.Device] = n
		}
	}
	return nil
}

// sharing is a kind of namespace that a container shares with another.
type sharing struct{ kind, ref string }

// shares lists what a container shares.
func shares(c *container.Container) []sharing {
	var out []sharing
	n := c.Config.Namespaces
	for kind, mode := range map[string]container.Mode{
		"pid": n.PID, "ipc": n.IPC, "uts": n.UTS, "cgroup": n.Cgroup,
		"net": container.Mode(c.Network()),
	} {
		if ref := mode.Container(); ref != "" {
			out = append(out, sharing{kind, ref})
		}
	}
	return out
}

// resolveShares puts the IDs of other containers in the place of their names: a container that is renamed, or another that gets its name,
// must not change whose namespaces are shared.
func (e *Engine) resolveShares(ctx context.Context, c *container.Container) error {
	n := &c.Config.Namespaces
	modes := []*container.Mode{&n.PID, &n.IPC, &n.UTS, &n.Cgroup}
	var network container.Mode
	if len(c.Config.Endpoints) > 0 {
		// The slice is shared with whoever called Create, who may use it for the next container.
		c.Config.Endpoints = slices.Clone(c.Config.Endpoints)
		network = container.Mode(c.Config.Endpoints[0].Network)
		defer func() { c.Config.Endpoints[0].Network = string(network) }()
		modes = append(modes, &network)
	}
	for _, m := range modes {
		if ref := m.Container(); ref != "" {
			id, err := e.find(ctx, ref)
			if m == &network && errors.Is(err, ErrNotFound) {
				continue // as with Docker it may be made later, with that name: whoever starts this one finds out
			}
			if err != nil {
				return err
			}
			*m = container.Mode("container:" + id)
		}
	}
	return nil
}

// gatherShared finds the containers whose namespaces are shared. One that doesn't run has no process: that is for whoever starts to refuse
// (see sharesRun), because a container may be made before the other one is started.
func (e *Engine) gatherShared(ctx context.Context, c *container.Container, a *spec.Answers) error {
	for _, s := range shares(c) {
		if a.Shared == nil {
			a.Shared = map[string]spec.Process{}
		}
		other, state, err := e.load(ctx, s.ref)
		if s.kind == "net" && errors.Is(err, ErrNotFound) { // see resolveShares
			a.Shared[s.kind] = spec.Process{Container: s.ref}
			continue
		}
		if err != nil {
			return err
		}
		// Shared memory is private unless its owner says otherwise (docker run --ipc): another container's secrets may lie in it.
		if s.kind == "ipc" && !shareable(other) {
			return invalid("cannot join IPC of a container %s: non-shareable IPC (hint: make the donor container with --ipc shareable)", other.ID)
		}
		p := spec.Process{Container: other.ID, PID: state.PID}
		if s.kind == "net" {
			if p.Hostname, err = e.hostnameOf(ctx, other); err != nil {
				return err
			}
		}
		a.Shared[s.kind] = p
	}
	return nil
}

// shareable reports whether others may have a container's IPC namespace and its /dev/shm: if it was made for that, or has those of another
// one or of the host itself. One that was given something else in the place of /dev/shm has none to share, as with Docker.
func shareable(c *container.Container) bool {
	own := func(target string) bool { return path.Clean(target) == "/dev/shm" }
	ipc := c.Config.Namespaces.IPC
	return (ipc == "shareable" || ipc.IsHost() || ipc.Container() != "") &&
		!slices.ContainsFunc(c.Mounts(), func(m container.Mount) bool { return own(m.Target) })
}

// sharesRun makes sure that the containers run whose namespaces are shared.
func (e *Engine) sharesRun(ctx context.Context, c *container.Container) error {
	for _, s := range shares(c) {
		if _, _, err := e.running(ctx, s.ref); err != nil {
			return err
		}
	}
	return nil
}

// hostnameOf is the name that a container has: with another's network that one's, as with Docker. It is taken from what the containers
// are, not from their files, which they may have changed.
func (e *Engine) hostnameOf(ctx context.Context, c *container.Container) (string, error) {
	for range 100 { // a chain of containers, each made after the next one
		switch ref := container.Mode(c.Network()).Container(); {
		case c.Config.Hostname != "":
			return c.Config.Hostname, nil
		case c.Network() == "host":
			return os.Hostname()
		case ref == "":
			return c.Hostname(), nil
		default:
			other, _, err := e.load(ctx, ref)
			if errors.Is(err, ErrNotFound) { // it is gone, and its network lives on in the others
				return c.Hostname(), nil
			}
			if err != nil {
				return "", err
			}
			c = other
		}
	}
	return c.Hostname(), nil
}

// readFile reads a file as the container will see it: its own changes first, then the image's layers. Nil if there is none.
func (e *Engine) readFile(c *container.Container, img *image.Image, name string) []byte {
	const most = 16 << 20
	r := c.Config.Rootfs
	if r != nil && !r.Overlay {
		data, _ := beneath.ReadFile(r.Dir, name, most) // what is no file counts as none
		return data
	}
	dirs, err := e.stack(c, img)
	if err != nil {
		return nil
	}
	data, _ := image.ReadMerged(dirs, name, most)
	return data
}

// stack are the directories that a container's root is made of, top first.
func (e *Engine) stack(c *container.Container, img *image.Image) (dirs []string, err error) {
	r := c.Config.Rootfs
	if r != nil && !r.Overlay {
		return []string{r.Dir}, nil
	}
	if upper := filepath.Join(e.dir(c.ID), "upper"); c.ID != "" && isDir(upper) {
		dirs = append(dirs, upper)
	}
	if r != nil {
		// The directory's own path is the user's and is followed once, here; below it names are the container's, and ReadMerged follows none of
		// them.
		rootfs, err := filepath.EvalSymlinks(r.Dir)
		return append(dirs, rootfs), err
	}
	if img != nil {
		for _, l := range slices.Backward(img.Layers) {
			dirs = append(dirs, filepath.Join(e.cfg.Root, l.Dir))
		}
	}
	return dirs, nil
}

func isDir(name string) bool {
	st, err := os.Lstat(name)
	return err == nil && st.IsDir()
}

// errOf is the reason of a failed system call, without the path, which the sentence has already.
func errOf(err error) error {
	if pe, ok := err.(*fs.PathError); ok {
		return pe.Err
	}
	return err
}

// nodeOf reads what a device node of the host is.
func nodeOf(name string) (spec.Node, bool) {
	var st unix.Stat_t
	// Links are followed on purpose: /dev/disk/by-id and the like are how people name devices.
	if err := unix.Stat(name, &st); err != nil {
		return spec.Node{}, false
	}
	n := spec.Node{
		Path: name, Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev)), Mode: st.Mode & 0o777, UID: st.Uid, GID: st.Gid,
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		n.Type = "c"
	case unix.S_IFBLK:
		n.Type = "b"
	default:
		return n, false
	}
	return n, true
}

// hostDevices lists the device nodes of a directory, but for terminals and what the container has of its own.
func hostDevices(dir string) []spec.Node {
	var out []spec.Node
	filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // a device that vanishes, or can't be seen
		}
		if d.IsDir() {
			switch name {
			// A privileged container has its own of these; the host's terminals would be the way out of it that nobody asked for.
			case "/dev/pts", "/dev/shm", "/dev/fd", "/dev/mqueue", "/dev/.lxc", "/dev/.lxd-mounts", "/dev/.udev":
				return fs.SkipDir
			}
			return nil
		}
		switch name {
		case "/dev/console", "/dev/ptmx", spec.InitPath:
			return nil
		}
		if d.Type()&fs.ModeDevice != 0 {
			if n, ok := nodeOf(name); ok {
				out = append(out, n)
			}
		}
		return nil
	})
	return out
}

// swapAccounting says whether the kernel counts swap, so that a limit on it can be set. On v1 there is a file in the root; the
// root of v2 has none, and there the kernel's configuration and command line tell.
func swapAccounting(facts *host.Facts) bool {
	for _, h := range facts.Cgroup.Hierarchies {
		switch {
		case slices.Contains(h.Files, "memory.memsw.limit_in_bytes"):
			return true
		case h.V2 && slices.Contains(h.Controllers, "memory"):
			// The file exists where CONFIG_SWAP is on. Accounting is the default since Linux 5.8 on v2, and the command line can switch it off.
			if _, err := os.Stat("/proc/swaps"); err != nil {
				return false
			}
			line, _ := os.ReadFile("/proc/cmdline")
			return !slices.Contains(strings.Fields(string(line)), "swapaccount=0")
		}
	}
	return false
}

// readLines reads what options name by file into the words, so that the container stands on its own.
func readLines(w *container.Words) error {
	for _, l := range []struct {
		files *[]string
		to    *[]string
	}{{&w.EnvFile, &w.Env}, {&w.LabelFile, &w.Label}} {
		var lines []string
		for _, name := range *l.files {
			more, err := readEnvFile(name)
			if err != nil {
				return err
			}
			lines = append(lines, more...)
		}
		*l.to, *l.files = append(lines, *l.to...), nil
	}
	// Relative sources of -v mean the caller's directory. An API has no such directory and gives it in its words.
	if w.Dir == "" {
		w.Dir, _ = os.Getwd()
	}
	return nil
}

// ReadWords reads a container's words: the files that they name, then what they mean.
func ReadWords(w container.Words) (*container.Config, error) {
	if err := readLines(&w); err != nil {
		return nil, err
	}
	return w.Config()
}
