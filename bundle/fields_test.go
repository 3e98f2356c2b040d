package bundle

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"glassbox/compile"
	"glassbox/host"
	"glassbox/oci"
	"glassbox/plan"
	"glassbox/test/leaves"
)

var update = flag.Bool("update", false, "write the table of properties into docs/conformance.md")

// fieldFacts are a host that has everything that a property can want.
func fieldFacts(mode string) *host.Facts {
	f := &host.Facts{
		Kernel: host.Kernel{Release: "6.18.0", Major: 6, Minor: 18}, Arch: "amd64", Caps: 1<<41 - 1, LastCap: 40, NoFile: [2]uint64{1024, 524288},
		Seccomp: true, CPUs: 4, Memory: 8 << 30, LSM: []string{"apparmor", "selinux"},
		Resctrl: &host.Resctrl{Mount: "/sys/fs/resctrl", Classes: []string{"one", "two"}, Resources: []string{"L3", "MB"}, Monitoring: true},
	}
	if mode == host.CgroupV2 {
		f.Cgroup = host.Cgroup{Mode: mode, Hierarchies: []host.Hierarchy{{
			Mount: "/sys/fs/cgroup", V2: true, Own: "/", Controllers: []string{"cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc"},
			Files: []string{"memory.swap.max", "io.weight", "io.bfq.weight"},
		}}}
		return f
	}
	f.Cgroup = host.Cgroup{Mode: mode, CpusetCpus: "0-3", CpusetMems: "0"}
	for _, name := range []string{
		"cpuset", "cpu", "cpuacct", "blkio", "memory", "devices", "freezer", "net_cls", "net_prio", "hugetlb",
		"pids", "rdma", "name=systemd",
	} {
		f.Cgroup.Hierarchies = append(f.Cgroup.Hierarchies, host.Hierarchy{
			Mount: "/sys/fs/cgroup/" + name, Controllers: []string{name}, Own: "/",
			Files: []string{
				"memory.memsw.limit_in_bytes", "memory.kmem.tcp.limit_in_bytes", "blkio.weight", "blkio.bfq.weight",
				"cpu.cfs_quota_us", "cpu.cfs_burst_us", "cpu.rt_runtime_us", "cpu.idle",
			},
		})
	}
	return f
}

const fieldBase = `{"ociVersion": "1.2.0", "root": {"path": "rootfs"},
	"process": {"cwd": "/", "args": ["sh"], "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}},
	"mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
	"linux": {"cgroupsPath": "/f", "namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "uts"}, {"type": "ipc"}, {"type": "network"}]}}`

// A fieldCase says what a property is set to, and beside what it means something.
type fieldCase struct {
	value any
	with  string // JSON laid over fieldBase, before and after
	as    string // the pointer, where x stands for a name that matters
}

