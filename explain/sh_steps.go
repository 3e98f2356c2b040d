package explain

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"glassbox/plan"
)

// commands returns what does a step; false if nothing can. No commands and true is a step that a script has no need of, and a
// comment says why.
func (s *shell) commands(op plan.Op) ([]string, bool) {
	say := func(text string) ([]string, bool) { return []string{"#    (" + text + ")"}, true }
	cmd := func(lines ...string) ([]string, bool) { return lines, true }
	none := func() ([]string, bool) { return nil, false }
	switch o := op.(type) {
	// Cgroups.
	case *plan.CgroupCreate:
		return cmd("cgroup " + quote(o.Path))
	case *plan.CgroupWrite:
		return cmd(echo(o.Value, o.File))
	case *plan.CgroupEvacuate:
		return cmd("cgroup "+quote(o.To),
			`while read -r process; do echo "$process" >`+quote(o.To+"/cgroup.procs")+` || true; done <`+quote(o.From+"/cgroup.procs"))
	case *plan.CgroupOpen:
		s.opened[o.Save] = o.Path
		return say("a script uses its name")
	case *plan.CgroupJoin:
		return cmd("echo 0 >" + quote(s.tasks(o.From)))
	case *plan.CgroupAttach:
		return cmd(`echo "$pid" >` + quote(o.Path+"/cgroup.procs"))
	case *plan.CgroupRemove, *plan.LinkDelete, *plan.NftUnpublish, *plan.NftUnguard, *plan.NftUnwall, *plan.NameRemove, *plan.ResctrlRemove:
		return s.undo(op), true

	case *plan.Quota:
		if len(o.Dirs) == 0 {
			return none()
		}
		kib := (o.Bytes + 1023) / 1024
		return cmd(fmt.Sprintf("chattr -p %d +P %s", o.Project, Quoted(o.Dirs)),
			fmt.Sprintf(`setquota -P %d %d %d 0 0 "$(stat -c %%m %s)"`, o.Project, kib, kib, quote(o.Dirs[0])))

	// Resource classes.
	case *plan.ResctrlCreate:
		return cmd("mkdir " + quote(o.Path))
	case *plan.ResctrlCheck:
		return none() // the kernel writes the same in other words: "L3:0=ff" as "    L3:0=00ff;1=ffff"
	case *plan.ResctrlWrite:
		return cmd("printf '%s\\n' " + Quoted(o.Schemata) + " >" + quote(o.Path+"/schemata"))
	case *plan.ResctrlJoin:
		return cmd("echo 0 >" + quote(s.opened[o.From]))

	// Namespaces and the child.
	case *plan.OpenTree:
		if o.Mounts != "" {
			return none()
		}
		s.opened[o.Save] = path.Join(o.Path, o.Beneath)
		if o.IDMap != "" || o.Device != "" || o.Beneath != "" || o.NoLinks {
			return none()
		}
		if o.MakeDir {
			return cmd("[ -e " + quote(o.Path) + " ] || mkdir -p " + quote(o.Path))
		}
		return say("a script uses its name")
	case *plan.Open:
		s.opened[o.Save] = o.Path
		return say("a script uses its name")
	case *plan.Clone:
		return s.clone(o)
	case *plan.Unshare:
		if s.part == "host" || !slices.Equal(o.Namespaces, []string{"cgroup"}) {
			return none()
		}
		s.cgroups = true
		return cmd(`exec unshare --cgroup sh "$0" inside "$work"`, ";;", "inside)", `	work=$2`)
	case *plan.Setns:
		if s.part == "host" {
			return say("the clone below does it")
		}
		return s.nsenter(o)
	case *plan.Release:
		return cmd(`echo >"$work"/` + quote("await "+o.Name))
	case *plan.Await:
		if s.dead(o.Name) {
			return none()
		}
		return cmd(`read -r line <"$work"/` + quote("await "+o.Name) + " || true")
	case *plan.Notify:
		return cmd(`echo >"$work"/` + quote("notify "+o.Name))
	case *plan.Expect:
		return cmd(`read -r line <"$work"/` + quote("notify "+o.Name) + " || true")

	// The root and the mounts below it.
	case *plan.Mount:
		if o.Source == "" && o.Target == "/" && s.follows && propagationFlag(o.Flags) == "private" {
			// Once they are private, sources of bind mounts have nothing to follow any more: the plan took them before.
			return cmd("mount --make-rslave /", "#    (Not private yet: what is bound from here is to see what the host mounts there.)")
		}
		if o.Source == "" && o.Target == "/" {
			return cmd("mount " + quote("--make-"+when(slices.Contains(o.Flags, "rec"), "r", "")+propagationFlag(o.Flags)) + " /")
		}
		if slices.Contains(o.Flags, "bind") {
			return cmd(append([]string{"mount --" + when(slices.Contains(o.Flags, "rec"), "r", "") + "bind " + quote(o.Source) + " " +
				quote(o.Target)}, s.hideRoot()...)...)
		}
		options := slices.DeleteFunc(append(slices.Clone(o.Flags), o.Data), func(s string) bool { return s == "" })
		return cmd("mount -t " + quote(or(o.Type, "none")) + mountOpts(options...) + " " + quote(or(o.Source, "none")) + " " + quote(o.Target))
	case *plan.Overlay:
		options := []string{"lowerdir=" + strings.Join(o.Lower, ":")}
		if o.Upper != "" {
			options = append(options, "upperdir="+o.Upper, "workdir="+o.Work)
		}
		return prepend("(cd "+quote(o.Dir)+" && mount -t overlay"+mountOpts(append(options, o.Options...)...)+" overlay "+quote(o.Target)+")",
			s.hideRoot()...)
	case *plan.HostMount:
		return []string{
			"mkdir -p " + quote(o.Target),
			"mount -t " + quote(o.Type) + mountOpts(slices.Concat(o.Flags, o.Options)...) + " " + quote(o.Source) + " " + quote(o.Target),
		}, true
	case *plan.HostUnmount:
		return []string{"umount -l " + quote(o.Target)}, true
	case *plan.PivotRoot:
		return say("this is the last thing that happens: see below")
	case *plan.MoveRoot:
		return none()
	case *plan.RootDir:
		return say("names of the container are taken below $root anyway")
	case *plan.FSMount:
		if o.Target == "" && attached(s.plan, o) != nil {
			return say("a script makes it where it gets its place")
		}
		if o.Target == "" {
			return say("a private procfs for settings: a script uses the host's /proc, which shows each process its own namespaces")
		}
		return s.fsmount(o)
	case *plan.MoveMount:
		if made := s.plan.FileSystem(o); made != nil {
			return s.fsmount(made)
		}
		return s.bind(o)
	case *plan.Remount:
		if o.Target == "/" && slices.ContainsFunc(o.Propagation, spreads) {
			// pivot_root(2) refuses a root that is shared.
			s.rootShared = slices.Clone(o.Propagation)
			lines, ok := s.commands(&plan.Remount{
				Target: o.Target, Set: o.Set, Clear: o.Clear, RecSet: o.RecSet, RecClear: o.RecClear,
				Options: o.Options,
			})
			return append(lines, "#    (How it spreads is the last thing to be set: pivot_root takes no root that is shared.)"), ok
		}
		if len(o.Options) > 0 {
			return cmd(append(s.remount(o.Target, o.Set, o.Clear, o.RecSet, o.RecClear, o.Propagation),
				"mount -o "+quote("remount,"+strings.Join(o.Options, ","))+` "$at"`)...)
		}
		return cmd(s.remount(o.Target, o.Set, o.Clear, o.RecSet, o.RecClear, o.Propagation)...)
	case *plan.MaskPath:
		options := []string{"ro", "nosuid", "nodev", "noexec", "size=0", "nr_inodes=2"}
		if o.Label != "" {
			options = append(options, "context="+o.Label)
		}
		at := "at=" + target(o.Path)
		if s.empty == nil || *s.empty != o.Label { // the directory that was hidden first; not what the environment calls so
			at, s.empty = "empty= "+at, &o.Label
		}
		return cmd(at, `if [ -d "$at" ] && [ "$empty" ]; then mount --bind "$empty" "$at"`,
			`elif [ -d "$at" ]; then mount -t tmpfs`+mountOpts(options...)+` tmpfs "$at"; empty=$at`,
			`elif [ -e "$at" ]; then mount --bind `+target("/dev/null")+` "$at"; fi`)
	case *plan.ReadonlyPath:
		return cmd("at="+target(o.Path),
			`if [ -e "$at" ]; then mount --rbind "$at" "$at"; mount -o `+quote("remount,bind,"+s.inherited(o.Path)+"ro")+` "$at"; fi`)
	case *plan.Mkdir:
		return cmd("at="+target(o.Path), fmt.Sprintf(`[ -d "$at" ] || { dirs "${at%%/*}"; mkdir -m %04o "$at"; }`, o.Mode))
	case *plan.Mknod:
		if o.Existing == "required" {
			return say("it must be there already")
		}
		lines := []string{"at=" + target(o.Path), `dirs "${at%/*}"`}
		numbers := fmt.Sprintf(" %d %d", o.Major, o.Minor)
		if o.Type == "p" {
			numbers = ""
		}
		lines = append(lines, when(o.Existing == "same", `[ -e "$at" ] || `, "")+fmt.Sprintf(`mknod -m %04o "$at" %s%s`, o.Mode, quote(o.Type),
			numbers))
		if o.UID != 0 || o.GID != 0 {
			lines = append(lines, fmt.Sprintf(`chown %d:%d "$at"`, o.UID, o.GID))
		}
		return lines, true
	case *plan.Symlink:
		dir, name := path.Split(o.Path)
		link := `[ -e "$at" ] || [ -L "$at" ] || ln -s ` + quote(o.Target) + ` "$at"`
		if o.Replace {
			link = "ln -sfn " + quote(o.Target) + ` "$at"`
		}
		if o.Existing {
			link = "if [ -e " + target(o.Target) + " ]; then " + link + "; fi"
		}
		return cmd("at="+target(dir)+"/"+quote(name), link)

	// Settings.
	case *plan.Sethostname:
		return cmd(echo(o.Name, "/proc/sys/kernel/hostname"))
	case *plan.Setdomainname:
		return cmd(echo(o.Name, "/proc/sys/kernel/domainname"))
	case *plan.Sysctl:
		return cmd(echo(o.Value, "/proc/sys/"+o.Key))
	case *plan.WriteProc:
		if o.File == "oom_score_adj" {
			if s.part == "host" {
				return cmd(`printf %s ` + quote(o.Value) + ` >"/proc/$pid/oom_score_adj"`)
			}
			return cmd(echo(o.Value, "/proc/self/oom_score_adj"))
		}
		return none()
	case *plan.WriteFile:
		return cmd(echo(o.Value, o.Path))
	case *plan.Rlimit:
		name := strings.ToLower(strings.TrimPrefix(o.Type, "RLIMIT_"))
		s.prlimit = append(s.prlimit, quote(fmt.Sprintf("--%s=%s:%s", name, limit(o.Soft), limit(o.Hard))))
		return say("the last command does it, with prlimit")
	case *plan.Umask:
		return cmd(fmt.Sprintf("umask %04o", o.Mask))
	case *plan.Affinity:
		if o.Unless > 0 {
			return say("only where this script is bound to some processors")
		}
		return cmd("taskset -cp " + quote(o.CPUs) + " $$ >/dev/null")
	case *plan.IOPriority:
		class := map[string]string{"IOPRIO_CLASS_RT": "1", "IOPRIO_CLASS_BE": "2", "IOPRIO_CLASS_IDLE": "3"}[o.Class]
		if class == "" {
			return none()
		}
		return cmd(fmt.Sprintf("ionice -c %s%s -p $$", class, when(class == "3", "", fmt.Sprintf(" -n %d", o.Priority))))
	case *plan.Sched:
		return s.sched(o)

	// Terminal.
	case *plan.Stdio:
		if o.From == []string{"stdin", "stdout", "stderr"}[max(0, min(2, o.To))] {
			return say("it has this script's")
		}
		return none()
	case *plan.Setsid:
		if o.Controlling {
			return none()
		}
		return say("the child began with setsid")

	// Privileges: collected for one setpriv at the end.
	case *plan.ParentDeath:
		s.setpriv = append(s.setpriv, fmt.Sprintf("--pdeathsig %s", signalWord(o.Signal)))
		return say("setpriv does it")
	case *plan.Dumpable:
		return say("a shell is no copy of glassbox, and execve resets it")
	case *plan.NoNewPrivs:
		s.setpriv = append(s.setpriv, "--no-new-privs")
		return say("setpriv does it")
	case *plan.DropBounding:
		kept := []string{"-all"}
		for _, c := range s.view.Bounding {
			kept = append(kept, "+"+capShort(c))
		}
		s.setpriv = append(s.setpriv, "--bounding-set "+quote(strings.Join(kept, ",")))
		return say("setpriv does it")
	case *plan.KeepCaps:
		return say("setpriv takes care of it")
	case *plan.Setgroups:
		if len(o.Groups) == 0 {
			s.setpriv = append(s.setpriv, "--clear-groups")
		} else {
			words := make([]string, len(o.Groups))
			for i, g := range o.Groups {
				words[i] = fmt.Sprint(g)
			}
			s.setpriv = append(s.setpriv, "--groups "+strings.Join(words, ","))
		}
		return say("setpriv does it")
	case *plan.Setresgid:
		s.setpriv = append(s.setpriv, fmt.Sprintf("--regid %d", o.GID))
		return say("setpriv does it")
	case *plan.Setresuid:
		s.setpriv = append(s.setpriv, fmt.Sprintf("--reuid %d", o.UID))
		return say("setpriv does it")
	case *plan.Capset:
		s.setpriv = append(s.setpriv, "--inh-caps "+capList(o.Inheritable))
		return say("execve makes the others of the bounding and the inheritable set: capabilities(7)")
	case *plan.AmbientCaps:
		s.setpriv = append(s.setpriv, "--ambient-caps "+capList(o.Caps))
		return say("setpriv does it")

	// The program.
	case *plan.Chdir:
		s.cwd = o.Path
		return say("the last command does it, with env")
	case *plan.CloseRange:
		return cmd("exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-")
	case *plan.FindProgram:
		return say("env says so if there is none")
	case *plan.Execve:
		return say("the last command")

	// The network.
	case *plan.LinkBridge:
		lines := []string{
			"if ! ip link show dev " + quote(o.Name) + " >/dev/null 2>&1; then",
			"	ip link add name " + quote(o.Name) + when(o.MTU != 0, fmt.Sprintf(" mtu %d", o.MTU), "") + " type bridge",
		}
		if o.Address != "" {
			lines = append(lines, "	ip addr add "+quote(o.Address)+" brd + dev "+quote(o.Name))
		}
		if o.Address6 != "" {
			lines = append(lines, "	ip addr add "+quote(o.Address6)+" nodad dev "+quote(o.Name))
		}
		lines = append(lines, "	ip link set dev "+quote(o.Name)+" up", "fi")
		for _, set := range o.Sysctls {
			key, value, _ := strings.Cut(set, "=")
			lines = append(lines, "[ ! -e "+quote("/proc/sys/"+key)+" ] || "+echo(value, "/proc/sys/"+key))
		}
		return lines, true
	case *plan.LinkVeth:
		lines := []string{
			"ip link add name " + quote(o.Name) + when(o.MTU != 0, fmt.Sprintf(" mtu %d", o.MTU), "") + " type veth peer name " + quote(o.Peer) +
				when(o.MAC != "", " address "+quote(o.MAC), "") + when(o.MTU != 0, fmt.Sprintf(" mtu %d", o.MTU), "") + ` netns "$pid"`,
			"ip link set dev " + quote(o.Name) + " master " + quote(o.Bridge) + " up",
		}
		if o.Hairpin {
			lines = append(lines, "bridge link set dev "+quote(o.Name)+" hairpin on")
		}
		if o.Isolated {
			lines = append(lines, "bridge link set dev "+quote(o.Name)+" isolated on")
		}
		return append(lines, inSettings(o.Sysctls)...), true
	case *plan.LinkRate:
		in := when(o.Inside, `nsenter --net="/proc/$pid/ns/net" `, "")
		if o.Rate == 0 {
			return cmd(in + "tc qdisc del dev " + quote(o.Link) + " root")
		}
		return cmd(in + fmt.Sprintf("tc qdisc replace dev %s root handle 1: tbf rate %dbps burst %d limit %d", quote(o.Link), o.Rate, o.Burst,
			o.Rate/10+o.Burst))
	case *plan.LinkVLAN:
		lines := []string{
			"if ! ip link show dev " + quote(o.Name) + " >/dev/null 2>&1; then",
			fmt.Sprintf("	ip link add link %s name %s type vlan id %d", quote(o.Parent), quote(o.Name), o.ID),
		}
		if o.Mark != "" {
			lines = append(lines, "	ip link set dev "+quote(o.Name)+" alias "+quote(o.Mark))
		}
		return append(lines, "fi", "ip link set dev "+quote(o.Name)+" up"), true
	case *plan.LinkMacvlan:
		lines := []string{
			"ip link add link " + quote(o.Parent) + " name " + quote(o.Name) +
				when(o.MAC != "" && o.Driver == "macvlan", " address "+quote(o.MAC), "") +
				when(o.MTU != 0, fmt.Sprintf(" mtu %d", o.MTU), "") + ` netns "$pid" type ` + quote(o.Driver) + " mode " + quote(o.Mode) +
				when(o.Flag != "", " "+quote(o.Flag), ""),
		}
		return append(lines, inSettings(o.Sysctls)...), true
	case *plan.LinkMove:
		// Moving a link takes its addresses away: they are written down before and given again.
		as := or(o.As, o.Name)
		return cmd("addresses=$(ip -o addr show dev "+quote(o.Name)+" scope global permanent | while read -r n dev family address more; do "+
			"echo \"$address\"; done)",
			"ip link set dev "+quote(o.Name)+` netns "$pid" name `+quote(as),
			`for address in $addresses; do nsenter --net="/proc/$pid/ns/net" ip addr add "$address" dev `+quote(as)+"; done",
			`nsenter --net="/proc/$pid/ns/net" ip link set dev `+quote(as)+" up")
	case *plan.LinkAddress:
		var lines []string
		if o.Address != "" {
			how := " brd + dev "
			if strings.Contains(o.Address, ":") {
				how = " nodad dev "
			}
			lines = append(lines, `nsenter --net="/proc/$pid/ns/net" ip addr add `+quote(o.Address)+how+quote(o.Link))
		}
		return append(lines, `nsenter --net="/proc/$pid/ns/net" ip link set dev `+quote(o.Link)+" up"), true
	case *plan.LinkUp:
		return cmd("ip link set dev " + quote(o.Link) + " up")
	case *plan.RouteDefault:
		return cmd(`nsenter --net="/proc/$pid/ns/net" ip ` + when(o.IPv6, "-6 ", "") + `route ` +
			when(o.Replace, "replace", "add") + ` default ` + when(o.Via != "", "via "+quote(o.Via)+" ", "") + "dev " + quote(o.Link))
	case *plan.NftBridge:
		lines := []string{"nft list table ip " + quote(o.Table) + ` >/dev/null 2>&1 || printf '%s\n' \`}
		for _, r := range o.Rules {
			lines = append(lines, "	"+quote(clean(r))+` \`)
		}
		return append(lines, "	| nft -f -"), true
	case *plan.FirewallAccept:
		return firewallCommands(o), true
	case *plan.NftWall:
		lines := []string{`printf '%s\n' \`}
		for _, r := range o.Rules {
			lines = append(lines, "	"+quote(clean(r))+` \`)
		}
		return append(append(lines, "	| nft -f -"), guestCommands(o)...), true
	case *plan.NftGuard:
		return guardCommands("add", o.Table, o.Link, o.MAC, o.Addresses), true
	case *plan.NftPublish:
		var lines []string
		for _, p := range o.Ports {
			lines = append(lines, "nft add element "+portFamily(p)+" "+quote(o.Table)+" "+element(p, true))
		}
		return lines, true

	case *plan.NameAdd:
		var lines []string
		target := strings.Join(o.Addresses, ",")
		for i, name := range o.Names {
			lines = append(lines, "mkdir -p "+quote(o.Dir+"/"+name), "ln -sfn "+quote(target)+" "+quote(o.Dir+"/"+name+"/"+o.Owner))
			if i > 0 {
				continue
			}
			for _, a := range o.Addresses {
				lines = append(lines, "ln -sfn "+quote(name)+" "+quote(o.Dir+"/"+a))
			}
		}
		if len(o.Names) > 0 { // to the resolvers that have read it already
			lines = append(lines, "head -c 8 /dev/urandom 1<>"+quote(o.Dir+".changed")) // not truncated: they have it in their memory
		}
		return lines, true

	// No command of util-linux, coreutils, iproute2 or nft does these.
	case *plan.DeviceFilter, *plan.OpenPid, *plan.IDMap, *plan.UserNamespace, *plan.Adopt, *plan.TimeOffsets, *plan.Keyring, *plan.OpenConsole,
		*plan.BindConsole,
		*plan.SendFD, *plan.RecvFD, *plan.Seccomp, *plan.AwaitStart, *plan.Hook, *plan.MemPolicy, *plan.Personality, *plan.InheritFDs,
		*plan.SystemdScope, *plan.SystemdSet, *plan.SystemdAttach, *plan.SystemdStop, *plan.SendListener, *plan.CopyUp, *plan.OpenDir,
		*plan.RootMount, *plan.RootUnmount, *plan.Chroot, *plan.NameListen, *plan.PortCarry:
		return none()
	}
	return none()
}

// guardCommands fill the sets of a bridge's guard, or empty them.
func guardCommands(verb, table, link, mac string, addresses []string) []string {
	lines := guardLines(verb, table, link, mac, addresses)
	for i, l := range lines {
		lines[i] = "nft " + quote(l)
	}
	return lines
}

// guardLines are the same as commands of nft(8).
func guardLines(verb, table, link, mac string, addresses []string) []string {
	port := `"` + clean(link) + `"`
	line := func(set, key string) string {
		return verb + " element bridge " + clean(table) + " " + set + " { " + key + " }"
	}
	lines := []string{line("ports", port)}
	for _, a := range addresses {
		set := "own"
		if strings.Contains(a, ":") {
			set = "own6"
		}
		lines = append(lines, line(set, port+" . "+clean(mac)+" . "+clean(a)))
	}
	return lines
}

// firewallCommands add the rules that aren't there: found by their comment, of which there is one for each link.
func firewallCommands(o *plan.FirewallAccept) []string {
	var lines []string
	for _, r := range o.Rules {
		if o.Program == "" {
			lines = append(lines, "nft "+quote(clean(r)))
			continue
		}
		words := strings.Fields(clean(r))
		for i, w := range words {
			words[i] = quote(w)
		}
		lines = append(lines, strings.Join(words, " "))
	}
	if len(lines) == 0 {
		return nil
	}
	have := "nft -a list chain " + quote(o.Family) + " " + quote(o.Table) + " " + quote(o.Chain)
	comment := "glassbox " + o.Link
	if o.Program != "" {
		have, comment = quote(o.Program)+" -w -S "+quote(o.Chain), "glassbox:"+o.Link
	}
	return append([]string{"if ! " + have + " | grep -qF " + quote(comment) + "; then"}, append(indented(lines), "fi")...)
}

func indented(lines []string) []string {
	out := make([]string, len(lines))
	for i, l := range lines {
		out[i] = "	" + l
	}
	return out
}

// tasks is the file of a cgroup to join by: the plan opens v1's tasks, and the directory of v2.
func (s *shell) tasks(from string) string {
	p := s.opened[from]
	if strings.HasSuffix(p, "/tasks") || strings.HasSuffix(p, "/cgroup.procs") {
		return p
	}
	return p + "/cgroup.procs"
}

// dead says whether nobody releases a wait: the steps that would are among those that can't be expressed.
func (s *shell) dead(name string) bool {
	return !slices.ContainsFunc(s.plan.Steps, func(st plan.Step) bool {
		o, ok := st.Op.(*plan.Release)
		return ok && o.Name == name
	})
}

// inSettings are the commands for settings in the child's network namespace.
func inSettings(sysctls []string) (lines []string) {
	for _, set := range sysctls {
		key, value, _ := strings.Cut(set, "=")
		file := quote("/proc/sys/" + key)
		lines = append(lines, `nsenter --net="/proc/$pid/ns/net" sh -c '[ ! -e "$1" ] || printf %s "$0" >"$1"' `+quote(value)+" "+file)
	}
	return lines
}
