package fork

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"glassbox/host/beneath"
	"glassbox/plan"
)

// ExplainExec finds out why execve failed, or the check before it, while the child that tried is still there: its root is reached through
// /proc/PID/root, and files in it are opened without leaving it. It sets err.Detail and err.Code (127: no such command, 126: it
// can't be executed). For other steps it does nothing.
func ExplainExec(pid int, err *StepError) {
	var candidates []string
	var name string
	switch o := err.Step.Op.(type) {
	case *plan.Execve:
		candidates, name = o.Candidates, o.Argv[0]
	case *plan.FindProgram:
		candidates, name = o.Candidates, o.Name
	default:
		return
	}
	// Until more is known: shells say 126 for what is there and doesn't run, 127 for what isn't there (POSIX, XCU 2.8.2).
	err.Code = 126
	root, e := unix.Open("/proc/"+strconv.Itoa(pid)+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if e != nil {
		return
	}
	defer unix.Close(root)
	cwd, _ := os.Readlink("/proc/" + strconv.Itoa(pid) + "/cwd")
	err.Code, err.Detail = diagnose(root, cwd, name, candidates)
	if err.Code == 127 && !strings.Contains(name, "/") {
		err.Err = fmt.Errorf("%q: executable file not found in $PATH", name)
	}
}

func diagnose(root int, cwd, name string, candidates []string) (code int, detail string) {
	found := false
	for _, file := range candidates {
		if !strings.HasPrefix(file, "/") {
			file = cwd + "/" + file
		}
		f, err := beneath.Resolve(root, file)
		if err != nil {
			continue
		}
		var st unix.Stat_t
		err = unix.Fstat(f, &st)
		unix.Close(f)
		if err != nil {
			continue
		}
		found = true
		switch {
		case st.Mode&unix.S_IFMT == unix.S_IFDIR:
			detail = file + " is a directory"
			continue
		// Without any such bit not even root may execute it (capabilities(7), CAP_DAC_OVERRIDE); who lacks one only is answered below.
		case st.Mode&0o111 == 0:
			detail = fmt.Sprintf("%s has no execute permission (mode %04o): chmod +x it, or run it through its interpreter", file, st.Mode&0o777)
			continue
		}
		return explainFile(root, file)
	}
	if found {
		return 126, detail
	}
	if strings.Contains(name, "/") {
		return 127, name + " doesn't exist in the container"
	}
	return 127, "looked in " + strings.Join(dirs(candidates), ":")
}

func dirs(files []string) []string {
	out := make([]string, len(files))
	for i, f := range files {
		out[i] = f[:max(strings.LastIndexByte(f, '/'), 0)]
	}
	return out
}

// explainFile looks into an executable file that exists but doesn't run.
func explainFile(root int, file string) (code int, detail string) {
	// The file is the container's: whatever isn't regular is not opened, on the host and as root, only to say what it is.
	f, err := beneath.Open(root, file)
	var failed *fs.PathError
	switch {
	case errors.As(err, &failed):
		return 126, fmt.Sprintf("%s: %v", file, failed.Err)
	case err != nil:
		return 126, err.Error()
	}
	defer f.Close()
	// As much as the kernel looks at (BINPRM_BUF_SIZE): what it doesn't find there it doesn't run either.
	head := make([]byte, 256)
	n, _ := io.ReadFull(f, head)
	head = head[:n]
	exists := func(p string) bool {
		g, err := beneath.Resolve(root, p)
		if err == nil {
			unix.Close(g)
		}
		return err == nil
	}
	switch {
	case n == 0:
		return 126, file + " is empty"
	case bytes.HasPrefix(head, []byte("#!")):
		line, _, _ := bytes.Cut(head[2:], []byte("\n"))
		interp := strings.TrimLeft(string(line), " \t")
		if strings.HasSuffix(interp, "\r") {
			return 126, fmt.Sprintf("%s has Windows line ends (CRLF): its first line asks for the interpreter %q; convert it with dos2unix", file,
				strings.Fields(interp + " ")[0]+"\r")
		}
		fields := strings.Fields(interp)
		if len(fields) == 0 {
			return 126, file + ": its first line (#!) names no interpreter"
		}
		if !exists(fields[0]) {
			return 127, fmt.Sprintf("%s is a script for %s, which doesn't exist in the container", file, fields[0])
		}
		return 126, fmt.Sprintf("%s is a script for %s, which can't be executed", file, fields[0])
	case bytes.HasPrefix(head, []byte(elfMagic)):
		return explainELF(f, file, exists)
	}
	return 126, file + " is neither a binary for Linux (ELF) nor a script that starts with #!"
}

func explainELF(f io.ReaderAt, file string, exists func(string) bool) (code int, detail string) {
	e, err := readELF(f)
	if err != nil {
		return 126, fmt.Sprintf("%s is a damaged binary: %v", file, err)
	}
	if want := uint16(hostMachine); e.machine != want {
		return 126, fmt.Sprintf("%s is a binary for %s, this machine is %s: pull the image with --platform linux/%s", file,
			machineName(e.machine), machineName(want), machineName(want))
	}
	if e.interp != "" && !exists(e.interp) {
		return 127,
			fmt.Sprintf("%s needs the loader %s, which doesn't exist in the container: the binary was linked for another C library, or the image "+
				"lacks it", file, e.interp)
	}
	return 126, ""
}
