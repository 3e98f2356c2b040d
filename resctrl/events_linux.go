package resctrl

import (
	"os"
	"path/filepath"
	"strings"
)

// Events are figures of a resource class as the command events of an OCI runtime prints them: their JSON has runc's names and order.
// What the host doesn't have is missing.
type Events struct {
	CacheInfo           *CacheInfo  `json:"l3_cache_info,omitempty"`
	CacheSchemaRoot     string      `json:"l3_cache_schema_root,omitempty"` // of the default class
	CacheSchema         string      `json:"l3_cache_schema,omitempty"`
	BandwidthInfo       *MemoryInfo `json:"mem_bw_info,omitempty"`
	BandwidthSchemaRoot string      `json:"mem_bw_schema_root,omitempty"`
	BandwidthSchema     string      `json:"mem_bw_schema,omitempty"`
	Bandwidth           []Traffic   `json:"mbm_stats,omitempty"` // by cache
	Occupancy           []Occupied  `json:"cmt_stats,omitempty"` // by cache
}

// CacheInfo says how the L3 cache can be shared out.
type CacheInfo struct {
	CbmMask    string `json:"cbm_mask,omitempty"`
	MinCbmBits uint64 `json:"min_cbm_bits,omitempty"`
	NumClosids uint64 `json:"num_closids,omitempty"`
}

// MemoryInfo says how the memory's bandwidth can be shared out.
type MemoryInfo struct {
	BandwidthGran uint64 `json:"bandwidth_gran,omitempty"`
	DelayLinear   uint64 `json:"delay_linear,omitempty"`
	MinBandwidth  uint64 `json:"min_bandwidth,omitempty"`
	NumClosids    uint64 `json:"num_closids,omitempty"`
}

// Traffic is what went between an L3 cache and the memory, in bytes since the group was made.
type Traffic struct {
	Total uint64 `json:"mbm_total_bytes"`
	Local uint64 `json:"mbm_local_bytes"`
}

// Occupied is what the group has in an L3 cache, in bytes.
type Occupied struct {
	Bytes uint64 `json:"llc_occupancy"`
}

// ReadEvents reads the figures of a container: of its monitoring group, or where it has none of its class. It is the zero value
// for a container without a class.
func ReadEvents(p Place) (Events, error) {
	var e Events
	if p.Class == "" {
		return e, nil
	}
	schemata, err := os.ReadFile(filepath.Join(p.Class, "schemata"))
	if err != nil {
		return e, err
	}
	top := root(p.Class)
	all, err := os.ReadFile(filepath.Join(top, "schemata"))
	if err != nil {
		return e, err
	}
	number := func(file string) uint64 {
		n, _ := parseNumber(word(filepath.Join(top, "info", file)), 10)
		return n
	}
	// With CDP a cache has two lines, and its two parts are told of alike.
	for _, name := range []string{"L3", "L3CODE"} {
		if mask := word(filepath.Join(top, "info", name, "cbm_mask")); mask != "" {
			e.CacheInfo = &CacheInfo{CbmMask: mask, MinCbmBits: number(name + "/min_cbm_bits"), NumClosids: number(name + "/num_closids")}
			e.CacheSchemaRoot, e.CacheSchema = linesOf(string(all), "L3"), linesOf(string(schemata), "L3")
		}
	}
	if n := number("MB/num_closids"); n > 0 {
		e.BandwidthInfo = &MemoryInfo{
			BandwidthGran: number("MB/bandwidth_gran"), DelayLinear: number("MB/delay_linear"),
			MinBandwidth: number("MB/min_bandwidth"), NumClosids: n,
		}
		e.BandwidthSchemaRoot, e.BandwidthSchema = linesOf(string(all), "MB:"), linesOf(string(schemata), "MB:")
	}
	group := p.Monitor
	if group == "" {
		group = p.Class
	}
	caches, _ := filepath.Glob(filepath.Join(group, "mon_data/mon_L3_*"))
	for _, dir := range caches {
		value := func(file string) (uint64, bool) {
			text := word(filepath.Join(dir, file))
			n, _ := parseNumber(text, 10) // "Unavailable" counts as nothing
			return n, text != ""
		}
		total, ok1 := value("mbm_total_bytes")
		local, ok2 := value("mbm_local_bytes")
		if ok1 || ok2 {
			e.Bandwidth = append(e.Bandwidth, Traffic{total, local})
		}
		if n, ok := value("llc_occupancy"); ok {
			e.Occupancy = append(e.Occupancy, Occupied{n})
		}
	}
	return e, nil
}

// linesOf returns the lines of a schemata file that begin with a prefix.
func linesOf(schemata, prefix string) string {
	var out []string
	for line := range strings.Lines(schemata) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, prefix) {
			out = append(out, line)
		}
	}
	return strings.Join(out, "\n")
}
