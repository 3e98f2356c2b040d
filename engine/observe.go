package engine

import (
	"context"

	"glassbox/container"
	"glassbox/event"
	"glassbox/fork"
	"glassbox/plan"
)

// Observer is told what happens during a call beside what it returns. It belongs to the call's context, as with net/http/httptrace: an
// engine
// serves many callers at once, and each hears of its own affairs only.
type Observer struct {
	// Warn, if it is set, is told what was asked for and has no effect, or is unusual.
	Warn func(text string)
	// Trace, if it is set, is filled in with what making and starting a container takes.
	Trace *plan.Trace
}

type observerKey struct{}

// Observe is a context whose calls tell an observer.
func Observe(ctx context.Context, o Observer) context.Context {
	return context.WithValue(ctx, observerKey{}, o)
}

func observerOf(ctx context.Context) Observer {
	o, _ := ctx.Value(observerKey{}).(Observer)
	return o
}

func warn(ctx context.Context, texts ...string) {
	if tell := observerOf(ctx).Warn; tell != nil {
		for _, text := range texts {
			tell(text)
		}
	}
}

// timed adds to the trace how long something takes, from now until the function that it returns is called.
func timed(ctx context.Context, what string) func() {
	return fork.Timed(observerOf(ctx).Trace, "command", what)
}

// actor is what a container is called in events: as Docker does it, with its labels.
func actor(c *container.Container) event.Actor {
	a := event.Actor{ID: c.ID, Attributes: map[string]string{}}
	for k, v := range c.Labels() {
		a.Attributes[k] = v
	}
	a.Attributes["image"], a.Attributes["name"] = c.ImageName(), c.Name
	return a
}

// happened writes down what has happened to a container.
func (e *Engine) happened(c *container.Container, action string, more ...string) {
	event.Write(e.cfg.State, event.New(event.Container, action, actor(c), more...))
}
