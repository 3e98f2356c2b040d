package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"glassbox/docker"
	"glassbox/image"
)

func testRows(now time.Time, full bool) []psRow {
	var rows []psRow
	for _, s := range []docker.Summary{
		{
			ID: strings.Repeat("0123456789abcdef", 4), Names: []string{"/web"}, Image: "nginx:1", Command: `"nginx -g 'daemon off;'"`,
			Created: now.Add(-3 * time.Minute).Unix(),
			Status:  "Up 3 minutes", State: "running", Ports: []docker.PortSummary{{IP: "0.0.0.0", PrivatePort: 80, PublicPort: 8080, Type: "tcp"}},
			Labels: map[string]string{"b": "2", "a": "1"}, HostConfig: docker.SummaryHostConfig{NetworkMode: "bridge"},
			Mounts: []docker.MountPoint{{Type: "bind", Source: "/srv/a/very/long/path"}},
		},
		{
			ID: strings.Repeat("f", 64), Names: []string{"/job"}, Image: "evil\x1b[2J", Command: `"true"`,
			Created: now.Add(-50 * time.Hour).Unix(), Status: "Exited (0) 2 days ago", State: "exited",
			HostConfig: docker.SummaryHostConfig{NetworkMode: "none"},
		},
	} {
		rows = append(rows, newPsRow(s, now, full))
	}
	return rows
}

func TestPsFormats(t *testing.T) {
	local := time.Local
	time.Local = time.UTC
	defer func() { time.Local = local }()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, format := range map[string]string{
		"ps-table":    "",
		"ps-columns":  `table {{.Names}}\t{{.State}}\t{{.Label "a"}}`,
		"ps-json":     "json",
		"ps-template": `{{.ID}} {{upper .Names}} {{json .Ports}} {{truncate .Image 3}} {{.Mounts}}`,
	} {
		var b bytes.Buffer
		if err := printRows(&b, format, psColumns, psHeader(), testRows(now, false)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		golden(t, name, b.String())
	}
	var b bytes.Buffer
	if err := printRows(&b, "", psColumns, psHeader(), testRows(now, true)); err != nil {
		t.Error(err)
	}
	golden(t, "ps-full", b.String())
	if err := printRows(&b, "{{.Nope}}", psColumns, psHeader(), testRows(now, true)); err == nil {
		t.Error("a field that doesn't exist: got no error")
	}
}

func testImage() *image.Image {
	created := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	return &image.Image{
		ID: "sha256:" + strings.Repeat("ab", 32), ManifestDigest: "sha256:" + strings.Repeat("cd", 32), Created: created, Size: 116_600_000,
		Names: []string{"debian:12", "reg:5000/team/debian:today"}, Digests: []string{"debian@sha256:" + strings.Repeat("ee", 32)},
		Layers: []image.Layer{
			{DiffID: "sha256:" + strings.Repeat("11", 32), Dir: "layers/1"},
			{DiffID: "sha256:" + strings.Repeat("22", 32), Dir: "layers/2"},
		},
		Config: v1.Image{Platform: v1.Platform{Architecture: "amd64", OS: "linux"}, Config: v1.ImageConfig{Cmd: []string{"bash"}}},
	}
}

func TestImagesFormats(t *testing.T) {
	local := time.Local
	time.Local = time.UTC
	defer func() { time.Local = local }()
	now := time.Date(2026, 1, 15, 0, 0, 0, 0, time.UTC)
	untagged := &image.Image{ID: "sha256:" + strings.Repeat("cd", 32), Size: 999}
	rows := append(newImageRows(testImage().Summary(), now, false, ""), newImageRows(untagged.Summary(), now, false, "")...)
	for name, tt := range map[string][2]string{
		"images-table":   {"", imageColumns},
		"images-digests": {"", digestColumns},
		"images-json":    {"json", imageColumns},
	} {
		var b bytes.Buffer
		if err := printRows(&b, tt[0], tt[1], imageHeader(), rows); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		golden(t, name, b.String())
	}
	for pattern, want := range map[string]int{
		"debian": 1, "debian:12": 1, "debian:13": 0, "reg:5000/team/*": 1,
		"reg:5000/team/debian:to*": 1, "*": 1,
	} {
		if got := len(newImageRows(testImage().Summary(), now, false, pattern)); got != want {
			t.Errorf("images %s: got %d rows, want %d", pattern, got, want)
		}
	}
}

func TestInspectImage(t *testing.T) {
	var b bytes.Buffer
	if err := printValue(&b, "json", testImage().Inspect()); err != nil {
		t.Fatal(err)
	}
	golden(t, "image-inspect", b.String())
	for format, want := range map[string]string{
		"{{.Id}}":                          "sha256:" + strings.Repeat("ab", 32) + "\n", // name in JSON
		"{{.ID}}":                          "sha256:" + strings.Repeat("ab", 32) + "\n", // name in Go
		"{{join .Config.Cmd \",\"}}":       "bash\n",
		"{{index .RootFS.Layers 0}}":       "sha256:" + strings.Repeat("11", 32) + "\n",
		"{{range .RepoTags}}{{.}};{{end}}": "debian:12;reg:5000/team/debian:today;\n",
	} {
		b.Reset()
		if err := printValue(&b, format, testImage().Inspect()); err != nil || b.String() != want {
			t.Errorf("%s: got %q, %v; want %q", format, b.String(), err, want)
		}
	}
	if err := printValue(&b, "{{.Nope}}", map[string]any{"Id": 1}); err == nil {
		t.Error("a key that doesn't exist: got no error")
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0B", 999: "999B", 1000: "1kB", 7_146_060: "7.15MB", 116_600_000: "117MB",
		1_234_000_000: "1.23GB",
	} {
		if got := size(n); got != want {
			t.Errorf("size(%d): got %s, want %s", n, got, want)
		}
	}
}

func TestParseTime(t *testing.T) {
	local := time.Local
	time.Local = time.FixedZone("X", 3600)
	defer func() { time.Local = local }()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for s, want := range map[string]string{
		"":                              "0001-01-01T00:00:00Z",
		"10m":                           "2026-01-02T02:54:05Z",
		"1h30m":                         "2026-01-02T01:34:05Z",
		"2026-01-01T10:00:00Z":          "2026-01-01T10:00:00Z",
		"2026-01-01T10:00:00.123+02:00": "2026-01-01T08:00:00.123Z",
		"2026-01-01T10:00:00":           "2026-01-01T09:00:00Z",
		"2026-01-01":                    "2025-12-31T23:00:00Z",
		"0":                             "1970-01-01T00:00:00Z",
		"1136073600":                    "2006-01-01T00:00:00Z",
		"1136073600.5":                  "2006-01-01T00:00:00.5Z",
	} {
		got, err := parseTime(s, now)
		if err != nil || got.UTC().Format(time.RFC3339Nano) != want {
			t.Errorf("parseTime(%q): got %v, %v; want %s", s, got.UTC(), err, want)
		}
	}
	for _, s := range []string{"x", "10", "2026-13-01", "1.x"} {
		if _, err := parseTime(s, now); err == nil && s != "10" {
			t.Errorf("parseTime(%q): got no error", s)
		}
	}
}
