package cli

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"glassbox/engine"
	"glassbox/host"
)

// info is what `glassbox info` tells.
type info struct {
	Version    string
	Root       string
	State      string
	Runtime    string
	Kernel     string
	Arch       string
	CPUs       int
	Memory     uint64 // bytes
	Cgroup     string // v1, v2, hybrid, none
	LSM        []string
	Seccomp    bool
	User       uint32
	Containers int
	Running    int
	Images     int
}

func (a *app) infoCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "info [OPTIONS]",
		Short: "What glassbox uses and what this host is",
		Example: `  glassbox info
  glassbox info -f '{{.Cgroup}}'`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			i, err := a.info()
			if err != nil {
				return err
			}
			if format != "" {
				return printValue(a.out, format, i)
			}
			i.print(a)
			return nil
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "json or a Go template")
	return cmd
}

func (a *app) info() (*info, error) {
	f, err := host.Probe()
	if err != nil {
		return nil, err
	}
	i := &info{
		Version: Version, Runtime: a.runtimePath(), Kernel: f.Kernel.Release, Arch: f.Arch, CPUs: f.CPUs, Memory: f.Memory,
		Cgroup: f.Cgroup.Mode, LSM: f.LSM, Seccomp: f.Seccomp, User: f.UID,
	}
	if i.Root, err = filepath.Abs(a.root); err != nil {
		return nil, err
	}
	if i.State, err = filepath.Abs(a.state); err != nil {
		return nil, err
	}
	e, err := a.open()
	if err != nil {
		return nil, err
	}
	list, err := e.List(engine.ListOptions{All: true})
	if err != nil {
		return nil, err
	}
	i.Containers = len(list)
	for _, s := range list {
		if s.State == "running" {
			i.Running++
		}
	}
	stored, err := e.Images().List()
	i.Images = len(stored)
	return i, err
}

func (i *info) print(a *app) {
	runtimePath := i.Runtime
	if runtimePath == "" {
		runtimePath = "not found: put glassbox-runtime beside glassbox or name it with --runtime"
	}
	for _, line := range [][2]string{
		{"Version", i.Version},
		{"Root", i.Root},
		{"State", i.State},
		{"Runtime", runtimePath},
		{"Kernel", i.Kernel},
		{"Architecture", i.Arch},
		{"CPUs", fmt.Sprint(i.CPUs)},
		{"Memory", size(int64(i.Memory))},
		{"Cgroups", i.Cgroup},
		{"Security", strings.Join(append(i.LSM, seccompWord(i.Seccomp)), ", ")},
		{"User", fmt.Sprint(i.User)},
		{"Containers", fmt.Sprintf("%d, %d running", i.Containers, i.Running)},
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
		Use:     "version [OPTIONS]",
		Short:   "Versions of glassbox and Go",
		Example: `  glassbox version -f '{{.Version}}'`,
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			v := struct{ Version, GoVersion, Os, Arch string }{Version, runtime.Version(), runtime.GOOS, runtime.GOARCH}
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
