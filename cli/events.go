package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"glassbox/engine"
	"glassbox/event"
)

func (a *app) eventsCommand() *cobra.Command {
	var o engine.EventOptions
	var since, until, format string
	cmd := &cobra.Command{
		Use:   "events [OPTIONS]",
		Short: "Print what happens to containers and images, and what has happened",
		Example: `  glassbox events --since 10m --until 0s
  glassbox events --filter event=die --filter container=web
  glassbox events --format json`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			now := time.Now()
			var err error
			if o.Since, err = parseTime(since, now); err != nil {
				return fmt.Errorf("invalid value for \"since\": %w", err)
			}
			if o.Until, err = parseTime(until, now); err != nil {
				return fmt.Errorf("invalid value for \"until\": %w", err)
			}
			if format != "" && format != "json" && format != "{{json .}}" {
				return &usageError{fmt.Errorf("invalid value for \"format\": %q: want json", format)}
			}
			e, err := a.open()
			if err != nil {
				return err
			}
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			err = e.Events(ctx, o, func(ev event.Event) error {
				_, err := fmt.Fprintln(a.out, eventLine(ev, format != ""))
				return err
			})
			if errors.Is(err, syscall.EPIPE) {
				return nil // as logs
			}
			return err
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&since, "since", "", "Also what has happened since: 10m, 2026-01-02T15:04:05Z or seconds since 1970")
	fs.StringVar(&until, "until", "", "Only what happens until then")
	fs.VarP(list{&o.Filters}, "filter", "f", "Only some: container=, event=, image=, label=, type=, network=, volume=")
	fs.StringVar(&format, "format", "", "json: one object of Docker's API a line")
	return cmd
}

// eventLine is an event as docker prints it.
func eventLine(e event.Event, asJSON bool) string {
	if asJSON {
		text, _ := json.Marshal(e)
		return string(text)
	}
	var pairs []string
	for k, v := range e.Actor.Attributes {
		pairs = append(pairs, k+"="+v)
	}
	slices.Sort(pairs)
	at := time.Unix(0, e.TimeNano).Format("2006-01-02T15:04:05.000000000Z07:00")
	return printable(fmt.Sprintf("%s %s %s %s (%s)", at, e.Type, e.Action, e.Actor.ID, strings.Join(pairs, ", ")))
}
