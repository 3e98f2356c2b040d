package state

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func readJournal(t *testing.T, j Journal) (lines []string) {
	t.Helper()
	if err := j.Read(t.Context(), false, func(line []byte) error {
		lines = append(lines, string(line))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return lines
}

// TestJournalKilledWriter: a line that was written only in part spoils no other.
func TestJournalKilledWriter(t *testing.T) {
	j := Journal{Path: filepath.Join(t.TempDir(), "state", "events"), Max: 1 << 20}
	if err := j.Append([]byte("one"), []byte("two")); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(j.Path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString("\nhal")
	f.Close()
	if err := j.Append([]byte("three")); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"one", "two", "hal", "three"}, readJournal(t, j)); d != "" {
		t.Error(d)
	}
}

// TestJournalManyWriters: several write at once while the file changes its name again and again, and a follower gets each line once, whole,
// and those of one writer in its order.
func TestJournalManyWriters(t *testing.T) {
	const writers, each = 8, 400
	j := Journal{Path: filepath.Join(t.TempDir(), "events"), Max: 16 << 10}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	next := map[string]int{}
	got := 0
	done := make(chan error, 1)
	first := make(chan bool)
	go func() {
		done <- j.Read(ctx, true, func(line []byte) error {
			var who string
			var n int
			if _, err := fmt.Sscanf(string(line), "%s %d "+strings.Repeat("x", 40), &who, &n); err != nil {
				return fmt.Errorf("%q: %w", line, err)
			}
			if who == "begin" {
				close(first)
				return nil
			}
			if n != next[who] {
				return fmt.Errorf("writer %s: line %d after %d", who, n, next[who]-1)
			}
			next[who]++
			if got++; got == writers*each {
				cancel()
			}
			return nil
		})
	}()
	line := func(who string, n int) []byte { return fmt.Appendf(nil, "%s %d %s", who, n, strings.Repeat("x", 40)) }
	if err := j.Append(line("begin", 0)); err != nil {
		t.Fatal(err)
	}
	<-first
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for n := range each {
				if err := j.Append(line(fmt.Sprint("w", w), n)); err != nil {
					t.Error(err)
				}
				time.Sleep(100 * time.Microsecond) // as fast as nobody starts containers, and slow enough for a follower
			}
		})
	}
	all.Wait()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got != writers*each {
		t.Errorf("%d lines followed, want %d", got, writers*each)
	}
	entries, _ := os.ReadDir(filepath.Dir(j.Path))
	size := int64(0)
	for _, e := range entries {
		st, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		size += st.Size()
	}
	if len(entries) > 2 || size > 2*j.Max+4096 {
		t.Errorf("%d files with %d bytes, want two with twice %d", len(entries), size, j.Max)
	}
}
