package image

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// helperPull runs a pull in another process: this test binary with an environment variable.
func helperPull(t *testing.T, root, ref string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestHelperPull$")
	cmd.Env = append(os.Environ(), "GLASSBOX_TEST_PULL="+root+" "+ref)
	cmd.Stderr = os.Stderr
	return cmd
}

func TestHelperPull(t *testing.T) {
	root, ref, ok := strings.Cut(os.Getenv("GLASSBOX_TEST_PULL"), " ")
	if !ok {
		return // run by other tests, as a process of its own
	}
	s, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Pull(t.Context(), ref, quick()); err != nil {
		t.Fatal(err)
	}
}

func TestPullTwoProcesses(t *testing.T) {
	r, s := newRegistry(t), openStore(t)
	m, _ := r.push(t, "x", "latest", amd64(),
		layerData{tar: tarOf(t, fileE("a", randomBody(1<<20)))}, layerData{tar: tarOf(t, fileE("d/b", randomBody(1<<20)))})
	var cmds []*exec.Cmd
	for range 2 {
		c := helperPull(t, s.root, r.host()+"/x")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		cmds = append(cmds, c)
	}
	for _, c := range cmds {
		if err := c.Wait(); err != nil {
			t.Errorf("process: %v", err)
		}
	}
	img, err := s.Resolve(r.host() + "/x")
	if err != nil || len(img.Layers) != 2 {
		t.Fatalf("image %+v, %v", img, err)
	}
	if n := r.gets["/v2/x/blobs/"+string(m.Layers[0].Digest)]; n != 1 {
		t.Errorf("layer fetched %d times by two processes, want once", n)
	}
	if c, err := s.Collect(CollectOptions{}); err != nil || c.Ingests+c.Orphans != 0 {
		t.Errorf("Collect found %+v, %v", c, err)
	}
}

// A pull killed at any moment leaves nothing half-visible, and the next one succeeds.
func TestPullKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("slow")
	}
	r := newRegistry(t)
	var many []e
	for i := range 300 {
		many = append(many, fileE(fmt.Sprintf("d/%d", i), randomBody(5000)))
	}
	r.push(t, "x", "latest", amd64(), layerData{tar: tarOf(t, many...)}, layerData{tar: tarOf(t, fileE("b", randomBody(1<<20)))},
		layerData{tar: tarOf(t, dirE("d", 0o700), fileE("d/.wh.1", ""))})
	s := openStore(t)
	killed := 0
	for i := range 16 {
		// Killed at its first request, its second and so on, and then at the first again: as it waits for the rest of an answer, or a while
		// after it
		// has all of it. What earlier pulls left may spare it the last requests.
		at, wait := 1+i/2%8, i%2 == 0
		reached := make(chan bool)
		var requests atomic.Int32
		r.hook = func(w http.ResponseWriter, q *http.Request) bool {
			if int(requests.Add(1)) != at {
				return false
			}
			if wait {
				answer := httptest.NewRecorder()
				r.serve(answer, q)
				maps.Copy(w.Header(), answer.Header())
				w.WriteHeader(answer.Code)
				w.Write(answer.Body.Bytes()[:answer.Body.Len()/2])
				w.(http.Flusher).Flush()
			}
			close(reached)
			if wait {
				<-q.Context().Done()
			}
			return wait
		}
		c := helperPull(t, s.root, r.host()+"/x")
		c.Stderr = nil
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- c.Wait() }()
		select {
		case <-reached:
			time.Sleep(time.Duration(rand.IntN(40)) * time.Millisecond)
			c.Process.Kill()
			if <-ended != nil {
				killed++
			} else if wait {
				t.Errorf("a pull ended without the rest of answer %d", at)
			}
		case err := <-ended:
			if err != nil {
				t.Errorf("a pull that nobody killed: %v", err)
			}
		}
		col, err := s.Collect(CollectOptions{OrphanAge: time.Duration(i/2%2) * time.Hour})
		if err != nil {
			t.Fatalf("collect: %v", err)
		}
		t.Logf("collected %+v", col)
		if _, err := os.Stat(filepath.Join(s.root, "store.json")); os.IsNotExist(err) {
			continue // killed before there was a store: whoever makes it finds what is left
		}
		for _, p := range []string{"layers/in.*", "layers/rm.*", "image/images/.*", "image/.tmp*", "image/layers/.tmp*"} {
			if m, _ := filepath.Glob(filepath.Join(s.root, p)); len(m) > 0 {
				t.Errorf("after Collect: %v", m)
			}
		}
		list, err := s.List()
		if err != nil {
			t.Fatal(err)
		}
		for _, img := range list {
			checkImage(t, s, img, 299)
		}
		if len(list) > 0 {
			if _, err := s.Remove(list[0].ID, RemoveOptions{Force: true}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if killed == 0 {
		t.Error("no pull was killed")
	}
	r.hook = nil
	img, err := s.Pull(t.Context(), r.host()+"/x", quick())
	if err != nil {
		t.Fatal(err)
	}
	checkImage(t, s, img, 299)
}

func checkImage(t *testing.T, s *Store, img *Image, files int) {
	t.Helper()
	n := 0
	for i := range files + 1 {
		if b, err := img.ReadFile(s.root, fmt.Sprintf("/d/%d", i), 1<<20); err == nil && len(b) == 5000 {
			n++
		}
	}
	if n != files {
		t.Errorf("image has %d whole files, want %d", n, files)
	}
}
