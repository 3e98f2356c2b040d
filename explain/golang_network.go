package explain

import (
	"fmt"
	"slices"
	"strings"

	"glassbox/plan"
)

// network: the network.
func (g *goStep) network(op plan.Op) (goLine, bool) {
	switch o := op.(type) {
	case *plan.LinkBridge:
		return g.bridge(o)
	case *plan.LinkVeth:
		mtu := ""
		if o.MTU != 0 {
			mtu = fmt.Sprintf(" mtu %d", o.MTU)
		}
		commands := []string{
			fmt.Sprintf("ip link add name %s%s type veth peer name %s%s%s netns ", o.Name, mtu, o.Peer, when(o.MAC != "", " address "+o.MAC, ""),
				mtu),
			fmt.Sprintf("ip link set dev %s master %s up", o.Name, o.Bridge),
		}
		if o.Hairpin {
			commands = append(commands, fmt.Sprintf("bridge link set dev %s hairpin on", o.Name))
		}
		if o.Isolated {
			commands = append(commands, fmt.Sprintf("bridge link set dev %s isolated on", o.Name))
		}
		if !plainWords(o.Name, o.Peer, o.Bridge) || o.MAC != "" && !plainWords(o.MAC) {
			return g.none()
		}
		g.use("run")
		items := g.lits(commands)
		items[0] += "+pid"
		for _, set := range o.Sysctls {
			if !plainWords(set) {
				return g.none()
			}
			// -e: a kernel without IPv6 has no such file.
			items = append(items, `"nsenter --net=/proc/"+pid+`+g.lit("/ns/net sysctl -qew "+strings.ReplaceAll(set, "/", ".")))
		}
		return goLine{fn: "run", items: append([]string{`""`}, items...), fixed: 1, join: true}, true
	case *plan.NftGuard:
		if !plainWords(append([]string{o.Table, o.Link, o.MAC}, o.Addresses...)...) || strings.ContainsAny(o.Table+o.Link+o.MAC, "`\"") {
			return g.none()
		}
		g.use("run")
		return g.text("run(`" + strings.Join(guardLines("add", o.Table, o.Link, o.MAC, o.Addresses), "\n") + "`, \"nft -f -\")")
	case *plan.LinkMacvlan, *plan.LinkVLAN, *plan.LinkRate, *plan.LinkMove, *plan.FirewallAccept, *plan.NftWall:
		if line, ok := g.script(o); ok {
			return line, true
		}
		return g.none()
	case *plan.LinkAddress:
		if !plainWords(o.Link) || o.Address != "" && !plainWords(o.Address) {
			return g.none()
		}
		var commands []string
		if o.Address != "" {
			how := " brd + dev "
			if strings.Contains(o.Address, ":") {
				// Without duplicate address detection, as glassbox does it: an address would be no good for a second otherwise (RFC 4862, 5.4).
				how = " nodad dev "
			}
			commands = append(commands, "addr add "+o.Address+how+o.Link)
		}
		return g.inside(append(commands, "link set dev "+o.Link+" up")...)
	case *plan.RouteDefault:
		if !plainRoute(o) {
			return g.none()
		}
		return g.inside(when(o.IPv6, "-6 ", "") + "route " + when(o.Replace, "replace", "add") + " default " + o.Words())
	case *plan.NftBridge:
		if !plainWords(o.Table) {
			return g.none()
		}
		g.use("run")
		lines := []string{"if exec.Command(" + strings.Join(g.lits([]string{"nft", "list", "table", "ip", o.Table}), ", ") + ").Run() != nil {"}
		input := nftBlocks(o.Rules, g.width)
		if g.tight < withoutComments {
			input = strings.Join(o.Rules, "\n")
		}
		// A raw string of Go has no backquote, and loses carriage returns (Go's specification, String literals).
		if strings.Contains(input, "`") || strings.Contains(input, "\r") {
			return g.none()
		}
		return g.text(append(lines, "run(`"+input+"`, \"nft -f -\")", "}")...)
	case *plan.NftPublish:
		var lines []string
		for _, p := range o.Ports {
			name, element := portElement(p, true)
			args := g.lits([]string{"nft", "add", "element", portFamily(p), o.Table, name, "{ " + element + " }"})
			lines = append(lines, "check(exec.Command("+strings.Join(args, ", ")+").Run())")
		}
		if len(lines) == 0 {
			return g.note("no port")
		}
		return g.text(lines...)
	}
	// Each of the others is a program of its own, or needs a process without threads: cgroups, links and rules that are removed, a process
	// that is found again, time namespaces, systemd and resctrl, hooks, the root as a runtime mounts it.
	return g.none()
}

