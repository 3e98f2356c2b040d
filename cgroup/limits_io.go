package cgroup

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Limits of block devices, huge pages, RDMA devices, and marks of network packets.

func (w *writer) blockIO(b *specs.LinuxBlockIO) {
	const at = resources + "blockIO/"
	if b.Weight != nil && *b.Weight != 0 {
		w.ioWeight("", *b.Weight, at+"weight")
	}
	if b.LeafWeight != nil && *b.LeafWeight != 0 {
		w.leafWeight("", *b.LeafWeight, at+"leafWeight")
	}
	for i, d := range b.WeightDevice {
		pointer := fmt.Sprintf("%sweightDevice/%d", at, i)
		device := fmt.Sprintf("%d:%d ", d.Major, d.Minor)
		if d.Weight != nil && *d.Weight != 0 {
			w.ioWeight(device, *d.Weight, pointer)
		}
		if d.LeafWeight != nil && *d.LeafWeight != 0 {
			w.leafWeight(device, *d.LeafWeight, pointer+"/leafWeight")
		}
	}
	for _, t := range []struct {
		field, v1, v2 string
		devices       []specs.LinuxThrottleDevice
		reason        string
	}{
		{"throttleReadBpsDevice", "read_bps_device", "rbps", b.ThrottleReadBpsDevice, "Bytes read from this device in a second."},
		{"throttleWriteBpsDevice", "write_bps_device", "wbps", b.ThrottleWriteBpsDevice, "Bytes written to this device in a second."},
		{"throttleReadIOPSDevice", "read_iops_device", "riops", b.ThrottleReadIOPSDevice, "Reads from this device in a second."},
		{"throttleWriteIOPSDevice", "write_iops_device", "wiops", b.ThrottleWriteIOPSDevice, "Writes to this device in a second."},
	} {
		for i, d := range t.devices {
			pointer := fmt.Sprintf("%s%s/%d", at, t.field, i)
			p := w.find("blkio", pointer)
			switch {
			case p == nil:
			case !p.v2:
				p.write("blkio.throttle."+t.v1, fmt.Sprintf("%d:%d %d", d.Major, d.Minor, d.Rate), pointer, t.reason)
			case d.Rate == 0: // takes the limit away, as on v1
				p.write("io.max", fmt.Sprintf("%d:%d %s=max", d.Major, d.Minor, t.v2), pointer, t.reason)
			default:
				p.write("io.max", fmt.Sprintf("%d:%d %s=%d", d.Major, d.Minor, t.v2, d.Rate), pointer, t.reason)
			}
		}
	}
}

// ioWeight writes the weight of all devices, or of the one that prefix names. On v2 two mechanisms know weights: the scheduler
// BFQ, with the scale of the OCI specification, and io.cost, with 1 to 10000.
func (w *writer) ioWeight(prefix string, weight uint16, pointer string) {
	if weight < 10 || weight > 1000 {
		w.fail(pointer, "weight %d isn't between 10 and 1000", weight)
		return
	}
	const why = "Share of the disk's time when others want it, too (disks with the scheduler BFQ)."
	p := w.find("blkio", pointer)
	switch {
	case p == nil:
	case !p.v2 && slices.Contains(p.files, "blkio.weight"): // CFQ, before Linux 5.0
		p.write("blkio.weight"+deviceSuffix(prefix), prefix+strconv.Itoa(int(weight)), pointer,
			"Share of the disk's time when others want it, too (disks with the scheduler CFQ).")
	case !p.v2 && prefix != "":
		if !slices.Contains(p.files, "blkio.bfq.weight") {
			w.fail(pointer, "this kernel's controller blkio has no file blkio.bfq.weight_device")
			return
		}
		p.write("blkio.bfq.weight_device", prefix+strconv.Itoa(int(weight)), pointer, why)
	case !p.v2:
		p.write("blkio.bfq.weight", weight, pointer, why)
	case slices.Contains(p.files, "io.weight") && !slices.Contains(p.files, "io.bfq.weight"):
		p.write("io.weight", cmp.Or(prefix, "default ")+strconv.FormatUint(ioCostWeight(weight), 10), pointer,
			"Share of the disk's time when others want it, too (disks with io.cost).")
	default:
		p.write("io.bfq.weight", prefix+strconv.Itoa(int(weight)), pointer, why)
	}
}

