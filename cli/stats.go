package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"glassbox/container"
	"glassbox/docker"
	"glassbox/engine"
)

// statsRow is a row of stats, with Docker's fields.
type statsRow struct {
	BlockIO   string
	CPUPerc   string
	Container string // as it was asked for
	ID        string
	MemPerc   string
	MemUsage  string
	Name      string
	NetIO     string
	PIDs      string
}

const statsColumns = "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}"

func statsHeader() statsRow {
	return statsRow{
		BlockIO: "BLOCK I/O", CPUPerc: "CPU %", Container: "CONTAINER", ID: "CONTAINER ID", MemPerc: "MEM %", MemUsage: "MEM USAGE / LIMIT",
		Name: "NAME", NetIO: "NET I/O", PIDs: "PIDS",
	}
}

func newStatsRow(m engine.Metered, full bool) statsRow {
	u, percent := m.Usage(), 0.0
	if u.MemoryLimit > 0 {
		percent = float64(u.Memory) / float64(u.MemoryLimit) * 100
	}
	return statsRow{
		BlockIO:   size(int64(u.Read)) + " / " + size(int64(u.Written)),
		CPUPerc:   fmt.Sprintf("%.2f%%", u.CPU*100),
		Container: printable(m.Ref),
		ID:        short(m.ID, full),
		MemPerc:   fmt.Sprintf("%.2f%%", percent),
		MemUsage:  binarySize(u.Memory) + " / " + binarySize(u.MemoryLimit),
		Name:      strings.TrimPrefix(m.Name, "/"),
		NetIO:     size(int64(u.Received)) + " / " + size(int64(u.Sent)),
		PIDs:      fmt.Sprint(u.PIDs),
	}
}

// binarySize writes a number of bytes as docker does with memory: binary units, four digits.
func binarySize(n uint64) string {
	f := float64(n)
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	i := 0
	for f >= 1024 && i < len(units)-1 {
		f /= 1024
		i++
	}
	return fmt.Sprintf("%.4g%s", f, units[i])
}

const (
	// firstStats is how long processors are watched before the first table: a quarter of a second is many ticks of any scheduler.
	firstStats = 250 * time.Millisecond
	// moreStats is the time between two tables, as with Docker.
	moreStats = time.Second
)

func (a *app) statsCommand() *cobra.Command {
	var all, once, full bool
	var format string
	cmd := &cobra.Command{
		Use:   "stats [OPTIONS] [CONTAINER...]",
		Short: "Watch what containers use: processors, memory, network, disks, processes",
		Long: `Watch what containers use: processors, memory, network, disks, processes.

The numbers are those of the containers' cgroups. CPU % is of one processor: 200% are two. Memory is without the pages of files that can
be had back at once, and its limit is the host's memory where there is none. --no-stream watches the processors for a quarter of a second.`,
		Example: `  glassbox stats
  glassbox stats --no-stream --format 'table {{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}' web db
  glassbox stats --no-stream --format json`,
		ValidArgsFunction: a.completeContainers(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkRows(format); err != nil {
				return err
			}
			e, err := a.open()
			if err != nil {
				return err
			}
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			w := watch{app: a, meter: e.Meter(args, all), format: format, full: full, once: once, named: len(args) > 0}
			if err := w.run(ctx); ctx.Err() == nil {
				return err
			}
			return nil // to stop watching is no error
		},
	}
	fs := cmd.Flags()
	fs.BoolVarP(&all, "all", "a", false, "Also those that don't run")
	fs.BoolVar(&once, "no-stream", false, "Print one table and end")
	fs.BoolVar(&full, "no-trunc", false, "Don't shorten IDs")
	fs.StringVar(&format, "format", "", "table, table TEMPLATE, json or a Go template")
	return cmd
}

// checkRows refuses a template that can't be read, before anything is looked up.
func checkRows(format string) error {
	if format == "" || format == "table" || format == "json" {
		return nil
	}
	_, err := newTemplate(strings.TrimPrefix(format, "table "))
	return err
}

// watch is one `glassbox stats`.
type watch struct {
	*app
	meter             *engine.Meter
	format            string
	full, once, named bool
}

func (w *watch) run(ctx context.Context) error {
	// A first look that is not shown: a percentage is the difference of two.
	if _, err := w.meter.Read(ctx); err != nil {
		return err
	}
	screen := !w.once && term.IsTerminal(int(w.out.Fd()))
	wait := time.NewTimer(firstStats)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wait.C:
		}
		wait.Reset(moreStats)
		list, missing := w.meter.Read(ctx)
		// One that was removed meanwhile is told at the end; the others' rows go on.
		if missing != nil && (len(list) == 0 || !errors.Is(missing, engine.ErrNotFound)) {
			return missing
		}
		rows := make([]statsRow, len(list))
		for i, u := range list {
			rows[i] = newStatsRow(u, w.full)
		}
		// The whole table in one write: a terminal would show half of it.
		var b bytes.Buffer
		if err := printRows(&b, w.format, statsColumns, statsHeader(), rows); err != nil {
			return err
		}
		if err := w.show(b.Bytes(), screen); err != nil || w.once {
			return errors.Join(err, missing)
		}
	}
}

