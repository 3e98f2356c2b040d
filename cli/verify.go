package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"glassbox/bundle"
	"glassbox/engine"
	"glassbox/plan"
	"glassbox/supervise"
	"glassbox/verify"
)

// verifyFlags say what is compared, and how that is printed.
type verifyFlags struct {
	all, verbose, asJSON, strict bool
	plan, runtimeRoot            string
	pid                          int
	as                           []string
}

func (a *app) verifyCommand() *cobra.Command {
	var x verifyFlags
	cmd := &cobra.Command{
		Use:   "verify [OPTIONS] CONTAINER...",
		Short: "Read back from the kernel whether a running container is what its plan says",
		Long: `Read back from the kernel whether a running container is what its plan says.

Each step of the plan that the container was started with holds, differs, or can't be observed; and what is there and in no step is
told, too: mounts, links, addresses, routes, firewall rules, devices, processes. Nothing is changed and nothing is stopped.

What a container may do to itself is told apart from what was done to it. A server that becomes another user, changes its title, its
directory or its umask, or gives rights up, does what its plan allows; so does one with CAP_NET_ADMIN that adds an address. A limit that
is lifted, a mask that is gone, a port that leads elsewhere: nobody in the container can have done that.

With --plan FILE and --pid PID any process is compared with any plan, whoever made it; --as OLD=NEW replaces a name that was chosen
otherwise there (the container's id, its cgroup, its veth) wherever the plan has it.

The exit code is 0 if all that can be observed is so, or differs only by what the containers may do to themselves (2 with --strict);
1 if something differs or is in no step that nobody in the container can have done; 125 if something could not be compared.`,
		Example: `  glassbox verify web
  glassbox verify --verbose web
  glassbox verify --all >/dev/null || echo "somebody has tampered with a container" | mail root
  glassbox verify --all --json | jq -r '.[].steps[] | select(.verdict == "differs" and (.own | not)) | .what'
  glassbox verify --runtime-root /run/containerd/runc/default web
  glassbox verify --plan plan.json --pid 4711 --as my-cgroup=their-cgroup`,
		Args: func(_ *cobra.Command, args []string) error {
			byPlan := x.plan != "" || x.pid != 0
			switch {
			case byPlan && (x.plan == "" || x.pid <= 0):
				return &usageError{err: errors.New("--plan and --pid need one another")}
			case byPlan && (len(args) > 0 || x.all || x.runtimeRoot != ""):
				return &usageError{err: errors.New("--plan and --pid say what is compared; a container has no place beside them")}
			case x.all && len(args) > 0:
				return &usageError{err: errors.New("--all is all containers that run; name none beside it")}
			case !byPlan && !x.all && len(args) == 0:
				return &usageError{err: errors.New("say which container to verify, or --all, or --plan FILE --pid PID")}
			}
			return nil
		},
		ValidArgsFunction: a.completeContainers(false),
		RunE:              func(cmd *cobra.Command, args []string) error { return a.verify(cmd.Context(), &x, args) },
	}
	fs := cmd.Flags()
	fs.BoolVar(&x.all, "all", false, "All containers that run")
	fs.BoolVar(&x.verbose, "verbose", false, "Every step: what was found, and where")
	fs.BoolVar(&x.strict, "strict", false, "Exit with 2 if a container differs by what it may do to itself")
	fs.BoolVar(&x.asJSON, "json", false, "Print JSON (docs/verify.md)")
	fs.StringVar(&x.plan, "plan", "", "Compare with a stored plan (explain --format json), in `file`")
	fs.IntVar(&x.pid, "pid", 0, "Compare this process")
	fs.StringArrayVar(&x.as, "as", nil, "With another name than the plan's: `OLD=NEW`, also several times")
	fs.StringVar(&x.runtimeRoot, "runtime-root", "", "Containers of glassbox-runtime in this `dir` (its --root)")
	return cmd
}

// compared is a plan and a process.
type compared struct {
	plan    *plan.Plan
	target  verify.Target
	refused string
	life    *engine.Life // nil: of no container of the engine
}

