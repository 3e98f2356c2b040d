package plan

import (
	"fmt"
	"strings"
)

// newNameOp makes an empty step of one of the kinds of this file, or nil: the names by which containers of a network find each other.
func newNameOp(kind string) Op {
	switch kind {
	case "name-add":
		return &NameAdd{}
	case "name-remove":
		return &NameRemove{}
	case "name-listen":
		return &NameListen{}
	}
	return nil
}

// NameAdd makes a container known to the others of a network: in Dir, where their resolvers look, each name is a directory with a symbolic
// link of the container's, whose target is its addresses.
type NameAdd struct {
	Dir       string   `json:"dir"`
	Owner     string   `json:"owner"` // the container's id
	Names     []string `json:"names"`
	Addresses []string `json:"addresses"`
}

func (*NameAdd) Kind() string { return "name-add" }

func (*NameAdd) Man() string { return "symlink(2)" }

func (o *NameAdd) String() string {
	return fmt.Sprintf("make %s known as %s", strings.Join(o.Addresses, ", "), strings.Join(o.Names, ", "))
}

func (*NameAdd) lanes() lanes { return hostLane }

func (o *NameAdd) hostNames() []string { return []string{o.Dir} }

// Undo takes the names back.
func (o *NameAdd) Undo() []Op {
	return []Op{&NameRemove{Dir: o.Dir, Owner: o.Owner, Names: o.Names, Addresses: o.Addresses}}
}

// NameRemove takes the names of a NameAdd back. Those that are gone already are no error.
type NameRemove struct {
	Dir       string   `json:"dir"`
	Owner     string   `json:"owner"`
	Names     []string `json:"names"`
	Addresses []string `json:"addresses"`
}

func (*NameRemove) Kind() string { return "name-remove" }

func (*NameRemove) Man() string { return "unlink(2)" }

func (o *NameRemove) String() string { return "forget " + strings.Join(o.Names, ", ") }

func (*NameRemove) lanes() lanes { return hostLane }

func (o *NameRemove) hostNames() []string { return []string{o.Dir} }

// NameListen opens the sockets of the container's resolver in the child's network namespace, UDP and TCP, which whoever runs the plan keeps
// and answers, and leads the well-known port of the address to them: that port itself stays free for the container.
type NameListen struct {
	Address string   `json:"address"` // 127.0.0.11
	Port    uint16   `json:"port"`
	Table   string   `json:"table"`
	Rules   []string `json:"rules"` // in the syntax of nft(8)
}

func (*NameListen) Kind() string { return "name-listen" }

func (*NameListen) Man() string { return "udp(7)" }

func (o *NameListen) String() string {
	return fmt.Sprintf("answer questions for names at %s", o.Address)
}

func (*NameListen) lanes() lanes { return hostLane }
