package cli

import (
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"glassbox/container"
	"glassbox/explain"
)

// flagWords gives the flags of `run` that make the options: the inverse of createFlags.options, one "--name=value" for each, in
// the order of the flags' names. Fed back, they give the same plan.
func (a *app) flagWords(o container.Words) []string {
	var c createFlags
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	c.register(fs, a)
	fs.BoolVarP(&c.o.Detach, "detach", "d", false, "")
	c.o = o
	c.rootfs = o.Rootfs
	if o.RootfsOverlay {
		c.rootfs += ":O"
	}
	set := map[string]bool{}
	if o.Entrypoint != nil {
		c.entrypoint, set["entrypoint"] = *o.Entrypoint, true
	}
	if o.StopTimeout != nil {
		c.stop, set["stop-timeout"] = *o.StopTimeout, true
	}
	if o.MemorySwappiness != nil {
		c.swappiness = *o.MemorySwappiness
	}
	if o.PidsLimit != nil {
		c.pids, set["pids-limit"] = *o.PidsLimit, true
	}
	if o.Namespaces != nil {
		c.namespaces, set["ns"] = strings.Join(o.Namespaces, ","), true
	}
	var words []string
	fs.VisitAll(func(f *pflag.Flag) {
		switch f.Name {
		case "pull", "quiet", "insecure-registry":
			return // how the image comes here is no part of the container
		}
		switch v := f.Value.(type) {
		case list:
			for _, s := range *v.to {
				words = append(words, "--"+f.Name+"="+s)
			}
			return
		case text:
			// What was typed may be the default: it is an origin in the plan.
			_, typed := o.Flags[f.Name]
			if v.String() != "" || typed {
				words = append(words, "--"+f.Name+"="+v.String())
			}
			return
		}
		value := f.Value.String()
		_, typed := o.Flags[f.Name]
		if value == f.DefValue && !set[f.Name] && !typed {
			return
		}
		if b, err := strconv.ParseBool(value); err == nil && f.NoOptDefVal == "true" && b {
			words = append(words, "--"+f.Name)
			return
		}
		words = append(words, "--"+f.Name+"="+value)
	})
	return words
}

// likeWords are the words that make a container like one that is there, anywhere.
func likeWords(c *container.Container) container.Words {
	like := *c
	like.Config.Mounts = nil
	for _, m := range c.Config.Mounts {
		// A path that was typed as one from the caller's directory is written whole.
		if filepath.IsAbs(m.Source) && !strings.Contains(m.Origin, m.Source) {
			m.Origin = ""
		}
		like.Config.Mounts = append(like.Config.Mounts, m)
	}
	o := like.Words()
	o.SecurityOpt = c.Config.Security.Options // the file of a profile, and not its text
	return o
}

// about says what is known of a container that run options make.
func (a *app) about(title string, o container.Words) explain.About {
	return explain.About{
		Title: title, Image: o.Image, Name: o.Name, Labels: o.Label, Ports: o.Publish, Flags: a.flagWords(o), Command: o.Command, Made: true,
		Interactive: o.Interactive,
	}
}
