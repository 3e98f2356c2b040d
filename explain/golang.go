package explain

import (
	"bytes"
	"compress/flate"
	"encoding/base64"
	"fmt"
	"go/format"
	"io"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"glassbox/plan"
)

// golang writes a plan as one Go program of at most [MaxGo] lines.
//
// The program is the plan's two lanes as two functions, main and child, in which a line is a step or several of the same kind, and
// below them one small function for each kind of step that takes more than a call. What the network needs is done with ip and nft,
// as in the script: netlink and nftables messages made by hand would be longer than all the rest.
type golang struct {
	plan    *plan.Plan
	view    *View
	tight   int    // how much is left out for room: see the constants
	width   int    // of a line, about
	id      string // a long name that many paths have, or ""
	groups  []string
	host    []goLine
	child   []goLine
	helpers map[string]bool
	unsaid  []string
	given   map[string]int    // descriptors that the child gets from the parent
	opened  map[string]string // descriptor that the program has no need of → path
	have    map[string]string // descriptors that the child has: the expression for each
	procs   map[string]string // procfs → where it is mounted
	second  bool              // after a clone in the child, which can't be made
	filter  string
	scripts []string
	joined  int // of groups, by the child
	trees   int // clones that the child makes
	// nullOpen opens the null device, in the next line that needs it.
	nullOpen string
	words    map[string]bool
}

// What a program lacks that would be too long.
const (
	withReasons = iota
	withPhases
	withoutComments // but those that say what a function does
	withoutAny      // but the numbers of the steps, and one shell for all of the network
	withoutScript   // which is deflated, as the filter always is; and if a step fails, nothing is taken back
	withoutTerminal // the program has its caller's streams
)

// MaxGo is how long a Go program that explains a plan may be, in lines. One with very many mounts, devices or variables has longer lines.
const MaxGo = 260

// lineWidth is how long a line may be, about, if there is room for as many lines as that makes; what is data has one line.
const lineWidth = 143

// goLine is a piece of the program: a call with its arguments, or text as it is.
type goLine struct {
	fn    string   // what is called
	items []string // its arguments; those of fn "check" and of joining calls can be several steps'
	fixed int      // how many of the items are the same for the steps that join in
	join  bool
	text  []string // lines, instead of a call
	note  string   // a comment instead of all that
	// before is a line that comes first.
	before string

	first, last int // steps
	kinds       []string
	phase       plan.Phase
	reason      string
}

const goHead = `%s, made by hand: what glassbox does in %d steps, with the numbers of "glassbox explain".
Build it: go mod init by-hand && go get golang.org/x/sys && CGO_ENABLED=0 go build . && sudo ./by-hand
Go code can't run between fork and execve: one thread survives the fork, and the Go runtime needs the others. So this program starts
itself again in the new namespaces, as most engines do, and goes on in child. glassbox doesn't: its clone runs a list of prepared
system calls. What glassbox opens by descriptor, so that no image can lead it astray, has a name here, looked up after pivot_root.`

func writeGo(w io.Writer, p *plan.Plan, a About) error {
	if slices.ContainsFunc(p.Steps, func(s plan.Step) bool { return s.Op == nil }) {
		return fmt.Errorf("the plan has a step without an op")
	}
	view := Read(p)
	if err := hostMounts(view); err != nil {
		return err
	}
	for tight, width := 0, lineWidth; ; {
		g := &golang{
			plan: p, view: view, tight: tight, width: width, helpers: map[string]bool{}, opened: map[string]string{}, have: map[string]string{},
			procs: map[string]string{},
			words: map[string]bool{}, given: map[string]int{},
		}
		text, err := g.program(a)
		if err != nil {
			return err
		}
		if bytes.Count(text, []byte("\n")) <= MaxGo || width > len(text) {
			_, err := w.Write(text)
			return err
		}
		switch {
		case tight < withoutScript && tight >= withoutComments && width == lineWidth:
			width = 200 // before more is lost
		case tight < withoutScript:
			tight++
			width = lineWidth
		case tight == withoutScript && width > 4*lineWidth:
			tight, width = withoutTerminal, lineWidth
		default:
			width += width / 2
		}
	}
}