func (a *app) verify(ctx context.Context, x *verifyFlags, args []string) error {
	var reports []*verify.Report
	var lives []*engine.Life
	failed := 0
	try := func(find func() (*compared, error)) {
		c, err := find()
		if err == nil && len(x.as) > 0 {
			c.plan, err = renamed(c.plan, x.as)
		}
		var r *verify.Report
		if err == nil {
			r, err = verify.Run(c.plan, c.target)
		}
		if err != nil {
			a.complain(err)
			failed++
			return
		}
		r.Refused = c.refused
		reports, lives = append(reports, r), append(lives, c.life)
	}
	if x.plan != "" {
		try(func() (*compared, error) {
			p, err := engine.ReadPlanFile(x.plan)
			if err != nil {
				return nil, err
			}
			e, err := a.open()
			if err != nil {
				return nil, err
			}
			refused, err := e.Refused(ctx, p)
			return &compared{p, verify.Target{PID: x.pid}, refused, nil}, err
		})
	} else {
		names, find, err := a.liveContainers(ctx, x)
		if err != nil {
			return err
		}
		if !x.all {
			names = args
		}
		for _, name := range names {
			try(func() (*compared, error) { return find(name) })
		}
	}
	if err := a.printReports(x, reports, lives); err != nil {
		return err
	}
	if failed > 0 {
		return &exitError{125}
	}
	own := false
	for i, r := range reports {
		if r.Tampered() || lives[i] != nil && lives[i].Restart != lives[i].Job {
			return &exitError{1}
		}
		own = own || !r.Clean()
	}
	if own && x.strict {
		return &exitError{2}
	}
	return nil
}

// liveContainers lists what runs, and returns what finds one of them: the engine's containers, or those of glassbox-runtime.
func (a *app) liveContainers(ctx context.Context, x *verifyFlags) (names []string, find func(string) (*compared, error), err error) {
	if x.runtimeRoot != "" {
		r := &bundle.Runtime{Root: x.runtimeRoot}
		if x.all {
			states, err := r.List()
			if err != nil {
				return nil, nil, err
			}
			for _, s := range states {
				if s.Status != bundle.Stopped {
					names = append(names, s.ID)
				}
			}
		}
		return names, func(id string) (*compared, error) {
			p, pid, start, err := r.Live(id)
			return &compared{p, verify.Target{Name: id, PID: pid, Start: start}, "", nil}, err
		}, nil
	}
	e, err := a.open()
	if err != nil {
		return nil, nil, err
	}
	if x.all {
		// What runs and can't be read is not verified, which must not look as if all were well.
		list, err := e.List(ctx, engine.ListOptions{Unreadable: func(id string, _ error) { names = append(names, id) }})
		if err != nil {
			return nil, nil, err
		}
		for _, s := range list {
			if s.State != supervise.Restarting { // which has no process
				names = append(names, nameOf(s))
			}
		}
	}
	return names, func(ref string) (*compared, error) {
		l, err := e.Live(ctx, ref)
		if err != nil {
			return nil, err
		}
		life, err := e.Life(ctx, l.ID)
		return &compared{l.Plan, verify.Target{Name: l.Name, PID: l.PID, Start: l.Start}, "", life}, err
	}, nil
}

func (a *app) printReports(x *verifyFlags, reports []*verify.Report, lives []*engine.Life) error {
	if x.asJSON {
		enc := json.NewEncoder(a.out)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		out := []any{}
		for i, r := range reports {
			both := struct {
				*verify.Report
				lifeReport
			}{Report: r}
			if lives[i] != nil {
				both.lifeReport = reportLife(lives[i])
			}
			out = append(out, both)
		}
		return enc.Encode(out)
	}
	for i, r := range reports {
		if i > 0 {
			fmt.Fprintln(a.out)
		}
		if err := r.WriteText(a.out, a.textOptions(a.out, x.verbose)); err != nil {
			return err
		}
		if lives[i] != nil {
			verifyLife(a.out, lives[i])
		}
	}
	return nil
}

// renamed is a plan with other names in all its words.
func renamed(p *plan.Plan, as []string) (*plan.Plan, error) {
	var words []string
	for _, s := range as {
		old, name, ok := strings.Cut(s, "=")
		if !ok || old == "" {
			return nil, &usageError{err: fmt.Errorf("--as %q: want OLD=NEW", s)}
		}
		words = append(words, old, name)
	}
	replacer := strings.NewReplacer(words...)
	data, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	var tree any
	if err := json.Unmarshal(data, &tree); err != nil {
		return nil, err
	}
	if data, err = json.Marshal(replaceIn(tree, replacer)); err != nil {
		return nil, err
	}
	out := &plan.Plan{}
	return out, json.Unmarshal(data, out)
}

func replaceIn(v any, r *strings.Replacer) any {
	switch v := v.(type) {
	case string:
		return r.Replace(v)
	case []any:
		for i := range v {
			v[i] = replaceIn(v[i], r)
		}
	case map[string]any:
		for k := range v {
			if k != "program" { // base64
				v[k] = replaceIn(v[k], r)
			}
		}
	}
	return v
}
