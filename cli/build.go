package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"glassbox/build"
	"glassbox/explain"
	"glassbox/fork"
)

func (a *app) buildCommand() *cobra.Command {
	w := &build.Words{Progress: "auto"}
	var policyFile string
	cmd := &cobra.Command{
		Use:   "build [OPTIONS] PATH|URL|-",
		Short: "Make an image by a Dockerfile",
		Long: `Make an image by a Dockerfile, with BuildKit's solver. Each RUN is a plan that a small process executes.

The context is a directory, an archive, the URL of a git repository or an archive, or - for standard input (an archive, or a Dockerfile
alone). Without -f it is the file Dockerfile in the context, or Containerfile. No daemon is needed; the build cache is kept below --root.`,
		Example: `  glassbox build -t app .
  glassbox build -t app --target test --build-arg VERSION=2 -f docker/Dockerfile .
  glassbox build --secret id=token,src=token.txt --output type=local,dest=out .
  glassbox build --debug-on-error --trace times.html .
  glassbox build --break 7 --break tests .
  echo 'FROM busybox' | glassbox build -t empty -`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return &usageError{fmt.Errorf("'%s' requires 1 argument: the directory with the Dockerfile", cmd.CommandPath()), 1}
			}
			return nil
		},
		ValidArgsFunction: directories,
		RunE: func(cmd *cobra.Command, args []string) error {
			w.Context = args[0]
			if policyFile != "" {
				var err error
				if w.Policy, err = policyText(policyFile); err != nil {
					return err
				}
			}
			r, err := w.Request(a.lookup)
			if err != nil {
				return &usageError{err: err}
			}
			if r.Step {
				return a.stepBuild(cmd.Context(), r, w.Breaks)
			}
			return a.builder("build", &build.Order{Build: r})
		},
	}
	buildFlags(cmd.Flags(), w)
	cmd.Flags().StringVar(&policyFile, "policy", "", "Refuse what this policy `file` doesn't allow, before anything is made (see serve "+
		"--policy)")
	return cmd
}

// directories completes the context of a build.
func directories(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveFilterDirs
}

// explainBuildCommand says what a build would do, without doing it.
func (a *app) explainBuildCommand() *cobra.Command {
	w := &build.Words{Progress: "auto"}
	var x explainFlags
	var run int
	cmd := &cobra.Command{
		Use:   "build [OPTIONS] PATH|-",
		Short: "What a build would do: stages, what is read of the context, each RUN's plan",
		Long: `What a build would do: its stages, what is read of the context, and each RUN with its plan, as far as that is known before it runs.

Nothing is run, fetched or written, and no rights are needed. Of a base image that is not here the configuration is taken as empty.
--run N prints the whole plan of the step with that number, in any of the formats.`,
		Example: `  glassbox explain build .
  glassbox explain build --target test --format json .
  glassbox explain build --format html -o build.html .
  glassbox explain build --run 4 --format sh .`,
		Args:              exactly(1),
		ValidArgsFunction: directories,
		RunE: func(cmd *cobra.Command, args []string) error {
			w.Context = args[0]
			r, err := w.Request(a.lookup)
			if err != nil {
				return &usageError{err: err}
			}
			if err := x.check(); err != nil {
				return err
			}
			if run == 0 && !slices.Contains([]string{"text", "json", "html", "sh"}, x.format) {
				return &usageError{err: fmt.Errorf("--format %s is for the plan of one RUN: choose it by --run", x.format)}
			}
			out, err := a.askBuilder(cmd.Context(), "explain", &build.Order{Build: r})
			if err != nil {
				return err
			}
			var e build.Explanation
			if err := json.Unmarshal(out, &e); err != nil {
				return fmt.Errorf("the builder's answer: %w", err)
			}
			return a.printExplanation(&x, &e, run)
		},
	}
	fs := cmd.Flags()
	x.register(fs)
	fs.IntVar(&run, "run", 0, "The plan of this step, whose `number` the explanation has")
	fs.StringVarP(&w.Dockerfile, "file", "f", "", "Dockerfile `file`; - is standard input")
	fs.StringVar(&w.Target, "target", "", "Up to this `stage`")
	fs.Var(list{&w.Args}, "build-arg", "Value of an ARG: NAME=VALUE, or NAME for the variable of that name")
	fs.StringVar(&w.Network, "network", "", "Network of RUN: default, none or host")
	return cmd
}

