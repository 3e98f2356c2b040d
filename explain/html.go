package explain

import (
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"glassbox/plan"
)

// page writes a plan as one HTML file: no script, no picture, no font, no request. html/template would do the escaping, and
// costs half a millisecond at every start of glassbox; here all text goes through esc, and there are no other places
// for it than between tags and in class names of our own.
type page struct {
	script
	times   *plan.Times // nil: not known
	slowest int
}

func esc(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "'", "&#39;").Replace(clean(s))
}

// A name is a text of a plan that may be long and have no space: a path. A narrow screen breaks it behind a slash, and not in a word.
type name string

// put writes markup; the arguments are text.
func (t *page) put(format string, a ...any) {
	for i, v := range a {
		a[i] = esc(fmt.Sprint(v))
		if _, ok := v.(name); ok {
			a[i] = strings.ReplaceAll(a[i].(string), "/", "/<wbr>")
		}
	}
	t.line(format, a...)
}

const pageHead = `<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">
<title>%s · glassbox</title>
<style>
:root{--bg:#fbfaf7;--card:#fff;--ink:#1d2329;--dim:#66707a;--line:#d9dcdf;--host:#0b7285;--child:#b35c00;--hostbg:#e3f4f6;--childbg:#fdf0e0;--bad:#b3261e;--good:#2b7a3d}
@media (prefers-color-scheme:dark){:root{--bg:#14181c;--card:#1c2227;--ink:#e6e9ec;--dim:#98a2ab;--line:#343c43;--host:#4cc3d6;--child:#f0a35c;--hostbg:#12343a;--childbg:#3b2a17;--bad:#ff8a80;--good:#7bd88f}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:60rem;padding:1.5rem 1rem 4rem;background:var(--bg);color:var(--ink);font:16px/1.5 system-ui,sans-serif;overflow-wrap:break-word}
h1{font-size:1.6rem;line-height:1.2;margin:0 0 .5rem}h2{font-size:1.2rem;margin:2.6rem 0 .3rem}h3{font-size:1rem;margin:1.3rem 0 .1rem}
pre{white-space:pre-wrap}p{margin:.2rem 0 .7rem}code,pre,.mono{font-family:ui-monospace,monospace;font-size:.86em}
.dim{color:var(--dim)}.host{color:var(--host)}.child{color:var(--child)}
nav a{margin-right:1rem}a{color:inherit}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(15rem,1fr));gap:.7rem}
.card{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:.6rem .8rem}
.card b{display:block}.own{border-left:.35rem solid var(--child)}.shared{border-left:.35rem solid var(--host)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:0 .7rem;margin:.3rem 0}dt{color:var(--dim)}dd{margin:0;min-width:0}
.lanes{border-top:1px solid var(--line)}
.step{display:grid;grid-template-columns:1.4rem 1.4rem 1.4rem 1fr}
.rail{position:relative}.rail::before{content:"";position:absolute;left:50%%;top:0;bottom:0;border-left:2px solid transparent}
.rail.h::before{border-color:var(--host)}.rail.c::before{border-color:var(--child)}
.dot::after{content:"";position:absolute;left:calc(50%% - .31rem);top:.5rem;width:.75rem;height:.75rem;border-radius:50%%;background:var(--host)}
.c.dot::after{background:var(--child)}.c.wait::after{background:var(--bg);border:2px solid var(--child)}
.c.first::before{top:.85rem}.c.last::before{bottom:calc(100%% - .85rem)}.c.last::after{border-radius:2px}
.across{position:relative}
.across.arrow::before{content:"";position:absolute;left:-.7rem;right:-.7rem;top:.82rem;border-top:2px dotted var(--dim)}
details{padding:.12rem 0 .12rem .5rem;min-width:0}
summary{cursor:pointer;list-style:none;display:flex;justify-content:space-between;gap:.8rem}summary::-webkit-details-marker{display:none}
summary:hover{background:var(--card)}summary .n{color:var(--dim);font-variant-numeric:tabular-nums;margin-right:.5rem}
summary>span:first-child{flex:1 1 auto;min-width:0}
summary .from{flex:0 0 auto;color:var(--dim);font-size:.85em;text-align:right;max-width:45%%}
summary .n::before{content:"▸";display:inline-block;width:1em}details[open]>summary .n::before{content:"▾"}
details[open]{background:var(--card);border-radius:.5rem;margin-bottom:.5rem}.why{margin:.2rem 0}
.fold,.fold[open]{padding:0;margin:0;background:none;border-radius:0}.fold>summary.step{display:grid;gap:0}
.fold>summary:hover{background:none}.fold>summary b::before{content:"▸ "}.fold[open]>summary b::before{content:"▾ "}
.fold>summary .count{color:var(--dim);font-weight:400;font-size:.85em}.mono,dd,li{overflow-wrap:anywhere}td.mono{overflow-wrap:break-word}
.phase{padding:1rem 0 .2rem .5rem}.phase p{color:var(--dim);font-size:.93em;max-width:44rem}
.stack{display:flex;flex-direction:column;gap:.25rem;max-width:40rem}
.stack div{border:1px solid var(--line);border-radius:.4rem;padding:.35rem .7rem;background:var(--card)}
.stack .up{border:2px dashed var(--child);background:var(--childbg)}
.path{display:flex;flex-wrap:wrap;align-items:stretch;gap:.4rem;margin:.4rem 0 1rem}
.path div{border:1px solid var(--line);border-radius:.5rem;padding:.35rem .6rem;background:var(--card);flex:1 1 8rem}
.path .in{background:var(--childbg);border-color:var(--child)}.path .out{background:var(--hostbg);border-color:var(--host)}
.path i{align-self:center;font-style:normal;color:var(--dim)}
.tree{border-left:2px solid var(--line);margin-left:.4rem;padding-left:.9rem}
.refused{border:2px solid var(--bad);border-radius:.5rem;padding:.5rem .8rem;font-weight:600}
.total,.high{color:var(--bad);font-weight:600}.moderate{color:var(--child);font-weight:600}.low{color:var(--dim)}
.grade{display:inline-block;font-size:1.5rem;font-weight:700;border:2px solid;border-radius:.5rem;padding:0 .6rem;margin-right:.6rem}
.chart{margin:.8rem 0 1rem}.chart svg{display:block;width:100%%;background:var(--card);border-radius:.3rem}
.chart .name{font-size:.85em;margin:.5rem 0 .15rem}
.axis{position:relative;height:1.4rem;border-top:1px solid var(--dim);font-size:.75rem;color:var(--dim);font-variant-numeric:tabular-nums}
.axis span{position:absolute;white-space:nowrap;padding-left:.2rem;border-left:1px solid var(--dim)}
.share{display:grid;grid-template-columns:5rem 3.8rem 1fr;gap:0 .6rem;padding:.15rem 0;font-variant-numeric:tabular-nums}
.share>:nth-child(-n+2){text-align:right}.share>svg{grid-column:3;height:.35rem;width:100%%}
.share.sum{border-top:1px solid var(--line);font-weight:600}
summary:has(.at){flex-wrap:wrap;gap:0 .8rem}summary:has(.at)>span:first-child{flex:1 1 40%%}
.at{display:block;width:100%%;height:.22rem;border-radius:.1rem;background:var(--line);margin-top:.12rem}
.took{white-space:nowrap;font-variant-numeric:tabular-nums;color:var(--ink)}.took.slowest{color:var(--bad);font-weight:700}
.k0{fill:#868e96}.k1{fill:#e8590c}.k2{fill:#f2b705}.k3{fill:#7048e8}.k4{fill:#1c7ed6}.k5{fill:#2f9e44}.k6{fill:#12a5b8}.k7{fill:#c2255c}
.k8{fill:#a07855}.k9{fill:#5c7cfa}.k10{fill:#e03131}.k11{fill:#be4bdb}
.k12{fill:none;stroke:#868e96;stroke-dasharray:4 3;vector-effect:non-scaling-stroke}.k13{fill:#adb5bd}
.key{display:inline-block;width:.8rem;height:.8rem;vertical-align:-.05rem;margin-right:.35rem}
.matrix{overflow-x:auto}table{border-collapse:collapse;width:100%%}td{padding:.25rem .6rem .25rem 0;vertical-align:top;border-top:1px solid var(--line)}
td.low,td.moderate,td.high,td.total{white-space:nowrap}
@media (max-width:34rem){table,tbody,tr,td{display:block}tr{border-top:1px solid var(--line);padding:.3rem 0}td{border:0;padding:0}
td.mono{overflow-wrap:anywhere}.step{grid-template-columns:1.1rem .7rem 1.1rem 1fr}summary{display:block}
.share{grid-template-columns:4.4rem 3rem 1fr}summary .from{display:block;text-align:left;max-width:none}.path{flex-direction:column}
.path div{flex:none}.path i{transform:rotate(90deg)}body{font-size:15px}}
@media print{body{max-width:none;background:#fff;color:#000;font-size:10pt}nav{display:none}.step,.card,.path div{break-inside:avoid}
h2,h3,.phase{break-after:avoid}details::details-content{content-visibility:visible;height:auto}}
</style></head><body>`

