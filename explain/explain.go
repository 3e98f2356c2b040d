// Package explain prints plans for people and programs.
//
// Its one idea: what is printed is the plan and nothing else. Every line comes from a step of [plan.Plan]; the package knows the
// phases' purpose and how to draw two lanes, but no container.
//
// It refuses to pass control characters on: names in a plan may come from an image, and a terminal obeys what it is sent.
//
// A plan is read in two ways. [Text], sh, go and html walk its steps. What describes or judges the container ([Policy], [Diff],
// docker, compose …) reads a [View]: what the steps amount to. What a format can't say it says so, in a comment.
//
// Start reading at [Write], then view.go.
package explain

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"glassbox/plan"
)

// Formats are the names that [Write] takes.
func Formats() []string {
	return []string{"text", "json", "sh", "go", "docker", "podman", "compose", "quadlet", "kube", "oci", "html"}
}

// Write prints a plan in a format.
func Write(w io.Writer, format string, p *plan.Plan, a About, o TextOptions) error {
	switch format {
	case "text":
		o.Times, o.Refused = a.Times, a.Refused
		return Text(w, p, o)
	case "json":
		return JSON(w, p, a)
	case "sh":
		return writeShell(w, p, a)
	case "go":
		return writeGo(w, p, a)
	case "html":
		return writeHTML(w, p, a)
	case "compose":
		return writeCompose(w, Read(p), a)
	case "quadlet":
		return writeQuadlet(w, Read(p), a)
	case "kube":
		return writeKube(w, Read(p), a)
	case "oci":
		return writeOCI(w, Read(p), a)
	case "docker", "podman":
		return commandLine(w, format, Read(p), a)
	}
	return fmt.Errorf("unknown format %q: want one of %s", format, strings.Join(Formats(), ", "))
}

// JSON writes the plan as indented JSON, which plan.Plan reads back, and beside it when its steps were made and why it would be refused
// here, if that is known.
func JSON(w io.Writer, p *plan.Plan, a About) error {
	var v any = p
	if times := timesJSON(p, a.Times); times != nil || a.Refused != "" {
		v = struct {
			Refused string      `json:"refused,omitempty"`
			Version int         `json:"version"`
			Arch    string      `json:"arch"`
			Steps   []plan.Step `json:"steps"`
			Times   *stepTimes  `json:"times,omitempty"`
		}{a.Refused, p.Version, p.Arch, p.Steps, times}
	}
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = w.Write(append(escapeJSON(data), '\n'))
	return err
}

// refusal says that a plan would be refused, in one sentence.
func refusal(why string) string {
	return "This plan would be refused here (glassbox run --plan): " + why
}

// phase says what a phase is for, to somebody who hears of it for the first time.
func phase(p plan.Phase) (title, about string) {
	switch p {
	case plan.Limits:
		return "Limits", "Control groups count what the container's processes use together and hold them to a limit. They are set up before " +
			"there is a process, so that there is no moment without limits."
	case plan.Sources:
		return "Sources", "What the container needs of the host is opened while names still mean the host's files. Later the container could " +
			"have a say in what a name leads to; in what is open already it has none."
	case plan.Isolation:
		return "Isolation", "A namespace gives a process its own view of one thing: mounts, processes, host name, network and so on. Here one " +
			"process becomes two: the parent stays on the host, the child goes on to become the container."
	case plan.Network:
		return "Network", "A new network namespace has no devices but a loopback that is down. A veth pair is a cable with one end in it; on " +
			"the host the other end goes into a bridge, and the firewall translates addresses on the way out and in."
	case plan.Rootfs:
		return "Root file system",
			"The image's layers are stacked with a writable one on top, and the stack becomes the root directory. From then on no path leads to " +
				"the host's files."
	case plan.Mounts:
		return "Mounts", "Programs expect more than files from disk: /proc, /sys, /dev/shm. They are mounted inside the new root, and what " +
			"tells too much about the host, or would let the container change it, is hidden or made read-only."
	case plan.Devices:
		return "Devices", "A /dev of its own with the few devices that every program may use, and those that were asked for."
	case plan.Kernel:
		return "Kernel settings", "Names, settings and per-process limits that belong to the new namespaces or to this process alone."
	case plan.Terminal:
		return "Terminal", "Where the program's input comes from and its output goes to."
	case plan.Privileges:
		return "Privileges", "What even root may do no longer. It comes last because the steps above need these privileges, and in this order " +
			"because each step may take away what another one needs."
	case plan.Exec:
		return "Program", "The child forgets the last of what it had from glassbox and becomes the program."
	}
	return string(p), ""
}
