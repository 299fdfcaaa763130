package qos

import (
	"fmt"
	"net"
	"slices"

	"localloop/internal/config"
)

// major is the handle of our qdisc, 10ca: — LOCAl, as far as hexadecimal goes. A
// qdisc with another handle is not ours, and is not touched.
const major = 0x10CA0000

// Handles of our classes.
const (
	classRoot          = major | 0x1
	classVoice         = major | 0x10 // from a media port, with the voice mark
	classVoiceUnmarked = major | 0x11 // from a media port, with another mark
	classOtherEF       = major | 0x12 // with the voice mark, not from a media port
	classSignalling    = major | 0x20
	classOther         = major | 0x40
)

// noShaping is the rate of all classes, in bit/s: beyond any uplink of a branch,
// so HTB only classes and counts.
const noShaping = 10_000_000_000

// Tree is the classes of one interface: what is wanted, or what was found. Only
// what belongs to our qdisc is in it.
type Tree struct {
	Interface string
	Index     int
	Root      Qdisc
	Classes   []ClassNode
	Filters   []Filter
}

// Qdisc is the queueing discipline at the root of an interface.
type Qdisc struct {
	Kind    string // "htb"; empty if there is none
	Handle  uint32 // 0: the kernel's default
	Default uint32 // minor of the class for what no filter matches
}

func (q Qdisc) ours() bool    { return q.Kind == "htb" && q.Handle == major }
func (q Qdisc) foreign() bool { return q.Kind != "" && q.Handle != 0 && !q.ours() }

func (q Qdisc) String() string { return fmt.Sprintf("%s %s", q.Kind, handleText(q.Handle)) }

// ClassNode is a class of HTB.
type ClassNode struct {
	Handle, Parent uint32
	Priority       uint32 // 0 is served first
	Rate           uint64 // bit/s
	Packets        uint32 // sent so far, as found
	Bytes          uint64
}

func (c ClassNode) same(o ClassNode) bool {
	return c.Handle == o.Handle && c.Parent == o.Parent && c.Priority == o.Priority && c.Rate == o.Rate
}

// Filter is a u32 filter: packets of one IP version whose words match all keys
// go to a class.
type Filter struct {
	Handle   uint32 // as found
	Priority uint16 // order of trial; one IP version each
	IPv6     bool
	Keys     []Key
	Class    uint32
}

// Key compares a word at an offset from the start of the IP header.
type Key struct {
	Offset      int32
	Mask, Value uint32
}

func (f Filter) same(o Filter) bool {
	return f.Priority == o.Priority && f.IPv6 == o.IPv6 && f.Class == o.Class && slices.Equal(f.Keys, o.Keys)
}

