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
	if p.Env, err = container.MergeEnv(base, nil, fromImage, c.Env); err != nil {
		return err
	}
	if home, ok := container.LookupEnv(p.Env, "HOME"); !ok {
		p.Env = append(p.Env, "HOME="+u.Home)
	} else if home == "" {
		p.Env, _ = container.MergeEnv(p.Env, nil, []string{"HOME=" + u.Home}) // as runc: an empty HOME is none
	}
	p.Env = append(p.Env, c.Limits.HintVariables(p.Env)...)

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
