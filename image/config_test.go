package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// fullConfig has each string field that Docker and the OCI specification have, and one that nobody knows.
const fullConfig = `{
 "created":"2020-01-01T00:00:00Z","author":"a","architecture":"amd64","variant":"v1","os":"linux","os.version":"1","os.features":["f"],
 "container":"c","docker_version":"1","parent":"p","id":"i","comment":"c",
 "config":{"Hostname":"h","Domainname":"d","User":"u","ExposedPorts":{"80/tcp":{}},"Env":["A=b"],"Entrypoint":["e"],"Cmd":["c","d"],
  "Volumes":{"/v":{}},
  "WorkingDir":"/w","Labels":{"k":"v"},"StopSignal":"TERM","OnBuild":["RUN x"],"Shell":["sh"],"Image":"i","MacAddress":"m",
  "Healthcheck":{"Test":["CMD","x"]},"ArgsEscaped":false,"Memory":0,"MemorySwap":0,"CpuShares":0},
 "container_config":{"Cmd":["x"]},
 "rootfs":{"type":"layers","diff_ids":[]},
 "history":[{"created":"2020-01-01T00:00:00Z","created_by":"c","author":"a","comment":"c","empty_layer":true}],
 "unknown":{"deep":[["x"]]}}`

const fullManifest = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"a",
 "config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"D","size":1,"urls":["u"],"annotations":{"k":"v"},"data":"eA=="},
 "layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"D","size":1,"urls":["u"],"annotations":{"k":"v"}}],
 "subject":{"mediaType":"m","digest":"D","size":1},"annotations":{"k":"v"},"unknown":["x"]}`

const fullIndex = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","artifactType":"a",
 "manifests":[{"mediaType":"m","digest":"D","size":1,"urls":["u"],"annotations":{"k":"v"},
  "platform":{"architecture":"amd64","os":"linux","os.version":"1","os.features":["f"],"variant":"v1"}}],
 "annotations":{"k":"v"}}`

// eachString calls f with a copy of a document for each string and each key in it, where that has a NUL byte in its middle.
func eachString(t *testing.T, doc string, f func(where string, raw []byte)) int {
	t.Helper()
	n := 0
	for i := 0; i < len(doc); i++ {
		if doc[i] != '"' {
			continue
		}
		end := i + 1 + strings.IndexByte(doc[i+1:], '"')
		f(fmt.Sprintf("string %d, %s", n, doc[i:end+1]), []byte(doc[:i+1]+`\u0000x`+doc[i+1:]))
		f(fmt.Sprintf("string %d, %s, end", n, doc[i:end+1]), []byte(doc[:end]+`\u0000`+doc[end:]))
		n++
		i = end
	}
	return n
}

// TestNUL: no string of a config, a manifest or an index may have a NUL byte, at which the kernel would stop reading.
func TestNUL(t *testing.T) {
	m := &v1.Manifest{}
	l := Limits{}.withDefaults()
	if _, err := parseConfig([]byte(fullConfig), m); err != nil {
		t.Fatal(err)
	}
	n := eachString(t, fullConfig, func(where string, raw []byte) {
		if _, err := parseConfig(raw, m); !errors.Is(err, ErrManifest) || !strings.Contains(err.Error(), "NUL byte") {
			t.Errorf("config, %s: got %v", where, err)
		}
	})
	if n < 80 {
		t.Errorf("%d strings tried", n)
	}
	for _, doc := range []string{fullManifest, fullIndex} {
		doc = strings.ReplaceAll(doc, `"D"`, `"`+digestOf(nil)+`"`)
		if _, err := parseDocument([]byte(doc), "", l); err != nil {
			t.Fatal(err)
		}
		eachString(t, doc, func(where string, raw []byte) {
			if _, err := parseDocument(raw, "", l); err == nil {
				t.Errorf("document, %s: accepted", where)
			}
		})
	}
	_, err := parseConfig([]byte(`{"config":{"Cmd":["ok","a\u0000b"]}}`), m)
	if err == nil || !strings.Contains(err.Error(), "a NUL byte in config.Cmd[1]") {
		t.Errorf("got %v, want the place", err)
	}
}

