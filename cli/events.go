package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
			line, err := eventFormat(format)
			if err != nil {
				return err
			}
			e, err := a.open()
			if err != nil {
				return err
			}
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			err = e.Events(ctx, o, func(ev event.Event) error {
				text, err := line(ev)
				if err == nil {
					_, err = fmt.Fprintln(a.out, text)
				}
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
	fs.VarP(filterList{list{&o.Filters}}, "filter", "f", "Only some: container=, event=, image=, label=, type=, network=, volume=")
	fs.StringVar(&format, "format", "", "json (one object of Docker's API a line) or a Go template")
	return cmd
}

// eventRow is what a template sees of an event: its fields, and the older names of three of them.
type eventRow struct {
	event.Event
	Status string
	ID     string
	From   string // the image of a container
}

// eventFormat is how an event is written: as docker prints it, as JSON, or by a template.
func eventFormat(format string) (func(event.Event) (string, error), error) {
	switch format {
	case "":
		return func(e event.Event) (string, error) { return eventLine(e), nil }, nil
	case "json", "{{json .}}":
		return func(e event.Event) (string, error) {
			text, err := json.Marshal(e)
			return string(text), err
		}, nil
	}
	t, err := newTemplate(unescape(format))
	if err != nil {
		return nil, err
	}
	if err := t.Execute(io.Discard, eventRow{}); err != nil { // before anything happens
		return nil, &badTemplate{templateError(err, eventRow{})}
	}
	return func(e event.Event) (string, error) {
		var b strings.Builder
		if err := t.Execute(&b, eventRow{e, e.Action, e.Actor.ID, e.Actor.Attributes["image"]}); err != nil {
			return "", templateError(err, eventRow{})
		}
		return b.String(), nil
	}, nil
}

// eventLine is an event as docker prints it.
func eventLine(e event.Event) string {
	var pairs []string
	for k, v := range e.Actor.Attributes {
		pairs = append(pairs, k+"="+v)
	}
	slices.Sort(pairs)
	at := time.Unix(0, e.TimeNano).Format("2006-01-02T15:04:05.000000000Z07:00")
	return printable(fmt.Sprintf("%s %s %s %s (%s)", at, e.Type, e.Action, e.Actor.ID, strings.Join(pairs, ", ")))
}
