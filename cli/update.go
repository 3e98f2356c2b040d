package cli

import (
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"glassbox/container"
	"glassbox/engine"
	"glassbox/explain"
	"glassbox/plan"
)

// limitFlags are the flags of limits that run, create and update share.
func limitFlags(fs *pflag.FlagSet, o *container.Words, pids *int64) {
	kind := func(to *string, kind, name, short, usage string) { fs.VarP(text{to, kind}, name, short, usage) }
	kind(&o.Memory, "bytes", "memory", "m", "Memory limit")
	kind(&o.MemorySwap, "bytes", "memory-swap", "", "Limit of memory and swap together; -1 is unlimited swap")
	kind(&o.MemoryReservation, "bytes", "memory-reservation", "", "Soft memory limit")
	kind(&o.CPUs, "decimal", "cpus", "", "Number of processors")
	fs.Int64VarP(&o.CPUShares, "cpu-shares", "c", 0, "Relative weight of processor time")
	fs.Int64Var(&o.CPUPeriod, "cpu-period", 0, "Period of the CFS scheduler in microseconds")
	fs.Int64Var(&o.CPUQuota, "cpu-quota", 0, "Quota of the CFS scheduler in microseconds")
	fs.Int64Var(&o.CPURTPeriod, "cpu-rt-period", 0, "Period of the realtime scheduler in microseconds (cgroup v1)")
	fs.Int64Var(&o.CPURTRuntime, "cpu-rt-runtime", 0, "Time for realtime processes in each period in microseconds (cgroup v1)")
	fs.StringVar(&o.CpusetCpus, "cpuset-cpus", "", "Processors that may be used (0-3, 0,1)")
	fs.StringVar(&o.CpusetMems, "cpuset-mems", "", "Memory nodes that may be used (0-3, 0,1)")
	fs.Int64Var(pids, "pids-limit", 0, "Limit of processes and threads (-1 is unlimited)")
	fs.Uint16Var(&o.BlkioWeight, "blkio-weight", 0, "Relative weight of block I/O, 10 to 1000; 0 disables")
	fs.StringVar(&o.Restart, "restart", "", "What happens when it exits by itself: no, on-failure[:N], always, unless-stopped, "+
		"on-unhealthy[:N]")
}

// rateFlags are the flags of how much the network carries, which run, create and update share.
func rateFlags(fs *pflag.FlagSet, o *container.Words) {
	fs.StringVar(&o.NetRateIn, "net-rate-in", "", "Bytes per second that may come to the container (10m, 100mbit; -1 is no limit)")
	fs.StringVar(&o.NetRateOut, "net-rate-out", "", "Bytes per second that it may send")
	fs.StringVar(&o.NetBurst, "net-burst", "", "Bytes that may come or go at once, after a silence")
}

func (a *app) updateCommand() *cobra.Command {
	var o container.Words
	var pids int64
	var dry bool
	cmd := &cobra.Command{
		Use:   "update [OPTIONS] CONTAINER [CONTAINER...]",
		Short: "Change limits, rates, published ports and restart policy of containers",
		Long: `Change limits, rates, published ports and restart policy of containers.

One that runs has them at once, and each later start has them, too. A change that the kernel refuses leaves everything as it was.
With --dry-run the steps are printed that the change would make, and nothing is done.`,
		Example: `  glassbox update --memory 1g --cpus 2 web
  glassbox update --restart unless-stopped web db
  glassbox update --net-rate-in 100mbit --net-rate-out 10mbit web
  glassbox update --publish-add 8081:81 --publish-rm 8080:80 web
  glassbox update --dry-run --pids-limit 200 web`,
		Args:              atLeast(1),
		ValidArgsFunction: a.completeContainers(true),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("pids-limit") {
				o.PidsLimit = &pids
			}
			o.Flags = typed(cmd.LocalNonPersistentFlags())
			delete(o.Flags, "dry-run")
			if len(o.Flags) == 0 {
				return &usageError{err: errors.New("you must provide one or more flags when using this command, such as --memory or --restart")}
			}
			// What is no size and no number at all is refused before any container is looked at, as Docker's flags do.
			for _, f := range []struct{ flag, text string }{
				{"memory", o.Memory}, {"memory-swap", o.MemorySwap}, {"memory-reservation", o.MemoryReservation},
			} {
				if _, err := container.ParseSize(f.flag, f.text); err != nil && cmd.Flags().Changed(f.flag) && f.text != "-1" {
					return &usageError{err, 125}
				}
			}
			if _, err := strconv.ParseFloat(o.CPUs, 64); err != nil && cmd.Flags().Changed("cpus") {
				return &usageError{fmt.Errorf("--cpus %s: want a number of processors, such as 0.5 or 2", o.CPUs), 125}
			}
			return a.withEngine(args, func(e *engine.Engine, ref string) (string, error) {
				u, err := e.Update(cmd.Context(), ref, o)
				if err != nil {
					return "", err
				}
				if dry {
					return "", a.printUpdate(a.out, u)
				}
				return ref, e.Apply(cmd.Context(), u)
			})
		},
	}
	fs := cmd.Flags()
	limitFlags(fs, &o, &pids)
	rateFlags(fs, &o)
	fs.Var(list{&o.PublishAdd}, "publish-add", "Publish one more port ([ip:][host:]container[/udp])")
	fs.Var(list{&o.PublishRm}, "publish-rm", "Publish a port no more: as it was published, or the container's port alone")
	fs.BoolVar(&dry, "dry-run", false, "Print the steps that it would make, and change nothing")
	fs.SetNormalizeFunc(aliases)
	return cmd
}

// printUpdate prints the steps of an update as explain prints those of a start.
func (a *app) printUpdate(w io.Writer, u *engine.Update) error {
	fmt.Fprintf(w, "container %s\n", u.Name)
	p := &plan.Plan{Version: plan.Version, Steps: u.Steps}
	for i := range u.Steps {
		if err := explain.TextStep(w, p, i, false, a.textOptions(a.out, false)); err != nil {
			return err
		}
	}
	if len(u.Steps) == 0 && u.Limited {
		fmt.Fprintln(w, "  it doesn't run: its next start has the new limits")
	}
	if len(u.Steps) == 0 && u.Rates {
		fmt.Fprintln(w, "  it doesn't run: its next start has the new rates")
	}
	if len(u.Steps) == 0 && u.Ports {
		fmt.Fprintln(w, "  it doesn't run: its next start has the new ports")
	}
	if u.Restart != "" {
		fmt.Fprintf(w, "  restart policy from now on: %s\n", u.Restart)
	}
	return nil
}