// leafWeight writes the weight of a group's own processes against those of the groups below it, which only CFQ knew.
func (w *writer) leafWeight(prefix string, weight uint16, pointer string) {
	p := w.find("blkio", pointer)
	switch {
	case weight < 10 || weight > 1000:
		w.fail(pointer, "weight %d isn't between 10 and 1000", weight)
	case p == nil:
	case p.v2 || !slices.Contains(p.files, "blkio.weight"):
		w.fail(pointer, "it belonged to the I/O scheduler CFQ, which Linux 5.0 removed")
	default:
		p.write("blkio.leaf_weight"+deviceSuffix(prefix), prefix+strconv.Itoa(int(weight)), pointer,
			"Share of the disk's time of the container's processes against those in cgroups below (disks with the scheduler CFQ).")
	}
}

// deviceSuffix is the end of the name of the file with the weights of single devices.
func deviceSuffix(prefix string) string {
	if prefix == "" {
		return ""
	}
	return "_device"
}

func (w *writer) hugetlb(limits []specs.LinuxHugepageLimit) {
	for i, l := range limits {
		pointer := fmt.Sprintf("%shugepageLimits/%d", resources, i)
		if !pageSize(l.Pagesize) {
			w.fail(pointer+"/pageSize", "%q isn't a page size like 64KB, 2MB or 1GB", l.Pagesize)
			continue
		}
		p := w.find("hugetlb", pointer)
		if p == nil {
			continue
		}
		suffix := "limit_in_bytes"
		if p.v2 {
			suffix = "max"
		}
		p.write("hugetlb."+l.Pagesize+"."+suffix, l.Limit, pointer, "Huge pages that may be in use, in bytes.")
		// Both: mmap(2) tells a program of a limit of reservations (Linux 5.7), while that of usage kills it at an access (SIGBUS).
		p.write("hugetlb."+l.Pagesize+".rsvd."+suffix, l.Limit, pointer,
			"Huge pages that may be reserved, in bytes: mmap fails instead of a later access.")
	}
}

func pageSize(s string) bool {
	digits := strings.TrimRight(s, "KMGB")
	_, err := strconv.ParseUint(digits, 10, 32)
	return err == nil && slices.Contains([]string{"KB", "MB", "GB"}, s[len(digits):])
}

func (w *writer) rdma(limits map[string]specs.LinuxRdma) {
	for _, device := range slices.Sorted(maps.Keys(limits)) {
		pointer := resources + "rdma/" + escape(device)
		if device == "" || strings.ContainsAny(device, " \t\n\x00") {
			w.fail(pointer, "%q isn't the name of a device", device)
			continue
		}
		v, l := device, limits[device]
		if l.HcaHandles != nil {
			v += fmt.Sprintf(" hca_handle=%d", *l.HcaHandles)
		}
		if l.HcaObjects != nil {
			v += fmt.Sprintf(" hca_object=%d", *l.HcaObjects)
		}
		if v == device {
			continue
		}
		if p := w.find("rdma", pointer); p != nil {
			p.write("rdma.max", v, pointer, "Resources of this RDMA device that may be in use.")
		}
	}
}

func (w *writer) network(n *specs.LinuxNetwork) {
	const at = resources + "network/"
	v1 := func(controller, file string, v any, pointer, reason string) {
		if p := w.find(controller, pointer); p != nil {
			p.write(file, v, pointer, reason)
		}
	}
	if n.ClassID != nil && (*n.ClassID != 0 || w.old != nil) {
		v1("net_cls", "net_cls.classid", *n.ClassID, at+"classID", "Marks packets of the container for tc and nftables.")
	}
	for i, p := range n.Priorities {
		pointer := fmt.Sprintf("%spriorities/%d", at, i)
		if p.Name == "" || strings.ContainsAny(p.Name, " \t\n\x00") {
			w.fail(pointer+"/name", "%q isn't the name of an interface", p.Name)
			continue
		}
		v1("net_prio", "net_prio.ifpriomap", fmt.Sprintf("%s %d", p.Name, p.Priority), pointer,
			"Priority of packets that leave by this interface.")
	}
}
