package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/container"
	"glassbox/docker"
	"glassbox/engine"
	"glassbox/policy"
)

// guardedHouse is a house with a socket that has a policy, and a project's directory that may be written to, and one that may be read.
func guardedHouse(t *testing.T) (h *house, project, docs string, decisions *bytes.Buffer) {
	t.Helper()
	h = newHouse(t)
	// What containers may write to is on a file system where what they leave there is of no use.
	inert := filepath.Join(h.root, "inert")
	if err := os.Mkdir(inert, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", inert, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(inert, unix.MNT_DETACH) })
	project, docs = filepath.Join(inert, "project"), filepath.Join(h.root, "docs")
	plain, mixed := filepath.Join(h.root, "plain"), filepath.Join(inert, "mixed")
	for _, dir := range []string{
		project, filepath.Join(project, "sub"), docs, filepath.Join(docs, "sub"), plain,
		filepath.Join(mixed, "below"),
	} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount(plain, filepath.Join(mixed, "below"), "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{
		filepath.Join(project, "out"): "/", filepath.Join(docs, "out"): "/etc", filepath.Join(h.root, "link"): "/",
	} {
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
	}
	p := &policy.Policy{
		Version: 1, Name: "agent", Images: []string{"box"}, Networks: []string{"bridge", "none"}, Publish: []string{"127.0.0.1"},
		Requests: policy.Kinds(), Tags: []string{"agent/*"},
		Paths: []policy.Path{
			{Path: project, Write: true}, {Path: docs}, {Path: plain, Write: true}, {Path: mixed, Write: true},
		},
		Limits: policy.Limits{Memory: 64 << 20, CPUs: 1, Pids: 100, Containers: 5},
	}
	decisions = &bytes.Buffer{}
	h.server = New(Config{Engine: h.server.engine, Policy: p, Decisions: decisions})
	h.Server.Close()
	h.Server = httptest.NewServer(h.server)
	t.Cleanup(h.Server.Close)
	return h, project, docs, decisions
}

// attempt is a request of a hostile client.
type attempt struct{ method, path, body string }

// attempts are containers that would get at the host.
func attempts(h *house, project, docs string) (all []attempt) {
	host := func(fields string) {
		all = append(all, attempt{"POST", "/containers/create", `{"Image":"box","HostConfig":{` + fields + `}}`})
	}
	bind := func(words string) { host(`"Binds":["` + words + `"]`) }
	mount := func(fields string) { host(`"Mounts":[{` + fields + `}]`) }
	// Paths of the host.
	bind("/:/host")
	bind("/etc:/x:ro")
	bind("/etc/shadow:/x:ro")
	bind(h.root + "/plain:/x")       // where a program of root's, or a device, would stay
	bind(h.root + "/inert/mixed:/x") // or below it
	bind("/proc:/x")
	bind("/sys:/x:ro")
	bind("/run:/x")
	bind("/dev:/x")
	bind("/var/run/docker.sock:/var/run/docker.sock")
	bind(h.root + "/root:/x")
	bind(h.root + "/link:/x:ro")     // a link to /
	bind(h.root + "/link/etc:/x:ro") // by way of one
	bind(project + "/out:/x:ro")     // a link that a container could make
	bind(project + "/sub:/x")        // which it could exchange for one
	bind(project + "/../docs:/x")    // by another spelling
	bind(docs + "/out:/x:ro")        // a link in what may be read
	bind(docs + ":/x")               // read only, and written to
	bind(docs + "/sub:/x:rw")        // below it
	bind(project + ":/x:rshared")    // mounts of which the host would see
	bind(project + ":/x:rslave")     // mounts of the host that would be seen
	bind(project + ":/x:Z")          // labels that would be changed
	bind(project + ":/x:idmap")      // whose files they are would be changed
	bind(h.root + "/project2:/x")    // a name that begins as an allowed one
	bind(h.root + "/new:/x")         // what isn't there would be made
	bind("vol:/x")                   // a volume of somebody else's
	host(`"VolumesFrom":["made"]`)   // mounts of somebody else's
	host(`"Tmpfs":{"/t":""},"Binds":["/root:/x"]`)
	mount(`"Type":"bind","Source":"/","Target":"/x","ReadOnly":true`)
	mount(`"type":"bind","source":"/","target":"/x"`) // in other letters
	mount(`"Type":"bind","Source":"` + docs + `","Target":"/x","ReadOnly":true,"BindOptions":{"ReadOnlyNonRecursive":true}`)
	mount(`"Type":"bind","Source":"` + h.root + `/new","Target":"/x","BindOptions":{"CreateMountpoint":true}`)
	mount(`"Type":"volume","Source":"v1","Target":"/x","VolumeOptions":{"DriverConfig":{"Options":{"type":"none","o":"bind","device":"/"}}}`)
	mount(`"Type":"volume","Source":"v1","Target":"/x","VolumeOptions":{"Labels":{"glassbox.policy":"other"}}`)
	mount(`"Type":"image","Source":"nosuch","Target":"/x"`)
	// Privileges, devices, namespaces, the kernel.
	host(`"Privileged":true`)
	host(`"privileged":true`)
	host(`"Privileged":false,"PRIVILEGED":true`)
	host(`"CapAdd":["SYS_ADMIN"]`)
	host(`"CapAdd":["ALL"]`)
	host(`"CapAdd":["cap_net_admin"]`)
	host(`"Devices":[{"PathOnHost":"/dev/null","PathInContainer":"/dev/sda","CgroupPermissions":"rwm"}]`)
	host(`"DeviceCgroupRules":["a *:* rwm"]`)
	host(`"DeviceRequests":[{"Count":-1,"Capabilities":[["gpu"]]}]`)
	host(`"SecurityOpt":["seccomp=unconfined"]`)
	host(`"SecurityOpt":["apparmor=unconfined"]`)
	host(`"SecurityOpt":["systempaths=unconfined"]`)
	host(`"MaskedPaths":[]`)
	host(`"ReadonlyPaths":[]`)
	host(`"MaskedPaths":["/proc/keys"]`)
	host(`"ReadonlyPaths":["/proc/sys"]`)
	host(`"SecurityOpt":["masked-paths="]`)
	host(`"SecurityOpt":["readonly-paths=/proc/bus"]`)
	host(`"PidMode":"host"`)
	host(`"PidMode":"container:made"`)
	host(`"IpcMode":"host"`)
	host(`"IpcMode":"container:made"`)
	host(`"UTSMode":"host"`)
	host(`"CgroupnsMode":"host"`)
	host(`"UsernsMode":"host","Privileged":true`)
	host(`"NetworkMode":"host"`)
	host(`"NetworkMode":"container:made"`)
	host(`"NetworkMode":"net"`)
	host(`"Sysctls":{"kernel.shm_rmid_forced":"1"}`)
	host(`"Sysctls":{"net.ipv4.ip_forward":"1"}`)
	host(`"CgroupParent":"/"`)
	host(`"GroupAdd":["0"]`)
	host(`"Runtime":"/bin/sh"`)
	host(`"ContainerIDFile":"/etc/x"`)
	host(`"Annotations":{"run.oci.hooks":"x"}`)
	host(`"Annotations":{"glassbox.policy":"other"}`)
	host(`"LogConfig":{"Type":"journald"}`)
	host(`"LogConfig":{"Type":"syslog","Config":{"syslog-address":"unix:///run/x"}}`)
	// Limits.
	host(`"Memory":1000000000`)
	host(`"Memory":60000000,"MemorySwap":-1`)
	host(`"NanoCpus":2000000000`)
	host(`"CpuQuota":1000000`)
	host(`"PidsLimit":-1`)
	host(`"PidsLimit":1000`)
	host(`"OomScoreAdj":-1000`)
	host(`"OomKillDisable":true`)
	host(`"CpuRealtimeRuntime":1000`)
	host(`"Ulimits":[{"Name":"memlock","Soft":-1,"Hard":-1}]`)
	// The network.
	host(`"PortBindings":{"80/tcp":[{"HostPort":"8080"}]}`)
	host(`"PortBindings":{"80/tcp":[{"HostIp":"192.0.2.2","HostPort":"8080"}]}`)
	host(`"PublishAllPorts":true`)
	all = append(all, attempt{"POST", "/containers/create", `{"Image":"box","Labels":{"glassbox.egress":"allow"}}`},
		attempt{"POST", "/containers/create", `{"Image":"box","Labels":{"glassbox.ingress":"0.0.0.0/0"}}`})
	return all
}

// more are requests of other kinds.
func more(h *house) (all []attempt) {
	add := func(method, path, body string) { all = append(all, attempt{method, path, body}) }
	add("POST", "/containers/create", `{"Image":"nosuch"}`)
	add("POST", "/v1.24/containers/create", `{"Image":"box","HostConfig":{"Privileged":true}}`)
	add("POST", "/containers/create", `{"Image":"box","HostConfig":{"NetworkMode":"bridge"},"NetworkingConfig":{"EndpointsConfig":{`+
		`"bridge":{"DriverOpts":{"com.docker.network.endpoint.sysctls":"net.ipv4.conf.IFNAME.forwarding=1"}}}}}`)
	// What is somebody else's: it isn't there.
	for _, ref := range []string{"made", h.id, h.id[:12]} {
		add("GET", "/containers/"+ref+"/json", "")
		add("POST", "/containers/"+ref+"/start", "")
		add("POST", "/containers/"+ref+"/exec", `{"Cmd":["true"]}`)
		add("DELETE", "/containers/"+ref+"?force=1", "")
	}
	add("GET", "/containers/made/archive?path=/etc", "")
	add("PUT", "/containers/made/archive?path=/", "x")
	add("POST", "/containers/made/update", `{"Memory":1}`)
	add("POST", "/containers/made/rename?name=x1", "")
	add("POST", "/containers/made/attach?stream=1", "")
	add("GET", "/volumes/vol", "")
	add("DELETE", "/volumes/vol?force=0", "")
	add("GET", "/networks/net", "")
	add("DELETE", "/networks/bridge", "")
	add("POST", "/networks/bridge/connect", `{"Container":"made"}`)
	add("POST", "/networks/net/connect", `{"Container":"made"}`)
	// What isn't among its requests, whatever it says.
	add("GET", "/containers/made/export", "")
	add("POST", "/containers/prune", "")
	add("POST", "/images/prune", "")
	add("POST", "/volumes/prune", "")
	add("POST", "/networks/prune", "")
	add("POST", "/commit?container=made&changes=USER%20root", "")
	add("POST", "/images/load", "x")
	add("POST", "/images/create?fromSrc=-", "x")
	add("POST", "/images/create?fromImage=nosuch&tag=1", "")
	add("POST", "/images/box/tag?repo=other", "")
	add("POST", "/images/box/push", "")
	add("DELETE", "/images/box", "")
	add("GET", "/images/get?names=box", "")
	add("GET", "/images/box/get", "")
	add("GET", "/system/df", "")
	add("POST", "/auth", `{"username":"a","password":"b"}`)
	add("POST", "/build?remote=file:///etc", "")
	add("POST", "/session", "")
	add("POST", "/grpc", "")
	add("POST", "/plugins/pull?remote=x", "")
	add("POST", "/swarm/init", "{}")
	add("POST", "/networks/create", `{"Name":"x1","Driver":"bridge","Options":{"com.docker.network.bridge.name":"eth0"}}`)
	add("POST", "/networks/create", `{"Name":"x1","Labels":{"glassbox.policy":"other"}}`)
	for _, subnet := range []string{"0.0.0.0/1", "8.8.8.0/24", "10.0.0.0/7", "169.254.169.0/24", "2000::/3", "::ffff:8.8.8.0/120"} {
		add("POST", "/networks/create", `{"Name":"x1","IPAM":{"Config":[{"Subnet":"`+subnet+`"}]}}`) // packets of the host
	}
	add("POST", "/images/create?fromImage=box&tag=other", "") // what is allowed is box, and not all of its tags
	add("POST", "/images/create?fromImage=box&tag=sha256:"+strings.Repeat("0", 64), "")
	add("POST", "/volumes/create", `{"Name":"x1","DriverOpts":{"type":"none","o":"bind","device":"/"}}`)
	add("POST", "/volumes/create", `{"Name":"x1","Labels":{"glassbox.policy":"other"}}`)
	add("POST", "/volumes/create", `{"Name":"vol"}`)
	return all
}

// TestHostile is a client that tries to get at the host, and at what others have: nothing of it is done, and each attempt is written down.
func TestHostile(t *testing.T) {
	h, project, docs, decisions := guardedHouse(t)
	all := append(attempts(h, project, docs), more(h)...)
	before := h.files(t)
	for _, a := range all {
		code, text := h.ask(t, a.method, a.path, a.body)
		if code < 400 || code >= 500 && code != 501 {
			t.Errorf("%s %s %s: %d %.300s", a.method, a.path, a.body, code, text)
		}
		if strings.Contains(text, "root:x:") {
			t.Errorf("%s %s: it tells a file of the host: %.100s", a.method, a.path, text)
		}
	}
	if len(all) < 60 {
		t.Errorf("only %d attempts", len(all))
	}
	if after := h.files(t); !slices.Equal(before, after) {
		t.Errorf("files have changed: %v", difference(before, after))
	}
	if n := strings.Count(decisions.String(), `"Decision":"refused"`); n < 80 {
		t.Errorf("%d refusals are written down", n)
	}
	if strings.Contains(decisions.String(), `"Decision":"allowed"`) {
		t.Errorf("something was allowed: %s", decisions.String())
	}
	for _, path := range []string{"/containers/json?all=1", "/volumes", "/images/json"} {
		if _, text := h.ask(t, "GET", path, ""); strings.Contains(text, h.id) || strings.Contains(text, `"vol"`) {
			t.Errorf("%s tells of others: %s", path, text)
		}
	}
	for _, path := range []string{"/networks", "/networks/"} {
		if _, text := h.ask(t, "GET", path, ""); strings.Contains(text, `"net"`) || !strings.Contains(text, `"bridge"`) {
			t.Errorf("%s: %s", path, text)
		}
	}
	n := docker.Network{Containers: map[string]docker.NetworkEndpoint{h.id: {Name: "made"}}}
	if h.server.hideOthers(t.Context(), &n); len(n.Containers) > 0 {
		t.Errorf("a network tells of others: %v", n.Containers)
	}
	path := fmt.Sprintf("/events?since=1&until=%d", time.Now().Unix())
	if _, text := h.ask(t, "GET", path, ""); strings.Contains(text, h.id) {
		t.Errorf("events tell of others: %s", text)
	}
}

// TestGuest is what the same socket is for: a container with the project's directory, limits put in, a network and a volume of its own.
func TestGuest(t *testing.T) {
	h, project, docs, decisions := guardedHouse(t)
	must := func(status int, method, path, body string) string {
		t.Helper()
		code, text := h.ask(t, method, path, body)
		if code != status {
			t.Fatalf("%s %s %s: %d %s", method, path, body, code, text)
		}
		return text
	}
	must(201, "POST", "/networks/create", `{"Name":"mine","IPAM":{"Config":[{"Subnet":"10.98.0.0/24"}]}}`)
	t.Cleanup(func() { h.server.engine.NetworkRemove(t.Context(), "mine") })
	must(201, "POST", "/volumes/create", `{"Name":"cache"}`)
	text := must(201, "POST", "/containers/create?name=guest", `{"Image":"box","Cmd":["true"],"HostConfig":{"Privileged":false,"CapAdd":null,`+
		`"Binds":["`+project+`:/src","`+docs+`/sub:/docs:ro","cache:/cache","made-here:/m"],"NetworkMode":"mine",`+
		`"PortBindings":{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":""}]}},"NetworkingConfig":{"EndpointsConfig":{"mine":{"Aliases":["a"]}}}}`)
	var made struct{ ID string }
	if err := json.Unmarshal([]byte(text), &made); err != nil {
		t.Fatal(err)
	}
	v, err := h.server.engine.Inspect(t.Context(), made.ID)
	if err != nil {
		t.Fatal(err)
	}
	c := v.HostConfig
	if c.Memory != 64<<20 || c.NanoCPUs != 1e9 || c.PidsLimit == nil || *c.PidsLimit != 100 {
		t.Errorf("limits: %d %d %v", c.Memory, c.NanoCPUs, c.PidsLimit)
	}
	for _, path := range []string{"/containers/guest/json", "/volumes/cache", "/volumes/made-here", "/networks/mine", "/images/box/json"} {
		must(200, "GET", path, "")
	}
	if text := must(200, "GET", "/containers/json?all=1", ""); !strings.Contains(text, made.ID) {
		t.Errorf("it isn't listed: %s", text)
	}
	must(200, "POST", "/containers/guest/update", `{"Memory":33554432,"MemorySwap":67108864}`)
	if code, text := h.ask(t, "POST", "/containers/guest/update", `{"Memory":1000000000,"MemorySwap":2000000000}`); code != 403 {
		t.Errorf("an update beyond the limits: %d %s", code, text)
	}
	// What means nothing by itself, and something with what the container has.
	for _, body := range []string{`{"MemorySwap":-1}`, `{"MemorySwap":-1,"PidsLimit":-1}`, `{"CpuRealtimeRuntime":950000}`} {
		if code, text := h.ask(t, "POST", "/containers/guest/update", body); code != 403 {
			t.Errorf("update %s: %d %s", body, code, text)
		}
	}
	// Columns without titles are read as another's: which processes are the container's would be told by what others have.
	if code, text := h.ask(t, "GET", "/containers/guest/top?ps_args=-e+-o+etimes%3D+-o+pid+-o+args", ""); code != 403 {
		t.Errorf("options of ps: %d %s", code, text)
	}
	if code, text := h.ask(t, "POST", "/containers/guest/exec", `{"Cmd":["true"],"Privileged":true}`); code != 403 {
		t.Errorf("a privileged exec: %d %s", code, text)
	}
	must(204, "POST", "/containers/guest/rename?name=guest2", "")
	must(204, "DELETE", "/containers/guest2", "")
	must(204, "DELETE", "/volumes/cache", "")
	must(204, "DELETE", "/networks/mine", "")
	if !strings.Contains(decisions.String(), `"Decision":"allowed","Method":"POST","Path":"/containers/create"`) {
		t.Errorf("got %s", decisions.String())
	}
	for range 5 {
		must(201, "POST", "/containers/create", `{"Image":"box"}`)
	}
	if code, text := h.ask(t, "POST", "/containers/create", `{"Image":"box"}`); code != 403 || !strings.Contains(text, "5 containers") {
		t.Errorf("a sixth container: %d %s", code, text)
	}
	// A container that somebody makes from an image with the mark among its labels isn't the socket's.
	other, err := h.server.engine.Create(t.Context(), engine.CreateOptions{
		Name: "others", Config: container.Config{Image: "box", Labels: map[string]string{policy.Annotation: "agent"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	must(404, "GET", "/containers/"+other.ID+"/json", "")
}

// TestExchanged: a path that was judged and is a link when it is mounted.
func TestExchanged(t *testing.T) {
	h, project, _, _ := guardedHouse(t)
	secret := filepath.Join(h.root, "secret")
	if err := os.Mkdir(secret, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(secret, "key"), []byte("of the host"), 0o600); err != nil {
		t.Fatal(err)
	}
	body := `{"Image":"box","Cmd":["true"],"HostConfig":{"Binds":["` + project + `:/src"]}}`
	if code, text := h.ask(t, "POST", "/containers/create?name=guest", body); code != 201 {
		t.Fatalf("create: %d %s", code, text)
	}
	if code, text := h.ask(t, "GET", "/containers/guest/archive?path=/src/sub", ""); code != 200 {
		t.Fatalf("before: %d %s", code, text)
	}
	if err := os.Rename(project, project+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, project); err != nil {
		t.Fatal(err)
	}
	if code, text := h.ask(t, "GET", "/containers/guest/archive?path=/src/key", ""); code < 400 || strings.Contains(text, "of the host") {
		t.Errorf("archive: %d %q", code, text)
	}
	if code, text := h.ask(t, "POST", "/containers/guest/start", ""); code < 400 {
		t.Errorf("start: %d %s", code, text)
	}
}

// TestEndpointsHaveKinds: an endpoint with a kind is one that there is.
func TestEndpointsHaveKinds(t *testing.T) {
	s := New(Config{})
	for pattern := range kinds() {
		method, path, _ := strings.Cut(pattern, " ")
		path = strings.NewReplacer("{id}", "x", "{name}", "x", "{rest...}", "x/json", "{$}", "").Replace(path)
		if _, got := s.mux.Handler(httptest.NewRequest(method, path, nil)); got != pattern {
			t.Errorf("%s: got %q", pattern, got)
		}
	}
}
