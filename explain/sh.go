package explain

import (
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"glassbox/plan"
)

// shell writes a plan as a script for a POSIX shell.
//
// The script is one file that starts itself twice more: as the child in its new namespaces, and once more in its cgroup
// namespace. Programs of the host are out of reach once the root has changed, so everything is mounted before that, below
// $root; the last programs and their libraries wait in a tmpfs that is the working directory and has no name any more.
type shell struct {
	script
	plan    *plan.Plan
	view    *View
	opened  map[string]string // descriptor → path
	missing []string          // what no command can do
	part    string            // host, child or inside: what is being written

	// For the last command.
	setpriv []string
	prlimit []string
	cwd     string
	at      int    // index of the step that is being written
	follows bool   // some bind mount gets what the host mounts there later
	cgroups bool   // the cgroup namespace has been made
	born    string // cgroup that the child goes to first
	cloned  bool
	readied []string

	rootShared []string // how the root spreads in the end
	empty      *string  // label of the tmpfs that hides directories, nil before the first path is hidden
}

const shellHead = `#!/bin/sh
# %s, made by hand: what glassbox does in %d steps, with the commands of util-linux, coreutils, iproute2
# and nft. The numbers are those of "glassbox explain". Run it as root; what it makes on the host it takes back in the end.
#
# Two things differ from the plan. Mounts are made before pivot_root and not after it, because afterwards no command of the
# host can be reached. And names in the image are resolved by this script, with nothing to keep an image that is
# changed meanwhile from leading it astray: don't run it on files that a running container can write to.
%sset -eu
umask 022
[ "$(id -u)" = 0 ] || { echo "run this as root" >&2; exit 1; }

# Where the root is mounted.
root=%s

# cgroup DIR: make a cgroup and its parents. A cpuset of cgroup v1 begins empty and gets what its parent has.
cgroup() {
	[ -d "$1" ] || { cgroup "${1%%/*}"; mkdir "$1"; }
	for file in cpuset.cpus cpuset.mems; do
		if [ -f "$1/$file" ] && [ ! -f "$1/cgroup.controllers" ] && [ -z "$(cat "$1/$file")" ]; then
			cat "${1%%/*}/$file" >"$1/$file"
		fi
	done
}

# inside PATH: where a path of the container is below $root. Links lead to where they would after the root has changed.
inside() {
	at= rest=$1 links=0
	while [ -n "$rest" ]; do
		part=${rest%%%%/*}
		case $rest in */*) rest=${rest#*/} ;; *) rest= ;; esac
		case $part in '' | .) continue ;; ..) at=${at%%/*}; continue ;; esac
		if [ -L "$root$at/$part" ]; then
			links=$((links + 1))
			[ $links -le 40 ] || { echo "too many links: $1" >&2; exit 1; }
			link=$(readlink "$root$at/$part")
			case $link in /*) at= ;; esac
			rest=$link/$rest
		else
			at=$at/$part
		fi
	done
	printf %%s "$root$at"
}

# like SOURCE TARGET: make the target of a bind mount what the source is.
like() {
	if [ -d "$1" ]; then dirs "$2"; elif [ ! -e "$2" ]; then dirs "${2%%/*}"; (umask 022; : >"$2"); fi
}

# dirs DIR: make a directory and its parents, with mode 755 whatever the umask is.
dirs() { (umask 022; mkdir -p "$1"); }

# below DIR: what is mounted at a directory and below it, what others cover included; each with the number of the mount.
below() {
	while read -r id parent device within point more; do
		case $point in *\\*) point=$(printf %%b "$(printf %%s "$point" | sed 's/\\/&0/g')") ;; esac # blanks are \040
		case $point in "$1" | "${1%%/}"/*) case $more in *" unbindable "*) ;; *) echo "$id $point" ;; esac ;; esac
	done </proc/self/mountinfo
}

# tree SOURCE TARGET OPTIONS: bind all that is seen below a directory, one mount after the other, each with these options. mount --rbind
# would bring what other mounts cover, too, and no name leads there to change it.
tree() {
	mount --bind "$1" "$2"
	mount -o "remount,bind,$3" "$2"
	below "$1" | LC_ALL=C sort -k 2 | while read -r id point; do
		case $point in "$1" | "$root" | "$root"/*) continue ;; esac
		[ -e "$point" ] || continue
		if [ -d "$point" ] || [ -f "$point" ]; then
			[ "$(exec 9<"$point"; while read -r key value; do [ "$key" != mnt_id: ] || echo "$value"; done </proc/self/fdinfo/9)" = "$id" ] || continue
		fi
		to=$2/${point#"${1%%/}"/}
		[ -e "$to" ] || continue # below an unbindable mount
		mount --bind "$point" "$to"
		mount -o "remount,bind,$3" "$to"
	done
}

case ${1-host} in
host)
`