// fieldCases are by pointer; some stand for all that begin with them.
func fieldCases() map[string]fieldCase {
	process := func(s string) string { return `{"process": {` + s + `}}` }
	linux := func(s string) string { return `{"linux": {` + s + `}}` }
	resources := func(s string) string { return linux(`"resources": {` + s + `}`) }
	namespaces := func(first, more string) string {
		return linux(`"namespaces": [` + first + `{"type": "mount"}, {"type": "pid"}, {"type": "uts"}, {"type": "ipc"}, {"type": "network"}]` +
			more)
	}
	users := namespaces(`{"type": "user"}, `, `, "uidMappings": [{"containerID": 10, "hostID": 200000, "size": 5}, {"containerID": 0,
		"hostID": 100000, "size": 10}],
		"gidMappings": [{"containerID": 10, "hostID": 200000, "size": 5}, {"containerID": 0, "hostID": 100000, "size": 10}]`)
	mount := `{"mounts": [{"destination": "/d", "type": "tmpfs", "source": "tmpfs"}]}`
	mapped := `{"mounts": [{"destination": "/d", "type": "bind", "source": "/s", "options": ["bind"],
		"uidMappings": [{"containerID": 0, "hostID": 1000, "size": 5}], "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 5}]}]}`
	capabilities := process(`"capabilities": {"bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"], "inheritable": ["CAP_KILL"]}`)
	deadline := process(`"scheduler": {"policy": "SCHED_DEADLINE", "runtime": 2000, "deadline": 4000, "period": 8000}`)
	rlimits := process(`"rlimits": [{"type": "RLIMIT_CORE", "soft": 2, "hard": 9}]`)
	rule := resources(`"devices": [{"allow": true, "type": "c", "major": 10, "minor": 200, "access": "rwm"}]`)
	device := linux(`"devices": [{"path": "/dev/x", "type": "c", "major": 10, "minor": 200}]`)
	weight := resources(`"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 100}]}`)
	seccomp := func(rest string) string {
		return linux(`"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"` + rest + `]}`)
	}
	notify := linux(`"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/l", "syscalls": [{"names": ["mkdir"], "action": ` +
		`"SCMP_ACT_NOTIFY"}]}`)
	compared := seccomp(`, "args": [{"index": 0, "value": 3, "valueTwo": 1, "op": "SCMP_CMP_MASKED_EQ"}]}`)
	class := linux(`"intelRdt": {"closID": "one"}`)
	memory := linux(`"memoryPolicy": {"mode": "MPOL_INTERLEAVE", "nodes": "0"}`)
	clocks := namespaces(`{"type": "time"}, `, `, "timeOffsets": {"boottime": {"secs": 1, "nanosecs": 1}}`)
	cases := map[string]fieldCase{
		"/ociVersion":                  {value: "1.1.0"},
		"/process/terminal":            {value: true},
		"/process/consoleSize":         {value: 20, with: process(`"terminal": true, "consoleSize": {"height": 10, "width": 10}`)},
		"/process/user/uid":            {value: 1000},
		"/process/user/gid":            {value: 1000},
		"/process/user/umask":          {value: 7},
		"/process/user/additionalGids": {value: 5},
		"/process/user/username":       {value: "x"},
		"/process/args":                {value: "ls"},
		"/process/commandLine":         {value: "x"},
		"/process/env":                 {value: "A=1"},
		"/process/cwd":                 {value: "/tmp"},

		"/process/capabilities/bounding":    {value: "CAP_CHOWN", with: capabilities},
		"/process/capabilities/effective":   {value: "CAP_KILL", with: capabilities},
		"/process/capabilities/inheritable": {value: "CAP_KILL", with: process(`"capabilities": {"bounding": ["CAP_KILL"]}`)},
		"/process/capabilities/permitted":   {value: "CAP_CHOWN", with: capabilities},
		"/process/capabilities/ambient":     {value: "CAP_KILL", with: capabilities},

		"/process/rlimits/0/type":      {value: "RLIMIT_AS", with: rlimits},
		"/process/rlimits/0/hard":      {value: 5, with: rlimits},
		"/process/rlimits/0/soft":      {value: 5, with: rlimits},
		"/process/noNewPrivileges":     {value: true},
		"/process/apparmorProfile":     {value: "p"},
		"/process/selinuxLabel":        {value: "u:r:t:s0"},
		"/process/oomScoreAdj":         {value: 5},
		"/process/execCPUAffinity":     {value: "1"},
		"/process/ioPriority/class":    {value: "IOPRIO_CLASS_IDLE", with: process(`"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 1}`)},
		"/process/ioPriority/priority": {value: 2, with: process(`"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 1}`)},

		"/process/scheduler/policy":   {value: "SCHED_BATCH", with: process(`"scheduler": {"policy": "SCHED_OTHER"}`)},
		"/process/scheduler/nice":     {value: 5, with: process(`"scheduler": {"policy": "SCHED_OTHER"}`)},
		"/process/scheduler/priority": {value: 5, with: process(`"scheduler": {"policy": "SCHED_RR", "priority": 1}`)},
		"/process/scheduler/flags":    {value: "SCHED_FLAG_RESET_ON_FORK", with: process(`"scheduler": {"policy": "SCHED_OTHER"}`)},
		"/process/scheduler/runtime":  {value: 3000, with: deadline},
		"/process/scheduler/deadline": {value: 5000, with: deadline},
		"/process/scheduler/period":   {value: 9000, with: deadline},

		"/root/path":            {value: "other"},
		"/root/readonly":        {value: true},
		"/hostname":             {value: "h"},
		"/domainname":           {value: "d"},
		"/mounts/0/destination": {value: "/e", with: mount},
		"/mounts/0/type":        {value: "ramfs", with: mount},
		"/mounts/0/source":      {value: "other", with: mount},
		"/mounts/0/options":     {value: "ro", with: mount},
		"/annotations/x":        {value: "v", as: "/annotations/org.example"},

		"/linux/sysctl/x":                   {value: "1", as: "/linux/sysctl/net.ipv4.ip_forward"},
		"/linux/resources/devices/0/allow":  {value: false, with: rule},
		"/linux/resources/devices/0/type":   {value: "b", with: rule},
		"/linux/resources/devices/0/major":  {value: 11, with: rule},
		"/linux/resources/devices/0/minor":  {value: 201, with: rule},
		"/linux/resources/devices/0/access": {value: "r", with: rule},

		"/linux/resources/memory/limit":             {value: 1 << 26},
		"/linux/resources/memory/reservation":       {value: 1 << 26},
		"/linux/resources/memory/swap":              {value: 1 << 27, with: resources(`"memory": {"limit": 67108864}`)},
		"/linux/resources/memory/kernel":            {value: 1 << 26},
		"/linux/resources/memory/kernelTCP":         {value: 1 << 26},
		"/linux/resources/memory/swappiness":        {value: 10},
		"/linux/resources/memory/disableOOMKiller":  {value: true},
		"/linux/resources/memory/useHierarchy":      {value: true},
		"/linux/resources/memory/checkBeforeUpdate": {value: true, with: resources(`"memory": {"limit": 67108864}`)},
		"/linux/resources/cpu/shares":               {value: 512},
		"/linux/resources/cpu/quota":                {value: 50000},
		"/linux/resources/cpu/burst":                {value: 5000, with: resources(`"cpu": {"quota": 50000}`)},
		"/linux/resources/cpu/period":               {value: 50000, with: resources(`"cpu": {"quota": 50000}`)},
		"/linux/resources/cpu/realtimeRuntime":      {value: 1000},
		"/linux/resources/cpu/realtimePeriod":       {value: 100000},
		"/linux/resources/cpu/cpus":                 {value: "0-1"},
		"/linux/resources/cpu/mems":                 {value: "0"},
		"/linux/resources/cpu/idle":                 {value: 1},
		"/linux/resources/pids/limit":               {value: 10},
		"/linux/resources/blockIO/weight":           {value: 200},
		"/linux/resources/blockIO/leafWeight":       {value: 200},

		"/linux/resources/blockIO/weightDevice/0/major":      {value: 9, with: weight},
		"/linux/resources/blockIO/weightDevice/0/minor":      {value: 9, with: weight},
		"/linux/resources/blockIO/weightDevice/0/weight":     {value: 200, with: weight},
		"/linux/resources/blockIO/weightDevice/0/leafWeight": {value: 200, with: weight},

		"/linux/resources/hugepageLimits/0/pageSize": {value: "1GB", with: resources(`"hugepageLimits": [{"pageSize": "2MB", "limit": 1}]`)},
		"/linux/resources/hugepageLimits/0/limit":    {value: 2, with: resources(`"hugepageLimits": [{"pageSize": "2MB", "limit": 1}]`)},
		"/linux/resources/network/classID":           {value: 5},
		"/linux/resources/network/priorities/0/name": {
			value: "eth1",
			with:  resources(`"network": {"priorities": [{"name": "eth0", "priority": 1}]}`),
		},
		"/linux/resources/network/priorities/0/priority": {
			value: 2,
			with:  resources(`"network": {"priorities": [{"name": "eth0", "priority": 1}]}`),
		},
		"/linux/resources/rdma/x/hcaHandles": {value: 5, as: "/linux/resources/rdma/mlx5_0/hcaHandles"},
		"/linux/resources/rdma/x/hcaObjects": {value: 5, as: "/linux/resources/rdma/mlx5_0/hcaObjects"},
		"/linux/resources/unified/x":         {value: "1000", as: "/linux/resources/unified/memory.high"},

		"/linux/cgroupsPath":        {value: "/g"},
		"/linux/namespaces/0/type":  {value: "time", with: namespaces(`{"type": "cgroup"}, `, ``)},
		"/linux/namespaces/0/path":  {value: "/proc/1/ns/time", with: namespaces(`{"type": "time"}, `, ``)},
		"/linux/devices/0/path":     {value: "/dev/y", with: device},
		"/linux/devices/0/type":     {value: "b", with: device},
		"/linux/devices/0/major":    {value: 11, with: device},
		"/linux/devices/0/minor":    {value: 201, with: device},
		"/linux/devices/0/fileMode": {value: 0o600, with: device},
		"/linux/devices/0/uid":      {value: 5, with: device},
		"/linux/devices/0/gid":      {value: 5, with: device},
		"/linux/netDevices/x/name":  {value: "e0", as: "/linux/netDevices/eth0/name", with: linux(`"netDevices": {"eth0": {}}`)},

		"/linux/seccomp/defaultAction": {value: "SCMP_ACT_LOG", with: seccomp(`}`)},
		"/linux/seccomp/defaultErrnoRet": {
			value: 5,
			with:  linux(`"seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ALLOW"}]}`),
		},
		"/linux/seccomp/architectures":              {value: "SCMP_ARCH_X86", with: seccomp(`}`)},
		"/linux/seccomp/flags":                      {value: "SECCOMP_FILTER_FLAG_LOG", with: seccomp(`}`)},
		"/linux/seccomp/listenerPath":               {value: "/m", with: notify},
		"/linux/seccomp/listenerMetadata":           {value: "m", with: notify},
		"/linux/seccomp/syscalls/0/names":           {value: "rmdir", with: seccomp(`}`)},
		"/linux/seccomp/syscalls/0/action":          {value: "SCMP_ACT_LOG", with: seccomp(`}`)},
		"/linux/seccomp/syscalls/0/errnoRet":        {value: 5, with: seccomp(`}`)},
		"/linux/seccomp/syscalls/0/args/0/index":    {value: 1, with: compared},
		"/linux/seccomp/syscalls/0/args/0/value":    {value: 7, with: compared},
		"/linux/seccomp/syscalls/0/args/0/valueTwo": {value: 2, with: compared},
		"/linux/seccomp/syscalls/0/args/0/op":       {value: "SCMP_CMP_EQ", with: compared},
		"/linux/rootfsPropagation":                  {value: "shared"},
		"/linux/maskedPaths":                        {value: "/proc/kcore"},
		"/linux/readonlyPaths":                      {value: "/proc/sys"},
		"/linux/mountLabel":                         {value: "u:r:t:s0", with: mount},
		"/linux/intelRdt/closID":                    {value: "two", with: class},
		"/linux/intelRdt/schemata":                  {value: "L3:0=f", with: class},
		"/linux/intelRdt/l3CacheSchema":             {value: "L3:0=f", with: class},
		"/linux/intelRdt/memBwSchema":               {value: "MB:0=50", with: class},
		"/linux/intelRdt/enableMonitoring":          {value: true, with: class},
		"/linux/memoryPolicy/mode":                  {value: "MPOL_BIND", with: memory},
		"/linux/memoryPolicy/nodes":                 {value: "0-1", with: memory},
		"/linux/memoryPolicy/flags":                 {value: "MPOL_F_STATIC_NODES", with: memory},
		"/linux/personality/domain":                 {value: "LINUX32", with: linux(`"personality": {"domain": "LINUX"}`)},
		"/linux/personality/flags":                  {value: "X", with: linux(`"personality": {"domain": "LINUX"}`)},
		"/linux/timeOffsets/x/secs":                 {value: 5, as: "/linux/timeOffsets/boottime/secs", with: clocks},
		"/linux/timeOffsets/x/nanosecs":             {value: 5, as: "/linux/timeOffsets/boottime/nanosecs", with: clocks},
		"/solaris":                                  {value: map[string]any{}}, "/windows": {value: map[string]any{}},
		"/vm":  {value: map[string]any{}},
		"/zos": {value: map[string]any{}}, "/freebsd": {value: map[string]any{}},
	}
	for _, kind := range []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"} {
		with := `{"hooks": {"` + kind + `": [{"path": "/h"}]}}`
		for field, value := range map[string]any{"path": "/g", "args": "a", "env": "A=1", "timeout": 5} {
			cases["/hooks/"+kind+"/0/"+field] = fieldCase{value: value, with: with}
		}
	}
	for _, list := range []string{"uidMappings", "gidMappings"} {
		for field, value := range map[string]any{"containerID": 20, "hostID": 300000, "size": 6} {
			cases["/linux/"+list+"/0/"+field] = fieldCase{value: value, with: users}
			cases["/mounts/0/"+list+"/0/"+field] = fieldCase{value: value, with: mapped}
		}
	}
	for _, list := range []string{"throttleReadBpsDevice", "throttleWriteBpsDevice", "throttleReadIOPSDevice", "throttleWriteIOPSDevice"} {
		with := resources(`"blockIO": {"` + list + `": [{"major": 8, "minor": 0, "rate": 1000}]}`)
		for field, value := range map[string]any{"major": 9, "minor": 9, "rate": 2000} {
			cases["/linux/resources/blockIO/"+list+"/0/"+field] = fieldCase{value: value, with: with}
		}
	}
	return cases
}

