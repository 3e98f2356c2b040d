package explain

import (
	"path"
	"slices"
	"strings"
)

// An exposure is what it means to give a path of the host to a container.
type exposure struct {
	severity Severity
	why      string
	socket   bool // it is there to be talked to
}

// A place is a part of the host's file system, with what it means to read it and to write to it. What a container can connect to it
// can use through a read-only mount, too, so sockets have one severity for both.
type place struct {
	paths       []string // a component "*" stands for any one, ".*" for any with a dot first
	below       bool     // what lies below is as it is; otherwise the path alone
	read, write Severity
	whyRead     string
	whyWrite    string
	socket      bool // to connect is to write, whatever the mount says
	// named says that a directory around it isn't judged by it: it is there on some hosts only.
	named bool
}

// places are looked through in order: the first that a path lies in says what it is. What isn't named here holds plain data. A
// directory that one of these lies in is at least as bad as that one.
func places() []place {
	return slices.Concat(socketPlaces(), secretPlaces(), kernelPlaces(), etcPlaces(), programPlaces(), sessionPlaces(), statePlaces(),
		homePlaces())
}

func socketPlaces() []place {
	const engine = "who talks to that socket can start containers with all privileges, also through a read-only mount"
	const manager = "systemd and D-Bus start programs as the host's root for who may talk to them, also through a read-only mount"
	return []place{
		{socket: true, paths: []string{
			"/run/docker.sock", "/run/docker", "/run/containerd", "/run/crio", "/run/podman", "/run/buildkit", "/run/user/*/docker.sock",
			"/run/user/*/podman",
			"/run/libvirt", "/run/incus", "/run/lxd", "/run/snapd.socket", "/run/k3s", "/run/glassbox",
		}, below: true, read: Total, write: Total, whyRead: engine, whyWrite: engine},
		{
			socket: true, paths: []string{"/run/systemd/journal"}, below: true, read: Low, write: Low, whyRead: "the host's log is written there",
			whyWrite: "the host's log is written there",
		},
		{socket: true, paths: []string{"/run/systemd", "/run/dbus"}, below: true, read: Total, write: Total, whyRead: manager, whyWrite: manager},
	}
}

func sessionPlaces() []place {
	const session = "sockets of users' sessions: the keys, screens and programs of those users are in reach"
	return []place{
		{
			socket: true, paths: []string{"/run/user", "/run/screen", "/run/tmux"}, below: true, read: High, write: High, whyRead: session,
			whyWrite: session,
		},
		{socket: true, named: true, paths: []string{"/tmp/.X11-unix"}, below: true, read: High, write: High, whyRead: session, whyWrite: session},
	}
}

func secretPlaces() []place {
	const keys = "keys and passwords of the host lie there"
	const becoming = "who writes there decides who may become root of the host"
	secret := func(write Severity, why string, paths ...string) place {
		return place{paths: paths, below: true, read: High, write: write, whyRead: keys, whyWrite: why}
	}
	return []place{
		{
			paths: []string{"/etc/ssl/certs", "/etc/ca-certificates", "/etc/pki/ca-trust", "/etc/pki/tls/certs", "/etc/ca-certificates.conf"},
			below: true,
			read:  Low, write: High, whyRead: "public certificates", whyWrite: "who adds a certificate there is believed by the host's programs",
		},
		secret(Total, becoming, "/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/sudoers", "/etc/sudoers.d", "/etc/ssh",
			"/etc/krb5.keytab",
			"/etc/security", "/root/.ssh", "/etc/kubernetes", "/var/lib/kubelet", "/etc/rancher", "/var/backups"),
		secret(High, keys, "/etc/ssl/private", "/etc/pki", "/etc/letsencrypt", "/etc/wireguard", "/etc/openvpn", "/etc/ipsec.d",
			"/etc/NetworkManager/system-connections",
			"/etc/docker", "/etc/containers", "/var/lib/sss", "/var/lib/private", "/var/lib/etcd", "/var/lib/vault", "/var/lib/tpm"),
		{
			paths: []string{"/var/lib/docker/volumes/*", "/var/lib/containers/storage/volumes/*", "/var/lib/glassbox/volumes/*"}, below: true,
			read: Low, write: Low,
			whyRead: "a volume", whyWrite: "a volume: what it writes there stays",
		},
		{
			paths: []string{
				"/var/lib/docker", "/var/lib/containerd", "/var/lib/containers", "/var/lib/glassbox", "/var/lib/libvirt", "/var/lib/lxd",
				"/var/lib/incus",
			}, below: true,
			read: High, write: Total, whyRead: "the files of all containers and machines are there",
			whyWrite: "the programs of all containers and machines are there",
		},
		secret(High, "who writes there acts as that user, or is let in as that user", "/home/*/.ssh", "/home/*/.gnupg", "/home/*/.aws",
			"/home/*/.azure", "/home/*/.kube",
			"/home/*/.docker", "/home/*/.config/gcloud", "/home/*/.netrc", "/home/*/.git-credentials", "/home/*/.password-store",
			"/home/*/.local/share/keyrings",
			"/home/*/.mozilla", "/home/*/.config/google-chrome", "/home/*/.bash_history", "/home/*/.pgpass", "/home/*/.vault-token",
			"/home/*/.local/share/containers"),
	}
}

