package main

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// trafficTests probe the kernel's traffic control: first that each kind is
// there, then that those which marking and shaping need do what they say.
func trafficTests() []test {
	root := func(dev netlink.Link) netlink.QdiscAttrs {
		return netlink.QdiscAttrs{LinkIndex: dev.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT}
	}
	available := func(kind string, make func(netlink.QdiscAttrs) netlink.Qdisc) test {
		return test{"qdisc-" + kind, func(l *link) error {
			q := make(root(l.near))
			if err := netlink.QdiscReplace(q); err != nil {
				return fmt.Errorf("add %s: %w", kind, err)
			}
			list, err := netlink.QdiscList(l.near)
			if err != nil {
				return err
			}
			for _, have := range list {
				if have.Type() == kind && have.Attrs().Parent == netlink.HANDLE_ROOT {
					return sent(l, taggedAddr.Addr(), taggedPeer, ef, voicePriority,
						frame{tagged: true, vlan: vlanID, pcp: voicePCP, dscp: ef, dstPort: 20000})
				}
			}
			return fmt.Errorf("%s is not among %v", kind, list)
		}}
	}
	return []test{
		available("fq_codel", func(a netlink.QdiscAttrs) netlink.Qdisc { return netlink.NewFqCodel(a) }),
		available("htb", func(a netlink.QdiscAttrs) netlink.Qdisc { return netlink.NewHtb(a) }),
		available("prio", func(a netlink.QdiscAttrs) netlink.Qdisc { return netlink.NewPrio(a) }),
		available("cake", func(a netlink.QdiscAttrs) netlink.Qdisc {
			return &netlink.GenericQdisc{QdiscAttrs: a, QdiscType: "cake"}
		}),
		available("netem", func(a netlink.QdiscAttrs) netlink.Qdisc {
			return netlink.NewNetem(a, netlink.NetemQdiscAttrs{Latency: 1000})
		}),
		{"htb-u32-counts-ef", countsEF},
		{"flower-skbedit-sets-pcp", flowerMarks},
		{"matchall-pedit-rewrites", peditRewrites},
		{"mirred-to-ifb", mirrorsToIFB},
	}
}

// countsEF sends voice and data through HTB with a u32 filter on DSCP and wants
// the class counters to agree with what was sent.
func countsEF(l *link) error {
	dev := l.tagged
	htb := netlink.NewHtb(netlink.QdiscAttrs{LinkIndex: dev.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT})
	htb.Defcls = 2
	if err := netlink.QdiscAdd(htb); err != nil {
		return fmt.Errorf("add htb: %w", err)
	}
	class := func(minor uint16, rate uint64) error {
		a := netlink.ClassAttrs{LinkIndex: dev.Attrs().Index, Parent: netlink.MakeHandle(1, 0), Handle: netlink.MakeHandle(1, minor)}
		return netlink.ClassAdd(netlink.NewHtbClass(a, netlink.HtbClassAttrs{Rate: rate, Ceil: rate, Buffer: 1 << 16, Cbuffer: 1 << 16}))
	}
	if err := errors.Join(class(1, 10e6), class(2, 10e6)); err != nil {
		return fmt.Errorf("add class: %w", err)
	}
	if err := netlink.FilterAdd(&netlink.U32{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: dev.Attrs().Index, Parent: netlink.MakeHandle(1, 0), Priority: 1, Protocol: unix.ETH_P_IP},
		ClassId:     netlink.MakeHandle(1, 1),
		Sel: &netlink.TcU32Sel{Nkeys: 1, Flags: nl.TC_U32_TERMINAL, Keys: []netlink.TcU32Key{
			{Mask: 0x00fc0000, Val: ef << 18}, // the DSCP is bits 8 to 13 of an IPv4 header
		}},
	}); err != nil {
		return fmt.Errorf("add u32: %w", err)
	}
	to := netip.AddrPortFrom(taggedPeer, 20000)
	if err := errors.Join(sendUDP(taggedAddr.Addr(), to, ef, voicePriority, 17), sendUDP(taggedAddr.Addr(), to, 0, 0, 5)); err != nil {
		return err
	}
	classes, err := netlink.ClassList(dev, netlink.MakeHandle(1, 0))
	if err != nil {
		return err
	}
	got := map[uint32]uint32{}
	for _, c := range classes {
		if s := c.Attrs().Statistics; s != nil && s.Basic != nil {
			got[c.Attrs().Handle] = s.Basic.Packets
		}
	}
	if voice, data := got[netlink.MakeHandle(1, 1)], got[netlink.MakeHandle(1, 2)]; voice != 17 || data != 5 {
		return fmt.Errorf("class counters: %d voice, %d other; sent 17 and 5", voice, data)
	}
	return nil
}