// merge lays one JSON object over another; lists are taken whole.
func merge(below, above any) any {
	a, ok1 := below.(map[string]any)
	b, ok2 := above.(map[string]any)
	if !ok1 || !ok2 {
		return above
	}
	out := maps.Clone(a)
	for k, v := range b {
		out[k] = merge(out[k], v)
	}
	return out
}

func decoded(t *testing.T, text string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}

// effects is all that comes of a configuration: the plan, what is remembered, hooks of later moments, and the plan of an exec.
func effects(config any, facts *host.Facts) (text string, warnings []string, err error) {
	data, err := json.Marshal(config)
	if err != nil {
		return "", nil, err
	}
	spec, problems, err := oci.Parse(data)
	if err == nil {
		var more []oci.Problem
		more, err = oci.Validate(spec)
		problems = append(problems, more...)
	}
	for _, p := range problems {
		warnings = append(warnings, p.Error())
	}
	if err != nil {
		return "", warnings, err
	}
	oci.Complete(spec, "/bundle")
	r := &Runtime{facts: facts, Warn: func(format string, a ...any) { warnings = append(warnings, fmt.Sprintf(format, a...)) }}
	in, err := r.input("f", "/bundle", spec)
	if err != nil {
		return "", warnings, err
	}
	creation(&in)
	in.StartDir = "/run/f/start"
	out, err := r.compile(in)
	if err != nil {
		return "", warnings, err
	}
	steps, err := out.Plan.MarshalJSON()
	if err != nil {
		return "", warnings, err
	}
	c := newRecord("f", in, out, out.Plan)
	c.Created, c.PID, c.Start = time.Time{}, 42, 4711
	state, err := c.hookState(Created, 1)
	if err != nil {
		return "", warnings, err
	}
	var later []*plan.Hook
	for _, kind := range []string{startContainer, poststart, poststop} {
		hooks, err := r.hooksOf(c, kind)
		if err != nil {
			return "", warnings, err
		}
		for _, h := range hooks {
			later = append(later, compile.Hook(kind, h, c.Bundle, kind == startContainer))
		}
	}
	hooks, err := json.Marshal(later)
	if err != nil {
		return "", warnings, err
	}
	exec, err := r.execInput(c, spec.Process, ExecOptions{})
	if err != nil {
		return "", warnings, err
	}
	further, err := compile.Exec(exec)
	if err != nil {
		return "", warnings, fmt.Errorf("exec: %w", err)
	}
	second, err := further.Plan.MarshalJSON()
	return strings.Join([]string{string(steps), string(c.text()), string(state), string(hooks), string(second)}, "\n"), warnings, err
}

