package engine

import (
	"context"
	"errors"

	"glassbox/container"
	"glassbox/policy"
)

// Ask is what a policy has to know of a container that is asked for: what the host has at its paths, which names its image has, what was
// made through the policy's socket, and how many containers that has.
func (e *Engine) Ask(ctx context.Context, p *policy.Policy, c *container.Config) (policy.Ask, error) {
	ask := policy.Ask{Config: c, Paths: RealPaths(c)}
	if f, err := e.Facts(ctx); err == nil {
		ask.CPUs = f.CPUs
	}
	if i, err := e.Images().Resolve(c.Image); err == nil {
		ask.Images = i.Names
	}
	list, err := e.List(ctx, ListOptions{All: true})
	if err != nil {
		return ask, err
	}
	for _, one := range list {
		if one.HostConfig.Annotations[policy.Annotation] == p.Name {
			ask.Containers++
		}
	}
	ask.OwnVolume = func(name string) bool {
		own, err := e.OwnVolume(ctx, p, name)
		return err == nil && own
	}
	ask.OwnNetwork = func(name string) bool {
		n, err := e.NetworkInspect(ctx, name)
		return err == nil && n.Labels[policy.Label] == p.Name
	}
	return ask, nil
}

// OwnVolume reports whether a volume was made through a policy's socket, or isn't there and may be made.
func (e *Engine) OwnVolume(ctx context.Context, p *policy.Policy, name string) (bool, error) {
	v, err := e.Volume(ctx, name)
	if errors.Is(err, ErrNotFound) {
		// Not there yet: whoever may make containers makes the volumes that they name.
		return p.Allows(policy.Volumes) || p.Allows(policy.Containers), nil
	}
	return err == nil && v.Labels[policy.Label] == p.Name, err
}

// Config is what a container was asked for.
func (e *Engine) Config(ctx context.Context, ref string) (*container.Config, error) {
	c, _, err := e.load(ctx, ref)
	if err != nil {
		return nil, err
	}
	return &c.Config, nil
}
