package main

import (
	"errors"
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
	fs.StringVar(&f.ManageCgroups, "manage-cgroups-mode", "", "what happens with cgroups: soft, full, strict or ignore (default: soft)")
}

// refused declares a flag of runc's that this runtime can't honour. It is an error to set it.
func refused(fs *flag.FlagSet, name, why string) {
	fs.BoolFunc(name, "not supported: "+why, func(v string) error {
		if v == "false" {
			return nil
		}
		return errors.New("not supported: " + why)
	})
}

// refusedValue is refused for a flag with a value.
func refusedValue(fs *flag.FlagSet, name, why string) {
	fs.Func(name, "not supported: "+why, func(string) error { return errors.New("not supported: " + why) })
}

const lazyPages = "pages on demand need a second criu that serves them"

func checkpoint(a *app, fs *flag.FlagSet) func([]string) (int, error) {
	o := &bundle.CheckpointOptions{}
	criuFlags(fs, &o.CRIUFlags)
	fs.StringVar(&o.ParentPath, "parent-path", "", "directory of an earlier pre-dump, relative to --image-path")
	fs.BoolVar(&o.LeaveRunning, "leave-running", false, "let the container go on")
	fs.BoolVar(&o.TCPSkipInFlight, "tcp-skip-in-flight", false, "leave out TCP connections that are being made")
	fs.BoolVar(&o.LinkRemap, "link-remap", false, "give open files without a name one, for the time being")
	fs.StringVar(&o.PageServer, "page-server", "", "ADDRESS:PORT of a criu page-server that gets the memory")
	fs.BoolVar(&o.PreDump, "pre-dump", false, "write the memory only, and let the container go on")
	refused(fs, "lazy-pages", lazyPages)
	refusedValue(fs, "status-fd", "it belongs to --lazy-pages: "+lazyPages)
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
	refusedValue(fs, "console-socket", "criu's command line has no means to hand over a terminal")
	refused(fs, "no-pivot", "criu makes the root with pivot_root")
	refused(fs, "lazy-pages", lazyPages)
	return byID(func(id string) (int, error) {
		return a.runtime.Restore(id, *o)
	})
}
