package tour

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/fork"
	"glassbox/plan"
)

// Options say how the tour is given.
type Options struct {
	Root    string // directory below which the tour keeps what it needs while it runs
	Program string // glassbox itself, some of whose parts the lessons run inside
	Runtime string // glassbox-runtime, for the last lesson
	Lesson  int    // 0: a menu, or with Auto all
	Auto    bool   // without a keyboard
	Color   bool
	Width   int // columns; 0: those of the terminal, or 80
	In      *os.File
	Out     *os.File
}

// errQuit is the learner's wish to go.
var errQuit = errors.New("quit")

// ErrWrong says that something shown was not what a lesson says.
var ErrWrong = errors.New("what was shown is not what the lesson says")

// Run gives the tour.
func Run(ctx context.Context, o Options) error {
	lessons := All()
	if o.Lesson < 0 || o.Lesson > len(lessons) {
		return fmt.Errorf("there is no lesson %d: there are 1 to %d", o.Lesson, len(lessons))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGPIPE)
	defer signal.Stop(signals)
	u := newScreen(o)
	u.signals = signals
	defer u.restore()
	go func() {
		for range signals {
			cancel()
		}
	}()
	s, err := open(ctx, o)
	if err != nil {
		return err
	}
	err = conduct(s, u, lessons)
	if cleaned := s.close(); cleaned != nil {
		return errors.Join(err, fmt.Errorf("cleaning up: %w", cleaned))
	}
	switch {
	case errors.Is(err, errQuit):
		return nil
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return fmt.Errorf("the tour was interrupted: %w", ctx.Err())
	}
	return err
}

// conduct goes through the lessons.
func conduct(s *Stage, u *screen, lessons []Lesson) error {
	o := s.o
	switch {
	case o.Lesson > 0:
		return give(s, u, o.Lesson, lessons[o.Lesson-1], true)
	case o.Auto:
		var wrong []error
		for i, l := range lessons {
			if err := give(s, u, i+1, l, false); err != nil {
				if !errors.Is(err, ErrWrong) {
					return err
				}
				wrong = append(wrong, err)
			}
		}
		return errors.Join(wrong...)
	}
	for {
		u.menu(lessons)
		n, err := u.number(s.ctx, len(lessons))
		if err != nil {
			return err
		}
		if err := give(s, u, n, lessons[n-1], false); err != nil && !errors.Is(err, ErrWrong) {
			return err
		}
	}
}

// give gives one lesson. It plays on a thread of its own: namespaces can belong to a thread, and the death of that thread ends what
// the lesson has started (PR_SET_PDEATHSIG).
func give(s *Stage, u *screen, n int, l Lesson, alone bool) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the lesson
		p := &player{Stage: s, screen: u}
		s.reset()
		err := p.lesson(n, l, alone)
		done <- errors.Join(err, s.finish())
	}()
	return <-done
}

// player gives a lesson.
type player struct {
	*Stage
	*screen
	wrong []string
}

func (p *player) lesson(n int, l Lesson, alone bool) error {
	p.heading(fmt.Sprintf("Lesson %d: %s", n, l.Title))
	p.para(l.Intro)
	if l.Needs != nil {
		if need := l.Needs(p.Stage); need != "" {
			text := fmt.Sprintf("Lesson %d can't run here: it needs %s.", n, need)
			p.para(text)
			if alone {
				return fmt.Errorf("lesson %d needs %s", n, need)
			}
			return nil
		}
	}
	for i, sc := range l.Scenes {
		if err := p.scene(fmt.Sprintf("%d.%d", n, i+1), sc); err != nil {
			return err
		}
	}
	p.title("What to remember")
	p.para(l.Remember)
	p.note("Read on: " + l.Read)
	if len(p.wrong) > 0 {
		return fmt.Errorf("lesson %d: %w:\n  %s", n, ErrWrong, strings.Join(p.wrong, "\n  "))
	}
	return nil
}

