package wire

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// The expressions of which rules are made (see compile_linux.go), as nf_tables wants them.

func (r *request) meta(key, register uint32) {
	r.expr("meta", func() {
		r.be32(unix.NFTA_META_KEY, key)
		r.be32(unix.NFTA_META_DREG, register)
	})
}

func (r *request) payload(base, offset, n, register uint32) {
	r.expr("payload", func() {
		r.be32(unix.NFTA_PAYLOAD_DREG, register)
		r.be32(unix.NFTA_PAYLOAD_BASE, base)
		r.be32(unix.NFTA_PAYLOAD_OFFSET, offset)
		r.be32(unix.NFTA_PAYLOAD_LEN, n)
	})
}

// addressField loads the first n bytes of the source or destination from the header of IPv4 or IPv6.
func (r *request) addressField(version, field string, n, register uint32) {
	offset, size := uint32(12), uint32(4)
	if version == "ip6" {
		offset, size = 8, 16
	}
	if field == "daddr" {
		offset += size
	}
	r.payload(unix.NFT_PAYLOAD_NETWORK_HEADER, offset, n, register)
}

func (r *request) cmp(op uint32, data []byte) {
	r.expr("cmp", func() {
		r.be32(unix.NFTA_CMP_SREG, reg1)
		r.be32(unix.NFTA_CMP_OP, op)
		r.value(unix.NFTA_CMP_DATA, data)
	})
}

// mask does register 1 &= mask.
func (r *request) mask(n uint32, mask []byte) {
	r.expr("bitwise", func() {
		r.be32(unix.NFTA_BITWISE_SREG, reg1)
		r.be32(unix.NFTA_BITWISE_DREG, reg1)
		r.be32(unix.NFTA_BITWISE_LEN, n)
		r.value(unix.NFTA_BITWISE_MASK, mask)
		r.value(unix.NFTA_BITWISE_XOR, make([]byte, n))
	})
}

// ct goes on if a field of the connection has any of the bits.
func (r *request) ct(key, bits uint32) {
	r.expr("ct", func() {
		r.be32(unix.NFTA_CT_KEY, key)
		r.be32(unix.NFTA_CT_DREG, reg1)
	})
	r.mask(4, binary.NativeEndian.AppendUint32(nil, bits))
	r.cmp(unix.NFT_CMP_NEQ, make([]byte, 4))
}

// expr adds an expression to the list under construction.
func (r *request) expr(name string, body func()) {
	r.nested(unix.NFTA_LIST_ELEM, func() {
		r.str(unix.NFTA_EXPR_NAME, name)
		r.nested(unix.NFTA_EXPR_DATA, body)
	})
}

// value adds an attribute that holds data to compare with or to store.
func (r *request) value(typ uint16, data []byte) {
	r.nested(typ, func() { r.attr(unix.NFTA_DATA_VALUE, data...) })
}
