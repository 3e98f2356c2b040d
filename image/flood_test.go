package image

import (
	"archive/tar"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
)

// flood writes an archive while it is read: no memory holds it.
func flood(t *testing.T, write func(w io.Writer) error) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() { r.Close(); <-ended })
	go func() {
		defer close(ended)
		defer w.Close()
		z, _ := gzip.NewWriterLevel(w, gzip.BestSpeed)
		if write(z) == nil { // else whoever reads has had enough
			z.Close()
		}
	}()
	return r
}

// rawHeader is a tar header that says of itself what it likes.
func rawHeader(t *testing.T, typ byte, size int64) []byte {
	t.Helper()
	raw := tarOf(t, e{name: "x", typ: tar.TypeReg, mode: 0o600})[:512]
	copy(raw[124:136], fmt.Sprintf("%011o\x00", size))
	raw[156] = typ
	copy(raw[148:156], "        ")
	sum := 0
	for _, b := range raw {
		sum += int(b)
	}
	copy(raw[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return raw
}

// TestFloods: archives of a million entries, and headers that are larger than any that somebody has written, end load and import with an
// error, without the memory that they ask for, and leave nothing.
func TestFloods(t *testing.T) {
	needRoot(t)
	empty := tarOf(t, e{name: "f", mode: 0o644})[:512]
	names := func(w io.Writer) error {
		tw := tar.NewWriter(w)
		for i := range 1_000_000 {
			if err := tw.WriteHeader(&tar.Header{Name: fmt.Sprint(i), Typeflag: tar.TypeReg, Mode: 0o644}); err != nil {
				return err
			}
		}
		return tw.Close()
	}
	same := func(w io.Writer) error {
		for range 1_000_000 {
			if _, err := w.Write(empty); err != nil {
				return err
			}
		}
		return nil
	}
	giant := func(typ byte) func(io.Writer) error {
		head, block := rawHeader(t, typ, 4<<30), make([]byte, 1<<20)
		return func(w io.Writer) error {
			_, err := w.Write(head)
			for i := 0; i < 100 && err == nil; i++ {
				_, err = w.Write(block)
			}
			return err
		}
	}
	for name, write := range map[string]func(io.Writer) error{
		"a million names": names, "one name a million times": same, "a PAX header of 4 GB": giant(tar.TypeXHeader),
		"a global PAX header of 4 GB": giant(tar.TypeXGlobalHeader), "a long name of 4 GB": giant(tar.TypeGNULongName),
		"a long link of 4 GB": giant(tar.TypeGNULongLink),
	} {
		for _, verb := range []string{"load", "import"} {
			t.Run(verb+" "+name, func(t *testing.T) {
				s := openStore(t)
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				in := flood(t, write)
				var err error
				if verb == "load" {
					_, err = s.Load(t.Context(), in, LoadOptions{})
				} else {
					_, err = s.Import(t.Context(), in, ImportOptions{Name: "new:1", Limits: Limits{Entries: 20_000}})
				}
				runtime.ReadMemStats(&after)
				if err == nil {
					t.Error("it was taken")
				} else if len(err.Error()) > 500 || strings.Contains(err.Error(), "\n\n") {
					t.Errorf("these are many words: %.2000v", err)
				}
				// What all allocations together took, also those that were given back at once.
				if mb := (after.TotalAlloc - before.TotalAlloc) >> 20; mb > 600 {
					t.Errorf("%d MB were allocated", mb)
				}
				in.Close()
				nothingLeft(t, s)
			})
		}
	}
}