func (g *golang) bridge(o *plan.LinkBridge) (goLine, bool) {
	if !plainWords(o.Name, o.Address) || o.Address6 != "" {
		return goLine{}, false
	}
	g.use("run", "write")
	mtu := ""
	if o.MTU != 0 {
		mtu = fmt.Sprintf(" mtu %d", o.MTU)
	}
	lines := []string{"if exec.Command(" + strings.Join(g.lits([]string{"ip", "link", "show", "dev", o.Name}), ", ") + ").Run() != nil {"}
	lines = append(lines, g.packed(`run("",`, g.lits([]string{"ip link add name " + o.Name + mtu + " type bridge", "ip addr add " + o.Address +
		" brd + dev " + o.Name, "ip link set dev " + o.Name + " up"}), ")")...)
	for _, set := range o.Sysctls {
		key, value, _ := strings.Cut(set, "=")
		file := g.lit("/proc/sys/" + key)
		if strings.Contains(key, "ipv6") {
			lines = append(lines, "os.WriteFile("+file+", []byte("+g.lit(value)+"), 0) // a kernel without IPv6 has no such file")
		} else {
			lines = append(lines, "write("+file+", "+g.lit(value)+")")
		}
	}
	return goLine{text: append(lines, "}")}, true
}

// inside runs ip in the child's network namespace.
func (g *golang) inside(commands ...string) (goLine, bool) {
	if !g.wantsInside() { // for one command a function would be long
		argv := g.lits(append([]string{"ip"}, strings.Fields(commands[0])...))
		g.use("fmt")
		return goLine{fn: "check", items: []string{`exec.Command("nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", cmd.Process.Pid), ` +
			strings.Join(argv, ", ") + ").Run()"}, join: true}, true
	}
	g.use("run")
	items := []string{`""`}
	for _, c := range commands {
		items = append(items, "inside+"+g.lit(c))
	}
	return goLine{fn: "run", items: items, fixed: 1, join: true}, true
}