func (a *app) printExplanation(x *explainFlags, e *build.Explanation, run int) error {
	if run == 0 && !x.policy {
		return x.to(a, func(out io.Writer, _ explain.TextOptions) error {
			switch x.format {
			case "json":
				return json.NewEncoder(out).Encode(e)
			case "html":
				return e.HTML(out, size)
			case "sh":
				return e.Shell(out, func(w io.Writer, r *build.Run) error {
					return explain.Write(w, "sh", r.Plan, explain.About{}, explain.TextOptions{})
				})
			}
			e.Text(out, printable, size)
			return nil
		})
	}
	var numbers []string
	for _, s := range e.Runs() {
		if s.Number == run {
			return x.print(a, &subject{plan: s.Run.Plan})
		}
		numbers = append(numbers, strconv.Itoa(s.Number))
	}
	return &usageError{err: fmt.Errorf("--run %d: the steps that are a RUN have the numbers %s", run, strings.Join(numbers, ", "))}
}

// buildFlags are docker build's, and buildx's.
func buildFlags(fs *pflag.FlagSet, w *build.Words) {
	fs.StringVarP(&w.Dockerfile, "file", "f", "", "Dockerfile `file`; - is standard input (default: Dockerfile or Containerfile)")
	fs.VarP(list{&w.Tags}, "tag", "t", "Name, as in NAME[:TAG]")
	fs.StringVar(&w.Target, "target", "", "Build up to this `stage`")
	fs.Var(list{&w.Args}, "build-arg", "Value of an ARG: NAME=VALUE, or NAME for the variable of that name")
	fs.Var(list{&w.Labels}, "label", "Label of the image: NAME=VALUE")
	fs.BoolVar(&w.NoCache, "no-cache", false, "Take nothing from the cache")
	fs.Var(list{&w.NoCacheFilter}, "no-cache-filter", "Take nothing from the cache in these stages")
	fs.BoolVar(&w.Pull, "pull", false, "Ask the registries for newer images than those that are here")
	fs.Var(list{&w.Platforms}, "platform", "Platform of the result, as in linux/arm64")
	fs.Var(list{&w.Secrets}, "secret", "Secret for RUN --mount=type=secret: id=ID[,src=FILE|,env=NAME]")
	fs.Var(list{&w.SSH}, "ssh", "Agent or keys for RUN --mount=type=ssh: default, or ID=SOCKET or ID=KEY,KEY")
	fs.StringVar(&w.Network, "network", "", "Network of RUN: default, none or host")
	fs.Var(list{&w.AddHosts}, "add-host", "Line of /etc/hosts while building: NAME:ADDRESS")
	fs.Var(list{&w.CacheFrom}, "cache-from", "Further cache: NAME, type=registry,ref=NAME or type=local,src=DIR")
	fs.Var(list{&w.CacheTo}, "cache-to", "Where the cache goes: type=registry,ref=NAME, type=local,dest=DIR or type=inline")
	fs.VarP(list{&w.Outputs}, "output", "o", "Where the result goes: type=image, docker, oci, tar, local or registry, with dest=; "+
		"DIR is type=local")
	fs.BoolVar(&w.Push, "push", false, "Push the result: --output type=registry")
	fs.BoolVar(&w.Load, "load", false, "Put the result into the image store, which is what happens anyway: --output type=docker")
	fs.Var(list{&w.Contexts}, "build-context", "Further context: NAME=DIR, URL, docker-image://NAME or oci-layout://DIR")
	fs.Var(list{&w.Allow}, "allow", "Allow what a Dockerfile can't just take: network.host, security.insecure")
	fs.Var(list{&w.Attests}, "attest", "Attestation: type=provenance or type=sbom, with attributes")
	fs.StringVar(&w.Provenance, "provenance", "", "Short for --attest type=provenance: true, false, or mode=max")
	fs.StringVar(&w.SBOM, "sbom", "", "Short for --attest type=sbom: true, or generator=IMAGE")
	fs.Var(list{&w.Annotations}, "annotation", "Annotation of the image's manifest: NAME=VALUE")
	fs.Var(list{&w.Ulimits}, "ulimit", "Limit of RUN's processes: NAME=SOFT[:HARD]")
	fs.StringVar(&w.ShmSize, "shm-size", "", "Size of /dev/shm for RUN")
	fs.StringVar(&w.CgroupParent, "cgroup-parent", "", "Cgroup below which RUN's are made")
	fs.StringVarP(&w.Memory, "memory", "m", "", "Memory of each RUN, as in 512m")
	fs.StringVar(&w.MemorySwap, "memory-swap", "", "Memory and swap of each RUN; -1: no limit")
	fs.Int64VarP(&w.CPUShares, "cpu-shares", "c", 0, "Share of the processors of each RUN")
	fs.Int64Var(&w.CPUPeriod, "cpu-period", 0, "Period of --cpu-quota, in microseconds")
	fs.Int64Var(&w.CPUQuota, "cpu-quota", 0, "Processor time of each RUN in a period, in microseconds")
	fs.StringVar(&w.CpusetCpus, "cpuset-cpus", "", "Processors of each RUN, as in 0-3")
	fs.StringVar(&w.CpusetMems, "cpuset-mems", "", "Memory nodes of each RUN")
	fs.Var(list{&w.Resources}, "resource", "Limits of each RUN in buildx's words: memory=2g,cpu-quota=50000")
	// docker build's of the classic builder, which ran a container for each step.
	fs.Bool("rm", true, "There are no containers to be removed: it is taken for scripts' sake")
	fs.Bool("force-rm", false, "The same")
	fs.MarkHidden("rm")
	fs.MarkHidden("force-rm")
	fs.BoolVar(&w.Check, "check", false, "Look for mistakes in the Dockerfile, and build nothing: --call check")
	fs.StringVar(&w.Call, "call", "build", "What is done: build, check, outline or targets; with ,format=json")
	fs.StringVar(&w.Progress, "progress", w.Progress, "How progress is shown: "+strings.Join(build.Progresses(), ", "))
	fs.BoolVarP(&w.Quiet, "quiet", "q", false, "Print the image's ID and nothing else")
	fs.StringVar(&w.MetadataFile, "metadata-file", "", "Write what the build answers into a JSON `file`")
	fs.StringVar(&w.Trace, "trace", "", "Write into `FILE.html|FILE.json|FILE.txt` where the time went, what came from the cache, and why "+
		"each other step did not")
	fs.BoolVar(&w.Step, "step", false, "Stop before each step of each RUN's plan, show it, and ask how to go on (? tells what can be "+
		"answered)")
	fs.Var(list{&w.Breaks}, "break", "Stop at the RUNs of a `stage` or at a line of the Dockerfile, or where a phase of a plan begins "+
		"(limits, network, rootfs, mounts, …)")
	fs.StringVar(&w.DebugOnError, "debug-on-error", "", "When a RUN fails: a shell on this terminal in the state just before it, or "+
		"--debug-on-error=COMMAND")
	// A value comes with = only: the next word is the context.
	fs.Lookup("debug-on-error").NoOptDefVal = build.Shell
	fs.StringVar(&w.IIDFile, "iidfile", "", "Write the image's ID into a `file`")
}

