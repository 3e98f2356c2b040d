package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"glassbox/container"
	"glassbox/policy"
)

func (a *app) policyCommand() *cobra.Command {
	return parent("policy", "What sockets that are handed out allow", a.policyCheckCommand(), a.policyFromCommand())
}

func (a *app) policyCheckCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check FILE run [OPTIONS] IMAGE [COMMAND] [ARG...]",
		Short: "Say whether a policy allows a run command, and why not",
		Long: `Say whether a policy allows a run command, and why not: what a client of "glassbox serve --policy FILE" would be told. It takes the flags
of "glassbox run". Nothing is made, and no root is needed; what only root may look at (the containers that the socket has) is taken as not
there.

The exit code is 0 if it is allowed, and 1 if not.`,
		Example: `  glassbox policy check agent.json run --rm -v /srv/agent/project:/src golang:1.26 go test ./...
  glassbox policy check agent.json run --privileged debian`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 || args[1] != "run" {
				return &usageError{fmt.Errorf("'%s' requires a file and a run command: FILE run IMAGE", cmd.CommandPath()), 1}
			}
			p, err := readPolicy(args[0])
			if err != nil {
				return err
			}
			return a.checkRun(cmd.Context(), p, args[2:])
		},
	}
	cmd.Flags().SetInterspersed(false) // what follows are the flags of run
	return cmd
}

// checkRun judges a run command.
func (a *app) checkRun(ctx context.Context, p *policy.Policy, args []string) error {
	var c createFlags
	var attach []string
	var ignored bool
	run := &cobra.Command{Use: "run"}
	fs := run.Flags()
	c.register(fs, a)
	fs.BoolVarP(&c.o.Detach, "detach", "d", false, "As with run")
	fs.VarP(list{&attach}, "attach", "a", "As with run")
	fs.BoolVar(&ignored, "sig-proxy", true, "As with run")
	if err := run.ParseFlags(args); err != nil {
		return &usageError{err: err}
	}
	o, err := c.options(a, fs, fs.Args())
	if err != nil {
		return err
	}
	co, err := createOptions(planOptions(o))
	if err != nil {
		return err
	}
	e, err := a.open()
	if err != nil {
		return err
	}
	ask, err := e.Ask(ctx, p, &co.Config)
	if err != nil && os.Geteuid() == 0 {
		return err
	}
	var why []string
	if !p.Allows(policy.Containers) {
		why = append(why, "containers is not among its requests")
	}
	before := co.Config.Limits
	why = append(why, p.Judge(ask)...)
	if len(why) == 0 {
		fmt.Fprintf(a.out, "allowed by the policy %s\n", p.Name)
		a.printFilled(before, co.Config.Limits)
		return nil
	}
	fmt.Fprintf(a.out, "refused by the policy %s:\n", p.Name)
	for _, text := range why {
		fmt.Fprintf(a.out, "  %s\n", printable(text))
	}
	return &exitError{code: 1}
}

// printFilled tells which limits the policy would fill in.
func (a *app) printFilled(asked, got container.Limits) {
	if asked.Memory != got.Memory {
		fmt.Fprintf(a.out, "  with --memory %d\n", got.Memory)
	}
	if asked.NanoCPUs != got.NanoCPUs {
		fmt.Fprintf(a.out, "  with --cpus %s\n", strconv.FormatFloat(float64(got.NanoCPUs)/1e9, 'g', -1, 64))
	}
	if got.Pids != nil && (asked.Pids == nil || *asked.Pids != *got.Pids) {
		fmt.Fprintf(a.out, "  with --pids-limit %d\n", *got.Pids)
	}
}

// policyText is a policy as it is written, after it has been read.
func policyText(file string) ([]byte, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if _, err := policy.Parse(text); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return text, nil
}

func readPolicy(file string) (*policy.Policy, error) {
	text, err := policyText(file)
	if err != nil {
		return nil, err
	}
	return policy.Parse(text)
}

func (a *app) policyFromCommand() *cobra.Command {
	name := "own"
	cmd := &cobra.Command{
		Use:   "from CONTAINER [CONTAINER...]",
		Short: "Print the smallest policy that allows these containers",
		Long: `Print the smallest policy under which these containers could be made through a socket. What of them no policy allows (--privileged,
devices, namespaces of the host) is told, and makes the exit code 1.`,
		Example: `  glassbox policy from web db >web.json
  glassbox policy from --name ci $(glassbox ps -q) >ci.json`,
		Args:              atLeast(1),
		ValidArgsFunction: a.completeContainers(true),
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := a.open()
			if err != nil {
				return err
			}
			var asks []policy.Ask
			for _, ref := range args {
				c, err := e.Config(cmd.Context(), ref)
				if err != nil {
					return err
				}
				ask, err := e.Ask(cmd.Context(), &policy.Policy{}, c)
				if err != nil {
					return err
				}
				asks = append(asks, ask)
			}
			p, no := policy.From(name, asks)
			text, err := json.MarshalIndent(p, "", "  ")
			if err != nil {
				return err
			}
			if _, err := policy.Parse(text); err != nil { // a path or a name that no policy may have
				no = append(no, err.Error())
			}
			fmt.Fprintln(a.out, string(text))
			var told []error
			for _, text := range no {
				told = append(told, errors.New("no policy allows it: "+printable(text)))
			}
			return errors.Join(told...)
		},
	}
	cmd.Flags().StringVar(&name, "name", name, "Name of the policy, which marks what is made through its socket")
	return cmd
}
