package explain

import (
	"encoding/csv"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
)

// service is a compose file's service that is made of the flags of `run`, by which a container was made: its volumes stay volumes, and its
// networks networks, which the plan that they have become doesn't say any more. Keys as in the Compose Specification,
// https://github.com/compose-spec/compose-spec/blob/main/05-services.md.
type service struct {
	keys   []string            // in the order in which they came
	scalar map[string]string   // in YAML
	lists  map[string][]string // words
	maps   map[string][]string // lines of a mapping below the key

	volumes, networks []string // those that are to be there
	unsaid            []string
}

// composeKinds are how a flag is written that compose has in the same words under another name.
type composeKind int

const (
	composeList composeKind = iota
	composeText
	composeNumber
	composeSwitch
)

type composeKey struct {
	key  string
	kind composeKind
}

// composeKeys are those flags.
func composeKeys() map[string]composeKey {
	return map[string]composeKey{
		"add-host": {"extra_hosts", composeList}, "annotation": {"annotations", composeList}, "cap-add": {"cap_add", composeList},
		"cap-drop": {"cap_drop", composeList}, "device": {"devices", composeList}, "device-cgroup-rule": {"device_cgroup_rules", composeList},
		"dns": {"dns", composeList}, "dns-option": {"dns_opt", composeList}, "dns-search": {"dns_search", composeList},
		"env": {"environment", composeList}, "expose": {"expose", composeList}, "group-add": {"group_add", composeList},
		"label": {"labels", composeList}, "publish": {"ports", composeList}, "security-opt": {"security_opt", composeList},
		"sysctl": {"sysctls", composeList}, "tmpfs": {"tmpfs", composeList},

		"cgroup-parent": {"cgroup_parent", composeText}, "cgroupns": {"cgroup", composeText}, "cpuset-cpus": {"cpuset", composeText},
		"domainname": {"domainname", composeText}, "hostname": {"hostname", composeText}, "ipc": {"ipc", composeText},
		"memory": {"mem_limit", composeText}, "memory-reservation": {"mem_reservation", composeText},
		"memory-swap": {"memswap_limit", composeText}, "name": {"container_name", composeText}, "pid": {"pid", composeText},
		"platform": {"platform", composeText}, "restart": {"restart", composeText}, "shm-size": {"shm_size", composeText},
		"stop-signal": {"stop_signal", composeText}, "user": {"user", composeText}, "uts": {"uts", composeText},
		"workdir": {"working_dir", composeText},

		"cpu-period": {"cpu_period", composeNumber}, "cpu-quota": {"cpu_quota", composeNumber}, "cpu-rt-period": {"cpu_rt_period", composeNumber},
		"cpu-rt-runtime": {"cpu_rt_runtime", composeNumber}, "cpu-shares": {"cpu_shares", composeNumber}, "cpus": {"cpus", composeNumber},
		"memory-swappiness": {"mem_swappiness", composeNumber}, "oom-score-adj": {"oom_score_adj", composeNumber},
		"pids-limit": {"pids_limit", composeNumber},

		"init": {"init", composeSwitch}, "interactive": {"stdin_open", composeSwitch}, "oom-kill-disable": {"oom_kill_disable", composeSwitch},
		"privileged": {"privileged", composeSwitch}, "read-only": {"read_only", composeSwitch}, "tty": {"tty", composeSwitch},
	}
}

func (s *service) see(key string) {
	if !slices.Contains(s.keys, key) {
		s.keys = append(s.keys, key)
	}
}

func (s *service) set(key, value string) {
	s.see(key)
	s.scalar[key] = value
}

func (s *service) append(key, word string) {
	s.see(key)
	s.lists[key] = append(s.lists[key], word)
}

func (s *service) line(key, line string) {
	s.see(key)
	s.maps[key] = append(s.maps[key], line)
}

