package api

import (
	"context"
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"glassbox/container"
	"glassbox/engine"
	"glassbox/image"
)

// house is a server of an engine with an image (box), a container of it (made) that doesn't run, a network (net) and a volume (vol).
type house struct {
	*httptest.Server
	server *Server
	root   string
	id     string
}

func newHouse(t *testing.T) *house {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	h := &house{root: t.TempDir()}
	e, err := engine.Open(engine.Config{Root: filepath.Join(h.root, "root"), State: filepath.Join(h.root, "state"), Runtime: "/bin/true"})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if _, err := e.Images().FromHost(ctx, "box", image.FromHostOptions{Files: []string{"true"}}); err != nil {
		t.Fatal(err)
	}
	c, err := e.Create(ctx, engine.CreateOptions{Name: "made", Config: container.Config{Image: "box", Command: []string{"true"}}})
	if err != nil {
		t.Fatal(err)
	}
	h.id = c.ID
	if _, err := e.NetworkCreate(ctx, engine.NetworkOptions{Name: "net", Driver: "bridge", Subnets: []string{"10.99.0.0/24"}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.NetworkRemove(context.WithoutCancel(ctx), "net") })
	if _, _, err := e.CreateVolume(ctx, engine.VolumeOptions{Name: "vol"}); err != nil {
		t.Fatal(err)
	}
	h.server = New(Config{Engine: e})
	h.Server = httptest.NewServer(h.server)
	t.Cleanup(h.Close)
	return h
}

// ask sends a request and returns status and body.
func (h *house) ask(t *testing.T, method, path, body string, header ...string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, h.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp.StatusCode, string(text)
}

