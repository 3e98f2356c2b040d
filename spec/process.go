package spec

import (
	"fmt"
	"path"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"glassbox/container"
)

// process describes the container's first process.
func (w *writer) process() error {
	c, p, ct := w.c, w.spec.Process, w.Container
	if err := w.command(); err != nil {
		return err
	}
	p.Terminal = c.TTY
	w.from("/process/terminal", "tty", "")
	if c.TTY && c.ConsoleSize[0] > 0 {
		p.ConsoleSize = &specs.Box{Height: uint(c.ConsoleSize[0]), Width: uint(c.ConsoleSize[1])}
	}

	// The user, by the container's own files.
	if c.User == "" && ct.User() != "" {
		w.out.Origins["/process/user"] = "image config"
	}
	w.from("/process/user", "user", "")
	u, err := LookupUser(ct.User(), c.Groups, w.Answers.Passwd, w.Answers.Group)
	if err != nil {
		return err
	}
	p.User = specs.User{UID: u.UID, GID: u.GID, AdditionalGids: append([]uint32{u.GID}, u.Groups...)}

	base := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=" + w.spec.Hostname}
	if w.spec.Hostname == "" {
		base = base[:1]
	}
	if c.TTY {
		base = append(base, "TERM=xterm")
	}
	var fromImage []string
	if ct.Image != nil {
		fromImage = ct.Image.Env
	}
	if p.Env, err = SetEnv(base, nil, fromImage, c.Env); err != nil {
		return err
	}
	if home, ok := container.LookupEnv(p.Env, "HOME"); !ok {
		p.Env = append(p.Env, "HOME="+u.Home)
	} else if home == "" {
		p.Env, _ = SetEnv(p.Env, nil, []string{"HOME=" + u.Home}) // as runc: an empty HOME is none
	}

	p.Cwd = "/"
	if dir := ct.Workdir(); dir != "" {
		p.Cwd = path.Clean("/" + dir)
		if c.Workdir == "" {
			w.out.Origins["/process/cwd"] = "image config"
		} else {
			w.from("/process/cwd", "workdir", "")
		}
	}
	for i, u := range c.Limits.Ulimits {
		p.Rlimits = append(p.Rlimits, specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(u.Name), Soft: u.Soft, Hard: u.Hard})
		w.origin(fmt.Sprintf("/process/rlimits/%d", i), u.Origin)
	}
	if c.Limits.OOMScoreAdj != 0 {
		p.OOMScoreAdj = &c.Limits.OOMScoreAdj
		w.from("/process/oomScoreAdj", "oom-score-adj", "")
	}
	return nil
}

// command writes the program and its arguments.
func (w *writer) command() error {
	c := w.c
	w.out.Origins["/process/args"] = "image config"
	if c.Entrypoint != nil {
		w.from("/process/args", "entrypoint", "")
	}
	if len(c.Command) > 0 {
		w.out.Origins["/process/args"] = "command line"
	}
	args := w.Container.Args()
	if len(args) == 0 {
		return container.Invalid("no command specified, and the image %s has none", c.Image)
	}
	if args[0] == "" {
		return container.Invalid("the command is empty")
	}
	if c.Init {
		args = append([]string{InitPath, "--"}, args...)
		w.from("/process/args", "init", "")
	}
	w.spec.Process.Args = args
	return nil
}

// SetEnv merges lists of KEY=VALUE; a later value replaces an earlier one in its place. KEY alone takes the value in environ, or removes the
// variable if there is none.
func SetEnv(base, environ []string, lists ...[]string) ([]string, error) {
	out := append([]string{}, base...)
	index := map[string]int{}
	for i, e := range out {
		key, _, _ := strings.Cut(e, "=")
		index[key] = i
	}
	remove := map[string]bool{}
	for _, list := range lists {
		for _, e := range list {
			key, _, ok := strings.Cut(e, "=")
			if key == "" || strings.ContainsRune(e, 0) {
				return nil, container.Invalid("invalid environment variable: %q", e)
			}
			if !ok {
				value, found := container.LookupEnv(environ, key)
				if !found {
					remove[key] = true
					continue
				}
				e = key + "=" + value
			}
			delete(remove, key)
			if i, ok := index[key]; ok {
				out[i] = e
			} else {
				index[key] = len(out)
				out = append(out, e)
			}
		}
	}
	kept := out[:0]
	for _, e := range out {
		if key, _, _ := strings.Cut(e, "="); !remove[key] {
			kept = append(kept, e)
		}
	}
	return kept, nil
}