// silent are the properties that have no effect and of which nobody is told, with the reason, as runc and crun do.
var silent = map[string]string{
	"/linux/resources/memory/useHierarchy":      "true is what Linux does since 5.11; false is told to be without effect",
	"/linux/resources/memory/checkBeforeUpdate": "it is for an update of the limit, and at the creation nothing is in use",
}

// outcome is what a table's cell says.
func outcome(t *testing.T, pointer string, c fieldCase, facts *host.Facts) string {
	t.Helper()
	before := merge(decoded(t, fieldBase), decoded(t, cmpOr(c.with, "{}")))
	plain, quiet, err := effects(before, facts)
	if err != nil {
		if p := (oci.Problem{}); errors.As(err, &p) || c.with != "" {
			return "refused: " + sentence(err) // what it stands beside is refused already
		}
		t.Fatalf("%s: without it: %v", pointer, err)
	}
	text, err := json.Marshal(before)
	if err != nil {
		t.Fatal(err)
	}
	after := leaves.Set(decoded(t, string(text)), cmpOr(c.as, pointer), c.value)
	changed, told, err := effects(after, facts)
	told = slices.DeleteFunc(told, func(w string) bool { return slices.Contains(quiet, w) })
	switch {
	case err != nil:
		return "refused: " + sentence(err)
	case changed != plain && len(told) > 0:
		return "works, and says: " + told[0]
	case changed != plain:
		return "works"
	case len(told) > 0:
		return "ignored, and says: " + told[0]
	case silent[pointer] != "":
		return "ignored: " + silent[pointer]
	}
	t.Errorf("%s: %v is ignored, and nobody is told", pointer, c.value)
	return ""
}

