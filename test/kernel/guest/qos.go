package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"

	"localloop/internal/config"
	"localloop/internal/qos"
)

const (
	branchVLAN = 200
	branchName = "near0.200"
)

var (
	branchAddr = netip.MustParsePrefix("203.0.113.1/24")
	branchPeer = netip.MustParseAddr("203.0.113.2")
)

// qosTests run the product's marks and classes on a VLAN device of this kernel.
func qosTests() []test {
	return []test{
		{"qos-vlan-voice-pcp5-dscp46-signalling-pcp3-dscp34", func(l *link) error { return withEgress(l, marksOnVLAN) }},
		{"qos-second-apply-changes-nothing", func(l *link) error { return withEgress(l, appliesTwice) }},
		{"qos-remove-gives-back", func(l *link) error { return withEgress(l, givesBack) }},
	}
}

// egress is the product's part under test.
type egress struct {
	*qos.Egress
	kernel *qos.Netlink
	conf   config.QoS
	realms []config.Realm
	far    netlink.Link
}

// withEgress makes a VLAN device with the product's map of priorities and has the
// product apply its classes to it.
func withEgress(l *link, run func(*egress) error) (err error) {
	vlan := &netlink.Vlan{
		LinkAttrs: netlink.LinkAttrs{Name: branchName, ParentIndex: l.near.Attrs().Index},
		VlanId:    branchVLAN, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q, EgressQosMap: qos.PriorityMap(),
	}
	if err := netlink.LinkAdd(vlan); err != nil {
		return fmt.Errorf("add VLAN device: %w", err)
	}
	dev, err := netlink.LinkByName(branchName)
	if err != nil {
		return err
	}
	if err := errors.Join(netlink.LinkSetUp(dev), l.address(dev, branchAddr, branchPeer)); err != nil {
		return err
	}
	kernel, err := qos.NewNetlink()
	if err != nil {
		return err
	}
	defer kernel.Close()
	e := &egress{
		Egress: qos.NewEgress(kernel, nil), kernel: kernel, far: l.far,
		conf:   config.QoS{Interfaces: []string{branchName}, Voice: 46, Signalling: 34},
		realms: []config.Realm{{Name: "lan", Interface: branchName, Ports: config.PortRange{Low: 20000, High: 20199}}},
	}
	defer func() { err = errors.Join(err, e.Remove()) }()
	if err := e.apply(); err != nil {
		return err
	}
	return run(e)
}

func (e *egress) apply() error {
	for _, s := range e.Apply(e.conf, e.realms) {
		if !s.Applied {
			return fmt.Errorf("%s: %s", s.Interface, s.Why)
		}
	}
	return nil
}

// send sends datagrams to a port of the peer through a socket of the product's.
func (e *egress) send(from, to uint16, count int, control func(network, address string, c syscall.RawConn) error) error {
	lc := net.ListenConfig{Control: control}
	conn, err := lc.ListenPacket(context.Background(), "udp4", netip.AddrPortFrom(branchAddr.Addr(), from).String())
	if err != nil {
		return err
	}
	defer conn.Close()
	for range count {
		if _, err := conn.WriteTo(make([]byte, 172), net.UDPAddrFromAddrPort(netip.AddrPortFrom(branchPeer, to))); err != nil {
			return err
		}
	}
	return nil
}

// traffic sends 9 packets of voice, 3 of voice without marks, 4 of signalling and
// 2 of others, each to a port of its own.
func (e *egress) traffic() error {
	marks := qos.NewMarks(e.conf)
	return errors.Join(
		e.send(20000, 9001, 9, marks.Control(qos.Voice)), e.send(20198, 9002, 3, nil),
		e.send(5061, 9003, 4, marks.Control(qos.Signalling)), e.send(30000, 9004, 2, nil))
}

// marksOnVLAN wants each kind of packet at the far end with its tag and code
// point, and the counters of the classes equal to what was captured.
func marksOnVLAN(e *egress) error {
	c, err := newCapture(e.far.Attrs().Index)
	if err != nil {
		return err
	}
	defer c.close()
	if err := e.traffic(); err != nil {
		return err
	}
	got, err := c.frames(19) // one more than there are: until none comes
	if err != nil {
		return err
	}
	count := map[frame]uint64{}
	for _, f := range got {
		count[f]++
	}
	on := func(pcp, dscp, port int) uint64 {
		return count[frame{tagged: true, vlan: branchVLAN, pcp: pcp, dscp: dscp, dstPort: port}]
	}
	voice, bare, signalling, other := on(5, 46, 9001), on(0, 0, 9002), on(3, 34, 9003), on(0, 0, 9004)
	if voice != 9 || bare != 3 || signalling != 4 || other != 2 || len(got) != 18 {
		return fmt.Errorf("captured %v", count)
	}
	s := e.Shares()[0]
	if share, ok := s.Marked(); s.Voice != voice || s.VoiceUnmarked != bare || s.Signalling != signalling || !ok || share != float64(voice)/float64(voice+bare) {
		return fmt.Errorf("counted %+v, captured %v", s, count)
	}
	return nil
}

// appliesTwice wants the tree with its handles and counters to outlive a second
// Apply, and nothing left to do.
func appliesTwice(e *egress) error {
	if err := e.traffic(); err != nil {
		return err
	}
	before, err := e.kernel.Read(branchName)
	if err != nil {
		return err
	}
	first := e.Shares()[0]
	if err := e.apply(); err != nil {
		return err
	}
	after, err := e.kernel.Read(branchName)
	if err != nil {
		return err
	}
	equal := func(a, b qos.Filter) bool {
		return a.Handle == b.Handle && a.Priority == b.Priority && a.Class == b.Class && slices.Equal(a.Keys, b.Keys)
	}
	if len(before.Filters) == 0 || !slices.EqualFunc(before.Filters, after.Filters, equal) {
		return fmt.Errorf("filters before %v, after %v", before.Filters, after.Filters)
	}
	if s := e.Shares()[0]; s.Voice != first.Voice || s.VoiceUnmarked != first.VoiceUnmarked || s.Signalling != first.Signalling || s.Voice != 9 {
		return fmt.Errorf("counted %+v before, %+v after", first, s)
	}
	ports := []config.PortRange{e.realms[0].Ports}
	plan, err := qos.PlanFor(qos.WantedTree(branchName, e.conf, ports), after)
	if err != nil || len(plan.Steps) > 0 {
		return fmt.Errorf("left to do: %s%v", plan, err)
	}
	return nil
}

// givesBack wants the kernel's own discipline in place after Remove.
func givesBack(e *egress) error {
	if err := e.Remove(); err != nil {
		return err
	}
	t, err := e.kernel.Read(branchName)
	if err != nil {
		return err
	}
	if len(t.Classes)+len(t.Filters) > 0 || t.Root.Kind == "htb" {
		return fmt.Errorf("left: %+v", t)
	}
	return nil
}