// composeService reads the flags.
func composeService(a About) *service {
	s := &service{scalar: map[string]string{}, lists: map[string][]string{}, maps: map[string][]string{}}
	s.set("image", yaml(or(a.Image, "IMAGE")))
	var first endpointWords // what flags of their own say of the first network
	var networks []string
	logged := false
	keys := composeKeys()
	for _, flag := range a.Flags {
		name, value, given := strings.Cut(strings.TrimPrefix(flag, "--"), "=")
		same, known := keys[name]
		switch {
		case known && same.kind == composeList:
			s.append(same.key, value)
		case known && same.kind == composeText && !strings.HasPrefix(value, "on-unhealthy"):
			s.set(same.key, yaml(value))
		case known && same.kind == composeNumber:
			s.set(same.key, yamlNumber(value))
		case known && same.kind == composeSwitch:
			s.set(same.key, strconv.FormatBool(!given || value == "true"))
		case s.more(name, value), first.take(name, value):
		case name == "network":
			networks = append(networks, value)
		case name == "log-opt":
			key, text, _ := strings.Cut(value, "=")
			if !logged {
				s.line("logging", "options:")
			}
			logged = true
			s.line("logging", "  "+yaml(key)+": "+yaml(text))
		case name == "detach":
		default:
			s.unsaid = append(s.unsaid, flag)
		}
	}
	s.wire(networks, first)
	for _, word := range a.Command {
		s.append("command", word)
	}
	return s
}

// more takes the flags that are a part of a key, or have a form of their own there.
func (s *service) more(name, value string) bool {
	switch name {
	case "entrypoint":
		s.set("entrypoint", "[]")
		if value != "" {
			s.set("entrypoint", yamlList([]string{value}))
		}
	case "stop-timeout":
		s.set("stop_grace_period", yaml(value+"s"))
	case "health-cmd":
		s.line("healthcheck", "test: "+yamlList([]string{"CMD-SHELL", value}))
	case "no-healthcheck":
		s.line("healthcheck", "disable: true")
	case "health-interval", "health-timeout", "health-start-period", "health-start-interval":
		s.line("healthcheck", strings.ReplaceAll(strings.TrimPrefix(name, "health-"), "-", "_")+": "+yaml(value))
	case "health-retries":
		s.line("healthcheck", "retries: "+yamlNumber(value))
	case "log-driver":
		s.line("logging", "driver: "+yaml(value))
	case "ulimit":
		limit, values, _ := strings.Cut(value, "=")
		soft, hard, ok := strings.Cut(values, ":")
		if !ok {
			hard = soft
		}
		s.line("ulimits", yaml(limit)+": {soft: "+yamlNumber(soft)+", hard: "+yamlNumber(hard)+"}")
	case "volume":
		s.append("volumes", value)
		source, _, ok := strings.Cut(value, ":")
		if ok && !strings.HasPrefix(source, "/") {
			s.volumes = append(s.volumes, source)
		}
	case "volumes-from":
		s.append("volumes_from", "container:"+value)
	case "mount":
		return s.mount(value)
	case "blkio-weight":
		s.line("blkio_config", "weight: "+yamlNumber(value))
	default:
		return false
	}
	return true
}

// mount writes --mount in the long form. What it has no words for leaves the flag as it is.
func (s *service) mount(value string) bool {
	words, err := csv.NewReader(strings.NewReader(value)).Read()
	if err != nil {
		return false
	}
	at := map[string]string{}
	for _, w := range words {
		key, text, ok := strings.Cut(w, "=")
		if !ok {
			text = "true"
		}
		at[key] = text
	}
	take := func(names ...string) (text string) {
		for _, n := range names {
			if v, ok := at[n]; ok {
				text = v
				delete(at, n)
			}
		}
		return text
	}
	kind := or(take("type"), "volume")
	source, target := take("source", "src"), take("target", "destination", "dst")
	line := "{type: " + yaml(kind)
	if source != "" {
		line += ", source: " + yaml(source)
	}
	line += ", target: " + yaml(target)
	if on := take("readonly", "ro"); on == "true" || on == "1" {
		line += ", read_only: true"
	}
	var of []string
	for _, o := range []struct {
		kind, flag, key string
		number          bool
	}{
		{"bind", "bind-propagation", "propagation", false},
		{"bind", "bind-recursive", "recursive", false},
		{"volume", "volume-nocopy", "nocopy", true},
		{"volume", "volume-subpath", "subpath", false},
		{"image", "image-subpath", "subpath", false},
		{"tmpfs", "tmpfs-size", "size", false},
		{"tmpfs", "tmpfs-mode", "mode", true},
	} {
		if v := take(o.flag); v != "" && o.kind == kind {
			switch {
			case o.key == "mode":
				v = "0" + v // octal in YAML, too
			case !o.number:
				v = yaml(v)
			}
			of = append(of, o.key+": "+v)
		}
	}
	if len(at) > 0 {
		return false
	}
	if len(of) > 0 {
		line += ", " + kind + ": {" + strings.Join(of, ", ") + "}"
	}
	s.line("volumes", "- "+line+"}")
	if kind == "volume" && source != "" {
		s.volumes = append(s.volumes, source)
	}
	return true
}

