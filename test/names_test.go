package test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestNamesUnderLoad: containers ask for each other's names as fast as they can, while others come and go: no answer is wrong and none is
// lost. It is ten containers with 200 questions each; GLASSBOX_TEST_NAMES=50 is that many with 2,000 each.
func TestNamesUnderLoad(t *testing.T) {
	n, each := 10, 200
	if text := os.Getenv("GLASSBOX_TEST_NAMES"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil || n < 2 {
			t.Fatal("GLASSBOX_TEST_NAMES: want a number of containers")
		}
		each = 2000
	}
	s := besiege(t)
	s.furnish()
	s.ok(s.on("glassbox", "network", "create", "--internal", "crowd"))
	var names []string
	for i := range n {
		name := fmt.Sprintf("c%d", i)
		s.ok(s.on("glassbox", "run", "-d", "--name", name, "--network", "crowd", "busybox", "sleep", "100000"))
		res := s.on("glassbox", "inspect", "-f", "{{.NetworkSettings.Networks.crowd.IPAddress}}", name)
		s.ok(res)
		names = append(names, name+"="+strings.TrimSpace(res.Stdout))
	}
	// The network is internal, so that nobody outside is asked. Names that nobody has, and one that comes and goes.
	names = append(names, "nobody=", "passing=*")
	churn := `end=/tmp/names-end; rm -f $end
(while [ ! -e $end ]; do glassbox run --rm --name passing --network crowd busybox true || exit 1; done) & churn=$!
for i in $(seq 0 ` + strconv.Itoa(n-1) + `); do
	glassbox exec c$i /t/lookups 127.0.0.11:53 ` + strconv.Itoa(each) + ` ` + strings.Join(names, " ") + ` & pids="$pids $!"
done
for p in $pids; do wait $p || echo failed; done
touch $end; wait $churn || echo churn failed
`
	res := s.on("sh", "-c", churn)
	s.ok(res)
	good, slowest := 0, 0.0
	for line := range strings.Lines(res.Stdout) {
		var asked, wrong, lost int
		var seconds float64
		if _, err := fmt.Sscanf(line, "asked %d wrong %d lost %d seconds %f", &asked, &wrong, &lost, &seconds); err != nil {
			if strings.Contains(line, "failed") {
				t.Error(line)
			}
			continue
		}
		if asked != each || wrong+lost > 0 {
			t.Errorf("%s%s", line, res.Stderr)
		}
		good++
		slowest = max(slowest, seconds)
	}
	if good != n {
		t.Errorf("%d of %d containers have asked:\n%s%s", good, n, res.Stdout, res.Stderr)
	}
	t.Logf("%d questions in %.1f s", n*each, slowest)
	s.ok(s.on("sh", "-c", "glassbox rm -f $(glassbox ps -aq)"))
	s.ok(s.on("sh", "-c", "glassbox network rm crowd"))
}