// clsact puts a filter before a device's queue.
func clsact(dev netlink.Link, filter func(netlink.FilterAttrs) netlink.Filter) error {
	if err := netlink.QdiscAdd(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: dev.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}); err != nil {
		return fmt.Errorf("add clsact: %w", err)
	}
	f := filter(netlink.FilterAttrs{LinkIndex: dev.Attrs().Index, Parent: netlink.HANDLE_MIN_EGRESS, Priority: 1, Protocol: unix.ETH_P_IP})
	if err := netlink.FilterAdd(f); err != nil {
		return fmt.Errorf("add %s: %w", f.Type(), err)
	}
	return nil
}

// flowerMarks has flower give one port of an unmarked sender the priority of
// voice, as for traffic that is not ours.
func flowerMarks(l *link) error {
	udp := nl.IPProto(unix.IPPROTO_UDP)
	priority := uint32(voicePriority)
	if err := clsact(l.tagged, func(a netlink.FilterAttrs) netlink.Filter {
		edit := netlink.NewSkbEditAction()
		edit.Priority = &priority
		return &netlink.Flower{FilterAttrs: a, EthType: unix.ETH_P_IP, IPProto: &udp, DestPort: 20000, Actions: []netlink.Action{edit}}
	}); err != nil {
		return err
	}
	if err := tagged(l, 0, 0, frame{tagged: true, vlan: vlanID, pcp: voicePCP, dscp: 0, dstPort: 20000}); err != nil {
		return err
	}
	c, err := newCapture(l.far.Attrs().Index)
	if err != nil {
		return err
	}
	defer c.close()
	if err := sendUDP(taggedAddr.Addr(), netip.AddrPortFrom(taggedPeer, 20001), 0, 0, 1); err != nil {
		return err
	}
	got, err := c.frames(1)
	if err != nil || len(got) != 1 || got[0].pcp != 0 {
		return fmt.Errorf("another port: %+v, %v; want it unmarked", got, err)
	}
	return nil
}

// peditRewrites has pedit change a port on the way out.
func peditRewrites(l *link) error {
	if err := clsact(l.near, func(a netlink.FilterAttrs) netlink.Filter {
		edit := netlink.NewPeditAction()
		edit.Proto = unix.IPPROTO_UDP
		edit.DstPort = 20002
		return &netlink.MatchAll{FilterAttrs: a, Actions: []netlink.Action{edit}}
	}); err != nil {
		return err
	}
	return sent(l, plainAddr.Addr(), plainPeer, ef, voicePriority, frame{dscp: ef, dstPort: 20002})
}

// mirrorsToIFB copies what leaves to an intermediate device and captures there:
// the way to shape what comes in.
func mirrorsToIFB(l *link) error {
	if err := netlink.LinkAdd(&netlink.Ifb{LinkAttrs: netlink.LinkAttrs{Name: "shape0"}}); err != nil {
		return fmt.Errorf("add ifb: %w", err)
	}
	ifb, err := netlink.LinkByName("shape0")
	if err != nil {
		return err
	}
	defer func() { _ = netlink.LinkDel(ifb) }()
	if err := netlink.LinkSetUp(ifb); err != nil {
		return err
	}
	if err := clsact(l.near, func(a netlink.FilterAttrs) netlink.Filter {
		return &netlink.MatchAll{FilterAttrs: a, Actions: []netlink.Action{&netlink.MirredAction{
			ActionAttrs: netlink.ActionAttrs{Action: netlink.TC_ACT_PIPE}, MirredAction: netlink.TCA_EGRESS_MIRROR, Ifindex: ifb.Attrs().Index,
		}}}
	}); err != nil {
		return err
	}
	if err := sent(l, plainAddr.Addr(), plainPeer, ef, voicePriority, frame{dscp: ef, dstPort: 20000}); err != nil {
		return err
	}
	again, err := netlink.LinkByName("shape0")
	if err != nil {
		return err
	}
	if s := again.Attrs().Statistics; s == nil || s.RxPackets < 3 {
		return fmt.Errorf("the copy did not reach the ifb: %+v", s)
	}
	return nil
}