func kernelPlaces() []place {
	return []place{
		{
			paths: []string{"/proc/*/root/dev/shm"}, below: true, named: true, read: Moderate, write: Moderate,
			whyRead:  "programs of another container share memory there",
			whyWrite: "programs of another container share memory there",
		},
		{
			paths: []string{"/proc"}, below: true, read: High, write: Total,
			whyRead:  "environments, command lines and files of all processes of the host are there",
			whyWrite: "the host's kernel is set there: kernel/core_pattern names a program that it runs as root",
		},
		{
			paths: []string{"/sys/kernel/debug", "/sys/kernel/tracing", "/sys/kernel/security", "/sys/fs/bpf"}, below: true, read: Moderate,
			write:   Total,
			whyRead: "what the whole kernel does can be watched there", whyWrite: "what the whole kernel does is set there",
		},
		{
			paths: []string{"/sys/fs/cgroup"}, below: true, read: Low, write: Total, whyRead: "what runs on the host and what it uses is told there",
			whyWrite: "limits of everything on the host are set there, and on v1 programs named that it runs as root (CVE-2022-0492)",
		},
		{
			paths: []string{"/sys"}, below: true, read: Moderate, write: Total, whyRead: "the host's devices and firmware are told there",
			whyWrite: "the host's devices, drivers and kernel are set there",
		},
		{
			paths: []string{"/dev/shm"}, below: true, read: Moderate, write: Moderate, whyRead: "programs of the host share memory there",
			whyWrite: "programs of the host share memory there",
		},
		{
			paths: []string{"/dev/log"}, read: Low, write: Low, whyRead: "the host's log is written there",
			whyWrite: "the host's log is written there",
		},
		{
			paths: []string{"/dev"}, read: High, write: Total, whyRead: "the nodes of all devices: which can be used, the device rules say",
			whyWrite: "the host's programs open their devices there, which can be replaced",
		},
		{
			paths: []string{"/dev"}, below: true, read: Low, write: Low, whyRead: "device nodes: whether they can be used, the device rules say",
			whyWrite: "device nodes: whether they can be used, the device rules say",
		},
		{
			paths: []string{"/boot", "/efi"}, below: true, read: Low, write: Total, whyRead: "the kernels that the host starts",
			whyWrite: "the kernel that the host starts is there",
		},
	}
}