func (p *player) scene(number string, sc Scene) error {
	if p.ctx.Err() != nil {
		return p.ctx.Err()
	}
	p.title(number + "  " + sc.Title)
	p.para(p.expand(sc.Text))
	if sc.Prepare != nil {
		if err := sc.Prepare(p.Stage); err != nil {
			return p.failed(number, err)
		}
	}
	var made *plan.Plan
	if sc.Plan != nil {
		var err error
		if made, err = sc.Plan(p.Stage); err != nil {
			return p.failed(number, err)
		}
		p.steps(made, nil)
	}
	chosen := -1
	if sc.Question != nil {
		var err error
		if chosen, err = p.ask(p.ctx, sc.Question); err != nil {
			return err
		}
	}
	switch {
	case made != nil:
		p.plans = func() (*plan.Plan, error) { return sc.Plan(p.Stage) }
		p.starts = nil
		took, err := p.run(made)
		if err != nil {
			return p.failed(number, err)
		}
		p.note(fmt.Sprintf("%d steps made in %s. The process inside is %d to the host.", len(made.Steps), round(took), p.box.pid))
	case sc.Start != nil:
		p.starts, p.plans = sc.Start, nil
		if err := sc.Start(p.Stage); err != nil {
			return p.failed(number, err)
		}
	case p.box == nil && p.plans != nil:
		again, err := p.plans()
		if err != nil {
			return err
		}
		if _, err := p.run(again); err != nil {
			return p.failed(number, err)
		}
	case p.box == nil && p.starts != nil:
		if err := p.starts(p.Stage); err != nil {
			return p.failed(number, err)
		}
	}
	if sc.Show != nil {
		if err := sc.Show(p); err != nil {
			return p.failed(number, err)
		}
	}
	if err := p.looks(number, sc.Looks); err != nil {
		return err
	}
	if q := sc.Question; q != nil {
		p.verdict(q, chosen)
	}
	p.para(p.expand(sc.Because))
	return p.after(number, sc, made)
}

// after waits for a key, and does what it says.
func (p *player) after(number string, sc Scene, made *plan.Plan) error {
	if p.o.Auto {
		if sc.Break == nil {
			return nil
		}
		return p.breaks(number, sc, made)
	}
	for {
		keys := "Enter: go on"
		if sc.Break != nil {
			keys += "   x: break it"
		}
		inside := p.box.entered()
		if inside {
			keys += "   s: a shell inside"
		}
		key, err := p.key(p.ctx, keys+"   q: quit")
		switch {
		case err != nil:
			return err
		case key == 'x' && sc.Break != nil:
			if err := p.breaks(number, sc, made); err != nil {
				return err
			}
		case key == 's' && inside:
			if err := p.shell(); err != nil {
				p.para("There is no shell inside: " + err.Error())
			}
		case key == '\n':
			return nil
		}
	}
}

// breaks plays the scene with a step left out.
func (p *player) breaks(number string, sc Scene, made *plan.Plan) error {
	b := sc.Break
	number += " x"
	p.title(number + "  Broken")
	p.para(b.Text)
	if b.Prepare != nil {
		if err := b.Prepare(p.Stage); err != nil {
			return p.failed(number, err)
		}
	}
	switch {
	case b.Change != nil:
		base := made
		if base == nil {
			var err error
			if base, err = p.plans(); err != nil {
				return err
			}
		}
		broken := *base
		broken.Steps = b.Change(base.Steps)
		p.steps(base, &broken)
		_, err := p.run(&broken)
		if b.Fails != "" {
			p.box = nil
			if err == nil {
				p.fault(number, "the plan should have failed")
				return p.end()
			}
			p.shown("The plan fails: " + err.Error())
			if !strings.Contains(err.Error(), b.Fails) {
				p.fault(number, fmt.Sprintf("the plan should fail with %q: %v", b.Fails, err))
			}
		} else if err != nil {
			return p.failed(number, err)
		}
	case b.Start != nil:
		if err := b.Start(p.Stage); err != nil {
			return p.failed(number, err)
		}
	}
	if err := p.looks(number, b.Looks); err != nil {
		return err
	}
	p.para(p.expand(b.Because))
	return p.end()
}

func (p *player) looks(number string, looks []Look) error {
	skipped := false
	for _, l := range looks {
		if l.Root && p.user {
			continue
		}
		p.para(p.expand(l.Say))
		lack := p.missing(l.Inside, true)
		if lack == "" {
			lack = p.missing(l.Outside, false)
		}
		if lack != "" {
			p.para(fmt.Sprintf("! This machine has no program called %s, so this can't be shown: %s", lack,
				strings.TrimSpace(p.expand(l.Inside+" "+l.Outside))))
			skipped = true // what comes after may build upon it
			continue
		}
		var seen Seen
		var err error
		if l.Inside != "" {
			if seen.In, err = p.inside(l.Inside); err != nil {
				return p.failed(number, err)
			}
		}
		where := "outside"
		if l.Outside != "" {
			look := func() { seen.Out, err = p.outside(l.Outside) }
			if l.World {
				where = "world"
				p.world(look)
			} else {
				look()
			}
			if err != nil {
				return p.failed(number, err)
			}
		}
		p.sides(p.expand(l.Inside), seen.In, where, p.expand(l.Outside), seen.Out)
		if l.Want != nil && !skipped {
			seen.Stage = p.Stage
			if wrong := l.Want(seen); wrong != "" {
				p.fault(number, wrong)
			}
		}
	}
	return nil
}