func writeShell(w io.Writer, p *plan.Plan, a About) error {
	s := &shell{script: script{w: w}, plan: p, view: Read(p), opened: map[string]string{}, part: "host"}
	if slices.ContainsFunc(p.Steps, func(s plan.Step) bool { return s.Op == nil }) {
		return fmt.Errorf("the plan has a step without an op")
	}
	if err := hostMounts(s.view); err != nil {
		return err
	}
	name := clean(or(a.Title, "A container"))
	s.follows = slices.ContainsFunc(p.Steps, func(st plan.Step) bool {
		o, ok := st.Op.(*plan.MoveMount)
		return ok && slices.ContainsFunc(o.Propagation, func(w string) bool { return spreads(w) || strings.HasSuffix(w, "slave") })
	})
	refused := ""
	if a.Refused != "" {
		refused = "#\n# " + clean(refusal(a.Refused)) + "\n"
	}
	s.line(strings.TrimSuffix(shellHead, "\n"), name, len(p.Steps), refused, quote(s.view.Root.Mountpoint))
	s.prepare()
	var child []int
	for i, step := range p.Steps {
		if step.Lane == plan.Child {
			child = append(child, i)
			continue
		}
		s.step(i)
	}
	s.finish()
	s.line(";;")
	s.line("child)")
	s.line("	# This is the child, process 1 of its PID namespace if that is new. Tell the parent who it is, as seen from the host.")
	s.line(`	work=$2`)
	s.line(`	read -r pid rest </proc/self/stat && echo "$pid" >"$work/pid"`)
	s.part = "child"
	if s.born != "" {
		s.line("	# The plan's child is born in this cgroup. Here it goes there first, so that unshare, which waits for it, stays outside.")
		s.do("echo 0 >" + quote(s.born+"/cgroup.procs"))
	}
	for _, i := range child {
		s.step(i)
	}
	s.last()
	s.line(";;")
	s.line("esac")
	s.line("")
	if len(s.missing) == 0 {
		s.comment("Every step of the plan is in this script.")
	} else {
		s.comment("%d of the plan's %d steps can't be made with these commands:", len(s.missing), len(p.Steps))
		for _, m := range s.missing {
			s.comment("  %s", m)
		}
	}
	return s.err
}

// hostMounts refuses a container that shares the host's mounts: scripts and programs mount, and change the root, on the understanding that
// nothing of it reaches the host.
func hostMounts(v *View) error {
	if v.Shares("mount") {
		return fmt.Errorf("the container has no mount namespace of its own: what this would mount would be the host's, and stay")
	}
	return nil
}

