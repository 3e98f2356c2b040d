package supervise

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"glassbox/dns"
	"glassbox/state"
	"glassbox/wire"
)

// RefusedFile, in the container's directory, lists the names that its resolver refused because of a wall: a line of the time in seconds,
// how often, and the name.
const RefusedFile = "refused"

// mostNames is how many refused names are remembered: those of the last times.
const mostNames = 256

// openWall lets the container through a wall.
func openWall(table string, addrs []netip.Addr, doors []dns.Door, life time.Duration) error {
	open := make([]wire.Door, len(doors))
	for i, d := range doors {
		open[i] = wire.Door{Proto: d.Proto, Port: d.Port}
	}
	return wire.OpenDoors(table, addrs, open, life)
}

// A RefusedName is a name that was asked for in vain.
type RefusedName struct {
	Name  string
	Count uint64
	Last  time.Time
}

// refusals remembers refused names, and writes them down at most once a second, whatever the container asks.
type refusals struct {
	file    string
	mu      sync.Mutex
	names   map[string]RefusedName
	waiting bool
}

func (r *refusals) add(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.names == nil {
		r.names = map[string]RefusedName{}
		for _, n := range ReadRefused(filepath.Dir(r.file)) { // of this start, before the supervisor began anew
			r.names[n.Name] = n
		}
	}
	n := r.names[name]
	r.names[name] = RefusedName{Name: name, Count: n.Count + 1, Last: time.Now()}
	// The container decides how many names it asks for: without a bound its questions would fill the supervisor's memory.
	if len(r.names) > mostNames {
		oldest := ""
		for name, n := range r.names {
			if oldest == "" || n.Last.Before(r.names[oldest].Last) {
				oldest = name
			}
		}
		delete(r.names, oldest)
	}
	if !r.waiting {
		r.waiting = true
		time.AfterFunc(time.Second, r.write)
	}
}

func (r *refusals) write() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting = false
	var b []byte
	for _, n := range r.names {
		b = fmt.Appendf(b, "%d %d %q\n", n.Last.Unix(), n.Count, n.Name)
	}
	_ = state.WriteFile(r.file, b, 0o600) // a full disk: the names are told with the next ones
}

// ReadRefused reads the names that a container's resolver refused, the last ones first.
func ReadRefused(dir string) []RefusedName {
	data, err := os.ReadFile(filepath.Join(dir, RefusedFile))
	if err != nil {
		return nil
	}
	var out []RefusedName
	for line := range strings.Lines(string(data)) {
		f := strings.SplitN(strings.TrimSpace(line), " ", 3)
		if len(f) != 3 {
			continue
		}
		last, err := strconv.ParseInt(f[0], 10, 64)
		count, err2 := strconv.ParseUint(f[1], 10, 64)
		name, err3 := strconv.Unquote(f[2])
		if err == nil && err2 == nil && err3 == nil {
			out = append(out, RefusedName{Name: name, Count: count, Last: time.Unix(last, 0)})
		}
	}
	slices.SortFunc(out, func(a, b RefusedName) int { return b.Last.Compare(a.Last) })
	return out
}
