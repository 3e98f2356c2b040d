package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"glassbox/container"
	"glassbox/event"
	"glassbox/supervise"
)

// What should run when the host has been started stands in each container's restart policy. There is no daemon that starts it: the host's
// service manager calls Autostart (the unit glassbox.service), and StopAll before it goes down.

// wanted reports whether a container is to be started with the host: one that was started before, does not run, and whose policy wants it.
// As with Docker always is stronger than a stop by hand, and on-failure means those that failed, also by the host's going down.
func (e *Engine) wanted(c *container.Container, s *supervise.State) bool {
	if s.Status != supervise.Exited {
		return false
	}
	byHand := supervise.StoppedBy(e.dir(c.ID)) == supervise.ByHand
	switch c.Config.Restart.Policy {
	case container.RestartAlways:
		return true
	case container.RestartUnlessStopped:
		return !byHand
	}
	// on-failure counts again from what is written: the limit of --restart on-failure:N holds across a start of the host.
	_, again := restarts(c).Next(supervise.End{Code: s.ExitCode, Stopped: byHand}, s.Restarts, 0)
	return again
}

// Autostart starts the containers that are to run, the oldest first, and tells each as it is tried. One that needs another, whose
// namespaces it shares, is tried again when all others were.
func (e *Engine) Autostart(ctx context.Context, each func(name string, err error)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	list, err := e.all()
	if err != nil {
		return err
	}
	var todo []*container.Container
	for _, c := range list {
		if s, err := e.state(c.ID); err == nil && e.wanted(c, s) {
			todo = append(todo, c)
		}
	}
	// Containers in others' namespaces fail while those don't run yet, in whatever order they were made. A round after the
	// first is for them alone, and the one in which nothing more was started tells the errors.
	for last := false; len(todo) > 0; {
		var failed []*container.Container
		for _, c := range todo {
			s, err := e.Start(ctx, c.ID, StartOptions{})
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case err == nil:
				s.Close()
				each(c.Name, nil)
			case last:
				each(c.Name, err)
			default:
				failed = append(failed, c)
			}
		}
		last = last || len(failed) == len(todo) || len(failed) > 0 && !anyShares(failed)
		todo = failed
	}
	return nil
}

// anyShares reports whether one of the containers is in another's namespaces.
func anyShares(list []*container.Container) bool {
	return slices.ContainsFunc(list, func(c *container.Container) bool {
		n := c.Config.Namespaces
		return container.Mode(c.Network()).Container() != "" || n.PID.Container() != "" || n.IPC.Container() != ""
	})
}

// all are the containers, the oldest first.
func (e *Engine) all() ([]*container.Container, error) {
	ids, err := e.ids(false)
	if err != nil {
		return nil, err
	}
	var list []*container.Container
	for _, id := range ids {
		if c, err := e.readContainer(id); err == nil {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b *container.Container) int { return a.Created.Compare(b.Created) })
	return list, nil
}

// stopping is how many containers StopAll waits for at a time.
const stopping = 32

// StopAll stops all containers that run, because the host goes down: the next Autostart starts those whose policy wants it.
func (e *Engine) StopAll(ctx context.Context, each func(name string, err error)) error {
	list, err := e.all()
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var wait sync.WaitGroup
	places := make(chan struct{}, stopping)
	for _, c := range list {
		s, err := e.state(c.ID)
		if err != nil || !s.Alive() && s.Status != supervise.Restarting {
			// One that waits between two runs counts as running: its supervisor would start it again while the host goes
			// down.
			continue
		}
		places <- struct{}{}
		wait.Go(func() {
			defer func() { <-places }()
			err := e.stopForHost(ctx, c, s)
			// The caller's function prints, or appends to a list, and expects to be called once at a time.
			mu.Lock()
			defer mu.Unlock()
			each(c.Name, err)
		})
	}
	wait.Wait()
	return ctx.Err()
}

func (e *Engine) stopForHost(ctx context.Context, c *container.Container, s *supervise.State) error {
	// Before the signal: the supervisor looks for the mark at the end of the run, and would start the next one without it.
	if !c.Config.Restart.None() {
		if err := supervise.MarkStopped(e.dir(c.ID), supervise.ByHost); err != nil {
			return err
		}
	}
	sig, err := ParseSignal(c.StopSignal())
	if err != nil {
		return err
	}
	stop := func(s *supervise.State) error { return e.stopRun(ctx, c, s, sig, stopSeconds(c, nil)) }
	if s.Alive() {
		err = stop(s)
	}
	if err = errors.Join(err, e.halt(ctx, c, stop)); err != nil {
		return fmt.Errorf("stop container %s: %w", c.Name, err)
	}
	e.happened(c, event.Stop)
	return nil
}
