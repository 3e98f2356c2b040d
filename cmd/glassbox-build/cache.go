package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"

	"github.com/moby/buildkit/client"

	"glassbox/build"
)

// prune removes parts of the build cache, and prints each as a line of JSON.
func prune(ctx context.Context, p place, q *build.Prune) (err error) {
	l, err := connect(ctx, p, sayWaiting, nil)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := l.Close(); err == nil {
			err = cerr
		}
	}()
	if q.All && len(q.Filters) == 0 { // and what later builds would have been compared with
		os.RemoveAll(p.inputsDir())
	}
	out := json.NewEncoder(os.Stdout)
	return l.prune(ctx, q, func(u *client.UsageInfo) error { return out.Encode(record(u)) })
}

// prune tells each part that is gone.
func (l *link) prune(ctx context.Context, q *build.Prune, told func(*client.UsageInfo) error) error {
	opts := []client.PruneOption{
		client.WithFilter(q.Filters), client.WithKeepOpt(q.KeepDuration, q.ReservedSpace, q.MaxUsedSpace, q.MinFreeSpace),
	}
	if q.All {
		opts = append(opts, client.PruneAll)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	gone := make(chan client.UsageInfo)
	done := make(chan error, 1)
	go func() {
		done <- l.Prune(ctx, gone, opts...)
		close(gone)
	}()
	var failed error
	// To its end also after an error: BuildKit's client sends without looking whether somebody still reads.
	for u := range gone {
		if failed == nil {
			if failed = told(&u); failed != nil {
				stop()
			}
		}
	}
	return errors.Join(failed, <-done)
}

// usage prints what the build cache has, a line of JSON for each part.
func usage(ctx context.Context, p place, q *build.Usage) (err error) {
	if _, err := os.Stat(p.dir()); os.IsNotExist(err) {
		return nil // nothing has been built
	}
	waiting := sayWaiting
	if q.NoWait {
		waiting = func() error { return exitCode(build.Busy) }
	}
	l, err := connect(ctx, p, waiting, nil)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := l.Close(); err == nil {
			err = cerr
		}
	}()
	list, err := l.DiskUsage(ctx, client.WithFilter(q.Filters))
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	for _, u := range list {
		if err := out.Encode(record(u)); err != nil {
			return err
		}
	}
	return nil
}

func record(u *client.UsageInfo) build.Record {
	return build.Record{
		ID: u.ID, Parents: u.Parents, Type: string(u.RecordType), Description: u.Description, InUse: u.InUse, Shared: u.Shared,
		Size: u.Size, CreatedAt: u.CreatedAt, LastUsedAt: u.LastUsedAt, UsageCount: u.UsageCount,
	}
}
