package main

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// vlanTests prove that what a socket asks for is what an 802.1Q switch sees.
func vlanTests() []test {
	return []test{
		{"vlan-voice-is-pcp5-dscp46", func(l *link) error {
			return tagged(l, ef, voicePriority, frame{tagged: true, vlan: vlanID, pcp: voicePCP, dscp: ef, dstPort: 20000})
		}},
		// Without the priority the same socket has no class of service: the mark
		// above is the map's doing.
		{"vlan-unmapped-is-pcp0", func(l *link) error {
			return tagged(l, ef, 0, frame{tagged: true, vlan: vlanID, pcp: 0, dscp: ef, dstPort: 20000})
		}},
		// The map can be added to later, but only while the device is down: the
		// library sends the name along, and Linux 6.1 takes that for a renaming.
		{"vlan-map-grows-while-down", func(l *link) error {
			if err := errors.Join(
				netlink.LinkSetDown(l.tagged),
				netlink.LinkModify(&netlink.Vlan{
					LinkAttrs: netlink.LinkAttrs{Name: "near0.100", Index: l.tagged.Attrs().Index, ParentIndex: l.near.Attrs().Index},
					VlanId:    vlanID, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q,
					EgressQosMap: map[uint32]uint32{4: 3},
				}),
				netlink.LinkSetUp(l.tagged),
				l.neighbour(l.tagged, taggedPeer), // forgotten with the link
			); err != nil {
				return fmt.Errorf("change egress map: %w", err)
			}
			// 34 is AF41, for signalling.
			if err := tagged(l, 34, 4, frame{tagged: true, vlan: vlanID, pcp: 3, dscp: 34, dstPort: 20000}); err != nil {
				return err
			}
			return tagged(l, ef, voicePriority, frame{tagged: true, vlan: vlanID, pcp: voicePCP, dscp: ef, dstPort: 20000})
		}},
		{"plain-link-is-untagged", func(l *link) error {
			return sent(l, plainAddr.Addr(), plainPeer, ef, voicePriority, frame{dscp: ef, dstPort: 20000})
		}},
		{"vlan-map-reads-back", func(l *link) error {
			again, err := netlink.LinkByName("near0.100")
			if err != nil {
				return err
			}
			v, ok := again.(*netlink.Vlan)
			if !ok {
				return fmt.Errorf("read back as %s", again.Type())
			}
			if v.VlanId != vlanID || v.EgressQosMap[voicePriority] != voicePCP {
				return fmt.Errorf("read back VLAN %d with map %v", v.VlanId, v.EgressQosMap)
			}
			return nil
		}},
	}
}

func tagged(l *link, dscp, priority int, want frame) error {
	return sent(l, taggedAddr.Addr(), taggedPeer, dscp, priority, want)
}

// sent sends three datagrams to port 20000 and wants each at the far end as
// given.
func sent(l *link, from, to netip.Addr, dscp, priority int, want frame) error {
	c, err := newCapture(l.far.Attrs().Index)
	if err != nil {
		return err
	}
	defer c.close()
	if err := sendUDP(from, netip.AddrPortFrom(to, 20000), dscp, priority, 3); err != nil {
		return err
	}
	got, err := c.frames(3)
	if err != nil {
		return err
	}
	if len(got) != 3 {
		return fmt.Errorf("%d of 3 frames captured", len(got))
	}
	for _, f := range got {
		if f != want {
			return fmt.Errorf("captured %+v, want %+v", f, want)
		}
	}
	return nil
}
