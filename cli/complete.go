package cli

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"glassbox/container"
	"glassbox/engine"
	"glassbox/explain"
	"glassbox/plan"
	"glassbox/tour"
)

// completeContainers completes names of containers: of all, or of those that live.
func (a *app) completeContainers(all bool) cobra.CompletionFunc {
	if all {
		return a.completeIn()
	}
	return a.completeIn("running", "paused")
}

// completeIn completes names of containers in some states, which are all that a verb can take; without states of all. What is on the
// command line already is not offered again.
func (a *app) completeIn(states ...string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 && !strings.Contains(cmd.Use, "...]") {
			return nil, cobra.ShellCompDirectiveDefault // what follows the one container is a program's, or a new name
		}
		return a.containerNames(cmd.Context(), args, states...), cobra.ShellCompDirectiveNoFileComp
	}
}

func (a *app) containerNames(ctx context.Context, without []string, states ...string) []string {
	e, err := a.open()
	if err != nil {
		return nil
	}
	o := engine.ListOptions{All: true}
	for _, s := range states {
		o.Filters = append(o.Filters, "status="+s)
	}
	list, _ := e.List(ctx, o)
	var names []string
	for _, s := range list {
		if name := nameOf(s); !slices.Contains(without, name) {
			names = append(names, name)
		}
	}
	return names
}

func (a *app) imageNames(without []string) []string {
	e, err := a.open()
	if err != nil {
		return nil
	}
	list, _ := e.Images().List()
	var names []string
	for _, i := range list {
		for _, name := range i.Names {
			if !slices.Contains(without, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// completeImages completes names of images, as first argument only: behind it stands a program's command line.
func (a *app) completeImages(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 && !strings.Contains(cmd.Use, "...]") {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return a.imageNames(args), cobra.ShellCompDirectiveNoFileComp
}

// completeObjects completes what inspect takes.
func (a *app) completeObjects(kind string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		only := kind
		if f := cmd.Flag("type"); only == "" && f != nil {
			only = f.Value.String()
		}
		var names []string
		for of, list := range map[string]func() []string{
			"container": func() []string { return a.containerNames(cmd.Context(), args) },
			"image":     func() []string { return a.imageNames(args) },
			"network":   func() []string { return a.networkNames(args) },
			"volume":    func() []string { return a.volumeNames(cmd.Context(), args) },
		} {
			if only == "" || only == of {
				names = append(names, list()...)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeFlags lets the values of flags be completed, for a command and those below it. Only whoever asks for completion pays for it.
func (a *app) completeFlags(cmd *cobra.Command) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		values := a.flagValues(cmd, f.Name)
		if values == nil {
			return
		}
		cmd.RegisterFlagCompletionFunc(f.Name, func(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
			if f.Name == "volume" && strings.ContainsAny(typed, "/.") {
				return nil, cobra.ShellCompDirectiveDefault // a directory of the host
			}
			list, directive := values(), cobra.ShellCompDirectiveNoFileComp
			for _, v := range list {
				if strings.HasSuffix(v, "=") || strings.HasSuffix(v, ":") {
					directive |= cobra.ShellCompDirectiveNoSpace
				}
			}
			return list, directive
		})
	})
	for _, c := range cmd.Commands() {
		a.completeFlags(c)
	}
}

// flagValues returns what lists the values of a flag, or nil where anything goes, such as a file.
func (a *app) flagValues(cmd *cobra.Command, flag string) func() []string {
	words := func(list string) func() []string { return func() []string { return strings.Fields(list) } }
	others := func(list string) func() []string {
		return func() []string {
			out := strings.Fields(list)
			for _, name := range a.containerNames(cmd.Context(), nil, "running", "paused") {
				out = append(out, "container:"+name)
			}
			return out
		}
	}
	switch flag {
	case "network":
		return func() []string { return append(others("")(), a.networkNames(nil)...) }
	case "volume":
		return func() []string {
			names, _ := a.completeVolumes(cmd, nil, "")
			for i := range names {
				names[i] += ":"
			}
			return names
		}
	case "volumes-from":
		return func() []string { return a.containerNames(cmd.Context(), nil) }
	case "pid":
		if cmd.Name() != "verify" {
			return others("host")
		}
	case "ipc":
		return others("private shareable host none")
	case "uts":
		return words("host")
	case "cgroupns":
		return words("private host")
	case "pull":
		return words("missing always never")
	case "platform":
		return words("linux/amd64 linux/arm64 linux/arm/v7 linux/386")
	case "cap-add", "cap-drop":
		return capabilityWords
	case "security-opt":
		return words("no-new-privileges seccomp= seccomp=unconfined apparmor= apparmor=unconfined systempaths=unconfined masked-paths= " +
			"readonly-paths=")
	case "signal", "stop-signal":
		return words("SIGTERM SIGINT SIGQUIT SIGHUP SIGKILL SIGUSR1 SIGUSR2 SIGWINCH SIGSTOP SIGCONT")
	case "log-opt":
		return words("max-size= max-file= labels= labels-regex= env= env-regex= tag= mode=")
	case "log-driver":
		return container.LogDrivers
	case "ulimit":
		return words("nofile= nproc= core= memlock= stack= fsize= cpu= as= data= rss= locks= msgqueue= nice= rtprio= rttime= sigpending=")
	case "mount":
		return words("type=bind,source= type=tmpfs,target= type=volume,source= type=image,source=")
	case "attach":
		if isCreate(cmd) {
			return words("stdin stdout stderr")
		}
	case "restart":
		return words("no always unless-stopped on-failure on-failure: on-unhealthy on-unhealthy:")
	case "restart-policy":
		return func() []string { return systemdRestarts }
	case "condition":
		return words("not-running next-exit removed")
	case "type":
		return func() []string { return objects }
	case "lesson":
		return func() []string {
			var names []string
			for _, l := range tour.All() {
				names = append(names, l.Name)
			}
			return names
		}
	case "filter":
		return filterWords(cmd)
	case "format":
		if strings.HasPrefix(cmd.CommandPath(), "glassbox explain") {
			return explain.Formats
		}
		if cmd.Name() == "ps" || cmd.Name() == "ls" || cmd.Name() == "images" || cmd.Name() == "stats" || cmd.Name() == "df" {
			return words("table json")
		}
		return words("json")
	}
	return nil
}

func filterWords(cmd *cobra.Command) func() []string {
	return func() []string {
		if strings.Contains(cmd.CommandPath(), "volume") {
			if cmd.Name() == "prune" {
				return strings.Fields("label= label!=")
			}
			return strings.Fields("dangling=true dangling=false driver=local label= name=")
		}
		if strings.Contains(cmd.CommandPath(), "network") {
			return strings.Fields("driver= id= label= name= scope=local type=builtin type=custom dangling=true dangling=false")
		}
		if cmd.Name() == "prune" {
			return strings.Fields("until= label= label!=")
		}
		if cmd.Name() == "events" {
			return strings.Fields("type=container type=image type=network type=volume event= container= image= label= network= volume= " +
				"scope=local")
		}
		if strings.Contains(cmd.CommandPath(), "image") {
			return strings.Fields("reference= dangling=true dangling=false label= before= since=")
		}
		return strings.Fields("status=running status=exited status=created status=paused name= id= label= ancestor= exited= publish= expose= " +
			"network= volume= before= since= status=restarting health=starting health=healthy health=unhealthy health=none")
	}
}

func capabilityWords() []string {
	words := []string{"ALL"}
	for n := range 64 {
		if name := plan.CapName(n); name != "" {
			words = append(words, strings.TrimPrefix(name, "CAP_"))
		}
	}
	return words
}