func (g *golang) program(a About) ([]byte, error) {
	g.identify()
	for _, s := range g.plan.Steps {
		if o, ok := s.Op.(*plan.CgroupCreate); ok {
			g.groups = append(g.groups, g.lit(o.Path))
		}
	}
	for i, s := range g.plan.Steps {
		line, ok := g.step(s)
		line.first, line.last, line.kinds, line.phase, line.reason = i+1, i+1, []string{s.Op.Kind()}, s.Phase, s.Reason
		if !ok {
			g.unsaid = append(g.unsaid, fmt.Sprintf("%d. %s: %s", i+1, s.Op.Kind(), s.Op))
			continue
		}
		if line.fn == "joined" {
			continue
		}
		lane := &g.host
		if s.Lane == plan.Child {
			lane = &g.child
		}
		if n := len(*lane); n == 0 || !g.joins(&(*lane)[n-1], line) {
			*lane = append(*lane, line)
		}
	}
	var b strings.Builder
	t := &script{w: &b}
	for _, line := range strings.Split(fmt.Sprintf(goHead, cutTitle(clean(or(a.Title, "A container"))), len(g.plan.Steps)), "\n") {
		t.line("%s", strings.TrimRight("// "+line, " "))
	}
	if a.Refused != "" {
		t.line("//\n// %s", clean(refusal(a.Refused)))
	}
	if len(g.unsaid) > 0 {
		t.line("//")
		t.line("// Not in here, because such a program can't, or hasn't the room:")
	}
	if g.tight < withoutAny || len(g.unsaid) < 20 {
		for _, u := range g.unsaid {
			t.line("//   %s", wrap(clean(u), 130)[0])
		}
	} else {
		var short []string
		for _, u := range g.unsaid {
			kind, _, _ := strings.Cut(u, ":")
			short = append(short, kind)
		}
		for _, line := range wrap(strings.Join(short, "; "), g.width-5) {
			t.line("//   %s", line)
		}
	}
	body := g.body()
	t.line("package main\n\nimport (")
	for _, name := range g.imports() {
		t.line("\t%q", name)
	}
	t.line("\n\t\"golang.org/x/sys/unix\"\n)")
	t.line("%s", body)
	text := b.String()
	if head, rest, ok := strings.Cut(text, "\nfunc main() {"); ok && g.tight >= withoutAny {
		// No room for empty lines; texts of several lines have none.
		imports, rest2, _ := strings.Cut(head, "\n)\n")
		text = imports + "\n)\n\n" + strings.ReplaceAll(strings.TrimLeft(rest2, "\n"), "\n\n", "\n") + "\nfunc main() {" +
			strings.ReplaceAll(rest, "\n\n", "\n")
	}
	// As gofmt would have it; and it finds out here, and not at a reader's, if the text is no Go.
	out, err := format.Source([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("the program isn't one: %w", err)
	}
	return out, nil
}

func cutTitle(s string) string {
	if n := cut(s, 60); n < len(s) {
		return s[:n] + "…"
	}
	return s
}

// joins lets a step be part of the line before, if it can.
func (g *golang) joins(l *goLine, next goLine) bool {
	switch {
	case l.last+1 != next.first || l.note != next.note || l.text != nil || next.text != nil || l.fn != next.fn:
		return false
	case l.note != "":
		if l.kinds[0] != next.kinds[0] {
			return false
		}
	case l.fn == "check" && (g.tight >= withoutComments || l.kinds[0] == next.kinds[0]):
		l.items = append(l.items, next.items...)
	case l.join && next.join && l.fixed == next.fixed && slices.Equal(l.items[:l.fixed], next.items[:l.fixed]):
		l.items = append(l.items, next.items[l.fixed:]...)
	default:
		return false
	}
	l.take(next)
	return true
}

// take makes the steps of the next line this one's.
func (l *goLine) take(next goLine) {
	l.last = next.last
	for _, kind := range next.kinds {
		if !slices.Contains(l.kinds, kind) {
			l.kinds = append(l.kinds, kind)
		}
	}
}

// identify finds the container's id, which stands in dozens of paths.
func (g *golang) identify() {
	for _, name := range []string{path.Base(g.view.Cgroup()), path.Base(path.Dir(g.view.Root.Mountpoint))} {
		// Long enough not to stand in other texts by chance, and nothing that would have to be quoted.
		if regexp.MustCompile(`^[0-9a-zA-Z_-]{16,128}$`).MatchString(name) {
			g.id = name
			return
		}
	}
}

// lit is a text as Go has it, with the id by its name.
func (g *golang) lit(s string) string {
	if g.id == "" || !strings.Contains(s, g.id) {
		if strings.Contains(s, `"`) && strconv.CanBackquote(s) {
			return "`" + s + "`"
		}
		return strconv.Quote(s)
	}
	var parts []string
	for i, part := range strings.Split(s, g.id) {
		if i > 0 {
			parts = append(parts, "id")
		}
		if part != "" {
			parts = append(parts, strconv.Quote(part))
		}
	}
	return strings.Join(parts, "+")
}

func (g *golang) lits(words []string) []string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = g.lit(w)
	}
	return out
}

