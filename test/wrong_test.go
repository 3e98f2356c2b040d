package test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"glassbox/test/machine"
)

// goWords are words of the language that glassbox is written in, of its libraries and of its types: nobody who types a command line
// should have to know them.
var goWords = regexp.MustCompile(`strconv\.|\b(cli|engine|container|spec|plan|fork|image|network|supervise|explain|verify|specs|` +
	`fs|os|exec|net|time|json|template|pflag|errors|syscall|unix)\.[A-Z]\w+|` +
	`context (canceled|deadline)|can't evaluate|unmarshal|<nil>|nil pointer|%!|goroutine|panic|\bEOF\b|map\[|0xc0|parsing "|invalid ` +
	`syntax|executing "|json:|time:|template:|` +
	`type (string|int|bool|float)|struct|reflect|interface|use of closed|\bint64\b|\buint\d+\b|\bslice\b|no such host\.\.`)

// wrongLines are command lines that can't work, each wrong in another way. ccc is a container that runs, sss one that has stopped.
var wrongLines = []string{
	"run", "run --rm", "run --nope busybox", "run -Z busybox", "run --memory lots busybox", "run --memory 1q busybox", "run -m -5 busybox",
	"run --memory 99999999999999999999g busybox", "run --cpus many busybox", "run --cpus -1 busybox", "run --cpu-shares x busybox",
	"run --pids-limit x busybox", "run --oom-score-adj 5000 busybox", "run --oom-score-adj x busybox", "run --blkio-weight 99999 busybox",
	"run --stop-timeout soon busybox", "run --stop-signal NOSIG busybox", "run --ulimit nofile busybox", "run --ulimit nofile=a:b busybox",
	"run --ulimit what=1 busybox", "run --env-file /nowhere busybox", "run --env-file / busybox", "run --label-file /nowhere busybox",
	"run -p x:y busybox", "run -p 99999:80 busybox", "run -p 80:80:80:80 busybox", "run -p 1.2.3.4.5:80:80 busybox", "run --ip 1.2.3 busybox",
	"run --mac-address xx busybox", "run --dns nowhere busybox", "run --add-host x busybox", "run --network nowhere busybox",
	"run --network container:nobody busybox", "run -v busybox", "run -v x:y busybox", "run -v /a:/b:what busybox",
	"run --mount type=what busybox",
	"run --mount type=bind busybox", "run --mount foo busybox", "run --tmpfs x busybox", "run --tmpfs /x:size=much busybox",
	"run --shm-size x busybox",
	"run --device x busybox", "run --device-cgroup-rule x busybox", "run --device-read-bps /dev/null busybox",
	"run --device-read-bps /dev/null:x busybox",
	"run --cap-add WHAT busybox", "run --security-opt what busybox", "run --security-opt seccomp=/nowhere busybox",
	"run --security-opt seccomp=/etc/passwd busybox", "run --sysctl x busybox", "run --sysctl kernel.what=1 busybox",
	"run --user nobody-here busybox",
	"run --user 1:what busybox", "run --workdir x busybox", "run --pid what busybox", "run --ipc what busybox", "run --uts what busybox",
	"run --cgroupns what busybox", "run --ns what busybox", "run --pull often busybox", "run --platform what/ever/x/y busybox",
	"run --platform linux/nonsense busybox", "run --log-opt max-size=x busybox", "run --log-opt what=1 busybox",
	"run --annotation x busybox", "run --expose x busybox", "run --expose 80:80 busybox",
	"run --log-driver syslog busybox", "run --log-driver none --log-opt tag=x busybox", "run --log-opt tag={{ busybox",
	"run --log-opt mode=x busybox",
	"run --log-opt max-file=0 busybox", "run --log-opt env-regex=( busybox", "run --log-opt compress=true --log-opt max-file=1 busybox",
	"run --name /,/ busybox",
	"run --name ccc busybox", "run --rootfs /nowhere true", "run --cidfile /etc/passwd busybox", "run --detach-keys ctrl-what busybox",
	"run -it busybox", "run BUSYBOX", "run busybox:", "run busybox@sha256:12", "run 127.0.0.1:1/x", "run busybox /nowhere",
	"run --restart sometimes busybox",
	"run --gpus all busybox", "run --runtime what busybox", "run --require-plan x busybox", "run --plan /nowhere",
	"run --plan /etc/passwd", "run --init=maybe busybox",
	"create", "create --name ccc busybox", "start", "start nobody", "start -a -i ccc sss", "exec", "exec ccc", "exec nobody true",
	"exec sss true", "exec ccc /nowhere",
	"exec -u nobody-here ccc true", "exec -w x ccc true", "exec -e =x ccc true", "exec --env-file /nowhere ccc true", "exec -it ccc true",
	"attach", "attach sss", "attach nobody", "ps -f what", "ps -f what=1", "ps --filter exited=x", "ps --filter since=nobody",
	"ps --format {{.What}}", "ps --format {{",
	"ps --format {{.Names", "ps --format '{{json .What}}'", "ps --format '{{.ID.X}}'", "ps --format '{{template \"x\"}}'", "ps -n x",
	"images --format {{.What}}", "images -f since=x", "images -f what=1", "images a b", "inspect", "inspect nobody",
	"inspect -f {{.What}} ccc", "inspect -f '{{.State.Pid.X}}' ccc",
	"inspect -f {{ ccc", "inspect -f '{{index .Config.Env 99}}' ccc", "inspect --type volume ccc", "info --format {{.What}}",
	"version --format {{.What}}",
	"logs", "logs nobody", "logs --tail x ccc", "logs --since x ccc", "logs --until x ccc", "stop", "stop nobody", "stop -t x ccc",
	"stop -s NOSIG ccc", "kill -s NOSIG ccc", "kill sss", "kill -s 99 ccc",
	"wait nobody", "pause sss", "unpause ccc", "rename ccc", "rename ccc sss", "rename ccc /,/", "rename nobody x", "rm ccc",
	"rm nobody", "restart -t x ccc", "restart nobody",
	"pull", "pull BUSYBOX", "pull x:y:z", "pull 127.0.0.1:1/x", "pull --platform what/a/b/c/d busybox", "pull nowhere.invalid/x",
	"tag x", "tag nobody y", "tag busybox BAD:NAME:x",
	"rmi", "rmi nobody", "rmi busybox@sha256:12", "image", "image nope", "image inspect nobody", "image from-host", "image from-host x",
	"image from-host x /nowhere",
	"explain", "explain nobody", "explain --format what ccc", "explain --diff ccc", "explain bundle /nowhere", "explain bundle /etc",
	"explain plan /etc/passwd", "explain run",
	"explain run --cpus x busybox", "explain /etc/passwd", "verify", "verify nobody", "verify sss", "verify --plan /etc/passwd --pid 1",
	"verify --plan /nowhere --pid 1", "verify --pid x",
	"debug", "debug nobody", "debug sss", "debug --image nobody ccc", "tour x", "tour 99", "tour 1 2", "tour --lesson x", "doctor x",
	"container prune -f --filter what=1", "image prune -f --filter until=x", "system prune -f --filter x", "system df x",
	"system df --format {{.What}}", "system df -v --format {{.Type}}", "ps -f publish=x", "ps -f is-task=x",
	"ps -f health=x", "events --format {{.What}}",
	"restart -s NOSIG ccc", "stats nobody", "stats --format {{.Nope}}", "top", "top sss", "top nobody",
	"top ccc -o args", "top ccc --nonsense", "port", "port nobody",
	"port ccc 80", "port ccc x", "cp a b", "volume", "nope", "--nope ps",
	"--root /etc/passwd ps", "--root /proc/x ps", "--state /etc/passwd ps", "--root /proc/x run busybox", "--root", "-H x ps",
}

