package main

import "encoding/binary"

// frame is what matters of a captured Ethernet frame with IPv4 and UDP.
type frame struct {
	tagged  bool
	vlan    int
	pcp     int
	dscp    int
	dstPort int
}

// decode reads a frame as it is on the wire. ok is false for anything but UDP
// over IPv4.
func decode(b []byte) (f frame, ok bool) {
	if len(b) < 14 {
		return f, false
	}
	kind, rest := binary.BigEndian.Uint16(b[12:]), b[14:]
	if kind == 0x8100 { // IEEE 802.1Q §9.6: PCP, DEI, VID
		if len(rest) < 4 {
			return f, false
		}
		f.tag(binary.BigEndian.Uint16(rest))
		kind, rest = binary.BigEndian.Uint16(rest[2:]), rest[4:]
	}
	if kind != 0x0800 || len(rest) < 20 || rest[0]>>4 != 4 || rest[9] != 17 {
		return f, false
	}
	head := int(rest[0]&15) * 4
	if head < 20 || len(rest) < head+8 {
		return f, false
	}
	f.dscp = int(rest[1] >> 2)
	f.dstPort = int(binary.BigEndian.Uint16(rest[head+2:]))
	return f, true
}

func (f *frame) tag(tci uint16) {
	f.tagged, f.pcp, f.vlan = true, int(tci>>13), int(tci&0xfff)
}
