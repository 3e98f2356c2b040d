// Package testcontainers drives testcontainers-go as its users do: see test/clients.sh.
package testcontainers

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	testcontainers "github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/wait"
)

func TestContainer(t *testing.T) {
	ctx := context.Background()
	c, err := testcontainers.GenericContainer(ctx, testcontainers.GenericContainerRequest{
		Started: true,
		ContainerRequest: testcontainers.ContainerRequest{
			Image: "box", Cmd: []string{"sh", "-c", "echo ready to serve; while true; do sleep 1; done"}, Env: map[string]string{"A": "b"},
			WaitingFor: wait.ForLog("ready to serve").WithStartupTimeout(20 * time.Second), ExposedPorts: []string{"80/tcp"},
			Files: []testcontainers.ContainerFile{{Reader: strings.NewReader("content"), ContainerFilePath: "/tmp/x", FileMode: 0o644}},
		},
	})
	testcontainers.CleanupContainer(t, c)
	if err != nil {
		t.Fatal(err)
	}
	code, r, err := c.Exec(ctx, []string{"cat", "/tmp/x"})
	if err != nil || code != 0 {
		t.Fatalf("exec: got %d, %v", code, err)
	}
	if text, err := io.ReadAll(r); err != nil || !strings.Contains(string(text), "content") {
		t.Errorf("got %q, %v", text, err)
	}
	if p, err := c.MappedPort(ctx, "80/tcp"); err != nil || p.Num() == 0 {
		t.Errorf("port: got %v, %v", p, err)
	}
	logs, err := c.Logs(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(logs); err != nil || !strings.Contains(string(text), "ready to serve") {
		t.Errorf("logs: got %q, %v", text, err)
	}
	if s, err := c.State(ctx); err != nil || !s.Running {
		t.Errorf("got %+v, %v", s, err)
	}
}