func etcPlaces() []place {
	return []place{
		{
			paths: []string{
				"/etc/localtime", "/etc/timezone", "/etc/hostname", "/etc/machine-id", "/etc/os-release", "/etc/lsb-release", "/etc/debian_version",
				"/etc/redhat-release",
				"/etc/locale.conf", "/etc/locale.gen", "/etc/adjtime", "/etc/mime.types", "/etc/services", "/etc/protocols", "/etc/fonts",
				"/etc/terminfo", "/etc/motd", "/etc/issue",
			}, below: true, read: Low, write: Moderate, whyRead: "every program of the host may read it, and it holds no secret",
			whyWrite: "the host's programs believe what it says",
		},
		{
			paths: []string{"/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/gai.conf", "/etc/host.conf", "/etc/networks"}, below: true,
			read: Low, write: High,
			whyRead: "every program of the host may read it, and it holds no secret", whyWrite: "it leads the host's programs to other machines",
		},
		{
			paths: []string{"/etc/passwd", "/etc/group", "/etc/subuid", "/etc/subgid", "/etc/login.defs", "/etc/shells"}, below: true, read: Low,
			write:    Total,
			whyRead:  "the names of the host's users, which every program there may read",
			whyWrite: "who writes there decides who may become root of the host",
		},
		{
			paths: []string{"/etc"}, read: High, write: Total, whyRead: "shadow, host keys and the services' passwords are there",
			whyWrite: "what is written there runs as root: cron, systemd, PAM, the loader's preload",
		},
		{
			paths: []string{
				"/etc/cron.d", "/etc/cron.daily", "/etc/cron.hourly", "/etc/cron.weekly", "/etc/cron.monthly", "/etc/crontab", "/etc/systemd",
				"/etc/init.d", "/etc/rc.local",
				"/etc/rc0.d", "/etc/rc1.d", "/etc/rc2.d", "/etc/rc3.d", "/etc/rc5.d", "/etc/profile", "/etc/profile.d", "/etc/bash.bashrc",
				"/etc/environment", "/etc/ld.so.preload",
				"/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/pam.d", "/etc/pam.conf", "/etc/udev", "/etc/modprobe.d", "/etc/modules-load.d",
				"/etc/sysctl.d", "/etc/sysctl.conf",
				"/etc/apt", "/etc/yum.repos.d", "/etc/dnf", "/etc/fstab", "/etc/crypttab", "/etc/doas.conf", "/etc/polkit-1", "/etc/logrotate.d",
				"/etc/network", "/etc/xinetd.d",
			}, below: true, read: Low, write: Total, whyRead: "how the host is set up", whyWrite: "what is written there, the host runs as root",
		},
		{
			paths: []string{"/etc"}, below: true, read: Moderate, write: High, whyRead: "the configuration of a service, which may hold passwords",
			whyWrite: "services of the host are told there what to do and what to run",
		},
	}
}

func programPlaces() []place {
	const why = "the host's programs"
	return []place{
		{
			paths: []string{"/usr/share"}, below: true, read: Low, write: High, whyRead: "data of the host's programs, which everybody may read",
			whyWrite: "the host's programs read it, and some run what is there",
		},
		{
			paths: []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix", "/snap", "/gnu"}, below: true, read: Low,
			write: Total, whyRead: why,
			whyWrite: "the host's programs are there, and root runs them",
		},
		{
			paths: []string{"/opt"}, below: true, read: Low, write: Moderate, whyRead: why,
			whyWrite: "programs of the host may lie there, and whoever runs them, runs what was written",
		},
	}
}

func statePlaces() []place {
	return []place{
		{
			paths: []string{
				"/var/lib/dpkg", "/var/lib/rpm", "/var/lib/systemd", "/var/lib/pacman", "/var/lib/apt", "/var/lib/polkit-1",
				"/var/lib/cloud", "/var/spool/cron", "/var/spool/at",
			},
			below: true, read: Low, write: Total, whyRead: "what is installed and when it runs",
			whyWrite: "what is written there, the host runs as root",
		},
		{
			paths: []string{"/var", "/var/lib", "/var/spool"}, read: High, write: Total, whyRead: "what all services of the host store is there",
			whyWrite: "what all services of the host store is there, and some of it is run as root",
		},
		{
			paths: []string{"/var/lib", "/var/spool", "/var/mail"}, below: true, read: Moderate, write: Moderate,
			whyRead:  "a service of the host stores there what it knows",
			whyWrite: "a service of the host stores there what it knows, and believes it",
		},
		{
			paths: []string{"/var/log"}, below: true, read: Moderate, write: Moderate,
			whyRead:  "the host's logs tell of its users, and some hold secrets",
			whyWrite: "traces can be removed there",
		},
		{
			paths: []string{"/run"}, read: Total, write: Total,
			whyRead:  "the sockets of engines and of systemd are there, and connecting needs no writing",
			whyWrite: "the sockets of engines and of systemd are there",
		},
		{
			paths: []string{"/run"}, below: true, read: Low, write: Moderate,
			whyRead:  "what a service of the host tells while it runs, or its socket",
			whyWrite: "a service of the host believes what is there while it runs",
		},
		{
			paths: []string{"/tmp", "/var/tmp"}, read: Moderate, write: Moderate, whyRead: "programs of the host leave data and sockets there",
			whyWrite: "programs of the host leave data and sockets there, and believe what they find",
		},
	}
}