func (g *golang) use(names ...string) {
	for _, name := range names {
		if !g.helpers[name] {
			g.helpers[name] = true
			for _, h := range goHelpers() {
				if h.name == name {
					g.use(strings.Fields(h.needs)...)
				}
			}
		}
	}
}

func (g *golang) imports() []string {
	out := []string{"os", "os/exec", "runtime", "syscall"}
	for _, h := range goHelpers() {
		if g.helpers[h.name] {
			out = append(out, strings.Fields(h.imports)...)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// packed puts words into lines of a width that a reader's window has.
func (g *golang) packed(head string, words []string, tail string) []string {
	line := head
	var lines []string
	for i, w := range words {
		if i < len(words)-1 {
			w += ","
		}
		space := when(line == head || line == "\t", "", " ")
		room := g.width
		if len(lines) == 0 && !strings.HasPrefix(head, "/*") {
			room -= 24 // the number of the step comes before it
		}
		if len(line)+len(space)+len(w) > room && line != head {
			lines = append(lines, line)
			line, space = "\t", ""
		}
		line += space + w
	}
	return append(lines, line+tail)
}

// fails reports whether a function of the program returns an error where there is no room for a line for each call.
func (g *golang) fails(fn string) bool {
	names := []string{"mount", "cover"}
	if g.width > lineWidth {
		names = append(names, "each", "set", "write", "giveAs", "run")
	}
	return g.tight >= withoutScript && slices.Contains(names, fn)
}

// together makes one line of several calls.
func (g *golang) together(lines []goLine) []goLine {
	var out []goLine
	for _, l := range lines {
		if (g.fails(l.fn) || l.fn == "check") && l.text == nil && l.before == "" {
			if l.fn != "check" {
				l.fn, l.items = "check", []string{l.fn + "(" + strings.Join(l.items, ", ") + ")"}
			}
			if n := len(out) - 1; n >= 0 && out[n].fn == "check" && out[n].last+1 == l.first && out[n].text == nil {
				out[n].items = append(out[n].items, l.items...)
				out[n].take(l)
				continue
			}
		}
		out = append(out, l)
	}
	return out
}

func (g *golang) lane(t *script, lines []goLine) {
	if g.tight >= withoutScript {
		lines = g.together(lines)
	}
	said := map[string]bool{}
	var phaseNow plan.Phase
	notes := "" // of steps before, which need no line of their own
	for _, l := range lines {
		if l.phase != phaseNow && g.tight <= withPhases {
			title, _ := phase(l.phase)
			t.line("\t// %s", clean(title))
			phaseNow = l.phase
		}
		if kind, why := l.kinds[0], wrap(clean(l.reason), 120); g.tight == withReasons && !said[kind] && l.note == "" && len(why) > 0 {
			t.line("\t// %s", why[0])
			said[kind] = true
		}
		where := strconv.Itoa(l.first)
		if l.last > l.first {
			where += "–" + strconv.Itoa(l.last)
		}
		where += " " + strings.Join(l.kinds, " ")
		if l.note != "" {
			where += ": " + l.note
		}
		if notes != "" {
			where = notes + "; " + where
			notes = ""
		}
		if l.note != "" {
			notes = where
			continue
		}
		if l.before != "" {
			t.line("\t%s", l.before)
		}
		where = "/* " + where + " */ "
		switch {
		case l.fn == "sh":
			l.text = []string{"", "sh.Stderr = os.Stderr", "check(sh.Run())"}
			if g.tight >= withoutScript {
				l.text = []string{"", "check(sh.Run())"}
			}
			script := "`" + shellText(l.items, 40+len(where), g.width) + "`"
			if g.tight >= withoutScript {
				g.use("inflate")
				g.scripts = append(g.scripts, compress([]byte(shellText(l.items, 0, g.width))))
				script = fmt.Sprintf("string(inflate(script%d))", len(g.scripts))
			}
			l.text[0] = where + "sh := exec.Command(\"sh\", \"-ec\", " + script + ", fmt.Sprint(cmd.Process.Pid))"
			if g.words["sh"] { // interrupted by other steps
				l.text[0] = strings.Replace(l.text[0], "sh :=", "sh =", 1)
			}
			g.words["sh"] = true
		case l.text == nil:
			l.text = g.packed(where+l.fn+"(", l.items, ")")
		case len(where)+len(l.text[0]) > g.width && g.tight < withoutComments:
			t.line("\t%s", strings.TrimSpace(where))
		default:
			l.text[0] = where + l.text[0]
		}
		for _, line := range l.text {
			t.line("\t%s", line)
		}
	}
}

// body is everything below the imports.
func (g *golang) body() string {
	var b strings.Builder
	t := &script{w: &b}
	before, after := g.around()
	t.line("")
	if g.id != "" {
		t.line("const id = %q", g.id)
	}
	if len(g.groups) > 1 { // of cgroups
		for _, line := range g.listGroups() {
			t.line("%s", line)
		}
	}
	if g.words["parent"] {
		t.line("var parent = os.NewFile(3, \"the parent's end\") // of the child's socket")
	}
	if len(g.words) > 0 {
		var names, values []string
		for _, w := range goAttrs() {
			if g.words[w] {
				names, values = append(names, w), append(values, goFlags("MS_", []string{w}))
			}
		}
		if len(names) > 0 {
			t.line("const %s = %s", strings.Join(names, ", "), strings.Join(values, ", "))
		}
	}
	t.line("var cmd = exec.Command(\"/proc/self/exe\", \"child\")")
	t.line("\nfunc init() { runtime.LockOSThread() } // main stays on the first thread, which clones, and which becomes the program\n")
	t.line("func main() {\n\tif len(os.Args) > 1 {\n\t\tchild()\n\t}")
	for _, l := range before {
		t.line("\t%s", l)
	}
	g.lane(t, g.host)
	if g.words["console"] {
		after = append([]string{"<-relayed"}, after...)
	}
	t.line("\tcmd.Wait()%s", when(g.tight >= withoutScript && len(after) > 0, " // what follows takes all back, but not if a step has failed",
		""))
	for _, l := range after {
		t.line("\t%s", l)
	}
	t.line("\tstatus := cmd.ProcessState.Sys().(syscall.WaitStatus)\n\tif status.Signaled() {\n\t\tos.Exit(128 + " +
		"int(status.Signal()))\n\t}\n\tos.Exit(status.ExitStatus())\n}\n")
	t.line("func child() {")
	g.lane(t, g.child)
	t.line("}\n")
	g.use("check")
	for _, h := range goHelpers() {
		if g.helpers[h.name] && h.code != "" {
			code := strings.Trim(h.code, "\n")
			if g.fails(h.name) {
				code = strings.Replace(code, ") {\n", ") error {\n", 1)
				code = strings.TrimSuffix(code, "}") + "\treturn nil\n}"
			}
			if g.tight >= withoutAny {
				for strings.HasPrefix(code, "//") {
					_, code, _ = strings.Cut(code, "\n")
				}
			}
			t.line("%s%s", code, when(g.tight >= withoutComments, "", "\n"))
		}
	}
	data := func(what, name, f string) {
		t.line("\n%sconst %s = %q", when(g.tight < withoutAny, what, ""), name, f)
	}
	for i, f := range g.scripts {
		t.line("\n// What sets up the network, deflated for want of room: --format sh shows it.")
		data("", fmt.Sprintf("script%d", i+1), f)
	}
	if g.filter != "" {
		data("// The system call filter: struct sock_filter, 8 bytes each, deflated.\n", "filter", g.filter)
	}
	return b.String()
}

// listGroups are the cgroups of the container; in short form if there is no room.
func (g *golang) listGroups() []string {
	var names []string
	for _, s := range g.plan.Steps {
		if o, ok := s.Op.(*plan.CgroupCreate); ok {
			names = append(names, strings.ReplaceAll(o.Path, g.id, "ID"))
		}
	}
	text := strings.Join(names, " ")
	if g.tight < withoutAny || g.id == "" || strings.Count(text, "ID") != len(names) || len(strings.Fields(text)) != len(names) ||
		!strconv.CanBackquote(text) {
		return g.packed("var groups = []string{", g.groups, "}")
	}
	g.use("strings")
	return []string{"var groups = strings.Fields(strings.ReplaceAll(`" + strings.Join(wrap(text, g.width), "\n") + "`, \"ID\", id))"}
}

// around is what stands before the plan's steps on the host, which the engine makes, and what takes all back.
func (g *golang) around() (before, after []string) {
	r := g.view.Root
	dir := path.Dir(r.Mountpoint)
	mine := false
	if len(r.Layers) > 0 && r.Upper != "" {
		mine = true
		dirs := []string{"os.MkdirAll(" + g.lit(r.Mountpoint) + ", 0o755)"}
		for _, s := range g.plan.Steps {
			if o, ok := s.Op.(*plan.Overlay); ok && o.Upper != "" {
				dirs = append(dirs, "os.MkdirAll("+g.lit(under(o.Dir, o.Upper))+", 0o755)", "os.MkdirAll("+g.lit(under(o.Dir, o.Work))+", 0o755)")
			}
		}
		address, _, _ := strings.Cut(g.view.Net.Address, "/")
		name := g.view.Hostname
		files := map[string]string{
			dir + "/hostname": "[]byte(" + g.lit(name+"\n") + ")",
			dir + "/hosts": "[]byte(" + g.lit(fmt.Sprintf("127.0.0.1\tlocalhost\n%s\t%s\n", or(address, "127.0.1.1"), or(name, "container"))) +
				")",
			dir + "/resolv.conf": `ok(os.ReadFile("/etc/resolv.conf"))`,
		}
		for _, s := range g.plan.Steps {
			if o, ok := s.Op.(*plan.OpenTree); ok && files[o.Path] != "" {
				g.use("ok")
				dirs = append(dirs, "os.WriteFile("+g.lit(o.Path)+", "+files[o.Path]+", 0o644)")
			}
		}
		before = append(before, g.packed("check(", dirs, ") // as the engine does before")...)
	} else if m := r.Mountpoint; m != "" && m != r.Source {
		mine = g.id != "" && strings.Contains(dir, g.id)
		before = append(before, "check(os.MkdirAll("+g.lit(m)+", 0o755))")
	}
	run := func(words ...string) {
		after = append(after, "exec.Command("+strings.Join(g.lits(words), ", ")+").Run()")
	}
	cgroups := false
	for _, s := range g.plan.Undo(len(g.plan.Steps)) {
		switch o := s.Op.(type) {
		case *plan.CgroupRemove:
			cgroups = true
		case *plan.LinkDelete:
			run("ip", "link", "del", "dev", o.Name)
		case *plan.NftUnwall:
			for _, family := range o.Families() {
				run("nft", "delete", "table", family, o.Table)
			}
		case *plan.NftUnpublish:
			for _, at := range [][2]string{{"ip", "published"}, {"ip", "published_on"}, {"ip6", "published"}, {"ip6", "published_on"}} {
				var keys []string
				for _, p := range o.Ports {
					if name, key := portElement(p, false); portFamily(p) == at[0] && name == at[1] {
						keys = append(keys, key)
					}
				}
				if len(keys) > 0 {
					run("nft", "delete", "element", at[0], o.Table, at[1], "{ "+strings.Join(keys, ", ")+" }")
				}
			}
		}
	}
	if cgroups {
		list := "groups"
		if len(g.groups) == 1 {
			list = "[]string{" + g.groups[0] + "}"
		}
		after = append(after, "exec.Command(\"rmdir\", "+list+"...).Run()")
	}
	if mine { // a directory that was there stays
		before = append([]string{"_, there := os.Stat(" + g.lit(dir) + ")"}, before...)
		after = append(after, "if os.IsNotExist(there) {", "os.RemoveAll("+g.lit(dir)+")", "}")
	}
	if len(after) > 0 && g.tight < withoutScript {
		before = slices.Concat(before, []string{"undo := func() {"}, after, []string{"}", "defer undo()"})
		after = []string{"undo()"}
	}
	return before, after
}

func compress(data []byte) string {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestCompression)
	w.Write(data)
	w.Close()
	return base64.StdEncoding.EncodeToString(b.Bytes())
}
