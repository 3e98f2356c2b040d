package build

import (
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestQuery reads what docker build sends, and refuses what means nothing.
func TestQuery(t *testing.T) {
	q, err := url.ParseQuery(`t=a&t=b%3A1&q=1&nocache=0&rm=1&memory=67108864&memswap=-1&cpuquota=0&shmsize=1024&networkmode=bridge&` +
		`buildargs={"A":"1","B":null}&labels={"l":"v"}&cachefrom=["c:1"]&ulimits=[{"Name":"nofile","Soft":1,"Hard":2}]&version=2&` +
		`session=s&remote=client-session&buildid=x&dockerfile=D&target=t&platform=linux/amd64&extrahosts=h:192.0.2.1`)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Query(q)
	if err != nil {
		t.Fatal(err)
	}
	want := &Call{BuildKit: true, Session: "s", ID: "x", Remote: "client-session", Request: Request{
		Dockerfile: "D", Tags: []string{"a", "b:1"}, Target: "t", Quiet: true, Network: "default", AddHosts: []string{"h:192.0.2.1"},
		Platforms: []string{"linux/amd64"}, Args: map[string]string{"A": "1"}, Labels: map[string]string{"l": "v"}, ShmSize: 1024,
		Limits:    map[string]string{"memory": "67108864", "memswap": "-1"},
		CacheFrom: []Typed{{Type: "registry", Attrs: map[string]string{"ref": "c:1"}}}, Ulimits: []string{"nofile=1:2"},
	}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	for text, part := range map[string]string{
		"version=3": "invalid version", "networkmode=container:x": "not supported", "squash=1": "squash", "securityopt=x": "security options",
		"memory=x": "is a number", "shmsize=-1": "number of bytes", "buildargs={": "reading buildargs", "labels=[]": "reading labels",
		"extrahosts=x": "NAME:ADDRESS", `outputs=[{"type":"a"},{"type":"b"}]`: "multiple outputs",
	} {
		q, err := url.ParseQuery(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Query(q); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%s: got %v", text, err)
		}
	}
}

// TestPruneQuery reads both forms of filters.
func TestPruneQuery(t *testing.T) {
	for _, filters := range []string{
		`{"until":["24h"],"type":["exec.cachemount"]}`, `{"until":{"24h":true},"type":{"exec.cachemount":true}}`,
	} {
		p, err := PruneQuery(url.Values{"all": {"1"}, "filters": {filters}, "keep-storage": {"5"}})
		if err != nil || !p.All || p.KeepDuration.Hours() != 24 || p.ReservedSpace != 5 || len(p.Filters) != 1 {
			t.Errorf("%s: got %+v, %v", filters, p, err)
		}
	}
	for _, bad := range []url.Values{{"filters": {"x"}}, {"filters": {`{"what":["x"]}`}}, {"max-used-space": {"x"}}} {
		if _, err := PruneQuery(bad); err == nil {
			t.Errorf("%v: no error", bad)
		}
	}
}