func writeHTML(w io.Writer, p *plan.Plan, a About) error {
	for _, s := range p.Steps {
		if s.Op == nil {
			return fmt.Errorf("the plan has a step without an op")
		}
	}
	v, r := Read(p), Policy(p, a)
	t := &page{script: script{w: w}}
	title := or(a.Title, "a container")
	t.put(pageHead, title)
	host, child := p.Count()
	t.put(`<h1>%s</h1>`, title)
	t.put(`<p>What starting it asks of the kernel, step by step: <b>%s steps</b>, <span class="host">%s by the host</span> (the `+
		`parent process), <span class="child">%s by the child</span> (the process that becomes the container).</p>`,
		len(p.Steps), host, child)
	t.put(`<p class="mono dim">plan %s</p>`, v.Hash)
	if a.Refused != "" {
		t.put(`<p class="refused">%s</p>`, refusal(a.Refused))
	}
	if a.Times.Fits(p) {
		t.times, t.slowest = a.Times, slowest(p, a.Times)
	}
	t.line(`<nav>%s<a href="#steps">Steps</a> <a href="#files">Files</a> <a href="#namespaces">Namespaces</a> <a `+
		`href="#limits">Limits</a> <a href="#network">Network</a> <a href="#reach">Reach</a></nav>`,
		when(t.times != nil, `<a href="#time">Time</a> `, ""))
	if t.times != nil {
		t.line(`<h2 id="time">In real time</h2>`)
		t.put(`<p>This start took <b>%s</b> from the first step until its program ran. Time runs to the right; colours are phases, and `+
			`what is outlined only waits.</p>`,
			duration(t.times.End))
		t.chart(stepTracks(p, t.times, 0), 0, t.times.End)
		t.line(`<h3>Where the time went</h3>`)
		t.shares(phaseShares(p, t.times), t.times.End)
	}
	t.lanes(p)
	t.files(v)
	t.namespaces(v)
	t.limits(v)
	t.network(v)
	t.reach(r)
	t.line("</body></html>")
	return t.err
}

