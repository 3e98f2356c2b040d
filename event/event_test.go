package event

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFilter(t *testing.T) {
	box := Actor{"0123456789abcdef", map[string]string{"name": "web", "image": "debian:12", "tier": "front"}}
	die := New(Container, Die, box, "exitCode", "3")
	run := New(Container, ExecCreate+": sh -c ls", box)
	pull := New(Image, Pull, Actor{"debian:12", map[string]string{"name": "debian"}})
	remove := New(Image, Delete, Actor{"sha256:feed", map[string]string{"name": "sha256:feed"}})
	for text, want := range map[string][4]bool{
		"":                              {true, true, true, true},
		"type=container":                {true, true, false, false},
		"container=web":                 {true, true, false, false},
		"container=0123":                {true, true, false, false},
		"container=we":                  {false, false, false, false},
		"event=die":                     {true, false, false, false},
		"event=exec_create":             {false, true, false, false},
		"event=die event=pull":          {true, false, true, false},
		"event=die type=image":          {false, false, false, false},
		"image=debian":                  {true, true, true, false},
		"image=debian:11":               {false, false, false, false},
		"image=debian:12":               {true, true, true, false},
		"image=deb":                     {false, false, false, false},
		"image=feed":                    {false, false, false, true},
		"label=tier":                    {true, true, false, false},
		"label=tier=front label=other":  {false, false, false, false},
		"label=tier=front label=name":   {true, true, false, false},
		"scope=local":                   {true, true, true, true},
		"container=web container=other": {true, true, false, false},
	} {
		f, err := ParseFilter(strings.Fields(text))
		if err != nil {
			t.Fatal(err)
		}
		if got := [4]bool{f.Match(die), f.Match(run), f.Match(pull), f.Match(remove)}; got != want {
			t.Errorf("%q: die, exec, pull, delete %v, want %v", text, got, want)
		}
	}
	for _, text := range []string{"nothing", "colour=red", "daemon=x"} {
		if _, err := ParseFilter([]string{text}); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
}

// TestWrite: what is written is read again, and what a killed process left is passed over. An actor's attributes stay its own.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	box := Actor{"id", map[string]string{"name": "web"}}
	die := New(Container, Die, box, "exitCode", "0")
	Write(dir, New(Container, Start, box), die)
	if len(box.Attributes) != 1 {
		t.Errorf("the actor has got %v", box.Attributes)
	}
	if err := Journal(dir).Append([]byte(`{"Type":"container","Acti`)); err != nil {
		t.Fatal(err)
	}
	Write(dir, New(Container, Destroy, box))
	Write("", die) // nowhere
	var got []string
	err := Journal(dir).Read(context.Background(), false, func(line []byte) error {
		if e, ok := Parse(line); ok {
			got = append(got, e.Action)
			if e.Action == Die {
				if d := cmp.Diff(die, e); d != "" {
					t.Error(d)
				}
			}
		}
		return nil
	})
	if d := cmp.Diff([]string{Start, Die, Destroy}, got); d != "" || err != nil {
		t.Error(d, err)
	}
}
