package tour

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"

	"glassbox/plan"
)

// screen is the learner's terminal.
type screen struct {
	opt   Options
	width int
	wants chan struct{} // a key is wanted
	keys  chan byte     // 0: no more
	tty   bool
	saved *term.State // of the terminal, before

	signals chan os.Signal // what ends the tour
}

func newScreen(o Options) *screen {
	u := &screen{opt: o, width: max(o.Width, 40)}
	u.measure()
	if !o.Auto && o.In != nil {
		u.tty = term.IsTerminal(int(o.In.Fd()))
		u.grab()
		u.wants, u.keys = make(chan struct{}), make(chan byte)
		go u.read()
	}
	return u
}

// measure learns how wide the terminal is now.
func (s *screen) measure() {
	if s.opt.Width > 0 {
		return
	}
	s.width = 80
	if cols, _, err := term.GetSize(int(s.opt.Out.Fd())); err == nil && cols > 0 {
		s.width = max(cols, 40)
	}
}

// grab lets the terminal give each key at once, without showing it.
func (s *screen) grab() {
	if s.tty {
		s.saved, _ = unbuffered(int(s.opt.In.Fd()))
	}
}

// restore gives the terminal back as it was.
func (s *screen) restore() {
	if s.saved != nil {
		term.Restore(int(s.opt.In.Fd()), s.saved)
	}
}

// read reads a key each time that one is wanted, and never else: a shell inside reads from the same terminal.
func (s *screen) read() {
	for range s.wants {
		s.keys <- s.one()
	}
}

// one reads one key. Where there is no terminal it is the first letter of a line.
func (s *screen) one() byte {
	var first byte
	b := make([]byte, 1)
	for {
		n, err := s.opt.In.Read(b)
		switch {
		case n == 0 || err != nil:
			return 0
		case b[0] == '\r' || b[0] == '\n':
			if first == 0 {
				first = '\n'
			}
			return first
		case b[0] == 4: // Ctrl-D
			return 0
		case first == 0 && b[0] > ' ':
			first = b[0]
		}
		if s.tty && first != 0 {
			return first
		}
	}
}

// word reads a line.
func (s *screen) key(ctx context.Context, prompt string) (byte, error) {
	fmt.Fprint(s.opt.Out, "\n", s.style(prompt, "1"), " ")
	select {
	case s.wants <- struct{}{}:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case k := <-s.keys:
		fmt.Fprintln(s.opt.Out)
		if k == 0 || k == 'q' {
			return 0, errQuit
		}
		return k, nil
	}
}

// number asks for a lesson. Those from 10 on have letters, so that one key is enough.
func (s *screen) number(ctx context.Context, n int) (int, error) {
	for {
		k, err := s.key(ctx, fmt.Sprintf("Which lesson? 1 to 9, a to %c for 10 to %d; q: quit", 'a'+n-10, n))
		if err != nil {
			return 0, err
		}
		switch {
		case k >= '1' && k <= '9':
			return int(k - '0'), nil
		case k >= 'a' && int(k-'a')+10 <= n:
			return int(k-'a') + 10, nil
		}
	}
}

func (s *screen) style(text, code string) string {
	if !s.opt.Color || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (s *screen) line(text string) { fmt.Fprintln(s.opt.Out, text) }

func (s *screen) heading(text string) {
	s.line("")
	s.line(s.style(text, "1;4"))
	if !s.opt.Color {
		s.line(strings.Repeat("=", utf8.RuneCountInString(text)))
	}
}

func (s *screen) title(text string) {
	s.measure()
	s.line("")
	s.line(s.style(text, "1"))
	if !s.opt.Color {
		s.line(strings.Repeat("-", utf8.RuneCountInString(text)))
	}
}

// para prints a text as paragraphs.
func (s *screen) para(text string) {
	for p := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		if p == "" {
			continue
		}
		s.line("")
		for _, l := range wrap(p, min(s.width, 100)) {
			s.line(l)
		}
	}
}

func (s *screen) note(text string) {
	s.line("")
	s.dim(text)
}

func (s *screen) dim(text string) {
	indent := text[:len(text)-len(strings.TrimLeft(text, " "))]
	for _, l := range wrap(text, min(s.width, 100)-len(indent)) {
		s.line(s.style(indent+l, "2"))
	}
}

// shown prints what a program or glassbox itself says.
func (s *screen) shown(text string) {
	s.line("")
	for l := range strings.SplitSeq(tidy(text), "\n") {
		for _, part := range cut(l, s.width-4) {
			s.line("    " + part)
		}
	}
}

// step prints a step of a plan.
func (s *screen) step(n int, mark string, st plan.Step) {
	lane := "host "
	code := "36"
	if st.Lane == plan.Child {
		lane, code = "child", "33"
	}
	text := st.Op.String()
	if mark != "" {
		text = mark + " " + text
	}
	const indent = 12
	room := min(s.width, 100) - indent
	for i, l := range wrap(tidy(text), room) {
		if i == 0 {
			s.line(fmt.Sprintf("  %2d  %s %s", n, s.style(lane, code), s.bold(l, mark)))
		} else {
			s.line(strings.Repeat(" ", indent) + s.bold(l, mark))
		}
	}
	if mark == "" {
		if st.Reason == "" {
			return
		}
		for _, l := range wrap(st.Reason+" "+st.Op.Man(), room) {
			s.line(strings.Repeat(" ", indent) + s.style(l, "2"))
		}
	}
}