// prepare makes what the engine makes before a plan runs: the container's directory and the files in it.
func (s *shell) prepare() {
	s.do(`work=$(mktemp -d "${TMPDIR:-/tmp}/by-hand.XXXXXX")`, `mkfifo "$work/pid"`)
	for _, step := range s.plan.Steps {
		switch o := step.Op.(type) {
		case *plan.Await:
			s.readied = append(s.readied, o.Name)
			s.do(`mkfifo "$work"/` + quote("await "+o.Name))
		case *plan.Notify:
			s.do(`mkfifo "$work"/` + quote("notify "+o.Name))
		}
	}
	var undo []string
	if n := len(s.plan.Steps); n > 0 {
		for _, u := range s.plan.Undo(n) {
			undo = append(undo, s.undo(u.Op)...)
		}
	}
	dir := path.Dir(s.view.Root.Mountpoint)
	made := len(s.view.Root.Layers) > 0 && s.view.Root.Upper != ""
	if made {
		s.line("")
		s.line("	# What the engine makes before: the container's own directory, and the files that tell it who it is.")
		s.do(`made=; [ -e `+quote(dir)+` ] || made=`+quote(dir), `mkdir -p `+quote(s.view.Root.Mountpoint))
		for _, step := range s.plan.Steps {
			switch o := step.Op.(type) {
			case *plan.Overlay:
				if o.Upper != "" {
					s.do("mkdir -p " + Quoted([]string{under(o.Dir, o.Upper), under(o.Dir, o.Work)}))
				}
			case *plan.OpenTree:
				address, _, _ := strings.Cut(s.view.Net.Address, "/")
				switch o.Path {
				case dir + "/hostname":
					s.file(o.Path, "echo "+quote(s.view.Hostname))
				case dir + "/hosts":
					s.file(o.Path, `printf '127.0.0.1\tlocalhost\n%s\t%s\n' `+quote(or(address, "127.0.1.1"))+" "+quote(or(s.view.Hostname, "container")))
				case dir + "/resolv.conf":
					s.file(o.Path, "cat /etc/resolv.conf")
				}
			}
		}
	} else if m := s.view.Root.Mountpoint; m != "" && m != s.view.Root.Source {
		s.do("mkdir -p " + quote(m))
	}
	s.line("")
	s.line("	undo() {")
	s.line("		set +e")
	s.line("		wait 2>/dev/null")
	for _, u := range undo {
		s.line("		%s", u)
	}
	if made {
		s.line(`		[ -z "$made" ] || rm -rf "$made"`)
	}
	s.line(`		rm -rf "$work"`)
	s.line("	}")
	s.do("trap undo EXIT")
}

func under(dir, name string) string {
	if strings.HasPrefix(name, "/") {
		return name
	}
	return dir + "/" + name
}

// file makes a file unless the engine has.
func (s *shell) file(name, command string) {
	s.do("[ -e " + quote(name) + " ] || " + command + " >" + quote(name))
}

// finish waits for the container.
func (s *shell) finish() {
	s.line("")
	s.line("	# The container runs. Its exit status is this script's.")
	if s.cloned {
		s.do(`status=0; wait "$child" || status=$?`, `exit "$status"`)
	}
}

func (s *shell) do(lines ...string) {
	for _, l := range lines {
		s.line("	%s", l)
	}
}

// step writes one step: what and why as a comment, then the commands.
func (s *shell) step(i int) {
	step := s.plan.Steps[i]
	s.at = i
	if i == 0 || s.plan.Steps[i-1].Phase != step.Phase || s.plan.Steps[i-1].Lane != step.Lane {
		title, _ := phase(step.Phase)
		s.line("")
		s.line("	# ---- %s ----", clean(title))
	}
	for k, line := range wrap(fmt.Sprintf("%d. %s", i+1, clean(step.Op.String())), 110) {
		// Three lines are enough to know it again.
		if k > 2 {
			break
		}
		s.line("	# %s", line)
	}
	if i == 0 || plain(s.plan.Steps[i-1].Reason) != plain(step.Reason) {
		for _, line := range wrap(clean(step.Reason), 110) {
			s.line("	#    %s", line)
		}
	}
	lines, ok := s.commands(step.Op)
	s.do(lines...)
	if !ok {
		s.line("	#    No command of these does this: it is left out.")
		what := wrap(clean(step.Op.String()), 100)
		s.missing = append(s.missing, fmt.Sprintf("%d. %s", i+1, what[0]))
	}
}

// echo writes a value to a file of the kernel, which takes it as one write.
func echo(value, file string) string { return "printf %s " + quote(value) + " >" + quote(file) }

// target is a path of the container as a word for the script.
func target(p string) string { return `"$(inside ` + quote(p) + `)"` }

