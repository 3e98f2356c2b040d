package cli

import (
	"context"
	"fmt"
	"runtime"
	"strings"

	"glassbox/docker"

	"github.com/spf13/cobra"
)

func (a *app) infoCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "info [OPTIONS]",
		Short: "What glassbox uses and what this host is",
		Example: `  glassbox info
  glassbox info -f '{{.CgroupVersion}} {{.Architecture}}'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			i, err := a.info(cmd.Context())
			if err != nil {
				return err
			}
			if format != "" {
				return printValue(a.out, format, i)
			}
			a.printInfo(i)
			return nil
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "json or a Go template")
	return cmd
}

func (a *app) info(ctx context.Context) (*docker.Info, error) {
	e, err := a.open()
	if err != nil {
		return nil, err
	}
	return e.Info(ctx, Version)
}

func (a *app) printInfo(i *docker.Info) {
	runtimePath := i.Glassbox.Runtime
	if runtimePath == "" {
		runtimePath = "not found: put glassbox-runtime beside glassbox or name it with --runtime"
	}
	for _, line := range [][2]string{
		{"Version", i.ServerVersion},
		{"Root", i.DockerRootDir},
		{"State", i.Glassbox.State},
		{"Runtime", runtimePath},
		{"Kernel", i.KernelVersion},
		{"Architecture", i.Architecture},
		{"CPUs", fmt.Sprint(i.NCPU)},
		{"Memory", size(int64(i.MemTotal))},
		{"Cgroups", i.Glassbox.Cgroup},
		{"Security", strings.Join(append(i.Glassbox.LSM, seccompWord(i.Glassbox.Seccomp)), ", ")},
		{"User", fmt.Sprint(i.Glassbox.User)},
		{"Containers", fmt.Sprintf("%d, %d running", i.Containers, i.ContainersRunning+i.ContainersPaused)},
		{"Images", fmt.Sprint(i.Images)},
	} {
		fmt.Fprintf(a.out, "%-13s %s\n", line[0]+":", line[1])
	}
}

func seccompWord(ok bool) string {
	if ok {
		return "seccomp"
	}
	return "no seccomp"
}

func (a *app) versionCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "version [OPTIONS]",
		Short: "Versions of glassbox and Go",
		Example: `  glassbox version -f '{{.Version}}'
  glassbox version -f '{{.Server.Version}}'`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			type program struct{ Version, GoVersion, Os, Arch string }
			// Docker's two, by which scripts ask: here they are one program.
			v := struct {
				program
				Client, Server program
			}{program: program{Version, runtime.Version(), runtime.GOOS, runtime.GOARCH}}
			v.Client, v.Server = v.program, v.program
			if format != "" {
				return printValue(a.out, format, v)
			}
			fmt.Fprintf(a.out, "glassbox %s\n%s %s/%s\n", v.Version, v.GoVersion, v.Os, v.Arch)
			return nil
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "json or a Go template")
	return cmd
}