// endpointWords are flags about the first network.
type endpointWords struct {
	aliases, linkLocal []string
	ip, ip6, mac       string
}

func (e *endpointWords) take(name, value string) bool {
	switch name {
	case "network-alias":
		e.aliases = append(e.aliases, value)
	case "link-local-ip":
		e.linkLocal = append(e.linkLocal, value)
	case "ip":
		e.ip = value
	case "ip6":
		e.ip6 = value
	case "mac-address":
		e.mac = value
	default:
		return false
	}
	return true
}

// wire writes the networks. Without any compose would make one of its own.
func (s *service) wire(networks []string, first endpointWords) {
	if len(networks) == 0 {
		networks = []string{"bridge"}
	}
	if mode := networks[0]; len(networks) == 1 && first.aliases == nil && first.linkLocal == nil && first.ip+first.ip6 == "" &&
		(slices.Contains([]string{"bridge", "none", "host"}, mode) || strings.HasPrefix(mode, "container:")) {
		s.set("network_mode", yaml(mode))
		if first.mac != "" {
			s.set("mac_address", yaml(first.mac))
		}
		return
	}
	for i, text := range networks {
		var e endpointWords
		if i == 0 {
			e = first
		}
		name, priority := text, ""
		var options []string
		if words, err := csv.NewReader(strings.NewReader(text)).Read(); err == nil && strings.Contains(text, "=") {
			for _, w := range words {
				key, value, _ := strings.Cut(w, "=")
				switch key {
				case "name":
					name = value
				case "alias":
					e.aliases = append(e.aliases, value)
				case "gw-priority":
					priority = value
				case "driver-opt":
					k, v, _ := strings.Cut(value, "=")
					options = append(options, yaml(k)+": "+yaml(v))
				default:
					if !e.take(key, value) {
						s.unsaid = append(s.unsaid, "--network="+text)
					}
				}
			}
		}
		s.networks = append(s.networks, name)
		var parts []string
		add := func(key, value string) {
			if value != "" {
				parts = append(parts, key+": "+value)
			}
		}
		text := func(s string) string {
			if s == "" {
				return ""
			}
			return yaml(s)
		}
		if len(e.aliases) > 0 {
			add("aliases", yamlList(e.aliases))
		}
		add("ipv4_address", text(e.ip))
		add("ipv6_address", text(e.ip6))
		if len(e.linkLocal) > 0 {
			add("link_local_ips", yamlList(e.linkLocal))
		}
		add("mac_address", text(e.mac))
		if priority != "" {
			add("gw_priority", yamlNumber(priority))
		}
		if len(options) > 0 {
			add("driver_opts", "{"+strings.Join(options, ", ")+"}")
		}
		s.line("networks", yaml(name)+": {"+strings.Join(parts, ", ")+"}")
	}
}

// yamlNumber is a number, or else a text.
func yamlNumber(s string) string {
	if _, err := strconv.ParseFloat(s, 64); err != nil || strings.Trim(s, "-.0123456789") != "" {
		return yaml(s)
	}
	return s
}

// write writes the file.
func (s *service) write(w io.Writer, a About) error {
	t := &script{w: w}
	t.opening("compose", a, s.unsaid)
	// Compose looks for variables in every value, wherever it stands.
	line := func(text string) { t.line("%s", strings.ReplaceAll(text, "$", "$$")) }
	t.line("services:")
	line("  " + yaml(or(a.Name, path.Base(or(a.Image, "container")))) + ":")
	for _, key := range s.keys {
		switch {
		case s.scalar[key] != "":
			line("    " + key + ": " + s.scalar[key])
		case len(s.maps[key]) > 0: // mounts stand beside volumes, as elements of one list
			line("    " + key + ":")
			for _, word := range s.lists[key] {
				line("      - " + yaml(word))
			}
			for _, text := range s.maps[key] {
				line("      " + text)
			}
		default:
			line("    " + key + ": " + yamlList(s.lists[key]))
		}
	}
	for _, top := range []struct {
		key   string
		names []string
	}{{"volumes", s.volumes}, {"networks", s.networks}} {
		slices.Sort(top.names)
		for i, name := range slices.Compact(top.names) {
			if i == 0 {
				t.line("%s:", top.key)
			}
			line("  " + yaml(name) + ": {name: " + yaml(name) + ", external: true}")
		}
	}
	return t.err
}
