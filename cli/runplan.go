package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"glassbox/container"
	"glassbox/engine"
	"glassbox/plan"
)

// fixedPlan is a plan that run was told to run, or at least its hash.
type fixedPlan struct {
	file string
	hash string
}

func (f *fixedPlan) register(fs *pflag.FlagSet) {
	fs.StringVar(&f.file, "plan", "", "Run a stored plan (explain --format json) and nothing else")
	fs.StringVar(&f.hash, "require-plan", "", "Refuse to run any plan but the one with this `hash` (sha256:…)")
}

func (f *fixedPlan) given() bool { return f.file != "" || f.hash != "" }

// options reads the command line. With --plan the plan says what runs: there is no image, and flags that would change it are
// refused.
func (f *fixedPlan) options(a *app, c *createFlags, fs *pflag.FlagSet, args []string) (container.Words, error) {
	if fs.Changed("require-plan") && (!strings.HasPrefix(f.hash, "sha256:") || len(f.hash) != len("sha256:")+64) {
		return container.Words{}, &usageError{
			err: fmt.Errorf("--require-plan %q: want sha256: and 64 hexadecimal digits, as explain prints", f.hash),
		}
	}
	if !fs.Changed("plan") {
		o, err := c.options(a, fs, args)
		if err == nil && f.given() {
			detach := o.Detach
			o = planOptions(o)
			o.Detach = detach
		}
		return o, err
	}
	if len(args) > 0 {
		return container.Words{}, &usageError{err: errors.New("--plan: the plan says what runs; an image or a command has no place beside it")}
	}
	var wrong []string
	fs.VisitAll(func(flag *pflag.Flag) {
		if flag.Changed && !slices.Contains([]string{
			"plan", "require-plan", "name", "label", "rm", "detach", "attach", "interactive",
			"sig-proxy", "explain", "log-driver", "log-opt", "cidfile", "stop-signal", "stop-timeout", "step", "break", "trace",
			"restart", "health-cmd", "health-interval", "health-timeout", "health-retries", "health-start-period", "health-start-interval",
			"no-healthcheck",
		}, flag.Name) {
			wrong = append(wrong, "--"+flag.Name)
		}
	})
	if len(wrong) > 0 {
		return container.Words{}, &usageError{err: fmt.Errorf("--plan: it says all that the container is; %s would change it",
			strings.Join(wrong, ", "))}
	}
	o := c.o
	o.Flags = typed(fs)
	if fs.Changed("stop-timeout") {
		o.StopTimeout = &c.stop
	}
	return o, nil
}

// create makes a container that runs the plan: the stored one, or the one of the options if it has the hash.
func (f *fixedPlan) create(ctx context.Context, a *app, e *engine.Engine, c *createFlags, o container.Words) (*container.Container, error) {
	co, err := createOptions(o)
	if err != nil {
		return nil, err
	}
	var p *plan.Plan
	if f.file != "" {
		p, err = engine.ReadPlanFile(f.file)
	} else {
		same := co
		// In the background or not is the command's affair, and no part of the plan.
		same.Detach = false
		p, err = e.Plan(ctx, same)
	}
	if err != nil {
		return nil, err
	}
	hash, err := p.Hash()
	if err != nil {
		return nil, err
	}
	if f.hash != "" && hash != f.hash {
		return nil, fmt.Errorf("the plan is %s, and --require-plan allows only %s\nhint: glassbox explain --diff shows what has changed, if "+
			"the approved plan was kept", hash, f.hash)
	}
	return e.CreateFixed(ctx, p, co)
}
