package plan

import (
	"fmt"
	"strings"
)

// newGuardOp makes an empty step of one of the kinds of this file, or nil: what a port of a bridge may say of itself.
func newGuardOp(kind string) Op {
	switch kind {
	case "nft-guard":
		return &NftGuard{}
	case "nft-unguard":
		return &NftUnguard{}
	}
	return nil
}

// NftGuard writes down which hardware address and which IP addresses are behind a port of a bridge, in the sets of the bridge's table of
// family bridge: other frames from there are dropped. It comes before the port, so that there is no moment without.
type NftGuard struct {
	Table     string   `json:"table"`
	Link      string   `json:"link"`
	MAC       string   `json:"mac"`
	Addresses []string `json:"addresses"`
}

func (*NftGuard) Kind() string { return "nft-guard" }

func (*NftGuard) Man() string { return "nft(8)" }

func (o *NftGuard) String() string {
	return fmt.Sprintf("take from %s only frames of %s with %s", o.Link, o.MAC, strings.Join(o.Addresses, ", "))
}

func (*NftGuard) lanes() lanes { return hostLane }

func (o *NftGuard) hostNames() []string { return []string{"nft table bridge " + o.Table} }

// Undo takes the entries out again.
func (o *NftGuard) Undo() []Op {
	return []Op{&NftUnguard{Table: o.Table, Link: o.Link, MAC: o.MAC, Addresses: o.Addresses}}
}

// NftUnguard takes out what an NftGuard wrote. What is gone already is no error.
type NftUnguard struct {
	Table     string   `json:"table"`
	Link      string   `json:"link"`
	MAC       string   `json:"mac"`
	Addresses []string `json:"addresses"`
}

func (*NftUnguard) Kind() string { return "nft-unguard" }

func (*NftUnguard) Man() string { return "nft(8)" }

func (o *NftUnguard) String() string { return "forget what comes from " + o.Link }

func (*NftUnguard) lanes() lanes { return hostLane }

func (o *NftUnguard) hostNames() []string { return []string{"nft table bridge " + o.Table} }