// show prints a table; on a terminal in place of the one before: from the first line on (ECMA-48, CUP), what is behind the end of each
// line and of the last one is erased (EL, ED).
func (w *watch) show(table []byte, screen bool) error {
	if screen {
		table = append([]byte("\x1b[H"), bytes.ReplaceAll(table, []byte("\n"), []byte("\x1b[K\n"))...)
		table = append(table, "\x1b[J"...)
	}
	_, err := w.out.Write(table)
	return err
}

func (a *app) topCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "top CONTAINER [ps OPTIONS]",
		Short: "List the processes of a container",
		Long: `List the processes of a container.

It is the host's ps that lists them, with the options that are given (-ef without any), so pids and users are the host's. On a host
without ps there are columns of our own, and no options.`,
		Example: `  glassbox top web
  glassbox top web -o pid,ppid,rss,args`,
		Args:              atLeast(1),
		ValidArgsFunction: a.completeContainers(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := a.open()
			if err != nil {
				return err
			}
			t, err := e.Top(cmd.Context(), args[0], args[1:])
			if err != nil {
				return err
			}
			return printTable(a.out, t.Titles, t.Rows)
		},
	}
	cmd.Flags().SetInterspersed(false)
	return cmd
}

// printTable prints cells in columns as top has them, wider than those of other tables; what a terminal would obey is made visible.
func printTable(out io.Writer, titles []string, rows [][]string) error {
	w := tabwriter.NewWriter(out, 20, 1, 3, ' ', 0)
	for _, row := range append([][]string{titles}, rows...) {
		cells := make([]string, len(row))
		for i, cell := range row {
			// A container's process chooses its own words: a tab would move the columns, a newline make rows.
			cells[i] = printable(strings.NewReplacer("\t", " ", "\n", " ").Replace(cell))
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	return w.Flush()
}

func (a *app) portCommand() *cobra.Command {
	who := false
	cmd := &cobra.Command{
		Use:   "port [OPTIONS] CONTAINER [PRIVATE_PORT[/PROTO]]",
		Short: "List the published ports of a container",
		Example: `  glassbox port web
  glassbox port web 80/tcp
  glassbox port --who web`,
		Args:              between(1, 2),
		ValidArgsFunction: a.completeContainers(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := a.open()
			if err != nil {
				return err
			}
			v, err := e.Inspect(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			lines, err := portLines(v.NetworkSettings.Ports, args)
			for _, line := range lines {
				if who {
					line += "  " + whoReaches(line, v.Glassbox.Ingress)
				}
				fmt.Fprintln(a.out, line)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&who, "who", false, "Say who can reach each port (glassbox's own)")
	return cmd
}

// whoReaches says it of a line of portLines.
func whoReaches(line string, ingress []string) string {
	_, at, ok := strings.Cut(line, " -> ")
	if !ok {
		at = line
	}
	host, _, _ := net.SplitHostPort(at)
	text := container.ReachedBy(host)
	if len(ingress) > 0 {
		text += ", of these whom --ingress lets in: " + strings.Join(ingress, " ")
	}
	return text
}

// portLines are published ports as docker prints them: all, or those of args[1].
func portLines(ports map[string][]docker.PortBinding, args []string) ([]string, error) {
	var lines []string
	if len(args) > 1 {
		number, proto, ok := strings.Cut(args[1], "/")
		if !ok {
			proto = "tcp"
		}
		if _, err := strconv.ParseUint(number, 10, 16); err != nil {
			return nil, &usageError{err: fmt.Errorf("invalid port (%s): want PORT[/PROTO], as in 80/tcp", args[1])}
		}
		for _, b := range ports[number+"/"+proto] {
			lines = append(lines, net.JoinHostPort(b.HostIP, b.HostPort))
		}
		if len(lines) == 0 {
			return nil, fmt.Errorf("no public port '%s' published for %s", args[1], args[0])
		}
		return lines, nil
	}
	number := func(key string) int {
		text, _, _ := strings.Cut(key, "/")
		n, _ := strconv.Atoi(text)
		return n
	}
	keys := slices.SortedFunc(maps.Keys(ports), func(a, b string) int {
		return cmp.Or(cmp.Compare(number(a), number(b)), cmp.Compare(a, b))
	})
	for _, key := range keys {
		for _, b := range ports[key] {
			lines = append(lines, key+" -> "+net.JoinHostPort(b.HostIP, b.HostPort))
		}
	}
	return lines, nil
}
