package container

import (
	"slices"
	"strings"
)

// MergeEnv merges lists of KEY=VALUE; a later value replaces an earlier one in its place. KEY alone takes the value in environ, or removes
// the variable if there is none.
func MergeEnv(base, environ []string, lists ...[]string) ([]string, error) {
	out := append([]string{}, base...)
	index := map[string]int{}
	for i, e := range out {
		key, _, _ := strings.Cut(e, "=")
		index[key] = i
	}
	remove := map[string]bool{}
	for _, list := range lists {
		for _, e := range list {
			key, _, ok := strings.Cut(e, "=")
			if key == "" || strings.ContainsRune(e, 0) {
				return nil, Invalid("invalid environment variable: %s", e)
			}
			if !ok {
				value, found := LookupEnv(environ, key)
				if !found {
					remove[key] = true
					continue
				}
				e = key + "=" + value
			}
			// Named again by a later list, with a value: the later one counts.
			delete(remove, key)
			if i, ok := index[key]; ok {
				out[i] = e
			} else {
				index[key] = len(out)
				out = append(out, e)
			}
		}
	}
	kept := out[:0]
	for _, e := range out {
		if key, _, _ := strings.Cut(e, "="); !remove[key] {
			kept = append(kept, e)
		}
	}
	return kept, nil
}

// Env is the environment as image and flags say together, without what every container gets.
func (c *Container) Env() []string {
	env, err := MergeEnv(nil, nil, c.image().Env, c.Config.Env)
	if err != nil {
		return append([]string(nil), c.image().Env...) // a hostile image's; the start says what is wrong
	}
	return env
}

// AskedEnv is Env, and after it the names that were given without a value: they take a variable of the image's away, as Docker tells it.
func (c *Container) AskedEnv() []string {
	env := c.Env()
	for _, e := range c.Config.Env {
		if _, set := LookupEnv(env, e); !set && !strings.Contains(e, "=") && !slices.Contains(env, e) {
			env = append(env, e)
		}
	}
	return env
}

// LookupEnv finds a variable in a list of KEY=VALUE.
func LookupEnv(environ []string, key string) (string, bool) {
	for _, e := range environ {
		if k, v, ok := strings.Cut(e, "="); ok && k == key {
			return v, true
		}
	}
	return "", false
}