func (s *screen) bold(text, mark string) string {
	switch mark {
	case "-":
		return s.style(text, "31")
	case "+":
		return s.style(text, "32")
	}
	return text
}

// sides prints what was seen inside and outside (or in the world): side by side where there is room.
func (s *screen) sides(in, inSaid, where, out, outSaid string) {
	s.line("")
	if s.width >= 100 && in != "" && out != "" {
		half := (s.width - 3) / 2
		left := append([]string{"inside"}, column(in, inSaid, half)...)
		right := append([]string{where}, column(out, outSaid, half)...)
		for i := range max(len(left), len(right)) {
			l, r := "", ""
			if i < len(left) {
				l = left[i]
			}
			if i < len(right) {
				r = right[i]
			}
			pad := strings.Repeat(" ", max(0, half-utf8.RuneCountInString(l)))
			if i == 0 {
				l, r = s.style(l, "33"), s.style(r, "36")
			}
			s.line(strings.TrimRight(l+pad+" │ "+r, " "))
		}
		return
	}
	for _, side := range []struct{ name, code, cmd, said string }{{"inside", "33", in, inSaid}, {where, "36", out, outSaid}} {
		if side.cmd == "" {
			continue
		}
		for i, l := range column(side.cmd, side.said, s.width-10) {
			name := ""
			if i == 0 {
				name = side.name
			}
			s.line(strings.TrimRight(s.style(fmt.Sprintf("%-8s", name), side.code)+"│ "+l, " "))
		}
	}
}

// column is a command and what it says.
func column(cmd, said string, width int) []string {
	var lines []string
	for i, c := range strings.Split(cmd, "\n") {
		prompt := "$ "
		if i > 0 {
			prompt = "> "
		}
		lines = append(lines, cut(prompt+c, width)...)
	}
	if said == "" {
		return lines
	}
	for l := range strings.SplitSeq(said, "\n") {
		lines = append(lines, cut(l, width)...)
	}
	return lines
}

// ask asks a question and returns the choice, -1 without a keyboard.
func (s *screen) ask(ctx context.Context, q *Question) (int, error) {
	s.line("")
	for _, l := range wrap("Question: "+q.Ask, min(s.width, 100)) {
		s.line(s.style(l, "1"))
	}
	for i, c := range q.Choices {
		for k, l := range wrap(c, min(s.width, 100)-5) {
			if k == 0 {
				s.line(fmt.Sprintf("  %c) %s", 'a'+i, l))
			} else {
				s.line("     " + l)
			}
		}
	}
	if s.opt.Auto {
		return -1, nil
	}
	for {
		k, err := s.key(ctx, fmt.Sprintf("What do you think? a to %c; Enter: just show it; q: quit", 'a'+len(q.Choices)-1))
		if err != nil {
			return 0, err
		}
		if n := int(k - 'a'); k >= 'a' && n < len(q.Choices) {
			return n, nil
		}
		if k == '\n' {
			return -1, nil
		}
	}
}

// verdict says whether the choice was right.
func (s *screen) verdict(q *Question, chosen int) {
	right := fmt.Sprintf("%c) %s", 'a'+q.Answer, q.Choices[q.Answer])
	switch chosen {
	case q.Answer:
		s.para("Right: " + right)
	case -1:
		s.para("The answer: " + right)
	default:
		s.para(fmt.Sprintf("You said %c. It is %s", 'a'+chosen, right))
	}
}

func (s *screen) menu(lessons []Lesson) {
	s.measure()
	s.heading("A tour of what containers are made of")
	List(s.opt.Out, lessons, s.width)
}

// List prints the lessons.
func List(w io.Writer, lessons []Lesson, width int) {
	fmt.Fprintln(w)
	if width <= 0 {
		width = 80
	}
	for i, l := range lessons {
		for k, text := range wrap(fmt.Sprintf("%s (%d minutes). %s", l.Title, l.Minutes, l.Shows), min(max(width, 40), 100)-5) {
			number := ""
			if k == 0 {
				number = strconv.Itoa(i + 1)
			}
			fmt.Fprintf(w, "%3s  %s\n", number, text)
		}
	}
}

// wrap breaks a text into lines of at most width columns, between words.
func wrap(text string, width int) []string {
	width = max(width, 20)
	var lines []string
	for para := range strings.SplitSeq(text, "\n") {
		line := ""
		for _, word := range strings.Fields(para) {
			switch {
			case line == "":
				line = word
			case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) <= width:
				line += " " + word
			default:
				lines = append(lines, line)
				line = word
			}
		}
		lines = append(lines, line)
	}
	return lines
}

// cut breaks a line that is too long, between words if there is a space in its second half.
func cut(line string, width int) []string {
	width = max(width, 20)
	r := []rune(line)
	var parts []string
	for len(r) > width {
		n := width
		for n > width/2 && r[n] != ' ' {
			n--
		}
		if n == width/2 {
			n = width
		}
		parts = append(parts, string(r[:n]))
		if r = r[n:]; r[0] == ' ' {
			r = r[1:]
		}
	}
	return append(parts, string(r))
}

// isTerminal reports whether the learner can type.
func (s *screen) isTerminal() bool { return s.tty && term.IsTerminal(int(os.Stdin.Fd())) }
