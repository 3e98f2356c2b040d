package main

import (
	"flag"

	"glassbox/bundle"
)

// criuFlags declares what checkpoint and restore have in common.
func criuFlags(fs *flag.FlagSet, f *bundle.CRIUFlags) {
	f.ImagePath = "checkpoint"
	fs.StringVar(&f.ImagePath, "image-path", f.ImagePath, "directory of the images (default: checkpoint)")
	fs.StringVar(&f.WorkPath, "work-path", "", "directory of criu's logs (default: that of the images)")
	fs.BoolVar(&f.TCPEstablished, "tcp-established", false, "take established TCP connections along")
	fs.BoolVar(&f.ExtUnixSk, "ext-unix-sk", false, "allow unix sockets that lead out of the container")
	fs.BoolVar(&f.ShellJob, "shell-job", false, "allow processes that belong to a session or terminal outside")
	fs.BoolVar(&f.FileLocks, "file-locks", false, "take file locks along")
	fs.BoolVar(&f.AutoDedup, "auto-dedup", false, "free pages of images that aren't needed any more")
	listVar(fs)(&f.EmptyNS, "empty-ns", nil, "leave out the content of this namespace: network")
	fs.BoolVar(&f.LazyPages, "lazy-pages", false, "memory is taken along when it is used; criu lazy-pages and --page-server carry it")
	fs.StringVar(&f.ManageCgroups, "manage-cgroups-mode", "", "what happens with cgroups: soft, full, strict or ignore (default: soft)")
}

func checkpoint(a *app, fs *flag.FlagSet) func([]string) (int, error) {
	o := &bundle.CheckpointOptions{}
	criuFlags(fs, &o.CRIUFlags)
	fs.StringVar(&o.ParentPath, "parent-path", "", "directory of an earlier pre-dump, relative to --image-path")
	fs.BoolVar(&o.LeaveRunning, "leave-running", false, "let the container go on")
	fs.BoolVar(&o.TCPSkipInFlight, "tcp-skip-in-flight", false, "leave out TCP connections that are being made")
	fs.BoolVar(&o.LinkRemap, "link-remap", false, "give open files without a name one, for the time being")
	fs.StringVar(&o.PageServer, "page-server", "", "ADDRESS:PORT of a criu page-server that gets the memory")
	fs.BoolVar(&o.PreDump, "pre-dump", false, "write the memory only, and let the container go on")
	fs.IntVar(&o.StatusFD, "status-fd", -1, "descriptor that gets a zero byte when the memory of --lazy-pages is served")
	return byID(func(id string) (int, error) {
		return 0, a.runtime.Checkpoint(id, *o)
	})
}

func restore(a *app, fs *flag.FlagSet) func([]string) (int, error) {
	o := &bundle.RestoreOptions{Bundle: "."}
	criuFlags(fs, &o.CRIUFlags)
	both(fs.StringVar, &o.Bundle, "bundle", "b", "directory of the bundle (default: the working directory)")
	fs.StringVar(&o.PIDFile, "pid-file", "", "file that gets the process ID")
	both(fs.BoolVar, &o.Detach, "detach", "d", "return when the container runs")
	fs.StringVar(&o.LSMProfile, "lsm-profile", "", "profile for the processes: apparmor:NAME or selinux:LABEL")
	fs.StringVar(&o.LSMMountContext, "lsm-mount-context", "", "SELinux context for mounts that had one")
	fs.Bool("no-subreaper", false, "accepted for old callers; orphans never become children of this runtime")
	fs.StringVar(&o.ConsoleSocket, "console-socket", "", "unix socket that gets the terminal's master")
	fs.Bool("no-pivot", false, "accepted for old callers; criu always uses pivot_root")
	return byID(func(id string) (int, error) {
		return a.runtime.Restore(id, *o)
	})
}