// lanes is the diagram: time runs down, one lane for each process.
func (t *page) lanes(p *plan.Plan) {
	t.line(`<h2 id="steps">In time</h2><p class="dim">Time runs down. The left line is the host's process, the right one the `+
		`child's. Each step opens to its reason and its arguments.%s</p><div class="lanes">`,
		when(t.times != nil, " The bar below a step is its place in this start's time.", ""))
	alive := false
	seen := map[plan.Phase]bool{}
	for i, s := range p.Steps {
		rail := when(alive, "rail c", "rail")
		if i == 0 || p.Steps[i-1].Phase != s.Phase {
			if i > 0 {
				t.line(`</details>`)
			}
			t.phaseHead(p, i, rail, seen[s.Phase])
			seen[s.Phase] = true
		}
		left, across := "rail h", "across"
		switch s.Op.(type) {
		case *plan.Clone:
			if s.Lane == plan.Host {
				rail, across = "rail c first", "across arrow"
				alive = true
			}
		case *plan.Release, *plan.Expect, *plan.RecvFD, *plan.SendFD:
			across = when(alive, "across arrow", across)
		case *plan.Await:
			rail += " wait"
		case *plan.Execve:
			rail += " last"
			alive = false
		}
		if s.Lane == plan.Host {
			left += " dot"
		} else {
			rail += " dot"
		}
		t.line(`<div class="step"><div class="%s"></div><div class="%s"></div><div class="%s"></div><details>`, left, across, rail)
		t.put(`<summary><span><span class="n">%s</span>%s</span><span class="from">%s`, i+1, name(shorten(s.Op.String())),
			when(s.Origin == "default", "", s.Origin))
		t.took(p, i)
		t.line(`</span>`)
		t.place(p, i)
		t.line(`</summary>`)
		t.put(`<p class="why">%s</p><dl>`, s.Reason)
		t.put(`<dt>who</dt><dd class="`+when(s.Lane == plan.Host, "host",
			"child")+`">%s</dd><dt>from</dt><dd>%s</dd><dt>manual</dt><dd class="mono">%s</dd>`, s.Lane, s.Origin, s.Op.Man())
		val := reflect.Indirect(reflect.ValueOf(s.Op))
		for k := range val.NumField() {
			field, options, _ := strings.Cut(val.Type().Field(k).Tag.Get("json"), ",")
			// As the JSON form has it: what isn't there was not asked for.
			if field == "" || options == "omitempty" && val.Field(k).IsZero() {
				continue
			}
			t.put(`<dt>%s</dt><dd class="mono">%s</dd>`, field, value(val.Field(k).Interface()))
		}
		t.line(`</dl></details></div>`)
	}
	t.line(when(len(p.Steps) > 0, `</details></div>`, `</div>`))
}