// TestNULInArchive: nor may a name in a layer; what comes behind it would be seen by people and not by the kernel. (GNU's own long names
// end at their NUL for every reader.)
func TestNULInArchive(t *testing.T) {
	for name, raw := range map[string][]byte{
		"pax path":     paxTar("path", "a\x00b", tar.TypeReg),
		"pax linkpath": paxTar("linkpath", "a\x00b", tar.TypeSymlink),
		"pax hard":     paxTar("linkpath", "a\x00b", tar.TypeLink),
		"pax xattr":    paxTar("SCHILY.xattr.user.a\x00b", "v", tar.TypeReg),
		"pax uname":    paxTar("uname", "a\x00b", tar.TypeReg),
		"pax gname":    paxTar("gname", "a\x00b", tar.TypeReg),
	} {
		s := openStore(t)
		if img, err := pullTars(t, s, raw); err == nil {
			t.Errorf("%s: accepted: %+v", name, img)
		} else if !errors.Is(err, ErrLayer) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// paxTar is an archive of one file with one extended header, written by hand: package tar would refuse it.
func paxTar(key, value string, typ byte) []byte {
	rec := fmt.Sprintf(" %s=%s\n", key, value)
	n := len(rec) + 2
	for len(fmt.Sprint(n))+len(rec) != n {
		n++
	}
	var b bytes.Buffer
	block := func(name string, typ byte, body string) {
		h := make([]byte, 512)
		copy(h, name)
		copy(h[100:], "0000644\x000000000\x000000000\x00")
		copy(h[124:], fmt.Sprintf("%011o\x00%011o\x00", len(body), 1))
		h[156] = typ
		copy(h[157:], "target")
		copy(h[257:], "ustar\x0000")
		copy(h[148:], "        ")
		sum := 0
		for _, c := range h {
			sum += int(c)
		}
		copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
		b.Write(h)
		b.WriteString(body)
		b.Write(make([]byte, (512-len(body)%512)%512))
	}
	block("PaxHeaders/x", tar.TypeXHeader, fmt.Sprintf("%d%s", n, rec))
	block("x", typ, "")
	b.Write(make([]byte, 1024))
	return b.Bytes()
}

func imageWith(t *testing.T, config string) *Image {
	t.Helper()
	raw := []byte(`{"config":` + config + `}`)
	c, err := parseConfig(raw, &v1.Manifest{})
	if err != nil {
		t.Fatalf("%.80s: %v", config, err)
	}
	return &Image{ID: digestOf(raw), Config: *c, RawConfig: raw}
}

func TestExposedPorts(t *testing.T) {
	for in, want := range map[string]string{
		`"80":{}`: "80/tcp", `"80/tcp":{},"80":{}`: "80/tcp", `"53/UDP":{}`: "53/udp",
		`"8002-8004":{},"8003/tcp":{}`: "8002/tcp 8003/tcp 8004/tcp",
		`"65535/sctp":{}`:              "65535/sctp", `"10/udp":{},"9/tcp":{},"10/tcp":{}`: "9/tcp 10/tcp 10/udp", ``: "", `"1-1024":{}`: "many",
	} {
		ports, err := imageWith(t, `{"ExposedPorts":{`+in+`}}`).ExposedPorts()
		got := strings.Trim(fmt.Sprint(ports), "[]")
		if want == "many" {
			got, want = fmt.Sprint(len(ports)), "1024"
		}
		if err != nil || got != want {
			t.Errorf("%s: got %s, %v; want %s", in, got, err, want)
		}
	}
	for _, in := range []string{
		"22:22/tcp", "127.0.0.1:8099:80/tcp", "127.0.0.1::80", ":80", "80:", "0", "0-5", "5-0", "65536", "+80", "-80", "80-", "-",
		"", "/tcp", "80/", "80/icmp",
		"80/tcp/udp", "1_0", " 80", "80 ", "８０", "0x50", "80-81-82", "[::1]:80:80", "80\n",
	} {
		in, _ := json.Marshal(in)
		if ports, err := imageWith(t, `{"ExposedPorts":{`+string(in)+`:{}}}`).ExposedPorts(); !errors.Is(err, ErrManifest) {
			t.Errorf("%s: got %v, %v; want an error", in, ports, err)
		}
	}
	for _, in := range []string{`"1-1025":{}`, `"1-65535/tcp":{},"1-65535/udp":{}`, `"1-1000":{},"2000-2100":{}`} {
		begin := time.Now()
		_, err := imageWith(t, `{"ExposedPorts":{`+in+`}}`).ExposedPorts()
		if !errors.Is(err, ErrLimit) || !strings.Contains(err.Error(), "-p") || time.Since(begin) > time.Second {
			t.Errorf("%s: got %v after %v; want the limit", in, err, time.Since(begin))
		}
	}
}

func TestVolumes(t *testing.T) {
	got, err := imageWith(t, `{"Volumes":{"/data":{},"/a//b/":{},"/a/b":{},"/proc":{}}}`).Volumes()
	if diff := cmp.Diff([]string{"/a/b", "/data", "/proc"}, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	for _, in := range []string{"", "/", "//", "/.", "data", "/a/..", "/../etc", "/a/../..", "C:\\data", "/" + strings.Repeat("x", 5000)} {
		in, _ := json.Marshal(in)
		if got, err := imageWith(t, `{"Volumes":{`+string(in)+`:{}}}`).Volumes(); err == nil {
			t.Errorf("%.80s: got %q, want an error", in, got)
		}
	}
	var many []string
	for i := range 129 {
		many = append(many, fmt.Sprintf(`"/v%d":{}`, i))
	}
	if _, err := imageWith(t, `{"Volumes":{`+strings.Join(many, ",")+`}}`).Volumes(); !errors.Is(err, ErrLimit) {
		t.Errorf("129 volumes: got %v", err)
	}
}

func TestHealthcheck(t *testing.T) {
	for in, want := range map[string]*Healthcheck{
		`{}`:                                nil,
		`{"Healthcheck":null}`:              nil,
		`{"Healthcheck":{}}`:                {},
		`{"Healthcheck":{"Test":["NONE"]}}`: {Test: []string{"NONE"}},
		`{"Healthcheck":{"Test":["CMD-SHELL","x || exit 1"],"Interval":30000000000,"Retries":3}}`: {
			Test: []string{"CMD-SHELL", "x || exit 1"}, Interval: 30 * time.Second, Retries: 3,
		},
	} {
		got, err := imageWith(t, in).Healthcheck()
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", in, err, diff)
		}
	}
	for _, in := range []string{
		`{"Test":["x"]}`, `{"Test":["CMD"]}`, `{"Test":["CMD-SHELL"]}`, `{"Test":["CMD-SHELL","a","b"]}`, `{"Test":["NONE","x"]}`,
		`{"Test":"CMD"}`, `[]`,
		`{"Interval":-1}`, `{"Timeout":999999}`, `{"StartPeriod":-5}`, `{"StartInterval":1}`, `{"Retries":-1}`, `{"Retries":1.5}`,
		`{"Interval":1e30}`,
	} {
		if got, err := imageWith(t, `{"Healthcheck":`+in+`}`).Healthcheck(); !errors.Is(err, ErrManifest) {
			t.Errorf("%s: got %+v, %v; want an error", in, got, err)
		}
	}
}

// TestConfigLimits: 100,000 of anything are refused, in little time.
func TestConfigLimits(t *testing.T) {
	list, object := strings.Repeat(`"a",`, 1e5)+`"a"`, strings.Builder{}
	for i := range int(1e5) {
		fmt.Fprintf(&object, `"k%d":{},`, i)
	}
	fmt.Fprint(&object, `"k":{}`)
	labels := strings.ReplaceAll(object.String(), "{}", `"v"`)
	begin := time.Now()
	for name, raw := range map[string]string{
		"Env": `{"config":{"Env":[` + list + `]}}`, "Cmd": `{"config":{"Cmd":[` + list + `]}}`,
		"OnBuild":      `{"config":{"OnBuild":[` + list + `]}}`,
		"ExposedPorts": `{"config":{"ExposedPorts":{` + object.String() + `}}}`, "Volumes": `{"config":{"Volumes":{` + object.String() + `}}}`,
		"Labels": `{"config":{"Labels":{` + labels + `}}}`, "Test": `{"config":{"Healthcheck":{"Test":[` + list + `]}}}`,
		"history": `{"history":[{}` + strings.Repeat(`,{}`, 1e5) + `]}`, "diff_ids": `{"rootfs":{"diff_ids":[` + list + `]}}`,
	} {
		_, err := parseConfig([]byte(raw), &v1.Manifest{})
		if err == nil || !strings.Contains(err.Error(), name+" has more than 10000 entries") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
	// Neither does nesting end badly.
	for _, raw := range []string{strings.Repeat("[", 1e6), strings.Repeat(`{"a":`, 1e6), `{"config":` + strings.Repeat("[",
		1e5) + strings.Repeat("]", 1e5) + `}`} {
		if _, err := parseConfig([]byte(raw), &v1.Manifest{}); err == nil {
			t.Errorf("%.20s…: accepted", raw)
		}
	}
}