// builderProgram is the name of the program that has the builder.
const builderProgram = "glassbox-build"

// builder becomes the program that has the builder, in a mount namespace of its own: what it mounts goes with it, however it ends.
func (a *app) builder(verb string, o *build.Order) error {
	program, err := a.findBuilder(o)
	if err == nil {
		err = needsRoot()
	}
	if err != nil {
		return err
	}
	if o.Build != nil {
		runtime.LockOSThread()
		o.TimerSlack = fork.LateTimers()
	}
	fd, err := order(o)
	if err != nil {
		return err
	}
	// dup3(2) refuses two equal numbers (EINVAL), and wouldn't take FD_CLOEXEC away from the one.
	if fd == build.OrderFD {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0)
	} else {
		err = unix.Dup3(fd, build.OrderFD, 0)
	}
	if err != nil {
		return fmt.Errorf("the builder's order: %w", err)
	}
	runtime.LockOSThread() // execve takes the calling thread's namespaces
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("a mount namespace for the builder: %w", err)
	}
	// What the host mounts from now on is seen there, and nothing that is mounted there comes back (mount_namespaces(7)).
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("a mount namespace for the builder: %w", err)
	}
	// In this program's place: signals, the exit code and the terminal are the builder's without anybody in between.
	return fmt.Errorf("start %s: %w", program, unix.Exec(program, []string{builderProgram, verb}, a.environ))
}