// phaseHead opens the phase that begins with step i, which folds together with its steps.
func (t *page) phaseHead(p *plan.Plan, i int, rail string, again bool) {
	heading, about := phase(p.Steps[i].Phase)
	n, took := 0, int64(0)
	for i+n < len(p.Steps) && p.Steps[i+n].Phase == p.Steps[i].Phase {
		if t.times != nil && !p.Steps[i+n].Waits() {
			if begin, end, ok := t.times.Span(p, i+n); ok {
				took += end - begin
			}
		}
		n++
	}
	count := fmt.Sprintf("%d steps", n)
	if n == 1 {
		count = "1 step"
	}
	if t.times != nil {
		count += ", " + duration(took)
	}
	t.put(`<details class="fold" open><summary class="step"><div class="rail h"></div><div></div>`+
		`<div class="`+rail+`"></div><div class="phase"><b>%s</b> <span class="count">%s</span>`,
		heading+when(again, " (continued)", ""), count)
	if !again && about != "" {
		t.put(`<p>%s</p>`, about)
	}
	t.line(`</div></summary>`)
}

// shorten cuts ids of 64 digits and long commands.
func shorten(s string) string {
	s = Brief(s)
	if n := cut(s, 220); n < len(s) {
		s = s[:n] + " …"
	}
	return s
}