func (s *shell) clone(o *plan.Clone) ([]string, bool) {
	if s.cloned {
		return nil, false
	}
	s.cloned = true
	words := []string{"unshare"}
	fork := false
	for _, ns := range o.Namespaces {
		switch ns {
		case "mount", "uts", "ipc", "net", "time":
			words = append(words, "--"+ns)
		case "pid":
			words = append(words, "--pid")
			fork = true
		case "cgroup":
			words = append(words, "--cgroup")
		default:
			return nil, false
		}
	}
	// The process that becomes the program has to lead its session: the one that unshare forks, if it forks one.
	if s.follows {
		// unshare(1) makes all mounts private otherwise, before the script can bind any.
		words = append(words, "--propagation", "slave")
	}
	if fork {
		words = append(words, "--fork", "--kill-child", "setsid")
	} else {
		words = append([]string{"setsid"}, words...)
	}
	enter := ""
	for _, st := range s.plan.Steps {
		if join, ok := st.Op.(*plan.Setns); ok && st.Lane == plan.Host && s.opened[join.From] != "" && len(join.Namespaces) > 0 {
			enter += "nsenter " + quote("--"+join.Namespaces[0]+"="+s.opened[join.From]) + " "
		}
	}
	s.born = s.opened[o.Cgroup]
	return []string{
		"(exec " + enter + strings.Join(words, " ") + ` sh "$0" child "$work") &`, "child=$!",
		`read -r pid <"$work/pid"`,
	}, true
}

// hideRoot keeps the root out of recursive binds: the plan took their sources before there was a root.
func (s *shell) hideRoot() []string {
	if p := s.view.Root.Propagation; p != "" && p != "private" && !spreads(p) {
		return nil
	}
	if s.follows {
		return []string{`mount --make-rprivate "$root"`, `mount --make-unbindable "$root"`}
	}
	return []string{`mount --make-unbindable "$root"`}
}

func prepend(first string, rest ...string) ([]string, bool) {
	return append([]string{first}, rest...), true
}

// nsenter goes on in a namespace that exists: the script starts itself once more.
func (s *shell) nsenter(o *plan.Setns) ([]string, bool) {
	from := s.opened[o.From]
	if from == "" || len(o.Namespaces) != 1 {
		return nil, false
	}
	stage := "in-" + o.Namespaces[0]
	return []string{
		"exec nsenter " + quote("--"+o.Namespaces[0]+"="+from) + ` sh "$0" ` + quote(stage) + ` "$work"`, ";;", quote(stage) + ")", `	work=$2`,
	}, true
}

func (s *shell) sched(o *plan.Sched) ([]string, bool) {
	if len(o.Flags) > 0 {
		return nil, false
	}
	var lines []string
	switch o.Policy {
	case "SCHED_OTHER":
	case "SCHED_BATCH", "SCHED_IDLE":
		lines = append(lines, "chrt --"+strings.ToLower(strings.TrimPrefix(o.Policy, "SCHED_"))+" -p 0 $$")
	case "SCHED_FIFO", "SCHED_RR":
		lines = append(lines, fmt.Sprintf("chrt --%s -p %d $$", strings.ToLower(strings.TrimPrefix(o.Policy, "SCHED_")), o.Priority))
	case "SCHED_DEADLINE":
		lines = append(lines, fmt.Sprintf("chrt --deadline --sched-runtime %d --sched-deadline %d --sched-period %d -p 0 $$", o.Runtime,
			o.Deadline, o.Period))
	default:
		return nil, false
	}
	if o.Nice != 0 {
		lines = append(lines, fmt.Sprintf("renice -n %d -p $$ >/dev/null", o.Nice))
	}
	return lines, true
}

// last writes the end of the child: the root changes, and the program is run.
func (s *shell) last() {
	var argv []string
	var env []string
	for _, st := range s.plan.Steps {
		if o, ok := st.Op.(*plan.Execve); ok {
			argv, env = o.Argv, o.Env
			if len(o.Candidates) == 1 && len(argv) > 0 {
				argv = append([]string{o.Candidates[0]}, argv[1:]...)
			}
		}
	}
	s.line("")
	s.line("	# ---- The end ----")
	s.line("	# After pivot_root no program of the host has a name. Those that are still needed are copied with their libraries")
	s.line("	# into a tmpfs, in which this shell stands. When the old root goes, so does its name; the working directory is")
	s.line("	# all that leads there, and env leaves it.")
	s.do(
		`mkdir "$work/tools"`, `mount -t tmpfs tmpfs "$work/tools"`, `cd "$work/tools"`,
		`for tool in `+when(len(s.rootShared) > 0, "mount ", "")+`umount prlimit setpriv env; do`,
		`	file=$(command -v "$tool"); cp -L "$file" .`,
		`	ldd "$file" | tr ' \t' '\n\n' | grep '^/' | while read -r library; do`,
		`		case $library in */ld-*) cp -L "$library" ld.so ;; *) cp -L "$library" . ;; esac`,
		`	done`,
		`done`,
	)
	if len(s.hideRoot()) > 0 {
		s.do(`mount --make-private "$root"`)
	}
	s.do(
		`(cd "$root" && pivot_root . .)`,
		`./ld.so --library-path . ./umount -l /`,
	)
	const run = "./ld.so --library-path . "
	for _, word := range s.rootShared {
		s.do(run + "./mount " + quote("--make-"+word) + " /")
	}
	s.line("	exec \\")
	if len(s.prlimit) > 0 {
		s.line("		%s./prlimit %s \\", run, strings.Join(s.prlimit, " "))
	}
	if len(s.setpriv) > 0 {
		s.line("		%s./setpriv %s \\", run, strings.Join(s.setpriv, " "))
	}
	s.line("		%s./env -i --chdir=%s \\", run, quote(or(s.cwd, "/")))
	for _, e := range env {
		s.line("		%s \\", quote(e))
	}
	s.line("		%s", Quoted(argv))
}