// TestWrongLines types what is wrong and reads what is said: an error, in words that need no knowledge of Go.
func TestWrongLines(t *testing.T) {
	s := besiege(t)
	s.furnish()
	s.ok(s.on("glassbox", "run", "-d", "--name", "ccc", "--network", "none", "busybox", "sleep", "10000"))
	s.ok(s.on("glassbox", "run", "-d", "--name", "sss", "--network", "none", "busybox", "true"))
	s.ok(s.on("glassbox", "wait", "sss"))
	if len(wrongLines) < 50 {
		t.Fatalf("only %d lines", len(wrongLines))
	}
	for _, line := range wrongLines {
		res := s.typed(t, line)
		said := res.Stdout + res.Stderr
		switch found := goWords.FindString(said); {
		case res.TimedOut:
			t.Errorf("glassbox %s: no end", line)
		case res.Code == 0 && !help(line):
			t.Errorf("glassbox %s: success: %s", line, said)
		case res.Code != 0 && strings.TrimSpace(res.Stderr) == "":
			t.Errorf("glassbox %s: code %d without a word", line, res.Code)
		case found != "" && res.Code != 0:
			t.Errorf("glassbox %s: says %q: %s", line, found, strings.TrimSpace(said))
		}
	}
}

// typed runs what somebody types after "glassbox ".
func (s *siege) typed(t *testing.T, line string) machine.Result {
	job, err := s.host.Go([]string{"/bin/sh", "-c", "exec glassbox " + line}, s.env, "/", nil)
	must(t, err)
	res, err := job.Finish(scaled(30 * time.Second))
	must(t, err)
	return res
}

// wrongLine is a command line that is wrong, its exit code, and an expression that the one sentence matches.
type wrongLine struct {
	line string
	code int
	says string
}

// typeWrong types wrong lines: each says what it must, after a prefix, in words that need no knowledge of Go, and state, which tells of
// what there is, stays as it was.
func (s *siege) typeWrong(t *testing.T, lines []wrongLine, prefix string, state func() string) {
	before := state()
	for _, tt := range lines {
		res := s.typed(t, tt.line)
		said := strings.TrimSpace(res.Stderr)
		switch {
		case res.TimedOut:
			t.Errorf("glassbox %s: no end", tt.line)
		case res.Code != tt.code:
			t.Errorf("glassbox %s: exit code %d, want %d: %s", tt.line, res.Code, tt.code, said)
		case !regexp.MustCompile(tt.says).MatchString(said):
			t.Errorf("glassbox %s: says %q, want %q", tt.line, said, tt.says)
		case !strings.HasPrefix(said, prefix) || goWords.MatchString(said):
			t.Errorf("glassbox %s: says %q", tt.line, said)
		}
	}
	if after := state(); after != before {
		t.Errorf("something has changed:\n%s\nwas\n%s", after, before)
	}
}

// help reports whether a line is the name of a group, which is answered with help.
func help(line string) bool { return line == "image" || line == "volume" }