func (t *page) files(v *View) {
	t.line(`<h2 id="files">Files: a stack of layers</h2>`)
	t.line(`<div class="stack">`)
	if v.Root.Upper != "" {
		t.put(`<div class="up"><b>Its own changes</b>%s<br><span class="mono dim">%s</span></div>`,
			when(v.Root.ReadOnly, " (the root is mounted read-only)", ""), shorten(v.Root.Dir+"/"+v.Root.Upper))
	}
	layers := v.layers()
	for i, l := range layers {
		t.put(`<div>Layer %s <span class="mono dim">%s</span></div>`, len(layers)-i, shorten(l))
	}
	if v.Root.Source != "" {
		t.put(`<div class="up"><b>A directory of the host</b><br><span class="mono">%s</span></div>`, v.Root.Source)
	}
	t.line(`</div>`)
	t.line(`<h3>Mounted on it</h3><table>`)
	for _, m := range v.Mounts {
		what := m.Type
		if m.Type == "bind" {
			what = "the host's " + m.Source
		}
		t.put(`<tr><td class="mono">%s</td><td>%s%s</td></tr>`, name(m.Target), name(shorten(what)), when(m.ReadOnly, ", read-only", ""))
	}
	t.line(`</table>`)
	if len(v.Masked)+len(v.Locked) > 0 {
		t.put(`<p class="dim">Hidden: %s. Read-only: %s.</p>`, orNone(v.Masked), orNone(v.Locked))
	}
}

func (t *page) namespaces(v *View) {
	t.line(`<h2 id="namespaces">Namespaces: what is seen inside and outside</h2><div class="cards">`)
	user := "root of the container is root of the host, without most of its powers"
	if len(v.UIDMap) > 0 {
		user = "ids inside:outside:count " + idWords(v.UIDMap)
	}
	for _, ns := range []struct{ name, title, inside, outside string }{
		{"mount", "Mounts", fmt.Sprintf("the root above and %d mounts", len(v.Mounts)), "none of them can be seen"},
		{"pid", "Processes", "its program is process 1", "an ordinary process with another number"},
		{"net", "Network", or(v.Net.Address, "only a loopback"), or(v.Net.Veth, "nothing")},
		{"uts", "Host name", or(v.Hostname, "the host's"), "the host's name stays"},
		{"ipc", "Shared memory", "its own, empty", "the host's can't be reached"},
		{"cgroup", "Cgroup tree", "its own cgroup is /", v.Cgroup()},
		{"user", "Users", fmt.Sprintf("user %d, group %d", v.UID, v.GID), user},
		{"time", "Clocks", "its own boot time", "the host's"},
	} {
		switch {
		case v.Joined[ns.name] != "":
			t.put(`<div class="card shared"><b>%s</b>shared with %s</div>`, ns.title, v.Joined[ns.name])
		case v.Shares(ns.name):
			t.put(`<div class="card shared"><b>%s</b>the host's<dl><dt>inside</dt><dd>%s</dd></dl></div>`, ns.title,
				when(ns.name == "user", ns.inside+": "+ns.outside, "as outside"))
		default:
			t.put(`<div class="card own"><b>%s</b>of its own<dl><dt>inside</dt><dd>%s</dd><dt>outside</dt><dd>%s</dd></dl></div>`, ns.title,
				ns.inside, shorten(ns.outside))
		}
	}
	t.line(`</div>`)
}

func (t *page) limits(v *View) {
	t.line(`<h2 id="limits">Limits: its place in the cgroup tree</h2>`)
	path := strings.Trim(v.Cgroup(), "/")
	parts := strings.Split(path, "/")
	for _, p := range append([]string{"/"}, parts...) {
		t.put(`<div class="tree"><span class="mono">%s</span>`, shorten(p))
	}
	t.line(`<table>`)
	any := false
	for _, r := range v.rights() {
		if r.limited && r.amount >= 0 && !strings.Contains(r.key, "RLIMIT") {
			any = true
			t.put(`<tr><td>%s</td><td>at most %s</td></tr>`, strings.TrimPrefix(r.key, "limits "),
				strings.TrimPrefix(strings.SplitN(r.What, " of ", 2)[0], "use "))
		}
	}
	for _, a := range aspects() {
		if slices.Contains([]string{"reservation", "swappiness", "shares", "cpuset", "cpumems", "blkio", "otherlimits"}, a.name) {
			for _, s := range a.say(v) {
				any = true
				t.put(`<tr><td colspan="2">%s</td></tr>`, s)
			}
		}
	}
	if !any {
		t.line(`<tr><td>no limits</td></tr>`)
	}
	t.put(`</table><p class="dim">%s</p>`, fmt.Sprintf("%d directories of cgroups, %d device rules.", len(v.Cgroups), len(v.DeviceRules)))
	t.line(strings.Repeat("</div>", len(parts)+1))
}