// askBuilder lets the builder's program answer in JSON. What only reads needs no rights.
func (a *app) askBuilder(ctx context.Context, verb string, o *build.Order) ([]byte, error) {
	program, err := a.findBuilder(o)
	if err != nil {
		return nil, err
	}
	// What is only read is read without rights, and needs no mounts.
	reads := verb == "explain"
	if !reads {
		if err := needsRoot(); err != nil {
			return nil, err
		}
	}
	fd, err := order(o)
	if err != nil {
		return nil, err
	}
	memory := os.NewFile(uintptr(fd), "order")
	defer memory.Close()
	cmd := exec.CommandContext(ctx, program)
	cmd.Args = []string{builderProgram, verb}
	cmd.Env, cmd.Stdin, cmd.Stderr, cmd.ExtraFiles = a.environ, a.in, a.err, []*os.File{memory}
	if !reads {
		// Go's os/exec makes all its mounts private, too: what the builder mounts is gone with it.
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	}
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil, &exitError{code: exit.ExitCode()} // it has said why
	}
	return out, err
}

// records are what the builder says of its cache, a record a line.
func (a *app) records(ctx context.Context, verb string, o *build.Order) ([]build.Record, error) {
	out, err := a.askBuilder(ctx, verb, o)
	if err != nil {
		return nil, err
	}
	var records []build.Record
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var r build.Record
		if err := d.Decode(&r); err == io.EOF {
			return records, nil
		} else if err != nil {
			return nil, fmt.Errorf("the builder's answer: %w", err)
		}
		records = append(records, r)
	}
}

func needsRoot() error {
	if os.Geteuid() != 0 {
		return errors.New("building needs root so far: run it with sudo")
	}
	return nil
}

// findBuilder finds the builder's program and completes an order.
func (a *app) findBuilder(o *build.Order) (program string, err error) {
	if err := a.checkRuntime(); err != nil {
		return "", err
	}
	if program, err = beside(builderProgram); err != nil {
		return "", err
	}
	o.Debug, o.Runtime = a.debug, a.runtimePath()
	o.Root, o.State, err = a.absolute()
	return program, err
}

// order writes what is to be done into memory. It has no secrets: it names where they are.
func order(o *build.Order) (fd int, err error) {
	data, err := json.Marshal(o)
	if err == nil {
		fd, err = unix.MemfdCreate("order", unix.MFD_CLOEXEC)
	}
	if err == nil {
		_, err = unix.Pwrite(fd, data, 0)
	}
	if err != nil {
		return -1, fmt.Errorf("the builder's order: %w", err)
	}
	return fd, nil
}