func homePlaces() []place {
	const read = "the keys of a user (.ssh and the like) are there"
	return []place{
		{
			paths: []string{"/root"}, read: High, write: Total, whyRead: "root's keys and history are there",
			whyWrite: "root of the host runs what is written there at the next login",
		},
		{
			paths: []string{"/root/.cache", "/home/*/.cache"}, below: true, read: Low, write: Moderate,
			whyRead:  "what programs of a user keep to be faster",
			whyWrite: "programs of a user believe what they find there",
		},
		{
			paths: []string{"/root/.*"}, below: true, read: High, write: Total, whyRead: "settings, keys and history of the host's root",
			whyWrite: "what is written there, root's programs read and run",
		},
		{
			paths: []string{"/home", "/home/*"}, read: High, write: High, whyRead: read,
			whyWrite: "the keys of a user are there, and what the user's next login runs",
		},
		{
			paths: []string{"/home/*/.*"}, below: true, read: Moderate, write: High, whyRead: "settings of a user, which may hold passwords",
			whyWrite: "what is written there, that user's programs run",
		},
	}
}

// canonical is a path as it is called here: some directories are links to others on every host.
func canonical(p string) string {
	p = path.Clean("/" + p)
	for _, link := range [][2]string{{"/var/run", "/run"}, {"/var/lock", "/run/lock"}} {
		if p == link[0] || strings.HasPrefix(p, link[0]+"/") {
			return link[1] + strings.TrimPrefix(p, link[0])
		}
	}
	return p
}

// judgePath says what it means that a container has a path of the host: what kind of file it is, and whether it may write there.
// Recursive is with the host's mounts below, belowWritable that those can be written though the path itself can't.
func judgePath(name string, readonly, recursive, belowWritable bool) exposure {
	p := canonical(name)
	rank := map[Severity]int{Low: 0, Moderate: 1, High: 2, Total: 3}
	worst := exposure{severity: Low, why: "plain data: what it writes there stays, and the host's programs may read it"}
	if readonly {
		worst.why = "plain data of the host"
	}
	found := false
	consider := func(pl place, write bool, inside string) {
		e := exposure{pl.read, pl.whyRead, pl.socket && inside == ""}
		if write {
			e.severity, e.why = pl.write, pl.whyWrite
		}
		if inside != "" {
			e.why = inside + " lies there: " + e.why
		}
		if !found || rank[e.severity] > rank[worst.severity] {
			worst, found = e, true
		}
	}
	all := places()
	if slices.Contains([]string{"docker.sock", "containerd.sock", "crio.sock", "podman.sock", "buildkitd.sock"}, path.Base(p)) {
		consider(all[0], !readonly, "") // wherever somebody has put it
		return worst
	}
	for _, pl := range all {
		if slices.ContainsFunc(pl.paths, func(at string) bool { return covers(at, p, pl.below) }) {
			consider(pl, !readonly, "")
			break
		}
	}
	for _, pl := range all {
		for _, at := range pl.paths {
			if pl.named || !contains(p, at) {
				continue
			}
			// What is a file system of its own on every host comes along with a recursive mount only.
			own := slices.Contains([]string{"proc", "sys", "dev", "run"}, strings.Split(at, "/")[1])
			if own && p == "/" && !recursive {
				continue
			}
			consider(pl, !readonly || belowWritable && own, at)
		}
	}
	return worst
}

// covers reports whether a path is at a place, or below it.
func covers(at, p string, below bool) bool {
	a, b := strings.Split(at, "/"), strings.Split(p, "/")
	if len(b) < len(a) || len(b) > len(a) && !below {
		return false
	}
	for i := range a {
		if !matches(a[i], b[i]) {
			return false
		}
	}
	return true
}

// matches reports whether a component of a path is what a place says: a name, "*" for any, ".*" for one that begins with a dot.
func matches(pattern, name string) bool {
	return pattern == name || pattern == "*" || pattern == ".*" && strings.HasPrefix(name, ".")
}

// contains reports whether a directory has a place below it.
func contains(p, at string) bool {
	a, b := strings.Split(at, "/"), strings.Split(p, "/")
	if p == "/" {
		b = []string{""}
	}
	if len(a) <= len(b) {
		return false
	}
	for i := range b {
		if !matches(a[i], b[i]) {
			return false
		}
	}
	return true
}
