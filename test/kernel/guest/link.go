package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Addresses and VLAN of a link under test.
const (
	vlanID   = 100
	voicePCP = 5
	// voicePriority is mapped to voicePCP by the VLAN device. It is another
	// number on purpose, so that the map is what is tested.
	voicePriority = 6
	ef            = 46
)

var (
	plainAddr  = netip.MustParsePrefix("192.0.2.1/24")
	plainPeer  = netip.MustParseAddr("192.0.2.2")
	taggedAddr = netip.MustParsePrefix("198.51.100.1/24")
	taggedPeer = netip.MustParseAddr("198.51.100.2")
)

// link is a cable with two ends in this machine: what is sent through near
// arrives at far, where it is captured. tagged is a VLAN device on near.
type link struct {
	near, far, tagged netlink.Link
}

func newLink() (*link, error) {
	// Left over from a test that hung or failed.
	if old, err := netlink.LinkByName("near0"); err == nil {
		_ = netlink.LinkDel(old)
	}
	l := &link{}
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "near0"}, PeerName: "far0"}); err != nil {
		return nil, fmt.Errorf("add veth: %w", err)
	}
	var err error
	if l.near, err = netlink.LinkByName("near0"); err != nil {
		return nil, err
	}
	if l.far, err = netlink.LinkByName("far0"); err != nil {
		return nil, err
	}
	vlan := &netlink.Vlan{
		LinkAttrs:    netlink.LinkAttrs{Name: "near0.100", ParentIndex: l.near.Attrs().Index},
		VlanId:       vlanID,
		VlanProtocol: netlink.VLAN_PROTOCOL_8021Q,
		EgressQosMap: map[uint32]uint32{voicePriority: voicePCP},
	}
	if err := netlink.LinkAdd(vlan); err != nil {
		return nil, fmt.Errorf("add VLAN device with egress map: %w", err)
	}
	if l.tagged, err = netlink.LinkByName("near0.100"); err != nil {
		return nil, err
	}
	return l, errors.Join(
		netlink.LinkSetUp(l.far), netlink.LinkSetUp(l.near), netlink.LinkSetUp(l.tagged),
		l.address(l.near, plainAddr, plainPeer), l.address(l.tagged, taggedAddr, taggedPeer),
	)
}

// address gives dev an address and a neighbour that is always there.
func (l *link) address(dev netlink.Link, own netip.Prefix, peer netip.Addr) error {
	ipNet := &net.IPNet{IP: own.Addr().AsSlice(), Mask: net.CIDRMask(own.Bits(), 32)}
	if err := netlink.AddrAdd(dev, &netlink.Addr{IPNet: ipNet}); err != nil {
		return fmt.Errorf("address of %s: %w", dev.Attrs().Name, err)
	}
	return l.neighbour(dev, peer)
}

func (l *link) neighbour(dev netlink.Link, peer netip.Addr) error {
	if err := netlink.NeighSet(&netlink.Neigh{
		LinkIndex: dev.Attrs().Index, IP: peer.AsSlice(), State: netlink.NUD_PERMANENT, HardwareAddr: l.far.Attrs().HardwareAddr,
	}); err != nil {
		return fmt.Errorf("neighbour on %s: %w", dev.Attrs().Name, err)
	}
	return nil
}

func (l *link) remove() { _ = netlink.LinkDel(l.near) }

// sendUDP sends datagrams from a socket of its own with the marks given.
func sendUDP(from netip.Addr, to netip.AddrPort, dscp, priority, count int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TOS, dscp<<2); err != nil {
		return fmt.Errorf("IP_TOS: %w", err)
	}
	// After IP_TOS, which sets a priority of its own.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PRIORITY, priority); err != nil {
		return fmt.Errorf("SO_PRIORITY: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: from.As4()}); err != nil {
		return fmt.Errorf("bind %v: %w", from, err)
	}
	for range count {
		if err := unix.Sendto(fd, make([]byte, 172), 0, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}); err != nil {
			return fmt.Errorf("send to %v: %w", to, err)
		}
	}
	return nil
}
