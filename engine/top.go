package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"glassbox/cgroup"
	"glassbox/host"
)

// Processes is the table of a container's processes: as the host's ps prints it, or our own where there is no ps.
type Processes struct {
	Titles []string
	Rows   [][]string // each as long as Titles
}

// renamed is a column of ps under another name: which pids are the container's is found by the title PID.
var renamed = regexp.MustCompile(`\s+([^\s]*)=\s*(PID[^\s]*)`)

// Top lists the processes of a running container, with the options of the host's ps (none: -ef), whose pids are the host's.
func (e *Engine) Top(ctx context.Context, ref string, args []string) (*Processes, error) {
	for _, m := range renamed.FindAllStringSubmatch(" "+strings.Join(args, " "), -1) {
		if m[1] != "pid" {
			return nil, invalid("specifying \"%s=%s\" is not allowed", m[1], m[2])
		}
	}
	c, _, err := e.running(ctx, ref)
	if err != nil {
		return nil, err
	}
	paths, err := e.cgroups(c.ID)
	if err != nil {
		return nil, err
	}
	pids, err := cgroup.Procs(paths)
	if err != nil {
		return nil, err
	}
	slices.Sort(pids)
	ps, err := exec.LookPath("ps")
	if err != nil {
		if len(args) > 0 && !slices.Equal(args, []string{"-ef"}) {
			return nil, unsupported("top: this host has no ps, whose options these would be: without options top has columns of its own")
		}
		return ownTop(pids), nil
	}
	if len(args) == 0 {
		args = []string{"-ef"}
	}
	list := make([]string, len(pids))
	for i, pid := range pids {
		list[i] = strconv.Itoa(pid)
	}
	// Some options, such as f, can't be used together with -q; then ps lists all processes of the host.
	out, err := exec.CommandContext(ctx, ps, append(slices.Clone(args), "-q"+strings.Join(list, ","))...).Output()
	if err != nil {
		if out, err = exec.CommandContext(ctx, ps, args...).Output(); err != nil {
			return nil, fmt.Errorf("ps %s: %w", strings.Join(args, " "), said(err))
		}
	}
	return parseTop(string(out), pids)
}

// said is an error of a program with the first line that it wrote about it.
func said(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		for line := range strings.Lines(string(exit.Stderr)) {
			if line = strings.TrimSpace(line); line != "" {
				return errors.New(line)
			}
		}
	}
	return err
}

// parseTop keeps those lines of ps that are about some processes, and those about their threads.
func parseTop(out string, pids []int) (*Processes, error) {
	lines := strings.Split(out, "\n")
	t := &Processes{Titles: strings.Fields(lines[0])}
	column := slices.Index(t.Titles, "PID")
	if column < 0 {
		return nil, invalid("top: ps prints no column PID with these options, by which a container's processes are found")
	}
	within := false // the process above is one of them
	for _, line := range lines[1:] {
		fields := strings.Fields(line)
		if len(fields) < len(t.Titles) {
			continue
		}
		if fields[column] != "-" { // a thread has none
			pid, err := strconv.Atoi(fields[column])
			within = err == nil && slices.Contains(pids, pid)
		}
		if within {
			last := len(t.Titles) - 1 // a command has spaces
			// The slice's capacity is cut (fields[:last:last]): append would otherwise write into the next field.
			t.Rows = append(t.Rows, append(fields[:last:last], strings.Join(fields[last:], " ")))
		}
	}
	return t, nil
}

// ownTop has the columns of ps -ef, as far as /proc tells them, with users by number.
func ownTop(pids []int) *Processes {
	t := &Processes{Titles: []string{"UID", "PID", "PPID", "STIME", "TIME", "CMD"}}
	for _, pid := range pids {
		dir := fmt.Sprintf("/proc/%d", pid)
		text, err := os.ReadFile(dir + "/stat")
		st, ok := host.ParseStat(string(text))
		status, errStatus := os.ReadFile(dir + "/status")
		if err != nil || !ok || errStatus != nil {
			continue // it has ended meanwhile
		}
		words := map[string]string{}
		for line := range strings.Lines(string(status)) {
			key, value, _ := strings.Cut(line, ":")
			words[key] = strings.TrimSpace(value)
		}
		uid, _, _ := strings.Cut(words["Uid"], "\t")
		cmd, _ := os.ReadFile(dir + "/cmdline")
		line := strings.TrimSpace(strings.ReplaceAll(string(cmd), "\x00", " "))
		if line == "" {
			line = "[" + words["Name"] + "]"
		}
		used := time.Duration(st.Used) * tick
		t.Rows = append(t.Rows, []string{
			uid, strconv.Itoa(pid), strconv.Itoa(st.Parent), sinceWhen(st.Start),
			fmt.Sprintf("%02d:%02d:%02d", int(used.Hours()), int(used.Minutes())%60, int(used.Seconds())%60), line,
		})
	}
	return t
}

// tick is the unit of /proc/pid/stat: USER_HZ is 100 on all architectures that this runs on.
const tick = 10 * time.Millisecond

// sinceWhen is the time of day at which a process began, or the day if that is another.
func sinceWhen(ticks uint64) string {
	up, err := os.ReadFile("/proc/uptime")
	first, _, _ := strings.Cut(string(up), " ")
	seconds, errNumber := strconv.ParseFloat(first, 64)
	if err != nil || errNumber != nil {
		return "?"
	}
	now := time.Now()
	at := now.Add(-time.Duration(seconds * float64(time.Second))).Add(time.Duration(ticks) * tick)
	if at.YearDay() != now.YearDay() || at.Year() != now.Year() {
		return at.Format("Jan02")
	}
	return at.Format("15:04")
}