// nftBlocks writes commands that make tables of one name in the shorter form of nft(8), in which a table is a block. Commands that have
// another form stay as they are.
func nftBlocks(rules []string, width int) string {
	type block struct {
		order []string // chains, sets and maps
		lines map[string][]string
		flush bool
	}
	var families []string
	blocks, table := map[string]*block{}, ""
	for _, r := range rules {
		words := strings.Fields(r)
		if len(words) < 4 {
			return strings.Join(rules, "\n")
		}
		b := blocks[words[2]]
		if b == nil {
			b = &block{lines: map[string][]string{}}
			blocks[words[2]] = b
			families = append(families, words[2])
		}
		switch {
		case len(words) == 4 && (words[0] == "add" || words[0] == "flush") && words[1] == "table" && (table == "" || table == words[3]):
			table, b.flush = words[3], b.flush || words[0] == "flush"
		case len(words) > 5 && words[0] == "add" && slices.Contains([]string{"map", "set", "chain"}, words[1]) &&
			words[3] == table && words[5] == "{":
			name := words[1] + " " + words[4]
			b.order = append(b.order, name)
			b.lines[name] = append(b.lines[name], strings.TrimSuffix(strings.TrimSuffix(strings.Join(words[6:len(words)-1], " "), ";"), " "))
		case len(words) == 5 && words[0] == "add" && words[1] == "chain" && words[3] == table:
			b.order = append(b.order, "chain "+words[4])
			b.lines["chain "+words[4]] = []string{}
		case len(words) > 5 && words[0] == "add" && words[1] == "rule" && words[3] == table && b.lines["chain "+words[4]] != nil:
			b.lines["chain "+words[4]] = append(b.lines["chain "+words[4]], strings.Join(words[5:], " "))
		default:
			return strings.Join(rules, "\n")
		}
	}
	var lines []string
	line := ""
	add := func(word string) {
		if line != "" && len(line)+1+len(word) > width {
			lines, line = append(lines, line), word
			return
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	for _, family := range families {
		b := blocks[family]
		if b.flush {
			add(fmt.Sprintf("add table %s %s; flush table %s %s;", family, table, family, table))
		}
		add(fmt.Sprintf("table %s %s {", family, table))
		for _, name := range b.order {
			add(name + " {")
			for _, l := range b.lines[name] {
				add(l + ";")
			}
			add("};")
		}
		if family == families[len(families)-1] {
			add("}")
		} else {
			add("};")
		}
	}
	return strings.Join(append(lines, line), "\n")
}

// script has a shell make what is done with commands, as the script of --format sh does: that takes the fewest lines. The child is $0.
func (g *golang) script(op plan.Op) (goLine, bool) {
	var lines []string
	switch o := op.(type) {
	case *plan.NftBridge:
		if len(o.Rules) == 0 {
			return goLine{}, false
		}
		lines = []string{
			"nft list table ip " + quote(o.Table) + " >/dev/null 2>&1 || nft -f - <<'END'",
			clean(strings.ReplaceAll(nftBlocks(o.Rules, g.width), "\n", " \x01")),
		}
		lines[1] = strings.ReplaceAll(lines[1], ` \x01`, "\n") + "\nEND"
	case *plan.LinkBridge, *plan.LinkVeth, *plan.LinkMacvlan, *plan.LinkVLAN, *plan.LinkRate,
		*plan.LinkMove, *plan.LinkAddress, *plan.RouteDefault, *plan.NftPublish,
		*plan.FirewallAccept, *plan.NftGuard, *plan.NftWall:
		made, ok := (&shell{plan: g.plan, view: g.view, part: "host"}).commands(op)
		if !ok || len(made) == 0 {
			return goLine{}, false
		}
		for _, line := range made {
			lines = append(lines, strings.TrimSpace(line))
		}
	default:
		return goLine{}, false
	}
	if strings.ContainsAny(strings.Join(lines, ""), "`\r\x00") {
		return goLine{}, false
	}
	g.use("fmt")
	return goLine{fn: "sh", items: lines, join: true}, true
}

// shellText is a script in few lines.
func shellText(lines []string, width, most int) string {
	text := "pid=$0"
	for _, line := range lines {
		sep := "; "
		last := text[strings.LastIndexAny(text, " \n;")+1:]
		switch {
		case slices.Contains([]string{"then", "do", "else"}, last):
			sep = " "
		case strings.HasSuffix(text, "\nEND") || strings.Contains(line, "\n") || width+len(line) > most:
			sep = "\n"
		}
		text += sep + line
		width = len(text) - strings.LastIndex(text, "\n")
	}
	return text
}

func plainRoute(o *plan.RouteDefault) bool {
	return plainWords(o.Link) && (o.Via == "" || plainWords(o.Via))
}

// plainWords reports whether commands can name these without quotes.
func plainWords(words ...string) bool {
	return !slices.ContainsFunc(words, func(w string) bool {
		return w == "" || strings.HasPrefix(w, "-") || strings.ContainsAny(w, " \t\r\n\v\f\u0085\u00a0")
	})
}

// portElement is a published port as nft(8) takes it: the map's name and the element.
func portElement(p plan.PortRule, value bool) (name, key string) {
	name, key = "published", fmt.Sprintf("%s . %d", p.Proto, p.HostPort)
	if p.HostIP != "" {
		name, key = "published_on", p.HostIP+" . "+key
	}
	if value {
		key += fmt.Sprintf(" : %s . %d", p.ContainerIP, p.ContainerPort)
	}
	return name, key
}