// files lists all that the engine has written down, but for locks.
func (h *house) files(t *testing.T) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(filepath.Join(h.root, "root"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !strings.Contains(path, "lock") {
			out = append(out, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// wrong is a request that can't be answered, the status that Docker gives it, and a word that its sentence has.
type wrong struct {
	method, path, body string
	status             int
	says               string
}

// created are bodies of POST /containers/create.
func created() []wrong {
	var out []wrong
	add := func(status int, says, body string) {
		out = append(out, wrong{"POST", "/containers/create", body, status, says})
	}
	host := func(status int, says, fields string) { add(status, says, `{"Image":"box","HostConfig":{`+fields+`}}`) }
	add(400, "JSON", `{`)
	add(400, "JSON", `[]`)
	add(400, "JSON", `{"Image":"box"`)
	add(400, "after JSON", `{"Image":"box"} {"Image":"box"}`)
	add(400, "image", `{}`)
	add(400, "image", `null`)
	add(400, "JSON", `{"Image":5}`)
	add(404, "No such image: nosuch", `{"Image":"nosuch"}`)
	add(400, "reference", `{"Image":"UPPER:x:y"}`)
	add(400, "JSON", `{"Image":"box","Cmd":5}`)
	add(400, "JSON", `{"Image":"box","Entrypoint":{"a":1}}`)
	add(400, "JSON", `{"Image":"box","Env":[1]}`)
	add(400, "environment", `{"Image":"box","Env":["=x"]}`)
	add(400, "JSON", `{"Image":"box","Labels":["a"]}`)
	add(400, "absolute", `{"Image":"box","WorkingDir":"rel"}`)
	add(400, "hostname", `{"Image":"box","Hostname":"a b"}`)
	add(400, "signal", `{"Image":"box","StopSignal":"WHAT"}`)
	add(400, "port", `{"Image":"box","ExposedPorts":{"http/tcp":{}}}`)
	add(400, "port", `{"Image":"box","ExposedPorts":{"70000/tcp":{}}}`)
	add(400, "80/what", `{"Image":"box","ExposedPorts":{"80/what":{}}}`)
	add(400, "health", `{"Image":"box","Healthcheck":{"Test":["WHAT"]}}`)
	add(400, "nterval", `{"Image":"box","Healthcheck":{"Test":["CMD","true"],"Interval":-1}}`)
	add(400, "JSON", `{"Image":"box","StopTimeout":"x"}`)
	add(400, "volume", `{"Image":"box","Volumes":{"/a:/b":{}}}`)
	host(400, "memory", `"Memory":-5`)
	host(400, "memory", `"Memory":1`)
	host(400, "memory", `"Memory":10000000,"MemorySwap":9000000`)
	host(400, "JSON", `"Memory":"64m"`)
	host(400, "cpus", `"NanoCpus":-1`)
	host(400, "cpu-period", `"CpuPeriod":5`)
	host(400, "cpuset", `"CpusetCpus":"x"`)
	host(400, "JSON", `"PidsLimit":"x"`)
	host(400, "SHM", `"ShmSize":-1`)
	host(400, "absolute", `"Binds":["/tmp:rel"]`)
	host(400, "absolute", `"Binds":["../x:/y"]`)
	host(400, "what", `"Binds":["/tmp:/x:what"]`)
	host(400, "/x", `"Binds":["/tmp:/x","/etc:/x"]`)
	host(400, "type", `"Mounts":[{"Type":"what","Target":"/x"}]`)
	host(400, "source", `"Mounts":[{"Type":"bind","Target":"/x"}]`)
	host(400, "/nosuch-xyz", `"Mounts":[{"Type":"bind","Source":"/nosuch-xyz","Target":"/x"}]`)
	host(400, "target", `"Mounts":[{"Type":"volume","Source":"v"}]`)
	host(400, "options of another type", `"Mounts":[{"Type":"bind","Source":"/tmp","Target":"/x","TmpfsOptions":{}}]`)
	host(400, "port", `"PortBindings":{"80/tcp":[{"HostPort":"x"}]}`)
	host(400, "port", `"PortBindings":{"80/tcp":[{"HostPort":"70000"}]}`)
	host(400, "JSON", `"PortBindings":{"80/tcp":[{"HostIp":"x"}]}`)
	host(404, "nosuch", `"NetworkMode":"nosuch"`)
	host(400, "capability", `"CapAdd":["NOSUCH"]`)
	host(501, "security-opt", `"SecurityOpt":["what=x"]`)
	host(400, "seccomp", `"SecurityOpt":["seccomp=/etc/profile.json"]`)
	host(400, "seccomp", `"SecurityOpt":["seccomp={\"syscalls\":5}"]`)
	host(400, "/dev/nosuch", `"Devices":[{"PathOnHost":"/dev/nosuch"}]`)
	host(400, "device", `"DeviceCgroupRules":["x"]`)
	host(400, "nosuch", `"Ulimits":[{"Name":"nosuch","Soft":1,"Hard":1}]`)
	host(400, "restart", `"RestartPolicy":{"Name":"sometimes"}`)
	host(400, "restart", `"RestartPolicy":{"Name":"always"},"AutoRemove":true`)
	host(400, "log", `"LogConfig":{"Type":"nosuch"}`)
	host(400, "nosuch", `"LogConfig":{"Type":"json-file","Config":{"nosuch":"1"}}`)
	host(400, "ipc", `"IpcMode":"x"`)
	host(400, "pid", `"PidMode":"x"`)
	host(400, "uts", `"UTSMode":"x"`)
	host(400, "cgroupns", `"CgroupnsMode":"x"`)
	host(400, "user namespace", `"UsernsMode":"x"`)
	host(400, "runtime", `"Runtime":"kata"`)
	host(400, "isolation", `"Isolation":"hyperv"`)
	host(400, "unknown option", `"StorageOpt":{"nix":"1G"}`)
	host(400, "links", `"Links":["a:b"]`)
	host(400, "capabilities", `"DeviceRequests":[{"Driver":"nvidia","Count":-1}]`)
	host(400, "JSON", `"Dns":["x"]`)
	host(400, "add-host", `"ExtraHosts":["x"]`)
	host(400, "oom-score-adj", `"OomScoreAdj":5000`)
	host(400, "blkio", `"BlkioWeight":5`)
	host(400, "tmpfs", `"Tmpfs":{"x":""}`)
	host(400, "plugin", `"VolumeDriver":"nfs"`)
	host(400, "No such container: nosuch", `"VolumesFrom":["nosuch"]`)
	add(400, "network-modes", `{"Image":"box","NetworkingConfig":{"EndpointsConfig":{"net":{"Aliases":["a"]},"none":{}}}}`)
	add(400, "JSON", `{"Image":"box","NetworkingConfig":{"EndpointsConfig":{"net":{"IPAMConfig":{"IPv4Address":"x"}}}}}`)
	return out
}

// others are requests of all other kinds.
func others() []wrong {
	return []wrong{
		{"GET", "/v1.23/info", "", 400, "too old"},
		{"GET", "/v1.58/info", "", 400, "too new"},
		{"GET", "/v2/info", "", 400, "version"},
		{"GET", "/nosuch", "", 404, "page not found"},
		{"PATCH", "/containers/made", "", 404, "page not found"},
		{"POST", "/containers/create?name=a%20b", `{"Image":"box"}`, 400, "name"},
		{"POST", "/containers/create?name=made", `{"Image":"box"}`, 409, "in use"},
		{"POST", "/containers/create?platform=what/is/this/not", `{"Image":"box"}`, 400, "platform"},
		{"GET", "/containers/json?filters=%7B", "", 400, "filter"},
		{"GET", "/containers/json?filters=%7B%22nosuch%22:%5B%22x%22%5D%7D", "", 400, "filter"},
		{"GET", "/containers/json?filters=%7B%22status%22:%5B%22x%22%5D%7D", "", 400, "filter"},
		{"GET", "/containers/json?limit=x", "", 400, "limit"},
		{"GET", "/containers/nosuch/json", "", 404, "No such container: nosuch"},
		{"GET", "/containers/made/logs", "", 400, "at least one stream"},
		{"GET", "/containers/made/logs?stdout=1&since=x", "", 400, "since"},
		{"GET", "/containers/nosuch/logs?stdout=1", "", 404, "No such container"},
		{"POST", "/containers/nosuch/start", "", 404, "No such container"},
		{"POST", "/containers/made/start", `{"Binds":["/:/host"]}`, 400, "non-empty"},
		{"POST", "/containers/made/start?checkpoint=x", "", 501, "checkpoint"},
		{"POST", "/containers/made/stop?t=x", "", 400, "t:"},
		{"POST", "/containers/made/kill", "", 409, "not running"},
		{"POST", "/containers/made/kill?signal=WHAT", "", 400, "signal"},
		{"POST", "/containers/made/resize?h=x&w=1", "", 400, "height"},
		{"POST", "/containers/made/resize?h=1&w=99999", "", 400, "width"},
		{"POST", "/containers/made/resize?h=1&w=1", "", 409, "not running"},
		{"POST", "/containers/made/update", "", 400, "JSON"},
		{"POST", "/containers/made/update", `{"Memory":-1}`, 400, "memory"},
		{"POST", "/containers/made/update", `{"RestartPolicy":{"Name":"x"}}`, 400, "restart"},
		{"POST", "/containers/made/rename?name=", "", 400, "empty"},
		{"POST", "/containers/made/rename?name=a%2Fb", "", 400, "name"},
		{"POST", "/containers/made/rename?name=made", "", 400, "same name"},
		{"POST", "/containers/made/pause", "", 409, "not running"},
		{"POST", "/containers/made/unpause", "", 409, "not"},
		{"POST", "/containers/made/exec", `{"Cmd":["true"]}`, 409, "not running"},
		{"POST", "/containers/made/exec", `{}`, 400, "command"},
		{"POST", "/containers/made/exec", `{"Cmd":["true"],"DetachKeys":"what"}`, 400, "detach keys"},
		{"POST", "/exec/nosuch/start", `{}`, 404, "No such exec instance"},
		{"GET", "/exec/nosuch/json", "", 404, "No such exec instance"},
		{"POST", "/exec/nosuch/resize?h=1&w=1", "", 404, "No such exec instance"},
		{"POST", "/containers/made/wait?condition=x", "", 400, "condition"},
		{"POST", "/containers/nosuch/attach?stream=1", "", 404, "No such container"},
		{"POST", "/containers/made/attach?detachKeys=what", "", 400, "detach keys"},
		{"GET", "/containers/made/attach/ws", "", 400, "websocket"},
		{"GET", "/containers/made/archive", "", 400, "path"},
		{"GET", "/containers/nosuch/archive?path=/", "", 404, "No such container"},
		{"PUT", "/containers/made/archive", "x", 400, "path"},
		{"DELETE", "/containers/nosuch", "", 404, "No such container"},
		{"DELETE", "/containers/made?link=1", "", 501, "links"},
		{"GET", "/containers/made/top", "", 409, "not running"},
		{"POST", "/containers/prune?filters=%7B%22what%22:%5B%22x%22%5D%7D", "", 400, "filter"},
		{"GET", "/containers/made/stats?stream=true&one-shot=true", "", 400, "one-shot"},
		{"GET", "/images/nosuch/json", "", 404, "No such image"},
		{"GET", "/images/box/what", "", 404, "page not found"},
		{"GET", "/images/box/json?platform=%7B", "", 400, "platform"},
		{"POST", "/images/box/tag?repo=UPPER", "", 400, "reference"},
		{"POST", "/images/box/tag", "", 400, "name"},
		{"POST", "/images/nosuch/tag?repo=x", "", 404, "No such image"},
		{"DELETE", "/images/nosuch", "", 404, "No such image"},
		{"DELETE", "/images/box", "", 409, "made"},
		{"POST", "/images/create", "", 400, "fromImage"},
		{"POST", "/images/create?fromImage=UP:x:y", "", 400, "reference"},
		{"GET", "/images/search?term=x&limit=1000", "", 400, "Limit"},
		{"GET", "/images/get", "", 400, "names"},
		{"GET", "/images/nosuch/get", "", 404, "No such image"},
		{"POST", "/images/load", "no archive", 400, "archive"},
		{"POST", "/images/create?fromSrc=-", "no archive", 400, "archive"},
		{"POST", "/commit?container=nosuch", "", 404, "No such container"},
		{"POST", "/commit?container=made&changes=WHAT", "", 400, "WHAT"},
		{"POST", "/networks/create", `{}`, 400, "name"},
		{"POST", "/networks/create", `{"Name":"net"}`, 409, "already exists"},
		{"POST", "/networks/create", `{"Name":"x1","IPAM":{"Config":[{"Subnet":"x"}]}}`, 400, "subnet"},
		{"POST", "/networks/create", `{"Name":"x1","IPAM":{"Driver":"what"}}`, 400, "IPAM"},
		{"POST", "/networks/create", `{"Name":"x1","Driver":"overlay"}`, 403, "swarm"},
		{"POST", "/networks/create", `{"Name":"x1","Driver":"what"}`, 400, "driver"},
		{"POST", "/networks/create", `{"Name":"x1","ConfigOnly":true}`, 400, "configuration"},
		{"GET", "/networks/nosuch", "", 404, "not found"},
		{"GET", "/networks?filters=%7B%22what%22:%5B%22x%22%5D%7D", "", 400, "filter"},
		{"DELETE", "/networks/bridge", "", 403, "bridge"},
		{"DELETE", "/networks/nosuch", "", 404, "not found"},
		{"POST", "/networks/net/connect", `{}`, 400, "container"},
		{"POST", "/networks/net/connect", `{"Container":"nosuch"}`, 404, "No such container"},
		{"POST", "/networks/net/disconnect", `{"Container":"nosuch"}`, 404, "No such container"},
		{"POST", "/volumes/create", `{"Name":"a/b"}`, 400, "name"},
		{"POST", "/volumes/create", `{"Name":"x","Driver":"nfs"}`, 404, "plugin"},
		{"GET", "/volumes/nosuch", "", 404, "no such volume"},
		{"DELETE", "/volumes/nosuch", "", 404, "no such volume"},
		{"POST", "/volumes/prune?filters=%7B%22what%22:%5B%22x%22%5D%7D", "", 400, "filter"},
		{"GET", "/system/df?type=what", "", 400, "type"},
		{"GET", "/events?filters=%7B%22what%22:%5B%22x%22%5D%7D&until=1", "", 400, "filter"},
		{"GET", "/events?since=2&until=1", "", 400, "since"},
		{"POST", "/auth", `{`, 400, "JSON"},
		{"POST", "/auth", `{"username":"a"}`, 400, "password"},
		{"POST", "/build", "", 501, "builder"},
		{"POST", "/session", "", 501, "builder"},
		{"POST", "/swarm/init", `{}`, 501, "swarm"},
		{"POST", "/swarm/leave?force=1", "", 503, "not part of a swarm"},
		{"GET", "/nodes", "", 503, "swarm manager"},
		{"GET", "/secrets/x", "", 503, "swarm manager"},
		{"POST", "/plugins/pull?remote=x", "", 501, "plugins"},
		{"GET", "/plugins/x/json", "", 404, "not found"},
	}
}

// TestWrong sends requests that mean nothing, or can't be done: each gets Docker's status and form and a sentence, and nothing is changed.
func TestWrong(t *testing.T) {
	h := newHouse(t)
	before := h.files(t)
	for _, w := range append(created(), others()...) {
		code, text := h.ask(t, w.method, w.path, w.body)
		var answer struct{ Message string }
		if err := json.Unmarshal([]byte(text), &answer); err != nil || answer.Message == "" {
			t.Errorf("%s %s %s: status %d, no message: %q", w.method, w.path, w.body, code, text)
			continue
		}
		if code != w.status || !strings.Contains(answer.Message, w.says) {
			t.Errorf("%s %s %s:\ngot  %d %s\nwant %d … %s …", w.method, w.path, w.body, code, answer.Message, w.status, w.says)
		}
		if strings.Contains(answer.Message, "panic") || strings.Contains(answer.Message, "goroutine") {
			t.Errorf("%s %s: %s", w.method, w.path, answer.Message)
		}
	}
	if code, text := h.ask(t, "POST", "/containers/create", `{"Image":"box"}`, "Content-Type", "text/plain"); code != 400 {
		t.Errorf("wrong Content-Type: %d %s", code, text)
	}
	if code, text := h.ask(t, "POST", "/images/create?fromImage=x", "", "X-Registry-Auth", "%%%"); code != 400 {
		t.Errorf("wrong X-Registry-Auth: %d %s", code, text)
	}
	if code, text := h.ask(t, "POST", "/containers/create", `{"Image":"`+strings.Repeat("x", maxBody)+`"}`); code != 413 {
		t.Errorf("a large body: %d %.100s", code, text)
	}
	if after := h.files(t); !slices.Equal(before, after) {
		t.Errorf("files have changed:\nbefore %d\nafter  %d: %v", len(before), len(after), difference(before, after))
	}
}

func difference(a, b []string) (out []string) {
	for _, s := range b {
		if !slices.Contains(a, s) {
			out = append(out, "+"+s)
		}
	}
	for _, s := range a {
		if !slices.Contains(b, s) {
			out = append(out, "-"+s)
		}
	}
	return out
}

// TestHabits: what clients send without wanting anything by it is taken, and fields that Docker doesn't know are passed over.
func TestHabits(t *testing.T) {
	h := newHouse(t)
	for _, body := range []string{
		`{"Image":"box","HostConfig":{"Privileged":false,"CapAdd":null,"CapDrop":[],"Binds":[],"Links":null,"PortBindings":{},"Memory":0}}`,
		`{"Image":"box","Entrypoint":"true","Cmd":"a"}`,
		`{"Image":"box","Entrypoint":[""],"Cmd":["true"],"NewField":{"x":1},"HostConfig":{"AnotherField":[1]}}`,
		`{"Image":"box","HostConfig":{"NetworkMode":"default","RestartPolicy":{"Name":"","MaximumRetryCount":0},"MemorySwappiness":-1}}`,
		`{"Image":"box","HostConfig":null,"NetworkingConfig":null,"Healthcheck":{}}`,
		`{"Image":"box","HostConfig":{"ConsoleSize":[0,0],"OomKillDisable":false,"PidsLimit":0,"Init":false,"ShmSize":0,"Runtime":"runc"}}`,
		`{"Image":"box","NetworkingConfig":{"EndpointsConfig":{"net":{"Aliases":["a"],"IPAMConfig":{}}}},"HostConfig":{"NetworkMode":"net"}}`,
	} {
		if code, text := h.ask(t, "POST", "/containers/create", body); code != 201 {
			t.Errorf("%s: %d %s", body, code, text)
		}
	}
}