// undo returns the commands of a step that takes something back. Failing is no reason to stop.
func (s *shell) undo(op plan.Op) []string {
	switch o := op.(type) {
	case *plan.CgroupRemove:
		return []string{"rmdir " + quote(o.Path)}
	case *plan.ResctrlRemove:
		if o.Shared {
			// Read, because the kernel's files have no size (test -s).
			return []string{`[ -n "$(cat ` + quote(o.Path+"/tasks") + `)" ] || rmdir ` + quote(o.Path)}
		}
		return []string{"rmdir " + quote(o.Path)}
	case *plan.LinkDelete:
		return []string{"ip link del dev " + quote(o.Name) + " 2>/dev/null"}
	case *plan.NameRemove:
		var lines []string
		for _, name := range o.Names {
			lines = append(lines, "rm -f "+quote(o.Dir+"/"+name+"/"+o.Owner), "rmdir "+quote(o.Dir+"/"+name)+" 2>/dev/null")
		}
		for _, a := range o.Addresses {
			lines = append(lines, "rm -f "+quote(o.Dir+"/"+a))
		}
		if len(o.Names) > 0 {
			lines = append(lines, "head -c 8 /dev/urandom 1<>"+quote(o.Dir+".changed"))
		}
		return lines
	case *plan.NftUnwall:
		var lines []string
		for _, family := range o.Families() {
			lines = append(lines, "nft delete table "+family+" "+quote(o.Table)+" 2>/dev/null")
		}
		return lines
	case *plan.NftUnpublish:
		var lines []string
		for _, p := range o.Ports {
			lines = append(lines, "nft delete element "+portFamily(p)+" "+quote(o.Table)+" "+element(p, false))
		}
		return lines
	case *plan.NftUnguard:
		lines := guardCommands("delete", o.Table, o.Link, o.MAC, o.Addresses)
		slices.Reverse(lines)
		return lines
	}
	return []string{"# " + clean(op.String()) + ": no command for it"}
}

// portFamily is that of the tables with a published port.
func portFamily(p plan.PortRule) string {
	if strings.Contains(p.ContainerIP, ":") {
		return "ip6"
	}
	return "ip"
}

// element is a published port as an element of the table's maps, in a shell's words.
func element(p plan.PortRule, value bool) string {
	name, key := portElement(p, value)
	return quote(name) + " " + quote("{ "+key+" }")
}

func limit(n uint64) string {
	if n == ^uint64(0) {
		return "unlimited"
	}
	return fmt.Sprint(n)
}

func capShort(name string) string { return strings.ToLower(strings.TrimPrefix(name, "CAP_")) }

func capList(names []string) string {
	words := []string{"-all"}
	for _, n := range names {
		words = append(words, "+"+capShort(n))
	}
	return quote(strings.Join(words, ","))
}

func signalWord(n int) string {
	if n == 9 {
		return "KILL"
	}
	return fmt.Sprint(n)
}

// attached returns the step that gives a file system that is made detached its place, as [plan.Plan.FileSystem] has it, or nil.
func attached(p *plan.Plan, made *plan.FSMount) *plan.MoveMount {
	for _, s := range p.Steps {
		if o, ok := s.Op.(*plan.MoveMount); ok && o.From == made.Save && p.FileSystem(o) != nil {
			return o
		}
	}
	return nil
}