// WantedTree is the tree for an interface: voice known by the source ports of
// media. With no ports every packet that has the voice mark counts as voice.
func WantedTree(name string, c config.QoS, ports []config.PortRange) Tree {
	t := Tree{
		Interface: name,
		Root:      Qdisc{Kind: "htb", Handle: major, Default: classOther & 0xFFFF},
		Classes: []ClassNode{
			{Handle: classRoot, Parent: major, Rate: noShaping},
			{Handle: classVoice, Parent: classRoot, Priority: 0, Rate: noShaping},
			{Handle: classVoiceUnmarked, Parent: classRoot, Priority: 0, Rate: noShaping},
			{Handle: classOtherEF, Parent: classRoot, Priority: 1, Rate: noShaping},
			{Handle: classSignalling, Parent: classRoot, Priority: 2, Rate: noShaping},
			{Handle: classOther, Parent: classRoot, Priority: 4, Rate: noShaping},
		},
	}
	var blocks []Key
	for _, r := range ports {
		blocks = append(blocks, cover(r)...)
	}
	add := func(class uint32, keys4, keys6 []Key) {
		// The kernel wants a priority of its own for each protocol.
		n := uint16(len(priorities(t.Filters)))
		t.Filters = append(t.Filters,
			Filter{Priority: n + 1, Keys: keys4, Class: class},
			Filter{Priority: n + 2, IPv6: true, Keys: keys6, Class: class})
	}
	each := func(class uint32, dscp ...config.DSCP) {
		n := uint16(len(priorities(t.Filters)))
		for _, v6 := range []bool{false, true} {
			n++
			for _, b := range blocks {
				keys := mediaKeys(v6, b)
				for _, d := range dscp {
					keys = append([]Key{dscpKey(v6, d)}, keys...)
				}
				t.Filters = append(t.Filters, Filter{Priority: n, IPv6: v6, Keys: merge(keys), Class: class})
			}
		}
	}
	if len(blocks) > 0 {
		each(classVoice, c.Voice)
		each(classVoiceUnmarked)
	}
	rest := uint32(classOtherEF)
	if len(blocks) == 0 {
		rest = classVoice
	}
	add(rest, []Key{dscpKey(false, c.Voice)}, []Key{dscpKey(true, c.Voice)})
	if c.Signalling != c.Voice {
		add(classSignalling, []Key{dscpKey(false, c.Signalling)}, []Key{dscpKey(true, c.Signalling)})
	}
	return t
}

func priorities(filters []Filter) map[uint16]bool {
	m := map[uint16]bool{}
	for _, f := range filters {
		m[f.Priority] = true
	}
	return m
}

// dscpKey matches the DSCP: byte 1 of IPv4 (RFC 791), bits 4–9 of IPv6 (RFC
// 8200 §3); the two ECN bits below are anything.
func dscpKey(v6 bool, d config.DSCP) Key {
	if v6 {
		return Key{Mask: 0x0FC00000, Value: uint32(d) << 22}
	}
	return Key{Mask: 0x00FC0000, Value: uint32(d) << 18}
}

// mediaKeys match UDP with a source port of a block. The UDP header is taken to
// follow the fixed IP header: our media has neither options nor extension
// headers, and later fragments, which have no ports, are excluded.
func mediaKeys(v6 bool, block Key) []Key {
	if v6 {
		block.Offset = 40
		return []Key{{Offset: 4, Mask: 0x0000FF00, Value: 17 << 8}, block}
	}
	block.Offset = 20
	return []Key{
		{Offset: 0, Mask: 0x0F000000, Value: 5 << 24},
		{Offset: 4, Mask: 0x00001FFF},
		{Offset: 8, Mask: 0x00FF0000, Value: 17 << 16},
		block,
	}
}

// merge joins keys of the same word.
func merge(keys []Key) []Key {
	var out []Key
	for _, k := range keys {
		i := slices.IndexFunc(out, func(o Key) bool { return o.Offset == k.Offset })
		if i < 0 {
			out = append(out, k)
			continue
		}
		out[i].Mask |= k.Mask
		out[i].Value |= k.Value
	}
	return out
}

// cover is the fewest aligned blocks that make up a range of ports, as keys of
// the word that begins with the source port.
func cover(r config.PortRange) []Key {
	var keys []Key
	for low, high := uint32(r.Low), uint32(r.High); low <= high; {
		size := uint32(1)
		for low%(2*size) == 0 && low+2*size-1 <= high && size < 1<<16 {
			size *= 2
		}
		keys = append(keys, Key{Mask: (0xFFFF &^ (size - 1)) << 16, Value: low << 16})
		low += size
	}
	return keys
}

func handleText(h uint32) string {
	if h&0xFFFF == 0 {
		return fmt.Sprintf("%x:", h>>16)
	}
	return fmt.Sprintf("%x:%x", h>>16, h&0xFFFF)
}

// checkName refuses what the kernel would not take for an interface.
func checkName(name string) error {
	if name == "" || len(name) > 15 {
		return &net.AddrError{Err: "no interface name", Addr: name}
	}
	return nil
}
