package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// A deed is a verb that a round of the storm does, and what must be there before.
type deed struct {
	name   string
	before [][]string
	args   []string
	ends   bool // the container may be gone afterwards, or never come to be
}

// deeds are the verbs of a storm's round. Everything that a round makes is named after it.
func (k *killer) deeds(n int) []deed {
	name := fmt.Sprintf("round%d", n)
	cidfile := filepath.Join(k.work, name)
	file := func(suffix string) string { return filepath.Join(k.work, name+suffix) }
	port := strconv.Itoa(20000+n) + ":80"
	up := []string{"run", "-d", "--name", name, "--cidfile", cidfile, "-p", port, "-v", name + ":/data", "busybox", "sleep", "1000"}
	made := []string{"create", "--name", name, "--cidfile", cidfile, "-v", name + ":/data", "busybox", "sleep", "0.05"}
	running, there := [][]string{up}, [][]string{made}
	network := [][]string{up, {"network", "create", name}}
	saved := [][]string{{"save", "-o", file(".tar"), "busybox"}}
	pushed := "127.0.0.1:5001/" + name
	return []deed{
		{"run", nil, []string{
			"run", "--name", name, "--cidfile", cidfile, "-p", port, "-v", name + ":/data", "busybox", "sleep", "0.05",
		}, true},
		{"run -d", nil, up, true},
		{"run --rm", nil, []string{"run", "--rm", "--name", name, "--cidfile", cidfile, "-v", "/anon", "busybox", "sleep", "0.05"}, true},
		{"run --restart", nil, []string{
			"run", "-d", "--restart", "on-failure:2", "--health-cmd", "true", "--health-interval", "100ms", "--name", name, "--cidfile",
			cidfile, "busybox", "sh", "-c", "sleep 0.02; false",
		}, true},
		{"run in memory", nil, []string{
			"run", "--rm", "--name", name, "--cidfile", cidfile, "--mount", "type=volume,source=m" + name +
				",target=/m,volume-opt=type=tmpfs,volume-opt=device=tmpfs", "--mount", "type=image,source=busybox,target=/im", "busybox",
			"sleep", "0.05",
		}, true},
		{"create", nil, made, true},
		{"start", there, []string{"start", name}, false},
		{"exec", running, []string{"exec", name, "sleep", "0.05"}, false},
		{"stop", running, []string{"stop", "-t", "1", name}, false},
		{"restart", running, []string{"restart", "-t", "0", name}, false},
		{"kill", running, []string{"kill", name}, false},
		{"pause", running, []string{"pause", name}, false},
		{"rename", there, []string{"rename", name, "re" + name}, false},
		{"update", running, []string{
			"update", "--memory", "64m", "--memory-swap", "64m", "--pids-limit", "50", "--restart", "always", name,
		}, false},
		{"rm", running, []string{"rm", "-fv", name}, true},
		{"cp in", running, []string{"cp", "/bin/busybox", name + ":/data/"}, false},
		{"cp out", there, []string{"cp", name + ":/bin", file(".cp")}, false},
		{"commit", running, []string{"commit", name, name}, false},
		{"export", there, []string{"export", "-o", file(".export"), name}, false},
		{"save", nil, []string{"save", "-o", file(".save"), "busybox"}, false},
		{"load", saved, []string{"load", "-q", "-i", file(".tar")}, false},
		{"pull", nil, []string{"pull", "-q", "127.0.0.1:5000/busybox:volumes"}, false},
		{"push", [][]string{{"tag", "busybox", pushed}}, []string{"push", "-q", pushed}, false},
		{"tag", nil, []string{"tag", "busybox", name}, false},
		{"volume create", nil, []string{"volume", "create", "v" + name}, false},
		{"volume rm", [][]string{{"volume", "create", "v" + name}}, []string{"volume", "rm", "v" + name}, false},
		{"network create", nil, []string{"network", "create", name}, false},
		{"network connect", network, []string{"network", "connect", name, name}, false},
		{"network disconnect", append(network, []string{"network", "connect", name, name}), []string{
			"network", "disconnect", name, name,
		}, false},
		{"network rm", network[1:], []string{"network", "rm", name}, false},
	}
}

// tidy takes away what the rounds made beside containers, with the verbs that people have for that, and finds the store sound.
func (k *killer) tidy() {
	k.must("volume", "prune", "-af")
	k.must("image", "prune", "-f")
	k.must("network", "create", "last") // which takes away a record that was half written
	k.must("network", "rm", "last")
	k.must("network", "prune", "-f")
	for line := range strings.Lines(k.must("images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}")) {
		name, id, _ := strings.Cut(strings.TrimSpace(line), " ")
		if strings.HasPrefix(name, "<none>") {
			name = id
		}
		if strings.HasPrefix(name, "round") || strings.HasPrefix(name, "127.0.0.1:5001/") || name == id {
			k.must("rmi", name)
		}
	}
	if text := k.must("volume", "ls", "-q"); text != "" {
		k.t.Errorf("volumes are left: %s", text)
	}
	k.must("fsck")
}

// halves lists files of commands that were killed while they wrote them: what -o names is there whole or not at all.
func (k *killer) halves() []string {
	var out []string
	entries, err := os.ReadDir(k.work)
	if err != nil {
		return []string{err.Error()}
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !strings.HasSuffix(e.Name(), ".save") {
			continue
		}
		res, err := k.state.host.Run(scaled(30e9), []string{"tar", "-tf", filepath.Join(k.work, e.Name())}, k.env, "/")
		if err != nil || res.Code != 0 {
			out = append(out, fmt.Sprintf("%s (%d bytes): %v %s", e.Name(), info.Size(), err, res.Stderr))
		}
	}
	return out
}