func cmpOr(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

// sentence is an error in a cell of a table.
func sentence(err error) string { return strings.ReplaceAll(err.Error(), "|", `\|`) }

// TestFields gives each property of the specification a value. It must change what happens, be refused, or be told to have no effect;
// what becomes of it is the table in docs/conformance.md.
func TestFields(t *testing.T) {
	cases := fieldCases()
	var rows []string
	used := map[string]bool{}
	leaves.Of(reflect.TypeFor[specs.Spec](), func(pointer string, _ reflect.Type, _ string) {
		at := pointer
		for ; at != "/" && at != "."; at = path.Dir(at) {
			if _, ok := cases[at]; ok {
				break
			}
		}
		c, ok := cases[at]
		if !ok {
			t.Errorf("%s: no case for it", pointer)
			return
		}
		used[at] = true
		v1 := outcome(t, pointer, c, fieldFacts(host.CgroupV1))
		v2 := outcome(t, pointer, c, fieldFacts(host.CgroupV2))
		if v1 == v2 {
			v2 = ""
		}
		rows = append(rows, fmt.Sprintf("| %s | %s | %s |", pointer, v1, v2))
	})
	for at := range cases {
		if !used[at] {
			t.Errorf("%s: the specification has no such property", at)
		}
	}
	const file, head = "../docs/conformance.md", "| property | what becomes of it | on cgroup v2, if that is another thing |\n|---|---|---|\n"
	doc, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	start, rest, ok := strings.Cut(string(doc), head)
	if !ok {
		t.Fatalf("%s has no table of properties", file)
	}
	end := strings.Index(rest, "\n\n")
	if want := strings.Join(rows, "\n"); rest[:max(end, 0)] != want {
		if *update && !t.Failed() {
			if err := os.WriteFile(file, []byte(start+head+want+rest[max(end, 0):]), 0o644); err != nil {
				t.Fatal(err)
			}
			return
		}
		have := strings.Split(rest[:max(end, 0)], "\n")
		for i, row := range rows {
			if i >= len(have) || have[i] != row {
				t.Fatalf("%s says otherwise, from here on: run go test -update and read what comes out: %s", file, row)
			}
		}
	}
}
