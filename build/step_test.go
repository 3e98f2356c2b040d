package build

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"glassbox/plan"
)

func TestNamed(t *testing.T) {
	for name, want := range map[string]Spot{
		"[2/3] RUN echo [x] y":               {Stage: "0", Number: 2, Text: "RUN echo [x] y"},
		"[base 1/2] FROM busybox":            {Stage: "base", Number: 1, Text: "FROM busybox"},
		"[stage-1 4/4] COPY a b":             {Stage: "1", Number: 4, Text: "COPY a b"},
		"[linux/arm64 base 3/9] RUN true":    {Stage: "base", Number: 3, Text: "RUN true"},
		"[linux/arm64 2/9] RUN true":         {Stage: "0", Number: 2, Text: "RUN true"},
		"[internal] load build context":      {Text: "[internal] load build context"},
		"exporting to image":                 {Text: "exporting to image"},
		"[] x":                               {Text: "[] x"},
		"":                                   {},
		"[a b/c] x":                          {Text: "[a b/c] x"},
		"mkfile /x":                          {Text: "mkfile /x"},
		"[linux/amd64 stage-0 1/2] RUN a/b]": {Stage: "0", Number: 1, Text: "RUN a/b]"},
	} {
		if diff := cmp.Diff(want, Named(name)); diff != "" {
			t.Errorf("%q: -want +got\n%s", name, diff)
		}
	}
}

func TestBreaks(t *testing.T) {
	got := ReadBreaks([]string{"7", "mounts", "Base"}, []plan.Phase{plan.Mounts})
	if diff := cmp.Diff([]Break{{Line: 7}, {Phase: plan.Mounts}, {Stage: "base"}}, got); diff != "" {
		t.Error("-want +got\n" + diff)
	}
	for _, c := range []struct {
		b    Break
		s    Spot
		want bool
	}{
		{Break{Line: 7}, Spot{Line: 7, Last: 7}, true},
		{Break{Line: 7}, Spot{Line: 5, Last: 8}, true},
		{Break{Line: 7}, Spot{Line: 8, Last: 9}, false},
		{Break{Line: 7}, Spot{}, false},
		{Break{Stage: "base"}, Spot{Stage: "BASE"}, true},
		{Break{Stage: "base"}, Spot{Stage: "bas"}, false},
		{Break{Phase: plan.Mounts}, Spot{}, false},
	} {
		if got := c.b.At(&c.s); got != c.want {
			t.Errorf("%+v at %+v: %v", c.b, c.s, got)
		}
	}
}
