package wire

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// The kernel's numbers of linux/pkt_sched.h and linux/rtnetlink.h.
const (
	tcaKind, tcaOptions                = 1, 2    // TCA_*
	tbfParms, tbfRate64, tbfBurst      = 1, 4, 6 // TCA_TBF_*
	atRoot, tbfHandle                  = 0xffffffff, 1 << 16
	sizeofTcmsg, sizeofTbfQopt, ofSpec = 20, 36, 12
	rateAt, limitAt, linkLayerAt       = 8, 24, 1 // in struct tc_tbf_qopt
	linkLayerEthernet                  = 1        // TC_LINKLAYER_ETHERNET
)

func tcmsg(index int) []byte {
	b := make([]byte, sizeofTcmsg)
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	binary.NativeEndian.PutUint32(b[8:], tbfHandle)
	binary.NativeEndian.PutUint32(b[12:], atRoot)
	return b
}

// rate puts a token bucket in the place of a link's queue, or takes it away. What doesn't fit waits in a queue of a tenth of a second.
func (w *Executor) rate(op *plan.LinkRate) error {
	c, err := w.connAt(op.Inside)
	if err != nil {
		return err
	}
	if err := CheckName(op.Link); err != nil {
		return err
	}
	l, err := c.Link(op.Link, 0)
	if err != nil {
		return err
	}
	var r request
	if op.Rate == 0 {
		r.message(unix.RTM_DELQDISC, unix.NLM_F_ACK, tcmsg(l.Index)...)
		// The kernel's own queue can't be removed: there is no bound then.
		if err := c.do(&r, nil); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
			return err
		}
		return nil
	}
	if op.Rate < 0 || op.Burst <= 0 || op.Burst > 1<<31 {
		return fmt.Errorf("a rate of %d bytes per second with %d at once", op.Rate, op.Burst)
	}
	r.message(unix.RTM_NEWQDISC, unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_REPLACE, tcmsg(l.Index)...)
	r.str(tcaKind, "tbf")
	r.nest(tcaOptions, func() {
		q := make([]byte, sizeofTbfQopt)
		q[linkLayerAt] = linkLayerEthernet
		binary.NativeEndian.PutUint32(q[rateAt:], uint32(min(op.Rate, 1<<32-1)))
		binary.NativeEndian.PutUint32(q[limitAt:], uint32(min(op.Rate/10+op.Burst, 1<<31)))
		r.attr(tbfParms, q...)
		if op.Rate >= 1<<32 {
			r.attr(tbfRate64, binary.NativeEndian.AppendUint64(nil, uint64(op.Rate))...)
		}
		r.u32(tbfBurst, uint32(op.Burst))
	})
	err = c.do(&r, nil)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("this kernel has no token buckets (CONFIG_NET_SCH_TBF; modprobe sch_tbf, where it is a module): %w", err)
	}
	return err
}

// Rates gives the bounds of links by index, in bytes per second, of the namespace that a descriptor stands for, or of this thread's
// where it is negative.
func Rates(netns int) (map[int]int64, error) {
	c, err := dialAt(netns)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	out := map[int]int64{}
	var r request
	r.message(unix.RTM_GETQDISC, unix.NLM_F_DUMP, make([]byte, sizeofTcmsg)...)
	err = c.dump(&r, func() { clear(out) }, func(_ uint16, body []byte) error {
		if len(body) < sizeofTcmsg {
			return nil
		}
		kind, rate := "", int64(0)
		for typ, data := range attrs(body[sizeofTcmsg:]) {
			switch typ {
			case tcaKind:
				kind = cstring(data)
			case tcaOptions:
				for typ, data := range attrs(data) {
					switch {
					case typ == tbfParms && len(data) >= rateAt+4 && rate == 0:
						rate = int64(binary.NativeEndian.Uint32(data[rateAt:]))
					case typ == tbfRate64 && len(data) == 8:
						rate = int64(binary.NativeEndian.Uint64(data))
					}
				}
			}
		}
		if kind == "tbf" {
			out[int(int32(nativeU32(body[4:])))] = rate
		}
		return nil
	})
	return out, err
}
