package wire

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// Other firewalls of the host. What our own table accepts they can still drop: in nf_tables "accept" ends one chain, "drop" ends all.

// AcceptComment is the comment of the rules that let a network through another firewall: by it they are found again.
func AcceptComment(link string) string { return "glassbox " + link }

// accept adds those of the rules that aren't there. A chain that is gone drops nothing any more.
func (w *Executor) accept(op *plan.FirewallAccept) error {
	if op.Program != "" {
		return legacy(op)
	}
	c, err := w.nftConn()
	if err != nil {
		return err
	}
	return c.accept(op)
}

func (c *Conn) accept(op *plan.FirewallAccept) error {
	family, err := familyNumber(op.Family)
	if err != nil {
		return err
	}
	have, err := c.rules(family, op.Table)
	if err != nil {
		return fmt.Errorf("rules: %w", err)
	}
	for _, line := range op.Rules {
		if _, ok := findAccept(have, op, line); ok {
			continue
		}
		// One transaction for each rule: a chain that is gone takes only its own rule with it.
		err := c.sendRules(op.Table, []string{line})
		if errors.Is(err, unix.ENOENT) {
			// The rule whose place was meant is gone, as after a reload: the beginning of the chain is always right.
			err = c.sendRules(op.Table, []string{atBegin(line)})
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}

// atBegin is a line that inserts a rule at the beginning of its chain.
func atBegin(line string) string {
	w := tokens(line)
	w[0] = "insert"
	if i := slices.Index(w, "position"); i >= 0 && i+2 <= len(w) {
		w = slices.Delete(w, i, i+2)
	}
	return strings.Join(w, " ")
}

// findAccept looks for the rule of a line, wherever in the chain it is.
func findAccept(have []RuleState, op *plan.FirewallAccept, line string) (RuleState, bool) {
	// Compared as the kernel has it. The line is compiled and taken apart again, so that there is no second reading of
	// nft(8)'s words.
	var r request
	if err := r.compile(op.Table, []string{line}); err != nil {
		return RuleState{}, false
	}
	r.finish()
	var found RuleState
	ok := false
	_ = parse(r.b, func(m message) error {
		want, _ := parseRule(m.body)
		for _, h := range have {
			if h.Family == want.Family && h.Table == want.Table && h.Chain == want.Chain && h.Comment == AcceptComment(op.Link) &&
				sameList(want.expressions, h.expressions) {
				found, ok = h, true
			}
		}
		return nil
	})
	return found, ok
}

// LookAccept says which of the rules aren't there.
func LookAccept(op *plan.FirewallAccept) (missing []string, err error) {
	if op.Program != "" {
		for _, line := range op.Rules {
			there, err := legacyHas(op, line)
			if err != nil {
				return nil, err
			}
			if !there {
				missing = append(missing, line)
			}
		}
		return missing, nil
	}
	rules, err := Firewall()
	if err != nil {
		return nil, err
	}
	for _, line := range op.Rules {
		if _, ok := findAccept(rules, op, line); !ok {
			missing = append(missing, line)
		}
	}
	return missing, nil
}

// WithoutAccepts is a ruleset without the rules that let a link through.
func (rs *Ruleset) WithoutAccepts(link string) *Ruleset {
	out := *rs
	out.rules = map[chainKey][]RuleState{}
	for k, rules := range rs.rules {
		out.rules[k] = slices.DeleteFunc(slices.Clone(rules), func(r RuleState) bool { return r.Comment == AcceptComment(link) })
	}
	return &out
}

// DeleteAccepts removes the rules that let a network through other firewalls, but for those that keep says.
func DeleteAccepts(link string, keep func(RuleState) bool) error {
	c, err := Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer c.Close()
	rules, err := c.rules(0, "")
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range rules {
		if r.Comment != AcceptComment(link) || keep != nil && keep(r) {
			continue
		}
		// By its handle, which is never given to another rule of the table: one that was added meanwhile stays.
		q := request{family: r.Family}
		q.begin()
		q.nft(unix.NFT_MSG_DELRULE, 0)
		q.str(unix.NFTA_RULE_TABLE, r.Table)
		q.str(unix.NFTA_RULE_CHAIN, r.Chain)
		q.be64(unix.NFTA_RULE_HANDLE, r.Handle)
		q.ackLast()
		// ENOENT: its firewall was reloaded between the list and this.
		if _, err := c.transact(&q); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("%s: %w", r, err))
		}
	}
	if keep == nil {
		errs = append(errs, deleteLegacy(link))
	}
	return errors.Join(errs...)
}

// IsAccept reports whether a rule is that of a line of a step.
func IsAccept(r RuleState, op *plan.FirewallAccept) bool {
	if op.Program != "" {
		return false
	}
	return slices.ContainsFunc(op.Rules, func(line string) bool {
		_, ok := findAccept([]RuleState{r}, op, line)
		return ok
	})
}

// ---- ip_tables ----

// The tables of iptables-legacy are no tables of nf_tables. What is to be done in them is done by the program that made them, which does it
// as a whole table at a time and shuts others out meanwhile: it keeps the counters and knows every extension that is in there.

