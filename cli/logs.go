package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"glassbox/engine"
)

func (a *app) logsCommand() *cobra.Command {
	var o engine.LogOptions
	var tail, from, until string
	cmd := &cobra.Command{
		Use:   "logs [OPTIONS] CONTAINER",
		Short: "Print what a container has written",
		Example: `  glassbox logs -f --tail 20 web
  glassbox logs -t --since 10m web`,
		Args:              exactly(1),
		ValidArgsFunction: a.completeContainers(true),
		RunE: func(cmd *cobra.Command, args []string) error {
			now := time.Now()
			var err error
			if o.Tail, err = parseTail(tail); err != nil {
				return err
			}
			if o.Since, err = parseTime(from, now); err != nil {
				return fmt.Errorf("invalid value for \"since\": %w", err)
			}
			if until == "0" {
				until = "" // to dockerd it is no limit
			}
			if o.Until, err = parseTime(until, now); err != nil {
				return fmt.Errorf("invalid value for \"until\": %w", err)
			}
			e, err := a.open()
			if err != nil {
				return err
			}
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			err = e.Logs(ctx, args[0], o, a.out, a.err)
			// Ctrl-C ends logs -f as it ends docker's: 130, and no text.
			if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
				return &exitError{code: 130}
			}
			return err
		},
	}
	fs := cmd.Flags()
	fs.BoolVarP(&o.Follow, "follow", "f", false, "Go on as more is written")
	fs.StringVarP(&tail, "tail", "n", "all", "Number of lines from the end")
	fs.StringVar(&from, "since", "", "Only what is newer: 10m, 2026-01-02T15:04:05Z or seconds since 1970")
	fs.StringVar(&until, "until", "", "Only what is older")
	fs.BoolVar(&o.Details, "details", false, "Print before each line what --log-opt labels, env and tag asked for")
	fs.BoolVarP(&o.Timestamps, "timestamps", "t", false, "Print the time of each line")
	return cmd
}

// parseTail reads --tail: a number, or all. As with Docker a negative number is all, too.
func parseTail(s string) (int, error) {
	if s == "all" || s == "" {
		return -1, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, fmt.Errorf("invalid value for \"tail\": %q is no number of lines", s)
	}
	return max(n, -1), nil
}

// parseTime reads a moment: a duration before now, a date (local time where it names no zone), or seconds since 1970.
func parseTime(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	// A duration first, as with Docker: 10m has no other meaning. 0 is one to Go, and 1970 to Docker: --since 0 is all that there is.
	if d, err := time.ParseDuration(s); err == nil && s != "0" {
		return now.Add(-d), nil
	}
	for _, layout := range []string{
		time.RFC3339Nano, "2006-01-02T15:04Z07:00", "2006-01-02T15:04:05.999999999",
		"2006-01-02T15:04", "2006-01-02T15", "2006-01-02Z07:00", time.DateOnly,
	} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	whole, fraction, _ := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	nsec := int64(0)
	if err == nil && fraction != "" {
		// By digits, not as a floating-point number: nine of them behind ten don't fit its 53 bits.
		nsec, err = strconv.ParseInt((fraction + "000000000")[:9], 10, 64)
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is neither a duration (10m), nor a time (RFC 3339), nor seconds since 1970", s)
	}
	return time.Unix(sec, nsec), nil
}