func (t *page) network(v *View) {
	t.line(`<h2 id="network">Network: the way of a packet</h2>`)
	n := v.Net
	switch n.Mode {
	case "host":
		t.line(`<p>It uses the host's network: its addresses and its ports, without anything between.</p>`)
		return
	case "joined":
		t.put(`<p>It shares the network of %s.</p>`, v.Joined["net"])
		return
	case "none":
		t.put(`<div class="path"><div class="in"><b>container</b><br>lo, 127.0.0.1%s</div></div><p>There is no way out and no way in.</p>`,
			when(n.Loopback, "", " (down)"))
		return
	}
	box := func(class, name, text string) { t.put(`<div class="`+class+`"><b>%s</b><br>%s</div>`, name, text) }
	arrow := func() { t.line(`<i>→</i>`) }
	address, _, _ := strings.Cut(n.Address, "/")
	t.line(`<h3>Out</h3><div class="path">`)
	box("in", "container", n.Device+" "+n.Address)
	arrow()
	box("out", "cable", "veth "+n.Veth)
	arrow()
	box("out", "bridge "+n.Bridge, "gateway "+n.Gateway)
	arrow()
	box("out", "nft: masquerade", "from "+address+" to the host's address")
	arrow()
	box("", "outside", "sees the host")
	t.line(`</div><p class="dim">Answers come back the same way: the kernel remembers the connection and translates their address.</p>`)
	if len(n.Ports) == 0 {
		t.line(`<h3>In</h3><p>Nothing is published, so nobody outside can begin one.</p>`)
	}
	for i, p := range n.Ports {
		if i == 0 {
			t.line(`<h3>In</h3>`)
		}
		t.line(`<div class="path">`)
		box("", "outside", fmt.Sprintf("to %s port %d/%s", or(p.HostIP, "any address of the host"), p.HostPort, p.Proto))
		arrow()
		box("out", "nft: dnat", fmt.Sprintf("to %s port %d", p.ContainerIP, p.ContainerPort))
		arrow()
		box("out", "bridge "+n.Bridge, "finds the port of "+n.Veth)
		arrow()
		box("in", "container", fmt.Sprintf("port %d", p.ContainerPort))
		t.line(`</div>`)
	}
	t.line(`<details><summary class="dim"><span><span class="n"></span>The firewall's rules</span></summary><pre>`)
	for _, rule := range n.Rules {
		t.put("%s", rule)
	}
	t.line(`</pre></details>`)
}

func (t *page) reach(r *Report) {
	t.line(`<h2 id="reach">Reach: what it could do to the host</h2>`)
	t.put(`<p><span class="grade">%s</span>%s</p><table>`, r.Grade, r.Meaning)
	for _, f := range r.Findings {
		t.put(`<tr><td class="`+string(f.Severity)+`">%s</td><td>%s%s<br><span class="mono dim">%s</span></td></tr>`, f.Severity, name(f.What),
			name(when(f.Why != "", ": "+f.Why, "")), f.Mend)
	}
	t.put(`</table><p>%s</p>`, fmt.Sprintf("%d of %d system calls are allowed whatever their arguments, %d depending on them, %d never.",
		r.Syscalls.Allowed, r.Syscalls.Known, len(r.Syscalls.Conditional), len(r.Syscalls.Denied)))
	for _, area := range areas() {
		var words []string
		for _, right := range r.Rights {
			if right.Area == area {
				words = append(words, right.What)
			}
		}
		if area == "devices" {
			words = mergeDevices(words)
		}
		if len(words) == 0 {
			continue
		}
		t.put(`<details><summary><b>%s</b> <span class="dim">%s</span></summary><ul>`, area, len(words))
		for _, s := range words {
			t.put(`<li>%s</li>`, s)
		}
		t.line(`</ul></details>`)
	}
}