// Legacy are the programs whose table filter is in use in this network namespace.
func Legacy(v6 bool) []string {
	var out []string
	for _, p := range []struct {
		file, program string
		v6            bool
	}{
		{"/proc/net/ip_tables_names", "iptables-legacy", false},
		{"/proc/net/ip6_tables_names", "ip6tables-legacy", true},
	} {
		if p.v6 && !v6 {
			continue
		}
		// /proc/net is a link to self/net: this thread may be in another network namespace than the process.
		fd, err := unix.Open(strings.Replace(p.file, "/proc/", "/proc/thread-self/", 1), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		// The names of a handful of tables, a line each: filter, nat, mangle, raw, security.
		var buf [256]byte
		n, _ := unix.Read(fd, buf[:])
		unix.Close(fd)
		if slices.Contains(strings.Fields(string(buf[:max(n, 0)])), "filter") {
			out = append(out, p.program)
		}
	}
	return out
}

// ErrNoProgram says that a firewall can't be looked at, because the program that made it isn't there.
var ErrNoProgram = errors.New("the program isn't installed")

// runLegacy runs iptables-legacy or its sister; ok is false where it exits with 1, which is "there is no such rule".
func runLegacy(program string, args ...string) (out string, ok bool, err error) {
	if program != "iptables-legacy" && program != "ip6tables-legacy" {
		return "", false, fmt.Errorf("program %q: want iptables-legacy or ip6tables-legacy", program)
	}
	// Not by PATH: this runs as root, and the environment may be anybody's.
	for _, dir := range []string{"/usr/sbin/", "/sbin/", "/usr/bin/", "/usr/local/sbin/"} {
		if _, err := os.Stat(dir + program); err != nil {
			continue
		}
		// -w waits for the lock of iptables (xtables.lock), which another firewall may hold at this moment.
		cmd := exec.Command(dir+program, append([]string{"-w"}, args...)...)
		cmd.Env = []string{"PATH=/usr/sbin:/sbin:/usr/bin:/bin"}
		text, err := cmd.Output()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			if exit.ExitCode() == 1 {
				return string(text), false, nil
			}
			return "", false, fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, strings.TrimSpace(string(exit.Stderr)))
		}
		return string(text), err == nil, err
	}
	return "", false, fmt.Errorf("%s: %w", program, ErrNoProgram)
}

// LegacyChain gives a chain's rules as the program prints them: -P first, then -A.
func LegacyChain(program, chain string) ([]string, error) {
	out, _, err := runLegacy(program, "-S", chain)
	return strings.Split(strings.TrimSpace(out), "\n"), err
}

// legacyRule takes a line of a step apart, and refuses what isn't a rule that accepts the packets of one link.
func legacyRule(op *plan.FirewallAccept, line string) (place, rule []string, err error) {
	w := strings.Fields(line)
	fail := func() ([]string, []string, error) {
		return nil, nil, fmt.Errorf("%q: not a command that this version of glassbox understands", line)
	}
	if len(w) < 4 || w[0] != op.Program || w[1] != "-w" {
		return fail()
	}
	switch {
	case w[2] == "-A" && w[3] == op.Chain:
		place, rule = w[2:4], w[4:]
	case w[2] == "-I" && w[3] == op.Chain && len(w) > 4 && strings.Trim(w[4], "0123456789") == "":
		place, rule = w[2:5], w[5:]
	default:
		return fail()
	}
	// own: a rule about other links than the network's would open what isn't ours.
	own := false
	for i := 0; i+1 < len(rule); i += 2 {
		name := rule[i+1]
		switch rule[i] {
		case "-i", "-o":
			own = own || name == op.Link
			if CheckName(name) != nil {
				return fail()
			}
		case "-m":
			if name != "comment" {
				return fail()
			}
		case "--comment":
			if name != legacyComment(op.Link) {
				return fail()
			}
		case "-j":
			if name != "ACCEPT" {
				return fail()
			}
		default:
			return fail()
		}
	}
	if len(rule)%2 != 0 || !own {
		return fail()
	}
	return place, rule, nil
}

func legacyComment(link string) string { return "glassbox:" + link }

// LegacyAccept is a rule of iptables that lets packets through; in or out may be empty.
func LegacyAccept(link, in, out string) string {
	s := ""
	if in != "" {
		s += " -i " + in
	}
	if out != "" {
		s += " -o " + out
	}
	return s + " -m comment --comment " + legacyComment(link) + " -j ACCEPT"
}

func legacyHas(op *plan.FirewallAccept, line string) (bool, error) {
	_, rule, err := legacyRule(op, line)
	if err != nil {
		return false, err
	}
	_, ok, err := runLegacy(op.Program, append([]string{"-C", op.Chain}, rule...)...)
	return ok, err
}

func legacy(op *plan.FirewallAccept) error {
	for _, line := range op.Rules {
		there, err := legacyHas(op, line)
		if errors.Is(err, ErrNoProgram) {
			return nil // nor can anybody else have a rule there; doctor says it
		}
		if err != nil {
			return err
		}
		if there {
			continue
		}
		// At the place that was worked out for it: before the rule that drops, or at the chain's end.
		place, rule, err := legacyRule(op, line)
		if err != nil {
			return err
		}
		_, ok, err := runLegacy(op.Program, append(place, rule...)...)
		if err == nil && !ok && place[0] == "-I" { // there are fewer rules by now
			_, _, err = runLegacy(op.Program, append([]string{"-I", op.Chain}, rule...)...)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// deleteLegacy removes the rules of a link.
func deleteLegacy(link string) error {
	var errs []error
	for _, program := range Legacy(true) {
		lines, err := LegacyChain(program, "FORWARD")
		if errors.Is(err, ErrNoProgram) {
			continue
		}
		errs = append(errs, err)
		for _, line := range lines {
			w := strings.Fields(strings.ReplaceAll(line, `"`, "")) // ours have no blanks
			if len(w) > 2 && w[0] == "-A" && slices.Contains(w, legacyComment(link)) {
				_, _, err := runLegacy(program, append([]string{"-D"}, w[1:]...)...)
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}