// fault notes that something shown is not what the lesson says.
func (p *player) fault(number, text string) {
	if r := []rune(text); len(r) > 300 {
		text = string(r[:300]) + " …"
	}
	text = number + ": " + text
	p.wrong = append(p.wrong, text)
	p.para("! This is not what the lesson expects on this machine. " + text)
}

// failed says that a scene couldn't be shown: a step that this machine doesn't allow is an answer, too, but not the lesson's.
func (p *player) failed(number string, err error) error {
	if p.ctx.Err() != nil {
		return p.ctx.Err()
	}
	var step *fork.StepError
	if errors.As(err, &step) {
		p.para("The plan fails on this machine, and glassbox says at which step: " + err.Error())
	}
	return fmt.Errorf("scene %s: %w: %w", number, ErrWrong, err)
}

func round(d time.Duration) time.Duration {
	return d.Round(100 * time.Microsecond)
}

// steps prints a plan, or what is different in a broken one.
func (s *screen) steps(p, broken *plan.Plan) {
	if broken != nil {
		has := func(steps []plan.Step, op plan.Op) bool {
			return slices.ContainsFunc(steps, func(s plan.Step) bool { return s.Op == op })
		}
		s.line("")
		for i, st := range p.Steps {
			if !has(broken.Steps, st.Op) {
				s.step(i+1, "-", st)
			}
		}
		for i, st := range broken.Steps {
			if !has(p.Steps, st.Op) {
				s.step(i+1, "+", st)
				s.rules(p, st.Op)
			}
		}
		return
	}
	s.line("")
	s.dim("  The plan: each step is a request to the kernel, made by the host's process or by its child, which becomes the box.")
	folded, last := 0, ""
	for i, st := range p.Steps {
		if st.Origin == always {
			folded++
			continue
		}
		reason := st.Reason
		if reason == last {
			st.Reason = "" // it holds for several
		}
		last = reason
		s.step(i+1, "", st)
	}
	if folded > 0 {
		s.dim(fmt.Sprintf("  and %d steps that are not this scene's point: streams, a session, the end when the tour ends.", folded))
	}
}

// rules prints the firewall rules that a broken plan leaves out.
func (s *screen) rules(p *plan.Plan, op plan.Op) {
	left, ok := op.(*plan.NftBridge)
	if !ok {
		return
	}
	for _, st := range p.Steps {
		if o, ok := st.Op.(*plan.NftBridge); ok {
			for _, r := range o.Rules {
				if !slices.Contains(left.Rules, r) && !strings.Contains(r, " accept comment ") {
					s.line("            " + s.bold("without: "+r, "-"))
				}
			}
		}
	}
}

// whole prints a long plan: a line for each run of steps of one kind.
func (s *screen) whole(p *plan.Plan) {
	s.line("")
	var phase plan.Phase
	for i := 0; i < len(p.Steps); {
		st, n := p.Steps[i], 1
		if st.Phase != phase {
			phase = st.Phase
			s.dim("      " + string(phase))
		}
		for i+n < len(p.Steps) && p.Steps[i+n].Lane == st.Lane && p.Steps[i+n].Phase == st.Phase && p.Steps[i+n].Op.Kind() == st.Op.Kind() {
			n++
		}
		more := ""
		if n > 1 {
			more = fmt.Sprintf("  and %d more", n-1)
		}
		lane, code := "host ", "36"
		if st.Lane == plan.Child {
			lane, code = "child", "33"
		}
		text := []rune(tidy(st.Op.String()))
		if room := min(s.width, 120) - 12 - len(more); len(text) > room {
			text = append(text[:room-1], '…')
		}
		s.line(fmt.Sprintf(" %3d  %s %s%s", i+1, s.style(lane, code), string(text), s.style(more, "2")))
		i += n
	}
}
