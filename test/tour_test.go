package test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestTour plays every lesson with every key on a terminal: an answer, a key that means nothing, a shell inside, the broken step, the
// shell again where there is one, and on. Twice, in another order: what one scene leaves behind is the next one's beginning.
func TestTour(t *testing.T) {
	s := besiege(t)
	s.furnish()
	for lesson := 1; lesson <= 12; lesson++ {
		for _, order := range []string{"sxs", "xsx", "ss"} {
			if testing.Short() && order != "sxs" {
				continue // an emulated processor takes minutes for all
			}
			s.play(lesson, order)
		}
	}
}

// play goes through a lesson and presses, after each scene, the keys of order as far as they are offered.
func (s *siege) play(lesson int, order string) {
	s.Helper()
	name := fmt.Sprintf("lesson %d, %s", lesson, order)
	c, err := startConsole(s.host, []string{"glassbox", "tour", "--plain", fmt.Sprint(lesson)}, s.env, "/")
	must(s.T, err)
	defer c.close()
	var (
		prompt = regexp.MustCompile(`What do you think\? a to ([b-d]).* q: quit |Enter: go on.*q: quit |inside# `)
		keys   = order
		shells int
	)
	end := time.Now().Add(scaled(90 * time.Second))
	for {
		found, err := c.expect(prompt, scaled(60*time.Second))
		if err != nil || time.Now().After(end) {
			s.Errorf("%s: %v\n%s", name, err, c.text())
			return
		}
		if found == nil { // the end
			break
		}
		offered := found[0]
		switch {
		case strings.HasPrefix(offered, "What do you think"):
			c.write(found[1])
			keys = "z" + order
			continue
		case strings.HasPrefix(offered, "inside#"):
			c.write("echo the answer is $((6*7))\n")
			if _, err := c.expect(regexp.MustCompile(`the answer is 42\r\n.*inside# `), scaled(20*time.Second)); err != nil {
				s.Errorf("%s: the shell doesn't answer: %v\n%s", name, err, c.text())
				return
			}
			c.write("exit\n")
			shells++
			continue
		}
		for keys != "" && (keys[0] == 'x' && !strings.Contains(offered, "x: break it") || keys[0] == 's' &&
			!strings.Contains(offered, "s: a shell")) {
			keys = keys[1:]
		}
		if keys == "" {
			c.write("\n")
			keys = order
			continue
		}
		c.write(keys[:1])
		keys = keys[1:]
	}
	code, err := c.wait(scaled(30 * time.Second))
	text := c.text()
	wrong := regexp.MustCompile(`(?m)^! .*|.*There is no shell.*`).FindAllString(text, -1)
	if err != nil || code != 0 || len(wrong) > 0 || !strings.Contains(text, "What to remember") || order[0] == 's' && shells == 0 &&
		offersShells(lesson) {
		s.Errorf("%s: exit code %d, %v, %d shells, wrong: %q", name, code, err, shells, wrong)
		if code != 0 || len(wrong) == 0 {
			s.Log(text)
		}
	}
}

// offersShells reports whether a lesson has a box with a plan, in which there can be a shell.
func offersShells(lesson int) bool { return lesson != 2 && lesson != 12 }
