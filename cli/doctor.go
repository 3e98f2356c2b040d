package cli

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"glassbox/doctor"
)

func (a *app) doctorCommand() *cobra.Command {
	var asJSON, all bool
	cmd := &cobra.Command{
		Use:   "doctor [OPTIONS]",
		Short: "What this host can do for containers, and how to mend what it can't",
		Long: `What this host can do for containers, what it can't, what that costs, and the command that mends it.

Nothing of the host is changed: what other firewalls dropped of glassbox's own networks is let through again, as by every
command. The exit code is 0 if containers can run for this user, else 1.`,
		Example: `  glassbox doctor
  sudo glassbox doctor
  glassbox doctor --json | jq -r '.items[] | select(.status != "ok") | .mend'`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			defer a.timed("look at the host")()
			r, err := a.doctor()
			if err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(a.out)
				enc.SetEscapeHTML(false)
				enc.SetIndent("", "  ")
				err = enc.Encode(r)
			} else {
				_, err = a.out.WriteString(reportText(r, all))
			}
			if err == nil && !r.Runs {
				err = &exitError{1}
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "Print JSON (docs/doctor.md)")
	cmd.Flags().BoolVarP(&all, "verbose", "v", false, "Say of what works, too, what it means, and where each fact comes from")
	return cmd
}

func (a *app) doctor() (*doctor.Report, error) {
	o := doctor.Options{Runtime: a.runtimePath()}
	var err error
	if o.Root, o.State, err = a.absolute(); err != nil {
		return nil, err
	}
	f, err := doctor.Probe(o)
	if err != nil {
		return nil, err
	}
	return doctor.Diagnose(f), nil
}

// reportText is the report for people: the summary, then group by group.
func reportText(r *doctor.Report, all bool) string {
	var b strings.Builder
	fmt.Fprintln(&b, r.Summary)
	group, mend := "", ""
	for _, i := range r.Items {
		if i.Group != group {
			group = i.Group
			fmt.Fprintf(&b, "\n%s\n", group)
		}
		line := fmt.Sprintf("  %-7s  %-18s %s", i.Status, i.Name, i.Value)
		fmt.Fprintln(&b, strings.TrimRight(line, " "))
		say := func(label, text string) {
			if text != "" {
				fmt.Fprintf(&b, "           %s%s\n", label, text)
			}
		}
		if i.Status != doctor.OK || all {
			say("", i.Means)
			if i.Mend != "" && i.Mend == mend {
				say("mend: ", "as above")
			} else {
				say("mend: ", i.Mend)
			}
			mend = i.Mend
		}
		if all {
			say("from: ", i.Source)
		}
	}
	return b.String()
}
