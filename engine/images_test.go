package engine

import (
	"context"
	"errors"
	"testing"

	"glassbox/image"
)

// TestListImages: the list and its filters, as the command line and an API ask for it.
func TestListImages(t *testing.T) {
	e := opened(t)
	made(t, e, "web:1")
	made(t, e, "db:2")
	for _, c := range []struct {
		filters []string
		want    int
	}{
		{nil, 2},
		{[]string{"reference=web"}, 1},
		{[]string{"reference=web:2"}, 0},
		{[]string{"reference=web", "reference=d?"}, 2},
		{[]string{"dangling=true"}, 0},
		{[]string{"dangling=false", "reference=*:2"}, 1},
		{[]string{"label=none"}, 0},
	} {
		list, err := e.ListImages(t.Context(), c.filters)
		if err != nil || len(list) != c.want || list == nil {
			t.Errorf("%v: got %v, %v, want %d", c.filters, list, err, c.want)
		}
	}
	for _, filter := range []string{"dangling", "colour=red"} {
		if _, err := e.ListImages(t.Context(), []string{filter}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v", filter, err)
		}
	}
	if _, err := e.ListImages(t.Context(), []string{"before=none"}); !errors.Is(err, image.ErrNotFound) {
		t.Errorf("before an image that isn't there: got %v", err)
	}
	if i, err := e.InspectImage(t.Context(), "web:1", image.Platform{}); err != nil || i.RepoTags[0] != "web:1" {
		t.Errorf("inspect: got %+v, %v", i, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.ListImages(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("list with a context that is over: %v", err)
	}
	if _, err := e.InspectImage(ctx, "web:1", image.Platform{}); !errors.Is(err, context.Canceled) {
		t.Errorf("inspect with a context that is over: %v", err)
	}
}
